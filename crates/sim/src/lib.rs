//! Under construction.

pub mod carrier;
