//! Messages of speech providers on their sockets: the first byte picks the provider, the rest is one message a line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use offhook_providers::bench;

fuzz_target!(|input: (u8, &str)| {
    let (provider, messages) = input;
    let mut read: Box<dyn FnMut(&str) -> usize> = match provider % 5 {
        0 => Box::new(bench::deepgram_listen()),
        1 => Box::new(bench::deepgram_flux()),
        2 => Box::new(bench::deepgram_speak()),
        3 => Box::new(bench::elevenlabs()),
        _ => Box::new(bench::cartesia()),
    };
    for message in messages.lines() {
        read(message);
    }
});
