//! Numbers for sale and orders of them: an order is taken first and fulfilled later, and what was bought is shown later still.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use offhook_core::E164;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::account::{Shelf, missing};
use super::numbers::{Number, OwnedNumber};
use super::request::{Field, Kind, Query, Refusal};
use super::rest::{Answer, RestRequest, shown};
use super::webhook::{Event, Signing, Target};
use super::{Sim, new_uuid, timestamp};

/// A number that can be bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForSale {
    /// The number itself.
    pub e164: String,
    /// ISO 3166-1 alpha-2.
    pub country: String,
    /// City.
    pub locality: String,
    /// State or province.
    pub administrative_area: String,
    /// `local`, `toll_free`, `mobile`, `national` or `shared_cost`.
    pub kind: &'static str,
    /// Such as `voice`, `sms`, `mms`.
    pub features: Vec<&'static str>,
    /// Per month, in dollars.
    pub monthly_cost: String,
}

impl ForSale {
    /// A local number in the United States that can speak and write.
    pub fn local(e164: impl Into<String>, locality: &str, administrative_area: &str) -> ForSale {
        ForSale {
            e164: e164.into(),
            country: "US".into(),
            locality: locality.into(),
            administrative_area: administrative_area.into(),
            kind: "local",
            features: vec!["voice", "sms", "mms"],
            monthly_cost: "1.00".into(),
        }
    }

    /// The digits behind the country's code, as far as North America is concerned; elsewhere those behind the plus.
    fn national(&self) -> &str {
        self.e164.strip_prefix("+1").unwrap_or(self.e164.trim_start_matches('+'))
    }

    fn json(&self) -> Value {
        let features: Vec<Value> = self.features.iter().map(|name| json!({"name": name})).collect();
        json!({
            "record_type": "available_phone_number",
            "phone_number": self.e164,
            "vanity_format": "",
            "best_effort": false,
            "quickship": true,
            "reservable": true,
            "region_information": [
                {"region_type": "country_code", "region_name": self.country},
                {"region_type": "state", "region_name": self.administrative_area},
                {"region_type": "rate_center", "region_name": self.locality.to_uppercase()},
                {"region_type": "location", "region_name": self.locality},
            ],
            "cost_information": {
                "upfront_cost": self.monthly_cost, "monthly_cost": self.monthly_cost, "currency": "USD",
            },
            "features": features,
        })
    }
}

/// What becomes of orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrderOutcome {
    /// They succeed.
    #[default]
    Success,
    /// They fail.
    Failure,
    /// They wait for regulatory documents, for ever.
    WaitsForRequirements,
}

/// An order as the API keeps it.
#[derive(Clone, Debug)]
pub(super) struct NumberOrder {
    json: Value,
    appears: Instant,
}

pub(super) fn available(request: &RestRequest<'_>) -> Answer {
    const KNOWN: &[&str] = &[
        "filter[country_code]",
        "filter[national_destination_code]",
        "filter[locality]",
        "filter[administrative_area]",
        "filter[rate_center]",
        "filter[features]",
        "filter[features][]",
        "filter[phone_number_type]",
        "filter[phone_number][starts_with]",
        "filter[phone_number][ends_with]",
        "filter[phone_number][contains]",
        "filter[limit]",
        "filter[best_effort]",
        "filter[quickship]",
        "filter[reservable]",
        "filter[exclude_held_numbers]",
    ];
    let query = request.query(KNOWN)?;
    for name in ["best_effort", "quickship", "reservable", "exclude_held_numbers"] {
        query.flag(&format!("filter[{name}]"))?;
    }
    let limit = query.whole("filter[limit]", 100)?;
    let state = request.sim.lock();
    let found: Vec<Value> =
        state.for_sale.iter().filter(|number| fits(&query, number)).take(limit).map(ForSale::json).collect();
    let meta = json!({"total_results": found.len(), "best_effort_results": 0});
    Ok((StatusCode::OK, json!({"data": found, "meta": meta, "metadata": meta})))
}

fn fits(query: &Query, number: &ForSale) -> bool {
    let value = |name: &str| query.value(&format!("filter[{name}]"));
    let is = |name: &str, own: &str| value(name).is_none_or(|wished| wished.eq_ignore_ascii_case(own));
    let national = number.national();
    let code = value("national_destination_code").unwrap_or_default();
    // Documented: patterns are looked for behind the code where that is filtered as well.
    let behind = national.strip_prefix(code).unwrap_or(national);
    is("country_code", &number.country)
        && is("locality", &number.locality)
        && is("rate_center", &number.locality)
        && is("administrative_area", &number.administrative_area)
        && is("phone_number_type", number.kind)
        && national.starts_with(code)
        && value("phone_number][starts_with").is_none_or(|start| behind.starts_with(start))
        && value("phone_number][ends_with").is_none_or(|end| behind.ends_with(end))
        && value("phone_number][contains").is_none_or(|part| behind.contains(part))
        && query.values("filter[features]").iter().all(|wished| number.features.contains(wished))
}

pub(super) fn list(request: &RestRequest<'_>) -> Answer {
    const KNOWN: &[&str] = &[
        "page[number]",
        "page[size]",
        "filter[status]",
        "filter[customer_reference]",
        "filter[phone_numbers_count]",
        "filter[requirements_met]",
        "filter[created_at][gt]",
        "filter[created_at][lt]",
    ];
    let query = request.query(KNOWN)?;
    let is = |order: &Value, field: &str| {
        let own = order[field].as_str().map_or_else(|| order[field].to_string(), str::to_owned);
        query.value(&format!("filter[{field}]")).is_none_or(|wished| wished == own)
    };
    let created = |order: &Value| order["created_at"].as_str().unwrap_or_default().to_owned();
    let state = request.sim.lock();
    let now = Instant::now();
    let orders = state.orders.iter().rev().filter(|order| order.appears <= now).map(|order| &order.json);
    let fitting = orders.filter(|order| {
        ["status", "customer_reference", "phone_numbers_count", "requirements_met"]
            .iter()
            .all(|field| is(order, field))
            && query.value("filter[created_at][gt]").is_none_or(|after| created(order).as_str() > after)
            && query.value("filter[created_at][lt]").is_none_or(|before| created(order).as_str() < before)
    });
    Ok((StatusCode::OK, query.page(fitting.cloned().collect())?))
}

pub(super) fn show(request: &RestRequest<'_>, id: &str) -> Answer {
    request.query(&[])?;
    let state = request.sim.lock();
    let order = state.orders.iter().find(|order| order.json["id"] == id);
    shown(order.ok_or_else(Refusal::not_found)?.json.clone())
}

pub(super) fn update(request: &RestRequest<'_>, id: &str) -> Answer {
    const FIELDS: &[Field] = &[Field::text("customer_reference"), Field::any("regulatory_requirements")];
    let body = request.body(FIELDS)?;
    let mut state = request.sim.lock();
    let order =
        state.orders.iter_mut().find(|order| order.json["id"] == id).ok_or_else(Refusal::not_found)?;
    if let Some(reference) = body.text("customer_reference") {
        order.json["customer_reference"] = reference.into();
    }
    shown(order.json.clone())
}

pub(super) fn create(request: &RestRequest<'_>) -> Answer {
    const WANTED: &[Field] = &[
        Field::text("phone_number").required(),
        Field::text("requirement_group_id"),
        Field::text("bundle_id"),
    ];
    const FIELDS: &[Field] = &[
        Field::new("phone_numbers", Kind::Objects(WANTED)).required(),
        Field::text("connection_id"),
        Field::text("messaging_profile_id"),
        Field::text("billing_group_id"),
        Field::text("customer_reference"),
    ];
    let body = request.body(FIELDS)?;
    let sim = request.sim;
    if body.text("connection_id").is_some_and(|id| sim.connection_name(id).is_none()) {
        return Err(missing("connection_id"));
    }
    let profile = body.text("messaging_profile_id");
    if profile.is_some_and(|id| sim.thing(Shelf::MessagingProfiles, id).is_none()) {
        return Err(missing("messaging_profile_id"));
    }
    let wanted = body.0["phone_numbers"].as_array().into_iter().flatten();
    let wanted: Vec<&str> = wanted.filter_map(|wanted| wanted["phone_number"].as_str()).collect();
    let bought = take_from_sale(sim, &wanted)?;
    let now = timestamp(Timestamp::now());
    let met = sim.lock().order_outcome != OrderOutcome::WaitsForRequirements;
    let numbers: Vec<Value> = bought.iter().map(|number| ordered(number, met)).collect();
    let mut order = json!({
        "id": new_uuid(),
        "record_type": "number_order",
        "status": "pending",
        "phone_numbers": numbers,
        "phone_numbers_count": numbers.len(),
        "requirements_met": met,
        "sub_number_orders_ids": [new_uuid()],
        "created_at": now,
        "updated_at": now,
    });
    // None of these is documented to be null: what was not given is not shown.
    for field in ["connection_id", "messaging_profile_id", "billing_group_id", "customer_reference"] {
        if let Some(value) = body.text(field) {
            order[field] = value.into();
        }
    }
    let appears = Instant::now() + Duration::from_millis(sim.settings.orders_lag_ms);
    sim.lock().orders.push(NumberOrder { json: order.clone(), appears });
    if met {
        tokio::spawn(fulfil(sim.clone(), order["id"].clone(), bought));
    }
    shown(order)
}

/// Nobody else can buy these from now on.
fn take_from_sale(sim: &Sim, wanted: &[&str]) -> Result<Vec<ForSale>, Refusal> {
    if wanted.is_empty() {
        let detail = "The 'phone_numbers' parameter is required and cannot be blank.";
        return Err(Refusal::unprocessable("10004", "Missing required parameter", detail).at("phone_numbers"));
    }
    let mut state = sim.lock();
    let mut places = Vec::new();
    for (n, e164) in wanted.iter().enumerate() {
        let field = format!("phone_numbers/{n}/phone_number");
        if e164.parse::<E164>().is_err() {
            return Err(Refusal::not_e164(&field));
        }
        let Some(place) = state.for_sale.iter().position(|number| number.e164 == *e164) else {
            let detail = format!("The number {e164} is not available for purchase.");
            return Err(Refusal::unprocessable("10002", "Invalid phone number", detail).at(&field));
        };
        places.push(place);
    }
    places.sort_unstable();
    places.dedup();
    Ok(places.into_iter().rev().map(|place| state.for_sale.remove(place)).collect())
}

fn ordered(number: &ForSale, met: bool) -> Value {
    json!({
        "id": new_uuid(),
        "record_type": "number_order_phone_number",
        "phone_number": number.e164,
        "phone_number_type": number.kind,
        "country_code": number.country,
        "country_iso_alpha2": number.country,
        "status": "pending",
        "requirements_met": met,
        "requirements_status": if met { "approved" } else { "requirement-info-pending" },
        "regulatory_requirements": [],
    })
}

/// Carries an order out, and tells who wants to know.
async fn fulfil(sim: Arc<Sim>, id: Value, bought: Vec<ForSale>) {
    tokio::time::sleep(Duration::from_millis(sim.settings.order_takes_ms)).await;
    let order = {
        let mut state = sim.lock();
        let status = match state.order_outcome {
            OrderOutcome::Success => "success",
            OrderOutcome::Failure => "failure",
            OrderOutcome::WaitsForRequirements => return,
        };
        let Some(order) = state.orders.iter_mut().find(|order| order.json["id"] == id) else { return };
        order.json["status"] = status.into();
        order.json["updated_at"] = timestamp(Timestamp::now()).into();
        for number in order.json["phone_numbers"].as_array_mut().into_iter().flatten() {
            number["status"] = status.into();
        }
        let order = order.json.clone();
        if status == "success" {
            let appears = Instant::now() + Duration::from_millis(sim.settings.numbers_lag_ms);
            state.numbers.extend(bought.iter().map(|number| owned(number, &order, appears)));
        } else {
            state.for_sale.extend(bought);
        }
        order
    };
    if let Some(url) = &sim.settings.order_webhook_url {
        let event = Event::new("number_order.complete", order, Target::new(url), Signing::Right);
        // The receiver lives as long as its task, which lives as long as the sender.
        let _ = sim.webhooks.queue(sim.settings.delivery).send(event);
    }
}

fn owned(number: &ForSale, order: &Value, appears: Instant) -> Number {
    let text = |name: &str| order[name].as_str().map(str::to_owned);
    let owned = OwnedNumber {
        e164: number.e164.clone(),
        connection: text("connection_id"),
        messaging_profile: text("messaging_profile_id"),
        tags: Vec::new(),
    };
    Number::new(&owned, appears).bought(number.kind, &number.country, order["customer_reference"].as_str())
}
