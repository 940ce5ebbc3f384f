//! Phone numbers of the REST API: searched for, bought, listed, configured and released.
//! It sells from the simulator's stock and asks nobody else.

use axum::http::StatusCode;
use offhook_core::E164;
use serde_json::{Value, json};

use super::super::State;
use super::super::number::{AddressRequirement, Capabilities, Number, formatted};
use super::super::stock::{ForSale, NumberKind, Pattern};
use super::form::Form;
use super::page::PAGING;
use super::{Answer, Refusal, RestRequest, done};

const DEFAULT_DISTANCE_MILES: u64 = 25;
const MAX_DISTANCE_MILES: u64 = 500;
const DEFAULT_FOUND: u64 = 50;
const MAX_FOUND: u64 = 1_000;

impl RestRequest<'_> {
    /// What one country has for sale.
    pub(super) fn country(&self, code: &str) -> Answer {
        self.query.only(&[])?;
        let state = self.sim.lock();
        self.country_json(&state, code).map(|country| (StatusCode::OK, country))
    }

    pub(super) fn countries(&self) -> Answer {
        self.query.only(&PAGING)?;
        let state = self.sim.lock();
        let mut codes: Vec<&str> = state.stock.iter().map(|number| number.country.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        let countries: Result<Vec<_>, Refusal> =
            codes.into_iter().map(|code| Ok((code.to_owned(), self.country_json(&state, code)?))).collect();
        self.page("countries", countries?)
    }

    fn country_json(&self, state: &State, code: &str) -> Result<Value, Refusal> {
        let base = format!("{}/AvailablePhoneNumbers/{code}", self.account_path());
        let mut kinds = json!({});
        for number in state.stock.iter().filter(|number| number.country == code) {
            let (path, index, _) = number.kind.names();
            kinds[index] = format!("{base}/{path}.json").into();
        }
        if kinds.as_object().is_none_or(serde_json::Map::is_empty) {
            return Err(Refusal::not_found(self.path));
        }
        Ok(json!({
            "country_code": code,
            "country": code,
            "beta": false,
            "uri": format!("{base}.json"),
            "subresource_uris": kinds,
        }))
    }

    /// Numbers of one country and kind that are for sale and fit the filters, without pages as the examples have it.
    pub(super) fn available(&self, country: &str, kind: &str) -> Answer {
        let kind = NumberKind::of_path(kind).ok_or_else(|| Refusal::not_found(self.path))?;
        let state = self.sim.lock();
        let offered = |number: &&ForSale| number.country == country && number.kind == kind;
        if !state.stock.iter().any(|number| offered(&number)) && !state.sold.contains(&(country.into(), kind))
        {
            return Err(Refusal::not_found(self.path));
        }
        let search = Search::read(&self.query, country, &state.stock)?;
        let most = self.query.number("PageSize", DEFAULT_FOUND)?.clamp(1, MAX_FOUND) as usize;
        let found = state.stock.iter().filter(offered).filter(|number| search.fits(number)).take(most);
        let upper_case = self.sim.settings.upper_case_capabilities;
        let found: Vec<Value> = found.map(|number| for_sale_json(number, upper_case)).collect();
        Ok((StatusCode::OK, json!({"available_phone_numbers": found, "uri": self.path})))
    }

    pub(super) fn numbers(&self) -> Answer {
        self.query.only(&[["Beta", "FriendlyName", "PhoneNumber", "Origin"].as_slice(), &PAGING].concat())?;
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
        let wished = self.query.value("PhoneNumber").map(digits);
        let account_sid = &self.sim.settings.account_sid;
        let mut items = Vec::new();
        for number in self.sim.lock().listed_numbers() {
            let by_number = wished.as_ref().is_none_or(|wished| number.e164.contains(wished.as_str()));
            let name = self.query.value("FriendlyName");
            let by_name = name.is_none_or(|wished| number.fields.get("friendly_name") == wished);
            if by_number && by_name {
                items.push((number.sid.clone(), number.json(account_sid)));
            }
        }
        self.page("incoming_phone_numbers", items)
    }

    pub(super) fn number(&self, sid: &str) -> Answer {
        self.query.only(&[])?;
        let mut state = self.sim.lock();
        let number = self.own_number(&mut state, sid)?;
        Ok((StatusCode::OK, number.json(&self.sim.settings.account_sid)))
    }

    /// Buys and configures in one step: either both happen or neither does.
    pub(super) fn buy(&self, form: &Form) -> Answer {
        let mut state = self.sim.lock();
        let index = chosen(&state.stock, form)?;
        let mut number = Number::new(&state.stock[index].e164);
        let settings = number.fields.changed(form, &["PhoneNumber", "AreaCode", "ApiVersion"])?;
        state.knows_trunk(settings.get("trunk_sid"))?;
        let wanted = &state.stock[index];
        if wanted.address != AddressRequirement::None && settings.get("address_sid").is_empty() {
            let message = "Phone Number Requires an Address but the 'AddressSid' parameter was empty";
            return Err(Refusal::invalid(21631, message));
        }
        if wanted.needs_bundle && settings.get("bundle_sid").is_empty() {
            let message = "Phone Number Requires a Bundle but the 'BundleSid' parameter was empty";
            return Err(Refusal::invalid(21649, message));
        }
        if self.sim.settings.trial && !state.numbers.is_empty() {
            let message = "Trial accounts are allowed only one Twilio number";
            return Err(Refusal::invalid(21404, message));
        }
        let sold = state.sell(index);
        number.capabilities = sold.capabilities;
        number.address_requirement = sold.address;
        number.kind = sold.kind.names().2;
        number.change(settings);
        number.missing_in_lists = state.list_lag;
        let bought = number.json(&self.sim.settings.account_sid);
        state.numbers.push(number);
        Ok((StatusCode::CREATED, bought))
    }

    pub(super) fn update_number(&self, sid: &str, form: &Form) -> Answer {
        let mut state = self.sim.lock();
        let settings = self.own_number(&mut state, sid)?.fields.changed(form, &["ApiVersion"])?;
        state.knows_trunk(settings.get("trunk_sid"))?;
        let number = self.own_number(&mut state, sid)?;
        number.change(settings);
        Ok((StatusCode::OK, number.json(&self.sim.settings.account_sid)))
    }

    /// A released number is nobody's: it does not come back on sale here.
    pub(super) fn release(&self, sid: &str) -> Answer {
        self.query.only(&[])?;
        let mut state = self.sim.lock();
        let index = state.numbers.iter().position(|number| number.sid == sid);
        let number = state.numbers.remove(index.ok_or_else(|| Refusal::not_found(self.path))?);
        for service in &mut state.services {
            service.numbers.retain(|member| *member != number.sid);
        }
        let lag = state.list_lag;
        state.released.push((number, lag));
        done()
    }

    fn own_number<'s>(&self, state: &'s mut State, sid: &str) -> Result<&'s mut Number, Refusal> {
        let found = state.numbers.iter_mut().find(|number| number.sid == sid);
        found.ok_or_else(|| Refusal::not_found(self.path))
    }
}

/// The number that a purchase names, or one of the area that it names.
fn chosen(stock: &[ForSale], form: &Form) -> Result<usize, Refusal> {
    match (form.value("PhoneNumber"), form.value("AreaCode")) {
        (Some(e164), _) if e164.parse::<E164>().is_err() => {
            Err(Refusal::invalid(21421, format!("PhoneNumber is invalid: {e164}")))
        }
        (Some(e164), _) => stock
            .iter()
            .position(|number| number.e164 == e164)
            .ok_or_else(|| Refusal::invalid(21422, format!("{e164} is not available"))),
        (None, Some(area)) => stock
            .iter()
            .position(|number| number.kind == NumberKind::Local && number.area_code() == Some(area))
            .ok_or_else(|| Refusal::invalid(21452, format!("No phone numbers found in area code {area}"))),
        (None, None) => Err(Refusal::invalid(20001, "PhoneNumber or AreaCode is required")),
    }
}

/// A question about a number.
type Test = fn(&ForSale) -> bool;

/// A circle on the map.
#[derive(Clone, Copy)]
struct Circle {
    center: (f64, f64),
    miles: f64,
}

/// The filters of a search.
struct Search<'a> {
    query: &'a Form,
    pattern: Option<Pattern>,
    flags: Vec<(Test, bool)>,
    near: Option<Circle>,
}

impl<'a> Search<'a> {
    fn read(query: &'a Form, country: &str, stock: &[ForSale]) -> Result<Search<'a>, Refusal> {
        const NORTH_AMERICAN: [&str; 8] = [
            "AreaCode",
            "NearNumber",
            "NearLatLong",
            "Distance",
            "InPostalCode",
            "InRegion",
            "InRateCenter",
            "InLata",
        ];
        const ANYWHERE: [&str; 12] = [
            "Contains",
            "VoiceEnabled",
            "SmsEnabled",
            "MmsEnabled",
            "FaxEnabled",
            "ExcludeAllAddressRequired",
            "ExcludeLocalAddressRequired",
            "ExcludeForeignAddressRequired",
            "Beta",
            "InLocality",
            "PageSize",
            "Page",
        ];
        query.only(&[NORTH_AMERICAN.as_slice(), &ANYWHERE, &["PageToken"]].concat())?;
        let abroad = NORTH_AMERICAN.iter().find(|name| query.value(name).is_some());
        if let (Some(name), false) = (abroad, matches!(country, "US" | "CA")) {
            let message = format!("{name} applies to phone numbers in the US and Canada only");
            return Err(Refusal::invalid(20001, message));
        }
        query.number("AreaCode", 0)?;
        let pattern = match query.value("Contains") {
            None => None,
            Some(text) => {
                let pattern = Pattern::parse(text);
                Some(pattern.ok_or_else(|| Refusal::invalid(20001, format!("Contains is invalid: {text}")))?)
            }
        };
        let tests: [(&str, Test); 4] = [
            ("VoiceEnabled", |number| number.capabilities.voice),
            ("SmsEnabled", |number| number.capabilities.sms),
            ("MmsEnabled", |number| number.capabilities.mms),
            ("FaxEnabled", |_| false),
        ];
        let mut flags = Vec::new();
        for (name, test) in tests {
            flags.extend(query.flag(name)?.map(|wished| (test, wished)));
        }
        let excluded: [(&str, Test); 3] = [
            ("ExcludeAllAddressRequired", |number| number.address == AddressRequirement::None),
            ("ExcludeLocalAddressRequired", |number| number.address != AddressRequirement::Local),
            ("ExcludeForeignAddressRequired", |number| number.address != AddressRequirement::Foreign),
        ];
        for (name, test) in excluded {
            flags.extend(query.flag(name)?.filter(|excludes| *excludes).map(|_| (test, true)));
        }
        query.flag("Beta")?;
        Ok(Search { query, pattern, flags, near: near(query, stock)? })
    }

    fn fits(&self, number: &ForSale) -> bool {
        let is = |name: &str, value: &str| {
            self.query.value(name).is_none_or(|wished| wished.eq_ignore_ascii_case(value))
        };
        let place = &number.place;
        is("AreaCode", number.area_code().unwrap_or_default())
            && is("InLocality", &place.locality)
            && is("InRegion", &place.region)
            && is("InPostalCode", &place.postal_code)
            && is("InRateCenter", &place.rate_center)
            && is("InLata", &place.lata)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.fits(&number.e164))
            && self.flags.iter().all(|(test, wished)| test(number) == *wished)
            && self.near.is_none_or(|circle| number.is_near(circle.center, circle.miles))
    }
}

fn near(query: &Form, stock: &[ForSale]) -> Result<Option<Circle>, Refusal> {
    let miles = query.number("Distance", DEFAULT_DISTANCE_MILES)?.min(MAX_DISTANCE_MILES) as f64;
    if let Some(text) = query.value("NearLatLong") {
        let degrees = text.split_once(',').and_then(|(north, east)| {
            Some((north.trim().parse::<f64>().ok()?, east.trim().parse::<f64>().ok()?))
        });
        let degrees = degrees.ok_or_else(|| Refusal::invalid(20001, "NearLatLong is latitude,longitude"))?;
        return Ok(Some(Circle { center: degrees, miles }));
    }
    let Some(number) = query.value("NearNumber") else { return Ok(None) };
    let area = number.strip_prefix("+1").and_then(|national| national.get(..3));
    let known = stock.iter().find(|sold| area.is_some() && sold.area_code() == area);
    // Of an area that nobody knows nothing is near.
    let center = known.and_then(|known| known.place.at).unwrap_or((f64::NAN, f64::NAN));
    Ok(Some(Circle { center, miles }))
}

fn for_sale_json(number: &ForSale, upper_case: bool) -> Value {
    let known = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    let degrees = |value: Option<f64>| value.map(|degrees| format!("{degrees:.6}"));
    let Capabilities { voice, sms, mms } = number.capabilities;
    let capabilities = match upper_case {
        true => json!({"voice": voice, "SMS": sms, "MMS": mms}),
        false => json!({"voice": voice, "sms": sms, "mms": mms}),
    };
    json!({
        "friendly_name": formatted(&number.e164),
        "phone_number": number.e164,
        "lata": known(&number.place.lata),
        "locality": known(&number.place.locality),
        "rate_center": known(&number.place.rate_center),
        "latitude": degrees(number.place.at.map(|at| at.0)),
        "longitude": degrees(number.place.at.map(|at| at.1)),
        "region": known(&number.place.region),
        "postal_code": known(&number.place.postal_code),
        "iso_country": number.country,
        "address_requirements": number.address,
        "beta": false,
        "capabilities": capabilities,
    })
}
