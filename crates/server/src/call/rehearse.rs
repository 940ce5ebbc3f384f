//! Agents' fixed sentences, spoken before anybody rings: even the first caller is greeted at once, and the apology does not
//! wait for a voice that is down. It knows no calls; what it learns stands in the phrasebook.

use super::plan;
use super::pump::{FACTS_QUEUE, ORDERS_QUEUE, Order, Pump};
use crate::app::App;
use crate::problem::chain;
use crate::speech::Speech;
use offhook_core::AgentVersionId;
use offhook_core::call::{CallPlan, Command, Greeting, Input, ReplyId};
use offhook_media::coding::Coding;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How often it is looked for agents that are new or were changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long an agent whose sentences could not be spoken is left alone: at first, for providers that start when we do, and at
/// last. It doubles each time.
const AGAIN_AFTER: Duration = Duration::from_millis(250);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(300);
/// How long one sentence may take.
const SENTENCE: Duration = Duration::from_secs(10);
/// Agents whose sentences are kept ready; those of more are learnt in their first calls. As many fill the phrasebook.
const AGENTS: u32 = 64;

/// Keeps the sentences of all agents that answer a number ready, for as long as it is polled.
pub async fn run(app: &App) -> Infallible {
    let mut rehearsals = BTreeMap::new();
    loop {
        if let Err(error) = look(app, &mut rehearsals).await {
            tracing::debug!(error = chain(&error), "Agents' sentences were not spoken ahead");
        }
        let due = rehearsals.values().filter_map(|rehearsal| rehearsal.due).min();
        let look_again = Instant::now() + LOOK_EVERY;
        tokio::time::sleep_until(due.map_or(look_again, |due| due.min(look_again))).await;
    }
}

/// How far an agent's version is.
#[derive(Default)]
struct Rehearsal {
    /// When it is tried again; `None`: its sentences are known.
    due: Option<Instant>,
    failures: u32,
}

/// Speaks what has not been spoken.
async fn look(
    app: &App,
    rehearsals: &mut BTreeMap<AgentVersionId, Rehearsal>,
) -> Result<(), offhook_store::StoreError> {
    let answering = app.store.answering_agents(AGENTS).await?;
    rehearsals.retain(|version, _| answering.iter().any(|(_, agent)| agent.current == *version));
    for (scope, agent) in answering {
        let known = rehearsals.get(&agent.current);
        if known.is_some_and(|rehearsal| rehearsal.due.is_none_or(|due| due > Instant::now())) {
            continue;
        }
        let spoken = match plan::ready(app, &scope, &agent.id).await {
            Ok(ready) => rehearse(ready.speech, &ready.plan).await,
            Err(error) => Err(chain(&error)),
        };
        let rehearsal = rehearsals.entry(agent.current).or_default();
        rehearsal.due = None;
        if let Err(error) = spoken {
            let pause = AGAIN_AFTER.saturating_mul(1 << rehearsal.failures.min(16)).min(AGAIN_AFTER_MAX);
            rehearsal.due = Some(Instant::now() + pause);
            rehearsal.failures += 1;
            let again_s = pause.as_secs();
            tracing::warn!(agent.id = %agent.id, error, again_s, "An agent's sentences were not spoken ahead; its calls will");
        }
    }
    Ok(())
}

/// Lets a pump without a line speak an agent's sentences with its first voice.
async fn rehearse(speech: Arc<Speech>, plan: &CallPlan) -> Result<(), String> {
    const VOICE: u8 = 0;
    let (facts_in, mut facts) = mpsc::channel(FACTS_QUEUE);
    let (orders, orders_out) = mpsc::channel(ORDERS_QUEUE);
    tokio::spawn(Pump::new(Coding::MU_LAW, speech, facts_in).run(orders_out));
    for (text, number) in sentences(plan).zip(1..) {
        let reply = ReplyId(number);
        let speak = Command::Speak { reply, voice: VOICE, text: text.to_owned(), fixed: true };
        for command in [speak, Command::FinishReply { reply }] {
            orders.send(Order::Do(command)).await.map_err(|_| "the pump ended")?;
        }
        let spoken = async {
            while let Some(fact) = facts.recv().await {
                match fact {
                    Input::Synthesized { reply: of, done: true, .. } if of == reply => return Ok(()),
                    Input::TtsFailed { .. } => return Err("its first voice failed"),
                    _ => {}
                }
            }
            Err("the pump ended")
        };
        tokio::time::timeout(SENTENCE, spoken).await.map_err(|_| "its first voice is too slow")??;
        let _ = orders.send(Order::Do(Command::CancelReply { reply })).await;
    }
    Ok(())
}

/// What an agent says in the same words in every call, the most urgent first.
fn sentences(plan: &CallPlan) -> impl Iterator<Item = &str> {
    let greeting = match &plan.greeting {
        Greeting::Fixed(text) => Some(text),
        Greeting::Written | Greeting::Silent => None,
    };
    let phrases = &plan.phrases;
    let fixed = [&phrases.apology, &phrases.not_understood, &phrases.nudge, &phrases.goodbye];
    let all = greeting.into_iter().chain(fixed).chain(&phrases.fillers);
    all.map(|text| text.as_str()).filter(|text| !text.trim().is_empty())
}
