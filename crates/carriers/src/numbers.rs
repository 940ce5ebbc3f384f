//! Telephone numbers at a carrier: looked for, bought, owned, and where their calls and texts are sent.
//! It knows no carrier; each carrier's adapter offers the same requests in these words.

use offhook_core::E164;
use offhook_core::entity::Capability;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use url::Url;

/// What numbers are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberSearch {
    /// ISO 3166-1 alpha-2, upper case: `US`.
    pub country: String,
    /// What kind of number; `None` is every kind that the country has.
    pub kind: Option<NumberKind>,
    /// The national area code: `415`.
    pub area_code: Option<String>,
    /// The city.
    pub locality: Option<String>,
    /// State or province, as the country abbreviates it.
    pub region: Option<String>,
    /// Digits that the number contains.
    pub contains: Option<String>,
    /// What it must be able to carry.
    pub capabilities: Vec<Capability>,
    /// At most so many.
    pub limit: u16,
}

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberKind {
    /// Of a place.
    Local,
    /// Of a mobile network.
    Mobile,
    /// Free to call.
    TollFree,
    /// Of the whole country.
    National,
    /// Of no place, for calls over the internet.
    Voip,
    /// Whoever calls pays a part.
    SharedCost,
}

/// A number that can be bought now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvailableNumber {
    /// The number.
    pub e164: E164,
    /// What kind of number.
    pub kind: NumberKind,
    /// Its city, where the carrier tells.
    pub locality: Option<String>,
    /// Its state or province, where the carrier tells.
    pub region: Option<String>,
    /// ISO 3166-1 alpha-2.
    pub country: String,
    /// What it can carry.
    pub capabilities: Vec<Capability>,
    /// What it costs a month, where the carrier tells with the search.
    pub monthly: Option<Price>,
    /// What it costs once, where the carrier tells with the search.
    pub upfront: Option<Price>,
    /// The regulator wants an address or papers of whoever buys it.
    pub needs_papers: bool,
}

/// An amount of money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// Millionths of the currency.
    pub micros: i64,
    /// ISO 4217.
    pub currency: String,
}

/// What became of a purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bought {
    /// The number is the account's.
    Done,
    /// The carrier works on it; ask for this order again.
    Ordered {
        /// The carrier's id of the order.
        order: String,
    },
    /// It will not happen.
    Failed {
        /// Why, in a sentence for the user.
        reason: String,
    },
}

/// A number of the account, as the carrier has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnNumber {
    /// The carrier's id of it.
    pub id: String,
    /// The number.
    pub e164: E164,
    /// What it can carry.
    pub capabilities: Vec<Capability>,
    /// Where its calls and texts are sent.
    pub routing: Routing,
}

/// Where a number's calls and texts are sent, in the carrier's own words: kept as it was found, to be given back as it was.
/// Only the adapter that read it knows what the names mean. `Debug` shows the names alone: others' addresses may have passwords in them.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing(pub BTreeMap<String, Option<String>>);

impl Routing {
    /// The settings that differ from another's: name, ours, theirs. Nothing: both lead to the same place.
    pub fn differs<'a>(
        &'a self,
        other: &'a Routing,
    ) -> impl Iterator<Item = (&'a str, Option<&'a str>, Option<&'a str>)> {
        self.0.iter().filter_map(|(name, ours)| {
            let theirs = other.0.get(name).and_then(Option::as_deref);
            (ours.as_deref() != theirs).then_some((name.as_str(), ours.as_deref(), theirs))
        })
    }
}

impl fmt::Debug for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = |value: &Option<String>| if value.is_some() { "set" } else { "not set" };
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, state(value)))).finish()
    }
}

/// Our pages that a number is pointed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OurHooks {
    /// Asked what to do with a call.
    pub voice: Url,
    /// Asked when `voice` did not answer.
    pub voice_fallback: Url,
    /// Told how calls move on.
    pub status: Url,
    /// Told of texts; `None` leaves texts as they are.
    pub messages: Option<Url>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routing(settings: &[(&str, Option<&str>)]) -> Routing {
        Routing(settings.iter().map(|(name, value)| ((*name).into(), value.map(Into::into))).collect())
    }

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        let theirs = routing(&[("trunk", None), ("voice_url", Some("https://ada:word@old.example"))]);
        assert_eq!(format!("{theirs:?}"), r#"{"trunk": "not set", "voice_url": "set"}"#);
    }

    #[test]
    fn only_what_we_set_can_differ() {
        let ours = routing(&[("voice_url", Some("https://a")), ("trunk", None)]);
        let same = routing(&[("voice_url", Some("https://a")), ("trunk", None), ("sms_url", Some("x"))]);
        assert_eq!(ours.differs(&same).count(), 0);
        let moved = routing(&[("voice_url", Some("https://b")), ("trunk", Some("TK1"))]);
        assert_eq!(
            ours.differs(&moved).collect::<Vec<_>>(),
            [("trunk", None, Some("TK1")), ("voice_url", Some("https://a"), Some("https://b"))]
        );
    }
}
