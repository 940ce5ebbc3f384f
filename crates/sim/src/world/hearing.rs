//! The voice detector and the recogniser: what the machine is told of the sounds that the caller makes. They know sounds
//! and words with their moments; they do not know what the caller means.

use super::options::{Condition, EndStyle};
use super::scene::Word;
use super::{Event, Fact, World};
use offhook_core::call::{CallTime, Input, SttId};

/// How often a recogniser sends its guess while somebody talks.
const INTERIM_EVERY_MS: u32 = 250;
/// A silence after which an eager recogniser supposes an end.
const EAGER_MS: u32 = 200;
/// A word that a recogniser makes of something else.
const MISHEARD: &str = "something";

/// What listens to the caller.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    /// Sounds being made.
    sounds: u32,
    silent_since: CallTime,
    session: u32,
    open: bool,
    stalled: bool,
    condition: Condition,
    /// The session's clock starts where media had flowed for so long.
    began_ms: u64,
    /// The first word that is not settled.
    pending: usize,
    /// What it says arrives in order: nothing overtakes what was said before.
    arrives_at: CallTime,
    said_end: bool,
    /// How long media has flowed before the present stretch, and since when it flows.
    flowed_ms: u64,
    flows_since: Option<CallTime>,
}

impl World<'_> {
    // ---- the detector ------------------------------------------------------------------------------------------

    pub(super) fn sound_begins(&mut self) {
        self.hearing.sounds += 1;
        let onset_ms = self.scene.options.hearing.onset_ms;
        self.agenda.plan(self.scene.now.plus_ms(onset_ms), Event::Detect);
    }

    pub(super) fn sound_ends(&mut self) {
        self.hearing.sounds = self.hearing.sounds.saturating_sub(1);
        if self.hearing.sounds == 0 {
            self.hearing.silent_since = self.scene.now;
            let hangover_ms = self.scene.options.hearing.hangover_ms;
            self.agenda.plan(self.scene.now.plus_ms(hangover_ms), Event::Detect);
        }
    }

    pub(super) fn detect(&mut self) {
        if !self.scene.media {
            return;
        }
        let silence_ms = self.scene.options.hearing.hangover_ms;
        if self.hearing.sounds > 0 && !self.scene.sound_reported {
            self.scene.sound_reported = true;
            self.deliver(Fact::Ours, Input::SpeechStarted);
        } else if self.hearing.sounds == 0
            && self.scene.sound_reported
            && self.scene.now.since_ms(self.hearing.silent_since) >= silence_ms
        {
            self.scene.sound_reported = false;
            self.deliver(Fact::Ours, Input::SpeechStopped { silence_ms });
        }
    }

    pub(super) fn media_flows(&mut self) {
        self.hearing.flows_since = Some(self.scene.now);
        let unheard = self.scene.words.partition_point(|w| w.start < self.scene.now);
        self.hearing.pending = self.hearing.pending.max(unheard);
        if self.hearing.sounds > 0 {
            self.agenda.plan(self.scene.now.plus_ms(self.scene.options.hearing.onset_ms), Event::Detect);
        }
    }

    pub(super) fn media_ebbs(&mut self) {
        self.hearing.flowed_ms = self.flowed_ms(self.scene.now);
        self.hearing.flows_since = None;
        self.scene.sound_reported = false;
    }

    fn flowed_ms(&self, at: CallTime) -> u64 {
        let since = self.hearing.flows_since.map_or(0, |since| u64::from(at.since_ms(since)));
        self.hearing.flowed_ms + since
    }

    // ---- the recogniser ----------------------------------------------------------------------------------------

    pub(super) fn open_stt(&mut self, stt: SttId, provider: u8) {
        self.scene.stt = Some(stt);
        self.hearing.condition = self.scene.options.providers.stt[usize::from(provider)];
        self.hearing.session += 1;
        self.hearing.open = false;
        self.hearing.stalled = self.hearing.condition == Condition::Mute;
        self.hearing.arrives_at = self.scene.now;
        let session = self.hearing.session;
        let at = self.scene.now.plus_ms(self.dice.between(20, 300));
        self.agenda.plan(at, Event::SttOpens(session));
    }

    pub(super) fn stt_opens(&mut self, session: u32) {
        if session != self.hearing.session {
            return;
        }
        let Some(stt) = self.scene.stt else { return };
        let rate = self.scene.options.hearing.opens_badly;
        if self.hearing.condition == Condition::Dead || self.fault(rate) {
            self.stt_fails();
            return;
        }
        self.hearing.open = true;
        self.hearing.said_end = true;
        self.hearing.began_ms = self.flowed_ms(self.scene.now);
        self.hearing.pending = self.scene.words.partition_point(|w| w.start < self.scene.now);
        self.deliver(Fact::Ours, Input::SttOpened { stt });
        if self.hearing.condition == Condition::BreaksOff {
            let at = self.scene.now.plus_ms(self.dice.between(10, 600));
            self.agenda.plan(at, Event::SttDies(session));
        }
    }

    /// The caller will speak these words: plans what the recogniser will say of them.
    pub(super) fn plan_hearing(&mut self, from: usize) {
        let hearing = &self.scene.options.hearing;
        let (latency_ms, silence_ms, eager) = (hearing.latency_ms, hearing.silence_ms, hearing.eager);
        let words = &self.scene.words[from..];
        let Some((first, last)) = words.first().zip(words.last()) else { return };
        let (start, end) = (first.start, last.end);
        let pauses: Vec<CallTime> =
            words.windows(2).filter(|w| w[1].start > w[0].end).map(|w| w[0].end).chain([end]).collect();
        for pause in pauses {
            self.agenda
                .plan(pause.plus_ms(silence_ms + latency_ms), Event::SttEndpoint { silent_since: pause });
            if eager {
                self.agenda
                    .plan(pause.plus_ms(EAGER_MS + latency_ms), Event::SttEager { silent_since: pause });
            }
        }
        if !self.scene.options.hearing.no_interims {
            self.agenda
                .plan(start.plus_ms(INTERIM_EVERY_MS), Event::SttInterim { until: end.plus_ms(latency_ms) });
        }
        let (dies, stalls) = (self.scene.options.hearing.dies, self.scene.options.hearing.stalls);
        if self.fault(dies) {
            self.agenda
                .plan(start.plus_ms(self.dice.between(0, 2_000)), Event::SttDies(self.hearing.session));
        } else if self.fault(stalls) {
            self.hearing.stalled = true;
            self.scene.faults.hearing = Some(self.scene.now);
        }
    }

    pub(super) fn stt_dies(&mut self, session: u32) {
        let dies = self.scene.media || self.hearing.condition == Condition::BreaksOff;
        if session == self.hearing.session && dies {
            self.stt_fails();
        }
    }

    fn stt_fails(&mut self) {
        self.scene.faults.hearing = Some(self.scene.now);
        self.hearing.session += 1;
        self.hearing.open = false;
        let may_pass = self.dice.happens(600);
        if let Some(stt) = self.scene.stt {
            self.deliver(Fact::Ours, Input::SttFailed { stt, may_pass });
        }
    }

    pub(super) fn stt_interim(&mut self, until: CallTime) {
        let partial_finals = self.scene.options.hearing.partial_finals as usize;
        let latency_ms = self.scene.options.hearing.latency_ms;
        let heard = self.heard_words(latency_ms);
        if heard > self.hearing.pending {
            if partial_finals > 0 && heard - self.hearing.pending >= partial_finals {
                self.settle_words(heard, false);
            } else if let Some((text, end_ms)) = self.words_up_to(heard)
                && let Some(stt) = self.scene.stt
            {
                self.recognised(0, Input::Interim { stt, text, end_ms });
            }
        }
        let next = self.scene.now.plus_ms(INTERIM_EVERY_MS);
        if next <= until {
            self.agenda.plan(next, Event::SttInterim { until });
        }
    }

    pub(super) fn stt_endpoint(&mut self, silent_since: CallTime) {
        let silence_ms = self.scene.options.hearing.silence_ms;
        if !self.was_silent(silent_since, silence_ms) || !self.listens() {
            return;
        }
        let heard = self.scene.words.partition_point(|w| w.end <= silent_since);
        let Some(stt) = self.scene.stt else { return };
        if heard > self.hearing.pending {
            let ends = self.scene.options.hearing.ends == EndStyle::OnFinal;
            self.settle_words(heard, ends);
        } else if !self.hearing.said_end && self.scene.options.hearing.ends == EndStyle::OnFinal {
            self.hearing.said_end = true;
            let end_ms = self.fed_ms(silent_since);
            self.recognised(0, Input::Final { stt, text: String::new(), end_ms, utterance_end: true });
        }
        if self.scene.options.hearing.ends == EndStyle::Apart
            && !std::mem::replace(&mut self.hearing.said_end, true)
        {
            self.recognised(0, Input::UtteranceEnd { stt });
        }
    }

    pub(super) fn stt_eager(&mut self, silent_since: CallTime) {
        if !self.was_silent(silent_since, EAGER_MS) || !self.listens() {
            return;
        }
        let heard = self.scene.words.partition_point(|w| w.end <= silent_since);
        if let Some((text, _)) = self.words_up_to(heard)
            && let Some(stt) = self.scene.stt
        {
            self.recognised(0, Input::EagerEnd { stt, text });
        }
    }

    /// The machine wants a final at once.
    pub(super) fn finalize(&mut self, stt: SttId) {
        if self.scene.options.hearing.finalizes && self.scene.stt == Some(stt) {
            let at = self.scene.now.plus_ms(self.dice.between(30, 150));
            let session = self.hearing.session;
            self.agenda.plan(at, Event::SttFinalizes { session, up_to: self.scene.now });
        }
    }

    pub(super) fn stt_finalizes(&mut self, session: u32, up_to: CallTime) {
        if session != self.hearing.session || !self.listens() {
            return;
        }
        let heard = self.scene.words.partition_point(|w| w.end <= up_to);
        let ends = self.scene.options.hearing.finalize_ends;
        if heard > self.hearing.pending {
            self.settle_words(heard, ends);
        } else if let Some(stt) = self.scene.stt {
            let end_ms = self.fed_ms(up_to);
            self.recognised(0, Input::Final { stt, text: String::new(), end_ms, utterance_end: ends });
        }
    }

    /// Says something that nobody said.
    pub(super) fn stt_ghost(&mut self, word: String) {
        if let Some(stt) = self.scene.stt.filter(|_| self.listens()) {
            let end_ms = self.fed_ms(self.scene.now);
            self.scene.faults.hearing = Some(self.scene.now);
            self.recognised(0, Input::Final { stt, text: word, end_ms, utterance_end: true });
        }
    }

    fn recognised(&mut self, late_ms: u32, what: Input) {
        let at = self.scene.now.plus_ms(late_ms);
        if at >= self.hearing.arrives_at && late_ms == 0 {
            self.deliver(Fact::Ours, what);
            return;
        }
        self.hearing.arrives_at = self.hearing.arrives_at.max(at);
        self.plan_fact(self.hearing.arrives_at, what);
    }

    fn listens(&self) -> bool {
        self.hearing.open && !self.hearing.stalled && self.scene.media && self.scene.alive
    }

    fn fed_ms(&self, at: CallTime) -> u32 {
        let ms = self.flowed_ms(at).saturating_sub(self.hearing.began_ms);
        u32::try_from(ms).unwrap_or(u32::MAX)
    }

    /// No word was spoken in the time after a moment.
    fn was_silent(&self, since: CallTime, ms: u32) -> bool {
        let next = self.scene.words.partition_point(|w| w.start < since);
        self.scene.words.get(next).is_none_or(|w| w.start > since.plus_ms(ms))
    }

    /// How many words the recogniser has understood so far.
    fn heard_words(&self, latency_ms: u32) -> usize {
        if !self.listens() {
            return 0;
        }
        let up_to = self.scene.now.minus_ms(latency_ms);
        self.scene.words.partition_point(|w| w.end <= up_to)
    }

    fn words_up_to(&self, heard: usize) -> Option<(String, u32)> {
        let pending = self.scene.words.get(self.hearing.pending..heard)?;
        let end = pending.last()?.end;
        let mut text = String::with_capacity(pending.len() * 7);
        for word in pending {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(shown(word, self.scene.options.hearing.punctuates));
        }
        Some((text, self.fed_ms(end)))
    }

    fn settle_words(&mut self, heard: usize, ends: bool) {
        let Some(stt) = self.scene.stt else { return };
        let Some((mut text, end_ms)) = self.words_up_to(heard) else { return };
        let hearing = &self.scene.options.hearing;
        let (wrong, lost, late, repeated, empty) = (
            hearing.wrong_words,
            hearing.lost_finals,
            hearing.late_finals,
            hearing.repeated_finals,
            hearing.empty_finals,
        );
        self.hearing.pending = heard;
        self.hearing.said_end = ends;
        if self.fault(lost) {
            self.scene.faults.hearing = Some(self.scene.now);
            return;
        }
        if self.fault(wrong)
            && let Some((before, _)) = text.rsplit_once(' ')
        {
            text = format!("{before} {MISHEARD}");
            self.scene.faults.hearing = Some(self.scene.now);
        }
        let fact = Input::Final { stt, text, end_ms, utterance_end: ends };
        let again = self.fault(repeated).then(|| fact.clone());
        let late_ms = if self.fault(late) {
            self.scene.faults.hearing = Some(self.scene.now);
            self.dice.between(300, 3_000)
        } else {
            0
        };
        self.recognised(late_ms, fact);
        if let Some(again) = again {
            let at = self.hearing.arrives_at.max(self.scene.now).plus_ms(self.dice.between(1, 3_000));
            self.plan_fact(at, again);
        }
        if self.fault(empty) {
            let ms = self.dice.between(1, 1_000);
            self.recognised(ms, Input::Final { stt, text: String::new(), end_ms, utterance_end: false });
        }
    }
}

fn shown(word: &Word, punctuates: bool) -> &str {
    if punctuates { &word.text } else { word.text.trim_end_matches(['.', ',', '?', '!']) }
}
