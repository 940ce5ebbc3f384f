//! Webhooks of any content: forged ones in every form, and signed ones whose parameters are nonsense.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use libfuzzer_sys::fuzz_target;
use offhook_carriers::PublicUrl;
use offhook_carriers::twilio::webhook::{Method, Request, Unverified, verify_upgrade};
use offhook_core::Secret;
use sha1::Sha1;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fuzz_target!(|data: &[u8]| {
    let public: PublicUrl = "https://offhook.example".parse().expect("it is a URL");
    let tokens = [Secret::new(TOKEN.to_owned())];
    let text = String::from_utf8_lossy(data);
    let (path, body) = text.split_once('\n').unwrap_or((&text, ""));

    for content_type in ["application/x-www-form-urlencoded", "application/json", path] {
        let forged = Request {
            method: Method::Post,
            path_and_query: path,
            signature: Some(body),
            idempotency_token: Some(path),
            content_type: Some(content_type),
            body: body.as_bytes(),
        };
        if let Ok(unverified) = Unverified::read(forged) {
            let _ = unverified.account();
            assert!(unverified.verify(&public, &tokens).is_err(), "a forged webhook was believed");
        }
    }
    assert!(verify_upgrade(&public, path, Some(body), &tokens).is_err(), "a forged upgrade was believed");

    let query = text.replace('#', "");
    let path_and_query = format!("/hooks/twilio/voice?{query}");
    let mut mac = Hmac::<Sha1>::new_from_slice(TOKEN.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(b"https://offhook.example");
    mac.update(path_and_query.as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let signed = Request {
        method: Method::Get,
        path_and_query: &path_and_query,
        signature: Some(&signature),
        idempotency_token: None,
        content_type: None,
        body: &[],
    };
    if let Ok(unverified) = Unverified::read(signed) {
        let webhook = unverified.verify(&public, &tokens).expect("it is signed");
        let _ = (
            webhook.ring(),
            webhook.trouble(),
            webhook.status(),
            webhook.stream(),
            webhook.media_over(),
            webhook.dial_over(),
        );
    }
});
