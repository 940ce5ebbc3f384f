//! TwiML out: what Twilio is told to do with a call, as types that cannot be ill-formed (TwiML voice reference).
//! It knows no call and no agent; every URL is absolute because documents also travel by REST, where nothing is relative.

use offhook_core::{E164, Language, Pii, Secret};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};
use quick_xml::writer::ElementWriter;
use std::io;
use url::Url;

/// The most characters that one `<Say>` may hold.
pub const MAX_SAY_CHARS: usize = 4096;
/// A stream parameter's name and value together stay below this many characters.
pub const MAX_PARAMETER_CHARS: usize = 500;
/// The most numbers that ring at once.
pub const MAX_DIAL_NUMBERS: usize = 10;
/// The most keys that are sent in one go.
pub const MAX_TONES: usize = 32;

/// What the carrier shall do with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Do not pick up; costs nothing.
    Reject(Rejection),
    /// Pick up if need be, do this in order, then hang up. Nothing to do: `<Response/>`, also the answer to reports.
    Run(Vec<Verb>),
}

/// What a refused caller hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The engaged tone.
    Busy,
    /// "The number is not in service."
    Rejected,
}

/// One thing to do with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Talk through a media socket until it closes or the caller hangs up.
    Connect(MediaStream),
    /// Speak a text.
    Say(Speech),
    /// Play a sound file (MP3 or WAV).
    Play(Url),
    /// Press keys.
    PlayTones(Tones),
    /// Be silent.
    Pause {
        /// For how many seconds.
        length_s: u16,
    },
    /// Put the caller through to a phone.
    Dial(Dial),
    /// Let the call meet another in a room.
    Join(Room),
    /// Ask this page what to do next.
    Redirect(Url),
    /// End the call.
    HangUp,
}

/// A media socket of ours that the carrier opens for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaStream {
    url: Url,
    after: Option<Url>,
    status_callback: Option<Url>,
    parameters: Vec<(String, Secret<String>)>,
}

/// A text to speak, with the carrier's own voice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speech {
    text: Pii<String>,
    /// The language to speak.
    pub language: Option<Language>,
    /// The carrier's name of a voice, such as `Polly.Salli`.
    pub voice: Option<String>,
}

/// One or more phones to ring; the first to pick up gets the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    numbers: Vec<Pii<E164>>,
    /// The number they see: one of the call's own, or one that the account owns or has verified.
    pub caller_id: Option<Pii<E164>>,
    /// Seconds until nobody is said to answer; the carrier's default is 30.
    pub ring_timeout_s: Option<u16>,
    /// Seconds after which the conversation is cut; the carrier's default is 14,400.
    pub time_limit_s: Option<u32>,
    /// Let the caller hear ringing until somebody picks up, if the call is not answered yet.
    pub answer_on_bridge: bool,
    /// The page to ask afterwards; with it, nothing that follows in this answer runs.
    pub after: Option<Url>,
}

/// A room in which two calls hear each other, silent until both are there and over when one leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    name: Secret<String>,
    after: Url,
    reports: Url,
}

/// Keys to press: digits, `*`, `#`, `A` to `D`, and `w` (half a second) or `W` (a second) to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tones(Pii<String>);

/// Why something cannot stand in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The carrier opens WebSockets only, and passes no query on.
    #[error("a media socket's URL begins with wss:// or ws:// and has no query")]
    NotASocket,
    /// Its limit is [`MAX_PARAMETER_CHARS`].
    #[error("a stream parameter's name and value stay below 500 characters together")]
    ParameterTooLong,
    /// Its limit is [`MAX_SAY_CHARS`].
    #[error("a spoken text has at most 4,096 characters")]
    TooMuchToSay,
    /// One to [`MAX_DIAL_NUMBERS`].
    #[error("one to ten numbers can be rung at once")]
    DialNumbers,
    /// See [`Tones`]; one to [`MAX_TONES`].
    #[error("keys to press are 1 to 32 of 0 to 9, *, #, A to D, w and W")]
    NotTones,
}

impl Answer {
    /// Nothing to do: the answer to a report, and the end of a call.
    pub const fn empty() -> Self {
        Answer::Run(Vec::new())
    }

    /// The `Content-Type` of [`Answer::render`].
    pub const CONTENT_TYPE: &str = "text/xml; charset=utf-8";

    /// The document to send.
    pub fn render(&self) -> String {
        let mut writer = Writer::new(Vec::with_capacity(512));
        self.write(&mut writer).expect("writing to memory cannot fail");
        String::from_utf8(writer.into_inner()).expect("the writer was given nothing but text")
    }

    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        let response = xml.create_element("Response");
        match self {
            Answer::Run(verbs) if verbs.is_empty() => response.write_empty()?,
            Answer::Run(verbs) => {
                response.write_inner_content(|xml| verbs.iter().try_for_each(|v| v.write(xml)))?
            }
            Answer::Reject(why) => response.write_inner_content(|xml| {
                let reason = match why {
                    Rejection::Busy => "busy",
                    Rejection::Rejected => "rejected",
                };
                xml.create_element("Reject").with_attribute(("reason", reason)).write_empty().map(drop)
            })?,
        };
        Ok(())
    }
}

type Xml = Writer<Vec<u8>>;

impl Verb {
    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        match self {
            Verb::Connect(stream) => return stream.write(xml),
            Verb::Dial(dial) => return dial.write(xml),
            Verb::Join(room) => return room.write(xml),
            Verb::Say(speech) => xml
                .create_element("Say")
                .with_some("voice", speech.voice.as_deref())
                .with_some("language", speech.language.as_ref().map(Language::as_str))
                .write_text(speech.text.expose())?,
            Verb::Play(url) => xml.create_element("Play").write_text(url.as_str())?,
            Verb::PlayTones(tones) => {
                // The long pause `W` is documented for dialling only, so here it is two short ones.
                let digits = tones.as_str().replace('W', "ww");
                xml.create_element("Play").with_some("digits", Some(&digits)).write_empty()?
            }
            Verb::Pause { length_s } => {
                xml.create_element("Pause").with_some("length", Some(&length_s.to_string())).write_empty()?
            }
            Verb::Redirect(url) => xml.create_element("Redirect").write_text(url.as_str())?,
            Verb::HangUp => xml.create_element("Hangup").write_empty()?,
        };
        Ok(())
    }
}

impl MediaStream {
    /// A socket for the carrier to open.
    pub fn new(url: Url) -> Result<Self, AnswerError> {
        let socket =
            matches!(url.scheme(), "ws" | "wss") && url.query().is_none() && url.fragment().is_none();
        if !socket {
            return Err(AnswerError::NotASocket);
        }
        Ok(MediaStream { url, after: None, status_callback: None, parameters: Vec::new() })
    }

    /// The page to ask when the socket is closed; without it the next verb runs.
    pub fn after(mut self, page: Url) -> Self {
        self.after = Some(page);
        self
    }

    /// The page to tell when the stream starts, stops or fails.
    pub fn status_callback(mut self, page: Url) -> Self {
        self.status_callback = Some(page);
        self
    }

    /// A value that comes back when the stream starts.
    pub fn parameter(mut self, name: &str, value: &str) -> Result<Self, AnswerError> {
        if name.chars().count() + value.chars().count() >= MAX_PARAMETER_CHARS {
            return Err(AnswerError::ParameterTooLong);
        }
        self.parameters.push((name.to_owned(), Secret::new(value.to_owned())));
        Ok(self)
    }

    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        let connect = xml.create_element("Connect").with_some("action", self.after.as_ref().map(Url::as_str));
        connect.write_inner_content(|xml| {
            let stream = xml
                .create_element("Stream")
                .with_some("url", Some(self.url.as_str()))
                .with_some("statusCallback", self.status_callback.as_ref().map(Url::as_str));
            if self.parameters.is_empty() {
                return stream.write_empty().map(drop);
            }
            let parameters = |xml: &mut Xml| {
                self.parameters.iter().try_for_each(|(name, value)| {
                    let parameter = xml.create_element("Parameter").with_some("name", Some(name));
                    parameter.with_some("value", Some(value.expose())).write_empty().map(drop)
                })
            };
            stream.write_inner_content(parameters).map(drop)
        })?;
        Ok(())
    }
}

impl Speech {
    /// A text in the carrier's default voice.
    pub fn new(text: &str) -> Result<Self, AnswerError> {
        if text.chars().count() > MAX_SAY_CHARS {
            return Err(AnswerError::TooMuchToSay);
        }
        Ok(Speech { text: Pii::new(text.to_owned()), language: None, voice: None })
    }
}

impl Dial {
    /// Rings these numbers with the carrier's defaults.
    pub fn new(numbers: Vec<E164>) -> Result<Self, AnswerError> {
        if !(1..=MAX_DIAL_NUMBERS).contains(&numbers.len()) {
            return Err(AnswerError::DialNumbers);
        }
        Ok(Dial {
            numbers: numbers.into_iter().map(Pii::new).collect(),
            caller_id: None,
            ring_timeout_s: None,
            time_limit_s: None,
            answer_on_bridge: false,
            after: None,
        })
    }

    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        let dial = xml
            .create_element("Dial")
            .with_some("callerId", self.caller_id.as_ref().map(|id| id.expose().as_str()))
            .with_some("timeout", self.ring_timeout_s.map(|s| s.to_string()).as_deref())
            .with_some("timeLimit", self.time_limit_s.map(|s| s.to_string()).as_deref())
            .with_some("answerOnBridge", self.answer_on_bridge.then_some("true"))
            .with_some("action", self.after.as_ref().map(Url::as_str));
        dial.write_inner_content(|xml| {
            self.numbers.iter().try_for_each(|number| {
                xml.create_element("Number").write_text(number.expose().as_str()).map(drop)
            })
        })?;
        Ok(())
    }
}

impl Room {
    /// The room of this name, which nobody else can guess: whoever knows it can listen. The page `after` is asked when the call has
    /// left, `reports` is told who comes and goes.
    pub fn new(name: Secret<String>, after: Url, reports: Url) -> Self {
        Room { name, after, reports }
    }

    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        let dial = xml.create_element("Dial").with_some("action", Some(self.after.as_str()));
        dial.write_inner_content(|xml| {
            xml.create_element("Conference")
                .with_some("beep", Some("false"))
                .with_some("startConferenceOnEnter", Some("true"))
                .with_some("endConferenceOnExit", Some("true"))
                // Empty: no music while the other is on the way.
                .with_some("waitUrl", Some(""))
                .with_some("statusCallback", Some(self.reports.as_str()))
                .with_some("statusCallbackEvent", Some("start end join leave"))
                .write_text(self.name.expose())
                .map(drop)
        })?;
        Ok(())
    }
}

impl Tones {
    /// Reads keys to press.
    pub fn new(keys: &str) -> Result<Self, AnswerError> {
        let known = keys.bytes().all(|key| b"0123456789*#ABCDwW".contains(&key));
        if !known || !(1..=MAX_TONES).contains(&keys.len()) {
            return Err(AnswerError::NotTones);
        }
        Ok(Tones(Pii::new(keys.to_owned())))
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.expose()
    }
}

trait ElementExt<'w>: Sized {
    /// Adds an attribute if there is a value for it.
    fn with_some(self, name: &str, value: Option<&str>) -> Self;
    /// Writes the element around a text.
    fn write_text(self, text: &str) -> io::Result<&'w mut Xml>;
}

impl<'w> ElementExt<'w> for ElementWriter<'w, Vec<u8>> {
    fn with_some(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with_attribute((name, legal(value).as_str())),
            None => self,
        }
    }

    fn write_text(self, text: &str) -> io::Result<&'w mut Xml> {
        self.write_text_content(BytesText::new(&legal(text)))
    }
}

/// Leaves out what XML 1.0 (section 2.2) cannot hold in any spelling, else the whole document would be refused.
fn legal(text: &str) -> String {
    let illegal = |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    text.chars().filter(|&c| !illegal(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    #[test]
    fn a_call_is_connected_to_a_socket() {
        let stream = MediaStream::new(url("wss://offhook.example/twilio/media"))
            .unwrap()
            .after(url("https://offhook.example/twilio/after?a=1&b=2"))
            .status_callback(url("https://offhook.example/twilio/stream"))
            .parameter("ticket", r#"<"é&'>"#)
            .unwrap();
        check(
            Answer::Run(vec![
                Verb::Connect(stream),
                Verb::Redirect(url("https://offhook.example/twilio/voice")),
            ]),
            expect![[
                r#"<?xml version="1.0" encoding="UTF-8"?><Response><Connect action="https://offhook.example/twilio/after?a=1&amp;b=2"><Stream url="wss://offhook.example/twilio/media" statusCallback="https://offhook.example/twilio/stream"><Parameter name="ticket" value="&lt;&quot;é&amp;&apos;&gt;"/></Stream></Connect><Redirect>https://offhook.example/twilio/voice</Redirect></Response>"#
            ]],
        );
    }

    #[test]
    fn every_other_verb_has_its_documented_form() {
        let mut speech = Speech::new("Sorry, \u{0}fish & chips < 5\u{1b} £").unwrap();
        speech.language = Some("en-GB".to_owned().try_into().unwrap());
        speech.voice = Some("Polly.Amy".to_owned());
        let mut dial = Dial::new(vec![number("+14155550123"), number("+14155550124")]).unwrap();
        dial.caller_id = Some(Pii::new(number("+14155550101")));
        dial.ring_timeout_s = Some(20);
        dial.time_limit_s = Some(3600);
        dial.answer_on_bridge = true;
        dial.after = Some(url("https://offhook.example/twilio/dialled"));
        check(
            Answer::Run(vec![
                Verb::Say(speech),
                Verb::Play(url("https://offhook.example/hold.mp3?a=1&b=2")),
                Verb::PlayTones(Tones::new("1W2#").unwrap()),
                Verb::Pause { length_s: 3 },
                Verb::Dial(dial),
                Verb::HangUp,
            ]),
            expect![[
                r#"<?xml version="1.0" encoding="UTF-8"?><Response><Say voice="Polly.Amy" language="en-GB">Sorry, fish &amp; chips &lt; 5 £</Say><Play>https://offhook.example/hold.mp3?a=1&amp;b=2</Play><Play digits="1ww2#"/><Pause length="3"/><Dial callerId="+14155550101" timeout="20" timeLimit="3600" answerOnBridge="true" action="https://offhook.example/twilio/dialled"><Number>+14155550123</Number><Number>+14155550124</Number></Dial><Hangup/></Response>"#
            ]],
        );
    }

    #[test]
    fn two_calls_meet_in_a_room_without_beep_or_music() {
        let room = Room::new(
            Secret::new("r00m".to_owned()),
            url("https://offhook.example/twilio/over"),
            url("https://offhook.example/twilio/room"),
        );
        assert!(!format!("{room:?}").contains("r00m"), "whoever knows the name can listen");
        check(
            Answer::Run(vec![Verb::Join(room)]),
            expect![[
                r#"<?xml version="1.0" encoding="UTF-8"?><Response><Dial action="https://offhook.example/twilio/over"><Conference beep="false" startConferenceOnEnter="true" endConferenceOnExit="true" waitUrl="" statusCallback="https://offhook.example/twilio/room" statusCallbackEvent="start end join leave">r00m</Conference></Dial></Response>"#
            ]],
        );
    }

    #[test]
    fn a_call_is_refused_or_left_alone() {
        check(
            Answer::Reject(Rejection::Busy),
            expect![[
                r#"<?xml version="1.0" encoding="UTF-8"?><Response><Reject reason="busy"/></Response>"#
            ]],
        );
        check(Answer::empty(), expect![[r#"<?xml version="1.0" encoding="UTF-8"?><Response/>"#]]);
    }

    #[test]
    fn what_twilio_would_refuse_cannot_be_said() {
        for bad in ["https://offhook.example/media", "wss://offhook.example/media?ticket=1", "wss://h/m#x"] {
            assert_eq!(MediaStream::new(url(bad)), Err(AnswerError::NotASocket), "{bad}");
        }
        let stream = || MediaStream::new(url("wss://offhook.example/media")).unwrap();
        assert!(stream().parameter("call", &"é".repeat(495)).is_ok());
        assert_eq!(stream().parameter("call", &"é".repeat(496)), Err(AnswerError::ParameterTooLong));
        assert!(Speech::new(&"é".repeat(4096)).is_ok());
        assert_eq!(Speech::new(&"é".repeat(4097)), Err(AnswerError::TooMuchToSay));
        assert_eq!(Dial::new(vec![]), Err(AnswerError::DialNumbers));
        for bad in ["", "1 2", "x", "123456789012345678901234567890123"] {
            assert_eq!(Tones::new(bad), Err(AnswerError::NotTones), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_survives_the_document(text: String) {
            let text: String = text.chars().take(MAX_SAY_CHARS).collect();
            let document = Answer::Run(vec![Verb::Say(Speech::new(&text).unwrap())]).render();
            let mut reader = quick_xml::Reader::from_str(&document);
            let mut read = String::new();
            loop {
                match reader.read_event().unwrap() {
                    Event::Text(part) => read.push_str(&part.xml10_content()),
                    Event::GeneralRef(entity) => read.push(match &*entity {
                        "lt" => '<', "gt" => '>', "amp" => '&', "quot" => '"', "apos" => '\'', "#13" => '\r',
                        other => panic!("unknown entity {other}"),
                    }),
                    Event::Eof => break,
                    _ => {}
                }
            }
            prop_assert_eq!(read, legal(&text));
        }
    }

    fn check(answer: Answer, document: Expect) {
        document.assert_eq(&answer.render());
    }

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn number(text: &str) -> E164 {
        text.parse().unwrap()
    }
}
