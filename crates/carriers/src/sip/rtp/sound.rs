//! The sound of one source: packets in, 20 ms of the line's coding out, whatever is missing. It knows codecs and the jitter
//! buffer, not where packets come from.

use crate::sip::sdp::Codec;
use offhook_media::FRAME_MS;
use offhook_media::coding::Coding;
use offhook_media::conceal::{Concealment, HISTORY};
use offhook_media::g711::Law;
use offhook_media::jitter::{Jitter, Pulled, Pushed};
use offhook_media::opus;
use offhook_media::resample::Resampler;

/// The longest packet that is taken: twice what a telephone sends.
const MAX_PACKET_MS: u32 = 120;
/// After so much without sound, Opus is no longer asked to make some up.
const OPUS_GONE_MS: u32 = 120;
/// Opus fills in multiples of 2.5 ms, in samples.
const OPUS_STEP: usize = 40;

/// What packets are coded in.
enum Decoder {
    G711 { law: Law, recent: Vec<u8>, gap: Option<Concealment> },
    Opus(Box<opus::Decoder>),
}

/// The sound of one source.
pub(super) struct Sound {
    codec: Codec,
    coding: Coding,
    jitter: Jitter,
    decoder: Decoder,
    /// Where the wire has another rate than the line.
    resampler: Option<Resampler>,
    /// Decoded and not yet heard, in the line's coding.
    ready: Vec<u8>,
    payload: Vec<u8>,
    pcm: Vec<i16>,
    resampled: Vec<i16>,
    /// Nothing was heard yet.
    fresh: bool,
    missing_ms: u32,
    /// Filled in for packets that were lost or late, ms.
    pub concealed_ms: u64,
    /// Frames left out because the other end's clock is faster, or the delay was too long.
    pub slipped: u64,
}

impl Sound {
    /// The sound of a source that begins.
    pub fn new(codec: Codec, coding: Coding) -> Sound {
        let decoder = match codec {
            Codec::Pcmu => Decoder::G711 { law: Law::Mu, recent: Vec::new(), gap: None },
            Codec::Pcma => Decoder::G711 { law: Law::A, recent: Vec::new(), gap: None },
            Codec::Opus => Decoder::Opus(Box::default()),
        };
        let (wire_hz, line_hz) = (codec.coding().rate_hz(), coding.rate_hz());
        Sound {
            codec,
            coding,
            jitter: Jitter::new(codec.clock_hz()),
            decoder,
            resampler: (wire_hz != line_hz).then(|| Resampler::new(wire_hz, line_hz).ok()).flatten(),
            ready: Vec::new(),
            payload: Vec::new(),
            pcm: Vec::new(),
            resampled: Vec::new(),
            fresh: true,
            missing_ms: 0,
            concealed_ms: 0,
            slipped: 0,
        }
    }

    /// What packets are coded in.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Takes a packet; `None` if it is not of this codec.
    pub fn push(&mut self, timestamp: u32, payload: &[u8]) -> Option<Pushed> {
        let length = match self.codec {
            Codec::Pcmu | Codec::Pcma => u32::try_from(payload.len()).ok()?,
            Codec::Opus => opus::duration(payload)?,
        };
        let most = self.codec.clock_hz() / 1_000 * MAX_PACKET_MS;
        (1..=most).contains(&length).then(|| self.jitter.push(timestamp, length, payload))
    }

    /// The delay from a packet's arrival to its being heard, ms.
    pub fn delay_ms(&self) -> u32 {
        self.jitter.delay_ms()
    }

    /// Replaces `frame` by the next 20 ms.
    pub fn frame(&mut self, frame: &mut Vec<u8>) {
        let slips = self.jitter.begin_frame();
        let length = self.coding.bytes_per_ms() * FRAME_MS as usize;
        let wanted = length * (1 + usize::from(slips));
        while self.ready.len() < wanted {
            let need = self.ticks(wanted - self.ready.len());
            let mut payload = std::mem::take(&mut self.payload);
            match self.jitter.pull(need, &mut payload) {
                Pulled::Packet => self.decode(&payload),
                Pulled::Lost(ticks) => self.conceal(ticks),
                Pulled::Nothing => self.conceal(need),
            }
            self.payload = payload;
        }
        if slips {
            self.slipped += 1;
            self.merge(length);
        }
        frame.clear();
        frame.extend(self.ready.drain(..length));
    }

    /// Timestamps that fill so many bytes of the line.
    fn ticks(&self, bytes: usize) -> u32 {
        (bytes * self.codec.clock_hz() as usize).div_ceil(self.coding.bytes_per_ms() * 1_000) as u32
    }

    fn decode(&mut self, payload: &[u8]) {
        self.fresh = false;
        self.missing_ms = 0;
        self.pcm.clear();
        match &mut self.decoder {
            Decoder::G711 { law, recent, gap } => {
                recent.extend_from_slice(payload);
                recent.drain(..recent.len().saturating_sub(HISTORY));
                if gap.is_none() && self.coding == Coding::G711(*law) {
                    self.ready.extend_from_slice(payload);
                    return;
                }
                law.decode(payload, &mut self.pcm);
                if let Some(gap) = gap.take() {
                    gap.join(&mut self.pcm);
                }
            }
            Decoder::Opus(decoder) => {
                if decoder.decode(payload, &mut self.pcm).is_err() {
                    let ticks = opus::duration(payload).unwrap_or(0);
                    decoder.conceal((ticks / 3) as usize, None, &mut self.pcm);
                }
            }
        }
        self.deliver();
    }

    fn conceal(&mut self, ticks: u32) {
        let wire = self.codec.coding();
        let count = (ticks as usize * wire.rate_hz() as usize).div_ceil(self.codec.clock_hz() as usize);
        let ms = (ticks * 1_000 / self.codec.clock_hz()).max(1);
        self.pcm.clear();
        match &mut self.decoder {
            _ if self.fresh => self.pcm.resize(count, 0),
            Decoder::G711 { law, recent, gap } => {
                let gap = gap.get_or_insert_with(|| {
                    let mut before = Vec::with_capacity(HISTORY);
                    law.decode(recent, &mut before);
                    Concealment::new(&before)
                });
                gap.fill(count, &mut self.pcm);
            }
            Decoder::Opus(_) if self.missing_ms >= OPUS_GONE_MS => self.pcm.resize(count, 0),
            Decoder::Opus(decoder) => {
                let next = self.jitter.peek();
                decoder.conceal(count.next_multiple_of(OPUS_STEP), next, &mut self.pcm);
                self.pcm.truncate(count);
            }
        }
        if !self.fresh {
            self.missing_ms = self.missing_ms.saturating_add(ms);
            self.concealed_ms += u64::from(ms);
        }
        self.deliver();
    }

    /// Hands over what was decoded.
    fn deliver(&mut self) {
        match &mut self.resampler {
            None => self.coding.encode(&self.pcm, &mut self.ready),
            Some(resampler) => {
                self.resampled.clear();
                resampler.push(&self.pcm, &mut self.resampled);
                self.coding.encode(&self.resampled, &mut self.ready);
            }
        }
    }

    /// Makes one frame of the first two: the one fades into the other.
    fn merge(&mut self, length: usize) {
        self.pcm.clear();
        self.coding.decode(&self.ready[..2 * length], &mut self.pcm);
        let half = self.pcm.len() / 2;
        let (first, second) = self.pcm.split_at_mut(half);
        for (at, (a, b)) in first.iter_mut().zip(second).enumerate() {
            let share = at as i32 * 256 / half as i32;
            *a = ((i32::from(*a) * (256 - share) + i32::from(*b) * share) / 256) as i16;
        }
        self.resampled.clear();
        self.resampled.extend_from_slice(&self.pcm[..half]);
        let mut merged = Vec::with_capacity(length);
        self.coding.encode(&self.resampled, &mut merged);
        self.ready.splice(..2 * length, merged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MU: Coding = Coding::MU_LAW;

    fn voice(from: usize, count: usize) -> Vec<u8> {
        let sample = |n: usize| (7_000.0 * (n as f32 * 0.1).sin()) as i16;
        let mut coded = Vec::new();
        MU.encode(&(from..from + count).map(sample).collect::<Vec<_>>(), &mut coded);
        coded
    }

    fn heard(sound: &mut Sound, frames: usize) -> Vec<u8> {
        let (mut all, mut frame) = (Vec::new(), Vec::new());
        for _ in 0..frames {
            sound.frame(&mut frame);
            all.extend_from_slice(&frame);
        }
        all
    }

    #[test]
    fn packets_of_any_usual_length_come_out_as_they_went_in() {
        for ms in [10, 20, 30, 40, 60] {
            let mut sound = Sound::new(Codec::Pcmu, MU);
            let bytes = ms * 8;
            let (mut all, mut frame) = (Vec::new(), Vec::new());
            for step in 0..100 {
                for n in (step * 20_usize).div_ceil(ms)..((step + 1) * 20).div_ceil(ms) {
                    let at = n * bytes;
                    assert_eq!(sound.push(at as u32, &voice(at, bytes)), Some(Pushed::Taken));
                }
                sound.frame(&mut frame);
                assert_eq!(frame.len(), 160);
                all.extend_from_slice(&frame);
            }
            let lag = all.iter().take_while(|byte| **byte == 0xFF).count() / 160 * 160;
            assert!((160..=640).contains(&lag), "{ms} ms: {lag}");
            let body = all.len() - lag;
            assert!(all[lag..] == voice(0, body)[..] && sound.concealed_ms == 0, "{ms} ms");
        }
    }

    #[test]
    fn a_lost_packet_is_filled_in_and_nothing_else_changes() {
        let mut sound = Sound::new(Codec::Pcmu, MU);
        let mut all = Vec::new();
        for n in 0..20 {
            if n != 10 {
                sound.push(n as u32 * 160, &voice(n * 160, 160));
            }
            all.extend(heard(&mut sound, 1));
        }
        let expected = voice(0, 18 * 160);
        let gap = 10 * 160;
        assert_eq!(all[320..320 + gap], expected[..gap]);
        assert_eq!(all[320 + gap + 192..], expected[gap + 192..]);
        assert!(all[320 + gap..320 + gap + 160].iter().any(|byte| *byte < 0xF0), "it is not silent");
        assert_eq!(sound.concealed_ms, 20);
    }

    #[test]
    fn another_law_or_rate_on_the_wire_is_converted() {
        for (codec, coding) in [(Codec::Pcma, MU), (Codec::Pcmu, Coding::WIDE), (Codec::Pcmu, Coding::A_LAW)]
        {
            let mut sound = Sound::new(codec, coding);
            let mut pcm = Vec::new();
            MU.decode(&voice(0, 3_200), &mut pcm);
            let mut wire = Vec::new();
            codec.coding().encode(&pcm, &mut wire);
            let mut all = Vec::new();
            for (n, packet) in wire.chunks(160).enumerate() {
                sound.push(n as u32 * 160, packet);
                all.extend(heard(&mut sound, 1));
            }
            assert_eq!(all.len(), 20 * 20 * coding.bytes_per_ms());
            let mut line = Vec::new();
            coding.decode(&all[10 * 20 * coding.bytes_per_ms()..], &mut line);
            let level = offhook_media::level::rms_dbfs(&line);
            assert!(
                (level - offhook_media::level::rms_dbfs(&pcm)).abs() < 1.0,
                "{codec:?} {coding:?}: {level}"
            );
        }
    }

    #[test]
    fn opus_is_heard_wideband() {
        let mut encoder = opus::Encoder::new();
        let mut sound = Sound::new(Codec::Opus, Coding::WIDE);
        let (mut packet, mut all) = ([0; opus::MAX_PACKET_BYTES], Vec::new());
        for n in 0..30_usize {
            let frame = std::array::from_fn(|i| (7_000.0 * ((n * 320 + i) as f32 * 0.2).sin()) as i16);
            let length = encoder.encode(&frame, &mut packet);
            if n != 12 {
                assert_eq!(sound.push(n as u32 * 960, &packet[..length]), Some(Pushed::Taken));
            }
            all.extend(heard(&mut sound, 1));
        }
        let mut pcm = Vec::new();
        Coding::WIDE.decode(&all, &mut pcm);
        assert_eq!(pcm.len(), 30 * 320);
        assert!(offhook_media::level::rms_dbfs(&pcm[3_200..]) > -20.0);
        assert_eq!(sound.push(0, &[3]), None);
    }

    #[test]
    fn packets_that_are_no_telephone_s_are_refused() {
        let mut sound = Sound::new(Codec::Pcmu, MU);
        assert_eq!(sound.push(0, &[]), None);
        assert_eq!(sound.push(0, &[0; 961]), None);
        assert_eq!(heard(&mut sound, 2), [0xFF; 320]);
    }
}
