//! The hot parse paths without their sockets, for benches and fuzzing: no part of the interface.
//! It knows no message; each adapter reads its own.

use crate::ws::{Outbox, Protocol};
use crate::{TtsCommand, cartesia, deepgram, elevenlabs, openai, settings};
use offhook_core::Secret;

/// Reads events of a chat completion; answers how many pieces of a reply each made.
pub fn openai_chat() -> impl FnMut(&str) -> usize {
    let mut assembler = openai::Assembler::new("openai");
    move |event| {
        if assembler.event(event).is_err() {
            assembler = openai::Assembler::new("openai");
        }
        assembler.told.drain(..).count()
    }
}

/// Reads messages of a live transcription; answers how many events each made.
pub fn deepgram_listen() -> impl FnMut(&str) -> usize {
    reader(deepgram::Listener::new("deepgram"))
}

/// Reads messages of Flux; answers how many events each made.
pub fn deepgram_flux() -> impl FnMut(&str) -> usize {
    reader(deepgram::TurnListener::new("deepgram_flux"))
}

/// Reads messages of an Aura voice; answers how many events each made.
pub fn deepgram_speak() -> impl FnMut(&str) -> usize {
    speaker(deepgram::Speaker::new("deepgram"))
}

/// Reads messages of a voice that speaks context `1-0`; answers how many events each made.
pub fn elevenlabs() -> impl FnMut(&str) -> usize {
    speaker(elevenlabs::Speaker::new(&settings::usual("elevenlabs", Secret::default())))
}

/// Reads messages of a voice that speaks context `1-0`; answers how many events each made.
pub fn cartesia() -> impl FnMut(&str) -> usize {
    speaker(cartesia::Speaker::new(&settings::usual("cartesia", Secret::default()), "en"))
}

fn speaker(mut protocol: impl Protocol<Command = TtsCommand>) -> impl FnMut(&str) -> usize {
    let text = "Sure, we have a table at eight. ".repeat(1_000);
    protocol.command(TtsCommand::Speak { context: 1, text }, &mut Outbox::new());
    reader(protocol)
}

fn reader<P: Protocol>(mut protocol: P) -> impl FnMut(&str) -> usize {
    let mut out = Outbox::new();
    move |frame| {
        // What is wrong with a frame is nothing to a bench, and must be nothing worse than an error to a fuzzer.
        let _ = protocol.text(frame, &mut out);
        out.take_events().count()
    }
}
