//! A provider that works is reached: one that fails again and again is left for the next, and the agent gives up only when
//! there is no next one.

use super::{Checker, Seen, said};
use crate::world::{Condition, Scene};
use offhook_core::call::{AskId, Command, Input, Phrases, Speaker, SttId};
use std::collections::BTreeSet;

/// One that never finishes anything may be tried so often, a model so often for the same words.
const TRIED: u32 = 2;

/// A recogniser that understands nothing of so many utterances may be dead.
const MUTE: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Fallback {
    stt: Kind,
    llm: Kind,
    tts: Kind,
    last_stt: Option<SttId>,
    failed_asks: BTreeSet<AskId>,
    /// Utterances since the last word of the session.
    utterances: u32,
    /// How often the caller was asked to say it again since then.
    not_understood: u32,
    /// The words that models are asked to answer.
    said: String,
}

/// Providers of one kind, on this node.
#[derive(Debug, Default)]
struct Kind {
    /// Which was ordered last.
    current: u8,
    /// How often each has said that it failed.
    failures: [u32; 3],
    /// It has said so, or was waited for in vain.
    has_failed: [bool; 3],
}

impl Kind {
    fn fails(&mut self, name: &str, provider: u8, conditions: &[Condition]) -> Result<(), String> {
        let provider = usize::from(provider);
        self.has_failed[provider] = true;
        let failures = &mut self.failures[provider];
        *failures += 1;
        if conditions[provider] != Condition::Works && *failures > TRIED {
            return Err(format!("{name} {provider} has failed {failures} times and is still used"));
        }
        Ok(())
    }

    fn is_used_up(&self, providers: u32) -> bool {
        let last = providers as usize - 1;
        usize::from(self.current) == last && self.has_failed[last]
    }
}

impl Checker for Fallback {
    fn see(&mut self, scene: &Scene, seen: &Seen<'_>) -> Result<(), String> {
        let conditions = &scene.options.providers;
        match seen {
            Seen::TookOver => *self = Fallback::default(),
            Seen::Order(Command::OpenStt { provider, .. }) => {
                self.stt.current = *provider;
                (self.utterances, self.not_understood) = (0, 0);
            }
            Seen::Fact(Input::SpeechStopped { .. }) => {
                self.utterances += 1;
                self.stt.has_failed[usize::from(self.stt.current)] |= self.utterances >= MUTE;
            }
            Seen::Fact(Input::Interim { text, .. } | Input::Final { text, .. } | Input::EagerEnd { text, .. })
                if !text.is_empty() =>
            {
                (self.utterances, self.not_understood) = (0, 0);
                self.stt.failures = [0; 3];
            }
            Seen::Order(Command::Speak { text, .. }) if *text == Phrases::default().not_understood => {
                self.not_understood += 1;
                if self.not_understood > MUTE && scene.faults.voice.is_none() {
                    return Err(format!("recogniser {} is mute and still used", self.stt.current));
                }
            }
            Seen::Order(Command::OpenTts { voice }) => self.tts.current = *voice,
            Seen::Order(Command::Ask { provider, messages, .. }) => {
                self.llm.current = *provider;
                let said = messages.iter().rev().find_map(said).unwrap_or_default();
                if said != self.said {
                    self.said = said.to_string();
                    self.llm.failures = [0; 3];
                }
            }
            // A head start that came to nothing costs no turn its answer.
            Seen::Order(Command::Note(line)) if line.speaker == Speaker::Caller => self.llm.failures = [0; 3],
            Seen::Order(Command::CancelAsk { ask }) => {
                // The machine's own patience may be over.
                let asked = scene.asked(*ask).map(|at| &scene.asks[at]);
                if let Some(asked) = asked.filter(|a| a.failed && !a.over) {
                    self.llm.has_failed[usize::from(asked.provider)] = true;
                }
            }
            Seen::Fact(Input::SttFailed { stt, .. })
                if scene.stt == Some(*stt) && self.last_stt.replace(*stt) != Some(*stt) =>
            {
                self.stt.fails("recogniser", self.stt.current, &conditions.stt)?;
            }
            Seen::Fact(Input::AskFailed { ask, .. }) => {
                let asked = scene.asked(*ask).map(|at| &scene.asks[at]).filter(|a| !a.cancelled);
                if let Some(asked) = asked
                    && self.failed_asks.insert(*ask)
                {
                    self.llm.fails("model", asked.provider, &conditions.llm)?;
                }
            }
            Seen::Fact(Input::AskDone { ask }) => {
                // An answer without a word is none.
                let empty = scene.asked(*ask).map(|at| &scene.asks[at]).filter(|a| a.failed);
                if let Some(asked) = empty {
                    self.llm.has_failed[usize::from(asked.provider)] = true;
                }
            }
            Seen::Order(Command::CancelReply { reply }) => {
                let stalled = scene.speech(*reply).is_some_and(|at| scene.speeches[at].stalled || scene.speeches[at].mute);
                self.tts.has_failed[usize::from(self.tts.current)] |= stalled;
            }
            Seen::Fact(Input::TtsFailed { voice, .. }) if *voice == self.tts.current => {
                self.tts.fails("voice", *voice, &conditions.tts)?;
            }
            Seen::Order(Command::Speak { text, .. }) if *text == Phrases::default().apology && scene.node == 0 => {
                let kinds = [&self.stt, &self.llm, &self.tts];
                if !kinds.iter().any(|kind| kind.is_used_up(scene.options.plan.providers)) {
                    return Err("the agent gave up although there were providers left".into());
                }
            }
            _ => {}
        }
        Ok(())
    }
}
