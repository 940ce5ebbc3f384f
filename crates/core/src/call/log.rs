//! The replay log of a call: what came in, when, and a digest of what went out. Replay, failover and simulation are one
//! function, folding `handle` over it; this module does not know where it is stored.

use super::{Call, CallPlan, CallTime, Command, Input};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};

/// Raised whenever the same inputs may lead to other commands. A log names the revision it was written by.
pub const LOG_REVISION: u32 = 3;

/// One line of the log: an input and what the machine made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the input was handled.
    pub at: CallTime,
    /// The input; `None` on the first line, which stands for the start of the call, and where the call was resumed.
    pub input: Option<Input>,
    /// Whether the line stands for [`Call::resume`] rather than [`Call::start`]; only where there is no input.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// [`digest`] of the commands.
    pub digest: u64,
    /// The commands in short, for people.
    pub orders: String,
}

impl LogLine {
    /// The line for an input and the commands that followed.
    pub fn new(at: CallTime, input: Option<Input>, resumed: bool, commands: &[Command]) -> Self {
        LogLine { at, input, resumed, digest: digest(commands), orders: summary(commands) }
    }
}

/// Where a replay first did otherwise than the log says.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// Which line, from 0.
    pub line: usize,
    /// When, in the call.
    pub at: CallTime,
    /// What the log says was ordered.
    pub logged: String,
    /// What the replay ordered.
    pub replayed: String,
}

/// Folds the machine over a log; returns the call as it stood at the end, and the first divergence if there is one.
pub fn replay(plan: CallPlan, lines: &[LogLine]) -> (Call, Option<Divergence>) {
    let mut commands = Vec::new();
    let mut call = Call::start(plan, &mut commands);
    let mut divergence = None;
    for (number, line) in lines.iter().enumerate() {
        match &line.input {
            Some(input) => call.handle(line.at, input.clone(), &mut commands),
            None if line.resumed => call.resume(line.at, &mut commands),
            None => {}
        }
        if divergence.is_none() && digest(&commands) != line.digest {
            let (logged, replayed) = (line.orders.clone(), summary(&commands));
            divergence = Some(Divergence { line: number, at: line.at, logged, replayed });
        }
        commands.clear();
    }
    (call, divergence)
}

/// Goes on from a snapshot with the lines after it, without looking at what was ordered then.
pub fn fold(mut call: Call, tail: &[LogLine]) -> Call {
    let mut commands = Vec::new();
    for line in tail {
        match &line.input {
            Some(input) => call.handle(line.at, input.clone(), &mut commands),
            None if line.resumed => call.resume(line.at, &mut commands),
            None => {}
        }
        commands.clear();
    }
    call
}

/// A fingerprint of commands: equal commands have equal digests on every machine and in every build of one revision.
pub fn digest(commands: &[Command]) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    commands.hash(&mut hasher);
    hasher.finish()
}

/// The commands in a line for people: names and numbers, no words of the caller or the agent.
pub fn summary(commands: &[Command]) -> String {
    let mut out = String::new();
    for command in commands {
        if !out.is_empty() {
            out.push_str(", ");
        }
        let _ = write!(out, "{command}");
    }
    out
}

/// FNV-1a: the standard hasher may change between releases of Rust, this one may not.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    // Lengths and numbers in one width and order on every machine.
    fn write_usize(&mut self, value: usize) {
        self.write(&(value as u64).to_le_bytes());
    }

    fn write_isize(&mut self, value: isize) {
        self.write(&(value as i64).to_le_bytes());
    }

    fn write_u32(&mut self, value: u32) {
        self.write(&value.to_le_bytes());
    }

    fn write_u64(&mut self, value: u64) {
        self.write(&value.to_le_bytes());
    }
}
