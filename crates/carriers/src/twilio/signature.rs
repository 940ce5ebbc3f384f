//! Twilio's request signature: HMAC-SHA1 over the URL and the sorted form parameters (security documentation, "Validating requests").
//! It knows no webhook's meaning and no `Host` header: the URL comes from configuration.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use offhook_core::Secret;
use sha1::Sha1;
use std::borrow::Cow;
use std::fmt::Write as _;
use url::form_urlencoded;

/// Decoded parameters in the order in which they came; a name may come more than once.
pub(super) type Parameters<'a> = [(Cow<'a, str>, Cow<'a, str>)];

/// Whether one of the tokens made this signature for one of the forms that Twilio may have given the URL.
pub(super) fn made_by(
    tokens: &[Secret<String>],
    signature: &str,
    urls: &[String],
    form: &Parameters,
) -> bool {
    let Ok(signature) = STANDARD.decode(signature) else { return false };
    let signed_form = concatenated(form);
    // With an empty token anybody can sign.
    tokens.iter().filter(|token| !token.expose().is_empty()).any(|token| {
        urls.iter().any(|url| {
            let mut mac = Hmac::<Sha1>::new_from_slice(token.expose().as_bytes())
                .expect("HMAC takes a key of any length");
            mac.update(url.as_bytes());
            mac.update(signed_form.as_bytes());
            mac.verify_slice(&signature).is_ok()
        })
    })
}

/// The forms under which Twilio's back ends sign one URL: without port and with it, and both with the query in the old encoding.
pub(super) fn url_forms(url: &str) -> Vec<String> {
    let url = url.split('#').next().unwrap_or_default();
    let Some(parts) = Parts::of(url) else { return vec![url.to_owned()] };
    let default_port = if matches!(parts.scheme, "https" | "wss") { ":443" } else { ":80" };
    let port = if parts.port.is_empty() { default_port } else { parts.port };
    let mut forms = vec![parts.with("", parts.rest), parts.with(port, parts.rest)];
    let legacy = with_legacy_query(parts.rest);
    if legacy != parts.rest {
        forms.extend([parts.with("", &legacy), parts.with(port, &legacy)]);
    }
    forms
}

struct Parts<'a> {
    scheme: &'a str,
    /// User, password and host.
    authority: &'a str,
    /// With its colon; empty if none is written.
    port: &'a str,
    /// Path and query.
    rest: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, after) = url.split_once("://")?;
        let (authority, rest) = after.split_at(after.find(['/', '?']).unwrap_or(after.len()));
        let host_from = authority.rfind('@').map_or(0, |at| at + 1);
        let port_from = authority[host_from..]
            .rfind(':')
            .map(|colon| host_from + colon)
            .filter(|&colon| authority[colon + 1..].bytes().all(|b| b.is_ascii_digit()))
            .unwrap_or(authority.len());
        let (authority, port) = authority.split_at(port_from);
        Some(Parts { scheme, authority, port, rest })
    }

    fn with(&self, port: &str, rest: &str) -> String {
        format!("{}://{}{port}{rest}", self.scheme, self.authority)
    }
}

/// The query taken apart and put together again the way Node's old `querystring` does it.
fn with_legacy_query(rest: &str) -> Cow<'_, str> {
    let Some((path, query)) = rest.split_once('?') else { return rest.into() };
    let mut legacy = String::with_capacity(rest.len() + 16);
    legacy.push_str(path);
    for (index, (name, value)) in form_urlencoded::parse(query.as_bytes()).enumerate() {
        legacy.push(if index == 0 { '?' } else { '&' });
        push_uri_component(&mut legacy, &name);
        legacy.push('=');
        push_uri_component(&mut legacy, &value);
    }
    legacy.into()
}

/// ECMAScript's `encodeURIComponent`.
fn push_uri_component(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Names and values one behind the other, sorted by UTF-16 code units, equal values of one name only once.
fn concatenated(form: &Parameters) -> String {
    let mut sorted: Vec<_> = form.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
    sorted.sort_by(|a, b| {
        let by_name = a.0.encode_utf16().cmp(b.0.encode_utf16());
        by_name.then_with(|| a.1.encode_utf16().cmp(b.1.encode_utf16()))
    });
    sorted.dedup();
    sorted.into_iter().flat_map(|(name, value)| [name, value]).collect()
}

#[cfg(test)]
pub(super) fn sign(token: &str, url: &str, form: &[(&str, &str)]) -> String {
    let form: Vec<_> = form.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    let mut mac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).unwrap();
    mac.update(url.as_bytes());
    mac.update(concatenated(&form).as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Form<'a> = &'a [(&'a str, &'a str)];

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn documented_vectors_hold() {
        let caller = [
            ("CallSid", "CA1234567890ABCDE"),
            ("Caller", "+14158675309"),
            ("Digits", "1234"),
            ("From", "+14158675309"),
            ("To", "+18005551212"),
        ];
        let ring = [
            ("AccountSid", "AC00000000000000000000000000000001"),
            ("ApiVersion", "2010-04-01"),
            ("CallSid", "CA00000000000000000000000000000001"),
            ("CallStatus", "ringing"),
            ("Direction", "inbound"),
            ("From", "+14155550100"),
            ("To", "+14155550101"),
        ];
        let hash = "2d9c95a7b02d34fcd937555555970ef0183483946d5268fbcf68a324674be708";
        let json = format!("https://offhook.example/hooks/twilio?bodySHA256={hash}");
        let vectors: [(&str, &str, Form, &str); 4] = [
            ("12345", "https://mycompany.com/myapp.php?foo=1&bar=2", &caller, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            (TOKEN, "https://offhook.example/twilio/voice", &ring, "UwN8SHJmGgrWPEnwflKbhbHdLH0="),
            (TOKEN, "wss://offhook.example/twilio/media", &[], "Hz47oo1sYfzGI9T0bLvrW9+fDl8="),
            (TOKEN, &json, &[], "2KcITvhmpP4+DiXOA+wHNTIqzF8="),
        ];
        for (token, url, form, signature) in vectors {
            assert_eq!(sign(token, url, form), signature, "{url}");
            let form: Vec<_> = form.iter().rev().map(|&(n, v)| (n.into(), v.into())).collect();
            assert!(made_by(&[Secret::new(token.into())], signature, &url_forms(url), &form), "{url}");
        }
    }

    #[test]
    fn repeated_empty_and_foreign_parameters_are_signed_as_the_official_library_does() {
        // Computed with `RequestValidator` of the Python package twilio 9.13.0.
        let form =
            [("X", "b"), ("X", "a"), ("X", "b"), ("CallerName", "Zoë 😀"), ("CallSid", "CA1"), ("Empty", "")];
        for (url, signature) in [
            ("https://offhook.example/twilio/voice", "PZbE+5Qw4n3EjyeIskZD1FF2CiI="),
            ("https://offhook.example:443/twilio/voice?who=a+b&x='%7E", "7OXggIwA1e6j5Szof3UgTkd5xno="),
        ] {
            assert_eq!(sign(TOKEN, url, &form), signature, "{url}");
        }
    }

    #[test]
    fn a_url_has_four_forms_and_no_more() {
        assert_eq!(
            url_forms("https://ada:word@offhook.example/voice?who=a+b&x='%7E#ct=2000"),
            [
                "https://ada:word@offhook.example/voice?who=a+b&x='%7E",
                "https://ada:word@offhook.example:443/voice?who=a+b&x='%7E",
                "https://ada:word@offhook.example/voice?who=a%20b&x='~",
                "https://ada:word@offhook.example:443/voice?who=a%20b&x='~",
            ]
        );
        assert_eq!(
            url_forms("http://offhook.example:8080/voice"),
            ["http://offhook.example/voice", "http://offhook.example:8080/voice"]
        );
        assert_eq!(url_forms("wss://[::1]/media")[1], "wss://[::1]:443/media");
        assert_eq!(url_forms("wss://[::1]:9/media")[0], "wss://[::1]/media");
    }

    #[test]
    fn repeated_parameters_are_sorted_and_counted_once() {
        let form = [("b", "2"), ("a", "z"), ("a", "y"), ("a", "z")].map(|(n, v)| (n.into(), v.into()));
        assert_eq!(concatenated(&form), "ayazb2");
        // A private-use character comes before a surrogate pair by code point and after it by code unit.
        let form = [("\u{e000}", "1"), ("😀", "2")].map(|(n, v)| (n.into(), v.into()));
        assert_eq!(concatenated(&form), "😀2\u{e000}1");
    }

    #[test]
    fn either_token_of_a_rotation_signs_and_no_other() {
        let url = ["https://offhook.example/voice".to_string()];
        let signature = sign("new", &url[0], &[]);
        let tokens = |names: &[&str]| names.iter().map(|&n| Secret::new(n.to_owned())).collect::<Vec<_>>();
        assert!(made_by(&tokens(&["old", "new"]), &signature, &url, &[]));
        assert!(!made_by(&tokens(&["old"]), &signature, &url, &[]));
        assert!(!made_by(&[], &signature, &url, &[]));
        assert!(!made_by(&tokens(&[""]), &sign("", &url[0], &[]), &url, &[]));
        for bad in ["", "=", "Zm9v", "no base64!", &signature[..26]] {
            assert!(!made_by(&tokens(&["new"]), bad, &url, &[]), "{bad}");
        }
    }
}
