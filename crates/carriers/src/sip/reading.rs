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

/// Reads an INVITE that came over this trunk.
pub fn read(invite: &Request, trunk: &Trunk) -> Reading {
    let settings = &trunk.settings;
    let request_uri = invite.uri.to_string();
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
    let ours = |user: &str| settings.username.as_deref() == Some(user);
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
