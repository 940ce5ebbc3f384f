//! The test of a Twilio connection: harmless requests, in the order in which they tell most (twilio.md, section 1).
//! Twilio says no more than "Authenticate" to a wrong id, a wrong token and a wrong region alike; which it is, is found by asking on.

use super::rest::{Credentials, Host, REGIONS, Twilio};
use crate::{Area, CarrierError, Verdict};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The areas that Offhook needs beside the account, each with a list that can be asked for.
const AREAS: [(Area, &str); 3] = [
    (Area::Numbers, "IncomingPhoneNumbers.json"),
    (Area::Voice, "Calls.json"),
    (Area::Messages, "Messages.json"),
];

impl Twilio {
    /// Tries what Offhook needs, changing nothing. An error means that the test itself could not be made.
    pub async fn check(&self) -> Result<Verdict, CarrierError> {
        let trial = match self.knock().await {
            Ok(trial) => trial,
            Err(error @ (CarrierError::WrongCredentials | CarrierError::NotFound)) => {
                return Ok(self.find_mistake(&error).await);
            }
            Err(error) => return verdict(error),
        };
        let left = match self.credentials() {
            Credentials::AuthToken(_) => &AREAS[..],
            Credentials::ApiKey { .. } => &AREAS[1..],
        };
        for (area, list) in left {
            match self.look_into(*area, list).await {
                Ok(()) => {}
                // They were right a moment ago.
                Err(CarrierError::WrongCredentials) => return Ok(Verdict::MissingPermission(*area)),
                Err(error) => return verdict(error),
            }
        }
        Ok(Verdict::Ok { trial })
    }

    /// The first request: whether the credentials open the account, and whether it is on trial where they may see that.
    async fn knock(&self) -> Result<Option<bool>, CarrierError> {
        match self.credentials() {
            Credentials::AuthToken(_) => {
                let url = self.endpoint(&[&format!("{}.json", self.account())]);
                let account: AccountResource = self.read(Area::Account, url).await?;
                match account.status.as_str() {
                    "suspended" => Err(CarrierError::Suspended),
                    "closed" => Err(CarrierError::Closed),
                    _ => Ok(Some(account.kind == "Trial")),
                }
            }
            // A standard API key may not see the account, right as it is.
            Credentials::ApiKey { .. } => self.look_into(AREAS[0].0, AREAS[0].1).await.map(|()| None),
        }
    }

    async fn look_into(&self, area: Area, list: &str) -> Result<(), CarrierError> {
        let mut url = self.endpoint(&[self.account(), list]);
        url.query_pairs_mut().append_pair("PageSize", "1");
        self.read::<IgnoredAny>(area, url).await.map(drop)
    }

    /// Which part of what the user gave is wrong, as far as Twilio lets it be known.
    async fn find_mistake(&self, refusal: &CarrierError) -> Verdict {
        if !self.credentials().could_be() {
            return Verdict::WrongSecret;
        }
        for region in REGIONS {
            if let Some(there) = self.in_region(region)
                && known(&there.knock().await)
            {
                return Verdict::WrongRegion(region);
            }
        }
        let is_known = match self.credentials() {
            // The id is a part of what was refused; only "not found" says that the rest was right.
            Credentials::AuthToken(_) => matches!(refusal, CarrierError::NotFound),
            Credentials::ApiKey { .. } => self.is_known_anywhere().await,
        };
        if is_known { Verdict::WrongAccount } else { Verdict::WrongCredentials }
    }

    /// Whether the credentials open a product whose pages name no account.
    async fn is_known_anywhere(&self) -> bool {
        let mut url = self.on(Host::Monitor, &["v1", "Alerts"]);
        url.query_pairs_mut().append_pair("PageSize", "1");
        known(&self.read::<IgnoredAny>(Area::Account, url).await)
    }
}

/// Whether who asked is known, though perhaps not allowed.
fn known<T>(answer: &Result<T, CarrierError>) -> bool {
    matches!(answer, Ok(_) | Err(CarrierError::MissingPermission { .. }))
}

fn verdict(error: CarrierError) -> Result<Verdict, CarrierError> {
    match error {
        CarrierError::Unreachable { .. } => Ok(Verdict::Unreachable),
        CarrierError::WrongCredentials | CarrierError::NotFound => Ok(Verdict::WrongCredentials),
        CarrierError::Suspended => Ok(Verdict::Suspended),
        CarrierError::Closed => Ok(Verdict::Closed),
        CarrierError::MissingPermission { area } => Ok(Verdict::MissingPermission(area)),
        other => Err(other),
    }
}

#[derive(Deserialize)]
struct AccountResource {
    status: String,
    #[serde(rename = "type", default)]
    kind: String,
}
