//! Chat completions, streamed: a history in, tokens and tool calls out.
//! It tolerates what compatible servers do differently; it does not know what tools do or what is spoken.

use super::{reach, request};
use crate::json::Text;
use crate::refusal::in_stream;
use crate::settings::Service;
use crate::sse::SseReader;
use crate::{Cause, Llm, LlmEvent, LlmReply, LlmRequest, ProviderError, SESSION_QUEUE, TokenUsage, http};
use bytes::Bytes;
use offhook_core::{ChatMessage, ToolRequest, ToolSpec};
use reqwest::{Method, Response};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Text and tool arguments of one reply: more is a model that does not stop.
const MAX_REPLY_BYTES: usize = 256 * 1024;

/// Everything that is read for one reply, comments and padding included.
const MAX_STREAM_BYTES: usize = 8 << 20;

/// Tool calls in one reply.
const MAX_TOOL_CALLS: usize = 32;

/// How long usage and the end of the stream are waited for once the model has finished.
const AFTER_FINISH: Duration = Duration::from_millis(300);

/// Hosts that want the newer name of the token limit; all others read the older one.
const HOSTS_WITH_NEW_LIMIT: [&str; 2] = ["openai.com", "azure.com"];

/// A language model behind the chat completions interface.
pub(crate) struct Chat(pub(crate) Service);

impl Llm for Chat {
    fn name(&self) -> &'static str {
        self.0.provider
    }

    fn warm(&self) {
        let service = self.0.clone();
        tokio::spawn(async move {
            // Who cannot be reached is found out, and named, when something is asked.
            let _ = reach(&service).await;
        });
    }

    fn ask(&self, request: LlmRequest) -> LlmReply {
        let (events, receiver) = mpsc::channel(SESSION_QUEUE);
        let service = self.0.clone();
        tokio::spawn(async move {
            let reply = async {
                match answer(&service, &request, &events).await {
                    Ok(rest) => rest,
                    Err(error) => {
                        let _ = events.send(LlmEvent::Failed(error)).await;
                        None
                    }
                }
            };
            let rest = tokio::select! {
                // A reply that is complete is so even where its listener has gone at that moment.
                biased;
                rest = reply => rest,
                () = events.closed() => None,
            };
            drop(events);
            if let Some(rest) = rest {
                http::read_out(rest).await;
            }
        });
        LlmReply { events: receiver }
    }
}

/// Reports a reply, and hands out what of the answer was not read, if it may be.
async fn answer(
    service: &Service,
    asked: &LlmRequest,
    events: &mpsc::Sender<LlmEvent>,
) -> Result<Option<Response>, ProviderError> {
    let body = Bytes::from(body(service, asked)?);
    let post = || {
        request(service, Method::POST, &["chat", "completions"])
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .body(body.clone())
    };
    let response = http::ask(service, post).await?;
    let mut assembler = Assembler::new(service.provider);
    if http::is_of(&response, "application/json") {
        let whole = http::whole(service.provider, &service.endpoint, response).await?;
        let told = str::from_utf8(&whole).map_err(|_| assembler.not_understood())?;
        assembler.event(told)?;
        assembler.end()?;
        deliver(service, &mut assembler, events).await;
        return Ok(None);
    }
    stream(service, response, assembler, events).await
}

async fn stream(
    service: &Service,
    mut response: Response,
    mut assembler: Assembler,
    events: &mpsc::Sender<LlmEvent>,
) -> Result<Option<Response>, ProviderError> {
    let provider = service.provider;
    let mut reader = SseReader::default();
    let mut read_bytes = 0;
    let mut deadline = Instant::now() + service.endpoint.first_byte_timeout;
    while !assembler.is_done {
        let piece = match http::piece(provider, &mut response, deadline).await {
            // Everything has been said; only what it cost has not.
            Err(_) if assembler.finish.is_some() => None,
            piece => piece?,
        };
        let Some(piece) = piece else {
            assembler.end()?;
            deliver(service, &mut assembler, events).await;
            return Ok(None);
        };
        read_bytes += piece.len();
        if read_bytes > MAX_STREAM_BYTES {
            return Err(ProviderError::malformed(provider, "the reply does not end"));
        }
        let mut understood = Ok(());
        let mut is_told = false;
        let read = reader.push(&piece, |data| {
            is_told = true;
            if understood.is_ok() && !assembler.is_done {
                understood = assembler.event(data);
            }
        });
        deliver(service, &mut assembler, events).await;
        understood?;
        read.map_err(|error| ProviderError::malformed(provider, error.to_string()))?;
        if assembler.finish.is_some() {
            deadline = Instant::now() + AFTER_FINISH;
        } else if is_told {
            deadline = Instant::now() + service.endpoint.idle_timeout;
        }
    }
    Ok(Some(response))
}

async fn deliver(service: &Service, assembler: &mut Assembler, events: &mpsc::Sender<LlmEvent>) {
    for event in assembler.told.drain(..) {
        if matches!(event, LlmEvent::Done { cut_off: true, .. }) {
            tracing::warn!(
                provider = service.provider,
                model = service.model,
                "Model broke off its reply at the length limit"
            );
        }
        // Where nobody listens, the whole reply is dropped by the task above.
        let _ = events.send(event).await;
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    manner: Map<String, Value>,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall<'a>>,
}

#[derive(Serialize)]
struct ToolCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: CalledFunction<'a>,
}

#[derive(Serialize)]
struct CalledFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct Tool<'a> {
    r#type: &'static str,
    function: OfferedFunction<'a>,
}

#[derive(Serialize)]
struct OfferedFunction<'a> {
    name: &'a str,
    description: &'a str,
    parameters: &'a RawValue,
}

fn body(service: &Service, asked: &LlmRequest) -> Result<String, ProviderError> {
    let host = service.host();
    let limit = if HOSTS_WITH_NEW_LIMIT.iter().any(|known| host.ends_with(known)) {
        "max_completion_tokens"
    } else {
        "max_tokens"
    };
    let mut fields = json!({
        "model": service.model,
        "stream": true,
        "stream_options": { "include_usage": true },
        limit: asked.max_tokens,
    });
    if let Some(centi) = asked.temperature_centi {
        fields["temperature"] = (f64::from(centi) / 100.0).into();
    }
    let body = Body {
        manner: service.with_options(fields),
        messages: asked.messages.iter().map(message).collect(),
        tools: asked.tools.iter().map(|tool| offer(service.provider, tool)).collect::<Result<_, _>>()?,
    };
    Ok(serde_json::to_string(&body).expect("a body has text keys and plain values"))
}

fn message(message: &ChatMessage) -> Message<'_> {
    let (role, text) = match message {
        ChatMessage::System { text } => ("system", text),
        ChatMessage::User { text } => ("user", text),
        ChatMessage::Agent { text, .. } => ("assistant", text),
        ChatMessage::Tool { text, .. } => ("tool", text),
    };
    let mut written = Message { role, content: Some(text), tool_call_id: None, tool_calls: Vec::new() };
    match message {
        ChatMessage::Tool { id, .. } => written.tool_call_id = Some(id),
        ChatMessage::Agent { tools, .. } if !tools.is_empty() => {
            written.content = written.content.filter(|text| !text.is_empty());
            written.tool_calls = tools.iter().map(called).collect();
        }
        _ => {}
    }
    written
}

fn called(tool: &ToolRequest) -> ToolCall<'_> {
    // Servers parse the history's arguments, and refuse the whole request where a model once wrote broken ones.
    let is_json = serde_json::from_str::<IgnoredAny>(&tool.arguments).is_ok();
    let arguments = if is_json { &tool.arguments } else { "{}" };
    ToolCall { id: &tool.id, r#type: "function", function: CalledFunction { name: &tool.name, arguments } }
}

fn offer<'a>(provider: &'static str, tool: &'a ToolSpec) -> Result<Tool<'a>, ProviderError> {
    let parameters = serde_json::from_str(&tool.parameters).map_err(|_| {
        let detail = format!("the parameters of tool {} are not JSON", tool.name);
        ProviderError::new(provider, Cause::Refused, detail)
    })?;
    let function = OfferedFunction { name: &tool.name, description: &tool.description, parameters };
    Ok(Tool { r#type: "function", function })
}

/// One event of the stream, or a whole answer where a server does not stream.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    usage: Option<Usage>,
    error: Option<IgnoredAny>,
    #[serde(borrow)]
    object: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    message: Option<Delta<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<Text<'a>>,
    #[serde(borrow)]
    refusal: Option<Text<'a>>,
    #[serde(borrow)]
    tool_calls: Option<Vec<ToolDelta<'a>>>,
}

#[derive(Deserialize)]
struct ToolDelta<'a> {
    index: Option<u32>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    function: Option<FunctionDelta<'a>>,
}

#[derive(Deserialize)]
struct FunctionDelta<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    /// Text with JSON in it; some servers give the object itself.
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    prompt_tokens_details: Option<PromptTokensDetails>,
}

#[derive(Deserialize)]
struct PromptTokensDetails {
    cached_tokens: Option<u32>,
}

/// Puts a reply together from the events of its stream.
pub(crate) struct Assembler {
    provider: &'static str,
    /// What is to be delivered.
    pub(crate) told: Vec<LlmEvent>,
    tools: Vec<PartialTool>,
    usage: Option<TokenUsage>,
    finish: Option<Finish>,
    bytes: usize,
    is_done: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finish {
    Complete,
    CutOff,
}

struct PartialTool {
    index: Option<u32>,
    request: ToolRequest,
}

impl Assembler {
    pub(crate) fn new(provider: &'static str) -> Self {
        Assembler {
            provider,
            told: Vec::new(),
            tools: Vec::new(),
            usage: None,
            finish: None,
            bytes: 0,
            is_done: false,
        }
    }

    /// Takes the data of one event.
    pub(crate) fn event(&mut self, data: &str) -> Result<(), ProviderError> {
        if data.trim() == "[DONE]" {
            self.finish_as(Finish::Complete);
            return self.end();
        }
        let chunk: Chunk = serde_json::from_str(data).map_err(|_| self.not_understood())?;
        if chunk.error.is_some() || chunk.object.as_deref() == Some("error") {
            return Err(in_stream(self.provider, data.as_bytes()));
        }
        if let Some(usage) = chunk.usage {
            self.usage = Some(TokenUsage {
                prompt: usage.prompt_tokens.unwrap_or_default(),
                cached: usage
                    .prompt_tokens_details
                    .and_then(|details| details.cached_tokens)
                    .unwrap_or_default(),
                completion: usage.completion_tokens.unwrap_or_default(),
            });
        }
        let Some(choice) = chunk.choices.and_then(|choices| choices.into_iter().next()) else {
            return Ok(());
        };
        if let Some(delta) = choice.delta.or(choice.message) {
            self.delta(delta)?;
        }
        match choice.finish_reason.as_deref() {
            None | Some("") => {}
            Some("length") => self.finish_as(Finish::CutOff),
            Some("content_filter") => {
                return Err(ProviderError::new(self.provider, Cause::Refused, "content_filter"));
            }
            Some(_) => self.finish_as(Finish::Complete),
        }
        Ok(())
    }

    /// Takes the end of the stream.
    fn end(&mut self) -> Result<(), ProviderError> {
        let Some(finish) = self.finish else {
            return Err(ProviderError::new(self.provider, Cause::Unreachable, "the reply broke off"));
        };
        self.is_done = true;
        self.told.push(LlmEvent::Done { usage: self.usage, cut_off: finish == Finish::CutOff });
        Ok(())
    }

    fn delta(&mut self, delta: Delta) -> Result<(), ProviderError> {
        for text in [delta.content, delta.refusal].into_iter().flatten() {
            self.count(text.len())?;
            if !text.is_empty() {
                self.told.push(LlmEvent::Token(text.into_owned()));
            }
        }
        delta.tool_calls.into_iter().flatten().try_for_each(|tool| self.tool(tool))
    }

    fn tool(&mut self, delta: ToolDelta) -> Result<(), ProviderError> {
        let id = delta.id.as_deref().unwrap_or_default();
        let at = self.place(delta.index, id)?;
        let Some(function) = delta.function else { return Ok(()) };
        let arguments = function.arguments.map(RawValue::get).unwrap_or_default();
        self.count(arguments.len())?;
        let text = match arguments.as_bytes() {
            [b'"', ..] => {
                serde_json::from_str::<Text>(arguments).map_err(|_| self.not_understood())?.into_owned()
            }
            _ => arguments.to_owned(),
        };
        let request = &mut self.tools[at].request;
        request.arguments.push_str(&text);
        if let Some(name) = function.name.filter(|_| request.name.is_empty()) {
            request.name = name.into_owned();
        }
        Ok(())
    }

    /// The call that a delta belongs to. `index` is the key; where servers leave it out, or give all calls the same, a new
    /// id begins a new call.
    fn place(&mut self, index: Option<u32>, id: &str) -> Result<usize, ProviderError> {
        let known = match index {
            Some(index) => self.tools.iter().rposition(|tool| tool.index == Some(index)),
            None => self.tools.len().checked_sub(1),
        };
        let same = known.filter(|at| id.is_empty() || self.tools[*at].request.id == id);
        if let Some(at) = same {
            return Ok(at);
        }
        if self.tools.len() >= MAX_TOOL_CALLS {
            return Err(ProviderError::malformed(self.provider, "too many tool calls"));
        }
        let request = ToolRequest { id: id.to_owned(), name: String::new(), arguments: String::new() };
        self.tools.push(PartialTool { index, request });
        Ok(self.tools.len() - 1)
    }

    /// The model has said all it will; its tool calls are whole.
    fn finish_as(&mut self, finish: Finish) {
        if self.finish.is_some() {
            return;
        }
        self.finish = Some(finish);
        for (number, PartialTool { mut request, .. }) in self.tools.drain(..).enumerate() {
            if request.name.is_empty() {
                continue;
            }
            if request.id.is_empty() {
                request.id = format!("call_{number}");
            }
            if request.arguments.trim().is_empty() {
                request.arguments = "{}".into();
            }
            self.told.push(LlmEvent::Tool(request));
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), ProviderError> {
        self.bytes += bytes;
        if self.bytes > MAX_REPLY_BYTES {
            return Err(ProviderError::malformed(self.provider, "the reply does not end"));
        }
        Ok(())
    }

    fn not_understood(&self) -> ProviderError {
        ProviderError::malformed(self.provider, "an event that is not understood")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tool_calls_are_put_together_whatever_the_server() {
        let by_index = [
            r#"{"choices":[{"delta":{"content":"One moment."}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"g","arguments":"{}"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]},"finish_reason":"tool_calls"}]}"#,
        ];
        assert_eq!(tools(&by_index), [("a", "f", r#"{"x":1}"#), ("b", "g", "{}")].map(owned));
        let without_index = [
            r#"{"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{\"x\""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":":1}"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"id":"b","function":{"name":"g"}}]},"finish_reason":"stop"}]}"#,
        ];
        assert_eq!(tools(&without_index), [("a", "f", r#"{"x":1}"#), ("b", "g", "{}")].map(owned));
        let whole_and_same_index = [
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":{"x":1}}},{"index":0,"id":"b","function":{"name":"g","arguments":"{}"}}]}}]}"#,
            "[DONE]",
        ];
        assert_eq!(tools(&whole_and_same_index), [("a", "f", r#"{"x":1}"#), ("b", "g", "{}")].map(owned));
        let without_id = [
            r#"{"choices":[{"message":{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"}]}"#,
        ];
        assert_eq!(tools(&without_id), [("call_0", "f", "{}")].map(owned));
    }

    #[test]
    fn endless_replies_are_ended() {
        let mut assembler = Assembler::new("openai");
        let chunk =
            json!({ "choices": [{ "delta": { "content": "x".repeat(MAX_REPLY_BYTES / 4) } }] }).to_string();
        let results: Vec<_> = (0..5).map(|_| assembler.event(&chunk).is_ok()).collect();
        assert_eq!(results, [true, true, true, true, false]);
        let mut assembler = Assembler::new("openai");
        let call = |n| format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{{"index":{n}}}]}}}}]}}"#);
        assert!((0..100).any(|n| assembler.event(&call(n)).is_err()));
    }

    proptest! {
        #[test]
        fn no_event_is_too_strange(events in prop::collection::vec("\\PC{0,60}|\\{\"choices\":\\[\\{\"delta\":\\PC{0,20}\\}\\]\\}", 0..8)) {
            let mut assembler = Assembler::new("openai");
            for event in &events {
                let _ = assembler.event(event);
            }
        }

        #[test]
        fn arguments_survive_any_cut(arguments in "\\PC{1,40}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let mut at: Vec<usize> = cuts.iter().map(|cut| arguments.floor_char_boundary(cut.index(arguments.len()))).collect();
            at.extend([0, arguments.len()]);
            at.sort_unstable();
            let mut assembler = Assembler::new("openai");
            for (n, range) in at.windows(2).enumerate() {
                let (id, name) = if n == 0 { (json!("a"), json!("f")) } else { (Value::Null, Value::Null) };
                let call = json!({ "index": 0, "id": id, "function": { "name": name, "arguments": arguments[range[0]..range[1]] } });
                assembler.event(&json!({ "choices": [{ "delta": { "tool_calls": [call] } }] }).to_string()).unwrap();
            }
            assembler.event("[DONE]").unwrap();
            let expected = if arguments.trim().is_empty() { "{}" } else { &arguments };
            let LlmEvent::Tool(tool) = &assembler.told[0] else { panic!("{:?}", assembler.told) };
            prop_assert_eq!(&tool.arguments, expected);
        }
    }

    fn tools(events: &[&str]) -> Vec<ToolRequest> {
        let mut assembler = Assembler::new("openai");
        events.iter().for_each(|event| assembler.event(event).unwrap());
        let tool = |event| match event {
            LlmEvent::Tool(tool) => Some(tool),
            _ => None,
        };
        assembler.told.into_iter().filter_map(tool).collect()
    }

    fn owned((id, name, arguments): (&str, &str, &str)) -> ToolRequest {
        ToolRequest { id: id.into(), name: name.into(), arguments: arguments.into() }
    }
}
