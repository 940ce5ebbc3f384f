//! Tells a caller's voice from the agent's own, coming back from a speakerphone or a bad line.
//! It removes nothing from the audio, and does not know what is speech: it is asked when somebody seems to speak.
//!
//! The question it answers is how much of the last 100 ms a short filter can explain when it is applied to what was
//! played up to 600 ms before. An echo is explained nearly whole, a caller only by chance. Once separate stretches of
//! sound have been explained at one delay the echo path is known, and with it how loud an echo is: then sound that is no
//! louder than what the filter leaves of an echo, such as a room ringing on, is taken for echo too.

use crate::level::mean_square;
use crate::resample::dot;
use crate::{FRAME_SAMPLES, LINE_RATE_HZ};
use std::ops::Range;

/// Who is heard on the caller's side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// The caller, alone or over the agent's echo.
    Caller,
    /// Only the agent's own voice, returned.
    Echo {
        /// Time from playing to hearing it, milliseconds.
        delay_ms: u32,
        /// How much quieter than played it returns, dB.
        loss_db: f32,
    },
}

/// Follows what is played to the caller and what is heard from them, both at 8 kHz.
///
/// For each stretch of time call [`played`](Self::played) with the audio that plays in it (or not at all while nothing
/// plays), then [`heard`](Self::heard) with the caller's; ask for the [`source`](Self::source) on each frame in which
/// the caller seems to speak.
pub struct EchoGate {
    played: Track,
    heard: Track,
    /// Until when what was played can still be heard, in samples of the tracks.
    audible_until: u64,
    path: Option<Path>,
    /// Answers in a row that did not explain the sound although the path is known.
    doubts: u32,
}

/// Tracks run at 4 kHz: most of a telephone voice is below 2 kHz, and the search costs a quarter.
const TRACK_RATE_HZ: u32 = LINE_RATE_HZ / 2;

/// How much sound is explained at a time, 100 ms.
const WINDOW: usize = 400;

/// The longest delay that is searched, 600 ms.
const LAGS: usize = 2_400;

/// How far the delay may move from one answer to the next, 1.5 ms: clocks drift.
const DRIFT: usize = 6;

/// Length of the filter that stands for the echo path, 4 ms, and how much of it comes before the delay found.
const TAPS: usize = 16;
const TAPS_BEFORE: usize = 8;

/// How long a room rings on, 200 ms.
const RINGING: usize = 800;

/// How far what is played may be ahead of what is heard, 200 ms.
const AHEAD: usize = 800;

/// What is played below this is not audible, mean square (-60 dBFS).
const AUDIBLE: f32 = 1_074.0;

/// The part of the sound that must be explained to find a path among all delays.
const EXPLAINED: f32 = 0.85;

/// The part that must be explained at a delay found before: by chance a caller reaches this one time in a hundred.
const EXPLAINED_AGAIN: f32 = 0.5;

/// The loudest an echo can be against what was played, in power: some lines amplify.
const GAIN_MOST: f32 = 2.0;

/// How quickly the loudness of the echo is learned.
const GAIN_STEP: f32 = 0.1;

/// Separate stretches of sound that make a path known, and the most that are counted for it.
const KNOWN: u32 = 3;
const CERTAIN: u32 = 6;

/// What a filter of 4 ms leaves unexplained of an echo in a room, in power.
const RESIDUE: f32 = 0.4;

/// Unexplained answers in a row that it takes to hear a caller through a known echo.
const DOUBTS: u32 = 2;

/// A way by which the agent's voice returns.
#[derive(Clone, Copy)]
struct Path {
    lag: usize,
    /// Power of the echo against what was played.
    gain: f32,
    /// Separate stretches of sound that it explained, less those that it did not.
    confidence: u32,
    /// End of the last stretch that was counted.
    counted: u64,
}

/// How well the path of one delay explains the sound.
#[derive(Clone, Copy)]
struct Fit {
    lag: usize,
    /// Part of the sound's power, 0 to 1.
    explained: f32,
    gain: f32,
}

impl Default for EchoGate {
    fn default() -> Self {
        Self::new()
    }
}

impl EchoGate {
    /// A gate at the beginning of a call.
    pub fn new() -> EchoGate {
        EchoGate {
            played: Track::new(LAGS + TAPS + WINDOW + RINGING + AHEAD),
            heard: Track::new(WINDOW),
            audible_until: 0,
            path: None,
            doubts: 0,
        }
    }

    /// Takes the audio that plays to the caller now. It follows what was played before without a pause, or begins with
    /// the next of the caller's audio if that has ended; what is more than 200 ms ahead of the caller is not followed.
    pub fn played(&mut self, pcm: &[i16]) {
        let free = (self.heard.end() + AHEAD as u64).saturating_sub(self.played.end()) as usize * 2;
        let pcm = &pcm[..pcm.len().min(free)];
        self.played.push(pcm);
        if mean_square(pcm) > AUDIBLE {
            self.audible_until = self.played.end() + (LAGS + WINDOW) as u64;
        }
    }

    /// Takes the caller's audio of the same time.
    pub fn heard(&mut self, pcm: &[i16]) {
        self.heard.push(pcm);
        self.played.silence_until(self.heard.end());
    }

    /// Whose voice the last 100 ms are, provided that they are a voice at all.
    pub fn source(&mut self) -> Source {
        let now = self.heard.end();
        let sound = energy(self.heard.window(now));
        if now >= self.audible_until || sound == 0.0 {
            return Source::Caller;
        }
        if let Some(path) = self.path {
            let near = path.lag.saturating_sub(DRIFT)..LAGS.min(path.lag + DRIFT + 1);
            let fit = self.fit(now, self.likeliest_lag(now, near));
            if self.follow(path, fit, now, sound) {
                return path.source();
            }
        }
        let fit = self.fit(now, self.likeliest_lag(now, 0..LAGS));
        if !fit.explains(EXPLAINED) {
            return Source::Caller;
        }
        let found = Path { lag: fit.lag, gain: fit.gain, confidence: 1, counted: now };
        if !self.path.is_some_and(|path| path.is_known()) {
            self.path = Some(found);
        }
        found.source()
    }

    /// Whether the path found before accounts for the sound; learns from the answer.
    fn follow(&mut self, mut path: Path, fit: Fit, now: u64, sound: f32) -> bool {
        let is_explained = fit.explains(EXPLAINED_AGAIN);
        if is_explained {
            path.lag = fit.lag;
            path.gain += (fit.gain - path.gain) * GAIN_STEP;
        }
        if now - path.counted >= WINDOW as u64 {
            path.counted = now;
            path.confidence =
                if is_explained { CERTAIN.min(path.confidence + 1) } else { path.confidence - 1 };
        }
        self.path = (path.confidence > 0).then_some(path);
        let residue = RESIDUE * path.gain * self.loudest_played(now, path.lag);
        let is_residue = path.is_known() && sound * (1.0 - fit.explained) <= residue;
        self.doubts = if is_explained || is_residue { 0 } else { self.doubts + 1 };
        self.doubts == 0 || (path.is_known() && self.doubts < DOUBTS)
    }

    /// The delay at which what was played is most like what is heard.
    fn likeliest_lag(&self, now: u64, lags: Range<usize>) -> usize {
        let heard = self.heard.window(now);
        let square = |sample: f32| f64::from(sample) * f64::from(sample);
        let (mut likeliest, mut greatest) = (lags.start, 0.0);
        let newest = self.played.window(now - lags.start as u64);
        let mut power: f64 = newest.iter().map(|sample| square(*sample)).sum();
        for lag in lags {
            let played = self.played.window(now - lag as u64);
            let product = dot(heard, played);
            let likeness = square(product) / (power + 1.0);
            if likeness > greatest {
                (likeliest, greatest) = (lag, likeness);
            }
            let before = self.played.window(now - lag as u64 - 1);
            power = (power + square(before[0]) - square(played[WINDOW - 1])).max(0.0);
        }
        likeliest
    }

    /// The path at one delay, as the filter that leaves the least of the sound.
    fn fit(&self, now: u64, lag: usize) -> Fit {
        let heard = self.heard.window(now);
        let first = lag.saturating_sub(TAPS_BEFORE);
        let delayed: [&[f32]; TAPS] =
            std::array::from_fn(|tap| self.played.window(now - (first + tap) as u64));
        let products = delayed.map(|played| dot(heard, played));
        let mut correlations = [[0.0; TAPS]; TAPS];
        for row in 0..TAPS {
            for column in 0..=row {
                correlations[row][column] = dot(delayed[row], delayed[column]);
            }
        }
        let played = correlations[0][0];
        let echo = projected_energy(correlations, products);
        Fit { lag, explained: (echo / energy(heard)).min(1.0), gain: echo / (played + 1.0) }
    }

    /// Energy of the loudest window whose echo may still ring.
    fn loudest_played(&self, now: u64, lag: usize) -> f32 {
        let windows = (0..=RINGING).step_by(WINDOW / 4);
        windows.map(|back| energy(self.played.window(now - (lag + back) as u64))).fold(0.0, f32::max)
    }
}

impl Path {
    fn is_known(&self) -> bool {
        self.confidence >= KNOWN
    }

    fn source(&self) -> Source {
        Source::Echo { delay_ms: self.lag as u32 * 1_000 / TRACK_RATE_HZ, loss_db: -10.0 * self.gain.log10() }
    }
}

impl Fit {
    fn explains(&self, part: f32) -> bool {
        self.explained >= part && self.gain <= GAIN_MOST
    }
}

fn energy(samples: &[f32]) -> f32 {
    dot(samples, samples)
}

/// Energy of the part of a signal that lies in the space of `TAPS` others, given their products among each other (the
/// lower triangle) and with the signal: one half of a Cholesky solution. A little is added to the diagonal because the
/// delayed copies of a vowel are nearly alike.
fn projected_energy(mut matrix: [[f32; TAPS]; TAPS], products: [f32; TAPS]) -> f32 {
    const RIDGE: f32 = 0.003;
    let ridge = RIDGE * matrix[0][0] + 1.0;
    let mut solved = [0.0f32; TAPS];
    for row in 0..TAPS {
        for column in 0..=row {
            let known: f32 = (0..column).map(|k| matrix[row][k] * matrix[column][k]).sum();
            let rest = matrix[row][column] - known;
            matrix[row][column] =
                if column == row { (rest + ridge).max(ridge).sqrt() } else { rest / matrix[column][column] };
        }
        let known: f32 = (0..row).map(|k| matrix[row][k] * solved[k]).sum();
        solved[row] = (products[row] - known) / matrix[row][row];
    }
    energy(&solved)
}

/// The newest of one side's audio, at 4 kHz and with its spectrum evened out so that the bass does not decide alone.
struct Track {
    samples: Vec<f32>,
    /// Samples that were dropped before the first of `samples`.
    dropped: u64,
    /// How many must be kept.
    kept: usize,
    line: [f32; LOW_PASS.len()],
    is_between: bool,
    before: f32,
}

/// Windowed sinc at 1.7 kHz: 3 dB down at 1.5 kHz, 13 at 2, 50 from 2.6.
const LOW_PASS: [f32; 16] = [
    -0.0019, 0.0040, 0.0117, -0.0076, -0.0535, -0.0191, 0.1759, 0.3905, 0.3905, 0.1759, -0.0191, -0.0535,
    -0.0076, 0.0117, 0.0040, -0.0019,
];

/// How much of each sample is taken off the next, which lowers the bass.
const PRE_EMPHASIS: f32 = 0.9;

impl Track {
    /// A track that begins with `kept` samples of silence, so that windows reach back before the call.
    fn new(kept: usize) -> Track {
        let mut samples = Vec::with_capacity(2 * kept);
        samples.resize(kept, 0.0);
        Track {
            samples,
            dropped: HISTORY - kept as u64,
            kept,
            line: [0.0; 16],
            is_between: false,
            before: 0.0,
        }
    }

    fn end(&self) -> u64 {
        self.dropped + self.samples.len() as u64
    }

    fn window(&self, end: u64) -> &[f32] {
        let end = (end - self.dropped) as usize;
        &self.samples[end - WINDOW..end]
    }

    fn push(&mut self, pcm: &[i16]) {
        for pcm in pcm.chunks(FRAME_SAMPLES) {
            let mut line = [0.0; LOW_PASS.len() + FRAME_SAMPLES];
            line[..LOW_PASS.len()].copy_from_slice(&self.line);
            for (place, sample) in line[LOW_PASS.len()..].iter_mut().zip(pcm) {
                *place = f32::from(*sample);
            }
            // Every other sample is left out, whichever frame it is in.
            for newest in (usize::from(!self.is_between)..pcm.len()).step_by(2) {
                self.append(dot(&line[newest + 1..=newest + LOW_PASS.len()], &LOW_PASS));
            }
            self.line.copy_from_slice(&line[pcm.len()..][..LOW_PASS.len()]);
            self.is_between ^= pcm.len() % 2 == 1;
        }
    }

    fn append(&mut self, low: f32) {
        self.samples.push(low - PRE_EMPHASIS * self.before);
        self.before = low;
        if self.samples.len() == 2 * self.kept {
            self.samples.drain(..self.kept);
            self.dropped += self.kept as u64;
        }
    }

    fn silence_until(&mut self, end: u64) {
        const SILENCE: [i16; FRAME_SAMPLES] = [0; FRAME_SAMPLES];
        while self.end() < end {
            let missing = (end - self.end()) as usize * 2;
            self.push(&SILENCE[..missing.min(FRAME_SAMPLES)]);
        }
    }
}

/// Where both tracks begin to count: further than any window reaches back.
const HISTORY: u64 = 1 << 20;
