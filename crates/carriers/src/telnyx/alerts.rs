//! Webhooks that Telnyx could not deliver to us, as it remembers them: why a line is deaf.

use super::errors::sentence;
use super::rest::{Code, Telnyx};
use crate::{Alert, Area, CarrierError};
use offhook_core::Pii;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

/// The most failed deliveries that are looked through.
pub const MAX_ALERTS: usize = 500;

impl Telnyx {
    /// Webhooks that could not be delivered since an instant, µs since 1970 UTC, newest first.
    pub async fn alerts(&self, since_us: i64) -> Result<Vec<Alert>, CarrierError> {
        let since = jiff::Timestamp::from_microsecond(since_us).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let mut url = self.url(&["webhook_deliveries"]);
        url.query_pairs_mut()
            .append_pair("filter[status][eq]", "failed")
            .append_pair("filter[started_at][gte]", &since.to_string());
        let listed: Vec<Delivery> = self.list(Area::Account, &url, MAX_ALERTS).await?;
        let mut alerts: Vec<Alert> = listed.into_iter().map(Delivery::alert).collect();
        alerts.sort_by_key(|alert| std::cmp::Reverse(alert.at_us));
        Ok(alerts)
    }
}

#[derive(Deserialize)]
struct Delivery {
    id: String,
    started_at: Option<jiff::Timestamp>,
    finished_at: Option<jiff::Timestamp>,
    #[serde(default)]
    attempts: Vec<Attempt>,
    webhook: Option<Webhook>,
}

#[derive(Deserialize)]
struct Attempt {
    #[serde(default)]
    errors: Vec<Problem>,
    finished_at: Option<jiff::Timestamp>,
    http: Option<Http>,
}

/// Documented as a code alone, shown in the example with words too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Problem {
    Told {
        #[serde(default)]
        code: Code,
        title: Option<String>,
        detail: Option<String>,
    },
    Bare(Code),
}

#[derive(Deserialize)]
struct Http {
    request: Option<Request>,
    response: Option<Response>,
}

#[derive(Deserialize)]
struct Request {
    url: Option<String>,
}

#[derive(Deserialize)]
struct Response {
    status: Option<u16>,
}

#[derive(Deserialize)]
struct Webhook {
    #[serde(default)]
    payload: Value,
}

impl Delivery {
    /// The last attempt says it: the ones before it failed too.
    fn alert(self) -> Alert {
        let attempt = self.attempts.into_iter().max_by_key(|attempt| attempt.finished_at);
        let (problem, http) = attempt.map_or((None, None), |one| (one.errors.into_iter().next(), one.http));
        let (request, response) = http.map_or((None, None), |http| (http.request, http.response));
        let status = response.and_then(|response| response.status);
        let (code, words) = match problem {
            Some(Problem::Told { code, title, detail }) => (code.0, detail.or(title)),
            Some(Problem::Bare(code)) => (code.0, None),
            None => (None, None),
        };
        let said = code.and_then(sentence).map(Cow::from);
        let answered = || {
            let status = status.filter(|status| !(200..300).contains(status))?;
            Some(format!("Our webhook address answered Telnyx with HTTP status {status}; check what stands before Offhook.").into())
        };
        let call = self.webhook.as_ref().and_then(|webhook| {
            let payload = &webhook.payload;
            Some(payload.get("call_control_id").or_else(|| payload.get("id"))?.as_str()?.to_owned())
        });
        Alert {
            id: self.id,
            at_us: self.finished_at.or(self.started_at).map(jiff::Timestamp::as_microsecond),
            code,
            sentence: said.or_else(answered).unwrap_or_else(|| UNREACHABLE.into()),
            url: request.and_then(|request| request.url).filter(|url| !url.is_empty()),
            about: call,
            detail: Pii::new(words.unwrap_or_default()),
        }
    }
}

const UNREACHABLE: &str = "Telnyx could not reach our webhook address in time; check that the public URL is reachable from the internet.";
