//! A caller who talks over the agent is obeyed: it falls silent while they make a sound, and what it was saying when real
//! words were understood is not heard any more.

use super::{Checker, Seen};
use crate::world::{Scene, words};
use offhook_core::call::{CallTime, Input};
use std::collections::BTreeSet;

/// The agent may be heard for so long after it was to be silent: the way to the caller, and one piece of audio.
const SILENT_WITHIN_MS: u32 = 200;
/// The agent holds its tongue at least so long for a sound that never becomes words.
const HOLDS_TONGUE_MS: u32 = 3_900;
/// How long after the last voice failed what it had spoken may still be heard.
const MAY_LEAVE_MS: u32 = 20_000;
/// Words that come so late may be the late final of something that was answered already, and so may words of nobody.
const LATE_WORDS_MS: u32 = 800;

#[derive(Debug, Default)]
pub(super) struct BargeIn {
    known: BTreeSet<String>,
    /// When words were understood, and what was being played then.
    understood: Option<CallTime>,
    played: Vec<usize>,
    /// The detector has reported a sound that has not ended.
    sounding: bool,
    /// Since when the caller makes a sound over the agent.
    sound_since: Option<CallTime>,
}

impl BargeIn {
    fn words(&mut self, scene: &Scene, text: &str) {
        let mut new = false;
        for name in words::names_in(text) {
            if !self.known.contains(name) {
                self.known.insert(name.to_string());
                new |= !is_late(scene, name);
            }
        }
        if new && !scene.has_to_leave() {
            self.understood = Some(scene.now);
            self.played.clear();
            let playing = scene.speeches.iter().enumerate().filter(|(_, s)| s.plays > 0 && !s.is_heard_out());
            self.played.extend(playing.map(|(at, _)| at));
        }
    }
}

fn is_late(scene: &Scene, name: &str) -> bool {
    let spoken = scene.words.iter().find(|w| w.text.starts_with(name));
    spoken.is_none_or(|w| scene.now.since_ms(w.end) > LATE_WORDS_MS)
}

impl Checker for BargeIn {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Fact(Input::Interim { stt, text, .. } | Input::Final { stt, text, .. })
                if scene.stt == Some(*stt) && scene.media =>
            {
                self.sound_since = None;
                self.words(scene, text);
            }
            Seen::Fact(Input::EagerEnd { text, .. }) => {
                self.sound_since = None;
                self.known.extend(words::names_in(text).map(str::to_string));
            }
            Seen::Fact(Input::SpeechStarted) => {
                let begins = !std::mem::replace(&mut self.sounding, true);
                // Where a voice has just failed, the agent may be about to apologise and leave.
                let may_leave = scene.faults.voice.is_some_and(|at| scene.now.since_ms(at) < MAY_LEAVE_MS);
                if begins && scene.audible.is_some() && !scene.takes_leave() && !may_leave {
                    self.sound_since = Some(scene.now);
                }
            }
            Seen::Fact(Input::SpeechStopped { .. } | Input::MediaLost) | Seen::TookOver => {
                self.sounding = false;
                self.sound_since = None;
            }
            Seen::Fact(Input::Dtmf { .. }) => self.sound_since = None,
            Seen::Heard { speech, .. } => {
                let down_ms = scene.options.line.down_ms;
                let reply = scene.speeches[*speech].reply.0;
                if let Some(at) = self.understood
                    && self.played.contains(speech)
                    && scene.now.since_ms(at) + down_ms > SILENT_WITHIN_MS
                {
                    let at_ms = at.as_ms();
                    return Err(format!("reply {reply} is heard although words were understood at {at_ms} ms"));
                }
                if let Some(since) = self.sound_since
                    && (SILENT_WITHIN_MS..HOLDS_TONGUE_MS).contains(&(scene.now.since_ms(since) + down_ms))
                    && !scene.takes_leave()
                {
                    let at_ms = since.as_ms();
                    return Err(format!("reply {reply} is heard over the caller, who began at {at_ms} ms"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
