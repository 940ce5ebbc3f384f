//! How the audio of a line is coded: how many bytes a moment takes, the way between those bytes and samples, and from one
//! coding to another. It does not know sockets or packets; a coding that packs frames (Opus) is opened into linear samples
//! before it comes here.

use crate::g711::Law;
use crate::resample::{Resampler, UnsupportedRates};

/// A coding in which every moment takes the same number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// G.711, one byte a sample, 8,000 samples a second.
    G711(Law),
    /// Signed 16-bit samples, little-endian.
    Linear {
        /// Samples a second.
        rate_hz: u32,
    },
}

impl Coding {
    /// What Twilio speaks, and every telephone in America and Japan.
    pub const MU_LAW: Coding = Coding::G711(Law::Mu);
    /// What telephones elsewhere speak.
    pub const A_LAW: Coding = Coding::G711(Law::A);
    /// Wideband: twice a telephone's bandwidth.
    pub const WIDE: Coding = Coding::Linear { rate_hz: 16_000 };

    /// Samples a second.
    pub const fn rate_hz(self) -> u32 {
        match self {
            Coding::G711(_) => crate::LINE_RATE_HZ,
            Coding::Linear { rate_hz } => rate_hz,
        }
    }

    /// Bytes of one sample.
    pub const fn bytes_per_sample(self) -> usize {
        match self {
            Coding::G711(_) => 1,
            Coding::Linear { .. } => 2,
        }
    }

    /// Bytes of one millisecond. Rates are whole samples a millisecond, as telephone rates are.
    pub const fn bytes_per_ms(self) -> usize {
        self.rate_hz() as usize / 1_000 * self.bytes_per_sample()
    }

    /// Appends samples, coded.
    pub fn encode(self, samples: &[i16], coded: &mut Vec<u8>) {
        match self {
            Coding::G711(law) => law.encode(samples, coded),
            Coding::Linear { .. } => coded.extend(samples.iter().flat_map(|s| s.to_le_bytes())),
        }
    }

    /// Appends the samples of coded audio; half a sample at the end is dropped.
    pub fn decode(self, coded: &[u8], samples: &mut Vec<i16>) {
        match self {
            Coding::G711(law) => law.decode(coded, samples),
            Coding::Linear { .. } => {
                samples.extend(coded.as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)));
            }
        }
    }

    /// The byte that is silence when it is repeated.
    pub const fn silent_byte(self) -> u8 {
        match self {
            Coding::G711(law) => law.silence(),
            Coding::Linear { .. } => 0,
        }
    }

    /// Appends silence, in bytes of this coding.
    pub fn silence(self, bytes: usize, coded: &mut Vec<u8>) {
        coded.resize(coded.len() + bytes, self.silent_byte());
    }
}

/// Brings audio from one coding to another as it streams: `push` as it comes, `flush` at its end.
/// Between equal codings it hands on what it is given and costs nothing.
#[derive(Debug)]
pub struct Transcoder {
    from: Coding,
    to: Coding,
    /// `None` where the rates are equal.
    resampler: Option<Resampler>,
    samples: Vec<i16>,
    resampled: Vec<i16>,
    coded: Vec<u8>,
}

impl Transcoder {
    /// The way from one coding to another.
    pub fn new(from: Coding, to: Coding) -> Result<Transcoder, UnsupportedRates> {
        let resampler = match from.rate_hz() == to.rate_hz() {
            true => None,
            false => Some(Resampler::new(from.rate_hz(), to.rate_hz())?),
        };
        let (samples, resampled, coded) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Transcoder { from, to, resampler, samples, resampled, coded })
    }

    /// The coding that it is given.
    pub fn from(&self) -> Coding {
        self.from
    }

    /// What `coded` makes possible in the other coding; half a sample at its end is dropped.
    pub fn push<'a>(&'a mut self, coded: &'a [u8]) -> &'a [u8] {
        if self.from == self.to {
            return &coded[..coded.len() - coded.len() % self.from.bytes_per_sample()];
        }
        self.samples.clear();
        self.from.decode(coded, &mut self.samples);
        self.coded.clear();
        match &mut self.resampler {
            Some(resampler) => {
                self.resampled.clear();
                resampler.push(&self.samples, &mut self.resampled);
                self.to.encode(&self.resampled, &mut self.coded);
            }
            None => self.to.encode(&self.samples, &mut self.coded),
        }
        &self.coded
    }

    /// What is still held back, and is as new.
    pub fn flush(&mut self) -> &[u8] {
        self.coded.clear();
        if let Some(resampler) = &mut self.resampler {
            self.resampled.clear();
            resampler.flush(&mut self.resampled);
            self.to.encode(&self.resampled, &mut self.coded);
        }
        &self.coded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Coding; 3] = [Coding::MU_LAW, Coding::A_LAW, Coding::WIDE];

    #[test]
    fn audio_lasts_as_long_in_every_coding() {
        for from in ALL {
            for to in ALL {
                let mut coded = Vec::new();
                from.silence(from.bytes_per_ms() * 300, &mut coded);
                let mut transcoder = Transcoder::new(from, to).unwrap();
                // Pieces of no round length, as they come from a network.
                let pieces = coded.chunks(34 * from.bytes_per_sample());
                let mut bytes: usize = pieces.map(|piece| transcoder.push(piece).len()).sum();
                bytes += transcoder.flush().len();
                // A filter rings on for as long as it looks ahead.
                let ms = bytes / to.bytes_per_ms();
                assert!((300..=302).contains(&ms), "{from:?} to {to:?}: {ms} ms");
            }
        }
    }

    #[test]
    fn equal_codings_are_handed_on_as_they_are() {
        let mut same = Transcoder::new(Coding::WIDE, Coding::WIDE).unwrap();
        let coded = [1, 2, 3, 4, 5];
        let handed_on = same.push(&coded);
        assert_eq!(handed_on.as_ptr(), coded.as_ptr());
        assert_eq!((handed_on.len(), same.flush().len()), (4, 0));
    }

    #[test]
    fn a_tone_is_heard_through_every_coding() {
        let tone = |rate_hz: u32| {
            let step = std::f32::consts::TAU * 1_013.0 / rate_hz as f32;
            (0..rate_hz / 2).map(|n| ((n as f32 * step).sin() * 8_000.0) as i16).collect::<Vec<_>>()
        };
        let energy = |samples: &[i16]| {
            let sum: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum();
            (sum / samples.len() as f64).sqrt()
        };
        for from in ALL {
            for to in ALL {
                let (mut coded, mut heard) = (Vec::new(), Vec::new());
                from.encode(&tone(from.rate_hz()), &mut coded);
                to.decode(Transcoder::new(from, to).unwrap().push(&coded), &mut heard);
                let loudness = energy(&heard[heard.len() / 4..heard.len() * 3 / 4]);
                assert!((5_500.0..5_800.0).contains(&loudness), "{from:?} to {to:?}: {loudness}");
            }
        }
    }

    #[test]
    fn a_millisecond_has_its_bytes() {
        assert_eq!(Coding::MU_LAW.bytes_per_ms(), 8);
        assert_eq!(Coding::A_LAW.bytes_per_ms(), 8);
        assert_eq!(Coding::WIDE.bytes_per_ms(), 32);
    }

    #[test]
    fn silence_is_silent_in_every_coding() {
        for coding in ALL {
            let (mut coded, mut samples) = (Vec::new(), Vec::new());
            coding.silence(coding.bytes_per_ms() * 20, &mut coded);
            coding.decode(&coded, &mut samples);
            assert_eq!(samples.len(), coding.rate_hz() as usize / 50);
            assert!(samples.iter().all(|s| s.abs() <= 8), "{coding:?}: {samples:?}");
        }
    }

    #[test]
    fn linear_samples_come_back_as_they_were() {
        let samples = [0, 1, -1, i16::MAX, i16::MIN];
        let (mut coded, mut back) = (Vec::new(), Vec::new());
        Coding::WIDE.encode(&samples, &mut coded);
        coded.push(7);
        Coding::WIDE.decode(&coded, &mut back);
        assert_eq!(back, samples);
    }
}
