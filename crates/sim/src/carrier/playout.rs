//! The carrier's playout buffer, and by that what the telephone hears: audio that arrives is placed at the sample where it will
//! sound, marks fall due where the audio before them ends. It knows no clock: positions are samples since the call was placed.

use std::collections::VecDeque;

/// Audio that one call may have waiting: half an hour, far beyond any honest reply.
const MAX_WAITING_SAMPLES: u64 = 30 * 60 * 8_000;
/// Marks that one call may have waiting.
const MAX_WAITING_MARKS: usize = 10_000;

/// What was and will be heard on one line, with the marks between.
#[derive(Default)]
pub(super) struct Playout {
    heard: Vec<i16>,
    marks: VecDeque<(u64, String)>,
}

/// What a clear threw away.
pub(super) struct Cleared {
    pub(super) dropped_samples: u64,
    pub(super) marks: Vec<String>,
}

/// The buffer is full: what was sent is dropped.
#[derive(Debug, PartialEq)]
pub(super) struct Full;

impl Playout {
    /// Queues audio behind what is waiting, or at `now` where nothing is.
    pub(super) fn play(&mut self, now: u64, pcm: &[i16]) -> Result<(), Full> {
        if self.waiting(now) + pcm.len() as u64 > MAX_WAITING_SAMPLES {
            return Err(Full);
        }
        self.pad_to(now);
        self.heard.extend_from_slice(pcm);
        Ok(())
    }

    /// Adds audio to what sounds from `at` on, as a conference does with several voices.
    pub(super) fn mix(&mut self, now: u64, at: u64, pcm: &[i16]) -> Result<(), Full> {
        if (at + pcm.len() as u64).saturating_sub(now) > MAX_WAITING_SAMPLES {
            return Err(Full);
        }
        self.pad_to(at + pcm.len() as u64);
        for (sounding, sample) in self.heard[at as usize..].iter_mut().zip(pcm) {
            *sounding = sounding.saturating_add(*sample);
        }
        Ok(())
    }

    /// Queues a mark behind the audio that is waiting; it is due at once where nothing is.
    pub(super) fn mark(&mut self, now: u64, name: String) -> Result<(), Full> {
        if self.marks.len() >= MAX_WAITING_MARKS {
            return Err(Full);
        }
        self.marks.push_back((now + self.waiting(now), name));
        Ok(())
    }

    /// Drops all audio and all marks that are not yet due.
    pub(super) fn clear(&mut self, now: u64) -> Cleared {
        let dropped_samples = self.waiting(now);
        self.heard.truncate(now as usize);
        Cleared { dropped_samples, marks: self.marks.drain(..).map(|(_, name)| name).collect() }
    }

    /// Takes the marks whose audio has been played by `now`.
    pub(super) fn due(&mut self, now: u64) -> Vec<String> {
        let count = self.marks.iter().take_while(|(at, _)| *at <= now).count();
        self.marks.drain(..count).map(|(_, name)| name).collect()
    }

    /// Where the next mark falls due.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.marks.front().map(|(at, _)| *at)
    }

    /// Samples that have not sounded yet.
    pub(super) fn waiting(&self, now: u64) -> u64 {
        (self.heard.len() as u64).saturating_sub(now)
    }

    /// What sounds from `from` up to `to`: silence where nothing was sent.
    pub(super) fn between(&self, from: u64, to: u64) -> Vec<i16> {
        let end = self.heard.len() as u64;
        let sounding = &self.heard[from.min(end) as usize..to.min(end) as usize];
        let mut samples = sounding.to_vec();
        samples.resize((to - from) as usize, 0);
        samples
    }

    fn pad_to(&mut self, now: u64) {
        if (self.heard.len() as u64) < now {
            self.heard.resize(now as usize, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_due_when_the_audio_before_it_has_been_played() {
        let mut playout = Playout::default();
        playout.play(100, &[1; 160]).unwrap();
        playout.mark(100, "first".into()).unwrap();
        playout.play(110, &[2; 160]).unwrap();
        playout.mark(110, "second".into()).unwrap();
        assert_eq!(playout.next_due(), Some(260));
        assert_eq!(playout.due(259), Vec::<String>::new());
        assert_eq!(playout.due(260), ["first"]);
        assert_eq!(playout.due(420), ["second"]);
        playout.mark(500, "nothing waits".into()).unwrap();
        assert_eq!(playout.due(500), ["nothing waits"]);
    }

    #[test]
    fn clear_cuts_what_has_not_sounded_and_returns_its_marks() {
        let mut playout = Playout::default();
        playout.play(0, &[7; 400]).unwrap();
        playout.mark(0, "unheard".into()).unwrap();
        let cleared = playout.clear(150);
        assert_eq!((cleared.dropped_samples, cleared.marks), (250, vec!["unheard".into()]));
        assert_eq!(playout.between(149, 151), [7, 0]);
        playout.play(200, &[9; 2]).unwrap();
        assert_eq!(playout.between(199, 203), [0, 9, 9, 0]);
    }

    #[test]
    fn voices_that_are_mixed_sound_together() {
        let mut playout = Playout::default();
        playout.mix(0, 2, &[1, 1]).unwrap();
        playout.mix(0, 3, &[i16::MAX, 5]).unwrap();
        assert_eq!(playout.between(0, 6), [0, 0, 1, i16::MAX, 5, 0]);
        assert_eq!(playout.mix(0, MAX_WAITING_SAMPLES, &[1]), Err(Full));
    }

    #[test]
    fn an_endless_sender_is_stopped() {
        let mut playout = Playout::default();
        playout.play(0, &vec![0; MAX_WAITING_SAMPLES as usize]).unwrap();
        assert_eq!(playout.play(0, &[0]), Err(Full));
        assert_eq!(playout.play(1, &[0]), Ok(()));
    }
}
