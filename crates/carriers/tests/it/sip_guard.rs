//! What strangers and breakers send to the SIP port, and the torture messages of RFC 4475 in our own words.

use crate::sip_peer::{FarCall, House, LIMIT, Peer, sdp, trunk};
use offhook_carriers::sip::{SipEvent, Transport, Trunk, TrunkId, TrunkSettings};
use offhook_core::Secret;
use std::time::Duration;
use tokio::time::timeout;

/// A trunk whose networks this machine is not in.
fn elsewhere() -> Trunk {
    trunk(|s| (s.domain, s.allowed) = ("203.0.113.1".into(), vec!["203.0.113.0/24".parse().unwrap()]))
}

#[tokio::test]
async fn strangers_hear_nothing_and_cost_nothing() {
    let mut house = House::with(vec![elsewhere()]).await;
    let peer = Peer::of(&house).await;
    let scans = 2_000;
    for n in 0..scans {
        let mut far = FarCall::new(&peer, &format!("scan{n}"));
        let scanner = "User-Agent: friendly-scanner\n";
        match n % 4 {
            0 => far.send("INVITE", scanner, &sdp(4000, "sendrecv")).await,
            1 => far.send("REGISTER", scanner, "").await,
            2 => far.send("OPTIONS", scanner, "").await,
            _ => peer.say("\n\n").await,
        }
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    peer.hears_nothing().await;
    let heard = async {
        while house.agent.dropped().strangers < scans {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // The kernel may drop some of a flood by itself.
    let _ = timeout(Duration::from_secs(2), heard).await;
    assert!(house.agent.dropped().strangers > scans / 2, "{:?}", house.agent.dropped());
    assert_eq!(house.agent.calls(), 0);
    nobody_rang(&mut house);
}

fn nobody_rang(house: &mut House) {
    while let Ok(event) = house.events.try_recv() {
        assert!(!matches!(event, SipEvent::Rings(_)), "{event:?}");
    }
}

#[tokio::test]
async fn a_stranger_s_stream_is_closed_without_a_word() {
    let mut listening = crate::sip_peer::listening();
    listening.tcp = Some("127.0.0.1:0".parse().unwrap());
    let house = House::listening(listening, vec![elsewhere()]).await;
    let address = house.agent.listening().1.unwrap();
    let mut stream = connect(address).await;
    let mut heard = Vec::new();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // It may be closed before everything is written.
    let _ = stream.write_all(b"OPTIONS sip:a SIP/2.0\r\n\r\n").await;
    let _ = timeout(LIMIT, stream.read_to_end(&mut heard)).await.expect("it stays open");
    assert_eq!(heard, b"");
}

#[tokio::test]
async fn a_stream_that_does_not_read_holds_up_nobody() {
    use tokio::io::AsyncWriteExt;
    let mut listening = crate::sip_peer::listening();
    listening.tcp = Some("127.0.0.1:0".parse().unwrap());
    let house = House::listening(listening, vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let mut deaf = connect(house.agent.listening().1.unwrap()).await;
    // Answers bear what their requests did: they fill every buffer between us.
    let long = "x".repeat(7_000);
    let flood = async {
        for n in 0..2_500 {
            let mut far = FarCall::new(&peer, &format!("deaf{n}"));
            far.branch = n;
            let asked = far.request("OPTIONS", "", "").replace("SIP/2.0/UDP", "SIP/2.0/TCP");
            let asked = asked.replace(";tag=near", &format!(";x={long};tag=near"));
            deaf.write_all(&crate::sip_peer::wire(&asked)).await.unwrap();
        }
    };
    // It may be written to the end, or not: nobody reads the answers either way.
    _ = timeout(Duration::from_secs(5), flood).await;
    let mut far = FarCall::new(&peer, "other");
    far.send("OPTIONS", "", "").await;
    peer.hear_status(200).await;
}

async fn connect(address: std::net::SocketAddr) -> tokio::net::TcpStream {
    let connected = async {
        loop {
            // The listener opens in the background.
            match tokio::net::TcpStream::connect(address).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(LIMIT, connected).await.expect("nobody listens")
}

#[tokio::test]
async fn a_trunk_s_flood_of_calls_is_thinned() {
    let mut house = House::with(vec![trunk(|s| s.max_cps = 5)]).await;
    let peer = Peer::of(&house).await;
    for n in 0..20 {
        FarCall::new(&peer, &format!("flood{n}")).send("INVITE", "", &sdp(4000, "sendrecv")).await;
    }
    let mut refused = 0;
    let mut rung = 0;
    while refused + rung < 20 {
        tokio::select! {
            message = peer.hear() => refused += usize::from(message.status() == 503),
            // Held, so that its place stays taken.
            incoming = house.rings() => { rung += 1; std::mem::forget(incoming); }
        }
    }
    assert!((5..=7).contains(&rung), "{rung}");
}

/// Requests that are strange and right.
const GOOD: &[(&str, &str, u16)] = &[
    (
        "every name compact, folded lines, tabs, several values in a line, and unknown headers",
        "OPTIONS sip:+14155550101@us:5060;unknownparam SIP/2.0
tO :
 \"Someone \\\"quoted\\\" <here>\" <sip:+14155550101@us>
f:\t\"L, A\" <sip:ada@far;p=1>
  ;tag=98asjd8
I: good1@far
cseq: 0009
  OPTIONS
MAX-FORWARDS: 0068
v: SIP  / 2.0 / UDP
 FAR;branch=z9hG4bKgood1;rport, SIP/2.0/UDP 192.0.2.2;branch=390skdjuw
NewFangledHeader:   newfangled value
 continued newfangled value
UnknownHeaderWithUnusualValue: ;;,,;;,;
m: \"Quoted string \\\"\\\"\" <sip:ada@far;newparam=newvalue;secondparam?a=b>;newparam=newvalue
l: 0

",
        200,
    ),
    (
        "a user part of every character that may stand in one, and escapes",
        "OPTIONS sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d@us SIP/2.0
Via: SIP/2.0/UDP FAR;branch=z9hG4bKgood2;rport
To: <sip:%75ser@us>
From: <sip:f%61r@far>;tag=1
Call-ID: (word).%good2%<>:/{}?~word
CSeq: 1 OPTIONS
Max-Forwards: 70
Content-Length: 0

",
        200,
    ),
    (
        "a body longer than it says: what is over is no part of it",
        "OPTIONS sip:us SIP/2.0
Via: SIP/2.0/UDP FAR;branch=z9hG4bKgood3;rport
To: <sip:us>
From: <sip:far>;tag=1
Call-ID: good3
CSeq: 1 OPTIONS
Max-Forwards: 70
Content-Length: 4

abcdefghi
OPTIONS sip:another SIP/2.0
",
        200,
    ),
    (
        "a branch that is only the cookie, and no space after colons",
        "OPTIONS sip:us SIP/2.0
Via:SIP/2.0/UDP FAR;branch=z9hG4bK;rport
To:sip:us
From:sip:far;tag=2
Call-ID:good4
CSeq:4 OPTIONS
Max-Forwards:255
l:0

",
        200,
    ),
    (
        "a sequence number as large as they get",
        "OPTIONS sip:us SIP/2.0
Via: SIP/2.0/UDP FAR;branch=z9hG4bKgood5;rport
To: <sip:us>
From: <sip:far>;tag=2
Call-ID: good5
CSeq: 2147483647 OPTIONS
Max-Forwards: 70
Content-Length: 0

",
        200,
    ),
    (
        "a method that we do not serve",
        "SUBSCRIBE sip:us SIP/2.0
Via: SIP/2.0/UDP FAR;branch=z9hG4bKgood6;rport
To: <sip:us>
From: <sip:far>;tag=2
Call-ID: good6
CSeq: 1 SUBSCRIBE
Event: presence
Max-Forwards: 70
Content-Length: 0

",
        405,
    ),
    (
        "no way further",
        "OPTIONS sip:us SIP/2.0
Via: SIP/2.0/UDP FAR;branch=z9hG4bKgood7;rport
To: <sip:us>
From: <sip:far>;tag=2
Call-ID: good7
CSeq: 1 OPTIONS
Max-Forwards: 0
Content-Length: 0

",
        483,
    ),
    (
        "a goodbye to nobody",
        "BYE sip:us SIP/2.0
Via: SIP/2.0/UDP FAR;branch=z9hG4bKgood8;rport
To: <sip:us>;tag=gone
From: <sip:far>;tag=2
Call-ID: good8
CSeq: 1 BYE
Max-Forwards: 70
Content-Length: 0

",
        481,
    ),
];

#[tokio::test]
async fn strange_and_right_requests_are_understood() {
    let house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    for (what, text, status) in GOOD {
        peer.say(&text.replace("FAR", &peer.address().to_string())).await;
        let answer = timeout(LIMIT / 4, peer.hear()).await;
        assert_eq!(answer.map(|answer| answer.status()).ok(), Some(*status), "{what}");
    }
}

/// Requests that are wrong in one thing each: none is answered with success, and none rings.
const BAD: &[(&str, &str)] = &[
    (
        "no version",
        "OPTIONS sip:us\nVia: VIA1\nTo: <sip:us>\nFrom: <sip:far>;tag=1\nCall-ID: 1\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n",
    ),
    (
        "no address",
        "INVITE SIP/2.0\nVia: VIA2\nTo: <sip:us>\nFrom: <sip:far>;tag=1\nCall-ID: 2\nCSeq: 1 INVITE\nContent-Length: 0\n\n",
    ),
    (
        "two methods",
        "OPTIONS sip:us SIP/2.0\nVia: VIA3\nTo: <sip:us>\nFrom: <sip:far>;tag=1\nCall-ID: 3\nCSeq: 1 INVITE\nContent-Length: 0\n\n",
    ),
    (
        "two senders",
        "INVITE sip:us SIP/2.0\nVia: VIA4\nTo: <sip:us>\nFrom: <sip:far>;tag=1\nFrom: <sip:other>;tag=2\nCall-ID: 4\nCSeq: 1 INVITE\nContent-Length: 0\n\n",
    ),
    (
        "a number too large",
        "OPTIONS sip:us SIP/2.0\nVia: VIA5\nTo: <sip:us>\nFrom: <sip:far>;tag=1\nCall-ID: 5\nCSeq: 36893488147419103232 OPTIONS\nContent-Length: 0\n\n",
    ),
    (
        "no Via",
        "OPTIONS sip:us SIP/2.0\nTo: <sip:us>\nFrom: <sip:far>;tag=1\nCall-ID: 6\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n",
    ),
    (
        "no Call-ID",
        "INVITE sip:us SIP/2.0\nVia: VIA7\nTo: <sip:us>\nFrom: <sip:far>;tag=1\nCSeq: 1 INVITE\nContent-Length: 0\n\n",
    ),
    (
        "no tag of theirs",
        "INVITE sip:us SIP/2.0\nVia: VIA8\nTo: <sip:us>\nFrom: <sip:far>\nCall-ID: 8\nCSeq: 1 INVITE\nContact: <sip:far>\nContent-Length: 0\n\n",
    ),
    (
        "a scheme of another world",
        "INVITE nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0\nVia: VIA9\nTo: <sip:us>\nFrom: <sip:far>;tag=1\nCall-ID: 9\nCSeq: 1 INVITE\nContact: <sip:far>\nContent-Length: 0\n\n",
    ),
    (
        "a version of another world",
        "OPTIONS sip:us SIP/7.0\nVia: VIA10\nTo: <sip:us>\nFrom: <sip:far>;tag=1\nCall-ID: 10\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n",
    ),
    (
        "brackets that do not close",
        "INVITE sip:us SIP/2.0\nVia: VIA11\nTo: \"Open <sip:us\nFrom: <sip:far;tag=1\nCall-ID: 11\nCSeq: 1 INVITE\nContent-Length: 0\n\n",
    ),
    (
        "nowhere to reach them",
        "INVITE sip:us SIP/2.0\nVia: VIA12\nTo: <sip:us>\nFrom: <sip:far>;tag=1\nCall-ID: 12\nCSeq: 1 INVITE\nContent-Length: 0\n\n",
    ),
    (
        "an unknown method",
        "NEWMETHOD sip:us SIP/2.0\nVia: VIA13\nTo: <sip:us>\nFrom: <sip:far>;tag=1\nCall-ID: 13\nCSeq: 1 NEWMETHOD\nContent-Length: 0\n\n",
    ),
    (
        "an answer to nothing",
        "SIP/2.0 200 OK\nVia: VIA14\nTo: <sip:us>;tag=2\nFrom: <sip:far>;tag=1\nCall-ID: 14\nCSeq: 1 INVITE\nContent-Length: 0\n\n",
    ),
    (
        "an answer with an impossible status",
        "SIP/2.0 4294967301 better not break the receiver\nVia: VIA15\nTo: <sip:us>;tag=2\nFrom: <sip:far>;tag=1\nCall-ID: 15\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n",
    ),
    (
        "a negative length",
        "INVITE sip:us SIP/2.0\nVia: VIA16\nTo: <sip:us>\nFrom: <sip:far>;tag=1\nCall-ID: 16\nCSeq: 1 INVITE\nContent-Length: -999\n\nv=0\n",
    ),
    ("only a first line", "INVITE sip:us SIP/2.0\n\n"),
    ("nothing but punctuation", ":::;;;,,,<<<>>>\n\n"),
    ("nothing", ""),
];

#[tokio::test]
async fn wrong_requests_are_refused_or_not_heard_and_break_nothing() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    for (number, (what, text)) in BAD.iter().enumerate() {
        let via = format!("SIP/2.0/UDP {};branch=z9hG4bKbad{number};rport", peer.address());
        peer.say(&text.replace(&format!("VIA{}", number + 1), &via)).await;
        // Who is right is answered: what was wrong before it has been dealt with.
        FarCall::new(&peer, &format!("probe{number}")).send("OPTIONS", "", "").await;
        loop {
            let message = peer.hear().await;
            if message.header("call-id") == format!("probe{number}") {
                assert_eq!(message.status(), 200, "after {what}");
                break;
            }
            assert!(message.status() < 200 || message.status() >= 400, "{what}: {message:?}");
        }
    }
    nobody_rang(&mut house);
    assert_eq!(house.agent.calls(), 0);
}

#[tokio::test]
async fn bytes_of_all_kinds_break_nothing() {
    let house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let valid = FarCall::new(&peer, "bytes").request("OPTIONS", "", "");
    let mut noise: u32 = 1;
    for round in 0..2_000_usize {
        let mut bytes = crate::sip_peer::wire(&valid);
        for _ in 0..round % 7 + 1 {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (noise >> 8) as usize % bytes.len();
            bytes[at] = noise as u8;
        }
        peer.socket.send_to(&bytes, peer.us).await.unwrap();
        if round % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    // A flood may make the kernel drop what follows it, so this is asked until it is answered.
    let mut alive = FarCall::new(&peer, "alive");
    let answered = async {
        loop {
            alive.send("OPTIONS", "", "").await;
            while let Ok(message) = timeout(Duration::from_millis(500), peer.hear()).await {
                if message.header("call-id") == "alive" {
                    return;
                }
            }
        }
    };
    timeout(LIMIT, answered).await.expect("it does not live any more");
}

#[tokio::test]
async fn two_trunks_of_one_network_are_told_apart() {
    /// The port of a registrar that does not answer (RFC 863).
    const NOBODY: u16 = 9;
    let of = |id: &str, change: fn(&mut TrunkSettings)| Trunk { id: TrunkId(id.into()), ..trunk(change) };
    let mut house = House::with(vec![
        of("con_any", |_| {}),
        of("con_number", |s| s.numbers = vec!["+14155550101".parse().unwrap()]),
        Trunk {
            password: Some(Secret::new("secret".into())),
            ..of("con_user", |s| (s.register, s.username, s.port) = (true, Some("ext7".into()), Some(NOBODY)))
        },
        of("con_tcp", |s| (s.transport, s.domain) = (Transport::Tcp, "tcp.example".into())),
    ])
    .await;
    let peer = Peer::of(&house).await;
    for (id, called, expected) in
        [("a", "+14155550101", "con_number"), ("b", "ext7", "con_user"), ("c", "+14155559999", "con_any")]
    {
        let invite = FarCall::new(&peer, id).request("INVITE", "", &sdp(4000, "sendrecv"));
        peer.say(&invite.replace("+14155550101", called)).await;
        assert_eq!(house.rings().await.trunk, TrunkId(expected.into()), "{called}");
    }
}
