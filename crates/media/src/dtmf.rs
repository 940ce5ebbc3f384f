//! Touch tones in the audio itself (ITU-T Q.23): a detector and a generator, both at 8 kHz.
//! It knows no telephone events: carriers that report digits beside the audio do not need it.

use crate::LINE_RATE_HZ;
use crate::level::power_dbfs;
use std::f32::consts::TAU;

/// A key that the caller pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Press {
    /// One of `0` to `9`, `A` to `D`, `*` and `#`.
    pub digit: char,
    /// When its tone began, milliseconds of audio since the detector's first sample.
    pub at_ms: u64,
}

/// Finds touch tones in one caller's audio at 8 kHz: `push` all of it, in order.
///
/// As ITU-T Q.24 asks: tones of 40 ms and more are found, those of 20 ms and less are not; interruptions of 10 ms do not
/// split a press, pauses of 40 ms do; frequencies may be 1.5 % off, and one tone 4 dB (high) or 8 dB (low) louder.
#[derive(Clone, Debug)]
pub struct Detector {
    /// Two windows of the same length, half a window apart.
    windows: [Window; 2],
    samples: u64,
    /// The key seen by the last windows, and by how many in a row.
    seen: Option<usize>,
    run: u32,
    /// The key reported and not yet let go.
    held: Option<usize>,
    /// Windows since the held key was last seen.
    missed: u32,
}

const ROWS_HZ: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
const COLUMNS_HZ: [f32; 4] = [1_209.0, 1_336.0, 1_477.0, 1_633.0];
const KEYS: [char; 16] = ['1', '2', '3', 'A', '4', '5', '6', 'B', '7', '8', '9', 'C', '*', '0', '#', 'D'];

/// Samples of a window: 12.75 ms, at which a tone 1.5 % off its frequency still is within a third of a bin.
const WINDOW: usize = 102;
const HOP: usize = WINDOW / 2;

/// Windows in a row that make a press. Of a tone of 40 ms at least four lie wholly within it; of one of 20 ms three are
/// covered enough to pass.
const PRESS_WINDOWS: u32 = 4;

/// Windows in a row without the key that end a press: an interruption of 10 ms spoils four, a pause of 40 ms six.
const RELEASE_WINDOWS: u32 = 5;

/// Each tone's least level. Q.24 has receivers work down to -25 dBm, which is -31 dBFS.
const LEAST_DBFS: f32 = -38.0;

/// AT&T's limits in Q.24 are 4 and 8 dB; frequency offset and the other tone's leakage falsify what is measured by up to 2.
const HIGH_LOUDER_DB: f32 = 6.0;
const LOW_LOUDER_DB: f32 = 10.0;

/// How far the loudest row (column) must stand out from the other rows (columns).
const STAND_OUT_DB: f32 = 6.0;

/// The part of the window's energy that must lie in the two tones: what tells keys from speech.
const TONE_SHARE: f32 = 0.63;

impl Default for Detector {
    fn default() -> Self {
        Self::new()
    }
}

impl Detector {
    /// A detector at the beginning of a call's audio.
    pub fn new() -> Detector {
        let later = Window { samples: HOP, ..Window::default() };
        Detector {
            windows: [Window::default(), later],
            samples: 0,
            seen: None,
            run: 0,
            held: None,
            missed: 0,
        }
    }

    /// Listens to the next samples, of any number, and appends the keys found in them to `out`.
    pub fn push(&mut self, pcm: &[i16], out: &mut Vec<Press>) {
        for sample in pcm {
            self.samples += 1;
            for index in 0..self.windows.len() {
                if let Some(window) = self.windows[index].push(f32::from(*sample)) {
                    out.extend(self.judge(window.key()));
                }
            }
        }
    }

    fn judge(&mut self, key: Option<usize>) -> Option<Press> {
        self.run = if key == self.seen { self.run + 1 } else { 1 };
        self.seen = key;
        self.missed = if key == self.held { 0 } else { self.missed + 1 };
        if self.missed >= RELEASE_WINDOWS {
            self.held = None;
        }
        let pressed = key.filter(|_| self.run >= PRESS_WINDOWS && key != self.held)?;
        (self.held, self.missed) = (key, 0);
        let length = WINDOW + HOP * (self.run as usize - 1);
        let start = self.samples.saturating_sub(length as u64);
        Some(Press { digit: KEYS[pressed], at_ms: start * 1_000 / u64::from(LINE_RATE_HZ) })
    }
}

/// Goertzel's algorithm at the eight frequencies over one window.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    last: [f32; 8],
    before: [f32; 8],
    energy: f32,
    samples: usize,
}

impl Window {
    /// Adds a sample; gives the window when it is full, and starts the next.
    fn push(&mut self, sample: f32) -> Option<Window> {
        for ((last, before), coefficient) in self.last.iter_mut().zip(&mut self.before).zip(COEFFICIENTS) {
            let next = sample + coefficient * *last - *before;
            *before = std::mem::replace(last, next);
        }
        self.energy += sample * sample;
        self.samples += 1;
        (self.samples == WINDOW).then(|| std::mem::take(self))
    }

    /// The key whose two tones make up this window.
    fn key(&self) -> Option<usize> {
        if power_dbfs(self.energy / WINDOW as f32) < LEAST_DBFS {
            return None;
        }
        let tones: [f32; 8] = std::array::from_fn(|lane| {
            let (last, before) = (self.last[lane], self.before[lane]);
            let square = last * last + before * before - COEFFICIENTS[lane] * last * before;
            square * 2.0 / WINDOW as f32
        });
        let (row, low) = loudest(&tones[..4])?;
        let (column, high) = loudest(&tones[4..])?;
        let least = low.min(high) / WINDOW as f32;
        let high_louder_db = 10.0 * (high / low).log10();
        let is_key = power_dbfs(least) >= LEAST_DBFS
            && (-LOW_LOUDER_DB..=HIGH_LOUDER_DB).contains(&high_louder_db)
            && low + high >= TONE_SHARE * self.energy;
        is_key.then_some(row * 4 + column)
    }
}

/// The loudest of a group, if it stands out from the rest.
fn loudest(group: &[f32]) -> Option<(usize, f32)> {
    let (index, power) = group.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let rival = power * 10f32.powf(-STAND_OUT_DB / 10.0);
    let alone = group.iter().enumerate().all(|(other, tone)| other == index || *tone < rival);
    alone.then_some((index, power))
}

/// 2 cos(2 pi f / 8000) for the rows, then the columns.
const COEFFICIENTS: [f32; 8] =
    [1.707_737_8, 1.645_281, 1.568_687, 1.478_204_6, 1.164_104, 0.996_370_2, 0.798_618_4, 0.568_532_7];

/// How the generator keys its tones.
#[derive(Clone, Copy, Debug)]
pub struct Keying {
    /// Length of each tone, milliseconds.
    pub on_ms: u32,
    /// Silence after each tone, milliseconds.
    pub off_ms: u32,
}

impl Default for Keying {
    /// 100 ms of tone and of silence, which every receiver and every carrier's codec lets through.
    fn default() -> Self {
        Keying { on_ms: 100, off_ms: 100 }
    }
}

/// A character that is on no telephone's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key; the keys are 0-9, A-D, * and #, and w to wait")]
pub struct NotAKey(pub char);

/// Peak of each tone, low and high: -9 and -7 dB below full scale, the high one louder for the line's losses.
const LOW_PEAK: f32 = 11_626.0;
const HIGH_PEAK: f32 = 14_636.0;

/// How long `w` waits among keys.
const WAIT_MS: u32 = 500;

/// The tones of `digits` at 8 kHz, each followed by its silence; `w` is half a second of silence.
pub fn tones(digits: &str, keying: Keying) -> Result<Vec<i16>, NotAKey> {
    let samples = |ms: u32| ms as usize * LINE_RATE_HZ as usize / 1_000;
    let mut pcm = vec![];
    for digit in digits.chars() {
        if digit == 'w' {
            pcm.resize(pcm.len() + samples(WAIT_MS), 0);
            continue;
        }
        let key = KEYS.iter().position(|key| *key == digit.to_ascii_uppercase()).ok_or(NotAKey(digit))?;
        let (row_hz, column_hz) = (ROWS_HZ[key / 4], COLUMNS_HZ[key % 4]);
        pcm.extend((0..samples(keying.on_ms)).map(|index| {
            let turns = index as f32 / LINE_RATE_HZ as f32;
            let low = LOW_PEAK * (TAU * (row_hz * turns).fract()).sin();
            let high = HIGH_PEAK * (TAU * (column_hz * turns).fract()).sin();
            (low + high) as i16
        }));
        pcm.resize(pcm.len() + samples(keying.off_ms), 0);
    }
    Ok(pcm)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "0123456789ABCD*#";

    #[test]
    fn a_wait_among_keys_is_silence() {
        let keying = Keying::default();
        let (plain, waiting) = (tones("12#", keying).unwrap(), tones("1w2#", keying).unwrap());
        assert_eq!(waiting.len() - plain.len(), WAIT_MS as usize * 8);
        assert_eq!(found(&waiting), "12#");
    }

    fn found(pcm: &[i16]) -> String {
        let (mut detector, mut out) = (Detector::new(), vec![]);
        pcm.chunks(160).for_each(|frame| detector.push(frame, &mut out));
        out.iter().map(|press| press.digit).collect()
    }

    /// A key's tones, each with its frequency off by a part and its level in dBFS.
    struct Tones {
        key: usize,
        off: [f64; 2],
        dbfs: [f64; 2],
        length: usize,
    }

    impl Tones {
        fn pcm(&self) -> Vec<i16> {
            let hz = [ROWS_HZ[self.key / 4], COLUMNS_HZ[self.key % 4]];
            let tone = |index: usize, which: usize| {
                let step = std::f64::consts::TAU * f64::from(hz[which]) * (1.0 + self.off[which]) / 8_000.0;
                let peak = 32_768.0 * 2f64.sqrt() * 10f64.powf(self.dbfs[which] / 20.0);
                peak * (index as f64 * step).sin()
            };
            let mut pcm = vec![0; 400];
            pcm.extend((0..self.length).map(|index| (tone(index, 0) + tone(index, 1)) as i16));
            pcm.extend([0; 400]);
            pcm
        }
    }

    fn plain(key: usize) -> Tones {
        Tones { key, off: [0.0; 2], dbfs: [-14.0; 2], length: 400 }
    }

    #[test]
    fn coefficients_are_those_of_the_frequencies() {
        for (lane, hz) in ROWS_HZ.iter().chain(&COLUMNS_HZ).enumerate() {
            let exact = 2.0 * (std::f64::consts::TAU * f64::from(*hz) / 8_000.0).cos();
            assert!((exact - f64::from(COEFFICIENTS[lane])).abs() < 1e-6, "{hz} Hz: {exact}");
        }
    }

    #[test]
    fn every_key_is_found_at_the_shortest_timing_of_q24() {
        assert_eq!(found(&tones(ALL, Keying::default()).unwrap()), ALL);
        assert_eq!(found(&tones(ALL, Keying { on_ms: 40, off_ms: 40 }).unwrap()), ALL);
        assert_eq!(found(&tones("1111", Keying { on_ms: 40, off_ms: 40 }).unwrap()), "1111");
        assert_eq!(found(&tones("a9", Keying { on_ms: 3_000, off_ms: 60 }).unwrap()), "A9");
    }

    #[test]
    fn a_tone_counts_by_its_length_wherever_it_begins() {
        for (key, digit) in KEYS.iter().enumerate() {
            for shift in 0..HOP {
                let tone = |length| [vec![0; shift], Tones { length, ..plain(key) }.pcm()].concat();
                assert_eq!(found(&tone(320)), digit.to_string(), "40 ms after {shift} samples");
                assert_eq!(found(&tone(160)), "", "20 ms after {shift} samples");
            }
        }
    }

    #[test]
    fn a_short_interruption_does_not_split_a_press() {
        for shift in 0..HOP {
            let mut pcm = [vec![0; shift], Tones { length: 1_600, ..plain(5) }.pcm()].concat();
            pcm[1_000..1_080].fill(0);
            assert_eq!(found(&pcm), "5");
        }
    }

    #[test]
    fn the_tolerances_of_q24_hold() {
        for (key, digit) in KEYS.iter().enumerate() {
            for (low, high) in [(0.015, 0.015), (-0.015, -0.015), (0.015, -0.015), (-0.015, 0.015)] {
                let off = Tones { off: [low, high], length: 320, ..plain(key) };
                assert_eq!(found(&off.pcm()), digit.to_string(), "off by {low} and {high}");
            }
            for dbfs in [[-18.0, -14.0], [-14.0, -22.0], [-31.0, -31.0], [-6.5, -6.5]] {
                let tones = Tones { dbfs, length: 320, ..plain(key) };
                assert_eq!(found(&tones.pcm()), digit.to_string(), "levels {dbfs:?}");
            }
            for dbfs in [[-24.0, -14.0], [-10.0, -24.0], [-50.0, -50.0], [-14.0, -90.0], [-90.0, -14.0]] {
                assert_eq!(found(&Tones { dbfs, ..plain(key) }.pcm()), "", "levels {dbfs:?}");
            }
        }
    }

    #[test]
    fn frequencies_between_keys_are_no_key() {
        for (key, digit) in KEYS.iter().enumerate() {
            for off in [[0.0, 0.05], [0.0, -0.05], [0.055, 0.05], [-0.055, -0.05]] {
                assert_eq!(found(&Tones { off, ..plain(key) }.pcm()), "", "{digit} off by {off:?}");
            }
        }
    }

    #[test]
    fn a_press_says_when_its_tone_began() {
        let mut out = vec![];
        let pcm = [vec![0; 8_000], tones("7", Keying::default()).unwrap()].concat();
        Detector::new().push(&pcm, &mut out);
        assert!(out.len() == 1 && out[0].at_ms.abs_diff(1_000) <= 7, "{out:?}");
    }

    #[test]
    fn only_keys_can_be_sent() {
        assert_eq!(tones("12x", Keying::default()), Err(NotAKey('x')));
        assert_eq!(tones("", Keying::default()), Ok(vec![]));
    }
}
