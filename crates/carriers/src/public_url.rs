//! The address under which the world reaches us, as configured. It never looks at what a request claims about its own host.

use std::fmt;
use std::str::FromStr;
use url::{Position, Url};

/// The public base URL, such as `https://offhook.example` or `https://user:word@example.com/phone`.
///
/// A path in it is one that a proxy takes away before the request reaches us.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicUrl(Url);

/// Why a text is no public base URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public URL is written as https://host, with a path if need be, without query and fragment")]
pub struct NotAPublicUrl;

impl PublicUrl {
    /// The absolute URL of one of our pages.
    ///
    /// # Panics
    /// When the path does not begin with a slash: paths are ours, so that is a bug.
    pub fn page(&self, path: &str) -> Url {
        assert!(path.starts_with('/'), "a path begins with a slash");
        self.text_of(path).parse().expect("a base URL with a path behind it is a URL")
    }

    /// The absolute URL of one of our WebSockets: `wss` where pages are `https`.
    ///
    /// # Panics
    /// As [`PublicUrl::page`].
    pub fn websocket(&self, path: &str) -> Url {
        let mut url = self.page(path);
        let scheme = if self.0.scheme() == "https" { "wss" } else { "ws" };
        url.set_scheme(scheme).expect("http and ws are both special schemes");
        url
    }

    /// The URL of a request as its sender wrote it, from the path and query as they arrived.
    pub(crate) fn text_of(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.0.as_str().trim_end_matches('/'))
    }
}

impl FromStr for PublicUrl {
    type Err = NotAPublicUrl;

    fn from_str(text: &str) -> Result<Self, NotAPublicUrl> {
        let url: Url = text.trim().parse().map_err(|_| NotAPublicUrl)?;
        let web = matches!(url.scheme(), "http" | "https") && url.has_host();
        if web && url.query().is_none() && url.fragment().is_none() {
            Ok(PublicUrl(url))
        } else {
            Err(NotAPublicUrl)
        }
    }
}

impl fmt::Debug for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), &self.0[Position::BeforeHost..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_sockets_are_absolute() {
        let public: PublicUrl = "https://ada:word@offhook.example:8443/phone/".parse().unwrap();
        assert_eq!(public.page("/voice").as_str(), "https://ada:word@offhook.example:8443/phone/voice");
        assert_eq!(public.websocket("/media").as_str(), "wss://ada:word@offhook.example:8443/phone/media");
        assert_eq!(format!("{public:?}"), "https://offhook.example:8443/phone/");
        let local: PublicUrl = "http://127.0.0.1:8787".parse().unwrap();
        assert_eq!(local.websocket("/media").as_str(), "ws://127.0.0.1:8787/media");
    }

    #[test]
    fn only_a_web_address_is_public() {
        for bad in ["", "offhook.example", "ftp://offhook.example", "https://offhook.example?a=1", "https://"]
        {
            assert_eq!(bad.parse::<PublicUrl>(), Err(NotAPublicUrl), "{bad}");
        }
    }
}
