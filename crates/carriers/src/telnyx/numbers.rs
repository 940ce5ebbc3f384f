//! Numbers of a Telnyx account: looked for, ordered, moved to our application and back to the one that they were found with.
//! It knows what is read of a number and what can be set; who may have a number, and for what, is decided elsewhere.

use super::rest::{MAX_PAGE_SIZE, Telnyx};
use crate::http::RETRY_PAUSE;
use crate::{
    Area, AvailableNumber, Bought, CarrierError, NumberKind, NumberSearch, OwnNumber, Price, Routing,
};
use offhook_core::E164;
use offhook_core::entity::Capability;
use reqwest::Method;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The most numbers that one search may ask for.
pub const MAX_SEARCH: u16 = 250;
/// How often a number is read again that does not show yet what it was set to.
pub const MAX_READS: usize = 3;

/// The application that takes a number's calls.
pub(super) const CONNECTION: &str = "connection_id";
/// The messaging profile that takes its texts.
pub(super) const PROFILE: &str = "messaging_profile_id";
/// Whether Telnyx forwards its calls before any application is asked: how and where to, as `always +14155550123`.
pub(super) const FORWARDING: &str = "call_forwarding";
/// The addresses that the application asks. They are read, and never written through a number.
pub(super) const VOICE_URL: &str = "webhook_event_url";
pub(super) const VOICE_FAILOVER_URL: &str = "webhook_event_failover_url";
/// The address that the messaging profile tells. It is read, and never written through a number.
pub(super) const MESSAGES_URL: &str = "messaging_webhook_url";

/// What each setting is, for the user.
const SETTINGS: [(&str, &str); 6] = [
    (CONNECTION, "the application or connection that takes its calls"),
    (PROFILE, "the messaging profile that takes its texts"),
    (FORWARDING, "the number that Telnyx forwards its calls to before any application is asked"),
    (VOICE_URL, "the address that its application asks what to do with a call"),
    (VOICE_FAILOVER_URL, "the address for calls when the first one fails"),
    (MESSAGES_URL, "the address that its messaging profile tells of texts"),
];

/// Numbers of these states are not, or not any more, the account's to use.
const ELSEWHERE: [&str; 10] = [
    "purchase-pending",
    "purchase-failed",
    "port-pending",
    "port-failed",
    "deleted",
    "ported-out",
    "requirement-info-pending",
    "requirement-info-under-review",
    "requirement-info-exception",
    "provision-pending",
];

impl Telnyx {
    /// Numbers that can be bought now; none if the country has none of that kind.
    pub async fn search(&self, wanted: &NumberSearch) -> Result<Vec<AvailableNumber>, CarrierError> {
        let common = search_parameters(wanted)?;
        let kinds = match wanted.kind {
            Some(kind) => vec![kind],
            None => KINDS.map(|(kind, _)| kind).to_vec(),
        };
        let kinds: Vec<_> = kinds.into_iter().filter_map(|kind| Some((kind, kind_name(kind)?))).collect();
        let share = usize::from(wanted.limit.min(MAX_SEARCH)).div_ceil(kinds.len().max(1)).max(1);
        let (mut found, mut refusal) = (Vec::new(), None);
        for (kind, name) in kinds {
            let mut url = self.url(&["available_phone_numbers"]);
            url.query_pairs_mut()
                .extend_pairs(&common)
                .append_pair("filter[phone_number_type]", name)
                .append_pair("filter[limit]", &share.to_string());
            match self.read::<Vec<AvailableResource>>(Area::Numbers, &url).await {
                Ok(numbers) if numbers.is_empty() => {}
                Ok(numbers) => {
                    let needs_papers = self.needs_papers(&wanted.country, name).await?;
                    let numbers = numbers.into_iter().take(share);
                    found.extend(numbers.filter_map(|n| n.read(kind, &wanted.country, needs_papers)));
                }
                // A kind that the country does not have.
                Err(CarrierError::NotFound) => {}
                Err(error @ CarrierError::Refused { .. }) => refusal = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(refusal) = refusal.filter(|_| found.is_empty()) {
            return Err(refusal);
        }
        found.truncate(wanted.limit.into());
        Ok(found)
    }

    /// Whether the regulator wants to know who buys such a number.
    async fn needs_papers(&self, country: &str, kind: &str) -> Result<bool, CarrierError> {
        if NORTH_AMERICA.contains(&country) {
            return Ok(false);
        }
        let mut url = self.url(&["regulatory_requirements"]);
        url.query_pairs_mut()
            .append_pair("filter[country_code]", country)
            .append_pair("filter[phone_number_type]", kind)
            .append_pair("filter[action]", "ordering");
        let rules: Option<Vec<Requirements>> = known(self.read(Area::Numbers, &url).await)?;
        let wanted = |rule: &Requirements| !rule.regulatory_requirements.is_empty();
        Ok(rules.is_some_and(|rules| rules.iter().any(wanted)))
    }

    /// The numbers of the account, over all pages, but no more than `most`.
    pub async fn own_numbers(&self, most: usize) -> Result<Vec<OwnNumber>, CarrierError> {
        let mut numbers: Vec<NumberResource> =
            self.list(Area::Numbers, &self.url(&["phone_numbers"]), most).await?;
        numbers.retain(NumberResource::is_here);
        if numbers.is_empty() {
            return Ok(vec![]);
        }
        let around = Around {
            voice: self
                .all_of(Area::Numbers, &["phone_numbers", "voice"], |one: &VoiceResource| &one.id)
                .await?,
            texts: self
                .all_of(Area::Messages, &["phone_numbers", "messaging"], |one: &TextsResource| &one.id)
                .await?,
            applications: self
                .all_of(Area::Voice, &["call_control_applications"], |one: &Application| &one.id)
                .await?,
            profiles: self.all_of(Area::Messages, &["messaging_profiles"], |one: &Profile| &one.id).await?,
        };
        Ok(numbers.into_iter().filter_map(|number| number.own(&around)).collect())
    }

    /// One number as it is now; `None` if it is not this account's, or is still on its way.
    pub async fn own_number(&self, e164: &E164) -> Result<Option<OwnNumber>, CarrierError> {
        let mut url = self.url(&["phone_numbers"]);
        // "Non-numerical characters will result in no values being returned"; and a part of a number is a match.
        url.query_pairs_mut().append_pair("filter[phone_number]", e164.as_str().trim_start_matches('+'));
        let listed: Vec<NumberResource> = self.list(Area::Numbers, &url, MAX_PAGE_SIZE).await?;
        match listed.into_iter().find(|number| number.phone_number == e164.as_str() && number.is_here()) {
            Some(number) => self.with_settings(number).await,
            None => Ok(None),
        }
    }

    /// Orders a number, sent to `routing` from its first moment. After [`CarrierError::OutcomeUnknown`] look with
    /// [`Telnyx::order_of`].
    pub async fn buy(&self, e164: &E164, routing: &Routing, reference: &str) -> Result<Bought, CarrierError> {
        let mut order = json!({
            "phone_numbers": [{ "phone_number": e164.as_str() }],
            "customer_reference": reference,
        });
        for name in [CONNECTION, PROFILE] {
            if let Some(Some(value)) = routing.0.get(name) {
                order[name] = value.as_str().into();
            }
        }
        let order: OrderResource =
            self.change(Area::Numbers, Method::POST, self.url(&["number_orders"]), &order).await?;
        Ok(bought(&order))
    }

    /// How an order stands.
    pub async fn order(&self, order: &str) -> Result<Bought, CarrierError> {
        let order: OrderResource = self.read(Area::Numbers, &self.url(&["number_orders", order])).await?;
        Ok(bought(&order))
    }

    /// The id of the order that was placed with this reference; of several the one that got furthest.
    pub async fn order_of(&self, reference: &str) -> Result<Option<String>, CarrierError> {
        let mut url = self.url(&["number_orders"]);
        url.query_pairs_mut().append_pair("filter[customer_reference]", reference);
        let orders: Vec<OrderResource> = self.list(Area::Numbers, &url, MAX_PAGE_SIZE).await?;
        let ours = orders.into_iter().filter(|order| order.customer_reference.as_deref() == Some(reference));
        let best = ours.min_by_key(|order| match order.status.as_str() {
            "success" => 0,
            "failure" => 2,
            _ => 1,
        });
        Ok(best.map(|order| order.id))
    }

    /// Sets exactly the settings that `routing` names, a `None` to nothing, and returns the number as it is then. What still differs
    /// could not be set; addresses belong to the application or the profile and are not set here.
    pub async fn route(&self, number: &OwnNumber, routing: &Routing) -> Result<OwnNumber, CarrierError> {
        let mut set = vec![];
        if let Some(profile) = routing.0.get(PROFILE) {
            let change = json!({ PROFILE: profile.as_deref().unwrap_or_default() });
            match self.set(Area::Messages, &[&number.id, "messaging"], &change).await {
                Ok(()) => set.push(PROFILE),
                // A number without texts has nothing to set; what is read below says so.
                Err(CarrierError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(wanted) = routing.0.get(FORWARDING) {
            self.forward(&number.id, wanted.as_deref()).await?;
            set.push(FORWARDING);
        }
        // Last, so that calls come here only when all else is as it should be.
        if let Some(connection) = routing.0.get(CONNECTION) {
            let change = json!({ CONNECTION: connection.as_deref().unwrap_or_default() });
            self.set(Area::Numbers, &[&number.id], &change).await?;
            set.push(CONNECTION);
        }
        let mut reads = 1;
        loop {
            let now = self.read(Area::Numbers, &self.url(&["phone_numbers", &number.id])).await?;
            let now = self.with_settings(now).await?.ok_or(CarrierError::NotFound)?;
            let shows_it = routing.differs(&now.routing).all(|(name, ..)| !set.contains(&name));
            if reads == MAX_READS || shows_it {
                return Ok(now);
            }
            reads += 1;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Forwarding is touched only where it is in force or has been.
    async fn forward(&self, id: &str, wanted: Option<&str>) -> Result<(), CarrierError> {
        let voice: Option<VoiceResource> =
            known(self.read(Area::Numbers, &self.url(&["phone_numbers", id, "voice"])).await)?;
        let Some(voice) = voice else { return Ok(()) };
        if voice.forwarding().as_deref() == wanted {
            return Ok(());
        }
        let forwarding = match wanted.and_then(|wanted| wanted.split_once(' ')) {
            Some((how, to)) => {
                json!({ "call_forwarding_enabled": true, "forwarding_type": how, "forwards_to": to })
            }
            None => json!({ "call_forwarding_enabled": false }),
        };
        self.set(Area::Numbers, &[id, "voice"], &json!({ FORWARDING: forwarding })).await
    }

    async fn set(&self, area: Area, below: &[&str], change: &Value) -> Result<(), CarrierError> {
        let path: Vec<_> = std::iter::once("phone_numbers").chain(below.iter().copied()).collect();
        self.change::<IgnoredAny>(area, Method::PATCH, self.url(&path), change).await.map(drop)
    }

    /// Gives a number back to Telnyx, for good; that it is gone already is no error.
    pub async fn release(&self, number: &OwnNumber) -> Result<(), CarrierError> {
        match self.delete(Area::Numbers, self.url(&["phone_numbers", &number.id])).await {
            Ok(()) | Err(CarrierError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What a setting of a [`Routing`] is, in words for the user.
    pub fn setting(name: &str) -> &'static str {
        SETTINGS
            .iter()
            .find(|(known, _)| *known == name)
            .map_or("a setting of the number", |(_, words)| words)
    }

    /// A number with what is set elsewhere than in itself.
    async fn with_settings(&self, number: NumberResource) -> Result<Option<OwnNumber>, CarrierError> {
        let id = number.id.as_str();
        let application = number.connection_id.as_deref();
        let profile = number.messaging_profile_id.as_deref();
        let around = Around {
            voice: self.one_of(Area::Numbers, &["phone_numbers", id, "voice"], Some(id)).await?,
            texts: self.one_of(Area::Messages, &["phone_numbers", id, "messaging"], Some(id)).await?,
            applications: self.one_of(Area::Voice, &["call_control_applications"], application).await?,
            profiles: self.one_of(Area::Messages, &["messaging_profiles"], profile).await?,
        };
        Ok(number.own(&around))
    }

    async fn all_of<T: DeserializeOwned>(
        &self,
        area: Area,
        path: &[&str],
        id: fn(&T) -> &String,
    ) -> Result<BTreeMap<String, T>, CarrierError> {
        let listed: Option<Vec<T>> = known(self.list(area, &self.url(path), usize::MAX).await)?;
        Ok(listed.unwrap_or_default().into_iter().map(|one| (id(&one).clone(), one)).collect())
    }

    /// The thing that is at `path`, or below it where the path does not have the id in it.
    async fn one_of<T: DeserializeOwned>(
        &self,
        area: Area,
        path: &[&str],
        id: Option<&str>,
    ) -> Result<BTreeMap<String, T>, CarrierError> {
        let Some(id) = id.filter(|id| !id.is_empty()) else { return Ok(BTreeMap::new()) };
        let mut path = path.to_vec();
        if !path.contains(&id) {
            path.push(id);
        }
        let one: Option<T> = known(self.read(area, &self.url(&path)).await)?;
        Ok(one.map(|one| (id.to_owned(), one)).into_iter().collect())
    }
}

/// Nothing where Telnyx says that there is nothing, or that this key may not see it: such a key can still see to the calls.
pub(super) fn known<T>(answer: Result<T, CarrierError>) -> Result<Option<T>, CarrierError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(
            CarrierError::NotFound | CarrierError::MissingPermission { .. } | CarrierError::Refused { .. },
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is set elsewhere than in the numbers themselves, by id. What could not be learnt is missing.
struct Around {
    voice: BTreeMap<String, VoiceResource>,
    texts: BTreeMap<String, TextsResource>,
    applications: BTreeMap<String, Application>,
    profiles: BTreeMap<String, Profile>,
}

const NORTH_AMERICA: [&str; 2] = ["US", "CA"];

const KINDS: [(NumberKind, &str); 5] = [
    (NumberKind::Local, "local"),
    (NumberKind::Mobile, "mobile"),
    (NumberKind::TollFree, "toll_free"),
    (NumberKind::National, "national"),
    (NumberKind::SharedCost, "shared_cost"),
];

/// Nothing for a kind that Telnyx does not have.
fn kind_name(kind: NumberKind) -> Option<&'static str> {
    KINDS.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name)
}

fn search_parameters(wanted: &NumberSearch) -> Result<Vec<(&'static str, &str)>, CarrierError> {
    let refused = |why| Err(CarrierError::NotAskable(why));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if wanted.country.len() != 2 || !wanted.country.bytes().all(|b| b.is_ascii_uppercase()) {
        return refused("a country is written with two capital letters, as US");
    }
    if wanted.area_code.as_ref().is_some_and(|code| !(1..=6).contains(&code.len()) || !digits(code)) {
        return refused("an area code is digits alone, as 415");
    }
    if wanted.contains.as_ref().is_some_and(|part| !(2..=15).contains(&part.len()) || !digits(part)) {
        return refused("a part of a number is 2 to 15 digits");
    }
    let mut parameters = vec![("filter[country_code]", wanted.country.as_str())];
    let texts = [
        ("filter[national_destination_code]", &wanted.area_code),
        ("filter[phone_number][contains]", &wanted.contains),
        ("filter[locality]", &wanted.locality),
        ("filter[administrative_area]", &wanted.region),
    ];
    parameters.extend(texts.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
    let names = FEATURES.iter().filter(|(_, capability)| wanted.capabilities.contains(capability));
    parameters.extend(names.map(|(name, _)| ("filter[features][]", *name)));
    if NORTH_AMERICA.contains(&wanted.country.as_str()) {
        // Numbers of other places than were asked for.
        parameters.push(("filter[best_effort]", "false"));
    }
    Ok(parameters)
}

const FEATURES: [(&str, Capability); 3] =
    [("voice", Capability::Voice), ("sms", Capability::Sms), ("mms", Capability::Mms)];

/// Millionths of an amount, written as a number or as a text.
pub(super) fn micros(amount: &Value) -> Option<i64> {
    let text = match amount {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) {
        return None;
    }
    let millionths = format!("{part:0<6.6}").parse::<i64>().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(millionths)
}

/// What became of an order.
pub(super) fn bought(order: &OrderResource) -> Bought {
    match order.status.as_str() {
        "success" => Bought::Done,
        "failure" => {
            let papers = order
                .phone_numbers
                .iter()
                .any(|number| number.requirements_status.as_deref() == Some("requirement-info-exception"));
            let reason = if papers {
                "The regulator wants papers for this number that Telnyx does not have or did not accept; send them in the Telnyx portal."
            } else {
                "Telnyx could not deliver this number; choose another."
            };
            Bought::Failed { reason: reason.to_owned() }
        }
        _ => Bought::Ordered { order: order.id.clone() },
    }
}

#[derive(Deserialize)]
pub(super) struct OrderResource {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) customer_reference: Option<String>,
    #[serde(default)]
    phone_numbers: Vec<OrderedNumber>,
}

#[derive(Deserialize)]
struct OrderedNumber {
    requirements_status: Option<String>,
}

#[derive(Deserialize)]
struct Requirements {
    #[serde(default)]
    regulatory_requirements: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct AvailableResource {
    phone_number: String,
    #[serde(default)]
    features: Vec<Feature>,
    #[serde(default)]
    region_information: Vec<Region>,
    cost_information: Option<CostInformation>,
}

#[derive(Deserialize)]
struct Feature {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Region {
    region_type: Option<String>,
    region_name: Option<String>,
}

#[derive(Deserialize)]
struct CostInformation {
    upfront_cost: Option<Value>,
    monthly_cost: Option<Value>,
    currency: Option<String>,
}

impl AvailableResource {
    /// Nothing if it has no number that could be called.
    fn read(self, kind: NumberKind, country: &str, needs_papers: bool) -> Option<AvailableNumber> {
        let region = |wanted: &str| {
            let mut regions = self.region_information.iter();
            let region = regions.find(|region| region.region_type.as_deref() == Some(wanted))?;
            region.region_name.clone().filter(|name| !name.is_empty())
        };
        let cost = |cost: fn(&CostInformation) -> &Option<Value>| {
            let information = self.cost_information.as_ref()?;
            let micros = micros(cost(information).as_ref()?)?;
            Some(Price { micros, currency: information.currency.clone().unwrap_or_else(|| "USD".into()) })
        };
        let has = |name: &str| self.features.iter().any(|feature| feature.name.as_deref() == Some(name));
        Some(AvailableNumber {
            e164: self.phone_number.parse().ok()?,
            kind,
            locality: region("location").or_else(|| region("rate_center")),
            region: region("state"),
            country: region("country_code").unwrap_or_else(|| country.to_owned()),
            capabilities: FEATURES.iter().filter(|(name, _)| has(name)).map(|(_, one)| *one).collect(),
            monthly: cost(|information| &information.monthly_cost),
            upfront: cost(|information| &information.upfront_cost),
            needs_papers,
        })
    }
}

#[derive(Deserialize)]
struct NumberResource {
    id: String,
    phone_number: String,
    status: Option<String>,
    connection_id: Option<String>,
    messaging_profile_id: Option<String>,
}

impl NumberResource {
    fn is_here(&self) -> bool {
        self.status.as_deref().is_none_or(|status| !ELSEWHERE.contains(&status))
    }

    /// Nothing if it is none that can be called.
    fn own(self, around: &Around) -> Option<OwnNumber> {
        let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        let (connection, profile) = (given(&self.connection_id), given(&self.messaging_profile_id));
        let application = connection.as_ref().and_then(|id| around.applications.get(id));
        let messages = profile.as_ref().and_then(|id| around.profiles.get(id));
        let mut routing = BTreeMap::from([
            (VOICE_URL.to_owned(), application.and_then(|one| given(&one.webhook_event_url))),
            (
                VOICE_FAILOVER_URL.to_owned(),
                application.and_then(|one| given(&one.webhook_event_failover_url)),
            ),
            (MESSAGES_URL.to_owned(), messages.and_then(|one| given(&one.webhook_url))),
        ]);
        if let Some(voice) = around.voice.get(&self.id) {
            routing.insert(FORWARDING.to_owned(), voice.forwarding());
        }
        let mut capabilities = vec![Capability::Voice];
        match around.texts.get(&self.id) {
            Some(texts) => capabilities.extend(texts.capabilities()),
            // A number of a messaging profile can text, even if its settings may not be seen.
            None => capabilities.extend(profile.is_some().then_some(Capability::Sms)),
        }
        routing.insert(CONNECTION.to_owned(), connection);
        routing.insert(PROFILE.to_owned(), profile);
        Some(OwnNumber {
            e164: self.phone_number.parse().ok()?,
            id: self.id,
            capabilities,
            routing: Routing(routing),
        })
    }
}

#[derive(Deserialize)]
struct VoiceResource {
    #[serde(default)]
    id: String,
    call_forwarding: Option<CallForwarding>,
}

#[derive(Deserialize)]
struct CallForwarding {
    call_forwarding_enabled: Option<bool>,
    forwards_to: Option<String>,
    forwarding_type: Option<String>,
}

impl VoiceResource {
    /// Where calls are forwarded to, if they are. Switched on without a number, as it is by default, it does nothing.
    fn forwarding(&self) -> Option<String> {
        let forwarding = self.call_forwarding.as_ref()?;
        let to = forwarding.forwards_to.as_deref().filter(|to| !to.is_empty())?;
        let how = forwarding.forwarding_type.as_deref().filter(|how| !how.is_empty())?;
        forwarding.call_forwarding_enabled.unwrap_or(true).then(|| format!("{how} {to}"))
    }
}

#[derive(Deserialize)]
struct TextsResource {
    #[serde(default)]
    id: String,
    #[serde(default)]
    features: Map<String, Value>,
}

impl TextsResource {
    fn capabilities(&self) -> impl Iterator<Item = Capability> {
        let can = |name: &str| {
            let ways = self.features.get(name).and_then(Value::as_object);
            ways.is_some_and(|ways| ways.values().any(|way| way.as_bool() == Some(true)))
        };
        FEATURES.iter().skip(1).filter(move |(name, _)| can(name)).map(|(_, capability)| *capability)
    }
}

#[derive(Deserialize)]
pub(super) struct Application {
    pub(super) id: String,
    #[serde(default)]
    pub(super) application_name: String,
    pub(super) webhook_event_url: Option<String>,
    pub(super) webhook_event_failover_url: Option<String>,
    pub(super) webhook_api_version: Option<String>,
    pub(super) active: Option<bool>,
    pub(super) outbound: Option<Outbound>,
}

#[derive(Deserialize)]
pub(super) struct Outbound {
    pub(super) outbound_voice_profile_id: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Profile {
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: String,
    pub(super) webhook_url: Option<String>,
    pub(super) webhook_failover_url: Option<String>,
    pub(super) webhook_api_version: Option<String>,
    pub(super) enabled: Option<bool>,
}
