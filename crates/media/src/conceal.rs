//! Fills in for lost telephone audio, at 8 kHz: the last pitch period goes on and fades (after ITU-T G.711 Appendix I).
//! It knows samples only; what was lost, and why, is known elsewhere.

use crate::LINE_RATE_HZ;

const fn samples(ms: u32) -> usize {
    (LINE_RATE_HZ * ms / 1_000) as usize
}

/// Pitch periods that are looked for: voices from 66 to 200 Hz.
const SHORTEST_PERIOD: usize = samples(5);
const LONGEST_PERIOD: usize = samples(15);
/// The stretch whose likeness decides.
const COMPARED: usize = samples(20);
/// What has to be known of the audio before the loss, in samples.
pub const HISTORY: usize = COMPARED + LONGEST_PERIOD;
/// The voice goes on unchanged for so long, and has faded away after the second.
const LOUD: usize = samples(10);
const GONE: usize = samples(60);
/// How long the synthetic voice and the real one overlap where the loss ends.
const JOIN: usize = samples(4);

/// One gap: `new` with what was heard before it, `fill` while it lasts, `join` where it ends.
#[derive(Clone, Debug)]
pub struct Concealment {
    period: Vec<f32>,
    filled: usize,
}

impl Concealment {
    /// A gap after these samples, of which the last [`HISTORY`] are used. After fewer it is silent.
    pub fn new(before: &[i16]) -> Concealment {
        let Some(start) = before.len().checked_sub(HISTORY) else {
            return Concealment { period: Vec::new(), filled: 0 };
        };
        let history: Vec<f32> = before[start..].iter().map(|sample| f32::from(*sample)).collect();
        let length = pitch(&history);
        let end = history.len();
        let mut period = history[end - length..].to_vec();
        // The end of the period flows into its beginning, as the samples before the period did.
        let blend = length / 4;
        for at in 0..blend {
            let share = (at + 1) as f32 / (blend + 1) as f32;
            let earlier = history[end - length - blend + at];
            let place = length - blend + at;
            period[place] += (earlier - period[place]) * share;
        }
        Concealment { period, filled: 0 }
    }

    /// Appends so many samples.
    pub fn fill(&mut self, count: usize, pcm: &mut Vec<i16>) {
        pcm.extend((0..count).map(|_| self.next() as i16));
    }

    /// Blends what comes after the gap with what the gap was filled with.
    pub fn join(mut self, after: &mut [i16]) {
        let length = after.len().min(JOIN);
        for (at, sample) in after.iter_mut().take(JOIN).enumerate() {
            let share = (at + 1) as f32 / (length + 1) as f32;
            let filled = self.next();
            *sample = (filled + (f32::from(*sample) - filled) * share) as i16;
        }
    }

    fn next(&mut self) -> f32 {
        if self.period.is_empty() {
            return 0.0;
        }
        let sample = self.period[self.filled % self.period.len()];
        let faded = self.filled.saturating_sub(LOUD) as f32 / (GONE - LOUD) as f32;
        self.filled += 1;
        sample * (1.0 - faded).max(0.0)
    }
}

/// The lag at which the end of the history is most like what came before it.
fn pitch(history: &[f32]) -> usize {
    let end = history.len();
    let last = &history[end - COMPARED..];
    let likeness = |lag: usize| {
        let before = &history[end - COMPARED - lag..end - lag];
        let (mut product, mut energy) = (0.0_f32, 1.0_f32);
        for (a, b) in last.iter().zip(before) {
            product += a * b;
            energy += b * b;
        }
        product / energy.sqrt()
    };
    let lags = (SHORTEST_PERIOD..=LONGEST_PERIOD).map(|lag| (lag, likeness(lag)));
    lags.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(SHORTEST_PERIOD, |(lag, _)| lag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::rms_dbfs;

    fn voice(hz: f32, count: usize) -> Vec<i16> {
        let at = |n: usize| n as f32 * hz * std::f32::consts::TAU / LINE_RATE_HZ as f32;
        (0..count).map(|n| (6_000.0 * at(n).sin() + 2_000.0 * (2.0 * at(n)).sin()) as i16).collect()
    }

    #[test]
    fn a_short_loss_in_a_voice_is_hardly_heard() {
        for hz in [100.0, 125.0, 160.0] {
            let voice = voice(hz, 1_000);
            let mut gap = Concealment::new(&voice[..600]);
            let mut filled = Vec::new();
            gap.fill(80, &mut filled);
            let wrong: Vec<i16> = filled.iter().zip(&voice[600..]).map(|(a, b)| a - b).collect();
            let below = rms_dbfs(&voice[600..680]) - rms_dbfs(&wrong);
            assert!(below > 12.0, "{hz} Hz: {below} dB");
        }
    }

    #[test]
    fn a_long_loss_fades_to_silence() {
        let mut gap = Concealment::new(&voice(125.0, 600));
        let mut filled = Vec::new();
        gap.fill(800, &mut filled);
        assert!(rms_dbfs(&filled[..80]) > -20.0);
        assert!(rms_dbfs(&filled[320..400]) < rms_dbfs(&filled[..80]) - 3.0);
        assert!(filled[480..].iter().all(|sample| *sample == 0));
    }

    #[test]
    fn the_end_of_a_loss_has_no_click() {
        let voice = voice(125.0, 1_000);
        let mut gap = Concealment::new(&voice[..500]);
        let mut heard = voice[..500].to_vec();
        gap.fill(160, &mut heard);
        let mut after = voice[660..].to_vec();
        gap.join(&mut after);
        heard.extend(after);
        let steepest = |pcm: &[i16]| pcm.windows(2).map(|pair| (pair[1] - pair[0]).abs()).max().unwrap();
        assert!(steepest(&heard) <= steepest(&voice) * 3 / 2, "{} {}", steepest(&heard), steepest(&voice));
    }

    #[test]
    fn nothing_before_is_silence_after() {
        let mut gap = Concealment::new(&[1_000; 10]);
        let mut filled = Vec::new();
        gap.fill(160, &mut filled);
        assert_eq!(filled, [0; 160]);
    }
}
