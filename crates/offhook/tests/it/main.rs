//! Ring 3: the real command as a process of its own, a simulated carrier and simulated providers over real sockets.
//! What is tested is what a caller hears and what is kept of the call; nothing here knows the inside of the server.

#[macro_use]
mod house;
mod door;
mod line;

mod calls;
mod dial;
mod faults;
mod numbers;
mod official;
mod pbx;
mod prompts;
mod sip;
mod softphone;
mod strangers;
mod survival;
mod telnyx;
