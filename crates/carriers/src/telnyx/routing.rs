//! What a number of Telnyx is attached to so that it leads here: an application of ours for calls, a messaging profile of ours for texts.
//! Each is looked for by its name before it is made, and set right if somebody changed it. Those of others are never touched.

use super::numbers::{
    Application, CONNECTION, FORWARDING, MESSAGES_URL, PROFILE, Profile, VOICE_FAILOVER_URL, VOICE_URL, known,
};
use super::rest::{MAX_PAGE_SIZE, Telnyx};
use crate::{Area, CarrierError, OurHooks, Routing};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use url::Url;

/// How long Telnyx waits for the answer to a webhook before it tries the failover address, in seconds.
pub const WEBHOOK_TIMEOUT_S: u32 = 10;
/// A call that we say nothing to is hung up after so many seconds.
pub const FIRST_COMMAND_TIMEOUT_S: u32 = 30;
/// The countries that a messaging profile of ours may text, as Telnyx's outbound voice profiles have them by default.
pub const TEXTED_COUNTRIES: [&str; 2] = ["US", "CA"];
/// The shortest name that Telnyx finds applications by.
const SHORTEST_NAME: usize = 3;

/// There is such a thing already: somebody else has just made it.
const DUPLICATE: u32 = 10012;

impl Telnyx {
    /// What a number must be set to so that it leads to these pages. Looks for our application and messaging profile by the name
    /// `label`, corrects their addresses, and makes what is missing.
    pub async fn routing_to(&self, hooks: &OurHooks, label: &str) -> Result<Routing, CarrierError> {
        if label.len() < SHORTEST_NAME {
            return Err(CarrierError::NotAskable("a name at Telnyx has at least three characters"));
        }
        let application = self.our_application(hooks, label).await?;
        let mut routing = BTreeMap::from([
            (CONNECTION.to_owned(), Some(application)),
            (FORWARDING.to_owned(), None),
            (VOICE_URL.to_owned(), Some(hooks.voice.to_string())),
            (VOICE_FAILOVER_URL.to_owned(), Some(hooks.voice_fallback.to_string())),
        ]);
        if let Some(messages) = &hooks.messages {
            let profile = self.our_profile(messages, label).await?;
            routing.insert(PROFILE.to_owned(), Some(profile));
            routing.insert(MESSAGES_URL.to_owned(), Some(messages.to_string()));
        }
        Ok(Routing(routing))
    }

    async fn our_application(&self, hooks: &OurHooks, label: &str) -> Result<String, CarrierError> {
        let found = self.application_called(label).await?;
        if let Some(application) = &found
            && is_right(application, hooks)
        {
            return Ok(application.id.clone());
        }
        let mut wanted = json!({
            "application_name": label,
            "active": true,
            "webhook_event_url": hooks.voice,
            "webhook_event_failover_url": hooks.voice_fallback,
            "webhook_api_version": "2",
            "webhook_timeout_secs": WEBHOOK_TIMEOUT_S,
            "first_command_timeout": true,
            "first_command_timeout_secs": FIRST_COMMAND_TIMEOUT_S,
            "dtmf_type": "RFC 2833",
            "anchorsite_override": "Latency",
            "call_cost_in_webhooks": true,
        });
        let has_outbound = found.as_ref().is_some_and(has_outbound);
        if !has_outbound && let Some(outbound) = self.outbound_profile(label).await? {
            wanted["outbound"] = json!({ "outbound_voice_profile_id": outbound });
        }
        let Some(found) = found else { return self.make_application(label, &wanted).await };
        let url = self.url(&["call_control_applications", &found.id]);
        let application: Application = self.change(Area::Voice, Method::PATCH, url, &wanted).await?;
        Ok(application.id)
    }

    async fn make_application(&self, label: &str, wanted: &Value) -> Result<String, CarrierError> {
        let url = self.url(&["call_control_applications"]);
        match self.change::<Application>(Area::Voice, Method::POST, url, wanted).await {
            Ok(application) => Ok(application.id),
            Err(error) if is_duplicate(&error) => {
                self.application_called(label).await?.map(|application| application.id).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The application of exactly this name; of several the first, which every node agrees on.
    async fn application_called(&self, name: &str) -> Result<Option<Application>, CarrierError> {
        let mut url = self.url(&["call_control_applications"]);
        url.query_pairs_mut().append_pair("filter[application_name][contains]", name);
        let listed: Vec<Application> = self.list(Area::Voice, &url, MAX_PAGE_SIZE).await?;
        let ours = listed.into_iter().filter(|application| application.application_name == name);
        Ok(ours.min_by(|a, b| by_id(&a.id, &b.id)))
    }

    /// What allows an application to ring out, which a transfer needs too: ours, else any that is enabled, else a new one. Nothing if
    /// this key may not see to it: calls come in all the same.
    async fn outbound_profile(&self, label: &str) -> Result<Option<String>, CarrierError> {
        let mut url = self.url(&["outbound_voice_profiles"]);
        url.query_pairs_mut().append_pair("sort", "created_at");
        let listed: Option<Vec<OutboundProfile>> = known(self.list(Area::Voice, &url, MAX_PAGE_SIZE).await)?;
        let Some(listed) = listed else { return Ok(None) };
        let ours = listed.iter().find(|profile| profile.name == label);
        let any = || listed.iter().find(|profile| profile.enabled.unwrap_or(true));
        if let Some(profile) = ours.or_else(any) {
            return Ok(Some(profile.id.clone()));
        }
        let url = self.url(&["outbound_voice_profiles"]);
        let wanted = json!({ "name": label });
        let made = self.change::<OutboundProfile>(Area::Voice, Method::POST, url, &wanted).await;
        Ok(known(made)?.map(|profile| profile.id))
    }

    async fn our_profile(&self, messages: &Url, label: &str) -> Result<String, CarrierError> {
        let found = self.profile_called(label).await?;
        if let Some(profile) = &found
            && profile.webhook_url.as_deref() == Some(messages.as_str())
            && profile.webhook_failover_url.as_deref() == Some(messages.as_str())
            && profile.webhook_api_version.as_deref() == Some("2")
            && profile.enabled != Some(false)
        {
            return Ok(profile.id.clone());
        }
        let mut wanted = json!({
            "name": label,
            "enabled": true,
            "webhook_url": messages,
            "webhook_failover_url": messages,
            "webhook_api_version": "2",
        });
        if let Some(found) = found {
            let url = self.url(&["messaging_profiles", &found.id]);
            return Ok(self.change::<Profile>(Area::Messages, Method::PATCH, url, &wanted).await?.id);
        }
        wanted["whitelisted_destinations"] = json!(TEXTED_COUNTRIES);
        let url = self.url(&["messaging_profiles"]);
        match self.change::<Profile>(Area::Messages, Method::POST, url, &wanted).await {
            Ok(profile) => Ok(profile.id),
            Err(error) if is_duplicate(&error) => {
                self.profile_called(label).await?.map(|profile| profile.id).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn profile_called(&self, name: &str) -> Result<Option<Profile>, CarrierError> {
        let mut url = self.url(&["messaging_profiles"]);
        url.query_pairs_mut().append_pair("filter[name][eq]", name);
        let listed: Vec<Profile> = self.list(Area::Messages, &url, MAX_PAGE_SIZE).await?;
        let ours = listed.into_iter().filter(|profile| profile.name == name);
        Ok(ours.min_by(|a, b| by_id(&a.id, &b.id)))
    }
}

/// Ids of applications are numbers of growing length, older than 2^53 allows to read as such.
fn by_id(one: &str, other: &str) -> std::cmp::Ordering {
    (one.len(), one).cmp(&(other.len(), other))
}

fn is_right(application: &Application, hooks: &OurHooks) -> bool {
    application.webhook_event_url.as_deref() == Some(hooks.voice.as_str())
        && application.webhook_event_failover_url.as_deref() == Some(hooks.voice_fallback.as_str())
        && application.webhook_api_version.as_deref() == Some("2")
        && application.active != Some(false)
        && has_outbound(application)
}

fn has_outbound(application: &Application) -> bool {
    let outbound = application.outbound.as_ref().and_then(|o| o.outbound_voice_profile_id.as_deref());
    outbound.is_some_and(|id| !id.is_empty())
}

fn is_duplicate(error: &CarrierError) -> bool {
    matches!(error, CarrierError::Refused { code: DUPLICATE, .. })
}

#[derive(Deserialize)]
struct OutboundProfile {
    id: String,
    #[serde(default)]
    name: String,
    enabled: Option<bool>,
}
