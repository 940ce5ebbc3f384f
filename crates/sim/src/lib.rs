//! Under construction.

pub mod carrier;
pub mod checkers;
pub mod provider;
pub mod world;
