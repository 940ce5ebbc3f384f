//! The offline voice: clauses in, speech out, with numbers and times put into words first. It does not know a call.

use super::{NAME, Said, say};
use crate::contexts::has_words;
use crate::{
    AudioFormat, Cause, ProviderError, SESSION_QUEUE, Tts, TtsCommand, TtsEvent, TtsOptions, TtsSession,
};
use bytes::Bytes;
use offhook_core::call::Anchor;
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::mpsc;

/// The voice slt of Flite.
#[derive(Clone, Copy, Debug, Default)]
pub struct Voice;

/// Samples a second of [`Voice`].
pub(super) const RATE_HZ: u32 = 16_000;

/// Silence kept before a clause: Flite begins with ten times as much, which the caller would wait for.
const LEADING_MS: u32 = 20;

/// Silence kept after a clause, so that sentences do not run into each other.
const TRAILING_MS: u32 = 180;

/// Below this a sample is silence.
const SILENCE: u16 = 200;

/// Replies of one session that are remembered as dropped.
const DROPPED: usize = 64;

impl Tts for Voice {
    fn name(&self) -> &'static str {
        NAME
    }

    fn format(&self) -> AudioFormat {
        AudioFormat::Linear16 { rate_hz: RATE_HZ }
    }

    fn open(&self, _options: TtsOptions) -> TtsSession {
        let (commands, received) = mpsc::channel(SESSION_QUEUE);
        let (report, events) = mpsc::channel(SESSION_QUEUE);
        let session = Session {
            received,
            report,
            waiting: VecDeque::new(),
            spoken: BTreeMap::new(),
            dropped: VecDeque::new(),
        };
        tokio::spawn(session.run());
        TtsSession { commands, events }
    }
}

struct Session {
    received: mpsc::Receiver<TtsCommand>,
    report: mpsc::Sender<TtsEvent>,
    waiting: VecDeque<TtsCommand>,
    /// Of each reply: how long its audio and its text are by now.
    spoken: BTreeMap<u32, Spoken>,
    dropped: VecDeque<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Spoken {
    samples: u64,
    bytes: usize,
}

impl Session {
    async fn run(mut self) {
        if self.report.send(TtsEvent::Opened).await.is_err() {
            return;
        }
        while let Some(command) = self.received.recv().await {
            self.note(command);
            while let Some(next) = self.next() {
                if self.obey(next).await.is_err() {
                    return;
                }
            }
        }
    }

    /// The next command; what came meanwhile is looked at first, because it may make waiting ones needless.
    fn next(&mut self) -> Option<TtsCommand> {
        while let Ok(command) = self.received.try_recv() {
            self.note(command);
        }
        self.waiting.pop_front()
    }

    fn note(&mut self, command: TtsCommand) {
        let TtsCommand::Cancel { context } = command else {
            return self.waiting.push_back(command);
        };
        self.waiting.retain(|waiting| context_of(waiting) != context);
        self.drop_reply(context);
    }

    fn drop_reply(&mut self, context: u32) {
        self.spoken.remove(&context);
        self.dropped.push_back(context);
        if self.dropped.len() > DROPPED {
            self.dropped.pop_front();
        }
    }

    async fn fail(
        &mut self,
        context: u32,
        cause: Cause,
        detail: &str,
    ) -> Result<(), mpsc::error::SendError<TtsEvent>> {
        self.drop_reply(context);
        let error = ProviderError::new(NAME, cause, detail);
        self.report.send(TtsEvent::Failed { context: Some(context), error }).await
    }

    async fn obey(&mut self, command: TtsCommand) -> Result<(), mpsc::error::SendError<TtsEvent>> {
        let context = context_of(&command);
        if self.dropped.contains(&context) {
            return Ok(());
        }
        match command {
            TtsCommand::Speak { text, .. } => self.speak(context, text).await,
            TtsCommand::Finish { .. } => {
                self.spoken.remove(&context);
                self.report.send(TtsEvent::Done { context }).await
            }
            TtsCommand::Cancel { .. } => Ok(()),
        }
    }

    async fn speak(&mut self, context: u32, text: String) -> Result<(), mpsc::error::SendError<TtsEvent>> {
        let (bytes, is_speech) = (text.len(), has_words(&text));
        let Ok(said) = tokio::task::spawn_blocking(move || say(&text)).await else {
            return self.fail(context, Cause::Malformed, "the voice broke off").await;
        };
        while let Ok(command) = self.received.try_recv() {
            self.note(command);
        }
        if self.dropped.contains(&context) {
            return Ok(());
        }
        if is_speech && said.pcm.is_empty() {
            return self.fail(context, Cause::Refused, "words that this voice cannot speak").await;
        }
        let spoken = self.spoken.entry(context).or_default();
        spoken.bytes += bytes;
        spoken.samples += said.pcm.len() as u64;
        let ms = u32::try_from(spoken.samples * 1_000 / u64::from(said.rate_hz)).unwrap_or(u32::MAX);
        let anchors = vec![Anchor { ms, bytes: u32::try_from(spoken.bytes).unwrap_or(u32::MAX) }];
        if !said.pcm.is_empty() {
            let audio: Vec<u8> = said.pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            self.report.send(TtsEvent::Audio { context, audio: Bytes::from(audio) }).await?;
        }
        self.report.send(TtsEvent::Aligned { context, anchors }).await
    }
}

fn context_of(command: &TtsCommand) -> u32 {
    match command {
        TtsCommand::Speak { context, .. }
        | TtsCommand::Finish { context }
        | TtsCommand::Cancel { context } => *context,
    }
}

/// Speaks a text at once. A text that Flite cannot speak is silent.
pub(super) fn speak(text: &str) -> Said {
    let mut pcm = Vec::new();
    for piece in pieces(&in_words(text)) {
        match offhook_flite::speak(piece) {
            Ok(speech) => pcm.extend_from_slice(without_silence(&speech.samples)),
            Err(error) => tracing::warn!(%error, "A clause was not spoken"),
        }
    }
    Said { pcm, rate_hz: RATE_HZ }
}

/// A text in pieces that Flite takes.
fn pieces(mut text: &str) -> Vec<&str> {
    let mut pieces = vec![];
    while text.len() > offhook_flite::MAX_TEXT_BYTES {
        let at = text[..offhook_flite::MAX_TEXT_BYTES].rfind(' ').unwrap_or(offhook_flite::MAX_TEXT_BYTES);
        let (piece, rest) = text.split_at(at.max(1));
        pieces.push(piece);
        text = rest;
    }
    pieces.push(text);
    pieces
}

fn without_silence(pcm: &[i16]) -> &[i16] {
    let samples = |ms: u32| (RATE_HZ * ms / 1_000) as usize;
    let loud = |sample: &i16| sample.unsigned_abs() > SILENCE;
    let (Some(first), Some(last)) = (pcm.iter().position(loud), pcm.iter().rposition(loud)) else {
        return &[];
    };
    &pcm[first.saturating_sub(samples(LEADING_MS))..(last + samples(TRAILING_MS)).min(pcm.len())]
}

/// A text as it is read out, in ASCII: clock times, telephone numbers and signs in words.
fn in_words(text: &str) -> String {
    let text: String = text.chars().flat_map(ascii).collect();
    let tokens: Vec<&str> = text.split_whitespace().collect();
    let mut said: Vec<String> = vec![];
    let mut at = 0;
    while at < tokens.len() {
        if let Some((number, used)) = telephone_number(&tokens[at..]) {
            said.push(number);
            at += used;
            continue;
        }
        let after_number = at > 0 && tokens[at - 1].ends_with(|c: char| c.is_ascii_digit());
        let half = tokens.get(at + 1).is_some_and(|next| half_of_day(next).is_some());
        let (core, tail) = split_punctuation(tokens[at]);
        let word = match (half_of_day(core).filter(|_| after_number), clock_time(core, half)) {
            (Some(half), _) => half.to_owned(),
            (None, Some(time)) => time,
            (None, None) => signs(core),
        };
        let tail = if word.ends_with('.') { tail.strip_prefix('.').unwrap_or(tail) } else { tail };
        said.push(word + tail);
        at += 1;
    }
    said.join(" ")
}

fn ascii(c: char) -> impl Iterator<Item = char> {
    let plain = match c {
        '\u{2018}' | '\u{2019}' => "'",
        '\u{201c}' | '\u{201d}' => "\"",
        '\u{2013}' | '\u{2014}' => ", ",
        '\u{2026}' => "...",
        '\u{a0}' | '\u{202f}' | '\u{2009}' => " ",
        'à' | 'á' | 'â' | 'ã' | 'å' => "a",
        'ä' => "ae",
        'ç' => "c",
        'è' | 'é' | 'ê' | 'ë' => "e",
        'ì' | 'í' | 'î' | 'ï' => "i",
        'ñ' => "n",
        'ò' | 'ó' | 'ô' | 'õ' => "o",
        'ö' | 'ø' => "oe",
        'ù' | 'ú' | 'û' => "u",
        'ü' => "ue",
        'ß' => "ss",
        '€' => " euros ",
        '£' => " pounds ",
        _ => "",
    };
    plain.chars().chain(c.is_ascii().then_some(c))
}

fn split_punctuation(token: &str) -> (&str, &str) {
    let end = token.trim_end_matches(['.', ',', '!', '?', ';', ':', ')', '"']).len();
    let abbreviation = matches!(token.to_ascii_lowercase().as_str(), "a.m." | "p.m.");
    token.split_at(if abbreviation { token.len() } else { end })
}

fn half_of_day(token: &str) -> Option<&'static str> {
    match token.to_ascii_lowercase().trim_end_matches([',', '.', '!', '?', ';', ':']) {
        "am" | "a.m" => Some("a.m."),
        "pm" | "p.m" => Some("p.m."),
        _ => None,
    }
}

/// `9:05` as "9 oh 5", `14:30` as "2 30 p.m.".
fn clock_time(token: &str, half_follows: bool) -> Option<String> {
    let (hours, minutes) = token.split_once(':')?;
    if minutes.len() != 2 || hours.is_empty() || hours.len() > 2 {
        return None;
    }
    let (hour, minute): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    if hour > 24 || minute > 59 {
        return None;
    }
    let half = match hour {
        _ if half_follows => "",
        13..=23 => " p.m.",
        _ if minute == 0 => " o'clock",
        _ => "",
    };
    let hour = if hour % 12 == 0 { 12 } else { hour % 12 };
    let minutes = match minute {
        0 => String::new(),
        1..=9 => format!(" oh {minute}"),
        _ => format!(" {minute}"),
    };
    Some(format!("{hour}{minutes}{half}"))
}

/// A telephone number at the beginning of tokens, digit by digit with a pause between its groups, and how many it took.
fn telephone_number(tokens: &[&str]) -> Option<(String, usize)> {
    const SHORTEST: usize = 7;
    const LONGEST_GROUP: usize = 5;
    let mut groups: Vec<&str> = vec![];
    let mut used = 0;
    let mut tail = "";
    for token in tokens {
        let (core, end) = split_punctuation(token);
        let core = core.trim_start_matches(['(', '+']);
        let parts: Vec<&str> = core.split(['-', '.', ')', '/']).filter(|part| !part.is_empty()).collect();
        let digits = |part: &&str| part.bytes().all(|b| b.is_ascii_digit());
        let alone = tokens.len() == 1 || used == 0;
        let fits = |part: &&str| part.len() <= LONGEST_GROUP || alone;
        if parts.is_empty()
            || !parts.iter().all(digits)
            || !parts.iter().all(fits)
            || used > 0 && token.starts_with('+')
        {
            break;
        }
        groups.extend(parts);
        used += 1;
        tail = end;
        // A full stop ends the number; a closing bracket after the area code does not.
        if !end.is_empty() && end != ")" {
            break;
        }
    }
    let digits: usize = groups.iter().map(|group| group.len()).sum();
    if digits < SHORTEST {
        return None;
    }
    let spelled: Vec<String> = groups.iter().flat_map(|group| spelled(group)).collect();
    let plus = if tokens[0].trim_start_matches('(').starts_with('+') { "plus " } else { "" };
    Some((format!("{plus}{}{}", spelled.join(", "), tail.trim_start_matches(')')), used))
}

/// Digits in words; long groups are broken into threes with a four at the end.
fn spelled(group: &str) -> Vec<String> {
    const WORDS: [&str; 10] =
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    const SAID_AT_ONCE: usize = 4;
    let say = |digits: &[u8]| {
        digits.iter().map(|digit| WORDS[usize::from(digit - b'0')]).collect::<Vec<_>>().join(" ")
    };
    let (front, last) = group.as_bytes().split_at(group.len().saturating_sub(SAID_AT_ONCE));
    front.chunks(3).chain([last]).filter(|part| !part.is_empty()).map(say).collect()
}

fn signs(word: &str) -> String {
    let dotted =
        word.contains('@') || ["www.", ".com", ".org", ".net"].iter().any(|part| word.contains(part));
    let word = if dotted { word.replace('.', " dot ").replace('@', " at ") } else { word.to_owned() };
    word.replace('&', " and ").replace('%', " percent").replace('#', " number ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use offhook_core::Language;

    #[test]
    fn numbers_and_times_are_read_out() {
        for (written, read) in [
            ("We open at 9:00 and close at 5 pm.", "We open at 9 o'clock and close at 5 p.m."),
            ("From 9:30 am to 14:05, then 18:00.", "From 9 30 a.m. to 2 oh 5 p.m., then 6 p.m."),
            ("I am here at 8 AM!", "I am here at 8 a.m.!"),
            ("Call +1 415 555 0123.", "Call plus one, four one five, five five five, zero one two three."),
            ("Call (415) 555-0123 now", "Call four one five, five five five, zero one two three now"),
            ("I have 4155550123. Right?", "I have four one five, five five five, zero one two three. Right?"),
            ("Room 12, 45 dollars, year 2026", "Room 12, 45 dollars, year 2026"),
            (
                "Mail info@willow.com \u{2014} it\u{2019}s caf\u{e9} & bar, 10%",
                "Mail info at willow dot com , it's cafe and bar, 10 percent",
            ),
        ] {
            assert_eq!(in_words(written), read);
        }
    }

    #[test]
    fn speech_begins_at_once() {
        let said = speak("Hello there.");
        let first = said.pcm.iter().position(|sample| sample.unsigned_abs() > SILENCE).unwrap();
        assert!(first <= 400, "{first}");
        assert!(speak("\u{4f60}\u{597d}").pcm.is_empty());
        assert!(speak(&"word ".repeat(500)).pcm.len() > 500 * 1_000);
    }

    #[tokio::test]
    async fn a_reply_is_spoken_clause_by_clause_and_can_be_dropped() {
        let mut session = Voice.open(TtsOptions { language: Language::english() });
        let speak = |context, text: &str| TtsCommand::Speak { context, text: text.into() };
        for command in [
            speak(1, "We are open. "),
            speak(2, "This is never heard."),
            TtsCommand::Cancel { context: 2 },
            speak(1, "Until five."),
            TtsCommand::Finish { context: 1 },
            TtsCommand::Finish { context: 2 },
        ] {
            session.commands.send(command).await.unwrap();
        }
        drop(session.commands);
        let (mut bytes, mut anchors, mut done) = (0, vec![], vec![]);
        while let Some(event) = session.events.recv().await {
            match event {
                TtsEvent::Audio { context: 1, audio } => bytes += audio.len() as u32,
                TtsEvent::Aligned { context: 1, anchors: more } => anchors.extend(more),
                TtsEvent::Done { context } => done.push(context),
                TtsEvent::Opened => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(done, [1], "not what was dropped");
        assert_eq!(anchors.iter().map(|anchor| anchor.bytes).collect::<Vec<_>>(), [13, 24]);
        assert_eq!(anchors[1].ms, bytes / 32);
    }

    #[tokio::test]
    async fn words_that_cannot_be_spoken_fail_and_signs_are_silent() {
        let mut session = Voice.open(TtsOptions { language: Language::english() });
        let commands = [
            TtsCommand::Speak { context: 1, text: "\u{4f60}\u{597d}".into() },
            TtsCommand::Finish { context: 1 },
            TtsCommand::Speak { context: 2, text: "\u{2026} ".into() },
            TtsCommand::Finish { context: 2 },
        ];
        for command in commands {
            session.commands.send(command).await.unwrap();
        }
        drop(session.commands);
        let mut ends = vec![];
        while let Some(event) = session.events.recv().await {
            match event {
                TtsEvent::Done { context } => ends.push((context, None)),
                TtsEvent::Failed { context, error } => ends.push((context.unwrap(), Some(error.cause))),
                TtsEvent::Opened | TtsEvent::Aligned { .. } => {}
                audio => panic!("{audio:?}"),
            }
        }
        assert_eq!(ends, [(1, Some(Cause::Refused)), (2, None)]);
    }
}
