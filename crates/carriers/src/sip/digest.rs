//! Digest authentication (RFC 7616, RFC 8760) both ways: answering the challenges of registrars and carriers, and challenging
//! callers. It reads and writes header values and sends nothing.
//!
//! The library's own answers challenges too, but takes the first challenge whatever its realm and algorithm, answers
//! `auth-int`, and always counts 1; so the sums are done here.

use super::message::list;
use md5::Md5;
use offhook_core::Secret;
use rsipstack::transaction::random_text;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How long a nonce of ours may be used.
pub const NONCE_LIFE: Duration = Duration::from_secs(60);
/// How many of our nonces are remembered at once.
pub const MAX_NONCES: usize = 10_000;
const NONCE_CHARS: usize = 32;
/// The realm of our own challenges.
pub const OUR_REALM: &str = "offhook";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    fn read(name: Option<&str>) -> Option<Self> {
        match name {
            None => Some(Algorithm::Md5),
            Some(name) if name.eq_ignore_ascii_case("MD5") => Some(Algorithm::Md5),
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => Some(Algorithm::Sha256),
            Some(_) => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        }
    }

    fn hex(self, text: &str) -> String {
        let mut hex = String::with_capacity(64);
        let mut write = |bytes: &[u8]| bytes.iter().for_each(|byte| _ = write!(hex, "{byte:02x}"));
        match self {
            Algorithm::Md5 => write(&Md5::digest(text)),
            Algorithm::Sha256 => write(&Sha256::digest(text)),
        }
        hex
    }
}

/// The name and password that answer challenges.
#[derive(Clone, Debug)]
pub struct Credentials<'a> {
    /// The user name.
    pub name: &'a str,
    /// The password.
    pub password: &'a Secret<String>,
    /// The only realm that is answered; none: any.
    pub realm: Option<&'a str>,
}

/// A challenge that can be answered again and again, counting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: Algorithm,
    /// `qop=auth` is offered; without it the answer is as in RFC 2069.
    counted: bool,
    /// The answer before was right, its nonce is too old.
    pub stale: bool,
    count: u32,
}

impl Challenge {
    /// The strongest of the challenges that we can answer and may: another realm's, and those that want the body signed
    /// (`auth-int`), are left out.
    pub fn strongest<'a>(headers: impl Iterator<Item = &'a str>, realm: Option<&str>) -> Option<Self> {
        let challenges = headers.filter_map(Challenge::read);
        challenges.filter(|one| realm.is_none_or(|realm| realm == one.realm)).max_by_key(|one| one.algorithm)
    }

    fn read(header: &str) -> Option<Self> {
        let params = digest_params(header)?;
        let get = |name: &str| params.get(name).cloned();
        let counted = match get("qop") {
            None => false,
            Some(offered) => {
                offered.split(',').any(|qop| qop.trim().eq_ignore_ascii_case("auth")).then_some(true)?
            }
        };
        Some(Challenge {
            realm: get("realm")?,
            nonce: get("nonce")?,
            opaque: get("opaque"),
            algorithm: Algorithm::read(params.get("algorithm").map(String::as_str))?,
            counted,
            stale: get("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
            count: 0,
        })
    }

    /// The value of the header that answers for one request.
    pub fn answer(&mut self, credentials: &Credentials<'_>, method: &str, uri: &str) -> String {
        self.count += 1;
        let Challenge { realm, nonce, algorithm, .. } = &*self;
        let (count, cnonce) = (format!("{:08x}", self.count), random_text(NONCE_CHARS));
        let counted = self.counted.then_some((count.as_str(), cnonce.as_str()));
        let response =
            sum(*algorithm, credentials.name, credentials.password, realm, nonce, counted, method, uri);
        let mut header = format!(
            r#"Digest username="{}", realm="{}", nonce="{}", uri="{uri}", response="{response}", algorithm={}"#,
            quoted(credentials.name),
            quoted(realm),
            quoted(nonce),
            algorithm.name()
        );
        if let Some((count, cnonce)) = counted {
            _ = write!(header, r#", qop=auth, nc={count}, cnonce="{cnonce}""#);
        }
        if let Some(opaque) = &self.opaque {
            _ = write!(header, r#", opaque="{}""#, quoted(opaque));
        }
        header
    }
}

/// Our own challenges: each nonce lives a minute, and each of its counts is good once.
#[derive(Debug, Default)]
pub struct Challenger {
    nonces: Mutex<HashMap<String, Nonce>>,
}

#[derive(Debug)]
struct Nonce {
    issued: Instant,
    /// The highest count that was used.
    used: u32,
}

/// What an answer to our challenge is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// They know the password.
    Right,
    /// They would, but the nonce is no longer good: ask again with `stale`.
    Stale,
    /// They do not.
    Wrong,
}

impl Challenger {
    /// The values of `WWW-Authenticate` that ask for a proof, the strongest first (RFC 8760, section 2.4).
    pub fn challenge(&self, stale: bool) -> [String; 2] {
        let nonce = random_text(NONCE_CHARS);
        let now = Instant::now();
        let mut nonces = self.nonces.lock().unwrap_or_else(|e| e.into_inner());
        if nonces.len() >= MAX_NONCES {
            nonces.retain(|_, nonce| now.duration_since(nonce.issued) < NONCE_LIFE);
        }
        // When even that frees no place, this challenge cannot be answered and comes again as stale.
        if nonces.len() < MAX_NONCES {
            nonces.insert(nonce.clone(), Nonce { issued: now, used: 0 });
        }
        let stale = if stale { ", stale=true" } else { "" };
        [Algorithm::Sha256, Algorithm::Md5].map(|algorithm| {
            let algorithm = algorithm.name();
            format!(
                r#"Digest realm="{OUR_REALM}", nonce="{nonce}", algorithm={algorithm}, qop="auth"{stale}"#
            )
        })
    }

    /// Judges the value of an `Authorization` header.
    pub fn judge(&self, header: &str, name: &str, password: &Secret<String>, method: &str) -> Proof {
        let Some(params) = digest_params(header) else { return Proof::Wrong };
        let get = |name: &str| params.get(name).map(String::as_str).unwrap_or_default();
        let Some(algorithm) = Algorithm::read(params.get("algorithm").map(String::as_str)) else {
            return Proof::Wrong;
        };
        let Ok(count) = u32::from_str_radix(get("nc"), 16) else { return Proof::Wrong };
        if get("username") != name || get("realm") != OUR_REALM || !get("qop").eq_ignore_ascii_case("auth") {
            return Proof::Wrong;
        }
        let counted = Some((get("nc"), get("cnonce")));
        let right = sum(algorithm, name, password, OUR_REALM, get("nonce"), counted, method, get("uri"));
        if !same(&right, get("response")) {
            return Proof::Wrong;
        }
        let mut nonces = self.nonces.lock().unwrap_or_else(|e| e.into_inner());
        match nonces.get_mut(get("nonce")) {
            Some(nonce) if nonce.issued.elapsed() < NONCE_LIFE && count > nonce.used => {
                nonce.used = count;
                Proof::Right
            }
            _ => Proof::Stale,
        }
    }
}

/// The response of RFC 7616, section 3.4.1; without a count that of RFC 2069.
#[expect(clippy::too_many_arguments, reason = "they are the terms of one formula")]
fn sum(
    algorithm: Algorithm,
    name: &str,
    password: &Secret<String>,
    realm: &str,
    nonce: &str,
    counted: Option<(&str, &str)>,
    method: &str,
    uri: &str,
) -> String {
    let who = algorithm.hex(&format!("{name}:{realm}:{}", password.expose()));
    let what = algorithm.hex(&format!("{method}:{uri}"));
    match counted {
        Some((count, cnonce)) => algorithm.hex(&format!("{who}:{nonce}:{count}:{cnonce}:auth:{what}")),
        None => algorithm.hex(&format!("{who}:{nonce}:{what}")),
    }
}

/// Compares without telling by its duration how much is alike.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn digest_params(header: &str) -> Option<HashMap<String, String>> {
    let (scheme, rest) = header.trim().split_once(char::is_whitespace)?;
    if !scheme.eq_ignore_ascii_case("Digest") {
        return None;
    }
    let params = list(rest).filter_map(|param| {
        let (name, value) = param.split_once('=')?;
        let value = value.trim();
        let value = match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\\\"", "\"").replace("\\\\", "\\"),
            None => value.to_owned(),
        };
        Some((name.trim().to_ascii_lowercase(), value))
    });
    Some(params.collect())
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_rfc_s() {
        // RFC 7616, section 3.9.1: the same exchange in both algorithms.
        let password = Secret::new("Circle of Life".to_owned());
        let sum = |algorithm| {
            let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
            let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            let counted = Some(("00000001", cnonce));
            sum(
                algorithm,
                "Mufasa",
                &password,
                "http-auth@example.org",
                nonce,
                counted,
                "GET",
                "/dir/index.html",
            )
        };
        assert_eq!(sum(Algorithm::Md5), "8ca523f5e9506fed4657c9700eebdbec");
        assert_eq!(
            sum(Algorithm::Sha256),
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
        );
    }

    #[test]
    fn the_strongest_answerable_challenge_of_the_right_realm_is_taken() {
        let headers = [
            r#"Digest realm="a", nonce="n1", algorithm=MD5, qop="auth,auth-int""#,
            r#"Digest realm="a", nonce="n2", algorithm=SHA-256, qop="auth""#,
            r#"Digest realm="a", nonce="n3", algorithm=SHA-512-256, qop="auth""#,
            r#"Digest realm="b", nonce="n4", algorithm=SHA-256"#,
            r#"Basic realm="a""#,
        ];
        let taken = |headers: &[&str], realm| {
            Challenge::strongest(headers.iter().copied(), realm).map(|challenge| challenge.nonce)
        };
        assert_eq!(taken(&headers, Some("a")).as_deref(), Some("n2"));
        assert_eq!(taken(&headers[..1], None).as_deref(), Some("n1"));
        assert_eq!(taken(&headers, Some("c")), None);
        assert_eq!(taken(&[r#"Digest realm="a", nonce="n", qop="auth-int""#], None), None);
        assert_eq!(taken(&["Digest", "Digest nonce=\"n\"", ""], None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_proof_is_good_once_and_for_a_minute() {
        let (challenger, password) = (Challenger::default(), Secret::new("pass\"word".to_owned()));
        let credentials = Credentials { name: "100", password: &password, realm: None };
        let headers = challenger.challenge(false);
        let mut challenge = Challenge::strongest(headers.iter().map(String::as_str), None).unwrap();
        assert_eq!(challenge.algorithm, Algorithm::Sha256);
        let judge = |header: &str, method| challenger.judge(header, "100", &password, method);

        let answer = challenge.answer(&credentials, "INVITE", "sip:200@pbx");
        assert_eq!(judge(&answer, "INVITE"), Proof::Right);
        assert_eq!(judge(&answer, "INVITE"), Proof::Stale, "a replay");
        let next = challenge.answer(&credentials, "INVITE", "sip:200@pbx");
        assert_eq!(judge(&next, "BYE"), Proof::Wrong);
        assert_eq!(judge(&next.replace("response=\"", "response=\"0"), "INVITE"), Proof::Wrong);
        assert_eq!(judge(&next, "INVITE"), Proof::Right);
        let late = challenge.answer(&credentials, "INVITE", "sip:200@pbx");
        tokio::time::advance(NONCE_LIFE).await;
        assert_eq!(judge(&late, "INVITE"), Proof::Stale);
        for nonsense in ["", "Digest", "Basic x", "Digest nc=1", "Digest username=\"100"] {
            assert_eq!(judge(nonsense, "INVITE"), Proof::Wrong, "{nonsense}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn challenges_take_bounded_memory() {
        let challenger = Challenger::default();
        (0..MAX_NONCES + 100).for_each(|_| drop(challenger.challenge(false)));
        assert_eq!(challenger.nonces.lock().unwrap().len(), MAX_NONCES);
    }
}
