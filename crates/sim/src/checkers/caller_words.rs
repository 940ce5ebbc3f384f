//! What the caller said and the recogniser settled reaches the model and the transcript once: nothing is lost, nothing is
//! doubled.

use super::{Checker, Seen, said};
use crate::world::{Scene, words};
use offhook_core::ChatMessage;
use offhook_core::call::{Command, Input, Line, Speaker, SttId};
use std::collections::{BTreeMap, BTreeSet};

/// A final that comes so late may belong to a turn that was answered by its interim.
const LATE_FINAL_MS: u32 = 800;

#[derive(Debug, Default)]
pub(super) struct CallerWords {
    settled: BTreeSet<String>,
    /// How far each session's words are settled, in ms of its audio.
    settled_to: BTreeMap<SttId, u32>,
    noted: BTreeMap<u32, String>,
    takeovers: u32,
    media: bool,
    hung_up: bool,
    /// Keys that the machine was told of.
    keys: String,
}

impl Checker for CallerWords {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Fact(Input::Final { stt, text, end_ms, .. }) => self.settle(scene, *stt, text, *end_ms),
            Seen::Forgotten(Input::Final { text, .. }) => {
                for name in words::names_in(text) {
                    self.settled.remove(name);
                }
            }
            Seen::Fact(Input::Connected) => self.media = true,
            Seen::Fact(Input::MediaLost) => self.media = false,
            Seen::Fact(Input::Dtmf { digit }) if self.media && !self.hung_up && digit.is_ascii() => {
                self.keys.push(*digit);
            }
            Seen::TookOver => {
                self.takeovers += 1;
                self.media = false;
            }
            Seen::Fact(Input::HungUp { .. }) | Seen::Order(Command::HangUp | Command::Forward { .. }) => {
                self.hung_up = true;
            }
            Seen::Order(Command::Note(line)) if line.speaker == Speaker::Caller => {
                self.noted.insert(line.number, line.text.clone());
            }
            Seen::Order(Command::Ask { messages, .. }) => {
                none_doubled(messages.iter().filter_map(said))?;
                if self.takeovers == 0 {
                    self.as_noted(messages)?;
                }
            }
            Seen::Over { lines, .. } => {
                let said = || lines.iter().filter(|l| l.speaker == Speaker::Caller).map(|l: &Line| l.text.as_str());
                none_doubled(said())?;
                let kept: BTreeSet<&str> = said().flat_map(words::names_in).collect();
                if let Some(lost) = self.settled.iter().find(|name| !kept.contains(name.as_str())) {
                    return Err(format!("{lost} was settled, but is lost"));
                }
                let kept: String = said().flat_map(keys_in).collect();
                if self.takeovers == 0 && kept != self.keys {
                    return Err(format!("the caller pressed {}, the transcript says {kept}", self.keys));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl CallerWords {
    fn settle(&mut self, scene: &Scene, stt: SttId, text: &str, end_ms: u32) {
        let settled_to = self.settled_to.entry(stt).or_default();
        if scene.stt != Some(stt) || end_ms <= *settled_to || self.hung_up || scene.has_to_leave() {
            return;
        }
        *settled_to = end_ms;
        for name in words::names_in(text) {
            let spoken = scene.words.iter().find(|w| w.text.starts_with(name));
            if spoken.is_some_and(|w| scene.now.since_ms(w.end) < LATE_FINAL_MS + scene.options.hearing.silence_ms) {
                self.settled.insert(name.to_string());
            }
        }
    }

    /// The model is told the turns that were noted, and at most one more that may not be over. A turn that was not over
    /// after all is told with what followed.
    fn as_noted(&self, messages: &[ChatMessage]) -> Result<(), String> {
        let told: Vec<&str> = messages.iter().filter_map(said).collect();
        let ahead = messages.last().and_then(said).is_some();
        let mut next = 0;
        for line in self.noted.values() {
            let Some(text) = told.get(next) else {
                return Err(format!("the caller's turn {line:?} was noted, but the model is not told"));
            };
            if text == line {
                next += 1;
            } else if ahead && next + 1 == told.len() {
                // The last turn was not over, and its words have been corrected.
                return Ok(());
            } else if !text.starts_with(line.trim_end_matches(['.', ',', '?'])) {
                return Err(format!("the caller's turn was noted as {line:?}, the model is told {text:?}"));
            }
        }
        match told.len() - next {
            0 => Ok(()),
            1 if ahead => Ok(()),
            _ => Err(format!("the model is told turns that were not noted: {:?}", &told[next..])),
        }
    }
}

fn keys_in(text: &str) -> impl Iterator<Item = char> + '_ {
    text.split("(pressed ").skip(1).flat_map(|keys| keys.chars().take_while(|c| *c != ')'))
}

fn none_doubled<'a>(texts: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = Vec::new();
    for name in texts.flat_map(words::names_in) {
        if seen.contains(&name) {
            return Err(format!("{name} was said once, but is there twice"));
        }
        seen.push(name);
    }
    Ok(())
}
