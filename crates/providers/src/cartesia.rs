//! Cartesia voices over `/tts/websocket`: many contexts on one socket (protocols/providers.md, section 7).
//! It does not know a call: a context is one reply, in clauses.

use crate::contexts::{Contexts, Finished, Spoken, parse_name};
use crate::json::{Text, ms};
use crate::refusal::in_stream;
use crate::settings::Service;
use crate::ws::{self, Outbox, Protocol};
use crate::{AudioFormat, ProviderError, Tts, TtsCommand, TtsEvent, TtsOptions, TtsSession, http};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::{Method, RequestBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// The interface's date, sent with every request.
const VERSION: &str = "2025-04-16";

/// A context dies 1 s after its last audio; one that was quiet for longer than this is given no more text.
const CONTEXT_LIFE: Duration = Duration::from_millis(800);

/// A voice of Cartesia.
pub(crate) struct Voice(pub(crate) Service);

impl Tts for Voice {
    fn name(&self) -> &'static str {
        self.0.provider
    }

    fn format(&self) -> AudioFormat {
        AudioFormat::Mulaw
    }

    fn open(&self, options: TtsOptions) -> TtsSession {
        let service = &self.0;
        let url = service.ws_url(&["tts", "websocket"], &[], &service.option_names());
        let dial = service.dial(url, headers(service));
        let (commands, events) = ws::open(dial, Speaker::new(service, options.language.primary()));
        TtsSession { commands, events }
    }
}

/// A list of voices: the harmless test.
pub(crate) fn list_request(service: &Service) -> RequestBuilder {
    http::request(Method::GET, service.url(&["voices"]), headers(service)).query(&[("limit", "1")])
}

fn headers(service: &Service) -> Vec<(&'static str, String)> {
    service.key_header("x-api-key", "").into_iter().chain([("cartesia-version", VERSION.into())]).collect()
}

#[derive(Serialize)]
struct Generation<'a> {
    context_id: &'a str,
    transcript: &'a str,
    r#continue: bool,
    #[serde(flatten)]
    manner: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct Cancel<'a> {
    context_id: &'a str,
    cancel: bool,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    context_id: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<Text<'a>>,
    #[serde(borrow)]
    word_timestamps: Option<WordTimestamps<'a>>,
    status_code: Option<u16>,
}

#[derive(Deserialize)]
struct WordTimestamps<'a> {
    #[serde(borrow)]
    words: Vec<Text<'a>>,
    end: Vec<f64>,
}

pub(crate) struct Speaker {
    provider: &'static str,
    contexts: Contexts,
    /// What is the same in every request of a session.
    manner: Map<String, Value>,
    /// Times of words have come: in some languages there are none.
    tells_words: bool,
}

impl Speaker {
    pub(crate) fn new(service: &Service, language: &str) -> Self {
        let manner = service.with_options(json!({
            "model_id": service.model,
            "voice": { "mode": "id", "id": service.voice },
            "language": language,
            "output_format": { "container": "raw", "encoding": "pcm_mulaw", "sample_rate": 8_000 },
            "add_timestamps": true,
            // Clauses come whole: nothing is gained by waiting for more.
            "max_buffer_delay_ms": 0,
        }));
        let contexts = Contexts::new(service.provider, AudioFormat::Mulaw);
        Speaker { provider: service.provider, contexts, manner, tells_words: false }
    }

    /// Asks for the text that was not asked for yet. Two parts of a reply would speak at once: what comes while one is
    /// ending waits for its end.
    fn ask(&mut self, context: u32, ends: bool, out: &mut Outbox<TtsEvent>) {
        let Some(reply) = self.contexts.live_mut(context).filter(|reply| !reply.is_ending) else { return };
        let transcript = &reply.text[reply.asked..];
        out.send_json(&Generation {
            context_id: &reply.name(),
            transcript,
            r#continue: !ends,
            manner: &self.manner,
        });
        if !transcript.is_empty() {
            reply.touched = Instant::now();
        }
        reply.asked = reply.text.len();
        reply.is_open = true;
        reply.is_ending = ends;
    }

    /// The part has been heard, and then nothing was asked for or heard for so long that it may be dead.
    fn is_quiet(&self, context: u32) -> bool {
        let reply = self.contexts.live(context).filter(|reply| reply.is_open && reply.is_audible());
        reply.is_some_and(|reply| reply.touched.elapsed() > CONTEXT_LIFE)
    }

    /// The provider has spoken all that a part was asked for.
    fn part_is_over(&mut self, context: u32, out: &mut Outbox<TtsEvent>) {
        let Some(reply) = self.contexts.live(context) else { return };
        let (asked, finished, waits) = (reply.asked, reply.finished, reply.asked < reply.text.len());
        if !self.contexts.delivered(context, asked, out) {
            return;
        }
        if finished && !waits {
            return self.contexts.done(context, out);
        }
        self.contexts.next_part(context);
        if waits {
            self.ask(context, finished, out);
        }
    }

    /// Whether an error says no more than that an empty end came too late: the part was dead.
    fn is_late_end(&self, context: u32, error: &Frame) -> bool {
        let is_refusal = error.status_code.is_some_and(|status| (400..500).contains(&status));
        let is_ending = self.contexts.live(context).is_some_and(|reply| reply.is_ending);
        is_refusal && is_ending && self.is_quiet(context)
    }

    /// A part died before its end was asked for. That changes nothing where it had said everything.
    fn part_died(&mut self, context: u32, out: &mut Outbox<TtsEvent>) {
        let is_spoken = self.contexts.live(context).is_some_and(|reply| reply.is_spoken(reply.asked));
        if is_spoken || !self.tells_words {
            return self.part_is_over(context, out);
        }
        let error = ProviderError::malformed(self.provider, "a context that died before its last words");
        self.contexts.fail(context, error, out);
    }

    fn align(&mut self, context: u32, times: &WordTimestamps, out: &mut Outbox<TtsEvent>) {
        let Some(reply) = self.contexts.live_mut(context) else { return };
        self.tells_words |= !times.words.is_empty();
        let start_ms = reply.part_start_ms;
        let words = times.words.iter().zip(&times.end);
        let anchors: Vec<_> =
            words.filter_map(|(word, end)| reply.word(word, start_ms.saturating_add(ms(*end)))).collect();
        if !anchors.is_empty() {
            out.report(TtsEvent::Aligned { context, anchors });
        }
    }
}

impl Protocol for Speaker {
    type Command = TtsCommand;
    type Event = TtsEvent;

    fn opened() -> TtsEvent {
        TtsEvent::Opened
    }

    fn failed(error: ProviderError) -> TtsEvent {
        TtsEvent::Failed { context: None, error }
    }

    fn command(&mut self, command: TtsCommand, out: &mut Outbox<TtsEvent>) {
        match command {
            TtsCommand::Speak { context, text } => {
                if self.is_quiet(context) {
                    self.ask(context, true, out);
                }
                if self.contexts.speak(context, &text, out) != Spoken::Nothing {
                    self.ask(context, false, out);
                }
            }
            TtsCommand::Finish { context } => {
                if self.contexts.finish(context, out) == Finished::Already {
                    return;
                }
                if self.contexts.live(context).is_some_and(|reply| reply.is_open) {
                    self.ask(context, true, out);
                } else {
                    self.contexts.done(context, out);
                }
            }
            TtsCommand::Cancel { context } => {
                if let Some(reply) = self.contexts.live(context).filter(|reply| reply.is_open) {
                    out.send_json(&Cancel { context_id: &reply.name(), cancel: true });
                }
                self.contexts.cancel(context);
            }
        }
    }

    fn text(&mut self, frame: &str, out: &mut Outbox<TtsEvent>) -> Result<(), ProviderError> {
        let read: Frame = serde_json::from_str(frame)
            .map_err(|_| ProviderError::malformed(self.provider, "a message that is not understood"))?;
        let named = read.context_id.as_deref().map(parse_name);
        let is_current =
            |(id, part): &(u32, u32)| self.contexts.live(*id).is_some_and(|reply| reply.part == *part);
        let current = named.flatten().filter(is_current).map(|(id, _)| id);
        match (read.kind.as_deref().unwrap_or_default(), current) {
            ("chunk", Some(id)) => {
                let audio = BASE64.decode(read.data.as_deref().unwrap_or_default().as_bytes());
                match audio {
                    Ok(audio) => {
                        if let Some(reply) = self.contexts.live_mut(id) {
                            reply.touched = Instant::now();
                        }
                        self.contexts.audio(id, audio.into(), out);
                    }
                    Err(_) => {
                        let error = ProviderError::malformed(self.provider, "audio that is not base64");
                        self.contexts.fail(id, error, out);
                    }
                }
            }
            ("timestamps", Some(id)) => {
                if let Some(times) = &read.word_timestamps {
                    self.align(id, times, out);
                }
            }
            ("done", Some(id)) => self.part_is_over(id, out),
            ("error", Some(id)) if self.is_late_end(id, &read) => self.part_died(id, out),
            ("error", Some(id)) => self.contexts.fail(id, in_stream(self.provider, frame.as_bytes()), out),
            ("error", None) if named.is_none() => return Err(in_stream(self.provider, frame.as_bytes())),
            _ => {}
        }
        Ok(())
    }

    fn is_owed(&self) -> bool {
        self.contexts.iter().any(|reply| reply.finished || reply.is_ending || !reply.is_audible())
    }

    fn may_close(&self) -> bool {
        self.contexts.is_idle()
    }

    fn farewell(&mut self, _out: &mut Outbox<TtsEvent>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cause;
    use crate::settings::usual;
    use offhook_core::Secret;

    #[test]
    fn clause_after_a_pause_waits_for_the_end_of_what_was_asked_before() {
        let mut session = Session::new();
        session.speak("One. ");
        session.hear("1-0", 1, &["One."]);
        assert_eq!(session.asked(), [r#"1-0 "One. " goes on"#]);
        session.later(2 * CONTEXT_LIFE);
        session.speak("Two. ");
        session.speak("Three. ");
        session.finish();
        assert_eq!(session.asked(), [r#"1-0 "" ends"#], "two contexts would speak at once");
        session.hear("1-0", 2, &[]);
        session.told(json!({ "type": "done", "context_id": "1-0", "done": true }));
        assert_eq!(session.asked(), [r#"1-1 "Two. Three. " ends"#]);
        session.hear("1-0", 9, &[]);
        session.hear("1-1", 3, &["Two.", "Three."]);
        session.told(json!({ "type": "done", "context_id": "1-1", "done": true }));
        assert_eq!(session.heard, [1, 2, 3], "in their order, and nothing of what is over");
        assert_eq!(session.end, Some(TtsEvent::Done { context: 1 }));
    }

    #[test]
    fn clause_that_was_just_asked_for_keeps_its_context_alive() {
        let mut session = Session::new();
        session.speak("One. ");
        session.hear("1-0", 1, &["One."]);
        session.later(CONTEXT_LIFE / 2);
        session.speak("Two. ");
        session.later(CONTEXT_LIFE * 3 / 4);
        session.speak("Three. ");
        let goes_on = ["One. ", "Two. ", "Three. "].map(|clause| format!("1-0 {clause:?} goes on"));
        assert_eq!(session.asked(), goes_on);
    }

    #[test]
    fn end_that_comes_too_late_is_forgiven_only_where_all_was_said() {
        let ends = |words: &[&str], status: u16, pause: Duration| {
            let mut session = Session::new();
            session.speak("One two. ");
            session.hear("1-0", 1, words);
            session.later(pause);
            session.finish();
            let error = "the context has expired";
            session
                .told(json!({ "type": "error", "context_id": "1-0", "status_code": status, "error": error }));
            match session.end {
                Some(TtsEvent::Done { context: 1 }) => None,
                Some(TtsEvent::Failed { context: Some(1), error }) => Some(error.cause),
                other => panic!("{other:?}"),
            }
        };
        let long = 2 * CONTEXT_LIFE;
        assert_eq!(ends(&["One", "two."], 400, long), None);
        assert_eq!(ends(&[], 400, long), None, "a language without times of words");
        assert_eq!(ends(&["One"], 400, long), Some(Cause::Malformed), "a word is missing");
        assert_eq!(ends(&["One", "two."], 500, long), Some(Cause::Unreachable), "not about the end");
        assert_eq!(ends(&["One", "two."], 400, Duration::ZERO), Some(Cause::Refused), "audio may be missing");
    }

    /// A speaker without a socket, and what came of reply 1.
    struct Session {
        speaker: Speaker,
        /// What was sent since the last look.
        sent: Vec<String>,
        /// The first byte of each audio.
        heard: Vec<u8>,
        end: Option<TtsEvent>,
    }

    impl Session {
        fn new() -> Self {
            let speaker = Speaker::new(&usual("cartesia", Secret::default()), "en");
            Session { speaker, sent: Vec::new(), heard: Vec::new(), end: None }
        }

        fn speak(&mut self, text: &str) {
            self.command(TtsCommand::Speak { context: 1, text: text.into() });
        }

        fn finish(&mut self) {
            self.command(TtsCommand::Finish { context: 1 });
        }

        fn command(&mut self, command: TtsCommand) {
            let mut out = Outbox::new();
            self.speaker.command(command, &mut out);
            self.sent.extend(out.take_texts());
        }

        fn later(&mut self, time: Duration) {
            self.speaker.contexts.live_mut(1).unwrap().touched -= time;
        }

        fn hear(&mut self, context: &str, sample: u8, words: &[&str]) {
            let ends: Vec<f64> = (1..=words.len()).map(|n| n as f64).collect();
            self.told(json!({ "type": "timestamps", "context_id": context,
                "word_timestamps": { "words": words, "start": ends, "end": ends } }));
            self.told(json!({ "type": "chunk", "context_id": context, "data": BASE64.encode([sample; 8]) }));
        }

        fn told(&mut self, frame: Value) {
            let mut out = Outbox::new();
            self.speaker.text(&frame.to_string(), &mut out).unwrap();
            self.sent.extend(out.take_texts());
            for event in out.take_events() {
                match event {
                    TtsEvent::Audio { audio, .. } => self.heard.push(audio[0]),
                    TtsEvent::Aligned { .. } => {}
                    end => self.end = Some(end),
                }
            }
        }

        /// What was asked for since the last look: context, text, and whether more may come.
        fn asked(&mut self) -> Vec<String> {
            let told = |frame: String| {
                let asked: Value = serde_json::from_str(&frame).unwrap();
                let manner = if asked["continue"] == true { "goes on" } else { "ends" };
                format!("{} {} {manner}", asked["context_id"].as_str().unwrap(), asked["transcript"])
            };
            self.sent.drain(..).map(told).collect()
        }
    }
}
