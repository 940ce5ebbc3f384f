//! Looks at everything that stands between a caller and an agent, as it is now, and says of each thing whether it is well and if not what
//! to do. It changes nothing, here or at a carrier, and does not know who reads what it finds.

use crate::api::connections::tried;
use crate::app::App;
use crate::call::plan;
use crate::carrier;
use crate::problem::Problem;
use offhook_core::entity::{Connection, ConnectionStatus, NumberStatus, PhoneNumber, is_carrier};
use offhook_store::{Listed, PAGE_ROWS_MAX, Page, Scope, StoreError};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;
use url::Host;

/// How long our own address may take to answer.
const OWN_PATIENCE: Duration = Duration::from_secs(5);
/// A carrier whose answers take longer is far away: each way of the audio takes half as long.
const FAR: Duration = Duration::from_millis(250);
/// How far back a carrier's complaints are read.
const ALERTS_SINCE_US: i64 = 24 * 3_600 * 1_000_000;

/// What was looked at, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The thing: `connection twilio`, `number +14155550123`.
    pub about: String,
    /// How it is.
    pub state: State,
    /// What was found, in one line.
    pub found: String,
    /// What to do; `None` where nothing is to be done.
    pub fix: Option<String>,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Well,
    /// It works, and something about it will be noticed.
    Doubtful,
    /// Callers notice now.
    Wrong,
}

/// Where what is found goes, as it is found: some looks take seconds.
type Tell<'a> = &'a mut (dyn FnMut(Finding) + Send);

/// Looks at everything; connections with one of the `simulated` names lead nowhere and are left out.
///
/// # Errors
/// When the store does not answer.
pub async fn examine(app: &App, simulated: &[&str], tell: Tell<'_>) -> Result<(), StoreError> {
    let mut real = false;
    let workspaces = all(async |page| app.store.workspaces(page).await).await?;
    for workspace in &workspaces {
        let scope = Scope::system(workspace, "doctor");
        let connections = all(async |page| app.store.connections(&scope, page).await).await?;
        let is_real = |connection: &Connection| !simulated.contains(&connection.name.as_str());
        let mut works = BTreeMap::new();
        for connection in connections.iter().filter(|connection| is_real(connection)) {
            real |= is_carrier(&connection.kind);
            let works_now = self::connection(app, &scope, connection, tell).await;
            if works_now {
                complaints(app, &scope, connection, tell).await;
            }
            works.insert(connection.id.clone(), works_now);
        }
        for number in all(async |page| app.store.numbers(&scope, page).await).await? {
            let Some(connection) = connections.iter().find(|connection| connection.id == number.connection)
            else {
                continue;
            };
            let asks = works.get(&connection.id).copied().unwrap_or_default();
            self::number(app, &scope, connection, &number, asks, tell).await;
        }
        for agent in all(async |page| app.store.agents(&scope, page).await).await? {
            let about = format!("agent {}", agent.name);
            match plan::ready(app, &scope, &agent.id).await {
                Ok(_) => tell(well(about, "it could take a call now")),
                Err(error) => tell(wrong(about, &Problem::from(error))),
            }
        }
    }
    address(app, real, tell).await;
    Ok(())
}

/// Our own address: carriers must reach it.
async fn address(app: &App, real: bool, tell: Tell<'_>) {
    let url = app.public_url.page("/healthz");
    let about = format!("public address {}", app.public_url.page("/"));
    let inside = match url.host() {
        Some(Host::Ipv4(address)) => is_inside(address.into()),
        Some(Host::Ipv6(address)) => is_inside(address.into()),
        Some(Host::Domain(name)) => name == "localhost",
        None => true,
    };
    if inside || url.scheme() != "https" {
        let found = match inside {
            true => "it leads nowhere outside of this machine or network",
            false => "it is not https: carriers open no media sockets to it",
        };
        let fix = "set `server.public_url` to the https address that your proxy or tunnel serves";
        let state = if real { State::Wrong } else { State::Doubtful };
        return tell(Finding { about, state, found: found.into(), fix: Some(fix.into()) });
    }
    let asked = app.http.get(url).timeout(OWN_PATIENCE).send().await;
    let answer = match asked.and_then(reqwest::Response::error_for_status) {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        Err(error) => {
            let found = format!("it does not answer from here ({})", error.without_url());
            let fix = "check that the server runs, that the proxy passes everything under /hooks/ to it, and its certificate";
            return tell(Finding { about, state: State::Wrong, found, fix: Some(fix.into()) });
        }
    };
    match answer.as_str() {
        "ok" => tell(well(about, "it leads here")),
        _ => tell(Finding {
            about,
            state: State::Wrong,
            found: "something else answers there".into(),
            fix: Some("let the proxy lead to this server, or correct `server.public_url`".into()),
        }),
    }
}

fn is_inside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_unspecified() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local(),
    }
}

/// An account; hands out whether its carrier can be asked about numbers.
async fn connection(app: &App, scope: &Scope, connection: &Connection, tell: Tell<'_>) -> bool {
    let about = format!("connection {}", connection.name);
    if connection.kind == "sip" {
        // Only the server's own user agent knows; it writes what it sees.
        let (state, found) = match (connection.status, &connection.status_reason) {
            (ConnectionStatus::Active, _) => (State::Well, "the trunk is up".to_owned()),
            (_, Some(reason)) => (State::Wrong, reason.clone()),
            (_, None) => (State::Doubtful, "the server has not heard from the trunk yet".to_owned()),
        };
        let fix = "check that the server runs with a [sip] transport, and `domain`, `allowed` and the password of the trunk";
        tell(Finding { about, state, found, fix: (state != State::Well).then(|| fix.into()) });
        return false;
    }
    let began = Instant::now();
    if let Err(problem) = tried(app, scope, connection).await {
        tell(wrong(about, &problem));
        return false;
    }
    let took = began.elapsed();
    if is_carrier(&connection.kind) && took > FAR * REQUESTS_OF_A_TRIAL {
        tell(Finding {
            about,
            state: State::Doubtful,
            found: format!("it works, and the carrier takes {} ms to answer: callers hear longer pauses", took.as_millis()),
            fix: Some("run the server nearer to the carrier, or set the connection's `region` and `edge` to the closest".into()),
        });
    } else {
        tell(well(about.clone(), "the account is open, and its credentials may do what is needed"));
    }
    is_carrier(&connection.kind)
}

/// What the carrier could not do with our answers lately, by its own log: one line for each kind of trouble.
async fn complaints(app: &App, scope: &Scope, connection: &Connection, tell: Tell<'_>) {
    let secret = app.store.connection_secret(scope, &connection.id).await.ok();
    let Some(account) = carrier::account(&app.http, connection, secret.as_ref()) else { return };
    let about = format!("carrier's log of connection {}", connection.name);
    let alerts = match account.alerts(app.environment.now_us() - ALERTS_SINCE_US).await {
        Ok(alerts) => alerts,
        // A key that may not read it is a good key all the same.
        Err(error) => {
            let found = format!("it cannot be read: {error}");
            return tell(Finding { about, state: State::Doubtful, found, fix: None });
        }
    };
    let ours = app.public_url.page("/hooks/");
    let mut kinds: BTreeMap<Option<u32>, (usize, String)> = BTreeMap::new();
    for alert in alerts {
        let is_ours = |url: &str| url.parse::<url::Url>().is_ok_and(|url| url.host() == ours.host());
        if alert.url.as_deref().is_none_or(is_ours) {
            kinds.entry(alert.code).or_insert_with(|| (0, alert.sentence.into_owned())).0 += 1;
        }
    }
    for (code, (times, sentence)) in kinds {
        let code = code.map_or_else(|| "trouble".into(), |code| format!("error {code}"));
        tell(Finding {
            about: about.clone(),
            state: State::Doubtful,
            found: format!("{code}, {times} times since yesterday: {sentence}"),
            fix: Some("if it goes on, compare the times with this server's log".into()),
        });
    }
}

/// How many requests trying an account out makes, about.
const REQUESTS_OF_A_TRIAL: u32 = 5;

/// A number, at the carrier and here.
async fn number(
    app: &App,
    scope: &Scope,
    connection: &Connection,
    number: &PhoneNumber,
    ask: bool,
    tell: Tell<'_>,
) {
    let about = format!("number {}", number.e164);
    let state = |state, found: String, fix: &str| Finding {
        about: about.clone(),
        state,
        found,
        fix: Some(fix.into()),
    };
    if ask {
        let secret = app.store.connection_secret(scope, &connection.id).await.ok();
        let account = carrier::account(&app.http, connection, secret.as_ref());
        match account {
            None => {}
            Some(account) => match account.own_number(&number.e164).await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let found = format!("connection {} has no such number", connection.name);
                    let fix = "write it as the carrier lists it, with + and country code, or use the connection of the account that owns it";
                    return tell(state(State::Wrong, found, fix));
                }
                Err(error) => return tell(wrong(about, &Problem::from(error))),
            },
        }
    }
    match (number.status, &number.status_reason) {
        (NumberStatus::Error, reason) => {
            let found = reason.clone().unwrap_or_else(|| "it does not lead here".into());
            tell(state(
                State::Wrong,
                found,
                "POST /api/phone-numbers/{id}/take-back, or start its agent again",
            ));
        }
        (NumberStatus::Inactive, Some(reason)) => {
            tell(state(State::Doubtful, reason.clone(), "start its agent, or give it a `forward_to`"))
        }
        (NumberStatus::Inactive, None) if number.inbound_agent.is_some() => tell(state(
            State::Doubtful,
            "its agent is stopped, or it is being set up: callers are turned away".into(),
            "start its agent, or give it a `forward_to`",
        )),
        (NumberStatus::Inactive, None) => tell(state(
            State::Doubtful,
            "no agent answers it and it is forwarded nowhere: callers are turned away".into(),
            "give it an `inbound_agent`, or a `forward_to`",
        )),
        _ => tell(well(about, "its account has it as far as could be asked, and somebody answers it")),
    }
}

fn well(about: String, found: &str) -> Finding {
    Finding { about, state: State::Well, found: found.into(), fix: None }
}

fn wrong(about: String, problem: &Problem) -> Finding {
    Finding { about, state: State::Wrong, found: problem.detail().into(), fix: Some(problem.fix().into()) }
}

/// Every row of a list.
async fn all<T>(list: impl AsyncFn(&Page) -> Result<Listed<T>, StoreError>) -> Result<Vec<T>, StoreError> {
    let (mut rows, mut page) = (Vec::new(), Page::first(PAGE_ROWS_MAX));
    loop {
        let listed = list(&page).await?;
        rows.extend(listed.rows);
        match listed.next {
            Some(next) => page = Page::after(next, PAGE_ROWS_MAX),
            None => return Ok(rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_carrier_reaches_are_known() {
        for inside in
            ["127.0.0.1", "10.1.2.3", "192.168.0.9", "0.0.0.0", "::1", "fd00::1", "::ffff:127.0.0.1"]
        {
            assert!(is_inside(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["203.0.113.5", "2001:db8::1"] {
            assert!(!is_inside(outside.parse().unwrap()), "{outside}");
        }
    }
}
