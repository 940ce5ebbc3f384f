//! The simulated providers against their documents, with raw clients: HTTP and WebSocket as any program would speak them.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use offhook_media::g711::Law;
use offhook_media::resample::Resampler;
use offhook_media::wav::Wav;
use offhook_sim::provider::{
    ClosedBy, Dialect, Fault, FaultRate, Program, ProviderSim, ProviderSimSettings, Record, Reply, Rule,
    Service, heard_words, utterance,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Response;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const LIMIT: Duration = Duration::from_secs(10);

// Chat completions

#[tokio::test]
async fn a_chat_stream_has_the_documented_events_in_their_order() {
    let sim = start(Program::default()).await;
    let events = chat(&sim, &ask("hello there")).await;
    let deltas: Vec<&Value> = events.iter().map(|event| &event["choices"][0]["delta"]).collect();
    assert_eq!(deltas[0], &json!({"role": "assistant", "content": ""}));
    assert_eq!(text_of(&events), "You said hello there.");
    let [finish, usage] = &events[events.len() - 2..] else { panic!("{events:?}") };
    assert_eq!(finish["choices"][0], json!({"index": 0, "delta": {}, "finish_reason": "stop"}));
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 4);
    assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk" && event["model"] == "m"));
    assert!(events[..events.len() - 1].iter().all(|event| event["usage"].is_null()));

    let record = last(&sim, Service::Chat);
    assert_eq!(record.body["messages"][1]["content"], "hello there");
    assert_eq!(record.credential.as_deref(), Some("Bearer"));
    assert_eq!((record.reply.as_str(), record.oddities.len()), ("You said hello there.", 0));
    assert!(!format!("{record:?}").contains("secret-key"), "keys are not kept");
}

#[tokio::test]
async fn without_a_stream_the_answer_is_one_object() {
    let sim = start(Program::default()).await;
    let mut body = ask("hello");
    body.as_object_mut().unwrap().retain(|name, _| name != "stream" && name != "stream_options");
    let answer: Value = post(&sim, "/v1/chat/completions", &body).await.json().await.unwrap();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["content"], "You said hello.");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn a_stream_can_be_split_inside_a_character() {
    let program = Program {
        rules: vec![Rule::text("zoë", "Zoë's café — très bien.")],
        dialect: Dialect { split_bytes: Some(3), ..Dialect::default() },
        ..Program::default()
    };
    let sim = start(program).await;
    let response = post(&sim, "/v1/chat/completions", &ask("is it Zoë?")).await;
    let pieces: Vec<Bytes> = response.bytes_stream().map(Result::unwrap).collect().await;
    assert!(pieces.iter().all(|piece| piece.len() <= 3));
    assert!(pieces.iter().any(|piece| std::str::from_utf8(piece).is_err()), "no character was split");
    let events = events_of(&String::from_utf8(pieces.concat()).unwrap());
    assert_eq!(text_of(&events), "Zoë's café — très bien.");
}

#[tokio::test]
async fn a_tool_call_comes_in_pieces_and_its_result_is_answered() {
    let sim = start(Program {
        rules: vec![
            Rule::tool("tuesday", "find_slots", json!({"day": "tue", "people": 2})),
            Rule::text("10:00", "I have ten or half past eleven."),
        ],
        ..Program::default()
    })
    .await;
    let mut body = ask("Can I book Tuesday?");
    body["tools"] = tools();
    let events = chat(&sim, &body).await;
    let calls: Vec<&Value> = events
        .iter()
        .map(|event| &event["choices"][0]["delta"]["tool_calls"][0])
        .filter(|call| !call.is_null())
        .collect();
    assert_eq!(calls[0]["id"], "call_1");
    assert_eq!(calls[0]["function"]["name"], "find_slots");
    assert!(calls.len() > 3 && calls.iter().all(|call| call["index"] == 0));
    assert!(calls[1..].iter().all(|call| call["id"].is_null() && call["function"]["name"].is_null()));
    let arguments: String = calls.iter().filter_map(|call| call["function"]["arguments"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap(), json!({"day": "tue", "people": 2}));
    assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "tool_calls");

    let asked = json!({"role": "assistant", "content": null,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "find_slots", "arguments": arguments}}]});
    let answered = json!({"role": "tool", "tool_call_id": "call_1", "content": "[\"10:00\",\"11:30\"]"});
    body["messages"].as_array_mut().unwrap().extend([asked, answered]);
    assert_eq!(text_of(&chat(&sim, &body).await), "I have ten or half past eleven.");
}

#[tokio::test]
async fn compatible_servers_differ_in_each_documented_way() {
    let dialect = Dialect {
        missing_index: true,
        whole_tool_call: true,
        usage_on_every_chunk: true,
        crlf: true,
        comments: true,
        stop_with_tool_calls: true,
        reasoning_content: true,
        obfuscation: true,
        no_done: true,
        split_bytes: None,
    };
    let rules = vec![Rule::tool("", "find_slots", json!({"day": "tue"}))];
    let sim = start(Program { rules, dialect, ..Program::default() }).await;
    let mut body = ask("hello");
    body["tools"] = tools();
    let text = post(&sim, "/v1/chat/completions", &body).await.text().await.unwrap();
    assert!(text.contains(": keep-alive\r\n\r\ndata: ") && !text.replace("\r\n", "").contains('\n'));
    assert!(!text.contains("[DONE]"));
    let events = events_of(&text);
    let calls: Vec<&Value> = events
        .iter()
        .map(|event| &event["choices"][0]["delta"]["tool_calls"])
        .filter(|calls| !calls.is_null())
        .collect();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0][0]["function"], json!({"name": "find_slots", "arguments": r#"{"day":"tue"}"#}));
    assert!(!text.contains("\"index\""));
    assert!(events.iter().all(|event| event["usage"].is_object()));
    assert!(events.iter().any(|event| event["choices"][0]["delta"]["reasoning_content"].is_string()));
    assert!(events.iter().any(|event| event["obfuscation"].is_string()));
    assert!(text.contains(r#""finish_reason":"stop""#));
}

#[tokio::test]
async fn chat_refuses_what_openai_refuses() {
    let sim = start(Program::default()).await;
    let tool_result = json!({"role": "tool", "tool_call_id": "call_9", "content": "x"});
    let unanswered = json!({"role": "assistant", "content": null,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    let lax = json!([{"type": "function", "function": {"name": "f", "strict": true, "parameters": {"type": "object", "properties": {}}}}]);
    let wrong: [(&str, Value, &str); 9] = [
        ("/model", Value::Null, "model"),
        ("/messages", json!([]), "messages"),
        ("/messages/1/role", json!("caller"), "role"),
        ("/messages/1/content", Value::Null, "content"),
        ("/messages/1", tool_result, "preceeding message"),
        ("/messages/0", unanswered, "call_1"),
        ("/stream", json!(false), "stream_options"),
        ("/temperature", json!(7), "temperature"),
        ("/tools", lax, "additionalProperties"),
    ];
    for (pointer, value, about) in wrong {
        let mut body = ask("hello");
        body["tools"] = tools();
        body["temperature"] = json!(0.4);
        *body.pointer_mut(pointer).unwrap() = value;
        let response = post(&sim, "/v1/chat/completions", &body).await;
        assert_eq!(response.status(), 400, "{pointer}");
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["type"], "invalid_request_error");
        assert!(error["error"]["message"].as_str().unwrap().contains(about), "{pointer}: {error}");
        assert_eq!(last(&sim, Service::Chat).oddities.len(), 1, "{pointer}");
    }
    for (name, value) in
        [("voice", json!("x")), ("tool_choice", json!("auto")), ("parallel_tool_calls", json!(false))]
    {
        let mut body = ask("hello");
        body[name] = value;
        assert_eq!(post(&sim, "/v1/chat/completions", &body).await.status(), 400, "{name}");
    }
    let form =
        client().post(format!("{}/v1/chat/completions", sim.base_url)).bearer_auth("secret-key").body("{}");
    assert_eq!(form.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn keys_and_models_are_checked_as_documented() {
    let settings = ProviderSimSettings {
        key: Some("right".into()),
        models: vec!["gpt-sim".into()],
        ..ProviderSimSettings::default()
    };
    let sim = ProviderSim::start(settings).await.unwrap();
    let url = format!("{}/v1/models", sim.base_url);
    let code = async |header: Option<(&str, &str)>| {
        let request = client().get(&url);
        let request = header.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap()["error"]["code"].clone())
    };
    assert_eq!(code(None).await, (401, Value::Null));
    assert_eq!(code(Some(("authorization", "Bearer wrong"))).await, (401, json!("invalid_api_key")));
    assert_eq!(code(Some(("authorization", "Token right"))).await, (401, json!("invalid_api_key")));
    assert_eq!(code(Some(("x-api-key", "right"))).await, (401, json!("invalid_api_key")));
    let list: Value = client().get(&url).bearer_auth("right").send().await.unwrap().json().await.unwrap();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("gpt-sim")));

    let chat =
        client().post(format!("{}/v1/chat/completions", sim.base_url)).bearer_auth("right").json(&ask("hi"));
    let response = chat.send().await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn the_model_refuses_fails_and_runs_out_of_tokens_by_rule() {
    let rule = |contains: &str, reply| Rule { contains: contains.into(), reply };
    let sim = start(Program {
        rules: vec![
            rule("secret", Reply::Refusal("I can't help with that.".into())),
            rule("broke", Reply::Error { status: 429, code: "insufficient_quota".into() }),
            rule(
                "crash",
                Reply::ErrorMidStream { text: "One two three four".into(), code: "server_error".into() },
            ),
        ],
        ..Program::default()
    })
    .await;
    let refused = chat(&sim, &ask("tell me a secret")).await;
    assert_eq!(refused[1]["choices"][0]["delta"]["refusal"], "I");

    let response = post(&sim, "/v1/chat/completions", &ask("are you broke?")).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "insufficient_quota");

    let crashed = chat(&sim, &ask("please crash")).await;
    assert_eq!(text_of(&crashed), "One two");
    assert_eq!(crashed.last().unwrap()["error"]["code"], "server_error");

    let mut body = ask("one two three four five");
    body["max_completion_tokens"] = json!(3);
    let short = chat(&sim, &body).await;
    assert_eq!(text_of(&short), "You said one");
    assert_eq!(short[short.len() - 2]["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn every_chat_fault_strikes_as_described() {
    let sim = start(Program { delays: late(1), ..Program::default() }).await;
    let request = ask("one two three four five six");
    let whole = "You said one two three four five six.";
    let finishes = |text: &str| text.matches(r#""finish_reason":"stop""#).count();

    let refused =
        with_fault(&sim, Fault::Refuse { status: 429, retry_after_ms: Some(1_500) }, &request).await.unwrap();
    assert_eq!(refused.status(), 429);
    let advice =
        ["retry-after-ms", "retry-after"].map(|name| refused.headers()[name].to_str().unwrap().to_owned());
    assert_eq!(advice, ["1500", "2"]);

    let cut = with_fault(&sim, Fault::Cut, &request).await.unwrap();
    let (text, broken) = read_until(cut, |_| false).await;
    assert!(broken && text.contains("You") && !text.contains("six") && !text.contains("prompt_tokens"));
    assert_eq!(last(&sim, Service::Chat).closed.unwrap().by, ClosedBy::Fault);

    let malformed = with_fault(&sim, Fault::MalformedJson, &request).await.unwrap().text().await.unwrap();
    let events = malformed.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    assert_eq!(
        events.filter(|data| serde_json::from_str::<Value>(data).is_err()).count(),
        2,
        "it and [DONE]"
    );

    let empty = with_fault(&sim, Fault::Empty, &request).await.unwrap().text().await.unwrap();
    assert_eq!((text_of(&events_of(&empty)).as_str(), finishes(&empty)), ("", 1));

    let twice = with_fault(&sim, Fault::Duplicate, &request).await.unwrap().text().await.unwrap();
    assert_eq!(finishes(&twice), 2);

    let early = with_fault(&sim, Fault::WrongOrder, &request).await.unwrap().text().await.unwrap();
    assert!(early.find("finish_reason\":\"stop").unwrap() < early.find(" six.").unwrap());
    assert_eq!(text_of(&events_of(&early)), whole);

    let late = with_fault(&sim, Fault::Late, &request).await.unwrap().text().await.unwrap();
    assert_eq!(text_of(&events_of(&late)), whole);

    let endless = with_fault(&sim, Fault::Endless, &request).await.unwrap();
    let (text, broken) = read_until(endless, |text| text.matches(" and").count() > 20).await;
    assert!(!broken && finishes(&text) == 0);
    assert_eq!(closed(&sim).await.by, ClosedBy::Client);

    let stalled = with_fault(&sim, Fault::StallMidStream, &request).await.unwrap();
    let (text, _) = read_until(stalled, |text| text.contains(" one")).await;
    assert!(!text.contains("six"));
    assert_eq!(closed(&sim).await.by, ClosedBy::Client);

    let stalled = tokio::spawn(with_fault(&sim, Fault::Stall, &request));
    let arrived = |records: &[Record]| records.last().is_some_and(|record| record.faults == [Fault::Stall]);
    let records = sim.wait_for(LIMIT, arrived).await.expect("it arrives");
    assert_eq!((records.last().unwrap().status, records.last().unwrap().closed), (0, None));
    stalled.abort();
    assert_eq!(closed(&sim).await.by, ClosedBy::Client);
}

#[tokio::test]
async fn a_reply_given_up_is_recorded_as_far_as_it_was_sent() {
    let mut program = Program::default();
    program.delays.per_token_ms = 20;
    let sim = start(program).await;
    let response =
        post(&sim, "/v1/chat/completions", &ask("one two three four five six seven eight nine ten")).await;
    read_until(response, |text| text.contains(" two")).await;
    assert_eq!(closed(&sim).await.by, ClosedBy::Client);
    let record = last(&sim, Service::Chat);
    assert!(
        record.reply.starts_with("You said one two") && !record.reply.contains("ten"),
        "{}",
        record.reply
    );
}

#[tokio::test]
async fn faults_by_probability_follow_the_seed() {
    let luck = async |seed| {
        let rate = FaultRate {
            service: Service::Chat,
            fault: Fault::Refuse { status: 500, retry_after_ms: None },
            probability: 0.5,
        };
        let mut settings = ProviderSimSettings { seed, ..ProviderSimSettings::default() };
        settings.program.faults.rates.push(rate);
        let sim = ProviderSim::start(settings).await.unwrap();
        let mut statuses = Vec::new();
        for _ in 0..24 {
            statuses.push(post(&sim, "/v1/chat/completions", &ask("hi")).await.status().as_u16());
        }
        statuses
    };
    let first = luck(5).await;
    assert_eq!(first, luck(5).await);
    assert_ne!(first, luck(6).await);
    assert_eq!(first.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([200, 500]));
}

// OpenAI audio

#[tokio::test]
async fn a_file_is_transcribed_by_what_it_spells() {
    let sim = start(Program::default()).await;
    let wav = || Wav::mono(8_000, utterance("I'd like a table for two.", 2.0)).to_bytes();
    let answer: Value =
        transcribe(&sim, wav(), &[("model", "whisper-1"), ("language", "en")]).await.json().await.unwrap();
    assert_eq!(answer["text"], "I'd like a table for two.");
    assert_eq!(answer["usage"]["type"], "duration");

    let text = transcribe(&sim, wav(), &[("model", "whisper-1"), ("response_format", "text")])
        .await
        .text()
        .await
        .unwrap();
    assert_eq!(text, "I'd like a table for two.\n");

    let stream = transcribe(&sim, wav(), &[("model", "gpt-4o-transcribe"), ("stream", "true")])
        .await
        .text()
        .await
        .unwrap();
    let events = events_of(&stream);
    let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(deltas, "I'd like a table for two.");
    assert_eq!(events.last().unwrap()["type"], "transcript.text.done");
    assert_eq!(events.last().unwrap()["text"], deltas.as_str());

    sim.program(|program| program.hears.push_back("from the script".into()));
    let silence = Wav::mono(8_000, vec![0; 8_000]).to_bytes();
    let answer: Value = transcribe(&sim, silence, &[("model", "whisper-1")]).await.json().await.unwrap();
    assert_eq!(answer["text"], "from the script");
    assert_eq!(last(&sim, Service::Transcription).heard, ["from the script"]);
}

#[tokio::test]
async fn transcription_and_speech_refuse_what_they_cannot_take() {
    let sim = start(Program::default()).await;
    let wav = Wav::mono(8_000, vec![0; 800]).to_bytes();
    let cases = [
        (wav.as_slice(), [("language", "en"), ("temperature", "0")]),
        (&wav, [("model", "whisper-1"), ("language", "english")]),
        (&wav, [("model", "whisper-1"), ("tempo", "1")]),
        (&wav, [("model", "whisper-1"), ("response_format", "xml")]),
        (b"not audio", [("model", "whisper-1"), ("language", "en")]),
    ];
    for (file, fields) in cases {
        assert_eq!(transcribe(&sim, file.to_vec(), &fields).await.status(), 400, "{fields:?}");
        assert_eq!(last(&sim, Service::Transcription).oddities.len(), 1);
    }
    let good =
        json!({"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Hello.", "response_format": "pcm"});
    let wrong = [
        ("model", Value::Null),
        ("voice", Value::Null),
        ("input", json!("x".repeat(4_097))),
        ("response_format", json!("mp3")),
        ("speed", json!(9)),
        ("pitch", json!(1)),
    ];
    for (name, value) in wrong {
        let mut body = good.clone();
        body[name] = value;
        assert_eq!(post(&sim, "/v1/audio/speech", &body).await.status(), 400, "{name}");
    }
}

#[tokio::test]
async fn speech_is_24_khz_samples_that_say_the_input() {
    let sim = start(Program::default()).await;
    let mut body = json!({"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Sure, we have a table.", "response_format": "pcm"});
    let response = post(&sim, "/v1/audio/speech", &body).await;
    let bytes = response.bytes().await.unwrap();
    assert_eq!(heard(&at_8_khz(24_000, &linear(&bytes))), "Sure, we have a table.");
    // Two bytes a sample; 15 letters a second, a space before each word and after the last.
    assert_eq!(bytes.len(), (24.0 / 15.0 * 24_000.0) as usize * 2);
    let record = last(&sim, Service::Speech);
    assert_eq!(
        (record.spoken[0].sent_ms, record.audio_bytes_out),
        (record.spoken[0].audio_ms, bytes.len() as u64)
    );

    body["response_format"] = json!("wav");
    let wav = Wav::parse(&post(&sim, "/v1/audio/speech", &body).await.bytes().await.unwrap()).unwrap();
    assert_eq!((wav.rate_hz, wav.samples.len() * 2), (24_000, bytes.len()));

    body["response_format"] = json!("pcm");
    sim.program(|program| program.faults.push(Service::Speech, Fault::Cut));
    let cut = post(&sim, "/v1/audio/speech", &body).await;
    assert!(cut.bytes().await.is_err());
}

// Deepgram, /v1/listen

const CALL_QUERY: &str = "model=nova-3&encoding=mulaw&sample_rate=8000&interim_results=true&endpointing=300&utterance_end_ms=1000&vad_events=true&smart_format=true";

#[tokio::test]
async fn deepgram_hears_an_utterance_as_the_audio_decides() {
    let sim = start(Program::default()).await;
    let mut socket = listen(&sim, CALL_QUERY).await;
    socket.say(&silence(400)).await;
    socket.say(&utterance("I'd like a table for two on Tuesday.", 2.5)).await;
    socket.say(&silence(1_500)).await;

    let started = socket.json().await;
    assert_eq!((&started["type"], &started["channel"]), (&json!("SpeechStarted"), &json!([0, 1])));
    assert!((0.38..=0.45).contains(&started["timestamp"].as_f64().unwrap()), "{started}");

    let interims = [socket.json().await, socket.json().await];
    for interim in &interims {
        assert_eq!((&interim["type"], &interim["is_final"]), (&json!("Results"), &json!(false)));
    }
    let said =
        |message: &Value| message["channel"]["alternatives"][0]["transcript"].as_str().unwrap().to_owned();
    assert!(
        said(&interims[1]).starts_with(&said(&interims[0])) && said(&interims[0]).starts_with("I'd like")
    );

    let last_interim_or_final = socket.json_where(|message| message["is_final"] == true).await;
    assert_eq!(said(&last_interim_or_final), "I'd like a table for two on Tuesday.");
    assert_eq!(last_interim_or_final["speech_final"], true);
    assert_eq!(last_interim_or_final["channel_index"], json!([0, 1]));
    let words = last_interim_or_final["channel"]["alternatives"][0]["words"].as_array().unwrap();
    assert_eq!((&words[7]["word"], &words[7]["punctuated_word"]), (&json!("tuesday"), &json!("Tuesday.")));
    assert!((2.8..=2.95).contains(&words[7]["end"].as_f64().unwrap()), "{}", words[7]);

    let end = socket.json().await;
    assert_eq!((&end["type"], &end["last_word_end"]), (&json!("UtteranceEnd"), &words[7]["end"]));
    socket.send(json!({"type": "CloseStream"})).await;
    let metadata = socket.json().await;
    assert_eq!((&metadata["type"], &metadata["duration"]), (&json!("Metadata"), &json!(4.4)));
    assert_eq!(socket.closed().await, Some((1000, String::new())));

    let record = last(&sim, Service::DeepgramListen);
    assert_eq!(record.heard, ["I'd like a table for two on Tuesday."]);
    assert_eq!((record.audio_bytes_in, record.status), (4_400 * 8, 101));
    assert!(record.oddities.is_empty(), "{:?}", record.oddities);
}

#[tokio::test]
async fn deepgram_writes_plainly_unless_told_to_format() {
    let sim = start(Program::default()).await;
    let mut socket = listen(&sim, "model=nova-3&encoding=linear16&sample_rate=16000&endpointing=300").await;
    let speech = resampled(8_000, 16_000, &[utterance("Hello, Zoë!", 1.0), silence(600)].concat());
    socket.audio(&speech.iter().flat_map(|sample| sample.to_le_bytes()).collect::<Vec<_>>()).await;
    let results = socket.json().await;
    assert_eq!(results["channel"]["alternatives"][0]["transcript"], "hello zoë");
    assert_eq!(results["channel"]["alternatives"][0]["words"][0]["punctuated_word"], Value::Null);
}

#[tokio::test]
async fn deepgram_cuts_long_speech_into_segments_of_one_utterance() {
    let sim = start(Program::default()).await;
    let mut socket = listen(&sim, CALL_QUERY).await;
    let text = "my number is five five five one two three four and my name is spelled with a double t at the end of it thank you";
    socket.say(&utterance(text, 9.0)).await;
    socket.say(&silence(800)).await;
    let mut parts = Vec::new();
    loop {
        let results = socket.json_where(|message| message["is_final"] == true).await;
        parts.push(results["channel"]["alternatives"][0]["transcript"].as_str().unwrap().to_owned());
        if results["speech_final"] == true {
            break;
        }
    }
    assert_eq!(parts.len(), 2);
    assert_eq!(parts.join(" "), text);
}

#[tokio::test]
async fn noise_hides_the_end_of_speech_and_utterance_end_tells_it() {
    let sim = start(Program::default()).await;
    let mut socket = listen(&sim, CALL_QUERY).await;
    let noise = |sample: usize| ((sample * 7_919 % 997) as i16 - 498) / 2;
    let call = [utterance("do you hear me", 1.2), silence(5_000)].concat();
    let noisy: Vec<i16> = call.iter().enumerate().map(|(place, sample)| sample + noise(place)).collect();
    socket.say(&noisy).await;
    let decides = |message: &Value| message["speech_final"] == true || message["type"] == "UtteranceEnd";
    assert_eq!(socket.json_where(decides).await["type"], "UtteranceEnd");
    let segment = socket.json_where(|message| message["is_final"] == true).await;
    assert_eq!(segment["channel"]["alternatives"][0]["transcript"], "do you hear me");
    assert_eq!(segment["speech_final"], false);
}

#[tokio::test]
async fn deepgram_finalizes_on_request_even_inside_a_word() {
    let sim = start(Program::default()).await;
    let mut socket = listen(&sim, CALL_QUERY).await;
    let speech = utterance("good morning everybody", 2.0);
    socket.say(&speech[..speech.len() - 3_000]).await;
    socket.send(json!({"type": "Finalize"})).await;
    let results = socket.json_where(|message| message["from_finalize"] == true).await;
    assert_eq!(results["is_final"], true);
    let text = results["channel"]["alternatives"][0]["transcript"].as_str().unwrap();
    assert!(text.starts_with("good morning ever") && text.len() < "good morning everybody".len(), "{text}");
}

#[tokio::test]
async fn deepgram_hears_real_speech_by_script() {
    let hears = ["Do you open on Sunday?".to_owned(), "Thank you.".to_owned()].into();
    let sim = start(Program { hears, ..Program::default() }).await;
    let mut socket = listen(&sim, CALL_QUERY).await;
    for line in ["Do you open on Sunday?", "Thank you."] {
        socket.say(&crate::customer::tone(900)).await;
        socket.say(&silence(500)).await;
        let results = socket.json_where(|message| message["speech_final"] == true).await;
        assert_eq!(results["channel"]["alternatives"][0]["transcript"], line);
    }
    socket.say(&crate::customer::tone(300)).await;
    socket.say(&silence(500)).await;
    let cough = socket.json_where(|message| message["speech_final"] == true).await;
    assert_eq!(cough["channel"]["alternatives"][0]["transcript"], "", "a cough has no words");
}

#[tokio::test]
async fn deepgram_closes_when_it_hears_nothing() {
    let mut program = Program::default();
    program.limits.deepgram_silence_ms = 50;
    let sim = start(program).await;
    let mut socket = listen(&sim, CALL_QUERY).await;
    let (code, reason) = socket.closed().await.unwrap();
    assert_eq!(code, 1011);
    assert!(reason.starts_with("NET-0001"), "{reason}");
}

#[tokio::test]
async fn keep_alive_holds_a_stream_only_after_its_first_audio() {
    let mut program = Program::default();
    program.limits.deepgram_silence_ms = 500;
    let sim = start(program).await;
    let alive = async |first_audio: bool| {
        let mut socket = listen(&sim, CALL_QUERY).await;
        if first_audio {
            socket.say(&silence(100)).await;
        }
        let mut beat = interval(Duration::from_millis(50));
        for _ in 0..16 {
            beat.tick().await;
            socket.send(json!({"type": "KeepAlive"})).await;
        }
        socket.send(json!({"type": "CloseStream"})).await;
        socket.closed().await.unwrap().0
    };
    assert_eq!(alive(true).await, 1000);
    assert_eq!(alive(false).await, 1011);
}

#[tokio::test]
async fn deepgram_takes_an_empty_message_for_the_end() {
    let sim = start(Program::default()).await;
    let mut socket = listen(&sim, CALL_QUERY).await;
    socket.say(&silence(100)).await;
    socket.audio(&[]).await;
    assert_eq!(socket.json().await["type"], "Metadata");
    assert_eq!(socket.closed().await.unwrap().0, 1000);
    assert!(last(&sim, Service::DeepgramListen).oddities[0].contains("empty"));
}

#[tokio::test]
async fn deepgram_closes_on_what_is_neither_audio_nor_a_message() {
    let sim = start(Program::default()).await;
    for (query, message) in [
        ("model=nova-3", Message::Binary(vec![0xFF; 160].into())),
        (CALL_QUERY, Message::Text("hello".into())),
        (CALL_QUERY, Message::Text(r#"{"type":"Speak","text":"hello"}"#.into())),
    ] {
        let mut socket = listen(&sim, query).await;
        socket.0.send(message).await.unwrap();
        let (code, reason) = socket.closed().await.unwrap();
        assert!(code == 1008 && reason.starts_with("DATA-0000"), "{code} {reason}");
    }
}

#[tokio::test]
async fn deepgram_refuses_to_open_with_its_headers() {
    let sim = start(Program::default()).await;
    let refused = async |path: &str, header: Option<(&str, &str)>| {
        let response = open(&sim, path, header.as_slice()).await.expect_err("refused");
        let cause = response.headers()["dg-error"].to_str().unwrap().to_owned();
        assert!(response.headers().contains_key("dg-request-id"));
        (
            response.status().as_u16(),
            cause,
            serde_json::from_slice::<Value>(response.body().as_ref().unwrap()).unwrap(),
        )
    };
    let token = Some(("authorization", "Token secret-key"));
    let good = format!("/v1/listen?{CALL_QUERY}");
    for header in [None, Some(("authorization", "Bearer secret-key")), Some(("x-api-key", "secret-key"))] {
        let (status, _, body) = refused(&good, header).await;
        assert_eq!((status, &body["err_code"]), (401, &json!("INVALID_AUTH")));
    }
    for (query, about) in [
        ("model=nova-3&encoding=mulaw", "sample_rate"),
        ("model=nova-3&encoding=mp4&sample_rate=8000", "encoding"),
        ("model=nova-3&interim_results=true&utterance_end_ms=500", "utterance_end_ms"),
        ("model=nova-3&utterance_end_ms=1000", "interim_results"),
        ("model=nova-2&keyterm=Offhook", "keyterm"),
        ("model=nova-3&endpointing=soon", "endpointing"),
    ] {
        let (status, cause, _) = refused(&format!("/v1/listen?{query}"), token).await;
        assert!(status == 400 && cause.contains(about), "{query}: {status} {cause}");
    }
    sim.program(|program| {
        program.faults.push(Service::DeepgramListen, Fault::Refuse { status: 402, retry_after_ms: None });
        program.faults.push(Service::DeepgramListen, Fault::Refuse { status: 429, retry_after_ms: None });
    });
    assert_eq!(refused(&good, token).await.2["err_code"], "ASR_PAYMENT_REQUIRED");
    assert_eq!(refused(&good, token).await.2["err_code"], "TOO_MANY_REQUESTS");
    listen(&sim, &format!("{CALL_QUERY}&loudness=3")).await;
    assert_eq!(last(&sim, Service::DeepgramListen).oddities, ["unknown parameter loudness"]);
}

#[tokio::test]
async fn every_recogniser_fault_strikes_as_described() {
    let sim = start(Program { delays: late(1), ..Program::default() }).await;
    let finals = async |fault: Fault| {
        sim.program(|program| program.faults.push(Service::DeepgramListen, fault));
        let mut socket = listen(&sim, CALL_QUERY).await;
        socket.say(&utterance("yes please do that", 1.5)).await;
        socket.say(&silence(1_500)).await;
        socket.send(json!({"type": "CloseStream"})).await;
        let mut messages = Vec::new();
        while let Some(message) = socket.message().await {
            messages.push(serde_json::from_str::<Value>(&message).unwrap_or(Value::Null));
        }
        messages
    };
    let count = |messages: &[Value], fits: fn(&Value) -> bool| {
        messages.iter().filter(|message| fits(message)).count()
    };
    let speech_final = |message: &Value| message["speech_final"] == true;
    let is_final = |message: &Value| message["is_final"] == true;
    let words = |message: &Value| {
        message["channel"]["alternatives"][0]["transcript"].as_str().is_some_and(|text| !text.is_empty())
    };

    assert_eq!(finals(Fault::Stall).await, [] as [Value; 0]);
    assert_eq!(count(&finals(Fault::StallMidStream).await, is_final), 0);
    assert_eq!(count(&finals(Fault::Cut).await, |message| message["type"] == "Metadata"), 0);
    assert_eq!(count(&finals(Fault::MalformedJson).await, Value::is_null), 1);
    assert_eq!(count(&finals(Fault::Empty).await, |message| message["is_final"] == true), 1);
    assert_eq!(
        finals(Fault::Empty).await.iter().filter(|message| is_final(message) && words(message)).count(),
        0
    );
    assert_eq!(count(&finals(Fault::Duplicate).await, speech_final), 2);
    assert_eq!(count(&finals(Fault::Late).await, speech_final), 1);
    let noisy = finals(Fault::MissingSpeechFinal).await;
    assert_eq!((count(&noisy, is_final), count(&noisy, speech_final)), (1, 0));
    assert_eq!(count(&noisy, |message| message["type"] == "UtteranceEnd"), 1, "it is there for that");
    let endless = finals(Fault::Endless).await;
    assert_eq!(count(&endless, speech_final), 0);
    assert!(count(&endless, |message| message["is_final"] == false) >= 2);
    let stale = finals(Fault::WrongOrder).await;
    let place = stale.iter().position(speech_final).unwrap();
    assert_eq!(stale[place + 1]["is_final"], false);
}

// Deepgram Flux, /v2/listen

const FLUX_QUERY: &str = "model=flux-general-en&encoding=mulaw&sample_rate=8000&eager_eot_threshold=0.4";

#[tokio::test]
async fn flux_announces_takes_back_and_ends_turns() {
    let sim = start(Program::default()).await;
    let mut socket = flux(&sim, FLUX_QUERY).await;
    assert_eq!(socket.json().await["type"], "Connected");
    socket.say(&utterance("my number is five", 1.5)).await;
    socket.say(&silence(380)).await;
    socket.say(&utterance("five nine", 1.0)).await;
    socket.say(&silence(700)).await;
    socket.send(json!({"type": "CloseStream"})).await;
    let mut events: Vec<(String, String)> = Vec::new();
    let mut sequence_ids = Vec::new();
    while let Some(message) = socket.message().await {
        let message: Value = serde_json::from_str(&message).unwrap();
        assert_eq!((&message["type"], &message["turn_index"]), (&json!("TurnInfo"), &json!(0)));
        sequence_ids.push(message["sequence_id"].as_u64().unwrap());
        let text = |name: &str| message[name].as_str().unwrap().to_owned();
        if text("event") != "Update" {
            events.push((text("event"), text("transcript")));
        }
    }
    let expected = [
        ("StartOfTurn", "my"),
        ("EagerEndOfTurn", "my number is five"),
        ("TurnResumed", "my number is five"),
        ("EagerEndOfTurn", "my number is five five nine"),
        ("EndOfTurn", "my number is five five nine"),
    ];
    assert_eq!(events, expected.map(|(event, text)| (event.to_owned(), text.to_owned())));
    assert_eq!(sequence_ids, (1..=sequence_ids.len() as u64).collect::<Vec<_>>());
    assert_eq!(last(&sim, Service::DeepgramFlux).heard, ["my number is five five nine"]);
}

#[tokio::test]
async fn flux_is_configured_on_the_way_and_fails_on_what_it_does_not_know() {
    let sim = start(Program::default()).await;
    let mut socket = flux(&sim, FLUX_QUERY).await;
    socket.json().await;
    socket
        .send(json!({"type": "Configure", "thresholds": {"eot_threshold": 0.9}, "keyterms": ["Offhook"]}))
        .await;
    let success = socket.json().await;
    assert_eq!(
        (&success["type"], &success["thresholds"]["eot_threshold"]),
        (&json!("ConfigureSuccess"), &json!(0.9))
    );
    socket.send(json!({"type": "Configure", "thresholds": {"eot_threshold": 0.1}})).await;
    assert_eq!(socket.json().await["type"], "ConfigureFailure");
    socket.send(json!({"type": "KeepAlive"})).await;
    assert_eq!(socket.json().await["type"], "Error");
    assert!(socket.closed().await.is_some());

    let token = [("authorization", "Token secret-key")];
    for query in [
        "encoding=mulaw&sample_rate=8000",
        "model=nova-3&encoding=mulaw&sample_rate=8000",
        "model=flux-general-en&encoding=mulaw&sample_rate=8000&language_hint=de",
        "model=flux-general-en&encoding=mulaw&sample_rate=8000&eager_eot_threshold=0.9",
    ] {
        let refused = open(&sim, &format!("/v2/listen?{query}"), &token).await.err();
        assert_eq!(refused.expect(query).status(), 400);
    }
}

#[tokio::test]
async fn every_flux_fault_strikes_at_the_end_of_the_turn() {
    let sim = start(Program { delays: late(1), ..Program::default() }).await;
    let turns = async |fault: Fault| {
        sim.program(|program| program.faults.push(Service::DeepgramFlux, fault));
        let mut socket = flux(&sim, "model=flux-general-en&encoding=mulaw&sample_rate=8000").await;
        socket.json().await;
        socket.say(&[utterance("yes please", 1.0), silence(900)].concat()).await;
        socket.send(json!({"type": "CloseStream"})).await;
        let mut events = Vec::new();
        while let Some(message) = socket.message().await {
            let message: Value = serde_json::from_str(&message).unwrap_or_default();
            let text = |name: &str| message[name].as_str().unwrap_or("broken").to_owned();
            if text("event") != "Update" || events.last().is_some_and(|(event, _)| event == "EndOfTurn") {
                events.push((text("event"), text("transcript")));
            }
        }
        events.iter().skip(1).map(|(event, text)| format!("{event} {text}")).collect::<Vec<_>>()
    };
    let end = "EndOfTurn yes please";
    assert_eq!(turns(Fault::Late).await, [end]);
    assert_eq!(turns(Fault::Empty).await, ["EndOfTurn "]);
    assert_eq!(turns(Fault::Duplicate).await, [end, end]);
    assert_eq!(turns(Fault::WrongOrder).await, [end, "Update yes please"]);
    assert_eq!(turns(Fault::MalformedJson).await, ["broken broken", end]);
    for silent in [Fault::Stall, Fault::StallMidStream, Fault::Cut] {
        assert_eq!(turns(silent).await, [] as [&str; 0], "{silent:?}");
    }
}

// Deepgram, /v1/speak

const SPEAK: &str = "/v1/speak?model=aura-2-thalia-en&encoding=mulaw&sample_rate=8000";

#[tokio::test]
async fn deepgram_speaks_what_was_flushed() {
    let sim = start(Program::default()).await;
    let mut socket = speak(&sim).await;
    assert_eq!(socket.json().await["type"], "Metadata");
    socket.send(json!({"type": "Speak", "text": "Sure, we have "})).await;
    socket.send(json!({"type": "Speak", "text": "a table at eight."})).await;
    socket.send(json!({"type": "Flush"})).await;
    let (audio, flushed) = socket.audio_until_json().await;
    assert_eq!(flushed, json!({"type": "Flushed", "sequence_id": 0}));
    assert_eq!(heard(&mulaw(&audio)), "Sure, we have a table at eight.");
    socket.send(json!({"type": "Speak", "text": "Bye."})).await;
    socket.send(json!({"type": "Close"})).await;
    let (audio, flushed) = socket.audio_until_json().await;
    assert_eq!(flushed["sequence_id"], 1);
    assert_eq!(heard(&mulaw(&audio)), "Bye.");
    assert_eq!(socket.closed().await.unwrap().0, 1000);
}

#[tokio::test]
async fn deepgram_sends_late_audio_before_it_has_cleared() {
    let mut program = Program::default();
    program.voice.times_real_time = 1.0;
    program.voice.late_chunks = 2;
    let sim = start(program).await;
    let mut socket = speak(&sim).await;
    socket.json().await;
    socket.send(json!({"type": "Speak", "text": "one two three four five six seven eight nine ten"})).await;
    socket.send(json!({"type": "Flush"})).await;
    assert_eq!(socket.chunk().await.len(), 800);
    socket.send(json!({"type": "Clear"})).await;
    let (late, cleared) = socket.audio_until_json().await;
    assert_eq!(cleared, json!({"type": "Cleared", "sequence_id": 0}));
    assert!(
        (2 * 800..=4 * 800).contains(&late.len()),
        "two late ones, and what was on its way: {}",
        late.len()
    );
    socket.send(json!({"type": "Speak", "text": "sorry"})).await;
    socket.send(json!({"type": "Flush"})).await;
    let (audio, _) = socket.audio_until_json().await;
    assert_eq!(heard(&mulaw(&audio)), "sorry");
    let record = last(&sim, Service::DeepgramSpeak);
    assert!(
        record.spoken[0].cancelled_at_ms.is_some() && record.spoken[0].sent_ms < record.spoken[0].audio_ms
    );
    assert_eq!(record.spoken[1].cancelled_at_ms, None);
}

#[tokio::test]
async fn deepgram_limits_flushes_and_characters() {
    let sim = start(Program::default()).await;
    let mut socket = speak(&sim).await;
    socket.json().await;
    for _ in 0..21 {
        socket.send(json!({"type": "Flush"})).await;
    }
    assert_eq!(socket.json_where(|message| message["type"] == "Warning").await["code"], "EXCESSIVE_FLUSH");
    socket.send(json!({"type": "Speak", "text": "x".repeat(2_001)})).await;
    let (code, reason) = socket.closed().await.unwrap();
    assert!(code == 1008 && reason.starts_with("DATA-0001"), "{code} {reason}");

    let mut socket = speak(&sim).await;
    socket.send(json!({"type": "KeepAlive"})).await;
    let (code, reason) = socket.closed().await.unwrap();
    assert!(code == 1003 && reason.starts_with("MESSAGE-0000"), "{code} {reason}");
    let refused =
        open(&sim, "/v1/speak?encoding=mulaw&sample_rate=24000", &[("authorization", "Token secret-key")])
            .await;
    assert_eq!(refused.err().unwrap().status(), 400);
}

#[tokio::test]
async fn every_voice_fault_strikes_as_described() {
    let sim = start(Program { delays: late(1), ..Program::default() }).await;
    let spoken = async |fault: Fault| {
        sim.program(|program| program.faults.push(Service::DeepgramSpeak, fault));
        let mut socket = speak(&sim).await;
        socket.json().await;
        socket.send(json!({"type": "Speak", "text": "one two three four five"})).await;
        socket.send(json!({"type": "Flush"})).await;
        if fault == Fault::Endless {
            let mut audio = Vec::new();
            while heard(&mulaw(&audio)).matches("five").count() < 2 {
                audio.extend(socket.chunk().await);
            }
            return (heard(&mulaw(&audio)), Vec::new());
        }
        socket.send(json!({"type": "Close"})).await;
        let (mut audio, mut messages) = (Vec::new(), Vec::new());
        while let Some(message) = socket.next().await {
            match message {
                Message::Binary(bytes) => audio.extend(bytes),
                message => messages.push((audio.len(), message.to_string())),
            }
        }
        (heard(&mulaw(&audio)), messages)
    };
    let whole = "one two three four five".to_owned();
    let flushes = |messages: &[(usize, String)]| {
        messages.iter().filter(|(_, message)| message.contains("Flushed")).count()
    };

    assert_eq!(spoken(Fault::Stall).await, (String::new(), vec![]));
    let (half, messages) = spoken(Fault::StallMidStream).await;
    assert!(whole.starts_with(&half) && !half.is_empty() && half != whole && messages.is_empty(), "{half}");
    let (half, messages) = spoken(Fault::Cut).await;
    assert!(whole.starts_with(&half) && !half.is_empty() && half != whole && messages.is_empty(), "{half}");
    let (all, messages) = spoken(Fault::MalformedJson).await;
    assert_eq!((all, messages.len(), flushes(&messages)), (whole.clone(), 2, 1));
    assert_eq!(spoken(Fault::Empty).await.0, "");
    assert_eq!(flushes(&spoken(Fault::Duplicate).await.1), 2);
    assert_eq!(spoken(Fault::Late).await.0, whole);
    let (all, messages) = spoken(Fault::WrongOrder).await;
    assert!(all == whole && messages[0].0 < 13_333, "{messages:?}");
    assert!(spoken(Fault::Endless).await.0.starts_with("one two three four five one two three four five"));
}

// ElevenLabs

const ELEVEN: &str =
    "/v1/text-to-speech/voice1/multi-stream-input?model_id=eleven_flash_v2_5&output_format=ulaw_8000";

#[tokio::test]
async fn elevenlabs_speaks_contexts_with_the_times_of_their_characters() {
    let sim = start(Program::default()).await;
    let mut socket = eleven(&sim).await;
    for context in ["u7", "u8"] {
        socket.send(json!({"text": " ", "context_id": context, "voice_settings": {"stability": 0.5}})).await;
    }
    socket.send(json!({"text": "Sure, we have a table. ", "context_id": "u7"})).await;
    socket.send(json!({"text": "Anything else? ", "context_id": "u8", "flush": true})).await;
    let mut chars = String::new();
    let mut audio = Vec::new();
    socket.send(json!({"context_id": "u8", "close_context": true})).await;
    loop {
        let message = socket.json().await;
        assert_eq!(message["contextId"], "u8", "u7 has too few characters to begin");
        if message["isFinal"] == true {
            break;
        }
        audio.extend(STANDARD.decode(message["audio"].as_str().unwrap()).unwrap());
        let alignment = &message["alignment"];
        chars.extend(alignment["chars"].as_array().unwrap().iter().filter_map(Value::as_str));
        let starts = alignment["charStartTimesMs"].as_array().unwrap();
        assert!(
            starts.iter().all(|start| start.as_u64().unwrap() <= 100),
            "relative to the chunk: {starts:?}"
        );
    }
    assert_eq!((chars.trim(), heard(&mulaw(&audio)).as_str()), ("Anything else?", "Anything else?"));

    socket.send(json!({"context_id": "u7", "flush": true})).await;
    assert_eq!(socket.json().await["contextId"], "u7");
    socket.send(json!({"close_socket": true})).await;
    assert_eq!(socket.json_where(|message| message["isFinal"] == true).await["contextId"], "u7");
    assert_eq!(socket.closed().await.unwrap().0, 1000);
    let record = last(&sim, Service::ElevenLabs);
    assert!(record.oddities.is_empty(), "{:?}", record.oddities);
    assert_eq!(record.spoken.iter().map(|spoken| spoken.context.as_str()).collect::<Vec<_>>(), ["u8", "u7"]);
}

#[tokio::test]
async fn elevenlabs_begins_by_itself_at_the_length_of_its_schedule() {
    let sim = start(Program::default()).await;
    let mut socket = eleven(&sim).await;
    let config = json!({"chunk_length_schedule": [50]});
    socket.send(json!({"text": " ", "context_id": "u1", "generation_config": config})).await;
    for word in "this is a sentence that grows word by word until it is long enough ".split_inclusive(' ') {
        socket.send(json!({"text": word, "context_id": "u1"})).await;
    }
    assert_eq!(socket.json().await["contextId"], "u1");
    let record = last(&sim, Service::ElevenLabs);
    assert!((50..60).contains(&record.spoken[0].text.len()), "{:?}", record.spoken[0].text);
}

#[tokio::test]
async fn elevenlabs_still_sends_the_audio_of_a_closed_context() {
    let mut program = Program::default();
    program.voice.times_real_time = 5.0;
    let sim = start(program).await;
    let mut socket = eleven(&sim).await;
    socket.send(json!({"text": " ", "context_id": "u1"})).await;
    socket
        .send(json!({"text": "one two three four five six seven ", "context_id": "u1", "flush": true}))
        .await;
    socket.json().await;
    socket.send(json!({"context_id": "u1", "close_context": true})).await;
    socket.send(json!({"text": " ", "context_id": "u2"})).await;
    socket.send(json!({"text": "sorry ", "context_id": "u2", "flush": true})).await;
    socket.json_where(|message| message["contextId"] == "u2").await;
    let late = socket.json_where(|message| message["contextId"] == "u1").await;
    assert!(late["audio"].is_string());
    socket.json_where(|message| message["isFinal"] == true).await;
    let record = last(&sim, Service::ElevenLabs);
    assert!(record.spoken[0].cancelled_at_ms.is_some() && record.spoken[1].cancelled_at_ms.is_none());
}

#[tokio::test]
async fn a_context_can_end_twice_early_or_never() {
    let mut program = Program::default();
    program.voice.times_real_time = 20.0;
    let sim = start(program).await;
    let finals = async |fault: Fault| {
        sim.program(|program| program.faults.push(Service::ElevenLabs, fault));
        let mut socket = eleven(&sim).await;
        socket.send(json!({"text": " ", "context_id": "u1"})).await;
        socket.send(json!({"text": "one two three ", "context_id": "u1", "flush": true})).await;
        socket.send(json!({"context_id": "u1", "close_context": true})).await;
        socket.send(json!({"close_socket": true})).await;
        let mut finals = Vec::new();
        while let Some(message) = socket.message().await {
            finals.push(serde_json::from_str::<Value>(&message).unwrap()["isFinal"] == true);
        }
        finals
    };
    let chunks = [false; 10];
    assert_eq!(finals(Fault::Empty).await, [true]);
    assert_eq!(finals(Fault::Duplicate).await, [&chunks[..], &[true, true]].concat());
    assert_eq!(finals(Fault::WrongOrder).await, [&chunks[..9], &[true, false]].concat());
    assert_eq!(finals(Fault::StallMidStream).await, chunks[..5]);
}

#[tokio::test]
async fn elevenlabs_checks_keys_messages_and_patience() {
    let settings = ProviderSimSettings { key: Some("right".into()), ..ProviderSimSettings::default() };
    let sim = ProviderSim::start(settings).await.unwrap();
    let first = json!({"text": " ", "context_id": "u1"});
    for header in [Some(("xi-api-key", "wrong")), Some(("authorization", "Token right")), None] {
        let mut socket = open(&sim, ELEVEN, header.as_slice()).await.unwrap();
        socket.send(first.clone()).await;
        assert_eq!(socket.json().await["code"], 1008, "{header:?}");
        assert_eq!(socket.closed().await.unwrap().0, 1008);
    }
    let mut socket = open(&sim, ELEVEN, &[]).await.unwrap();
    socket.send(json!({"text": " ", "context_id": "u1", "xi_api_key": "right"})).await;
    socket.send(json!({"text": "no space", "context_id": "u1", "voice_settings": {}, "emotion": "glad", "flush": true})).await;
    socket.json().await;
    assert_eq!(last(&sim, Service::ElevenLabs).oddities.len(), 3);

    sim.program(|program| program.limits.elevenlabs_inactivity_ms = 50);
    let mut socket = open(&sim, ELEVEN, &[("xi-api-key", "right")]).await.unwrap();
    assert_eq!(socket.json().await["error"], "input_timeout_exceeded");
    assert_eq!(socket.closed().await.unwrap().0, 1008);
    let mp3 = ELEVEN.replace("ulaw_8000", "mp3_44100_128");
    assert_eq!(open(&sim, &mp3, &[("xi-api-key", "right")]).await.err().unwrap().status(), 400);
}

// Cartesia

#[tokio::test]
async fn cartesia_joins_texts_verbatim_and_times_their_words() {
    let sim = start(Program::default()).await;
    let mut socket = cartesia(&sim).await;
    for (text, goes_on) in
        [("Sure, we have a ta", true), ("ble at eight. ", true), ("Anything else?", true), ("", false)]
    {
        socket.send(generation("u7", text, goes_on)).await;
    }
    let (mut audio, mut words, mut last_end) = (Vec::new(), Vec::new(), 0.0);
    loop {
        let message = socket.json().await;
        assert_eq!(message["context_id"], "u7");
        match message["type"].as_str().unwrap() {
            "chunk" => {
                assert_eq!((&message["status_code"], &message["done"]), (&json!(206), &json!(false)));
                audio.extend(STANDARD.decode(message["data"].as_str().unwrap()).unwrap());
            }
            "timestamps" => {
                let times = &message["word_timestamps"];
                words.extend(
                    times["words"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()),
                );
                for (start, end) in
                    times["start"].as_array().unwrap().iter().zip(times["end"].as_array().unwrap())
                {
                    assert!(
                        start.as_f64().unwrap() >= last_end,
                        "times count from the beginning of the context"
                    );
                    last_end = end.as_f64().unwrap();
                }
            }
            "done" => break,
            other => panic!("{other}"),
        }
    }
    assert_eq!(words.join(" "), "Sure, we have a table at eight. Anything else?");
    assert_eq!(heard(&mulaw(&audio)), words.join(" "));
    assert!(last(&sim, Service::Cartesia).oddities.is_empty());
}

#[tokio::test]
async fn cartesia_finishes_what_has_begun_when_cancelled() {
    let mut program = Program::default();
    program.voice.times_real_time = 4.0;
    let sim = start(program).await;
    let mut socket = cartesia(&sim).await;
    socket.send(generation("u1", "one two three four. ", true)).await;
    socket.send(generation("u1", "five six seven. ", true)).await;
    let mut audio = STANDARD.decode(socket.json().await["data"].as_str().unwrap()).unwrap();
    socket.send(json!({"context_id": "u1", "cancel": true})).await;
    loop {
        let message = socket.json().await;
        match message["type"].as_str().unwrap() {
            "chunk" => audio.extend(STANDARD.decode(message["data"].as_str().unwrap()).unwrap()),
            "done" => break,
            _ => {}
        }
    }
    assert_eq!(
        heard(&mulaw(&audio)),
        "one two three four.",
        "late chunks of the first, nothing of the second"
    );
    socket.send(generation("u1", "again. ", true)).await;
    let error = socket.json().await;
    assert_eq!(
        (&error["type"], &error["status_code"], &error["done"]),
        (&json!("error"), &json!(400), &json!(true))
    );
    let record = last(&sim, Service::Cartesia);
    assert!(record.spoken.iter().all(|spoken| spoken.cancelled_at_ms.is_some()));
    assert_eq!(record.spoken[1].sent_ms, 0);
}

#[tokio::test]
async fn cartesia_marks_flushes_and_counts_them_from_one() {
    let sim = start(Program::default()).await;
    let mut socket = cartesia(&sim).await;
    socket.send(generation("u1", "first ", true)).await;
    let mut flush = generation("u1", "", true);
    flush["flush"] = json!(true);
    socket.send(flush).await;
    let done = socket.json_where(|message| message["type"] == "flush_done").await;
    assert_eq!((&done["flush_id"], &done["flush_done"]), (&json!(1), &json!(true)));
    socket.send(generation("u1", "second", false)).await;
    assert_eq!(socket.json_where(|message| message["type"] == "chunk").await["flush_id"], 2);
    socket.json_where(|message| message["type"] == "done").await;
}

#[tokio::test]
async fn cartesia_refuses_what_it_cannot_do() {
    let mut program = Program::default();
    program.limits.cartesia_context_ms = 0;
    program.limits.cartesia_contexts = 1;
    let sim = start(program).await;
    for headers in [
        &[("x-api-key", "secret-key")][..],
        &[("cartesia-version", "2025-04-16")],
        &[("authorization", "Bearer secret-key"), ("cartesia-version", "2025-04-16")],
        &[("x-api-key", "secret-key"), ("cartesia-version", "latest")],
    ] {
        assert!(open(&sim, "/tts/websocket", headers).await.is_err(), "{headers:?}");
    }
    let mut socket = cartesia(&sim).await;
    for (pointer, value) in [
        ("/model_id", Value::Null),
        ("/voice/id", Value::Null),
        ("/output_format/container", json!("wav")),
        ("/output_format/encoding", json!("ulaw")),
        ("/output_format/sample_rate", json!(11_025)),
        ("/max_buffer_delay_ms", json!(3_000)),
    ] {
        let mut message = generation("u0", "hello. ", true);
        *message.pointer_mut(pointer).unwrap() = value;
        socket.send(message).await;
        assert_eq!(socket.json().await["status_code"], 400, "{pointer}");
    }
    socket.send(generation("u1", "hello ", true)).await;
    socket.send(generation("u2", "hello ", true)).await;
    let refused = socket.json_where(|message| message["type"] == "error").await;
    assert_eq!((&refused["context_id"], &refused["status_code"]), (&json!("u2"), &json!(429)));
    sim.wait_for(LIMIT, |records| {
        records.last().is_some_and(|record| record.spoken.iter().all(|spoken| spoken.sent_ms > 0))
    })
    .await
    .expect("u1 was spoken");
    socket.send(generation("u1", "too late ", true)).await;
    let expired = socket.json_where(|message| message["type"] == "error").await;
    assert!(expired["error"].as_str().unwrap().contains("expired"), "{expired}");
    socket.send(generation("u3", "hello ", true)).await;
    let mut changed = generation("u3", "other ", true);
    changed["voice"]["id"] = json!("other");
    socket.send(changed).await;
    socket.json_where(|message| message["type"] == "error").await;
}

#[tokio::test]
async fn keys_are_tested_without_using_them() {
    let sim = start(Program::default()).await;
    let status = async |path: &str, name: &str, key: &str| {
        client()
            .get(format!("{}{path}", sim.base_url))
            .header(name, key)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    for (path, name, key) in [
        ("/v1/projects", "authorization", "Token secret-key"),
        ("/v1/user", "xi-api-key", "secret-key"),
        ("/v1/voices", "xi-api-key", "secret-key"),
    ] {
        assert_eq!(status(path, name, key).await, 200, "{path}");
        assert_eq!(status(path, "x-other-key", key).await, 401, "{path}");
        sim.program(|program| {
            program.faults.push(Service::Account, Fault::Refuse { status: 429, retry_after_ms: None })
        });
        assert_eq!(status(path, name, key).await, 429, "{path}");
    }
}

// The control interface

#[tokio::test]
async fn another_process_programs_the_providers_over_http() {
    let sim = start(Program::default()).await;
    let program = format!("{}/_sim/program", sim.base_url);
    let patch = json!({"rules": [{"contains": "hours", "reply": {"text": "Nine to five."}}],
        "delays": {"first_token_ms": 1}, "faults": {"queue": {"chat": [null, "empty", {"refuse": {"status": 503}}]}}});
    let changed: Value = client().patch(&program).json(&patch).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&changed["delays"]["first_token_ms"], &changed["delays"]["late_ms"]),
        (&json!(1), &json!(2_000))
    );
    assert_eq!(text_of(&chat(&sim, &ask("your hours?")).await), "Nine to five.");
    assert_eq!(text_of(&chat(&sim, &ask("your hours?")).await), "");
    assert_eq!(post(&sim, "/v1/chat/completions", &ask("your hours?")).await.status(), 503);
    let wrong = client().patch(&program).json(&json!({"delay": 3})).send().await.unwrap();
    assert_eq!(wrong.status(), 400);

    let records = format!("{}/_sim/records", sim.base_url);
    let list: Vec<Value> = client().get(&records).send().await.unwrap().json().await.unwrap();
    assert_eq!(list.len(), 3);
    assert_eq!((&list[2]["service"], &list[2]["status"]), (&json!("chat"), &json!(503)));
    assert_eq!(list[1]["faults"], json!(["empty"]));
    client().delete(&records).send().await.unwrap();
    assert!(sim.records().is_empty());
}

#[tokio::test]
async fn dropping_the_simulation_breaks_every_connection() {
    let sim = start(Program {
        rules: vec![Rule { contains: String::new(), reply: Reply::Stall }],
        ..Program::default()
    })
    .await;
    let mut socket = listen(&sim, CALL_QUERY).await;
    let response = post(&sim, "/v1/chat/completions", &ask("hi")).await;
    drop(sim);
    assert_eq!(socket.closed().await, None, "no close frame: the connection broke");
    assert!(timeout(LIMIT, response.bytes()).await.unwrap().is_err());
}

// Raw clients

async fn start(program: Program) -> ProviderSim {
    ProviderSim::start(ProviderSimSettings { program, ..ProviderSimSettings::default() }).await.unwrap()
}

fn late(late_ms: u64) -> offhook_sim::provider::Delays {
    offhook_sim::provider::Delays { late_ms, ..Default::default() }
}

/// The newest record of a service.
fn last(sim: &ProviderSim, service: Service) -> Record {
    let records = sim.records();
    records.into_iter().rfind(|record| record.service == service).expect("a record")
}

/// How the newest request ended, once it has.
async fn closed(sim: &ProviderSim) -> offhook_sim::provider::Closed {
    let ended = |records: &[Record]| records.last().is_some_and(|record| record.closed.is_some());
    sim.wait_for(LIMIT, ended).await.expect("it ends").pop().unwrap().closed.unwrap()
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

fn ask(text: &str) -> Value {
    json!({"model": "m", "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]})
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "find_slots", "description": "Free times", "strict": true,
        "parameters": {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"], "additionalProperties": false}}}])
}

async fn post(sim: &ProviderSim, path: &str, body: &Value) -> reqwest::Response {
    let request = client().post(format!("{}{path}", sim.base_url)).bearer_auth("secret-key").json(body);
    timeout(LIMIT, request.send()).await.expect("an answer in time").unwrap()
}

async fn chat(sim: &ProviderSim, body: &Value) -> Vec<Value> {
    let response = post(sim, "/v1/chat/completions", body).await;
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    events_of(&timeout(LIMIT, response.text()).await.expect("an end in time").unwrap())
}

fn with_fault(
    sim: &ProviderSim,
    fault: Fault,
    body: &Value,
) -> impl Future<Output = reqwest::Result<reqwest::Response>> + Send + 'static {
    sim.program(|program| program.faults.push(Service::Chat, fault));
    client().post(format!("{}/v1/chat/completions", sim.base_url)).bearer_auth("secret-key").json(body).send()
}

/// Reads until there is enough, or until the end; says whether the connection broke.
async fn read_until(mut response: reqwest::Response, enough: impl Fn(&str) -> bool) -> (String, bool) {
    let mut text = String::new();
    while !enough(&text) {
        match timeout(LIMIT, response.chunk()).await.expect("more in time") {
            Ok(Some(piece)) => text.push_str(std::str::from_utf8(&piece).unwrap()),
            Ok(None) => return (text, false),
            Err(_) => return (text, true),
        }
    }
    (text, false)
}

fn events_of(stream: &str) -> Vec<Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

fn text_of(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

async fn transcribe(sim: &ProviderSim, file: Vec<u8>, fields: &[(&str, &str)]) -> reqwest::Response {
    let part = reqwest::multipart::Part::bytes(file).file_name("audio.wav");
    let form =
        fields.iter().fold(reqwest::multipart::Form::new().part("file", part), |form, (name, value)| {
            form.text((*name).to_owned(), (*value).to_owned())
        });
    let request =
        client().post(format!("{}/v1/audio/transcriptions", sim.base_url)).bearer_auth("secret-key");
    request.multipart(form).send().await.unwrap()
}

#[derive(Debug)]
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// Opens a socket; a refusal is handed out as it came.
async fn open(
    sim: &ProviderSim,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Socket, Box<Response<Option<Vec<u8>>>>> {
    let mut request = format!("{}{path}", sim.ws_url()).into_client_request().unwrap();
    for (name, value) in headers {
        let name: tokio_tungstenite::tungstenite::http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    match timeout(LIMIT, connect_async(request)).await.expect("an answer in time") {
        Ok((socket, _)) => Ok(Socket(socket)),
        Err(Error::Http(response)) => Err(response),
        Err(error) => panic!("{error}"),
    }
}

async fn listen(sim: &ProviderSim, query: &str) -> Socket {
    open(sim, &format!("/v1/listen?{query}"), &[("authorization", "Token secret-key")]).await.unwrap()
}

async fn flux(sim: &ProviderSim, query: &str) -> Socket {
    open(sim, &format!("/v2/listen?{query}"), &[("authorization", "Token secret-key")]).await.unwrap()
}

async fn speak(sim: &ProviderSim) -> Socket {
    open(sim, SPEAK, &[("authorization", "Token secret-key")]).await.unwrap()
}

async fn eleven(sim: &ProviderSim) -> Socket {
    open(sim, ELEVEN, &[("xi-api-key", "secret-key")]).await.unwrap()
}

async fn cartesia(sim: &ProviderSim) -> Socket {
    let headers = [("x-api-key", "secret-key"), ("cartesia-version", "2025-04-16")];
    open(sim, "/tts/websocket", &headers).await.unwrap()
}

fn generation(context: &str, text: &str, goes_on: bool) -> Value {
    json!({"model_id": "sonic-3", "transcript": text, "voice": {"mode": "id", "id": "voice1"}, "language": "en",
        "context_id": context, "continue": goes_on, "add_timestamps": true, "max_buffer_delay_ms": 0,
        "output_format": {"container": "raw", "encoding": "pcm_mulaw", "sample_rate": 8_000}})
}

impl Socket {
    async fn send(&mut self, message: Value) {
        // A socket that the provider has closed is noticed when it is read.
        let _ = self.0.send(Message::Text(message.to_string().into())).await;
    }

    async fn audio(&mut self, bytes: &[u8]) {
        let _ = self.0.send(Message::Binary(bytes.to_vec().into())).await;
    }

    /// Sends 8 kHz audio as a carrier's media stream does, µ-law in frames of 20 ms, but as fast as it goes.
    async fn say(&mut self, pcm: &[i16]) {
        for frame in pcm.chunks(160) {
            let mut coded = Vec::new();
            Law::Mu.encode(frame, &mut coded);
            self.audio(&coded).await;
        }
    }

    /// The next text or binary message; `None` at the end.
    async fn next(&mut self) -> Option<Message> {
        match timeout(LIMIT, self.0.next()).await.expect("a message in time") {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => Some(message),
            _ => None,
        }
    }

    async fn message(&mut self) -> Option<String> {
        self.next().await.map(|message| message.to_string())
    }

    async fn json(&mut self) -> Value {
        match self.next().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?} in place of a message"),
        }
    }

    async fn json_where(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            match self.next().await {
                Some(Message::Text(text)) => {
                    let message = serde_json::from_str(&text).unwrap();
                    if wanted(&message) {
                        return message;
                    }
                }
                Some(_) => {}
                None => panic!("closed before the message came"),
            }
        }
    }

    async fn chunk(&mut self) -> Vec<u8> {
        match self.next().await {
            Some(Message::Binary(bytes)) => bytes.to_vec(),
            other => panic!("{other:?} in place of audio"),
        }
    }

    async fn audio_until_json(&mut self) -> (Vec<u8>, Value) {
        let mut audio = Vec::new();
        loop {
            match self.next().await {
                Some(Message::Binary(bytes)) => audio.extend(bytes),
                Some(Message::Text(text)) => return (audio, serde_json::from_str(&text).unwrap()),
                other => panic!("{other:?} after {} bytes", audio.len()),
            }
        }
    }

    /// Reads to the end: the close frame, or `None` when the connection broke without one.
    async fn closed(&mut self) -> Option<(u16, String)> {
        loop {
            match timeout(LIMIT, self.0.next()).await.expect("an end in time") {
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                    return Some((code.into(), reason.to_string()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }
}

fn silence(ms: usize) -> Vec<i16> {
    vec![0; ms * 8]
}

fn mulaw(bytes: &[u8]) -> Vec<i16> {
    let mut pcm = Vec::new();
    Law::Mu.decode(bytes, &mut pcm);
    pcm
}

fn linear(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|sample| i16::from_le_bytes([sample[0], sample[1]])).collect()
}

fn at_8_khz(rate_hz: u32, pcm: &[i16]) -> Vec<i16> {
    resampled(rate_hz, 8_000, pcm)
}

fn resampled(from_hz: u32, to_hz: u32, pcm: &[i16]) -> Vec<i16> {
    let mut resampler = Resampler::new(from_hz, to_hz).unwrap();
    let mut out = Vec::new();
    resampler.push(pcm, &mut out);
    resampler.flush(&mut out);
    out
}

/// What a phone heard, as text.
fn heard(pcm: &[i16]) -> String {
    heard_words(pcm).into_iter().map(|word| word.word).collect::<Vec<_>>().join(" ")
}
