//! Telnyx: signed webhooks in, commands out, media sockets both ways, and REST for numbers.
//! It knows Telnyx's documents and nothing of agents; it opens no socket but that of REST, and decides nothing.

mod alerts;
mod byte_order;
mod calls;
mod check;
mod errors;
mod event;
pub mod media;
mod numbers;
mod rest;
mod routing;
pub mod webhook;

pub use byte_order::ByteOrder;
pub use calls::{NewCall, NewLeg, Rejection, StreamTo, Transfer};
pub use errors::sentence;
pub use event::{Cost, Event, HungUp, Leg, Recording, Side, Transcript};
pub use rest::{NotAnAccount, Telnyx, api_host};
