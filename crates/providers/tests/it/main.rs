//! Each adapter against small servers of the tests' own, which say exactly what a test wants said.

mod cartesia;
mod deepgram;
mod elevenlabs;
mod openai_audio;
mod openai_chat;
mod server;
mod sessions;
