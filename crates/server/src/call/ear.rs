//! What is made of a caller's audio: frames for the recogniser, speech and silence for the machine, and the agent's own echo kept from
//! both. It does not know where the audio comes from.

use bytes::BytesMut;
use offhook_core::call::{Input, SttId};
use offhook_media::echo::{EchoGate, Source};
use offhook_media::g711::{Law, MU_LAW_SILENCE};
use offhook_media::resample::Resampler;
use offhook_media::vad::{Settings, Vad, VadEvent};
use offhook_providers::{AudioFormat, SttCommand, SttEvent, SttSession};

/// Silence that is taken for the end of speech: longer than the stops within words, shorter than a breath.
const VAD_HANG_MS: u32 = 70;
/// Audio for the recogniser is taken from blocks of this size.
const BLOCK_BYTES: usize = 8 * 1024;

/// The caller's side of a call's audio.
pub(super) struct Ear {
    pub(super) stt: Option<(SttId, SttSession, AudioFormat)>,
    vad: Vad,
    vad_events: Vec<VadEvent>,
    gate: EchoGate,
    /// What sounds like speech is the agent's own voice coming back: it is kept from recogniser and machine.
    echoing: bool,
    played: Vec<i16>,
    /// Audio since the pump began, in samples.
    samples: u64,
    pcm: Vec<i16>,
    wide: Vec<i16>,
    pub(super) resampler: Option<Resampler>,
    block: BytesMut,
    overflowed: u64,
}

impl Ear {
    pub(super) fn new() -> Self {
        Ear {
            stt: None,
            vad: Vad::new(Settings { hang_ms: VAD_HANG_MS, ..Settings::default() }),
            vad_events: Vec::new(),
            gate: EchoGate::new(),
            echoing: false,
            played: Vec::new(),
            samples: 0,
            pcm: Vec::new(),
            wide: Vec::new(),
            resampler: None,
            block: BytesMut::new(),
            overflowed: 0,
        }
    }

    /// Takes a frame of the caller's audio, and what of the agent's was played meanwhile.
    pub(super) fn hear(&mut self, mulaw: &[u8], plays: &[u8]) -> Vec<Input> {
        self.pcm.clear();
        Law::Mu.decode(mulaw, &mut self.pcm);
        self.samples += self.pcm.len() as u64;
        if !plays.is_empty() {
            self.played.clear();
            Law::Mu.decode(plays, &mut self.played);
            self.gate.played(&self.played);
        }
        self.gate.heard(&self.pcm);
        self.vad.push(&self.pcm, &mut self.vad_events);
        let mut facts = Vec::new();
        for event in self.vad_events.drain(..) {
            match event {
                VadEvent::SpeechStarted { .. } => {
                    self.echoing = matches!(self.gate.source(), Source::Echo { .. });
                    if !self.echoing {
                        facts.push(Input::SpeechStarted);
                    }
                }
                VadEvent::SpeechStopped { at_ms } => {
                    if !std::mem::take(&mut self.echoing) {
                        let silence_ms = (self.samples / 8).saturating_sub(at_ms) as u32;
                        facts.push(Input::SpeechStopped { silence_ms });
                    }
                }
            }
        }
        if self.echoing && self.vad.is_speaking() && self.gate.source() == Source::Caller {
            // Somebody talks over the echo.
            self.echoing = false;
            facts.push(Input::SpeechStarted);
        }
        self.feed(mulaw);
        facts
    }

    /// Gives a frame to the recogniser.
    fn feed(&mut self, mulaw: &[u8]) {
        if self.echoing {
            self.pcm.fill(0);
        }
        let Some((_, session, format)) = &self.stt else { return };
        if self.block.capacity() < mulaw.len() * 4 {
            self.block.reserve(BLOCK_BYTES);
        }
        match (format, &mut self.resampler) {
            (AudioFormat::Mulaw, _) if self.echoing => self.block.resize(mulaw.len(), MU_LAW_SILENCE),
            (AudioFormat::Mulaw, _) => self.block.extend_from_slice(mulaw),
            (AudioFormat::Linear16 { .. }, resampler) => {
                let pcm = match resampler {
                    Some(resampler) => {
                        self.wide.clear();
                        resampler.push(&self.pcm, &mut self.wide);
                        &self.wide
                    }
                    None => &self.pcm,
                };
                pcm.iter().for_each(|sample| self.block.extend_from_slice(&sample.to_le_bytes()));
            }
        }
        let audio = self.block.split().freeze();
        if !audio.is_empty() && session.commands.try_send(SttCommand::Audio(audio)).is_err() {
            self.overflowed += 1;
            if self.overflowed.is_power_of_two() {
                tracing::warn!(frames = self.overflowed, "The recogniser does not take audio fast enough");
            }
        }
    }
}

pub(super) async fn next_from_stt(stt: &mut Option<(SttId, SttSession, AudioFormat)>) -> Option<SttEvent> {
    match stt {
        Some((_, session, _)) => session.events.recv().await,
        None => std::future::pending().await,
    }
}
