//! Calls that come in over a trunk, message by message, from a far end that is written by hand.

use crate::sip_peer::{FarCall, House, LIMIT, Peer, sdp, trunk};
use offhook_carriers::sip::{EndedBy, Rejection, RtpLine, SipCall, SipError, SipEvent, Trunk, TrunkId};
use offhook_core::{E164, Secret};
use offhook_media::coding::Coding;
use tokio::time::timeout;

/// A call from the far end that we have answered.
async fn answered<'a>(
    house: &mut House,
    peer: &'a Peer,
    id: &str,
    more: &str,
) -> (FarCall<'a>, SipCall, RtpLine) {
    let mut far = FarCall::new(peer, id);
    far.send("INVITE", more, &sdp(4000, "sendrecv")).await;
    let (call, line) = house.rings().await.answer().await.unwrap();
    far.established().await;
    far.sequence += 1;
    (far, call, line)
}

#[tokio::test]
async fn a_call_is_answered_and_the_caller_hangs_up() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let mut far = FarCall::new(&peer, "one");
    far.send("INVITE", "X-Carrier-Call: 7\n", &sdp(4000, "sendrecv")).await;
    assert_eq!(peer.hear().await.status(), 100);
    let incoming = house.rings().await;
    assert_eq!(incoming.called, Some("+14155550101".parse::<E164>().unwrap()));
    assert_eq!(incoming.ring.from.text().expose(), "+14155550100");
    assert_eq!(incoming.attributes["x-carrier-call"].expose(), "7");
    incoming.ringing();
    assert_eq!(peer.hear().await.status(), 180);
    let (call, _line) = incoming.answer().await.unwrap();
    let ok = far.established().await;
    assert!(ok.body.contains("m=audio "), "{ok:?}");

    far.sequence += 1;
    far.send("BYE", "Reason: Q.850;cause=16;text=\"Normal call clearing\"\n", "").await;
    peer.hear_status(200).await;
    let end = timeout(LIMIT, call.ended()).await.unwrap();
    assert_eq!((end.by, end.cause), (EndedBy::Them, Some(16)));
    assert_eq!(end.text.unwrap().expose(), "Normal call clearing");
    assert_eq!(house.agent.calls(), 0);
}

#[tokio::test]
async fn we_hang_up_and_only_after_the_ack() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let mut far = FarCall::new(&peer, "ours");
    far.send("INVITE", "Record-Route: <sip:127.0.0.1;lr>\n", &sdp(4000, "sendrecv")).await;
    let (call, _line) = house.rings().await.answer().await.unwrap();
    let ok = peer.hear_status(200).await;
    let hanging_up = tokio::spawn(async move { call.hang_up().await });
    // The answer comes again, the goodbye not yet.
    assert_eq!(peer.hear().await.header("cseq"), "1 INVITE");
    assert_eq!(ok.header("record-route"), "<sip:127.0.0.1;lr>");
    far.to_tag = ok.header("to").split("tag=").nth(1).unwrap().to_owned();
    far.send("ACK", "", "").await;
    // It goes by the recorded route, which is not where our far end is.
    timeout(LIMIT, hanging_up).await.unwrap().unwrap();
}

#[tokio::test]
async fn our_goodbye_says_why() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let (_far, call, _line) = answered(&mut house, &peer, "why", "").await;
    let (bye, ()) = tokio::join!(
        async {
            let bye = peer.hear_request("BYE").await;
            peer.answer(&bye, "200 OK", "", "").await;
            bye
        },
        call.hang_up()
    );
    assert!(bye.header("reason").starts_with("Q.850;cause=16"), "{bye:?}");
    assert_eq!(bye.header("from").split("tag=").count(), 2);
}

#[tokio::test]
async fn a_call_whose_last_handle_is_dropped_is_hung_up() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let (_far, call, _line) = answered(&mut house, &peer, "drop", "").await;
    drop(call);
    peer.hear_request("BYE").await;
}

#[tokio::test]
async fn a_caller_who_gives_up_is_not_answered() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let mut far = FarCall::new(&peer, "cancel");
    far.send("INVITE", "", &sdp(4000, "sendrecv")).await;
    let incoming = house.rings().await;
    assert_eq!(peer.hear().await.status(), 100);
    // The CANCEL has the branch of its INVITE.
    let cancel = far.request("CANCEL", "", "");
    peer.say(&cancel).await;
    let mut statuses =
        [peer.hear().await, peer.hear().await].map(|m| (m.header("cseq").to_owned(), m.status()));
    statuses.sort();
    assert_eq!(statuses, [("1 CANCEL".into(), 200), ("1 INVITE".into(), 487)]);
    timeout(LIMIT, incoming.cancelled()).await.unwrap();
    assert!(matches!(incoming.answer().await, Err(SipError::CallOver)));
}

#[tokio::test]
async fn a_cancel_that_comes_after_our_answer_changes_nothing() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let mut far = FarCall::new(&peer, "late");
    far.send("INVITE", "", &sdp(4000, "sendrecv")).await;
    let (call, _line) = house.rings().await.answer().await.unwrap();
    let ok = peer.hear_status(200).await;
    let cancel = far.request("CANCEL", "", "");
    peer.say(&cancel).await;
    let answer = peer.hear_status(200).await;
    assert_eq!(answer.header("cseq"), "1 CANCEL");
    assert_eq!(answer.header("to"), ok.header("to"));
    far.to_tag = ok.header("to").split("tag=").nth(1).unwrap().to_owned();
    far.send("ACK", "", "").await;
    far.sequence += 1;
    far.send("BYE", "", "").await;
    peer.hear_status(200).await;
    assert_eq!(timeout(LIMIT, call.ended()).await.unwrap().by, EndedBy::Them);
}

#[tokio::test]
async fn every_refusal_has_its_answer() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    for (rejection, status) in [
        (Some(Rejection::Busy), 486),
        (Some(Rejection::Inactive), 480),
        (Some(Rejection::Declined), 603),
        (Some(Rejection::UnknownNumber), 404),
        (Some(Rejection::Forbidden), 403),
        (Some(Rejection::Draining { retry_after_s: 7 }), 503),
        (None, 480),
    ] {
        let mut far = FarCall::new(&peer, &format!("no{status}{}", rejection.is_some()));
        far.send("INVITE", "", &sdp(4000, "sendrecv")).await;
        let incoming = house.rings().await;
        match rejection {
            Some(rejection) => incoming.reject(rejection),
            None => drop(incoming),
        }
        let refused = peer.hear_status(status).await;
        assert_eq!(refused.header("retry-after"), if status == 503 { "7" } else { "" });
        far.to_tag = refused.header("to").split("tag=").nth(1).unwrap().to_owned();
        peer.say(&far.request("ACK", "", "")).await;
    }
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_before_anybody_hears_of_it() {
    let numbers = |s: &mut offhook_carriers::sip::TrunkSettings| {
        s.numbers = vec!["+14155550101".parse().unwrap()];
        s.max_calls = 1;
        s.max_cps = 1_000;
    };
    let mut house = House::with(vec![trunk(numbers)]).await;
    let peer = Peer::of(&house).await;
    let g729 = sdp(4000, "sendrecv").replace("AVP 0 8 101", "AVP 18").replace("a=rtpmap:0", "a=x:");
    let good = sdp(4000, "sendrecv");
    for (id, more, body, status, header) in [
        ("ext", "Require: magic, timer, 100rel\n", &*good, 420, ("unsupported", "magic")),
        ("type", "Content-Type: text/plain\n", "hello", 415, ("accept", "application/sdp")),
        ("short", "Supported: timer\nSession-Expires: 30\n", &good, 422, ("min-se", "90")),
        ("codec", "", &g729, 488, ("", "")),
        ("nonsense", "", "v=9\n", 400, ("", "")),
    ] {
        let mut far = FarCall::new(&peer, id);
        far.send("INVITE", more, body).await;
        let refused = peer.hear_status(status).await;
        assert_eq!(refused.header(header.0), header.1, "{id}");
        far.to_tag = refused.header("to").split("tag=").nth(1).unwrap().to_owned();
        peer.say(&far.request("ACK", "", "")).await;
    }
    let mut far = FarCall::new(&peer, "did");
    let elsewhere = far.request("INVITE", "", &good).replace("+14155550101", "+14155550999");
    peer.say(&elsewhere).await;
    peer.hear_status(404).await;
    far.branch += 1;
    let hops = far
        .request("INVITE", "", &good)
        .replace("Max-Forwards: 70", "Max-Forwards: 0")
        .replace("did", "hops");
    peer.say(&hops).await;
    peer.hear_status(483).await;

    // The only place of the trunk is taken.
    let (_far, _call, _line) = answered(&mut house, &peer, "place", "").await;
    let mut second = FarCall::new(&peer, "second");
    second.send("INVITE", "", &good).await;
    assert_ne!(peer.hear_status(503).await.header("retry-after"), "");
}

#[tokio::test]
async fn a_number_as_user_name_brings_a_peer_nobody_s_calls() {
    let named = trunk(|s| s.username = Some("+14155550101".into()));
    let other = Trunk { id: TrunkId("con_another".into()), ..trunk(|_| {}) };
    let mut house = House::with(vec![named, other]).await;
    let peer = Peer::of(&house).await;
    FarCall::new(&peer, "whose").send("INVITE", "", &sdp(4000, "sendrecv")).await;
    assert_eq!(house.rings().await.trunk.0, "con_another");
}

#[tokio::test]
async fn of_two_trunks_at_one_carrier_the_owner_says_whose_call_it_is() {
    let listing = |number: &str| trunk(|s| s.numbers = vec![number.parse().unwrap()]);
    let of = |id: &str, trunk: Trunk| Trunk { id: TrunkId(id.into()), ..trunk };
    let other_s_rules = trunk(|s| s.codecs = vec![offhook_carriers::sip::CodecName::Pcma]);
    let mut house = House::with(vec![
        of("con_a", listing("+14155550101")),
        of("con_b", other_s_rules),
        of("con_c", listing("+14155550999")),
    ])
    .await;
    let peer = Peer::of(&house).await;
    FarCall::new(&peer, "shared").send("INVITE", "", &sdp(4000, "sendrecv")).await;
    let contested = loop {
        if let SipEvent::Contested(contested) = timeout(LIMIT, house.events.recv()).await.unwrap().unwrap() {
            break contested;
        }
    };
    // Who lists other numbers cannot have brought it.
    let ids: Vec<_> = contested.trunks.iter().map(|(id, _)| id.0.as_str()).collect();
    assert_eq!(ids, ["con_a", "con_b"]);
    contested.choose(TrunkId("con_b".into()));
    let incoming = house.rings().await;
    assert_eq!((incoming.trunk.0.as_str(), incoming.coding()), ("con_b", Coding::A_LAW));
}

#[tokio::test]
async fn a_call_that_comes_by_two_ways_is_taken_once() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let mut far = FarCall::new(&peer, "twice");
    far.send("INVITE", "", &sdp(4000, "sendrecv")).await;
    let _incoming = house.rings().await;
    far.send("INVITE", "", &sdp(4000, "sendrecv")).await;
    peer.hear_status(482).await;
}

#[tokio::test]
async fn a_repeated_invite_hears_the_same_answer() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let far = FarCall::new(&peer, "again");
    let invite = far.request("INVITE", "", &sdp(4000, "sendrecv"));
    peer.say(&invite).await;
    let incoming = house.rings().await;
    peer.say(&invite).await;
    assert_eq!([peer.hear().await.status(), peer.hear().await.status()], [100, 100]);
    incoming.ringing();
    assert_eq!(peer.hear().await.status(), 180);
    peer.say(&invite).await;
    assert_eq!(peer.hear().await.status(), 180);
    assert!(timeout(crate::sip_peer::SILENCE, house.events.recv()).await.is_err(), "one call, not two");
}

#[tokio::test]
async fn hold_and_resume_are_answered_with_the_current_media() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let (mut far, _call, _line) = answered(&mut house, &peer, "hold", "").await;
    for (direction, ours) in [("sendonly", "recvonly"), ("inactive", "inactive"), ("sendrecv", "sendrecv")] {
        far.send("INVITE", "", &sdp(4002, direction)).await;
        let ok = far.established().await;
        assert!(ok.body.contains(&format!("a={ours}\r\n")), "{direction}: {}", ok.body);
        far.sequence += 1;
        // An UPDATE without an offer is only a sign of life.
        far.send("UPDATE", "", "").await;
        assert_eq!(peer.hear_status(200).await.body, "");
        far.sequence += 1;
    }
    // Without an offer we make one, and take the answer from the ACK.
    far.send("INVITE", "", "").await;
    let ok = peer.hear_status(200).await;
    assert!(ok.body.contains("m=audio "), "{ok:?}");
    // Meanwhile another one would cross.
    let waiting = far.sequence;
    far.sequence += 1;
    far.send("UPDATE", "", &sdp(4004, "sendrecv")).await;
    assert_eq!(peer.hear_status(491).await.header("cseq"), format!("{} UPDATE", far.sequence));
    far.sequence = waiting;
    far.send("ACK", "", &sdp(4004, "sendrecv")).await;
    far.sequence += 2;
    // What has nothing for us leaves all as it was.
    let video = sdp(4004, "sendrecv").replace("m=audio", "m=video");
    far.send("INVITE", "", &video).await;
    peer.hear_status(488).await;
}

#[tokio::test]
async fn a_caller_without_an_offer_hears_ours_and_answers_in_the_ack() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let mut far = FarCall::new(&peer, "lateoffer");
    far.send("INVITE", "", "").await;
    let incoming = house.rings().await;
    let coding = incoming.coding();
    let answering = tokio::spawn(incoming.answer());
    let ok = peer.hear_status(200).await;
    assert!(ok.body.contains("m=audio "), "{ok:?}");
    far.to_tag = ok.header("to").split("tag=").nth(1).unwrap().to_owned();
    far.send("ACK", "", &sdp(4000, "sendrecv")).await;
    let (_call, line) = timeout(LIMIT, answering).await.unwrap().unwrap().unwrap();
    assert_eq!(line.coding(), coding);
}

#[tokio::test]
async fn a_late_answer_that_does_not_fit_ends_the_call() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let mut far = FarCall::new(&peer, "misfit");
    far.send("INVITE", "", "").await;
    let answering = tokio::spawn(house.rings().await.answer());
    let ok = peer.hear_status(200).await;
    far.to_tag = ok.header("to").split("tag=").nth(1).unwrap().to_owned();
    far.send("ACK", "", "").await;
    peer.hear_request("BYE").await;
    assert!(matches!(timeout(LIMIT, answering).await.unwrap().unwrap(), Err(SipError::NoMedia)));
}

#[tokio::test]
async fn requests_inside_a_call_have_their_answers() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let (mut far, _call, _line) = answered(&mut house, &peer, "inside", "").await;
    let relay = "Content-Type: application/dtmf-relay\n";
    for (method, more, body, status) in [
        ("OPTIONS", "", "", 200),
        ("INFO", relay, "Signal=5\nDuration=160\n", 200),
        ("INFO", relay, "Signal=11\n", 200),
        ("INFO", relay, "Signal=55\n", 400),
        ("INFO", "Content-Type: application/xml\n", "<x/>", 415),
        ("REFER", "Refer-To: <sip:+18005550199@elsewhere>\n", "", 603),
        ("NOTIFY", "Event: refer\n", "", 481),
        ("MESSAGE", "Content-Type: text/plain\n", "hi", 405),
    ] {
        far.send(method, more, body).await;
        assert_eq!(peer.hear_status(status).await.header("cseq"), format!("{} {method}", far.sequence));
        far.sequence += 1;
    }
    // An old number is out of order, another dialog's tag unknown.
    far.sequence = 1;
    far.send("INFO", "", "").await;
    peer.hear_status(500).await;
    far.sequence = 99;
    far.to_tag = "unknown".into();
    far.send("BYE", "", "").await;
    peer.hear_status(481).await;
}

#[tokio::test]
async fn ringing_that_must_be_heard_is_repeated_until_it_is() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let mut far = FarCall::new(&peer, "prack");
    far.send("INVITE", "Require: 100rel\n", &sdp(4000, "sendrecv")).await;
    let incoming = house.rings().await;
    incoming.ringing();
    let ringing = peer.hear_status(180).await;
    assert_eq!((ringing.header("require"), ringing.header("rseq")), ("100rel", "1"));
    assert_eq!(peer.hear_status(180).await.header("rseq"), "1");
    far.to_tag = ringing.header("to").split("tag=").nth(1).unwrap().to_owned();
    far.sequence = 2;
    far.send("PRACK", "RAck: 1 1 INVITE\n", "").await;
    assert_eq!(peer.hear_status(200).await.header("cseq"), "2 PRACK");
    let (_call, _line) = incoming.answer().await.unwrap();
    assert_eq!(peer.hear_status(200).await.header("cseq"), "1 INVITE");
}

#[tokio::test]
async fn whoever_must_refresh_is_named_and_does() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let mut far = FarCall::new(&peer, "timer");
    let headers = "Supported: timer\nSession-Expires: 1800;refresher=uac\n";
    far.send("INVITE", headers, &sdp(4000, "sendrecv")).await;
    let (_call, _line) = house.rings().await.answer().await.unwrap();
    let ok = far.established().await;
    assert_eq!((ok.header("session-expires"), ok.header("require")), ("1800;refresher=uac", "timer"));
    far.sequence += 1;
    far.send("UPDATE", "Supported: timer\nSession-Expires: 90;refresher=uas\n", "").await;
    assert_eq!(peer.hear_status(200).await.header("session-expires"), "90;refresher=uas");
}

#[tokio::test]
async fn a_trunk_that_is_challenged_must_know_the_password() {
    let mut trunk = trunk(|s| (s.challenge_inbound, s.username) = (true, Some("pbx".into())));
    trunk.password = Some(Secret::new("secret".into()));
    let house = House::with(vec![trunk]).await;
    let peer = Peer::of(&house).await;
    let mut far = FarCall::new(&peer, "proof");
    far.send("INVITE", "", &sdp(4000, "sendrecv")).await;
    let asked = peer.hear_status(401).await;
    let challenges: Vec<_> = asked.all("www-authenticate").collect();
    assert!(
        challenges[0].contains("algorithm=SHA-256") && challenges[1].contains("algorithm=MD5"),
        "{challenges:?}"
    );
    far.to_tag = asked.header("to").split("tag=").nth(1).unwrap().to_owned();
    peer.say(&far.request("ACK", "", "")).await;
    far.to_tag.clear();
    far.sequence += 1;
    let nonce = challenges[1].split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
    let wrong = format!(
        "Authorization: Digest username=\"pbx\", realm=\"offhook\", nonce=\"{nonce}\", uri=\"sip:x\", qop=auth, \
         nc=00000001, cnonce=\"c\", response=\"00000000000000000000000000000000\"\n"
    );
    far.send("INVITE", &wrong, &sdp(4000, "sendrecv")).await;
    peer.hear_status(403).await;
}

#[tokio::test]
async fn who_stops_takes_no_more_calls_and_keeps_those_that_run() {
    let mut house = House::with(vec![trunk(|_| {})]).await;
    let peer = Peer::of(&house).await;
    let (mut far, call, _line) = answered(&mut house, &peer, "runs", "").await;
    house.agent.stop().await;
    let mut second = FarCall::new(&peer, "comes");
    second.send("INVITE", "", &sdp(4000, "sendrecv")).await;
    assert_eq!(peer.hear_status(503).await.header("retry-after"), "30");
    far.send("BYE", "", "").await;
    peer.hear_status(200).await;
    assert_eq!(timeout(LIMIT, call.ended()).await.unwrap().by, EndedBy::Them);
}
