//! Numbers that Twilio sells: looked for by country, kind, place and digits.
//! Nothing is bought here, and nothing is known of what a number will be used for.

use super::numbers::capabilities;
use super::rest::Twilio;
use crate::{Area, AvailableNumber, CarrierError, NumberKind, NumberSearch};
use offhook_core::entity::Capability;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// The most numbers that one search may ask for (`PageSize`).
pub const MAX_SEARCH: u16 = 1_000;

impl Twilio {
    /// Numbers that can be bought now; none if the country has none of that kind. What they cost a month is not told with them.
    pub async fn search(&self, wanted: &NumberSearch) -> Result<Vec<AvailableNumber>, CarrierError> {
        let common = search_parameters(wanted)?;
        let kinds = match wanted.kind {
            Some(kind) => vec![kind],
            None => self.kinds_in(&wanted.country).await?,
        };
        let share = usize::from(wanted.limit.min(MAX_SEARCH)).div_ceil(kinds.len().max(1)).max(1);
        let mut found = Vec::new();
        for kind in kinds {
            let list = format!("{}.json", path_of(kind));
            let mut url = self.endpoint(&[self.account(), "AvailablePhoneNumbers", &wanted.country, &list]);
            url.query_pairs_mut().extend_pairs(&common).append_pair("PageSize", &share.to_string());
            let answer: AvailableNumbers = match self.read(Area::Numbers, url).await {
                Ok(answer) => answer,
                // A kind that the country does not have.
                Err(CarrierError::NotFound) => continue,
                Err(error) => return Err(error),
            };
            let numbers = answer.available_phone_numbers.into_iter().take(share);
            found.extend(numbers.filter_map(|number| number.read(kind, &wanted.country)));
        }
        found.truncate(wanted.limit.into());
        Ok(found)
    }

    /// The kinds of numbers that a country has.
    async fn kinds_in(&self, country: &str) -> Result<Vec<NumberKind>, CarrierError> {
        let url = self.endpoint(&[self.account(), "AvailablePhoneNumbers", &format!("{country}.json")]);
        match self.read::<Country>(Area::Numbers, url).await {
            Ok(country) => Ok(KINDS
                .into_iter()
                .filter(|kind| country.subresource_uris.contains_key(key_of(*kind)))
                .collect()),
            Err(CarrierError::NotFound) => Ok(vec![]),
            Err(error) => Err(error),
        }
    }
}

fn search_parameters(wanted: &NumberSearch) -> Result<Vec<(&'static str, &str)>, CarrierError> {
    let refused = |why| Err(CarrierError::NotAskable(why));
    if wanted.country.len() != 2 || !wanted.country.bytes().all(|b| b.is_ascii_uppercase()) {
        return refused("a country is written with two capital letters, as US");
    }
    if wanted
        .area_code
        .as_ref()
        .is_some_and(|code| !(1..=6).contains(&code.len()) || !code.bytes().all(|b| b.is_ascii_digit()))
    {
        return refused("an area code is digits alone, as 415");
    }
    if wanted.contains.as_ref().is_some_and(|pattern| {
        !(2..=16).contains(&pattern.len())
            || !pattern.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'*' || b == b'+')
    }) {
        return refused("a pattern has 2 to 16 digits or letters, with * for any one of them");
    }
    let texts = [
        ("AreaCode", &wanted.area_code),
        ("Contains", &wanted.contains),
        ("InLocality", &wanted.locality),
        ("InRegion", &wanted.region),
    ];
    let mut parameters: Vec<_> =
        texts.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
    for (capability, name) in [
        (Capability::Voice, "VoiceEnabled"),
        (Capability::Sms, "SmsEnabled"),
        (Capability::Mms, "MmsEnabled"),
    ] {
        if wanted.capabilities.contains(&capability) {
            parameters.push((name, "true"));
        }
    }
    Ok(parameters)
}

const KINDS: [NumberKind; 6] = [
    NumberKind::Local,
    NumberKind::Mobile,
    NumberKind::TollFree,
    NumberKind::National,
    NumberKind::Voip,
    NumberKind::SharedCost,
];

fn path_of(kind: NumberKind) -> &'static str {
    match kind {
        NumberKind::Local => "Local",
        NumberKind::Mobile => "Mobile",
        NumberKind::TollFree => "TollFree",
        NumberKind::National => "National",
        NumberKind::Voip => "Voip",
        NumberKind::SharedCost => "SharedCost",
    }
}

fn key_of(kind: NumberKind) -> &'static str {
    match kind {
        NumberKind::Local => "local",
        NumberKind::Mobile => "mobile",
        NumberKind::TollFree => "toll_free",
        NumberKind::National => "national",
        NumberKind::Voip => "voip",
        NumberKind::SharedCost => "shared_cost",
    }
}

#[derive(Deserialize)]
struct Country {
    #[serde(default)]
    subresource_uris: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct AvailableNumbers {
    available_phone_numbers: Vec<AvailableResource>,
}

#[derive(Deserialize)]
struct AvailableResource {
    phone_number: String,
    locality: Option<String>,
    region: Option<String>,
    iso_country: Option<String>,
    address_requirements: Option<String>,
    #[serde(default)]
    capabilities: Value,
}

impl AvailableResource {
    /// Nothing if it has no number that could be called.
    fn read(self, kind: NumberKind, country: &str) -> Option<AvailableNumber> {
        Some(AvailableNumber {
            e164: self.phone_number.parse().ok()?,
            kind,
            locality: self.locality.filter(|text| !text.is_empty()),
            region: self.region.filter(|text| !text.is_empty()),
            country: self.iso_country.unwrap_or_else(|| country.to_owned()),
            capabilities: capabilities(&self.capabilities),
            monthly: None,
            upfront: None,
            needs_papers: self.address_requirements.is_some_and(|wanted| wanted != "none"),
        })
    }
}
