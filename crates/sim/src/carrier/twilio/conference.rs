//! Conferences: rooms in which calls hear each other. The first call that comes in makes the room, and it is over when the last
//! one has left, or one that ends it. A room knows its calls, not the documents that led them there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use offhook_media::FRAME_SAMPLES;
use offhook_media::dtmf::{self, Keying};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::super::phone::{FromPhone, SAMPLES_PER_MS, What};
use super::call::{Call, Params, deliver};
use super::execute::{Next, Scope, Script};
use super::twiml::{Complaint, Conference, Dial, Hook, Wait};
use super::webhook::{Request, WebhookKind};
use super::{Sim, new_sid, rfc2822};

/// What is played to those who wait, where the document names nothing else.
const HOLD_MUSIC: &str = "http://twimlets.com/holdmusic?Bucket=com.twilio.music.classical";
const BEEP_MS: u64 = 200;
/// Rooms that are kept; beyond, the oldest that is over is forgotten.
const MAX_ROOMS: usize = 1_000;

/// Where a conference stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConferenceStatus {
    /// Not all are there yet: whoever is, waits.
    Init,
    /// Its participants hear each other.
    InProgress,
    /// Over.
    Completed,
}

impl ConferenceStatus {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            ConferenceStatus::Init => "init",
            ConferenceStatus::InProgress => "in-progress",
            ConferenceStatus::Completed => "completed",
        }
    }
}

/// Why one left, and what that means for the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    HungUp,
    /// It was sent elsewhere, or its document went on.
    Updated,
    /// It was put out by the API.
    Kicked,
}

/// One that is in a room.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) call: Arc<Call>,
    pub(super) label: Option<String>,
    pub(super) starts: bool,
    pub(super) ends: bool,
    pub(super) muted: bool,
    pub(super) hold: bool,
    pub(super) entered: Timestamp,
    beeps_on_exit: bool,
}

pub(super) struct Room {
    pub(super) sid: String,
    pub(super) name: String,
    account_sid: String,
    facts: Mutex<Facts>,
    changed: watch::Sender<()>,
}

/// What becomes known of a room while it lives.
pub(super) struct Facts {
    pub(super) status: ConferenceStatus,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
    pub(super) members: Vec<Member>,
    /// Why it is over, and the call that brought that about.
    pub(super) ended: Option<(&'static str, Option<String>)>,
    max: usize,
    told: Option<Told>,
    sequence: u32,
}

/// Who is told of what: the first participant that brings an address decides it for the room.
struct Told {
    hook: Hook,
    events: BTreeSet<String>,
    callbacks: mpsc::UnboundedSender<Request>,
}

/// Takes part until the room is over, the call leaves by itself, or the future is dropped.
///
/// The future is boxed because those who wait hear a document, and documents dial.
pub(super) fn attend<'a>(script: Script<'a>, dial: &'a Dial, noun: &'a Conference) -> BoxFuture<'a, ()> {
    take_part(script, dial, noun).boxed()
}

async fn take_part(script: Script<'_>, dial: &Dial, noun: &Conference) {
    let Script { sim, call, .. } = script;
    call.answer();
    let Some(mut seat) = Seat::take(sim, call, noun) else {
        let message = format!("conference {} is full", noun.name);
        sim.alert(&call.sid, Complaint { code: 12200, message });
        return;
    };
    let mut changed = seat.room.changed.subscribe();
    let limit = tokio::time::sleep(Duration::from_secs(dial.time_limit_s));
    tokio::pin!(limit);
    let mut from_phone = call.line.take();
    let mut entertainment = Some(entertain(script, &noun.wait).boxed());
    loop {
        changed.borrow_and_update();
        match seat.room.standing(&call.sid) {
            None => return,
            Some(ConferenceStatus::Init) => {}
            Some(_) => entertainment = None,
        }
        let waits = async {
            match &mut entertainment {
                Some(waiting) => waiting.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = changed.changed() => {}
            () = &mut limit => return,
            Some(said) = from_phone.recv() => match said {
                FromPhone::Digit('*') if dial.hangup_on_star => return,
                said => seat.pass_on(said, &noun.wait),
            },
            () = waits => {}
        }
    }
}

/// Runs the document for those who wait, again and again; what it is the default for is played frame by frame.
async fn entertain(script: Script<'_>, wait: &Wait) {
    match wait {
        Wait::Music => script.call.line.note(What::CarrierPlayed { url: HOLD_MUSIC.into() }),
        Wait::Silence => {}
        Wait::Document(hook) => {
            let script = Script { scope: Scope::Waiting, fallback: None, ..script };
            loop {
                script.run(Next::Fetch { hook: hook.clone(), params: Vec::new() }).await;
                // A document with nothing to play would otherwise be asked for without a pause.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    std::future::pending().await
}

/// A place in a room; dropped, it is left.
struct Seat {
    room: Arc<Room>,
    call: Arc<Call>,
    /// Up to where each other one has been given what this one says.
    given: BTreeMap<String, u64>,
}

impl Seat {
    fn take(sim: &Arc<Sim>, call: &Arc<Call>, noun: &Conference) -> Option<Seat> {
        let room = {
            let mut state = sim.lock();
            let open = state.rooms.iter().find(|room| room.name == noun.name && !room.is_over()).cloned();
            let room = open.unwrap_or_else(|| {
                if state.rooms.len() >= MAX_ROOMS {
                    let over = state.rooms.iter().position(|room| room.is_over()).unwrap_or(0);
                    state.rooms.remove(over);
                }
                let room = Arc::new(Room::new(sim, noun));
                state.rooms.push(room.clone());
                room
            });
            // Under the lock of the account, so that the last one does not leave in between.
            if !room.enter(sim, call, noun) {
                return None;
            }
            room
        };
        sim.calls_changed.send_replace(());
        Some(Seat { room, call: call.clone(), given: BTreeMap::new() })
    }

    /// What one says, all others hear; while the room has not started, it hears music instead.
    fn pass_on(&mut self, said: FromPhone, wait: &Wait) {
        let facts = self.room.lock();
        let me = facts.members.iter().find(|member| member.call.sid == self.call.sid);
        let Some(me) = me else { return };
        if facts.status == ConferenceStatus::Init || me.hold {
            if let (FromPhone::Frame { at, .. }, Wait::Music) = (&said, wait) {
                let given = self.given.entry(self.call.sid.clone()).or_default();
                let _ = self.call.line.mix_from(&self.call.line, *at, &music(*at), given);
            }
            return;
        }
        if me.muted {
            return;
        }
        let others = facts.members.iter().filter(|other| other.call.sid != self.call.sid && !other.hold);
        for other in others {
            let given = self.given.entry(other.call.sid.clone()).or_default();
            // A line whose buffer is full loses sound.
            let _ = match &said {
                FromPhone::Frame { at, pcm } => {
                    other.call.line.mix_from(&self.call.line, *at, pcm.as_slice(), given)
                }
                FromPhone::Digit(digit) => {
                    let tone = dtmf::tones(&digit.to_string(), Keying::default()).unwrap_or_default();
                    other.call.line.mix(&tone)
                }
            };
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let hung_up = self.call.line.caller_has_hung_up();
        self.room.leave(&self.call.sid, if hung_up { Leaving::HungUp } else { Leaving::Updated });
    }
}

impl Room {
    fn new(sim: &Sim, noun: &Conference) -> Room {
        let now = Timestamp::now();
        Room {
            sid: new_sid("CF"),
            name: noun.name.clone(),
            account_sid: sim.settings.account_sid.clone(),
            facts: Mutex::new(Facts {
                status: ConferenceStatus::Init,
                created: now,
                updated: now,
                members: Vec::new(),
                ended: None,
                max: noun.max_participants,
                told: None,
                sequence: 0,
            }),
            changed: watch::Sender::new(()),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.lock().status == ConferenceStatus::Completed
    }

    /// Where the room stands for one who is in it; nothing for all others.
    fn standing(&self, call_sid: &str) -> Option<ConferenceStatus> {
        let facts = self.lock();
        facts.members.iter().any(|member| member.call.sid == call_sid).then_some(facts.status)
    }

    fn enter(&self, sim: &Arc<Sim>, call: &Arc<Call>, noun: &Conference) -> bool {
        let mut facts = self.lock();
        if facts.members.len() >= facts.max {
            return false;
        }
        if facts.told.is_none() {
            facts.told = noun.status_callback.clone().map(|hook| Told {
                hook,
                events: noun.status_events.iter().cloned().collect(),
                callbacks: deliver(sim.clone(), call.sid.clone(), sim.settings.callbacks),
            });
        }
        let member = Member {
            call: call.clone(),
            label: noun.label.clone(),
            starts: noun.starts_on_enter,
            ends: noun.ends_on_exit,
            muted: noun.muted,
            hold: false,
            entered: Timestamp::now(),
            beeps_on_exit: noun.beep.on_exit,
        };
        facts.members.push(member.clone());
        self.tell(&mut facts, "join", Some(&member), &[]);
        let ready = facts.members.len() > 1 && facts.members.iter().any(|member| member.starts);
        if facts.status == ConferenceStatus::Init && ready {
            facts.status = ConferenceStatus::InProgress;
            self.tell(&mut facts, "start", Some(&member), &[]);
        }
        if noun.beep.on_enter {
            beep(&facts.members);
        }
        facts.updated = Timestamp::now();
        self.changed.send_replace(());
        true
    }

    /// Lets one go, and all others with it where it was the one that ends the room.
    pub(super) fn leave(&self, call_sid: &str, leaving: Leaving) {
        let mut facts = self.lock();
        let Some(index) = facts.members.iter().position(|member| member.call.sid == call_sid) else { return };
        let member = facts.members.remove(index);
        self.tell_left(&mut facts, &member, leaving);
        let kicked = leaving == Leaving::Kicked;
        if member.ends || facts.members.is_empty() {
            let reason = match (member.ends, kicked) {
                (true, false) => "participant-with-end-conference-on-exit-left",
                (true, true) => "participant-with-end-conference-on-exit-kicked",
                (false, false) => "last-participant-left",
                (false, true) => "last-participant-kicked",
            };
            self.end(&mut facts, reason, Some(call_sid));
        } else if member.beeps_on_exit {
            beep(&facts.members);
        }
        facts.updated = Timestamp::now();
        self.changed.send_replace(());
    }

    /// Changes how one takes part; nothing where it is not in the room any more.
    pub(super) fn change(
        &self,
        call_sid: &str,
        muted: Option<bool>,
        hold: Option<bool>,
        ends: Option<bool>,
    ) -> Option<Member> {
        let mut facts = self.lock();
        let member = facts.members.iter_mut().find(|member| member.call.sid == call_sid)?;
        let before = (member.muted, member.hold);
        member.muted = muted.unwrap_or(member.muted);
        member.hold = hold.unwrap_or(member.hold);
        member.ends = ends.unwrap_or(member.ends);
        let member = member.clone();
        if member.muted != before.0 {
            self.tell(&mut facts, if member.muted { "mute" } else { "unmute" }, Some(&member), &[]);
        }
        if member.hold != before.1 {
            self.tell(&mut facts, if member.hold { "hold" } else { "unhold" }, Some(&member), &[]);
        }
        facts.updated = Timestamp::now();
        Some(member)
    }

    /// Ends the room by the API.
    pub(super) fn complete(&self) {
        let mut facts = self.lock();
        if facts.status != ConferenceStatus::Completed {
            self.end(&mut facts, "conference-ended-via-api", None);
            self.changed.send_replace(());
        }
    }

    fn end(&self, facts: &mut Facts, reason: &'static str, by: Option<&str>) {
        for member in std::mem::take(&mut facts.members) {
            self.tell_left(facts, &member, Leaving::Updated);
        }
        facts.status = ConferenceStatus::Completed;
        facts.ended = Some((reason, by.map(str::to_owned)));
        let mut extra = vec![("ReasonConferenceEnded", reason)];
        extra.extend(by.map(|sid| ("CallSidEndingConference", sid)));
        self.tell(facts, "end", None, &extra);
        // With the last sender gone the callbacks that were held back go out.
        facts.told = None;
    }

    fn tell_left(&self, facts: &mut Facts, member: &Member, leaving: Leaving) {
        let reason = match leaving {
            Leaving::HungUp => "participant_hung_up",
            Leaving::Updated => "participant_updated_via_api",
            Leaving::Kicked => "participant_kicked",
        };
        let status = member.call.status().as_str();
        let extra = [("ReasonParticipantLeft", reason), ("ParticipantCallStatus", status)];
        self.tell(facts, "leave", Some(member), &extra);
    }

    fn tell(&self, facts: &mut Facts, event: &str, member: Option<&Member>, extra: &[(&str, &str)]) {
        facts.sequence += 1;
        let Some(told) = &facts.told else { return };
        // The event that is subscribed to as `mute` is told as `participant-mute` and `participant-unmute`.
        if !told.events.contains(event.trim_start_matches("un")) {
            return;
        }
        let mut params = Params::default();
        let whole = if member.is_some() && event != "start" { "participant" } else { "conference" };
        params.add("StatusCallbackEvent", &format!("{whole}-{event}"));
        params.add("AccountSid", &self.account_sid);
        params.add("ConferenceSid", &self.sid);
        params.add("FriendlyName", &self.name);
        params.add("SequenceNumber", &facts.sequence.to_string());
        params.add("Timestamp", &rfc2822(Timestamp::now()));
        if let Some(member) = member {
            params.add("CallSid", &member.call.sid);
            params.add_known("ParticipantLabel", member.label.as_deref());
            for (name, value) in [
                ("Muted", member.muted),
                ("Hold", member.hold),
                ("Coaching", false),
                ("StartConferenceOnEnter", member.starts),
                ("EndConferenceOnExit", member.ends),
            ] {
                params.add(name, if value { "true" } else { "false" });
            }
        }
        for (name, value) in extra {
            params.add(name, value);
        }
        let Hook { url, method } = told.hook.clone();
        let signing = Default::default();
        let request = Request { kind: WebhookKind::Conference, url, method, params: params.0, signing };
        // The deliverer lives as long as this sender does.
        let _ = told.callbacks.send(request);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// All hear that somebody came or went.
fn beep(members: &[Member]) {
    const PERIOD: [i16; 16] = [
        0, 2_300, 4_200, 5_500, 6_000, 5_500, 4_200, 2_300, 0, -2_300, -4_200, -5_500, -6_000, -5_500,
        -4_200, -2_300,
    ];
    let samples = BEEP_MS * SAMPLES_PER_MS;
    let tone: Vec<i16> = (0..samples).map(|sample| PERIOD[sample as usize % PERIOD.len()]).collect();
    for member in members {
        // A line whose buffer is full loses sound.
        let _ = member.call.line.mix(&tone);
    }
}

/// One frame of music: a chord that is no speech and no key.
fn music(at: u64) -> [i16; FRAME_SAMPLES] {
    std::array::from_fn(|index| {
        let seconds = (at + index as u64) as f64 / (SAMPLES_PER_MS * 1_000) as f64;
        let chord: f64 =
            [262.0, 330.0, 392.0].map(|hz: f64| (std::f64::consts::TAU * hz * seconds).sin()).iter().sum();
        (chord * 1_500.0) as i16
    })
}
