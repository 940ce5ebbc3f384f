//! Under construction.

pub mod carrier;
pub mod provider;
