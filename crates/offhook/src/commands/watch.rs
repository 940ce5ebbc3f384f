//! A call as it goes on, shown in the terminal: each line as it is said, and how long each answer took. It hears of it from the server's
//! live events and does not know how the call was placed.

use anyhow::{Context as _, Result, bail};
use offhook_core::{ConversationId, Secret};
use serde::Deserialize;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How wide the moment at the beginning of a row is.
const MOMENT: usize = 10;
/// A server-sent event that is longer is no line of a call.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// What the live events of a call say, as far as it is shown.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    Line {
        line: Line,
    },
    Timing {
        timing: Timing,
    },
    Tool {
        name: String,
    },
    Ended {},
    #[serde(other)]
    Other,
}

/// A line of the transcript, as far as it has been said.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Line {
    number: u32,
    speaker: String,
    at_ms: u64,
    text: String,
    cut: bool,
}

/// The moments of an answer, in ms after the caller fell silent.
#[derive(Debug, Deserialize)]
struct Timing {
    turn_end_ms: u32,
    head_start_ms: u32,
    first_token_ms: u32,
    first_audio_ms: u32,
    playout_ms: u32,
    thrown_away: u8,
}

/// Rows for a terminal, or for a file: nothing is written over. The last row grows while its line is said.
#[derive(Debug)]
pub struct Screen<W = io::Stdout> {
    page: Mutex<Page<W>>,
}

#[derive(Debug)]
struct Page<W> {
    out: W,
    /// The line whose row is not closed.
    growing: Option<Line>,
}

impl Screen {
    /// What the command prints.
    pub fn stdout() -> Self {
        Screen::on(io::stdout())
    }
}

impl<W: Write> Screen<W> {
    fn on(out: W) -> Self {
        Screen { page: Mutex::new(Page { out, growing: None }) }
    }

    fn page(&self) -> MutexGuard<'_, Page<W>> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that happened so many ms into the call.
    pub fn happened(&self, at_ms: u64, what: &str) {
        self.page().row(&format!("{}  {what}", moment(at_ms)));
    }

    /// A row about what stands above it.
    pub fn remark(&self, words: &str) {
        self.page().row(&format!("{:MOMENT$}  {words}", ""));
    }

    fn line(&self, line: Line) {
        self.page().line(line);
    }
}

impl<W: Write> Page<W> {
    // A terminal that is gone is no reason to end the call.
    fn put(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }

    fn row(&mut self, text: &str) {
        self.close();
        self.put(&format!("{text}\n"));
    }

    fn close(&mut self) {
        if self.growing.take().is_some() {
            self.put("\n");
        }
    }

    fn line(&mut self, line: Line) {
        let so_far = self.growing.as_ref().filter(|growing| growing.number == line.number);
        let cut = if line.cut { " …" } else { "" };
        match so_far.and_then(|growing| line.text.strip_prefix(growing.text.as_str())) {
            Some(more) => {
                let more = format!("{more}{cut}");
                self.put(&more);
            }
            None => {
                self.close();
                let row = format!("{}  {:<6}  {}{cut}", moment(line.at_ms), line.speaker, line.text);
                self.put(&row);
            }
        }
        self.growing = Some(line);
    }
}

fn moment(at_ms: u64) -> String {
    format!("{:>8.2} s", at_ms as f64 / 1e3)
}

impl Timing {
    fn words(&self) -> String {
        let asked_ms = i64::from(self.turn_end_ms) - i64::from(self.head_start_ms);
        let Timing { turn_end_ms, first_token_ms, first_audio_ms, playout_ms, .. } = self;
        let thrown_away = match self.thrown_away {
            0 => String::new(),
            answers => format!("; {answers} thrown away before"),
        };
        format!(
            "answered after {playout_ms} ms (model asked {asked_ms}, turn over {turn_end_ms}, first token {first_token_ms}, voice {first_audio_ms}{thrown_away})"
        )
    }
}

/// Shows a call from its first word to its end.
pub async fn show(
    http: &reqwest::Client,
    server: &str,
    key: &Secret<String>,
    call: &ConversationId,
    screen: &Screen<impl Write>,
) -> Result<()> {
    let url = format!("{server}/api/calls/{call}/events");
    let mut answer = http.get(&url).bearer_auth(key.expose()).send().await?.error_for_status()?;
    let mut received = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        received.extend_from_slice(&piece);
        while let Some(end) = received.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = received.drain(..end + 2).collect();
            if told(&String::from_utf8_lossy(&event), screen)? {
                return Ok(());
            }
        }
        anyhow::ensure!(received.len() <= EVENT_BYTES_MAX, "an event of the server is too long");
    }
    bail!("the server stopped telling before the call was over")
}

/// Shows one server-sent event; `true`: it was the call's end.
fn told(event: &str, screen: &Screen<impl Write>) -> Result<bool> {
    // Without data it is a comment that keeps the connection open.
    let Some(data) = event.lines().find_map(|line| line.strip_prefix("data:")) else { return Ok(false) };
    match serde_json::from_str(data.trim()).context("an event of the server cannot be read")? {
        Event::Line { line } => screen.line(line),
        Event::Timing { timing } => screen.remark(&timing.words()),
        Event::Tool { name } => screen.remark(&format!("uses {name}")),
        Event::Ended {} => return Ok(true),
        Event::Other => {}
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn shown(events: &[Value]) -> String {
        let screen = Screen::on(Vec::new());
        for event in events {
            told(&format!("event: x\ndata: {event}\n\n"), &screen).unwrap();
        }
        assert!(!told(": keep-alive\n\n", &screen).unwrap());
        let page = screen.page();
        String::from_utf8(page.out.clone()).unwrap()
    }

    fn line(number: u32, speaker: &str, text: &str, cut: bool) -> Value {
        let line = json!({ "number": number, "turn": 1, "speaker": speaker, "purpose": null, "at_ms": 1_250, "text": text, "cut": cut });
        json!({ "event": "line", "call": "cnv_1", "line": line })
    }

    #[test]
    fn a_line_grows_on_its_row_while_it_is_said() {
        let events = [
            line(1, "caller", "When do you open?", false),
            line(2, "agent", "At ten.", false),
            line(2, "agent", "At ten. Is there", false),
            line(2, "agent", "At ten. Is there", true),
            line(3, "caller", "No.", false),
        ];
        assert_eq!(
            shown(&events),
            "    1.25 s  caller  When do you open?\n    1.25 s  agent   At ten. Is there …\n    1.25 s  caller  No."
        );
    }

    #[test]
    fn a_line_that_was_corrected_is_shown_anew() {
        let events = [line(1, "agent", "At ten. Is there", false), line(1, "agent", "At ten.", true)];
        assert_eq!(shown(&events), "    1.25 s  agent   At ten. Is there\n    1.25 s  agent   At ten. …");
    }

    #[test]
    fn how_long_an_answer_took_has_a_row_of_its_own() {
        let timing = json!({ "turn": 1, "turn_end_ms": 310, "head_start_ms": 190, "first_token_ms": 330, "first_audio_ms": 520,
            "playout_ms": 540, "thrown_away": 1 });
        let events =
            [line(1, "agent", "At ten.", false), json!({ "event": "timing", "call": "c", "timing": timing })];
        assert_eq!(
            shown(&events),
            "    1.25 s  agent   At ten.\n            answered after 540 ms (model asked 120, turn over 310, first token 330, voice 520; 1 thrown away before)\n"
        );
        let over = Screen::on(Vec::new());
        assert!(
            told("data: {\"event\":\"ended\",\"call\":\"c\",\"reason\":\"silence\"}\n\n", &over).unwrap()
        );
    }
}
