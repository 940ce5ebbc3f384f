//! Reading what SIP headers hold: addresses with names, URIs, parameters and lists (RFC 3261, section 25), as tolerantly as
//! the wire demands. It knows no dialogs; everything here is text in, text out.

use std::borrow::Cow;

/// An address with its display name and header parameters: `"Ada" <sip:ada@host;user=phone>;tag=1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The display name, without its quotes.
    pub name: Option<Cow<'a, str>>,
    /// The address.
    pub uri: UriRef<'a>,
    /// What follows it: `;tag=1`.
    pub params: Params<'a>,
}

/// A `sip:`, `sips:` or `tel:` URI by its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UriRef<'a> {
    /// All of it.
    pub text: &'a str,
    /// What stands before the colon.
    pub scheme: &'a str,
    /// The user, without a password and without parameters of its own; of a `tel:` URI the number.
    pub user: &'a str,
    /// The host, without brackets; empty for `tel:`.
    pub host: &'a str,
    /// The port, if there is one.
    pub port: Option<u16>,
    /// What follows the host, or the number.
    pub params: Params<'a>,
}

/// Parameters, each begun by a semicolon; a name is found in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params<'a>(&'a str);

impl<'a> Params<'a> {
    /// The value of a parameter: empty where it has none, nothing where it is not there.
    pub fn get(self, name: &str) -> Option<&'a str> {
        split_outside_quotes(self.0, ';').find_map(|param| {
            let (key, value) = param.split_once('=').unwrap_or((param, ""));
            key.trim().eq_ignore_ascii_case(name).then(|| unquote(value.trim()))
        })
    }
}

impl<'a> UriRef<'a> {
    /// Takes a URI apart; nothing where it has no scheme that telephones speak, or nobody to reach.
    pub fn read(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let (scheme, rest) = text.split_once(':')?;
        let tel = scheme.eq_ignore_ascii_case("tel");
        if !tel && !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
            return None;
        }
        if tel {
            let (number, params) = rest.split_once(';').unwrap_or((rest, ""));
            return (!number.is_empty()).then_some(UriRef {
                text,
                scheme,
                user: number,
                host: "",
                port: None,
                params: Params(params),
            });
        }
        // A user part may hold both `;` and `?` (RFC 3261, 25.1: user-unreserved), so the last `@` is looked for first.
        let (user, at_host) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (at_host, _headers) = at_host.split_once('?').unwrap_or((at_host, ""));
        let (host, params) = at_host.split_once(';').unwrap_or((at_host, ""));
        let (host, port) = host_and_port(host)?;
        let user = user.split([':', ';']).next().unwrap_or_default();
        Some(UriRef { text, scheme, user, host, port, params: Params(params) })
    }
}

impl<'a> NameAddr<'a> {
    /// Reads one address; nothing where no URI is in it.
    pub fn read(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let Some(open) = find_outside_quotes(text, '<') else {
            // Without brackets parameters belong to the header (RFC 3261, 20.10).
            let (uri, params) = text.split_once(';').unwrap_or((text, ""));
            return Some(NameAddr { name: None, uri: UriRef::read(uri)?, params: Params(params) });
        };
        let inside = &text[open + 1..];
        let close = inside.find('>')?;
        let name = text[..open].trim();
        let name = match name.strip_prefix('"') {
            Some(quoted) => unescape(quoted.strip_suffix('"').unwrap_or(quoted)),
            None => Cow::Borrowed(name),
        };
        let params = inside[close + 1..].trim_start().trim_start_matches(';');
        Some(NameAddr {
            name: (!name.is_empty()).then_some(name),
            uri: UriRef::read(&inside[..close])?,
            params: Params(params),
        })
    }
}

/// The items of a list, wherever its commas stand: not those in quotes or in angle brackets.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    split_outside_quotes(text, ',').map(str::trim).filter(|item| !item.is_empty())
}

/// The first word of a header and its parameters: `1800;refresher=uac`.
pub fn value_and_params(text: &str) -> (&str, Params<'_>) {
    let (value, params) = text.split_once(';').unwrap_or((text, ""));
    (value.trim(), Params(params))
}

/// Why a call ended, as its `Reason` headers say (RFC 3326): the Q.850 cause if one is there, and a text.
pub fn reason<'a>(headers: impl Iterator<Item = &'a str>) -> (Option<u16>, Option<String>) {
    let (mut cause, mut text) = (None, None);
    for reason in headers.flat_map(list) {
        let (protocol, params) = value_and_params(reason);
        let number = params.get("cause").and_then(|cause| cause.parse().ok());
        if protocol.eq_ignore_ascii_case("Q.850") || cause.is_none() {
            cause = number.or(cause);
            text = params.get("text").map(printable).or(text);
        }
    }
    (cause, text)
}

/// A text without control characters and of bearable length, for records that people read.
pub fn printable(text: &str) -> String {
    const MOST_CHARS: usize = 200;
    text.chars().filter(|c| !c.is_control()).take(MOST_CHARS).collect()
}

fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let text = text.trim();
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => Some(port.trim().parse().ok()?),
        None => None,
    };
    (!host.is_empty()).then_some((host.trim(), port))
}

fn find_outside_quotes(text: &str, wanted: char) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == wanted && !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// Splits at a separator that stands neither in quotes nor in angle brackets.
fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped, mut bracketed) = (false, false, false);
        for (at, c) in text.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                '<' if !quoted => bracketed = true,
                '>' if !quoted => bracketed = false,
                c if c == separator && !quoted && !bracketed => {
                    rest = Some(&text[at + c.len_utf8()..]);
                    return Some(&text[..at]);
                }
                _ => {}
            }
        }
        rest = None;
        Some(text)
    })
}

fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

fn unescape(quoted: &str) -> Cow<'_, str> {
    if !quoted.contains('\\') {
        return Cow::Borrowed(quoted);
    }
    let mut plain = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (String, String, String, String) {
        let address = NameAddr::read(text).unwrap_or_else(|| panic!("{text} is an address"));
        let name = address.name.unwrap_or_default().into_owned();
        let tag = address.params.get("tag").unwrap_or_default().into();
        (name, address.uri.user.into(), address.uri.host.into(), tag)
    }

    #[test]
    fn addresses_are_read_in_every_dress() {
        let cases = [
            (
                r#""Lovelace, Ada" <sip:+14155550100@10.0.0.1:5060>;tag=a1"#,
                ["Lovelace, Ada", "+14155550100", "10.0.0.1", "a1"],
            ),
            ("Ada L <sip:ada@host;user=phone>;tag=b", ["Ada L", "ada", "host", "b"]),
            ("sip:ada@host;tag=c", ["", "ada", "host", "c"]),
            ("<sip:host>", ["", "", "host", ""]),
            ("<tel:+1-415-555-0100;phone-context=x>;tag=d", ["", "+1-415-555-0100", "", "d"]),
            (
                r#""a \"b\" <c>" <sips:u:pw@[2001:db8::1]:5061>;TAG=e"#,
                [r#"a "b" <c>"#, "u", "2001:db8::1", "e"],
            ),
            ("<sip:user;par=u%40example.net@example.com>;tag=f", ["", "user", "example.com", "f"]),
            ("<sip:a?b;c@example.com?Subject=x>", ["", "a?b", "example.com", ""]),
        ];
        for (text, [name, user, host, tag]) in cases {
            assert_eq!(read(text), (name.into(), user.into(), host.into(), tag.into()), "{text}");
        }
        for nothing in
            ["", "<>", "<sip:>", "<sip:ada@host", "<http://host>", "ada", "<sip:ada@host:99999>", "<sip:a@>"]
        {
            assert_eq!(NameAddr::read(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn commas_in_quotes_and_brackets_part_nothing() {
        let items: Vec<_> = list(r#"<sip:a@h;x=1,2>, "B, C" <sip:b@h> ,, sip:c@h"#).collect();
        assert_eq!(items, ["<sip:a@h;x=1,2>", r#""B, C" <sip:b@h>"#, "sip:c@h"]);
    }

    #[test]
    fn a_q850_cause_goes_before_any_other() {
        let both = [r#"SIP;cause=200;text="Call completed", Q.850;cause=16;text="Normal call clearing""#];
        assert_eq!(reason(both.into_iter()), (Some(16), Some("Normal call clearing".into())));
        assert_eq!(reason(["SIP ;cause=480"].into_iter()), (Some(480), None));
        assert_eq!(reason(["Q.850;cause=many"].into_iter()), (None, None));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = NameAddr::read(&text);
            let _ = UriRef::read(&text);
            let _ = list(&text).count();
            let _ = reason([text.as_str()].into_iter());
        }
    }
}
