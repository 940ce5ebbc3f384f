//! A dialog (RFC 3261, section 12): what two ends must remember so that requests inside a call find each other.
//! It sends requests and answers challenges; what they mean is the call's affair.

use super::digest::{Challenge, Credentials};
use super::message::{NameAddr, list};
use super::reading::{value, values};
use super::trunk::Trunk;
use super::wire::{ALLOW, Hop, NoAnswer, RequestLine, TRANSACTION_LIFE, Wire};
use rsipstack::sip::{HasHeaders, Header, HeadersExt, Host, Method, Request, Response, Route, Uri};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// One end's memory of a dialog.
pub struct Dialog {
    wire: Arc<Wire>,
    trunk: Arc<Trunk>,
    call_id: String,
    /// Our address with our tag, as it stands in `From` of our requests.
    local: String,
    local_tag: String,
    /// Theirs.
    remote: String,
    remote_tag: Option<String>,
    /// Our own address for requests of theirs.
    pub contact: String,
    sequence: AtomicU32,
    routes: Vec<String>,
    way: Mutex<Way>,
}

struct Way {
    /// Where their `Contact` says they are.
    target: String,
    hop: Hop,
    /// The highest sequence number of a request of theirs.
    remote_sequence: Option<u32>,
    /// The challenge that our requests have answered.
    challenge: Option<(Challenge, bool)>,
}

impl Dialog {
    /// The dialog that an INVITE of theirs begins; `None` if it does not say where they are.
    pub fn called(
        wire: Arc<Wire>,
        trunk: Arc<Trunk>,
        invite: &Request,
        tag: &str,
        hop: Hop,
        contact: String,
    ) -> Option<Self> {
        let target = contact_uri(invite)?;
        let from = value(invite, "From")?;
        let to = value(invite, "To")?;
        Some(Dialog {
            wire,
            trunk,
            call_id: invite.call_id_header().ok()?.value().to_owned(),
            local: format!("{to};tag={tag}"),
            local_tag: tag.to_owned(),
            remote: from.to_owned(),
            remote_tag: tag_of(from),
            contact,
            sequence: AtomicU32::new(0),
            routes: values(invite, "Record-Route").flat_map(list).map(str::to_owned).collect(),
            way: Mutex::new(Way {
                target,
                hop,
                remote_sequence: invite.cseq_header().ok()?.seq().ok(),
                challenge: None,
            }),
        })
    }

    /// The dialog that an answer to our INVITE begins; `None` if it does not say where they are.
    pub fn calling(
        wire: Arc<Wire>,
        trunk: Arc<Trunk>,
        invite: &Request,
        answer: &Response,
        hop: Hop,
    ) -> Option<Self> {
        let from = value(invite, "From")?;
        let to = value(answer, "To")?;
        let mut routes: Vec<String> =
            values(answer, "Record-Route").flat_map(list).map(str::to_owned).collect();
        routes.reverse();
        Some(Dialog {
            wire,
            trunk,
            call_id: invite.call_id_header().ok()?.value().to_owned(),
            local: from.to_owned(),
            local_tag: tag_of(from)?,
            remote: to.to_owned(),
            remote_tag: tag_of(to),
            contact: value(invite, "Contact")?.trim_matches(['<', '>']).to_owned(),
            sequence: AtomicU32::new(invite.cseq_header().ok()?.seq().ok()?),
            routes,
            way: Mutex::new(Way {
                target: contact_uri(answer).unwrap_or_else(|| invite.uri.to_string()),
                hop,
                remote_sequence: None,
                challenge: None,
            }),
        })
    }

    /// What finds this dialog among all.
    pub fn key(&self) -> DialogKey {
        DialogKey { call_id: self.call_id.clone(), local_tag: self.local_tag.clone() }
    }

    /// Our tag.
    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    /// Whether a request belongs here by its tags, and comes after the last one. A retransmission is the transaction's.
    pub fn accepts(&self, request: &Request) -> Result<(), u16> {
        let tag = value(request, "From").and_then(tag_of);
        if tag != self.remote_tag {
            return Err(481);
        }
        let sequence = request.cseq_header().ok().and_then(|cseq| cseq.seq().ok());
        let mut way = self.way();
        match (sequence, way.remote_sequence) {
            (Some(new), Some(last)) if new < last => Err(500),
            (Some(new), _) => {
                way.remote_sequence = Some(new);
                Ok(())
            }
            (None, _) => Err(400),
        }
    }

    /// Notes where they are now, as requests that refresh the target say (RFC 3261, section 12.2.2).
    pub fn refresh_target<M: HasHeaders>(&self, message: &M, hop: Option<Hop>) {
        let mut way = self.way();
        if let Some(target) = contact_uri(message) {
            way.target = target;
        }
        if let Some(hop) = hop {
            way.hop = hop;
        }
    }

    /// Sends a request and waits for its final answer; a challenge is answered once.
    ///
    /// # Errors
    /// No answer came.
    pub async fn exchange(
        &self,
        method: Method,
        more: Vec<Header>,
        body: Option<Vec<u8>>,
    ) -> Result<Response, NoAnswer> {
        let mut tried = false;
        loop {
            let (request, hop) =
                self.request(method, more.clone(), body.clone()).await.ok_or(NoAnswer::Unreachable)?;
            let response = self.wire.exchange(request, &hop, TRANSACTION_LIFE).await?;
            if tried || !self.takes_challenge(&response) {
                return Ok(response);
            }
            tried = true;
        }
    }

    async fn request(
        &self,
        method: Method,
        more: Vec<Header>,
        body: Option<Vec<u8>>,
    ) -> Option<(Request, Hop)> {
        let (target, known, challenge) = {
            let way = self.way();
            (way.target.clone(), way.hop.clone(), way.challenge.clone())
        };
        let next = self
            .routes
            .first()
            .and_then(|route| NameAddr::read(route))
            .map(|route| route.uri.text.to_owned());
        let hop = self.wire.next_hop(next.as_deref().unwrap_or(&target), &known, &self.trunk).await;
        let uri = verbatim(&target)?;
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let mut headers: Vec<Header> =
            self.routes.iter().map(|route| Header::Route(Route::new(route.clone()))).collect();
        headers.push(Header::Contact(format!("<{}>", self.contact).into()));
        headers.push(Header::Allow(ALLOW.into()));
        headers.extend(more);
        if let Some((mut challenge, proxy)) = challenge
            && let Some(credentials) = credentials(&self.trunk)
        {
            headers.push(authorization(
                &mut challenge,
                proxy,
                &credentials,
                &method.to_string(),
                &uri.to_string(),
            ));
            self.way().challenge = Some((challenge, proxy));
        }
        let line = RequestLine {
            method,
            uri: &uri,
            call_id: &self.call_id,
            from: &self.local,
            to: &self.remote,
            sequence,
        };
        Some((self.wire.request(line, &hop, headers, body), hop))
    }

    fn takes_challenge(&self, response: &Response) -> bool {
        let taken = challenge(response, &self.trunk);
        let is_new = taken.is_some();
        if is_new {
            self.way().challenge = taken;
        }
        is_new
    }

    fn way(&self) -> std::sync::MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// An address for the first line of a request, written as it is: the library would escape the escapes in its user part, so that
/// part goes before the host.
fn verbatim(target: &str) -> Option<Uri> {
    let mut uri = Uri::try_from(target).ok()?;
    let (user, _) = target.split_once(':')?.1.rsplit_once('@').unwrap_or_default();
    if user.contains('%') {
        uri.auth = None;
        uri.host_with_port.host = Host::Domain(format!("{user}@{}", uri.host_with_port.host).into());
    }
    Some(uri)
}

/// What finds a dialog among all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DialogKey {
    /// The call's id.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
}

impl DialogKey {
    /// The dialog that a request of theirs is for.
    pub fn of(request: &Request) -> Option<Self> {
        let local_tag = value(request, "To").and_then(tag_of)?;
        Some(DialogKey { call_id: request.call_id_header().ok()?.value().to_owned(), local_tag })
    }
}

/// The tag in an address.
pub fn tag_of(address: &str) -> Option<String> {
    NameAddr::read(address)?.params.get("tag").filter(|tag| !tag.is_empty()).map(str::to_owned)
}

/// The URI in a message's `Contact`.
pub fn contact_uri<M: HasHeaders>(message: &M) -> Option<String> {
    let first = values(message, "Contact").flat_map(list).find_map(NameAddr::read)?;
    Some(first.uri.text.to_owned())
}

/// A trunk's name and password.
pub fn credentials(trunk: &Trunk) -> Option<Credentials<'_>> {
    let password = trunk.password.as_ref()?;
    Some(Credentials { name: trunk.settings.digest_name(), password, realm: trunk.settings.realm.as_deref() })
}

/// The challenge in a 401 or 407 that this trunk may answer, and whether a proxy asks.
pub fn challenge(response: &Response, trunk: &Trunk) -> Option<(Challenge, bool)> {
    let proxy = match response.status_code.code() {
        401 => false,
        407 => true,
        _ => return None,
    };
    let realm = credentials(trunk)?.realm;
    let header = if proxy { "Proxy-Authenticate" } else { "WWW-Authenticate" };
    Some((Challenge::strongest(values(response, header), realm)?, proxy))
}

/// The header that answers a challenge.
pub fn authorization(
    challenge: &mut Challenge,
    proxy: bool,
    credentials: &Credentials<'_>,
    method: &str,
    uri: &str,
) -> Header {
    let value = challenge.answer(credentials, method, uri);
    if proxy { Header::ProxyAuthorization(value.into()) } else { Header::Authorization(value.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_called_as_it_was_written() {
        for target in [
            "sip:ada@203.0.113.5:5070;transport=tcp;ob",
            "sip:a%40b@203.0.113.5:5070;x=y",
            "sip:203.0.113.5",
            "sip:%2b1415@[2001:db8::1]:5060",
        ] {
            assert_eq!(verbatim(target).unwrap().to_string().to_lowercase(), target);
        }
        assert!(verbatim("nowhere").is_none());
    }
}
