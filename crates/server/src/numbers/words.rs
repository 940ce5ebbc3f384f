//! What is asked of a carrier and what it has answered, in words for the user: the log of an operation.

use offhook_core::entity::OperationLine;
use offhook_core::provisioning::{Answer, Failure, Purchase, Request, Settings, Task, There};

/// What a request does, as a step that is under way.
pub fn step(line: &OperationLine, request: &Request) -> String {
    let e164 = &line.e164;
    match (request, line.machine.task()) {
        (Request::Look, _) => format!("sign in at the carrier and look {e164} up"),
        (Request::Prepare, _) => "find out what leads here".into(),
        (Request::Buy { .. }, _) => format!("buy {e164} and point it here"),
        (Request::FindOrder, _) => "look whether the purchase has made an order".into(),
        (Request::FollowOrder { order }, _) => format!("ask how order {order} stands"),
        (Request::Set { settings, .. }, _) if Some(settings) == line.machine.ours() => {
            format!("point {e164} here")
        }
        (Request::Set { settings, .. }, Task::GiveBack { .. }) => {
            format!("give {e164} back: {}", listed(settings))
        }
        (Request::Set { settings, .. }, _) => format!("undo it: {}", listed(settings)),
        (Request::Release { .. }, _) => format!("release {e164}"),
    }
}

/// What has come of a request; `Err` if it went wrong.
pub fn came_of(answer: &Answer) -> Result<String, String> {
    match answer {
        Answer::Looked(Some(there)) => Ok(format!("it is the account's and {}", leads_to(there))),
        Answer::Looked(None) => Ok("it is not among the account's numbers".into()),
        Answer::Prepared(settings) => Ok(listed(settings)),
        Answer::Purchase(Purchase::Done) => Ok("bought".into()),
        Answer::Purchase(Purchase::Ordered(order)) => Ok(format!("the carrier works on order {order}")),
        Answer::Purchase(Purchase::Failed(reason)) => Err(reason.clone()),
        Answer::Order(Some(order)) => Ok(format!("it has: {order}")),
        Answer::Order(None) => Ok("it has not".into()),
        Answer::Released => Ok("released".into()),
        Answer::Failed(Failure::Passing { reason, after_ms: Some(ms) }) => {
            Err(format!("{reason}; it asks for {} s", ms.div_ceil(1_000)))
        }
        Answer::Failed(
            Failure::Passing { reason, .. } | Failure::Unknown { reason } | Failure::Refused { reason },
        ) => Err(reason.clone()),
    }
}

/// Where a number's calls go, as its carrier has it.
pub fn leads_to(there: &There) -> String {
    match addresses(&there.settings) {
        none if none.is_empty() => "leads nowhere".into(),
        addresses => format!("leads to {addresses}"),
    }
}

/// The settings that lead somewhere, first those of calls.
fn addresses(settings: &Settings) -> String {
    let settings = settings.shown();
    let somewhere = settings.0.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let addresses = somewhere.filter(|(_, value)| !value.bytes().all(|byte| byte.is_ascii_alphabetic()));
    let shown: Vec<String> = addresses.map(|(name, value)| format!("{name} {value}")).collect();
    shown.join(", ")
}

fn listed(settings: &Settings) -> String {
    let shown = |(name, value): (&String, &Option<String>)| match value {
        Some(value) => format!("{name} {value}"),
        None => format!("{name} empty"),
    };
    settings.shown().0.iter().map(shown).collect::<Vec<_>>().join(", ")
}
