//! Prices: pricing.twilio.com, of numbers by the month (v1) and of calls by the minute (v2).
//! The amounts are made up, their shape is not.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::super::stock::NumberKind;
use super::page::PAGING;
use super::{Answer, Refusal, RestRequest};

impl RestRequest<'_> {
    /// What a number of a country costs a month, by kind.
    pub(super) fn number_prices(&self, country: &str) -> Answer {
        self.query.only(&[])?;
        let prices: Vec<Value> =
            self.kinds_of(country)?.into_iter().map(|kind| price(kind, monthly(kind))).collect();
        let answer = json!({
            "country": country,
            "iso_country": country,
            "phone_number_prices": prices,
            "price_unit": "USD",
            "url": self.url(self.path),
        });
        Ok((StatusCode::OK, answer))
    }

    /// What a minute costs, to a country and from it.
    pub(super) fn voice_prices(&self, country: &str) -> Answer {
        self.query.only(&[])?;
        let inbound: Vec<Value> = self
            .kinds_of(country)?
            .into_iter()
            .map(|kind| price(kind, if kind == NumberKind::TollFree { "0.022" } else { "0.0085" }))
            .collect();
        let answer = json!({
            "country": country,
            "iso_country": country,
            "inbound_call_prices": inbound,
            "outbound_prefix_prices": [{
                "base_price": "0.013",
                "current_price": "0.013",
                "destination_prefixes": ["1"],
                "friendly_name": format!("Programmable Outbound Minute - {country}"),
                "origination_prefixes": ["ALL"],
            }],
            "price_unit": "USD",
            "url": self.url(self.path),
        });
        Ok((StatusCode::OK, answer))
    }

    /// The countries of a price list.
    pub(super) fn priced_countries(&self) -> Answer {
        self.query.only(&PAGING)?;
        let state = self.sim.lock();
        let mut codes: Vec<&str> = state.stock.iter().map(|number| number.country.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        let entry = |code: &str| {
            let url = self.url(&format!("{}/{code}", self.path));
            (code.to_owned(), json!({"country": code, "iso_country": code, "url": url}))
        };
        self.meta_page("countries", codes.into_iter().map(entry).collect())
    }

    fn kinds_of(&self, country: &str) -> Result<Vec<NumberKind>, Refusal> {
        let state = self.sim.lock();
        let mut kinds = Vec::new();
        for number in state.stock.iter().filter(|number| number.country == country) {
            if !kinds.contains(&number.kind) {
                kinds.push(number.kind);
            }
        }
        if kinds.is_empty() { Err(Refusal::not_found(self.path)) } else { Ok(kinds) }
    }
}

fn monthly(kind: NumberKind) -> &'static str {
    match kind {
        NumberKind::TollFree => "2.15",
        NumberKind::Mobile => "1.50",
        _ => "1.15",
    }
}

fn price(kind: NumberKind, amount: &str) -> Value {
    let (_, index, _) = kind.names();
    json!({"number_type": index.replace('_', " "), "base_price": amount, "current_price": amount})
}
