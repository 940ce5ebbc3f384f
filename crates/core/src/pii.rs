//! Wrappers that redact secrets and personal data by default. They know nothing of logs: Debug and Display never show the value.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A credential: shown as `[secret]` by `Debug` and `Display`, and refused by `Serialize` on purpose.
#[derive(Clone, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a credential.
    pub const fn new(value: T) -> Self {
        Secret(value)
    }

    /// The credential itself: every call of this is a place to review.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl Secret<String> {
    /// A form that can be shown to its owner: the last four characters of a long secret, nothing of a short one.
    pub fn masked(&self) -> String {
        const SHOWN: usize = 4;
        const LONG: usize = 12;
        let length = self.0.chars().count();
        if length < LONG {
            return "••••".into();
        }
        let tail: String = self.0.chars().skip(length - SHOWN).collect();
        format!("••••{tail}")
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Personal data (speech, digits, numbers, names): shown as `[pii]` by `Debug` and `Display`, stored and sent as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pii<T>(T);

impl<T> Pii<T> {
    /// Wraps personal data.
    pub const fn new(value: T) -> Self {
        Pii(value)
    }

    /// The data itself.
    pub const fn expose(&self) -> &T {
        &self.0
    }

    /// Takes the data out of its wrapper.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> From<T> for Pii<T> {
    fn from(value: T) -> Self {
        Pii(value)
    }
}

impl<T> fmt::Debug for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[pii]")
    }
}

impl<T> fmt::Display for Pii<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[pii]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown_by_accident() {
        let token = Secret::new("0123456789abcdef".to_string());
        assert_eq!(format!("{token:?} {token} {}", token.masked()), "[secret] [secret] ••••cdef");
        assert_eq!(Secret::new("short".to_string()).masked(), "••••");
        let words = Pii::new("my card is 4111");
        assert_eq!(format!("{words:?} {words}"), "[pii] [pii]");
        assert_eq!(serde_json::to_string(&words).unwrap(), r#""my card is 4111""#);
    }
}
