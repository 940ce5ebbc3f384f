//! The test of a Telnyx connection: harmless requests, in the order in which they tell most.

use super::rest::Telnyx;
use crate::{Area, CarrierError, Verdict};
use serde::de::IgnoredAny;

/// What Offhook needs to see, a list for each permission that a key can lack.
const AREAS: [(Area, &str); 4] = [
    (Area::Numbers, "phone_numbers"),
    (Area::Voice, "call_control_applications"),
    (Area::Voice, "outbound_voice_profiles"),
    (Area::Messages, "messaging_profiles"),
];

impl Telnyx {
    /// Tries what Offhook needs, changing nothing. An error means that the test itself could not be made.
    pub async fn check(&self) -> Result<Verdict, CarrierError> {
        match self.check_areas().await {
            Ok(()) => Ok(Verdict::Ok { trial: None }),
            Err(CarrierError::Unreachable { .. }) => Ok(Verdict::Unreachable),
            Err(CarrierError::WrongCredentials | CarrierError::NotFound) => Ok(Verdict::WrongCredentials),
            Err(CarrierError::Suspended) => Ok(Verdict::Suspended),
            Err(CarrierError::Closed) => Ok(Verdict::Closed),
            Err(CarrierError::MissingPermission { area }) => Ok(Verdict::MissingPermission(area)),
            Err(other) => Err(other),
        }
    }

    async fn check_areas(&self) -> Result<(), CarrierError> {
        match self.read::<IgnoredAny>(Area::Account, &self.url(&["balance"])).await {
            // The key is right; nothing of ours needs the balance.
            Ok(_) | Err(CarrierError::MissingPermission { .. }) => {}
            Err(error) => return Err(error),
        }
        for (area, list) in AREAS {
            self.list::<IgnoredAny>(area, &self.url(&[list]), 1).await?;
        }
        Ok(())
    }
}
