//! Every bound of the call core, by name. A bound is reached by a fault or an attack, not by a normal call.

/// Bytes of one transcript kept; longer ones are cut.
pub const TRANSCRIPT_BYTES: usize = 4_000;
/// Bytes the agent may write in one reply; then the model is stopped and what was written is spoken.
pub const REPLY_BYTES: usize = 4_000;
/// Bytes of the arguments of one tool call; longer ones are answered with an error.
pub const TOOL_ARGUMENT_BYTES: usize = 16 * 1024;
/// Bytes of one tool result shown to the model; longer ones are cut.
pub const TOOL_RESULT_BYTES: usize = 16 * 1024;
/// Tools one model answer may ask for.
pub const TOOLS_PER_ANSWER: usize = 8;
/// Times in one turn that the model may be asked again with tool results.
pub const TOOL_ROUNDS_PER_TURN: u8 = 6;
/// Requests to models for one answer, those with tool results and those that failed counted; then the agent gives up.
pub const ASKS_PER_ANSWER: u8 = 16;
/// Answers prepared ahead and thrown away in one turn before head starts pause until the next.
pub const THROWN_AWAY_PER_TURN: u8 = 2;
/// History items shown to the model; the oldest after the instructions are left out first.
pub const HISTORY_ITEMS: usize = 400;
/// Anchors kept of one reply.
pub const ANCHORS_PER_REPLY: usize = 2_000;
/// Bytes of the summary that a person hears before they take a call; longer ones are cut.
pub const SUMMARY_BYTES: usize = 1_000;
/// Milliseconds that a person's phone may ring.
pub const RING_MS: u32 = 120_000;
/// DTMF digits kept of one entry.
pub const DTMF_DIGITS: usize = 64;
/// Timers that may fire at one instant; more would be a loop in the machine.
pub const TIMERS_AT_ONCE: usize = 64;
