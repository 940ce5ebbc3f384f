//! What is true in a simulated call, whatever the machine believes: what was really said, played and heard. Checkers read
//! it and compare; it judges nothing.

use super::options::{Anchors, Options};
use offhook_core::call::{AskId, CallTime, ReplyId, SttId, ToolId};
use offhook_core::{ChatMessage, ToolRequest};
use std::sync::Arc;

/// The truth about one call.
#[derive(Debug)]
pub struct Scene {
    /// What the seed stands for.
    pub options: Options,
    /// The clock.
    pub now: CallTime,
    /// Which node the machine runs on: 0, then one more for every death.
    pub node: u16,
    /// The node is alive.
    pub alive: bool,
    /// Media flows between the carrier and the node.
    pub media: bool,
    /// When the call ended at the carrier.
    pub over_at: Option<CallTime>,
    /// When the caller hung up.
    pub caller_left_at: Option<CallTime>,
    /// A person or the platform ended the call.
    pub end_ordered: bool,
    /// Everything given to a voice.
    pub speeches: Vec<Speech>,
    /// The speech that can be heard now.
    pub audible: Option<usize>,
    /// What will be played after what is playing.
    pub queued: usize,
    /// Everything the caller said.
    pub words: Vec<Word>,
    /// The caller is in the middle of an utterance.
    pub caller_talks: bool,
    /// When the caller's last utterance ended.
    pub caller_stopped_at: CallTime,
    /// The voice detector takes the caller to be making a sound.
    pub sound_reported: bool,
    /// Every request to a model.
    pub asks: Vec<Asked>,
    /// Every use of a tool.
    pub tools: Vec<ToolUse>,
    /// Which recogniser's session is live.
    pub stt: Option<SttId>,
    /// Keys the caller pressed.
    pub keys: String,
    /// When a fault last struck each of these.
    pub faults: Faults,
    /// Media has flowed before.
    pub connected: bool,
    pub(super) was_up: bool,
}

/// When each kind of thing last failed.
#[derive(Debug, Default)]
pub struct Faults {
    /// A recogniser.
    pub hearing: Option<CallTime>,
    /// A model.
    pub model: Option<CallTime>,
    /// A voice.
    pub voice: Option<CallTime>,
    /// The line, or the node.
    pub line: Option<CallTime>,
}

/// A reply as the voice made it and as the caller heard it.
#[derive(Debug)]
pub struct Speech {
    /// The node that ordered it.
    pub node: u16,
    /// The machine's name for it.
    pub reply: ReplyId,
    /// All clauses joined.
    pub text: String,
    /// When each word is spoken.
    pub spans: Vec<Span>,
    /// How long the audio of the text so far will be.
    pub planned_ms: u32,
    /// How much audio there is.
    pub made_ms: u32,
    /// The voice was told that the text is complete.
    pub finished: bool,
    /// No more audio will come.
    pub complete: bool,
    /// It was cancelled.
    pub cancelled_at: Option<CallTime>,
    /// How often it was ordered to be played from its beginning.
    pub plays: u32,
    /// Which one of all it was when it was first ordered to be played.
    pub played_as: usize,
    /// How often it was gone on with.
    pub resumes: u32,
    /// The beginning of it that has been heard without a gap.
    pub heard_to_ms: u32,
    /// All that has been heard of it, repetitions counted.
    pub heard_ms: u32,
    /// When its first sample was heard.
    pub first_heard_at: Option<CallTime>,
    /// When it was last heard.
    pub last_heard_at: CallTime,
    /// The request that wrote it, in [`Scene::asks`].
    pub ask: Option<usize>,
    /// Its audio was at hand.
    pub canned: bool,
    /// It is one of the plan's fillers.
    pub filler: bool,
    /// It is the plan's apology.
    pub apology: bool,
    /// It is the plan's goodbye or apology.
    pub last_words: bool,
    pub(super) told_ms: u32,
    pub(super) session: u32,
    pub(super) anchored: usize,
    /// Its voice makes no audio and does not say so.
    pub stalled: bool,
    /// Its voice says that it is done and has made no audio.
    pub mute: bool,
    pub(super) working: bool,
}

/// A spoken word.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// When it ends in the reply's audio.
    pub end_ms: u32,
    /// Where it ends in the reply's text.
    pub end_byte: usize,
}

/// How far beyond what was heard an estimate may reach when the voice tells nothing of its progress through the text.
pub const ESTIMATE_MS: u32 = 350;

impl Speech {
    /// How much of the text a listener knows who heard the first `ms`, in bytes.
    pub fn bytes_by(&self, ms: u32) -> usize {
        let words = self.spans.partition_point(|s| s.end_ms <= ms);
        if words == 0 { 0 } else { self.spans[words - 1].end_byte }
    }

    /// How much of the text may be claimed to have been heard, in bytes, when silence is reported so late.
    pub fn claimable(&self, options: &Options, late_ms: u32) -> usize {
        let broke_off = self.complete && self.made_ms < self.planned_ms;
        let exact = options.voice.anchors == Anchors::Words && !self.canned && !broke_off;
        let slack_ms = if exact { 0 } else { ESTIMATE_MS };
        self.bytes_by(self.heard_to_ms + slack_ms + late_ms)
    }

    /// All of it was heard.
    pub fn is_heard_out(&self) -> bool {
        self.complete && self.heard_to_ms >= self.made_ms
    }
}

/// A word of the caller.
#[derive(Clone, Debug)]
pub struct Word {
    /// As a recogniser would write it.
    pub text: String,
    /// When it begins.
    pub start: CallTime,
    /// When it ends.
    pub end: CallTime,
}

/// A request to a model.
#[derive(Debug)]
pub struct Asked {
    /// The node that asked.
    pub node: u16,
    /// The machine's name for it.
    pub ask: AskId,
    /// Which model of the plan was asked.
    pub provider: u8,
    /// What it was shown.
    pub messages: Arc<[ChatMessage]>,
    /// When.
    pub at: CallTime,
    /// What it will answer.
    pub text: String,
    /// The tools it will want.
    pub tools: Vec<ToolRequest>,
    /// It has answered, failed or been cancelled.
    pub over: bool,
    /// It was cancelled.
    pub cancelled: bool,
    /// It failed or stalled by itself.
    pub failed: bool,
    /// Something of what it wrote was heard.
    pub heard: bool,
    pub(super) sent: usize,
    pub(super) ends: Ends,
    pub(super) endless: bool,
}

/// How a model's answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    Well,
    FailsAt(usize),
    StallsAt(usize),
}

/// A use of a tool.
#[derive(Debug)]
pub struct ToolUse {
    /// The node that ran it.
    pub node: u16,
    /// The machine's name for it.
    pub tool: ToolId,
    /// Its arguments; no two requests have the same.
    pub arguments: String,
    /// The first result, once it was delivered.
    pub result: Option<(CallTime, String)>,
    /// When it was run.
    pub at: CallTime,
}

impl Asked {
    /// The caller's words that it was to answer hold this one.
    pub fn was_told(&self, word: &str) -> bool {
        self.messages.iter().any(|m| matches!(m, ChatMessage::User { text } if text.contains(word)))
    }
}

impl Scene {
    pub(super) fn new(options: Options) -> Scene {
        Scene {
            options,
            now: CallTime::ZERO,
            node: 0,
            alive: true,
            media: false,
            over_at: None,
            caller_left_at: None,
            end_ordered: false,
            speeches: Vec::with_capacity(16),
            audible: None,
            queued: 0,
            words: Vec::with_capacity(64),
            caller_talks: false,
            caller_stopped_at: CallTime::ZERO,
            sound_reported: false,
            asks: Vec::with_capacity(16),
            tools: Vec::new(),
            stt: None,
            keys: String::new(),
            faults: Faults::default(),
            connected: false,
            was_up: false,
        }
    }

    /// Nothing fails any more.
    pub fn is_calm(&self) -> bool {
        self.now.as_ms() >= u64::from(self.options.calm_at_ms)
    }

    /// The speech that the machine means by a reply.
    pub fn speech(&self, reply: ReplyId) -> Option<usize> {
        self.speeches.iter().rposition(|s| s.reply == reply && s.node == self.node)
    }

    /// The request that the machine means.
    pub fn asked(&self, ask: AskId) -> Option<usize> {
        self.asks.iter().rposition(|a| a.ask == ask && a.node == self.node)
    }

    /// The agent is saying its last words, or has decided to.
    pub fn takes_leave(&self) -> bool {
        let decided = |a: &Asked| a.over && !a.cancelled && a.tools.iter().any(|t| t.name == "hang_up");
        self.asks.last().is_some_and(decided)
            || self.speeches.iter().any(|s| s.last_words && s.cancelled_at.is_none())
    }

    /// The agent leaves whatever the caller says: it apologises, or the longest duration is over.
    pub fn has_to_leave(&self) -> bool {
        self.now.as_ms() >= u64::from(self.options.plan.max_duration_ms)
            || self.speeches.iter().any(|s| s.apology && s.cancelled_at.is_none())
    }
}
