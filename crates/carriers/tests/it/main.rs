//! The adapters against stand-ins for their carriers: an HTTP server that answers what each test tells it to, and the far ends of
//! SIP trunks.

mod contract;
mod rest;
mod sip_agents;
mod sip_calls;
mod sip_guard;
mod sip_peer;
mod sip_trunks;
mod stand_in;
mod telnyx_account;
mod telnyx_calls;
mod telnyx_check;
mod telnyx_contract;
mod telnyx_media;
mod telnyx_numbers;
mod telnyx_routing;
mod telnyx_webhook;
mod twilio_account;
mod twilio_check;
mod twilio_contract;
mod twilio_numbers;
mod twilio_trunk;
