//! The adapters against stand-ins for their carriers: an HTTP server that answers what each test tells it to, and the far ends of
//! SIP trunks.

mod rest;
mod sip_agents;
mod sip_calls;
mod sip_guard;
mod sip_peer;
mod sip_trunks;
mod stand_in;
