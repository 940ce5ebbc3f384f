//! A call that comes in, from its INVITE to our final answer: what is refused at once, the ringing, the answer, and the race with
//! the caller who gives up.

use super::agent::{Entry, Place, Shared};
use super::call::{Ask, Leg, SipCall};
use super::dialog::{Dialog, DialogKey};
use super::digest::{OUR_REALM, Proof};
use super::media::MediaSide;
use super::message::list;
use super::reading::{self, Reading, names, value, values};
use super::rtp::RtpLine;
use super::session_timer::{SessionTimer, TooShort};
use super::trunk::{Network, Trunk, TrunkId};
use super::wire::{ALLOW, Hop, SUPPORTED, T1, T2, TRANSACTION_LIFE, Wire};
use super::{Rejection, SipError, SipEvent, SourceFilter};
use crate::Ring;
use offhook_core::{E164, Pii};
use offhook_media::coding::Coding;
use rsipstack::sip::{Header, Method, Request, SipMessage};
use rsipstack::transaction::random_text;
use rsipstack::transaction::transaction::Transaction;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// How long a call may ring before it is turned away.
pub const MAX_RINGING: Duration = Duration::from_secs(180);
/// When we ask to be tried again where we are full, seconds.
pub const RETRY_AFTER_S: u32 = 5;
/// How long the owner may take to say whose call it is.
const CHOICE_PATIENCE: Duration = Duration::from_secs(5);
const TAG_CHARS: usize = 12;

/// A call that waits for its answer. Dropped without one it is turned away as inactive.
pub struct Incoming {
    /// Over which trunk it came.
    pub trunk: TrunkId,
    /// Who calls whom.
    pub ring: Ring,
    /// The number that was called; none where an extension was.
    pub called: Option<E164>,
    /// The `X-…` headers, by name in lower case.
    pub attributes: BTreeMap<String, Pii<String>>,
    /// What the carrier attests of the caller's number.
    pub verstat: Option<String>,
    coding: Coding,
    asks: mpsc::Sender<Ask>,
    gone: watch::Receiver<bool>,
}

impl Incoming {
    /// What the audio will be.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Lets the caller hear it ring.
    pub fn ringing(&self) {
        // Full: the caller hears it already.
        _ = self.asks.try_send(Ask::Ringing);
    }

    /// Picks up. The sound flows when this returns.
    ///
    /// # Errors
    /// The caller gave up first, or asked without an offer and does not agree with ours.
    pub async fn answer(self) -> Result<(SipCall, RtpLine), SipError> {
        let (done, answered) = oneshot::channel();
        self.asks.send(Ask::Answer(done)).await.map_err(|_| SipError::CallOver)?;
        answered.await.unwrap_or(Err(SipError::CallOver))
    }

    /// Turns it away.
    pub fn reject(self, why: Rejection) {
        // Full only by ringing, which is taken at once: then the drop turns it away.
        _ = self.asks.try_send(Ask::Reject(why));
    }

    /// Returns when the caller has given up.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut gone = self.gone.clone();
        async move {
            // The sender gone means that the call has been answered or refused: then nobody gives up any more.
            if gone.wait_for(|gone| *gone).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("trunk", &self.trunk)
            .field("ring", &self.ring)
            .finish_non_exhaustive()
    }
}

/// Why an INVITE is refused before anybody hears of it.
struct Refusal(u16, Vec<Header>);

impl From<u16> for Refusal {
    fn from(status: u16) -> Self {
        Refusal(status, Vec::new())
    }
}

/// A call that several trunks may have brought: they have the same networks, and the call names none of them. Dropped without a
/// choice it is the likeliest one's.
#[derive(Debug)]
pub struct Contested {
    /// The trunks, the likeliest first, each with the number that is called in its way of reading.
    pub trunks: Vec<(TrunkId, Option<E164>)>,
    choice: oneshot::Sender<TrunkId>,
}

impl Contested {
    /// Says whose call it is; it rings there if that trunk's rules let it.
    pub fn choose(self, trunk: TrunkId) {
        // Who waited too long has chosen.
        _ = self.choice.send(trunk);
    }
}

/// The trunk that brought a call: the owner chooses where several may have.
async fn chosen(shared: &Shared, invite: &Request, trunks: &[Arc<Trunk>]) -> Option<Arc<Trunk>> {
    let open: Vec<_> = trunks
        .iter()
        .map(|trunk| (trunk, reading::read(invite, trunk).called))
        .filter(|(trunk, called)| takes(trunk, called.as_ref()))
        .collect();
    let likeliest = open.first().map(|(trunk, _)| *trunk).or(trunks.first()).cloned();
    if open.len() < 2 {
        return likeliest;
    }
    let (choice, chosen) = oneshot::channel();
    let named = open.iter().map(|(trunk, called)| (trunk.id.clone(), called.clone())).collect();
    if shared.events.try_send(SipEvent::Contested(Contested { trunks: named, choice })).is_err() {
        return likeliest;
    }
    match tokio::time::timeout(CHOICE_PATIENCE, chosen).await {
        Ok(Ok(id)) => trunks.iter().find(|trunk| trunk.id == id).cloned().or(likeliest),
        Ok(Err(_)) | Err(_) => likeliest,
    }
}

/// Whether a number is one that leads over this trunk.
fn takes(trunk: &Trunk, called: Option<&E164>) -> bool {
    let numbers = &trunk.settings.numbers;
    numbers.is_empty() || called.is_some_and(|number| numbers.contains(number))
}

/// Takes an INVITE that begins a call to its end.
pub(super) async fn invited(shared: Arc<Shared>, mut tx: Transaction, trunks: Vec<Arc<Trunk>>, hop: Hop) {
    _ = tx.send_trying().await;
    let Some(trunk) = chosen(&shared, &tx.original, &trunks).await else { return };
    match Ringing::begin(&shared, &tx, trunk, hop) {
        Ok((ringing, incoming)) => {
            // A full mailbox is an owner that is behind: another server may be quicker.
            match shared.events.try_send(SipEvent::Rings(incoming)) {
                Ok(()) => ringing.run(tx).await,
                Err(_) => refuse(&shared.wire, &mut tx, retry_later()).await,
            }
        }
        Err(refusal) => refuse(&shared.wire, &mut tx, refusal).await,
    }
}

fn retry_later() -> Refusal {
    Refusal(503, vec![Header::RetryAfter(RETRY_AFTER_S.to_string().into())])
}

async fn refuse(wire: &Wire, tx: &mut Transaction, Refusal(status, headers): Refusal) {
    wire.reply(tx, status, headers).await;
    // The transaction repeats it until the ACK is here.
    _ = tokio::time::timeout(TRANSACTION_LIFE, async { while tx.receive().await.is_some() {} }).await;
}

/// A call between INVITE and answer.
struct Ringing {
    shared: Arc<Shared>,
    trunk: Arc<Trunk>,
    place: Place,
    dialog: Arc<Dialog>,
    _entry: Entry,
    requests: mpsc::Receiver<Transaction>,
    asks: mpsc::Receiver<Ask>,
    ask: mpsc::WeakSender<Ask>,
    gone: watch::Sender<bool>,
    media: MediaSide,
    sdp: String,
    timer: Option<SessionTimer>,
    tag: String,
    reliable: Option<Reliable>,
    /// The peer wants to be sure that it hears us ring (RFC 3262).
    must_be_sure: bool,
}

/// A provisional answer that is repeated until its PRACK is here.
struct Reliable {
    sequence: u32,
    /// When it is repeated; not any more once its PRACK is here.
    at: Option<Instant>,
    pause: Duration,
    since: Instant,
}

impl Ringing {
    fn begin(
        shared: &Arc<Shared>,
        tx: &Transaction,
        trunk: Arc<Trunk>,
        hop: Hop,
    ) -> Result<(Self, Incoming), Refusal> {
        let invite = &tx.original;
        let (settings, wire) = (&trunk.settings, &shared.wire);
        check(invite)?;
        if settings.challenge_inbound {
            prove(shared, invite, &trunk)?;
        }
        let timer = SessionTimer::for_request(invite, settings)
            .map_err(|TooShort(least)| Refusal(422, vec![Header::MinSE(least.to_string().into())]))?;
        if let Some(seconds) = shared.draining() {
            return Err(Refusal(503, vec![Header::RetryAfter(seconds.to_string().into())]));
        }
        let Reading { ring, called, attributes, verstat } = reading::read(invite, &trunk);
        if !takes(&trunk, called.as_ref()) {
            return Err(404.into());
        }
        let place = shared.place(&trunk.id).ok_or_else(retry_later)?;

        let address = shared.public_media.unwrap_or_else(|| wire.local_address(hop.address.ip()));
        let mut media = MediaSide::open(&shared.media, address, settings, media_sources(&trunk))
            .map_err(|_| retry_later())?;
        let (sdp, coding) = if invite.body.is_empty() {
            media.offer_first_codec()
        } else {
            let sdp = media.answer(&invite.body).map_err(|error| Refusal::from(error.status()))?;
            (sdp, media.coding().ok_or(Refusal::from(488))?)
        };

        let tag = random_text(TAG_CHARS);
        let contact = wire.contact_uri(&hop, settings.username.as_deref().unwrap_or("offhook"));
        let dialog = Dialog::called(wire.clone(), trunk.clone(), invite, &tag, hop, contact)
            .ok_or(Refusal::from(400))?;
        let key = DialogKey { local_tag: tag.clone(), ..dialog.key() };
        let (entry, requests) = shared.enter(key);
        let (ask, asks) = mpsc::channel(4);
        let (gone, gone_seen) = watch::channel(false);
        let incoming = Incoming {
            trunk: trunk.id.clone(),
            ring,
            called,
            attributes,
            verstat,
            coding,
            asks: ask.clone(),
            gone: gone_seen,
        };
        let ringing = Ringing {
            shared: shared.clone(),
            trunk,
            place,
            dialog: Arc::new(dialog),
            _entry: entry,
            requests,
            asks,
            ask: ask.downgrade(),
            gone,
            media,
            sdp,
            timer,
            tag,
            reliable: None,
            must_be_sure: names(invite, "Require", "100rel"),
        };
        Ok((ringing, incoming))
    }

    async fn run(mut self, mut tx: Transaction) {
        let too_long = tokio::time::sleep(MAX_RINGING);
        tokio::pin!(too_long);
        loop {
            let repeat = self.reliable.as_ref().and_then(|reliable| reliable.at);
            tokio::select! {
                // First what the caller has done: who has given up is not to be answered.
                biased;
                message = tx.receive() => match message {
                    Some(SipMessage::Request(cancel)) if cancel.method == Method::Cancel => {
                        self.gone.send_replace(true);
                        return self.end(&mut tx, 487, Vec::new()).await;
                    }
                    Some(_) => {}
                    None => return,
                },
                Some(request) = self.requests.recv() => {
                    if self.early_request(request).await {
                        self.gone.send_replace(true);
                        return self.end(&mut tx, 487, Vec::new()).await;
                    }
                }
                ask = self.asks.recv() => match ask {
                    Some(Ask::Ringing) => self.ring(&mut tx).await,
                    Some(Ask::Answer(done)) => return self.pick_up(tx, done).await,
                    Some(Ask::Reject(why)) => {
                        let headers = match why {
                            Rejection::Draining { retry_after_s } => {
                                vec![Header::RetryAfter(retry_after_s.to_string().into())]
                            }
                            _ => Vec::new(),
                        };
                        return self.end(&mut tx, why.status(), headers).await;
                    }
                    // There is no call yet that these could be about.
                    Some(Ask::HangUp | Ask::Refer { .. }) => {}
                    None => return self.end(&mut tx, Rejection::Inactive.status(), Vec::new()).await,
                },
                () = until(repeat) => {
                    if !self.repeat(&mut tx).await {
                        return self.end(&mut tx, 504, Vec::new()).await;
                    }
                }
                () = &mut too_long => return self.end(&mut tx, Rejection::Inactive.status(), Vec::new()).await,
            }
        }
    }

    async fn ring(&mut self, tx: &mut Transaction) {
        let mut headers = self.headers();
        if self.must_be_sure {
            if self.reliable.is_some() {
                return;
            }
            let now = Instant::now();
            let reliable = Reliable { sequence: 1, at: Some(now + T1), pause: T1, since: now };
            headers.push(Header::Require("100rel".into()));
            headers.push(Header::RSeq(reliable.sequence.to_string().into()));
            self.reliable = Some(reliable);
        }
        let response = self.shared.wire.response(&tx.original, 180, &self.tag, headers, None);
        _ = tx.respond(response).await;
    }

    /// Repeats the ringing that was not acknowledged; false when that has taken too long.
    async fn repeat(&mut self, tx: &mut Transaction) -> bool {
        let Some(reliable) = &mut self.reliable else { return true };
        if reliable.since.elapsed() > TRANSACTION_LIFE {
            return false;
        }
        reliable.pause = (reliable.pause * 2).min(T2);
        reliable.at = Some(Instant::now() + reliable.pause);
        if let Some(last) = tx.last_response.clone() {
            _ = tx.respond(last).await;
        }
        true
    }

    /// A request inside the dialog before it is answered; true when it ends the call.
    async fn early_request(&mut self, mut tx: Transaction) -> bool {
        let status = match (self.dialog.accepts(&tx.original), tx.original.method) {
            (Err(status), _) => status,
            (Ok(()), Method::PRack) => {
                let acknowledged =
                    value(&tx.original, "RAck").and_then(|rack| rack.split_whitespace().next());
                match &mut self.reliable {
                    Some(reliable) if acknowledged == Some(reliable.sequence.to_string().as_str()) => {
                        reliable.at = None;
                        200
                    }
                    _ => 481,
                }
            }
            (Ok(()), Method::Bye) => {
                self.shared.wire.reply(&mut tx, 200, Vec::new()).await;
                return true;
            }
            (Ok(()), Method::Options) => 200,
            // An offer before the answer to the first one (RFC 3311, section 5.2).
            (Ok(()), Method::Update) if !tx.original.body.is_empty() => 491,
            (Ok(()), Method::Update) => 200,
            (Ok(()), Method::Refer) => 603,
            (Ok(()), _) => 405,
        };
        self.shared.wire.reply(&mut tx, status, vec![Header::Allow(ALLOW.into())]).await;
        false
    }

    async fn pick_up(
        mut self,
        mut tx: Transaction,
        done: oneshot::Sender<Result<(SipCall, RtpLine), SipError>>,
    ) {
        let mut headers = self.headers();
        headers.extend(self.timer.map(SessionTimer::response_headers).unwrap_or_default());
        let body = std::mem::take(&mut self.sdp).into_bytes();
        let response = self.shared.wire.response(&tx.original, 200, &self.tag, headers, Some(body));
        if tx.respond(response).await.is_err() {
            _ = done.send(Err(SipError::CallOver));
            return;
        }
        let Some(ask) = self.ask.upgrade().or_else(|| {
            // `answer` has taken the last sender with it; the call gets channels of its own.
            let (ask, asks) = mpsc::channel(4);
            self.asks = asks;
            Some(ask)
        }) else {
            return;
        };
        let peer_updates =
            values(&tx.original, "Allow").flat_map(list).any(|method| method.eq_ignore_ascii_case("UPDATE"));
        let leg = Leg::new(
            self.shared,
            self.trunk,
            self.place,
            self.dialog,
            self._entry,
            self.media,
            self.timer,
            peer_updates,
        );
        leg.answered(tx, self.requests, self.asks, ask, done).await;
    }

    async fn end(self, tx: &mut Transaction, status: u16, headers: Vec<Header>) {
        let (shared, tag) = (self.shared.clone(), self.tag.clone());
        // Whoever still holds the call learns now that it is over, not when the ACK is here.
        drop(self);
        let response = shared.wire.response(&tx.original, status, &tag, headers, None);
        if tx.respond(response).await.is_ok() {
            _ = tokio::time::timeout(TRANSACTION_LIFE, async { while tx.receive().await.is_some() {} }).await;
        }
    }

    fn headers(&self) -> Vec<Header> {
        vec![
            Header::Contact(format!("<{}>", self.dialog.contact).into()),
            Header::Allow(ALLOW.into()),
            Header::Supported(SUPPORTED.join(", ").into()),
        ]
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What any request that offers media must hold, and may not ask for.
fn check(request: &Request) -> Result<(), Refusal> {
    let unknown: Vec<&str> = values(request, "Require")
        .flat_map(list)
        .filter(|extension| !SUPPORTED.iter().any(|ours| ours.eq_ignore_ascii_case(extension)))
        .collect();
    if !unknown.is_empty() {
        return Err(Refusal(420, vec![Header::Unsupported(unknown.join(", ").into())]));
    }
    if !matches!(request.uri.scheme, Some(rsipstack::sip::Scheme::Sip | rsipstack::sip::Scheme::Sips))
        && !request.uri.to_string().starts_with("tel:")
    {
        return Err(416.into());
    }
    let content =
        value(request, "Content-Type").map(|content| content.split(';').next().unwrap_or_default().trim());
    let is_sdp = content.is_some_and(|content| content.eq_ignore_ascii_case("application/sdp"));
    if !request.body.is_empty() && !is_sdp
        || value(request, "Content-Encoding").is_some_and(|e| !e.eq_ignore_ascii_case("identity"))
    {
        return Err(Refusal(415, vec![Header::Accept("application/sdp".into())]));
    }
    Ok(())
}

/// Asks the caller for a proof, and judges it.
fn prove(shared: &Shared, invite: &Request, trunk: &Trunk) -> Result<(), Refusal> {
    let (Some(name), Some(password)) = (trunk.settings.username.as_deref(), trunk.password.as_ref()) else {
        return Err(403.into());
    };
    let proofs = values(invite, "Authorization").filter(|proof| proof.contains(OUR_REALM));
    let verdicts = proofs.map(|proof| shared.challenger.judge(proof, name, password, "INVITE"));
    // None at all is no proof yet; the best of several counts.
    let mut best = None;
    for verdict in verdicts {
        match verdict {
            Proof::Right => return Ok(()),
            Proof::Stale => best = Some(Proof::Stale),
            Proof::Wrong => best = best.or(Some(Proof::Wrong)),
        }
    }
    match best {
        Some(Proof::Wrong) => Err(403.into()),
        stale => {
            let challenges = shared.challenger.challenge(stale.is_some());
            Err(Refusal(401, challenges.into_iter().map(|c| Header::WwwAuthenticate(c.into())).collect()))
        }
    }
}

/// Whose audio packets may be believed beside those from the address in the SDP. A carrier's media come from elsewhere than its
/// signalling, so a trunk that names no networks for them believes anybody who finds the port.
pub(super) fn media_sources(trunk: &Trunk) -> SourceFilter {
    match trunk.settings.media_networks.as_slice() {
        [] => SourceFilter::anybody(),
        networks => SourceFilter::only(networks.iter().map(Network::parts)),
    }
}
