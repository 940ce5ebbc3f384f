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
mod voicemail;
mod words;

pub use history::{Line, Speaker};
pub use plan::{
    Ability, AbilityKind, Accept, CallPlan, Destination, Fallback, Greeting, Opening, Otherwise, Phrases,
    Reach, Recording, Timing, Voicemail,
};
pub use speech::Purpose;
pub use turn::TurnTiming;

use crate::{ChatMessage, E164, ToolRequest, limits};
use serde::{Deserialize, Serialize};
use speech::{Reply, Then};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use transfer::Aim;

/// Microseconds since the call began to ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallTime(u64);

impl CallTime {
    /// The first ring.
    pub const ZERO: CallTime = CallTime(0);

    /// The moment `us` microseconds into the call.
    pub const fn from_us(us: u64) -> Self {
        CallTime(us)
    }

    /// The moment `ms` milliseconds into the call.
    pub const fn from_ms(ms: u64) -> Self {
        CallTime(ms.saturating_mul(1_000))
    }

    /// Microseconds into the call.
    pub const fn as_us(self) -> u64 {
        self.0
    }

    /// Milliseconds into the call, rounded down.
    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000
    }

    /// This moment and `ms` more.
    #[must_use]
    pub const fn plus_ms(self, ms: u32) -> Self {
        CallTime(self.0.saturating_add(ms as u64 * 1_000))
    }

    /// This moment and `ms` less, but not before the call.
    #[must_use]
    pub const fn minus_ms(self, ms: u32) -> Self {
        CallTime(self.0.saturating_sub(ms as u64 * 1_000))
    }

    /// How long after `earlier` this is, in ms; 0 if it is not after.
    pub const fn since_ms(self, earlier: CallTime) -> u32 {
        let ms = self.0.saturating_sub(earlier.0) / 1_000;
        if ms > u32::MAX as u64 { u32::MAX } else { ms as u32 }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            fn next(&mut self) -> $name {
                self.0 += 1;
                *self
            }
        }
    )*};
}

counters! {
    /// Something the agent says; unique within the call, as the ids below.
    ReplyId;
    /// A request to a language model.
    AskId;
    /// A recogniser's session.
    SttId;
    /// One use of a tool.
    ToolId;
    /// Somebody else's phone that was rung from this call.
    LegId;
    /// Something that only the person on such a phone hears.
    TellId;
}

/// "By `ms` of a reply's audio, its text up to byte `bytes` has been spoken."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Anchor {
    /// Milliseconds of the reply's audio.
    pub ms: u32,
    /// Bytes of the reply's text, all clauses joined.
    pub bytes: u32,
}

/// A fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Input {
    /// Media flows in both directions, for the first time or again.
    Connected,
    /// Media broke off, but the carrier has not ended the call.
    MediaLost,
    /// The call is over at the carrier.
    HungUp {
        /// The caller ended it; otherwise the carrier or we did.
        by_caller: bool,
    },
    /// The caller pressed a key.
    Dtmf {
        /// `0`–`9`, `*`, `#`, `A`–`D`.
        digit: char,
    },
    /// A mark came back: so much of a reply has been played to the caller. 0 when its first sample is played.
    Played {
        /// Which reply.
        reply: ReplyId,
        /// Milliseconds of its audio.
        ms: u32,
        /// All of it, and no more will come.
        done: bool,
    },
    /// The caller makes a sound like speech.
    SpeechStarted,
    /// The caller is silent again.
    SpeechStopped {
        /// How long the silence has lasted already.
        silence_ms: u32,
    },
    /// A recogniser's session is up.
    SttOpened {
        /// Which session.
        stt: SttId,
    },
    /// The best guess at what the caller is saying, replacing the last.
    Interim {
        /// Which session.
        stt: SttId,
        /// The words since the last final.
        text: String,
        /// Where they end, in ms of audio the session was fed.
        end_ms: u32,
    },
    /// What the caller said, settled.
    Final {
        /// Which session.
        stt: SttId,
        /// The words since the last final; may be empty.
        text: String,
        /// Where they end, in ms of audio the session was fed.
        end_ms: u32,
        /// The recogniser takes the utterance to be over.
        utterance_end: bool,
    },
    /// The recogniser takes the utterance to be over; its finals have been sent.
    UtteranceEnd {
        /// Which session.
        stt: SttId,
    },
    /// The recogniser thinks that the caller may be done.
    EagerEnd {
        /// Which session.
        stt: SttId,
        /// The utterance so far.
        text: String,
    },
    /// A recogniser's session died.
    SttFailed {
        /// Which session.
        stt: SttId,
        /// Trying the same one again may help.
        may_pass: bool,
    },
    /// A piece of a model's answer.
    Token {
        /// Which request.
        ask: AskId,
        /// The piece.
        text: String,
    },
    /// A model wants to use a tool.
    Tool {
        /// Which request.
        ask: AskId,
        /// The tool and its arguments.
        request: ToolRequest,
    },
    /// A model's answer is complete.
    AskDone {
        /// Which request.
        ask: AskId,
    },
    /// A model's answer broke off or never came.
    AskFailed {
        /// Which request.
        ask: AskId,
        /// Trying the same one again may help.
        may_pass: bool,
    },
    /// A voice has made so much of a reply's audio.
    Synthesized {
        /// Which reply.
        reply: ReplyId,
        /// Milliseconds of audio so far.
        ms: u32,
        /// All of the reply's text is audio.
        done: bool,
    },
    /// A voice said how far the text is spoken at moments of the audio.
    Aligned {
        /// Which reply.
        reply: ReplyId,
        /// Moments in ascending order.
        anchors: Vec<Anchor>,
    },
    /// A voice failed.
    TtsFailed {
        /// Which voice of the plan.
        voice: u8,
        /// Trying the same one again may help.
        may_pass: bool,
    },
    /// A tool has been used.
    ToolDone {
        /// Which use.
        tool: ToolId,
        /// Its result, or its error in words for the model.
        result: String,
    },
    /// A person or the platform wants the call ended.
    HangUpOrdered,
    /// The phone rings.
    LegRinging {
        /// Whose.
        leg: LegId,
    },
    /// The phone was picked up, and media flows to it and from it.
    LegUp {
        /// Whose.
        leg: LegId,
    },
    /// The phone is not on the line, or no more.
    LegDown {
        /// Whose.
        leg: LegId,
        /// Why.
        how: LegEnd,
    },
    /// The person pressed a key.
    LegKey {
        /// Who.
        leg: LegId,
        /// `0`–`9`, `*`, `#`, `A`–`D`.
        digit: char,
    },
    /// The person said something, settled.
    LegSaid {
        /// Who.
        leg: LegId,
        /// The words.
        text: String,
    },
    /// What the person was told has been heard to its end.
    Told {
        /// What.
        tell: TellId,
    },
    /// What the person was to be told cannot be said.
    TellFailed {
        /// What.
        tell: TellId,
    },
    /// Caller and person hear each other.
    Bridged {
        /// Who.
        leg: LegId,
    },
    /// They could not be connected; both are still on their lines.
    BridgeFailed {
        /// Who.
        leg: LegId,
    },
    /// A person of ours wants to talk to the caller in the agent's place.
    TakeOver {
        /// Whom to ring.
        reach: Reach,
        /// The agent goes on listening and keeps the transcript.
        notes: bool,
    },
    /// A person of ours has something for who talks to the caller: an instruction for the agent, or a word in the ear of the person.
    Whisper {
        /// The words.
        text: String,
    },
    /// A person of ours stops or goes on recording.
    RecordingOrdered {
        /// Whether to go on.
        on: bool,
    },
    /// Nothing but time.
    Tick,
}

/// Why a phone that was rung is not on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LegEnd {
    /// It is engaged.
    Busy,
    /// Nobody picked it up in time.
    NoAnswer,
    /// It was rejected.
    Refused,
    /// It cannot be rung: no such number, no permission, no credit.
    Failed,
    /// A machine picked it up.
    Machine,
    /// The person hung up.
    HungUp,
    /// Its media broke.
    Lost,
}

/// Something to hear while nobody talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// The tone of a phone that rings.
    Ringback,
    /// A soft tone every few seconds: the call is still there.
    Waiting,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Open a recogniser and feed it the caller's audio, in place of any before.
    OpenStt {
        /// The new session.
        stt: SttId,
        /// Which recogniser of the plan.
        provider: u8,
    },
    /// Ask the recogniser for a final at once.
    Finalize {
        /// Which session.
        stt: SttId,
    },
    /// Open a voice, so that its first word need not wait.
    OpenTts {
        /// Which voice of the plan.
        voice: u8,
    },
    /// Ask a language model.
    Ask {
        /// The new request.
        ask: AskId,
        /// Which model of the plan.
        provider: u8,
        /// History, instructions first.
        messages: Arc<[ChatMessage]>,
    },
    /// Forget a request.
    CancelAsk {
        /// Which request.
        ask: AskId,
    },
    /// Make a clause into audio. It is kept until [`Command::Play`].
    Speak {
        /// Which reply it belongs to.
        reply: ReplyId,
        /// Which voice of the plan.
        voice: u8,
        /// The clause.
        text: String,
        /// It is a whole sentence that is the same on every call: its audio may be kept.
        fixed: bool,
    },
    /// A reply's text is complete.
    FinishReply {
        /// Which reply.
        reply: ReplyId,
    },
    /// Play a reply's audio, after what is playing already.
    Play {
        /// Which reply.
        reply: ReplyId,
    },
    /// Fall silent at once, but keep the audio.
    PausePlayout,
    /// Go on with a reply.
    ResumePlayout {
        /// Which reply.
        reply: ReplyId,
        /// From where in its audio.
        from_ms: u32,
    },
    /// Fall silent if it is playing, and drop the reply's text and audio everywhere.
    CancelReply {
        /// Which reply.
        reply: ReplyId,
    },
    /// Play the apology that needs no provider, as this reply.
    PlayCanned {
        /// Which reply.
        reply: ReplyId,
    },
    /// Use a tool, once.
    RunTool {
        /// This use.
        tool: ToolId,
        /// The tool's name.
        name: String,
        /// Arguments as JSON text.
        arguments: String,
    },
    /// Send digits down the line.
    SendDtmf {
        /// `0`–`9`, `*`, `#`, and `w` for a pause of half a second.
        digits: String,
    },
    /// End the call.
    HangUp,
    /// Connect the caller to a number, without the agent.
    Forward {
        /// To whom.
        to: E164,
    },
    /// Ring somebody.
    Dial {
        /// As which leg.
        leg: LegId,
        /// Whom.
        to: E164,
        /// What they see; `None`: our number.
        caller_id: Option<String>,
        /// How long it may ring.
        ring_ms: u32,
        /// Their words matter: a recogniser listens to them.
        listens: bool,
    },
    /// Say something to a person who was rung, whom the caller does not hear; in place of what they are being told.
    Tell {
        /// To whom.
        leg: LegId,
        /// What.
        tell: TellId,
        /// Which voice of the plan.
        voice: u8,
        /// The words.
        text: String,
    },
    /// Hang up on a person who was rung, or stop ringing.
    DropLeg {
        /// Whom.
        leg: LegId,
    },
    /// Let caller and person hear each other.
    Bridge {
        /// Whom.
        leg: LegId,
        /// Their audio must pass through here: it is recorded, or the agent listens. Otherwise the carrier may join them, and
        /// the caller's media with us may end.
        through_us: bool,
    },
    /// Let the caller hear a tone under everything that is said, from now on until another is ordered.
    Tone {
        /// Which; `None`: none.
        tone: Option<Tone>,
    },
    /// Play the tone after which a message is recorded, as this reply.
    Beep {
        /// Which reply.
        reply: ReplyId,
    },
    /// Play a recorded greeting, as this reply.
    PlayAudio {
        /// Which reply.
        reply: ReplyId,
        /// The greeting's name.
        name: String,
    },
    /// Record what is said from now on, or do not.
    Record {
        /// Whether.
        on: bool,
    },
    /// Keep for the record: a line of the transcript, new or corrected.
    Note(Line),
    /// Keep for the record: the times of a turn whose answer has begun to be heard.
    Timed(TurnTiming),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::OpenStt { stt, provider } => write!(f, "open stt {} of {provider}", stt.0),
            Command::Finalize { stt } => write!(f, "finalize stt {}", stt.0),
            Command::OpenTts { voice } => write!(f, "open voice {voice}"),
            Command::Ask { ask, provider, messages } => {
                write!(f, "ask {} of {provider} with {} messages", ask.0, messages.len())
            }
            Command::CancelAsk { ask } => write!(f, "cancel ask {}", ask.0),
            Command::Speak { reply, voice, text, .. } => {
                write!(f, "speak {} by {voice}, {} bytes", reply.0, text.len())
            }
            Command::FinishReply { reply } => write!(f, "finish {}", reply.0),
            Command::Play { reply } => write!(f, "play {}", reply.0),
            Command::PausePlayout => f.write_str("pause"),
            Command::ResumePlayout { reply, from_ms } => write!(f, "resume {} at {from_ms} ms", reply.0),
            Command::CancelReply { reply } => write!(f, "cancel {}", reply.0),
            Command::PlayCanned { reply } => write!(f, "play canned as {}", reply.0),
            Command::RunTool { tool, name, .. } => write!(f, "tool {} {name}", tool.0),
            Command::SendDtmf { .. } => f.write_str("send dtmf"),
            Command::HangUp => f.write_str("hang up"),
            Command::Forward { .. } => f.write_str("forward"),
            Command::Dial { leg, ring_ms, .. } => write!(f, "dial {} for {ring_ms} ms", leg.0),
            Command::Tell { leg, tell, text, .. } => {
                write!(f, "tell {} of {}, {} bytes", tell.0, leg.0, text.len())
            }
            Command::DropLeg { leg } => write!(f, "drop {}", leg.0),
            Command::Bridge { leg, through_us: true } => write!(f, "bridge {} here", leg.0),
            Command::Bridge { leg, through_us: false } => write!(f, "bridge {}", leg.0),
            Command::Tone { tone: Some(tone) } => write!(f, "tone {tone:?}"),
            Command::Tone { tone: None } => f.write_str("no tone"),
            Command::Beep { reply } => write!(f, "beep as {}", reply.0),
            Command::PlayAudio { reply, .. } => write!(f, "play audio as {}", reply.0),
            Command::Record { on: true } => f.write_str("record"),
            Command::Record { on: false } => f.write_str("do not record"),
            Command::Note(line) => write!(f, "note line {} of {:?}", line.number, line.speaker),
            Command::Timed(timing) => write!(f, "timed turn {}", timing.turn),
        }
    }
}

/// Why a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedReason {
    /// The caller hung up.
    CallerHungUp,
    /// The agent said goodbye and hung up.
    AgentHungUp,
    /// The caller stayed silent.
    Silence,
    /// The longest duration was reached.
    MaxDuration,
    /// No provider was left; the caller heard an apology.
    ProvidersFailed,
    /// The caller was connected to somebody else, whom this line is forwarded to.
    Forwarded,
    /// The agent connected the caller to a person.
    Transferred,
    /// A person of ours took the call over.
    TakenOver,
    /// The caller left a message.
    VoicemailLeft,
    /// The caller could have left a message and did not.
    VoicemailEmpty,
    /// The caller was told why nobody answers.
    MessageTold,
    /// Nobody was reached, and there was nothing else.
    NobodyReached,
    /// Two members were connected, without an agent.
    MembersTalked,
    /// Media was lost and did not come back.
    MediaLost,
    /// The phone stopped ringing before media flowed.
    NeverConnected,
    /// A person or the platform ended it.
    Ordered,
    /// The carrier ended it.
    CarrierHungUp,
    /// A fault of Offhook's own; the caller heard an apology.
    OffhookFailed,
}

/// Why the machine wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// The caller's turn is over unless they go on.
    TurnEnd,
    /// An interruption must be judged.
    Interruption,
    /// Something was heard that never became words.
    Unheard,
    /// Silence has to be filled.
    Filler,
    /// A model is too slow.
    Ask,
    /// A voice is too slow.
    Voice,
    /// A mark never came.
    Mark,
    /// A tool is too slow.
    Tool,
    /// Both sides are silent.
    Nudge,
    /// The last words were heard and the caller has nothing to add.
    Leave,
    /// What is being said has to make way for the goodbye.
    Cut,
    /// The call has lasted long enough.
    MaxDuration,
    /// Media has been lost for long enough, or never came.
    Media,
    /// The carrier did not report the end.
    Ending,
    /// The next step towards a person is due: nobody picked up, answered or was connected in time.
    Person,
    /// A caller who waits for a person is due a word.
    Word,
    /// The next step of taking a message is due.
    Mailbox,
}

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
