//! A call of ours: INVITE to one address after the other, challenges, ringing, and what came of it.

use super::SipError;
use super::agent::{Entry, Place, Shared};
use super::call::{Leg, SipCall};
use super::dialog::{Dialog, DialogKey, authorization, challenge, contact_uri, credentials};
use super::digest::Challenge;
use super::incoming::media_sources;
use super::media::MediaSide;
use super::message::{UriRef, list};
use super::outcome::{DialFailure, Outcome, is_worth_another_route};
use super::reading::{names, value, values};
use super::rtp::RtpLine;
use super::session_timer::{SessionTimer, invite_headers, min_se};
use super::trunk::{CallerId, Trunk, TrunkId};
use super::wire::{ALLOW, CONNECT_TIMEOUT, Hop, RequestLine, TRANSACTION_LIFE};
use offhook_core::{E164, Pii};
use rsipstack::sip::{Header, Method, Request, Response, SipMessage, Uri};
use rsipstack::transaction::random_text;
use rsipstack::transaction::transaction::Transaction;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// How long the other phone may ring where nothing else is asked for.
pub const USUAL_RING_TIMEOUT: Duration = Duration::from_secs(60);
/// The most redirections that are followed.
pub const MAX_REDIRECTS: usize = 3;
/// The most challenges that one call answers.
const MAX_CHALLENGES: usize = 3;
const ID_CHARS: usize = 24;

/// A call to be made.
#[derive(Clone, Debug)]
pub struct NewCall {
    /// The number to call.
    pub to: E164,
    /// The number that the other phone shows; none: the trunk's own.
    pub from: Option<E164>,
    /// The name that it shows.
    pub from_name: Option<Pii<String>>,
    /// The other phone shows no number (RFC 3323).
    pub withhold: bool,
    /// How long it may ring.
    pub ring_timeout: Duration,
    /// Headers that the trunk wants besides, such as `X-Telnyx-Token`.
    pub headers: Vec<(String, Pii<String>)>,
}

impl NewCall {
    /// A call from the trunk's own number.
    pub fn to(to: E164) -> Self {
        NewCall {
            to,
            from: None,
            from_name: None,
            withhold: false,
            ring_timeout: USUAL_RING_TIMEOUT,
            headers: Vec::new(),
        }
    }
}

/// A call that is being made; dropped, it is withdrawn.
#[derive(Debug)]
pub struct Dialling {
    progress: mpsc::Receiver<Progress>,
    /// Its going is the withdrawal.
    _wanted: oneshot::Sender<()>,
}

/// What becomes of a call of ours.
#[derive(Debug)]
pub enum Progress {
    /// The other phone rings.
    Ringing,
    /// Somebody picked up.
    Answered(SipCall, Box<RtpLine>),
    /// It did not come about.
    Failed(DialFailure),
}

impl Dialling {
    /// What happens next; after an answer or a failure nothing does.
    pub async fn next(&mut self) -> Progress {
        match self.progress.recv().await {
            Some(progress) => progress,
            None => Progress::Failed(DialFailure::of(Outcome::Failed)),
        }
    }

    /// Waits until somebody picks up.
    ///
    /// # Errors
    /// Nobody did.
    pub async fn answered(mut self) -> Result<(SipCall, RtpLine), DialFailure> {
        loop {
            match self.next().await {
                Progress::Ringing => {}
                Progress::Answered(call, line) => return Ok((call, *line)),
                Progress::Failed(failure) => return Err(failure),
            }
        }
    }
}

pub(super) async fn dial(shared: Arc<Shared>, id: &TrunkId, call: NewCall) -> Result<Dialling, SipError> {
    let (trunk, place) = shared.outbound_place(id)?;
    let targets = shared.wire.targets(id, &trunk.settings).await?;
    let first = targets.first().copied().ok_or(SipError::NoSuchHost)?;
    let address = shared.public_media.unwrap_or_else(|| shared.wire.local_address(first.ip()));
    let media = MediaSide::open(&shared.media, address, &trunk.settings, media_sources(&trunk));
    let media = media.map_err(SipError::NoPort)?;
    let (progress, told) = mpsc::channel(8);
    let (wanted, mut unwanted) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let attempt = Attempt::new(shared, trunk, call, media);
        let outcome = attempt.run(targets, place, &progress, &mut unwanted).await;
        // Nobody waits: an answered call is dropped, which hangs it up.
        _ = match outcome {
            Ok((call, line)) => progress.send(Progress::Answered(call, Box::new(line))).await,
            Err(failure) => progress.send(Progress::Failed(failure)).await,
        };
    });
    Ok(Dialling { progress: told, _wanted: wanted })
}

/// One call on its way.
struct Attempt {
    shared: Arc<Shared>,
    trunk: Arc<Trunk>,
    call: NewCall,
    media: MediaSide,
    sdp: Vec<u8>,
    call_id: String,
    tag: String,
    uri: String,
    sequence: u32,
    challenge: Option<(Challenge, bool)>,
    challenges: usize,
    redirects: usize,
    /// What a 422 demanded, seconds.
    least_session_s: Option<u32>,
    until: Instant,
}

/// What one INVITE led to.
enum Led {
    Answered(Box<(Response, Request)>),
    /// The next address may do better.
    Silence,
    Nobody,
    Withdrawn,
}

impl Attempt {
    fn new(shared: Arc<Shared>, trunk: Arc<Trunk>, call: NewCall, mut media: MediaSide) -> Self {
        let settings = &trunk.settings;
        let port = settings.port.map(|port| format!(":{port}")).unwrap_or_default();
        let uri = format!("sip:{}@{}{port}", call.to, bracketed(&settings.domain));
        Attempt {
            sdp: media.offer().into_bytes(),
            until: Instant::now() + call.ring_timeout,
            call_id: random_text(ID_CHARS),
            tag: random_text(ID_CHARS),
            sequence: 1,
            challenge: None,
            challenges: 0,
            redirects: 0,
            least_session_s: None,
            uri,
            shared,
            trunk,
            call,
            media,
        }
    }

    async fn run(
        mut self,
        targets: Vec<std::net::SocketAddr>,
        place: Place,
        progress: &mpsc::Sender<Progress>,
        unwanted: &mut oneshot::Receiver<()>,
    ) -> Result<(SipCall, RtpLine), DialFailure> {
        let key = DialogKey { call_id: self.call_id.clone(), local_tag: self.tag.clone() };
        let (entry, requests) = self.shared.enter(key);
        let mut failure = DialFailure::of(Outcome::Failed);
        let mut targets = targets.into_iter().peekable();
        while let Some(target) = targets.next() {
            let Ok(hop) = self.shared.wire.hop(target, &self.trunk.settings).await else { continue };
            let answered = loop {
                match self.invite(&hop, targets.peek().is_some(), progress, unwanted).await {
                    Led::Answered(answer) if !self.tries_again(&answer.0) => break Some(*answer),
                    Led::Answered(_) => self.sequence += 1,
                    Led::Silence => break None,
                    Led::Withdrawn => return Err(DialFailure::of(Outcome::Canceled)),
                    Led::Nobody => return Err(DialFailure::of(Outcome::NoAnswer)),
                }
            };
            let Some((response, invite)) = answered else {
                self.sequence += 1;
                continue;
            };
            let (status, text) = (response.status_code.code(), words(&response));
            if status < 300 {
                return self.connect(&invite, &response, hop, place, entry, requests);
            }
            failure = DialFailure::answered(status, &text);
            if !is_worth_another_route(status, &text) {
                break;
            }
            self.sequence += 1;
        }
        Err(failure)
    }

    /// Whether the answer tells how to ask again: a challenge, a longer session, another place.
    fn tries_again(&mut self, response: &Response) -> bool {
        let status = response.status_code.code();
        match status {
            401 | 407 => {
                let Some((new, proxy)) = challenge(response, &self.trunk) else { return false };
                // A second challenge that does not call the first answer stale says that it was wrong.
                if self.challenge.is_some() && !new.stale || self.challenges == MAX_CHALLENGES {
                    return false;
                }
                self.challenges += 1;
                self.challenge = Some((new, proxy));
                true
            }
            422 if self.least_session_s.is_none() => {
                self.least_session_s = Some(min_se(response));
                true
            }
            300..=399 if self.trunk.settings.follow_redirects && self.redirects < MAX_REDIRECTS => {
                self.redirects += 1;
                // Only the user is followed: the call stays at this trunk's host, whoever else is named.
                let user =
                    contact_uri(response).and_then(|uri| UriRef::read(&uri).map(|uri| uri.user.to_owned()));
                let Some(user) = user.filter(|user| !user.is_empty() && user.bytes().all(is_plain)) else {
                    return false;
                };
                let host = self.uri.rsplit_once('@').map_or("", |(_, host)| host);
                self.uri = format!("sip:{user}@{host}");
                true
            }
            _ => false,
        }
    }

    /// Sends one INVITE and waits for its final answer.
    async fn invite(
        &mut self,
        hop: &Hop,
        others: bool,
        progress: &mpsc::Sender<Progress>,
        unwanted: &mut oneshot::Receiver<()>,
    ) -> Led {
        let Some(invite) = self.build(hop) else { return Led::Silence };
        let Ok(mut tx) = self.shared.wire.begin(invite.clone(), hop).await else { return Led::Silence };
        let silent_at = Instant::now() + CONNECT_TIMEOUT;
        let mut provisional = false;
        loop {
            tokio::select! {
                message = tx.receive() => match message {
                    Some(SipMessage::Response(response)) if response.status_code.code() >= 200 => {
                        return Led::Answered(Box::new((response, invite)));
                    }
                    Some(SipMessage::Response(response)) => {
                        provisional = true;
                        if matches!(response.status_code.code(), 180..=183) {
                            // Full: it is known that it rings.
                            _ = progress.try_send(Progress::Ringing);
                        }
                        self.acknowledge(&invite, &response, hop);
                    }
                    Some(_) => {}
                    None => return Led::Silence,
                },
                () = tokio::time::sleep_until(silent_at), if others && !provisional => return Led::Silence,
                () = tokio::time::sleep_until(self.until) => {
                    tokio::spawn(self.withdrawal(tx, invite, hop.clone(), provisional));
                    return Led::Nobody;
                }
                _ = &mut *unwanted => {
                    tokio::spawn(self.withdrawal(tx, invite, hop.clone(), provisional));
                    return Led::Withdrawn;
                }
            }
        }
    }

    fn build(&mut self, hop: &Hop) -> Option<Request> {
        let (settings, call) = (&self.trunk.settings, &self.call);
        let wire = &self.shared.wire;
        let host = settings.from_host.as_deref().unwrap_or(&settings.domain);
        let account = settings.from_user.as_deref().or(settings.username.as_deref());
        let number = call.from.as_ref().map(E164::as_str);
        let user = match settings.caller_id {
            CallerId::From | CallerId::Both => settings.from_user.as_deref().or(number).or(account),
            CallerId::Asserted => account.or(number),
        };
        let user = user.unwrap_or("anonymous");
        let mut headers = vec![
            Header::Contact(
                format!("<{}>", wire.contact_uri(hop, settings.username.as_deref().unwrap_or("offhook")))
                    .into(),
            ),
            Header::Allow(ALLOW.into()),
        ];
        let name = call
            .from_name
            .as_ref()
            .map(|name| format!("\"{}\" ", quotable(name.expose())))
            .unwrap_or_default();
        let from = if call.withhold {
            headers.push(Header::Privacy("id".into()));
            format!("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag={}", self.tag)
        } else {
            format!("{name}<sip:{user}@{}>;tag={}", bracketed(host), self.tag)
        };
        if let Some(number) = number
            && settings.caller_id != CallerId::From
        {
            headers
                .push(Header::PAssertedIdentity(format!("{name}<sip:{number}@{}>", bracketed(host)).into()));
        }
        headers.extend(invite_headers(settings, self.least_session_s));
        for (name, value) in &call.headers {
            headers.push(Header::Other(quotable(name), quotable(value.expose())));
        }
        if let Some((challenge, proxy)) = &mut self.challenge
            && let Some(credentials) = credentials(&self.trunk)
        {
            headers.push(authorization(challenge, *proxy, &credentials, "INVITE", &self.uri));
        }
        let line = RequestLine {
            method: Method::Invite,
            uri: &Uri::try_from(self.uri.as_str()).ok()?,
            call_id: &self.call_id,
            from: &from,
            to: &format!("<{}>", self.uri),
            sequence: self.sequence,
        };
        Some(wire.request(line, hop, headers, Some(self.sdp.clone())))
    }

    /// Acknowledges a provisional answer whose sender wants to be sure of it (RFC 3262).
    fn acknowledge(&mut self, invite: &Request, response: &Response, hop: &Hop) {
        let Some(rseq) = value(response, "RSeq").filter(|_| names(response, "Require", "100rel")) else {
            return;
        };
        let acknowledged = format!("{rseq} {}", value(response, "CSeq").unwrap_or_default());
        let Some(dialog) =
            Dialog::calling(self.shared.wire.clone(), self.trunk.clone(), invite, response, hop.clone())
        else {
            return;
        };
        tokio::spawn(async move {
            let headers = vec![Header::RAck(acknowledged.into())];
            dialog.exchange(Method::PRack, headers, None).await
        });
    }

    /// Takes the INVITE back. Who picks up at the same moment is hung up on.
    fn withdrawal(
        &self,
        mut tx: Transaction,
        invite: Request,
        hop: Hop,
        provisional: bool,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (shared, trunk) = (self.shared.clone(), self.trunk.clone());
        async move {
            let mut cancelled = false;
            let give_up = tokio::time::sleep(TRANSACTION_LIFE);
            tokio::pin!(give_up);
            // Before a first sign of life a CANCEL could overtake its INVITE (RFC 3261, section 9.1).
            let mut may = provisional;
            loop {
                if may && !cancelled {
                    cancelled = true;
                    let (shared, cancel, hop) = (shared.clone(), cancel_of(&invite), hop.clone());
                    tokio::spawn(async move { shared.wire.exchange(cancel, &hop, TRANSACTION_LIFE).await });
                }
                tokio::select! {
                    message = tx.receive() => match message {
                        Some(SipMessage::Response(response)) => match response.status_code.code() {
                            100..=199 => may = true,
                            200..=299 => {
                                if let Some(dialog) = Dialog::calling(shared.wire.clone(), trunk, &invite, &response, hop) {
                                    // Whatever they say, it is over.
                                    _ = dialog.exchange(Method::Bye, Vec::new(), None).await;
                                }
                                return;
                            }
                            _ => return,
                        },
                        Some(_) => {}
                        None => return,
                    },
                    () = &mut give_up => return,
                }
            }
        }
    }

    fn connect(
        mut self,
        invite: &Request,
        response: &Response,
        hop: Hop,
        place: Place,
        entry: Entry,
        requests: mpsc::Receiver<Transaction>,
    ) -> Result<(SipCall, RtpLine), DialFailure> {
        let (shared, trunk) = (self.shared.clone(), self.trunk.clone());
        let Some(dialog) = Dialog::calling(shared.wire.clone(), trunk.clone(), invite, response, hop) else {
            return Err(DialFailure::of(Outcome::Failed));
        };
        let dialog = Arc::new(dialog);
        if self.media.accept(&response.body).is_err() || self.media.coding().is_none() {
            tokio::spawn(async move { dialog.exchange(Method::Bye, Vec::new(), None).await });
            return Err(DialFailure::of(Outcome::Media));
        }
        let timer = SessionTimer::for_response(response, &trunk.settings);
        let updates =
            values(response, "Allow").flat_map(list).any(|method| method.eq_ignore_ascii_case("UPDATE"));
        let leg = Leg::new(shared, trunk, place, dialog, entry, self.media, timer, updates);
        leg.connected(requests).ok_or_else(|| DialFailure::of(Outcome::Media))
    }
}

/// The CANCEL of an INVITE: its own `Via`, tags and number (RFC 3261, section 9.1).
fn cancel_of(invite: &Request) -> Request {
    let mut cancel = Request { method: Method::Cancel, body: Vec::new(), ..invite.clone() };
    cancel.headers.retain(|header| {
        matches!(
            header,
            Header::Via(_)
                | Header::From(_)
                | Header::To(_)
                | Header::CallId(_)
                | Header::Route(_)
                | Header::UserAgent(_)
        )
    });
    let number = value(invite, "CSeq").and_then(|cseq| cseq.split_whitespace().next()).unwrap_or_default();
    cancel.headers.push(Header::CSeq(format!("{number} CANCEL").into()));
    cancel.headers.push(Header::MaxForwards("70".into()));
    cancel.headers.push(Header::ContentLength(0.into()));
    cancel
}

/// What the far end says with its status: its own phrase, or a reason.
fn words(response: &Response) -> String {
    let phrase = response.wire_reason.clone().unwrap_or_else(|| response.status_code.text().to_owned());
    let (_, reason) = super::message::reason(values(response, "Reason"));
    reason.map_or(phrase.clone(), |reason| format!("{phrase}: {reason}"))
}

/// A text that can stand in quotes and ends no line.
fn quotable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && *c != '"' && *c != '\\').collect()
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// What may stand in a user part that is taken over from others.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-._*#".contains(&byte)
}
