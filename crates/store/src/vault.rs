//! Seals credentials with AES-256-GCM before they reach a row, each bound to the row it is for. It does not know what they open.

use crate::environment::Environment;
use crate::error::VaultError;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use offhook_core::Secret;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const KEY_ID_BYTES: usize = 4;

/// The keys that credentials are sealed with: one seals, all open.
pub struct Vault {
    current: String,
    ciphers: BTreeMap<String, Aes256Gcm>,
}

/// A key of 32 bytes.
#[derive(Clone)]
pub struct VaultKey(Secret<[u8; KEY_BYTES]>);

/// A credential as it stands in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub key_id: String,
    pub blob: Vec<u8>,
}

impl Vault {
    /// A vault that seals and opens with one key.
    pub fn new(key: &VaultKey) -> Self {
        let current = key.id();
        Vault { ciphers: BTreeMap::from([(current.clone(), key.cipher())]), current }
    }

    /// The vault that also opens what an earlier key has sealed.
    #[must_use]
    pub fn with_earlier(mut self, key: &VaultKey) -> Self {
        self.ciphers.insert(key.id(), key.cipher());
        self
    }

    /// Reads keys as they stand in a key file, one a line: the first seals, the others open what they have sealed before.
    pub fn parse(text: &Secret<String>) -> Result<Self, VaultError> {
        let keys = VaultKey::read_all(text)?;
        let (current, earlier) = keys.split_first().ok_or(VaultError::NotAKey)?;
        Ok(earlier.iter().fold(Vault::new(current), Vault::with_earlier))
    }

    /// The fingerprints of all keys.
    pub(crate) fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.ciphers.keys().map(String::as_str)
    }

    /// The fingerprint of the key that seals.
    pub fn key_id(&self) -> &str {
        &self.current
    }

    pub(crate) fn seal(&self, environment: &dyn Environment, row: &str, secret: &Secret<String>) -> Sealed {
        let mut blob = vec![0; NONCE_BYTES];
        environment.fill(&mut blob);
        let payload = Payload { msg: secret.expose().as_bytes(), aad: row.as_bytes() };
        let nonce = Nonce::try_from(&blob[..]).expect("it was made with 12 bytes");
        let cipher = self.ciphers.get(&self.current).expect("new() put it there");
        let sealed = cipher.encrypt(&nonce, payload).expect("only texts of 64 GiB are refused");
        blob.extend_from_slice(&sealed);
        Sealed { key_id: self.current.clone(), blob }
    }

    pub(crate) fn open(&self, row: &str, sealed: &Sealed) -> Result<Secret<String>, VaultError> {
        let cipher = self
            .ciphers
            .get(&sealed.key_id)
            .ok_or_else(|| VaultError::UnknownKey { key_id: sealed.key_id.clone() })?;
        let not_ours = || VaultError::NotOurs { key_id: sealed.key_id.clone() };
        let (nonce, text) = sealed.blob.split_at_checked(NONCE_BYTES).ok_or_else(not_ours)?;
        let nonce = Nonce::try_from(nonce).map_err(|_| not_ours())?;
        let opened =
            cipher.decrypt(&nonce, Payload { msg: text, aad: row.as_bytes() }).map_err(|_| not_ours())?;
        String::from_utf8(opened).map(Secret::new).map_err(|_| not_ours())
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("keys", &self.ciphers.keys()).finish_non_exhaustive()
    }
}

impl VaultKey {
    /// The key of these bytes.
    pub const fn new(bytes: [u8; KEY_BYTES]) -> Self {
        VaultKey(Secret::new(bytes))
    }

    /// A new key that nobody can guess.
    pub fn make(environment: &dyn Environment) -> Self {
        let mut bytes = [0; KEY_BYTES];
        environment.fill(&mut bytes);
        VaultKey::new(bytes)
    }

    /// The key as it stands in a key file: 64 hexadecimal digits.
    pub fn text(&self) -> Secret<String> {
        Secret::new(hex(self.0.expose()))
    }

    /// The keys of a key file, one a line.
    pub fn read_all(text: &Secret<String>) -> Result<Vec<Self>, VaultError> {
        let lines = text.expose().lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(VaultKey::parse).collect()
    }

    fn parse(digits: &str) -> Result<Self, VaultError> {
        let digits = digits.as_bytes();
        if digits.len() != 2 * KEY_BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(VaultError::NotAKey);
        }
        let mut bytes = [0; KEY_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).expect("hexadecimal digits are ASCII");
            *byte = u8::from_str_radix(pair, 16).expect("two hexadecimal digits fit a byte");
        }
        Ok(VaultKey::new(bytes))
    }

    /// The key's fingerprint, which is stored beside what it sealed: it tells keys apart and gives none of them away.
    pub fn id(&self) -> String {
        hex(&Sha256::digest(self.0.expose())[..KEY_ID_BYTES])
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(self.0.expose().into())
    }
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultKey({})", self.id())
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::system_environment;

    fn token() -> Secret<String> {
        Secret::new("0123456789abcdef".into())
    }

    #[test]
    fn a_credential_opens_only_for_its_row_and_unchanged() {
        let vault = Vault::new(&VaultKey::new([7; 32]));
        let sealed = vault.seal(&*system_environment(), "con_a", &token());
        assert_eq!(vault.open("con_a", &sealed).unwrap(), token());
        assert!(!sealed.blob.windows(4).any(|part| part == b"0123"), "the text stands in the blob");
        let not_ours = Err(VaultError::NotOurs { key_id: sealed.key_id.clone() });
        assert_eq!(vault.open("con_b", &sealed), not_ours);
        for i in 0..sealed.blob.len() {
            let mut changed = sealed.clone();
            changed.blob[i] ^= 1;
            assert_eq!(vault.open("con_a", &changed), not_ours, "byte {i}");
        }
        let cut = Sealed { blob: vec![1, 2, 3], ..sealed };
        assert_eq!(vault.open("con_a", &cut), not_ours);
    }

    #[test]
    fn an_earlier_key_opens_and_a_missing_one_is_named() {
        let (old, new) = (VaultKey::new([1; 32]), VaultKey::new([2; 32]));
        let sealed = Vault::new(&old).seal(&*system_environment(), "con_a", &token());
        let refused = Vault::new(&new).open("con_a", &sealed);
        assert_eq!(refused, Err(VaultError::UnknownKey { key_id: old.id() }));
        assert_eq!(Vault::new(&new).with_earlier(&old).open("con_a", &sealed).unwrap(), token());
    }

    #[test]
    fn the_first_key_of_a_file_seals_and_all_open() {
        let (old, new) = (VaultKey::new([1; 32]), VaultKey::new([2; 32]));
        let sealed = Vault::new(&old).seal(&*system_environment(), "con_a", &token());
        let file = Secret::new(format!("{}\n\n  {}\n", new.text().expose(), old.text().expose()));
        let vault = Vault::parse(&file).unwrap();
        assert_eq!(vault.key_id(), new.id());
        assert_eq!(vault.open("con_a", &sealed).unwrap(), token());
        for bad in ["", "\n", "too short", &format!("{}\nand a comment", new.text().expose())] {
            assert_eq!(Vault::parse(&Secret::new(bad.into())).unwrap_err(), VaultError::NotAKey, "{bad}");
        }
    }
}
