//! The runtime: carriers' webhooks in, calls driven, everything recorded. What happens on a call is decided in
//! `offhook_core::call`, what a carrier or provider says on the wire is known in their crates.

pub mod abilities;
pub mod agent;
pub mod api;
pub mod app;
pub mod auth;
pub mod call;
pub mod carrier;
pub mod connection;
pub mod doctor;
mod door;
pub mod hooks;
pub mod live;
pub mod node;
pub mod numbers;
pub mod problem;
mod qr;
pub mod router;
pub mod speech;
pub mod telemetry;
pub mod trunks;
