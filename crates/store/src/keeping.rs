//! The keys that a store seals and opens with while it runs, and the form of what is sealed in a connection's row: the secret, and for a
//! while the one before it. It does not know what either opens.

use crate::error::{StoreError, VaultError};
use crate::rows::connection;
use crate::vault::{Sealed, Vault};
use offhook_core::Secret;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// A secret that was replaced is believed so much longer: a carrier goes on signing with it until the new one is made the account's first.
pub const SECRET_OVERLAP_S: u32 = 3_600;
/// Begins a sealed text that holds more than a secret alone; no secret begins so.
const ENVELOPE: char = '\u{1}';

/// Reads the keys anew, as they are now; `None` where they cannot be read.
pub type ReadKeys = Arc<dyn Fn() -> Option<Vault> + Send + Sync>;

/// The keys of a running store. They can change under it: what is sealed with a key that is not known is tried again with the keys as
/// they are then.
#[derive(Clone)]
pub(crate) struct Keys {
    vault: Arc<RwLock<Arc<Vault>>>,
    read: Option<ReadKeys>,
}

impl Keys {
    pub fn new(vault: Vault) -> Self {
        Keys { vault: Arc::new(RwLock::new(Arc::new(vault))), read: None }
    }

    pub fn read_with(&mut self, read: ReadKeys) {
        self.read = Some(read);
    }

    pub fn vault(&self) -> Arc<Vault> {
        self.vault.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The keys as they are now, for sealing: a key that was given up must seal nothing more.
    fn present(&self) -> Arc<Vault> {
        let known = self.vault();
        match self.read.as_ref().and_then(|read| read()) {
            Some(fresh) if fresh.key_id() != known.key_id() => {
                let fresh = Arc::new(fresh);
                *self.vault.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
                fresh
            }
            _ => known,
        }
    }

    /// Opens with the keys that are known, or those that have come since.
    pub fn open(&self, row: &str, sealed: &Sealed) -> Result<Secret<String>, VaultError> {
        match self.vault().open(row, sealed) {
            Err(VaultError::UnknownKey { key_id }) => {
                let fresh = self.read.as_ref().and_then(|read| read());
                let Some(fresh) = fresh.filter(|vault| vault.key_ids().any(|id| id == key_id)) else {
                    return Err(VaultError::UnknownKey { key_id });
                };
                tracing::info!(
                    key = fresh.key_id(),
                    "The vault key was changed: credentials are sealed with the new one from now on"
                );
                let fresh = Arc::new(fresh);
                *self.vault.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
                fresh.open(row, sealed)
            }
            other => other,
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.vault().fmt(f)
    }
}

/// A connection's credentials as they are sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// What is used.
    pub secret: Secret<String>,
    /// What was used before, and until when it is believed, µs since 1970 UTC.
    pub earlier: Option<(Secret<String>, i64)>,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    secret: String,
    earlier: String,
    until_us: i64,
}

impl Kept {
    /// A secret that follows none.
    pub fn alone(secret: Secret<String>) -> Self {
        Kept { secret, earlier: None }
    }

    /// A secret that takes another's place; the one before is believed for [`SECRET_OVERLAP_S`].
    pub fn after(before: Option<Kept>, secret: Secret<String>, now_us: i64) -> Self {
        let earlier = before.map(|kept| kept.secret).filter(|before| *before != secret);
        let until_us = now_us + i64::from(SECRET_OVERLAP_S) * 1_000_000;
        Kept { secret, earlier: earlier.map(|before| (before, until_us)) }
    }

    /// The secret before this one, while it is believed.
    pub fn earlier_at(self, now_us: i64) -> Option<Secret<String>> {
        self.earlier.filter(|(_, until_us)| now_us < *until_us).map(|(secret, _)| secret)
    }

    /// The text that is sealed.
    pub fn text(&self) -> Secret<String> {
        let Some((earlier, until_us)) = &self.earlier else { return self.secret.clone() };
        let envelope = Envelope {
            secret: self.secret.expose().clone(),
            earlier: earlier.expose().clone(),
            until_us: *until_us,
        };
        let json = serde_json::to_string(&envelope).expect("texts and a number are JSON");
        Secret::new(format!("{ENVELOPE}{json}"))
    }

    /// Reads a text that was sealed.
    pub fn read(text: Secret<String>) -> Result<Self, StoreError> {
        let Some(json) = text.expose().strip_prefix(ENVELOPE) else { return Ok(Kept::alone(text)) };
        let envelope: Envelope = serde_json::from_str(json)
            // The parser's words could quote what it read.
            .map_err(|_| StoreError::corrupt("connection.secret", "its envelope is not ours"))?;
        Ok(Kept {
            secret: Secret::new(envelope.secret),
            earlier: Some((Secret::new(envelope.earlier), envelope.until_us)),
        })
    }
}

impl crate::Store {
    /// Reads the keys with this when a credential is sealed with one that is not known: they may be changed while the process runs.
    #[must_use]
    pub fn with_keys_from(mut self, read: ReadKeys) -> Self {
        self.keys.read_with(read);
        self
    }

    pub(crate) fn seal(&self, row: &str, kept: &Kept) -> Sealed {
        self.keys.present().seal(&*self.environment, row, &kept.text())
    }

    pub(crate) fn kept(&self, row: &connection::Model) -> Result<Option<Kept>, StoreError> {
        let (Some(blob), Some(key_id)) = (&row.secret, &row.secret_key_id) else { return Ok(None) };
        let sealed = Sealed { key_id: key_id.clone(), blob: blob.clone() };
        Kept::read(self.keys.open(&row.id, &sealed)?).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn the_secret_before_is_believed_for_a_while_and_no_longer() {
        const HOUR_US: i64 = SECRET_OVERLAP_S as i64 * 1_000_000;
        let first = Kept::read(secret("first")).unwrap();
        assert_eq!(first, Kept::alone(secret("first")));
        let second = Kept::read(Kept::after(Some(first), secret("second"), 0).text()).unwrap();
        assert_eq!(second.secret, secret("second"));
        assert_eq!(second.clone().earlier_at(HOUR_US - 1), Some(secret("first")));
        assert_eq!(second.clone().earlier_at(HOUR_US), None);
        let third = Kept::after(Some(second.clone()), secret("third"), 5);
        assert_eq!(third.earlier_at(6), Some(secret("second")), "one before, not all");
        let pasted_again = Kept::after(Some(second), secret("second"), 5);
        assert_eq!(pasted_again.earlier_at(6), None, "nothing was replaced");
    }

    #[test]
    fn what_is_not_ours_is_told_without_its_words() {
        let error = Kept::read(secret("\u{1}{\"secret\":7")).unwrap_err();
        assert!(!format!("{error:?}").contains('7'), "{error:?}");
    }
}
