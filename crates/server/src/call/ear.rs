//! What is made of a caller's audio: frames for the recogniser, speech and silence for the machine, and the agent's own echo kept from
//! both. It does not know where the audio comes from.

use bytes::BytesMut;
use offhook_core::call::{Input, SttId};
use offhook_media::LINE_RATE_HZ;
use offhook_media::coding::Coding;
use offhook_media::echo::{EchoGate, Source};
use offhook_media::resample::Resampler;
use offhook_media::vad::{Settings, Vad, VadEvent};
use offhook_providers::{SttCommand, SttEvent, SttSession};

/// Silence that is taken for the end of speech: longer than the stops within words, shorter than a breath.
const VAD_HANG_MS: u32 = 70;
/// Audio for the recogniser is taken from blocks of this size.
const BLOCK_BYTES: usize = 8 * 1024;
/// A telephone's samples in a millisecond: speech and echo are looked for in these, whatever the line carries.
const SAMPLES_PER_MS: u64 = (LINE_RATE_HZ / 1_000) as u64;

/// The caller's side of a call's audio.
pub(super) struct Ear {
    line: Coding,
    pub(super) recogniser: Option<Recogniser>,
    vad: Vad,
    vad_events: Vec<VadEvent>,
    gate: EchoGate,
    /// What sounds like speech is the agent's own voice coming back: it is kept from recogniser and machine.
    echoing: bool,
    /// What was heard and what was played, each as samples of the line and as a telephone's.
    heard: Track,
    played: Track,
    /// Audio since the pump began, in a telephone's samples.
    samples: u64,
    coded: Vec<u8>,
    block: BytesMut,
    overflowed: u64,
}

/// The recogniser that listens.
pub(super) struct Recogniser {
    pub(super) id: SttId,
    pub(super) session: SttSession,
    /// What it is fed.
    coding: Coding,
    /// From the line's rate to its own, where the one that is at hand is not its own.
    resampler: Option<Resampler>,
    resampled: Vec<i16>,
}

/// Audio as samples at the line's rate and at a telephone's.
struct Track {
    pcm: Vec<i16>,
    narrowing: Option<Narrowing>,
}

/// What a line of more than a telephone's bandwidth needs.
struct Narrowing {
    resampler: Resampler,
    pcm: Vec<i16>,
}

impl Track {
    fn of(line: Coding) -> Self {
        let wide = line.rate_hz() != LINE_RATE_HZ;
        let resampler = wide.then(|| Resampler::new(line.rate_hz(), LINE_RATE_HZ).ok()).flatten();
        let narrowing = resampler.map(|resampler| Narrowing { resampler, pcm: Vec::new() });
        Track { pcm: Vec::new(), narrowing }
    }

    fn take(&mut self, line: Coding, coded: &[u8]) {
        self.pcm.clear();
        line.decode(coded, &mut self.pcm);
        if let Some(Narrowing { resampler, pcm }) = &mut self.narrowing {
            pcm.clear();
            resampler.push(&self.pcm, pcm);
        }
    }

    fn narrow(&self) -> &[i16] {
        self.narrowing.as_ref().map_or(&self.pcm, |narrowing| &narrowing.pcm)
    }

    fn silence(&mut self) {
        self.pcm.fill(0);
        if let Some(narrowing) = &mut self.narrowing {
            narrowing.pcm.fill(0);
        }
    }
}

impl Ear {
    /// An ear on a line of this coding.
    pub(super) fn new(line: Coding) -> Self {
        Ear {
            line,
            recogniser: None,
            vad: Vad::new(Settings { hang_ms: VAD_HANG_MS, ..Settings::default() }),
            vad_events: Vec::new(),
            gate: EchoGate::new(),
            echoing: false,
            heard: Track::of(line),
            played: Track::of(line),
            samples: 0,
            coded: Vec::new(),
            block: BytesMut::new(),
            overflowed: 0,
        }
    }

    /// Another recogniser listens from now on.
    pub(super) fn listen(&mut self, id: SttId, session: SttSession, coding: Coding) {
        let at_hand = [self.line.rate_hz(), LINE_RATE_HZ].contains(&coding.rate_hz());
        let resampler =
            (!at_hand).then(|| Resampler::new(self.line.rate_hz(), coding.rate_hz()).ok()).flatten();
        self.recogniser = Some(Recogniser { id, session, coding, resampler, resampled: Vec::new() });
    }

    /// Takes a frame of the caller's audio, and what of the agent's was played meanwhile.
    pub(super) fn hear(&mut self, coded: &[u8], plays: &[u8]) -> Vec<Input> {
        self.heard.take(self.line, coded);
        self.samples += self.heard.narrow().len() as u64;
        if !plays.is_empty() {
            self.played.take(self.line, plays);
            self.gate.played(self.played.narrow());
        }
        self.gate.heard(self.heard.narrow());
        self.vad.push(self.heard.narrow(), &mut self.vad_events);
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
                        let silence_ms = (self.samples / SAMPLES_PER_MS).saturating_sub(at_ms) as u32;
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
        self.feed(coded);
        facts
    }

    /// Gives a frame to the recogniser.
    fn feed(&mut self, coded: &[u8]) {
        let Some(Recogniser { session, coding, resampler, resampled, .. }) = &mut self.recogniser else {
            return;
        };
        if self.echoing {
            self.heard.silence();
        }
        if self.block.capacity() < coded.len() * 4 {
            self.block.reserve(BLOCK_BYTES);
        }
        if *coding == self.line {
            match self.echoing {
                true => self.block.resize(coded.len(), coding.silent_byte()),
                false => self.block.extend_from_slice(coded),
            }
        } else {
            let pcm = match resampler {
                Some(resampler) => {
                    resampled.clear();
                    resampler.push(&self.heard.pcm, resampled);
                    resampled
                }
                None if coding.rate_hz() == self.line.rate_hz() => &self.heard.pcm,
                None => self.heard.narrow(),
            };
            self.coded.clear();
            coding.encode(pcm, &mut self.coded);
            self.block.extend_from_slice(&self.coded);
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

pub(super) async fn next_from_recogniser(recogniser: &mut Option<Recogniser>) -> Option<SttEvent> {
    match recogniser {
        Some(recogniser) => recogniser.session.events.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    /// A sentence in frames of 20 ms.
    fn frames(line: Coding) -> Vec<Vec<u8>> {
        let said = offhook_providers::offline::say("We are open from nine to five.");
        let mut samples = Vec::new();
        Resampler::new(said.rate_hz, line.rate_hz()).unwrap().push(&said.pcm, &mut samples);
        let mut coded = Vec::new();
        line.encode(&samples, &mut coded);
        coded.chunks_exact(20 * line.bytes_per_ms()).map(<[u8]>::to_vec).collect()
    }

    /// What a recogniser of one coding is fed on a line of another.
    fn fed(line: Coding, recogniser: Coding) -> (Vec<u8>, Vec<Input>) {
        let (commands, mut told) = mpsc::channel(256);
        let (_, events) = mpsc::channel(1);
        let mut ear = Ear::new(line);
        ear.listen(SttId(1), SttSession { commands, events }, recogniser);
        let facts = frames(line).iter().flat_map(|frame| ear.hear(frame, &[])).collect();
        let mut fed = Vec::new();
        while let Ok(SttCommand::Audio(audio)) = told.try_recv() {
            fed.extend_from_slice(&audio);
        }
        (fed, facts)
    }

    const CODINGS: [Coding; 4] =
        [Coding::MU_LAW, Coding::A_LAW, Coding::WIDE, Coding::Linear { rate_hz: 8_000 }];

    #[test]
    fn a_recogniser_of_the_lines_coding_gets_what_came() {
        for coding in CODINGS {
            assert!(fed(coding, coding).0 == frames(coding).concat(), "{coding:?}");
        }
    }

    #[test]
    fn every_recogniser_hears_every_line() {
        for line in CODINGS {
            for recogniser in CODINGS.into_iter().chain([Coding::Linear { rate_hz: 24_000 }]) {
                let (fed, facts) = fed(line, recogniser);
                let ms = fed.len() / recogniser.bytes_per_ms();
                let said_ms = frames(line).len() * 20;
                assert!(
                    (said_ms - 5..=said_ms).contains(&ms),
                    "{line:?} to {recogniser:?}: {ms} of {said_ms} ms"
                );
                assert_eq!(facts.first(), Some(&Input::SpeechStarted), "{line:?}");
            }
        }
    }
}
