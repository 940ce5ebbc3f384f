//! Which byte of an L16 sample comes first. RFC 3551 says the high one, samples of the carrier's staff send the low one, so it is listened
//! to: in the wrong order speech sounds like noise, and noise jumps.

/// The most audio that is listened to before the order is settled, in samples that are not zero: half a second at 16 kHz.
const LISTENED_SAMPLES: u32 = 8_000;

/// The order of the two bytes of an L16 sample on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// The low byte first.
    Little,
    /// The high byte first, as RFC 3551 has it.
    Big,
}

/// Listens until the order is clear.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    order: ByteOrder,
    settled: bool,
    listened: u32,
    /// The sums of the steps between neighbouring samples, read in each order.
    steps: [u64; 2],
}

impl Listener {
    /// Takes the order as known.
    pub(super) fn settled(order: ByteOrder) -> Self {
        Listener { order, settled: true, listened: 0, steps: [0; 2] }
    }

    /// Begins with a guess.
    pub(super) fn guessing(order: ByteOrder) -> Self {
        Listener { settled: false, ..Listener::settled(order) }
    }

    /// The order as far as it is known.
    pub(super) fn order(&self) -> ByteOrder {
        self.order
    }

    /// Whether more audio would not change the order.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Hears audio as it came from the wire.
    pub(super) fn hear(&mut self, wire: &[u8]) {
        if self.settled {
            return;
        }
        let pairs = wire.as_chunks::<2>().0;
        for [before, after] in pairs.windows(2).map(|two| [two[0], two[1]]) {
            if after == [0, 0] {
                continue;
            }
            self.listened += 1;
            let step = |read: fn([u8; 2]) -> i16| u64::from(read(after).abs_diff(read(before)));
            self.steps[0] += step(i16::from_le_bytes);
            self.steps[1] += step(i16::from_be_bytes);
        }
        let [little, big] = self.steps;
        if little != big {
            self.order = if little < big { ByteOrder::Little } else { ByteOrder::Big };
        }
        self.settled = self.listened >= LISTENED_SAMPLES && little != big;
    }
}

/// Turns the bytes of each sample round if they are not little-endian.
pub(super) fn turn(order: ByteOrder, audio: &mut [u8]) {
    if order == ByteOrder::Big {
        for pair in audio.as_chunks_mut::<2>().0 {
            pair.swap(0, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A voice-like sum of sines with some noise.
    fn speech(samples: usize, amplitude: f32, noise: &[i16]) -> Vec<i16> {
        let at = |n: usize| {
            let t = n as f32 / 16_000.0;
            let wave =
                (t * 140.0 * std::f32::consts::TAU).sin() + 0.4 * (t * 900.0 * std::f32::consts::TAU).sin();
            (amplitude * wave) as i16 + noise[n % noise.len()]
        };
        (0..samples).map(at).collect()
    }

    fn wire(samples: &[i16], order: ByteOrder) -> Vec<u8> {
        let bytes = |s: &i16| match order {
            ByteOrder::Little => s.to_le_bytes(),
            ByteOrder::Big => s.to_be_bytes(),
        };
        samples.iter().flat_map(bytes).collect()
    }

    proptest! {
        #[test]
        fn the_order_is_heard_from_speech_of_any_loudness(
            amplitude in 3.0f32..15_000.0,
            noise in proptest::collection::vec(-8i16..8, 50..100),
            big: bool,
        ) {
            let order = if big { ByteOrder::Big } else { ByteOrder::Little };
            let wrong = if big { ByteOrder::Little } else { ByteOrder::Big };
            let mut listener = Listener::guessing(wrong);
            for frame in speech(10_000, amplitude, &noise).chunks(320) {
                listener.hear(&wire(frame, order));
            }
            prop_assert_eq!(listener.order(), order);
            prop_assert!(listener.is_settled());
        }
    }

    #[test]
    fn silence_settles_nothing() {
        let mut listener = Listener::guessing(ByteOrder::Big);
        listener.hear(&[0; 64_000]);
        assert_eq!((listener.order(), listener.is_settled()), (ByteOrder::Big, false));
        listener.hear(&wire(&speech(320, 500.0, &[0]), ByteOrder::Little));
        assert_eq!(listener.order(), ByteOrder::Little, "one frame is enough for a better guess");
    }

    #[test]
    fn what_is_known_is_not_doubted() {
        let mut listener = Listener::settled(ByteOrder::Big);
        listener.hear(&wire(&speech(16_000, 500.0, &[0]), ByteOrder::Little));
        assert_eq!(listener.order(), ByteOrder::Big);
    }

    #[test]
    fn only_big_endian_is_turned() {
        let mut audio = [1, 2, 3, 4, 5];
        turn(ByteOrder::Little, &mut audio);
        assert_eq!(audio, [1, 2, 3, 4, 5]);
        turn(ByteOrder::Big, &mut audio);
        assert_eq!(audio, [2, 1, 4, 3, 5]);
    }
}
