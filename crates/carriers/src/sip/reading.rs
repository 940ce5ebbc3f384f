//! Reading an INVITE: who is called, who calls, who passed the call on, and what else the carrier tells.
//! It decides nothing about the call. Where carriers put what is in `sip-trunk.md`, section 4.

use super::message::{NameAddr, UriRef, list, printable};
use super::trunk::{Trunk, TrunkSettings};
use crate::{Address, CallStatus, Direction, Ring};
use offhook_core::{E164, Pii};
use rsipstack::sip::{HasHeaders, Header, HeadersExt, Request};
use std::collections::BTreeMap;

/// The most attributes of a call that are kept, and how long the name of one may be.
pub const MAX_ATTRIBUTES: usize = 32;
const MAX_ATTRIBUTE_NAME: usize = 64;

/// An INVITE as far as it is about people and numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The call in every carrier's words.
    pub ring: Ring,
    /// The number that was called; none where an extension was, or nothing that can be read.
    pub called: Option<E164>,
    /// The `X-…` headers, by name in lower case.
    pub attributes: BTreeMap<String, Pii<String>>,
    /// What the carrier attests of the caller's number: `TN-Validation-Passed-A` (RFC 8224, `verstat`).
    pub verstat: Option<String>,
}

/// The values of a header, in the order of their lines.
pub fn values<'a, M: HasHeaders>(message: &'a M, name: &'a str) -> impl Iterator<Item = &'a str> {
    message.headers().iter().filter(move |h| h.name().eq_ignore_ascii_case(name)).map(Header::value)
}

/// The first value of a header.
pub fn value<'a, M: HasHeaders>(message: &'a M, name: &'a str) -> Option<&'a str> {
    values(message, name).next().map(str::trim)
}

/// Whether a list in a header names this token.
pub fn names<M: HasHeaders>(message: &M, header: &str, token: &str) -> bool {
    values(message, header).flat_map(list).any(|one| one.eq_ignore_ascii_case(token))
}

/// The address in the first line as it came: the library's own writing of it escapes the escapes.
pub fn request_uri(request: &Request) -> String {
    request.uri.to_string().replace("%25", "%")
}

/// Reads an INVITE that came over this trunk.
pub fn read(invite: &Request, trunk: &Trunk) -> Reading {
    let settings = &trunk.settings;
    let request_uri = request_uri(invite);
    let (called, called_text) = callee(invite, &request_uri, settings);
    let to = match &called {
        Some(number) => Address::read(number.as_str()),
        None => Address::read(&called_text),
    };
    let (from, caller_name, verstat) = caller(invite, settings);
    let ring = Ring {
        carrier_call: invite.call_id_header().map(|id| printable(id.value())).unwrap_or_default(),
        account: trunk.id.0.clone(),
        from,
        to,
        forwarded_from: forwarded_from(invite, settings),
        caller_name,
        direction: Direction::Inbound,
        status: CallStatus::Ringing,
        parent_call: None,
        answered_by: None,
        repeat_key: None,
    };
    Reading { ring, called, attributes: attributes(invite), verstat }
}

/// The number in the user part of an address: with or without its plus, with separators, or as people of the country write it.
pub fn number(user: &str, settings: &TrunkSettings) -> Option<E164> {
    let plain = user.replace("%2B", "+").replace("%2b", "+");
    let plain: String = plain.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')' | ' ')).collect();
    if plain.starts_with('+') {
        return plain.parse().ok();
    }
    if plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let with_plus = format!("+{plain}").parse::<E164>().ok();
    if let Some(known) = with_plus.as_ref().filter(|number| settings.numbers.contains(number)) {
        return Some(known.clone());
    }
    match settings.country.as_deref().and_then(|country| country.to_ascii_uppercase().parse().ok()) {
        Some(country) if plain.len() >= MIN_NATIONAL_DIGITS => {
            let parsed = phonenumber::parse(Some(country), &plain).ok()?;
            phonenumber::format(&parsed).mode(phonenumber::Mode::E164).to_string().parse().ok()
        }
        Some(_) => None,
        // Without a country only what is too long for a national number begins with a country.
        None => with_plus.filter(|_| plain.len() >= MIN_INTERNATIONAL_DIGITS),
    }
}

/// What is shorter is an extension or a short code, digits.
const MIN_NATIONAL_DIGITS: usize = 6;
/// The shortest that is taken to begin with a country where no country is set, digits.
const MIN_INTERNATIONAL_DIGITS: usize = 11;

fn callee(invite: &Request, request_uri: &str, settings: &TrunkSettings) -> (Option<E164>, String) {
    let to = value(invite, "To").and_then(NameAddr::read).map(|to| to.uri);
    let party = value(invite, "P-Called-Party-ID").and_then(NameAddr::read).map(|party| party.uri);
    let places = [UriRef::read(request_uri), to, party];
    // A registrar may put our own Contact there, and then the number is only in `To`.
    let ours = |user: &str| settings.registers_as(user);
    let users = || places.iter().flatten().map(|uri| uri.user).filter(|user| !user.is_empty());
    let numbers: Vec<E164> =
        users().filter(|user| !ours(user)).filter_map(|user| number(user, settings)).collect();
    let listed = numbers.iter().find(|number| settings.numbers.contains(number)).cloned();
    let only = match settings.numbers.as_slice() {
        // An extension with one number: whatever rings there, rings that number.
        [only] if settings.register => Some(only.clone()),
        _ => None,
    };
    let called = listed.or(only).or_else(|| numbers.into_iter().next());
    let text = users().find(|user| !ours(user)).or_else(|| users().next()).unwrap_or_default();
    (called, printable(text))
}

fn caller(invite: &Request, settings: &TrunkSettings) -> (Address, Option<Pii<String>>, Option<String>) {
    let asserted = values(invite, "P-Asserted-Identity").chain(values(invite, "Remote-Party-ID"));
    let asserted = asserted.flat_map(list).filter_map(NameAddr::read).find(|_| settings.trust_identity);
    let from = value(invite, "From").and_then(NameAddr::read);
    let withheld = values(invite, "Privacy").flat_map(|value| value.split([';', ','])).any(|word| {
        ["id", "user", "full", "header"].iter().any(|hidden| word.trim().eq_ignore_ascii_case(hidden))
    }) || asserted
        .as_ref()
        .is_some_and(|id| id.params.get("privacy").is_some_and(|p| !p.eq_ignore_ascii_case("off")));
    let Some(identity) = asserted.as_ref().or(from.as_ref()) else { return (Address::read(""), None, None) };
    let verstat =
        identity.uri.params.get("verstat").or_else(|| identity.params.get("verstat")).map(printable);
    if withheld || is_anonymous(&identity.uri) {
        return (Address::withheld("anonymous"), None, verstat);
    }
    let address = address(&identity.uri, settings);
    let name = asserted.iter().chain(from.iter()).find_map(|id| id.name.as_deref()).map(printable);
    let name = name.filter(|name| !name.is_empty() && number(name, settings).is_none());
    (address, name.map(Pii::new), verstat)
}

fn is_anonymous(uri: &UriRef) -> bool {
    let host = uri.host.to_ascii_lowercase();
    ["anonymous", "restricted", "unknown", "unavailable"]
        .iter()
        .any(|word| uri.user.eq_ignore_ascii_case(word))
        || host == "anonymous.invalid"
}

/// The diverting party nearest to us: the topmost `Diversion` (RFC 5806), or the entry of `History-Info` (RFC 7044) before the last.
fn forwarded_from(invite: &Request, settings: &TrunkSettings) -> Option<Address> {
    let diversion = values(invite, "Diversion").flat_map(list).find_map(NameAddr::read);
    let history: Vec<_> = values(invite, "History-Info").flat_map(list).filter_map(NameAddr::read).collect();
    let before = history.len().checked_sub(2).map(|at| &history[at]);
    let party = diversion.as_ref().or(before)?;
    Some(address(&party.uri, settings))
}

fn address(uri: &UriRef, settings: &TrunkSettings) -> Address {
    match number(uri.user, settings) {
        Some(number) => Address::read(number.as_str()),
        // Extensions and short codes by themselves; other users with their host, as they would be called back.
        None if !uri.user.is_empty() && uri.user.bytes().all(|b| b.is_ascii_digit()) => {
            Address::read(uri.user)
        }
        None => Address::read(&printable(&format!("sip:{}@{}", uri.user, uri.host))),
    }
}

fn attributes(invite: &Request) -> BTreeMap<String, Pii<String>> {
    let theirs = invite.headers.iter().filter(|header| {
        let name = header.name();
        name.len() <= MAX_ATTRIBUTE_NAME
            && name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("x-"))
    });
    theirs
        .take(MAX_ATTRIBUTES)
        .map(|header| (header.name().to_ascii_lowercase(), Pii::new(printable(header.value()))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AddressKind;
    use crate::sip::TrunkId;

    fn read_over(change: impl FnOnce(&mut TrunkSettings), text: &str) -> Reading {
        let mut settings = TrunkSettings::at("carrier.example");
        change(&mut settings);
        let trunk = Trunk { id: TrunkId("con_1".into()), settings, password: None };
        let wire = text.replace('\n', "\r\n") + "Content-Length: 0\r\n\r\n";
        read(&wire.as_str().try_into().unwrap(), &trunk)
    }

    fn called(change: impl FnOnce(&mut TrunkSettings), text: &str) -> Option<String> {
        read_over(change, text).called.map(|number| number.as_str().to_owned())
    }

    const TWILIO: &str = "INVITE sip:+14155550101@sip.offhook.example:5060;transport=udp SIP/2.0
Record-Route: <sip:54.172.60.1:5060;lr;ftag=11111111_aaaa_bbbb>
CSeq: 1 INVITE
From: <sip:+14155550100@twiliotrunk.pstn.twilio.com>;tag=11111111_aaaa_bbbb
To: <sip:+14155550101@sip.offhook.example>
P-Asserted-Identity: <sip:+14155550100@twiliotrunk.pstn.twilio.com:5060>
Diversion: <sip:+14155550199@twilio.com>;reason=unconditional, <sip:+14155550188@twilio.com>;reason=no-answer
Call-ID: 0123456789abcdef0123456789abcdef@0.0.0.0
Via: SIP/2.0/UDP 54.172.60.1:5060;branch=z9hG4bK1111.2222.0
Contact: <sip:+14155550100@172.18.0.5:5060;transport=udp>
X-Twilio-AccountSid: AC00000000000000000000000000000001
X-Twilio-CallSid: CA00000000000000000000000000000001
";

    const TELNYX: &str = "INVITE sip:+14155550101@203.0.113.5:5060;transport=tcp SIP/2.0
v: SIP/2.0/TCP 192.76.120.10;branch=z9hG4bK9999.aaaa
f: \"ADA L\" <sip:+14155550100@192.76.120.10>;tag=a1b2c3
t: <sip:+14155550101@203.0.113.5:5060>
i: 5f0e1c2d-3b4a-1234-9abc-0242ac120002
CSeq: 7654321 INVITE
m: <sip:mod_sofia@192.76.120.10:5060;transport=tcp>
Privacy: none
P-Asserted-Identity: \"ADA L\" <sip:+14155550100@192.76.120.10;verstat=TN-Validation-Passed-C>
X-Telnyx-Session-ID: 00000000-0000-0000-0000-000000000001
";

    #[test]
    fn a_forwarded_call_of_twilio_is_read() {
        let reading = read_over(|_| {}, TWILIO);
        let ring = &reading.ring;
        assert_eq!(reading.called.unwrap().as_str(), "+14155550101");
        assert_eq!(ring.from.e164().unwrap().as_str(), "+14155550100");
        assert_eq!(ring.forwarded_from.as_ref().unwrap().e164().unwrap().as_str(), "+14155550199");
        assert_eq!(ring.carrier_call, "0123456789abcdef0123456789abcdef@0.0.0.0");
        assert_eq!(reading.attributes["x-twilio-callsid"].expose(), "CA00000000000000000000000000000001");
        assert_eq!((reading.attributes.len(), &ring.caller_name, &reading.verstat), (2, &None, &None));
    }

    #[test]
    fn a_call_of_telnyx_in_short_names_is_read() {
        let reading = read_over(|_| {}, TELNYX);
        assert_eq!(reading.called.unwrap().as_str(), "+14155550101");
        assert_eq!(reading.ring.from.e164().unwrap().as_str(), "+14155550100");
        assert_eq!(reading.ring.caller_name.unwrap().expose(), "ADA L");
        assert_eq!(reading.verstat.as_deref(), Some("TN-Validation-Passed-C"));
        assert_eq!(reading.ring.carrier_call, "5f0e1c2d-3b4a-1234-9abc-0242ac120002");
    }

    #[test]
    fn the_called_number_is_found_where_the_carrier_puts_it() {
        let invite = |uri: &str, to: &str, more: &str| format!("INVITE {uri} SIP/2.0\nTo: {to}\n{more}");
        let us = |s: &mut TrunkSettings| s.country = Some("us".into());
        let extension = |s: &mut TrunkSettings| (s.register, s.username) = (true, Some("4155550777".into()));
        for (change, uri, to, more, number) in [
            (None, "sip:14155550101@h", "<sip:x@h>", "", Some("+14155550101")),
            (
                Some(us as fn(&mut TrunkSettings)),
                "sip:(415)555-0101@h",
                "<sip:x@h>",
                "",
                Some("+14155550101"),
            ),
            (Some(us), "sip:%2B14155550101@h", "<sip:x@h>", "", Some("+14155550101")),
            (Some(us), "tel:+1-415-555-0101;phone-context=x", "<sip:x@h>", "", Some("+14155550101")),
            (Some(us), "sip:100@h", "<sip:100@h>", "", None),
            (None, "sip:4155550101@h", "<sip:x@h>", "", None),
            (None, "sip:x@h", "<sip:+14155550101@h>", "", Some("+14155550101")),
            (None, "sip:x@h", "<sip:x@h>", "P-Called-Party-ID: <sip:+14155550101@h>\n", Some("+14155550101")),
            (Some(extension), "sip:4155550777@h", "<sip:+14155550101@h>", "", Some("+14155550101")),
        ] {
            let change = change.unwrap_or(|_| {});
            assert_eq!(called(change, &invite(uri, to, more)).as_deref(), number, "{uri} {to}");
        }
        // Only a registrar calls our name: a peer calls numbers, whatever name proves a call.
        let named = |s: &mut TrunkSettings| s.username = Some("+14155550101".into());
        let by_number = invite("sip:+14155550101@h", "<sip:+14155550102@h>", "");
        assert_eq!(called(named, &by_number).as_deref(), Some("+14155550101"));
        // A number that is listed goes before one that is not, and an extension's only number before all doubt.
        let listed = |s: &mut TrunkSettings| s.numbers = vec!["+14155550102".parse().unwrap()];
        let two = invite("sip:+14155550101@h", "<sip:+14155550102@h>", "");
        assert_eq!(called(listed, &two).as_deref(), Some("+14155550102"));
        let only =
            |s: &mut TrunkSettings| (s.register, s.numbers) = (true, vec!["+14155550103".parse().unwrap()]);
        assert_eq!(called(only, &invite("sip:100@h", "<sip:100@h>", "")).as_deref(), Some("+14155550103"));
        let text = read_over(|_| {}, &invite("sip:100@h", "<sip:100@h>", "")).ring.to;
        assert_eq!(text.text().expose(), "100");
    }

    #[test]
    fn a_caller_who_hides_is_hidden_and_only_a_trusted_word_is_believed() {
        let invite = |more: &str| format!("INVITE sip:+14155550101@h SIP/2.0\nTo: <sip:x@h>\n{more}");
        let asserted = "From: \"A\" <sip:+14155550100@h>;tag=1\nP-Asserted-Identity: <sip:+14155550199@h>\n";
        let from =
            |trusted: bool, more: &str| read_over(|s| s.trust_identity = trusted, &invite(more)).ring.from;
        assert_eq!(from(true, asserted).e164().unwrap().as_str(), "+14155550199");
        assert_eq!(from(false, asserted).e164().unwrap().as_str(), "+14155550100");
        for hidden in [
            &format!("{asserted}Privacy: id\n"),
            &format!("{asserted}Privacy: header;user\n"),
            "From: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1\n",
            "From: <sip:+14155550100@h>;tag=1\nRemote-Party-ID: <sip:+14155550100@h>;privacy=full\n",
            "",
        ] {
            assert_eq!(*from(true, hidden).kind(), AddressKind::Withheld, "{hidden}");
        }
        assert_eq!(from(true, "From: <sip:201@pbx>;tag=1\n").text().expose(), "201");
        assert_eq!(from(true, "From: <sip:ada@pbx>;tag=1\n").text().expose(), "sip:ada@pbx");
    }

    #[test]
    fn history_tells_who_passed_the_call_on() {
        let history =
            "History-Info: <sip:+14155550188@h>;index=1, <sip:+14155550101@h;cause=302>;index=1.1\n";
        let text = format!("INVITE sip:+14155550101@h SIP/2.0\nTo: <sip:x@h>\n{history}");
        let from = read_over(|_| {}, &text).ring.forwarded_from.unwrap();
        assert_eq!(from.e164().unwrap().as_str(), "+14155550188");
        let only_us = text.replace("<sip:+14155550188@h>;index=1, ", "");
        assert_eq!(read_over(|_| {}, &only_us).ring.forwarded_from, None);
    }

    #[test]
    fn what_carriers_add_is_bounded() {
        let many: String = (0..100).map(|n| format!("X-{n}: {}\n", "v".repeat(1_000))).collect();
        let reading = read_over(|_| {}, &format!("INVITE sip:a@h SIP/2.0\nTo: <sip:x@h>\n{many}"));
        assert_eq!(reading.attributes.len(), MAX_ATTRIBUTES);
        assert!(reading.attributes.values().all(|value| value.expose().len() <= 200));
    }
}
