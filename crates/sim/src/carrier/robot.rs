//! A caller who follows a script over a simulated telephone, and how fast the other side answered each turn.
//! It knows no words and no carrier: it hears only sound and silence.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::phone::{LineEvent, NotInTime, Phone, What};

/// One step of a caller's script.
#[derive(Clone, Debug)]
pub enum CallerStep {
    /// Waits until the agent has spoken since the caller's last words and has then been silent for so long.
    WaitForAgentQuiet {
        /// Silence that tells the caller that the agent is done.
        ms: u64,
    },
    /// Speaks, 8 kHz, to the end.
    Say(Arc<[i16]>),
    /// Waits.
    Pause {
        /// How long.
        ms: u64,
    },
    /// Talks over the agent.
    BargeIn {
        /// How long the agent must have been sounding.
        after_ms_of_agent: u64,
        /// What is said, 8 kHz.
        say: Arc<[i16]>,
    },
    /// Presses keys.
    Dtmf(String),
    /// Puts the receiver down.
    HangUp,
}

/// One turn as the caller knows it, in call time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RobotTurn {
    /// When the caller made the first sound of the turn.
    pub caller_started_ms: u64,
    /// When the caller made the last sound of the turn.
    pub caller_ended_ms: u64,
    /// When the agent began to sound after it, if it did before the caller's next turn.
    pub agent_started_ms: Option<u64>,
    /// For a barge-in: when the agent fell silent, if it did before the caller's next turn.
    pub agent_stopped_ms: Option<u64>,
    /// Whether the caller talked over the agent.
    pub barge_in: bool,
}

impl RobotTurn {
    /// From the last sound of the caller to the first of the agent.
    pub fn latency_ms(&self) -> Option<u64> {
        Some(self.agent_started_ms?.saturating_sub(self.caller_ended_ms))
    }
}

/// What came of a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RobotReport {
    /// Every time the caller spoke.
    pub turns: Vec<RobotTurn>,
    /// How many steps were done: fewer than the script has where `stopped` says why.
    pub steps_done: usize,
    /// Why the script was not followed to its end, in words.
    pub stopped: Option<String>,
}

/// Follows a script; gives up where one step waits longer than `patience` on the agent, or when the call ends.
pub async fn follow(phone: &Phone, script: &[CallerStep], patience: Duration) -> RobotReport {
    let mut robot = Robot { phone, patience, turns: Vec::new() };
    let mut steps_done = 0;
    let mut stopped = None;
    for step in script {
        match robot.take(step).await {
            Ok(()) => steps_done += 1,
            Err(reason) => {
                stopped = Some(reason.to_string());
                break;
            }
        }
    }
    let mut report = RobotReport { turns: robot.turns, steps_done, stopped };
    report.look_for_answers(phone);
    report
}

impl RobotReport {
    /// Finds what the agent answered to each turn. The last answer may come when the script has ended: then look again.
    pub fn look_for_answers(&mut self, phone: &Phone) {
        let history = phone.history();
        let first = |what: What, from_ms: u64, to_ms: u64| {
            let mut hits = history.iter().filter(|event| event.what == what);
            hits.find(|event| (from_ms..to_ms).contains(&event.at_ms)).map(|event| event.at_ms)
        };
        let next_starts = self.turns.iter().skip(1).map(|turn| turn.caller_started_ms).chain([u64::MAX]);
        let next_starts: Vec<_> = next_starts.collect();
        for (turn, next_ms) in self.turns.iter_mut().zip(next_starts) {
            turn.agent_started_ms = first(What::AgentStarted, turn.caller_ended_ms, next_ms);
            if turn.barge_in {
                turn.agent_stopped_ms = first(What::AgentStopped, turn.caller_started_ms, next_ms);
            }
        }
    }
}

struct Robot<'a> {
    phone: &'a Phone,
    patience: Duration,
    turns: Vec<RobotTurn>,
}

impl Robot<'_> {
    async fn take(&mut self, step: &CallerStep) -> Result<(), NotInTime> {
        match step {
            CallerStep::WaitForAgentQuiet { ms } => {
                let since_ms = self.turns.last().map_or(0, |turn| turn.caller_ended_ms);
                let done = |phone: &Phone| {
                    phone.agent_last_sound_ms().is_some_and(|at| at > since_ms)
                        && phone.agent_quiet_ms().is_some_and(|quiet| quiet >= *ms)
                };
                self.phone.until(self.patience, done).await
            }
            CallerStep::Say(pcm) => self.say(pcm, false).await,
            CallerStep::Pause { ms } => {
                let until_ms = self.phone.now_ms() + ms;
                let limit = Duration::from_millis(*ms) + self.patience;
                self.phone.until(limit, |phone| phone.now_ms() >= until_ms).await
            }
            CallerStep::BargeIn { after_ms_of_agent, say } => {
                let talked = |phone: &Phone| phone.agent_sounding_ms() >= Some(*after_ms_of_agent);
                self.phone.until(self.patience, talked).await?;
                self.say(say, true).await
            }
            CallerStep::Dtmf(digits) => {
                self.phone.press(digits);
                Ok(())
            }
            CallerStep::HangUp => {
                self.phone.hang_up();
                Ok(())
            }
        }
    }

    async fn say(&mut self, pcm: &[i16], barge_in: bool) -> Result<(), NotInTime> {
        let from_ms = self.phone.now_ms();
        self.phone.say(pcm);
        let limit = Duration::from_millis(pcm.len() as u64 / super::SAMPLES_PER_MS) + self.patience;
        let said = self.phone.until(limit, |phone| !phone.is_speaking()).await;
        let ended_ms = self.phone.caller_last_sound_ms().filter(|&at| at >= from_ms);
        if let Some(caller_ended_ms) = ended_ms {
            let started = |event: &&LineEvent| event.what == What::CallerStarted && event.at_ms >= from_ms;
            let caller_started_ms =
                self.phone.history().iter().find(started).map_or(from_ms, |event| event.at_ms);
            self.turns.push(RobotTurn {
                caller_started_ms,
                caller_ended_ms,
                agent_started_ms: None,
                agent_stopped_ms: None,
                barge_in,
            });
        }
        said
    }
}
