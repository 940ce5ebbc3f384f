//! One request to a carrier about a number, and its answer as the machine takes it. It does not know why it is asked.

use super::reach;
use crate::app::App;
use crate::carrier::{telnyx, twilio};
use crate::problem::Problem;
use offhook_carriers::{Account, Bought, CarrierError, OurHooks, OwnNumber, Routing};
use offhook_core::entity::{Connection, OperationLine};
use offhook_core::provisioning::{Answer, Failure, Purchase, Request, Settings, There};
use offhook_store::Scope;

/// Asks the carrier of a line.
pub async fn ask(app: &App, scope: &Scope, line: &OperationLine, request: Request) -> Answer {
    let reached = match reach(app, scope, &line.connection).await {
        Ok(reached) => reached,
        Err(problem) => return Answer::Failed(unreached(&problem)),
    };
    let label = format!("offhook {}", line.connection);
    let Some(hooks) = hooks(app, &reached.connection) else {
        let reason = format!("numbers of {} are not pointed here", reached.connection.kind);
        return Answer::Failed(Failure::Refused { reason });
    };
    let account = &reached.account;
    let answered = match request {
        Request::Look => account.own_number(&line.e164).await.map(|found| Answer::Looked(found.map(there))),
        Request::Prepare => {
            account.routing_to(&hooks, &label).await.map(|routing| Answer::Prepared(Settings(routing.0)))
        }
        Request::Buy { settings } => {
            account.buy(&line.e164, &Routing(settings.0), line.number.as_str()).await.map(purchase)
        }
        Request::FindOrder => account.order_of(line.number.as_str()).await.map(Answer::Order),
        Request::FollowOrder { order } => account.order(&order).await.map(purchase),
        Request::Set { there, settings } => set(account, line, there, settings).await,
        Request::Release { there } => {
            account.release(&own_number(line, there)).await.map(|()| Answer::Released)
        }
    };
    answered.unwrap_or_else(|error| Answer::Failed(failure(error)))
}

async fn set(
    account: &Account,
    line: &OperationLine,
    before: There,
    settings: Settings,
) -> Result<Answer, CarrierError> {
    match account.route(&own_number(line, before), &Routing(settings.0)).await {
        Ok(now) => Ok(Answer::Looked(Some(there(now)))),
        // It was there a moment ago: only a look tells.
        Err(CarrierError::NotFound) => Err(CarrierError::OutcomeUnknown { cause: "it is not there".into() }),
        Err(error) => Err(error),
    }
}

/// Where numbers of a connection are sent; `None` if they are not sent here by us.
///
/// Texts stay where they are.
pub fn hooks(app: &App, connection: &Connection) -> Option<OurHooks> {
    let page = |path: &str| app.public_url.page(path);
    let pages = match connection.kind.as_str() {
        "twilio" => (twilio::VOICE, twilio::VOICE_FALLBACK, twilio::STATUS),
        "telnyx" => (telnyx::VOICE, telnyx::VOICE, telnyx::VOICE),
        _ => return None,
    };
    Some(OurHooks {
        voice: page(pages.0),
        voice_fallback: twilio::fallback(connection).unwrap_or_else(|| page(pages.1)),
        status: page(pages.2),
        messages: None,
    })
}

fn there(number: OwnNumber) -> There {
    There { id: number.id, capabilities: number.capabilities, settings: Settings(number.routing.0) }
}

fn own_number(line: &OperationLine, there: There) -> OwnNumber {
    OwnNumber {
        id: there.id,
        e164: line.e164.clone(),
        capabilities: there.capabilities,
        routing: Routing(there.settings.0),
    }
}

fn purchase(bought: Bought) -> Answer {
    Answer::Purchase(match bought {
        Bought::Done => Purchase::Done,
        Bought::Ordered { order } => Purchase::Ordered(order),
        Bought::Failed { reason } => Purchase::Failed(reason),
    })
}

/// The carrier was not asked.
fn unreached(problem: &Problem) -> Failure {
    match problem.may_pass() {
        true => Failure::Passing { reason: problem.sentence(), after_ms: None },
        false => Failure::Refused { reason: problem.sentence() },
    }
}

fn failure(error: CarrierError) -> Failure {
    let after_ms = match &error {
        CarrierError::RateLimited { retry_after_s } => retry_after_s.map(|s| s.saturating_mul(1_000)),
        _ => None,
    };
    match error {
        CarrierError::OutcomeUnknown { .. } => Failure::Unknown { reason: error.to_string() },
        CarrierError::RateLimited { .. } | CarrierError::Unreachable { .. } => {
            Failure::Passing { reason: error.to_string(), after_ms }
        }
        error => Failure::Refused { reason: Problem::from(error).sentence() },
    }
}
