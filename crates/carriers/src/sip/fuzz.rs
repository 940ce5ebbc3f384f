//! What bytes from the network go through before a call hears of them, without sockets: for fuzzing, no part of the interface.

use super::dialog::{DialogKey, challenge, contact_uri};
use super::digest::Challenger;
use super::guard::{looks_bearable, make_readable};
use super::message::reason;
use super::outcome::DialFailure;
use super::reading::{self, value, values};
use super::session_timer::{SessionTimer, min_se};
use super::trunk::Trunk;
use super::wire::is_whole;
use offhook_core::Secret;
use rsipstack::sip::SipMessage;

/// Reads a datagram as the user agent does. Never panics.
pub fn datagram(bytes: &[u8], trunk: &Trunk) {
    if !looks_bearable(bytes) {
        return;
    }
    let mut bytes = bytes.to_vec();
    make_readable(&mut bytes);
    match SipMessage::try_from(bytes.as_slice()) {
        Ok(SipMessage::Request(request)) if is_whole(&request) => {
            let reading = reading::read(&request, trunk);
            let listed = reading.called.is_none_or(|number| number.as_str().starts_with('+'));
            assert!(listed && reading.attributes.len() <= reading::MAX_ATTRIBUTES);
            _ = (DialogKey::of(&request), contact_uri(&request));
            _ = SessionTimer::for_request(&request, &trunk.settings);
            let _ = reason(values(&request, "Reason"));
            let password = Secret::new("password".to_owned());
            let challenger = Challenger::default();
            for proof in values(&request, "Authorization") {
                _ = challenger.judge(proof, "user", &password, "INVITE");
            }
        }
        Ok(SipMessage::Response(response)) => {
            _ = (
                challenge(&response, trunk),
                contact_uri(&response),
                min_se(&response),
                value(&response, "RSeq"),
            );
            _ = SessionTimer::for_response(&response, &trunk.settings);
            let phrase = response.wire_reason.clone().unwrap_or_default();
            _ = DialFailure::answered(response.status_code.code(), &phrase);
        }
        _ => {}
    }
}
