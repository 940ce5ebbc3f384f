//! The adapters against stand-ins for their carriers: an HTTP server that answers what each test tells it to, and the far ends of
//! SIP trunks.

mod contract;
mod rest;
mod sip_calls;
mod sip_guard;
mod sip_peer;
mod stand_in;
mod twilio_account;
mod twilio_check;
mod twilio_contract;
mod twilio_numbers;
mod twilio_trunk;
