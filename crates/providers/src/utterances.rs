//! Utterances in a line's audio: where one begins, where it ends, and the ends that are asked for or that its length forces.
//! It keeps no audio and does not know who recognises it.

use offhook_media::LINE_RATE_HZ;
use offhook_media::vad::{Settings, Vad, VadEvent};

/// Silence after which nobody is taken to be speaking: shorter than any that an early end is asked for after.
const QUIET_MS: u32 = 60;

/// What was found. Times are ms of audio since the first sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// An utterance begins. After an early end, what follows is another one.
    Begins {
        /// When its first sound began.
        at_ms: u64,
    },
    /// It ends.
    Ends(Utterance),
}

/// An utterance that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Utterance {
    /// Where it began.
    pub(crate) start_ms: u64,
    /// Where its last sound ended; where it was ended early, that moment.
    pub(crate) end_ms: u64,
    /// Somebody spoke in it: what follows an early end may be silence only.
    pub(crate) has_speech: bool,
    /// It ended by itself, in silence.
    pub(crate) is_over: bool,
}

/// Finds utterances: `hear` all of a line's audio, in order.
pub(crate) struct Utterances {
    vad: Vad,
    events: Vec<VadEvent>,
    endpointing_ms: u64,
    longest_ms: u64,
    heard_samples: u64,
    /// Where the utterance began that is being spoken.
    since_ms: Option<u64>,
    /// Since when it is quiet in it.
    quiet_since_ms: Option<u64>,
}

impl Utterances {
    /// Silence of `endpointing_ms` ends an utterance; one that is longer than `longest_ms` is cut.
    pub(crate) fn new(endpointing_ms: u32, longest_ms: u64) -> Self {
        Utterances {
            vad: Vad::new(Settings { hang_ms: QUIET_MS, ..Settings::default() }),
            events: Vec::new(),
            endpointing_ms: endpointing_ms.into(),
            longest_ms,
            heard_samples: 0,
            since_ms: None,
            quiet_since_ms: None,
        }
    }

    /// How much was heard, ms.
    pub(crate) fn now_ms(&self) -> u64 {
        self.heard_samples * 1_000 / u64::from(LINE_RATE_HZ)
    }

    /// Where the utterance began that is being spoken.
    pub(crate) fn since_ms(&self) -> Option<u64> {
        self.since_ms
    }

    /// Takes the next samples.
    pub(crate) fn hear(&mut self, pcm: &[i16], found: &mut Vec<Found>) {
        self.heard_samples += pcm.len() as u64;
        self.vad.push(pcm, &mut self.events);
        for event in self.events.drain(..) {
            match event {
                VadEvent::SpeechStarted { at_ms } => {
                    self.quiet_since_ms = None;
                    if self.since_ms.is_none() {
                        self.since_ms = Some(at_ms);
                        found.push(Found::Begins { at_ms });
                    }
                }
                VadEvent::SpeechStopped { at_ms } => self.quiet_since_ms = Some(at_ms),
            }
        }
        let Some(start_ms) = self.since_ms else { return };
        let now_ms = self.now_ms();
        match self.quiet_since_ms {
            Some(since_ms) if now_ms >= since_ms + self.endpointing_ms => {
                self.since_ms = None;
                let (end_ms, has_speech) = (since_ms.max(start_ms), since_ms > start_ms);
                found.push(Found::Ends(Utterance { start_ms, end_ms, has_speech, is_over: true }));
            }
            _ if now_ms - start_ms > self.longest_ms => self.end(found),
            _ => {}
        }
    }

    /// Ends the utterance that is being spoken, if one is. If somebody goes on speaking, another begins.
    pub(crate) fn end(&mut self, found: &mut Vec<Found>) {
        let now_ms = self.now_ms();
        let Some(start_ms) = self.since_ms.take() else { return };
        found.push(Found::Ends(Utterance { start_ms, end_ms: now_ms, has_speech: true, is_over: false }));
        if self.vad.is_speaking() {
            self.since_ms = Some(now_ms);
            found.push(Found::Begins { at_ms: now_ms });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offline::say;
    use offhook_media::FRAME_SAMPLES;
    use offhook_media::resample::Resampler;

    #[test]
    fn speech_is_one_utterance_from_its_first_sound_to_its_last() {
        let found = heard(&speech(), Utterances::new(600, 60_000), None);
        let [
            Found::Begins { at_ms },
            Found::Ends(Utterance { start_ms, end_ms, has_speech: true, is_over: true }),
        ] = found[..]
        else {
            panic!("{found:?}")
        };
        assert!((480..600).contains(&at_ms) && start_ms == at_ms, "{found:?}");
        assert!((2_500..6_000).contains(&end_ms), "{found:?}");
    }

    #[test]
    fn nothing_is_lost_behind_an_early_end() {
        let forced = heard(&speech(), Utterances::new(600, 1_000), None);
        let asked = heard(&speech(), Utterances::new(600, 60_000), Some(1_600));
        for found in [forced, asked] {
            let [Found::Begins { .. }, Found::Ends(early), Found::Begins { at_ms }, .., Found::Ends(last)] =
                found[..]
            else {
                panic!("{found:?}")
            };
            assert!(!early.is_over && last.is_over && at_ms == early.end_ms, "{found:?}");
        }
    }

    #[test]
    fn silence_behind_an_early_end_is_no_speech() {
        let whole = heard(&speech(), Utterances::new(600, 60_000), None);
        let Some(Found::Ends(Utterance { end_ms, .. })) = whole.last().copied() else { panic!("{whole:?}") };
        let found = heard(&speech(), Utterances::new(600, 60_000), Some(end_ms + 100));
        assert!(
            matches!(found[..], [Found::Begins { .. }, Found::Ends(_)]),
            "no utterance of silence: {found:?}"
        );
        let found = heard(&speech(), Utterances::new(600, 60_000), Some(end_ms + 20));
        let [.., Found::Ends(rest)] = found[..] else { panic!("{found:?}") };
        assert!(rest.is_over && !rest.has_speech && found.len() == 4, "{found:?}");
        let mut silent = Utterances::new(600, 60_000);
        let mut found = Vec::new();
        silent.hear(&[0; 8_000], &mut found);
        silent.end(&mut found);
        assert_eq!(found, []);
    }

    /// What is found in audio that comes in frames, if an end is asked for at `end_at_ms`.
    fn heard(pcm: &[i16], mut utterances: Utterances, end_at_ms: Option<u64>) -> Vec<Found> {
        let mut found = Vec::new();
        for frame in pcm.chunks(FRAME_SAMPLES) {
            let before_ms = utterances.now_ms();
            utterances.hear(frame, &mut found);
            if end_at_ms.is_some_and(|at_ms| (before_ms..utterances.now_ms()).contains(&at_ms)) {
                utterances.end(&mut found);
            }
        }
        found
    }

    /// Half a second of silence, a sentence, and a second of silence.
    fn speech() -> Vec<i16> {
        let said = say("I would like to know when you are open on Saturday, please.");
        let mut pcm = vec![0; 4_000];
        let mut narrow = Resampler::new(said.rate_hz, LINE_RATE_HZ).unwrap();
        narrow.push(&said.pcm, &mut pcm);
        narrow.flush(&mut pcm);
        pcm.extend([0; 8_000]);
        pcm
    }
}
