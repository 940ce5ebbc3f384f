//! Deliberate bugs around the machine, one in each checker's field: a checker that does not find its own is worth nothing.
//! They know orders and facts, not the machine.

use offhook_core::ChatMessage;
use offhook_core::call::log::LogLine;
use offhook_core::call::{AskId, Command, Input, Phrases, ReplyId, SttId, ToolId};
use std::fmt;

/// A deliberate bug.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    /// None.
    #[default]
    Nothing,
    /// Two replies are played where one was ordered.
    DoubleVoice,
    /// A cancelled reply is played on.
    Zombie,
    /// The agent does not stop when it is interrupted.
    TalksOver,
    /// The agent hangs up in the middle of its goodbye.
    ClippedGoodbye,
    /// The model is told of words that nobody heard.
    UnheardInHistory,
    /// The model is not told of what the agent has said.
    Forgetful,
    /// The transcript holds words that nobody heard.
    UnheardInTranscript,
    /// A tool is run twice for one request.
    ToolTwice,
    /// A tool that a model wants is not run.
    ToolForgotten,
    /// A tool is run before the caller's turn is over.
    EagerTool,
    /// A tool's result is kept from the model.
    LostResult,
    /// Now and then an answer is swallowed.
    DeadAir,
    /// The caller's words reach the model twice.
    DoubledWords,
    /// The caller's words reach the model without their end.
    LostWords,
    /// The model is asked after the call has ended.
    WorkAfterEnd,
    /// The call never ends by itself.
    NeverEnds,
    /// A filler is spoken when nothing is awaited.
    LateFiller,
    /// Answers are asked for and thrown away.
    Wasteful,
    /// A caller who says nothing is asked for ever.
    AsksForEver,
    /// A reply is longer than the limit.
    Endless,
    /// The first provider of each kind is used for ever.
    NeverFallsBack,
    /// Turns are timed wrongly.
    WrongTimes,
    /// The log forgets an input.
    ForgetfulLog,
}

impl Plant {
    /// Every bug with the name of the checker that must find it.
    pub const ALL: &[(Plant, &str)] = &[
        (Plant::DoubleVoice, "one_voice"),
        (Plant::Zombie, "one_voice"),
        (Plant::TalksOver, "barge_in"),
        (Plant::ClippedGoodbye, "goodbye"),
        (Plant::UnheardInHistory, "history"),
        (Plant::Forgetful, "history"),
        (Plant::UnheardInTranscript, "history"),
        (Plant::ToolTwice, "tools"),
        (Plant::ToolForgotten, "tools"),
        (Plant::EagerTool, "tools"),
        (Plant::LostResult, "tools"),
        (Plant::DeadAir, "dead_air"),
        (Plant::DoubledWords, "caller_words"),
        (Plant::LostWords, "caller_words"),
        (Plant::WorkAfterEnd, "after_end"),
        (Plant::NeverEnds, "liveness"),
        (Plant::LateFiller, "filler"),
        (Plant::Wasteful, "head_start"),
        (Plant::AsksForEver, "limits"),
        (Plant::Endless, "limits"),
        (Plant::NeverFallsBack, "fallback"),
        (Plant::WrongTimes, "timing"),
        (Plant::ForgetfulLog, "replay"),
    ];
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A bug with what it remembers.
#[derive(Debug, Default)]
pub(super) struct Planted {
    plant: Plant,
    seen: u32,
    goodbye: Option<ReplyId>,
    playing: Option<ReplyId>,
    eager: Vec<String>,
}

impl Planted {
    pub(super) fn new(plant: Plant) -> Self {
        Planted { plant, ..Planted::default() }
    }

    pub(super) fn is_none(&self) -> bool {
        self.plant == Plant::Nothing
    }

    /// Changes what the machine ordered.
    pub(super) fn tamper(&mut self, input: Option<&Input>, out: &mut Vec<Command>) {
        match self.plant {
            Plant::Nothing | Plant::ForgetfulLog => {}
            Plant::DoubleVoice => {
                let plays = out.iter().position(|c| matches!(c, Command::Play { .. }));
                if let Some(at) = plays {
                    out.insert(at + 1, out[at].clone());
                }
            }
            Plant::Zombie => self.play_on(out),
            Plant::TalksOver => {
                out.retain(|c| !matches!(c, Command::PausePlayout | Command::CancelReply { .. }));
            }
            Plant::ClippedGoodbye => self.clip(input, out),
            Plant::UnheardInHistory => change_asks(out, |message| {
                if let ChatMessage::Agent { text, .. } = message {
                    text.push_str(" And nobody heard this.");
                }
            }),
            Plant::UnheardInTranscript => {
                for command in out {
                    if let Command::Note(line) = command
                        && line.purpose.is_some()
                    {
                        line.text.push_str(" And nobody heard this.");
                    }
                }
            }
            Plant::Forgetful => {
                for command in out {
                    if let Command::Ask { messages, .. } = command {
                        let said = |m: &&ChatMessage| !matches!(m, ChatMessage::Agent { tools, .. } if tools.is_empty());
                        *messages = messages.iter().filter(said).cloned().collect();
                    }
                }
            }
            Plant::ToolForgotten => out.retain(|c| !matches!(c, Command::RunTool { .. })),
            Plant::ToolTwice => {
                let run = out.iter().find_map(|c| match c {
                    Command::RunTool { tool, name, arguments } => {
                        Some((*tool, name.clone(), arguments.clone()))
                    }
                    _ => None,
                });
                if let Some((tool, name, arguments)) = run {
                    out.push(Command::RunTool { tool: ToolId(tool.0 + 1_000), name, arguments });
                }
            }
            Plant::EagerTool => {
                if let Some(Input::Tool { request, .. }) = input
                    && request.name == "look_up"
                {
                    self.seen += 1;
                    self.eager.push(request.arguments.clone());
                    out.push(Command::RunTool {
                        tool: ToolId(1_000 + self.seen),
                        name: request.name.clone(),
                        arguments: request.arguments.clone(),
                    });
                } else {
                    let done = |a: &String| self.eager.contains(a);
                    out.retain(|c| !matches!(c, Command::RunTool { arguments, .. } if done(arguments)));
                }
            }
            Plant::LateFiller | Plant::AsksForEver => {
                if let Some(Input::Played { done: true, .. }) = input
                    && !out.iter().any(|c| matches!(c, Command::HangUp | Command::Forward { .. }))
                {
                    self.seen += 1;
                    let reply = ReplyId(1_000 + self.seen);
                    let mut phrases = Phrases::default();
                    let filler = phrases.fillers.swap_remove(0);
                    let text = if self.plant == Plant::LateFiller { filler } else { phrases.nudge };
                    out.push(Command::Speak { reply, voice: 0, text, fixed: true });
                    out.push(Command::FinishReply { reply });
                    out.push(Command::Play { reply });
                }
            }
            Plant::LostResult => change_asks(out, |message| {
                if let ChatMessage::Tool { text, .. } = message {
                    *text = "(still running)".into();
                }
            }),
            Plant::DeadAir => {
                for command in &*out {
                    self.seen += u32::from(matches!(command, Command::Ask { .. }));
                }
                if self.seen % 3 == 2 {
                    out.retain(|c| !matches!(c, Command::Play { .. }));
                }
            }
            Plant::DoubledWords => change_asks(out, |message| {
                if let ChatMessage::User { text } = message {
                    *text = format!("{text} {text}");
                }
            }),
            Plant::LostWords => change_asks(out, |message| {
                if let ChatMessage::User { text } = message
                    && let Some((before, _)) = text.rsplit_once(' ')
                {
                    *text = before.to_string();
                }
            }),
            Plant::WorkAfterEnd => {
                if let Some(Input::HungUp { .. }) = input {
                    out.push(Command::OpenStt { stt: SttId(1_000), provider: 0 });
                }
            }
            Plant::NeverEnds => out.retain(|c| !matches!(c, Command::HangUp)),
            Plant::Wasteful => {
                let ask = out.iter().find_map(|c| match c {
                    Command::Ask { ask, provider, messages } => Some((*ask, *provider, messages.clone())),
                    _ => None,
                });
                if let Some((ask, provider, messages)) = ask {
                    for more in [1_000, 2_000, 3_000] {
                        let ask = AskId(ask.0 + more);
                        out.push(Command::Ask { ask, provider, messages: messages.clone() });
                        out.push(Command::CancelAsk { ask });
                    }
                }
            }
            Plant::NeverFallsBack => {
                for command in out {
                    match command {
                        Command::OpenStt { provider, .. } | Command::Ask { provider, .. } => *provider = 0,
                        Command::OpenTts { voice } | Command::Speak { voice, .. } => *voice = 0,
                        _ => {}
                    }
                }
            }
            Plant::WrongTimes => {
                for command in out {
                    if let Command::Timed(timing) = command {
                        timing.first_token = timing.playout.plus_ms(1);
                    }
                }
            }
            Plant::Endless => {
                for command in out {
                    if let Command::Speak { text, .. } = command {
                        *text = text.repeat(400);
                    }
                }
            }
        }
    }

    /// Plays a reply once more right after it was cancelled.
    fn play_on(&mut self, out: &mut Vec<Command>) {
        let mut at = 0;
        while at < out.len() {
            match out[at] {
                Command::Play { reply } => self.playing = Some(reply),
                Command::CancelReply { reply } if self.playing == Some(reply) => {
                    out.insert(at + 1, Command::Play { reply });
                    at += 1;
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn clip(&mut self, input: Option<&Input>, out: &mut Vec<Command>) {
        for command in &*out {
            if let Command::Speak { reply, text, .. } = command
                && (text.contains("oodbye") || text.contains("nice day"))
            {
                self.goodbye = Some(*reply);
            }
        }
        if let Some(Input::Played { reply, ms, done: false }) = input
            && self.goodbye == Some(*reply)
            && *ms >= 200
        {
            self.goodbye = None;
            out.push(Command::HangUp);
        }
    }

    /// What is left of a log.
    pub(super) fn forget(&self, log: &[LogLine]) -> Vec<LogLine> {
        let forgotten = |line: &LogLine| {
            self.plant == Plant::ForgetfulLog && matches!(line.input, Some(Input::Token { .. }))
        };
        log.iter().filter(|line| !forgotten(line)).cloned().collect()
    }
}

fn change_asks(out: &mut [Command], change: impl Fn(&mut ChatMessage)) {
    for command in out {
        if let Command::Ask { messages, .. } = command {
            *messages = messages
                .iter()
                .map(|message| {
                    let mut message = message.clone();
                    change(&mut message);
                    message
                })
                .collect();
        }
    }
}
