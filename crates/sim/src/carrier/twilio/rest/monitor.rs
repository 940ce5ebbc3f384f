//! The debugger's alerts: monitor.twilio.com/v1. They are those of the simulation, nothing is invented.
//! It does not know how one comes about.

use axum::http::StatusCode;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::super::Alert;
use super::page::{PAGING, TimeFilter};
use super::trunks::iso8601;
use super::{Answer, Refusal, RestRequest};

impl RestRequest<'_> {
    /// The newest first.
    pub(super) fn alerts(&self) -> Answer {
        self.query.only(&[["LogLevel", "StartDate", "EndDate"].as_slice(), &PAGING].concat())?;
        let level = self.query.value("LogLevel");
        if level.is_some_and(|level| !["error", "warning", "notice", "debug"].contains(&level)) {
            return Err(Refusal::invalid(20001, "LogLevel must be error, warning, notice or debug"));
        }
        let time = TimeFilter::between(&self.query, "StartDate", "EndDate")?;
        let state = self.sim.lock();
        let fits =
            |alert: &&Alert| level.is_none_or(|level| level == alert.level()) && time.fits(Some(alert.at));
        let fitting = state.alerts.iter().rev().filter(fits);
        self.meta_page("alerts", fitting.map(|alert| (alert.sid.clone(), self.alert_json(alert))).collect())
    }

    /// One alert, with the request that it is about.
    pub(super) fn alert(&self, sid: &str) -> Answer {
        self.query.only(&[])?;
        let state = self.sim.lock();
        let alert = state.alerts.iter().find(|alert| alert.sid == sid);
        let alert = alert.ok_or_else(|| Refusal::not_found(self.path))?;
        let mut answer = self.alert_json(alert);
        let variables = alert.request.as_ref().map(|request| {
            form_urlencoded::Serializer::new(String::new()).extend_pairs(&request.params).finish()
        });
        answer["request_variables"] = variables.into();
        answer["request_headers"] = Value::Null;
        answer["response_body"] = Value::Null;
        answer["response_headers"] = Value::Null;
        Ok((StatusCode::OK, answer))
    }

    fn alert_json(&self, alert: &Alert) -> Value {
        let at = iso8601(alert.at);
        let text = form_urlencoded::Serializer::new(String::new())
            .append_pair("Msg", &alert.message)
            .append_pair("ErrorCode", &alert.code.to_string())
            .append_pair("LogLevel", &alert.level().to_ascii_uppercase())
            .finish();
        let request = alert.request.as_ref();
        json!({
            "sid": alert.sid,
            "account_sid": self.account(),
            "alert_text": text,
            "api_version": "2010-04-01",
            "date_created": at,
            "date_generated": at,
            "date_updated": at,
            "error_code": alert.code.to_string(),
            "log_level": alert.level(),
            "more_info": format!("https://www.twilio.com/docs/errors/{}", alert.code),
            "request_method": request.map(|request| request.method),
            "request_url": request.map(|request| request.url.as_str()),
            "resource_sid": alert.call_sid,
            "service_sid": null,
            "url": self.url(&format!("/v1/Alerts/{}", alert.sid)),
        })
    }
}
