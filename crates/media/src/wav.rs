//! WAV files as bytes: reads the PCM and G.711 that telephone systems and speech providers write, writes 16-bit PCM.
//! It does not resample, and does not know where the bytes come from or go.
//!
//! The format is RIFF, with the format tags of Microsoft's and IBM's "Multimedia Programming Interface and Data
//! Specifications 1.0" and the extensible form of `mmreg.h`.

use crate::g711::Law;

/// Decoded audio of a WAV file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wav {
    /// Samples a second of each channel.
    pub rate_hz: u32,
    /// 1 or 2.
    pub channels: u16,
    /// All samples; left and right alternate in stereo.
    pub samples: Vec<i16>,
}

/// Why bytes are not a WAV file that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WavError {
    /// No RIFF/WAVE header, or nothing that says how the samples are coded, or no samples.
    #[error("not a WAV file: the {0} chunk is missing or cut off")]
    Missing(&'static str),
    /// A coding other than 8-bit or 16-bit PCM, µ-law or A-law.
    #[error("WAV format {tag} with {bits} bits a sample is not supported; use 16-bit PCM")]
    Coding {
        /// The format tag, 1 for PCM.
        tag: u16,
        /// Bits a sample.
        bits: u16,
    },
    /// Neither mono nor stereo.
    #[error("a WAV file with {0} channels is not supported; use 1 or 2")]
    Channels(u16),
    /// A rate outside of what sound is recorded at.
    #[error("a WAV file with {0} samples a second is not supported")]
    Rate(u32),
}

const HEADER_BYTES: u32 = 44;
const RATES_HZ: std::ops::RangeInclusive<u32> = 1_000..=384_000;

const PCM: u16 = 1;
const A_LAW: u16 = 6;
const MU_LAW: u16 = 7;
const EXTENSIBLE: u16 = 0xFFFE;

impl Wav {
    /// One channel of audio.
    pub fn mono(rate_hz: u32, samples: Vec<i16>) -> Wav {
        Wav { rate_hz, channels: 1, samples }
    }

    /// Two channels side by side, the shorter one continued with silence.
    pub fn stereo(rate_hz: u32, left: &[i16], right: &[i16]) -> Wav {
        let length = left.len().max(right.len());
        let at = |channel: &[i16], index: usize| channel.get(index).copied().unwrap_or(0);
        let samples = (0..length).flat_map(|index| [at(left, index), at(right, index)]).collect();
        Wav { rate_hz, channels: 2, samples }
    }

    /// Reads mono or stereo PCM of 8 or 16 bits, µ-law or A-law.
    ///
    /// A data chunk longer than the file is read as far as there is audio: providers that stream a WAV file do not know
    /// its length and write 0 or 0xFFFFFFFF.
    pub fn parse(bytes: &[u8]) -> Result<Wav, WavError> {
        let riff = bytes.get(..12).filter(|head| &head[..4] == b"RIFF" && &head[8..] == b"WAVE");
        riff.ok_or(WavError::Missing("RIFF"))?;
        let mut rest = &bytes[12..];
        let mut format = None;
        while let Some((head, body)) = rest.split_first_chunk::<8>() {
            let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            match &head[..4] {
                b"fmt " => format = Some(Format::parse(body.get(..length).unwrap_or(body))?),
                b"data" => {
                    let format = format.ok_or(WavError::Missing("fmt"))?;
                    let known = if length == 0 { body.len() } else { length.min(body.len()) };
                    return Ok(format.decode(&body[..known]));
                }
                _ => {}
            }
            // Chunks are padded to an even length.
            rest = body.get(length.saturating_add(length & 1)..).unwrap_or(&[]);
        }
        Err(WavError::Missing(if format.is_some() { "data" } else { "fmt" }))
    }

    /// Writes 16-bit PCM.
    pub fn to_bytes(&self) -> Vec<u8> {
        let data_bytes = u32::try_from(self.samples.len() * 2).unwrap_or(u32::MAX - HEADER_BYTES);
        let block_bytes = self.channels * 2;
        let mut bytes = Vec::with_capacity(HEADER_BYTES as usize + data_bytes as usize);
        bytes.extend(b"RIFF");
        bytes.extend((data_bytes + HEADER_BYTES - 8).to_le_bytes());
        bytes.extend(b"WAVEfmt ");
        bytes.extend(16u32.to_le_bytes());
        bytes.extend(PCM.to_le_bytes());
        bytes.extend(self.channels.to_le_bytes());
        bytes.extend(self.rate_hz.to_le_bytes());
        bytes.extend((self.rate_hz * u32::from(block_bytes)).to_le_bytes());
        bytes.extend(block_bytes.to_le_bytes());
        bytes.extend(16u16.to_le_bytes());
        bytes.extend(b"data");
        bytes.extend(data_bytes.to_le_bytes());
        bytes.extend(self.samples.iter().flat_map(|sample| sample.to_le_bytes()));
        bytes
    }

    /// The audio as one channel, the mean of both where it is stereo.
    pub fn into_mono(self) -> Vec<i16> {
        if self.channels == 1 {
            return self.samples;
        }
        let mean = |pair: &[i16]| i32::midpoint(i32::from(pair[0]), i32::from(pair[1])) as i16;
        self.samples.chunks_exact(2).map(mean).collect()
    }

    /// Length of the audio in milliseconds.
    pub fn duration_ms(&self) -> u64 {
        self.samples.len() as u64 * 1_000 / (u64::from(self.rate_hz) * u64::from(self.channels))
    }
}

#[derive(Clone, Copy)]
struct Format {
    rate_hz: u32,
    channels: u16,
    coding: Coding,
}

#[derive(Clone, Copy)]
enum Coding {
    Pcm8,
    Pcm16,
    G711(Law),
}

impl Format {
    fn parse(chunk: &[u8]) -> Result<Format, WavError> {
        let field = |at: usize| chunk.get(at..at + 2).map(|two| u16::from_le_bytes([two[0], two[1]]));
        let required = |at| field(at).ok_or(WavError::Missing("fmt"));
        let channels = required(2)?;
        let rate_hz = u32::from(required(4)?) | u32::from(required(6)?) << 16;
        let bits = required(14)?;
        let tag = match required(0)? {
            // The real tag begins the sub-format's GUID.
            EXTENSIBLE => required(24)?,
            tag => tag,
        };
        if !(1..=2).contains(&channels) {
            return Err(WavError::Channels(channels));
        }
        if !RATES_HZ.contains(&rate_hz) {
            return Err(WavError::Rate(rate_hz));
        }
        let coding = match (tag, bits) {
            (PCM, 8) => Coding::Pcm8,
            (PCM, 16) => Coding::Pcm16,
            (MU_LAW, 8) => Coding::G711(Law::Mu),
            (A_LAW, 8) => Coding::G711(Law::A),
            _ => return Err(WavError::Coding { tag, bits }),
        };
        Ok(Format { rate_hz, channels, coding })
    }

    fn decode(self, data: &[u8]) -> Wav {
        let mut samples: Vec<i16> = match self.coding {
            // 8-bit WAV is unsigned, its silence is 128.
            Coding::Pcm8 => data.iter().map(|byte| (i16::from(*byte) - 128) << 8).collect(),
            Coding::Pcm16 => {
                data.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
            }
            Coding::G711(law) => data.iter().map(|byte| law.decode_sample(*byte)).collect(),
        };
        let whole = samples.len() - samples.len() % usize::from(self.channels);
        samples.truncate(whole);
        Wav { rate_hz: self.rate_hz, channels: self.channels, samples }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_us_and_by_hound() {
        for wav in [
            Wav::mono(8_000, vec![0, 1, -1, i16::MAX, i16::MIN]),
            Wav::stereo(24_000, &[5, 6, 7], &[-5]),
            Wav::mono(48_000, vec![]),
        ] {
            let bytes = wav.to_bytes();
            assert_eq!(Wav::parse(&bytes).unwrap(), wav);
            let mut other = hound::WavReader::new(&bytes[..]).unwrap();
            assert_eq!((other.spec().sample_rate, other.spec().channels), (wav.rate_hz, wav.channels));
            assert_eq!(other.samples::<i16>().map(Result::unwrap).collect::<Vec<_>>(), wav.samples);
        }
    }

    #[test]
    fn hounds_files_are_read() {
        for (bits, scale) in [(8, 256), (16, 1)] {
            let spec = hound::WavSpec {
                channels: 2,
                sample_rate: 16_000,
                bits_per_sample: bits,
                sample_format: hound::SampleFormat::Int,
            };
            let mut file = std::io::Cursor::new(vec![]);
            let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
            let samples = [0i16, 100, -100, 127, -128, 3];
            samples.iter().for_each(|sample| writer.write_sample(*sample).unwrap());
            writer.finalize().unwrap();
            let wav = Wav::parse(file.get_ref()).unwrap();
            assert_eq!(wav.samples, samples.map(|sample| sample * scale));
        }
    }

    fn file(tag: u16, bits: u16, channels: u16, data_length: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WAVEfact\x03\0\0\0abc\0fmt \x12\0\0\0".to_vec();
        bytes
            .extend([tag, channels, 8_000, 0, 0, 0, 1, bits, 0].iter().flat_map(|field| field.to_le_bytes()));
        bytes.extend(b"data");
        bytes.extend(data_length.to_le_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn g711_files_are_read_past_odd_chunks() {
        assert_eq!(Wav::parse(&file(7, 8, 1, 3, &[0xFF, 0x00, 0x80])).unwrap().samples, [0, -32_124, 32_124]);
        assert_eq!(Wav::parse(&file(6, 8, 1, 1, &[0xD5])).unwrap().samples, [8]);
    }

    #[test]
    fn streamed_and_cut_files_give_what_is_there() {
        for length in [0, 5, 1_000, u32::MAX] {
            let wav = Wav::parse(&file(1, 16, 1, length, &[1, 0, 2, 0, 3])).unwrap();
            assert_eq!(wav.samples, [1, 2], "data length {length}");
        }
    }

    #[test]
    fn stereo_becomes_mono_and_has_a_length() {
        let wav = Wav::stereo(8_000, &[100; 800], &[-50; 800]);
        assert_eq!(wav.duration_ms(), 100);
        assert_eq!(wav.into_mono(), [25; 800]);
        assert_eq!(Wav::stereo(8_000, &[i16::MIN], &[i16::MIN]).into_mono(), [i16::MIN]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        assert_eq!(Wav::parse(b"ID3"), Err(WavError::Missing("RIFF")));
        assert_eq!(Wav::parse(b"RIFF\0\0\0\0WAVE"), Err(WavError::Missing("fmt")));
        assert_eq!(Wav::parse(&file(1, 16, 1, 4, &[])[..38]), Err(WavError::Missing("fmt")));
        assert_eq!(Wav::parse(&file(1, 16, 6, 4, &[])), Err(WavError::Channels(6)));
        assert_eq!(Wav::parse(&file(3, 32, 1, 4, &[])), Err(WavError::Coding { tag: 3, bits: 32 }));
        let error = Wav::parse(&file(17, 4, 1, 4, &[])).unwrap_err();
        assert_eq!(error.to_string(), "WAV format 17 with 4 bits a sample is not supported; use 16-bit PCM");
    }
}
