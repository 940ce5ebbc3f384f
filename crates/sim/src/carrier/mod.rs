//! Simulated carriers as real servers, with the telephone and the caller at the far end of their lines.
//! Nothing here shares a line with the adapters it tests: each carrier is written again from its documents.
#![allow(clippy::disallowed_methods, reason = "a real server in real time, with ids that nobody chose")]

mod network;
mod person;
mod phone;
mod playout;
mod robot;
pub mod sip;
mod socket;
pub mod telnyx;
pub mod twilio;

pub use network::Proxy;
pub use person::{Person, Pickup};
pub use phone::{Events, LineEvent, NotInTime, Party, Phone, Recording, SAMPLES_PER_MS, StreamLoss, What};
pub use robot::{CallerStep, RobotReport, RobotTurn, follow};
