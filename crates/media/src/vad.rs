//! Voice activity on one party's audio at 8 kHz: when speech begins and stops, within tens of milliseconds.
//! It does not decide whether a turn is over, nor whether the voice is an echo: both are judged elsewhere.
//!
//! Two judges sit in a row. The level of every 4 ms is compared with the line's noise; what is near the noise is silence
//! and costs next to nothing. Only sound wakes the second judge, the `earshot` network, which tells voice from noise.

use crate::LINE_RATE_HZ;
use crate::level::{mean_square, power_dbfs};
use earshot::Detector;

/// What [`Vad`] found. Times are milliseconds of audio since its first sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VadEvent {
    /// Somebody speaks.
    SpeechStarted {
        /// When the sound began, which is `onset_ms` or more before it was known to be speech.
        at_ms: u64,
    },
    /// Nobody speaks any more.
    SpeechStopped {
        /// When the last sound of it ended, which is `hang_ms` or more before it was known.
        at_ms: u64,
    },
}

/// How quick and how sure to be.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Sound needed before it can be called speech, milliseconds.
    pub onset_ms: u32,
    /// Silence needed before speech has stopped, milliseconds.
    pub hang_ms: u32,
    /// The network's score at which sound becomes speech, 0 to 1.
    pub start_score: f32,
    /// The network's score below which sound no longer is speech, 0 to 1.
    pub stop_score: f32,
    /// Anything quieter is silence, dBFS.
    pub least_dbfs: f32,
    /// Sound stands out from the noise by this, dB.
    pub above_noise_db: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            onset_ms: 60,
            hang_ms: 60,
            start_score: 0.4,
            stop_score: 0.3,
            least_dbfs: -54.0,
            above_noise_db: 6.0,
        }
    }
}

/// Finds speech in one party's audio: `push` all of it, in order.
pub struct Vad {
    slice: [i16; SLICE],
    filled: usize,
    /// End of the last whole slice, in samples.
    now: u64,
    gate: Gate,
    network: Network,
    onset: u64,
    hang: u64,
    start_score: f32,
    stop_score: f32,
    /// Beginning of the sound that may become speech.
    sound_since: Option<u64>,
    /// End of the last slice with sound, and of the last that was voice.
    last_sound: u64,
    last_voice: u64,
    speaking: bool,
}

/// 4 ms: frames of 20 ms hold five, the network's block of 16 ms holds four.
const SLICE: usize = 32;

/// Silence that a sound may contain, 24 ms: a deep voice is silent for half as long between two pulses.
const GAP: u64 = 192;

/// Silence after which the network sleeps, 96 ms: shorter pauses belong to what it is hearing.
const SLEEP_AFTER: u64 = 768;

impl Default for Vad {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl Vad {
    /// Listens from the beginning of a call's audio.
    pub fn new(settings: Settings) -> Vad {
        let samples = |ms: u32| u64::from(ms) * u64::from(LINE_RATE_HZ) / 1_000;
        Vad {
            slice: [0; SLICE],
            filled: 0,
            now: 0,
            gate: Gate::new(settings),
            network: Network::new(),
            onset: samples(settings.onset_ms),
            hang: samples(settings.hang_ms),
            start_score: settings.start_score,
            stop_score: settings.stop_score,
            sound_since: None,
            last_sound: 0,
            last_voice: 0,
            speaking: false,
        }
    }

    /// Listens to the next samples, of any number, and appends what began or stopped in them to `out`.
    pub fn push(&mut self, mut pcm: &[i16], out: &mut Vec<VadEvent>) {
        while !pcm.is_empty() {
            let (now, later) = pcm.split_at(pcm.len().min(SLICE - self.filled));
            self.slice[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            pcm = later;
            if self.filled == SLICE {
                self.filled = 0;
                out.extend(self.hear());
            }
        }
    }

    /// Whether somebody is speaking, as of the last event.
    pub fn is_speaking(&self) -> bool {
        self.speaking
    }

    /// The line's noise as far as it is known, dBFS.
    pub fn noise_dbfs(&self) -> f32 {
        power_dbfs(self.gate.noise)
    }

    fn hear(&mut self) -> Option<VadEvent> {
        let before = self.now;
        self.now += SLICE as u64;
        let voice_likely = self.network.score >= self.stop_score;
        let power = mean_square(&self.slice);
        let is_sound = self.gate.is_sound(power, voice_likely);
        if is_sound {
            self.network.wake(power, voice_likely);
            self.last_sound = self.now;
            self.sound_since.get_or_insert(before);
        } else if self.now - self.last_sound > GAP {
            self.sound_since = None;
        }
        if self.now - self.last_sound >= SLEEP_AFTER {
            self.network.sleep();
        } else if self.network.is_awake {
            self.network.hear(&self.slice);
        }
        if is_sound && self.network.score >= self.stop_score {
            self.last_voice = self.now;
        }
        self.judge()
    }

    fn judge(&mut self) -> Option<VadEvent> {
        let at_ms = |sample: u64| sample * 1_000 / u64::from(LINE_RATE_HZ);
        if self.speaking {
            let silence = self.now - self.last_voice;
            return (silence >= self.hang).then(|| {
                self.speaking = false;
                self.sound_since = None;
                VadEvent::SpeechStopped { at_ms: at_ms(self.last_voice) }
            });
        }
        let since = self.sound_since?;
        let is_speech = self.last_sound - since >= self.onset && self.network.score >= self.start_score;
        is_speech.then(|| {
            self.speaking = true;
            self.last_voice = self.now;
            VadEvent::SpeechStarted { at_ms: at_ms(since) }
        })
    }
}

/// Tells sound from the line's noise by level alone.
struct Gate {
    /// Power of the noise: it follows a percentile of the slices' power, in steps.
    noise: f32,
    least: f32,
    above_noise: f32,
}

/// The noise of the quietest line, -75 dBFS.
const NOISE_LEAST: f32 = 34.0;

/// Steps of the noise for each slice of 4 ms: up by 25 dB a second, down by 50, so that it settles on the power that a
/// third of the slices stay below.
const NOISE_RISE: f32 = 1.023_29;
const NOISE_FALL: f32 = 0.954_99;

impl Gate {
    fn new(settings: Settings) -> Gate {
        let power = |db: f32| 10f32.powf(db / 10.0);
        Gate {
            noise: NOISE_LEAST,
            least: power(settings.least_dbfs) * 32_768.0 * 32_768.0,
            above_noise: power(settings.above_noise_db),
        }
    }

    fn is_sound(&mut self, power: f32, voice_likely: bool) -> bool {
        let is_sound = power > self.least.max(self.noise * self.above_noise);
        if power < self.noise {
            self.noise = (self.noise * NOISE_FALL).max(NOISE_LEAST);
        } else if !voice_likely {
            self.noise *= NOISE_RISE;
        }
        is_sound
    }
}

/// The network with its input at 16 kHz. Asleep it scores 0.
struct Network {
    detector: Box<Detector>,
    block: [i16; BLOCK],
    filled: usize,
    last: i16,
    is_awake: bool,
    score: f32,
    /// Power of the talker: nine tenths of the voice is quieter.
    loudness: f32,
}

/// 16 ms at 16 kHz, the network's step.
const BLOCK: usize = 256;

/// Steps of the loudness for each slice of a voice: up by 90 dB a second, down by 10.
const LOUDNESS_RISE: f32 = 1.086_43;
const LOUDNESS_FALL: f32 = 0.990_83;

/// What the loudness is before anything was heard (-15 dBFS), and its limits (-45 and -5 dBFS).
const LOUDNESS_FIRST: f32 = 33.954e6;
const LOUDNESS_LEAST: f32 = 33_954.0;
const LOUDNESS_MOST: f32 = 339.54e6;

/// The loudness at which the network hears everybody, -26 dBFS. Its score grows with the level: as they come, loud noise
/// is taken for voice and quiet talkers are missed.
const LOUDNESS_HEARD: f32 = 2.697e6;

impl Network {
    fn new() -> Network {
        Network {
            detector: Detector::default_boxed(),
            block: [0; BLOCK],
            filled: 0,
            last: 0,
            is_awake: false,
            score: 0.0,
            loudness: LOUDNESS_FIRST,
        }
    }

    fn wake(&mut self, power: f32, voice_likely: bool) {
        self.is_awake = true;
        let step = if power > self.loudness {
            LOUDNESS_RISE
        } else if voice_likely {
            LOUDNESS_FALL
        } else {
            1.0
        };
        self.loudness = (self.loudness * step).clamp(LOUDNESS_LEAST, LOUDNESS_MOST);
    }

    /// Doubles the rate by straight lines between samples. Their faint images above 4 kHz stand in for what a wide-band
    /// voice has there and the network was taught to look for: after a proper filter, noise that begins suddenly scores
    /// nearly as high as speech for its first 100 ms.
    fn hear(&mut self, slice: &[i16; SLICE]) {
        let gain = (LOUDNESS_HEARD / self.loudness).sqrt();
        for sample in slice {
            let sample = (f32::from(*sample) * gain) as i16;
            self.block[self.filled] = i16::midpoint(self.last, sample);
            self.block[self.filled + 1] = sample;
            self.last = sample;
            self.filled += 2;
        }
        if self.filled == BLOCK {
            self.filled = 0;
            self.score = self.detector.predict_i16(&self.block);
        }
    }

    fn sleep(&mut self) {
        if self.is_awake {
            self.detector.reset();
            (self.filled, self.last, self.is_awake, self.score) = (0, 0, false, 0.0);
        }
    }
}
