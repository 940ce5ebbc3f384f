//! Digest authentication on the carrier's side: challenges and how their answers are checked (RFC 7616, RFC 2617).
//! It knows one challenge at a time; who may ask what is decided elsewhere.

use md5::{Digest, Md5};
use sha2::Sha256;

use super::random_hex;

/// How passwords are hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// What every device can.
    #[default]
    Md5,
    /// RFC 7616.
    Sha256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        }
    }

    fn hash(self, text: &str) -> String {
        match self {
            Algorithm::Md5 => hex(&Md5::digest(text)),
            Algorithm::Sha256 => hex(&Sha256::digest(text)),
        }
    }
}

/// A challenge that was sent and waits for its answer.
#[derive(Clone, Debug)]
pub(super) struct Challenge {
    realm: String,
    nonce: String,
    algorithm: Algorithm,
}

impl Challenge {
    pub(super) fn new(realm: &str, algorithm: Algorithm) -> Challenge {
        Challenge { realm: realm.to_owned(), nonce: random_hex(), algorithm }
    }

    /// The value of `WWW-Authenticate` or `Proxy-Authenticate`.
    pub(super) fn header(&self, stale: bool) -> String {
        let stale = if stale { ", stale=true" } else { "" };
        format!(
            "Digest realm=\"{}\", nonce=\"{}\", qop=\"auth\", algorithm={}{stale}",
            self.realm,
            self.nonce,
            self.algorithm.name()
        )
    }

    /// Whether an answer is this user's: the value of `Authorization` or `Proxy-Authorization`.
    pub(super) fn accepts(&self, answer: &str, method: &str, user: &str, password: &str) -> bool {
        let Some(answer) = answer.strip_prefix("Digest ") else { return false };
        let value = |name: &str| field(answer, name).unwrap_or_default();
        let hash = |text: String| self.algorithm.hash(&text);
        let secret = hash(format!("{user}:{}:{password}", self.realm));
        let request = hash(format!("{method}:{}", value("uri")));
        let expected = match value("qop").as_str() {
            "auth" => {
                let (count, client) = (value("nc"), value("cnonce"));
                hash(format!("{secret}:{}:{count}:{client}:auth:{request}", self.nonce))
            }
            _ => hash(format!("{secret}:{}:{request}", self.nonce)),
        };
        value("username") == user
            && value("realm") == self.realm
            && value("nonce") == self.nonce
            && value("response") == expected
    }
}

/// A field of a header of digest authentication, without its quotes.
pub(super) fn field(header: &str, name: &str) -> Option<String> {
    header.trim_start_matches("Digest ").split(',').find_map(|pair| {
        let (known, value) = pair.split_once('=')?;
        known.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 2617 section 3.5, whose method is GET.
    #[test]
    fn the_published_example_is_accepted_and_no_other_password_is() {
        let challenge = Challenge {
            realm: "testrealm@host.com".into(),
            nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093".into(),
            algorithm: Algorithm::Md5,
        };
        let answer = "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", uri=\"/dir/index.html\", qop=auth, nc=00000001, cnonce=\"0a4f113b\", response=\"6629fae49393a05397450978507c4ef1\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        assert!(challenge.accepts(answer, "GET", "Mufasa", "Circle Of Life"));
        for (method, user, password) in [
            ("GET", "Mufasa", "wrong"),
            ("POST", "Mufasa", "Circle Of Life"),
            ("GET", "Scar", "Circle Of Life"),
        ] {
            assert!(!challenge.accepts(answer, method, user, password), "{method} {user} {password}");
        }
    }

    /// The example of RFC 7616 section 3.9.1.
    #[test]
    fn the_published_example_with_sha_256_is_accepted() {
        let challenge = Challenge {
            realm: "http-auth@example.org".into(),
            nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v".into(),
            algorithm: Algorithm::Sha256,
        };
        let answer = "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", algorithm=SHA-256, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, response=\"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1\"";
        assert!(challenge.accepts(answer, "GET", "Mufasa", "Circle of Life"));
    }
}
