//! Languages as BCP 47 tags, as far as telephone speech needs them. It does not know what each provider calls them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A language with an optional region or script, such as `en-US`, `de` or `zh-Hant`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Language(Box<str>);

/// Why a text is no language.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a language is written as a BCP 47 tag such as en, en-US or zh-Hant")]
pub struct NotALanguage;

impl Language {
    /// American English, the default everywhere.
    pub fn english() -> Self {
        Language("en-US".into())
    }

    /// The whole tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The language alone, in lower case: `en` of `en-US`.
    pub fn primary(&self) -> &str {
        self.0.split('-').next().unwrap_or(&self.0)
    }
}

impl TryFrom<String> for Language {
    type Error = NotALanguage;

    fn try_from(text: String) -> Result<Self, NotALanguage> {
        let mut parts = text.split('-');
        let primary = parts.next().unwrap_or_default();
        let shape = (2..=3).contains(&primary.len())
            && primary.bytes().all(|b| b.is_ascii_lowercase())
            && parts.all(|p| (2..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric()));
        if shape { Ok(Language(text.into())) } else { Err(NotALanguage) }
    }
}

impl std::str::FromStr for Language {
    type Err = NotALanguage;

    fn from_str(text: &str) -> Result<Self, NotALanguage> {
        text.to_owned().try_into()
    }
}

impl From<Language> for String {
    fn from(language: Language) -> String {
        language.0.into()
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_checked_for_shape() {
        assert_eq!("zh-Hant".parse::<Language>().unwrap().primary(), "zh");
        for bad in ["", "E", "EN-us", "en_US", "en-", "english-language-of-the-realm"] {
            assert_eq!(bad.parse::<Language>(), Err(NotALanguage), "{bad}");
        }
    }
}
