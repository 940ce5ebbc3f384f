//! Small helpers to read providers' JSON without copying it. They know no message of any provider.

use serde::Deserialize;
use std::borrow::Cow;
use std::ops::Deref;

/// Text of a JSON frame, borrowed from it unless it holds escapes. (A bare `Option<Cow<str>>` is always copied by serde.)
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    pub(crate) fn into_owned(self) -> String {
        self.0.into_owned()
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Seconds of a provider's clock as milliseconds; nonsense becomes zero or the largest number.
pub(crate) fn ms(seconds: f64) -> u32 {
    (seconds * 1_000.0).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        text: Option<Text<'a>>,
    }

    #[test]
    fn plain_text_is_borrowed_and_escaped_text_is_read() {
        let plain: Message = serde_json::from_str(r#"{"text":"grüß"}"#).unwrap();
        assert!(matches!(plain.text.unwrap().0, Cow::Borrowed("grüß")));
        let escaped: Message = serde_json::from_str(r#"{"text":"a\n"}"#).unwrap();
        assert_eq!(&*escaped.text.unwrap(), "a\n");
        assert!(serde_json::from_str::<Message>(r#"{"text":null}"#).unwrap().text.is_none());
    }

    #[test]
    fn impossible_times_do_not_wrap() {
        assert_eq!([ms(1.2345), ms(-3.0), ms(f64::NAN), ms(1e30)], [1_235, 0, 0, u32::MAX]);
    }
}
