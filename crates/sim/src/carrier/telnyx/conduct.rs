//! Runs one leg from its first ring to its end: carries out what was commanded, and tells what came of it by webhooks alone.
//! It knows the leg and its line, not how commands are written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use offhook_media::LINE_RATE_HZ;
use offhook_media::dtmf::{self, Keying};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::person::Pickup;
use super::super::phone::{FromPhone, Party, What};
use super::super::socket::at;
use super::call::{Call, CallEnd, CallState, Direction, HangupCause, HangupSource, Parks};
use super::stream::{self, StreamWish};
use super::{Sim, dial};

/// `w` and `W` in digits to send.
const SHORT_WAIT_MS: usize = 500;
const LONG_WAIT_MS: usize = 1_000;
const SIP_TRYING: u64 = 100;

/// What a running leg is told.
pub(super) enum Order {
    Answer(Option<Box<StreamWish>>),
    Reject(HangupCause),
    HangUp,
    StartStream(Box<StreamWish>),
    StopStream,
    Transfer(Box<dial::Transfer>),
    Bridge { peer: Arc<Call>, parks: Parks },
    Sound(Sound),
    StopSounds,
    Gather { gather: Box<Gather>, prompt: Option<Sound> },
    StopGather,
    SendDigits { digits: String, each_ms: u32 },
    Refer(String),
}

/// Something that the carrier itself lets the far party hear.
#[derive(Clone, Debug)]
pub(super) enum Sound {
    Speech { text: String },
    File { url: Option<String>, name: Option<String> },
}

impl Sound {
    fn length(&self, sim: &Sim) -> Duration {
        Duration::from_millis(match self {
            Sound::Speech { text } => text.chars().count() as u64 * sim.settings.say_ms_per_character,
            Sound::File { .. } => sim.settings.play_ms,
        })
    }

    fn event(&self) -> &'static str {
        match self {
            Sound::Speech { .. } => "call.speak",
            Sound::File { .. } => "call.playback",
        }
    }

    fn facts(&self) -> Value {
        match self {
            Sound::Speech { .. } => json!({}),
            Sound::File { url, name } => json!({"media_url": url, "media_name": name, "overlay": false}),
        }
    }
}

/// How keys are gathered.
#[derive(Clone, Debug)]
pub(super) struct Gather {
    pub(super) most: usize,
    pub(super) least: usize,
    pub(super) valid: String,
    pub(super) finish: Option<char>,
    pub(super) total: Duration,
    pub(super) first: Duration,
    pub(super) between: Duration,
    /// How often a prompt is played at most while no key comes.
    pub(super) tries: u64,
}

struct Gathering {
    wish: Gather,
    prompt: Option<Sound>,
    digits: String,
    gives_up: Instant,
    next_by: Instant,
}

/// How far into a call it may go without this or that.
pub(super) struct Limits {
    /// From the first ring to the first command.
    pub(super) first_command: Option<Duration>,
    /// From the answer to the end.
    pub(super) whole: Duration,
}

/// Runs a call to its end.
pub(super) async fn conduct(
    sim: Arc<Sim>,
    call: Arc<Call>,
    mut orders: mpsc::Receiver<Order>,
    limits: Limits,
) {
    let mut from_phone = call.line.take();
    let mut desk = Desk::new(&sim, &call, &limits);
    let (end, by) = loop {
        let alarm = desk.alarm();
        tokio::select! {
            biased;
            () = call.line.caller_hangs_up() => break desk.far_party_leaves(),
            order = orders.recv() => {
                if let Some(end) = desk.obey(order.unwrap_or(Order::HangUp)).await {
                    break end;
                }
            }
            () = at(alarm) => {
                if let Some(end) = desk.pass(Instant::now()) {
                    break end;
                }
            }
            Some(said) = from_phone.recv() => desk.hear(said),
        }
    };
    desk.close().await;
    call.finish(end, by);
}

struct Desk<'a> {
    sim: &'a Arc<Sim>,
    call: &'a Arc<Call>,
    first_command_by: Option<Instant>,
    whole: Duration,
    ends_by: Option<Instant>,
    sounds: VecDeque<Sound>,
    sounds_until: Option<Instant>,
    gathering: Option<Gathering>,
}

type Ended = (CallEnd, Party);

impl<'a> Desk<'a> {
    fn new(sim: &'a Arc<Sim>, call: &'a Arc<Call>, limits: &Limits) -> Desk<'a> {
        let now = Instant::now();
        Desk {
            sim,
            call,
            first_command_by: limits.first_command.map(|limit| now + limit),
            whole: limits.whole,
            ends_by: (call.state() == CallState::Answered).then(|| now + limits.whole),
            sounds: VecDeque::new(),
            sounds_until: None,
            gathering: None,
        }
    }

    /// The end by whom the telephone at the far end belongs to.
    fn far_party_leaves(&self) -> Ended {
        let answered = self.call.state() == CallState::Answered;
        let cause = if answered { HangupCause::NormalClearing } else { HangupCause::OriginatorCancel };
        let source = match self.call.direction {
            Direction::Incoming => HangupSource::Caller,
            Direction::Outgoing => HangupSource::Callee,
        };
        (CallEnd { cause, source }, Party::Caller)
    }

    /// The end by a command.
    fn we_leave(&self, cause: HangupCause) -> Ended {
        let source = match self.call.direction {
            Direction::Incoming => HangupSource::Callee,
            Direction::Outgoing => HangupSource::Caller,
        };
        (CallEnd { cause, source }, Party::Agent)
    }

    fn carrier_ends(cause: HangupCause) -> Ended {
        (CallEnd { cause, source: HangupSource::Unknown }, Party::Carrier)
    }

    fn alarm(&self) -> Option<Instant> {
        let gathering = self.gathering.as_ref().map(|gathering| gathering.gives_up.min(gathering.next_by));
        [self.first_command_by, self.ends_by, self.sounds_until, gathering].into_iter().flatten().min()
    }

    fn pass(&mut self, now: Instant) -> Option<Ended> {
        if self.first_command_by.is_some_and(|by| by <= now) {
            return Some(Desk::carrier_ends(HangupCause::Timeout));
        }
        if self.ends_by.is_some_and(|by| by <= now) {
            return Some(Desk::carrier_ends(HangupCause::TimeLimit));
        }
        if self.sounds_until.is_some_and(|until| until <= now) {
            self.sound_ends("completed");
        }
        let late = |gathering: &Gathering| gathering.gives_up <= now || gathering.next_by <= now;
        if self.gathering.as_ref().is_some_and(late) {
            self.gather_is_late();
        }
        None
    }

    async fn obey(&mut self, order: Order) -> Option<Ended> {
        self.first_command_by = None;
        match order {
            Order::Answer(_) if self.call.state() == CallState::Answered => {}
            Order::Answer(wish) => {
                self.call.answer();
                self.ends_by = Some(Instant::now() + self.whole);
                if let Some(wish) = wish {
                    stream::start(self.sim, self.call, *wish);
                }
            }
            Order::Reject(cause) => return Some(self.we_leave(cause)),
            Order::HangUp => {
                let answered = self.call.state() == CallState::Answered;
                let cause = if answered { HangupCause::NormalClearing } else { HangupCause::CallRejected };
                return Some(self.we_leave(cause));
            }
            // Two commands may both have been accepted before the first one had its effect.
            Order::StartStream(_) if self.call.stream().is_some() => {}
            Order::StartStream(wish) => stream::start(self.sim, self.call, *wish),
            Order::StopStream => {
                if let Some(stream) = self.call.stream() {
                    stream.stop().await;
                }
            }
            Order::Transfer(transfer) => dial::transfer(self.sim, self.call, *transfer),
            Order::Bridge { peer, .. } if peer.end().is_some() => {}
            Order::Bridge { peer, parks } => Call::join(self.call, &peer, parks),
            Order::Sound(sound) => self.sound(sound),
            Order::StopSounds => {
                self.sounds.truncate(1);
                self.sound_ends("cancelled");
            }
            Order::Gather { gather, prompt } => self.gather(*gather, prompt),
            Order::StopGather => self.gather_ends(Some("cancelled")),
            Order::SendDigits { digits, each_ms } => self.send_digits(&digits, each_ms),
            Order::Refer(address) => return self.refer(&address),
        }
        None
    }

    fn hear(&mut self, said: FromPhone) {
        let stream = self.call.stream();
        match said {
            FromPhone::Frame { at, pcm } => {
                if let Some(peer) = self.call.peer() {
                    // A line whose buffer is full loses sound.
                    let _ = peer.line.hear_from(&self.call.line, at, pcm.as_slice());
                }
                if let Some(stream) = stream {
                    stream.carry(FromPhone::Frame { at, pcm });
                }
            }
            FromPhone::Digit(digit) => {
                let pressed = json!({"digit": digit.to_string()});
                self.call.tell("call.dtmf.received", self.call.with_parties(pressed));
                if let Some(stream) = stream {
                    stream.carry(FromPhone::Digit(digit));
                }
                self.gather_digit(digit);
            }
        }
    }

    fn sound(&mut self, sound: Sound) {
        self.sounds.push_back(sound);
        if self.sounds.len() == 1 {
            self.sound_begins();
        }
    }

    fn sound_begins(&mut self) {
        let Some(sound) = self.sounds.front() else { return };
        self.call.line.note(match sound {
            Sound::Speech { text } => What::CarrierSaid { text: text.clone() },
            Sound::File { url, name } => {
                What::CarrierPlayed { url: url.clone().or(name.clone()).unwrap_or_default() }
            }
        });
        self.call.tell(&format!("{}.started", sound.event()), sound.facts());
        self.sounds_until = Some(Instant::now() + sound.length(self.sim));
    }

    fn sound_ends(&mut self, status: &str) {
        self.sounds_until = None;
        let Some(sound) = self.sounds.pop_front() else { return };
        let mut facts = sound.facts();
        // Speech that was stopped is documented as completed: it knows no other status.
        let stopped_speech = status == "cancelled" && matches!(sound, Sound::Speech { .. });
        facts["status"] = if stopped_speech { "completed" } else { status }.into();
        self.call.tell(&format!("{}.ended", sound.event()), facts);
        self.sound_begins();
    }

    fn gather(&mut self, wish: Gather, prompt: Option<Sound>) {
        self.gather_ends(Some("cancelled"));
        let prompt_takes = prompt.as_ref().map_or(Duration::ZERO, |prompt| prompt.length(self.sim));
        if let Some(prompt) = &prompt {
            self.sound(prompt.clone());
        }
        let heard = Instant::now() + prompt_takes;
        self.gathering = Some(Gathering {
            gives_up: heard + wish.total,
            next_by: heard + wish.first,
            digits: String::new(),
            wish,
            prompt,
        });
    }

    /// A prompt that nobody answered is played again, as often as was asked.
    fn gather_is_late(&mut self) {
        match self.gathering.take() {
            Some(Gathering { mut wish, digits, prompt: Some(prompt), .. })
                if digits.is_empty() && wish.tries > 1 =>
            {
                wish.tries -= 1;
                self.gather(wish, Some(prompt));
            }
            gathering => {
                self.gathering = gathering;
                self.gather_ends(None);
            }
        }
    }

    fn gather_digit(&mut self, digit: char) {
        let Some(gathering) = &mut self.gathering else { return };
        if Some(digit) == gathering.wish.finish {
            return self.gather_ends(None);
        }
        gathering.digits.push(digit);
        gathering.next_by = Instant::now() + gathering.wish.between;
        if gathering.digits.len() >= gathering.wish.most {
            self.gather_ends(None);
        }
    }

    /// Ends a gather, with a status where it is not that of its digits.
    fn gather_ends(&mut self, status: Option<&str>) {
        let Some(Gathering { wish, digits, .. }) = self.gathering.take() else { return };
        let status = status.unwrap_or(match digits.as_str() {
            "" => "timeout",
            given if given.len() >= wish.least && given.chars().all(|digit| wish.valid.contains(digit)) => {
                "valid"
            }
            _ => "invalid",
        });
        self.call
            .tell("call.gather.ended", self.call.with_parties(json!({"digits": digits, "status": status})));
    }

    fn send_digits(&self, digits: &str, each_ms: u32) {
        let silence = |ms: usize| vec![0; LINE_RATE_HZ as usize / 1_000 * ms];
        let keying = Keying { on_ms: each_ms, ..Keying::default() };
        for digit in digits.chars() {
            let pcm = match digit {
                'w' => silence(SHORT_WAIT_MS),
                'W' => silence(LONG_WAIT_MS),
                key => dtmf::tones(&key.to_string(), keying).unwrap_or_default(),
            };
            // A full buffer loses a tone as it loses speech.
            let _ = self.call.line.hear(&pcm, 0);
        }
    }

    /// Sends the far party elsewhere: where that takes it, this leg is over.
    fn refer(&self, address: &str) -> Option<Ended> {
        let tell = |event: &str, response: u64| {
            self.call.tell(event, self.call.with_parties(json!({"sip_notify_response": response})));
        };
        tell("call.refer.started", SIP_TRYING);
        let refused = match self.sim.callee_at(address) {
            Pickup::Answers { .. } | Pickup::Machine { .. } => None,
            Pickup::Busy { .. } => Some(486),
            Pickup::Rejects { .. } => Some(603),
            Pickup::NoAnswer => Some(480),
            Pickup::NotFound => Some(404),
        };
        match refused {
            None => {
                tell("call.refer.completed", 200);
                Some(self.far_party_leaves())
            }
            Some(response) => {
                tell("call.refer.failed", response);
                None
            }
        }
    }

    /// Brings what runs to its end before the call is told to be over.
    async fn close(&mut self) {
        if let Some(stream) = self.call.stream() {
            stream.stop().await;
        }
        self.sounds.truncate(1);
        self.sound_ends("call_hangup");
        self.gather_ends(Some("call_hangup"));
        self.call.part();
    }
}
