//! One phone call at run time: planned, driven, pumped, recorded. What is decided on it is decided in `offhook_core::call`.

pub mod arrive;
pub mod driver;
mod ear;
pub mod finish;
pub mod ledger;
pub mod line;
pub mod plan;
mod playout;
mod pump;
pub mod recorder;
pub mod registry;
pub mod rehearse;
pub mod resume;
mod socket;
mod steering;
mod voice;
pub mod welcome;
