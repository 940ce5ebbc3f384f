//! Speech and replies without any account or network.

pub mod brain;
mod opening;
pub mod script;
mod words;

/// What stands in a transcript for speech that could not be understood.
pub const UNCLEAR: &str = "[unclear]";

/// The demo's script.
pub const RECEPTIONIST: &str = include_str!("receptionist.toml");
