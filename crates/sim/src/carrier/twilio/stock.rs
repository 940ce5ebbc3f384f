//! Numbers that the simulated Twilio has for sale, and the questions a search may ask of one.
//! It does not know who buys.

use serde::{Deserialize, Serialize};

use super::number::{AddressRequirement, Capabilities};

const MILES_PER_DEGREE: f64 = 69.0;

/// The kinds that numbers for sale are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberKind {
    /// Of a place.
    Local,
    /// Of no place, in its country.
    National,
    /// Of the mobile network.
    Mobile,
    /// Paid for by the one who is called.
    TollFree,
    /// Of the internet.
    Voip,
    /// Paid for by both.
    SharedCost,
}

impl NumberKind {
    /// Path segment, name in the index of a country, name of an owned number's type.
    const NAMES: [(NumberKind, &'static str, &'static str, &'static str); 6] = [
        (NumberKind::Local, "Local", "local", "local"),
        (NumberKind::National, "National", "national", "national"),
        (NumberKind::Mobile, "Mobile", "mobile", "mobile"),
        (NumberKind::TollFree, "TollFree", "toll_free", "tollfree"),
        (NumberKind::Voip, "Voip", "voip", "voip"),
        (NumberKind::SharedCost, "SharedCost", "shared_cost", "sharedcost"),
    ];

    pub(super) fn of_path(segment: &str) -> Option<NumberKind> {
        Self::NAMES.iter().find(|(_, path, ..)| *path == segment).map(|(kind, ..)| *kind)
    }

    pub(super) fn names(self) -> (&'static str, &'static str, &'static str) {
        let found = Self::NAMES.iter().find(|(kind, ..)| *kind == self);
        found.map_or(("", "", ""), |(_, path, index, owned)| (path, index, owned))
    }
}

/// A number for sale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForSale {
    /// The number itself.
    pub e164: String,
    /// Its country, as ISO 3166 has it: `US`.
    pub country: String,
    /// Its kind.
    pub kind: NumberKind,
    /// What it carries.
    pub capabilities: Capabilities,
    /// The address that its buyer must name.
    #[serde(default)]
    pub address: AddressRequirement,
    /// Whether its buyer must name a regulatory bundle.
    #[serde(default)]
    pub needs_bundle: bool,
    /// Where it belongs, if anywhere.
    #[serde(default)]
    pub place: Place,
}

/// Where a number belongs; what is empty is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Place {
    /// City.
    pub locality: String,
    /// State or province: `CA`.
    pub region: String,
    /// Postal code.
    pub postal_code: String,
    /// Rate center, upper case.
    pub rate_center: String,
    /// Local access and transport area.
    pub lata: String,
    /// Degrees north and east.
    pub at: Option<(f64, f64)>,
}

impl ForSale {
    /// A number of San Francisco that carries everything and asks for nothing.
    pub fn local(e164: impl Into<String>) -> ForSale {
        ForSale {
            e164: e164.into(),
            country: "US".into(),
            kind: NumberKind::Local,
            capabilities: Capabilities::ALL,
            address: AddressRequirement::None,
            needs_bundle: false,
            place: place("San Francisco", "CA", "94103", "SNFC CNTRL", "722", (37.78, -122.41)),
        }
    }

    /// A modest shop: a few numbers each of several countries and kinds, with their usual requirements.
    pub fn assortment() -> Vec<ForSale> {
        use AddressRequirement as Address;
        let all = Capabilities::ALL;
        let no_sms = Capabilities { sms: false, ..all };
        let calls_only = Capabilities { voice: true, sms: false, mms: false };
        let no_mms = Capabilities { mms: false, ..all };
        let nowhere = Place::default;
        let hilo = place("Hilo", "HI", "96720", "HILO", "834", (19.72, -155.09));
        let new_york = place("New York", "NY", "10001", "NWYRCYZN01", "132", (40.75, -73.99));
        let toronto = place("Toronto", "ON", "", "TORONTO", "888", (43.7, -79.42));
        let city = |locality: &str, region: &str| Place {
            locality: locality.into(),
            region: region.into(),
            ..Place::default()
        };
        let rows = [
            ("+1415555020", "US", NumberKind::Local, all, Address::None, ForSale::local("").place),
            ("+1212555020", "US", NumberKind::Local, all, Address::None, new_york),
            ("+1808555020", "US", NumberKind::Local, no_sms, Address::None, hilo),
            ("+1888555020", "US", NumberKind::TollFree, all, Address::None, nowhere()),
            ("+1416555020", "CA", NumberKind::Local, all, Address::None, toronto),
            ("+4420794602", "GB", NumberKind::Local, calls_only, Address::Any, city("London", "")),
            ("+4477009002", "GB", NumberKind::Mobile, no_mms, Address::Foreign, nowhere()),
            ("+4930231252", "DE", NumberKind::Local, calls_only, Address::Local, city("Berlin", "")),
            ("+6148888020", "AU", NumberKind::Mobile, no_mms, Address::Any, nowhere()),
        ];
        let mut stock = Vec::new();
        for (prefix, country, kind, capabilities, address, place) in rows {
            // So that every number has its country's length.
            let digits = if matches!(country, "US" | "CA") { 1 } else { 2 };
            for last in 0..10 {
                stock.push(ForSale {
                    e164: format!("{prefix}{last:0digits$}"),
                    country: country.into(),
                    kind,
                    capabilities,
                    address,
                    needs_bundle: country == "DE",
                    place: place.clone(),
                });
            }
        }
        stock
    }

    /// The three digits after `+1`.
    pub(super) fn area_code(&self) -> Option<&str> {
        self.e164.strip_prefix("+1").and_then(|national| national.get(..3))
    }

    /// Whether the number lies within so many miles of a place.
    pub(super) fn is_near(&self, (latitude, longitude): (f64, f64), miles: f64) -> bool {
        self.place.at.is_some_and(|(north, east)| {
            // Flat earth: a search knows whole cities only.
            let (up, aside) = (north - latitude, (east - longitude) * latitude.to_radians().cos());
            up.hypot(aside) * MILES_PER_DEGREE <= miles
        })
    }
}

fn place(
    locality: &str,
    region: &str,
    postal_code: &str,
    rate_center: &str,
    lata: &str,
    at: (f64, f64),
) -> Place {
    Place {
        locality: locality.into(),
        region: region.into(),
        postal_code: postal_code.into(),
        rate_center: rate_center.into(),
        lata: lata.into(),
        at: Some(at),
    }
}

/// The pattern of `Contains`: digits, letters as on a keypad, `*` for one digit, `%` for any, `+` at the
/// beginning and `$` at the end to hold it there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern {
    from_start: bool,
    to_end: bool,
    signs: Vec<u8>,
}

impl Pattern {
    /// Fails where the pattern is shorter than 2 or longer than 16 characters, or holds something else.
    pub(super) fn parse(text: &str) -> Option<Pattern> {
        if !(2..=16).contains(&text.chars().count()) {
            return None;
        }
        let inner = text.strip_prefix('+').unwrap_or(text);
        let inner = inner.strip_suffix('$').unwrap_or(inner);
        let signs = inner.bytes().map(keypad).collect::<Option<Vec<u8>>>()?;
        let plain = signs.iter().filter(|sign| sign.is_ascii_digit()).count();
        let wild = signs.len() > plain;
        if signs.is_empty() || (wild && plain < 2) {
            return None;
        }
        Some(Pattern { from_start: text.starts_with('+'), to_end: text.ends_with('$'), signs })
    }

    pub(super) fn fits(&self, e164: &str) -> bool {
        let digits = e164.trim_start_matches('+').as_bytes();
        let starts = if self.from_start { 0 } else { digits.len() };
        (0..=starts).any(|start| matches(&self.signs, &digits[start..], self.to_end))
    }
}

fn keypad(sign: u8) -> Option<u8> {
    let digit = match sign.to_ascii_uppercase() {
        sign @ (b'0'..=b'9' | b'*' | b'%') => sign,
        b'A'..=b'C' => b'2',
        b'D'..=b'F' => b'3',
        b'G'..=b'I' => b'4',
        b'J'..=b'L' => b'5',
        b'M'..=b'O' => b'6',
        b'P'..=b'S' => b'7',
        b'T'..=b'V' => b'8',
        b'W'..=b'Z' => b'9',
        _ => return None,
    };
    Some(digit)
}

fn matches(signs: &[u8], digits: &[u8], to_end: bool) -> bool {
    match (signs, digits) {
        ([], rest) => rest.is_empty() || !to_end,
        ([b'%', signs @ ..], digits) => {
            (0..=digits.len()).any(|skipped| matches(signs, &digits[skipped..], to_end))
        }
        ([b'*', signs @ ..], [_, digits @ ..]) => matches(signs, digits, to_end),
        ([sign, signs @ ..], [digit, digits @ ..]) => sign == digit && matches(signs, digits, to_end),
        (_, []) => false,
    }
}

#[cfg(test)]
mod tests {
    use offhook_core::E164;

    use super::*;

    #[test]
    fn a_pattern_finds_digits_letters_and_wildcards() {
        let cases = [
            ("555", "+14155550200", true),
            ("556", "+14155550200", false),
            ("415*5502", "+14155550200", true),
            ("415%00", "+14155550200", true),
            ("+1415", "+14155550200", true),
            ("+415", "+14155550200", false),
            ("0200$", "+14155550200", true),
            ("020$", "+14155550200", false),
            ("kkk02", "+14155550200", true),
        ];
        for (pattern, e164, fits) in cases {
            assert_eq!(Pattern::parse(pattern).unwrap().fits(e164), fits, "{pattern}");
        }
        for wrong in ["5", "12345678901234567", "**", "5*", "4-5", "+$"] {
            assert_eq!(Pattern::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_assortment_holds_valid_numbers_and_each_once() {
        let stock = ForSale::assortment();
        let mut seen = std::collections::BTreeSet::new();
        for number in &stock {
            assert!(number.e164.parse::<E164>().is_ok(), "{}", number.e164);
            assert!(seen.insert(&number.e164), "{} twice", number.e164);
        }
    }

    #[test]
    fn oakland_is_near_san_francisco_and_new_york_is_not() {
        let number = ForSale::local("+14155550200");
        assert!(number.is_near((37.8, -122.27), 25.0));
        assert!(!number.is_near((40.75, -73.99), 500.0));
    }
}
