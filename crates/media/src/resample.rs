//! Changes the rate of mono audio as it streams, with little delay. It knows nothing of frames: any number of samples
//! may go in, and the matching number comes out at once.
//!
//! The filter is a windowed sinc in polyphase form: at a ratio of L/M each output sample is one dot product of the last
//! input samples with one of L sets of taps.

use std::f64::consts::PI;

/// Streams mono audio from one rate to another: `push` as audio comes, `flush` at its end.
#[derive(Clone, Debug)]
pub struct Resampler {
    from_hz: u32,
    /// Output samples for each `down` input samples.
    up: usize,
    down: usize,
    /// How many input samples the filter reaches to each side of an output sample; 0 where the rates are equal.
    reach: usize,
    /// `up` phases of `taps_per_phase` taps each.
    taps: Box<[f32]>,
    taps_per_phase: usize,
    /// The input that later output still needs, oldest first.
    history: Vec<f32>,
    /// Where the next output sample lies after the first `taps_per_phase` samples of `history`, in 1/`up` samples.
    position: usize,
}

/// The pair of rates is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "audio cannot be resampled from {from_hz} to {to_hz} Hz; use rates such as 8000, 16000, 24000, 44100 or 48000"
)]
pub struct UnsupportedRates {
    /// The rate of the input.
    pub from_hz: u32,
    /// The rate asked for.
    pub to_hz: u32,
}

const RATES_HZ: std::ops::RangeInclusive<u32> = 8_000..=48_000;

/// The most sets of taps, which 11025 to 48000 Hz needs; a ratio such as 8000:8001 would need thousands.
const PHASES: u32 = 640;

/// Half the length of the filter in samples of the slower rate, and so the delay: 1.875 ms where that is 8 kHz.
const HALF_WIDTH: usize = 15;

/// Middle of the transition band, as a part of the slower rate's Nyquist frequency.
const CUTOFF: f64 = 0.98;

/// Shape of the Kaiser window: 86 dB of attenuation in the stop band.
const KAISER_BETA: f64 = 8.4;

impl Resampler {
    /// A resampler from one rate to another, both in Hz.
    pub fn new(from_hz: u32, to_hz: u32) -> Result<Resampler, UnsupportedRates> {
        let divisor = greatest_common_divisor(from_hz, to_hz).max(1);
        let (up, down) = (to_hz / divisor, from_hz / divisor);
        if !RATES_HZ.contains(&from_hz) || !RATES_HZ.contains(&to_hz) || up > PHASES {
            return Err(UnsupportedRates { from_hz, to_hz });
        }
        let (up, down) = (up as usize, down as usize);
        let reach = if up == down { 0 } else { (HALF_WIDTH * down.max(up)).div_ceil(up) };
        let taps_per_phase = (2 * reach).next_multiple_of(LANES);
        let mut resampler = Resampler {
            from_hz,
            up,
            down,
            reach,
            taps: polyphase_taps(up, down, reach, taps_per_phase),
            taps_per_phase,
            history: vec![],
            position: 0,
        };
        resampler.reset();
        Ok(resampler)
    }

    /// Time by which the output lags the input, in microseconds.
    pub const fn delay_us(&self) -> u32 {
        (self.reach as u64 * 1_000_000 / self.from_hz as u64) as u32
    }

    /// Appends the output that `pcm` makes possible.
    pub fn push(&mut self, pcm: &[i16], out: &mut Vec<i16>) {
        if self.reach == 0 {
            out.extend_from_slice(pcm);
            return;
        }
        self.history.extend(pcm.iter().map(|sample| f32::from(*sample)));
        let mut start = self.position / self.up;
        while let Some(window) = self.history.get(start..start + self.taps_per_phase) {
            let phase = self.position % self.up * self.taps_per_phase;
            let sample = dot(window, &self.taps[phase..phase + self.taps_per_phase]);
            out.push(sample.round_ties_even() as i16);
            self.position += self.down;
            start = self.position / self.up;
        }
        let used = start.min(self.history.len());
        self.history.drain(..used);
        self.position -= used * self.up;
    }

    /// Appends what the delay still holds back, and is as new.
    pub fn flush(&mut self, out: &mut Vec<i16>) {
        const SILENCE: [i16; 64] = [0; 64];
        let mut left = self.reach;
        while left > 0 {
            let now = left.min(SILENCE.len());
            self.push(&SILENCE[..now], out);
            left -= now;
        }
        self.reset();
    }

    /// Forgets all audio so far.
    pub fn reset(&mut self) {
        self.history.clear();
        self.history.resize(self.taps_per_phase.saturating_sub(1), 0.0);
        self.position = 0;
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The taps of all phases. Within a phase they run with the input, oldest sample first, and the oldest are zero where
/// the filter is shorter than its whole number of lanes.
fn polyphase_taps(up: usize, down: usize, reach: usize, taps_per_phase: usize) -> Box<[f32]> {
    let slower = up.min(down) as f64 / down as f64;
    let half_width = HALF_WIDTH as f64 / slower;
    let mut taps = Vec::with_capacity(up * taps_per_phase);
    for phase in 0..if reach == 0 { 0 } else { up } {
        let middle = (taps_per_phase - reach - 1) as f64 + phase as f64 / up as f64;
        let set = (0..taps_per_phase).map(|tap| {
            let distance = tap as f64 - middle;
            sinc(distance * slower * CUTOFF) * kaiser(distance / half_width)
        });
        let set: Vec<f64> = set.collect();
        // Each phase alone passes a constant unchanged, else the phases would ring at the input rate.
        let sum: f64 = set.iter().sum();
        taps.extend(set.iter().map(|tap| (tap / sum) as f32));
    }
    taps.into()
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

/// The Kaiser window over -1 to 1.
fn kaiser(x: f64) -> f64 {
    if x.abs() >= 1.0 { 0.0 } else { bessel_i0(KAISER_BETA * (1.0 - x * x).sqrt()) / bessel_i0(KAISER_BETA) }
}

/// The modified Bessel function of the first kind, order 0, by its power series.
fn bessel_i0(x: f64) -> f64 {
    const TERMS: u32 = 30;
    let (mut term, mut sum) = (1.0, 1.0);
    for k in 1..=TERMS {
        term *= (x / 2.0 / f64::from(k)).powi(2);
        sum += term;
    }
    sum
}

/// Running sums of a dot product, so that the compiler can use vector instructions.
const LANES: usize = 8;

pub(crate) fn dot(samples: &[f32], taps: &[f32]) -> f32 {
    let (samples, _) = samples.as_chunks::<LANES>();
    let (taps, _) = taps.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (samples, taps) in samples.iter().zip(taps) {
        for lane in 0..LANES {
            sums[lane] += samples[lane] * taps[lane];
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: [(u32, u32); 16] = [
        (8_000, 16_000),
        (8_000, 24_000),
        (8_000, 48_000),
        (16_000, 8_000),
        (16_000, 24_000),
        (16_000, 48_000),
        (24_000, 8_000),
        (24_000, 16_000),
        (24_000, 48_000),
        (48_000, 8_000),
        (48_000, 16_000),
        (48_000, 24_000),
        (22_050, 8_000),
        (22_050, 16_000),
        (44_100, 8_000),
        (44_100, 48_000),
    ];

    fn sine(hz: f64, rate_hz: u32, samples: usize) -> Vec<i16> {
        let step = 2.0 * PI * hz / f64::from(rate_hz);
        (0..samples).map(|i| (20_000.0 * (i as f64 * step).sin()).round() as i16).collect()
    }

    fn resampled(from_hz: u32, to_hz: u32, pcm: &[i16]) -> Vec<i16> {
        let mut out = vec![];
        Resampler::new(from_hz, to_hz).unwrap().push(pcm, &mut out);
        out
    }

    /// Power of `pcm` in dB against the input sine: at `hz`, and of everything else. Whole periods are assumed.
    fn split_at(hz: f64, rate_hz: u32, pcm: &[i16]) -> (f64, f64) {
        let step = 2.0 * PI * hz / f64::from(rate_hz);
        let (mut re, mut im, mut total) = (0.0, 0.0, 0.0);
        for (i, sample) in pcm.iter().enumerate() {
            let (sample, angle) = (f64::from(*sample), i as f64 * step);
            re += sample * angle.cos();
            im += sample * angle.sin();
            total += sample * sample;
        }
        let n = pcm.len() as f64;
        let (total, at) = (total / n, 2.0 * (re * re + im * im) / (n * n));
        let reference: f64 = 20_000.0 * 20_000.0 / 2.0;
        let db = |power: f64| 10.0 * (power.max(1e-9) / reference).log10();
        (db(at), db(total - at))
    }

    /// One second from the middle of the output.
    fn steady(pcm: &[i16], rate_hz: u32) -> &[i16] {
        &pcm[rate_hz as usize / 10..][..rate_hz as usize]
    }

    #[test]
    fn the_voice_band_passes_unchanged() {
        for (from_hz, to_hz) in PAIRS {
            for part in [0.05, 0.25, 0.5, 0.75, 0.81] {
                let hz = (f64::from(from_hz.min(to_hz)) / 2.0 * part).round();
                let out = resampled(from_hz, to_hz, &sine(hz, from_hz, from_hz as usize * 13 / 10));
                let (at, rest) = split_at(hz, to_hz, steady(&out, to_hz));
                assert!(at.abs() < 0.05, "{from_hz} to {to_hz}: {hz} Hz changed by {at:.3} dB");
                assert!(rest < -80.0, "{from_hz} to {to_hz}: {hz} Hz left {rest:.1} dB of images");
            }
        }
        let out = resampled(24_000, 8_000, &sine(3_400.0, 24_000, 31_200));
        let (at, _) = split_at(3_400.0, 8_000, steady(&out, 8_000));
        assert!(at > -0.5, "the edge of the telephone band lost {at:.2} dB");
    }

    #[test]
    fn what_the_slower_rate_cannot_carry_is_stopped() {
        for (from_hz, to_hz) in PAIRS.into_iter().filter(|(from_hz, to_hz)| from_hz > to_hz) {
            let (nyquist, from_nyquist) = (f64::from(to_hz) / 2.0, f64::from(from_hz) / 2.0);
            for part in
                [1.16, 1.25, 1.37, 1.8, 2.3, 2.9, 4.7].iter().filter(|part| nyquist * **part < from_nyquist)
            {
                let hz = (nyquist * part).round();
                let out = resampled(from_hz, to_hz, &sine(hz, from_hz, from_hz as usize * 13 / 10));
                let (_, alias) = split_at(0.0, to_hz, steady(&out, to_hz));
                assert!(alias < -80.0, "{from_hz} to {to_hz}: {hz} Hz left {alias:.1} dB of alias");
            }
        }
    }

    #[test]
    fn delay_is_as_stated_and_below_two_milliseconds() {
        for (from_hz, to_hz) in PAIRS {
            let mut pulse = vec![0; from_hz as usize / 10];
            let at = pulse.len() / 2;
            pulse[at] = i16::MAX;
            let out = resampled(from_hz, to_hz, &pulse);
            let heard = (0..out.len()).max_by_key(|index| out[*index]).unwrap();
            let measured_us = heard as f64 * 1e6 / f64::from(to_hz) - at as f64 * 1e6 / f64::from(from_hz);
            let delay_us = Resampler::new(from_hz, to_hz).unwrap().delay_us();
            assert!(delay_us < 2_000, "{from_hz} to {to_hz}: {delay_us} µs");
            let sample_us = 1e6 / f64::from(to_hz);
            assert!(
                (measured_us - f64::from(delay_us)).abs() <= sample_us,
                "{from_hz} to {to_hz}: {measured_us} µs"
            );
        }
    }

    #[test]
    fn chunks_do_not_matter_and_frames_stay_frames() {
        for (from_hz, to_hz) in PAIRS {
            let pcm = sine(440.0, from_hz, from_hz as usize / 5);
            let whole = resampled(from_hz, to_hz, &pcm);
            assert_eq!(whole.len(), (pcm.len() * to_hz as usize).div_ceil(from_hz as usize));
            for size in [1, 7, 160, 333] {
                let (mut resampler, mut out) = (Resampler::new(from_hz, to_hz).unwrap(), vec![]);
                pcm.chunks(size).for_each(|chunk| resampler.push(chunk, &mut out));
                assert_eq!(out, whole, "{from_hz} to {to_hz} by {size}");
            }
        }
        let (mut resampler, mut out) = (Resampler::new(24_000, 8_000).unwrap(), vec![]);
        for frame in 1..=5 {
            resampler.push(&[100; 480], &mut out);
            assert_eq!(out.len(), frame * 160);
        }
    }

    #[test]
    fn flush_gives_the_end_and_starts_anew() {
        let (mut resampler, mut out) = (Resampler::new(24_000, 8_000).unwrap(), vec![]);
        resampler.push(&[9_000; 480], &mut out);
        resampler.flush(&mut out);
        assert_eq!(out.len(), 175);
        assert_eq!(out[100], 9_000);
        let mut again = vec![];
        resampler.push(&[9_000; 480], &mut again);
        assert_eq!(again, out[..160]);
    }

    #[test]
    fn equal_rates_pass_through_and_odd_rates_are_refused() {
        assert_eq!(resampled(8_000, 8_000, &[1, 2, 3]), [1, 2, 3]);
        for (from_hz, to_hz) in
            [(0, 8_000), (8_000, 0), (0, 0), (8_001, 8_000), (8_000, 96_000), (u32::MAX, 8_000)]
        {
            assert_eq!(Resampler::new(from_hz, to_hz).unwrap_err(), UnsupportedRates { from_hz, to_hz });
        }
        assert!(Resampler::new(11_025, 48_000).is_ok());
    }

    #[test]
    fn full_scale_does_not_wrap() {
        let square: Vec<i16> =
            (0..2_400).map(|i| if i / 60 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        let out = resampled(24_000, 8_000, &square);
        for (index, sample) in out.iter().enumerate().skip(15).filter(|(index, _)| (index - 15) % 20 > 2) {
            let positive = (index - 15) / 20 % 2 == 0;
            assert_eq!(*sample > 0, positive, "sample {index} is {sample}");
        }
    }
}
