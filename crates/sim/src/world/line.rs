//! The carrier and the pump before it: what is played when, and which marks come back. It does not know what is said.
//!
//! This is the contract that the machine's orders are executed by, here and in the server's pump:
//! - `Play` puts a reply's audio behind what is being played; `ResumePlayout` does the same from a moment within it.
//! - Audio leaves as it is synthesized; where it runs dry there is silence until more comes.
//! - A mark comes back when a reply's first sample is played (also when it is gone on with), every so often, and at its end
//!   (`done`) once its text is complete and no more audio will come.
//! - `PausePlayout` silences at once and empties the queue, but the audio is kept. `CancelReply` silences the reply if it
//!   is playing and drops it; what is behind it goes on. Marks that have not come back by then never do.
//! - When media is lost, the queue is lost with it. What is ordered to be played while media is down is not heard.
//! - A reply whose voice broke off is complete as it stands when `FinishReply` says so.

use super::scene::{Scene, Span};
use super::{Event, Fact, World};
use crate::checkers::Seen;
use offhook_core::call::{CallTime, Input, ReplyId};
use std::collections::VecDeque;

/// A gap or a repetition in playing that nobody hears as such.
const SEAM_MS: u32 = 150;
/// The apology that needs no voice takes so long.
const CANNED_MS: u32 = 2_500;

/// What is played.
#[derive(Debug, Default)]
pub(super) struct Line {
    queue: VecDeque<Stream>,
    /// Marks of an earlier epoch are void.
    epoch: u32,
    wake_at: Option<CallTime>,
    plays: usize,
}

#[derive(Debug)]
struct Stream {
    speech: usize,
    pos_ms: u32,
    next_mark_ms: u32,
    /// When `pos_ms` was reached, while it moves.
    since: Option<CallTime>,
}

impl Line {
    pub(super) fn forget_wake(&mut self) {
        self.wake_at = None;
    }
}

impl World<'_> {
    pub(super) fn play(&mut self, reply: ReplyId) {
        if let Some(speech) = self.scene.speech(reply) {
            self.line.plays += 1;
            self.scene.speeches[speech].plays += 1;
            self.scene.speeches[speech].played_as = self.line.plays;
            self.play_from(speech, 0);
        }
    }

    pub(super) fn resume_playing(&mut self, reply: ReplyId, from_ms: u32) {
        if let Some(speech) = self.scene.speech(reply) {
            self.scene.speeches[speech].resumes += 1;
            self.play_from(speech, from_ms);
        }
    }

    fn play_from(&mut self, speech: usize, from_ms: u32) {
        if !self.scene.media || self.scene.speeches[speech].cancelled_at.is_some() {
            return;
        }
        self.line.queue.push_back(Stream { speech, pos_ms: from_ms, next_mark_ms: from_ms, since: None });
        self.run_line();
    }

    pub(super) fn play_canned(&mut self, reply: ReplyId) {
        let apology = self.plan_phrases().apology.clone();
        self.new_speech(reply);
        let Some(at) = self.scene.speech(reply) else { return };
        let speech = &mut self.scene.speeches[at];
        let ms = |byte: usize| CANNED_MS * byte as u32 / apology.len() as u32;
        let ends = apology.match_indices(' ').map(|(at, _)| at).chain([apology.len()]);
        speech.spans = ends.map(|end_byte| Span { end_ms: ms(end_byte), end_byte }).collect();
        speech.canned = true;
        speech.text = apology;
        speech.apology = true;
        speech.last_words = true;
        speech.planned_ms = CANNED_MS;
        speech.made_ms = CANNED_MS;
        speech.finished = true;
        speech.complete = true;
        self.deliver(Fact::Ours, Input::Synthesized { reply, ms: CANNED_MS, done: true });
        self.play(reply);
    }

    pub(super) fn pause_line(&mut self) {
        self.run_line();
        self.line.queue.clear();
        self.line.epoch += 1;
        self.hush();
    }

    pub(super) fn cancel_on_line(&mut self, speech: usize) {
        self.run_line();
        self.scene.speeches[speech].cancelled_at.get_or_insert(self.scene.now);
        self.line.queue.retain(|s| s.speech != speech);
        self.run_line();
    }

    /// Media broke off: what was on its way to the caller is lost too.
    pub(super) fn lose_line(&mut self) {
        self.run_line();
        let down_ms = self.scene.options.line.down_ms;
        if let Some(speech) = self.scene.audible.map(|at| &mut self.scene.speeches[at]) {
            speech.heard_to_ms = speech.heard_to_ms.saturating_sub(down_ms);
        }
        self.line.queue.clear();
        self.line.epoch += 1;
        self.hush();
    }

    pub(super) fn mark_is_void(&self, epoch: u32, speech: usize) -> bool {
        epoch != self.line.epoch || self.scene.speeches[speech].cancelled_at.is_some()
    }

    /// Brings what is played up to the present.
    pub(super) fn run_line(&mut self) {
        let now = self.scene.now;
        let mut start = now;
        while let Some(stream) = self.line.queue.front_mut() {
            let at = stream.speech;
            let speech = &self.scene.speeches[at];
            let (made_ms, complete) = (speech.made_ms, speech.complete);
            let since = match stream.since {
                Some(since) => since,
                None if made_ms > stream.pos_ms || complete => {
                    stream.since = Some(start);
                    start
                }
                None => {
                    self.hush();
                    return;
                }
            };
            let from_ms = stream.pos_ms;
            let to_ms = from_ms.saturating_add(now.since_ms(since)).min(made_ms.max(from_ms));
            let marks = stream.next_mark_ms;
            let every_ms = self.scene.options.line.mark_every_ms;
            stream.pos_ms = to_ms;
            let reached = since.plus_ms(to_ms - from_ms);
            stream.since = Some(reached);
            let mut mark_ms = marks;
            while mark_ms <= to_ms && mark_ms < made_ms {
                mark_ms += every_ms;
            }
            stream.next_mark_ms = mark_ms;
            let next_stop = mark_ms.min(made_ms);
            let mut passed = marks;
            while passed <= to_ms && passed < made_ms {
                self.mark(at, since.plus_ms(passed.saturating_sub(from_ms)), passed, false);
                passed += every_ms;
            }
            if made_ms > from_ms {
                self.hear(at, from_ms, to_ms);
            }
            if to_ms < made_ms {
                self.wake_line(reached.plus_ms(next_stop.max(to_ms + 1) - to_ms));
                return;
            }
            if !complete {
                if let Some(stream) = self.line.queue.front_mut() {
                    stream.since = None;
                }
                self.hush();
                return;
            }
            self.line.queue.pop_front();
            self.mark(at, reached, made_ms, true);
            start = reached;
        }
        self.hush();
    }

    fn wake_line(&mut self, at: CallTime) {
        if self.line.wake_at.is_none_or(|planned| at < planned || planned <= self.scene.now) {
            self.line.wake_at = Some(at);
            self.agenda.plan(at, Event::Line);
        }
    }

    fn mark(&mut self, speech: usize, at: CallTime, ms: u32, done: bool) {
        let line = &self.scene.options.line;
        let trip_ms = line.down_ms + line.up_ms;
        let (lost, late) = (line.marks_lost, line.marks_late);
        if self.fault(lost) {
            self.scene.faults.line = Some(self.scene.now);
            return;
        }
        let late_ms = if self.fault(late) { self.dice.between(50, 2_000) } else { 0 };
        let epoch = self.line.epoch;
        self.agenda
            .plan(at.plus_ms(trip_ms + late_ms).max(self.scene.now), Event::Mark { epoch, speech, ms, done });
    }

    /// The caller hears a piece of a reply, a little later than it is played.
    fn hear(&mut self, at: usize, from_ms: u32, to_ms: u32) {
        let heard_at = self.scene.now.plus_ms(self.scene.options.line.down_ms);
        let speech = &mut self.scene.speeches[at];
        if speech.first_heard_at.is_none() {
            speech.first_heard_at = Some(heard_at);
            if let Some(ask) = speech.ask {
                self.scene.asks[ask].heard = true;
            }
        }
        // A node that stalls learns too late that media was lost, and goes on too far ahead.
        let seam_ms = SEAM_MS + self.scene.options.node.stall_ms;
        let speech = &mut self.scene.speeches[at];
        if from_ms <= speech.heard_to_ms + seam_ms {
            speech.heard_to_ms = speech.heard_to_ms.max(to_ms);
        }
        speech.heard_ms += to_ms - from_ms;
        speech.last_heard_at = heard_at;
        if to_ms > from_ms {
            self.observe(&Seen::Heard { speech: at, from_ms, to_ms });
        }
        if self.scene.audible != Some(at) {
            let silent_before = self.scene.audible.replace(at).is_none();
            self.tell(|w| format!("the caller hears reply {}", w.scene.speeches[at].reply.0));
            if silent_before {
                self.agent_became_audible();
            }
        }
        self.scene.queued = self.line.queue.len();
    }

    fn hush(&mut self) {
        self.scene.queued = self.line.queue.len();
        if self.scene.audible.take().is_some() {
            self.tell(|_| "the agent is silent".into());
            self.agent_fell_silent();
        }
    }
}

impl Scene {
    /// Nothing is being played and nothing will be.
    pub fn line_is_idle(&self) -> bool {
        self.audible.is_none() && self.queued == 0
    }
}
