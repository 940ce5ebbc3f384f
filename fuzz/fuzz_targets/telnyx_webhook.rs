//! Webhooks of any content: forged ones in every form, and signed ones whose payload is nonsense.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use libfuzzer_sys::fuzz_target;
use offhook_carriers::telnyx::webhook::{PublicKey, Signed, Unverified, verify};

const NOW_S: i64 = 1_700_000_000;
/// Kinds whose payload is read, each in its own way.
const KINDS: [&str; 11] = [
    "call.initiated",
    "call.answered",
    "call.hangup",
    "streaming.failed",
    "call.dtmf.received",
    "call.gather.ended",
    "call.recording.saved",
    "call.transcription",
    "call.refer.failed",
    "call.cost",
    "number_order.complete",
];

fuzz_target!(|data: &[u8]| {
    let signing = SigningKey::from_bytes(&[7; 32]);
    let key: PublicKey =
        STANDARD.encode(signing.verifying_key().as_bytes()).parse().expect("it is a key of 32 bytes");
    let keys = [key];
    let text = String::from_utf8_lossy(data);
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let _ = first.parse::<PublicKey>();

    for timestamp in [first, "1700000000"] {
        let forged = Signed { timestamp: Some(timestamp), signature: Some(rest) };
        assert!(verify(forged, data, &keys, NOW_S).is_err(), "a forged webhook was believed");
    }
    if let Ok(unverified) = Unverified::read(data) {
        let _ = (unverified.application(), unverified.call(), unverified.called(), unverified.client_state());
        let unsigned = Signed { timestamp: None, signature: None };
        assert!(unverified.verify(unsigned, &keys, NOW_S).is_err(), "an unsigned webhook was believed");
    }

    for kind in KINDS {
        let body = format!(r#"{{"data":{{"id":"1","event_type":"{kind}","payload":{text}}}}}"#);
        let signature = signing.sign(format!("1700000000|{body}").as_bytes());
        let signature = STANDARD.encode(signature.to_bytes());
        let signed = Signed { timestamp: Some("1700000000"), signature: Some(&signature) };
        if let Ok(unverified) = Unverified::read(body.as_bytes()) {
            unverified.verify(signed, &keys, NOW_S).expect("it is signed");
        }
    }
});
