//! Chat completions: the reply that the rules give, token by token, in OpenAI's words or a compatible server's.
//! It knows nothing of what the reply is for.

use super::{
    CREATED, Gone, Refusal, Stream, admit, check_model, check_names, error_response, halves, parse_json,
};
use crate::provider::{Call, Delays, Dialect, Fault, Program, Reply, Rule, Service, Shared, ToolCall, read};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn complete(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, bytes) = read(request).await;
    let call = shared.call(Service::Chat, parts);
    let parsed = parse_json(&call, &bytes);
    if let Ok(body) = &parsed {
        call.entry.edit(|record| record.body = body.clone());
    }
    let (call, fault) = match admit(call, &shared).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal,
    };
    let body = match parsed.and_then(|body| check(&body, &shared).map(|()| body)) {
        Ok(body) => body,
        Err(refusal) => return call.refuse(refusal.oddity(), refusal.into_response()),
    };

    let (reply, delays, dialect) = {
        let program = shared.program();
        (reply_to(&body, &program), program.delays.clone(), program.dialect.clone())
    };
    if let Reply::Error { status, code } = &reply {
        return call.answer(error_response(*status, code, None));
    }
    let answer = Answer::of(&reply, &body, fault);
    if body["stream"] != true {
        call.entry.edit(|record| record.reply = answer.text());
        let pieces = halves(&answer.whole(&body).to_string());
        return Stream::answer(call, &shared, "application/json", move |stream, call| async move {
            stream.wait(Duration::from_millis(delays.first_token_ms)).await?;
            if answer.stall {
                return stream.stall().await;
            }
            stream.send_all(pieces, fault, &call).await
        });
    }
    let dice = shared.fork_dice(Service::Chat);
    Stream::answer(call, &shared, "text/event-stream; charset=utf-8", move |stream, call| async move {
        let mut writer = Writer { stream, call, dialect, dice, delays, fault };
        writer.write(&answer, &body).await
    })
}

/// The parameters of the interface as documented.
const PARAMETERS: [&str; 35] = [
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

fn check(body: &Value, shared: &Shared) -> Result<(), Refusal> {
    check_names(body, &PARAMETERS)?;
    let model = body["model"].as_str().ok_or_else(|| Refusal::new("you must provide a model parameter"))?;
    check_model(model, shared)?;
    let messages = body["messages"].as_array().ok_or_else(|| Refusal::missing("messages"))?;
    if messages.is_empty() {
        return Err(Refusal::about(
            "messages",
            "empty_array",
            "Invalid 'messages': empty array. Expected at least one.",
        ));
    }
    check_messages(messages)?;
    if !body["stream_options"].is_null() && body["stream"] != true {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(Refusal::about("stream_options", "invalid_value", message));
    }
    if body["temperature"].as_f64().is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
        return Err(Refusal::invalid("temperature", "expected a number from 0 to 2"));
    }
    let Some(tools) = body.get("tools") else {
        return match ["tool_choice", "parallel_tool_calls"].into_iter().find(|name| !body[name].is_null()) {
            Some(name) => Err(Refusal::new(format!(
                "Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified."
            ))),
            None => Ok(()),
        };
    };
    check_tools(tools.as_array().ok_or_else(|| Refusal::invalid("tools", "expected an array"))?)
}

/// Every tool call of the assistant must be answered straight after it, and nothing else may be.
fn check_messages(messages: &[Value]) -> Result<(), Refusal> {
    const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
    let mut unanswered: BTreeSet<&str> = BTreeSet::new();
    for (place, message) in messages.iter().enumerate() {
        let param = |field: &str| format!("messages.[{place}].{field}");
        let role = message["role"].as_str().unwrap_or_default();
        if !ROLES.contains(&role) {
            return Err(Refusal::invalid(
                &param("role"),
                "expected system, assistant, user, tool or developer",
            ));
        }
        if role == "tool" {
            if !unanswered.remove(message["tool_call_id"].as_str().unwrap_or_default()) {
                let why = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with \
                           'tool_calls'.";
                return Err(Refusal::about(&param("role"), "invalid_value", why));
            }
        } else if let Some(id) = unanswered.first() {
            return Err(unanswered_call(id));
        }
        if let Some(calls) = message["tool_calls"].as_array().filter(|_| role == "assistant") {
            let ids: Option<Vec<&str>> = calls.iter().map(id_of_call).collect();
            let ids = ids.filter(|ids| !ids.is_empty());
            unanswered.extend(
                ids.ok_or_else(|| Refusal::invalid(&param("tool_calls"), "expected calls of functions"))?,
            );
        } else if text_of(message).is_none() {
            let why = "expected a string or an array of objects";
            return Err(Refusal::about(
                &param("content"),
                "invalid_type",
                format!("Invalid type for '{}': {why}.", param("content")),
            ));
        }
    }
    unanswered.first().map_or(Ok(()), |id| Err(unanswered_call(id)))
}

fn unanswered_call(id: &str) -> Refusal {
    Refusal::new(format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. \
         The following tool_call_ids did not have response messages: {id}"
    ))
}

/// The id of a well-formed tool call.
fn id_of_call(call: &Value) -> Option<&str> {
    let function = &call["function"];
    let formed =
        call["type"] == "function" && function["name"].is_string() && function["arguments"].is_string();
    call["id"].as_str().filter(|_| formed)
}

fn check_tools(tools: &[Value]) -> Result<(), Refusal> {
    for (place, tool) in tools.iter().enumerate() {
        let function = &tool["function"];
        let name = function["name"].as_str().unwrap_or_default();
        let plain = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
        if tool["type"] != "function" || name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(Refusal::invalid(
                &format!("tools[{place}].function.name"),
                "expected a pattern '^[a-zA-Z0-9_-]+$'",
            ));
        }
        let parameters = &function["parameters"];
        if function["strict"] != true {
            continue;
        }
        let required: Vec<&Value> = parameters["required"].as_array().into_iter().flatten().collect();
        let optional = parameters["properties"].as_object().and_then(|properties| {
            properties.keys().find(|name| !required.iter().any(|known| *known == name.as_str()))
        });
        if parameters["additionalProperties"] != false || optional.is_some() {
            return Err(Refusal::about(
                &format!("tools[{place}].function.parameters"),
                "invalid_function_parameters",
                format!(
                    "Invalid schema for function '{name}': 'additionalProperties' is required to be supplied and to be \
                     false, and 'required' to include every key in properties."
                ),
            ));
        }
    }
    Ok(())
}

/// The text of a message, whether it is a string or a list of parts.
fn text_of(message: &Value) -> Option<String> {
    match &message["content"] {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => Some(parts.iter().filter_map(|part| part["text"].as_str()).collect()),
        _ => None,
    }
}

fn reply_to(body: &Value, program: &Program) -> Reply {
    let last = body["messages"]
        .as_array()
        .into_iter()
        .flatten()
        .rfind(|message| message["role"] == "user" || message["role"] == "tool");
    let said = last.and_then(text_of).unwrap_or_default();
    let lower = said.to_lowercase();
    let fits = |rule: &&Rule| lower.contains(&rule.contains.to_lowercase());
    match program.rules.iter().find(fits) {
        Some(rule) => rule.reply.clone(),
        None if last.is_some_and(|message| message["role"] == "tool") => {
            Reply::Text(format!("The answer is {said}."))
        }
        None => Reply::Text(format!("You said {}.", said.trim_end_matches(['.', '?', '!']))),
    }
}

/// A reply as it will be given.
struct Answer {
    tokens: Vec<String>,
    refusal: bool,
    calls: Vec<ToolCall>,
    /// An error code that comes after half of the tokens.
    error: Option<String>,
    stall: bool,
    finish_reason: &'static str,
}

impl Answer {
    fn of(reply: &Reply, body: &Value, fault: Option<Fault>) -> Answer {
        let mut answer = Answer {
            tokens: Vec::new(),
            refusal: false,
            calls: Vec::new(),
            error: None,
            stall: false,
            finish_reason: "stop",
        };
        match reply {
            Reply::Text(text) => answer.tokens = tokens(text),
            Reply::Refusal(text) => (answer.tokens, answer.refusal) = (tokens(text), true),
            Reply::ToolCalls { text, calls } => {
                answer.tokens = tokens(text);
                answer.calls = calls.clone();
                answer.finish_reason = "tool_calls";
            }
            Reply::ErrorMidStream { text, code } => {
                answer.tokens = tokens(text);
                answer.error = Some(code.clone());
            }
            Reply::Error { .. } | Reply::Stall => answer.stall = true,
        }
        if fault == Some(Fault::Empty) {
            (answer.tokens, answer.calls, answer.finish_reason) = (Vec::new(), Vec::new(), "stop");
        }
        let limit = ["max_completion_tokens", "max_tokens"].into_iter().find_map(|name| body[name].as_u64());
        if let Some(limit) = limit.filter(|limit| answer.tokens.len() as u64 > *limit) {
            answer.tokens.truncate(limit as usize);
            answer.calls.clear();
            answer.finish_reason = "length";
        }
        answer
    }

    fn text(&self) -> String {
        self.tokens.concat()
    }

    fn usage(&self, body: &Value, tokens: usize) -> Value {
        let prompt: usize =
            body["messages"].as_array().into_iter().flatten().filter_map(text_of).map(|t| t.len()).sum();
        let prompt = prompt / 4 + 3;
        json!({"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens,
            "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}})
    }

    /// How many tokens the whole answer counts.
    fn length(&self) -> usize {
        self.tokens.len() + self.calls.iter().map(|call| 1 + pieces(&arguments_of(call)).len()).sum::<usize>()
    }

    /// The answer to a request that did not ask for a stream.
    fn whole(&self, body: &Value) -> Value {
        let mut message = json!({"role": "assistant", "content": self.text(), "refusal": null});
        if self.refusal {
            (message["refusal"], message["content"]) = (json!(self.text()), Value::Null);
        }
        if !self.calls.is_empty() {
            let call = |(place, call): (usize, &ToolCall)| {
                let function = json!({"name": call.name, "arguments": arguments_of(call)});
                json!({"id": call_id(place), "type": "function", "function": function})
            };
            message["tool_calls"] = self.calls.iter().enumerate().map(call).collect();
        }
        let choice =
            json!({"index": 0, "message": message, "finish_reason": self.finish_reason, "logprobs": null});
        json!({"id": COMPLETION_ID, "object": "chat.completion", "created": CREATED, "model": body["model"],
            "choices": [choice], "usage": self.usage(body, self.length())})
    }
}

const COMPLETION_ID: &str = "chatcmpl-sim";

fn call_id(place: usize) -> String {
    format!("call_{}", place + 1)
}

/// A string stands for itself, so that malformed arguments can be sent.
fn arguments_of(call: &ToolCall) -> String {
    call.arguments.as_str().map_or_else(|| call.arguments.to_string(), str::to_owned)
}

/// Words, each with the space before it.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    for character in text.chars() {
        match tokens.last_mut() {
            Some(token) if !character.is_whitespace() => token.push(character),
            _ => tokens.push(character.into()),
        }
    }
    tokens
}

/// Arguments arrive in pieces that respect nothing but characters.
fn pieces(arguments: &str) -> Vec<String> {
    const PIECE: usize = 7;
    let characters: Vec<char> = arguments.chars().collect();
    characters.chunks(PIECE).map(|piece| piece.iter().collect()).collect()
}

/// One event of the stream.
enum Event {
    Delta { delta: Value, text: String },
    Finish,
    Error(String),
    NotJson,
    Late,
    Stall,
    Cut,
}

struct Writer {
    stream: Stream,
    call: Arc<Call>,
    dialect: Dialect,
    dice: ChaCha8Rng,
    delays: Delays,
    fault: Option<Fault>,
}

impl Writer {
    async fn write(&mut self, answer: &Answer, body: &Value) -> Result<(), Gone> {
        self.stream.wait(Duration::from_millis(self.delays.first_token_ms)).await?;
        if answer.stall {
            return self.stream.stall().await;
        }
        self.delta(json!({"role": "assistant", "content": ""}), answer, body, 0).await?;
        let mut sent_tokens = 0;
        let mut first = true;
        for event in self.events(answer) {
            match event {
                Event::Delta { delta, text } => {
                    if !std::mem::take(&mut first) {
                        self.stream.wait(Duration::from_millis(self.delays.per_token_ms)).await?;
                    }
                    sent_tokens += 1;
                    self.delta(delta, answer, body, sent_tokens).await?;
                    self.call.entry.edit(|record| record.reply.push_str(&text));
                }
                Event::Finish => {
                    let stops = self.dialect.stop_with_tool_calls && answer.finish_reason == "tool_calls";
                    let reason = if stops { "stop" } else { answer.finish_reason };
                    self.chunk(json!({}), json!(reason), answer, body, sent_tokens).await?;
                }
                Event::Error(code) => {
                    let error = json!({"message": "The server had an error.", "type": "server_error", "param": null, "code": code});
                    return self.event(&json!({"error": error}).to_string()).await;
                }
                Event::NotJson => {
                    self.event(r#"{"id":"chatcmpl-sim","choices":[{"index":0,"delta":{"conte"#).await?
                }
                Event::Late => self.stream.wait(Duration::from_millis(self.delays.late_ms)).await?,
                Event::Stall => return self.stream.stall().await,
                Event::Cut => return self.stream.cut(&self.call).await,
            }
        }
        if self.fault == Some(Fault::Endless) {
            return self.write_for_ever(answer, body).await;
        }
        if body["stream_options"]["include_usage"] == true {
            let mut chunk = self.envelope(body);
            (chunk["choices"], chunk["usage"]) = (json!([]), answer.usage(body, sent_tokens));
            self.event(&chunk.to_string()).await?;
        }
        if self.dialect.no_done { Ok(()) } else { self.event("[DONE]").await }
    }

    /// Everything between the first chunk and the usage, faults included.
    fn events(&self, answer: &Answer) -> Vec<Event> {
        let text = |token: &String| {
            let field = if answer.refusal { "refusal" } else { "content" };
            Event::Delta { delta: json!({ field: token }), text: token.clone() }
        };
        let silent = |delta| Event::Delta { delta, text: String::new() };
        let mut events = Vec::new();
        if self.dialect.reasoning_content {
            let thoughts = tokens("The caller said something. I should answer.");
            events.extend(thoughts.iter().map(|thought| silent(json!({"reasoning_content": thought}))));
        }
        events.extend(answer.tokens.iter().map(text));
        for (place, call) in answer.calls.iter().enumerate() {
            events.extend(self.call_deltas(place, call).into_iter().map(silent));
        }
        if let Some(code) = &answer.error {
            events.truncate(events.len() / 2);
            events.push(Event::Error(code.clone()));
            return events;
        }
        let half = events.len() / 2;
        match self.fault {
            Some(Fault::StallMidStream) => {
                events.truncate(half);
                events.push(Event::Stall);
            }
            Some(Fault::Cut) => {
                events.truncate(half);
                events.push(Event::Cut);
            }
            Some(Fault::MalformedJson) => {
                events.insert(half, Event::NotJson);
                events.push(Event::Finish);
            }
            Some(Fault::Late) => events.extend([Event::Late, Event::Finish]),
            Some(Fault::Duplicate) => events.extend([Event::Finish, Event::Finish]),
            Some(Fault::WrongOrder) => events.insert(events.len().saturating_sub(1), Event::Finish),
            Some(Fault::Endless) => {}
            _ => events.push(Event::Finish),
        }
        events
    }

    fn call_deltas(&self, place: usize, call: &ToolCall) -> Vec<Value> {
        let arguments = arguments_of(call);
        let head = |arguments: &str| {
            json!({"index": place, "id": call_id(place), "type": "function",
                "function": {"name": call.name, "arguments": arguments}})
        };
        let mut calls = vec![head(if self.dialect.whole_tool_call { &arguments } else { "" })];
        if !self.dialect.whole_tool_call {
            let piece = |piece| json!({"index": place, "function": {"arguments": piece}});
            calls.extend(pieces(&arguments).into_iter().map(piece));
        }
        if self.dialect.missing_index {
            for call in &mut calls {
                call.as_object_mut().map(|call| call.remove("index"));
            }
        }
        calls.into_iter().map(|call| json!({"tool_calls": [call]})).collect()
    }

    async fn write_for_ever(&mut self, answer: &Answer, body: &Value) -> Result<(), Gone> {
        for count in answer.tokens.len().. {
            // Without any pause it would fill the client's memory rather than try its patience.
            self.stream.wait(Duration::from_millis(self.delays.per_token_ms.max(1))).await?;
            self.delta(json!({"content": " and"}), answer, body, count).await?;
        }
        Ok(())
    }

    async fn delta(
        &mut self,
        delta: Value,
        answer: &Answer,
        body: &Value,
        tokens: usize,
    ) -> Result<(), Gone> {
        self.chunk(delta, Value::Null, answer, body, tokens).await
    }

    async fn chunk(
        &mut self,
        delta: Value,
        finish: Value,
        answer: &Answer,
        body: &Value,
        tokens: usize,
    ) -> Result<(), Gone> {
        let mut choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        if self.dialect.missing_index {
            choice.as_object_mut().map(|choice| choice.remove("index"));
        }
        let mut chunk = self.envelope(body);
        chunk["choices"] = json!([choice]);
        if self.dialect.usage_on_every_chunk {
            chunk["usage"] = answer.usage(body, tokens);
        } else if body["stream_options"]["include_usage"] == true {
            chunk["usage"] = Value::Null;
        }
        if self.dialect.obfuscation {
            chunk["obfuscation"] = json!("x".repeat(self.dice.random_range(0..16)));
        }
        self.event(&chunk.to_string()).await
    }

    fn envelope(&self, body: &Value) -> Value {
        json!({"id": COMPLETION_ID, "object": "chat.completion.chunk", "created": CREATED, "model": body["model"]})
    }

    async fn event(&mut self, data: &str) -> Result<(), Gone> {
        let end = if self.dialect.crlf { "\r\n" } else { "\n" };
        let comment = if self.dialect.comments { format!(": keep-alive{end}{end}") } else { String::new() };
        let bytes = format!("{comment}data: {data}{end}{end}").into_bytes();
        let Some(longest) = self.dialect.split_bytes else { return self.stream.send(bytes).await };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let length = self.dice.random_range(1..=longest.max(1)).min(rest.len());
            self.stream.send(rest[..length].to_vec()).await?;
            rest = &rest[length..];
        }
        Ok(())
    }
}
