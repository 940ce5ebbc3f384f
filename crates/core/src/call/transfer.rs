//! Reaching a person: their phone is rung, they hear what it is about and accept, and they and the caller are bridged; or
//! nobody is reached, and the caller goes back to where they were. It knows legs and times, not how a carrier joins calls.
//!
//! A forwarded line, a transfer by the agent, a take-over and a call between members are one thing here: an [`Attempt`]
//! with its [`Aim`]. While it lasts the caller hears a tone, and words now and then; what they say is kept for the
//! agent's return and does not cancel anything.

use super::{
    Accept, Call, CallTime, Command, EndedReason, Floor, LegEnd, LegId, Otherwise, Out, Phase, Purpose,
    Reach, TellId, Then, Tone, ToolId, words,
};
use crate::{E164, limits};
use serde::{Deserialize, Serialize};

/// How much longer than it may ring a phone is waited for: the carrier, which counts for itself, reports it sooner.
const RING_GRACE_MS: u32 = 10_000;
/// How long a person may take to answer the question whether they take the call.
const DECIDE_MS: u32 = 8_000;
/// How often they are asked.
const QUESTIONS: u8 = 2;
/// How long a person may be told something: longer than the longest summary takes.
const TELL_MS: u32 = 90_000;
/// How long a carrier may take to connect two calls.
const BRIDGE_MS: u32 = 12_000;
/// How often a caller who waits hears a word.
const WORD_EVERY_MS: u32 = 10_000;
/// A word to a caller who is just talking waits so long.
const WORD_LATER_MS: u32 = 2_000;
/// The longest that a bridged call lasts where the agent does not listen: what carriers allow.
const BRIDGED_MS: u32 = 4 * 60 * 60_000;

/// For what a person is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Aim {
    /// The line is forwarded to them.
    Forward,
    /// One of ours wants to talk to them.
    Member,
    /// The agent connects the caller; its tool waits for what becomes of it.
    Transfer { tool: ToolId, name: String },
    /// They take the call over.
    TakeOver { notes: bool },
}

impl Aim {
    /// Why a call ended in which it was done.
    fn done(&self) -> EndedReason {
        match self {
            Aim::Forward => EndedReason::Forwarded,
            Aim::Member => EndedReason::MembersTalked,
            Aim::Transfer { .. } => EndedReason::Transferred,
            Aim::TakeOver { .. } => EndedReason::TakenOver,
        }
    }

    /// The agent goes on listening.
    fn notes(&self) -> bool {
        matches!(self, Aim::TakeOver { notes: true })
    }

    /// The call began with it, so that it can begin with it again.
    fn opens(&self) -> bool {
        matches!(self, Aim::Forward | Aim::Member)
    }
}

/// Somebody is being reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Attempt {
    aim: Aim,
    reach: Reach,
    /// How many of the numbers have been rung.
    rung: usize,
    /// The phone that rings or was picked up; none before the first.
    leg: LegId,
    stage: Stage,
    /// How the last number came to nothing.
    how: LegEnd,
    /// When the caller is due a word.
    word_at: CallTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// What the agent is saying is heard out before anybody is rung.
    Before,
    Ringing {
        until: CallTime,
    },
    /// The person hears what it is about and the question.
    Telling {
        tell: TellId,
        voice: u8,
        question: u8,
        until: CallTime,
    },
    /// The person has heard it and may answer.
    Deciding {
        question: u8,
        until: CallTime,
    },
    /// The person takes the call; the carrier is asked to connect them.
    Bridging {
        through_us: bool,
        until: CallTime,
    },
}

impl Stage {
    fn until(self) -> Option<CallTime> {
        match self {
            Stage::Before => None,
            Stage::Ringing { until }
            | Stage::Telling { until, .. }
            | Stage::Deciding { until, .. }
            | Stage::Bridging { until, .. } => Some(until),
        }
    }
}

/// Caller and person talk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Bridge {
    aim: Aim,
    reach: Reach,
    leg: LegId,
    through_us: bool,
    since: CallTime,
}

impl Bridge {
    /// The caller's media may have left us.
    pub(super) fn is_elsewhere(&self) -> bool {
        !self.through_us
    }

    /// What is said is kept.
    pub(super) fn is_noted(&self) -> bool {
        self.aim.notes()
    }

    /// When it has lasted long enough; `None`: as any call.
    pub(super) fn longest(&self) -> Option<CallTime> {
        (!self.is_noted()).then(|| self.since.plus_ms(BRIDGED_MS))
    }

    pub(super) fn done(&self) -> EndedReason {
        self.aim.done()
    }
}

/// Whom the model wants the caller connected to.
pub(super) struct Wanted {
    name: String,
    reach: Reach,
}

impl Call {
    // ---- how it begins -----------------------------------------------------------------------------------------

    /// Somebody is to be reached as soon as what is being said has been heard.
    pub(super) fn begin_reach(&mut self, aim: Aim, reach: Reach) {
        self.floor = Floor::Reaching(Box::new(Attempt {
            aim,
            reach,
            rung: 0,
            leg: LegId(0),
            stage: Stage::Before,
            how: LegEnd::Failed,
            word_at: self.now,
        }));
    }

    /// Understands what the model asks for, or says why it cannot be done.
    pub(super) fn transfer_wanted(&self, arguments: &str) -> Result<Wanted, String> {
        #[derive(Deserialize)]
        struct Arguments {
            to: String,
            #[serde(default)]
            summary: Option<String>,
        }
        let known = || self.plan.destinations.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ");
        let Ok(Arguments { to, summary }) = serde_json::from_str(arguments) else {
            return Err(format!("error: `to` is missing; it is one of: {}", known()));
        };
        let name = to.trim().to_lowercase();
        let number = to.trim().parse::<E164>().ok();
        let found = self.plan.destinations.iter().find_map(|d| {
            let listed = number.as_ref().filter(|n| d.reach.to.contains(n));
            (d.name.trim().to_lowercase() == name || listed.is_some()).then(|| (d, listed.cloned()))
        });
        let Some((destination, only)) = found else {
            return Err(format!("error: there is nobody called {to}; there are: {}", known()));
        };
        let mut reach = destination.reach.clone();
        reach.to = only.map_or(reach.to, |number| vec![number]);
        let summary = summary.map(|s| super::history::cut_at(s.trim(), limits::SUMMARY_BYTES).to_string());
        if let Some(summary) = summary.filter(|s| destination.warm && !s.is_empty()) {
            reach.brief = Some(reach.brief.map_or(summary.clone(), |brief| format!("{brief} {summary}")));
        }
        Ok(Wanted { name: destination.name.clone(), reach })
    }

    /// The agent connects the caller; it has just said so, or this is said for it.
    pub(super) fn begin_transfer(&mut self, tool: ToolId, wanted: Wanted, out: &mut Out) {
        let Wanted { name, reach } = wanted;
        self.begin_reach(Aim::Transfer { tool, name }, reach);
        if self.answer.as_ref().is_none_or(|a| a.wrote().is_none()) {
            self.say_connecting(out);
        }
    }

    /// A person of ours wants the caller: the agent falls silent, and their phone is rung.
    pub(super) fn take_over(&mut self, mut reach: Reach, notes: bool, out: &mut Out) {
        let Some(otherwise) = self.otherwise_now(&reach) else {
            self.dropped += 1;
            return;
        };
        reach.otherwise = otherwise;
        self.broken |= self.ending == Some(EndedReason::ProvidersFailed);
        self.stop_message(out);
        self.release_person("error: a colleague takes the call over", out);
        self.ending = None;
        self.leaving = false;
        self.cut_at = None;
        self.interruption = None;
        self.drop_answer(out);
        self.cut_replies(out);
        self.begin_reach(Aim::TakeOver { notes }, reach);
        self.say_connecting(out);
        self.reach_next(out);
    }

    /// Where the caller goes if a take-over that begins now reaches nobody; `None`: none can begin.
    fn otherwise_now(&self, reach: &Reach) -> Option<Otherwise> {
        if !matches!(self.phase, Phase::Up | Phase::Lost(_)) {
            return None;
        }
        match &self.floor {
            Floor::Bridged(_) => None,
            Floor::Reaching(attempt) => match attempt.aim {
                _ if matches!(attempt.stage, Stage::Bridging { .. }) => None,
                Aim::Member | Aim::TakeOver { .. } => None,
                Aim::Forward => Some(attempt.reach.otherwise.clone()),
                Aim::Transfer { .. } => Some(reach.otherwise.clone()),
            },
            Floor::Mailbox(_) => Some(Otherwise::Voicemail),
            Floor::Agent if self.begun => Some(reach.otherwise.clone()),
            Floor::Agent => Some(Otherwise::Message(self.plan.phrases.goodbye.clone())),
        }
    }

    fn say_connecting(&mut self, out: &mut Out) {
        let connecting = self.plan.phrases.connecting.clone();
        self.say(Purpose::Connecting, Then::Listen, &connecting, out);
    }

    // ---- one number after the other ----------------------------------------------------------------------------

    /// Rings the next number; when there is none left, nobody is there.
    fn reach_next(&mut self, out: &mut Out) {
        let now = self.now;
        let Floor::Reaching(attempt) = &mut self.floor else { return };
        let Some(to) = attempt.reach.to.get(attempt.rung).cloned() else {
            self.unreached(out);
            return;
        };
        if attempt.rung == 0 {
            attempt.word_at = now.plus_ms(WORD_EVERY_MS);
        }
        attempt.rung += 1;
        attempt.leg = self.next_leg.next();
        let ring_ms = attempt.reach.ring_ms.min(limits::RING_MS);
        attempt.stage = Stage::Ringing { until: now.plus_ms(ring_ms.saturating_add(RING_GRACE_MS)) };
        out.push(Command::Dial {
            leg: attempt.leg,
            to,
            caller_id: attempt.reach.caller_id.clone(),
            ring_ms,
            listens: attempt.reach.accept == Accept::KeyOrVoice || attempt.aim.notes(),
        });
        self.set_tone(Some(Tone::Ringback), out);
    }

    /// Gives up on the number that is tried and goes on to the next.
    fn leave_leg(&mut self, how: LegEnd, out: &mut Out) {
        let Floor::Reaching(attempt) = &mut self.floor else { return };
        attempt.how = how;
        out.push(Command::DropLeg { leg: attempt.leg });
        self.reach_next(out);
    }

    /// All have been tried.
    fn unreached(&mut self, out: &mut Out) {
        let Floor::Reaching(attempt) = std::mem::replace(&mut self.floor, Floor::Agent) else { return };
        let Attempt { aim, reach, how, .. } = *attempt;
        self.set_tone(None, out);
        let otherwise = match aim {
            Aim::Member => {
                let nobody = self.plan.phrases.nobody_there.clone();
                self.say_last(Purpose::Closed, EndedReason::NobodyReached, &nobody, out);
                return;
            }
            _ => reach.otherwise,
        };
        match otherwise {
            Otherwise::Agent => self.back_to_agent(aim, how, out),
            Otherwise::Voicemail => {
                self.tell_model(&aim, how);
                self.begin_voicemail(out);
            }
            Otherwise::Message(text) => {
                self.tell_model(&aim, how);
                self.say_last(Purpose::Closed, EndedReason::MessageTold, &text, out);
            }
        }
    }

    /// The caller is the agent's again, or for the first time.
    fn back_to_agent(&mut self, aim: Aim, how: LegEnd, out: &mut Out) {
        self.active_at = self.now;
        // Up to now the caller has heard a tone.
        self.silent_since = self.now;
        self.tell_model(&aim, how);
        if self.broken {
            self.give_up(out);
            return;
        }
        let asked = matches!(aim, Aim::Transfer { .. });
        if !asked || !self.begun {
            let nobody = self.plan.phrases.nobody_there.clone();
            self.say(Purpose::Connecting, Then::Listen, &nobody, out);
        }
        if !std::mem::replace(&mut self.begun, true) && !self.history.has_caller() {
            self.greet(out);
        } else if self.answer_waits() {
            self.tools_settled(out);
        } else {
            self.come_back(out);
        }
    }

    /// What the model is told of it: as its tool's result, or beside what was said.
    fn tell_model(&mut self, aim: &Aim, how: LegEnd) {
        match aim {
            Aim::Transfer { tool, name } => {
                let result = format!("not connected: {name} {}. The caller is with you again.", what(how));
                if !self.history.tool_result(*tool, &result) {
                    let broke =
                        format!("(The line between the caller and {name} broke. They are with you again.)");
                    self.history.aside(&broke);
                }
            }
            Aim::TakeOver { .. } => self.history.aside(&format!(
                "(A colleague wanted to talk to the caller, but {}. The caller is with you again.)",
                what(how)
            )),
            Aim::Forward => self.history.aside(&format!(
                "(The caller was to be connected to a person, who {}. They are with you now.)",
                what(how)
            )),
            Aim::Member => {}
        }
    }

    // ---- facts about the person --------------------------------------------------------------------------------

    /// The attempt that this leg belongs to, if the leg is still of interest.
    fn attempt(&mut self, leg: LegId) -> Option<&mut Attempt> {
        match &mut self.floor {
            Floor::Reaching(attempt) if attempt.leg == leg && attempt.stage != Stage::Before => Some(attempt),
            _ => None,
        }
    }

    pub(super) fn leg_ringing(&mut self, leg: LegId) {
        self.dropped += u32::from(self.attempt(leg).is_none());
    }

    pub(super) fn leg_up(&mut self, leg: LegId, out: &mut Out) {
        match self.attempt(leg).map(|a| a.stage) {
            Some(Stage::Ringing { .. }) => self.ask_person(1, self.providers.tts(), out),
            _ => self.dropped += 1,
        }
    }

    /// Tells the person what it is about and asks them; at the second time only asks.
    fn ask_person(&mut self, question: u8, voice: u8, out: &mut Out) {
        let now = self.now;
        let plan = self.plan.clone();
        let Floor::Reaching(attempt) = &mut self.floor else { return };
        let asks = (attempt.reach.accept != Accept::Pickup).then_some(plan.phrases.accept.as_str());
        let brief = attempt.reach.brief.as_deref().filter(|_| question == 1);
        let text = [brief, asks].into_iter().flatten().collect::<Vec<_>>().join(" ");
        if text.is_empty() && asks.is_none() {
            self.connect(out);
            return;
        }
        let tell = self.next_tell.next();
        attempt.stage = Stage::Telling { tell, voice, question, until: now.plus_ms(TELL_MS) };
        out.push(Command::Tell { leg: attempt.leg, tell, voice, text });
        self.set_tone(Some(Tone::Waiting), out);
    }

    pub(super) fn told(&mut self, tell: TellId, out: &mut Out) {
        let now = self.now;
        let Floor::Reaching(attempt) = &mut self.floor else {
            // A whisper to a person who talks to the caller.
            self.dropped += u32::from(!matches!(self.floor, Floor::Bridged(_)));
            return;
        };
        match attempt.stage {
            Stage::Telling { tell: told, question, .. } if told == tell => {
                if attempt.reach.accept == Accept::Pickup {
                    self.connect(out);
                } else {
                    attempt.stage = Stage::Deciding { question, until: now.plus_ms(DECIDE_MS) };
                }
            }
            _ => self.dropped += 1,
        }
    }

    /// The next voice tries. Where none is left, nobody can be asked: who picked up to be connected at once still is.
    pub(super) fn tell_failed(&mut self, tell: TellId, out: &mut Out) {
        let voices = self.plan.tts.len();
        let Floor::Reaching(attempt) = &mut self.floor else {
            self.dropped += u32::from(!matches!(self.floor, Floor::Bridged(_)));
            return;
        };
        match attempt.stage {
            Stage::Telling { tell: failed, voice, question, .. } if failed == tell => {
                if usize::from(voice) + 1 < voices {
                    self.ask_person(question, voice + 1, out);
                } else if attempt.reach.accept == Accept::Pickup {
                    self.connect(out);
                } else {
                    self.leave_leg(LegEnd::Failed, out);
                }
            }
            _ => self.dropped += 1,
        }
    }

    pub(super) fn leg_key(&mut self, leg: LegId, digit: char, out: &mut Out) {
        if matches!(&self.floor, Floor::Bridged(bridge) if bridge.leg == leg) {
            return;
        }
        match self.attempt(leg).map(|a| (a.stage, a.reach.accept)) {
            Some((Stage::Telling { .. } | Stage::Deciding { .. }, Accept::Key | Accept::KeyOrVoice)) => {
                if digit == '1' {
                    self.connect(out);
                }
            }
            Some(_) => {}
            None => self.dropped += 1,
        }
    }

    pub(super) fn leg_said(&mut self, leg: LegId, text: &str, out: &mut Out) {
        if let Floor::Bridged(bridge) = &self.floor
            && bridge.leg == leg
        {
            if bridge.is_noted() && text.contains(char::is_alphanumeric) {
                let text = super::history::cut_at(text.trim(), limits::TRANSCRIPT_BYTES);
                out.push(Command::Note(self.history.staff_said(self.turn, self.now, text)));
            }
            return;
        }
        let Some(attempt) = self.attempt(leg) else {
            self.dropped += 1;
            return;
        };
        // "Yes?" into the phone before the question was heard answers nothing.
        let asked = match attempt.stage {
            Stage::Deciding { .. } => true,
            Stage::Telling { question, .. } => question > 1,
            Stage::Before | Stage::Ringing { .. } | Stage::Bridging { .. } => false,
        };
        if attempt.reach.accept != Accept::KeyOrVoice || !asked {
            return;
        }
        match words::consents(text) {
            Some(true) => self.connect(out),
            Some(false) => self.leave_leg(LegEnd::Refused, out),
            None => {}
        }
    }

    pub(super) fn leg_down(&mut self, leg: LegId, how: LegEnd, out: &mut Out) {
        if let Floor::Bridged(bridge) = &self.floor
            && bridge.leg == leg
        {
            self.person_left(how, out);
            return;
        }
        match self.attempt(leg) {
            Some(attempt) => {
                attempt.how = how;
                self.reach_next(out);
            }
            None => self.dropped += 1,
        }
    }

    /// The person is gone. Who hung up has ended the call; whose line broke has not, and the caller is with us.
    fn person_left(&mut self, how: LegEnd, out: &mut Out) {
        let Floor::Bridged(bridge) = &self.floor else { return };
        if how != LegEnd::Lost || bridge.is_elsewhere() {
            let done = bridge.done();
            self.floor = Floor::Agent;
            self.hang_up(done, out);
            return;
        }
        let Bridge { aim, reach, .. } = bridge.clone();
        self.begin_reach(aim, reach);
        if let Floor::Reaching(attempt) = &mut self.floor {
            attempt.how = how;
        }
        self.unreached(out);
    }

    // ---- the bridge --------------------------------------------------------------------------------------------

    /// The person takes the call.
    fn connect(&mut self, out: &mut Out) {
        let until = self.now.plus_ms(BRIDGE_MS);
        let recorded = self.tape.may_run();
        let Floor::Reaching(attempt) = &mut self.floor else { return };
        let through_us = recorded || attempt.aim.notes();
        attempt.stage = Stage::Bridging { through_us, until };
        out.push(Command::Bridge { leg: attempt.leg, through_us });
    }

    pub(super) fn bridged(&mut self, leg: LegId, out: &mut Out) {
        let Some((Stage::Bridging { through_us, .. }, aim, reach)) =
            self.attempt(leg).map(|a| (a.stage, a.aim.clone(), a.reach.clone()))
        else {
            self.dropped += 1;
            return;
        };
        self.take_last_words(out);
        self.interruption = None;
        self.drop_answer(out);
        self.cut_replies(out);
        self.set_tone(None, out);
        if let Aim::Transfer { tool, .. } = &aim {
            self.history.tool_result(*tool, "connected");
        }
        if !through_us && matches!(self.phase, Phase::Lost(_)) {
            // The carrier has taken the caller to where the person is.
            self.phase = Phase::Up;
        }
        self.floor = Floor::Bridged(Bridge { aim, reach, leg, through_us, since: self.now });
    }

    pub(super) fn bridge_failed(&mut self, leg: LegId, out: &mut Out) {
        match self.attempt(leg).map(|a| a.stage) {
            Some(Stage::Bridging { .. }) => self.leave_leg(LegEnd::Failed, out),
            _ => self.dropped += 1,
        }
    }

    /// A word in the ear of the person whom the caller talks to.
    pub(super) fn whisper_to_person(&mut self, text: &str, out: &mut Out) {
        match &self.floor {
            Floor::Bridged(bridge) if bridge.through_us && !text.is_empty() => {
                let (leg, voice) = (bridge.leg, self.providers.tts());
                let tell = self.next_tell.next();
                out.push(Command::Tell { leg, tell, voice, text: text.to_string() });
            }
            _ => self.dropped += 1,
        }
    }

    // ---- time --------------------------------------------------------------------------------------------------

    /// When the next step is due, whether or not anybody reports something.
    pub(super) fn person_deadline(&self) -> Option<CallTime> {
        let Floor::Reaching(attempt) = &self.floor else { return None };
        match attempt.stage.until() {
            Some(until) => Some(until),
            None => (self.phase == Phase::Up && self.replies.is_empty()).then_some(self.now),
        }
    }

    pub(super) fn person_overdue(&mut self, out: &mut Out) {
        let Floor::Reaching(attempt) = &self.floor else { return };
        match attempt.stage {
            Stage::Before => self.reach_next(out),
            Stage::Ringing { .. } => self.leave_leg(LegEnd::NoAnswer, out),
            Stage::Deciding { question, .. } if question < QUESTIONS => {
                self.ask_person(question + 1, self.providers.tts(), out);
            }
            Stage::Deciding { .. } => self.leave_leg(LegEnd::Refused, out),
            // Nobody says whether it was heard: who picked up to be connected at once is.
            Stage::Telling { .. } if attempt.reach.accept == Accept::Pickup => self.connect(out),
            Stage::Telling { .. } | Stage::Bridging { .. } => self.leave_leg(LegEnd::Failed, out),
        }
    }

    /// When a caller who waits is due a word.
    pub(super) fn word_deadline(&self) -> Option<CallTime> {
        let Floor::Reaching(attempt) = &self.floor else { return None };
        let waits = !matches!(attempt.stage, Stage::Before | Stage::Bridging { .. });
        let silent = self.replies.is_empty() && self.providers.tts_left();
        (waits && silent).then(|| attempt.word_at.max(self.silent_since.plus_ms(WORD_EVERY_MS)))
    }

    pub(super) fn say_still_trying(&mut self, out: &mut Out) {
        let busy = self.interruption.is_some() || self.ear.is_busy(self.now, self.plan.timing.noise_ms);
        let wait_ms = if busy { WORD_LATER_MS } else { WORD_EVERY_MS };
        let word_at = self.now.plus_ms(wait_ms);
        let Floor::Reaching(attempt) = &mut self.floor else { return };
        attempt.word_at = word_at;
        if busy {
            return;
        }
        // Not before as much time has passed again, however short the word is.
        self.silent_since = self.now;
        let trying = self.plan.phrases.still_trying.clone();
        self.say(Purpose::Connecting, Then::Listen, &trying, out);
    }

    // ---- how it ends -------------------------------------------------------------------------------------------

    /// Lets go of whoever was rung: the caller goes elsewhere, or is gone.
    pub(super) fn release_person(&mut self, result: &str, out: &mut Out) {
        match std::mem::replace(&mut self.floor, Floor::Agent) {
            Floor::Reaching(attempt) => {
                if attempt.stage != Stage::Before {
                    out.push(Command::DropLeg { leg: attempt.leg });
                }
                if let Aim::Transfer { tool, .. } = attempt.aim {
                    self.history.tool_result(tool, result);
                }
            }
            Floor::Bridged(bridge) => out.push(Command::DropLeg { leg: bridge.leg }),
            Floor::Agent | Floor::Mailbox(_) => {}
        }
    }

    /// The node died, and with it the phones that it rang; a bridge at the carrier lives on.
    pub(super) fn reach_after_death(&mut self, out: &mut Out) {
        let (aim, reach, leg) = match &self.floor {
            Floor::Reaching(attempt) => {
                let leg = (attempt.stage != Stage::Before).then_some(attempt.leg);
                (attempt.aim.clone(), attempt.reach.clone(), leg)
            }
            Floor::Bridged(bridge) => (bridge.aim.clone(), bridge.reach.clone(), Some(bridge.leg)),
            Floor::Agent | Floor::Mailbox(_) => return,
        };
        self.tone = None;
        out.extend(leg.map(|leg| Command::DropLeg { leg }));
        if aim.opens() || leg.is_none() {
            self.begin_reach(aim, reach);
            return;
        }
        self.floor = Floor::Agent;
        self.back_to_agent(aim, LegEnd::Lost, out);
    }

    pub(super) fn set_tone(&mut self, tone: Option<Tone>, out: &mut Out) {
        if std::mem::replace(&mut self.tone, tone) != tone {
            out.push(Command::Tone { tone });
        }
    }
}

/// What the last number did, after the name of who was rung.
fn what(how: LegEnd) -> &'static str {
    match how {
        LegEnd::Busy => "is on the phone",
        LegEnd::NoAnswer => "did not answer",
        LegEnd::Refused => "did not take the call",
        LegEnd::Failed => "could not be connected",
        LegEnd::Machine => "did not answer: a machine did",
        LegEnd::HungUp => "hung up without taking the call",
        LegEnd::Lost => "could not be connected, because the connection broke",
    }
}
