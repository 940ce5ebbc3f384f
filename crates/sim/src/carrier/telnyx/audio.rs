//! The codecs of media streams, and the way between them and the telephone's 8 kHz. It knows no socket.

use offhook_media::LINE_RATE_HZ;
use offhook_media::coding::Coding;
use offhook_media::resample::Resampler;
use serde::{Deserialize, Serialize};

use super::super::phone::FRAME_MS;

/// A codec that the simulator has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Codec {
    /// G.711 µ-law.
    #[serde(rename = "PCMU")]
    Pcmu,
    /// G.711 A-law.
    #[serde(rename = "PCMA")]
    Pcma,
    /// 16-bit samples.
    L16,
}

impl Codec {
    pub(super) fn parse(name: &str) -> Option<Codec> {
        match name {
            "PCMU" => Some(Codec::Pcmu),
            "PCMA" => Some(Codec::Pcma),
            "L16" => Some(Codec::L16),
            _ => None,
        }
    }

    pub(super) fn coding(self, rate_hz: u32) -> Coding {
        match self {
            Codec::Pcmu => Coding::MU_LAW,
            Codec::Pcma => Coding::A_LAW,
            Codec::L16 => Coding::Linear { rate_hz },
        }
    }
}

/// The order of the two bytes of L16: RFC 3551 says big-endian, what is seen says little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByteOrder {
    /// The low byte first.
    #[default]
    Little,
    /// The high byte first.
    Big,
}

/// One way of audio between the line's rate and the stream's codec.
pub(super) struct Way {
    pub(super) coding: Coding,
    byte_order: ByteOrder,
    resampler: Resampler,
    waiting: Vec<i16>,
}

impl Way {
    fn new(coding: Coding, byte_order: ByteOrder, from_hz: u32, to_hz: u32) -> Way {
        let resampler = Resampler::new(from_hz, to_hz).expect("the rates of streams are such rates");
        Way { coding, byte_order, resampler, waiting: Vec::new() }
    }

    /// From the server.
    pub(super) fn back(coding: Coding, byte_order: ByteOrder) -> Way {
        Way::new(coding, byte_order, coding.rate_hz(), LINE_RATE_HZ)
    }

    /// To the server: the resampler's delay is filled with silence, so that every frame makes a frame.
    pub(super) fn there(coding: Coding, byte_order: ByteOrder) -> Way {
        let rate_hz = coding.rate_hz();
        let mut way = Way::new(coding, byte_order, LINE_RATE_HZ, rate_hz);
        let delay = u64::from(way.resampler.delay_us()) * u64::from(rate_hz) / 1_000_000;
        way.waiting.resize(if rate_hz == LINE_RATE_HZ { 0 } else { delay as usize + 2 }, 0);
        way
    }

    pub(super) fn encode(&mut self, pcm: &[i16]) -> Vec<u8> {
        let frame = (self.coding.rate_hz() / 1_000) as usize * FRAME_MS as usize;
        self.resampler.push(pcm, &mut self.waiting);
        let mut coded = Vec::new();
        let ready = frame.min(self.waiting.len());
        self.coding.encode(&self.waiting[..ready], &mut coded);
        self.waiting.drain(..ready);
        self.turn(&mut coded);
        coded
    }

    pub(super) fn decode(&mut self, mut coded: Vec<u8>) -> Vec<i16> {
        self.turn(&mut coded);
        let mut samples = Vec::new();
        self.coding.decode(&coded, &mut samples);
        let mut pcm = Vec::new();
        self.resampler.push(&samples, &mut pcm);
        pcm
    }

    /// What is still on its way through the filter.
    pub(super) fn flush(&mut self) -> Vec<i16> {
        let mut pcm = Vec::new();
        self.resampler.flush(&mut pcm);
        pcm
    }

    /// Forgets what is still on its way.
    pub(super) fn reset(&mut self) {
        self.resampler.reset();
    }

    fn turn(&self, coded: &mut [u8]) {
        if self.byte_order == ByteOrder::Big && matches!(self.coding, Coding::Linear { .. }) {
            coded.as_chunks_mut::<2>().0.iter_mut().for_each(|pair| pair.reverse());
        }
    }
}
