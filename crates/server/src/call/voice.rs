//! A voice of a call, and its audio as the line wants it. It does not know what is said.

use offhook_core::call::ReplyId;
use offhook_media::g711::Law;
use offhook_media::resample::Resampler;
use offhook_providers::{AudioFormat, TtsEvent, TtsSession};
use std::future::poll_fn;
use std::task::Poll;

/// A voice that is open for a call.
pub(super) struct Voice {
    pub(super) index: u8,
    pub(super) session: TtsSession,
    format: AudioFormat,
    /// Audio of another rate is brought to the line's, reply by reply.
    resampler: Option<(ReplyId, Resampler)>,
    pcm: Vec<i16>,
    narrow: Vec<i16>,
    pub(super) mulaw: Vec<u8>,
    pub(super) alive: bool,
}

impl Voice {
    pub(super) fn new(index: u8, session: TtsSession, format: AudioFormat) -> Self {
        Voice {
            index,
            session,
            format,
            resampler: None,
            pcm: Vec::new(),
            narrow: Vec::new(),
            mulaw: Vec::new(),
            alive: true,
        }
    }

    /// A voice's audio as the line wants it.
    pub(super) fn for_line<'a>(
        &mut self,
        reply: ReplyId,
        audio: &'a [u8],
        mulaw: &'a mut Vec<u8>,
    ) -> &'a [u8] {
        let AudioFormat::Linear16 { rate_hz } = self.format else { return audio };
        self.pcm.clear();
        self.pcm.extend(audio.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])));
        mulaw.clear();
        if rate_hz == offhook_media::LINE_RATE_HZ {
            Law::Mu.encode(&self.pcm, mulaw);
            return mulaw;
        }
        if self.resampler.as_ref().is_none_or(|(of, _)| *of != reply) {
            self.resampler = Resampler::new(rate_hz, offhook_media::LINE_RATE_HZ).ok().map(|r| (reply, r));
        }
        self.narrow.clear();
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.push(&self.pcm, &mut self.narrow);
        }
        Law::Mu.encode(&self.narrow, mulaw);
        mulaw
    }

    /// What the resampler still holds of a reply.
    pub(super) fn rest(&mut self, reply: ReplyId, mulaw: &mut Vec<u8>) {
        if let Some((_, mut resampler)) = self.resampler.take_if(|(of, _)| *of == reply) {
            self.narrow.clear();
            resampler.flush(&mut self.narrow);
            Law::Mu.encode(&self.narrow, mulaw);
        }
    }
}

pub(super) async fn next_from_voices(voices: &mut [Voice]) -> (usize, Option<TtsEvent>) {
    poll_fn(|cx| {
        for (index, voice) in voices.iter_mut().enumerate().filter(|(_, v)| v.alive) {
            if let Poll::Ready(event) = voice.session.events.poll_recv(cx) {
                return Poll::Ready((index, event));
            }
        }
        Poll::Pending
    })
    .await
}
