//! Numbers at carriers: what can be bought, what an account has, and the operations that bring a number here, step by step. It does
//! not know in which steps.

use super::request::{Body, Id, Name, Paging, Params};
use super::{Page, Time, words};
use crate::app::App;
use crate::auth::Caller;
use crate::numbers::{self, plan};
use crate::problem::{About, Kind, Problem};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use offhook_carriers::{AvailableNumber as Available, NumberKind, NumberSearch, OwnNumber as Own, Price};
use offhook_core::entity::{self, Capability, NumberSource, OperationKind, OperationStatus};
use offhook_core::provisioning::{Settings, There};
use offhook_core::{AgentId, ConnectionId, E164, OperationId};
use offhook_store::{HeldNumber, NumberSpec, Scope, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Numbers that one search shows when the request does not say.
const SEARCH_LIMIT: u16 = 30;
/// And at most.
const SEARCH_LIMIT_MAX: u16 = 100;
/// Numbers of an account that are listed.
const OWN_NUMBERS_MAX: usize = 1_000;

/// Which numbers are looked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// `con_…`: the carrier account that would buy.
    #[param(value_type = String)]
    connection: ConnectionId,
    /// ISO 3166-1 alpha-2.
    #[param(example = "US")]
    country: String,
    /// `local`, `mobile`, `toll_free`, `national`, `voip` or `shared_cost`; all kinds if it is left out.
    #[param(value_type = Option<String>)]
    kind: Option<NumberKind>,
    /// The national area code.
    #[param(example = "415")]
    area_code: Option<String>,
    /// The city.
    locality: Option<String>,
    /// State or province, as the country abbreviates it.
    region: Option<String>,
    /// Digits that the number contains.
    contains: Option<String>,
    /// What it must be able to carry, separated by commas.
    #[param(example = "voice,sms")]
    capabilities: Option<String>,
    /// How many numbers, 30 if it is not said.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u16>,
}

/// A number that can be bought now.
#[derive(Serialize, ToSchema)]
pub struct AvailableNumber {
    /// The number.
    #[schema(example = "+14155550123")]
    e164: String,
    /// What kind of number.
    #[schema(value_type = String, example = "local")]
    kind: NumberKind,
    /// Its city, where the carrier tells.
    locality: Option<String>,
    /// Its state or province, where the carrier tells.
    region: Option<String>,
    /// ISO 3166-1 alpha-2.
    country: String,
    /// What it can carry.
    #[schema(schema_with = words::capabilities)]
    capabilities: Vec<Capability>,
    /// What it costs a month, where the carrier tells.
    monthly: Option<Cost>,
    /// What it costs once, where the carrier tells.
    upfront: Option<Cost>,
    /// The regulator wants an address or papers of whoever buys it: those are given to the carrier first.
    needs_papers: bool,
}

/// An amount of money.
#[derive(Serialize, ToSchema)]
pub struct Cost {
    /// Millionths of the currency.
    micros: i64,
    /// ISO 4217.
    currency: String,
}

/// All that was found.
#[derive(Serialize, ToSchema)]
pub struct AvailableNumbers {
    /// The numbers.
    items: Vec<AvailableNumber>,
}

/// A number of the connection's account.
#[derive(Serialize, ToSchema)]
pub struct OwnNumber {
    /// The number.
    #[schema(example = "+14155550123")]
    e164: String,
    /// What it can carry.
    #[schema(schema_with = words::capabilities)]
    capabilities: Vec<Capability>,
    /// Where its calls go now, in the carrier's words.
    leads_to: String,
    /// Who has it here already; it cannot be imported then.
    holder: Option<String>,
    /// `num_…`, if it is in this workspace.
    number: Option<String>,
}

/// The numbers of an account.
#[derive(Serialize, ToSchema)]
pub struct OwnNumbers {
    /// The numbers.
    items: Vec<OwnNumber>,
}

/// A number to be bought or imported.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// `con_…`: the carrier account.
    #[schema(value_type = String)]
    connection: ConnectionId,
    /// The number, in E.164.
    #[schema(value_type = String, example = "+14155550123")]
    e164: E164,
    /// Its name; the number itself if it is left out.
    name: Option<Name>,
    /// Where calls go that are forwarded, in E.164.
    #[schema(value_type = Option<String>)]
    forward_to: Option<E164>,
    /// `agt_…`: who answers.
    #[schema(value_type = Option<String>)]
    inbound_agent: Option<AgentId>,
}

/// Something that is done to numbers at their carrier; it goes on by itself.
#[derive(Serialize, ToSchema)]
pub struct Operation {
    /// `opr_…`
    id: String,
    /// What is done.
    #[schema(schema_with = words::operation_kind)]
    kind: OperationKind,
    /// How far it is.
    #[schema(schema_with = words::operation_status)]
    status: OperationStatus,
    /// Why it did not come to what was wanted.
    reason: Option<String>,
    /// What is being done at this moment.
    doing: Option<String>,
    /// `agt_…`: the agent that is started or stopped.
    agent: Option<String>,
    /// `con_…`: the connection that is removed.
    connection: Option<String>,
    /// The numbers, in the order in which they are seen to.
    numbers: Vec<OperationNumber>,
    /// When it began.
    created_at: Time,
    /// When it ended.
    ended_at: Option<Time>,
}

/// A number of an operation.
#[derive(Serialize, ToSchema)]
pub struct OperationNumber {
    /// `num_…`; it may be gone since.
    id: String,
    /// The number.
    e164: String,
    /// Whether nothing more is to be done to it.
    over: bool,
}

/// An operation with what it has done.
#[derive(Serialize, ToSchema)]
pub struct OperationLog {
    #[serde(flatten)]
    operation: Operation,
    /// Each request to a carrier, and what came of it.
    steps: Vec<Step>,
}

/// One request to a carrier, and what came of it.
#[derive(Serialize, ToSchema)]
pub struct Step {
    /// When it was begun.
    at: Time,
    /// When it was answered.
    ended_at: Time,
    /// The number; null for what concerns all of them.
    e164: Option<String>,
    /// What was done, in words.
    what: String,
    /// What went wrong, as the carrier says it.
    error: Option<String>,
}

/// Which operations are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OfAgent {
    /// `agt_…`: those of one agent.
    #[param(value_type = Option<String>)]
    agent: Option<AgentId>,
}

impl From<Available> for AvailableNumber {
    fn from(number: Available) -> Self {
        let cost = |price: Price| Cost { micros: price.micros, currency: price.currency };
        AvailableNumber {
            e164: number.e164.into(),
            kind: number.kind,
            locality: number.locality,
            region: number.region,
            country: number.country,
            capabilities: number.capabilities,
            monthly: number.monthly.map(cost),
            upfront: number.upfront.map(cost),
            needs_papers: number.needs_papers,
        }
    }
}

impl OwnNumber {
    fn of(number: Own, held: &[HeldNumber]) -> Self {
        let holder = held.iter().find(|held| held.e164 == number.e164);
        let there =
            There { id: number.id, capabilities: number.capabilities, settings: Settings(number.routing.0) };
        OwnNumber {
            e164: number.e164.into(),
            leads_to: numbers::words::leads_to(&there),
            capabilities: there.capabilities,
            holder: holder.map(|held| held.holder.clone()),
            number: holder.and_then(|held| held.number.clone()).map(Into::into),
        }
    }
}

impl From<entity::Operation> for Operation {
    fn from(row: entity::Operation) -> Self {
        let current = row.lines.iter().find(|line| line.machine.outcome().is_none());
        let doing = current.filter(|_| row.status == OperationStatus::Running);
        let doing = doing.and_then(|line| Some(numbers::words::step(line, &line.machine.request()?)));
        let number = |line: entity::OperationLine| OperationNumber {
            id: line.number.into(),
            e164: line.e164.into(),
            over: line.machine.outcome().is_some(),
        };
        Operation {
            id: row.id.into(),
            kind: row.kind,
            status: row.status,
            reason: row.reason,
            doing,
            agent: row.agent.map(AgentId::into),
            connection: row.connection.map(ConnectionId::into),
            numbers: row.lines.into_iter().map(number).collect(),
            created_at: Time::from_us(row.created_at_us),
            ended_at: row.ended_at_us.map(Time::from_us),
        }
    }
}

impl From<entity::OperationStep> for Step {
    fn from(row: entity::OperationStep) -> Self {
        Step {
            at: Time::from_us(row.at_us),
            ended_at: Time::from_us(row.ended_at_us),
            e164: row.e164.map(E164::into),
            what: row.what,
            error: row.error,
        }
    }
}

/// Looks for numbers that can be bought now
#[utoipa::path(get, path = "/api/telephony/available-numbers", tag = "telephony",
    operation_id = "searchAvailableNumbers", params(Search), responses((status = OK, body = AvailableNumbers)))]
pub async fn available(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Params(search): Params<Search>,
) -> Result<Json<AvailableNumbers>, Problem> {
    let connection = search.connection.clone();
    let wanted = search.wanted()?;
    let reached = numbers::reach(&app, &scope, &connection).await?;
    let found = reached.account.search(&wanted).await.about(&connection)?;
    Ok(Json(AvailableNumbers { items: found.into_iter().map(Into::into).collect() }))
}

impl Search {
    fn wanted(self) -> Result<NumberSearch, Problem> {
        let wrong = |detail: &str, fix: &str| Err(Problem::new(Kind::Malformed, detail, fix));
        let country = self.country.trim().to_ascii_uppercase();
        if country.len() != 2 || !country.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return wrong("country: this is no country", "write it in two letters, as US (ISO 3166-1)");
        }
        let limit = self.limit.unwrap_or(SEARCH_LIMIT);
        if !(1..=SEARCH_LIMIT_MAX).contains(&limit) {
            return wrong("limit: too few or too many numbers", "ask for 1 to 100 numbers");
        }
        let mut capabilities = Vec::new();
        for word in self.capabilities.iter().flat_map(|listed| listed.split(',')) {
            match word.trim().parse() {
                Ok(capability) => capabilities.push(capability),
                Err(error) => {
                    return wrong(&format!("capabilities: {error}"), "name them separated by commas");
                }
            }
        }
        let given = |text: Option<String>| text.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        Ok(NumberSearch {
            country,
            kind: self.kind,
            area_code: given(self.area_code),
            locality: given(self.locality),
            region: given(self.region),
            contains: given(self.contains),
            capabilities,
            limit,
        })
    }
}

/// Buys a number and points it here
///
/// The answer comes at once, the purchase takes a while: the operation tells how far it is.
#[utoipa::path(post, path = "/api/telephony/managed/purchase-number", tag = "telephony",
    operation_id = "purchaseNumber", request_body = Wanted, responses((status = ACCEPTED, body = Operation)))]
pub async fn purchase(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Body(wanted): Body<Wanted>,
) -> Result<(StatusCode, Json<Operation>), Problem> {
    numbers::reach(&app, &scope, &wanted.connection).await?;
    begin_with(&app, &scope, wanted, plan::buy).await
}

/// Lists the numbers of a connection's account, with those that are here already
#[utoipa::path(get, path = "/api/connections/{id}/numbers", tag = "telephony", operation_id = "listAccountNumbers",
    params(("id" = String, Path)), responses((status = OK, body = OwnNumbers)))]
pub async fn own(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<ConnectionId>,
) -> Result<Json<OwnNumbers>, Problem> {
    let reached = numbers::reach(&app, &scope, &id).await?;
    let held = app.store.held_numbers(&scope, &id).await.about(&id)?;
    let own = reached.account.own_numbers(OWN_NUMBERS_MAX).await.about(&id)?;
    Ok(Json(OwnNumbers { items: own.into_iter().map(|number| OwnNumber::of(number, &held)).collect() }))
}

/// Points a number of the connection's account here, and keeps where it led before
///
/// A SIP trunk's number is added as it is: the trunk sends it here.
#[utoipa::path(post, path = "/api/telephony/byop/import-number", tag = "telephony", operation_id = "importNumber",
    request_body = Wanted, responses((status = ACCEPTED, body = Operation)))]
pub async fn import(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Body(wanted): Body<Wanted>,
) -> Result<(StatusCode, Json<Operation>), Problem> {
    let connection = app.store.connection(&scope, &wanted.connection).await.about(&wanted.connection)?;
    let source = match connection.kind.as_str() {
        "sip" => NumberSource::Sip,
        _ => {
            let reached = numbers::reach(&app, &scope, &wanted.connection).await?;
            belongs(&reached, &wanted.e164).await?;
            NumberSource::Byo
        }
    };
    begin_with(&app, &scope, wanted, |spec| plan::import(spec, source)).await
}

/// Whether a number is the account's, before anything is begun with it.
async fn belongs(reached: &numbers::Reached, e164: &E164) -> Result<(), Problem> {
    match reached.account.own_number(e164).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Problem::new(
            Kind::Conflict,
            format!("{e164} is not a number of connection `{}`'s account", reached.connection.name),
            "import it through a connection to the account that has it, or buy it",
        )),
        // The operation asks again, and tells.
        Err(error) => match Problem::from(error) {
            problem if problem.may_pass() => Ok(()),
            problem => Err(problem.about(e164)),
        },
    }
}

async fn begin_with(
    app: &Arc<App>,
    scope: &Scope,
    wanted: Wanted,
    operation: impl FnOnce(NumberSpec) -> offhook_store::NewOperation,
) -> Result<(StatusCode, Json<Operation>), Problem> {
    let spec = NumberSpec {
        name: wanted.name.map_or_else(|| wanted.e164.to_string(), Name::into),
        connection: wanted.connection,
        e164: wanted.e164,
        capabilities: vec![Capability::Voice],
        settings: Value::Object(Map::new()),
        forward_to: wanted.forward_to,
        inbound_agent: wanted.inbound_agent,
    };
    let begun = numbers::begin(app, scope, &operation(spec.clone())).await;
    begun.map(accepted).map_err(|error| super::phone_numbers::refusal(error, &spec))
}

/// An operation that has begun, as an answer.
pub(super) fn accepted(operation: entity::Operation) -> (StatusCode, Json<Operation>) {
    (StatusCode::ACCEPTED, Json(operation.into()))
}

/// Lists operations
#[utoipa::path(get, path = "/api/telephony/operations", tag = "telephony", operation_id = "listOperations",
    params(Paging, OfAgent), responses((status = OK, body = Page<Operation>)))]
pub async fn operations(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Params(paging): Params<Paging>,
    Params(of): Params<OfAgent>,
) -> Result<Json<Page<Operation>>, Problem> {
    let listed = app.store.operations(&scope, of.agent.as_ref(), &paging.page()?).await;
    Ok(Json(Page::of(listed.map_err(|error| match &of.agent {
        Some(agent) => Problem::from(error).about(agent),
        None => error.into(),
    })?)))
}

/// Reads an operation, with each of its steps
#[utoipa::path(get, path = "/api/telephony/operations/{id}", tag = "telephony", operation_id = "readOperation",
    params(("id" = String, Path)), responses((status = OK, body = OperationLog)))]
pub async fn operation(
    State(app): State<Arc<App>>,
    Caller(scope): Caller,
    Id(id): Id<OperationId>,
) -> Result<Json<OperationLog>, Problem> {
    let operation = app.store.operation(&scope, &id).await.about(&id)?;
    Ok(Json(with_steps(&app, &scope, operation).await.about(&id)?))
}

/// An operation with what it has done.
pub(super) async fn with_steps(
    app: &App,
    scope: &Scope,
    operation: entity::Operation,
) -> Result<OperationLog, StoreError> {
    let steps = app.store.operation_steps(scope, &operation.id).await?;
    Ok(OperationLog { operation: operation.into(), steps: steps.into_iter().map(Into::into).collect() })
}
