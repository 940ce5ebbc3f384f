//! The test of a Twilio connection: harmless requests, in the order in which they tell most.

use super::rest::{Credentials, Twilio};
use crate::{Area, CarrierError, Verdict};
use serde::Deserialize;

impl Twilio {
    /// Tries what Offhook needs, changing nothing. An error means that the test itself could not be made.
    pub async fn check(&self) -> Result<Verdict, CarrierError> {
        match self.check_areas().await {
            Ok(trial) => Ok(Verdict::Ok { trial }),
            Err(CarrierError::Unreachable { .. }) => Ok(Verdict::Unreachable),
            Err(CarrierError::WrongCredentials | CarrierError::NotFound) => Ok(Verdict::WrongCredentials),
            Err(CarrierError::Suspended) => Ok(Verdict::Suspended),
            Err(CarrierError::Closed) => Ok(Verdict::Closed),
            Err(CarrierError::MissingPermission { area }) => Ok(Verdict::MissingPermission(area)),
            Err(other) => Err(other),
        }
    }

    async fn check_areas(&self) -> Result<Option<bool>, CarrierError> {
        let mut trial = None;
        // A standard API key may not see the account, right as it is.
        if let Credentials::AuthToken(_) = self.credentials() {
            let account: AccountResource =
                self.read(Area::Account, self.endpoint(&[&format!("{}.json", self.account())])).await?;
            match account.status.as_str() {
                "suspended" => return Err(CarrierError::Suspended),
                "closed" => return Err(CarrierError::Closed),
                _ => trial = Some(account.kind == "Trial"),
            }
        }
        for (area, list) in [
            (Area::Numbers, "IncomingPhoneNumbers.json"),
            (Area::Voice, "Calls.json"),
            (Area::Messages, "Messages.json"),
        ] {
            let mut url = self.endpoint(&[self.account(), list]);
            url.query_pairs_mut().append_pair("PageSize", "1");
            self.read::<serde::de::IgnoredAny>(area, url).await?;
        }
        Ok(trial)
    }
}

#[derive(Deserialize)]
struct AccountResource {
    status: String,
    #[serde(rename = "type", default)]
    kind: String,
}
