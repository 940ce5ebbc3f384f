//! Whether numbers still lead here: somebody may have changed that at the carrier. What differs is shown, and changed by nobody unless
//! they are told to.

use super::{Reached, ask, reach};
use crate::app::App;
use crate::problem::{About, Kind, Problem, chain};
use offhook_carriers::Account;
use offhook_core::entity::{NumberSource, PhoneNumber};
use offhook_core::provisioning::{Difference, Settings};
use offhook_store::Scope;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How long a number is believed to lead here.
const BELIEVED_US: i64 = 15 * 60 * 1_000_000;
/// How often it is looked for numbers that are due.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Numbers that are looked up at once: carriers bound how often they are asked.
const NUMBERS_AT_ONCE: u32 = 16;

/// How a number stands at its carrier.
#[derive(Debug)]
pub struct Checked {
    /// The number as it is here now.
    pub number: PhoneNumber,
    /// The settings that are not as they should be, as they may be shown, each with what it is in words.
    pub differences: Vec<(Difference, &'static str)>,
}

/// Looks whether numbers still lead here, for as long as it is polled.
pub async fn run(app: &Arc<App>) -> Infallible {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Whoever starts has more urgent things to do.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if app.around.registry.is_draining() {
            continue;
        }
        let since_us = app.environment.now_us().saturating_sub(BELIEVED_US);
        match app.store.claim_unchecked(since_us, NUMBERS_AT_ONCE).await {
            Ok(due) => {
                for (scope, number) in due {
                    look(app, &scope, number).await;
                }
            }
            Err(error) if error.is_transient() => {}
            Err(error) => {
                tracing::error!(error = chain(&error), "Numbers were not looked up at their carriers")
            }
        }
    }
}

async fn look(app: &App, scope: &Scope, number: PhoneNumber) {
    let (id, was_well) = (number.id.clone(), number.status_reason.is_none());
    match check(app, scope, number).await {
        Ok(checked) if !checked.differences.is_empty() && was_well => {
            let reason = checked.number.status_reason;
            tracing::warn!(number.id = %id, pii.reason = reason, "A number does not lead here any more");
        }
        Ok(_) => {}
        Err(problem) => {
            tracing::warn!(number.id = %id, error = problem.sentence(), "A number was not looked up")
        }
    }
}

/// Looks a number up at its carrier, and notes how it stands.
///
/// # Errors
/// When the carrier could not be asked: what was known stays known.
pub async fn check(app: &App, scope: &Scope, number: PhoneNumber) -> Result<Checked, Problem> {
    let id = number.id.clone();
    if number.source == NumberSource::Sip {
        return Ok(Checked { number, differences: vec![] });
    }
    let reached = reach(app, scope, &number.connection).await?;
    let account = &reached.account;
    let found = account.own_number(&number.e164).await.about(&id)?;
    let Some(found) = found else {
        let fault = format!(
            "it is not among the numbers of connection `{}` any more: remove it, or import it through the account it is in",
            reached.connection.name
        );
        let number = app.store.number_checked(scope, &id, Some(&fault)).await.about(&id)?;
        return Ok(Checked { number, differences: vec![] });
    };
    let ours = ours(app, &reached, &number).await.about(&id)?;
    let differences = ours.differences(&Settings(found.routing.0));
    let differences: Vec<_> = differences.into_iter().map(Difference::shown).collect();
    // Given back, it leads where it should.
    let given_back = number.route.as_ref().is_some_and(|route| !route.leads_here);
    let fault = fault(account, &differences).filter(|_| !given_back);
    let number = app.store.number_checked(scope, &id, fault.as_deref()).await.about(&id)?;
    let differences = differences.into_iter().map(|difference| {
        let words = account.setting(&difference.setting);
        (difference, words)
    });
    Ok(Checked { number, differences: differences.collect() })
}

/// What the number should be set to. At Twilio that is known without a question, also when our public URL is another by now, or the
/// webhooks were set by hand; elsewhere it is what we have set.
async fn ours(app: &App, reached: &Reached, number: &PhoneNumber) -> Result<Settings, Problem> {
    let Reached { connection, account } = reached;
    if let (Some(route), Account::Telnyx(_)) = (&number.route, account) {
        return Ok(route.ours.clone());
    }
    let Some(hooks) = ask::hooks(app, connection) else {
        let detail = format!("numbers of {} are not pointed here", connection.kind);
        return Err(Problem::new(Kind::Conflict, detail, "nothing is left to do"));
    };
    let label = format!("offhook {}", number.connection);
    Ok(Settings(account.routing_to(&hooks, &label).await?.0))
}

/// What is wrong with a number, with both sides.
fn fault(account: &Account, differences: &[Difference]) -> Option<String> {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
    let words = |difference: &Difference| {
        let setting = account.setting(&difference.setting);
        let (ours, theirs) = (shown(&difference.ours), shown(&difference.theirs));
        format!("{setting} is {theirs} instead of {ours}")
    };
    if differences.is_empty() {
        return None;
    }
    let listed: Vec<_> = differences.iter().map(words).collect();
    Some(format!("it was changed at the carrier: {}; take it back to set it again", listed.join("; ")))
}
