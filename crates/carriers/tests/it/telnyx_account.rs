//! The account at Telnyx that the tests use: its key, and what Telnyx answers about what it has.

use crate::contract::{Contract, TELNYX};
use crate::stand_in::{Reply, StandIn};
use crate::twilio_account::client;
use offhook_carriers::telnyx::Telnyx;
use offhook_core::Secret;
use serde_json::{Value, json};

pub const KEY: &str = "KEY0123456789ABCDEF_secret";
/// Ids are digits beyond 2^53, or UUIDs.
pub const NUMBER: &str = "1293384261075731499";
pub const APPLICATION: &str = "2345678901234567890";
pub const OTHER_APPLICATION: &str = "1494404757140276705";
pub const PROFILE: &str = "40017a1b-7d4b-4e9b-8a6e-0242ac110002";
pub const OTHER_PROFILE: &str = "3fa85f64-5717-4562-b3fc-2c963f66afa6";
pub const ORDER: &str = "12ade33a-21c0-473b-b055-b3c836e1c292";
pub const CALL: &str = "v3:MdI91X4lWFEs7IgbBEOT9M4AigoY08M0WWZFISt1Yw2axZ_IiE4pqg";
pub const LABEL: &str = "offhook con_01J";

pub fn telnyx(carrier: &StandIn) -> Telnyx {
    let base = carrier.base.join("v2/").unwrap();
    let telnyx = Telnyx::new(client(), base, &Secret::new(KEY.into())).unwrap();
    assert!(!format!("{telnyx:?}").contains("secret\""));
    telnyx
}

/// What was asked, without host and version, its query readable. All of it must be what Telnyx's documents know.
pub fn asked(carrier: &StandIn) -> Vec<String> {
    let mut contract = Contract::read(TELNYX);
    let readable = |line: String| {
        let (path, query) = line
            .split_once('?')
            .map(|(path, query)| (path.to_owned(), query.to_owned()))
            .unwrap_or((line, String::new()));
        let query: Vec<_> = url::form_urlencoded::parse(query.as_bytes())
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        format!("{}{query}", path.replacen("/v2/", "/", 1))
    };
    let asked = carrier.asked().into_iter().map(|asked| {
        contract.check(&asked);
        assert_eq!(asked.authorization, format!("Bearer {KEY}"));
        readable(asked.line)
    });
    asked.collect()
}

/// The JSON body of one request.
pub fn body(carrier: &StandIn, index: usize) -> Value {
    serde_json::from_str(&carrier.asked()[index].body).unwrap()
}

pub fn data(value: Value) -> Reply {
    Reply::ok(&json!({ "data": value }).to_string())
}

/// The only page of a list.
pub fn listed(entries: &[Value]) -> Reply {
    page(entries, 1)
}

/// One page of a list.
pub fn page(entries: &[Value], total_pages: usize) -> Reply {
    let meta = json!({ "total_pages": total_pages, "total_results": 1, "page_number": 1, "page_size": 250 });
    Reply::ok(&json!({ "data": entries, "meta": meta }).to_string())
}

/// A command was accepted.
pub fn accepted() -> Reply {
    data(json!({ "result": "ok" }))
}

/// An error body as documented.
pub fn refused(status: u16, code: &str) -> Reply {
    let error = json!({"errors": [{
        "code": code, "title": "about it", "detail": "about +14155550199", "source": { "pointer": "/to" },
        "meta": { "url": format!("https://developers.telnyx.com/docs/overview/errors/{code}") },
    }]});
    Reply::Say(status, error.to_string())
}

/// A number as Telnyx writes it.
pub fn number(settings: Value) -> Value {
    extended(
        json!({
            "id": NUMBER, "record_type": "phone_number", "phone_number": "+14155550101", "status": "active",
            "country_iso_alpha2": "US", "connection_id": OTHER_APPLICATION, "connection_name": "PBX",
            "messaging_profile_id": null, "phone_number_type": "local", "tags": [], "call_forwarding_enabled": true,
        }),
        settings,
    )
}

/// The voice settings of the number.
pub fn voice(forwarding: Value) -> Value {
    json!({ "id": NUMBER, "record_type": "voice_settings", "phone_number": "+14155550101", "call_forwarding": forwarding })
}

/// What a number has that was never forwarded.
pub fn no_forwarding() -> Value {
    json!({ "call_forwarding_enabled": true, "forwards_to": "", "forwarding_type": "" })
}

/// The messaging settings of the number.
pub fn texts(profile: Value) -> Value {
    let ways =
        json!({ "domestic_two_way": true, "international_inbound": false, "international_outbound": false });
    json!({ "id": NUMBER, "messaging_profile_id": profile, "features": { "sms": ways, "mms": null } })
}

/// An application that is right for [`crate::telnyx_numbers::hooks`], but for what is given.
pub fn application(settings: Value) -> Value {
    extended(
        json!({
            "id": APPLICATION, "record_type": "call_control_application", "application_name": LABEL, "active": true,
            "webhook_event_url": "https://offhook.example/hooks/telnyx/voice",
            "webhook_event_failover_url": "https://offhook.example/hooks/telnyx/fallback", "webhook_api_version": "2",
            "outbound": { "outbound_voice_profile_id": "1293384261075731400", "channel_limit": null },
        }),
        settings,
    )
}

/// A messaging profile that is right for [`crate::telnyx_numbers::hooks`], but for what is given.
pub fn profile(settings: Value) -> Value {
    let messages = "https://offhook.example/hooks/telnyx/messages";
    extended(
        json!({
            "id": PROFILE, "name": LABEL, "enabled": true, "webhook_url": messages, "webhook_failover_url": messages,
            "webhook_api_version": "2", "whitelisted_destinations": ["US"],
        }),
        settings,
    )
}

fn extended(mut one: Value, with: Value) -> Value {
    one.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    one
}
