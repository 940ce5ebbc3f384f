//! What a call may depend on, loaded once before it is answered. After that the machine asks nobody.

use crate::{E164, Language, ToolSpec};
use serde::{Deserialize, Serialize};

/// Everything one call may depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallPlan {
    /// The agent's instructions for the model.
    pub instructions: String,
    /// How the agent opens.
    pub greeting: Greeting,
    /// What is spoken.
    pub language: Language,
    /// Tools the agent may use.
    pub abilities: Vec<Ability>,
    /// Names of the recognisers, first choice first; at least one.
    pub stt: Vec<String>,
    /// Names of the language models, first choice first; at least one.
    pub llm: Vec<String>,
    /// Names of the voices, first choice first; at least one.
    pub tts: Vec<String>,
    /// Patience of all kinds.
    pub timing: Timing,
    /// Fixed sentences.
    pub phrases: Phrases,
    /// Whether replies are prepared while the caller may still be talking.
    pub head_start: bool,
    /// What is done when the agent cannot go on.
    pub fallback: Fallback,
    /// Whom the caller gets first.
    #[serde(default)]
    pub opening: Opening,
    /// People whom the agent can connect the caller to, by the names that the model knows them by.
    #[serde(default)]
    pub destinations: Vec<Destination>,
    /// How a message is taken, wherever one is.
    #[serde(default)]
    pub voicemail: Voicemail,
    /// Whether what is said is recorded.
    #[serde(default)]
    pub recording: Recording,
}

/// Whom the caller gets first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    /// The agent.
    #[default]
    Agent,
    /// A person, who is rung while the caller hears it ring.
    Reach(Reach),
    /// Another member, whom the caller, who is one of ours and was rung by us, wants to talk to.
    Member(Reach),
    /// A sentence, and the call ends.
    Message(String),
    /// The voicemail.
    Voicemail,
}

/// A person, or several in turn, to connect the caller to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Whom to ring, one after the other; at least one.
    pub to: Vec<E164>,
    /// What they see: a number that may be shown by this line. `None`: our number.
    pub caller_id: Option<String>,
    /// How long each phone may ring.
    pub ring_ms: u32,
    /// What proves that a person has picked up, not a mailbox.
    pub accept: Accept,
    /// What they hear before they are asked to accept. `None`: nothing but the question, if there is one.
    pub brief: Option<String>,
    /// What becomes of the caller when nobody is reached.
    pub otherwise: Otherwise,
}

/// What proves that a person has picked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accept {
    /// That the phone was picked up.
    Pickup,
    /// The key 1.
    Key,
    /// The key 1, or words that say yes.
    #[default]
    KeyOrVoice,
}

/// What becomes of a caller when nobody is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// The agent talks to them: goes on, or begins.
    #[default]
    Agent,
    /// They can leave a message.
    Voicemail,
    /// They hear this, and the call ends.
    Message(String),
}

/// A person whom the agent can connect the caller to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// What the model calls them: `sales`.
    pub name: String,
    /// Who that is. Its `brief` is what stands before the agent's own summary.
    pub reach: Reach,
    /// They hear the agent's summary before they are connected.
    pub warm: bool,
}

/// How a message is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Voicemail {
    /// Said before the tone.
    pub greeting: String,
    /// The name of a recorded greeting, played in place of the spoken one.
    pub greeting_audio: Option<String>,
    /// The longest message.
    pub longest_ms: u32,
    /// Silence that ends a message.
    pub silence_ms: u32,
    /// Said when the message was taken and the caller is still there.
    pub thanks: String,
}

impl Default for Voicemail {
    fn default() -> Self {
        Voicemail {
            greeting: "We cannot take your call right now. Please leave a message after the tone.".into(),
            greeting_audio: None,
            longest_ms: 180_000,
            silence_ms: 5_000,
            thanks: "Thank you. Your message was recorded. Goodbye.".into(),
        }
    }
}

/// Whether what is said is recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recording {
    /// Nothing is, but for messages that callers leave.
    #[default]
    Off,
    /// From the first moment.
    On,
    /// From when the caller has heard this sentence.
    Announced(String),
    /// Nothing is, messages included: what is said must not be kept.
    Never,
}

/// How the agent opens a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Greeting {
    /// A fixed first message, spoken as it is.
    Fixed(String),
    /// The model writes it at connect.
    Written,
    /// The caller speaks first.
    Silent,
}

/// A tool with what the call must know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ability {
    /// What the model is told.
    pub spec: ToolSpec,
    /// Who carries it out.
    pub kind: AbilityKind,
    /// How long it may take, in ms.
    pub timeout_ms: u32,
    /// Said when it takes long; `None`: one of [`Phrases::fillers`].
    pub filler: Option<String>,
}

/// Who carries a tool out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbilityKind {
    /// The call itself: says goodbye, lets it play, then ends.
    HangUp,
    /// The call itself: sends digits (`{"digits": "1w2#"}`) down the line.
    SendDtmf,
    /// The call itself: connects the caller to one of [`CallPlan::destinations`] (`{"to": "sales", "summary": "…"}`).
    Transfer,
    /// The call itself: stops and goes on recording (`{"on": false}`), so that card numbers are not kept.
    Recording,
    /// Somebody outside; the result comes back as an input.
    External,
}

/// What is done when the agent cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// Apologise and hang up.
    HangUp,
    /// Apologise and connect the caller to this number.
    Forward(E164),
    /// Apologise and take a message; where nothing may be kept, as [`Fallback::HangUp`].
    Voicemail,
}

/// Patience, all in ms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// Silence that ends a turn whose words are a finished sentence.
    pub endpoint_complete_ms: u32,
    /// Silence that ends a turn whose words may or may not be finished.
    pub endpoint_unsure_ms: u32,
    /// Silence that ends a turn whose words are plainly unfinished ("my number is five five").
    pub endpoint_unfinished_ms: u32,
    /// How long a final transcript is awaited after the caller fell silent before the interim one is taken.
    pub final_ms: u32,
    /// Silence after an interruption without words (a cough) until the agent goes on.
    pub cough_ms: u32,
    /// The longest the agent holds its tongue for a noise that never becomes words.
    pub noise_ms: u32,
    /// Silence after the caller's turn until a filler is spoken.
    pub filler_ms: u32,
    /// The longest wait for a model's first token before the next model is asked.
    pub first_token_ms: u32,
    /// The longest wait between two tokens.
    pub token_ms: u32,
    /// The longest wait for a voice's first audio before the next voice is asked.
    pub first_audio_ms: u32,
    /// Silence of both sides until the agent asks whether the caller is there.
    pub nudge_ms: u32,
    /// How often it asks before it says goodbye.
    pub nudges: u8,
    /// The longest a call may last; then the agent says goodbye.
    pub max_duration_ms: u32,
    /// How long lost media may take to come back.
    pub media_lost_ms: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            endpoint_complete_ms: 60,
            endpoint_unsure_ms: 500,
            endpoint_unfinished_ms: 1_400,
            final_ms: 900,
            cough_ms: 600,
            noise_ms: 4_000,
            filler_ms: 1_800,
            first_token_ms: 4_000,
            token_ms: 3_000,
            first_audio_ms: 2_500,
            nudge_ms: 8_000,
            nudges: 2,
            max_duration_ms: 30 * 60_000,
            media_lost_ms: 20_000,
        }
    }
}

/// Fixed sentences in the call's language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phrases {
    /// Asked into silence.
    pub nudge: String,
    /// Said when the caller stays silent, or the longest duration is reached.
    pub goodbye: String,
    /// Said in turn while a model or a tool takes long.
    pub fillers: Vec<String>,
    /// Said when something was heard that could not be understood.
    pub not_understood: String,
    /// Said when no provider is left.
    pub apology: String,
    /// Said before somebody is rung, where the agent has said nothing itself.
    pub connecting: String,
    /// Said now and then while somebody's phone rings.
    pub still_trying: String,
    /// Said when nobody was reached and the agent goes on.
    pub nobody_there: String,
    /// What a person who was rung is asked, after the brief.
    pub accept: String,
}

impl Default for Phrases {
    fn default() -> Self {
        Phrases {
            nudge: "Are you still there?".into(),
            goodbye: "Thank you for calling. Goodbye.".into(),
            fillers: vec!["One moment, please.".into(), "Just a second more.".into()],
            not_understood: "Sorry, I did not catch that. Could you say it again?".into(),
            apology: "I am sorry, something went wrong on our side.".into(),
            connecting: "One moment, please. I am connecting you.".into(),
            still_trying: "I am still trying to reach somebody. Thank you for waiting.".into(),
            nobody_there: "I am sorry, nobody could be reached right now.".into(),
            accept: "Press 1 to take the call.".into(),
        }
    }
}
