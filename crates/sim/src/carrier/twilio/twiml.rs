//! TwiML as Twilio reads it: names are case sensitive, XML that does not parse is error 12100, what the schema does not know is
//! warning 12200 and skipped. It reads documents; it does not run them.

use std::net::IpAddr;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use url::{Host, Url};

use super::webhook::HttpMethod;

/// Elements in elements: TwiML never needs more than five.
const MAX_DEPTH: usize = 32;
/// Twilio plays what is to be repeated for ever at most so often.
const ENDLESS_LOOP: u32 = 1_000;
const MAX_SAY_CHARACTERS: usize = 4_096;
const MAX_PARAMETER_CHARACTERS: usize = 500;
const MAX_DIAL_NUMBERS: usize = 10;
const MAX_CONFERENCE: u64 = 250;

/// A document that can be run, and what was wrong with it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Document {
    pub(super) verbs: Vec<Verb>,
    pub(super) complaints: Vec<Complaint>,
}

/// Something in a document that Twilio reports in its debugger.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Complaint {
    pub(super) code: u32,
    pub(super) message: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verb {
    Say { text: String, times: u32 },
    Play { url: String, digits: String, times: u32 },
    Pause { seconds: u64 },
    Redirect(Hook),
    Hangup,
    Reject { busy: bool },
    Dial(Dial),
    Gather(Gather),
    Connect { action: Option<Hook>, stream: Stream },
}

/// A URL as written, and how it is asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hook {
    pub(super) url: String,
    pub(super) method: HttpMethod,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dial {
    pub(super) action: Option<Hook>,
    pub(super) timeout_s: u64,
    pub(super) time_limit_s: u64,
    pub(super) caller_id: Option<String>,
    pub(super) answer_on_bridge: bool,
    pub(super) hangup_on_star: bool,
    pub(super) to: DialTo,
}

/// Whom a `<Dial>` connects the call with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum DialTo {
    /// The first of them that answers.
    Numbers(Vec<DialNumber>),
    Conference(Conference),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct DialNumber {
    pub(super) number: String,
    pub(super) whisper: Option<Hook>,
    pub(super) status_callback: Option<Hook>,
    pub(super) status_events: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Conference {
    pub(super) name: String,
    pub(super) label: Option<String>,
    pub(super) muted: bool,
    pub(super) beep: Beep,
    pub(super) starts_on_enter: bool,
    pub(super) ends_on_exit: bool,
    pub(super) wait: Wait,
    pub(super) max_participants: usize,
    pub(super) status_callback: Option<Hook>,
    pub(super) status_events: Vec<String>,
}

/// When all hear a beep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Beep {
    pub(super) on_enter: bool,
    pub(super) on_exit: bool,
}

/// What those hear who wait for a conference to start.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wait {
    /// Twilio's own music: the default.
    Music,
    /// An empty `waitUrl`.
    Silence,
    Document(Hook),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gather {
    /// Without one the current document is asked again.
    pub(super) action: Option<Hook>,
    pub(super) hears_digits: bool,
    pub(super) timeout_s: u64,
    pub(super) digits: Option<usize>,
    pub(super) finish_on: Option<char>,
    pub(super) action_on_empty: bool,
    pub(super) prompts: Vec<Verb>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stream {
    pub(super) url: String,
    pub(super) name: Option<String>,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) status_callback: Option<Hook>,
}

impl Document {
    /// Reads a document; the only error is 12100.
    pub(super) fn parse(text: &str) -> Result<Document, Complaint> {
        let root = parse_xml(text).map_err(|message| Complaint { code: 12100, message })?;
        if root.name != "Response" {
            let message = format!("the root element is <{}>, not <Response>", root.name);
            return Err(Complaint { code: 12100, message });
        }
        let mut reading = Reading { complaints: Vec::new() };
        reading.attributes(&root, &[]);
        if !root.text.trim().is_empty() {
            reading.warn("text directly in <Response> is ignored");
        }
        let verbs = root.children.iter().filter_map(|element| reading.verb(element)).collect();
        Ok(Document { verbs, complaints: reading.complaints })
    }
}

/// Whether Twilio would open a media stream to this address; on loopback any port and no TLS will do.
pub(super) fn check_stream_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| format!("{text}: {error}"))?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
        None => false,
    };
    match url.scheme() {
        _ if url.query().is_some() => {
            Err(format!("{text}: a stream URL has no query string, use <Parameter>"))
        }
        _ if url.fragment().is_some() => Err(format!("{text}: a stream URL has no fragment")),
        "wss" if loopback || url.port().is_none() => Ok(()),
        "ws" if loopback => Ok(()),
        "wss" => Err(format!("{text}: only port 443 is served")),
        _ => Err(format!("{text}: a stream URL begins with wss://")),
    }
}

/// Turns elements into verbs and collects what is wrong with them.
struct Reading {
    complaints: Vec<Complaint>,
}

impl Reading {
    fn verb(&mut self, element: &Element) -> Option<Verb> {
        match element.name.as_str() {
            "Say" => self.say(element),
            "Play" => self.play(element),
            "Pause" => {
                self.attributes(element, &["length"]);
                Some(Verb::Pause { seconds: self.number(element, "length", 1) })
            }
            "Redirect" => {
                self.attributes(element, &["method"]);
                let url = element.text.trim().to_owned();
                Some(Verb::Redirect(Hook { url, method: self.method(element, "method") }))
            }
            "Hangup" => {
                self.attributes(element, &[]);
                Some(Verb::Hangup)
            }
            "Reject" => {
                self.attributes(element, &["reason"]);
                let busy = self.one_of(element, "reason", &["rejected", "busy"]) == "busy";
                Some(Verb::Reject { busy })
            }
            "Dial" => self.dial(element),
            "Gather" => Some(self.gather(element)),
            "Connect" => self.connect(element),
            other => {
                self.warn(format!("<{other}> is not a verb that is simulated here: skipped"));
                None
            }
        }
    }

    fn say(&mut self, element: &Element) -> Option<Verb> {
        self.attributes(element, &["voice", "language", "loop"]);
        let text = &element.spoken;
        if text.trim().is_empty() || text.chars().count() > MAX_SAY_CHARACTERS {
            self.warn(format!("<Say> takes 1 to {MAX_SAY_CHARACTERS} characters"));
            return None;
        }
        Some(Verb::Say { text: text.trim().to_owned(), times: self.times(element) })
    }

    fn play(&mut self, element: &Element) -> Option<Verb> {
        self.attributes(element, &["loop", "digits"]);
        let url = element.text.trim().to_owned();
        let digits = element.attribute("digits").unwrap_or_default().to_owned();
        if !digits.chars().all(|c| "0123456789*#wWABCDabcd".contains(c)) {
            self.warn(format!("digits=\"{digits}\" has characters that are not keys"));
            return None;
        }
        if url.is_empty() && digits.is_empty() {
            self.warn("<Play> has neither a URL nor digits");
            return None;
        }
        Some(Verb::Play { url, digits, times: self.times(element) })
    }

    fn dial(&mut self, element: &Element) -> Option<Verb> {
        const KNOWN: [&str; 18] = [
            "action",
            "method",
            "timeout",
            "timeLimit",
            "callerId",
            "answerOnBridge",
            "hangupOnStar",
            "record",
            "recordingStatusCallback",
            "recordingStatusCallbackMethod",
            "recordingStatusCallbackEvent",
            "recordingTrack",
            "trim",
            "referUrl",
            "referMethod",
            "ringTone",
            "sequential",
            "callReason",
        ];
        self.attributes(element, &KNOWN);
        let to = match element.children.as_slice() {
            [noun] if noun.name == "Conference" => DialTo::Conference(self.conference(noun)?),
            _ => DialTo::Numbers(self.dial_numbers(element)?),
        };
        Some(Verb::Dial(Dial {
            action: self.hook(element, "action", "method"),
            timeout_s: self.number(element, "timeout", 30),
            time_limit_s: self.number(element, "timeLimit", 14_400),
            caller_id: element.attribute("callerId").map(str::to_owned),
            answer_on_bridge: self.flag(element, "answerOnBridge", false),
            hangup_on_star: self.flag(element, "hangupOnStar", false),
            to,
        }))
    }

    fn dial_numbers(&mut self, element: &Element) -> Option<Vec<DialNumber>> {
        let mut numbers: Vec<DialNumber> =
            element.children.iter().filter_map(|noun| self.dial_number(noun)).collect();
        let bare = element.text.trim();
        if !bare.is_empty() {
            let number = bare.to_owned();
            numbers.push(DialNumber {
                number,
                whisper: None,
                status_callback: None,
                status_events: Vec::new(),
            });
        }
        if numbers.is_empty() || numbers.len() > MAX_DIAL_NUMBERS {
            self.warn(format!("<Dial> takes 1 to {MAX_DIAL_NUMBERS} numbers"));
            return None;
        }
        Some(numbers)
    }

    fn conference(&mut self, element: &Element) -> Option<Conference> {
        const KNOWN: [&str; 21] = [
            "muted",
            "beep",
            "startConferenceOnEnter",
            "endConferenceOnExit",
            "waitUrl",
            "waitMethod",
            "maxParticipants",
            "record",
            "region",
            "coach",
            "trim",
            "statusCallbackEvent",
            "statusCallback",
            "statusCallbackMethod",
            "recordingStatusCallback",
            "recordingStatusCallbackMethod",
            "recordingStatusCallbackEvent",
            "eventCallbackUrl",
            "jitterBufferSize",
            "participantLabel",
            "recordingTrack",
        ];
        const EVENTS: [&str; 9] =
            ["start", "end", "join", "leave", "mute", "hold", "modify", "speaker", "announcement"];
        self.attributes(element, &KNOWN);
        let name = element.text.trim().to_owned();
        if name.is_empty() {
            self.warn("<Conference> has no name");
            return None;
        }
        let beep = self.one_of(element, "beep", &["true", "false", "onEnter", "onExit"]);
        let events = element.attribute("statusCallbackEvent").unwrap_or("start end");
        let status_events: Vec<String> = events.split_whitespace().map(str::to_owned).collect();
        if let Some(unknown) = status_events.iter().find(|event| !EVENTS.contains(&event.as_str())) {
            self.warn(format!("statusCallbackEvent of <Conference> has no {unknown}"));
        }
        let wait = match self.hook(element, "waitUrl", "waitMethod") {
            None => Wait::Music,
            Some(hook) if hook.url.is_empty() => Wait::Silence,
            Some(hook) => Wait::Document(hook),
        };
        let most = self.number(element, "maxParticipants", MAX_CONFERENCE).clamp(2, MAX_CONFERENCE);
        Some(Conference {
            name,
            label: element.attribute("participantLabel").map(str::to_owned),
            muted: self.flag(element, "muted", false),
            beep: Beep {
                on_enter: matches!(beep, "true" | "onEnter"),
                on_exit: matches!(beep, "true" | "onExit"),
            },
            starts_on_enter: self.flag(element, "startConferenceOnEnter", true),
            ends_on_exit: self.flag(element, "endConferenceOnExit", false),
            wait,
            max_participants: most as usize,
            status_callback: self.hook(element, "statusCallback", "statusCallbackMethod"),
            status_events,
        })
    }

    fn dial_number(&mut self, element: &Element) -> Option<DialNumber> {
        if element.name != "Number" {
            self.warn(format!("<{}> in <Dial> is not simulated here: skipped", element.name));
            return None;
        }
        const KNOWN: [&str; 7] = [
            "url",
            "method",
            "sendDigits",
            "statusCallback",
            "statusCallbackEvent",
            "statusCallbackMethod",
            "byoc",
        ];
        self.attributes(element, &KNOWN);
        let events = element.attribute("statusCallbackEvent").unwrap_or("completed");
        Some(DialNumber {
            number: element.text.trim().to_owned(),
            whisper: self.hook(element, "url", "method"),
            status_callback: self.hook(element, "statusCallback", "statusCallbackMethod"),
            status_events: events.split_whitespace().map(str::to_owned).collect(),
        })
    }

    fn gather(&mut self, element: &Element) -> Verb {
        const KNOWN: [&str; 17] = [
            "input",
            "action",
            "method",
            "timeout",
            "speechTimeout",
            "speechModel",
            "language",
            "hints",
            "enhanced",
            "partialResultCallback",
            "partialResultCallbackMethod",
            "bargeIn",
            "maxSpeechTime",
            "profanityFilter",
            "numDigits",
            "finishOnKey",
            "actionOnEmptyResult",
        ];
        self.attributes(element, &KNOWN);
        let input = self.one_of(element, "input", &["dtmf", "speech", "dtmf speech", "speech dtmf"]);
        if input.contains("speech") {
            self.warn("speech in <Gather> is not simulated here: nobody is understood");
        }
        let digits = element.attribute("numDigits").map(|_| self.number(element, "numDigits", 1) as usize);
        let mut prompts = Vec::new();
        for child in &element.children {
            if !matches!(child.name.as_str(), "Say" | "Play" | "Pause") {
                self.warn(format!("<{}> cannot stand in <Gather>: skipped", child.name));
                continue;
            }
            prompts.extend(self.verb(child));
        }
        Verb::Gather(Gather {
            action: self.hook(element, "action", "method"),
            hears_digits: input.contains("dtmf"),
            timeout_s: self.number(element, "timeout", 5),
            digits,
            finish_on: element.attribute("finishOnKey").map_or(Some('#'), |key| key.chars().next()),
            action_on_empty: self.flag(element, "actionOnEmptyResult", false),
            prompts,
        })
    }

    fn connect(&mut self, element: &Element) -> Option<Verb> {
        self.attributes(element, &["action", "method"]);
        let [noun] = element.children.as_slice() else {
            self.warn("<Connect> takes exactly one noun");
            return None;
        };
        if noun.name != "Stream" {
            self.warn(format!("<{}> in <Connect> is not simulated here: skipped", noun.name));
            return None;
        }
        self.attributes(noun, &["url", "name", "track", "statusCallback", "statusCallbackMethod"]);
        if self.one_of(noun, "track", &["inbound_track"]) != "inbound_track" {
            return None;
        }
        let url = noun.attribute("url").unwrap_or_default().to_owned();
        if let Err(message) = check_stream_url(&url) {
            self.complaints.push(Complaint { code: 11100, message });
            return None;
        }
        let stream = Stream {
            url,
            name: noun.attribute("name").map(str::to_owned),
            parameters: noun.children.iter().filter_map(|child| self.parameter(child)).collect(),
            status_callback: self.hook(noun, "statusCallback", "statusCallbackMethod"),
        };
        Some(Verb::Connect { action: self.hook(element, "action", "method"), stream })
    }

    fn parameter(&mut self, element: &Element) -> Option<(String, String)> {
        self.attributes(element, &["name", "value"]);
        let (name, value) = (element.attribute("name")?, element.attribute("value")?);
        let length = name.chars().count() + value.chars().count();
        if element.name != "Parameter" || length >= MAX_PARAMETER_CHARACTERS {
            self.warn(format!("<{} name=\"{name}\"> is unknown or too long: skipped", element.name));
            return None;
        }
        Some((name.to_owned(), value.to_owned()))
    }

    fn hook(&mut self, element: &Element, url: &str, method: &str) -> Option<Hook> {
        let method = self.method(element, method);
        element.attribute(url).map(|url| Hook { url: url.trim().to_owned(), method })
    }

    fn method(&mut self, element: &Element, name: &str) -> HttpMethod {
        HttpMethod::parse(self.one_of(element, name, &["POST", "GET"])).unwrap_or_default()
    }

    fn times(&mut self, element: &Element) -> u32 {
        match self.number(element, "loop", 1) {
            0 => ENDLESS_LOOP,
            times => times.min(ENDLESS_LOOP.into()) as u32,
        }
    }

    fn number(&mut self, element: &Element, name: &str, default: u64) -> u64 {
        let Some(value) = element.attribute(name) else { return default };
        value.parse().unwrap_or_else(|_| {
            self.warn(format!("{name}=\"{value}\" of <{}> is no number", element.name));
            default
        })
    }

    fn flag(&mut self, element: &Element, name: &str, default: bool) -> bool {
        let default = if default { ["true", "false"] } else { ["false", "true"] };
        self.one_of(element, name, &default) == "true"
    }

    /// The value of an attribute if it is one of `values`, else the first of them.
    fn one_of<'a>(&mut self, element: &'a Element, name: &str, values: &[&'a str]) -> &'a str {
        let Some(value) = element.attribute(name) else { return values[0] };
        if !values.contains(&value) {
            self.warn(format!(
                "{name}=\"{value}\" of <{}> is not one of {}",
                element.name,
                values.join(", ")
            ));
            return values[0];
        }
        value
    }

    fn attributes(&mut self, element: &Element, known: &[&str]) {
        for (name, _) in &element.attributes {
            if !known.contains(&name.as_str()) {
                self.warn(format!("<{}> has no attribute {name}", element.name));
            }
        }
    }

    fn warn(&mut self, message: impl Into<String>) {
        self.complaints.push(Complaint { code: 12200, message: message.into() });
    }
}

#[derive(Debug, Default)]
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
    /// Its own text.
    text: String,
    /// Its own text and that of its children, as SSML is read aloud.
    spoken: String,
}

impl Element {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn open(tag: &BytesStart) -> Result<Element, String> {
        let mut element = Element { name: tag.name().as_ref().to_owned(), ..Element::default() };
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            let value =
                attribute.normalized_value(XmlVersion::Explicit1_0).map_err(|error| error.to_string())?;
            element.attributes.push((attribute.key.as_ref().to_owned(), value.into_owned()));
        }
        Ok(element)
    }
}

fn parse_xml(text: &str) -> Result<Element, String> {
    let mut reader = Reader::from_str(text.trim());
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    loop {
        let event = reader.read_event().map_err(|error| error.to_string())?;
        let closed = match event {
            Event::Start(tag) if open.len() < MAX_DEPTH => {
                open.push(Element::open(&tag)?);
                continue;
            }
            Event::Start(_) => return Err("elements are nested too deeply".into()),
            Event::Empty(tag) => Element::open(&tag)?,
            Event::End(_) => open.pop().ok_or("an element ends that never began")?,
            Event::Text(text) => {
                append(&mut open, &text.xml10_content())?;
                continue;
            }
            Event::CData(text) => {
                append(&mut open, &text.xml10_content())?;
                continue;
            }
            Event::GeneralRef(reference) => {
                append(&mut open, &resolve(&reference)?)?;
                continue;
            }
            Event::DocType(_) => return Err("a document type is not allowed".into()),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => continue,
            Event::Eof => break,
        };
        match open.last_mut() {
            Some(parent) => parent.children.push(closed),
            None if root.is_none() => root = Some(closed),
            None => return Err("a document has one root element".into()),
        }
    }
    match root {
        Some(root) if open.is_empty() => Ok(root),
        _ => Err("the document ends too early".into()),
    }
}

fn append(open: &mut [Element], text: &str) -> Result<(), String> {
    for element in open.iter_mut() {
        element.spoken.push_str(text);
    }
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err("text outside of the root element".into()),
    }
    Ok(())
}

fn resolve(reference: &quick_xml::events::BytesRef) -> Result<String, String> {
    if let Some(character) = reference.resolve_char_ref().map_err(|error| error.to_string())? {
        return Ok(character.into());
    }
    let name = reference.xml10_content();
    let character = quick_xml::escape::resolve_xml_entity(&name);
    character.map(str::to_owned).ok_or_else(|| format!("&{name}; is not defined"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(verbs: &str) -> Document {
        Document::parse(&format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response>{verbs}</Response>"))
            .unwrap()
    }

    #[test]
    fn bad_xml_is_12100() {
        let bad = [
            "",
            "hello",
            "<Response>",
            "<Response></response>",
            "<Response/><Response/>",
            "<response/>",
            "<Response><Say a='1' a='2'>x</Say></Response>",
            "<Response>&nbsp;</Response>",
            "<!DOCTYPE Response><Response/>",
            "<Response/>trailing",
            "<Response><Say>a & b</Say></Response>",
        ];
        for text in bad {
            assert_eq!(Document::parse(text).map_err(|complaint| complaint.code), Err(12100), "{text}");
        }
    }

    #[test]
    fn names_are_case_sensitive_and_unknown_ones_are_warned_of() {
        let document = parse(r#"<say>no</say><Say volume="11" loop="x">Tom &amp; Jerry&#33;</Say><Hangup/>"#);
        let say = Verb::Say { text: "Tom & Jerry!".into(), times: 1 };
        assert_eq!(document.verbs, [say, Verb::Hangup]);
        let codes: Vec<u32> = document.complaints.iter().map(|complaint| complaint.code).collect();
        assert_eq!(codes, [12200, 12200, 12200]);
    }

    #[test]
    fn a_stream_is_read_with_its_parameters_and_action() {
        let document = parse(
            r#"<Connect action="/after"><Stream url="wss://offhook.example/media" statusCallback="https://offhook.example/s">
               <Parameter name="call" value="c_1"/></Stream></Connect>"#,
        );
        let [Verb::Connect { action: Some(action), stream }] = document.verbs.as_slice() else {
            panic!("{document:?}")
        };
        assert_eq!((action.url.as_str(), action.method), ("/after", HttpMethod::Post));
        assert_eq!(stream.parameters, [("call".to_owned(), "c_1".to_owned())]);
        assert_eq!(document.complaints, []);
    }

    #[test]
    fn stream_urls_follow_the_rules() {
        for good in ["wss://h.example/m", "ws://127.0.0.1:8787/m", "wss://localhost:9/m", "ws://[::1]:1/m"] {
            assert_eq!(check_stream_url(good), Ok(()), "{good}");
        }
        for bad in [
            "ws://h.example/m",
            "wss://h.example/m?x=1",
            "wss://h.example:8443/m",
            "https://h.example/m",
            "/m",
        ] {
            assert!(check_stream_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dial_has_its_documented_defaults() {
        let document = parse("<Dial>+15550100</Dial>");
        let [Verb::Dial(dial)] = document.verbs.as_slice() else { panic!("{document:?}") };
        assert_eq!((dial.timeout_s, dial.time_limit_s, dial.answer_on_bridge), (30, 14_400, false));
        let DialTo::Numbers(numbers) = &dial.to else { panic!("{dial:?}") };
        assert_eq!(numbers[0].number, "+15550100");
    }

    #[test]
    fn a_conference_has_its_documented_defaults() {
        let document = parse("<Dial><Conference>room 1</Conference></Dial>");
        let [Verb::Dial(Dial { to: DialTo::Conference(room), .. })] = document.verbs.as_slice() else {
            panic!("{document:?}")
        };
        assert_eq!((room.name.as_str(), &room.wait, room.max_participants), ("room 1", &Wait::Music, 250));
        assert_eq!((room.starts_on_enter, room.ends_on_exit, room.muted), (true, false, false));
        assert_eq!(room.beep, Beep { on_enter: true, on_exit: true });
        assert_eq!(room.status_events, ["start", "end"]);
        let wrong = "<Dial><Conference statusCallbackEvent=\"join gone\" size=\"2\">r</Conference></Dial>";
        assert_eq!(parse(wrong).complaints.len(), 2);
    }

    #[test]
    fn a_gather_with_nothing_but_an_empty_finish_key_takes_every_key() {
        let document =
            parse(r##"<Gather finishOnKey="" numDigits="2"><Say>Press</Say><Dial>+1</Dial></Gather>"##);
        let [Verb::Gather(gather)] = document.verbs.as_slice() else { panic!("{document:?}") };
        assert_eq!((gather.finish_on, gather.digits, gather.prompts.len()), (None, Some(2), 1));
        assert_eq!(document.complaints.len(), 1);
    }
}
