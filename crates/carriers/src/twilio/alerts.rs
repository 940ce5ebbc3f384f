//! Why Twilio could not do what we wanted: its debugger's alerts, as webhooks that failed leave them.
//! Nothing is changed by reading them, and Twilio forgets them after a while.

use super::errors::sentence_or_link;
use super::rest::{Host, Twilio, utc_second};
use crate::account::Alert;
use crate::{Area, CarrierError};
use offhook_core::Pii;
use serde::Deserialize;
use url::Url;

/// How many alerts are asked for at once.
pub const ALERTS_PAGE_SIZE: usize = 100;
/// The most alerts that are looked through.
pub const MAX_ALERTS: usize = 500;

impl Twilio {
    /// What went wrong since an instant, µs since 1970 UTC, newest first.
    pub async fn alerts(&self, since_us: i64) -> Result<Vec<Alert>, CarrierError> {
        let mut url = self.on(Host::Monitor, &["v1", "Alerts"]);
        url.query_pairs_mut()
            .append_pair("StartDate", &utc_second(since_us))
            .append_pair("PageSize", &ALERTS_PAGE_SIZE.to_string());
        let listed: Vec<AlertResource> =
            self.list(Area::Account, Host::Monitor, url, "alerts", MAX_ALERTS).await?;
        let mut alerts: Vec<Alert> = listed.into_iter().map(AlertResource::alert).collect();
        alerts.sort_by_key(|alert| std::cmp::Reverse(alert.at_us));
        Ok(alerts)
    }
}

#[derive(Deserialize)]
struct AlertResource {
    sid: String,
    error_code: Option<String>,
    alert_text: Option<String>,
    request_url: Option<String>,
    resource_sid: Option<String>,
    date_generated: Option<String>,
    date_created: Option<String>,
}

/// An address as it may be shown; nothing if it is none.
fn without_password(url: &str) -> Option<String> {
    let mut url: Url = url.parse().ok()?;
    url.set_password(None).ok()?;
    Some(url.into())
}

impl AlertResource {
    fn alert(self) -> Alert {
        let at = self.date_generated.or(self.date_created);
        let at = at.and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let code = self.error_code.and_then(|code| code.parse().ok());
        Alert {
            id: self.sid,
            at_us: at.map(jiff::Timestamp::as_microsecond),
            code,
            sentence: code.map_or_else(|| "Twilio does not say what went wrong.".into(), sentence_or_link),
            url: self.request_url.as_deref().and_then(without_password),
            about: self.resource_sid,
            detail: Pii::new(self.alert_text.unwrap_or_default()),
        }
    }
}
