//! Sounds made by arithmetic: a voice, noise, echoes and a telephone line. The same seed gives the same samples.

use offhook_media::level::rms_dbfs;
use std::f32::consts::TAU;

/// Numbers between -1 and 1 that look random.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(2) + 1)
    }

    pub fn value(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// White noise of a level.
    pub fn pcm(&mut self, dbfs: f32, ms: usize) -> Vec<i16> {
        let samples: Vec<f32> = (0..ms * 8).map(|_| self.value()).collect();
        at_level(&samples, dbfs)
    }
}

pub fn silence(ms: usize) -> Vec<i16> {
    vec![0; ms * 8]
}

/// Formants of vowels, Hz: ah, ee, oo, eh, oh.
const VOWELS_HZ: [[f32; 3]; 5] = [
    [730.0, 1_090.0, 2_440.0],
    [270.0, 2_290.0, 3_010.0],
    [300.0, 870.0, 2_240.0],
    [530.0, 1_840.0, 2_480.0],
    [570.0, 840.0, 2_410.0],
];

/// How much the pulses of the glottis are rounded off.
const SOFTNESS: f32 = 0.9;

/// A voice that babbles: pulses at a gliding pitch through the formants of changing vowels, in syllables of 140 to
/// 220 ms that swell and fade, some but the first with a hiss before the vowel.
pub fn voice(seed: u64, pitch_hz: f32, dbfs: f32, ms: usize) -> Vec<i16> {
    let mut chance = Noise::new(seed);
    let mut samples = Vec::with_capacity(ms * 8);
    let (mut phase, mut glide, mut tilt) = (0.0f32, 0.0f32, 0.0f32);
    while samples.len() < ms * 8 {
        let length = 1_120 + ((chance.value() + 1.0) * 320.0) as usize;
        let hiss = if chance.value() > 0.3 && !samples.is_empty() { 400 } else { 0 };
        let vowel = VOWELS_HZ[((chance.value() + 1.0) * 2.499) as usize];
        let target = chance.value();
        let mut formants = vowel.map(Resonator::new);
        for index in 0..length {
            glide += (target - glide) * 0.001;
            phase += pitch_hz * (1.0 + 0.2 * glide + 0.01 * chance.value()) / 8_000.0;
            let pulse = if phase >= 1.0 { 1.0 } else { -0.02 };
            phase = phase.fract();
            let swell = (index as f32 / length as f32 * TAU / 2.0).sin().sqrt();
            let breath = chance.value() * if index < hiss { 0.15 } else { 0.003 };
            tilt = SOFTNESS * tilt + if index < hiss { breath } else { pulse + breath };
            let mouth = formants.iter_mut().fold(tilt, |sound, formant| formant.push(sound));
            samples.push(mouth * swell);
        }
    }
    samples.truncate(ms * 8);
    at_level(&samples, dbfs)
}

struct Resonator {
    feedback: [f32; 2],
    gain: f32,
    state: [f32; 2],
}

impl Resonator {
    fn new(hz: f32) -> Resonator {
        let radius = (-TAU / 2.0 * 90.0 / 8_000.0).exp();
        let feedback = [2.0 * radius * (TAU * hz / 8_000.0).cos(), -radius * radius];
        Resonator { feedback, gain: 1.0 - feedback[0] - feedback[1], state: [0.0; 2] }
    }

    fn push(&mut self, input: f32) -> f32 {
        let output = input * self.gain + self.feedback[0] * self.state[0] + self.feedback[1] * self.state[1];
        self.state = [output, self.state[0]];
        output
    }
}

/// Scales to an RMS level over the whole, clipping what is over full scale.
pub fn at_level(samples: &[f32], dbfs: f32) -> Vec<i16> {
    let power = samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len().max(1) as f32;
    let gain = 32_768.0 * 10f32.powf(dbfs / 20.0) / power.sqrt().max(1e-9);
    samples.iter().map(|sample| (sample * gain) as i16).collect()
}

pub fn louder(pcm: &[i16], db: f32) -> Vec<i16> {
    let gain = 10f32.powf(db / 20.0);
    pcm.iter().map(|sample| (f32::from(*sample) * gain) as i16).collect()
}

pub fn mixed(a: &[i16], b: &[i16]) -> Vec<i16> {
    a.iter().zip(b).map(|(a, b)| a.saturating_add(*b)).collect()
}

/// The beginning of `pcm` up to its first 10 ms above -42 dBFS, cut off.
pub fn from_first_sound(pcm: &[i16]) -> &[i16] {
    let quiet = pcm.chunks(80).take_while(|block| rms_dbfs(block) <= -42.0).count();
    &pcm[pcm.len().min(quiet * 80)..]
}

/// How the agent's voice returns: after a delay, quieter, through the telephone band, from a room or not.
#[derive(Clone, Copy, Debug)]
pub struct Echo {
    pub delay_ms: usize,
    pub loss_db: f32,
    pub room: bool,
}

impl Echo {
    pub fn of(self, played: &[i16]) -> Vec<i16> {
        let mut samples: Vec<f32> = played.iter().map(|sample| f32::from(*sample)).collect();
        telephone_band(&mut samples);
        let mut chance = Noise::new(17);
        let mut paths = vec![(self.delay_ms * 8, 1.0)];
        if self.room {
            // Reflections over 100 ms that fade by 60 dB in 200 ms.
            paths.extend((0..60).map(|_| {
                let after = (chance.value() + 1.0) * 400.0;
                (
                    self.delay_ms * 8 + after as usize,
                    0.35 * chance.value() * 10f32.powf(-3.0 * after / 1_600.0),
                )
            }));
        }
        let gain = 10f32.powf(-self.loss_db / 20.0);
        let mut echo = vec![0.0; samples.len()];
        for (delay, part) in paths {
            for (heard, sample) in echo.iter_mut().skip(delay).zip(&samples) {
                *heard += gain * part * sample;
            }
        }
        echo.iter().map(|sample| *sample as i16).collect()
    }
}

/// Second-order Butterworth at 300 and 3200 Hz.
fn telephone_band(samples: &mut [f32]) {
    for (hz, is_high_pass) in [(300.0, true), (3_200.0, false)] {
        let angle: f32 = TAU * hz / 8_000.0;
        let (alpha, cosine) = (angle.sin() / 2f32.sqrt(), angle.cos());
        let edge = if is_high_pass { (1.0 + cosine) / 2.0 } else { (1.0 - cosine) / 2.0 } / (1.0 + alpha);
        let middle = if is_high_pass { -2.0 * edge } else { 2.0 * edge };
        let (back_1, back_2) = (2.0 * cosine / (1.0 + alpha), -(1.0 - alpha) / (1.0 + alpha));
        let (mut inputs, mut outputs) = ([0.0; 2], [0.0; 2]);
        for sample in samples.iter_mut() {
            let input = *sample;
            let output =
                edge * (input + inputs[1]) + middle * inputs[0] + back_1 * outputs[0] + back_2 * outputs[1];
            (inputs, outputs) = ([input, inputs[0]], [output, outputs[0]]);
            *sample = output;
        }
    }
}
