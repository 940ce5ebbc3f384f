//! What is kept of a call that is over: transcript, tool calls, usage. It does not know where it is kept.

use super::ledger::Ledger;
use crate::speech::Speech;
use offhook_core::Pii;
use offhook_core::call::{EndedReason, Line, Speaker, TurnTiming};
use offhook_core::entity::{MessageRole, UsageKind};
use offhook_store::{FinishedCall, NewMessage, NewToolCall, NewUsage};
use serde_json::{Value, json};

/// Prices are not known yet: usage is counted, not charged.
const NO_PRICE: i64 = 0;
const CURRENCY: &str = "USD";

/// A call as its driver leaves it.
#[derive(Debug)]
pub struct Ending<'a> {
    /// When it began to ring, µs since 1970 UTC.
    pub began_us: i64,
    /// How long it lasted.
    pub lasted_ms: u64,
    /// Why it ended.
    pub reason: EndedReason,
    /// What was said and heard.
    pub lines: Vec<Line>,
    /// What was used.
    pub ledger: &'a Ledger,
    /// Who provided it, where that is still known.
    pub speech: Option<&'a Speech>,
}

/// The record of a call that is over.
pub fn record(ending: Ending<'_>) -> FinishedCall {
    let at_us = |us: u64| ending.began_us.saturating_add(i64::try_from(us).unwrap_or(i64::MAX));
    let ended_at_us = at_us(ending.lasted_ms * 1_000);
    let messages = ending.lines.iter().map(|line| NewMessage {
        turn: line.turn,
        role: match line.speaker {
            Speaker::Caller => MessageRole::Member,
            Speaker::Agent => MessageRole::Agent,
            Speaker::Staff => MessageRole::Staff,
        },
        text: Pii::new(line.text.clone()),
        heard: line.cut.then(|| Pii::new(line.text.clone())),
        at_us: at_us(line.at.as_us()),
        timing: timing_of(line, &ending.ledger.timings),
    });
    let tool_calls = ending.ledger.uses.iter().map(|tool| NewToolCall {
        turn: tool.turn,
        name: tool.name.clone(),
        arguments: tool.arguments.clone(),
        result: (!tool.failed()).then(|| tool.result.clone()),
        error: tool.failed().then(|| tool.result.expose().clone()),
        started_at_us: at_us(tool.from_us),
        ended_at_us: Some(at_us(tool.to_us)),
    });
    FinishedCall {
        ended_reason: word(ending.reason),
        ended_at_us,
        outcome: None,
        summary: None,
        collected: Pii::new(Value::Null),
        messages: messages.collect(),
        tool_calls: tool_calls.collect(),
        usage: usage(&ending, ended_at_us),
    }
}

/// The reason as the API and the dashboard write it.
pub fn word(reason: EndedReason) -> String {
    match serde_json::to_value(reason) {
        Ok(Value::String(word)) => word,
        _ => "unknown".into(),
    }
}

/// The waterfall of the turn whose answer the line begins.
fn timing_of(line: &Line, timings: &[TurnTiming]) -> Value {
    let of_turn = timings.iter().find(|t| t.turn == line.turn && line.speaker == Speaker::Agent);
    let Some(timing) = of_turn else { return Value::Null };
    let after = |at: offhook_core::call::CallTime| at.since_ms(timing.speech_end);
    json!({
        "turn_end_ms": after(timing.turn_end),
        "head_start_ms": timing.turn_end.since_ms(timing.asked),
        "first_token_ms": after(timing.first_token),
        "first_audio_ms": after(timing.first_audio),
        "playout_ms": after(timing.playout),
        "thrown_away": timing.thrown_away,
    })
}

fn usage(ending: &Ending<'_>, at_us: i64) -> Vec<NewUsage> {
    let one = |kind, provider: &str, quantity: u64| NewUsage {
        at_us,
        kind,
        provider: provider.to_owned(),
        quantity: i64::try_from(quantity).unwrap_or(i64::MAX),
        unit_price_micros: NO_PRICE,
        currency: CURRENCY.into(),
    };
    let mut all = vec![one(UsageKind::Second, "carrier", ending.lasted_ms.div_ceil(1_000))];
    let Some(speech) = ending.speech else { return all };
    for (index, llm) in speech.llm.iter().enumerate() {
        let tokens = ending.ledger.tokens.iter().find(|tokens| usize::from(tokens.model) == index);
        all.push(one(UsageKind::TokenIn, llm.name(), tokens.map_or(0, |tokens| tokens.read)));
        all.push(one(UsageKind::TokenOut, llm.name(), tokens.map_or(0, |tokens| tokens.written)));
    }
    for (voice, characters) in &ending.ledger.characters {
        if let Some(tts) = speech.tts.get(usize::from(*voice)) {
            all.push(one(UsageKind::Character, tts.name(), *characters));
        }
    }
    all.retain(|u| u.quantity > 0);
    all
}
