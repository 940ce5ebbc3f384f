//! The Twilio adapter against the simulated Twilio, which shares no line with it: what an account is asked, and what becomes of it.

use offhook_carriers::twilio::{Credentials, TrunkWish, Twilio};
use offhook_carriers::{Bought, CarrierError, NumberSearch, OurHooks, OwnNumber, Routing};
use offhook_core::{E164, Secret};
use offhook_sim::carrier::twilio::{
    AccountStatus, ApiKey, Area, CallOrder, KeyKind, RestTrouble, TwilioSettings, TwilioSim, Which,
};
use std::net::Ipv4Addr;
use std::time::Duration;

const ACCOUNT: &str = "AC00000000000000000000000000000001";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "SK00000000000000000000000000000001";
const LIMIT: Duration = Duration::from_secs(10);

async fn carrier(settings: TwilioSettings) -> TwilioSim {
    // Another test of this binary may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    TwilioSim::start((Ipv4Addr::LOCALHOST, 0).into(), settings).await.unwrap()
}

fn token() -> Credentials {
    Credentials::AuthToken(Secret::new(TOKEN.into()))
}

fn key() -> Credentials {
    Credentials::ApiKey { sid: KEY.into(), secret: Secret::new("word".into()) }
}

fn account(carrier: &TwilioSim, id: &str, credentials: Credentials) -> Twilio {
    let base = carrier.base_url().parse().unwrap();
    Twilio::new(reqwest::Client::new(), base, id, credentials).unwrap()
}

fn own(carrier: &TwilioSim) -> Twilio {
    account(carrier, ACCOUNT, token())
}

async fn ours(twilio: &Twilio) -> Routing {
    let page = |path: &str| format!("https://offhook.example/hooks/twilio/{path}").parse().unwrap();
    let hooks = OurHooks {
        voice: page("voice"),
        voice_fallback: page("fallback"),
        status: page("status"),
        messages: Some(page("messages")),
    };
    twilio.routing_to(&hooks, "offhook").await.unwrap()
}

async fn for_sale(twilio: &Twilio) -> E164 {
    let any = NumberSearch {
        country: "US".into(),
        kind: None,
        area_code: None,
        locality: None,
        region: None,
        contains: None,
        capabilities: vec![],
        limit: 10,
    };
    twilio.search(&any).await.unwrap().swap_remove(0).e164
}

async fn bought(twilio: &Twilio) -> OwnNumber {
    let e164 = for_sale(twilio).await;
    assert_eq!(twilio.buy(&e164, &ours(twilio).await, "num_1").await.unwrap(), Bought::Done);
    twilio.own_number(&e164).await.unwrap().unwrap()
}

fn left(wanted: &Routing, number: &OwnNumber) -> Vec<String> {
    wanted.differs(&number.routing).map(|(name, ..)| name.to_owned()).collect()
}

#[tokio::test]
async fn what_credentials_may_not_do_is_named() {
    let all = [Area::Numbers, Area::Calls, Area::Messages];
    let but = |area| KeyKind::Restricted(all.into_iter().filter(|one| *one != area).collect());
    for (kind, here, elsewhere) in [
        (KeyKind::Main, "ok", "wrong_account"),
        (KeyKind::Standard, "ok", "wrong_account"),
        // What the key may not do is found before whose account it is.
        (but(Area::Numbers), "missing_permission:numbers", "missing_permission:numbers"),
        (but(Area::Calls), "missing_permission:voice", "wrong_account"),
        (but(Area::Messages), "missing_permission:messages", "wrong_account"),
    ] {
        let keys = vec![ApiKey { sid: KEY.into(), secret: Secret::new("word".into()), kind }];
        let carrier = carrier(TwilioSettings { keys, ..TwilioSettings::default() }).await;
        for (id, word) in [(ACCOUNT, here), ("AC00000000000000000000000000000009", elsewhere)] {
            assert_eq!(account(&carrier, id, key()).check().await.unwrap().to_string(), word);
        }
    }

    let carrier = carrier(TwilioSettings::default()).await;
    let check =
        async |credentials| account(&carrier, ACCOUNT, credentials).check().await.unwrap().to_string();
    assert_eq!(check(token()).await, "ok");
    assert_eq!(check(key()).await, "wrong_credentials");
    assert_eq!(
        check(Credentials::AuthToken(Secret::new(TOKEN.replace('0', "1")))).await,
        "wrong_credentials"
    );
    assert_eq!(check(Credentials::AuthToken(Secret::new(TOKEN[1..].into()))).await, "wrong_secret");
    carrier.account_status(AccountStatus::Suspended);
    assert_eq!(check(token()).await, "suspended");
    carrier.account_status(AccountStatus::Closed);
    assert_eq!(check(token()).await, "closed");
}

#[tokio::test]
async fn the_region_that_knows_the_credentials_is_found() {
    let carrier = carrier(TwilioSettings { region: "ie1".into(), ..TwilioSettings::default() }).await;
    let mut http = reqwest::Client::builder();
    for host in ["api.twilio.com", "api.dublin.ie1.twilio.com", "api.sydney.au1.twilio.com"] {
        http = http.resolve(host, carrier.address());
    }
    let base = format!("http://api.twilio.com:{}", carrier.address().port()).parse().unwrap();
    let twilio = Twilio::new(http.build().unwrap(), base, ACCOUNT, token()).unwrap();
    assert_eq!(twilio.check().await.unwrap().to_string(), "wrong_region:ie1");
}

#[tokio::test]
async fn a_purchase_of_unknown_outcome_is_known_after_a_look() {
    use RestTrouble::*;
    for (trouble, done) in [
        (InternalError, false),
        (Unavailable, false),
        (NoAnswer, false),
        (Cut, false),
        (DoneThenInternalError, true),
        (DoneThenNoAnswer, true),
        (DoneThenCut, true),
    ] {
        let carrier = carrier(TwilioSettings::default()).await;
        let twilio = own(&carrier).with_timeout(Duration::from_millis(500));
        let (e164, routing) = (for_sale(&twilio).await, ours(&twilio).await);
        carrier.trouble(Which::next("POST", "IncomingPhoneNumbers.json"), trouble);
        let error = twilio.buy(&e164, &routing, "num_1").await.unwrap_err();
        assert!(matches!(error, CarrierError::OutcomeUnknown { .. }), "{trouble:?}: {error}");
        let number = twilio.own_number(&e164).await.unwrap();
        assert_eq!(number.is_some(), done, "{trouble:?}");
        match number {
            Some(number) => assert_eq!(left(&routing, &number), [""; 0]),
            None => assert_eq!(twilio.buy(&e164, &routing, "num_1").await.unwrap(), Bought::Done),
        }
        assert_eq!(carrier.numbers().len(), 1, "{trouble:?}");
    }
}

#[tokio::test]
async fn a_number_that_somebody_else_bought_is_gone() {
    let carrier = carrier(TwilioSettings::default()).await;
    let twilio = own(&carrier);
    let e164 = for_sale(&twilio).await;
    assert!(carrier.somebody_else_buys(e164.as_str()));
    let error = twilio.buy(&e164, &ours(&twilio).await, "num_1").await.unwrap_err();
    assert!(matches!(error, CarrierError::Refused { code: 21422, .. }), "{error}");
    assert_eq!(twilio.own_number(&e164).await.unwrap(), None);
}

#[tokio::test]
async fn a_number_comes_to_us_and_goes_back_exactly_wherever_it_was() {
    let carrier = carrier(TwilioSettings::default()).await;
    let twilio = own(&carrier);
    let trunk = twilio.trunk(&wish()).await.unwrap().id;
    let (app, routing) = ("AP00000000000000000000000000000001", ours(&twilio).await);
    let number = bought(&twilio).await;
    for before in [
        &[("VoiceUrl", "https://old.example/v"), ("VoiceMethod", "GET"), ("StatusCallback", "")][..],
        &[("TrunkSid", &trunk), ("VoiceUrl", "https://old.example/v"), ("SmsUrl", "")],
        &[("VoiceApplicationSid", app), ("SmsApplicationSid", app), ("VoiceFallbackUrl", "")],
        &[("VoiceReceiveMode", "fax"), ("VoiceUrl", ""), ("SmsUrl", ""), ("SmsFallbackMethod", "GET")],
    ] {
        carrier.change_in_console(number.e164.as_str(), before).unwrap();
        let theirs = twilio.own_number(&number.e164).await.unwrap().unwrap();
        assert!(!left(&routing, &theirs).is_empty(), "{before:?}");
        let here = twilio.route(&theirs, &routing).await.unwrap();
        assert_eq!(left(&routing, &here), [""; 0], "{before:?}");
        let back = twilio.route(&here, &theirs.routing).await.unwrap();
        assert_eq!(left(&theirs.routing, &back), [""; 0], "{before:?}");
    }
    twilio.release(&number).await.unwrap();
    twilio.release(&number).await.unwrap();
    assert_eq!(carrier.numbers(), []);
}

fn wish() -> TrunkWish {
    TrunkWish {
        name: "offhook con_1".into(),
        uri: "sip:sip.offhook.example:5061;transport=tls".into(),
        secure: true,
        transfers: true,
        recovery: Some("https://offhook.example/hooks/twilio/voice".parse().unwrap()),
    }
}

#[tokio::test]
async fn a_trunk_is_made_once_whatever_breaks_in_between() {
    let carrier = carrier(TwilioSettings::default()).await;
    let twilio = own(&carrier);
    let number = bought(&twilio).await;
    carrier.trouble(Which::next("POST", "/v1/Trunks"), RestTrouble::DoneThenCut);
    assert!(matches!(twilio.trunk(&wish()).await, Err(CarrierError::OutcomeUnknown { .. })));
    carrier.trouble(Which::next("POST", "OriginationUrls"), RestTrouble::DoneThenInternalError);
    assert!(matches!(twilio.trunk(&wish()).await, Err(CarrierError::OutcomeUnknown { .. })));
    let trunk = twilio.trunk(&wish()).await.unwrap();
    assert_eq!((trunk.secure, trunk.transfers, trunk.originations.len()), (true, true, 1));
    let moved = TrunkWish { uri: "sip:elsewhere.example:5060;transport=udp".into(), secure: false, ..wish() };
    let now = twilio.trunk(&moved).await.unwrap();
    assert_eq!(
        (&now.id, now.secure, now.originations[0].uri.as_str()),
        (&trunk.id, false, moved.uri.as_str())
    );
    let made = carrier.requests();
    let made = made.iter().filter(|one| one.method == "POST" && one.path == "/v1/Trunks");
    assert_eq!(made.count(), 1);

    carrier.trouble(Which::next("POST", "PhoneNumbers"), RestTrouble::DoneThenCut);
    assert!(twilio.attach_to_trunk(&trunk.id, &number.id).await.is_err());
    twilio.attach_to_trunk(&trunk.id, &number.id).await.unwrap();
    let attached = twilio.own_number(&number.e164).await.unwrap().unwrap();
    assert_eq!(left(&ours(&twilio).await, &attached), ["trunk_sid"]);
    twilio.detach_from_trunk(&trunk.id, &number.id).await.unwrap();
    assert!(!twilio.is_on_trunk(&trunk.id, &number.id).await.unwrap());
    twilio.remove_trunk(&trunk.id).await.unwrap();
    twilio.remove_trunk(&trunk.id).await.unwrap();
}

#[tokio::test]
async fn a_page_of_ours_that_does_not_answer_leaves_an_alert() {
    let carrier = carrier(TwilioSettings::default()).await;
    let twilio = own(&carrier);
    let number = bought(&twilio).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("http://{}/voice", nobody.local_addr().unwrap());
    drop(nobody);
    let settings = [("VoiceUrl", dead.as_str()), ("VoiceFallbackUrl", ""), ("StatusCallback", "")];
    carrier.change_in_console(number.e164.as_str(), &settings).unwrap();
    let call = carrier.call(CallOrder::new(number.e164.as_str(), "+14155550199")).unwrap();
    call.until_over(LIMIT).await.unwrap();
    let alerts = twilio.alerts(0).await.unwrap();
    assert_eq!((alerts[0].code, alerts[0].url.as_deref()), (Some(11205), Some(dead.as_str())));
    assert_eq!(alerts[0].about.as_deref(), Some(call.sid()));
    assert_eq!(twilio.alerts(4_102_444_800_000_000).await.unwrap(), [], "nothing happens after 2100");
}
