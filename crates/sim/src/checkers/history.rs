//! Nothing that was not heard is taken to have been said: neither in the transcript, nor in what the model is told, nor in the
//! record; and all of it in the order in which it was heard.

use super::{Checker, Seen, said};
use crate::world::{Scene, Speech};
use offhook_core::ChatMessage;
use offhook_core::call::{Command, Line, Speaker};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct History {
    /// The record: lines by number, as noted last.
    noted: BTreeMap<u32, Line>,
    takeovers: u32,
}

impl Checker for History {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Order(Command::Note(line)) => {
                self.noted.insert(line.number, line.clone());
                let whole = |s: &Speech| s.text.trim_end() == line.text;
                let exact = self.takeovers == 0 && scene.faults.voice.is_none() && scene.faults.model.is_none();
                if line.speaker == Speaker::Agent && !line.cut && exact && !scene.speeches.iter().any(whole) {
                    return Err(format!("line {} is said to be whole: {:?}", line.number, line.text));
                }
                if line.speaker == Speaker::Agent && !scene.speeches.iter().any(|s| was_heard(scene, s, &line.text)) {
                    return Err(format!("line {} was not heard: {:?}", line.number, line.text));
                }
            }
            Seen::Order(Command::Ask { messages, .. }) => told(scene, messages)?,
            Seen::TookOver => self.takeovers += 1,
            Seen::Over { lines, .. } => {
                in_order(scene, lines)?;
                let recorded: Vec<&Line> = self.noted.values().filter(|l| !l.text.is_empty()).collect();
                let mut told: Vec<&Line> = lines.iter().collect();
                told.sort_by_key(|line| line.number);
                if self.takeovers == 0 && recorded != told {
                    let (recorded, told) = (shown(&recorded), shown(&told));
                    return Err(format!("the noted lines are not the transcript: [{recorded}] but [{told}]"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The last mark of a reply is on its way for so long at most.
const MARKS_ON_THEIR_WAY_MS: u32 = 1_000;
/// A caller who has hung up hears nothing more, but it is known only when it is reported; so too while a node stalls.
const REPORT_MS: u32 = 500;

fn was_heard(scene: &Scene, speech: &Speech, text: &str) -> bool {
    let late_ms = if scene.over_at.is_some() { REPORT_MS } else { 0 } + scene.options.node.stall_ms;
    speech.text.starts_with(text) && text.len() <= speech.claimable(&scene.options, late_ms)
}

/// The model is told what was heard, and of the answer it is still writing what it wrote.
fn told(scene: &Scene, messages: &[ChatMessage]) -> Result<(), String> {
    let turn = messages.iter().rposition(|m| said(m).is_some()).unwrap_or_default();
    let heard = in_order_of_hearing(scene);
    let mut next = 0;
    for (place, message) in messages.iter().enumerate() {
        let ChatMessage::Agent { text, .. } = message else { continue };
        if text.is_empty() {
            continue;
        }
        let fits = |s: &Speech| {
            was_heard(scene, s, text) || (place > turn && s.cancelled_at.is_none() && s.text.starts_with(text.as_str()))
        };
        match heard[next..].iter().position(|s| fits(s)) {
            Some(found) => next += found,
            None => return Err(format!("the model is told of what was not heard: {text:?}")),
        }
    }
    let exact = scene.node == 0 && scene.faults.line.is_none() && scene.faults.voice.is_none();
    let kept_back = scene.speeches.iter().filter(|s| exact && is_to_be_told(scene, s)).find(|speech| {
        let told = |m: &ChatMessage| matches!(m, ChatMessage::Agent { text, .. } if text == speech.text.trim_end());
        !messages.iter().any(told)
    });
    match kept_back {
        Some(speech) => Err(format!("the model is not told of what was heard: {:?}", speech.text)),
        None => Ok(()),
    }
}

/// It was heard to its end long enough ago.
fn is_to_be_told(scene: &Scene, speech: &Speech) -> bool {
    let known = scene.now.since_ms(speech.last_heard_at) > MARKS_ON_THEIR_WAY_MS;
    speech.is_heard_out() && speech.cancelled_at.is_none() && !speech.filler && known
}

/// What was heard, and after it what has not been heard yet.
fn in_order_of_hearing(scene: &Scene) -> Vec<&Speech> {
    let mut heard: Vec<&Speech> = scene.speeches.iter().collect();
    heard.sort_by_key(|s| (s.first_heard_at.is_none(), s.first_heard_at));
    heard
}

fn in_order(scene: &Scene, lines: &[Line]) -> Result<(), String> {
    let heard = in_order_of_hearing(scene);
    let mut next = 0;
    for line in lines.iter().filter(|l| l.speaker == Speaker::Agent) {
        match heard[next..].iter().position(|s| was_heard(scene, s, &line.text)) {
            Some(found) => next += found + 1,
            None => return Err(format!("line {} was not heard, or not then: {:?}", line.number, line.text)),
        }
    }
    Ok(())
}

fn shown(lines: &[&Line]) -> String {
    let shown: Vec<String> = lines.iter().map(|l| format!("{} {:?}: {}", l.number, l.speaker, l.text)).collect();
    shown.join(" / ")
}
