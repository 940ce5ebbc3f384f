//! Facts by chance, in any order: whatever comes, timers fire, phones that were rung are let go, and nothing is recorded
//! that may not be.

use super::*;
use std::collections::BTreeSet;

/// Enough for every pair of states and facts to meet.
const CALLS: u64 = 3_000;
const FACTS: u32 = 120;

/// Numbers that look like chance and are the same every time (Knuth's MMIX generator).
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(count)) as u32
    }

    fn one_of<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize].clone()
    }

    /// The last id more often than not, or one before it.
    fn near(&mut self, last: u32) -> u32 {
        last.saturating_sub(self.below(6).saturating_sub(3))
    }
}

fn any_plan(dice: &mut Dice) -> CallPlan {
    let mut reach = handoff::reach(&["+14155550101", "+14155550102"]);
    reach.accept = dice.one_of(&[Accept::Pickup, Accept::Key, Accept::KeyOrVoice]);
    reach.brief = dice.one_of(&[None, Some("A caller.".into())]);
    reach.otherwise =
        dice.one_of(&[Otherwise::Agent, Otherwise::Voicemail, Otherwise::Message("Closed.".into())]);
    CallPlan {
        opening: dice.one_of(&[
            Opening::Agent,
            Opening::Agent,
            Opening::Reach(reach.clone()),
            Opening::Member(reach.clone()),
            Opening::Message("Closed.".into()),
            Opening::Voicemail,
        ]),
        greeting: dice.one_of(&[Greeting::Written, Greeting::Silent, Greeting::Fixed("Hello.".into())]),
        recording: dice.one_of(&[
            Recording::Off,
            Recording::On,
            Recording::Never,
            Recording::Announced("Recorded.".into()),
        ]),
        fallback: dice.one_of(&[Fallback::HangUp, Fallback::Voicemail]),
        destinations: vec![Destination { name: "sales".into(), reach, warm: true }],
        tts: vec!["v".into(), "w".into()],
        ..plan()
    }
}

/// The last ids that were given out.
#[derive(Default)]
struct Ids {
    stt: u32,
    reply: u32,
    ask: u32,
    tool: u32,
    leg: u32,
    tell: u32,
}

fn any_fact(dice: &mut Dice, ids: &Ids) -> Input {
    let leg = LegId(dice.near(ids.leg));
    let (stt, ask) = (SttId(dice.near(ids.stt)), AskId(dice.near(ids.ask)));
    let (reply, tell) = (ReplyId(dice.near(ids.reply)), TellId(dice.near(ids.tell)));
    let text: String = dice.one_of(&["Yes.", "no", "I would like to book a table.", ""]).into();
    let digit = dice.one_of(&['1', '5', '#']);
    match dice.below(36) {
        0 | 1 => Input::Connected,
        2 => Input::MediaLost,
        3 => Input::Dtmf { digit },
        4..=6 => Input::Played { reply, ms: dice.below(2_000), done: dice.below(2) == 0 },
        7 => Input::SpeechStarted,
        8 => Input::SpeechStopped { silence_ms: 60 },
        9 | 10 => Input::Final { stt, text, end_ms: dice.below(60_000), utterance_end: true },
        11 => Input::Interim { stt, text, end_ms: dice.below(60_000) },
        12 if dice.below(8) == 0 => Input::SttFailed { stt, may_pass: false },
        13 | 14 => Input::Token { ask, text: "Well, let me see. ".into() },
        15 | 16 => {
            let (name, arguments) = dice.one_of(&[
                ("transfer", r#"{"to": "sales", "summary": "Wants a table."}"#),
                ("transfer", r#"{"to": "sales"}"#),
                ("record", r#"{"on": false}"#),
                ("book", "{}"),
                ("end_call", "{}"),
            ]);
            Input::Tool {
                ask,
                request: ToolRequest { id: "t".into(), name: name.into(), arguments: arguments.into() },
            }
        }
        17 | 18 => Input::AskDone { ask },
        19 if dice.below(4) == 0 => Input::AskFailed { ask, may_pass: true },
        20 | 21 => Input::Synthesized { reply, ms: dice.below(3_000), done: true },
        22 if dice.below(8) == 0 => Input::TtsFailed { voice: dice.below(2) as u8, may_pass: false },
        23 => Input::ToolDone { tool: ToolId(dice.near(ids.tool)), result: "ok".into() },
        24 => Input::LegRinging { leg },
        25 | 26 => Input::LegUp { leg },
        27 => Input::LegDown {
            leg,
            how: dice.one_of(&[
                LegEnd::Busy,
                LegEnd::NoAnswer,
                LegEnd::HungUp,
                LegEnd::Lost,
                LegEnd::Machine,
            ]),
        },
        28 => Input::LegKey { leg, digit },
        29 => Input::LegSaid { leg, text },
        30 => Input::Told { tell },
        31 => Input::TellFailed { tell },
        32 => Input::Bridged { leg },
        33 if dice.below(3) == 0 => Input::BridgeFailed { leg },
        34 if dice.below(3) == 0 => {
            Input::TakeOver { reach: handoff::reach(&["+14155550103"]), notes: dice.below(2) == 0 }
        }
        35 if dice.below(2) == 0 => Input::Whisper { text },
        35 => Input::RecordingOrdered { on: dice.below(2) == 0 },
        _ => Input::Tick,
    }
}

/// What must hold of the orders of a call, whatever it was told.
#[derive(Default)]
struct Rules {
    rung: BTreeSet<LegId>,
    bridging: Option<LegId>,
    recording: bool,
}

impl Rules {
    fn watch(&mut self, seed: u64, plan: &CallPlan, fact: Option<&Input>, out: &[Command], ids: &mut Ids) {
        if let Some(Input::LegDown { leg, .. }) = fact {
            self.gone(*leg);
        }
        for command in out {
            match command {
                Command::Dial { leg, .. } => {
                    assert!(self.rung.is_empty(), "seed {seed}: two phones at once");
                    self.rung.insert(*leg);
                    ids.leg = leg.0;
                }
                Command::DropLeg { leg } => {
                    assert!(self.rung.contains(leg), "seed {seed}: drops {leg:?}, which is not there");
                    self.gone(*leg);
                }
                Command::Tell { tell, leg, .. } => {
                    assert!(self.rung.contains(leg), "seed {seed}: tells nobody");
                    ids.tell = tell.0;
                }
                Command::Bridge { leg, .. } => {
                    assert!(self.rung.contains(leg), "seed {seed}: bridges nobody");
                    assert_eq!(self.bridging.replace(*leg), None, "seed {seed}: bridges twice");
                }
                Command::Record { on } => {
                    assert!(plan.recording != Recording::Never, "seed {seed}: records what it must not");
                    self.recording = *on;
                }
                Command::OpenStt { stt, .. } => ids.stt = stt.0,
                Command::Ask { ask, .. } => ids.ask = ask.0,
                Command::RunTool { tool, .. } => ids.tool = tool.0,
                Command::Speak { reply, .. } | Command::Beep { reply } | Command::PlayCanned { reply } => {
                    ids.reply = ids.reply.max(reply.0);
                }
                _ => {}
            }
        }
    }

    fn gone(&mut self, leg: LegId) {
        self.rung.remove(&leg);
        self.bridging = self.bridging.filter(|b| *b != leg);
    }
}

#[test]
fn whatever_comes_the_machine_keeps_its_rules() {
    let mut ends = BTreeSet::new();
    for seed in 0..CALLS {
        let mut dice = Dice(seed);
        dice.below(1);
        let plan = any_plan(&mut dice);
        let (mut out, mut ids, mut rules) = (Vec::new(), Ids::default(), Rules::default());
        let mut call = Call::start(plan.clone(), &mut out);
        let mut at = CallTime::ZERO;
        rules.watch(seed, &plan, None, &out, &mut ids);
        for number in 0..FACTS {
            out.clear();
            at = at.plus_ms(dice.below(1_500));
            let fact = if number == 1 { Input::Connected } else { any_fact(&mut dice, &ids) };
            if dice.below(60) == 0 {
                call.resume(at, &mut out);
                rules.watch(seed, &plan, None, &out, &mut ids);
                out.clear();
            }
            call.handle(at, fact.clone(), &mut out);
            rules.watch(seed, &plan, Some(&fact), &out, &mut ids);
            out.clear();
            call.handle(at, Input::Tick, &mut out);
            rules.watch(seed, &plan, None, &out, &mut ids);
            let due = call.deadline();
            assert!(due.is_none_or(|(due, _)| due > at), "seed {seed} at {at:?}: {due:?} does not fire");
            let lives = call.ended().is_none();
            assert!(!lives || due.is_some(), "seed {seed} at {at:?}: nothing will ever wake the call");
        }
        out.clear();
        call.handle(at, Input::HungUp { by_caller: true }, &mut out);
        rules.watch(seed, &plan, None, &out, &mut ids);
        call.handle(at.plus_ms(60_000), Input::Tick, &mut out);
        assert!(call.is_finished(), "seed {seed}: the call is not over");
        assert!(rules.rung.is_empty(), "seed {seed}: {:?} are left on the line", rules.rung);
        ends.extend(call.ended().map(|reason| format!("{reason:?}")));
    }
    for reason in
        ["Forwarded", "Transferred", "TakenOver", "MembersTalked", "VoicemailLeft", "VoicemailEmpty"]
    {
        assert!(ends.contains(reason), "no call ended by {reason}: {ends:?}");
    }
}
