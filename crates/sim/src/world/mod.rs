//! Ring 1: whole calls from a seed, with the real machine in the middle and everything around it simulated: line, caller,
//! voice detector, recogniser, models, voices, tools, and the node that may die. It knows no socket, no thread and no wall
//! clock; one seed is one call for ever, and the simulated caller's ear is the judge ([`crate::checkers`]).

mod agenda;
mod caller;
mod dice;
mod hearing;
mod line;
mod model;
mod node;
mod options;
mod plant;
mod scene;
mod tool;
mod voice;
pub mod words;

pub(crate) use options::Condition;
pub use options::Options;
pub use plant::Plant;
pub use scene::{Asked, ESTIMATE_MS, Faults, Scene, Span, Speech, ToolUse, Word};

use crate::checkers::{Checkers, Complaint, Seen};
use agenda::Agenda;
use dice::Dice;
use node::Node;
use offhook_core::call::{
    Ability, AbilityKind, Anchor, AskId, CallPlan, CallTime, Command, EndedReason, Fallback, Greeting, Input,
    Opening, Phrases, Recording, ReplyId, SttId, Timer, Timing, ToolId, Voicemail, log,
};
use offhook_core::{Language, ToolSpec};
use options::GreetingKind;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a simulated call went.
#[derive(Debug)]
pub struct Outcome {
    /// What happened in it.
    pub stats: Stats,
    /// What a checker found, if anything.
    pub finding: Option<Finding>,
}

/// Figures of one call, or of many added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls.
    pub calls: u64,
    /// Facts handled by the machine.
    pub inputs: u64,
    /// Orders it gave.
    pub orders: u64,
    /// Simulated time, in ms.
    pub call_ms: u64,
    /// Turns of callers.
    pub turns: u64,
    /// Time from the end of the caller's speech to the answer being heard, all turns added up, in ms.
    pub gap_ms: u64,
    /// Requests to models.
    pub asks: u64,
    /// Answers prepared and thrown away.
    pub thrown_away: u64,
    /// Times that the agent fell silent because of a sound.
    pub pauses: u64,
    /// Tools run.
    pub tools: u64,
    /// Times that another node took over.
    pub takeovers: u64,
    /// Facts that came for things that were no more.
    pub dropped: u64,
    /// How the calls ended, by [`EndedReason`] in its order.
    pub ended: [u64; 18],
}

/// What a checker found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The seed of the call.
    pub seed: u64,
    /// Which checker.
    pub checker: &'static str,
    /// What it says.
    pub complaint: String,
    /// When in the call.
    pub at: CallTime,
    /// What the seed stands for.
    pub options: String,
    /// What happened up to then, line by line.
    pub trace: Vec<String>,
}

/// How many lines of the trace a finding shows.
const SHOWN_LINES: usize = 60;

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} at {} ms: {}: {}", self.seed, self.at.as_ms(), self.checker, self.complaint)?;
        writeln!(f, "{}", self.options)?;
        for line in &self.trace[self.trace.len().saturating_sub(SHOWN_LINES)..] {
            writeln!(f, "{line}")?;
        }
        write!(f, "the whole story: offhook simulate --explain {}", self.seed)
    }
}

/// Every so many seeds the log is folded again.
const REPLAY_EVERY: u64 = 16;

/// Runs one call. A finding is run once more so that it comes with its trace.
pub fn run(seed: u64, plant: Plant) -> Outcome {
    let replays = plant == Plant::ForgetfulLog || seed.is_multiple_of(REPLAY_EVERY);
    let mut outcome = run_guarded(seed, plant, replays, false).0;
    if outcome.finding.is_some() {
        let (again, trace) = run_guarded(seed, plant, replays, true);
        outcome = again;
        if let Some(finding) = &mut outcome.finding {
            finding.trace = trace;
        }
    }
    outcome
}

/// Runs many calls one after the other and adds up their figures; `on_progress` is told after each, and may end it by `false`.
pub fn run_many(seeds: Range<u64>, mut on_progress: impl FnMut(u64, &Outcome) -> bool) -> Stats {
    let mut sum = Stats::default();
    for seed in seeds {
        let outcome = run(seed, Plant::Nothing);
        sum.add(&outcome.stats);
        if !on_progress(seed, &outcome) {
            break;
        }
    }
    sum
}

/// Tells a call as a story: who said what when, what was heard of it, and how it ended.
pub fn explain(seed: u64) -> String {
    let (outcome, trace) = run_guarded(seed, Plant::Nothing, true, true);
    let mut story = format!("Call of seed {seed}\n\n{}\n\n", Options::of(seed));
    for line in trace.iter().filter(|line| !line.contains(" | ")) {
        story.push_str(line);
        story.push('\n');
    }
    if let Some(finding) = outcome.finding {
        story.push_str(&format!("\nfound by {}: {}\n", finding.checker, finding.complaint));
    }
    story
}

fn run_guarded(seed: u64, plant: Plant, replays: bool, traces: bool) -> (Outcome, Vec<String>) {
    let options = Options::of(seed);
    let printed = if traces { options.to_string() } else { String::new() };
    let mut trace = Vec::new();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, options, plant, replays, traces.then_some(&mut trace));
        world.run();
        (world.stats, world.complaint.map(|c| (c, world.scene.now)))
    }));
    let (stats, complaint) = result.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without words");
        let complaint = Complaint { checker: "no_panic", text: format!("the machine panicked: {said}") };
        (Stats { calls: 1, ..Stats::default() }, Some((complaint, CallTime::ZERO)))
    });
    let finding = complaint.map(|(complaint, at)| Finding {
        seed,
        checker: complaint.checker,
        complaint: complaint.text,
        at,
        options: printed,
        trace: Vec::new(),
    });
    (Outcome { stats, finding }, trace)
}

/// Something that will happen.
#[derive(Debug)]
enum Event {
    Tick,
    /// A fact on its way, from a thing that lives and dies with the node.
    Later {
        node: u16,
        input: Box<Input>,
    },
    /// A fact that the carrier reports to whatever node there is.
    Carrier(Box<Input>),
    MediaFlows,
    MediaLost,
    MediaEnds {
        ordered: bool,
    },
    Line,
    Mark {
        epoch: u32,
        speech: usize,
        ms: u32,
        done: bool,
    },
    SoundBegins,
    SoundEnds,
    Detect,
    SttOpens(u32),
    SttInterim {
        until: CallTime,
    },
    SttEndpoint {
        silent_since: CallTime,
    },
    SttEager {
        silent_since: CallTime,
    },
    SttFinalizes {
        session: u32,
        up_to: CallTime,
    },
    SttDies(u32),
    Model(usize),
    Voice(usize),
    VoiceFails(u32),
    Tool(usize),
    Caller(caller::Act),
    NodeDies,
    NodeTakesOver,
    NodeStalls,
    NodeGoesOn,
}

/// Who reports a fact.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fact {
    /// Something of the node: if the node is dead, nobody.
    Ours,
    /// The carrier, which tries again.
    Carrier,
}

/// One call with everything around it.
struct World<'t> {
    scene: Scene,
    agenda: Agenda<Event>,
    dice: Dice,
    node: Node,
    line: line::Line,
    hearing: hearing::Hearing,
    voice: voice::Voice,
    caller: caller::Caller,
    first_thing: usize,
    things: usize,
    requests: u32,
    results: u32,
    inbox: VecDeque<Input>,
    handling: bool,
    stalled: bool,
    /// What the machine waits for.
    due: Option<(CallTime, Timer)>,
    tick_at: Option<CallTime>,
    idle_ticks: u32,
    out: Vec<Command>,
    checkers: Checkers,
    complaint: Option<Complaint>,
    stats: Stats,
    trace: Option<&'t mut Vec<String>>,
}

/// A call that lasts so long does not end.
const LONGEST_MS: u64 = 8 * 60_000;
/// No caller has more patience.
const CALLER_STAYS_MS: u64 = 4 * 60_000;
/// How long a node takes to notice that it is to try again.
const RETRY_MS: u32 = 200;
/// So many ticks at which nothing was due are a loop.
const IDLE_TICKS: u32 = 50;

impl<'t> World<'t> {
    fn new(
        seed: u64,
        options: Options,
        plant: Plant,
        replays: bool,
        trace: Option<&'t mut Vec<String>>,
    ) -> Self {
        let mut dice = Dice::new(seed, 1);
        let plan = plan(&options.plan);
        let dies = !options.node.dies_at_ms.is_empty();
        let mut out = Vec::with_capacity(16);
        let node = Node::start(plan, plant, dies, replays, &mut out);
        let caller = caller::Caller::new(options.caller.turns, dice.between(0, 60) as usize);
        let first_thing = dice.between(0, 90) as usize;
        let mut world = World {
            scene: Scene::new(options),
            agenda: Agenda::new(),
            dice,
            node,
            line: line::Line::default(),
            hearing: hearing::Hearing::default(),
            voice: voice::Voice::default(),
            caller,
            first_thing,
            things: 0,
            requests: 0,
            results: 0,
            inbox: VecDeque::new(),
            handling: false,
            stalled: false,
            due: None,
            tick_at: None,
            idle_ticks: 0,
            out: Vec::new(),
            checkers: Checkers::default(),
            complaint: None,
            stats: Stats { calls: 1, ..Stats::default() },
            trace,
        };
        world.carry_out(&mut out);
        world.out = out;
        world.settle_inbox();
        world.plan_fate();
        world
    }

    /// Plans what does not depend on anything.
    fn plan_fate(&mut self) {
        let o = &self.scene.options;
        let ms = CallTime::from_ms;
        self.agenda.plan(ms(o.line.rings_ms.into()), Event::MediaFlows);
        self.agenda.plan(ms(CALLER_STAYS_MS), Event::Caller(caller::Act::HangUp));
        if let Some(at) = o.caller.hangs_up_at_ms {
            self.agenda.plan(ms(at.into()), Event::Caller(caller::Act::HangUp));
        }
        if let Some(at) = o.caller.ordered_end_at_ms {
            self.agenda.plan(ms(at.into()), Event::Carrier(Box::new(Input::HangUpOrdered)));
        }
        if let Some(at) = o.line.ends_at_ms {
            self.agenda.plan(ms(at.into()), Event::MediaEnds { ordered: false });
        }
        if let Some(at) = o.node.stalls_at_ms {
            self.agenda.plan(ms(at.into()), Event::NodeStalls);
        }
        if let Some(at) = o.line.media_lost_at_ms {
            self.agenda.plan(ms(at.into()), Event::MediaLost);
        }
        for at in &o.node.dies_at_ms {
            self.agenda.plan(ms((*at).into()), Event::NodeDies);
        }
    }

    fn run(&mut self) {
        self.due = self.node.call.deadline();
        self.plan_tick();
        while let Some((at, event)) = self.agenda.next() {
            self.scene.now = at;
            self.happen(event);
            self.plan_tick();
            if self.complaint.is_some() {
                break;
            }
            if self.node.call.is_finished() && self.scene.alive {
                break;
            }
            if at.as_ms() > LONGEST_MS {
                self.complain("liveness", "the call never ends".into());
                break;
            }
        }
        self.finish();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick => self.tick(),
            // A second copy that comes when media is down again would not be nonsense but a lie.
            Event::Later { input, .. } if *input == Input::Connected && !self.scene.media => {}
            Event::Later { node, input } if node == self.scene.node => self.deliver(Fact::Ours, *input),
            Event::Later { .. } => {}
            Event::Carrier(input) => self.deliver(Fact::Carrier, *input),
            Event::MediaFlows => self.media_begins(),
            Event::MediaLost => self.media_breaks(),
            Event::MediaEnds { ordered } => self.carrier_ends(ordered),
            Event::Line => {
                self.line_wakes();
            }
            Event::Mark { epoch, speech, ms, done } => {
                if !self.mark_is_void(epoch, speech) {
                    let reply = self.scene.speeches[speech].reply;
                    self.deliver(Fact::Ours, Input::Played { reply, ms, done });
                }
            }
            Event::SoundBegins => self.sound_begins(),
            Event::SoundEnds => self.sound_ends(),
            Event::Detect => self.detect(),
            Event::SttOpens(session) => self.stt_opens(session),
            Event::SttInterim { until } => self.stt_interim(until),
            Event::SttEndpoint { silent_since } => self.stt_endpoint(silent_since),
            Event::SttEager { silent_since } => self.stt_eager(silent_since),
            Event::SttFinalizes { session, up_to } => self.stt_finalizes(session, up_to),
            Event::SttDies(session) => self.stt_dies(session),
            Event::Model(at) => self.model_works(at),
            Event::Voice(at) => self.voice_works(at),
            Event::VoiceFails(session) => self.voice_fails(session),
            Event::Tool(at) => self.tool_answers(at),
            Event::Caller(act) => self.caller_acts(act),
            Event::NodeDies => self.node_dies(),
            Event::NodeTakesOver => self.node_takes_over(),
            Event::NodeStalls => self.node_stalls(),
            Event::NodeGoesOn => {
                self.stalled = false;
                self.settle_inbox();
            }
        }
    }

    // ---- the carrier's side of the call ------------------------------------------------------------------------

    fn media_begins(&mut self) {
        if self.scene.over_at.is_some() || self.scene.media {
            return;
        }
        if !self.scene.alive {
            self.agenda.plan(self.scene.now.plus_ms(RETRY_MS), Event::MediaFlows);
            return;
        }
        self.scene.media = true;
        self.media_flows();
        self.deliver(Fact::Ours, Input::Connected);
        if !std::mem::replace(&mut self.scene.connected, true) {
            self.caller_is_connected();
        }
    }

    fn media_breaks(&mut self) {
        if !self.scene.media || self.scene.over_at.is_some() {
            return;
        }
        self.tell(|_| "media is lost".into());
        self.scene.faults.line = Some(self.scene.now);
        self.lose_line();
        self.media_ebbs();
        self.scene.media = false;
        self.deliver(Fact::Ours, Input::MediaLost);
        if let Some(ms) = self.scene.options.line.media_back_ms {
            self.agenda.plan(self.scene.now.plus_ms(ms), Event::MediaFlows);
        }
    }

    fn caller_hangs_up(&mut self) {
        if self.scene.over_at.is_some() {
            return;
        }
        self.tell(|_| "the caller hangs up".into());
        self.scene.caller_left_at = Some(self.scene.now);
        let media = self.scene.media;
        self.end_media();
        let report_ms = self.dice.between(0, 400);
        if media && self.dice.happens(300) {
            let ms = self.dice.between(0, 300);
            self.plan_fact(self.scene.now.plus_ms(ms), Input::MediaLost);
        }
        self.agenda.plan(
            self.scene.now.plus_ms(report_ms),
            Event::Carrier(Box::new(Input::HungUp { by_caller: true })),
        );
    }

    /// The carrier ends the call; when we ordered it, it may forget to say so.
    fn carrier_ends(&mut self, ordered: bool) {
        if self.scene.over_at.is_some() {
            return;
        }
        self.end_media();
        let unreported = self.scene.options.line.end_unreported;
        if !ordered || !self.fault(unreported) {
            let ms = self.dice.between(5, 300);
            self.agenda.plan(
                self.scene.now.plus_ms(ms),
                Event::Carrier(Box::new(Input::HungUp { by_caller: false })),
            );
        }
    }

    fn end_media(&mut self) {
        if self.scene.media {
            self.lose_line();
            self.media_ebbs();
            self.scene.media = false;
        }
        self.scene.over_at = Some(self.scene.now);
    }

    fn line_wakes(&mut self) {
        self.line.forget_wake();
        self.run_line();
    }

    // ---- the driver --------------------------------------------------------------------------------------------

    /// A fact reaches the machine; what comes while it is at work waits its turn.
    fn deliver(&mut self, from: Fact, input: Input) {
        if !self.scene.alive {
            if from == Fact::Carrier {
                self.agenda.plan(self.scene.now.plus_ms(RETRY_MS), Event::Carrier(Box::new(input)));
            }
            return;
        }
        let (repeats, nonsense) = (self.scene.options.line.repeats, self.scene.options.line.nonsense);
        if may_come_twice(&input) && self.fault(repeats) {
            let ms = self.dice.between(0, 500);
            self.plan_fact(self.scene.now.plus_ms(ms), input.clone());
        }
        self.inbox.push_back(input);
        if self.fault(nonsense) {
            let nonsense = self.nonsense();
            self.inbox.push_back(nonsense);
        }
        if !self.handling && !self.stalled {
            self.settle_inbox();
        }
    }

    /// A fact about something that never was, or that says nothing.
    fn nonsense(&mut self) -> Input {
        let number = 10_000 + self.dice.between(0, 9);
        let (reply, ask, stt) = (ReplyId(number), AskId(number), SttId(number));
        let text = String::from("\u{fe0f}…，?");
        match self.dice.between(0, 14) {
            0 => Input::Played { reply, ms: u32::MAX, done: true },
            1 => Input::Synthesized { reply, ms: u32::MAX, done: true },
            2 => Input::Aligned { reply, anchors: vec![Anchor { ms: u32::MAX, bytes: u32::MAX }] },
            3 => Input::Token { ask, text },
            4 => Input::AskDone { ask },
            5 => Input::AskFailed { ask, may_pass: false },
            6 => Input::Interim { stt, text, end_ms: u32::MAX },
            7 => Input::Final { stt, text, end_ms: u32::MAX, utterance_end: true },
            8 => Input::UtteranceEnd { stt },
            9 => Input::EagerEnd { stt, text },
            10 => Input::SttFailed { stt, may_pass: false },
            11 => Input::TtsFailed { voice: u8::MAX, may_pass: false },
            12 => Input::ToolDone { tool: ToolId(number), result: text },
            13 => Input::Dtmf { digit: '\u{1f4de}' },
            _ => Input::Tick,
        }
    }

    fn settle_inbox(&mut self) {
        self.handling = true;
        let mut out = std::mem::take(&mut self.out);
        while let Some(input) = self.inbox.pop_front() {
            self.run_line();
            self.stats.inputs += 1;
            self.tell(|_| format!("  | {input:?}"));
            self.observe(&Seen::Fact(&input));
            let ended = self.node.call.ended();
            self.node.handle(self.scene.now, input, &mut out);
            self.carry_out(&mut out);
            self.observe(&Seen::Handled);
            self.due = self.node.call.deadline();
            if ended.is_none()
                && let Some(reason) = self.node.call.ended()
            {
                self.stats.ended[reason_number(reason)] += 1;
                self.tell(|_| format!("the call has ended: {reason:?}"));
                self.observe(&Seen::Ended(reason));
            }
            if self.complaint.is_some() {
                self.inbox.clear();
            }
        }
        self.out = out;
        self.handling = false;
    }

    fn carry_out(&mut self, out: &mut Vec<Command>) {
        let was_handling = std::mem::replace(&mut self.handling, true);
        for command in out.drain(..) {
            self.stats.orders += 1;
            self.observe(&Seen::Order(&command));
            self.tell_order(&command);
            self.execute(command);
        }
        self.handling = was_handling;
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::OpenStt { stt, provider } => self.open_stt(stt, provider),
            Command::Finalize { stt } => self.finalize(stt),
            Command::OpenTts { voice } => self.open_tts(voice),
            Command::Ask { ask, provider, messages } => {
                self.stats.asks += 1;
                self.ask(ask, provider, &messages);
            }
            Command::CancelAsk { ask } => self.cancel_ask(ask),
            Command::Speak { reply, text, .. } => self.speak(reply, &text),
            Command::FinishReply { reply } => self.finish_reply(reply),
            Command::Play { reply } => self.play(reply),
            Command::PausePlayout => {
                self.stats.pauses += 1;
                self.pause_line();
            }
            Command::ResumePlayout { reply, from_ms } => self.resume_playing(reply, from_ms),
            Command::CancelReply { reply } => self.cancel_reply(reply),
            Command::PlayCanned { reply } => self.play_canned(reply),
            Command::RunTool { tool, arguments, .. } => {
                self.stats.tools += 1;
                self.run_tool(tool, &arguments);
            }
            Command::HangUp | Command::Forward { .. } => {
                let ms = self.dice.between(20, 400);
                self.agenda.plan(self.scene.now.plus_ms(ms), Event::MediaEnds { ordered: true });
            }
            Command::Timed(timing) => {
                self.stats.turns += 1;
                self.stats.thrown_away += u64::from(timing.thrown_away);
                self.stats.gap_ms += u64::from(timing.playout.since_ms(timing.speech_end));
            }
            Command::SendDtmf { .. }
            | Command::Note(_)
            | Command::Dial { .. }
            | Command::Tell { .. }
            | Command::DropLeg { .. }
            | Command::Bridge { .. }
            | Command::Tone { .. }
            | Command::Beep { .. }
            | Command::PlayAudio { .. }
            | Command::Record { .. } => {}
        }
    }

    fn plan_tick(&mut self) {
        if !self.scene.alive || self.stalled {
            return;
        }
        let Some((due, _)) = self.due else { return };
        let planned = self
            .tick_at
            .is_some_and(|at| at <= due.plus_ms(self.scene.options.node.tick_late_ms) && at >= due);
        if planned {
            return;
        }
        let late_us = u64::from(self.dice.between(0, self.scene.options.node.tick_late_ms * 1_000));
        let at = CallTime::from_us(due.max(self.scene.now).as_us() + late_us);
        self.tick_at = Some(at);
        self.agenda.plan(at, Event::Tick);
    }

    fn tick(&mut self) {
        if self.tick_at != Some(self.scene.now) {
            return;
        }
        self.tick_at = None;
        if self.stalled || !self.scene.alive {
            return;
        }
        if self.due.is_some_and(|(at, _)| at <= self.scene.now) {
            self.deliver(Fact::Ours, Input::Tick);
            if let Some((_, timer)) = self.due.filter(|(at, _)| *at <= self.scene.now) {
                self.idle_ticks += 1;
                if self.idle_ticks > IDLE_TICKS {
                    self.complain("limits", format!("the timer {timer:?} is due for ever"));
                }
            }
        }
    }

    fn plan_fact(&mut self, at: CallTime, input: Input) {
        self.agenda.plan(at, Event::Later { node: self.scene.node, input: Box::new(input) });
    }

    /// Whether a fault strikes now.
    fn fault(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && !self.scene.is_calm() && self.dice.happens(per_mille)
    }

    fn agent_word(&mut self) -> String {
        self.things += 1;
        words::thing(self.first_thing + self.things)
    }

    fn plan_phrases(&self) -> &Phrases {
        &self.node.call.plan().phrases
    }

    // ---- judging and telling -----------------------------------------------------------------------------------

    fn observe(&mut self, seen: &Seen<'_>) {
        if self.complaint.is_none()
            && let Err(complaint) = self.checkers.see(&self.scene, seen)
        {
            self.complaint = Some(complaint);
        }
    }

    fn complain(&mut self, checker: &'static str, text: String) {
        self.complaint.get_or_insert(Complaint { checker, text });
    }

    fn finish(&mut self) {
        self.stats.call_ms = self.scene.now.as_ms();
        self.stats.dropped = u64::from(self.node.call.dropped());
        if self.complaint.is_none() {
            let lines = self.node.call.transcript();
            self.observe(&Seen::Over { lines: &lines, ended: self.node.call.ended() });
        }
        if self.complaint.is_none()
            && let Err(text) = self.node.replays_identically()
        {
            self.complain("replay", text);
        }
    }

    fn tell(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>8} {}", self.scene.now.as_ms(), what(self));
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
    }

    fn tell_order(&mut self, command: &Command) {
        if self.trace.is_none() {
            return;
        }
        match command {
            Command::Speak { reply, text, .. } => self.tell(|_| format!("  | -> speak {}: {text}", reply.0)),
            Command::Note(line) => {
                let cut = if line.cut { " [cut]" } else { "" };
                self.tell(|_| format!("noted {} {:?}: {}{cut}", line.number, line.speaker, line.text));
            }
            Command::Ask { ask, messages, .. } => {
                let last = messages.last();
                self.tell(|_| {
                    format!("  | -> ask {} with {} messages, last {last:?}", ask.0, messages.len())
                });
            }
            other => self.tell(|_| format!("  | -> {}", log::summary(std::slice::from_ref(other)))),
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.call_ms / 3_600_000;
        writeln!(
            f,
            "{} calls, {hours} h of calls, {} facts, {} orders",
            self.calls, self.inputs, self.orders
        )?;
        writeln!(
            f,
            "{} turns, answered after {} ms on average, {} requests to models, {} head starts thrown away, {} pauses, {} tools, {} takeovers",
            self.turns,
            self.gap_ms / self.turns.max(1),
            self.asks,
            self.thrown_away,
            self.pauses,
            self.tools,
            self.takeovers
        )?;
        write!(f, "ended by")?;
        for (reason, calls) in REASONS.iter().zip(self.ended).filter(|(_, calls)| *calls > 0) {
            write!(f, " {reason:?} {calls}")?;
        }
        Ok(())
    }
}

impl Stats {
    /// Adds the figures of other calls.
    pub fn add(&mut self, other: &Stats) {
        self.calls += other.calls;
        self.inputs += other.inputs;
        self.orders += other.orders;
        self.call_ms += other.call_ms;
        self.turns += other.turns;
        self.gap_ms += other.gap_ms;
        self.asks += other.asks;
        self.thrown_away += other.thrown_away;
        self.pauses += other.pauses;
        self.tools += other.tools;
        self.takeovers += other.takeovers;
        self.dropped += other.dropped;
        for (sum, more) in self.ended.iter_mut().zip(other.ended) {
            *sum += more;
        }
    }
}

/// Facts of which the machine must take a second copy for nothing.
fn may_come_twice(input: &Input) -> bool {
    matches!(
        input,
        Input::Connected
            | Input::HungUp { .. }
            | Input::Played { .. }
            | Input::SpeechStarted
            | Input::SttOpened { .. }
            | Input::Synthesized { .. }
            | Input::UtteranceEnd { .. }
            | Input::AskDone { .. }
            | Input::AskFailed { .. }
            | Input::SttFailed { .. }
            | Input::Tick
    )
}

/// All reasons in the order of [`Stats::ended`].
pub const REASONS: [EndedReason; 10] = [
    EndedReason::CallerHungUp,
    EndedReason::AgentHungUp,
    EndedReason::Silence,
    EndedReason::MaxDuration,
    EndedReason::ProvidersFailed,
    EndedReason::Forwarded,
    EndedReason::MediaLost,
    EndedReason::NeverConnected,
    EndedReason::Ordered,
    EndedReason::CarrierHungUp,
];

fn reason_number(reason: EndedReason) -> usize {
    REASONS.iter().position(|r| *r == reason).unwrap_or_default()
}

fn plan(options: &options::PlanOptions) -> CallPlan {
    let names = |kind: &str| (0..options.providers).map(|n| format!("{kind}{n}")).collect::<Vec<_>>();
    let ability = |name: &str, kind| Ability {
        spec: ToolSpec { name: name.into(), description: String::new(), parameters: "{}".into() },
        kind,
        timeout_ms: TOOL_TIMEOUT_MS,
        filler: options.tool_fillers.then(|| words::TOOL_FILLER.into()),
    };
    CallPlan {
        instructions: "Be kind.".into(),
        greeting: match options.greeting {
            GreetingKind::Fixed => {
                Greeting::Fixed("Hello, this is the front desk. How can I help you?".into())
            }
            GreetingKind::Written => Greeting::Written,
            GreetingKind::Silent => Greeting::Silent,
        },
        language: Language::english(),
        abilities: vec![
            ability("look_up", AbilityKind::External),
            ability("hang_up", AbilityKind::HangUp),
            ability("send_dtmf", AbilityKind::SendDtmf),
        ],
        stt: names("stt"),
        llm: names("llm"),
        tts: names("tts"),
        timing: Timing { max_duration_ms: options.max_duration_ms, ..Timing::default() },
        phrases: Phrases::default(),
        head_start: options.head_start,
        fallback: if options.forwards {
            Fallback::Forward("+14155550100".parse().expect("a number"))
        } else {
            Fallback::HangUp
        },
        opening: Opening::Agent,
        destinations: Vec::new(),
        voicemail: Voicemail::default(),
        recording: Recording::Off,
    }
}

/// How long a tool may take.
pub(crate) const TOOL_TIMEOUT_MS: u32 = 4_000;
