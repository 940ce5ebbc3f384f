//! Datagrams of any content at both ports of a call, in any order, between frames that are heard.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offhook_carriers::sip::rtp::bench;

fuzz_target!(|input: (u8, Vec<(u8, Vec<u8>)>)| {
    let (kind, datagrams) = input;
    let mut line = bench::receiver(kind);
    for (step, mut datagram) in datagrams {
        line(step, &mut datagram);
    }
});
