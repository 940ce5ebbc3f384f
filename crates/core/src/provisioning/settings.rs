//! The settings of a number that say where its calls go, in the carrier's own words. Names mean nothing here; values are compared,
//! kept and given back.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Settings by name; `None` is set to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(pub BTreeMap<String, Option<String>>);

/// A setting that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The setting, as the carrier calls it.
    pub setting: String,
    /// What it should be.
    pub ours: Option<String>,
    /// What it is.
    pub theirs: Option<String>,
}

impl Settings {
    /// One setting.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Option::as_deref)
    }

    /// The settings as they may be shown, logged and audited, without others' passwords.
    #[must_use]
    pub fn shown(&self) -> Settings {
        let shown = |value: &Option<String>| value.as_deref().map(shown);
        Settings(self.0.iter().map(|(name, value)| (name.clone(), shown(value))).collect())
    }

    /// Where a number differs from what is set here; what is not named here cannot differ.
    pub fn differences(&self, there: &Settings) -> Vec<Difference> {
        let differs = |(name, ours): (&String, &Option<String>)| {
            let theirs = there.get(name);
            let difference =
                || Difference { setting: name.clone(), ours: ours.clone(), theirs: theirs.map(Into::into) };
            (ours.as_deref() != theirs).then(difference)
        };
        self.0.iter().filter_map(differs).collect()
    }

    /// Whether a number has all that is set here.
    pub fn hold(&self, there: &Settings) -> bool {
        self.0.iter().all(|(name, value)| there.get(name) == value.as_deref())
    }

    /// What a number is to be given back that was nobody's before: no address in it leads anywhere.
    #[must_use]
    pub fn emptied(&self) -> Settings {
        let empty = |value: &Option<String>| value.clone().filter(|value| !is_address(value));
        Settings(self.0.iter().map(|(name, value)| (name.clone(), empty(value))).collect())
    }

    /// Whether calls went to somebody with these settings, before `ours` took their place.
    pub fn led_elsewhere(&self, ours: &Settings) -> bool {
        ours.0.iter().any(|(name, our)| {
            self.get(name).is_some_and(|before| is_address(before) && Some(before) != our.as_deref())
        })
    }

    /// What must be set so that a number with `ours` is as it was `before`. What another hand has changed meanwhile is left to it; and
    /// as something that was emptied may win over what that hand has set, such settings are then left empty.
    pub(super) fn way_back(ours: &Settings, before: &Settings, there: &Settings) -> Settings {
        let stranger = |(name, our): (&String, &Option<String>)| {
            our.is_some() && there.get(name) != our.as_deref() && there.get(name) != before.get(name)
        };
        let touched_by_others = ours.0.iter().any(stranger);
        let still_ours = |(name, our): &(&String, &Option<String>)| {
            there.get(name) == our.as_deref()
                && before.get(name) != our.as_deref()
                && !(our.is_none() && touched_by_others)
        };
        let back = ours.0.iter().filter(still_ours);
        Settings(back.map(|(name, _)| (name.clone(), before.get(name).map(Into::into))).collect())
    }
}

impl Difference {
    /// The difference as it may be shown, without others' passwords.
    #[must_use]
    pub fn shown(self) -> Difference {
        let shown = |value: Option<String>| value.as_deref().map(shown);
        Difference { ours: shown(self.ours), theirs: shown(self.theirs), setting: self.setting }
    }
}

/// A setting's value without the user information of an address (RFC 3986 section 3.2.1): carriers take passwords there.
fn shown(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else { return value.into() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://***{}", &rest[at..]),
        None => value.into(),
    }
}

/// Whether a value says where and not how: a word of letters alone, such as a method, leads nowhere.
fn is_address(value: &str) -> bool {
    !value.bytes().all(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, Option<&str>)]) -> Settings {
        Settings(pairs.iter().map(|(name, value)| ((*name).into(), value.map(Into::into))).collect())
    }

    const OURS: &[(&str, Option<&str>)] =
        &[("voice_url", Some("https://ours/voice")), ("voice_method", Some("POST")), ("trunk", None)];

    #[test]
    fn what_was_set_before_is_given_back_and_what_others_set_is_left() {
        let ours = settings(OURS);
        let before =
            settings(&[("voice_url", Some("https://old")), ("voice_method", Some("GET")), ("trunk", None)]);
        let on_trunk =
            settings(&[("voice_url", None), ("voice_method", Some("POST")), ("trunk", Some("TK1"))]);
        let moved = settings(&[("voice_url", Some("https://third")), ("voice_method", Some("POST"))]);
        let back = |before: &Settings, there: &Settings| Settings::way_back(&ours, before, there);
        for (before, there, expected) in [
            (&before, &ours, &[("voice_method", Some("GET")), ("voice_url", Some("https://old"))][..]),
            (&on_trunk, &ours, &[("trunk", Some("TK1")), ("voice_url", None)]),
            (&before, &before, &[]),
            (&before, &moved, &[("voice_method", Some("GET"))]),
            // The trunk would win over the third party's address.
            (&on_trunk, &moved, &[]),
        ] {
            assert_eq!(back(before, there), settings(expected), "{before:?} {there:?}");
        }
    }

    #[test]
    fn only_addresses_lead_somewhere() {
        let ours = settings(OURS);
        assert_eq!(
            ours.emptied(),
            settings(&[("voice_url", None), ("voice_method", Some("POST")), ("trunk", None)])
        );
        assert!(!settings(&[("voice_method", Some("GET"))]).led_elsewhere(&ours));
        assert!(settings(&[("voice_url", Some("https://old"))]).led_elsewhere(&ours));
        assert!(settings(&[("trunk", Some("TK1"))]).led_elsewhere(&ours));
        assert!(!ours.led_elsewhere(&ours));
        let unnamed = settings(&[("sms_url", Some("https://old"))]);
        assert!(!unnamed.led_elsewhere(&ours), "what we do not set stays as it is");
    }

    #[test]
    fn passwords_in_addresses_are_not_shown() {
        for (value, expected) in [
            ("https://user:pass@old.example/voice?a=b@c", "https://***@old.example/voice?a=b@c"),
            ("https://user:p@ss@old.example", "https://***@old.example"),
            ("https://old.example/@voice", "https://old.example/@voice"),
            ("https://old.example?user=a@b", "https://old.example?user=a@b"),
            ("POST", "POST"),
        ] {
            let settings = settings(&[("voice_url", Some(value)), ("trunk", None)]);
            assert_eq!(settings.shown().get("voice_url"), Some(expected));
            assert_eq!(settings.shown().0["trunk"], None);
            let difference =
                Difference { setting: "voice_url".into(), ours: None, theirs: Some(value.into()) };
            assert_eq!(difference.shown().theirs.as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_difference_names_both_sides() {
        let there = settings(&[("voice_url", Some("https://third")), ("voice_method", Some("POST"))]);
        let difference = Difference {
            setting: "voice_url".into(),
            ours: Some("https://ours/voice".into()),
            theirs: Some("https://third".into()),
        };
        assert_eq!(settings(OURS).differences(&there), [difference]);
        assert!(!settings(OURS).hold(&there) && settings(OURS).hold(&settings(OURS)));
    }
}
