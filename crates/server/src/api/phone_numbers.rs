//! Phone numbers and what is set on them: which account they are reached through and which agent answers. It does not know how.

use super::request::{Body, Id, Name, Paging, Params, given};
use super::telephony::{self, Operation};
use super::{Page, Time, words};
use crate::app::App;
use crate::auth::Caller;
use crate::numbers::{self, drift, plan};
use crate::problem::{About, Kind, Problem};
use crate::qr;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use offhook_core::entity::{self, Capability, NumberSource, NumberStatus};
use offhook_core::{AgentId, ConnectionId, E164, PhoneNumberId};
use offhook_store::{NumberSpec, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// A phone number and everything set on it.
#[derive(Serialize, ToSchema)]
pub struct PhoneNumber {
    /// `num_…`
    id: String,
    /// `con_…`: the carrier account it is reached through.
    connection: String,
    /// The number.
    #[schema(example = "+14155550123")]
    e164: String,
    /// Its name.
    name: String,
    /// What it can carry.
    #[schema(schema_with = words::capabilities)]
    capabilities: Vec<Capability>,
    /// Where calls go that are forwarded.
    forward_to: Option<String>,
    /// `agt_…`: who answers.
    inbound_agent: Option<String>,
    /// How it came here.
    #[schema(schema_with = words::number_source)]
    source: NumberSource,
    /// Whether it answers.
    #[schema(schema_with = words::number_status)]
    status: NumberStatus,
    /// Why it does not.
    status_reason: Option<String>,
    /// `opr_…`: what is being done to it at its carrier.
    operation: Option<String>,
    /// Where it led before it came here, in the carrier's words: it is given back when it goes. Null where we have not pointed it here.
    previous: Option<BTreeMap<String, Option<String>>>,
    /// When it was last looked up at its carrier.
    checked_at: Option<Time>,
    /// Grows with every change.
    revision: i64,
    /// When it was made.
    created_at: Time,
    /// When its settings last changed.
    updated_at: Time,
}

/// A number to be added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPhoneNumber {
    /// `con_…`: the carrier account it is reached through.
    #[schema(value_type = String)]
    connection: ConnectionId,
    /// The number, in E.164.
    #[schema(value_type = String, example = "+14155550123")]
    e164: E164,
    /// Its name; the number itself if it is left out.
    name: Option<Name>,
    /// What it can carry; calls if it is left out.
    #[serde(default = "calls_only")]
    #[schema(schema_with = words::capabilities, required = false)]
    capabilities: Vec<Capability>,
    /// Where calls go that are forwarded, in E.164.
    #[schema(value_type = Option<String>)]
    forward_to: Option<E164>,
    /// `agt_…`: who answers.
    #[schema(value_type = Option<String>)]
    inbound_agent: Option<AgentId>,
}

/// What is to change on a number; what is left out stays, what is null is cleared.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PhoneNumberChange {
    #[schema(value_type = Option<String>)]
    connection: Option<ConnectionId>,
    name: Option<Name>,
    #[schema(schema_with = words::capabilities, required = false)]
    capabilities: Option<Vec<Capability>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    forward_to: Option<Option<E164>>,
    /// The agent that gets the next call.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    inbound_agent: Option<Option<AgentId>>,
    /// The revision that the change is based on: when another change came in between, it is refused.
    revision: Option<i64>,
}

fn calls_only() -> Vec<Capability> {
    vec![Capability::Voice]
}

impl From<entity::PhoneNumber> for PhoneNumber {
    fn from(row: entity::PhoneNumber) -> Self {
        PhoneNumber {
            id: row.id.into(),
            connection: row.connection.into(),
            e164: row.e164.into(),
            name: row.name,
            capabilities: row.capabilities,
            forward_to: row.forward_to.map(E164::into),
            inbound_agent: row.inbound_agent.map(AgentId::into),
            source: row.source,
            status: row.status,
            status_reason: row.status_reason,
            operation: row.operation.map(Into::into),
            previous: row.route.map(|route| route.previous.shown().0),
            checked_at: row.checked_at_us.map(Time::from_us),
            revision: row.revision,
            created_at: Time::from_us(row.created_at_us),
            updated_at: Time::from_us(row.updated_at_us),
        }
    }
}

/// Lists numbers
#[utoipa::path(get, path = "/api/phone-numbers", tag = "phone numbers", operation_id = "listPhoneNumbers",
    params(Paging), responses((status = OK, body = Page<PhoneNumber>)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<PhoneNumber>>, Problem> {
    Ok(Json(Page::of(app.store.numbers(&scope, &paging.page()?).await?)))
}

/// Adds a number
#[utoipa::path(post, path = "/api/phone-numbers", tag = "phone numbers", operation_id = "createPhoneNumber",
    request_body = NewPhoneNumber, responses((status = CREATED, body = PhoneNumber)))]
pub async fn create(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Body(new): Body<NewPhoneNumber>,
) -> Result<(StatusCode, Json<PhoneNumber>), Problem> {
    let spec = NumberSpec {
        name: new.name.map_or_else(|| new.e164.to_string(), Name::into),
        connection: new.connection,
        e164: new.e164,
        capabilities: new.capabilities,
        settings: Value::Object(Map::new()),
        forward_to: new.forward_to,
        inbound_agent: new.inbound_agent,
    };
    carries_something(&spec)?;
    let number = app.store.create_number(&scope, &spec).await.map_err(|error| refusal(error, &spec))?;
    Ok((StatusCode::CREATED, Json(number.into())))
}

/// Reads a number
#[utoipa::path(get, path = "/api/phone-numbers/{id}", tag = "phone numbers", operation_id = "readPhoneNumber",
    params(("id" = String, Path)), responses((status = OK, body = PhoneNumber)))]
pub async fn read(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<PhoneNumberId>,
) -> Result<Json<PhoneNumber>, Problem> {
    Ok(Json(app.store.number(&scope, &id).await.about(&id)?.into()))
}

/// Changes a number; the next call gets it
#[utoipa::path(patch, path = "/api/phone-numbers/{id}", tag = "phone numbers", operation_id = "changePhoneNumber",
    params(("id" = String, Path)), request_body = PhoneNumberChange, responses((status = OK, body = PhoneNumber)))]
pub async fn change(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<PhoneNumberId>,
    Body(change): Body<PhoneNumberChange>,
) -> Result<Json<PhoneNumber>, Problem> {
    let now = app.store.number(&scope, &id).await.about(&id)?;
    let spec = NumberSpec {
        connection: change.connection.unwrap_or(now.connection),
        e164: now.e164,
        name: change.name.map_or(now.name, Name::into),
        capabilities: change.capabilities.unwrap_or(now.capabilities),
        settings: now.settings,
        forward_to: change.forward_to.unwrap_or(now.forward_to),
        inbound_agent: change.inbound_agent.unwrap_or(now.inbound_agent),
    };
    carries_something(&spec)?;
    let revision = change.revision.unwrap_or(now.revision);
    let changed = app.store.replace_number(&scope, &id, revision, &spec).await;
    Ok(Json(changed.map_err(|error| refusal(error, &spec))?.into()))
}

/// How a number is removed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// `false`: the carrier is not asked, and the number goes on leading here, to nobody.
    give_back: Option<bool>,
}

/// Removes a number; its conversations stay
///
/// A number that was pointed here is given back as it was before, which takes a moment: the answer is the operation then. It stays in
/// the carrier's account.
#[utoipa::path(delete, path = "/api/phone-numbers/{id}", tag = "phone numbers", operation_id = "deletePhoneNumber",
    params(("id" = String, Path), Removal),
    responses((status = NO_CONTENT), (status = ACCEPTED, body = Operation)))]
pub async fn delete(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<PhoneNumberId>,
    Params(removal): Params<Removal>,
) -> Result<Response, Problem> {
    let number = app.store.number(&scope, &id).await.about(&id)?;
    if let Some(operation) = plan::remove(&number).filter(|_| removal.give_back != Some(false)) {
        let begun = numbers::begin(&app, &scope, &operation).await.about(&id)?;
        return Ok(telephony::accepted(begun).into_response());
    }
    app.store.delete_number(&scope, &id).await.about(&id)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What must be said before a number goes for good.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The number once more, in E.164.
    #[schema(value_type = Option<String>, example = "+14155550123")]
    confirm: Option<E164>,
}

/// Gives a number up: it leaves the carrier's account for good, and somebody else may get it
#[utoipa::path(post, path = "/api/phone-numbers/{id}/release", tag = "phone numbers",
    operation_id = "releasePhoneNumber", params(("id" = String, Path)), request_body = Release,
    responses((status = ACCEPTED, body = Operation)))]
pub async fn release(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<PhoneNumberId>,
    Body(release): Body<Release>,
) -> Result<(StatusCode, Json<Operation>), Problem> {
    let number = app.store.number(&scope, &id).await.about(&id)?;
    if number.source == NumberSource::Sip {
        let fix = "remove it here, and give it up where the trunk comes from";
        return Err(
            Problem::new(Kind::Conflict, "a trunk's number cannot be released from here", fix).about(&id)
        );
    }
    if release.confirm.as_ref() != Some(&number.e164) {
        let e164 = &number.e164;
        let detail =
            format!("{e164} would leave the carrier's account for good, and somebody else may get it");
        let fix = format!(
            "if that is wanted, send `{{\"confirm\": \"{e164}\"}}`; to keep it in the account, delete it instead"
        );
        return Err(Problem::new(Kind::Conflict, detail, fix).about(&id));
    }
    let begun = numbers::begin(&app, &scope, &plan::release(&number)).await;
    begun.map(telephony::accepted).about(&id)
}

/// How a number stands at its carrier.
#[derive(Serialize, ToSchema)]
pub struct NumberCheck {
    /// The number, with what was found.
    number: PhoneNumber,
    /// The settings that are not as they should be.
    differences: Vec<Difference>,
}

/// A setting at the carrier that is not as it should be.
#[derive(Serialize, ToSchema)]
pub struct Difference {
    /// The setting, as the carrier calls it.
    #[schema(example = "voice_url")]
    setting: String,
    /// What it is, in words.
    about: String,
    /// What it should be.
    ours: Option<String>,
    /// What it is now.
    theirs: Option<String>,
}

/// Looks a number up at its carrier, and shows where it leads elsewhere
#[utoipa::path(post, path = "/api/phone-numbers/{id}/check", tag = "phone numbers", operation_id = "checkPhoneNumber",
    params(("id" = String, Path)), responses((status = OK, body = NumberCheck)))]
pub async fn check(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<PhoneNumberId>,
) -> Result<Json<NumberCheck>, Problem> {
    let number = app.store.number(&scope, &id).await.about(&id)?;
    let checked = drift::check(&app, &scope, number).await?;
    let differences = checked.differences.into_iter().map(|(difference, about)| Difference {
        setting: difference.setting,
        about: about.into(),
        ours: difference.ours,
        theirs: difference.theirs,
    });
    Ok(Json(NumberCheck { number: checked.number.into(), differences: differences.collect() }))
}

/// Points a number here again that leads elsewhere
#[utoipa::path(post, path = "/api/phone-numbers/{id}/take-back", tag = "phone numbers",
    operation_id = "takeBackPhoneNumber", params(("id" = String, Path)),
    responses((status = ACCEPTED, body = Operation)))]
pub async fn take_back(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<PhoneNumberId>,
) -> Result<(StatusCode, Json<Operation>), Problem> {
    let number = app.store.number(&scope, &id).await.about(&id)?;
    if number.source == NumberSource::Sip {
        let fix = "look at the trunk where it comes from";
        return Err(
            Problem::new(Kind::Conflict, "a trunk's number is sent here by the trunk", fix).about(&id)
        );
    }
    let begun = numbers::begin(&app, &scope, &plan::take_back(&number)).await;
    begun.map(telephony::accepted).about(&id)
}

/// Which code is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct CodeOf {
    /// `call` (`tel:`) or `text` (`sms:`); `call` if it is left out.
    #[serde(default, rename = "for")]
    #[param(inline)]
    purpose: Purpose,
    /// `png` or `svg`; `svg` if it is left out.
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Purpose {
    #[default]
    Call,
    Text,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Png,
    #[default]
    Svg,
}

/// Shows a number as a QR code that a telephone can scan
#[utoipa::path(get, path = "/api/phone-numbers/{id}/qr", tag = "phone numbers", operation_id = "drawPhoneNumber",
    params(("id" = String, Path), CodeOf),
    responses((status = OK, content((String = "image/svg+xml"), (Vec<u8> = "image/png")))))]
pub async fn qr(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<PhoneNumberId>,
    Params(wanted): Params<CodeOf>,
) -> Result<Response, Problem> {
    let number = app.store.number(&scope, &id).await.about(&id)?;
    let scheme = match wanted.purpose {
        Purpose::Call => "tel",
        Purpose::Text if number.capabilities.contains(&Capability::Sms) => "sms",
        Purpose::Text => {
            let fix = "show a code for calls, or let the number carry texts";
            return Err(Problem::new(Kind::Conflict, "this number takes no texts", fix).about(&id));
        }
    };
    let code = qr::Code::of(&format!("{scheme}:{}", number.e164));
    Ok(match wanted.format {
        Format::Svg => ([(header::CONTENT_TYPE, "image/svg+xml")], code.svg()).into_response(),
        Format::Png => ([(header::CONTENT_TYPE, "image/png")], code.png()).into_response(),
    })
}

fn carries_something(spec: &NumberSpec) -> Result<(), Problem> {
    match spec.capabilities.is_empty() {
        true => Err(Problem::invalid(
            "capabilities",
            "a number carries at least one thing: name it, or leave the field out",
        )),
        false => Ok(()),
    }
}

/// Why a number cannot be so, naming what it refers to and what is not there.
pub(super) fn refusal(error: StoreError, spec: &NumberSpec) -> Problem {
    let missing = match &error {
        StoreError::NotFound { what: "connection" } => Some(spec.connection.as_str()),
        StoreError::NotFound { what: "agent" } => spec.inbound_agent.as_ref().map(AgentId::as_str),
        _ => None,
    };
    Problem::from(error).about(missing.unwrap_or(spec.e164.as_str()))
}
