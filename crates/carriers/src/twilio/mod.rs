//! Twilio: signed webhooks in, TwiML out, Media Streams both ways, and REST to steer calls that run.
//! It knows Twilio's documents and nothing of agents; it opens no socket but that of REST, and decides nothing.

mod errors;
pub mod media;
mod rest;
mod signature;
mod twiml;
pub mod webhook;

pub use errors::sentence;
pub use rest::{CallFilter, Credentials, NewCall, NotAHost, Steer, Twilio, api_host, is_account, is_api_key};
pub use twiml::{Answer, AnswerError, Dial, MediaStream, Rejection, Speech, Tones, Verb};
