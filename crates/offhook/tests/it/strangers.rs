//! What comes to the door and is not the carrier, or not in order: the right answer, no panic, and no call disturbed.

use crate::house::{ACCOUNT, GREETING, House, LIMIT, NUMBER, Place, TOKEN};
use crate::line::words;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use hmac::{Hmac, KeyInit, Mac};
use offhook_sim::carrier::twilio::{CallOrder, Signing, WebhookKind};
use offhook_sim::provider::Rule;
use serde_json::{Value, json};
use sha1::Sha1;
use std::collections::BTreeMap;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

on_both!(
    webhooks_that_are_not_the_carriers_are_refused,
    media_sockets_open_once_for_their_own_call,
    another_account_says_nothing_about_a_call_of_the_same_name,
    a_client_that_hangs_does_not_spoil_the_end,
);

const QUESTION: &str = "How much is your bread?";
const ANSWER: &str = "Our bread is two euros.";
/// Larger than anything a carrier sends.
const HUGE_BYTES: usize = 10 << 20;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn signature(url: &str, params: &BTreeMap<&str, &str>) -> String {
    signed_with(TOKEN, url, params)
}

fn signed_with(token: &str, url: &str, params: &BTreeMap<&str, &str>) -> String {
    let mut hmac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).unwrap();
    hmac.update(url.as_bytes());
    for (name, value) in params {
        hmac.update(name.as_bytes());
        hmac.update(value.as_bytes());
    }
    STANDARD.encode(hmac.finalize().into_bytes())
}

async fn webhooks_that_are_not_the_carriers_are_refused(place: Place) {
    let mut house = House::open(place, json!({})).await;
    house.first.program(|program| program.rules = vec![Rule::text("bread", ANSWER)]);
    let caller = house.ring();
    caller.greeted().await;

    // A repeated webhook: the carrier did not get the answer. The call stays one, and goes on where it is.
    house.carrier.repeat_last_webhook(WebhookKind::Voice).await.unwrap().unwrap();
    for signing in [Signing::Unsigned, Signing::WrongToken, Signing::TamperedBody] {
        let order = CallOrder { signing, ..CallOrder::new(NUMBER, "+15550109999") };
        let stranger = house.carrier.call(order).unwrap();
        stranger.until_over(LIMIT).await.unwrap();
        let asked = house.carrier.webhooks();
        let status = asked.iter().find(|hook| hook.params.iter().any(|(_, value)| value == stranger.sid()));
        assert_eq!(status.and_then(|hook| hook.status), Some(403), "{signing:?}: {asked:#?}");
    }
    assert_eq!(house.calls().await.len(), 1, "no stranger became a call");

    // Nonsense at every door, signed by nobody.
    let http = reqwest::Client::new();
    for path in ["voice", "voice-fallback", "media-over", "status"] {
        let url = format!("http://{}/hooks/twilio/{path}", house.door.address);
        let bodies = [vec![], b"%ff%fe=%zz&&&==".to_vec(), vec![0xff; 4096], vec![b'a'; HUGE_BYTES]];
        for (nr, body) in bodies.into_iter().enumerate() {
            let form = http.post(&url).header("content-type", "application/x-www-form-urlencoded").body(body);
            // A server may stop reading what is too long, and say so by breaking off.
            let Ok(answer) = form.header("x-twilio-signature", "AAAA").send().await else { continue };
            assert!(answer.status().is_client_error(), "{path} {nr}: {}", answer.status());
        }
        assert!(http.get(&url).send().await.unwrap().status().is_client_error());
    }
    house.is_well();

    caller.ask(QUESTION).await;
    caller.hang_up().await;
    assert_eq!(caller.heard(), words(&format!("{GREETING} {ANSWER}")), "the call was not disturbed");
    house.close().await;
}

/// A call that a carrier announced by hand: where its media socket is, and the ticket for it.
struct Announced {
    call_sid: String,
    socket: String,
    ticket: String,
}

async fn announce(house: &House, call_sid: &str) -> Announced {
    let url = format!("http://{}/hooks/twilio/voice", house.door.address);
    let params = BTreeMap::from([
        ("AccountSid", ACCOUNT),
        ("ApiVersion", "2010-04-01"),
        ("CallSid", call_sid),
        ("CallStatus", "ringing"),
        ("Direction", "inbound"),
        ("From", "+15550108888"),
        ("To", NUMBER),
    ]);
    let http = reqwest::Client::new();
    let asked = http.post(&url).header("x-twilio-signature", signature(&url, &params)).form(&params);
    let twiml = asked.send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
    let between = |before: &str| {
        let rest = twiml.split_once(before).unwrap_or_else(|| panic!("{before} in {twiml}")).1;
        rest.split('"').next().unwrap().to_owned()
    };
    Announced { call_sid: call_sid.into(), socket: between("<Stream url=\""), ticket: between("value=\"") }
}

async fn connect(url: &str, signature: &str) -> Result<Socket, u16> {
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("x-twilio-signature", signature.parse().unwrap());
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{url}: {error}"),
    }
}

/// Opens a media socket as the carrier does, and introduces it with these parameters.
async fn introduced(url: &str, call_sid: &str, parameters: Value) -> Socket {
    let mut socket = connect(url, &signature(url, &BTreeMap::new())).await.expect("the signature is right");
    let start = json!({ "event": "start", "sequenceNumber": "1", "streamSid": "MZ1", "start": {
        "accountSid": ACCOUNT, "streamSid": "MZ1", "callSid": call_sid, "tracks": ["inbound"],
        "mediaFormat": { "encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1 },
        "customParameters": parameters } });
    for message in [json!({ "event": "connected", "protocol": "Call", "version": "1.0.0" }), start] {
        socket.send(Message::text(message.to_string())).await.unwrap();
    }
    socket
}

/// Whether the server plays something into a socket; if not, it has closed it.
async fn is_played_to(socket: &mut Socket) -> bool {
    let answer = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) if text.contains("\"media\"") => return true,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
                Some(Ok(_)) => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, answer).await.expect("the server plays or closes")
}

/// Whether the server still reads a socket.
async fn is_open(socket: &mut Socket) -> bool {
    let _ = socket.send(Message::Ping("there?".into())).await;
    let answer = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Pong(_))) => return true,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
                Some(Ok(_)) => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, answer).await.expect("the server answers or closes")
}

async fn media_sockets_open_once_for_their_own_call(place: Place) {
    let mut house = House::open(place, json!({})).await;
    house.first.program(|program| program.rules = vec![Rule::text("bread", ANSWER)]);
    let caller = house.ring();
    caller.greeted().await;

    let one = announce(&house, "CA00000000000000000000000000000001").await;
    let other = announce(&house, "CA00000000000000000000000000000002").await;
    let nobodys = one.socket.rsplit_once('/').unwrap().0.to_owned() + "/cnv_01ARZ3NDEKTSV4RRFFQ69G5FAV";
    assert_eq!(connect(&one.socket, "").await.err(), Some(403), "unsigned");
    assert_eq!(
        connect(&one.socket, &signature(&other.socket, &BTreeMap::new())).await.err(),
        Some(403),
        "another's signature"
    );
    assert_eq!(
        connect(&nobodys, &signature(&nobodys, &BTreeMap::new())).await.err(),
        Some(403),
        "no such call"
    );

    let mut without = introduced(&one.socket, &one.call_sid, json!({})).await;
    assert!(!is_played_to(&mut without).await, "no ticket");
    let mut others = introduced(&one.socket, &one.call_sid, json!({ "ticket": other.ticket })).await;
    assert!(!is_played_to(&mut others).await, "another call's ticket");
    let mut posing = introduced(&one.socket, &other.call_sid, json!({ "ticket": one.ticket })).await;
    assert!(!is_played_to(&mut posing).await, "another call's name");
    let mut right = introduced(&one.socket, &one.call_sid, json!({ "ticket": one.ticket })).await;
    assert!(is_played_to(&mut right).await, "the right ticket is still good");
    let mut again = introduced(&one.socket, &one.call_sid, json!({ "ticket": one.ticket })).await;
    assert!(!is_played_to(&mut again).await, "a used ticket");
    let once_more = announce(&house, &one.call_sid).await;
    let mut second =
        introduced(&once_more.socket, &one.call_sid, json!({ "ticket": once_more.ticket })).await;
    assert!(is_played_to(&mut second).await, "the call goes on in the socket that was opened last");
    while is_open(&mut right).await {}
    let mut right = second;
    for message in [Message::binary(vec![7; 100]), Message::text("{\"event\":"), Message::text("[]")] {
        let mut mute = connect(&one.socket, &signature(&one.socket, &BTreeMap::new())).await.unwrap();
        mute.send(message).await.unwrap();
        mute.send(Message::binary(vec![0; HUGE_BYTES])).await.ok();
        assert!(!is_played_to(&mut mute).await, "garbage before the introduction");
    }

    // Garbage on an open socket is skipped, up to what is too large.
    let media = |payload: &str| {
        json!({ "event": "media", "streamSid": "MZ1", "media": { "payload": payload } }).to_string()
    };
    // The call's own greeting, whichever epoch of its audio this is.
    let claims_too_much = |epoch: u32| {
        let name = format!("{epoch}.1.4294967295");
        Message::text(json!({ "event": "mark", "streamSid": "MZ1", "mark": { "name": name } }).to_string())
    };
    let garbage = [
        Message::binary(vec![7; 1_000]),
        Message::text("not json"),
        Message::text("{\"event\":\"media\"}"),
        Message::text("[".repeat(10_000)),
        Message::text(media("%%%")),
        Message::text(media("")),
        Message::text(
            json!({ "event": "mark", "streamSid": "MZ1", "mark": { "name": "0.4294967295.4294967295!" } })
                .to_string(),
        ),
        claims_too_much(0),
        claims_too_much(1),
        claims_too_much(2),
        Message::text(json!({ "event": "dtmf", "streamSid": "MZ1", "dtmf": { "digit": "🜁" } }).to_string()),
        Message::text(json!({ "event": "start", "streamSid": "MZ2", "start": {} }).to_string()),
    ];
    for message in garbage {
        right.send(message).await.unwrap();
    }
    assert!(is_open(&mut right).await, "garbage is skipped");
    let mut mute = introduced(&other.socket, &other.call_sid, json!({ "ticket": other.ticket })).await;
    mute.send(Message::text(media(&STANDARD.encode([0xff; 160])))).await.unwrap();
    while is_open(&mut mute).await {}
    let _ = right.send(Message::binary(vec![0; HUGE_BYTES])).await;
    while is_open(&mut right).await {}
    house.is_well();

    caller.ask(QUESTION).await;
    caller.hang_up().await;
    assert_eq!(caller.heard(), words(&format!("{GREETING} {ANSWER}")), "the call was not disturbed");
    house.close().await;
}

async fn another_account_says_nothing_about_a_call_of_the_same_name(place: Place) {
    const THEIRS: &str = "AC00000000000000000000000000000002";
    const THEIR_TOKEN: &str = "another token, which signs their webhooks";
    const THEIR_NUMBER: &str = "+15550100003";
    let house = House::open(place, json!({})).await;
    house.first.program(|program| program.rules = vec![Rule::text("bread", ANSWER)]);
    let connection = json!({ "kind": "twilio", "name": "theirs", "account": THEIRS, "secret": THEIR_TOKEN });
    let connection = house.create("/api/connections", connection).await;
    let number = json!({ "e164": THEIR_NUMBER, "name": "theirs", "connection": connection["id"], "forward_to": NUMBER });
    house.create("/api/phone-numbers", number).await;
    let caller = house.ring();
    caller.greeted().await;

    let url = format!("http://{}/hooks/twilio/status", house.door.address);
    let params = BTreeMap::from([
        ("AccountSid", THEIRS),
        ("ApiVersion", "2010-04-01"),
        ("CallSid", caller.call.sid()),
        ("CallStatus", "completed"),
        ("From", "+15550108888"),
        ("To", THEIR_NUMBER),
    ]);
    let told = reqwest::Client::new().post(&url).form(&params);
    let told =
        told.header("x-twilio-signature", signed_with(THEIR_TOKEN, &url, &params)).send().await.unwrap();
    assert_eq!(told.status(), 204, "it is believed, of their own call");
    caller.ask(QUESTION).await;
    caller.hang_up().await;
    assert_eq!(caller.heard(), words(&format!("{GREETING} {ANSWER}")), "ours goes on");
    house.close().await;
}

async fn a_client_that_hangs_does_not_spoil_the_end(place: Place) {
    let house = House::open(place, json!({})).await;
    let mut client = TcpStream::connect(house.door.behind().unwrap()).await.unwrap();
    let half = "POST /hooks/twilio/voice HTTP/1.1\r\nhost: offhook\r\ncontent-length: 10\r\n\r\nhalf";
    client.write_all(half.as_bytes()).await.unwrap();
    // Answered after it: the half has been read.
    house.calls().await;
    house.close().await;
}
