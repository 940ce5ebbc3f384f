//! Where the store takes time and chance from: a parameter, so that a test decides both. It does not know what they are used for.

use rand::Rng;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use ulid::Ulid;

const ULID_RANDOM_BITS: u32 = 80;

/// A clock and a source of randomness.
pub trait Environment: Send + Sync {
    /// Wall time, µs since 1970 UTC.
    fn now_us(&self) -> i64;

    /// Fills the bytes with randomness that nobody can guess: keys are made of it.
    fn fill(&self, bytes: &mut [u8]);
}

/// The machine's clock and the system's randomness.
pub fn system_environment() -> Arc<dyn Environment> {
    Arc::new(System)
}

/// A new id's ULID: it sorts by time, and within a millisecond at random.
pub(crate) fn ulid(environment: &dyn Environment) -> String {
    let mut random = [0; 16];
    environment.fill(&mut random);
    let ms = u64::try_from(environment.now_us() / 1_000).unwrap_or(0);
    Ulid::from_parts(ms, u128::from_le_bytes(random) >> (u128::BITS - ULID_RANDOM_BITS)).to_string()
}

struct System;

impl Environment for System {
    #[allow(clippy::disallowed_methods, reason = "this is the clock that others are given")]
    fn now_us(&self) -> i64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)
    }

    #[allow(clippy::disallowed_methods, reason = "this is the randomness that others are given")]
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ids_sort_after_earlier_ones() {
        struct At(i64);
        impl Environment for At {
            fn now_us(&self) -> i64 {
                self.0
            }
            fn fill(&self, bytes: &mut [u8]) {
                system_environment().fill(bytes);
            }
        }
        let (early, late) = (ulid(&At(1_700_000_000_000_000)), ulid(&At(1_700_000_000_001_000)));
        assert!(early < late, "{early} {late}");
        assert_eq!(early.len(), 26);
        assert_ne!(early, ulid(&At(1_700_000_000_000_000)));
    }
}
