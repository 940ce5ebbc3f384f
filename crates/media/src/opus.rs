//! Opus (RFC 6716) as a telephone uses it: mono, wideband, 20 ms a packet out and any packet in. It keeps the codec library
//! to itself, and knows nothing of RTP.

use ropus::{Application, Bitrate, Channels, DecodeMode};

/// Samples a second on our side of the codec.
pub const RATE_HZ: u32 = 16_000;
/// Samples of the frames that are encoded.
pub const FRAME_SAMPLES: usize = (RATE_HZ * crate::FRAME_MS / 1_000) as usize;
/// The longest packet that [`Encoder::encode`] makes, bytes.
pub const MAX_PACKET_BYTES: usize = 160;
/// The clock that durations are told in: RTP's for Opus, whatever the audio.
const CLOCK_HZ: u32 = 48_000;
/// RFC 6716 3.2.5: no packet is longer than 120 ms.
const MAX_DURATION: u32 = CLOCK_HZ / 1_000 * 120;
const MAX_SAMPLES: usize = (RATE_HZ / 1_000 * 120) as usize;
/// Wideband speech: transparent to a recogniser, and a third of G.711.
const BITRATE: u32 = 24_000;
/// Of 10: what a call may cost, with speech hardly better above it.
const COMPLEXITY: u8 = 5;

/// The bytes are no Opus packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet is not Opus")]
pub struct NotOpus;

/// How long a packet sounds, in RTP's 48 kHz ticks (RFC 6716 3.1); `None` if it is none.
pub fn duration(packet: &[u8]) -> Option<u32> {
    let toc = *packet.first()?;
    let config = toc >> 3;
    let frame = match config {
        0..12 => [480, 960, 1_920, 2_880][usize::from(config & 3)],
        12..16 => [480, 960][usize::from(config & 1)],
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 0x3F),
    };
    Some(frame * frames).filter(|ticks| (1..=MAX_DURATION).contains(ticks))
}

/// Decodes the packets of one source, in order.
pub struct Decoder {
    inner: ropus::Decoder,
    pcm: Box<[i16; MAX_SAMPLES]>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the beginning of a source.
    pub fn new() -> Decoder {
        let inner = ropus::Decoder::new(RATE_HZ, Channels::Mono).expect("the codec has this rate");
        Decoder { inner, pcm: Box::new([0; MAX_SAMPLES]) }
    }

    /// Appends the samples of a packet.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(&mut self, packet: &[u8], pcm: &mut Vec<i16>) -> Result<(), NotOpus> {
        duration(packet).ok_or(NotOpus)?;
        let count = self.inner.decode(packet, &mut self.pcm[..], DecodeMode::Normal).map_err(|_| NotOpus)?;
        pcm.extend_from_slice(self.pcm.get(..count).ok_or(NotOpus)?);
        Ok(())
    }

    /// Appends so many samples, a multiple of 40, for a packet that is lost: from what the `next` one repeats of it, if it
    /// does, else made up.
    pub fn conceal(&mut self, count: usize, next: Option<&[u8]>, pcm: &mut Vec<i16>) {
        let end = pcm.len() + count;
        let output = &mut self.pcm[..count.clamp(1, MAX_SAMPLES)];
        let made = match next.filter(|packet| duration(packet).is_some()) {
            Some(next) => self.inner.decode(next, output, DecodeMode::Fec),
            None => self.inner.decode(&[], output, DecodeMode::Normal),
        };
        if let Ok(made) = made {
            pcm.extend_from_slice(&output[..made.min(output.len())]);
        }
        pcm.resize(end, 0);
    }
}

/// Encodes what is sent to one receiver.
pub struct Encoder {
    inner: ropus::Encoder,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder at the beginning of a stream.
    pub fn new() -> Encoder {
        let inner = ropus::Encoder::builder(RATE_HZ, Channels::Mono, Application::Voip)
            .bitrate(Bitrate::Bits(BITRATE))
            .complexity(COMPLEXITY)
            .build()
            .expect("the codec has these settings");
        Encoder { inner }
    }

    /// Encodes a frame of [`FRAME_SAMPLES`] into `packet`; returns its length, at most [`MAX_PACKET_BYTES`].
    pub fn encode(&mut self, frame: &[i16; FRAME_SAMPLES], packet: &mut [u8; MAX_PACKET_BYTES]) -> usize {
        self.inner.encode(frame, packet).map_or(0, |length| length.min(MAX_PACKET_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::rms_dbfs;
    use proptest::prelude::*;

    fn tone(frame: usize) -> [i16; FRAME_SAMPLES] {
        std::array::from_fn(|n| {
            let turns = (frame * FRAME_SAMPLES + n) as f32 * 440.0 / RATE_HZ as f32;
            (8_000.0 * (turns * std::f32::consts::TAU).sin()) as i16
        })
    }

    fn packets(count: usize) -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new();
        let mut packet = [0; MAX_PACKET_BYTES];
        (0..count)
            .map(|frame| {
                let length = encoder.encode(&tone(frame), &mut packet);
                packet[..length].to_vec()
            })
            .collect()
    }

    #[test]
    fn a_tone_comes_out_as_it_went_in() {
        let mut decoder = Decoder::new();
        let mut pcm = Vec::new();
        for packet in packets(20) {
            assert_eq!(duration(&packet), Some(960));
            assert!((20..=MAX_PACKET_BYTES).contains(&packet.len()), "{} bytes", packet.len());
            decoder.decode(&packet, &mut pcm).unwrap();
        }
        assert_eq!(pcm.len(), 20 * FRAME_SAMPLES);
        let (heard, said) = (rms_dbfs(&pcm[3_200..]), rms_dbfs(&tone(0)));
        assert!((heard - said).abs() < 2.0, "{heard} for {said}");
    }

    #[test]
    fn a_lost_packet_is_filled_in() {
        let mut decoder = Decoder::new();
        let mut pcm = Vec::new();
        for (number, packet) in packets(20).iter().enumerate() {
            match number {
                10 => decoder.conceal(FRAME_SAMPLES, None, &mut pcm),
                _ => decoder.decode(packet, &mut pcm).unwrap(),
            }
        }
        let lost = rms_dbfs(&pcm[10 * FRAME_SAMPLES..11 * FRAME_SAMPLES]);
        assert_eq!(pcm.len(), 20 * FRAME_SAMPLES);
        assert!(lost > -30.0, "{lost}");
    }

    #[test]
    fn durations_are_those_of_rfc_6716() {
        let cases: [(&[u8], Option<u32>); 9] = [
            (&[], None),
            (&[0], Some(480)),
            (&[3 << 3], Some(2_880)),
            (&[13 << 3 | 1], Some(1_920)),
            (&[16 << 3], Some(120)),
            (&[31 << 3 | 3, 6], Some(5_760)),
            (&[31 << 3 | 3, 7], None),
            (&[31 << 3 | 3, 0], None),
            (&[3], None),
        ];
        for (packet, ticks) in cases {
            assert_eq!(duration(packet), ticks, "{packet:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn garbage_is_refused_or_as_long_as_it_says(
            garbage in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8),
        ) {
            let mut decoder = Decoder::new();
            for packet in garbage {
                let mut pcm = Vec::new();
                if decoder.decode(&packet, &mut pcm).is_ok() {
                    prop_assert_eq!(Some(pcm.len() as u32 * 3), duration(&packet));
                }
                pcm.clear();
                decoder.conceal(FRAME_SAMPLES, Some(&packet), &mut pcm);
                prop_assert_eq!(pcm.len(), FRAME_SAMPLES);
            }
        }
    }
}
