//! Speech and replies without any account or network: a small voice, a recogniser that knows what to expect, and a
//! scripted receptionist. They are no match for a provider's, and know nothing of calls.

pub mod brain;
mod flite;
mod grammar;
mod llm;
mod opening;
pub mod script;
mod sphinx;
#[cfg(test)]
mod tests;
mod words;

pub use flite::Voice;
pub use grammar::grammar;
pub use llm::Receptionist;
pub use sphinx::Listener;

use crate::{Llm, Stt, Tts};
use std::path::PathBuf;
use std::sync::Arc;

/// The name of all three in settings.
pub const NAME: &str = "offline";

/// What stands in a transcript for speech that could not be understood.
pub const UNCLEAR: &str = "[unclear]";

/// The demo's script: a hair salon.
pub const RECEPTIONIST: &str = include_str!("receptionist.toml");

const APOLOGY: &str = "I am sorry, something went wrong here. Please call again in a few minutes.";

/// The recogniser, with its model unpacked below the user's cache folder.
pub fn stt() -> Arc<dyn Stt> {
    Arc::new(Listener { cache: cache_folder() })
}

/// The scripted receptionist. Her script stands in the agent's instructions, see [`demo_instructions`].
pub fn llm() -> Arc<dyn Llm> {
    Arc::new(Receptionist)
}

/// The voice.
pub fn tts() -> Arc<dyn Tts> {
    Arc::new(Voice)
}

/// Instructions of the demo agent, for a language model and for the scripted receptionist alike.
pub fn demo_instructions() -> String {
    format!(
        "You are the receptionist of a small business and answer its telephone. Be friendly and brief: one or two short \
         sentences at a time, in plain spoken English without lists or signs. Answer questions from the facts below and \
         from nothing else. If you do not know, or if the caller wants a person or an appointment, offer to take a \
         message: ask for the name, the telephone number and the message, one after the other, read them back, and use \
         take_message once the caller agrees. Say goodbye and use end_call when the caller is done.\n\n\
         ```toml\n{RECEPTIONIST}```\n"
    )
}

/// The first words of the demo agent.
pub fn demo_greeting() -> String {
    script::Script::parse(RECEPTIONIST)
        .map_or_else(|_| "Hello. How can I help you?".into(), |script| brain::greeting(&script))
}

/// An apology that needs no provider.
pub fn canned_apology() -> Said {
    say(APOLOGY)
}

/// A text as speech.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Signed 16-bit samples, mono.
    pub pcm: Vec<i16>,
    /// Samples a second.
    pub rate_hz: u32,
}

/// Speaks a text, in some 10 to 40 ms of work a sentence: not for an async task.
pub fn say(text: &str) -> Said {
    flite::speak(text)
}

/// A folder of the user's own: others must not be able to put a model there.
fn cache_folder() -> PathBuf {
    let from = |variable: &str, below: &str| {
        std::env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(|value| PathBuf::from(value).join(below))
    };
    from("XDG_CACHE_HOME", "offhook")
        .or_else(|| from("HOME", ".cache/offhook"))
        .unwrap_or_else(|| std::env::temp_dir().join(format!("offhook-{}", std::process::id())))
}
