//! Media heard as a whole: speech, echoes and arbitrary bytes.

mod echo;
mod fixtures;
mod prompts;
mod properties;
mod vad;
