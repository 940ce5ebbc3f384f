//! What a seed stands for: the habits of the caller, the speed of everything, and which faults may strike how often. Each
//! call has only some of the faults, so that one does not hide another (swarm testing).

use super::dice::Dice;
use std::fmt;

/// The options of one simulated call. Rates are in a thousand; times are in ms.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) plan: PlanOptions,
    pub(crate) caller: CallerOptions,
    pub(crate) line: LineOptions,
    pub(crate) hearing: HearingOptions,
    pub(crate) model: ModelOptions,
    pub(crate) voice: VoiceOptions,
    pub(crate) tool: ToolOptions,
    pub(crate) node: NodeOptions,
    pub(crate) providers: ProviderOptions,
    /// After this moment nothing fails any more.
    pub(crate) calm_at_ms: u32,
}

/// What the number's owner chose.
#[derive(Clone, Debug)]
pub(crate) struct PlanOptions {
    pub(crate) greeting: GreetingKind,
    pub(crate) head_start: bool,
    pub(crate) forwards: bool,
    pub(crate) providers: u32,
    /// Tools have fillers of their own.
    pub(crate) tool_fillers: bool,
    pub(crate) max_duration_ms: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GreetingKind {
    Fixed,
    Written,
    Silent,
}

/// How the caller behaves.
#[derive(Clone, Debug)]
pub(crate) struct CallerOptions {
    pub(crate) turns: u32,
    /// Talks over the agent.
    pub(crate) interrupts: u32,
    /// Hums along.
    pub(crate) backchannels: u32,
    /// Makes noises.
    pub(crate) coughs: u32,
    /// Stops in the middle of a sentence.
    pub(crate) pauses: u32,
    /// Dictates numbers.
    pub(crate) dictates: u32,
    /// Presses keys instead of talking.
    pub(crate) presses: u32,
    /// Says goodbye when done, otherwise hangs up or falls silent.
    pub(crate) goodbye: u32,
    /// Says something after all while the agent says goodbye.
    pub(crate) stays: u32,
    /// A television or music near the phone.
    pub(crate) background: Background,
    pub(crate) hangs_up_at_ms: Option<u32>,
    pub(crate) ordered_end_at_ms: Option<u32>,
}

/// Sound without words that comes again and again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Background {
    /// When it begins; 0: never.
    pub(crate) at_ms: u32,
    /// How long it lasts each time.
    pub(crate) lasts_ms: u32,
    /// The silence before it comes again.
    pub(crate) pause_ms: u32,
}

/// The carrier and the media between it and us.
#[derive(Clone, Debug)]
pub(crate) struct LineOptions {
    pub(crate) rings_ms: u32,
    pub(crate) down_ms: u32,
    pub(crate) up_ms: u32,
    pub(crate) mark_every_ms: u32,
    pub(crate) marks_lost: u32,
    pub(crate) marks_late: u32,
    pub(crate) media_lost_at_ms: Option<u32>,
    pub(crate) media_back_ms: Option<u32>,
    /// The carrier ends the call by itself.
    pub(crate) ends_at_ms: Option<u32>,
    pub(crate) end_unreported: u32,
    /// Facts that come twice.
    pub(crate) repeats: u32,
    /// Facts about things that never were.
    pub(crate) nonsense: u32,
}

/// Voice detector and recogniser.
#[derive(Clone, Debug)]
pub(crate) struct HearingOptions {
    pub(crate) onset_ms: u32,
    pub(crate) hangover_ms: u32,
    pub(crate) missed: u32,
    pub(crate) blips: u32,
    pub(crate) latency_ms: u32,
    pub(crate) silence_ms: u32,
    pub(crate) punctuates: bool,
    pub(crate) ends: EndStyle,
    pub(crate) finalizes: bool,
    pub(crate) finalize_ends: bool,
    pub(crate) eager: bool,
    /// Words after which a final is sent though the caller goes on; 0: never.
    pub(crate) partial_finals: u32,
    pub(crate) late_finals: u32,
    pub(crate) repeated_finals: u32,
    pub(crate) lost_finals: u32,
    pub(crate) no_interims: bool,
    pub(crate) empty_finals: u32,
    pub(crate) wrong_words: u32,
    pub(crate) ghosts: u32,
    pub(crate) opens_badly: u32,
    pub(crate) dies: u32,
    pub(crate) stalls: u32,
}

/// How a recogniser says that an utterance is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndStyle {
    OnFinal,
    Apart,
    Never,
}

/// Language models.
#[derive(Clone, Debug)]
pub(crate) struct ModelOptions {
    pub(crate) first_ms: u32,
    pub(crate) gap_ms: u32,
    pub(crate) chunk_words: u32,
    pub(crate) tools: u32,
    pub(crate) many_tools: u32,
    pub(crate) bad_tools: u32,
    pub(crate) sends_dtmf: u32,
    pub(crate) hangs_up: u32,
    pub(crate) questions: u32,
    pub(crate) slow: u32,
    pub(crate) fails_early: u32,
    pub(crate) fails_late: u32,
    pub(crate) stalls_early: u32,
    pub(crate) stalls_late: u32,
    pub(crate) empty: u32,
    pub(crate) endless: u32,
    pub(crate) dead_tokens: u32,
}

/// Voices.
#[derive(Clone, Debug)]
pub(crate) struct VoiceOptions {
    pub(crate) first_ms: u32,
    /// How much faster than real time, in tenths.
    pub(crate) speed: u32,
    pub(crate) chunk_ms: u32,
    /// Progress is told so often.
    pub(crate) told_every_ms: u32,
    pub(crate) ms_per_byte: u32,
    pub(crate) anchors: Anchors,
    pub(crate) slow: u32,
    pub(crate) stalls: u32,
    pub(crate) fails: u32,
    /// It is done without having made a sound.
    pub(crate) mute: u32,
    /// Audio comes after it has failed.
    pub(crate) late_audio: u32,
}

/// What a voice tells of its progress through the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchors {
    Words,
    Clauses,
    Nothing,
}

/// Tools.
#[derive(Clone, Debug)]
pub(crate) struct ToolOptions {
    pub(crate) slowest_ms: u32,
    pub(crate) never: u32,
    pub(crate) repeats: u32,
}

/// Providers that do not work during the whole call, by their place in the plan.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProviderOptions {
    pub(crate) stt: [Condition; PROVIDERS],
    pub(crate) llm: [Condition; PROVIDERS],
    pub(crate) tts: [Condition; PROVIDERS],
}

/// Providers of one kind at most.
pub(crate) const PROVIDERS: usize = 3;

/// What a provider can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Condition {
    #[default]
    Works,
    /// It fails at once.
    Dead,
    /// It begins well, and breaks off every time.
    BreaksOff,
    /// It listens and never says a word; recognisers only.
    Mute,
}

/// The node that the call runs on.
#[derive(Clone, Debug)]
pub(crate) struct NodeOptions {
    pub(crate) tick_late_ms: u32,
    pub(crate) dies_at_ms: Vec<u32>,
    /// It handles nothing for a while.
    pub(crate) stalls_at_ms: Option<u32>,
    pub(crate) stall_ms: u32,
    pub(crate) away_ms: u32,
    pub(crate) lost_lines: u32,
    pub(crate) never_reconnects: bool,
}

impl Options {
    /// The options that a seed stands for.
    pub fn of(seed: u64) -> Options {
        let d = &mut Dice::new(seed, 0);
        let faulty = d.happens(750);
        let mut options = Options {
            plan: PlanOptions {
                greeting: *d.pick(&[
                    GreetingKind::Fixed,
                    GreetingKind::Fixed,
                    GreetingKind::Fixed,
                    GreetingKind::Written,
                    GreetingKind::Silent,
                ]),
                head_start: d.happens(800),
                forwards: d.happens(400),
                providers: d.between(1, 3),
                tool_fillers: d.happens(300),
                max_duration_ms: if d.happens(100) { d.between(8_000, 40_000) } else { 1_800_000 },
            },
            caller: caller(d),
            line: LineOptions {
                rings_ms: d.between(20, 4_000),
                down_ms: d.between(10, 80),
                up_ms: d.between(10, 80),
                mark_every_ms: *d.pick(&[200, 250, 400, 500]),
                marks_lost: 0,
                marks_late: 0,
                media_lost_at_ms: None,
                media_back_ms: None,
                ends_at_ms: None,
                end_unreported: 0,
                repeats: 0,
                nonsense: 0,
            },
            hearing: hearing(d),
            model: model(d),
            voice: VoiceOptions {
                first_ms: d.between(40, 500),
                speed: d.between(15, 200),
                chunk_ms: *d.pick(&[200, 400, 400, 1_000]),
                told_every_ms: *d.pick(&[0, 500]),
                ms_per_byte: d.between(50, 85),
                anchors: *d.pick(&[Anchors::Words, Anchors::Words, Anchors::Clauses, Anchors::Nothing]),
                slow: 0,
                stalls: 0,
                fails: 0,
                mute: 0,
                late_audio: 0,
            },
            tool: ToolOptions { slowest_ms: d.between(50, 6_000), never: 0, repeats: 0 },
            node: NodeOptions {
                tick_late_ms: d.between(0, 30),
                dies_at_ms: Vec::new(),
                stalls_at_ms: None,
                stall_ms: 0,
                away_ms: d.between(300, 6_000),
                lost_lines: d.between(0, 3),
                never_reconnects: false,
            },
            providers: ProviderOptions::default(),
            calm_at_ms: d.between(15_000, 60_000),
        };
        if faulty {
            options.add_faults(d);
            // A stream of its own, so that what other seeds stand for stays as it is.
            let d = &mut Dice::new(seed, 2);
            options.break_providers(d);
            if d.happens(100) {
                options.voice.mute = *d.pick(&[30, 150, 400]);
            }
            if d.happens(300) {
                options.voice.late_audio = 500;
            }
            if d.happens(200) {
                // Half a second of a model's tokens.
                options.node.lost_lines = d.between(10, 120);
            }
            if d.happens(60) {
                options.caller.background = Background {
                    at_ms: d.between(500, 20_000),
                    lasts_ms: *d.pick(&[1_200, 3_000, 20_000, 300_000]),
                    pause_ms: d.between(3_000, 12_000),
                };
            }
        }
        options
    }

    fn break_providers(&mut self, d: &mut Dice) {
        if !d.happens(150) {
            return;
        }
        let broken = [Condition::Dead, Condition::BreaksOff, Condition::Mute];
        let (kind, broken) = match d.between(0, 2) {
            0 => (&mut self.providers.stt, &broken[..]),
            1 => (&mut self.providers.llm, &broken[..2]),
            _ => (&mut self.providers.tts, &broken[..2]),
        };
        for condition in kind {
            if d.happens(700) {
                *condition = *d.pick(broken);
            }
        }
    }

    fn add_faults(&mut self, d: &mut Dice) {
        // Each kind of fault is there in one call of six, and then it strikes now and then or often.
        let mut rate = || if d.happens(160) { [30, 150, 400][d.between(0, 2) as usize] } else { 0 };
        self.line.marks_lost = rate();
        self.line.marks_late = rate();
        self.line.end_unreported = rate();
        self.line.repeats = rate() / 8;
        self.line.nonsense = rate() / 8;
        self.hearing.missed = rate();
        self.hearing.blips = rate();
        self.hearing.late_finals = rate();
        self.hearing.repeated_finals = rate();
        self.hearing.lost_finals = rate();
        self.hearing.empty_finals = rate();
        self.hearing.wrong_words = rate();
        self.hearing.ghosts = rate() / 4;
        self.hearing.opens_badly = rate();
        self.hearing.dies = rate() / 4;
        self.hearing.stalls = rate() / 4;
        self.model.bad_tools = rate();
        self.model.slow = rate();
        self.model.fails_early = rate();
        self.model.fails_late = rate();
        self.model.stalls_early = rate();
        self.model.stalls_late = rate();
        self.model.empty = rate();
        self.model.endless = rate() / 4;
        self.model.dead_tokens = rate();
        self.voice.slow = rate();
        self.voice.stalls = rate();
        self.voice.fails = rate();
        self.tool.never = rate();
        self.tool.repeats = rate();
        self.hearing.no_interims = d.happens(100);
        if d.happens(100) {
            self.line.media_lost_at_ms = Some(d.between(200, 30_000));
            self.line.media_back_ms = d.happens(800).then(|| d.between(50, 9_000));
        }
        if d.happens(150) {
            let deaths = if d.happens(200) { 2 } else { 1 };
            self.node.dies_at_ms = (0..deaths).map(|_| d.between(10, 40_000)).collect();
            self.node.dies_at_ms.sort_unstable();
            self.node.never_reconnects = d.happens(100);
        }
        if d.happens(80) {
            self.caller.ordered_end_at_ms = Some(d.between(0, 40_000));
        }
        if d.happens(40) {
            self.line.ends_at_ms = Some(d.between(0, 40_000));
        }
        if d.happens(20) {
            self.line.rings_ms = d.between(50_000, 70_000);
        }
        if d.happens(100) {
            self.node.stalls_at_ms = Some(d.between(100, 30_000));
            self.node.stall_ms = d.between(50, 1_500);
        }
    }
}

fn caller(d: &mut Dice) -> CallerOptions {
    let mut habit = |often: u32| if d.happens(300) { often } else { 0 };
    let mut caller = CallerOptions {
        turns: 0,
        interrupts: habit(400),
        backchannels: habit(400),
        coughs: habit(300),
        pauses: habit(500),
        dictates: habit(300),
        presses: habit(200),
        goodbye: 600,
        stays: habit(500),
        background: Background::default(),
        hangs_up_at_ms: None,
        ordered_end_at_ms: None,
    };
    caller.turns = if d.happens(60) { 0 } else { d.between(1, 5) };
    caller.hangs_up_at_ms = d.happens(200).then(|| d.between(0, 40_000));
    caller
}

fn hearing(d: &mut Dice) -> HearingOptions {
    HearingOptions {
        onset_ms: d.between(60, 80),
        hangover_ms: d.between(60, 200),
        missed: 0,
        blips: 0,
        latency_ms: d.between(50, 300),
        silence_ms: *d.pick(&[250, 300, 500, 800, 1_200]),
        punctuates: d.happens(700),
        ends: *d.pick(&[EndStyle::OnFinal, EndStyle::Apart, EndStyle::Never]),
        finalizes: d.happens(750),
        finalize_ends: d.happens(500),
        eager: d.happens(300),
        partial_finals: *d.pick(&[0, 0, 4, 8]),
        late_finals: 0,
        repeated_finals: 0,
        lost_finals: 0,
        no_interims: false,
        empty_finals: 0,
        wrong_words: 0,
        ghosts: 0,
        opens_badly: 0,
        dies: 0,
        stalls: 0,
    }
}

fn model(d: &mut Dice) -> ModelOptions {
    let mut habit = |often: u32| if d.happens(300) { often } else { 0 };
    let (tools, many_tools, sends_dtmf) = (habit(400), habit(500), habit(100));
    ModelOptions {
        first_ms: d.between(80, 900),
        gap_ms: d.between(5, 60),
        chunk_words: d.between(1, 4),
        tools,
        many_tools,
        bad_tools: 0,
        sends_dtmf,
        hangs_up: d.between(0, 30),
        questions: d.between(0, 500),
        slow: 0,
        fails_early: 0,
        fails_late: 0,
        stalls_early: 0,
        stalls_late: 0,
        empty: 0,
        endless: 0,
        dead_tokens: 0,
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan    {:?}", self.plan)?;
        writeln!(f, "caller  {:?}", self.caller)?;
        writeln!(f, "line    {:?}", self.line)?;
        writeln!(f, "hearing {:?}", self.hearing)?;
        writeln!(f, "model   {:?}", self.model)?;
        writeln!(f, "voice   {:?}", self.voice)?;
        writeln!(f, "tool    {:?}", self.tool)?;
        writeln!(f, "node    {:?}", self.node)?;
        writeln!(f, "{:?}", self.providers)?;
        write!(f, "calm after {} ms", self.calm_at_ms)
    }
}
