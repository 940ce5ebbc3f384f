//! Chat completions: what is asked, what is understood, and how failures are named.

use crate::server::{Server, next, settings, settings_with, soon};
use offhook_core::{ChatMessage, Secret, ToolRequest, ToolSpec};
use offhook_providers::{Cause, Llm, LlmEvent, LlmReply, LlmRequest, ProviderError, TokenUsage, llm};
use serde_json::{Value, json};
use std::sync::Arc;

const KEY: &str = "sk-0123456789";

#[tokio::test]
async fn history_tools_and_limits_are_asked_as_documented() {
    let server = Server::start().await;
    let model =
        model(&format!("{}/v1", server.url), json!({ "reasoning_effort": "low", "stream_options": null }));
    let tool =
        ToolRequest { id: "call_1".into(), name: "find_slots".into(), arguments: "{\"day\":\"tue\"}".into() };
    let broken =
        ToolRequest { id: "call_2".into(), name: "find_slots".into(), arguments: "{\"day\":".into() };
    let request = LlmRequest {
        messages: Arc::new([
            ChatMessage::System { text: "Be brief.".into() },
            ChatMessage::User { text: "Tuesday?".into() },
            ChatMessage::Agent { text: String::new(), tools: vec![tool, broken] },
            ChatMessage::Tool { id: "call_1".into(), text: "[\"10:00\"]".into() },
        ]),
        tools: Arc::new([ToolSpec {
            name: "find_slots".into(),
            description: "Finds times.".into(),
            parameters: r#"{"type":"object","properties":{"day":{"type":"string"}}}"#.into(),
        }]),
        max_tokens: 300,
        temperature_centi: Some(40),
    };
    let _reply = model.ask(request);
    let asked = server.request().await;
    assert_eq!(asked.line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(asked.headers["authorization"], format!("Bearer {KEY}"));
    let called = |id: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": "find_slots", "arguments": arguments } });
    assert_eq!(
        asked.json(),
        json!({
            "model": "gpt-4.1-mini", "stream": true, "max_tokens": 300, "temperature": 0.4, "reasoning_effort": "low",
            "messages": [
                { "role": "system", "content": "Be brief." },
                { "role": "user", "content": "Tuesday?" },
                { "role": "assistant", "content": null, "tool_calls": [called("call_1", "{\"day\":\"tue\"}"), called("call_2", "{}")] },
                { "role": "tool", "content": "[\"10:00\"]", "tool_call_id": "call_1" },
            ],
            "tools": [{ "type": "function", "function": { "name": "find_slots", "description": "Finds times.",
                "parameters": { "type": "object", "properties": { "day": { "type": "string" } } } } }],
        })
    );
}

#[tokio::test]
async fn reply_is_heard_whatever_way_its_bytes_are_cut() {
    let stream = [
        ": keep-alive\r\n\r\n".into(),
        chunk(json!({ "role": "assistant", "content": "" })),
        chunk(json!({ "content": "Grüß " })),
        chunk(json!({ "reasoning_content": "they want a table" })),
        chunk(json!({ "content": "Gott 👋" })),
        chunk(json!({ "tool_calls": [{ "index": 0, "id": "c", "function": { "name": "book", "arguments": "" } }] })),
        chunk(json!({ "tool_calls": [{ "index": 0, "function": { "arguments": "{\"name\":\"Jürgen\"}" } }] })),
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}],\"obfuscation\":\"xx\"}\n\n".into(),
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":90,\"completion_tokens\":12,\"prompt_tokens_details\":{\"cached_tokens\":64}}}\n\n".into(),
        "data: [DONE]\n\n".into(),
    ];
    for step in [1, 7, 4_096] {
        let server = Server::start().await;
        let mut reply = ask(&server.url);
        let mut asked = server.request().await;
        asked.stream("text/event-stream; charset=utf-8").await;
        for piece in stream.concat().as_bytes().chunks(step) {
            asked.say(piece).await;
            tokio::task::yield_now().await;
        }
        let tool =
            ToolRequest { id: "c".into(), name: "book".into(), arguments: "{\"name\":\"Jürgen\"}".into() };
        let usage = TokenUsage { prompt: 90, cached: 64, completion: 12 };
        assert_eq!(
            all(&mut reply).await,
            [
                LlmEvent::Token("Grüß ".into()),
                LlmEvent::Token("Gott 👋".into()),
                LlmEvent::Tool(tool),
                LlmEvent::Done { usage: Some(usage), cut_off: false },
            ]
        );
    }
}

#[tokio::test]
async fn servers_that_end_in_their_own_way_are_understood() {
    let said = "data: {\"choices\":[{\"delta\":{\"content\":\"Yes.\"},\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":1}}\n\n";
    let usage = Some(TokenUsage { prompt: 1, cached: 0, completion: 0 });
    let expected = [LlmEvent::Token("Yes.".into()), LlmEvent::Done { usage, cut_off: true }];
    // The connection ends without `[DONE]`; or it stays open and nothing comes.
    for stays_open in [false, true] {
        let server = Server::start().await;
        let mut reply = ask(&server.url);
        let mut asked = server.request().await;
        asked.stream("text/event-stream").await;
        asked.say(said.as_bytes()).await;
        let kept = stays_open.then_some(asked);
        assert_eq!(all(&mut reply).await, expected, "stays open: {stays_open}");
        drop(kept);
    }
    // The reply comes whole, though a stream was asked for.
    let server = Server::start().await;
    let mut reply = ask(&server.url);
    let whole = r#"{"choices":[{"message":{"role":"assistant","content":"Yes."},"finish_reason":"length"}],"usage":{"prompt_tokens":1}}"#;
    server.request().await.answer(200, "application/json", whole).await;
    assert_eq!(all(&mut reply).await, expected);
}

#[tokio::test]
async fn refusals_are_named_and_hold_no_key() {
    let cases = [
        (401, "invalid_api_key", Cause::Key),
        (402, "x", Cause::Credit),
        (403, "x", Cause::NotAvailable),
        (404, "model_not_found", Cause::NotAvailable),
        (429, "rate_limit_exceeded", Cause::RateLimited),
        (429, "insufficient_quota", Cause::Credit),
        (400, "context_length_exceeded", Cause::Refused),
        (500, "x", Cause::Unreachable),
        (503, "x", Cause::Unreachable),
    ];
    for (status, code, cause) in cases {
        let server = Server::start().await;
        let mut reply = ask(&server.url);
        let body = json!({ "error": { "message": format!("no: {KEY}"), "code": code } }).to_string();
        server.request().await.answer(status, "application/json", &body).await;
        let error = failure(&mut reply).await;
        assert_eq!((error.provider, error.cause), ("openai", cause), "{status} {code}");
        assert!(!error.to_string().contains(KEY), "{error}");
    }
}

#[tokio::test]
async fn broken_replies_are_named() {
    let said = chunk(json!({ "content": "Well" }));
    let cases = [
        ("", Cause::Unreachable),
        ("data: {\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"x\"}}\n\n", Cause::RateLimited),
        ("data: {\"object\":\"error\",\"message\":\"x\",\"code\":400}\n\n", Cause::Refused),
        ("data: {\"choices\":[{\"delta\":{\"content\":\n\n", Cause::Malformed),
        ("data: <html>\n\n", Cause::Malformed),
        ("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\n", Cause::Refused),
    ];
    for (more, cause) in cases {
        let server = Server::start().await;
        let mut reply = ask(&server.url);
        let mut asked = server.request().await;
        asked.stream("text/event-stream").await;
        asked.say(said.as_bytes()).await;
        asked.say(more.as_bytes()).await;
        drop(asked);
        assert_eq!(next(&mut reply.events).await, LlmEvent::Token("Well".into()));
        assert_eq!(failure(&mut reply).await.cause, cause, "{more}");
    }
}

#[tokio::test]
async fn silence_is_not_waited_for_for_ever() {
    // No answer at all.
    let server = Server::start().await;
    let mut reply = ask(&server.url);
    let asked = server.request().await;
    assert_eq!(failure(&mut reply).await.cause, Cause::TimedOut);
    drop(asked);
    // Nothing but comments.
    let mut reply = ask(&server.url);
    let mut asked = server.request().await;
    asked.stream("text/event-stream").await;
    let chatter = async {
        loop {
            asked.say(b": keep-alive\n\n").await;
            tokio::task::yield_now().await;
        }
    };
    let error = tokio::select! { error = failure(&mut reply) => error, () = chatter => unreachable!() };
    assert!(matches!(error.cause, Cause::TimedOut | Cause::Malformed), "{error}");
    // A stall in the middle.
    let mut reply = ask(&server.url);
    let mut asked = server.request().await;
    asked.stream("text/event-stream").await;
    asked.say(chunk(json!({ "content": "Well" })).as_bytes()).await;
    assert_eq!(next(&mut reply.events).await, LlmEvent::Token("Well".into()));
    assert_eq!(failure(&mut reply).await.cause, Cause::TimedOut);
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let server = Server::start().await;
    let url = server.url.clone();
    drop(server);
    let error = failure(&mut ask(&url)).await;
    assert_eq!(
        (error.cause, error.to_string().as_str()),
        (Cause::Unreachable, "openai: unreachable: no connection")
    );
}

#[tokio::test]
async fn connection_of_a_complete_reply_is_used_again() {
    let server = Server::start().await;
    let model = model(&server.url, Value::Null);
    let mut reply = model.ask(hello());
    let mut first = server.request().await;
    first.stream_in_chunks("text/event-stream").await;
    first.say_chunk(chunk(json!({ "content": "Yes." })).as_bytes()).await;
    first.say_chunk(b"data: [DONE]\n\n").await;
    assert_eq!(next(&mut reply.events).await, LlmEvent::Token("Yes.".into()));
    assert!(matches!(next(&mut reply.events).await, LlmEvent::Done { .. }));
    // The call has no more use for it, and the end of the answer comes only now.
    drop(reply);
    first.say_chunk(b"").await;
    let mut again = std::pin::pin!(first.again());
    loop {
        let mut reply = model.ask(hello());
        tokio::select! {
            biased;
            asked = &mut again => {
                assert_eq!(asked.line, "POST /chat/completions HTTP/1.1");
                return;
            }
            // The connection is not free yet.
            other = server.request() => other.answer(500, "text/plain", "").await,
        }
        failure(&mut reply).await;
    }
}

#[tokio::test]
async fn dropping_a_reply_closes_the_connection() {
    let server = Server::start().await;
    let mut reply = ask(&server.url);
    let mut asked = server.request().await;
    asked.stream("text/event-stream").await;
    asked.say(chunk(json!({ "content": "Well" })).as_bytes()).await;
    assert_eq!(next(&mut reply.events).await, LlmEvent::Token("Well".into()));
    drop(reply);
    asked.closed().await;
    // And before any answer.
    let reply = ask(&server.url);
    let mut asked = server.request().await;
    drop(reply);
    asked.closed().await;
}

#[tokio::test]
async fn tools_that_are_no_json_are_refused_before_anything_is_sent() {
    let tool = ToolSpec { name: "f".into(), description: String::new(), parameters: "{".into() };
    let request = LlmRequest { tools: Arc::new([tool]), ..hello() };
    let mut reply = model("http://127.0.0.1:9", Value::Null).ask(request);
    assert_eq!(failure(&mut reply).await.detail, "the parameters of tool f are not JSON");
}

fn model(base_url: &str, options: Value) -> Arc<dyn Llm> {
    let settings = if options.is_null() {
        settings("openai", base_url)
    } else {
        settings_with("openai", base_url, options)
    };
    llm(&settings, Secret::new(KEY.into())).unwrap()
}

fn hello() -> LlmRequest {
    LlmRequest {
        messages: Arc::new([ChatMessage::User { text: "Hello?".into() }]),
        tools: Arc::new([]),
        max_tokens: 100,
        temperature_centi: None,
    }
}

fn ask(base_url: &str) -> LlmReply {
    model(base_url, Value::Null).ask(hello())
}

fn chunk(delta: Value) -> String {
    format!(
        "data: {}\n\n",
        json!({ "id": "1", "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] })
    )
}

async fn all(reply: &mut LlmReply) -> Vec<LlmEvent> {
    let mut events = Vec::new();
    while let Some(event) = soon("the reply's end", reply.events.recv()).await {
        events.push(event);
    }
    events
}

async fn failure(reply: &mut LlmReply) -> ProviderError {
    match next(&mut reply.events).await {
        LlmEvent::Failed(error) => error,
        other => panic!("no failure: {other:?}"),
    }
}
