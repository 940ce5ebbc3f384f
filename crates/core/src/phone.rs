//! Telephone numbers as E.164. It knows the shape of a number, not whether somebody owns it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A number such as `+14155550123`: a plus and 2 to 15 digits, the first not zero (ITU-T E.164).
///
/// `Display` shows the number because it is an address that users configure; in logs wrap it in [`crate::Pii`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct E164(Box<str>);

/// Why a text is no E.164 number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a telephone number is written in E.164, as +14155550123: a plus, then 2 to 15 digits that do not begin with 0"
)]
pub struct NotE164;

impl E164 {
    /// The number with its plus.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for E164 {
    type Err = NotE164;

    fn from_str(text: &str) -> Result<Self, NotE164> {
        let digits = text.strip_prefix('+').ok_or(NotE164)?;
        let shape = (2..=15).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|b| b.is_ascii_digit());
        if shape { Ok(E164(text.into())) } else { Err(NotE164) }
    }
}

impl TryFrom<String> for E164 {
    type Error = NotE164;

    fn try_from(text: String) -> Result<Self, NotE164> {
        text.parse()
    }
}

impl From<E164> for String {
    fn from(number: E164) -> String {
        number.0.into()
    }
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_e164_is_a_number() {
        for good in ["+14155550123", "+4930123456", "+266696687"] {
            assert_eq!(good.parse::<E164>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "+",
            "4155550123",
            "+0155",
            "+1415555012345678",
            "+1 415 555 0123",
            "+1٤155550123",
            "anonymous",
        ] {
            assert_eq!(bad.parse::<E164>(), Err(NotE164), "{bad}");
        }
    }
}
