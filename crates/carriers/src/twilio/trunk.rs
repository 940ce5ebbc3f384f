//! Elastic SIP Trunking: a trunk of the account that leads calls to our SIP user agent, and the numbers on it (twilio.md, section 16).
//! It sets trunks up and knows nothing of the calls that come over them. Every step looks first: done twice, it makes nothing twice.

use super::rest::{Host, Twilio};
use crate::http::Harm;
use crate::{Area, CarrierError};
use serde::Deserialize;
use std::borrow::Cow;
use url::Url;

/// How many trunks, addresses or numbers are asked for at once.
pub const TRUNKS_PAGE_SIZE: usize = 100;
/// The most trunks that are looked through for ours.
pub const MAX_TRUNKS: usize = 1_000;
/// The most addresses of one trunk that are looked through for ours.
pub const MAX_ORIGINATIONS: usize = 100;

/// A trunk as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkWish {
    /// Its name in the account, by which it is found again.
    pub name: String,
    /// Where its calls go: `sip:sip.offhook.example:5061;transport=tls`.
    pub uri: String,
    /// Calls come over TLS and with SRTP, and no others do.
    pub secure: bool,
    /// Calls may be handed over with REFER, to telephones too.
    pub transfers: bool,
    /// Our page that is asked what to do with a call when no SIP address answers.
    pub recovery: Option<Url>,
}

/// A trunk of the account as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trunk {
    /// Twilio's id of it: what a number's `trunk_sid` names.
    pub id: String,
    /// Its name in the account.
    pub name: String,
    /// Calls come over TLS and with SRTP, and no others do.
    pub secure: bool,
    /// Calls may be handed over with REFER, to telephones too.
    pub transfers: bool,
    /// The page that is asked when no SIP address answers.
    pub recovery: Option<String>,
    /// Where its calls go, in no order.
    pub originations: Vec<Origination>,
}

/// An address that a trunk's calls go to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Origination {
    /// Twilio's id of it.
    #[serde(rename = "sid")]
    pub id: String,
    /// Its name in the trunk.
    #[serde(rename = "friendly_name", default)]
    pub name: String,
    /// The SIP address.
    #[serde(rename = "sip_url")]
    pub uri: String,
    /// Which is tried first: the lowest.
    pub priority: u16,
    /// Its share of the calls among those of its priority.
    pub weight: u16,
    /// Whether calls go there at all.
    pub enabled: bool,
}

impl Twilio {
    /// Finds the trunk of this name or makes it, corrects what is not as wished, and returns it as it is then. Addresses that others
    /// have added to it stay.
    pub async fn trunk(&self, wish: &TrunkWish) -> Result<Trunk, CarrierError> {
        let trunk = match self.trunk_named(&wish.name).await? {
            Some(trunk) if trunk.is_as(wish) => trunk,
            Some(trunk) => self.write_trunk(&["v1", "Trunks", &trunk.sid], wish).await?,
            None => self.write_trunk(&["v1", "Trunks"], wish).await?,
        };
        let originations = self.originations(&trunk.sid).await?;
        let ours = originations.iter().find(|one| one.name == wish.name);
        let originations = match ours {
            Some(one) if one.uri == wish.uri && one.enabled => originations,
            Some(one) => {
                let form = [("SipUrl", Cow::from(&wish.uri)), ("Enabled", "true".into())];
                let path = ["v1", "Trunks", &trunk.sid, "OriginationUrls", &one.id];
                self.change(Area::Voice, self.on(Host::Trunking, &path), &form).await?;
                self.originations(&trunk.sid).await?
            }
            None => {
                let form = [
                    ("FriendlyName", Cow::from(&wish.name)),
                    ("SipUrl", Cow::from(&wish.uri)),
                    ("Priority", "10".into()),
                    ("Weight", "10".into()),
                    ("Enabled", "true".into()),
                ];
                let path = ["v1", "Trunks", &trunk.sid, "OriginationUrls"];
                self.change(Area::Voice, self.on(Host::Trunking, &path), &form).await?;
                self.originations(&trunk.sid).await?
            }
        };
        Ok(trunk.read(originations))
    }

    /// The trunk of this name, if there is one.
    pub async fn find_trunk(&self, name: &str) -> Result<Option<Trunk>, CarrierError> {
        let Some(trunk) = self.trunk_named(name).await? else { return Ok(None) };
        let originations = self.originations(&trunk.sid).await?;
        Ok(Some(trunk.read(originations)))
    }

    /// Whether a number's calls come over a trunk.
    pub async fn is_on_trunk(&self, trunk: &str, number: &str) -> Result<bool, CarrierError> {
        let url = self.on(Host::Trunking, &["v1", "Trunks", trunk, "PhoneNumbers", number]);
        match self.read::<TrunkNumber>(Area::Voice, url).await {
            Ok(number) => Ok(number.trunk_sid.as_deref() == Some(trunk)),
            Err(CarrierError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets a number's calls come over a trunk; from then on its own addresses are asked no more, and its TwiML app is gone.
    pub async fn attach_to_trunk(&self, trunk: &str, number: &str) -> Result<(), CarrierError> {
        if self.is_on_trunk(trunk, number).await? {
            return Ok(());
        }
        let url = self.on(Host::Trunking, &["v1", "Trunks", trunk, "PhoneNumbers"]);
        let body = self.change(Area::Voice, url, &[("PhoneNumberSid", number.into())]).await?;
        match serde_json::from_slice::<TrunkNumber>(&body) {
            Ok(now) if now.trunk_sid.as_deref() == Some(trunk) => Ok(()),
            _ => Err(Harm::Possible.unreadable()),
        }
    }

    /// Lets a number's calls come over this trunk no more.
    pub async fn detach_from_trunk(&self, trunk: &str, number: &str) -> Result<(), CarrierError> {
        if !self.is_on_trunk(trunk, number).await? {
            return Ok(());
        }
        let url = self.on(Host::Trunking, &["v1", "Trunks", trunk, "PhoneNumbers", number]);
        match self.delete(Area::Voice, url).await {
            Ok(()) | Err(CarrierError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes a trunk with its addresses; that it is gone already is no error. Numbers that were on it have none then.
    pub async fn remove_trunk(&self, trunk: &str) -> Result<(), CarrierError> {
        match self.delete(Area::Voice, self.on(Host::Trunking, &["v1", "Trunks", trunk])).await {
            Ok(()) | Err(CarrierError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn trunk_named(&self, name: &str) -> Result<Option<TrunkResource>, CarrierError> {
        let url = self.trunking_list(&["v1", "Trunks"]);
        let trunks: Vec<TrunkResource> =
            self.list(Area::Voice, Host::Trunking, url, "trunks", MAX_TRUNKS).await?;
        Ok(trunks.into_iter().find(|trunk| trunk.friendly_name.as_deref() == Some(name)))
    }

    async fn originations(&self, trunk: &str) -> Result<Vec<Origination>, CarrierError> {
        let url = self.trunking_list(&["v1", "Trunks", trunk, "OriginationUrls"]);
        self.list(Area::Voice, Host::Trunking, url, "origination_urls", MAX_ORIGINATIONS).await
    }

    fn trunking_list(&self, path: &[&str]) -> Url {
        let mut url = self.on(Host::Trunking, path);
        url.query_pairs_mut().append_pair("PageSize", &TRUNKS_PAGE_SIZE.to_string());
        url
    }

    async fn write_trunk(&self, path: &[&str], wish: &TrunkWish) -> Result<TrunkResource, CarrierError> {
        let form = [
            ("FriendlyName", Cow::from(&wish.name)),
            ("Secure", if wish.secure { "true" } else { "false" }.into()),
            ("TransferMode", if wish.transfers { TRANSFERS } else { "disable-all" }.into()),
            ("DisasterRecoveryUrl", wish.recovery.as_ref().map_or("", Url::as_str).into()),
            ("DisasterRecoveryMethod", "POST".into()),
        ];
        let body = self.change(Area::Voice, self.on(Host::Trunking, path), &form).await?;
        serde_json::from_slice(&body).map_err(|_| Harm::Possible.unreadable())
    }
}

const TRANSFERS: &str = "enable-all";

#[derive(Deserialize)]
struct TrunkResource {
    sid: String,
    friendly_name: Option<String>,
    #[serde(default)]
    secure: bool,
    transfer_mode: Option<String>,
    disaster_recovery_url: Option<String>,
}

impl TrunkResource {
    fn transfers(&self) -> bool {
        self.transfer_mode.as_deref() == Some(TRANSFERS)
    }

    fn recovery(&self) -> Option<&str> {
        self.disaster_recovery_url.as_deref().filter(|url| !url.is_empty())
    }

    fn is_as(&self, wish: &TrunkWish) -> bool {
        self.secure == wish.secure
            && self.transfers() == wish.transfers
            && self.recovery() == wish.recovery.as_ref().map(Url::as_str)
    }

    fn read(self, originations: Vec<Origination>) -> Trunk {
        Trunk {
            transfers: self.transfers(),
            recovery: self.recovery().map(Into::into),
            id: self.sid,
            name: self.friendly_name.unwrap_or_default(),
            secure: self.secure,
            originations,
        }
    }
}

#[derive(Deserialize)]
struct TrunkNumber {
    trunk_sid: Option<String>,
}
