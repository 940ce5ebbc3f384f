//! Speech-to-text, language models and text-to-speech behind three small traits, one file per provider.
//! Nothing here knows a call: a session takes audio or text and reports what came of it, with ids that the caller chose.
//!
//! All three traits hand back at once; connecting happens in a task of the session's own, so that connections can be
//! opened while the phone still rings. Dropping a session (or a reply) stops the provider's work within 50 ms.
//! Adapters retry where only they know what to repeat or how long to wait, and then once: a provider that asks for a short
//! pause, an utterance whose transcription failed. Everything else, and who is asked next, is decided by the call.

use bytes::Bytes;
use offhook_core::call::Anchor;
use offhook_core::{ChatMessage, Language, Secret, ToolRequest, ToolSpec};
use offhook_media::coding::Coding;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

#[doc(hidden)]
pub mod bench;
mod cartesia;
mod contexts;
mod deepgram;
mod elevenlabs;
mod http;
mod json;
pub mod offline;
mod openai;
mod refusal;
mod settings;
pub mod sse;
mod throttle;
mod utterances;
mod ws;

pub use settings::{Connection, ProviderSettings, SettingsError, check, llm, stt, tts};

/// How many commands or events of one session may wait before the sender has to.
pub const SESSION_QUEUE: usize = 256;

/// An encoding of speech, mono.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AudioFormat {
    /// G.711 µ-law at 8 kHz.
    Mulaw,
    /// Signed 16-bit little-endian PCM.
    Linear16 {
        /// Samples a second.
        rate_hz: u32,
    },
}

impl From<AudioFormat> for Coding {
    fn from(format: AudioFormat) -> Coding {
        match format {
            AudioFormat::Mulaw => Coding::MU_LAW,
            AudioFormat::Linear16 { rate_hz } => Coding::Linear { rate_hz },
        }
    }
}

/// What holds for all that is asked of a provider: one connection's settings.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The key; empty where the server needs none.
    pub key: Secret<String>,
    /// Headers beside those the provider asks for, such as a proxy's.
    pub headers: BTreeMap<String, String>,
    /// TCP and TLS, upgrade included.
    pub connect_timeout: Duration,
    /// From the request to the first byte of an answer.
    pub first_byte_timeout: Duration,
    /// Between two pieces of a streamed answer.
    pub idle_timeout: Duration,
}

/// Why a provider did not do its work. `Display` names provider and cause; what to do next follows from the cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{provider}: {cause}{}", if detail.is_empty() { String::new() } else { format!(": {detail}") })]
pub struct ProviderError {
    /// The provider's name as in settings, e.g. `deepgram`.
    pub provider: &'static str,
    /// What kind of failure it is.
    pub cause: Cause,
    /// The provider's own words, shortened; never a key, never the caller's words.
    pub detail: String,
}

/// Kinds of failure, by what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Cause {
    /// 401: paste the current key.
    #[error("the key was refused")]
    Key,
    /// 402 or an exhausted quota: top up.
    #[error("no credit left")]
    Credit,
    /// 403 or 404: the model, voice or scope is not this key's.
    #[error("model, voice or permission not available")]
    NotAvailable,
    /// 429: wait, or raise the limit.
    #[error("too many requests")]
    RateLimited,
    /// 400 and the like: our request was not understood.
    #[error("request refused")]
    Refused,
    /// Nothing answered in time.
    #[error("timed out")]
    TimedOut,
    /// Refused connections, 5xx, sockets that break.
    #[error("unreachable")]
    Unreachable,
    /// An answer that is not what the provider's documents promise.
    #[error("malformed answer")]
    Malformed,
}

impl Cause {
    /// Whether asking the same provider once more may help.
    pub fn may_pass(self) -> bool {
        matches!(self, Cause::RateLimited | Cause::TimedOut | Cause::Unreachable | Cause::Malformed)
    }
}

/// Speech to text.
pub trait Stt: Send + Sync {
    /// The provider's name as in settings.
    fn name(&self) -> &'static str;
    /// The format it wants to be fed, of those the line can give (8 kHz µ-law, or linear PCM at 8 or 16 kHz).
    fn format(&self) -> AudioFormat;
    /// Starts a session.
    fn open(&self, options: SttOptions) -> SttSession;
}

/// What a recogniser is told beforehand.
#[derive(Clone, Debug)]
pub struct SttOptions {
    /// What is spoken.
    pub language: Language,
    /// Words to listen for: names, products.
    pub keywords: Vec<String>,
    /// Silence after which the provider may call an utterance ended.
    pub endpointing_ms: u32,
}

/// A running recogniser. Dropping it ends it.
pub struct SttSession {
    /// Audio in, in order.
    pub commands: mpsc::Sender<SttCommand>,
    /// What was heard. Ends after [`SttEvent::Failed`].
    pub events: mpsc::Receiver<SttEvent>,
}

/// What a recogniser is told while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SttCommand {
    /// Audio in the session's format, any length; never empty.
    Audio(Bytes),
    /// Say now what has been heard so far, as a final, without waiting for silence.
    Finalize,
    /// What the agent has just said or asked: a hint for recognisers that listen with a grammar. Others ignore it.
    Context(Arc<[ChatMessage]>),
}

/// What a recogniser reports. Times are ms of audio fed since the session began.
#[derive(Clone, Debug, PartialEq)]
pub enum SttEvent {
    /// The session is up.
    Opened,
    /// The best guess for the utterance so far, replacing the previous guess.
    Interim {
        /// The words since the last final.
        text: String,
        /// Where they begin.
        start_ms: u32,
        /// Where they end.
        end_ms: u32,
    },
    /// Words that will not change any more.
    Final {
        /// The words since the last final; may be empty.
        text: String,
        /// Where they begin.
        start_ms: u32,
        /// Where they end.
        end_ms: u32,
        /// The provider takes the utterance to be over.
        utterance_end: bool,
    },
    /// The provider takes the utterance to be over; all finals have been sent.
    UtteranceEnd,
    /// The speaker may be done (head start); the words so far.
    EagerEnd {
        /// The words since the last final.
        text: String,
    },
    /// The session is dead.
    Failed(ProviderError),
}

/// A language model.
pub trait Llm: Send + Sync {
    /// The provider's name as in settings.
    fn name(&self) -> &'static str;
    /// Opens a connection beforehand so that the first request does not wait for it. May do nothing.
    fn warm(&self) {}
    /// Asks for a reply.
    fn ask(&self, request: LlmRequest) -> LlmReply;
}

/// One request to a language model.
#[derive(Clone, Debug)]
pub struct LlmRequest {
    /// History, instructions first.
    pub messages: Arc<[ChatMessage]>,
    /// Tools it may use.
    pub tools: Arc<[ToolSpec]>,
    /// Upper bound of the reply, in tokens.
    pub max_tokens: u32,
    /// Sampling temperature in hundredths (40 = 0.4); `None`: the provider's own.
    pub temperature_centi: Option<u16>,
}

/// A reply on its way. Dropping it cancels the request.
pub struct LlmReply {
    /// Its pieces; ends after `Done` or `Failed`.
    pub events: mpsc::Receiver<LlmEvent>,
}

/// A piece of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum LlmEvent {
    /// Text to speak.
    Token(String),
    /// A tool to use, whole: the arguments are JSON as far as the model wrote JSON.
    Tool(ToolRequest),
    /// The reply is complete.
    Done {
        /// What it cost, where the provider says so.
        usage: Option<TokenUsage>,
        /// The model stopped for its length limit.
        cut_off: bool,
    },
    /// There will be no more.
    Failed(ProviderError),
}

/// Tokens of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TokenUsage {
    /// Tokens read.
    pub prompt: u32,
    /// Of those, read from the provider's cache.
    pub cached: u32,
    /// Tokens written.
    pub completion: u32,
}

/// Text to speech.
pub trait Tts: Send + Sync {
    /// The provider's name as in settings.
    fn name(&self) -> &'static str;
    /// What audio it will deliver when asked for speech on a µ-law 8 kHz line.
    fn format(&self) -> AudioFormat;
    /// Starts a session for one call.
    fn open(&self, options: TtsOptions) -> TtsSession;
}

/// What a voice is told beforehand.
#[derive(Clone, Debug)]
pub struct TtsOptions {
    /// What is spoken.
    pub language: Language,
}

/// A running voice. Dropping it ends it.
pub struct TtsSession {
    /// Text in.
    pub commands: mpsc::Sender<TtsCommand>,
    /// Audio out.
    pub events: mpsc::Receiver<TtsEvent>,
}

/// What a voice is told while it runs. A context is one reply of the agent; its pieces are joined verbatim. A context that
/// was cancelled or is done is dead: its number is not used again, and commands for it are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TtsCommand {
    /// The next clause of a context. Spaces between clauses are kept in the text.
    Speak {
        /// Which reply.
        context: u32,
        /// The clause.
        text: String,
    },
    /// The context's text is complete: speak what waits, then report `Done`.
    Finish {
        /// Which reply.
        context: u32,
    },
    /// Drop the context; nothing of it may be reported afterwards.
    Cancel {
        /// Which reply.
        context: u32,
    },
}

/// What a voice reports.
#[derive(Clone, Debug, PartialEq)]
pub enum TtsEvent {
    /// The session is up.
    Opened,
    /// The next audio of a context, in the session's format, any length.
    Audio {
        /// Which reply.
        context: u32,
        /// The samples.
        audio: Bytes,
    },
    /// How far the context's text is spoken at a moment of its audio. Sent where the provider knows (word times, or
    /// the end of a piece synthesized on its own).
    Aligned {
        /// Which reply.
        context: u32,
        /// Moments in ascending order.
        anchors: Vec<Anchor>,
    },
    /// All text of a finished context has been delivered as audio.
    Done {
        /// Which reply.
        context: u32,
    },
    /// A context failed, or with `None` the whole session.
    Failed {
        /// Which reply.
        context: Option<u32>,
        /// Why.
        error: ProviderError,
    },
}
