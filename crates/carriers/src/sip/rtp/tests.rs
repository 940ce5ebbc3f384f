//! Lines on loopback: our own at both ends, and bare sockets that misbehave.

use super::packet::{Event, HEADER, Header};
use super::*;
use crate::sip::sdp::{Codec, Direction, Dtmf, MediaWishes, Numbers, Offer, SrtpPolicy, offer};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::time::{Instant, timeout};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(20);

fn media() -> Media {
    Media::start(LOOPBACK, 20_000..=29_999).unwrap()
}

/// Both ends of a call that is agreed on by their descriptions.
fn call(ours: &MediaWishes, theirs: &MediaWishes) -> [(RtpLine, RtpControl, Stream); 2] {
    let media = media();
    let (a, b) = (media.open().unwrap(), media.open().unwrap());
    let (mut local_a, mut local_b) = (a.local(LOOPBACK), b.local(LOOPBACK));
    let (text, offered) = offer(&mut local_a, ours);
    let (answer, stream_b) = Offer::parse(text.as_bytes()).unwrap().answer(&mut local_b, theirs).unwrap();
    let stream_a = offered.accept(answer.as_bytes()).unwrap();
    [(a, stream_a), (b, stream_b)].map(|(port, stream)| {
        let (line, control) = port.begin(stream.clone(), SourceFilter::only([]));
        (line, control, stream)
    })
}

/// A bare peer, and a line that was told of its port.
struct Bare {
    socket: UdpSocket,
    line: RtpLine,
    control: RtpControl,
    port: u16,
    stream: Stream,
    sequence: u16,
}

impl Bare {
    fn new(allowed: SourceFilter, change: impl FnOnce(&mut Stream)) -> Bare {
        let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = plain(socket.local_addr().unwrap());
        change(&mut stream);
        let port = media().open().unwrap();
        let number = port.local_port();
        let (line, control) = port.begin(stream.clone(), allowed);
        Bare { socket, line, control, port: number, stream, sequence: 0 }
    }

    fn receive(&self) -> (Header, Vec<u8>) {
        let mut packet = vec![0; 2_000];
        let length = self.socket.recv(&mut packet).expect("a packet comes every 20 ms");
        packet.truncate(length);
        let (header, start) = Header::read(&packet).unwrap();
        (header, packet[start..].to_vec())
    }

    fn send(&mut self, from: &UdpSocket, ssrc: u32, payload: &[u8]) {
        let timestamp = u32::from(self.sequence) * 160;
        let header = Header { marker: false, payload_type: 0, sequence: self.sequence, timestamp, ssrc };
        self.sequence += 1;
        let mut packet = Vec::new();
        header.write(&mut packet);
        packet.extend_from_slice(payload);
        from.send_to(&packet, (LOOPBACK, self.port)).unwrap();
    }
}

fn plain(remote: SocketAddr) -> Stream {
    let numbers = Numbers { audio: 0, event: Some(101) };
    Stream {
        codec: Codec::Pcmu,
        send: numbers,
        receive: numbers,
        remote,
        remote_rtcp: SocketAddr::new(remote.ip(), remote.port() + 1),
        rtcp_mux: false,
        srtp: None,
        direction: Direction::Both,
        ptime_ms: 20,
        dtmf: Dtmf::Rfc4733,
    }
}

async fn next(line: &mut RtpLine) -> RtpEvent {
    timeout(PATIENCE, line.next()).await.expect("something comes every 20 ms")
}

/// Frames until one that is not silent.
async fn sound(line: &mut RtpLine) -> Vec<u8> {
    let mut silence = Vec::new();
    line.coding().silence(line.coding().bytes_per_ms() * 20, &mut silence);
    loop {
        if next(line).await == RtpEvent::Audio && line.audio() != silence {
            return line.audio().to_vec();
        }
    }
}

async fn key(line: &mut RtpLine) -> char {
    loop {
        if let RtpEvent::Key(key) = next(line).await {
            return key;
        }
    }
}

/// Serves the line until the condition holds.
async fn serve_until(line: &mut RtpLine, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it does not come to pass");
        next(line).await;
    }
}

#[tokio::test]
async fn sound_goes_both_ways_over_every_codec_and_suite() {
    let cases = [
        (Codec::Pcmu, SrtpPolicy::Off),
        (Codec::Pcma, SrtpPolicy::Off),
        (Codec::Pcmu, SrtpPolicy::Required),
        (Codec::Opus, SrtpPolicy::Off),
        (Codec::Opus, SrtpPolicy::Required),
    ];
    for (codec, srtp) in cases {
        let wishes = MediaWishes { codecs: vec![codec], srtp, ..MediaWishes::default() };
        let [mut a, mut b] = call(&wishes, &wishes);
        assert_eq!(a.2.srtp.is_some(), srtp == SrtpPolicy::Required);
        let pcm: Vec<i16> = (0..16_000).map(|n| (9_000.0 * (n as f32 * 0.3).sin()) as i16).collect();
        let mut coded = Vec::new();
        codec.coding().encode(&pcm, &mut coded);
        a.0.play(&coded);
        b.0.play(&coded);
        for (line, ..) in [&mut a, &mut b] {
            let first = sound(line).await;
            assert_eq!(first.len(), codec.coding().bytes_per_ms() * 20);
            if codec != Codec::Opus {
                assert!(coded.chunks(160).any(|frame| frame == first), "it is what was played");
            }
        }
        let figures = a.1.statistics();
        assert_eq!(
            (figures.received.srtp_failures, figures.received.strangers),
            (0, 0),
            "{codec:?} {srtp:?}"
        );
    }
}

#[tokio::test]
async fn wrong_keys_are_counted_and_nothing_is_heard() {
    let wishes = MediaWishes { srtp: SrtpPolicy::Required, ..MediaWishes::default() };
    let [mut a, b] = call(&wishes, &wishes);
    let mut wrong = b.2.clone();
    wrong.srtp.as_mut().unwrap().ours = Master::new([3; 30]);
    b.1.change(wrong);
    let control = a.1.clone();
    serve_until(&mut a.0, || control.statistics().received.srtp_failures >= 50).await;
}

#[tokio::test]
async fn a_mark_comes_back_when_what_was_before_it_is_sent() {
    let mut bare = Bare::new(SourceFilter::only([]), |_| {});
    bare.line.mark("nothing waits");
    assert_eq!(bare.line.next().await, RtpEvent::Mark("nothing waits".into()));
    bare.line.play(&[1; 1_600]);
    bare.line.mark("200 ms");
    bare.line.play(&[2; 80]);
    bare.line.mark("half a frame");
    let mut frames = 0;
    loop {
        match next(&mut bare.line).await {
            RtpEvent::Audio => frames += 1,
            RtpEvent::Mark(name) if name == "200 ms" => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((9..=11).contains(&frames), "{frames}");
    loop {
        match next(&mut bare.line).await {
            RtpEvent::Audio => {}
            other => break assert_eq!(other, RtpEvent::Mark("half a frame".into())),
        }
    }
    let heard: Vec<u8> = (0..11).flat_map(|_| bare.receive().1).skip_while(|byte| *byte == 0xFF).collect();
    assert_eq!(heard[..1_600], [1; 1_600]);
    assert!(heard[1_600..].iter().all(|byte| *byte == 2 || *byte == 0xFF), "half a frame is filled up");
}

#[tokio::test]
async fn clear_gives_marks_back_and_silences_the_line() {
    let mut bare = Bare::new(SourceFilter::only([]), |_| {});
    bare.line.play(&[1; 80_000]);
    bare.line.mark("first");
    bare.line.mark("second");
    while bare.receive().1[0] != 1 {}
    bare.line.clear();
    bare.line.play(&[2; 160]);
    let mut marks = Vec::new();
    while marks.len() < 2 {
        if let RtpEvent::Mark(name) = next(&mut bare.line).await {
            marks.push(name);
        }
    }
    assert_eq!(marks, ["first", "second"]);
    let after: Vec<u8> =
        std::iter::repeat_with(|| bare.receive().1[0]).take_while(|byte| *byte != 2).collect();
    assert!(after.len() <= 50, "{} old packets", after.len());
}

#[tokio::test]
async fn packets_keep_coming_and_their_numbers_are_steady() {
    let mut bare = Bare::new(SourceFilter::only([]), |_| {});
    bare.line.play(&[1; 480]);
    let packets: Vec<_> = (0..20).map(|_| bare.receive()).collect();
    for pair in packets.windows(2) {
        assert_eq!(pair[1].0.sequence, pair[0].0.sequence.wrapping_add(1));
        assert_eq!(pair[1].0.timestamp.wrapping_sub(pair[0].0.timestamp) % 160, 0);
        assert_eq!((pair[1].0.ssrc, pair[1].0.payload_type), (pair[0].0.ssrc, 0));
        assert_eq!(pair[1].1.len(), 160);
    }
    let said: Vec<usize> = (0..20).filter(|n| packets[*n].1[0] == 1).collect();
    let marked: Vec<usize> = (0..20).filter(|n| packets[*n].0.marker).collect();
    assert_eq!(said.len(), 3);
    assert!(marked.contains(&0) && marked.iter().all(|n| [0, said[0]].contains(n)), "{marked:?} {said:?}");
}

#[tokio::test]
async fn on_hold_nothing_is_sent_and_what_waits_waits() {
    let mut bare = Bare::new(SourceFilter::only([]), |_| {});
    bare.receive();
    let held = Stream { direction: Direction::ReceiveOnly, ..bare.stream.clone() };
    bare.control.change(held);
    bare.line.play(&[1; 160]);
    bare.line.mark("after hold");
    // What was on its way when the change came.
    bare.socket.set_nonblocking(true).unwrap();
    while bare.socket.recv(&mut [0; 300]).is_ok() {}
    let other = bare.socket.try_clone().unwrap();
    for _ in 0..30 {
        bare.send(&other, 5, &[3; 160]);
        assert_eq!(next(&mut bare.line).await, RtpEvent::Audio);
        assert_eq!(bare.line.audio(), [0xFF; 160], "music on hold is not for us");
    }
    assert!(bare.socket.recv(&mut [0; 300]).is_err(), "something was sent");
    assert_eq!(bare.control.statistics().received.strangers, 0);
    bare.socket.set_nonblocking(false).unwrap();
    bare.control.change(bare.stream.clone());
    let (header, payload) = bare.receive();
    assert!(header.marker && payload[0] == 1, "{header:?}");
    while next(&mut bare.line).await != RtpEvent::Mark("after hold".into()) {}
}

#[tokio::test]
async fn keys_are_heard_as_they_were_pressed() {
    for dtmf in [Dtmf::Rfc4733, Dtmf::Inband] {
        for codec in [Codec::Pcmu, Codec::Opus] {
            let wishes = MediaWishes { codecs: vec![codec], dtmf, ..MediaWishes::default() };
            let [mut a, mut b] = call(&wishes, &wishes);
            a.0.press("5w5#x0");
            let mut heard = String::new();
            while heard.len() < 4 {
                heard.push(key(&mut b.0).await);
            }
            assert_eq!(heard, "55#0", "{dtmf:?} {codec:?}");
        }
    }
}

#[tokio::test]
async fn keys_by_info_go_through_the_signalling() {
    let mut bare = Bare::new(SourceFilter::only([]), |stream| stream.dtmf = Dtmf::Info);
    bare.line.press("7#");
    assert_eq!((bare.control.key_to_send().await, bare.control.key_to_send().await), ('7', '#'));
    bare.control.key('x');
    bare.control.key('d');
    assert_eq!(key(&mut bare.line).await, 'D');
}

#[tokio::test]
async fn an_event_is_sent_as_rfc_4733_says() {
    let mut bare = Bare::new(SourceFilter::only([]), |_| {});
    bare.line.press("1");
    let mut packets = Vec::new();
    while packets.iter().filter(|(header, _): &&(Header, Vec<u8>)| header.payload_type == 101).count() < 7 {
        packets.push(bare.receive());
    }
    packets.push(bare.receive());
    let first = packets.iter().position(|(header, _)| header.payload_type == 101).unwrap();
    let start = packets[first].0.timestamp;
    let events: Vec<_> = packets.iter().filter(|(header, _)| header.payload_type == 101).collect();
    let read = |payload: &[u8]| Event::read_all(payload).next().unwrap();
    let shapes: Vec<_> =
        events.iter().map(|(_, payload)| read(payload)).map(|e| (e.code, e.end, e.duration)).collect();
    let down = [160, 320, 480, 640].map(|duration| (1, false, duration));
    assert_eq!(shapes, [&down[..], &[(1, true, 800); 3]].concat());
    assert!(events.iter().all(|(header, _)| header.timestamp == start));
    let markers: Vec<bool> = events.iter().map(|(header, _)| header.marker).collect();
    assert_eq!(markers, [true, false, false, false, false, false, false]);
    assert!(packets.windows(2).all(|pair| pair[1].0.sequence == pair[0].0.sequence.wrapping_add(1)));
    let after = packets[first..].iter().find(|(header, _)| header.payload_type == 0).unwrap();
    assert_eq!(after.0.timestamp, start.wrapping_add(800), "sound goes on after the event's time");
}

#[tokio::test]
async fn a_peer_behind_nat_is_found_and_a_stranger_is_not_heard() {
    let network = SourceFilter::only([("127.0.0.1".parse().unwrap(), 32)]);
    let mut bare = Bare::new(network, |stream| {
        stream.remote = "192.0.2.1:4000".parse().unwrap();
        stream.remote_rtcp = "192.0.2.1:4001".parse().unwrap();
    });
    let real = bare.socket.try_clone().unwrap();
    let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
    for _ in 0..3 {
        bare.send(&stranger, 66, &[7; 160]);
    }
    for _ in 0..3 {
        bare.send(&real, 1, &[9; 160]);
    }
    assert_eq!(sound(&mut bare.line).await, [9; 160]);
    bare.receive();
    let received = bare.control.statistics().received;
    assert_eq!((received.strangers, received.received), (5, 1), "two packets were the proof");
}

#[tokio::test]
async fn a_port_that_changes_is_followed_after_two_seconds_and_no_sooner() {
    let mut bare = Bare::new(SourceFilter::only([]), |_| {});
    let first = bare.socket.try_clone().unwrap();
    let moved = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    moved.set_read_timeout(Some(PATIENCE)).unwrap();
    bare.send(&first, 1, &[5; 160]);
    assert_eq!(sound(&mut bare.line).await, [5; 160]);
    let lost_at = Instant::now();
    let mut frames = 0;
    loop {
        bare.send(&moved, 1, &[6; 160]);
        assert_eq!(next(&mut bare.line).await, RtpEvent::Audio);
        frames += 1;
        if bare.line.audio().contains(&6) {
            break;
        }
        assert!(frames < 500, "it is never followed");
    }
    assert!(lost_at.elapsed() >= Duration::from_millis(1_800), "{:?}", lost_at.elapsed());
    assert!(moved.recv(&mut [0; 300]).is_ok(), "and sent to");
}

#[tokio::test]
async fn reports_tell_both_ends_how_they_are_heard() {
    let [mut a, mut b] = call(&MediaWishes::default(), &MediaWishes::default());
    let (control_a, control_b) = (a.1.clone(), b.1.clone());
    let told = move || {
        let remotes = [control_a.statistics().received.remote, control_b.statistics().received.remote];
        remotes.iter().all(|remote| remote.is_some_and(|report| report.round_trip_us.is_some()))
    };
    let serve_b = tokio::spawn(async move { while next(&mut b.0).await != RtpEvent::Stopped {} });
    serve_until(&mut a.0, told).await;
    let remote = a.1.statistics().received.remote.unwrap();
    assert_eq!(remote.lost, 0);
    assert!(remote.round_trip_us.unwrap() < 1_000_000);
    b.1.stop();
    serve_b.await.unwrap();
}

#[tokio::test]
async fn the_end_is_told_to_the_line_and_by_rtcp() {
    let mut bare = Bare::new(SourceFilter::only([]), |_| {});
    let rtcp = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    rtcp.set_read_timeout(Some(PATIENCE)).unwrap();
    bare.control.change(Stream {
        remote_rtcp: rtcp.local_addr().unwrap(),
        rtcp_mux: false,
        ..bare.stream.clone()
    });
    next(&mut bare.line).await;
    next(&mut bare.line).await;
    bare.control.stop();
    assert_eq!(next(&mut bare.line).await, RtpEvent::Stopped);
    assert_eq!(next(&mut bare.line).await, RtpEvent::Stopped);
    let mut packet = [0; 300];
    let length = rtcp.recv(&mut packet).unwrap();
    assert!(rtcp::read(&packet[..length], 0).unwrap().goodbye);
}

#[tokio::test]
async fn silence_of_the_other_end_is_told_unless_it_holds_the_call() {
    let mut bare = Bare::new(SourceFilter::only([]), |_| {});
    let limit = Duration::from_millis(600);
    bare.control.change(Stream { direction: Direction::Inactive, ..bare.stream.clone() });
    assert!(timeout(limit * 3, bare.control.silence(limit)).await.is_err(), "it is held");
    bare.control.change(bare.stream.clone());
    next(&mut bare.line).await;
    timeout(PATIENCE, bare.control.silence(limit)).await.unwrap();
    assert!(bare.control.statistics().silent_for >= limit);
}

#[tokio::test]
async fn a_line_that_is_dropped_stops_and_its_ports_are_free() {
    let media = Media::start(LOOPBACK, 30_000..=30_001).unwrap();
    let port = media.open().unwrap();
    assert_eq!(port.local_port(), 30_000);
    assert_eq!(media.open().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let (line, control) = port.begin(plain("127.0.0.1:9".parse().unwrap()), SourceFilter::only([]));
    drop((line, control));
    let end = Instant::now() + PATIENCE;
    while media.open().is_err() {
        assert!(Instant::now() < end);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_line_over_ipv6_is_like_any_other() {
    let there = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let Ok(media) = Media::start(there, 20_000..=29_999) else { return };
    let Ok(port) = media.open() else { return };
    let socket = UdpSocket::bind((there, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (_line, _control) = port.begin(plain(socket.local_addr().unwrap()), SourceFilter::only([]));
    assert!(socket.recv(&mut [0; 300]).unwrap() > HEADER);
}

#[test]
fn ports_without_a_pair_are_refused() {
    for ports in [30_001..=30_001, 30_001..=30_002, u16::MAX..=u16::MAX] {
        assert!(Media::start(LOOPBACK, ports).is_err());
    }
    assert!(Media::start(LOOPBACK, 65_534..=65_535).is_ok());
}

#[test]
fn percentiles_are_those_of_what_was_noted() {
    let lateness = Lateness::default();
    assert_eq!(lateness.percentiles(), Percentiles::default());
    (0..98).for_each(|_| lateness.note(60));
    lateness.note(4_500);
    lateness.note(40_000);
    let expected = Percentiles { packets: 100, p50_us: 100, p99_us: 5_000, most_us: 40_000 };
    assert_eq!(lateness.percentiles(), expected);
}
