//! The signature on Telnyx's webhooks: Ed25519 over `{timestamp}|{body}`, as their page on webhook signing defines it.
//! It knows neither sockets nor events.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};

/// The key pair of one account.
pub(super) struct Signer(Ed25519KeyPair);

impl Signer {
    pub(super) fn from_seed(seed: [u8; 32]) -> Signer {
        Signer(Ed25519KeyPair::from_seed_unchecked(&seed).expect("every 32 bytes are a seed"))
    }

    /// What the portal shows as the account's public key.
    pub(super) fn public_key(&self) -> String {
        STANDARD.encode(self.0.public_key())
    }

    /// The value of `Telnyx-Signature-Ed25519`.
    pub(super) fn sign(&self, timestamp_s: i64, body: &[u8]) -> String {
        let signed = [timestamp_s.to_string().as_bytes(), b"|", body].concat();
        STANDARD.encode(self.0.sign(&signed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vector_is_met() {
        let signer = Signer::from_seed(std::array::from_fn(|n| n as u8));
        assert_eq!(signer.public_key(), "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=");
        let body = br#"{"data":{"event_type":"call.initiated"},"meta":{"attempt":1}}"#;
        assert_eq!(
            signer.sign(1_700_000_000, body),
            "oWUTrNfcngOkU5dFWBWPt894ZrnuqoTYXIRWODEA/OyncYdSAUGhkCnfLqD2lLnulcR2eH/HQYSiRrX2wlQeBA=="
        );
    }
}
