//! Recognises American English with a grammar, on this machine alone: a safe binding to PocketSphinx 5.1.1 and its model.
//! It knows audio, words and grammars; it does not know calls, turns or when a speaker has finished.
//!
//! Load a [`Model`] once, then make a [`Recogniser`] for each voice to be listened to, and feed it 16 kHz samples.

mod decoder;
mod dictionary;
mod ffi;
mod grammar;
mod model;
mod recogniser;

pub use dictionary::contains_word;
pub use model::Model;
pub use recogniser::{Hypothesis, Recogniser, SAMPLE_RATE_HZ, TRUSTED};

/// Why speech cannot be recognised.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The grammar uses words whose pronunciation is not known: nobody could say them to this recogniser.
    #[error("words without a known pronunciation: {}", .0.join(", "))]
    UnknownWords(Vec<String>),
    /// The grammar is not JSGF, or uses what is not supported here (imports, quoted tokens).
    #[error("not a usable grammar: {0}")]
    Grammar(&'static str),
    /// The model could not be written to its folder.
    #[error("cannot unpack the speech model into {folder}")]
    Unpack {
        /// The folder that was given.
        folder: std::path::PathBuf,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// PocketSphinx could not load its own model: the unpacked files were changed, or memory is short.
    #[error("PocketSphinx did not load the model in {0}")]
    Load(std::path::PathBuf),
    /// PocketSphinx failed at something that cannot fail with a loaded model: this recogniser is of no more use.
    #[error("PocketSphinx failed to {0}")]
    Engine(&'static str),
}
