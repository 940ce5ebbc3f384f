//! Our own requests: calls out, transfers, registrations and probes, at a far end that is written by hand.

use crate::sip_peer::{FarCall, House, LIMIT, Message, Peer, sdp, trunk};
use offhook_carriers::sip::{
    CallerId, Dialling, EndedBy, NewCall, Outcome, Progress, SipError, Trunk, TrunkSettings, TrunkState,
};
use offhook_carriers::{CallStatus, Verdict};
use offhook_core::{Pii, Secret};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// A far end, and a trunk of ours that leads to it.
async fn far_end(change: impl FnOnce(&mut TrunkSettings)) -> (House, Peer) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let trunk = Trunk {
        password: Some(Secret::new("zanzibar".into())),
        ..trunk(|s| {
            (s.port, s.username) = (Some(port), Some("bob".into()));
            change(s);
        })
    };
    let house = House::with(vec![trunk]).await;
    let us = house.address;
    (house, Peer { socket, us })
}

async fn dial(house: &House) -> Dialling {
    let mut call = NewCall::to("+14155550102".parse().unwrap());
    call.from = Some("+14155550101".parse().unwrap());
    call.from_name = Some(Pii::new("Off \"Hook\"\r\nX: y".into()));
    call.headers = vec![("X-Token".into(), Pii::new("t\r\nVia: x".into()))];
    house.agent.dial(&offhook_carriers::sip::TrunkId("con_sip".into()), call).await.unwrap()
}

fn challenge(kind: &str, realm: &str, algorithm: &str) -> String {
    format!("{kind}: Digest realm=\"{realm}\", nonce=\"abc\", algorithm={algorithm}, qop=\"auth\"\n")
}

const CONTACT: &str = "Contact: <sip:far@127.0.0.1>\n";

#[tokio::test]
async fn a_call_out_is_challenged_rings_and_is_answered() {
    let (house, peer) = far_end(|_| {}).await;
    let mut dialling = dial(&house).await;
    let invite = peer.hear_request("INVITE").await;
    assert!(invite.start.starts_with("INVITE sip:+14155550102@127.0.0.1:"), "{invite:?}");
    assert!(invite.header("from").starts_with("\"Off HookX: y\" <sip:+14155550101@127.0.0.1>"), "{invite:?}");
    assert_eq!(invite.header("p-asserted-identity"), "\"Off HookX: y\" <sip:+14155550101@127.0.0.1>");
    assert_eq!(invite.header("x-token"), "tVia: x");
    assert!(invite.body.contains("m=audio "));
    let asks = challenge("Proxy-Authenticate", "carrier", "SHA-256");
    peer.answer(&invite, "407 Proxy Authentication Required", &asks, "").await;
    assert_eq!(peer.hear_request("ACK").await.header("cseq"), "1 ACK");
    let again = peer.hear_request("INVITE").await;
    let proof = again.header("proxy-authorization");
    assert!(proof.contains("algorithm=SHA-256") && proof.contains("username=\"bob\""), "{again:?}");
    assert_eq!(again.header("cseq"), "2 INVITE");
    peer.answer(&again, "100 Trying", "", "").await;
    peer.answer(&again, "180 Ringing", CONTACT, "").await;
    let progress = timeout(LIMIT, dialling.next()).await.unwrap();
    assert!(matches!(progress, Progress::Ringing), "{progress:?}");
    let contact = format!("Contact: <sip:far@{}>\n", peer.address());
    peer.answer(&again, "200 OK", &contact, &sdp(4000, "sendrecv")).await;
    peer.hear_request("ACK").await;
    let Progress::Answered(call, _line) = timeout(LIMIT, dialling.next()).await.unwrap() else {
        panic!("not answered")
    };
    assert_eq!(house.agent.calls(), 1);
    drop(dialling);
    // What was asked for once is proven at once, with the next count.
    drop(call);
    let bye = peer.hear_request("BYE").await;
    assert_eq!(bye.header("cseq"), "3 BYE");
}

/// Dials, and lets the far end answer at its own address.
async fn connected(
    house: &House,
    peer: &Peer,
) -> (Message, offhook_carriers::sip::SipCall, offhook_carriers::sip::RtpLine) {
    let dialling = dial(house).await;
    let invite = peer.hear_request("INVITE").await;
    let contact = format!("Contact: <sip:far@{}>\nAllow: UPDATE, INVITE\n", peer.address());
    peer.answer(&invite, "200 OK", &contact, &sdp(4000, "sendrecv")).await;
    let ack = peer.hear_request("ACK").await;
    assert!(ack.header("to").ends_with(";tag=far"), "{ack:?}");
    let (call, line) = timeout(LIMIT, dialling.answered()).await.unwrap().unwrap();
    (invite, call, line)
}

#[tokio::test]
async fn either_end_of_a_call_out_hangs_up() {
    let (house, peer) = far_end(|_| {}).await;
    let (_, call, _line) = connected(&house, &peer).await;
    let hanging_up = tokio::spawn(async move { call.hang_up().await });
    let bye = peer.hear_request("BYE").await;
    assert!(bye.start.starts_with(&format!("BYE sip:far@{} ", peer.address())), "{bye:?}");
    peer.answer(&bye, "200 OK", "", "").await;
    timeout(LIMIT, hanging_up).await.unwrap().unwrap();

    let (invite, call, _line) = connected(&house, &peer).await;
    let mut far = FarCall::new(&peer, invite.header("call-id"));
    far.to_tag = invite.header("from").split("tag=").nth(1).unwrap().to_owned();
    far.branch = 70;
    let bye = far.request("BYE", "", "");
    let from = format!("tag=near{}", far.id);
    peer.say(&bye.replace(&from, "tag=far")).await;
    peer.hear_status(200).await;
    assert_eq!(timeout(LIMIT, call.ended()).await.unwrap().by, EndedBy::Them);
}

#[tokio::test]
async fn every_failure_has_its_meaning() {
    let (house, peer) = far_end(|_| {}).await;
    for (status, more, outcome, call_status) in [
        ("486 Busy Here", "", Outcome::Busy, CallStatus::Busy),
        ("480 Temporarily Unavailable", "", Outcome::NoAnswer, CallStatus::NoAnswer),
        ("404 Not Found", "", Outcome::InvalidNumber, CallStatus::Failed),
        ("603 Decline", "", Outcome::Rejected, CallStatus::Failed),
        ("488 Not Acceptable Here", "", Outcome::Media, CallStatus::Failed),
        ("403 User channel limit exceeded D1", "", Outcome::CarrierLimit, CallStatus::Failed),
        (
            "302 Moved Temporarily",
            "Contact: <sip:+19005550199@elsewhere>\n",
            Outcome::Redirected,
            CallStatus::Failed,
        ),
        ("500 Server Error", "", Outcome::Failed, CallStatus::Failed),
    ] {
        let dialling = dial(&house).await;
        let invite = peer.hear_request("INVITE").await;
        peer.answer(&invite, status, more, "").await;
        peer.hear_request("ACK").await;
        let failure = timeout(LIMIT, dialling.answered()).await.unwrap().unwrap_err();
        assert_eq!((failure.outcome, failure.call_status()), (outcome, call_status), "{status}");
        assert_eq!(failure.text.unwrap().expose(), status.split_once(' ').unwrap().1);
    }
    // Wrong twice is wrong.
    let dialling = dial(&house).await;
    for _ in 0..2 {
        let invite = peer.hear_request("INVITE").await;
        peer.answer(&invite, "401 Unauthorized", &challenge("WWW-Authenticate", "carrier", "MD5"), "").await;
    }
    let failure = timeout(LIMIT, dialling.answered()).await.unwrap().unwrap_err();
    assert_eq!(failure.outcome, Outcome::NotAllowed);
    assert_eq!(house.agent.calls(), 0);
}

#[tokio::test]
async fn a_challenge_of_another_realm_is_not_answered() {
    let (house, peer) = far_end(|s| s.realm = Some("carrier".into())).await;
    let dialling = dial(&house).await;
    let invite = peer.hear_request("INVITE").await;
    peer.answer(&invite, "401 Unauthorized", &challenge("WWW-Authenticate", "phisher", "MD5"), "").await;
    let failure = timeout(LIMIT, dialling.answered()).await.unwrap().unwrap_err();
    assert_eq!((failure.outcome, failure.status), (Outcome::NotAllowed, Some(401)));
}

#[tokio::test]
async fn a_redirection_is_followed_at_this_trunk_only() {
    let (house, peer) = far_end(|s| s.follow_redirects = true).await;
    let dialling = dial(&house).await;
    let invite = peer.hear_request("INVITE").await;
    peer.answer(&invite, "302 Moved Temporarily", "Contact: <sip:+14155550103@203.0.113.9>\n", "").await;
    let again = peer.hear_request("INVITE").await;
    assert!(again.start.starts_with("INVITE sip:+14155550103@127.0.0.1:"), "{again:?}");
    peer.answer(&again, "422 Session Interval Too Small", "Min-SE: 3600\n", "").await;
    let longer = peer.hear_request("INVITE").await;
    assert_eq!((longer.header("session-expires"), longer.header("min-se")), ("3600", "3600"));
    drop(dialling);
}

#[tokio::test]
async fn a_call_that_is_dropped_is_withdrawn() {
    let (house, peer) = far_end(|_| {}).await;
    let dialling = dial(&house).await;
    let invite = peer.hear_request("INVITE").await;
    drop(dialling);
    // Nothing has been heard yet: the CANCEL waits for a sign of life.
    peer.answer(&invite, "180 Ringing", CONTACT, "").await;
    let cancel = peer.hear_request("CANCEL").await;
    assert_eq!((cancel.header("via"), cancel.header("cseq")), (invite.header("via"), "1 CANCEL"));
    peer.answer(&cancel, "200 OK", "", "").await;
    peer.answer(&invite, "487 Request Terminated", "", "").await;
    peer.hear_request("ACK").await;

    // Who picks up at that moment is hung up on.
    let dialling = dial(&house).await;
    let invite = peer.hear_request("INVITE").await;
    peer.answer(&invite, "180 Ringing", CONTACT, "").await;
    drop(dialling);
    let cancel = peer.hear_request("CANCEL").await;
    peer.answer(
        &invite,
        "200 OK",
        &format!("Contact: <sip:far@{}>\n", peer.address()),
        &sdp(4000, "sendrecv"),
    )
    .await;
    peer.answer(&cancel, "200 OK", "", "").await;
    let bye = peer.hear_request("BYE").await;
    peer.answer(&bye, "200 OK", "", "").await;
    assert_eq!(house.agent.calls(), 0);
}

#[tokio::test]
async fn a_call_that_nobody_takes_is_withdrawn_in_time() {
    let (house, peer) = far_end(|_| {}).await;
    let mut call = NewCall::to("+14155550102".parse().unwrap());
    call.ring_timeout = std::time::Duration::from_millis(300);
    call.withhold = true;
    let dialling = house.agent.dial(&offhook_carriers::sip::TrunkId("con_sip".into()), call).await.unwrap();
    let invite = peer.hear_request("INVITE").await;
    assert!(
        invite.header("from").starts_with("\"Anonymous\" <sip:anonymous@anonymous.invalid>"),
        "{invite:?}"
    );
    assert_eq!(invite.header("privacy"), "id");
    peer.answer(&invite, "180 Ringing", CONTACT, "").await;
    let failure = timeout(LIMIT, dialling.answered()).await.unwrap().unwrap_err();
    assert_eq!(failure.call_status(), CallStatus::NoAnswer);
    peer.hear_request("CANCEL").await;
}

#[tokio::test]
async fn a_transfer_is_followed_to_its_end() {
    let (mut house, peer) = far_end(|_| {}).await;
    for (fragments, outcome) in [
        (&["SIP/2.0 100 Trying", "SIP/2.0 200 OK"][..], Ok(())),
        (&["SIP/2.0 100 Trying", "SIP/2.0 486 Busy Here"], Err(486)),
    ] {
        let mut far = FarCall::new(&peer, &format!("refer{}", outcome.is_ok()));
        far.send("INVITE", "", &sdp(4000, "sendrecv")).await;
        let (call, _line) = house.rings().await.answer().await.unwrap();
        far.established().await;
        let asking = call.clone();
        let referring = tokio::spawn(async move { asking.refer(&"+14155550109".parse().unwrap()).await });
        let refer = peer.hear_request("REFER").await;
        assert!(refer.header("refer-to").starts_with("<sip:+14155550109@127.0.0.1"), "{refer:?}");
        assert_ne!(refer.header("referred-by"), "");
        peer.answer(&refer, "202 Accepted", "", "").await;
        for fragment in fragments {
            far.sequence += 1;
            let more = "Event: refer\nSubscription-State: active;expires=60\nContent-Type: message/sipfrag\n";
            far.send("NOTIFY", more, fragment).await;
            peer.hear_status(200).await;
        }
        let referred = timeout(LIMIT, referring).await.unwrap().unwrap();
        match outcome {
            Ok(()) => {
                referred.unwrap();
                let bye = peer.hear_request("BYE").await;
                peer.answer(&bye, "200 OK", "", "").await;
                timeout(LIMIT, call.ended()).await.unwrap();
            }
            Err(expected) => {
                assert!(
                    matches!(referred, Err(SipError::Refused { status }) if status == expected),
                    "{referred:?}"
                );
                // The caller is still here.
                far.sequence += 1;
                far.send("OPTIONS", "", "").await;
                peer.hear_status(200).await;
            }
        }
    }
}

#[tokio::test]
async fn a_transfer_may_take_longer_than_a_call_may_be_silent() {
    let (mut house, peer) = far_end(|s| s.silence_s = 1).await;
    let mut far = FarCall::new(&peer, "patience");
    far.send("INVITE", "", &sdp(4000, "sendrecv")).await;
    let (call, _line) = house.rings().await.answer().await.unwrap();
    far.established().await;
    let referring = tokio::spawn(async move { call.refer(&"+14155550109".parse().unwrap()).await });
    let refer = peer.hear_request("REFER").await;
    peer.answer(&refer, "202 Accepted", "", "").await;
    let goodbye = timeout(Duration::from_secs(3), peer.hear_request("BYE")).await;
    assert!(goodbye.is_err(), "{goodbye:?}");
    far.sequence += 1;
    let more = "Event: refer\nSubscription-State: terminated\nContent-Type: message/sipfrag\n";
    far.send("NOTIFY", more, "SIP/2.0 200 OK").await;
    timeout(LIMIT, referring).await.unwrap().unwrap().unwrap();
}

/// Answers a REGISTER after a challenge; returns the one with the proof.
async fn register(peer: &Peer, expires: u32) -> Message {
    let first = peer.hear_request("REGISTER").await;
    let proven = if first.header("authorization").is_empty() {
        peer.answer(&first, "401 Unauthorized", &challenge("WWW-Authenticate", "pbx", "MD5"), "").await;
        peer.hear_request("REGISTER").await
    } else {
        first
    };
    assert!(proven.header("authorization").contains("uri=\"sip:127.0.0.1\""), "{proven:?}");
    let contact = format!(
        "Contact: <sip:other@192.0.2.1>;expires=9999, {};expires={expires}\n",
        proven.header("contact")
    );
    peer.answer(&proven, "200 OK", &contact, "").await;
    proven
}

#[tokio::test]
async fn a_registration_is_made_refreshed_and_given_up() {
    let (mut house, peer) = far_end(|s| s.register = true).await;
    let first = peer.hear_request("REGISTER").await;
    assert_eq!((first.header("expires"), first.header("cseq")), ("600", "1 REGISTER"));
    peer.answer(&first, "423 Interval Too Brief", "Min-Expires: 1800\n", "").await;
    let longer = register(&peer, 10).await;
    assert_eq!(longer.header("expires"), "1800");
    assert!(matches!(house.news().await, TrunkState::Registered { .. }));
    // Refreshed at a share of the ten seconds that were granted, with the same Call-ID and a higher number.
    let refreshed = timeout(LIMIT, register(&peer, 600)).await.unwrap();
    assert_eq!(refreshed.header("call-id"), longer.header("call-id"));
    assert!(refreshed.header("authorization").contains("nc=0000000"), "{refreshed:?}");

    // A call comes to our Contact; the number is only in To.
    let contact = refreshed.header("contact").trim_matches(['<', '>']).to_owned();
    assert!(contact.starts_with("sip:bob@"), "{contact}");
    let far = FarCall::new(&peer, "pbxcall");
    let invite = far.request("INVITE", "", &sdp(4000, "sendrecv"));
    let (line, rest) = invite.split_once('\n').unwrap();
    assert!(line.starts_with("INVITE"));
    peer.say(&format!("INVITE {contact} SIP/2.0\n{rest}")).await;
    let incoming = house.rings().await;
    assert_eq!(incoming.called.as_ref().unwrap().as_str(), "+14155550101");
    drop(incoming);

    let leaving = tokio::spawn(async move {
        house.agent.stop().await;
        house
    });
    let left = peer.hear_request("REGISTER").await;
    assert_eq!(left.header("expires"), "0");
    peer.answer(&left, "200 OK", "", "").await;
    timeout(LIMIT, leaving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_registrar_that_refuses_is_told_and_asked_again() {
    let (mut house, peer) = far_end(|s| s.register = true).await;
    for _ in 0..2 {
        let asked = peer.hear_request("REGISTER").await;
        peer.answer(&asked, "401 Unauthorized", &challenge("WWW-Authenticate", "pbx", "MD5"), "").await;
    }
    let TrunkState::Down { reason } = house.news().await else { panic!("it is not down") };
    assert!(reason.contains("password"), "{reason}");
    register(&peer, 600).await;
    assert!(matches!(house.news().await, TrunkState::Registered { .. }));
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_down_until_it_speaks() {
    let (mut house, peer) = far_end(|s| s.options_s = 1).await;
    let asked = peer.hear_request("OPTIONS").await;
    peer.answer(&asked, "404 Not Found", "", "").await;
    assert_eq!(house.news().await, TrunkState::Up);
    assert!(matches!(house.news().await, TrunkState::Down { .. }));
    let news = async {
        loop {
            tokio::select! {
                asked = peer.hear_request("OPTIONS") => peer.answer(&asked, "200 OK", "", "").await,
                state = house.news() => return state,
            }
        }
    };
    assert_eq!(timeout(LIMIT, news).await.unwrap(), TrunkState::Up);
}

#[tokio::test]
async fn a_connection_is_tested_by_what_harms_nobody() {
    let (house, peer) = far_end(|_| {}).await;
    let port = peer.address().port();
    let at = |change: fn(&mut TrunkSettings)| Trunk {
        password: Some(Secret::new("zanzibar".into())),
        ..trunk(|s| {
            (s.port, s.username) = (Some(port), Some("bob".into()));
            change(s);
        })
    };
    for (settings, status, more, verdict) in [
        (
            at(|s| s.register = true),
            "401 Unauthorized",
            challenge("WWW-Authenticate", "pbx", "MD5"),
            Verdict::WrongCredentials,
        ),
        (at(|s| s.register = true), "200 OK", String::new(), Verdict::Ok { trial: None }),
        (at(|_| {}), "200 OK", String::new(), Verdict::Ok { trial: None }),
        (at(|_| {}), "405 Method Not Allowed", String::new(), Verdict::Ok { trial: None }),
    ] {
        let probing = house.agent.probe(&settings);
        let answering = async {
            loop {
                let asked = peer.hear().await;
                if asked.method() == "REGISTER" {
                    assert_eq!(asked.header("contact"), "", "a test registers nothing");
                }
                peer.answer(&asked, status, &more, "").await;
            }
        };
        let got = tokio::select! { got = probing => got, () = answering => unreachable!() };
        assert_eq!(got, verdict, "{status}");
    }
    assert_eq!(
        house.agent.probe(&at(|s| (s.domain, s.port) = ("nowhere.invalid".into(), None))).await,
        Verdict::Unreachable
    );
}

#[tokio::test]
async fn the_calling_number_stands_where_the_trunk_wants_it() {
    for (caller_id, from, asserted) in [
        (CallerId::From, "<sip:+14155550101@", false),
        (CallerId::Asserted, "<sip:bob@", true),
        (CallerId::Both, "<sip:+14155550101@", true),
    ] {
        let (house, peer) = far_end(|s| s.caller_id = caller_id).await;
        let _dialling = dial(&house).await;
        let invite = peer.hear_request("INVITE").await;
        assert!(invite.header("from").contains(from), "{caller_id:?} {invite:?}");
        assert_eq!(!invite.header("p-asserted-identity").is_empty(), asserted, "{caller_id:?}");
    }
}
