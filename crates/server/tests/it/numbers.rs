//! Numbers at their carriers over the API, with simulated ones: bought, imported, looked up, taken back, given back, and what goes wrong.

use crate::house::{Answer, House, LIMIT};
use axum::http::{Method, StatusCode};
use offhook_carriers::sip::Listening;
use offhook_core::Secret;
use offhook_core::entity::Role;
use offhook_server::trunks;
use offhook_sim::carrier::twilio::{ForSale, OwnedNumber, RestTrouble, TwilioSettings, TwilioSim, Which};
use offhook_store::{ConnectionSpec, Page};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use tokio::time::Instant;

on_both!(
    a_number_is_found_bought_given_back_and_released,
    an_imported_number_is_given_back_as_it_was,
    of_two_buyers_one_is_told_who_has_it,
    a_number_that_was_changed_at_the_carrier_is_taken_back,
    passwords_in_others_addresses_are_given_back_and_not_shown,
    an_agent_is_started_and_stopped_step_by_step,
    a_number_that_was_added_by_hand_is_as_well_as_before_a_start_that_is_refused,
    a_connection_goes_when_its_lines_may,
    a_carrier_that_is_busy_is_asked_again_and_that_is_shown,
    nobody_else_sees_or_does_any_of_it,
    the_accounts_own_sip_trunk_is_set_up_and_taken_down,
    a_number_falls_back_to_a_document_elsewhere_where_one_is_set,
);

const ACCOUNT: &str = "AC00000000000000000000000000000001";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// The account's own number, which leads elsewhere.
const OWN: &str = "+13125550001";
const OLD_PAGE: &str = "https://old.example/voice";
/// A number that can be bought.
const NEW: &str = "+13125550002";

struct Exchange {
    house: House,
    sim: TwilioSim,
    connection: String,
    agent: String,
}

impl Exchange {
    async fn open(house: House) -> Exchange {
        let settings = TwilioSettings {
            account_sid: ACCOUNT.into(),
            auth_token: Secret::new(TOKEN.into()),
            numbers: vec![OwnedNumber::new(OWN, OLD_PAGE)],
            stock: vec![ForSale::local(NEW)],
            ..TwilioSettings::default()
        };
        let sim = TwilioSim::start((Ipv4Addr::LOCALHOST, 0).into(), settings).await.unwrap();
        let new = json!({ "kind": "twilio", "name": "line", "account": ACCOUNT, "secret": TOKEN,
            "config": { "api_base": sim.base_url() } });
        let connection = house.post("/api/connections", new).await.id();
        let agent = house.agent("Reception").await;
        Exchange { house, sim, connection, agent }
    }

    fn wanted(&self, e164: &str) -> Value {
        json!({ "connection": self.connection, "e164": e164, "inbound_agent": self.agent })
    }

    async fn buy(&self, e164: &str) -> Answer {
        self.house.post("/api/telephony/managed/purchase-number", self.wanted(e164)).await
    }

    async fn import(&self, e164: &str) -> Answer {
        self.house.post("/api/telephony/byop/import-number", self.wanted(e164)).await
    }

    /// The operation that has begun, when it is over.
    async fn over(&self, begun: &Answer) -> Value {
        assert_eq!(begun.status, StatusCode::ACCEPTED, "{}", begun.text());
        let (path, deadline) = (format!("/api/telephony/operations/{}", begun.id()), Instant::now() + LIMIT);
        loop {
            let operation = self.house.get(&path).await.json();
            if operation["status"] != "running" {
                return operation;
            }
            assert!(Instant::now() < deadline, "{operation:#}");
            tokio::task::yield_now().await;
        }
    }

    /// An operation that came to what was wanted, and the id of its number.
    async fn done(&self, begun: &Answer) -> String {
        let operation = self.over(begun).await;
        assert_eq!(operation["status"], "done", "{operation:#}");
        operation["numbers"][0]["id"].as_str().unwrap_or_default().to_owned()
    }

    async fn number(&self, id: &str) -> Value {
        self.house.get(&format!("/api/phone-numbers/{id}")).await.json()
    }

    /// A setting at the carrier.
    fn setting(&self, e164: &str, name: &str) -> Option<String> {
        Some(self.sim.number(e164)?.settings[name].clone())
    }
}

const OURS: &str = "https://offhook.example/hooks/twilio/voice";

fn conflict(answer: &Answer, words: &[&str]) {
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text());
    let problem = answer.json();
    for word in words {
        assert!(problem["detail"].as_str().unwrap().contains(word), "{word}: {problem:#}");
    }
    assert!(!problem["fix"].as_str().unwrap().is_empty(), "{problem:#}");
}

async fn a_number_is_found_bought_given_back_and_released(house: House) {
    let exchange = Exchange::open(house).await;
    let search = format!(
        "/api/telephony/available-numbers?connection={}&country=us&area_code=312",
        exchange.connection
    );
    let found = exchange.house.get(&search).await.json();
    assert_eq!(found["items"][0]["e164"], NEW, "{found:#}");

    let number = exchange.done(&exchange.buy(NEW).await).await;
    let row = exchange.number(&number).await;
    assert_eq!((&row["status"], &row["source"]), (&json!("active"), &json!("managed")));
    assert!(row["capabilities"].as_array().unwrap().contains(&json!("sms")), "{row:#}");
    assert_eq!(exchange.setting(NEW, "voice_url").as_deref(), Some(OURS));

    let path = format!("/api/phone-numbers/{number}");
    let code = exchange.house.get(&format!("{path}/qr?for=text&format=png")).await;
    assert_eq!(code.headers["content-type"], "image/png");
    assert!(code.body.starts_with(b"\x89PNG"));
    let code = exchange.house.get(&format!("{path}/qr")).await;
    assert!(code.headers["content-type"] == "image/svg+xml" && code.text().starts_with("<svg"));

    exchange.done(&exchange.house.delete(&path).await).await;
    assert_eq!(
        exchange.setting(NEW, "voice_url").as_deref(),
        Some(""),
        "it stays in the account, and leads nowhere"
    );
    assert_eq!(exchange.house.get(&path).await.status, StatusCode::NOT_FOUND);

    let number = exchange.done(&exchange.import(NEW).await).await;
    let path = format!("/api/phone-numbers/{number}/release");
    conflict(&exchange.house.post(&path, json!({})).await, &[NEW, "for good"]);
    conflict(&exchange.house.post(&path, json!({ "confirm": OWN })).await, &[NEW]);
    exchange.done(&exchange.house.post(&path, json!({ "confirm": NEW })).await).await;
    assert_eq!(exchange.sim.number(NEW), None);
}

async fn an_imported_number_is_given_back_as_it_was(house: House) {
    let exchange = Exchange::open(house).await;
    let before = exchange.sim.number(OWN);
    let own = format!("/api/connections/{}/numbers", exchange.connection);
    let listed = exchange.house.get(&own).await.json();
    assert_eq!((&listed["items"][0]["e164"], &listed["items"][0]["holder"]), (&json!(OWN), &Value::Null));
    assert!(listed["items"][0]["leads_to"].as_str().unwrap().contains(OLD_PAGE), "{listed:#}");

    let number = exchange.done(&exchange.import(OWN).await).await;
    let row = exchange.number(&number).await;
    assert_eq!((&row["status"], &row["source"]), (&json!("active"), &json!("byo")));
    assert_eq!(row["previous"]["voice_url"], OLD_PAGE);
    assert_eq!(exchange.setting(OWN, "voice_url").as_deref(), Some(OURS));
    let listed = exchange.house.get(&own).await.json();
    assert_eq!(listed["items"][0]["number"], json!(number));
    assert!(listed["items"][0]["holder"].as_str().unwrap().contains("`Reception` answers it"), "{listed:#}");

    conflict(&exchange.import(OWN).await, &[OWN, "`Reception` answers it"]);
    conflict(&exchange.import("+13125559999").await, &["+13125559999", "not a number of connection `line`"]);
    let wrong = exchange.import("312 555 0001").await;
    assert!(
        wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.text().contains("E.164"),
        "{}",
        wrong.text()
    );

    exchange.done(&exchange.house.delete(&format!("/api/phone-numbers/{number}")).await).await;
    assert_eq!(exchange.sim.number(OWN), before);
}

async fn of_two_buyers_one_is_told_who_has_it(house: House) {
    let exchange = Exchange::open(house).await;
    let (one, two) = tokio::join!(exchange.buy(NEW), exchange.buy(NEW));
    let (first, second) = if one.status == StatusCode::ACCEPTED { (one, two) } else { (two, one) };
    conflict(&second, &[NEW]);
    exchange.done(&first).await;

    const GONE: &str = "+13125550003";
    exchange.sim.offer(ForSale::local(GONE));
    assert!(exchange.sim.somebody_else_buys(GONE));
    let operation = exchange.over(&exchange.buy(GONE).await).await;
    assert_eq!(operation["status"], "failed", "{operation:#}");
    assert!(operation["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{operation:#}");
    let numbers = exchange.house.get("/api/phone-numbers").await.json();
    assert_eq!(numbers["items"].as_array().unwrap().len(), 1, "what was not bought is not here: {numbers:#}");
}

async fn a_number_that_was_changed_at_the_carrier_is_taken_back(house: House) {
    let exchange = Exchange::open(house).await;
    let number = exchange.done(&exchange.import(OWN).await).await;
    let path = format!("/api/phone-numbers/{number}");
    let check = async || exchange.house.post(&format!("{path}/check"), json!({})).await.json();
    assert_eq!(check().await["differences"], json!([]));

    const THIRD: &str = "https://third.example/voice";
    exchange.sim.change_in_console(OWN, &[("VoiceUrl", THIRD)]).unwrap();
    let checked = check().await;
    let shown = (&checked["differences"][0]["ours"], &checked["differences"][0]["theirs"]);
    assert_eq!(shown, (&json!(OURS), &json!(THIRD)), "{checked:#}");
    let row = exchange.number(&number).await;
    let reason = row["status_reason"].as_str().unwrap();
    assert!(row["status"] == "error" && reason.contains(OURS) && reason.contains(THIRD), "{row:#}");

    exchange.done(&exchange.house.post(&format!("{path}/take-back"), json!({})).await).await;
    assert_eq!(exchange.number(&number).await["status"], "active");
    assert_eq!(exchange.setting(OWN, "voice_url").as_deref(), Some(OURS));
    assert_eq!(exchange.number(&number).await["previous"]["voice_url"], OLD_PAGE, "not the third's");

    // What another hand has set is left to it when the number goes.
    exchange.sim.change_in_console(OWN, &[("VoiceUrl", THIRD)]).unwrap();
    exchange.done(&exchange.house.delete(&path).await).await;
    assert_eq!(exchange.setting(OWN, "voice_url").as_deref(), Some(THIRD));
    assert_eq!(exchange.setting(OWN, "status_callback").as_deref(), Some(""));
}

async fn passwords_in_others_addresses_are_given_back_and_not_shown(house: House) {
    const THEIRS: &str = "https://user:hunter2@old.example/voice";
    let exchange = Exchange::open(house).await;
    exchange.sim.change_in_console(OWN, &[("VoiceUrl", THEIRS)]).unwrap();
    let own = exchange.house.get(&format!("/api/connections/{}/numbers", exchange.connection)).await;
    let begun = exchange.import(OWN).await;
    let number = exchange.done(&begun).await;
    let path = format!("/api/phone-numbers/{number}");
    assert_eq!(exchange.number(&number).await["previous"]["voice_url"], "https://***@old.example/voice");
    exchange.sim.change_in_console(OWN, &[("VoiceUrl", THEIRS)]).unwrap();
    let checked = exchange.house.post(&format!("{path}/check"), json!({})).await;
    assert_eq!(checked.json()["differences"][0]["theirs"], "https://***@old.example/voice");
    exchange.done(&exchange.house.post(&format!("{path}/take-back"), json!({})).await).await;
    exchange.house.patch(&path, json!({ "name": "desk" })).await;
    let given_back = exchange.house.delete(&path).await;
    exchange.done(&given_back).await;
    assert_eq!(exchange.setting(OWN, "voice_url").as_deref(), Some(THEIRS));
    let audit = exchange.house.app.store.audit_events(&exchange.house.scope(), &Page::first(50)).await;
    let operation = exchange.house.get(&format!("/api/telephony/operations/{}", given_back.id())).await;
    let audit = format!("{:?}", audit.unwrap().rows);
    for shown in [own.text(), operation.text(), checked.text(), &audit] {
        assert!(shown.contains("old.example") && !shown.contains("hunter2"), "{shown}");
    }
}

async fn an_agent_is_started_and_stopped_step_by_step(house: House) {
    let exchange = Exchange::open(house).await;
    let imported = exchange.done(&exchange.import(OWN).await).await;
    let bought = exchange.done(&exchange.buy(NEW).await).await;
    let agent = format!("/api/agents/{}", exchange.agent);

    exchange.done(&exchange.house.post(&format!("{agent}/stop"), json!({})).await).await;
    assert_eq!(exchange.house.get(&agent).await.json()["running"], false);
    assert_eq!(exchange.setting(OWN, "voice_url").as_deref(), Some(OLD_PAGE), "it led elsewhere before");
    assert_eq!(exchange.setting(NEW, "voice_url").as_deref(), Some(OURS), "it led nowhere before");
    for number in [&imported, &bought] {
        let row = exchange.number(number).await;
        assert!(row["status"] == "inactive" && row["status_reason"].is_string(), "{row:#}");
    }

    exchange.sim.change_in_console(NEW, &[("VoiceUrl", "https://third.example/voice")]).unwrap();
    exchange.done(&exchange.house.post(&format!("{agent}/start"), json!({})).await).await;
    for (number, e164) in [(&imported, OWN), (&bought, NEW)] {
        assert_eq!(exchange.number(number).await["status"], "active");
        assert_eq!(exchange.setting(e164, "voice_url").as_deref(), Some(OURS));
    }

    exchange.sim.release_in_console(OWN);
    let started = exchange.over(&exchange.house.post(&format!("{agent}/start"), json!({})).await).await;
    assert!(
        started["status"] == "failed" && started["reason"].as_str().unwrap().contains(OWN),
        "{started:#}"
    );
    assert_eq!(exchange.number(&imported).await["status"], "error");

    let log = exchange.house.get(&format!("{agent}/log")).await.json();
    let kinds: Vec<_> =
        log["items"].as_array().unwrap().iter().map(|o| o["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["start", "start", "stop"]);
    let steps: Vec<_> =
        log["items"][1]["steps"].as_array().unwrap().iter().map(|s| s["what"].as_str().unwrap()).collect();
    assert!(steps[0].starts_with("see whether the agent could take a call"), "{steps:#?}");
    assert!(steps.iter().any(|step| step.starts_with(&format!("point {OWN} here"))), "{steps:#?}");
}

async fn a_number_that_was_added_by_hand_is_as_well_as_before_a_start_that_is_refused(house: House) {
    let exchange = Exchange::open(house).await;
    let connection = format!("/api/connections/{}", exchange.connection);
    exchange.house.patch(&connection, json!({ "secret": "not the auth token at all" })).await;
    let added = exchange.house.post("/api/phone-numbers", exchange.wanted(OWN)).await.id();
    let start = format!("/api/agents/{}/start", exchange.agent);
    let started = exchange.over(&exchange.house.post(&start, json!({})).await).await;
    assert_eq!(started["status"], "failed", "{started:#}");
    let row = exchange.number(&added).await;
    assert_eq!((&row["status"], &row["operation"]), (&json!("active"), &Value::Null), "{row:#}");
}

async fn a_connection_goes_when_its_lines_may(house: House) {
    let exchange = Exchange::open(house).await;
    let before = exchange.sim.number(OWN);
    exchange.done(&exchange.import(OWN).await).await;
    exchange.done(&exchange.buy(NEW).await).await;
    let path = format!("/api/connections/{}", exchange.connection);
    conflict(&exchange.house.delete(&path).await, &["would go offline", OWN, NEW]);
    exchange.done(&exchange.house.delete(&format!("{path}?take_offline=true")).await).await;
    assert_eq!(exchange.house.get(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(exchange.house.get("/api/phone-numbers").await.json()["items"], json!([]));
    assert_eq!(exchange.sim.number(OWN), before);
    assert_eq!(exchange.setting(NEW, "voice_url").as_deref(), Some(""));
}

async fn a_carrier_that_is_busy_is_asked_again_and_that_is_shown(house: House) {
    let exchange = Exchange::open(house).await;
    let troubles = [RestTrouble::TooManyRequests, RestTrouble::InternalError, RestTrouble::DoneThenCut];
    for (n, trouble) in troubles.into_iter().enumerate() {
        let e164 = format!("+1312555010{n}");
        exchange.sim.offer(ForSale::local(e164.as_str()));
        exchange.sim.trouble(Which::next("POST", "IncomingPhoneNumbers"), trouble);
        let begun = exchange.buy(&e164).await;
        exchange.done(&begun).await;
        let operation = exchange.over(&begun).await;
        let errors = operation["steps"].as_array().unwrap().iter().filter_map(|step| step["error"].as_str());
        let errors: Vec<_> = errors.collect();
        assert_eq!(errors.len(), 1, "{trouble:?}: {operation:#}");
        let requests = exchange.sim.requests();
        let bought =
            requests.iter().filter(|r| r.param("PhoneNumber") == Some(&e164) && r.status == Some(201));
        assert_eq!(bought.count(), 1, "{trouble:?}: {operation:#}");
        if trouble == RestTrouble::TooManyRequests {
            assert!(errors[0].contains("fewer requests"), "{errors:?}");
        }
    }
}

#[tokio::test]
async fn a_number_of_a_trunk_needs_no_carrier() {
    let exchange = Exchange::open(House::sqlite().await).await;
    let trunk = ConnectionSpec {
        kind: "sip".into(),
        name: "trunk".into(),
        account: None,
        config: json!({}),
        secret: None,
    };
    let trunk = exchange.house.app.store.create_connection(&exchange.house.scope(), &trunk).await.unwrap();
    let wanted = json!({ "connection": trunk.id, "e164": OWN, "inbound_agent": exchange.agent });
    let asked = exchange.sim.requests().len();
    let begun = exchange.house.post("/api/telephony/byop/import-number", wanted.clone()).await;
    let number = exchange.done(&begun).await;
    let row = exchange.number(&number).await;
    assert_eq!((&row["status"], &row["source"]), (&json!("active"), &json!("sip")), "{row:#}");
    let path = format!("/api/phone-numbers/{number}");
    let checked = exchange.house.post(&format!("{path}/check"), json!({})).await.json();
    assert_eq!(checked["differences"], json!([]), "{checked:#}");
    conflict(
        &exchange.house.post(&format!("{path}/take-back"), json!({})).await,
        &["sent here by the trunk"],
    );
    conflict(&exchange.house.post("/api/telephony/managed/purchase-number", wanted).await, &["kind sip"]);
    let agent = format!("/api/agents/{}", exchange.agent);
    exchange.done(&exchange.house.post(&format!("{agent}/stop"), json!({})).await).await;
    assert_eq!(exchange.number(&number).await["status"], "inactive");
    exchange.done(&exchange.house.post(&format!("{agent}/start"), json!({})).await).await;
    assert_eq!(exchange.number(&number).await["status"], "active");
    assert_eq!(exchange.house.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(exchange.sim.requests().len(), asked, "nobody was asked");
}

async fn nobody_else_sees_or_does_any_of_it(house: House) {
    let exchange = Exchange::open(house).await;
    let (house, stranger) = (&exchange.house, exchange.house.stranger().await);
    let begun = exchange.import(OWN).await;
    let number = exchange.done(&begun).await;
    let (operation, connection) = (begun.id(), &exchange.connection);
    let ask = async |method: Method, path: String, body: Option<Value>| {
        house.send(method, &path, Some(&stranger), body).await.status
    };
    for (method, path, body) in [
        (Method::GET, format!("/api/telephony/operations/{operation}"), None),
        (Method::GET, format!("/api/telephony/operations?agent={}", exchange.agent), None),
        (Method::GET, format!("/api/telephony/available-numbers?connection={connection}&country=US"), None),
        (Method::GET, format!("/api/connections/{connection}/numbers"), None),
        (Method::POST, "/api/telephony/managed/purchase-number".into(), Some(exchange.wanted(NEW))),
        (Method::POST, "/api/telephony/byop/import-number".into(), Some(exchange.wanted(OWN))),
        (Method::POST, format!("/api/phone-numbers/{number}/release"), Some(json!({ "confirm": OWN }))),
        (Method::DELETE, format!("/api/connections/{connection}?take_offline=true"), None),
    ] {
        assert_eq!(ask(method.clone(), path.clone(), body).await, StatusCode::NOT_FOUND, "{method} {path}");
    }
    assert_eq!(ask(Method::GET, "/api/telephony/operations".into(), None).await, StatusCode::OK);
    let viewer = house.send(
        Method::POST,
        "/api/telephony/managed/purchase-number",
        Some(house.key(Role::Viewer)),
        Some(exchange.wanted(NEW)),
    );
    assert_eq!(viewer.await.status, StatusCode::FORBIDDEN);
    assert!(exchange.sim.number(NEW).is_none() && exchange.sim.number(OWN).is_some());
}

async fn the_accounts_own_sip_trunk_is_set_up_and_taken_down(house: House) {
    let exchange = Exchange::open(house).await;
    let path = format!("/api/connections/{}/sip-trunk", exchange.connection);
    let set_up = async |numbers: &[&str]| {
        let body = json!({ "numbers": numbers, "inbound_agent": exchange.agent });
        exchange.house.post(&path, body).await
    };
    conflict(&set_up(&[OWN]).await, &["does not listen for SIP"]);
    let listening = Listening {
        udp: Some((Ipv4Addr::LOCALHOST, 0).into()),
        tcp: None,
        tls: None,
        public_host: Some("phone.example".into()),
        public_media: Some(Ipv4Addr::LOCALHOST.into()),
        rtp_ports: 41_000..=41_099,
    };
    trunks::start(&exchange.house.app, listening).await.unwrap();
    let port = exchange.house.app.trunks.agent().unwrap().listening().0.unwrap().port();
    conflict(&set_up(&["+13125559999"]).await, &["+13125559999", "line"]);
    assert_eq!(set_up(&[]).await.status, StatusCode::UNPROCESSABLE_ENTITY);

    let theirs =
        json!({ "kind": "sip", "name": "line trunk", "config": { "domain": "127.0.0.1", "options_s": 0 } });
    let theirs = exchange.house.post("/api/connections", theirs).await.id();
    conflict(&set_up(&[OWN]).await, &["line trunk", "not this trunk's"]);
    assert_eq!(exchange.house.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(
        exchange.house.delete(&format!("/api/connections/{theirs}")).await.status,
        StatusCode::NO_CONTENT
    );

    let made = set_up(&[OWN]).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text());
    let made = made.json();
    assert_eq!(made["origination"], format!("sip:phone.example:{port};transport=udp"));
    assert_eq!(
        (&made["connection"]["kind"], &made["connection"]["name"]),
        (&json!("sip"), &json!("line trunk"))
    );
    assert_eq!(exchange.setting(OWN, "trunk_sid").as_deref(), made["trunk"].as_str());
    assert_eq!(
        exchange.setting(OWN, "voice_url").as_deref(),
        Some(OLD_PAGE),
        "it stays for when the trunk goes"
    );
    let again = set_up(&[OWN]).await.json();
    assert_eq!((&again["trunk"], &again["connection"]["id"]), (&made["trunk"], &made["connection"]["id"]));
    let numbers = exchange.house.get("/api/phone-numbers").await.json();
    let number = &numbers["items"][0];
    assert_eq!(numbers["items"].as_array().map(Vec::len), Some(1), "{numbers:#}");
    assert_eq!(
        (&number["e164"], &number["connection"], &number["status"]),
        (&json!(OWN), &made["connection"]["id"], &json!("active")),
        "{number:#}"
    );

    let gone = exchange.house.delete(&path).await;
    assert_eq!(exchange.over(&gone).await["status"], "done");
    assert_eq!(exchange.setting(OWN, "trunk_sid").as_deref(), Some(""));
    assert_eq!(exchange.house.get("/api/phone-numbers").await.json()["items"], json!([]));
    assert_eq!(
        exchange.house.delete(&path).await.status,
        StatusCode::NO_CONTENT,
        "there is nothing left to do"
    );
}

async fn a_number_falls_back_to_a_document_elsewhere_where_one_is_set(house: House) {
    const ELSEWHERE: &str = "https://handler.example/put-through";
    let exchange = Exchange::open(house).await;
    let id = exchange.done(&exchange.import(OWN).await).await;
    let fallback = || exchange.setting(OWN, "voice_fallback_url").unwrap();
    assert_eq!(fallback(), "https://offhook.example/hooks/twilio/voice-fallback");
    let config = json!({ "api_base": exchange.sim.base_url(), "fallback_url": ELSEWHERE });
    let path = format!("/api/connections/{}", exchange.connection);
    assert_eq!(exchange.house.patch(&path, json!({ "config": config })).await.status, StatusCode::OK);
    // What is set is not what shall be: that is told, and put right with one request.
    exchange.house.post(&format!("/api/phone-numbers/{id}/check"), json!({})).await;
    let number = exchange.number(&id).await;
    assert!(number["status_reason"].as_str().unwrap().contains(ELSEWHERE), "{number:#}");
    let taken = exchange.house.post(&format!("/api/phone-numbers/{id}/take-back"), json!({})).await;
    exchange.done(&taken).await;
    assert_eq!(fallback(), ELSEWHERE);
}
