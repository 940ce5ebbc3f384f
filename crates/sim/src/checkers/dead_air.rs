//! A caller who has been understood is not left in silence.
//!
//! Four seconds of silence are too long while the agent owes an answer. The clock runs from the last sound of either side, the
//! last word understood and the last report of the voice detector, whichever is latest; fillers count as sound. It does not
//! run while media is down, while the detector reports a sound that may be speech (a few seconds without a word), or shortly after a recogniser, a voice or
//! the line has failed; a model that fails is no excuse.

use super::{Checker, Seen};
use crate::world::{Scene, words};
use offhook_core::call::{CallTime, Input};
use std::collections::BTreeSet;

/// Longer silence is dead air.
const DEAD_AIR_MS: u32 = 4_000;
/// What the machine may add on purpose: words that sound unfinished are waited for (1.4 s), longer for a caller who pauses.
const PATIENCE_MS: u32 = 2_200;
/// With nothing owed, the agent asks after this time whether the caller is there.
const NUDGE_MS: u32 = 8_000 + DEAD_AIR_MS;
/// A sound of which nothing is understood may be speech for so long.
const MAY_BE_SPEECH_MS: u32 = 4_000;
/// So much of something else than an answer is taken for one.
const ANSWER_MS: u32 = 400;
/// How long a failure excuses silence.
const EXCUSED_MS: u32 = 6_000;

#[derive(Debug, Default)]
pub(super) struct DeadAir {
    known: BTreeSet<String>,
    /// The last word that is to be answered, and how many replies there were when it was understood.
    owed: Option<(String, usize)>,
    /// The word is only a guess yet.
    guessed: bool,
    quiet_since: CallTime,
    /// Until when the sound that the detector reports may be speech.
    speech_until: CallTime,
    sounding: bool,
    media: bool,
    over: bool,
}

impl Checker for DeadAir {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Heard { speech, .. } => {
                self.quiet_since = scene.now;
                let heard = &scene.speeches[*speech];
                let answers = |(word, known): &(String, usize)| {
                    *speech >= *known && !heard.filler && (heard.heard_ms >= ANSWER_MS || heard.complete)
                        || heard.ask.is_some_and(|ask| scene.asks[ask].was_told(word))
                };
                if self.owed.as_ref().is_some_and(answers) {
                    self.owed = None;
                }
            }
            Seen::Ended(_) => self.over = true,
            Seen::Forgotten(Input::Final { .. } | Input::Interim { .. } | Input::EagerEnd { .. }) => self.owed = None,
            Seen::Fact(input) => {
                self.fact(scene, input);
                // The caller's end of the line knows when they left; it is reported later.
                let left = matches!(input, Input::HungUp { by_caller: true });
                let at = scene.over_at.filter(|_| left).unwrap_or(scene.now);
                if self.sounding {
                    self.quiet_since = self.quiet_since.max(self.speech_until.min(at));
                }
                let quiet_ms = at.since_ms(self.quiet_since);
                if left && self.media && quiet_ms > NUDGE_MS && !is_excused(scene) {
                    return Err(format!("nobody has said anything for {quiet_ms} ms, and the caller leaves"));
                }
                self.media = scene.media;
                let listens = scene.caller_talks || scene.audible.is_some();
                if listens || !scene.media || self.over || is_excused(scene) {
                    self.quiet_since = scene.now;
                }
                let quiet_ms = scene.now.since_ms(self.quiet_since);
                if self.owed.is_some() && quiet_ms > DEAD_AIR_MS + PATIENCE_MS {
                    return Err(format!("the caller was understood and hears nothing for {quiet_ms} ms"));
                }
                if quiet_ms > NUDGE_MS {
                    return Err(format!("nobody has said anything for {quiet_ms} ms"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl DeadAir {
    fn fact(&mut self, scene: &Scene, input: &Input) {
        let settled = matches!(input, Input::Final { .. });
        if matches!(input, Input::Final { text, .. } if text.is_empty()) && self.guessed {
            // A final may take back what was only a guess.
            self.owed = None;
        }
        match input {
            Input::Final { stt, text, .. } | Input::Interim { stt, text, .. } | Input::EagerEnd { stt, text }
                if scene.stt == Some(*stt) =>
            {
                self.quiet_since = scene.now;
                self.speech_until = scene.now.plus_ms(MAY_BE_SPEECH_MS);
                self.guessed &= !settled || text.is_empty();
                for name in words::names_in(text) {
                    if self.known.insert(name.to_string()) {
                        self.owed = Some((name.to_string(), scene.speeches.len()));
                        self.guessed = !settled;
                    }
                }
            }
            Input::SpeechStarted => {
                self.sounding = true;
                self.speech_until = scene.now.plus_ms(MAY_BE_SPEECH_MS);
            }
            Input::SpeechStopped { .. } => {
                self.sounding = false;
                self.quiet_since = scene.now;
            }
            Input::MediaLost => self.sounding = false,
            Input::Dtmf { .. } | Input::Connected => self.quiet_since = scene.now,
            _ => {}
        }
    }
}

fn is_excused(scene: &Scene) -> bool {
    let faults = &scene.faults;
    [faults.hearing, faults.voice, faults.line]
        .into_iter()
        .flatten()
        .any(|at| scene.now.since_ms(at) < EXCUSED_MS)
}
