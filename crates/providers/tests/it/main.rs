//! Each adapter against small servers of the tests' own, which say exactly what a test wants said, and against the simulated
//! providers, which say what the documents promise and get it wrong in every way they know.

mod cartesia;
mod deepgram;
mod elevenlabs;
mod faults;
mod openai_audio;
mod openai_chat;
mod server;
mod sessions;
mod simulated;
