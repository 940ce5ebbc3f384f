//! The words of a call: its time and ids, the facts that come in, the orders that go out, and why it ends. They are data; what
//! follows from a fact is in [`super`].

use super::{Line, Reach, TurnTiming};
use crate::{ChatMessage, E164, ToolRequest};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

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
            pub(super) fn next(&mut self) -> $name {
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
