//! What a provider's refusal means: status codes, error bodies and close codes become a [`ProviderError`].
//! It knows the shapes of all providers' error bodies (protocols/providers.md, sections 1, 4, 6, 7), but no request.

use crate::{Cause, ProviderError};
use offhook_core::Secret;
use serde_json::Value;
use std::borrow::Cow;

/// Longest text of a provider that is repeated to our user, in characters.
const MAX_DETAIL_CHARS: usize = 160;

/// Longest error code that is taken for one, in bytes.
const MAX_CODE_BYTES: usize = 64;

impl ProviderError {
    pub(crate) fn new(provider: &'static str, cause: Cause, detail: impl AsRef<str>) -> Self {
        ProviderError { provider, cause, detail: shorten(detail.as_ref()) }
    }

    pub(crate) fn malformed(provider: &'static str, detail: impl AsRef<str>) -> Self {
        ProviderError::new(provider, Cause::Malformed, detail)
    }

    pub(crate) fn timed_out(provider: &'static str, waited_for: &str) -> Self {
        ProviderError::new(provider, Cause::TimedOut, waited_for)
    }
}

/// An answer with an error status. The provider's sentence is repeated only where it can hold neither the caller's words
/// nor parts of a key; its error code always.
pub(crate) fn by_status(
    provider: &'static str,
    status: u16,
    body: &[u8],
    key: &Secret<String>,
) -> ProviderError {
    let body = ErrorBody::read(body);
    let cause = body.code.as_deref().and_then(by_code).unwrap_or(match status {
        401 => Cause::Key,
        402 => Cause::Credit,
        403 | 404 => Cause::NotAvailable,
        408 | 504 => Cause::TimedOut,
        429 => Cause::RateLimited,
        500.. => Cause::Unreachable,
        _ => Cause::Refused,
    });
    let sentence = body.message.filter(|_| matches!(status, 402..=404 | 429));
    let parts = [Some(format!("HTTP {status}")), body.code, sentence];
    let detail = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    ProviderError::new(provider, cause, without_key(&detail, key))
}

/// An error that came inside a stream that had begun well.
pub(crate) fn in_stream(provider: &'static str, body: &[u8]) -> ProviderError {
    let body = ErrorBody::read(body);
    let cause = body.code.as_deref().and_then(by_code).or(body.status.map(by_number));
    let status = body.status.map(|status| status.to_string());
    let detail: Vec<_> =
        [Some("error in the stream".into()), status, body.code].into_iter().flatten().collect();
    ProviderError::new(provider, cause.unwrap_or(Cause::Unreachable), detail.join(", "))
}

/// A WebSocket that the provider closed although it had work to do.
pub(crate) fn by_close(
    provider: &'static str,
    close: Option<(u16, &str)>,
    key: &Secret<String>,
) -> ProviderError {
    let Some((code, reason)) = close else {
        return ProviderError::new(provider, Cause::Unreachable, "the connection broke");
    };
    let cause = by_code(reason).unwrap_or(match code {
        1003 | 1007..=1009 => Cause::Refused,
        _ => Cause::Unreachable,
    });
    ProviderError::new(provider, cause, without_key(&format!("closed with {code} {reason}"), key))
}

fn by_number(status: u64) -> Cause {
    by_status("", u16::try_from(status).unwrap_or(500), b"", &Secret::default()).cause
}

/// Codes that say more than the status they come with.
fn by_code(code: &str) -> Option<Cause> {
    let code = code.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| code.contains(word));
    if has(&["quota", "credit", "payment", "balance", "billing"]) {
        Some(Cause::Credit)
    } else if has(&["invalid_api_key", "invalid_auth", "needs_authorization"]) {
        Some(Cause::Key)
    } else if has(&["insufficient_permissions", "missing_permissions", "model_not_found", "voice_not_found"])
    {
        Some(Cause::NotAvailable)
    } else if has(&["rate_limit", "too_many", "system_busy"]) {
        Some(Cause::RateLimited)
    } else {
        None
    }
}

/// What the providers' error bodies have in common.
#[derive(Default)]
struct ErrorBody {
    code: Option<String>,
    message: Option<String>,
    status: Option<u64>,
}

impl ErrorBody {
    fn read(body: &[u8]) -> Self {
        let Ok(Value::Object(whole)) = serde_json::from_slice(body) else { return ErrorBody::default() };
        let nested = ["error", "detail"].iter().find_map(|name| whole.get(*name)?.as_object());
        let fields = nested.unwrap_or(&whole);
        let text = |name: &&str| fields.get(*name)?.as_str();
        // The kind of a message that is an error is no code.
        let is_code = |code: &&str| {
            code.len() <= MAX_CODE_BYTES
                && !code.eq_ignore_ascii_case("error")
                && code.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let codes = ["code", "err_code", "error_code", "status", "type", "category", "error"];
        let messages = ["message", "err_msg", "error", "detail", "title"];
        ErrorBody {
            code: codes.iter().filter_map(text).find(is_code).map(str::to_owned),
            message: messages.iter().find_map(text).map(str::to_owned),
            status: ["status_code", "code", "status"].iter().find_map(|name| fields.get(*name)?.as_u64()),
        }
    }
}

fn without_key<'a>(text: &'a str, key: &Secret<String>) -> Cow<'a, str> {
    match key.expose().as_str() {
        "" => text.into(),
        key => text.replace(key, "[secret]").into(),
    }
}

fn shorten(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().map(printable).take(MAX_DETAIL_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_s_refusal_is_named() {
        let cases = [
            (401, r#"{"error":{"message":"Incorrect key sk-1*2","code":"invalid_api_key"}}"#, Cause::Key),
            (429, r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota"}}"#, Cause::Credit),
            (429, r#"{"error":{"message":"slow down","code":"rate_limit_exceeded"}}"#, Cause::RateLimited),
            (404, r#"{"error":{"message":"no model m","code":"model_not_found"}}"#, Cause::NotAvailable),
            (400, r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#, Cause::Refused),
            (401, r#"{"err_code":"INSUFFICIENT_PERMISSIONS","err_msg":"no scope"}"#, Cause::NotAvailable),
            (402, r#"{"err_code":"ASR_PAYMENT_REQUIRED","err_msg":"top up"}"#, Cause::Credit),
            (401, r#"{"detail":{"status":"quota_exceeded","message":"used up"}}"#, Cause::Credit),
            (503, "<html>", Cause::Unreachable),
            (504, "", Cause::TimedOut),
            (302, "", Cause::Refused),
        ];
        for (status, body, cause) in cases {
            let error = by_status("x", status, body.as_bytes(), &Secret::default());
            assert_eq!(error.cause, cause, "{status} {body}");
            assert!(error.detail.starts_with(&format!("HTTP {status}")), "{error}");
        }
    }

    #[test]
    fn errors_in_a_stream_are_named_by_what_they_say() {
        let cases = [
            (r#"{"type":"error","error":"gone for good","status_code":400}"#, "error in the stream, 400"),
            (r#"{"type":"Error","code":"NET_1","description":"x"}"#, "error in the stream, NET_1"),
            (r#"{"error":"quota_exceeded","message":"x"}"#, "error in the stream, quota_exceeded"),
            (r#"{"error":{"message":"a b","type":"server_error"}}"#, "error in the stream, server_error"),
            (r#"{"object":"error","message":"x","code":503}"#, "error in the stream, 503"),
        ];
        for (body, detail) in cases {
            assert_eq!(in_stream("x", body.as_bytes()).detail, detail, "{body}");
        }
    }

    #[test]
    fn neither_keys_nor_spoken_words_are_repeated() {
        let key = Secret::new("sk-very-secret".to_string());
        let masked =
            br#"{"error":{"message":"Incorrect API key provided: sk-v****cret","code":"invalid_api_key"}}"#;
        assert_eq!(
            by_status("openai", 401, masked, &key).to_string(),
            "openai: the key was refused: HTTP 401, invalid_api_key"
        );
        let quoted =
            br#"{"error":{"message":"cannot say 'my card is 4111'","type":"invalid_request_error"}}"#;
        assert!(!by_status("openai", 400, quoted, &key).detail.contains("4111"));
        let whole = br#"{"error":{"message":"sk-very-secret may not use m"}}"#;
        assert_eq!(by_status("x", 403, whole, &key).detail, "HTTP 403, [secret] may not use m");
        assert_eq!(
            by_close("x", Some((1008, "bad sk-very-secret")), &key).detail,
            "closed with 1008 bad [secret]"
        );
    }
}
