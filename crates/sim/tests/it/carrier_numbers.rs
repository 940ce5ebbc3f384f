//! Numbers at the simulated Twilio: search, purchase, settings, release, trunks, services, alerts, and trouble on the way.

use offhook_core::Secret;
use offhook_sim::carrier::twilio::{
    AccountStatus, ApiKey, Area, CallOrder, CallStatus, ForSale, KeyKind, NotChanged, OwnedNumber,
    RestTrouble, TwilioSettings, TwilioSim, Which,
};
use serde_json::{Value, json};

use crate::customer::{Customer, LIMIT};

const ACCOUNT: &str = "AC00000000000000000000000000000001";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const NUMBER: &str = "+14155550200";
const BUY: &str = "IncomingPhoneNumbers.json";

/// The REST API as the account's owner uses it.
struct Api {
    sim: TwilioSim,
    http: reqwest::Client,
}

impl Api {
    async fn open() -> Api {
        Api::with(TwilioSettings::default()).await
    }

    async fn with(settings: TwilioSettings) -> Api {
        let sim = TwilioSim::start("127.0.0.1:0".parse().unwrap(), settings).await.unwrap();
        Api { sim, http: reqwest::Client::new() }
    }

    async fn send(&self, method: &str, path: &str, form: &[(&str, &str)]) -> reqwest::Result<(u16, Value)> {
        let path = match path.strip_prefix('/') {
            Some(_) => path.to_owned(),
            None => format!("/2010-04-01/Accounts/{ACCOUNT}/{path}"),
        };
        let method = method.parse().unwrap();
        let request = self.http.request(method, format!("{}{path}", self.sim.base_url()));
        let request = request.basic_auth(ACCOUNT, Some(TOKEN));
        let request = if form.is_empty() { request } else { request.form(form) };
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        Ok((status, answer.json().await.unwrap_or_default()))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, &[]).await.unwrap()
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        self.send("POST", path, form).await.unwrap()
    }

    async fn delete(&self, path: &str) -> u16 {
        self.send("DELETE", path, &[]).await.unwrap().0
    }

    /// The numbers that a search finds.
    async fn found(&self, search: &str) -> Vec<String> {
        let (status, body) = self.get(&format!("AvailablePhoneNumbers/{search}")).await;
        assert_eq!(status, 200, "{search}: {body}");
        let found = body["available_phone_numbers"].as_array().unwrap();
        found.iter().map(|number| number["phone_number"].as_str().unwrap().to_owned()).collect()
    }

    async fn bought(&self, e164: &str) -> String {
        let (status, body) = self.post(BUY, &[("PhoneNumber", e164)]).await;
        assert_eq!(status, 201, "{body}");
        body["sid"].as_str().unwrap().to_owned()
    }

    async fn listed(&self, e164: &str) -> usize {
        let (_, body) = self.get(&format!("{BUY}?PhoneNumber={}", e164.replace('+', "%2B"))).await;
        body["incoming_phone_numbers"].as_array().unwrap().len()
    }
}

#[tokio::test]
async fn a_search_finds_what_fits_and_nothing_else() {
    let api = Api::open().await;
    let cases = [
        ("US/Local.json?AreaCode=415", 10, "+1415"),
        ("US/Local.json?InRegion=ny", 10, "+1212"),
        ("US/Local.json?InLocality=Hilo&VoiceEnabled=true", 10, "+1808"),
        ("US/Local.json?SmsEnabled=false", 10, "+1808"),
        ("US/Local.json?SmsEnabled=true", 20, "+1"),
        ("US/Local.json?Contains=%2B1212&PageSize=3", 3, "+1212"),
        ("US/Local.json?Contains=5550207", 3, "+1"),
        ("US/Local.json?NearNumber=%2B14155559999", 10, "+1415"),
        ("US/Local.json?NearLatLong=40.7,-74.0&Distance=50", 10, "+1212"),
        ("US/TollFree.json", 10, "+1888"),
        ("GB/Mobile.json", 10, "+447"),
        ("GB/Mobile.json?ExcludeAllAddressRequired=true", 0, ""),
        ("DE/Local.json?ExcludeForeignAddressRequired=true", 10, "+49"),
        ("DE/Local.json?ExcludeLocalAddressRequired=true", 0, ""),
        ("DE/Local.json?FaxEnabled=true", 0, ""),
    ];
    for (search, count, prefix) in cases {
        let found = api.found(search).await;
        assert_eq!(found.len(), count, "{search}: {found:?}");
        assert!(found.iter().all(|number| number.starts_with(prefix)), "{search}: {found:?}");
    }
    for (search, status, code) in [
        ("US/Mobile.json", 404, 20404),
        ("XX/Local.json", 404, 20404),
        ("US/Landline.json", 404, 20404),
        ("DE/Local.json?AreaCode=301", 400, 20001),
        ("US/Local.json?Contains=5", 400, 20001),
        ("US/Local.json?SmsEnabled=yes", 400, 20001),
        ("US/Local.json?areaCode=415", 400, 20001),
    ] {
        let (got, body) = api.get(&format!("AvailablePhoneNumbers/{search}")).await;
        assert_eq!((got, &body["code"]), (status, &json!(code)), "{search}: {body}");
    }
}

#[tokio::test]
async fn a_found_number_is_described_as_documented() {
    let settings = TwilioSettings { upper_case_capabilities: true, ..TwilioSettings::default() };
    for (api, sms, mms) in [(Api::open().await, "sms", "mms"), (Api::with(settings).await, "SMS", "MMS")] {
        let (_, body) = api.get("AvailablePhoneNumbers/US/Local.json?InLocality=Hilo&PageSize=1").await;
        assert_eq!(
            body,
            json!({
                "uri": format!("/2010-04-01/Accounts/{ACCOUNT}/AvailablePhoneNumbers/US/Local.json"),
                "available_phone_numbers": [{
                    "friendly_name": "(808) 555-0200", "phone_number": "+18085550200", "lata": "834",
                    "locality": "Hilo", "rate_center": "HILO", "latitude": "19.720000",
                    "longitude": "-155.090000", "region": "HI", "postal_code": "96720",
                    "iso_country": "US", "address_requirements": "none", "beta": false,
                    "capabilities": {"voice": true, sms: false, mms: true},
                }],
            })
        );
    }
    let api = Api::open().await;
    let (_, country) = api.get("AvailablePhoneNumbers/US.json").await;
    let kinds: Vec<&String> = country["subresource_uris"].as_object().unwrap().keys().collect();
    assert_eq!(kinds, ["local", "toll_free"]);
    let (_, countries) = api.get("AvailablePhoneNumbers.json").await;
    assert_eq!(countries["countries"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn a_number_is_bought_configured_changed_and_released() {
    let customer = Customer::open().await;
    customer.answer("/voice", "<Response><Reject/></Response>");
    let api = Api::open().await;
    let voice = customer.url("/voice");
    let form = [
        ("PhoneNumber", NUMBER),
        ("FriendlyName", "Front desk"),
        ("VoiceUrl", &voice),
        ("SmsUrl", "https://h.example/sms"),
        ("StatusCallbackMethod", "GET"),
    ];
    let (status, bought) = api.post(BUY, &form).await;
    assert_eq!(status, 201, "{bought}");
    for (name, value) in [
        ("phone_number", NUMBER),
        ("friendly_name", "Front desk"),
        ("voice_url", &voice),
        ("voice_method", "POST"),
        ("status_callback_method", "GET"),
        ("voice_receive_mode", "voice"),
        ("type", "local"),
    ] {
        assert_eq!(bought[name], value, "{name}");
    }
    assert_eq!(bought["trunk_sid"], Value::Null);
    assert!(!api.found("US/Local.json?AreaCode=415").await.contains(&NUMBER.to_owned()));
    let call = api.sim.call(CallOrder::new(NUMBER, "+14155550199")).unwrap();
    assert_eq!(call.until_over(LIMIT).await, Ok(CallStatus::NoAnswer));
    assert_eq!(customer.asked("/voice").len(), 1);

    let path = format!("IncomingPhoneNumbers/{}.json", bought["sid"].as_str().unwrap());
    let (_, changed) = api.post(&path, &[("VoiceUrl", ""), ("SmsMethod", "GET")]).await;
    assert_eq!((&changed["voice_url"], &changed["sms_method"]), (&json!(""), &json!("GET")));
    assert_eq!(changed["sms_url"], "https://h.example/sms");
    assert_eq!(api.get(&path).await.1, changed);
    assert_eq!(api.delete(&path).await, 204);
    assert_eq!((api.get(&path).await.0, api.delete(&path).await), (404, 404));
    assert_eq!(api.listed(NUMBER).await, 0);
}

#[tokio::test]
async fn a_purchase_that_is_wrong_buys_nothing() {
    let api = Api::open().await;
    let address = ("AddressSid", "AD00000000000000000000000000000001");
    let cases: [(&[(&str, &str)], u64); 13] = [
        (&[], 20001),
        (&[("PhoneNumber", "415")], 21421),
        (&[("PhoneNumber", "+14155559999")], 21422),
        (&[("AreaCode", "999")], 21452),
        (&[("PhoneNumber", NUMBER), ("VoiceUrl", "/voice")], 21402),
        (&[("PhoneNumber", NUMBER), ("VoiceMethod", "PUT")], 21403),
        (&[("PhoneNumber", NUMBER), ("TrunkSid", "TK1")], 20001),
        (&[("PhoneNumber", NUMBER), ("TrunkSid", "TK00000000000000000000000000000001")], 20001),
        (&[("PhoneNumber", NUMBER), ("VoiceURL", "https://h.example")], 20001),
        (&[("PhoneNumber", "+442079460200")], 21631),
        (&[("PhoneNumber", "+447700900200")], 21631),
        (&[("PhoneNumber", "+493023125200"), address], 21649),
        (&[("PhoneNumber", "+493023125200"), ("AddressSid", "AD1")], 20001),
    ];
    for (form, code) in cases {
        let (status, body) = api.post(BUY, form).await;
        assert_eq!((status, body["code"].as_u64()), (400, Some(code)), "{form:?}: {body}");
    }
    assert!(api.sim.numbers().is_empty());
    let bundle = ("BundleSid", "BU00000000000000000000000000000001");
    assert_eq!(api.post(BUY, &[("PhoneNumber", "+493023125200"), address, bundle]).await.0, 201);
    let (_, in_area) = api.post(BUY, &[("AreaCode", "212")]).await;
    assert_eq!(in_area["phone_number"], "+12125550200");
}

#[tokio::test]
async fn a_number_is_sold_once() {
    let api = Api::open().await;
    assert_eq!(api.found("US/Local.json?Contains=4155550200").await, [NUMBER]);
    assert!(api.sim.somebody_else_buys(NUMBER) && !api.sim.somebody_else_buys(NUMBER));
    assert_eq!(api.post(BUY, &[("PhoneNumber", NUMBER)]).await.1["code"], 21422);
    let wanted = [("PhoneNumber", "+14155550201")];
    let (one, two) = tokio::join!(api.post(BUY, &wanted), api.post(BUY, &wanted));
    let mut statuses = [one.0, two.0];
    statuses.sort_unstable();
    assert_eq!((statuses, api.sim.numbers().len()), ([201, 400], 1));
}

#[tokio::test]
async fn a_trial_account_owns_one_number() {
    let settings = TwilioSettings { trial: true, ..TwilioSettings::default() };
    let api = Api::with(settings).await;
    api.bought(NUMBER).await;
    assert_eq!(api.post(BUY, &[("PhoneNumber", "+14155550201")]).await.1["code"], 21404);
    assert_eq!(api.get(&format!("/2010-04-01/Accounts/{ACCOUNT}.json")).await.1["type"], "Trial");
}

#[tokio::test]
async fn lists_may_be_behind_what_was_bought_and_released() {
    let api = Api::open().await;
    api.sim.lists_lag(2);
    let sid = api.bought(NUMBER).await;
    let path = format!("IncomingPhoneNumbers/{sid}.json");
    assert_eq!(api.get(&path).await.0, 200);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(api.listed(NUMBER).await);
    }
    assert_eq!(seen, [0, 0, 1]);
    assert_eq!(api.delete(&path).await, 204);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(api.listed(NUMBER).await);
    }
    assert_eq!((seen.as_slice(), api.get(&path).await.0), ([1, 1, 0].as_slice(), 404));
}

#[tokio::test]
async fn trouble_meets_one_request_and_the_journal_knows_what_was_done() {
    let api = Api::open().await;
    let cases = [
        (RestTrouble::InternalError, Some(500), Some(500), false),
        (RestTrouble::TooManyRequests, Some(429), Some(429), false),
        (RestTrouble::Unavailable, Some(503), Some(503), false),
        (RestTrouble::Cut, None, None, false),
        (RestTrouble::DoneThenInternalError, Some(500), Some(201), true),
        (RestTrouble::DoneThenCut, None, Some(201), true),
    ];
    for (index, (trouble, answered, came_to, done)) in cases.into_iter().enumerate() {
        let e164 = format!("+1415555020{index}");
        api.sim.trouble(Which::next("POST", "IncomingPhoneNumbers"), trouble);
        assert_eq!(api.listed(&e164).await, 0, "a GET is not meant");
        let answer = api.send("POST", BUY, &[("PhoneNumber", &e164)]).await;
        assert_eq!(answer.ok().map(|(status, _)| status), answered, "{trouble:?}");
        assert_eq!(api.sim.number(&e164).is_some(), done, "{trouble:?}");
        let record = api.sim.requests().pop().unwrap();
        assert_eq!((record.status, record.trouble), (came_to, Some(trouble)));
        assert_eq!((record.param("PhoneNumber"), record.user.as_deref()), (Some(&*e164), Some(ACCOUNT)));
    }
    assert_eq!(api.sim.requests().len(), 2 * cases.len());
}

#[tokio::test]
async fn a_request_may_never_be_answered() {
    let api = Api::open().await;
    for (trouble, e164, done) in
        [(RestTrouble::NoAnswer, NUMBER, false), (RestTrouble::DoneThenNoAnswer, "+14155550201", true)]
    {
        api.sim.trouble(Which::nth(0), trouble);
        let asked =
            |record: &offhook_sim::carrier::twilio::RestRecord| record.param("PhoneNumber") == Some(e164);
        let form = [("PhoneNumber", e164)];
        tokio::select! {
            answer = api.send("POST", BUY, &form) => panic!("answered: {answer:?}"),
            record = api.sim.until_requested(LIMIT, 0, asked) => assert!(record.is_ok()),
        }
        assert_eq!(api.sim.number(e164).is_some(), done);
    }
}

#[tokio::test]
async fn the_console_changes_numbers_behind_our_back() {
    let owned = OwnedNumber {
        settings: [("sms_url".to_owned(), "https://old.example/sms".to_owned())].into(),
        ..OwnedNumber::new(NUMBER, "https://old.example/voice")
    };
    let api = Api::with(TwilioSettings { numbers: vec![owned], ..TwilioSettings::default() }).await;
    api.sim.change_in_console(NUMBER, &[("VoiceUrl", "https://new.example/voice")]).unwrap();
    let number = api.sim.number(NUMBER).unwrap();
    assert_eq!(number.settings["voice_url"], "https://new.example/voice");
    assert_eq!(number.settings["sms_url"], "https://old.example/sms");
    let (_, shown) = api.get(&format!("IncomingPhoneNumbers/{}.json", number.sid)).await;
    assert_eq!(shown["voice_url"], "https://new.example/voice");
    let wrong = api.sim.change_in_console(NUMBER, &[("VoiceUrl", "new")]);
    assert!(matches!(wrong, Err(NotChanged::Refused { code: 21402, .. })), "{wrong:?}");
    assert!(api.sim.release_in_console(NUMBER) && api.sim.number(NUMBER).is_none());
}

#[tokio::test]
async fn a_trunk_takes_numbers_and_gives_them_back() {
    let api = Api::open().await;
    let number = api.bought(NUMBER).await;
    let form = [("FriendlyName", "Offhook"), ("DomainName", "offhook.pstn.twilio.com"), ("Secure", "true")];
    let (status, trunk) = api.post("/v1/Trunks", &form).await;
    assert_eq!(
        (status, &trunk["secure"], &trunk["transfer_mode"]),
        (201, &json!(true), &json!("disable-all"))
    );
    assert_eq!(trunk["recording"], json!({"mode": "do-not-record", "trim": "do-not-trim"}));
    assert_eq!(api.post("/v1/Trunks", &form).await.0, 400, "the domain is taken");
    let trunk = format!("/v1/Trunks/{}", trunk["sid"].as_str().unwrap());

    let url = [
        ("FriendlyName", "a"),
        ("SipUrl", "sip:sip.offhook.example:5061;transport=tls"),
        ("Priority", "10"),
        ("Weight", "10"),
        ("Enabled", "true"),
    ];
    let (status, origination) = api.post(&format!("{trunk}/OriginationUrls"), &url).await;
    assert_eq!((status, &origination["priority"], &origination["enabled"]), (201, &json!(10), &json!(true)));
    assert_eq!(api.post(&format!("{trunk}/OriginationUrls"), &url[1..]).await.0, 400, "a name is missing");
    let origination = format!("{trunk}/OriginationUrls/{}", origination["sid"].as_str().unwrap());
    for (form, status) in [
        (("SipUrl", "sip:other.example"), 200),
        (("SipUrl", "https://other.example"), 400),
        (("Weight", "0"), 400),
    ] {
        assert_eq!(api.post(&origination, &[form]).await.0, status, "{form:?}");
    }
    let (_, listed) = api.get(&format!("{trunk}/OriginationUrls")).await;
    assert_eq!(
        (&listed["origination_urls"][0]["sip_url"], &listed["meta"]["key"]),
        (&json!("sip:other.example"), &json!("origination_urls"))
    );

    let (status, member) = api.post(&format!("{trunk}/PhoneNumbers"), &[("PhoneNumberSid", &number)]).await;
    assert_eq!((status, &member["phone_number"]), (201, &json!(NUMBER)), "{member}");
    assert!(member["date_created"].as_str().unwrap().ends_with('Z'), "{member}");
    assert!(!api.sim.number(NUMBER).unwrap().settings["trunk_sid"].is_empty());
    assert_eq!(api.get(&format!("{trunk}/PhoneNumbers")).await.1["phone_numbers"][0]["sid"], json!(number));
    assert_eq!(api.delete(&format!("{trunk}/PhoneNumbers/{number}")).await, 204);
    assert_eq!(api.delete(&format!("{trunk}/PhoneNumbers/{number}")).await, 404);
    assert!(api.sim.number(NUMBER).unwrap().settings["trunk_sid"].is_empty());
    assert_eq!(api.post(&format!("{trunk}/Recording"), &[("Mode", "record-from-answer")]).await.0, 200);
    assert_eq!(api.get(&trunk).await.1["recording"]["mode"], "record-from-answer");
    assert_eq!((api.delete(&origination).await, api.delete(&trunk).await), (204, 204));
    assert_eq!(api.get("/v1/Trunks").await.1["trunks"], json!([]));
}

#[tokio::test]
async fn the_newer_hosts_page_with_whole_urls() {
    let api = Api::open().await;
    for name in ["a", "b", "c"] {
        api.post("/v1/Trunks", &[("FriendlyName", name)]).await;
    }
    let mut next = json!(format!("{}/v1/Trunks?PageSize=2", api.sim.base_url()));
    let mut seen = Vec::new();
    while let Some(url) = next.as_str() {
        let (_, page) = api.get(url.strip_prefix(&api.sim.base_url()).unwrap()).await;
        seen.extend(page["trunks"].as_array().unwrap().iter().map(|trunk| trunk["friendly_name"].clone()));
        next = page["meta"]["next_page_url"].clone();
    }
    assert_eq!(seen, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_number_is_in_one_messaging_service_at_most() {
    let api = Api::open().await;
    let number = api.bought(NUMBER).await;
    let mut services = Vec::new();
    for name in ["a", "b"] {
        let form = [("FriendlyName", name), ("UseInboundWebhookOnNumber", "true")];
        let (status, service) = api.post("/v1/Services", &form).await;
        assert_eq!((status, &service["use_inbound_webhook_on_number"]), (201, &json!(true)));
        services.push(format!("/v1/Services/{}", service["sid"].as_str().unwrap()));
    }
    let join = [("PhoneNumberSid", number.as_str())];
    let cases = [(&services[0], 201, 0), (&services[0], 409, 21710), (&services[1], 409, 21712)];
    for (service, status, code) in cases {
        let (got, body) = api.post(&format!("{service}/PhoneNumbers"), &join).await;
        assert_eq!((got, body["code"].as_u64().unwrap_or(0)), (status, code), "{body}");
    }
    let (_, members) = api.get(&format!("{}/PhoneNumbers", services[0])).await;
    assert_eq!(members["phone_numbers"][0]["capabilities"], json!(["Voice", "SMS", "MMS"]));
    assert_eq!(api.delete(&format!("IncomingPhoneNumbers/{number}.json")).await, 204);
    let (_, members) = api.get(&format!("{}/PhoneNumbers", services[0])).await;
    assert_eq!(members["phone_numbers"], json!([]));
    let other = api.bought("+14155550201").await;
    assert_eq!(api.get(&format!("{}/PhoneNumbers/{other}", services[0])).await.0, 404);
}

#[tokio::test]
async fn alerts_tell_which_webhook_failed_and_why() {
    let gone = "http://127.0.0.1:1/voice";
    let owned =
        OwnedNumber { status_callback: "http://127.0.0.1:1/status".into(), ..OwnedNumber::new(NUMBER, gone) };
    let api = Api::with(TwilioSettings { numbers: vec![owned], ..TwilioSettings::default() }).await;
    let call = api.sim.call(CallOrder::new(NUMBER, "+14155550199")).unwrap();
    call.until_over(LIMIT).await.unwrap();
    let status_failed = async || {
        while api.sim.alerts().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, status_failed()).await.unwrap();
    let (_, list) = api.get("/v1/Alerts?LogLevel=error&StartDate=2020-01-01").await;
    let alerts = list["alerts"].as_array().unwrap();
    let urls: Vec<&str> = alerts.iter().map(|alert| alert["request_url"].as_str().unwrap()).collect();
    assert_eq!(urls, ["http://127.0.0.1:1/status", gone], "the newest first");
    assert_eq!((&alerts[1]["error_code"], &alerts[1]["resource_sid"]), (&json!("11205"), &json!(call.sid())));
    let (_, one) = api.get(&format!("/v1/Alerts/{}", alerts[1]["sid"].as_str().unwrap())).await;
    assert!(one["request_variables"].as_str().unwrap().contains("CallStatus=ringing"), "{one}");
    assert_eq!(api.get("/v1/Alerts?EndDate=2020-01-01").await.1["alerts"], json!([]));
    assert_eq!(api.get("/v1/Alerts?LogLevel=loud").await.0, 400);
}

#[tokio::test]
async fn a_number_has_a_processing_region_and_a_price() {
    let api = Api::open().await;
    api.bought(NUMBER).await;
    let path = format!("/v2/PhoneNumbers/{NUMBER}");
    assert_eq!(api.get(&path).await.1["voice_region"], "us1");
    assert_eq!(api.post(&path, &[("VoiceRegion", "ie1")]).await.1["voice_region"], "ie1");
    assert_eq!(api.get(&path.replace('+', "%2B")).await.1["voice_region"], "ie1");
    assert_eq!(api.post(&path, &[("VoiceRegion", "mars")]).await.0, 400);
    assert_eq!(api.get("/v2/PhoneNumbers/+14155550299").await.0, 404);
    let (_, prices) = api.get("/v1/PhoneNumbers/Countries/US").await;
    let kinds: Vec<&Value> =
        prices["phone_number_prices"].as_array().unwrap().iter().map(|price| &price["number_type"]).collect();
    assert_eq!(kinds, ["local", "toll free"]);
    assert_eq!(api.get("/v2/Voice/Countries/US").await.1["price_unit"], "USD");
}

#[tokio::test]
async fn a_key_opens_its_areas_and_a_stopped_account_nothing() {
    let key = |sid: &str, kind| ApiKey { sid: sid.into(), secret: Secret::new("s".into()), kind };
    let settings = TwilioSettings {
        keys: vec![key("SK1", KeyKind::Restricted(vec![Area::Numbers])), key("SK2", KeyKind::Standard)],
        ..TwilioSettings::default()
    };
    let api = Api::with(settings).await;
    let status = async |path: &str, key: &str, host: Option<&str>| {
        let request = api.http.get(format!("{}{path}", api.sim.base_url())).basic_auth(key, Some("s"));
        let request = host.into_iter().fold(request, |request, host| request.header("host", host));
        request.send().await.unwrap().status().as_u16()
    };
    let search = format!("/2010-04-01/Accounts/{ACCOUNT}/AvailablePhoneNumbers/US/Local.json");
    let cases = [
        (search.as_str(), "SK1", None, 200),
        ("/v1/Trunks", "SK1", None, 403),
        ("/v1/Alerts", "SK1", None, 403),
        ("/v1/Services", "SK1", None, 403),
        ("/v1/Trunks", "SK2", None, 200),
        ("/v1/Trunks", "SK3", None, 401),
        ("/v1/Trunks", "SK2", Some("trunking.twilio.com"), 200),
        ("/v1/Trunks", "SK2", Some("monitor.twilio.com"), 404),
        ("/v1/Trunks", "SK2", Some("trunking.dublin.ie1.twilio.com"), 401),
        (&search, "SK2", Some("api.dublin.ie1.twilio.com"), 401),
        (&search, "SK2", Some("api.ashburn.us1.twilio.com"), 200),
    ];
    for (path, key, host, expected) in cases {
        assert_eq!(status(path, key, host).await, expected, "{path} {key} {host:?}");
    }
    for stopped in [AccountStatus::Suspended, AccountStatus::Closed] {
        api.sim.account_status(stopped);
        assert_eq!((status(&search, "SK1", None).await, status("/v1/Trunks", "SK2", None).await), (401, 401));
    }
}

#[tokio::test]
async fn another_process_plans_trouble_and_reads_the_journal() {
    let api = Api::open().await;
    api.sim.offer(ForSale::local("+14155550300"));
    let plan = json!({"which": {"method": "POST", "path": "IncomingPhoneNumbers", "nth": 1}, "trouble": "unavailable"});
    let url = format!("{}/_sim/rest-trouble", api.sim.base_url());
    assert_eq!(api.http.post(url).json(&plan).send().await.unwrap().status().as_u16(), 204);
    api.bought("+14155550300").await;
    assert_eq!(api.post(BUY, &[("PhoneNumber", NUMBER)]).await.0, 503);
    api.bought(NUMBER).await;
    let (_, journal) = api.get("/_sim/requests").await;
    let statuses: Vec<&Value> = journal.as_array().unwrap().iter().map(|record| &record["status"]).collect();
    assert_eq!(statuses, [201, 503, 201]);
}
