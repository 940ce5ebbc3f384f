//! How the audio of a line is coded: how many bytes a moment takes, and the way between those bytes and samples.
//! It does not know sockets or packets; a coding that packs frames (Opus) is opened into linear samples before it comes here.

use crate::g711::Law;

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

    /// Appends silence, in bytes of this coding.
    pub fn silence(self, bytes: usize, coded: &mut Vec<u8>) {
        let byte = match self {
            Coding::G711(law) => law.silence(),
            Coding::Linear { .. } => 0,
        };
        coded.resize(coded.len() + bytes, byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_millisecond_has_its_bytes() {
        assert_eq!(Coding::MU_LAW.bytes_per_ms(), 8);
        assert_eq!(Coding::A_LAW.bytes_per_ms(), 8);
        assert_eq!(Coding::WIDE.bytes_per_ms(), 32);
    }

    #[test]
    fn silence_is_silent_in_every_coding() {
        for coding in [Coding::MU_LAW, Coding::A_LAW, Coding::WIDE] {
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
