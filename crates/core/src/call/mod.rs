//! The whole phone call as one machine: facts come in, orders go out, time is an argument. It knows no carrier, no
//! provider and no clock; audio never enters it, only facts about audio.
//!
//! Order of calls: [`Call::start`] when the phone rings; then [`Call::handle`] for every fact, and with [`Input::Tick`]
//! no later than [`Call::deadline`]; until [`Call::is_finished`]. After a node died, the call is folded from its log
//! ([`log`]) and [`Call::resume`] orders again what must be open.
//!
//! Every order that starts work carries an id, every fact that reports on it carries the same id, and **a fact with a
//! dead id is counted and dropped**: that is all there is to cancelling.

mod history;
pub mod log;
mod plan;
mod provider;
mod recording;
mod speech;
mod tools;
mod transfer;
mod turn;
mod vocabulary;
mod voicemail;
mod words;

pub use history::{Line, Speaker};
pub use plan::{
    Ability, AbilityKind, Accept, CallPlan, Destination, Fallback, Greeting, Opening, Otherwise, Phrases,
    Reach, Recording, Timing, Voicemail,
};
pub use speech::Purpose;
pub use turn::TurnTiming;
pub use vocabulary::{
    Anchor, AskId, CallTime, Command, EndedReason, Input, LegEnd, LegId, ReplyId, SttId, TellId, Timer, Tone,
    ToolId,
};

use crate::limits;
use serde::{Deserialize, Serialize};
use speech::{Reply, Then};
use std::collections::VecDeque;
use std::sync::Arc;
use transfer::Aim;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Ringing,
    Up,
    /// Media is lost since.
    Lost(CallTime),
    /// We ended it and wait for the carrier to say so.
    Ending(CallTime),
    Ended,
}

/// Who talks to the caller.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Floor {
    /// The agent, or its last words.
    Agent,
    /// Nobody: a person is being reached.
    Reaching(Box<transfer::Attempt>),
    /// A person.
    Bridged(transfer::Bridge),
    /// A machine that takes a message.
    Mailbox(voicemail::Mailbox),
}

/// How long the phone may ring before media flows.
const RINGING_MS: u32 = 60_000;
/// How long the carrier may take to report the end of a call.
const ENDING_MS: u32 = 5_000;
/// What the model would have been told of what it began and the end of the call cut off.
const CALL_ENDED: &str = "error: the call ended";
/// How long last words may take.
const LAST_WORDS_MS: u32 = 20_000;
/// When the longest duration is over, what is being said goes on for so long at most, to the end of a clause.
const CUT_WITHIN_MS: u32 = 4_000;

/// One phone call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    plan: Arc<CallPlan>,
    phase: Phase,
    now: CallTime,
    connected_at: Option<CallTime>,
    next_reply: ReplyId,
    next_ask: AskId,
    next_stt: SttId,
    next_tool: ToolId,
    next_leg: LegId,
    next_tell: TellId,
    floor: Floor,
    /// What the caller hears under everything that is said.
    tone: Option<Tone>,
    tape: recording::Tape,
    /// The agent has had the floor.
    begun: bool,
    /// The agent cannot go on, but does not have the floor.
    broken: bool,
    providers: provider::Providers,
    ear: turn::Ear,
    answer: Option<turn::Answer>,
    interruption: Option<turn::Interruption>,
    /// What the agent says or is about to, in order.
    replies: VecDeque<Reply>,
    tools: Vec<tools::InFlight>,
    history: history::History,
    turn: u32,
    nudges: u8,
    /// The last time that anything could be heard or was done.
    active_at: CallTime,
    /// Why the call will end, once something is on its way to end it.
    ending: Option<EndedReason>,
    /// When the last reply was heard to its end.
    silent_since: CallTime,
    /// When what is being said has to make way for the goodbye.
    cut_at: Option<CallTime>,
    /// The last words were heard; only the caller's talking keeps the call up.
    leaving: bool,
    /// Facts about things that are no more.
    dropped: u32,
}

type Out = Vec<Command>;

impl Call {
    /// The phone rings: opens what will be needed and prepares the greeting.
    pub fn start(plan: CallPlan, out: &mut Vec<Command>) -> Call {
        let mut call = Call {
            plan: Arc::new(plan),
            phase: Phase::Ringing,
            now: CallTime::ZERO,
            connected_at: None,
            next_reply: ReplyId(0),
            next_ask: AskId(0),
            next_stt: SttId(0),
            next_tool: ToolId(0),
            next_leg: LegId(0),
            next_tell: TellId(0),
            floor: Floor::Agent,
            tone: None,
            tape: recording::Tape::default(),
            begun: false,
            broken: false,
            providers: provider::Providers::default(),
            ear: turn::Ear::default(),
            answer: None,
            interruption: None,
            replies: VecDeque::new(),
            tools: Vec::new(),
            history: history::History::default(),
            turn: 0,
            nudges: 0,
            active_at: CallTime::ZERO,
            ending: None,
            silent_since: CallTime::ZERO,
            cut_at: None,
            leaving: false,
            dropped: 0,
        };
        call.open_stt(out);
        out.push(Command::OpenTts { voice: call.providers.tts() });
        call.announce_recording(out);
        match call.plan.opening.clone() {
            Opening::Agent => {
                call.begun = true;
                call.greet(out);
            }
            Opening::Reach(reach) => call.begin_reach(Aim::Forward, reach),
            Opening::Member(reach) => call.begin_reach(Aim::Member, reach),
            Opening::Message(text) => call.say_last(Purpose::Closed, EndedReason::MessageTold, &text, out),
            Opening::Voicemail => call.begin_voicemail(out),
        }
        call
    }

    /// Takes a fact in and gives orders. Total: it never fails and never blocks, whatever comes in whatever order.
    pub fn handle(&mut self, at: CallTime, input: Input, out: &mut Vec<Command>) {
        // The clock of a node that took over may be a little behind; within a call time never runs backwards.
        self.now = self.now.max(at);
        match self.phase {
            Phase::Ended => {
                self.after_the_end(input);
                return;
            }
            Phase::Ending(_) => {
                match input {
                    Input::HungUp { .. } => self.end(EndedReason::CarrierHungUp, out),
                    other => self.after_the_end(other),
                }
                self.fire_due(out);
                return;
            }
            Phase::Ringing | Phase::Up | Phase::Lost(_) => {}
        }
        match input {
            Input::Connected => self.connected(out),
            Input::MediaLost => self.media_lost(),
            Input::HungUp { by_caller } => {
                let reason = if by_caller { EndedReason::CallerHungUp } else { EndedReason::CarrierHungUp };
                self.end(reason, out);
            }
            Input::Dtmf { digit } => self.dtmf(digit, out),
            Input::Played { reply, ms, done } => self.played(reply, ms, done, out),
            Input::SpeechStarted => self.speech_started(out),
            Input::SpeechStopped { silence_ms } => self.speech_stopped(silence_ms, out),
            Input::SttOpened { stt } => self.dropped += u32::from(!self.providers.is_session(stt)),
            Input::Interim { stt, text, end_ms } => self.interim(stt, text, end_ms, out),
            Input::Final { stt, text, end_ms, utterance_end } => {
                self.final_words(stt, text, end_ms, utterance_end, out);
            }
            Input::UtteranceEnd { stt } => self.utterance_end(stt),
            Input::EagerEnd { stt, text } => self.eager_end(stt, text, out),
            Input::SttFailed { stt, may_pass } => self.stt_failed(stt, may_pass, out),
            Input::Token { ask, text } => self.token(ask, &text, out),
            Input::Tool { ask, request } => self.tool_wanted(ask, request),
            Input::AskDone { ask } => self.ask_done(ask, out),
            Input::AskFailed { ask, may_pass } => self.ask_failed(ask, may_pass, out),
            Input::Synthesized { reply, ms, done } => self.synthesized(reply, ms, done, out),
            Input::Aligned { reply, anchors } => match self.reply_mut(reply) {
                Some(reply) => reply.align(&anchors),
                None => self.dropped += 1,
            },
            Input::TtsFailed { voice, may_pass } => self.tts_failed(voice, may_pass, out),
            Input::ToolDone { tool, result } => self.tool_done(tool, result, out),
            Input::HangUpOrdered => self.hang_up(EndedReason::Ordered, out),
            Input::LegRinging { leg } => self.leg_ringing(leg),
            Input::LegUp { leg } => self.leg_up(leg, out),
            Input::LegDown { leg, how } => self.leg_down(leg, how, out),
            Input::LegKey { leg, digit } => self.leg_key(leg, digit, out),
            Input::LegSaid { leg, text } => self.leg_said(leg, &text, out),
            Input::Told { tell } => self.told(tell, out),
            Input::TellFailed { tell } => self.tell_failed(tell, out),
            Input::Bridged { leg } => self.bridged(leg, out),
            Input::BridgeFailed { leg } => self.bridge_failed(leg, out),
            Input::TakeOver { reach, notes } => self.take_over(reach, notes, out),
            Input::Whisper { text } => self.whispered(&text, out),
            Input::RecordingOrdered { on } => {
                self.pause_recording(on, out);
            }
            Input::Tick => {}
        }
        self.fire_due(out);
    }

    /// The earliest moment at which something must be decided, and why.
    pub fn deadline(&self) -> Option<(CallTime, Timer)> {
        let mut earliest: Option<(CallTime, Timer)> = None;
        let mut consider = |at: Option<CallTime>, timer: Timer| {
            if let Some(at) = at
                && earliest.is_none_or(|(first, _)| at < first)
            {
                earliest = Some((at, timer));
            }
        };
        match self.phase {
            Phase::Ringing => {
                consider(Some(CallTime::ZERO.plus_ms(RINGING_MS)), Timer::Media);
                consider(self.ask_deadline(), Timer::Ask);
                return earliest;
            }
            Phase::Lost(since) => {
                consider(Some(since.plus_ms(self.plan.timing.media_lost_ms)), Timer::Media);
                consider(self.person_deadline(), Timer::Person);
                return earliest;
            }
            Phase::Ending(since) => return Some((since.plus_ms(ENDING_MS), Timer::Ending)),
            Phase::Ended => return self.tool_deadline().map(|at| (at, Timer::Tool)),
            Phase::Up => {}
        }
        consider(self.turn_deadline(), Timer::TurnEnd);
        consider(self.interruption_deadline(), Timer::Interruption);
        consider(self.unheard_deadline(), Timer::Unheard);
        consider(self.filler_deadline(), Timer::Filler);
        consider(self.ask_deadline(), Timer::Ask);
        consider(self.voice_deadline(), Timer::Voice);
        consider(self.mark_deadline(), Timer::Mark);
        consider(self.tool_deadline(), Timer::Tool);
        consider(self.nudge_deadline(), Timer::Nudge);
        consider(self.leave_deadline(), Timer::Leave);
        consider(self.cut_at, Timer::Cut);
        consider(self.max_duration_deadline(), Timer::MaxDuration);
        consider(self.person_deadline(), Timer::Person);
        consider(self.word_deadline(), Timer::Word);
        consider(self.mailbox_deadline(), Timer::Mailbox);
        earliest
    }

    /// A node died and this one goes on: orders again what must be open. Media comes later, by [`Input::Connected`].
    pub fn resume(&mut self, at: CallTime, out: &mut Vec<Command>) {
        if self.is_elsewhere() {
            // Caller and person talk on at the carrier.
            self.now = self.now.max(at);
            return;
        }
        // Nobody heard anything after the last fact that the dead node took in.
        if self.phase == Phase::Up {
            self.media_lost();
        }
        self.now = self.now.max(at);
        match self.phase {
            Phase::Ended => return,
            Phase::Ending(_) => {
                self.phase = Phase::Ending(self.now);
                let forwarded = self.ending == Some(EndedReason::Forwarded);
                out.push(match &self.plan.fallback {
                    Fallback::Forward(to) if forwarded => Command::Forward { to: to.clone() },
                    _ => Command::HangUp,
                });
                return;
            }
            // The carrier can find this node only from now on.
            Phase::Lost(_) => self.phase = Phase::Lost(self.now),
            Phase::Ringing | Phase::Up => {}
        }
        self.interruption = None;
        self.providers.anew();
        self.broken = false;
        self.record_again(out);
        self.open_stt(out);
        out.push(Command::OpenTts { voice: self.providers.tts() });
        self.speak_again(out);
        self.ask_again(out);
        self.forget_tools_of_dead_node(out);
        self.reach_after_death(out);
    }

    /// Nothing more will come of this call: it has ended, and every tool has answered.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Ended && self.tools.is_empty()
    }

    /// Why the call ended; `None` while it lasts.
    pub fn ended(&self) -> Option<EndedReason> {
        if self.phase == Phase::Ended { self.ending } else { None }
    }

    /// Whether media has ever flowed.
    pub fn was_connected(&self) -> bool {
        self.connected_at.is_some()
    }

    /// What was said and heard, in order; of what is being said only what has been heard.
    pub fn transcript(&self) -> Vec<Line> {
        self.history.lines(&self.replies, self.now)
    }

    /// Facts that came for things that were no more.
    pub fn dropped(&self) -> u32 {
        self.dropped
    }

    /// The plan the call runs by.
    pub fn plan(&self) -> &CallPlan {
        &self.plan
    }

    fn connected(&mut self, out: &mut Out) {
        match self.phase {
            Phase::Ringing => {
                self.connected_at = Some(self.now);
                self.phase = Phase::Up;
                self.active_at = self.now;
                self.record_from_the_start(out);
                if self.begun && self.plan.greeting == Greeting::Written {
                    self.release_answer(out);
                }
                self.play_ready(out);
                if let Some(reason) = self.ending.filter(|_| self.replies.is_empty()) {
                    // The call was for last words, and there are none.
                    self.hang_up(reason, out);
                }
            }
            Phase::Lost(_) => {
                self.phase = Phase::Up;
                self.active_at = self.now;
                if let Floor::Mailbox(mailbox) = &mut self.floor {
                    mailbox.hears(self.now, false);
                }
                self.go_on_unless_interrupted(out);
                self.play_ready(out);
                self.follow_up(out);
            }
            Phase::Up | Phase::Ending(_) | Phase::Ended => self.dropped += 1,
        }
    }

    fn media_lost(&mut self) {
        if self.phase != Phase::Up || self.is_elsewhere() {
            self.dropped += 1;
            return;
        }
        let now = self.now;
        self.phase = Phase::Lost(now);
        self.ear.silence(now);
        for reply in &mut self.replies {
            if reply.playing && !reply.paused {
                reply.pause(now);
            }
        }
        self.interruption = None;
    }

    /// Ends the call from our side.
    fn hang_up(&mut self, reason: EndedReason, out: &mut Out) {
        match self.phase {
            Phase::Ringing | Phase::Up | Phase::Lost(_) => {
                self.ending = Some(self.ending.unwrap_or(self.outcome(reason)));
                self.phase = Phase::Ending(self.now);
                self.drop_answer(out);
                self.cut_replies(out);
                self.release_person(CALL_ENDED, out);
                out.push(Command::HangUp);
            }
            Phase::Ending(_) | Phase::Ended => {}
        }
    }

    /// The call is over: what was said stays, what was planned is dropped.
    fn end(&mut self, reason: EndedReason, out: &mut Out) {
        // A caller who hangs up during our last words was still hung up on by nobody but themselves.
        let ours = matches!(self.phase, Phase::Ending(_));
        self.take_last_words(out);
        self.ending = Some(self.ending.filter(|_| ours).unwrap_or(self.outcome(reason)));
        self.drop_answer(out);
        self.cut_replies(out);
        self.release_person(CALL_ENDED, out);
        self.interruption = None;
        self.phase = Phase::Ended;
    }

    /// Why the call ends: what became of it says more than who hung up.
    fn outcome(&self, reason: EndedReason) -> EndedReason {
        use EndedReason::{NobodyReached, VoicemailEmpty, VoicemailLeft};
        let hung_up = matches!(reason, EndedReason::CallerHungUp | EndedReason::CarrierHungUp);
        if let Some(came_to @ (VoicemailLeft | VoicemailEmpty | NobodyReached)) = self.ending
            && hung_up
        {
            // Who does not wait for the word of thanks has left a message all the same.
            return came_to;
        }
        match &self.floor {
            Floor::Bridged(bridge) if hung_up => bridge.done(),
            Floor::Mailbox(mailbox)
                if self.was_connected() && (hung_up || reason == EndedReason::MediaLost) =>
            {
                mailbox.done()
            }
            _ => reason,
        }
    }

    /// After the end, and while the carrier ends it, only the results of tools still matter.
    fn after_the_end(&mut self, input: Input) {
        match input {
            Input::ToolDone { tool, result } => self.keep_result(tool, result),
            Input::Tick => self.expire_tools(),
            _ => self.dropped += 1,
        }
    }

    /// Gives up on the agent: an apology, then the fallback.
    fn give_up(&mut self, out: &mut Out) {
        if self.ending.is_some() || matches!(self.phase, Phase::Ending(_) | Phase::Ended) {
            return;
        }
        if !self.agent_talks() {
            // Nobody needs it now: who is being reached is reached, and a message needs no words of ours.
            self.broken = true;
            if !self.providers.tts_left() {
                self.cut_spoken(out);
            }
            return;
        }
        self.ending = Some(EndedReason::ProvidersFailed);
        self.take_last_words(out);
        self.drop_answer(out);
        self.interruption = None;
        self.make_way(out);
        if self.providers.tts_left() {
            let apology = self.plan.phrases.apology.clone();
            self.say(Purpose::Apology, Then::GiveUp, &apology, out);
        } else {
            self.say_canned(out);
        }
    }

    /// What comes after the apology.
    fn fall_back(&mut self, out: &mut Out) {
        match self.plan.fallback.clone() {
            Fallback::Forward(to) => {
                self.ending = Some(EndedReason::Forwarded);
                self.phase = Phase::Ending(self.now);
                out.push(Command::Forward { to });
            }
            Fallback::Voicemail if self.plan.recording != Recording::Never => self.begin_voicemail(out),
            Fallback::HangUp | Fallback::Voicemail => self.hang_up(EndedReason::ProvidersFailed, out),
        }
    }

    /// Says goodbye and ends the call when it has been heard.
    fn say_goodbye(&mut self, reason: EndedReason, out: &mut Out) {
        let goodbye = self.plan.phrases.goodbye.clone();
        self.say_last(Purpose::Goodbye, reason, &goodbye, out);
    }

    /// Says the last words of the call and ends it when they have been heard.
    fn say_last(&mut self, purpose: Purpose, reason: EndedReason, words: &str, out: &mut Out) {
        if self.ending.is_some() {
            return;
        }
        self.take_last_words(out);
        self.ending = Some(reason);
        self.drop_answer(out);
        if self.interruption.take().is_some() {
            self.make_way(out);
        }
        self.say(purpose, Then::HangUp, words, out);
        if self.replies.iter().all(|r| r.then != Then::HangUp) && self.phase != Phase::Ringing {
            // There is nothing to say, or no voice to say it.
            self.hang_up(reason, out);
        }
    }

    /// The agent opens.
    fn greet(&mut self, out: &mut Out) {
        match self.plan.greeting.clone() {
            Greeting::Fixed(text) => self.say(Purpose::Greeting, Then::Listen, &text, out),
            Greeting::Written if self.phase == Phase::Ringing => self.begin_answer(String::new(), out),
            Greeting::Written => self.write_greeting(out),
            Greeting::Silent => {}
        }
    }

    fn agent_talks(&self) -> bool {
        matches!(self.floor, Floor::Agent)
    }

    /// Caller and person talk at the carrier, and nothing is heard here.
    fn is_elsewhere(&self) -> bool {
        matches!(&self.floor, Floor::Bridged(bridge) if bridge.is_elsewhere())
    }

    /// A person of ours has a word for whoever talks to the caller, or is about to.
    fn whispered(&mut self, text: &str, out: &mut Out) {
        let text = history::cut_at(text.trim(), limits::TRANSCRIPT_BYTES);
        match self.floor {
            Floor::Bridged(_) => self.whisper_to_person(text, out),
            Floor::Agent | Floor::Reaching(_) if !text.is_empty() && self.ending.is_none() => {
                self.history
                    .aside(&format!("(A colleague who listens tells you, unheard by the caller: {text})"));
                // What was prepared ahead does not know it.
                self.drop_head_start(out);
            }
            _ => self.dropped += 1,
        }
    }

    /// The longest duration is over: says goodbye soon, whatever the agent had still to say.
    fn time_is_up(&mut self, out: &mut Out) {
        let longest_wait = self.now.plus_ms(CUT_WITHIN_MS);
        self.release_person(CALL_ENDED, out);
        self.set_tone(None, out);
        self.say_goodbye(EndedReason::MaxDuration, out);
        self.drop_unheard_before_goodbye(out);
        self.cut_at = self.replies.front().filter(|r| !r.is_last()).map(|reply| {
            let end = reply.clause_ends_at(self.now).filter(|at| *at < longest_wait);
            end.unwrap_or(longest_wait)
        });
    }

    fn cut_for_goodbye(&mut self, out: &mut Out) {
        self.cut_at = None;
        self.cut_before_goodbye(out);
    }

    fn max_duration_deadline(&self) -> Option<CallTime> {
        let longest = self.connected_at?.plus_ms(self.plan.timing.max_duration_ms);
        match &self.floor {
            Floor::Bridged(bridge) => return Some(bridge.longest().unwrap_or(longest)),
            // It has limits of its own.
            Floor::Mailbox(_) => return None,
            Floor::Agent | Floor::Reaching(_) => {}
        }
        if self.ending.is_none() {
            return Some(longest);
        }
        let last_words = self.replies.iter().find(|r| r.is_last());
        let began = last_words.and_then(|r| r.started_at).unwrap_or_default();
        Some(longest.max(began).plus_ms(LAST_WORDS_MS))
    }

    fn nudge_deadline(&self) -> Option<CallTime> {
        let timing = &self.plan.timing;
        let idle = self.agent_talks()
            && self.replies.is_empty()
            && self.ending.is_none()
            && self.interruption.is_none()
            && !self.answer_is_open()
            && self.tools.is_empty()
            && !self.ear.has_words();
        let speech = self.ear.speech_until(timing.noise_ms);
        idle.then(|| self.active_at.plus_ms(timing.nudge_ms).max(speech.unwrap_or_default()))
    }

    fn fire_due(&mut self, out: &mut Out) {
        for _ in 0..limits::TIMERS_AT_ONCE {
            match self.deadline() {
                Some((at, timer)) if at <= self.now => self.fire(timer, out),
                _ => return,
            }
        }
    }

    fn fire(&mut self, timer: Timer, out: &mut Out) {
        match timer {
            Timer::TurnEnd => self.turn_ended(out),
            Timer::Interruption => self.judge_silence(out),
            Timer::Unheard => self.unheard(out),
            Timer::Filler => self.fill(out),
            Timer::Ask => self.ask_too_slow(out),
            // A deadline that passed is not a passing failure where somebody else can be asked.
            Timer::Voice => {
                let last = usize::from(self.providers.tts()) + 1 >= self.plan.tts.len();
                self.tts_failed(self.providers.tts(), last, out);
            }
            Timer::Mark => self.mark_overdue(out),
            Timer::Tool => self.tools_overdue(out),
            Timer::Nudge => self.nudge(out),
            Timer::Cut => self.cut_for_goodbye(out),
            Timer::Leave => self.hang_up(EndedReason::AgentHungUp, out),
            Timer::MaxDuration => match self.ending {
                None if matches!(self.floor, Floor::Bridged(_)) => {
                    self.hang_up(EndedReason::MaxDuration, out)
                }
                None => self.time_is_up(out),
                Some(reason) => self.hang_up(reason, out),
            },
            Timer::Media => {
                let never = self.phase == Phase::Ringing;
                if never {
                    self.ending = None;
                }
                self.hang_up(if never { EndedReason::NeverConnected } else { EndedReason::MediaLost }, out);
            }
            Timer::Ending => {
                let reason = self.ending.unwrap_or(EndedReason::CarrierHungUp);
                self.end(reason, out);
            }
            Timer::Person => self.person_overdue(out),
            Timer::Word => self.say_still_trying(out),
            Timer::Mailbox => self.mailbox_goes_on(out),
        }
    }

    /// Counts a question into silence; when there have been enough of them, it is a goodbye instead.
    fn may_nudge(&mut self, out: &mut Out) -> bool {
        if self.nudges >= self.plan.timing.nudges {
            self.say_goodbye(EndedReason::Silence, out);
            return false;
        }
        self.nudges += 1;
        true
    }

    fn nudge(&mut self, out: &mut Out) {
        self.active_at = self.now;
        self.ear.take_for_noise();
        self.follow_up(out);
        if self.answer_is_open() || !self.may_nudge(out) {
            return;
        }
        let nudge = self.plan.phrases.nudge.clone();
        self.say(Purpose::Nudge, Then::Listen, &nudge, out);
    }
}

#[cfg(test)]
mod tests;
