//! Session timers (RFC 4028): whether a call must be refreshed, how often, by whom, and when its silence ends it.
//! It computes from headers and knows no clock.

use super::message::value_and_params;
use super::reading::{names, value};
use super::trunk::{MIN_SESSION_S, TrunkSettings};
use rsipstack::sip::{HasHeaders, Header};
use std::time::Duration;

/// The interval that is written where only its lower bound is known, seconds.
const USUAL_SESSION_S: u32 = 1_800;
/// The longest interval that is kept; a longer one says the same.
const MAX_SESSION_S: u32 = 24 * 3600;

/// What was agreed about refreshes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimer {
    /// Without a refresh for so long the call is over, seconds.
    pub interval_s: u32,
    /// We refresh; otherwise the peer does.
    pub ours: bool,
}

/// The interval that was asked for is too short for us: 422 with this `Min-SE`, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort(pub u32);

impl SessionTimer {
    /// What we, who are called, agree to: a request of the peer's, or our own wish if the peer speaks session timers.
    ///
    /// # Errors
    /// The interval is too short.
    pub fn for_request<M: HasHeaders>(
        request: &M,
        settings: &TrunkSettings,
    ) -> Result<Option<Self>, TooShort> {
        if !settings.session_timer {
            return Ok(None);
        }
        let supported = names(request, "Supported", "timer") || names(request, "Require", "timer");
        let Some((asked_s, refresher)) = session_expires(request) else {
            let wish = settings.session_expires_s.filter(|_| supported);
            let least = min_se(request).max(MIN_SESSION_S);
            return Ok(wish.map(|s| SessionTimer { interval_s: s.max(least), ours: true }));
        };
        if asked_s < MIN_SESSION_S {
            // Who does not speak timers cannot understand a 422: a proxy has asked, and the smallest interval is taken.
            return match supported {
                true => Err(TooShort(MIN_SESSION_S)),
                false => Ok(Some(SessionTimer { interval_s: MIN_SESSION_S, ours: true })),
            };
        }
        // A caller that does not speak timers cannot refresh (section 9, table 2).
        let ours = !supported || refresher == Some(Refresher::Uas);
        Ok(Some(SessionTimer { interval_s: asked_s.min(MAX_SESSION_S), ours }))
    }

    /// What the peer's answer to our request agrees to.
    pub fn for_response<M: HasHeaders>(response: &M, settings: &TrunkSettings) -> Option<Self> {
        if !settings.session_timer {
            return None;
        }
        match session_expires(response) {
            Some((s, refresher)) => Some(SessionTimer {
                interval_s: s.clamp(MIN_SESSION_S, MAX_SESSION_S),
                ours: refresher != Some(Refresher::Uas),
            }),
            // Nobody else speaks timers: what we asked for we keep ourselves (section 7.2).
            None => settings.session_expires_s.map(|interval_s| SessionTimer { interval_s, ours: true }),
        }
    }

    /// The headers of a 2xx that agrees. `Require` is a demand that only who shall refresh must understand.
    pub fn response_headers(self) -> Vec<Header> {
        let refresher = if self.ours { "uas" } else { "uac" };
        let mut headers =
            vec![Header::SessionExpires(format!("{};refresher={refresher}", self.interval_s).into())];
        if !self.ours {
            headers.push(Header::Require("timer".into()));
        }
        headers
    }

    /// The headers of a refresh by us, who are its client.
    pub fn refresh_headers(self) -> Vec<Header> {
        let refresher = if self.ours { "uac" } else { "uas" };
        vec![
            Header::Supported("timer".into()),
            Header::SessionExpires(format!("{};refresher={refresher}", self.interval_s).into()),
            Header::MinSE(MIN_SESSION_S.to_string().into()),
        ]
    }

    /// When, after the last refresh, we refresh, or give the call up.
    pub fn due(self) -> Duration {
        let s = u64::from(self.interval_s);
        Duration::from_secs(if self.ours { s / 2 } else { s - (s / 3).min(32) })
    }
}

/// The headers of a first INVITE.
pub fn invite_headers(settings: &TrunkSettings, least_s: Option<u32>) -> Vec<Header> {
    if !settings.session_timer {
        return Vec::new();
    }
    let mut headers = vec![Header::Supported("timer".into())];
    let wish = settings.session_expires_s.or(least_s.map(|_| USUAL_SESSION_S));
    if let Some(wish) = wish {
        let least = least_s.unwrap_or(MIN_SESSION_S);
        headers.push(Header::SessionExpires(wish.max(least).to_string().into()));
        headers.push(Header::MinSE(least.to_string().into()));
    }
    headers
}

/// The least interval that a 422 or a request names, seconds; never more than a day.
pub fn min_se<M: HasHeaders>(message: &M) -> u32 {
    let named = value(message, "Min-SE").and_then(|value| value_and_params(value).0.parse().ok());
    named.unwrap_or(0).min(MAX_SESSION_S)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refresher {
    Uac,
    Uas,
}

fn session_expires<M: HasHeaders>(message: &M) -> Option<(u32, Option<Refresher>)> {
    let (seconds, params) = value_and_params(value(message, "Session-Expires")?);
    let refresher =
        params.get("refresher").and_then(|refresher| match refresher.to_ascii_lowercase().as_str() {
            "uac" => Some(Refresher::Uac),
            "uas" => Some(Refresher::Uas),
            _ => None,
        });
    Some((seconds.parse().ok()?, refresher))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rsipstack::sip::Request;

    fn request(headers: &str) -> Request {
        let text = format!("INVITE sip:a@b SIP/2.0\r\n{headers}Content-Length: 0\r\n\r\n");
        text.as_str().try_into().unwrap()
    }

    fn agreed(headers: &str, wish_s: Option<u32>) -> Result<Option<(u32, bool)>, TooShort> {
        let mut settings = TrunkSettings::at("h");
        settings.session_expires_s = wish_s;
        let timer = SessionTimer::for_request(&request(headers), &settings)?;
        Ok(timer.map(|timer| (timer.interval_s, timer.ours)))
    }

    #[test]
    fn whoever_can_refreshes() {
        for (headers, wish_s, timer) in [
            ("", None, Ok(None)),
            ("Supported: timer\r\nMin-SE: 120\r\n", None, Ok(None)),
            ("Supported: timer\r\nMin-SE: 120\r\n", Some(90), Ok(Some((120, true)))),
            ("Supported: timer\r\nSession-Expires: 1800\r\n", None, Ok(Some((1800, false)))),
            ("k: timer\r\nx: 1800;refresher=uas\r\n", None, Ok(Some((1800, true)))),
            (
                "Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n",
                Some(90),
                Ok(Some((1800, false))),
            ),
            ("Session-Expires: 1800;refresher=uac\r\n", None, Ok(Some((1800, true)))),
            ("Supported: timer\r\nSession-Expires: 60\r\n", None, Err(TooShort(90))),
            ("Session-Expires: 60\r\n", None, Ok(Some((90, true)))),
            ("Supported: timer\r\nSession-Expires: soon\r\n", None, Ok(None)),
        ] {
            assert_eq!(agreed(headers, wish_s), timer, "{headers}");
        }
    }

    #[test]
    fn a_refresh_is_due_at_half_and_missed_before_the_end() {
        let due = |interval_s, ours| SessionTimer { interval_s, ours }.due().as_secs();
        assert_eq!(due(1800, true), 900);
        assert_eq!(due(1800, false), 1800 - 32);
        assert_eq!(due(90, false), 60);
    }
}
