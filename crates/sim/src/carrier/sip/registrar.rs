//! The registrar of a simulated carrier: challenges, grants, and the moods that registrars have (RFC 3261 section 10).
//! It answers one REGISTER at a time and keeps who is registered where.

use std::collections::BTreeMap;

use super::digest::{Algorithm, Challenge, field};
use super::message::{Message, parameter, uri_of, user_of};

/// Challenges that may wait for their answers.
const MAX_CHALLENGES: usize = 1_000;

/// Who may register, and for how long.
#[derive(Clone, Debug)]
pub struct RegistrarSettings {
    /// The realm of the challenges.
    pub realm: String,
    /// How passwords are hashed.
    pub algorithm: Algorithm,
    /// Users and their passwords.
    pub users: BTreeMap<String, String>,
    /// The longest time that is granted, seconds.
    pub grants_s: u32,
    /// A shorter time is refused with 423.
    pub least_s: u32,
    /// Every answer is a refusal with this status, whoever asks.
    pub refuses: Option<(u16, String)>,
    /// Every challenge is worth nothing the first time it is answered: `stale=true`.
    pub forgets_challenges: bool,
    /// REGISTER is never answered.
    pub is_lost: bool,
}

impl Default for RegistrarSettings {
    fn default() -> RegistrarSettings {
        RegistrarSettings {
            realm: "sip.example".into(),
            algorithm: Algorithm::default(),
            users: BTreeMap::new(),
            grants_s: 3_600,
            least_s: 0,
            refuses: None,
            forgets_challenges: false,
            is_lost: false,
        }
    }
}

/// A user who can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The URI that calls go to.
    pub contact: String,
    /// How long it was granted for, seconds.
    pub expires_s: u32,
    /// How often it was made or renewed.
    pub times: u32,
}

pub(super) struct Registrar {
    pub(super) settings: RegistrarSettings,
    pub(super) registered: BTreeMap<String, Registration>,
    challenges: Vec<Challenge>,
}

impl Registrar {
    pub(super) fn new(settings: RegistrarSettings) -> Registrar {
        Registrar { settings, registered: BTreeMap::new(), challenges: Vec::new() }
    }

    /// The answer to a REGISTER; nothing where the registrar is lost.
    pub(super) fn answer(&mut self, request: &Message) -> Option<Message> {
        if self.settings.is_lost {
            return None;
        }
        if let Some((status, reason)) = &self.settings.refuses {
            return Some(Message::answer(request, *status, reason));
        }
        let user = match self.admit(request, "Authorization") {
            Ok(user) => user,
            Err(stale) => {
                let challenge = self.challenge(stale);
                return Some(
                    Message::answer(request, 401, "Unauthorized").with("WWW-Authenticate", challenge),
                );
            }
        };
        if user_of(uri_of(request.header("To").unwrap_or_default())) != user {
            return Some(Message::answer(request, 403, "Forbidden"));
        }
        let Some(contact) = request.header("Contact") else {
            return Some(self.registered_at(request, &user));
        };
        let asked = parameter(contact, "expires").or(request.header("Expires"));
        let asked = asked.and_then(|seconds| seconds.parse().ok()).unwrap_or(self.settings.grants_s);
        if contact == "*" || asked == 0 {
            self.registered.remove(&user);
            return Some(Message::answer(request, 200, "OK"));
        }
        if asked < self.settings.least_s {
            let least = self.settings.least_s.to_string();
            return Some(Message::answer(request, 423, "Interval Too Brief").with("Min-Expires", least));
        }
        let times = self.registered.get(&user).map_or(0, |registration| registration.times) + 1;
        let expires_s = asked.min(self.settings.grants_s);
        let registration = Registration { contact: uri_of(contact).to_owned(), expires_s, times };
        self.registered.insert(user.clone(), registration);
        Some(self.registered_at(request, &user))
    }

    fn registered_at(&self, request: &Message, user: &str) -> Message {
        let answer = Message::answer(request, 200, "OK");
        match self.registered.get(user) {
            Some(Registration { contact, expires_s, .. }) => {
                answer.with("Contact", format!("<{contact}>;expires={expires_s}"))
            }
            None => answer,
        }
    }

    /// Whose credentials a request carries, if they are right; otherwise whether its challenge was only too old.
    pub(super) fn admit(&mut self, request: &Message, header: &str) -> Result<String, bool> {
        let Some(answer) = request.header(header) else { return Err(false) };
        let user = field(answer, "username").unwrap_or_default();
        let method = request.method().unwrap_or_default();
        let password = self.settings.users.get(&user).ok_or(false)?;
        let found = self.challenges.iter().position(|sent| sent.accepts(answer, method, &user, password));
        let index = found.ok_or(false)?;
        if self.settings.forgets_challenges {
            self.challenges.remove(index);
            self.settings.forgets_challenges = false;
            return Err(true);
        }
        Ok(user)
    }

    /// A new challenge.
    pub(super) fn challenge(&mut self, stale: bool) -> String {
        let challenge = Challenge::new(&self.settings.realm, self.settings.algorithm);
        let header = challenge.header(stale);
        if self.challenges.len() == MAX_CHALLENGES {
            self.challenges.remove(0);
        }
        self.challenges.push(challenge);
        header
    }
}
