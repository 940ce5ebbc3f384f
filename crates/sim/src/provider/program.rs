//! What the providers are told to do: what they hear, say and get wrong, and how long they take. It knows no wire format;
//! every part can be changed while they run, from Rust or as JSON over `/_sim/program`.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// One of the doubles, by what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// OpenAI chat completions.
    Chat,
    /// The list of OpenAI models.
    Models,
    /// OpenAI transcription of a whole file.
    Transcription,
    /// OpenAI speech.
    Speech,
    /// Deepgram live transcription, `/v1/listen`.
    DeepgramListen,
    /// Deepgram Flux, `/v2/listen`.
    DeepgramFlux,
    /// Deepgram speech, `/v1/speak`.
    DeepgramSpeak,
    /// ElevenLabs speech, `multi-stream-input`.
    ElevenLabs,
    /// Cartesia speech, `/tts/websocket`.
    Cartesia,
    /// The calls by which an account checks its key.
    Account,
}

/// Everything that is programmed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Program {
    /// What the recognisers hear, one utterance after another; while empty they read what the audio spells
    /// (see [`utterance`](super::utterance)).
    pub hears: VecDeque<String>,
    /// What the model answers: the first rule that fits. Without one it says back what it was told.
    pub rules: Vec<Rule>,
    /// How long things take.
    pub delays: Delays,
    /// How the voices speak and send.
    pub voice: VoiceSettings,
    /// In which ways the chat stream differs from OpenAI's own.
    pub dialect: Dialect,
    /// What goes wrong.
    pub faults: Faults,
    /// Where the providers lose patience.
    pub limits: Limits,
}

/// One thing the model can be made to say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Part of the last thing said to the model, by the caller or as the result of a tool; capitals do not matter.
    pub contains: String,
    /// What it does then.
    pub reply: Reply,
}

impl Rule {
    /// A rule that answers with text.
    pub fn text(contains: &str, text: &str) -> Rule {
        Rule { contains: contains.into(), reply: Reply::Text(text.into()) }
    }

    /// A rule that calls a tool.
    pub fn tool(contains: &str, name: &str, arguments: Value) -> Rule {
        Rule {
            contains: contains.into(),
            reply: Reply::ToolCalls {
                text: String::new(),
                calls: vec![ToolCall { name: name.into(), arguments }],
            },
        }
    }
}

/// What the model does about a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Says this.
    Text(String),
    /// Calls tools, after saying something or nothing.
    ToolCalls {
        /// What it says first.
        #[serde(default)]
        text: String,
        /// The calls, in order.
        calls: Vec<ToolCall>,
    },
    /// Refuses with `delta.refusal` in place of content.
    Refusal(String),
    /// Answers with an HTTP error.
    Error {
        /// The HTTP status.
        status: u16,
        /// `error.code` of the body.
        code: String,
    },
    /// Answers with an `error` event after the first words of the text.
    ErrorMidStream {
        /// What it was going to say.
        text: String,
        /// `error.code` of the event.
        code: String,
    },
    /// Never answers.
    Stall,
}

/// One call of a tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The function.
    pub name: String,
    /// Its arguments; a string is sent as it is, well-formed or not.
    pub arguments: Value,
}

/// How long things take, in milliseconds; zero by default, but for `late_ms`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delays {
    /// From the audio that decides it to an interim transcript.
    pub stt_interim_ms: u64,
    /// From the audio that decides it to a final transcript or a turn's end.
    pub stt_final_ms: u64,
    /// From a chat request to its first token.
    pub first_token_ms: u64,
    /// From one token to the next.
    pub per_token_ms: u64,
    /// From the text to the first audio of it.
    pub first_audio_ms: u64,
    /// What a [`Fault::Late`] adds.
    pub late_ms: u64,
}

impl Default for Delays {
    fn default() -> Self {
        Delays {
            stt_interim_ms: 0,
            stt_final_ms: 0,
            first_token_ms: 0,
            per_token_ms: 0,
            first_audio_ms: 0,
            late_ms: 2_000,
        }
    }
}

/// How the voices speak and send.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VoiceSettings {
    /// Bytes of text spoken a second, spaces included.
    pub letters_per_second: f64,
    /// How many seconds of audio are sent a second; zero sends it all at once.
    pub times_real_time: f64,
    /// The length of one message of audio.
    pub chunk_ms: u64,
    /// How many more messages of audio come after a cancel.
    pub late_chunks: usize,
}

impl Default for VoiceSettings {
    fn default() -> Self {
        VoiceSettings {
            letters_per_second: super::LETTERS_PER_SECOND,
            times_real_time: 0.0,
            chunk_ms: 100,
            late_chunks: 0,
        }
    }
}

/// In which ways the chat stream differs from OpenAI's own, as compatible servers do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dialect {
    /// The body is cut into pieces of one to this many bytes, at any place, inside characters too.
    pub split_bytes: Option<usize>,
    /// `choices[].index` and `tool_calls[].index` are missing.
    pub missing_index: bool,
    /// A tool call comes whole, in one chunk.
    pub whole_tool_call: bool,
    /// Every chunk has `usage`.
    pub usage_on_every_chunk: bool,
    /// Lines end in CR LF.
    pub crlf: bool,
    /// `: keep-alive` comments stand between the events.
    pub comments: bool,
    /// An answer with tool calls ends with `finish_reason: "stop"`.
    pub stop_with_tool_calls: bool,
    /// The model thinks aloud in `reasoning_content` first.
    pub reasoning_content: bool,
    /// Chunks have an `obfuscation` of random length.
    pub obfuscation: bool,
    /// The stream ends without `[DONE]`.
    pub no_done: bool,
}

/// What can go wrong with one answer. On a socket an answer is one utterance heard or one text spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The request, or the opening of the socket, is refused.
    Refuse {
        /// With this HTTP status.
        status: u16,
        /// And this advice (OpenAI).
        #[serde(default)]
        retry_after_ms: Option<u64>,
    },
    /// Nothing comes, for ever.
    Stall,
    /// Half of the answer comes, then nothing.
    StallMidStream,
    /// Half of the answer comes, then the connection breaks.
    Cut,
    /// In the middle of the answer stands one message that is not JSON.
    MalformedJson,
    /// The answer never ends: tokens, interim transcripts or audio without end.
    Endless,
    /// The answer is well-formed and empty.
    Empty,
    /// What ends the answer comes late.
    Late,
    /// What ends the answer comes twice.
    Duplicate,
    /// What ends the answer comes before the last of what it ends.
    WrongOrder,
    /// A final transcript comes without `speech_final` (Deepgram, in background noise).
    MissingSpeechFinal,
}

impl Fault {
    /// Whether it strikes when a request arrives, rather than when it is answered.
    pub(super) fn at_opening(self) -> bool {
        matches!(self, Fault::Refuse { .. })
    }
}

/// What goes wrong: first the queue, then by probability.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// The next answers of each service, in order; `null` is an answer without fault.
    pub queue: BTreeMap<Service, VecDeque<Option<Fault>>>,
    /// How often what goes wrong when nothing is queued.
    pub rates: Vec<FaultRate>,
}

/// How often one fault strikes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRate {
    /// At which service.
    pub service: Service,
    /// What strikes.
    pub fault: Fault,
    /// From 0 to 1, for each answer.
    pub probability: f64,
}

impl Faults {
    /// Adds to the queue of a service.
    pub fn push(&mut self, service: Service, fault: impl Into<Option<Fault>>) {
        self.queue.entry(service).or_default().push_back(fault.into());
    }

    /// Decides what goes wrong now.
    fn draw(&mut self, service: Service, moment: Moment, dice: &mut ChaCha8Rng) -> Option<Fault> {
        if let Some(queue) = self.queue.get_mut(&service).filter(|queue| !queue.is_empty()) {
            let due = match queue.front() {
                Some(Some(fault)) => moment.fits(*fault),
                _ => moment != Moment::Opening,
            };
            return if due { queue.pop_front().flatten() } else { None };
        }
        let strikes = |rate: &&FaultRate| {
            rate.service == service
                && moment.fits(rate.fault)
                && dice.random_bool(rate.probability.clamp(0.0, 1.0))
        };
        self.rates.iter().find(strikes).map(|rate| rate.fault)
    }
}

/// When a fault can strike.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// A socket is being opened: only refusals.
    Opening,
    /// Something is heard or said on an open socket: all but refusals.
    Answer,
    /// A request and its answer in one.
    Request,
}

impl Moment {
    fn fits(self, fault: Fault) -> bool {
        match self {
            Moment::Opening => fault.at_opening(),
            Moment::Answer => !fault.at_opening(),
            Moment::Request => true,
        }
    }
}

/// Dice for the faults, one for each service so that one service's traffic does not change another's luck.
pub(super) struct Dice {
    seed: u64,
    services: BTreeMap<Service, ChaCha8Rng>,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice { seed, services: BTreeMap::new() }
    }

    pub fn draw(&mut self, faults: &mut Faults, service: Service, moment: Moment) -> Option<Fault> {
        faults.draw(service, moment, self.of(service))
    }

    /// A new stream of random numbers for one answer.
    pub fn fork(&mut self, service: Service) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.of(service).random())
    }

    fn of(&mut self, service: Service) -> &mut ChaCha8Rng {
        let seed = self.seed.wrapping_add((service as u64) << 32);
        self.services.entry(service).or_insert_with(|| ChaCha8Rng::seed_from_u64(seed))
    }
}

/// Where the providers lose patience, by default as documented.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Deepgram closes `/v1/listen` after this long without audio or KeepAlive.
    pub deepgram_silence_ms: u64,
    /// How many times `/v1/speak` may be flushed in 60 s before it warns.
    pub deepgram_flushes: usize,
    /// The silence in which Flux becomes sure (0.7) that a turn is over.
    pub flux_turn_end_ms: u64,
    /// ElevenLabs closes a socket after this long without text, where the client does not say.
    pub elevenlabs_inactivity_ms: u64,
    /// Cartesia closes an idle socket after this long.
    pub cartesia_idle_ms: u64,
    /// A Cartesia context dies this long after its last audio.
    pub cartesia_context_ms: u64,
    /// How many Cartesia contexts may be in flight; zero for any number.
    pub cartesia_contexts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            deepgram_silence_ms: 10_000,
            deepgram_flushes: 20,
            flux_turn_end_ms: 500,
            elevenlabs_inactivity_ms: 20_000,
            cartesia_idle_ms: 300_000,
            cartesia_context_ms: 1_000,
            cartesia_contexts: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queued_faults_come_in_order_each_at_its_moment() {
        let mut faults = Faults::default();
        let refuse = Fault::Refuse { status: 503, retry_after_ms: None };
        for fault in [Some(Fault::Empty), None, Some(refuse), Some(Fault::Cut)] {
            faults.push(Service::DeepgramListen, fault);
        }
        let mut dice = Dice::new(1);
        let mut draw = |moment| dice.draw(&mut faults, Service::DeepgramListen, moment);
        assert_eq!(draw(Moment::Opening), None);
        assert_eq!(draw(Moment::Answer), Some(Fault::Empty));
        assert_eq!(draw(Moment::Answer), None);
        assert_eq!(draw(Moment::Answer), None, "a refusal waits for the next opening");
        assert_eq!(draw(Moment::Opening), Some(refuse));
        assert_eq!(draw(Moment::Answer), Some(Fault::Cut));
    }

    #[test]
    fn the_same_seed_gives_each_service_the_same_luck() {
        let luck = |seed| {
            let rate = |service| FaultRate { service, fault: Fault::Stall, probability: 0.3 };
            let mut faults =
                Faults { rates: vec![rate(Service::Chat), rate(Service::Cartesia)], ..Faults::default() };
            let mut dice = Dice::new(seed);
            (0..64)
                .map(|_| dice.draw(&mut faults, Service::Chat, Moment::Request).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(luck(7), luck(7));
        assert_ne!(luck(7), luck(8));
        let struck = luck(7).into_iter().filter(|struck| *struck).count();
        assert!((8..32).contains(&struck), "{struck} of 64");
    }
}
