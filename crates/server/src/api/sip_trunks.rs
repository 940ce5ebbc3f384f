//! A carrier's own SIP trunk, set up through its API so that nothing is done by hand in its console: the trunk leads to our user agent,
//! the numbers wanted are put on it, and a SIP connection here takes the calls. Every step looks first, so that a request which broke off
//! is sent again. It does not know what is said on those calls.

use super::connections::Connection;
use super::request::{Body, Id};
use super::telephony::{self, Operation};
use crate::app::App;
use crate::auth::Caller;
use crate::carrier::twilio;
use crate::numbers::{self, Reached, plan};
use crate::problem::{About, Kind, Problem};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use offhook_carriers::sip::Transport;
use offhook_carriers::twilio::{Trunk, TrunkWish, Twilio};
use offhook_carriers::{Account, OwnNumber};
use offhook_core::entity::{self, Capability, NumberSource};
use offhook_core::{AgentId, ConnectionId, E164};
use offhook_store::{ConnectionSpec, HeldNumber, NumberSpec, Page, Scope, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// Where Twilio's trunks signal from, every region's: which of them calls is not ours to choose (Elastic SIP Trunking, IP addresses).
const TWILIO_SIGNALLING: [&str; 8] = [
    "54.172.60.0/30",
    "54.244.51.0/30",
    "54.171.127.192/30",
    "35.156.191.128/30",
    "54.65.63.192/30",
    "54.169.127.128/30",
    "54.252.254.64/30",
    "177.71.206.192/30",
];
/// Where their audio comes from, in every region.
const TWILIO_MEDIA: &str = "168.86.128.0/18";
/// What Twilio's termination addresses end in; a trunk that only brings calls has no name before it.
const TWILIO_DOMAIN: &str = "pstn.twilio.com";
/// Numbers that are put on a trunk with one request.
const NUMBERS_MAX: usize = 100;

/// A trunk to be set up.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTrunk {
    /// Numbers of the account whose calls shall come over it.
    #[schema(value_type = Vec<String>, example = json!(["+14155550123"]))]
    numbers: Vec<E164>,
    /// Who answers them.
    #[schema(value_type = Option<String>)]
    inbound_agent: Option<AgentId>,
    /// How calls come: `udp`, `tcp`, or `tls` with encrypted audio. Without it: the safest that this server listens on.
    #[schema(value_type = Option<String>, example = "tls")]
    transport: Option<Transport>,
}

/// A trunk that leads here.
#[derive(Serialize, ToSchema)]
pub struct LedHere {
    /// The carrier's id of it.
    trunk: String,
    /// Where its calls go.
    #[schema(example = "sip:phone.example.com:5061;transport=tls")]
    origination: String,
    /// The SIP connection that takes them.
    connection: Connection,
    /// The numbers on it.
    numbers: Vec<String>,
}

/// Sets up the account's own SIP trunk
///
/// Twilio's Elastic SIP Trunking: the trunk is made or corrected, leads to this server, and has the numbers; should this server not answer,
/// Twilio asks it over HTTP as it does for numbers without a trunk. The same request again corrects what has changed.
#[utoipa::path(post, path = "/api/connections/{id}/sip-trunk", tag = "connections", operation_id = "setUpSipTrunk",
    params(("id" = String, Path)), request_body = NewTrunk, responses((status = OK, body = LedHere)))]
pub async fn set_up(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConnectionId>,
    Body(new): Body<NewTrunk>,
) -> Result<Json<LedHere>, Problem> {
    if new.numbers.is_empty() || new.numbers.len() > NUMBERS_MAX {
        return Err(Problem::invalid("numbers", format!("name 1 to {NUMBERS_MAX} numbers of the account")));
    }
    let (reached, twilio) = reach(&app, &scope, &id).await?;
    let (transport, origination) = address(&app, new.transport)?;
    let held = app.store.held_numbers(&scope, &id).await.about(&id)?;
    let mut found = Vec::with_capacity(new.numbers.len());
    for e164 in &new.numbers {
        found.push(free(&twilio, &reached.connection.name, &held, e164).await?);
    }
    let ours = taking(&app, &scope, &reached.connection, transport).await?;
    let wish = TrunkWish {
        name: label(&id),
        uri: origination.clone(),
        secure: transport == Transport::Tls,
        transfers: true,
        recovery: Some(app.public_url.page(twilio::VOICE)),
    };
    let trunk = twilio.trunk(&wish).await.about(&id)?;
    // Our side first: a call that comes over the trunk must find its number here.
    for number in &found {
        add(&app, &scope, &ours, number, new.inbound_agent.as_ref()).await?;
    }
    for number in &found {
        twilio.attach_to_trunk(&trunk.id, &number.id).await.about(&number.e164)?;
    }
    app.trunks.look();
    tracing::info!(connection.id = %id, trunk = trunk.id, numbers = found.len(), "A SIP trunk was set up at the carrier");
    Ok(Json(LedHere {
        trunk: trunk.id,
        origination,
        connection: ours.into(),
        numbers: new.numbers.into_iter().map(E164::into).collect(),
    }))
}

/// Takes the account's SIP trunk down
///
/// The trunk goes at the carrier, and its numbers lead again where their own settings say; then the SIP connection and its numbers are
/// removed here. The answer is that operation.
#[utoipa::path(delete, path = "/api/connections/{id}/sip-trunk", tag = "connections", operation_id = "takeDownSipTrunk",
    params(("id" = String, Path)), responses((status = NO_CONTENT), (status = ACCEPTED, body = Operation)))]
pub async fn take_down(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConnectionId>,
) -> Result<Response, Problem> {
    let (reached, twilio) = reach(&app, &scope, &id).await?;
    if let Some(Trunk { id: trunk, .. }) = twilio.find_trunk(&label(&id)).await.about(&id)? {
        twilio.remove_trunk(&trunk).await.about(&id)?;
    }
    let named = named(&app, &scope, &connection_name(&reached.connection)).await?;
    let Some(ours) = named.filter(is_ours) else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let lines = app.store.numbers_of_connection(&scope, &ours.id).await.about(&ours.id)?;
    if lines.is_empty() {
        app.store.delete_connection(&scope, &ours.id).await.about(&ours.id)?;
        app.trunks.look();
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let begun = numbers::begin(&app, &scope, &plan::disconnect(&ours.id, &lines)).await.about(&ours.id)?;
    Ok(telephony::accepted(begun).into_response())
}

/// The account, if it is one whose trunks can be set up.
async fn reach(app: &App, scope: &Scope, id: &ConnectionId) -> Result<(Reached, Twilio), Problem> {
    let reached = numbers::reach(app, scope, id).await?;
    match &reached.account {
        Account::Twilio(twilio) => {
            let twilio = twilio.clone();
            Ok((reached, twilio))
        }
        Account::Telnyx(_) => Err(Problem::new(
            Kind::Conflict,
            format!(
                "connection `{}` is of kind telnyx, whose trunks are not set up from here",
                reached.connection.name
            ),
            "import the number through this connection: its calls come over Telnyx' media streams; or make the FQDN connection in \
             Telnyx' portal and a connection of kind sip here",
        )),
    }
}

/// How the trunk is known at the carrier.
fn label(id: &ConnectionId) -> String {
    format!("offhook {id}")
}

/// What the SIP connection that takes the trunk's calls is called here.
fn connection_name(account: &entity::Connection) -> String {
    format!("{} trunk", account.name)
}

/// Where the trunk shall send its calls.
fn address(app: &App, wanted: Option<Transport>) -> Result<(Transport, String), Problem> {
    let listening = |transport| app.trunks.agent().and_then(|agent| agent.address(transport));
    let order = [Transport::Tls, Transport::Tcp, Transport::Udp];
    let found = match wanted {
        Some(transport) => listening(transport).map(|host| (transport, host)),
        None => order.into_iter().find_map(|transport| Some((transport, listening(transport)?))),
    };
    let Some((transport, host)) = found else {
        let how = wanted.map_or("SIP".to_owned(), |transport| format!("SIP over {}", transport.as_str()));
        return Err(Problem::new(
            Kind::Conflict,
            format!("this server does not listen for {how} on an address that a carrier could be told"),
            "set `[sip]` in the server's settings: `tls` (or `tcp`, `udp`) and `public_host`, then start it again",
        ));
    };
    Ok((transport, format!("sip:{host};transport={}", transport.as_str())))
}

/// A number of the account that nothing else here answers for.
async fn free(
    twilio: &Twilio,
    connection: &str,
    held: &[HeldNumber],
    e164: &E164,
) -> Result<OwnNumber, Problem> {
    let Some(number) = twilio.own_number(e164).await.about(e164)? else {
        return Err(Problem::new(
            Kind::Conflict,
            format!("{e164} is not a number of connection `{connection}`'s account"),
            "name numbers of this account",
        ));
    };
    if held.iter().any(|held| held.e164 == *e164) {
        return Err(Problem::new(
            Kind::Conflict,
            format!("{e164} is answered over connection `{connection}` already, without a trunk"),
            "remove it there first: it is given back as it was, and its calls can come over the trunk then",
        ));
    }
    // Twilio drops it when the number is put on a trunk, and nobody could give it back.
    if number.routing.0.get("voice_application_sid").is_some_and(Option::is_some) {
        return Err(Problem::new(
            Kind::Conflict,
            format!(
                "an application of the account takes the calls of {e164}, and Twilio forgets that when the number is put on a trunk"
            ),
            "take the app off the number in Twilio's console if it is not needed any more",
        ));
    }
    Ok(number)
}

/// The SIP connection that takes the trunk's calls: the one that is there, or a new one.
async fn taking(
    app: &App,
    scope: &Scope,
    account: &entity::Connection,
    transport: Transport,
) -> Result<entity::Connection, Problem> {
    let name = connection_name(account);
    let config = settings(transport);
    match named(app, scope, &name).await? {
        Some(there) if !is_ours(&there) => Err(Problem::new(
            Kind::Conflict,
            format!("there is a connection `{name}` already, and it is not this trunk's"),
            "give it another name: the trunk's SIP connection is called so",
        )),
        Some(there) if there.config["transport"] == config["transport"] => Ok(there),
        found => {
            let spec = ConnectionSpec { kind: "sip".into(), name, account: None, config, secret: None };
            Ok(match found {
                Some(there) => app
                    .store
                    .replace_connection(scope, &there.id, there.revision, &spec)
                    .await
                    .about(&there.id)?,
                None => app.store.create_connection(scope, &spec).await?,
            })
        }
    }
}

/// Whether a connection was made for a trunk that only brings calls: one that people make names their own host.
fn is_ours(connection: &entity::Connection) -> bool {
    connection.kind == "sip" && connection.config["domain"] == TWILIO_DOMAIN
}

/// What the SIP connection of one of Twilio's trunks is set to.
fn settings(transport: Transport) -> Value {
    let mut config = json!({
        "domain": TWILIO_DOMAIN,
        "transport": transport,
        "allowed": TWILIO_SIGNALLING,
        "media_networks": [TWILIO_MEDIA],
        // It only brings calls: nobody answers there.
        "options_s": 0,
    });
    if transport == Transport::Tls {
        config["srtp"] = json!("required");
    }
    config
}

async fn named(app: &App, scope: &Scope, name: &str) -> Result<Option<entity::Connection>, Problem> {
    let mut page = Page::first(offhook_store::PAGE_ROWS_MAX);
    loop {
        let listed = app.store.connections(scope, &page).await?;
        if let Some(found) = listed.rows.into_iter().find(|connection| connection.name == name) {
            return Ok(Some(found));
        }
        match listed.next {
            Some(after) => page.after = Some(after),
            None => return Ok(None),
        }
    }
}

/// The number here; one that is here already stays as it is.
async fn add(
    app: &Arc<App>,
    scope: &Scope,
    ours: &entity::Connection,
    number: &OwnNumber,
    agent: Option<&AgentId>,
) -> Result<(), Problem> {
    let spec = NumberSpec {
        name: number.e164.to_string(),
        connection: ours.id.clone(),
        e164: number.e164.clone(),
        capabilities: vec![Capability::Voice],
        settings: json!({}),
        forward_to: None,
        inbound_agent: agent.cloned(),
    };
    match numbers::begin(app, scope, &plan::import(spec.clone(), NumberSource::Sip)).await {
        Ok(_) => Ok(()),
        Err(StoreError::Conflict { .. }) => {
            let lines = app.store.numbers_of_connection(scope, &ours.id).await.about(&ours.id)?;
            match lines.iter().any(|line| line.e164 == number.e164) {
                true => Ok(()),
                false => Err(Problem::new(
                    Kind::Conflict,
                    format!("{} is held by another number here", number.e164),
                    "remove it there first",
                )),
            }
        }
        Err(error) => Err(super::phone_numbers::refusal(error, &spec)),
    }
}
