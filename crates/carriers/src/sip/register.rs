//! What keeps a trunk alive: registrations that are refreshed before they end, probes that ask a peer whether it lives, empty
//! lines that keep a NAT open; and the one attempt that tests a connection.

use super::agent::Shared;
use super::dialog::{authorization, challenge, credentials};
use super::digest::Challenge;
use super::message::{NameAddr, list};
use super::reading::{value, values};
use super::trunk::Trunk;
use super::wire::{ALLOW, Hop, NoAnswer, RequestLine, Wire};
use super::{SipError, TrunkState};
use crate::{Area, Verdict};
use rsipstack::sip::{Header, Method, Request, Response, Uri};
use rsipstack::transaction::random_text;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::Instant;

/// The parameter of our `Contact` by which calls to a registration are known.
pub const INSTANCE: &str = "rinstance";
/// How long a registrar or a peer may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// So many silent probes in a row mean that the peer is down.
pub const SILENT_PROBES: u32 = 3;
/// The pause before a registration that failed is tried again: doubled each time from the first to the last.
pub const FIRST_RETRY: Duration = Duration::from_secs(2);
/// The longest pause between attempts.
pub const LAST_RETRY: Duration = Duration::from_secs(120);
/// The shares of a granted expiry after which it is refreshed, by chance between them, percent.
const REFRESH_PERCENT: std::ops::Range<u64> = 50..90;
/// The shortest and the longest expiry that are believed, seconds.
const EXPIRY_S: std::ops::RangeInclusive<u32> = 10..=24 * 3_600;
const ID_CHARS: usize = 20;
const INSTANCE_CHARS: usize = 10;

/// A name for a registration that nobody else has.
pub fn instance(_trunk: &Trunk) -> String {
    random_text(INSTANCE_CHARS)
}

/// Keeps a trunk until it is told to leave.
pub(super) async fn keep(
    shared: Arc<Shared>,
    trunk: Arc<Trunk>,
    instance: String,
    mut stopped: watch::Receiver<bool>,
) {
    if let Err(error) = trunk.settings.check(trunk.password.is_some()) {
        return shared.tell(&trunk.id, TrunkState::Down { reason: error.to_string() }).await;
    }
    let mut keeper = Keeper { shared, registration: Registration::new(&trunk, instance), trunk, told: None };
    let stop = async move { _ = stopped.wait_for(|stopped| *stopped).await };
    tokio::pin!(stop);
    if keeper.trunk.settings.register {
        tokio::select! {
            () = keeper.stay_registered() => {}
            () = &mut stop => {}
        }
        keeper.leave().await;
    } else {
        tokio::select! {
            () = keeper.watch_peer() => {}
            () = &mut stop => {}
        }
    }
}

/// Tries a trunk once.
pub(super) async fn probe(shared: &Arc<Shared>, trunk: &Trunk) -> Verdict {
    if trunk.settings.check(trunk.password.is_some()).is_err() {
        return Verdict::WrongCredentials;
    }
    let trunk = Arc::new(trunk.clone());
    let mut registration = Registration::new(&trunk, instance(&trunk));
    let Ok(targets) = shared.wire.targets(&trunk.id, &trunk.settings).await else {
        return Verdict::Unreachable;
    };
    for target in targets {
        let Ok(hop) = shared.wire.hop(target, &trunk.settings).await else { continue };
        let answer = if trunk.settings.register {
            // Asks which registrations there are, and makes none.
            registration.ask(&shared.wire, &trunk, &hop, None).await
        } else {
            options(&shared.wire, &trunk, &hop, PATIENCE).await
        };
        match answer.map(|response| response.status_code.code()) {
            Ok(401 | 407) => return Verdict::WrongCredentials,
            Ok(403 | 404) if trunk.settings.register => return Verdict::WrongCredentials,
            Ok(403) => return Verdict::MissingPermission(Area::Voice),
            // Whatever a peer says to OPTIONS, it is there.
            Ok(503) | Err(_) => {}
            Ok(_) => return Verdict::Ok { trial: None },
        }
    }
    Verdict::Unreachable
}

struct Keeper {
    shared: Arc<Shared>,
    trunk: Arc<Trunk>,
    registration: Registration,
    /// What was last told about the trunk.
    told: Option<TrunkState>,
}

/// What is remembered between the requests of one registration.
struct Registration {
    call_id: String,
    tag: String,
    sequence: u32,
    instance: String,
    expiry_s: u32,
    challenge: Option<(Challenge, bool)>,
    /// Where we are registered now, and as what.
    at: Option<Hop>,
}

impl Keeper {
    async fn stay_registered(&mut self) {
        let mut pause = FIRST_RETRY;
        loop {
            match self.register().await {
                Ok((hop, granted)) => {
                    pause = FIRST_RETRY;
                    self.tell(TrunkState::Registered { until: wall_clock() + granted }).await;
                    self.rest(&hop, share_of(granted)).await;
                }
                Err(reason) => {
                    self.registration.at = None;
                    self.tell(TrunkState::Down { reason }).await;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_RETRY);
                }
            }
        }
    }

    /// Waits, and keeps the way open meanwhile; returns early when the stream has fallen.
    async fn rest(&self, hop: &Hop, how_long: Duration) {
        let until = Instant::now() + how_long;
        let every = Duration::from_secs(u64::from(self.trunk.settings.keepalive_s));
        while Instant::now() < until && hop.is_alive() {
            let next = if every.is_zero() { until } else { (Instant::now() + every).min(until) };
            tokio::time::sleep_until(next).await;
            if next < until {
                hop.keep_alive().await;
            }
        }
    }

    async fn register(&mut self) -> Result<(Hop, Duration), String> {
        let (wire, settings) = (self.shared.wire.clone(), &self.trunk.settings);
        let targets = wire.targets(&self.trunk.id, settings).await.map_err(|error| error.to_string())?;
        let mut last = SipError::Unreachable.to_string();
        for target in targets {
            let Ok(hop) = wire.hop(target, settings).await else { continue };
            let expiry = Some(self.registration.expiry_s);
            let Ok(mut answer) = self.registration.ask(&wire, &self.trunk, &hop, expiry).await else {
                last = "the registrar does not answer".to_owned();
                continue;
            };
            if answer.status_code.code() == 423 {
                let least = value(&answer, "Min-Expires").and_then(|least| least.parse().ok()).unwrap_or(0);
                self.registration.expiry_s = self.registration.expiry_s.max(least).min(*EXPIRY_S.end());
                let expiry = Some(self.registration.expiry_s);
                match self.registration.ask(&wire, &self.trunk, &hop, expiry).await {
                    Ok(again) => answer = again,
                    Err(_) => continue,
                }
            }
            match answer.status_code.code() {
                200..=299 => {
                    let granted = self.registration.granted(&answer);
                    self.registration.at = Some(hop.clone());
                    return Ok((hop, Duration::from_secs(u64::from(granted))));
                }
                401 | 407 => return Err("the registrar does not accept user name and password".to_owned()),
                403 => return Err("the registrar does not let us register (403)".to_owned()),
                404 => return Err("the registrar does not know this user (404)".to_owned()),
                status => last = format!("the registrar refuses with {status}"),
            }
        }
        Err(last)
    }

    /// Takes our leave, so that no call is sent to where nobody answers.
    async fn leave(&mut self) {
        if let Some(hop) = self.registration.at.take() {
            // If it does not hear, the registration ends by itself.
            _ = self.registration.ask(&self.shared.wire, &self.trunk, &hop, Some(0)).await;
        }
    }

    async fn watch_peer(&mut self) {
        let every = Duration::from_secs(u64::from(self.trunk.settings.options_s));
        let mut silent = 0;
        loop {
            let found = self.shared.wire.targets(&self.trunk.id, &self.trunk.settings).await;
            if every.is_zero() {
                let state = match found {
                    Ok(_) => TrunkState::Up,
                    Err(error) => TrunkState::Down { reason: error.to_string() },
                };
                self.tell(state).await;
                // Its name is looked up again now and then: the guard lets in the addresses that it leads to.
                tokio::time::sleep(LAST_RETRY).await;
                continue;
            }
            let lives = match found {
                Ok(targets) => self.lives(targets).await,
                Err(_) => false,
            };
            silent = if lives { 0 } else { silent + 1 };
            if lives {
                self.tell(TrunkState::Up).await;
            } else if silent >= SILENT_PROBES {
                self.tell(TrunkState::Down { reason: "the trunk's host does not answer OPTIONS".to_owned() })
                    .await;
            }
            tokio::time::sleep(every).await;
        }
    }

    async fn lives(&self, targets: Vec<std::net::SocketAddr>) -> bool {
        for target in targets {
            let Ok(hop) = self.shared.wire.hop(target, &self.trunk.settings).await else { continue };
            let every = Duration::from_secs(u64::from(self.trunk.settings.options_s));
            let answer = options(&self.shared.wire, &self.trunk, &hop, every.min(PATIENCE)).await;
            if answer.is_ok_and(|response| response.status_code.code() != 503) {
                return true;
            }
        }
        false
    }

    async fn tell(&mut self, state: TrunkState) {
        let news = match (&self.told, &state) {
            (Some(TrunkState::Registered { .. }), TrunkState::Registered { .. }) => true,
            (told, state) => told.as_ref() != Some(state),
        };
        if news {
            self.told = Some(state.clone());
            self.shared.tell(&self.trunk.id, state).await;
        }
    }
}

impl Registration {
    fn new(trunk: &Trunk, instance: String) -> Self {
        Registration {
            call_id: random_text(ID_CHARS),
            tag: random_text(ID_CHARS),
            sequence: 0,
            instance,
            expiry_s: trunk.settings.register_expiry_s.clamp(*EXPIRY_S.start(), *EXPIRY_S.end()),
            challenge: None,
            at: None,
        }
    }

    /// Sends a REGISTER, for so many seconds or only to ask, and answers a challenge.
    async fn ask(
        &mut self,
        wire: &Wire,
        trunk: &Trunk,
        hop: &Hop,
        expiry_s: Option<u32>,
    ) -> Result<Response, NoAnswer> {
        let mut answered = false;
        loop {
            let request = self.build(wire, trunk, hop, expiry_s).ok_or(NoAnswer::Unreachable)?;
            let response = wire.exchange(request, hop, PATIENCE).await?;
            match challenge(&response, trunk) {
                // Asked again although it was answered: wrong, unless only the nonce was old.
                Some((new, proxy)) if !answered || new.stale => {
                    answered = true;
                    self.challenge = Some((new, proxy));
                }
                _ => return Ok(response),
            }
        }
    }

    fn build(&mut self, wire: &Wire, trunk: &Trunk, hop: &Hop, expiry_s: Option<u32>) -> Option<Request> {
        self.sequence += 1;
        let settings = &trunk.settings;
        let host = if settings.domain.contains(':') {
            format!("[{}]", settings.domain)
        } else {
            settings.domain.clone()
        };
        let user = settings.username.as_deref()?;
        let registrar = format!("sip:{host}");
        let address = format!("<sip:{user}@{host}>");
        let mut headers = vec![Header::Allow(ALLOW.into())];
        if let Some(expiry_s) = expiry_s {
            headers.push(Header::Contact(
                format!("<{};{INSTANCE}={}>", wire.contact_uri(hop, user), self.instance).into(),
            ));
            headers.push(Header::Expires(expiry_s.to_string().into()));
        }
        if let Some((challenge, proxy)) = &mut self.challenge
            && let Some(credentials) = credentials(trunk)
        {
            headers.push(authorization(challenge, *proxy, &credentials, "REGISTER", &registrar));
        }
        let line = RequestLine {
            method: Method::Register,
            uri: &Uri::try_from(registrar.as_str()).ok()?,
            call_id: &self.call_id,
            from: &format!("{address};tag={}", self.tag),
            to: &address,
            sequence: self.sequence,
        };
        Some(wire.request(line, hop, headers, None))
    }

    /// For how long we are registered, seconds: what stands at our own `Contact`, else in `Expires`, else what we asked for.
    fn granted(&self, answer: &Response) -> u32 {
        let own = values(answer, "Contact")
            .flat_map(list)
            .filter_map(NameAddr::read)
            .find(|contact| contact.uri.params.get(INSTANCE) == Some(&self.instance));
        let own = own.and_then(|contact| contact.params.get("expires")?.parse().ok());
        let granted = own.or_else(|| value(answer, "Expires")?.parse().ok()).unwrap_or(self.expiry_s);
        granted.clamp(*EXPIRY_S.start(), *EXPIRY_S.end())
    }
}

async fn options(wire: &Wire, trunk: &Trunk, hop: &Hop, patience: Duration) -> Result<Response, NoAnswer> {
    let settings = &trunk.settings;
    let host = if settings.domain.contains(':') {
        format!("[{}]", settings.domain)
    } else {
        settings.domain.clone()
    };
    let uri = match settings.port {
        Some(port) => format!("sip:{host}:{port}"),
        None => format!("sip:{host}"),
    };
    let user = settings.username.as_deref().unwrap_or("offhook");
    let line = RequestLine {
        method: Method::Options,
        uri: &Uri::try_from(uri.as_str()).map_err(|_| NoAnswer::Unreachable)?,
        call_id: &random_text(ID_CHARS),
        from: &format!("<sip:{user}@{}>;tag={}", wire.sent_by(hop), random_text(ID_CHARS)),
        to: &format!("<{uri}>"),
        sequence: 1,
    };
    let headers = vec![
        Header::Contact(format!("<{}>", wire.contact_uri(hop, user)).into()),
        Header::Accept("application/sdp".into()),
    ];
    wire.exchange(wire.request(line, hop, headers, None), hop, patience).await
}

/// A share of an expiry, by chance, so that many registrations do not come at once.
fn share_of(granted: Duration) -> Duration {
    let chance: u64 = random_text(8).bytes().map(u64::from).sum();
    let percent = REFRESH_PERCENT.start + chance % (REFRESH_PERCENT.end - REFRESH_PERCENT.start);
    granted * percent as u32 / 100
}

#[allow(
    clippy::disallowed_methods,
    reason = "people read until when we are registered; nothing is decided by it"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
