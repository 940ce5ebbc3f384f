//! Sound on its way to the wire: from the line's coding into frames of the agreed codec. It knows codecs, not packets.

use super::sending::{Frame, Sending};
use crate::sip::sdp::Codec;
use offhook_media::coding::Coding;
use offhook_media::opus;
use offhook_media::resample::Resampler;

/// Turns what is played into what is sent.
pub(super) struct Wire {
    codec: Codec,
    coding: Coding,
    resampler: Option<Resampler>,
    opus: Option<opus::Encoder>,
    /// Samples at the wire's rate that do not fill a frame yet, where frames are of a size.
    rest: Vec<i16>,
    pcm: Vec<i16>,
    coded: Vec<u8>,
}

/// Which queue sound goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind what waits.
    Queue,
    /// Before it.
    First,
}

impl Wire {
    pub fn new(codec: Codec, coding: Coding) -> Wire {
        let (line_hz, wire_hz) = (coding.rate_hz(), codec.coding().rate_hz());
        Wire {
            codec,
            coding,
            resampler: (line_hz != wire_hz).then(|| Resampler::new(line_hz, wire_hz).ok()).flatten(),
            opus: (codec == Codec::Opus).then(opus::Encoder::new),
            rest: Vec::new(),
            pcm: Vec::new(),
            coded: Vec::new(),
        }
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Whether sound waits for more to fill a frame.
    pub fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Codes sound without anybody's lock, for [`Wire::deliver`].
    pub fn prepare(&mut self, coded: &[u8]) -> Vec<Frame> {
        self.coded.clear();
        if self.coding == self.codec.coding() && self.opus.is_none() {
            self.coded.extend_from_slice(coded);
            return Vec::new();
        }
        self.pcm.clear();
        self.coding.decode(coded, &mut self.pcm);
        let pcm = std::mem::take(&mut self.pcm);
        match &mut self.resampler {
            None => self.rest.extend_from_slice(&pcm),
            Some(resampler) => resampler.push(&pcm, &mut self.rest),
        }
        self.pcm = pcm;
        if self.opus.is_none() {
            self.codec.coding().encode(&self.rest, &mut self.coded);
            self.rest.clear();
        }
        self.frames()
    }

    /// Fills up the last frame with silence.
    pub fn finish(&mut self) -> Vec<Frame> {
        if self.has_rest() {
            self.rest.resize(self.rest.len().next_multiple_of(opus::FRAME_SAMPLES), 0);
        }
        self.coded.clear();
        self.frames()
    }

    fn frames(&mut self) -> Vec<Frame> {
        let Some(encoder) = &mut self.opus else { return Vec::new() };
        let (whole, _) = self.rest.as_chunks::<{ opus::FRAME_SAMPLES }>();
        let mut packet = [0; opus::MAX_PACKET_BYTES];
        let frames = whole.iter().map(|frame| {
            let length = encoder.encode(frame, &mut packet);
            Frame::new(&packet[..length])
        });
        let frames: Vec<Frame> = frames.collect();
        self.rest.drain(..frames.len() * opus::FRAME_SAMPLES);
        frames
    }

    /// Hands over what was prepared, unless another codec was agreed on meanwhile.
    pub fn deliver(&mut self, frames: Vec<Frame>, place: Place, sending: &mut Sending) {
        if sending.codec() != self.codec {
            return;
        }
        match place {
            Place::Queue if self.opus.is_none() => sending.play(&self.coded),
            Place::Queue => frames.into_iter().for_each(|frame| sending.play_frame(frame)),
            Place::First if self.opus.is_none() => sending.play_tones(&self.coded),
            Place::First => frames.into_iter().for_each(|frame| sending.play_tone_frame(frame)),
        }
    }
}
