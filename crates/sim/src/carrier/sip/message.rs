//! SIP messages as text: read strictly, written in the ways that carriers write them (RFC 3261).
//! It knows lines and header fields, not what they mean to a call.

use std::fmt::Write;

/// A longer message is refused.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Compact forms of header names: RFC 3261 section 7.3.3 and the registry of IANA.
const COMPACT: [(&str, &str); 16] = [
    ("v", "Via"),
    ("f", "From"),
    ("t", "To"),
    ("i", "Call-ID"),
    ("m", "Contact"),
    ("l", "Content-Length"),
    ("k", "Supported"),
    ("c", "Content-Type"),
    ("s", "Subject"),
    ("o", "Event"),
    ("u", "Allow-Events"),
    ("e", "Content-Encoding"),
    ("r", "Refer-To"),
    ("b", "Referred-By"),
    ("x", "Session-Expires"),
    ("y", "Identity"),
];

/// How a message is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writing {
    /// Header names in their one-letter forms.
    pub compact: bool,
    /// Long header lines continue on the next line.
    pub folded: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Request { method: String, uri: String },
    Response { status: u16, reason: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) start: Start,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

impl Message {
    pub(super) fn request(method: &str, uri: &str) -> Message {
        let start = Start::Request { method: method.to_owned(), uri: uri.to_owned() };
        Message { start, headers: Vec::new(), body: String::new() }
    }

    /// An answer, with what every answer repeats of its request.
    pub(super) fn answer(request: &Message, status: u16, reason: &str) -> Message {
        let mut answer = Message {
            start: Start::Response { status, reason: reason.to_owned() },
            headers: Vec::new(),
            body: String::new(),
        };
        for (name, value) in &request.headers {
            let repeated = ["Via", "From", "To", "Call-ID", "CSeq"].contains(&name.as_str());
            if repeated || (name == "Record-Route" && status < 300) {
                answer.headers.push((name.clone(), value.clone()));
            }
        }
        answer
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Message {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn with_body(mut self, kind: &str, body: String) -> Message {
        self.headers.push(("Content-Type".to_owned(), kind.to_owned()));
        self.body = body;
        self
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.headers.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.headers.push((name.to_owned(), value)),
        }
    }

    pub(super) fn method(&self) -> Option<&str> {
        match &self.start {
            Start::Request { method, .. } => Some(method),
            Start::Response { .. } => None,
        }
    }

    pub(super) fn status(&self) -> Option<u16> {
        match self.start {
            Start::Response { status, .. } => Some(status),
            Start::Request { .. } => None,
        }
    }

    /// The first value of a header by its long name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All values of a header, those that share a line by commas too.
    pub(super) fn values(&self, name: &str) -> Vec<String> {
        self.headers(name).flat_map(split_by_commas).collect()
    }

    /// The number and the method of `CSeq`.
    pub(super) fn sequence(&self) -> Option<(u32, &str)> {
        let (number, method) = self.header("CSeq")?.split_once(' ')?;
        Some((number.parse().ok()?, method.trim()))
    }

    /// The branch of the topmost Via.
    pub(super) fn branch(&self) -> Option<String> {
        parameter(&self.values("Via").into_iter().next()?, "branch").map(str::to_owned)
    }

    pub(super) fn tag(&self, name: &str) -> Option<&str> {
        let value = self.header(name)?;
        parameter(value.rsplit_once('>').map_or(value, |(_, rest)| rest), "tag")
    }

    /// Reads one whole message. Line ends are CRLF, as they must be.
    pub(super) fn parse(bytes: &[u8]) -> Result<Message, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed("it is not UTF-8".into()))?;
        let wrong = |what: &str| Malformed(format!("{what} in {text:?}"));
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| wrong("no empty line"))?;
        if head.replace("\r\n", "").contains(['\r', '\n']) {
            return Err(wrong("a bare line end"));
        }
        let mut lines = head.split("\r\n");
        let start = read_start(lines.next().unwrap_or_default()).ok_or_else(|| wrong("no start line"))?;
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            if line.starts_with([' ', '\t']) {
                let (_, value) = headers.last_mut().ok_or_else(|| wrong("a fold before any header"))?;
                value.push(' ');
                value.push_str(line.trim());
                continue;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| wrong("a line without a colon"))?;
            headers.push((long_name(name.trim()), value.trim().to_owned()));
        }
        let mut message = Message { start, headers, body: String::new() };
        for needed in ["Via", "From", "To", "Call-ID", "CSeq"] {
            message.header(needed).ok_or_else(|| wrong(&format!("no {needed}")))?;
        }
        let length = match message.header("Content-Length") {
            Some(length) => length.parse::<usize>().map_err(|_| wrong("a wrong Content-Length"))?,
            None => body.len(),
        };
        message.body = body.get(..length).ok_or_else(|| wrong("a body that is too short"))?.to_owned();
        Ok(message)
    }

    /// The message on the wire.
    pub(super) fn write(&self, writing: Writing) -> String {
        let mut text = match &self.start {
            Start::Request { method, uri } => format!("{method} {uri} SIP/2.0\r\n"),
            Start::Response { status, reason } => format!("SIP/2.0 {status} {reason}\r\n"),
        };
        let length = ("Content-Length".to_owned(), self.body.len().to_string());
        for (name, value) in self.headers.iter().chain([&length]) {
            let short = COMPACT.iter().find(|(_, long)| writing.compact && long == name);
            let name = short.map_or(name.as_str(), |(short, _)| short);
            let value = match parameters_at(value).filter(|_| writing.folded && !matches!(name, "Via" | "v"))
            {
                Some(at) => format!("{}\r\n {}", &value[..at], &value[at..]),
                None => value.clone(),
            };
            // Writing into a String cannot fail.
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        text.push_str(&self.body);
        text
    }
}

/// Where the parameters of a header value begin, those of a URI in angle brackets not meant.
fn parameters_at(value: &str) -> Option<usize> {
    let after = value.rfind('>').unwrap_or(0);
    value[after..].find(';').map(|at| after + at)
}

/// How many bytes of a stream are one message; nothing while it is not whole.
pub(super) fn whole_message(stream: &[u8]) -> Option<usize> {
    let head = stream.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&stream[..head]);
    let length = text.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (long_name(name.trim()) == "Content-Length").then(|| value.trim().parse::<usize>().ok())?
    });
    let whole = head + length.unwrap_or(0);
    (stream.len() >= whole).then_some(whole)
}

/// A parameter of a header value or a URI: `;name=value`.
pub(super) fn parameter<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    value.split(';').skip(1).find_map(|pair| {
        let (known, value) = pair.split_once('=').unwrap_or((pair, ""));
        known.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

/// The URI of an address: what stands between angle brackets, or all before the parameters.
pub(super) fn uri_of(address: &str) -> &str {
    match address.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or(rest),
        None => address.split(';').next().unwrap_or(address).trim(),
    }
}

/// The user of a SIP or tel URI.
pub(super) fn user_of(uri: &str) -> &str {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    rest.split_once('@').map_or(rest, |(user, _)| user).split(';').next().unwrap_or_default()
}

fn read_start(line: &str) -> Option<Start> {
    let mut words = line.splitn(3, ' ');
    let (first, second, third) = (words.next()?, words.next()?, words.next().unwrap_or_default());
    if first == "SIP/2.0" {
        return Some(Start::Response { status: second.parse().ok()?, reason: third.to_owned() });
    }
    let method = first.bytes().all(|byte| byte.is_ascii_uppercase()) && !first.is_empty();
    (method && third == "SIP/2.0")
        .then(|| Start::Request { method: first.to_owned(), uri: second.to_owned() })
}

/// The long form of a header name, spelled as here.
fn long_name(name: &str) -> String {
    const KNOWN: [&str; 24] = [
        "CSeq",
        "Record-Route",
        "Route",
        "Max-Forwards",
        "Expires",
        "Min-Expires",
        "Authorization",
        "Proxy-Authorization",
        "WWW-Authenticate",
        "Proxy-Authenticate",
        "Retry-After",
        "Reason",
        "Allow",
        "Require",
        "Accept",
        "User-Agent",
        "Server",
        "P-Asserted-Identity",
        "Privacy",
        "Diversion",
        "Min-SE",
        "Subscription-State",
        "Refer-Sub",
        "Unsupported",
    ];
    let compact = COMPACT.iter().find(|(short, _)| name.eq_ignore_ascii_case(short));
    let long = || COMPACT.iter().map(|(_, long)| *long).chain(KNOWN);
    let known = long().find(|long| name.eq_ignore_ascii_case(long));
    compact.map(|(_, long)| *long).or(known).map_or_else(|| name.to_owned(), str::to_owned)
}

fn split_by_commas(line: &str) -> Vec<String> {
    let (mut values, mut value, mut quoted, mut bracketed) = (Vec::new(), String::new(), false, false);
    for sign in line.chars() {
        match sign {
            '"' => quoted = !quoted,
            '<' if !quoted => bracketed = true,
            '>' if !quoted => bracketed = false,
            ',' if !quoted && !bracketed => {
                values.push(std::mem::take(&mut value).trim().to_owned());
                continue;
            }
            _ => {}
        }
        value.push(sign);
    }
    values.push(value.trim().to_owned());
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "INVITE sip:+14155550101@203.0.113.5 SIP/2.0\r\nv: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKa, SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKb\r\nf: \"L, Ada\" <sip:+14155550100@192.0.2.1;user=phone>;tag=a1\r\nTO: <sip:+14155550101@203.0.113.5>\r\ni: x@y\r\nCSeq: 7 INVITE\r\nDiversion: <sip:+1@h>\r\n\t;reason=no-answer\r\nl: 3\r\n\r\nv=0rest";

    #[test]
    fn compact_folded_and_joined_headers_are_read() {
        let message = Message::parse(PLAIN.as_bytes()).unwrap();
        assert_eq!((message.method(), message.sequence()), (Some("INVITE"), Some((7, "INVITE"))));
        assert_eq!((message.branch().as_deref(), message.values("Via").len()), (Some("z9hG4bKa"), 2));
        assert_eq!((message.tag("From"), message.tag("To")), (Some("a1"), None));
        assert_eq!(message.header("Diversion"), Some("<sip:+1@h> ;reason=no-answer"));
        assert_eq!(message.body, "v=0");
        assert_eq!(user_of(uri_of(message.header("From").unwrap())), "+14155550100");
    }

    #[test]
    fn what_is_written_compact_and_folded_reads_back_the_same() {
        let message = Message::parse(PLAIN.as_bytes()).unwrap();
        for (compact, folded) in [(false, false), (true, false), (false, true), (true, true)] {
            let text = message.write(Writing { compact, folded });
            assert_eq!(text.contains("\r\n "), folded, "{text}");
            let again = Message::parse(text.as_bytes()).unwrap();
            assert_eq!(again.values("Via"), message.values("Via"));
            assert_eq!((again.tag("From"), &again.body), (message.tag("From"), &message.body));
        }
    }

    #[test]
    fn a_message_that_is_not_whole_is_waited_for() {
        let whole = PLAIN.len() - "rest".len();
        for length in 0..PLAIN.len() {
            let expected = (length >= whole).then_some(whole);
            assert_eq!(whole_message(&PLAIN.as_bytes()[..length]), expected, "{length}");
        }
    }

    #[test]
    fn sloppy_messages_are_refused() {
        for wrong in
            ["", "INVITE sip:a SIP/2.0\r\n\r\n", "OPTIONS sip:a\r\nVia: x\r\n\r\n", "SIP/2.0 200 OK\n\n"]
        {
            assert!(Message::parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
