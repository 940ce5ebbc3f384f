//! Chance, from a seed and nothing else. It knows no clock and no thread, so that a seed is a call for ever.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// A stream of chance.
#[derive(Clone, Debug)]
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// Streams of one seed are independent: what one draws does not change what another will.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Dice(rng)
    }

    /// A number from `from` to `to`, both possible.
    pub(super) fn between(&mut self, from: u32, to: u32) -> u32 {
        self.0.random_range(from..=to.max(from))
    }

    /// True so often in a thousand.
    pub(super) fn happens(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.0.random_range(0..1_000) < per_mille
    }

    /// One of several, which must not be none.
    pub(super) fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.0.random_range(0..among.len())]
    }
}
