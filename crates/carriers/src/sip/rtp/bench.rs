//! The receiving half of a line without its sockets, for fuzzing: no part of the interface.

use super::SourceFilter;
use super::receiver::Receiver;
use crate::sip::sdp::{Codec, Direction, Dtmf, Numbers, Stream};
use crate::sip::srtp::{Master, Sealing, SrtpKeys, Suite};
use std::net::SocketAddr;

/// Reads datagrams at either port and hears a frame after each; `kind` picks what was agreed, `step` the port, who sends, whether
/// it is sealed as agreed, and how much time passes.
pub fn receiver(kind: u8) -> impl FnMut(u8, &mut Vec<u8>) {
    let there: SocketAddr = ([192, 0, 2, 1], 4_000).into();
    let keys = || {
        let suites = [Suite::AesCm128HmacSha1_80, Suite::AesCm128HmacSha1_32, Suite::AeadAes128Gcm];
        let suite = *suites.get(usize::from(kind >> 4 & 3))?;
        Some(SrtpKeys { suite, ours: Master::new([1; 30]), theirs: Master::new([2; 30]) })
    };
    let numbers = Numbers { audio: 0, event: Some(101) };
    let stream = Stream {
        codec: if kind & 1 == 0 { Codec::Pcmu } else { Codec::Opus },
        send: numbers,
        receive: numbers,
        remote: there,
        remote_rtcp: SocketAddr::new(there.ip(), 4_001),
        rtcp_mux: kind & 2 != 0,
        srtp: keys(),
        direction: Direction::Both,
        ptime_ms: 20,
        dtmf: if kind & 4 == 0 { Dtmf::Rfc4733 } else { Dtmf::Inband },
    };
    let mut sealing = keys().map(|keys| Sealing::new(keys.suite, &keys.theirs));
    let mut receiver = Receiver::new(&stream, stream.codec.coding(), SourceFilter::anybody(), 7, 0);
    let (mut now_us, mut frame, mut pressed) = (0, Vec::new(), Vec::new());
    let whole = stream.codec.coding().bytes_per_ms() * 20;
    move |step, datagram| {
        let from = if step & 2 == 0 { there } else { SocketAddr::new(there.ip(), 9) };
        if let Some(sealing) = sealing.as_mut().filter(|_| step & 4 != 0 && datagram.len() >= 12) {
            if step & 1 == 0 { sealing.rtp(datagram, 12) } else { sealing.rtcp(datagram) }
        }
        now_us += u64::from(step >> 3) * 10_000;
        if step & 1 == 0 {
            receiver.rtp(now_us, from, datagram, &mut pressed);
        } else {
            receiver.rtcp(now_us, from, datagram);
        }
        receiver.frame(&mut frame, &mut pressed);
        assert_eq!(frame.len(), whole, "a frame is 20 ms, whatever came");
        assert!(receiver.figures().delay_ms <= 400, "the delay has a bound");
        let _ = receiver.block(now_us);
        pressed.clear();
    }
}
