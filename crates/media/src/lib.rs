//! Telephone audio as plain samples: PCM in, PCM out. Nothing here knows a socket, a file, a clock, a thread or a call:
//! time is counted in samples, and what the sound means is decided elsewhere.

pub mod coding;
pub mod conceal;
pub mod dtmf;
pub mod echo;
pub mod g711;
pub mod jitter;
pub mod level;
pub mod opus;
pub mod resample;
pub mod vad;
pub mod wav;

/// Samples a second on a telephone line.
pub const LINE_RATE_HZ: u32 = 8_000;

/// Length of the frames that telephone media travels in, milliseconds.
pub const FRAME_MS: u32 = 20;

/// Samples (and G.711 bytes) of one frame on a telephone line.
pub const FRAME_SAMPLES: usize = (LINE_RATE_HZ * FRAME_MS / 1_000) as usize;
