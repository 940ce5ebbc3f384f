//! Telnyx's side of live calls: the account behind a connection, the pages of ours that Telnyx knows, and what it is told.
//! Telnyx tells what happens and asks nothing; each command is sent until it is taken or refused, which a repeat cannot harm.

use crate::app::{App, ticket};
use crate::call::registry::{Handle, Onward, Registry};
use crate::call::welcome::{SORRY, Welcome};
use crate::problem::chain;
use offhook_carriers::telnyx::media::MediaReader;
use offhook_carriers::telnyx::{ByteOrder, Rejection, StreamTo, Telnyx, Transfer, api_host};
use offhook_carriers::{CarrierError, PublicUrl};
use offhook_core::entity::Connection;
use offhook_core::{ConnectionId, E164, Language, Pii, Secret};
use offhook_media::coding::Coding;
use offhook_store::Environment;
use serde::Deserialize;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// Where Telnyx tells what happens to calls.
pub const VOICE: &str = "/hooks/telnyx/voice";
/// Where it opens media sockets, each call's below.
pub const MEDIA: &str = "/hooks/telnyx/media";
/// The name under which a ticket travels.
pub const TICKET: &str = "ticket";
/// How calls are coded: the widest that Telnyx has.
pub const CODING: Coding = Coding::WIDE;
/// How long after the media of a call is lost it is opened again: if the caller has hung up, that is told by then.
const REOPEN_AFTER: Duration = Duration::from_millis(250);
/// How often a command is sent that Telnyx may not have got, and how long apart. Telnyx ignores a repeat for 60 s.
const TRIES: u32 = 4;
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// How long an apology may sound before the call is ended.
const APOLOGY: Duration = Duration::from_secs(7);
/// How long a voice takes for one character at most.
const SPOKEN_CHARACTER: Duration = Duration::from_millis(100);
/// Callers who were put through that are remembered.
const FORWARDED_KEPT: usize = 4_096;
/// Digits of a command's id that keep it apart from another of its kind.
const COMMAND_DIGITS: usize = 16;

/// A Telnyx connection's settings beside its secret, the API key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelnyxConfig {
    /// The account's public key from Telnyx's portal, by which its webhooks are known: 32 bytes in Base64.
    pub public_key: String,
    /// Another address of the REST API: a proxy or a simulator.
    #[serde(default)]
    pub api_base: Option<String>,
    /// Which byte of a sample comes first in media.
    #[serde(default)]
    pub byte_order: ByteOrderSetting,
}

/// Which byte of a sample comes first: the documents do not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ByteOrderSetting {
    /// It is listened to.
    #[default]
    Auto,
    /// The low one.
    Le,
    /// The high one.
    Be,
}

impl TelnyxConfig {
    /// A connection's settings; `None` where they are none.
    pub fn of(connection: &Connection) -> Option<TelnyxConfig> {
        serde_json::from_value(connection.config.clone()).ok()
    }
}

/// The account that a connection leads to; `None` where its settings lead nowhere.
pub fn account(
    http: &reqwest::Client,
    config: &TelnyxConfig,
    secret: Option<&Secret<String>>,
) -> Option<Telnyx> {
    let base = match &config.api_base {
        Some(base) => base.parse().ok()?,
        None => api_host(),
    };
    Telnyx::new(http.clone(), base, secret?).ok()
}

/// What this process knows of Telnyx's lines beside the store.
#[derive(Debug, Default)]
pub struct TelnyxLines {
    byte_orders: Mutex<HashMap<ConnectionId, (ByteOrder, Settled)>>,
    /// Callers who were put through, the oldest first: their leg, and the account.
    forwarded: Mutex<VecDeque<(String, Arc<TelnyxControl>)>>,
}

/// How well a byte order is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    ByConfig,
    ByEar,
}

impl TelnyxLines {
    fn configured(&self, connection: &ConnectionId, setting: ByteOrderSetting) {
        let order = match setting {
            ByteOrderSetting::Le => ByteOrder::Little,
            ByteOrderSetting::Be => ByteOrder::Big,
            ByteOrderSetting::Auto => {
                let mut known = locked(&self.byte_orders);
                if known.get(connection).is_some_and(|(_, settled)| *settled == Settled::ByConfig) {
                    known.remove(connection);
                }
                return;
            }
        };
        locked(&self.byte_orders).insert(connection.clone(), (order, Settled::ByConfig));
    }

    /// The order that was found by listening to a line of this connection.
    pub fn heard(&self, connection: &ConnectionId, order: ByteOrder) {
        locked(&self.byte_orders).entry(connection.clone()).or_insert((order, Settled::ByEar)).0 = order;
    }

    /// A reader for a media socket of this connection.
    pub fn reader(&self, connection: &ConnectionId) -> MediaReader {
        match locked(&self.byte_orders).get(connection) {
            Some((order, Settled::ByConfig)) => MediaReader::knowing(*order),
            Some((order, Settled::ByEar)) => MediaReader::guessing(*order),
            None => MediaReader::new(),
        }
    }

    /// The caller who was put through by this leg, while it is remembered.
    pub fn forwarded(&self, carrier_call: &str) -> Option<Forwarded> {
        let forwarded = locked(&self.forwarded);
        let (call, control) = forwarded.iter().find(|(call, _)| call == carrier_call)?;
        Some(Forwarded { carrier_call: call.clone(), control: control.clone() })
    }

    fn remember(&self, carrier_call: &str, control: Arc<TelnyxControl>) {
        let mut forwarded = locked(&self.forwarded);
        if forwarded.len() == FORWARDED_KEPT {
            forwarded.pop_front();
        }
        forwarded.push_back((carrier_call.to_owned(), control));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A caller who was put through to another phone.
pub struct Forwarded {
    carrier_call: String,
    control: Arc<TelnyxControl>,
}

impl Forwarded {
    /// What Telnyx signs with for this account.
    pub fn signs_with(&self) -> Secret<String> {
        self.control.signs_with()
    }

    /// The other phone is done or did not pick up: Telnyx leaves the caller to us then, who have nothing more for them.
    pub fn is_over(self) {
        tokio::spawn(async move {
            if let Err(error) = self.control.hang_up(&self.carrier_call).await {
                let error = chain(&error);
                tracing::warn!(error, "A caller whose other phone is done could not be hung up on");
            }
        });
    }
}

/// An account whose calls are driven here.
pub struct TelnyxControl {
    account: Telnyx,
    config: TelnyxConfig,
    public_url: PublicUrl,
    lines: Arc<TelnyxLines>,
    registry: Arc<Registry>,
    environment: Arc<dyn Environment>,
}

impl std::fmt::Debug for TelnyxControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TelnyxControl").field("account", &self.account).finish_non_exhaustive()
    }
}

impl TelnyxControl {
    pub(super) fn open(
        app: &App,
        connection: &Connection,
        secret: Option<&Secret<String>>,
    ) -> Option<TelnyxControl> {
        let config = TelnyxConfig::of(connection)?;
        app.telnyx.configured(&connection.id, config.byte_order);
        Some(TelnyxControl {
            account: account(&app.http, &config, secret)?,
            config,
            public_url: app.public_url.clone(),
            lines: app.telnyx.clone(),
            registry: app.around.registry.clone(),
            environment: app.environment.clone(),
        })
    }

    pub(super) fn rouse_after(&self) -> Duration {
        REOPEN_AFTER
    }

    pub(super) fn signs_with(&self) -> Secret<String> {
        Secret::new(self.config.public_key.clone())
    }

    /// Has a media socket opened for a call that is driven here, with a ticket that is good once.
    pub(super) async fn media_again(&self, handle: &Arc<Handle>) -> Result<(), CarrierError> {
        let good_once = ticket(&*self.environment);
        self.registry.issue(&good_once, handle, Instant::now());
        let mut url = self.media();
        url.path_segments_mut().expect("our own URL has a path").push(&handle.id.to_string());
        url.query_pairs_mut().append_pair(TICKET, good_once.expose());
        let (to, command) = (StreamTo { url, coding: CODING }, self.command("stream"));
        insist(|| self.account.start_stream(&handle.carrier_call, &to, &command)).await
    }

    /// Leads a caller where they shall go.
    pub(super) async fn lead(self: &Arc<Self>, call: &str, welcome: &Welcome) -> Result<(), CarrierError> {
        match welcome {
            Welcome::Talk(_) => self.answer(call).await,
            Welcome::Hold => Ok(()),
            Welcome::Forward(to) => {
                self.be_answered(call).await?;
                self.put_through_or_end(call, to).await
            }
            Welcome::Busy => self.reject(call, Rejection::Busy).await,
            Welcome::Declined => self.reject(call, Rejection::Declined).await,
            Welcome::Sorry => self.tell(call, SORRY).await,
            Welcome::Message(text) => self.tell(call, text).await,
            Welcome::Over => self.hang_up(call).await,
        }
    }

    /// The caller hears this and is hung up on.
    async fn tell(&self, call: &str, text: &str) -> Result<(), CarrierError> {
        self.be_answered(call).await?;
        let (spoken, english) = (Pii::new(text.to_owned()), english());
        let mut tried = 0;
        loop {
            // A repeat of an id is ignored, and a call that was just answered refuses what comes too soon.
            let command = self.command("sorry");
            match insist(|| self.account.speak(call, &spoken, &english, &command)).await {
                Err(CarrierError::Refused { .. }) if tried < TRIES => tried += 1,
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "A caller could not be told why nobody talks to them"
                    );
                    return self.hang_up(call).await;
                }
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
        let takes = SPOKEN_CHARACTER.saturating_mul(text.chars().count().try_into().unwrap_or(u32::MAX));
        tokio::time::sleep(takes.max(APOLOGY)).await;
        self.hang_up(call).await
    }

    /// Ends our part of a call.
    pub(super) async fn end(self: &Arc<Self>, call: &str, onward: &Onward) -> Result<(), CarrierError> {
        match onward {
            Onward::Forward(to) => self.put_through_or_end(call, to).await,
            Onward::HangUp | Onward::MediaAgain => self.hang_up(call).await,
        }
    }

    pub(super) async fn press(&self, call: &str, digits: &str) -> Result<(), CarrierError> {
        let (keys, command) = (Pii::new(digits.to_owned()), self.command("press"));
        insist(|| self.account.press(call, &keys, &command)).await
    }

    /// Answers; the media is opened when Telnyx tells that the call is answered, as only then its rate can be asked for.
    async fn answer(&self, call: &str) -> Result<(), CarrierError> {
        let to = StreamTo { url: self.media(), coding: CODING };
        insist(|| self.account.answer(call, &to, None, "answer")).await
    }

    /// Answers a call that may have been answered before.
    async fn be_answered(&self, call: &str) -> Result<(), CarrierError> {
        match self.answer(call).await {
            Err(CarrierError::Refused { .. }) => Ok(()),
            answered => answered,
        }
    }

    /// Puts a caller through; one who cannot be is hung up on, not left in silence.
    async fn put_through_or_end(self: &Arc<Self>, call: &str, to: &E164) -> Result<(), CarrierError> {
        let put_through = self.put_through(call, to).await;
        if put_through.is_err() {
            self.hang_up(call).await?;
        }
        put_through
    }

    /// A call that was just answered takes no other command until that has happened: a refusal then is worth another try.
    async fn put_through(self: &Arc<Self>, call: &str, to: &E164) -> Result<(), CarrierError> {
        let transfer = Transfer {
            to: Pii::new(to.to_string()),
            from: None,
            ring_timeout_s: None,
            target_state: Some(format!("{FORWARDED}{call}")),
        };
        self.lines.remember(call, self.clone());
        let mut tried = 0;
        loop {
            let command = self.command("transfer");
            match insist(|| self.account.transfer(call, &transfer, &command)).await {
                Err(CarrierError::Refused { .. }) if tried < TRIES => tried += 1,
                done => return done,
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    async fn reject(&self, call: &str, why: Rejection) -> Result<(), CarrierError> {
        insist(|| self.account.reject(call, why, "reject")).await
    }

    async fn hang_up(&self, call: &str) -> Result<(), CarrierError> {
        insist(|| self.account.hang_up(call, "hang-up")).await
    }

    fn media(&self) -> Url {
        self.public_url.websocket(MEDIA)
    }

    /// An id that no other command on the call has. What is done to a call once has its name for one.
    fn command(&self, what: &str) -> String {
        let digits = ticket(&*self.environment);
        format!("{what}-{}", &digits.expose()[..COMMAND_DIGITS])
    }
}

/// How the other phone's leg of a forwarded call is known: this, and the caller's leg.
pub const FORWARDED: &str = "forwarded ";

/// The language of what we say when nobody can answer.
fn english() -> Language {
    "en-US".parse().expect("it is a language")
}

/// Sends a command until Telnyx has taken or refused it.
async fn insist<F>(send: impl Fn() -> F) -> Result<(), CarrierError>
where
    F: Future<Output = Result<(), CarrierError>>,
{
    let mut tried = 0;
    loop {
        tried += 1;
        match send().await {
            Err(
                CarrierError::Unreachable { .. }
                | CarrierError::OutcomeUnknown { .. }
                | CarrierError::RateLimited { .. },
            ) if tried < TRIES => tokio::time::sleep(TRY_AGAIN).await,
            done => return done,
        }
    }
}
