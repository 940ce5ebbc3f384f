//! Calls as scripts: who does what when, and what was said and heard in the end.

mod chance;
mod handoff;
mod recording;
mod voicemail;

use super::*;
use crate::{ChatMessage, ToolRequest, ToolSpec};
use expect_test::{Expect, expect};
use std::collections::BTreeMap;

/// Every character takes so long to say.
const CHARACTER_MS: u32 = 50;

/// One line of a script.
enum Act {
    /// The caller makes a sound from now on.
    Starts,
    /// The caller has been silent for 60 ms.
    Stops,
    /// The recogniser guesses.
    Interim(&'static str),
    /// The recogniser is sure, and takes the utterance to be over.
    Says(&'static str),
    /// The model writes an answer to the last request.
    Writes(&'static str),
    /// The model begins an answer and does not end it.
    Begins(&'static str),
    /// The model wants a tool.
    Wants(&'static str, &'static str),
    Done,
    /// The last tool answers.
    Answers(&'static str),
    Key(char),
    HangsUp,
    ModelFails(bool),
    VoiceFails(bool),
    /// The recogniser's session is up, and dies at once.
    OpensBadly,
    RecogniserFails(bool),
    MediaLost,
    Connected,
    /// The node dies and another goes on from the serialized state.
    NodeDies,
    /// The recogniser has heard nothing.
    SaysNothing,
    /// The phone that was rung last is picked up.
    PicksUp,
    Gone(LegEnd),
    PersonPresses(char),
    PersonSays(&'static str),
    /// The person has heard what they were told last.
    Told,
    TellFails,
    Bridged,
    BridgeFails,
    /// A colleague, reached on this number; the agent listens on.
    TakesOver(&'static str, bool),
    Whispers(&'static str),
    OrdersRecording(bool),
    /// Nothing.
    Waits,
}
use Act::*;

/// A call with a voice that speaks at once, and a phone that plays.
struct Bed {
    call: Call,
    now: u32,
    /// Audio of each reply, in ms; whether it is complete, and from where it plays.
    audio: BTreeMap<ReplyId, (u32, bool)>,
    queue: Vec<(ReplyId, u32)>,
    playing_since: Option<u32>,
    paused: bool,
    voices_dead: bool,
    story: Vec<String>,
    stt: SttId,
    ask: AskId,
    tool: ToolId,
    stt_ms: u32,
    leg: LegId,
    tell: TellId,
    asked: Vec<Arc<[ChatMessage]>>,
}

impl Bed {
    fn new(plan: CallPlan) -> Self {
        let mut out = Vec::new();
        let call = Call::start(plan, &mut out);
        let mut bed = Bed {
            call,
            now: 0,
            audio: BTreeMap::new(),
            queue: Vec::new(),
            playing_since: None,
            paused: false,
            voices_dead: false,
            story: Vec::new(),
            stt: SttId(0),
            ask: AskId(0),
            tool: ToolId(0),
            stt_ms: 0,
            leg: LegId(0),
            tell: TellId(0),
            asked: Vec::new(),
        };
        bed.obey(out);
        bed
    }

    fn tell(&mut self, input: Input) {
        let mut out = Vec::new();
        self.call.handle(CallTime::from_ms(u64::from(self.now)), input, &mut out);
        self.obey(out);
    }

    fn obey(&mut self, commands: Vec<Command>) {
        let mut later = Vec::new();
        if std::env::var_os("TRACE").is_some() {
            eprintln!("{:>6} {}", self.now, log::summary(&commands));
        }
        for command in commands {
            match command {
                Command::OpenStt { stt, provider } => {
                    self.stt = stt;
                    if provider > 0 {
                        self.note(format!("opens recogniser {provider}"));
                    }
                }
                Command::OpenTts { voice } if voice > 0 => self.note(format!("opens voice {voice}")),
                Command::Ask { ask, messages, provider } => {
                    self.ask = ask;
                    if provider > 0 {
                        self.note(format!("asks model {provider}"));
                    }
                    self.asked.push(messages);
                }
                Command::Speak { reply, text, .. } => {
                    let (ms, _) = self.audio.entry(reply).or_default();
                    if !self.voices_dead {
                        *ms += text.chars().count() as u32 * CHARACTER_MS;
                        later.push(Input::Synthesized { reply, ms: *ms, done: false });
                    }
                }
                Command::FinishReply { reply } if !self.voices_dead => {
                    let (ms, done) = self.audio.entry(reply).or_default();
                    *done = true;
                    later.push(Input::Synthesized { reply, ms: *ms, done: true });
                }
                Command::Play { reply } => self.queue.push((reply, 0)),
                Command::PausePlayout => {
                    self.note("falls silent".into());
                    self.paused = true;
                    self.playing_since = None;
                }
                Command::ResumePlayout { reply, from_ms } => {
                    self.note(format!("goes on at {from_ms}"));
                    self.paused = false;
                    self.queue
                        .iter_mut()
                        .filter(|(id, _)| *id == reply)
                        .for_each(|(_, from)| *from = from_ms);
                }
                Command::CancelReply { reply } => {
                    if self.queue.first().is_some_and(|(id, _)| *id == reply) {
                        self.playing_since = None;
                    }
                    self.queue.retain(|(id, _)| *id != reply);
                    self.paused &= !self.queue.is_empty();
                }
                Command::PlayCanned { reply } => {
                    self.sound("plays the canned apology".into(), reply, 1_000, &mut later);
                }
                Command::RunTool { tool, name, .. } => {
                    self.note(format!("uses {name}"));
                    self.tool = tool;
                }
                Command::SendDtmf { digits } => self.note(format!("sends {digits}")),
                Command::HangUp => {
                    self.note("hangs up".into());
                    later.push(Input::HungUp { by_caller: false });
                }
                Command::Forward { to } => self.note(format!("forwards to {to}")),
                Command::Dial { leg, to, .. } => {
                    self.leg = leg;
                    self.note(format!("rings {to}"));
                }
                Command::Tell { tell, text, .. } => {
                    self.tell = tell;
                    self.note(format!("tells the person: {text}"));
                }
                Command::DropLeg { leg } => self.note(format!("drops leg {}", leg.0)),
                Command::Bridge { through_us: true, .. } => self.note("bridges here".into()),
                Command::Bridge { through_us: false, .. } => self.note("bridges".into()),
                Command::Tone { tone: Some(tone) } => self.note(format!("tone {tone:?}")),
                Command::Tone { tone: None } => self.note("no tone".into()),
                Command::Beep { reply } => self.sound("beeps".into(), reply, 500, &mut later),
                Command::PlayAudio { reply, name } => {
                    self.sound(format!("plays {name}"), reply, 2_000, &mut later);
                }
                Command::Record { on } => self.note(if on { "records" } else { "stops recording" }.into()),
                _ => {}
            }
        }
        later.into_iter().for_each(|input| self.tell(input));
    }

    /// Plays something that needs no voice.
    fn sound(&mut self, what: String, reply: ReplyId, ms: u32, later: &mut Vec<Input>) {
        self.note(what);
        self.audio.insert(reply, (ms, true));
        self.queue.push((reply, 0));
        later.push(Input::Synthesized { reply, ms, done: true });
    }

    fn note(&mut self, what: String) {
        self.story.push(format!("{:>6} {what}", self.now));
    }

    /// Plays 10 ms of whatever there is to play.
    fn play(&mut self) {
        if self.paused {
            return;
        }
        let Some((reply, from)) = self.queue.first().copied() else { return };
        let (ms, complete) = self.audio.get(&reply).copied().unwrap_or_default();
        let since = match self.playing_since {
            Some(since) => since,
            None if ms > from => {
                self.playing_since = Some(self.now);
                self.tell(Input::Played { reply, ms: from, done: false });
                return;
            }
            None => return,
        };
        let played = from + self.now - since;
        if played >= ms && complete {
            self.queue.remove(0);
            self.playing_since = None;
            self.tell(Input::Played { reply, ms, done: true });
        } else if played < ms && (self.now - since).is_multiple_of(250) {
            self.tell(Input::Played { reply, ms: played, done: false });
        }
    }

    fn until(&mut self, ms: u32) {
        while self.now < ms {
            self.now += 10;
            self.play();
            while self.call.deadline().is_some_and(|(at, _)| at <= CallTime::from_ms(u64::from(self.now))) {
                let before = self.call.deadline();
                self.tell(Input::Tick);
                assert_ne!(self.call.deadline(), before, "a timer that fires must not be due again");
            }
        }
    }

    fn act(&mut self, act: &Act) {
        let (stt, ask) = (self.stt, self.ask);
        self.stt_ms = self.now;
        let end_ms = self.stt_ms;
        match *act {
            Starts => self.tell(Input::SpeechStarted),
            Stops => self.tell(Input::SpeechStopped { silence_ms: 60 }),
            Interim(text) => self.tell(Input::Interim { stt, text: text.into(), end_ms }),
            Says(text) => self.tell(Input::Final { stt, text: text.into(), end_ms, utterance_end: true }),
            Writes(text) => {
                for word in text.split_inclusive(' ') {
                    self.tell(Input::Token { ask, text: word.into() });
                }
                self.tell(Input::AskDone { ask });
            }
            SaysNothing => {
                self.tell(Input::Final { stt, text: ".".into(), end_ms, utterance_end: true });
            }
            Begins(text) => self.tell(Input::Token { ask, text: text.into() }),
            Wants(name, arguments) => {
                let request = ToolRequest { id: "t1".into(), name: name.into(), arguments: arguments.into() };
                self.tell(Input::Tool { ask, request });
            }
            Done => self.tell(Input::AskDone { ask }),
            Answers(result) => self.tell(Input::ToolDone { tool: self.tool, result: result.into() }),
            Key(digit) => self.tell(Input::Dtmf { digit }),
            HangsUp => self.tell(Input::HungUp { by_caller: true }),
            ModelFails(may_pass) => self.tell(Input::AskFailed { ask, may_pass }),
            VoiceFails(may_pass) => {
                self.voices_dead = true;
                self.tell(Input::TtsFailed { voice: 0, may_pass });
                self.voices_dead = false;
            }
            RecogniserFails(may_pass) => self.tell(Input::SttFailed { stt, may_pass }),
            OpensBadly => {
                self.tell(Input::SttOpened { stt });
                self.tell(Input::SttFailed { stt, may_pass: true });
            }
            MediaLost => {
                self.playing_since = None;
                self.tell(Input::MediaLost);
            }
            Connected => self.tell(Input::Connected),
            NodeDies => {
                let state = serde_json::to_string(&self.call).expect("a call can be written down");
                self.call = serde_json::from_str(&state).expect("and read back");
                self.audio.clear();
                self.queue.clear();
                self.playing_since = None;
                let mut out = Vec::new();
                self.call.resume(CallTime::from_ms(u64::from(self.now)), &mut out);
                self.obey(out);
            }
            PicksUp => self.tell(Input::LegUp { leg: self.leg }),
            Gone(how) => self.tell(Input::LegDown { leg: self.leg, how }),
            PersonPresses(digit) => self.tell(Input::LegKey { leg: self.leg, digit }),
            PersonSays(text) => self.tell(Input::LegSaid { leg: self.leg, text: text.into() }),
            Told => self.tell(Input::Told { tell: self.tell }),
            TellFails => self.tell(Input::TellFailed { tell: self.tell }),
            Bridged => self.tell(Input::Bridged { leg: self.leg }),
            BridgeFails => self.tell(Input::BridgeFailed { leg: self.leg }),
            TakesOver(number, notes) => {
                self.tell(Input::TakeOver { reach: handoff::reach(&[number]), notes });
            }
            Whispers(text) => self.tell(Input::Whisper { text: text.into() }),
            OrdersRecording(on) => self.tell(Input::RecordingOrdered { on }),
            Waits => {}
        }
    }
}

fn plan() -> CallPlan {
    let ability = |name: &str, kind| Ability {
        spec: ToolSpec { name: name.into(), description: String::new(), parameters: "{}".into() },
        kind,
        timeout_ms: 10_000,
        filler: None,
    };
    CallPlan {
        instructions: "Be brief.".into(),
        greeting: Greeting::Fixed("Ada's, hello.".into()),
        language: crate::Language::english(),
        abilities: vec![
            ability("end_call", AbilityKind::HangUp),
            ability("press_keys", AbilityKind::SendDtmf),
            ability("book", AbilityKind::External),
            ability("transfer", AbilityKind::Transfer),
            ability("record", AbilityKind::Recording),
        ],
        stt: vec!["s".into()],
        llm: vec!["m".into(), "n".into()],
        tts: vec!["v".into()],
        timing: Timing::default(),
        phrases: Phrases::default(),
        head_start: true,
        fallback: Fallback::HangUp,
        opening: Opening::Agent,
        destinations: Vec::new(),
        voicemail: Voicemail::default(),
        recording: Recording::Off,
    }
}

/// Plays a script after the greeting (0.65 s) and compares story and transcript.
fn check(script: &[(u32, Act)], expected: Expect) {
    check_with(plan(), script, expected);
}

fn check_with(plan: CallPlan, script: &[(u32, Act)], expected: Expect) {
    let mut bed = Bed::new(plan);
    bed.tell(Input::Connected);
    for (ms, act) in script {
        bed.until(*ms);
        bed.act(act);
    }
    let mut out = bed.story.join("\n");
    for line in bed.call.transcript() {
        let cut = if line.cut { " [cut]" } else { "" };
        out.push_str(&format!("\n{:?}: {}{cut}", line.speaker, line.text));
    }
    if let Some(reason) = bed.call.ended() {
        out.push_str(&format!("\n{reason:?}"));
    }
    let asked: Vec<String> = (bed.asked.last().iter().flat_map(|m| m.iter().skip(1)))
        .map(|m| match m {
            ChatMessage::System { text } => format!("system {text}"),
            ChatMessage::User { text } => format!("user {text}"),
            ChatMessage::Agent { text, tools } if tools.is_empty() => format!("agent {text}"),
            ChatMessage::Agent { text, tools } => format!("agent {text} -> {}", tools.len()),
            ChatMessage::Tool { text, .. } => format!("tool {text}"),
        })
        .collect();
    out.push_str(&format!("\nasked {} times, last with: {}", bed.asked.len(), asked.join(" | ")));
    expected.assert_eq(&out);
}

#[test]
fn a_question_is_answered() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_100, Says("When do you open?")),
            (2_400, Writes("We open at nine. Anything else?")),
            (5_000, Waits),
        ],
        expect![[r#"

            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: We open at nine. Anything else?
            asked 1 times, last with: agent Ada's, hello. | user When do you open?"#]],
    );
}

#[test]
fn barge_in_cuts_the_transcript_to_what_was_heard() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("When do you open?")),
            (2_100, Writes("We are open from nine to five every day but Sunday.")),
            (3_000, Starts),
            (3_200, Interim("do you")),
            (3_900, Stops),
            (4_000, Says("Do you open Sunday?")),
            (4_200, Writes("No.")),
            (6_000, Waits),
        ],
        expect![[r#"
              3000 falls silent
            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: We are open from [cut]
            Caller: Do you open Sunday?
            Agent: No.
            asked 2 times, last with: agent Ada's, hello. | user When do you open? | agent We are open from | user Do you open Sunday?"#]],
    );
}

#[test]
fn a_hum_and_a_cough_do_not_stop_the_agent() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("When do you open?")),
            (2_100, Writes("We are open from nine to five every day but Sunday.")),
            (3_000, Starts),
            (3_300, Stops),
            (3_400, Says("mm-hm")),
            (4_000, Starts),
            (4_200, Stops),
            (8_000, Waits),
        ],
        expect![[r#"
              3000 falls silent
              3400 goes on at 890
              4000 falls silent
              4800 goes on at 1480
            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: We are open from nine to five every day but Sunday.
            asked 1 times, last with: agent Ada's, hello. | user When do you open?"#]],
    );
}

#[test]
fn an_answer_begun_too_early_is_thrown_away_in_silence() {
    check(
        &[
            (1_000, Starts),
            (1_500, Interim("I want to cancel my order")),
            (1_600, Stops),
            (1_700, Begins("Sure, ")),
            (1_750, Starts),
            (2_000, Interim("I want to cancel my order from Tuesday")),
            (2_400, Stops),
            (2_450, Says("I want to cancel my order from Tuesday.")),
            (2_900, Writes("Done.")),
            (4_000, Waits),
        ],
        expect![[r#"

            Agent: Ada's, hello.
            Caller: I want to cancel my order from Tuesday.
            Agent: Done.
            asked 2 times, last with: agent Ada's, hello. | user I want to cancel my order from Tuesday"#]],
    );
}

#[test]
fn a_number_is_dictated_in_one_turn() {
    check(
        &[
            (1_000, Starts),
            (1_900, Stops),
            (2_000, Says("My number is five five")),
            (2_900, Starts),
            (3_500, Stops),
            (3_600, Says("five oh one two three.")),
            (4_500, Writes("Thanks.")),
            (6_000, Waits),
        ],
        expect![[r#"

            Agent: Ada's, hello.
            Caller: My number is five five five oh one two three.
            Agent: Thanks.
            asked 1 times, last with: agent Ada's, hello. | user My number is five five five oh one two three."#]],
    );
}

#[test]
fn a_tool_runs_once_although_the_caller_talks_over_it() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("Book Tuesday.")),
            (2_100, Begins("One second.")),
            (2_120, Wants("book", "{}")),
            (2_130, Done),
            (2_500, Starts),
            (2_900, Interim("and a window seat please")),
            (3_100, Stops),
            (3_200, Says("And a window seat.")),
            (4_000, Answers("booked")),
            (4_200, Writes("Both done.")),
            (6_000, Waits),
        ],
        expect![[r#"
              2130 uses book
              2500 falls silent
            Agent: Ada's, hello.
            Caller: Book Tuesday.
            Agent: One [cut]
            Caller: And a window seat.
            Agent: Both done.
            asked 3 times, last with: agent Ada's, hello. | user Book Tuesday. | agent One -> 1 | tool booked | user And a window seat. | agent Both done. | user (What was still running has answered: its result is above. Tell the caller what matters of it, or nothing if they know already.)"#]],
    );
}

#[test]
fn a_goodbye_is_heard_to_its_end() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("Bye.")),
            (2_100, Begins("Have a nice day!")),
            (2_120, Wants("end_call", "{}")),
            (2_130, Done),
            (2_400, Starts),
            (2_700, Interim("thank you bye")),
            (2_750, Stops),
            (2_800, Says("Thank you, bye.")),
            (6_000, Waits),
        ],
        expect![[r#"
              2910 hangs up
            Agent: Ada's, hello.
            Caller: Bye.
            Agent: Have a nice day!
            AgentHungUp
            asked 1 times, last with: agent Ada's, hello. | user Bye."#]],
    );
}

#[test]
fn a_caller_who_has_one_more_thing_is_not_hung_up_on() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("Bye.")),
            (2_100, Wants("end_call", "{}")),
            (2_130, Done),
            (2_400, Starts),
            (2_700, Interim("wait one more thing")),
            (3_000, Stops),
            (3_100, Says("Wait, one more thing.")),
            (3_300, Writes("Yes?")),
            (5_000, Waits),
        ],
        expect![[r#"

            Agent: Ada's, hello.
            Caller: Bye.
            Agent: Thank you [cut]
            Caller: Wait, one more thing.
            Agent: Yes?
            asked 2 times, last with: agent Ada's, hello. | user Bye. | agent  -> 1 | tool ok | agent Thank you | user wait one more thing"#]],
    );
}

#[test]
fn silence_is_asked_about_and_then_ended() {
    check(
        &[(60_000, Waits)],
        expect![[r#"
         28240 hangs up
        Agent: Ada's, hello.
        Agent: Are you still there?
        Agent: Are you still there?
        Agent: Thank you for calling. Goodbye.
        Silence
        asked 0 times, last with: "#]],
    );
}

#[test]
fn a_slow_model_is_covered_by_a_filler_and_then_replaced() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("When do you open?")),
            (6_500, Writes("At nine.")),
            (9_000, Waits),
        ],
        expect![[r#"
              6050 asks model 1
            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: One moment, please.
            Agent: At nine.
            asked 2 times, last with: agent Ada's, hello. | user When do you open?"#]],
    );
}

#[test]
fn when_nothing_is_left_the_caller_hears_an_apology() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("When do you open?")),
            (2_100, ModelFails(false)),
            (2_200, ModelFails(false)),
            (9_000, Waits),
        ],
        expect![[r#"
              2100 asks model 1
              4460 hangs up
            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: I am sorry, something went wrong on our side.
            ProvidersFailed
            asked 2 times, last with: agent Ada's, hello. | user When do you open?"#]],
    );
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("When do you open?")),
            (2_100, VoiceFails(false)),
            (9_000, Waits),
        ],
        expect![[r#"
              2100 plays the canned apology
              3110 hangs up
            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: I am sorry, something went wrong on our side.
            ProvidersFailed
            asked 1 times, last with: agent Ada's, hello. | user When do you open?"#]],
    );
}

#[test]
fn keys_are_a_turn() {
    check(
        &[
            (1_000, Key('4')),
            (1_300, Key('2')),
            (1_600, Key('#')),
            (1_700, Writes("Forty-two.")),
            (4_000, Waits),
        ],
        expect![[r#"

            Agent: Ada's, hello.
            Caller: (pressed 42#)
            Agent: Forty-two.
            asked 1 times, last with: agent Ada's, hello. | user (pressed 42#)"#]],
    );
}

#[test]
fn hanging_up_keeps_what_was_said_and_heard() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("When do you open?")),
            (2_100, Writes("We are open from nine to five.")),
            (2_900, HangsUp),
        ],
        expect![[r#"

            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: We are open [cut]
            CallerHungUp
            asked 1 times, last with: agent Ada's, hello. | user When do you open?"#]],
    );
}

#[test]
fn a_call_goes_on_where_its_node_died() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("When do you open?")),
            (2_100, Writes("We are open from nine to five. On Sunday we are closed.")),
            (3_300, NodeDies),
            (4_000, Connected),
            (8_000, Starts),
            (8_500, Stops),
            (8_600, Says("Thank you.")),
            (8_700, Writes("You are welcome.")),
            (11_000, Waits),
        ],
        expect![[r#"

            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: We are open from [cut]
            Agent: nine to five. On Sunday we are closed.
            Caller: Thank you.
            Agent: You are welcome.
            asked 2 times, last with: agent Ada's, hello. | user When do you open? | agent We are open from | agent nine to five. On Sunday we are closed. | user Thank you."#]],
    );
}

#[test]
fn lost_media_comes_back_where_it_broke() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("When do you open?")),
            (2_100, Writes("We are open from nine to five.")),
            (2_700, MediaLost),
            (5_000, Connected),
            (9_000, RecogniserFails(true)),
            (9_500, Waits),
        ],
        expect![[r#"
              5000 goes on at 590
            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: We are open from nine to five.
            asked 1 times, last with: agent Ada's, hello. | user When do you open?"#]],
    );
}

#[test]
fn a_model_that_breaks_off_every_time_is_left_for_the_next() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("When do you open?")),
            (2_100, Begins("We ")),
            (2_150, ModelFails(true)),
            (2_200, Begins("We ")),
            (2_250, ModelFails(true)),
            (2_300, Writes("At nine.")),
            (4_000, Waits),
        ],
        expect![[r#"
              2250 asks model 1
            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: At nine.
            asked 3 times, last with: agent Ada's, hello. | user When do you open?"#]],
    );
}

#[test]
fn a_recogniser_that_opens_and_dies_every_time_is_left_for_the_next() {
    let two = CallPlan { stt: vec!["s".into(), "t".into()], ..plan() };
    check_with(
        two,
        &[(1_000, OpensBadly), (1_100, OpensBadly), (1_200, OpensBadly), (1_300, OpensBadly), (4_000, Waits)],
        expect![[r#"
              1100 opens recogniser 1
              1200 opens recogniser 1
              3560 hangs up
            Agent: Ada's, hello.
            Agent: I am sorry, something went wrong on our side.
            ProvidersFailed
            asked 0 times, last with: "#]],
    );
}

#[test]
fn a_voice_that_breaks_off_every_time_is_left_for_the_next() {
    let two = CallPlan { tts: vec!["v".into(), "w".into()], ..plan() };
    let mut bed = Bed::new(two);
    bed.tell(Input::Connected);
    bed.until(1_000);
    bed.act(&Says("When do you open?"));
    bed.voices_dead = true;
    bed.act(&Writes("We open at nine."));
    for reply in [ReplyId(2), ReplyId(3)] {
        bed.tell(Input::Synthesized { reply, ms: 200, done: false });
        bed.tell(Input::TtsFailed { voice: 0, may_pass: true });
    }
    assert_eq!(bed.story, ["  1000 opens voice 1"]);
}

#[test]
fn a_model_that_breaks_off_in_mid_answer_is_gone_on_for() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("When do you open?")),
            (2_100, Begins("We open at nine. On Sundays ")),
            (2_500, ModelFails(false)),
            (2_600, Writes("On Sundays we are closed.")),
            (6_000, Waits),
        ],
        expect![[r#"
              2500 asks model 1
            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: We open at nine.
            Agent: On Sundays we are closed.
            asked 2 times, last with: agent Ada's, hello. | user When do you open? | agent We open at nine. | user (The line to you broke after your last words, which the caller has heard. Go on from there without repeating them.)"#]],
    );
}

#[test]
fn a_model_that_breaks_off_before_it_is_heard_is_asked_again() {
    check(
        &[
            (1_000, Starts),
            (1_500, Interim("When do you open")),
            (2_000, Stops),
            (2_010, Begins("We open at nine. On Sundays ")),
            (2_020, ModelFails(true)),
            (2_050, Says("When do you open?")),
            (2_300, Writes("At nine.")),
            (6_000, Waits),
        ],
        expect![[r#"

        Agent: Ada's, hello.
        Caller: When do you open?
        Agent: At nine.
        asked 2 times, last with: agent Ada's, hello. | user When do you open"#]],
    );
}

#[test]
fn noise_that_never_stops_is_asked_about_and_left() {
    check(
        &[(1_000, Starts), (80_000, Waits)],
        expect![[r#"
             28580 hangs up
            Agent: Ada's, hello.
            Agent: Are you still there?
            Agent: Are you still there?
            Agent: Thank you for calling. Goodbye.
            Silence
            asked 0 times, last with: "#]],
    );
}

#[test]
fn words_over_a_noise_that_never_stops_are_a_turn() {
    check(
        &[(1_000, Starts), (2_000, Interim("When do you open")), (7_000, Writes("At nine.")), (9_000, Waits)],
        expect![[r#"

            Agent: Ada's, hello.
            Caller: When do you open
            Agent: One moment, please.
            Agent: At nine.
            asked 1 times, last with: agent Ada's, hello. | user When do you open"#]],
    );
}

#[test]
fn sounds_without_words_are_not_asked_about_for_ever() {
    check_with(
        CallPlan { stt: vec!["s".into(), "t".into()], ..plan() },
        &[
            (1_000, Starts),
            (2_200, Stops),
            (10_000, Starts),
            (11_200, Stops),
            (20_000, Starts),
            (21_200, Stops),
            (30_000, Waits),
        ],
        expect![[r#"
             25200 hangs up
            Agent: Ada's, hello.
            Agent: Sorry, I did not catch that. Could you say it again?
            Agent: Sorry, I did not catch that. Could you say it again?
            Agent: Thank you for calling. Goodbye.
            Silence
            asked 0 times, last with: "#]],
    );
}

#[test]
fn a_goodbye_is_said_where_the_call_is_ended_after_a_tool() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("Book Tuesday, bye.")),
            (2_100, Begins("One second.")),
            (2_120, Wants("book", "{}")),
            (2_130, Done),
            (4_000, Answers("booked")),
            (4_100, Wants("end_call", "{}")),
            (4_110, Done),
            (8_000, Waits),
        ],
        expect![[r#"
              2130 uses book
              5670 hangs up
            Agent: Ada's, hello.
            Caller: Book Tuesday, bye.
            Agent: One second.
            Agent: Thank you for calling. Goodbye.
            AgentHungUp
            asked 2 times, last with: agent Ada's, hello. | user Book Tuesday, bye. | agent One second. -> 1 | tool booked"#]],
    );
}

#[test]
fn a_model_with_nothing_more_to_say_after_a_tool_has_answered() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("Book Tuesday.")),
            (2_100, Begins("I book it.")),
            (2_120, Wants("book", "{}")),
            (2_130, Done),
            (4_000, Answers("booked")),
            (4_100, Done),
            (6_000, Waits),
        ],
        expect![[r#"
              2130 uses book
            Agent: Ada's, hello.
            Caller: Book Tuesday.
            Agent: I book it.
            asked 2 times, last with: agent Ada's, hello. | user Book Tuesday. | agent I book it. -> 1 | tool booked"#]],
    );
}

#[test]
fn a_model_with_nothing_to_say_is_not_the_end_of_the_call() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("Book Tuesday.")),
            (2_100, Done),
            (2_200, Done),
            (2_300, Done),
            (2_400, Done),
            (6_000, Waits),
        ],
        expect![[r#"
              2200 asks model 1
              2300 asks model 1
            Agent: Ada's, hello.
            Caller: Book Tuesday.
            Agent: Sorry, I did not catch that. Could you say it again?
            asked 4 times, last with: agent Ada's, hello. | user Book Tuesday."#]],
    );
}

#[test]
fn the_longest_duration_leaves_time_for_a_goodbye() {
    check_with(
        CallPlan { timing: Timing { max_duration_ms: 4_500, ..Timing::default() }, ..plan() },
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("When do you open?")),
            (
                2_100,
                Writes(
                    "We open at nine. On Mondays we open at ten and on Tuesdays at eleven, on Wednesdays at twelve, on Thursdays at one and on Fridays at two.",
                ),
            ),
            (20_000, Waits),
        ],
        expect![[r#"
              7160 hangs up
            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: We open at nine. On Mondays we open at ten and on Tuesdays at eleven, [cut]
            Agent: Thank you for calling. Goodbye.
            MaxDuration
            asked 1 times, last with: agent Ada's, hello. | user When do you open?"#]],
    );
}

#[test]
fn a_carrier_is_told_of_a_call_whose_media_does_not_come_back() {
    check(
        &[(1_000, MediaLost), (30_000, Waits)],
        expect![[r#"
             21000 hangs up
            Agent: Ada's, hello.
            MediaLost
            asked 0 times, last with: "#]],
    );
}

#[test]
fn a_call_whose_node_died_in_mid_answer_is_answered_to_the_end() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("When do you open?")),
            (2_100, Begins("We open at nine. On Sundays ")),
            (2_500, NodeDies),
            (2_600, Writes("On Sundays we are closed.")),
            (21_000, Connected),
            (26_000, Waits),
        ],
        expect![[r#"

            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: We [cut]
            Agent: open at nine.
            Agent: On Sundays we are closed.
            asked 2 times, last with: agent Ada's, hello. | user When do you open? | agent We | agent open at nine. | user (The line to you broke after your last words, which the caller has heard. Go on from there without repeating them.)"#]],
    );
}

#[test]
fn words_that_came_while_media_was_lost_are_judged_first() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("When do you open?")),
            (2_100, Writes("We are open from nine to five every day but Sunday.")),
            (3_000, Starts),
            (3_100, MediaLost),
            (3_200, Says("Stop, I meant Sunday.")),
            (5_000, Connected),
            (6_000, Writes("Closed.")),
            (8_000, Waits),
        ],
        expect![[r#"
              3000 falls silent
            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: We are open from [cut]
            Caller: Stop, I meant Sunday.
            Agent: One moment, please.
            Agent: Closed.
            asked 2 times, last with: agent Ada's, hello. | user When do you open? | agent We are open from | user Stop, I meant Sunday."#]],
    );
}

#[test]
fn a_new_recogniser_does_not_lose_what_the_last_one_understood() {
    check(
        &[
            (1_000, Starts),
            (1_500, Interim("When do")),
            (1_600, RecogniserFails(true)),
            (2_000, Stops),
            (2_050, Says("you open?")),
            (2_100, Writes("At nine.")),
            (4_000, Waits),
        ],
        expect![[r#"

            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: At nine.
            asked 1 times, last with: agent Ada's, hello. | user When do you open?"#]],
    );
}

#[test]
fn an_agent_cut_off_for_nothing_goes_on() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("When do you open?")),
            (2_100, Writes("We are open from nine to five every day but Sunday.")),
            (3_000, Starts),
            (3_100, Interim("do")),
            (3_200, Stops),
            (3_300, SaysNothing),
            (3_500, Writes("From nine to five.")),
            (6_000, Waits),
        ],
        expect![[r#"
              3000 falls silent
            Agent: Ada's, hello.
            Caller: When do you open?
            Agent: We are open from [cut]
            Agent: From nine to five.
            asked 2 times, last with: agent Ada's, hello. | user When do you open? | agent We are open from | user (The line to you broke after your last words, which the caller has heard. Go on from there without repeating them.)"#]],
    );
}

#[test]
fn a_yes_after_the_goodbye_to_silence_keeps_the_caller() {
    check(
        &[
            (27_000, Starts),
            (27_200, Stops),
            (27_250, Says("Yes.")),
            (28_000, Writes("Good.")),
            (31_000, Waits),
        ],
        expect![[r#"

            Agent: Ada's, hello.
            Agent: Are you still there?
            Agent: Are you still there?
            Agent: Thank you [cut]
            Caller: Yes.
            Agent: Good.
            asked 1 times, last with: agent Ada's, hello. | agent Are you still there? | agent Are you still there? | agent Thank you | user Yes."#]],
    );
}

#[test]
fn a_greeting_that_a_dead_node_had_begun_is_written_anew() {
    let mut bed = Bed::new(CallPlan { greeting: Greeting::Written, ..plan() });
    bed.act(&Begins("Hello, "));
    bed.until(500);
    bed.act(&NodeDies);
    bed.act(&Writes("Hello, how can I help?"));
    bed.until(1_000);
    bed.tell(Input::Connected);
    bed.until(3_000);
    assert_eq!(bed.call.transcript()[0].text, "Hello, how can I help?");
}

#[test]
fn a_forwarded_caller_is_forwarded_again_where_the_node_died() {
    let to: crate::E164 = "+14155550100".parse().unwrap();
    let mut bed = Bed::new(CallPlan { fallback: Fallback::Forward(to), ..plan() });
    bed.tell(Input::Connected);
    bed.until(1_000);
    bed.act(&RecogniserFails(false));
    bed.until(4_000);
    bed.act(&NodeDies);
    assert!(bed.story.iter().filter(|s| s.contains("forwards")).count() == 2, "{:?}", bed.story);
    assert!(!bed.story.iter().any(|s| s.contains("hangs up")), "{:?}", bed.story);
}

#[test]
fn a_question_is_answered_while_a_tool_still_runs() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("Book Tuesday.")),
            (2_100, Wants("book", "{}")),
            (2_130, Done),
            (2_500, Starts),
            (2_900, Stops),
            (3_000, Says("When do you open?")),
            (3_200, Writes("At nine.")),
            (5_000, Answers("booked")),
            (5_100, Writes("Tuesday is booked.")),
            (7_000, Waits),
        ],
        expect![[r#"
              2130 uses book
            Agent: Ada's, hello.
            Caller: Book Tuesday.
            Caller: When do you open?
            Agent: At nine.
            Agent: Tuesday is booked.
            asked 3 times, last with: agent Ada's, hello. | user Book Tuesday. | agent  -> 1 | tool booked | user When do you open? | agent At nine. | user (What was still running has answered: its result is above. Tell the caller what matters of it, or nothing if they know already.)"#]],
    );
}

#[test]
fn words_that_make_no_sound_are_not_taken_to_be_heard() {
    let two = CallPlan { tts: vec!["v".into(), "w".into()], ..plan() };
    let mut bed = Bed::new(two);
    bed.tell(Input::Connected);
    bed.until(1_000);
    bed.act(&Says("When do you open?"));
    bed.voices_dead = true;
    bed.act(&Writes("We open at nine."));
    bed.tell(Input::Synthesized { reply: ReplyId(2), ms: 0, done: true });
    bed.tell(Input::Synthesized { reply: ReplyId(3), ms: 0, done: true });
    assert_eq!(bed.story, ["  1000 opens voice 1"]);
    assert!(bed.call.transcript().iter().all(|l| !l.text.contains("nine")));
}

#[test]
fn an_answer_after_a_tool_is_not_lost_to_words_that_were_none() {
    check(
        &[
            (1_000, Starts),
            (2_000, Stops),
            (2_050, Says("Book Tuesday.")),
            (2_100, Wants("book", "{}")),
            (2_130, Done),
            (3_000, Answers("booked")),
            (3_100, Starts),
            (3_200, Interim("do")),
            (3_300, Stops),
            (3_400, SaysNothing),
            (3_500, Writes("Tuesday is booked.")),
            (5_500, Waits),
        ],
        expect![[r#"
              2130 uses book
            Agent: Ada's, hello.
            Caller: Book Tuesday.
            Agent: Tuesday is booked.
            asked 3 times, last with: agent Ada's, hello. | user Book Tuesday. | agent  -> 1 | tool booked"#]],
    );
}
