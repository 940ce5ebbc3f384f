//! The judges of a simulated call: each compares what the machine did with what the simulated caller really said and heard.
//! They know the truth of the scene, not the inside of the machine.

use crate::world::Scene;
use offhook_core::ChatMessage;
use offhook_core::call::{Command, EndedReason, Input, Line};

/// What a checker is shown, in order.
#[derive(Debug)]
pub enum Seen<'a> {
    /// The machine is about to be told this.
    Fact(&'a Input),
    /// The machine orders this; it has not been carried out yet.
    Order(&'a Command),
    /// Everything that followed from a fact has been carried out.
    Handled,
    /// The caller hears a piece of a reply.
    Heard {
        /// Which, in [`Scene::speeches`].
        speech: usize,
        /// From where in its audio.
        from_ms: u32,
        /// To where.
        to_ms: u32,
    },
    /// A node died, and with it the line of the log that held this.
    Forgotten(&'a Input),
    /// Another node has taken over.
    TookOver,
    /// The machine says that the call has ended.
    Ended(EndedReason),
    /// Nothing more will come.
    Over {
        /// The transcript.
        lines: &'a [Line],
        /// Why the machine says that the call has ended.
        ended: Option<EndedReason>,
    },
}

/// What a checker has to say.
#[derive(Clone, Debug)]
pub struct Complaint {
    /// Which checker.
    pub checker: &'static str,
    /// What is wrong.
    pub text: String,
}

/// One rule, watched.
trait Checker {
    /// Looks at one thing; an error says what is wrong.
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String>;
}

/// What the model is told when it greets or goes on, rather than answers, begins so; so do keys.
const STAGE_DIRECTION: char = '(';

/// The caller's words in a message.
fn said(message: &ChatMessage) -> Option<&str> {
    match message {
        ChatMessage::User { text } if !text.starts_with(STAGE_DIRECTION) || text.starts_with("(pressed") => {
            Some(text)
        }
        _ => None,
    }
}

macro_rules! checkers {
    ($($name:ident: $kind:ident,)*) => {
        $(mod $name;)*

        /// All checkers of one call.
        #[derive(Debug, Default)]
        pub struct Checkers {
            $($name: $name::$kind,)*
        }

        impl Checkers {
            /// Shows something to every checker.
            ///
            /// # Errors
            /// The first complaint.
            pub fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), Complaint> {
                $(self.$name.see(scene, seen).map_err(|text| Complaint { checker: stringify!($name), text })?;)*
                Ok(())
            }
        }
    };
}

checkers! {
    one_voice: OneVoice,
    barge_in: BargeIn,
    history: History,
    caller_words: CallerWords,
    tools: Tools,
    goodbye: Goodbye,
    after_end: AfterEnd,
    liveness: Liveness,
    dead_air: DeadAir,
    filler: Filler,
    limits: Limits,
    head_start: HeadStart,
    fallback: Fallback,
    timing: Timing,
}
