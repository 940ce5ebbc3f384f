//! Twilio: signed webhooks in, TwiML out, Media Streams both ways, and REST for calls that run and for the numbers they run to.
//! It knows Twilio's documents and nothing of agents; it opens no socket but that of REST, and decides nothing.

mod alerts;
mod calls;
mod check;
mod errors;
pub mod media;
mod numbers;
mod rest;
mod search;
mod signature;
mod trunk;
mod twiml;
pub mod webhook;

pub use calls::{CallFilter, NewCall, Steer};
pub use errors::sentence;
pub use rest::{Credentials, NotAHost, Twilio, api_host, is_account, is_api_key};
pub use trunk::{Origination, Trunk, TrunkWish};
pub use twiml::{Answer, AnswerError, Dial, MediaStream, Rejection, Room, Speech, Tones, Verb};
