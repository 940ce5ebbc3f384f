//! The signature that Twilio puts on its requests, as section "Security" of its webhook documents defines it.
//! It knows neither sockets nor calls.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Signs a URL and the form parameters that are posted to it; for GET, JSON and web sockets there are none.
pub(super) fn signature(token: &str, url: &str, params: &[(String, String)]) -> String {
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in params {
        values.entry(name).or_default().insert(value);
    }
    let mut hmac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).expect("HMAC takes a key of any length");
    hmac.update(url.as_bytes());
    for (name, values) in values {
        for value in values {
            hmac.update(name.as_bytes());
            hmac.update(value.as_bytes());
        }
    }
    STANDARD.encode(hmac.finalize().into_bytes())
}

/// The URL to which a JSON body is posted: it carries the body's hash.
pub(super) fn url_with_body_hash(url: &str, body: &[u8]) -> String {
    let hash: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}bodySHA256={hash}")
}

/// The same URL with the scheme's own port written out, as some of Twilio's machines sign it.
pub(super) fn with_default_port(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    if host.trim_end_matches(|c: char| c.is_ascii_digit()).ends_with(':') {
        return url.into();
    }
    let port = if matches!(scheme, "https" | "wss") { 443 } else { 80 };
    format!("{scheme}://{authority}:{port}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn published_vectors_are_met() {
        let params = form(&[
            ("CallSid", "CA1234567890ABCDE"),
            ("Caller", "+14158675309"),
            ("Digits", "1234"),
            ("From", "+14158675309"),
            ("To", "+18005551212"),
        ]);
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        assert_eq!(signature("12345", url, &params), "RSOYDt4T1cUTdK1PDd93/VVr8B8=");

        let token = "0123456789abcdef0123456789abcdef";
        let socket = signature(token, "wss://offhook.example/twilio/media", &[]);
        assert_eq!(socket, "Hz47oo1sYfzGI9T0bLvrW9+fDl8=");

        let url = url_with_body_hash("https://offhook.example/hooks/twilio", br#"{"event":"test"}"#);
        assert_eq!(signature(token, &url, &[]), "2KcITvhmpP4+DiXOA+wHNTIqzF8=");
    }

    #[test]
    fn a_repeated_value_counts_once_and_order_does_not_count() {
        let one = form(&[("b", "2"), ("a", "x"), ("a", "x"), ("a", "w")]);
        let other = form(&[("a", "w"), ("a", "x"), ("b", "2")]);
        assert_eq!(signature("t", "https://h/", &one), signature("t", "https://h/", &other));
    }

    #[test]
    fn the_port_is_written_out_only_where_it_is_missing() {
        assert_eq!(with_default_port("https://u:p@h.example/x?y=1"), "https://u:p@h.example:443/x?y=1");
        assert_eq!(with_default_port("http://h.example"), "http://h.example:80");
        assert_eq!(with_default_port("http://127.0.0.1:8787/x"), "http://127.0.0.1:8787/x");
    }
}
