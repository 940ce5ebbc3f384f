//! What stands between a carrier and the server of its customer. It knows addresses only.

/// A proxy in front of the server: what is asked of the public address, and signed for it, arrives at the one behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `https://phone.example.com`, perhaps with a path that the proxy takes away.
    pub public: String,
    /// `http://127.0.0.1:8080`
    pub behind: String,
}

impl Proxy {
    /// Where a request to this URL arrives: behind the proxy if it is its own, else where it says.
    pub(super) fn passes_on(&self, url: &str) -> String {
        let websocket = |address: &str| address.replacen("http", "ws", 1);
        let (public, behind) = (self.public.trim_end_matches('/'), self.behind.trim_end_matches('/'));
        let ways = [(public.to_owned(), behind.to_owned()), (websocket(public), websocket(behind))];
        let passed = ways.iter().find_map(|(public, behind)| {
            let rest = url.strip_prefix(public.as_str())?;
            rest.starts_with('/').then(|| format!("{behind}{rest}"))
        });
        passed.unwrap_or_else(|| url.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_passes_on_its_own_addresses_only() {
        let proxy =
            Proxy { public: "https://a.example/phone".into(), behind: "http://127.0.0.1:8080/".into() };
        for (asked, arrives) in [
            ("https://a.example/phone/hooks/voice?a=b", "http://127.0.0.1:8080/hooks/voice?a=b"),
            ("wss://a.example/phone/media", "ws://127.0.0.1:8080/media"),
            ("https://a.example/phones/hooks", "https://a.example/phones/hooks"),
            ("https://b.example/phone/hooks", "https://b.example/phone/hooks"),
        ] {
            assert_eq!(proxy.passes_on(asked), arrives);
        }
    }
}
