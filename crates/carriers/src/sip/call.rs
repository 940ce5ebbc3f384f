//! A call that was answered: what the far end asks inside it, what we ask, and how it ends.

use super::agent::{Entry, Place, Shared};
use super::dialog::Dialog;
use super::media::MediaSide;
use super::message::reason;
use super::reading::{value, values};
use super::rtp::{RtpControl, RtpLine};
use super::session_timer::{SessionTimer, TooShort, min_se};
use super::trunk::Trunk;
use super::wire::{ALLOW, NoAnswer, SUPPORTED, TRANSACTION_LIFE, Wire};
use super::{CallEnd, EndedBy, Rejection, SipError};
use offhook_core::{E164, Pii};
use rsipstack::sip::{Header, Method, Request, Response, SipMessage};
use rsipstack::transaction::random_text;
use rsipstack::transaction::transaction::Transaction;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// How long a far end that was asked to take the call elsewhere may say nothing about it.
pub const REFER_PATIENCE: Duration = Duration::from_secs(120);
/// How long an ACK may be behind the request that followed it.
const OVERTAKEN: Duration = Duration::from_millis(50);
/// Between a refresh that met the far end's own and the next one, at most (RFC 3261, section 14.1).
const MAX_GLARE_PAUSE: Duration = Duration::from_secs(2);

/// What is asked of a call's task.
pub enum Ask {
    Ringing,
    Answer(oneshot::Sender<Result<(SipCall, RtpLine), SipError>>),
    Reject(Rejection),
    HangUp,
    Refer { to: E164, done: oneshot::Sender<Result<(), SipError>> },
}

/// A call that was answered. When the last copy is dropped it is hung up.
#[derive(Clone, Debug)]
pub struct SipCall {
    asks: mpsc::Sender<Ask>,
    end: watch::Receiver<Option<CallEnd>>,
}

impl SipCall {
    /// Ends the call; returns when it is over. Its sound stops at once, but a far end that has not acknowledged our answer
    /// hears of it only when it does, or after 32 s.
    pub async fn hang_up(&self) {
        // It has ended when nobody takes this.
        _ = self.asks.send(Ask::HangUp).await;
        self.ended().await;
    }

    /// Asks the far end to call that number in our place, and waits until it says how that went: with success the call is
    /// over, without it goes on.
    ///
    /// # Errors
    /// The far end does not do that, or did not reach the number.
    pub async fn refer(&self, to: &E164) -> Result<(), SipError> {
        let (done, answered) = oneshot::channel();
        self.asks.send(Ask::Refer { to: to.clone(), done }).await.map_err(|_| SipError::CallOver)?;
        answered.await.unwrap_or(Err(SipError::CallOver))
    }

    /// Returns when the call is over, and how.
    pub async fn ended(&self) -> CallEnd {
        let mut end = self.end.clone();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or_else(|| CallEnd::by(EndedBy::Us)),
            Err(_) => CallEnd::by(EndedBy::Us),
        }
    }
}

/// What happens to a call from inside.
enum Inside {
    Acked { body: Vec<u8> },
    NeverAcked,
    Refreshed { by: Method, outcome: Result<Response, NoAnswer> },
    ReferAnswered(Result<Response, NoAnswer>),
}

/// One call's task.
pub struct Leg {
    shared: Arc<Shared>,
    trunk: Arc<Trunk>,
    place: Option<Place>,
    dialog: Arc<Dialog>,
    _entry: Entry,
    media: MediaSide,
    timer: Option<SessionTimer>,
    /// When the session must be refreshed, or ends.
    timer_at: Option<Instant>,
    refreshing: bool,
    refresh_by: Method,
    /// Our 200 to their INVITE waits for its ACK.
    unacked: bool,
    hanging_up: bool,
    referring: Option<Referring>,
    inside: mpsc::UnboundedSender<Inside>,
    insides: mpsc::UnboundedReceiver<Inside>,
}

struct Referring {
    done: oneshot::Sender<Result<(), SipError>>,
    until: Instant,
}

/// Whether a call goes on.
enum Then {
    GoOn,
    /// It is over, and the far end knows.
    Over(CallEnd),
    /// It is over, and the far end must be told.
    Leave(CallEnd),
}

impl Leg {
    #[expect(clippy::too_many_arguments, reason = "a call is made of these")]
    pub fn new(
        shared: Arc<Shared>,
        trunk: Arc<Trunk>,
        place: Place,
        dialog: Arc<Dialog>,
        entry: Entry,
        media: MediaSide,
        timer: Option<SessionTimer>,
        peer_updates: bool,
    ) -> Self {
        let (inside, insides) = mpsc::unbounded_channel();
        Leg {
            shared,
            trunk,
            place: Some(place),
            dialog,
            _entry: entry,
            media,
            timer,
            timer_at: timer.map(|timer| Instant::now() + timer.due()),
            refreshing: false,
            refresh_by: if peer_updates { Method::Update } else { Method::Invite },
            unacked: false,
            hanging_up: false,
            referring: None,
            inside,
            insides,
        }
    }

    /// Goes on after our 200: begins the sound, at once or when a late answer is here.
    pub async fn answered(
        mut self,
        tx: Transaction,
        requests: mpsc::Receiver<Transaction>,
        asks: mpsc::Receiver<Ask>,
        ask: mpsc::Sender<Ask>,
        done: oneshot::Sender<Result<(SipCall, RtpLine), SipError>>,
    ) {
        self.unacked = true;
        await_ack(tx, self.inside.clone());
        if self.media.awaits_answer() {
            // The far end asked without an offer; its answer to ours comes with the ACK.
            match self.insides.recv().await {
                Some(Inside::Acked { body }) if self.media.accept(&body).is_ok() => self.unacked = false,
                _ => {
                    _ = done.send(Err(SipError::NoMedia));
                    self.unacked = false;
                    return self.leave(requests, watch::channel(None).0, CallEnd::by(EndedBy::Us)).await;
                }
            }
        }
        let Some((line, control)) = self.media.begin() else {
            _ = done.send(Err(SipError::NoMedia));
            return self.leave(requests, watch::channel(None).0, CallEnd::by(EndedBy::Us)).await;
        };
        let (end, ended) = watch::channel(None);
        let call = SipCall { asks: ask, end: ended };
        // Nobody waits any more: dropping the call hangs it up.
        _ = done.send(Ok((call, line)));
        self.run(control, requests, asks, end).await;
    }

    /// Goes on after their 200 to our INVITE.
    pub fn connected(mut self, requests: mpsc::Receiver<Transaction>) -> Option<(SipCall, RtpLine)> {
        let (line, control) = self.media.begin()?;
        let (ask, asks) = mpsc::channel(4);
        let (end, ended) = watch::channel(None);
        tokio::spawn(self.run(control, requests, asks, end));
        Some((SipCall { asks: ask, end: ended }, line))
    }

    async fn run(
        mut self,
        control: RtpControl,
        mut requests: mpsc::Receiver<Transaction>,
        mut asks: mpsc::Receiver<Ask>,
        end: watch::Sender<Option<CallEnd>>,
    ) {
        let silence = Duration::from_secs(u64::from(self.trunk.settings.silence_s));
        let silent = async {
            match silence.is_zero() {
                true => std::future::pending().await,
                false => control.silence(silence).await,
            }
        };
        tokio::pin!(silent);
        loop {
            let refer_until = self.referring.as_ref().map(|referring| referring.until);
            let then = tokio::select! {
                Some(tx) = requests.recv() => self.asked(tx).await,
                ask = asks.recv() => self.wanted(ask),
                Some(inside) = self.insides.recv() => self.happened(inside),
                key = control.key_to_send() => {
                    self.send_key(key);
                    Then::GoOn
                }
                // Whoever waits to be taken elsewhere is listened to by nobody.
                () = &mut silent, if self.referring.is_none() => {
                    let text = Some(Pii::new("no audio and no RTCP".to_owned()));
                    Then::Leave(CallEnd { by: EndedBy::Silence, cause: None, text })
                }
                () = until(self.timer_at) => self.time_is_up(),
                () = until(refer_until) => {
                    self.refer_over(Err(SipError::Unreachable));
                    Then::GoOn
                }
            };
            match then {
                Then::GoOn => {}
                Then::Over(how) => {
                    self.media.stop();
                    self.place = None;
                    end.send_replace(Some(how));
                    return;
                }
                Then::Leave(how) => return self.leave(requests, end, how).await,
            }
        }
    }

    /// Ends the call on our side and tells the far end, which may say goodbye at the same moment.
    async fn leave(
        mut self,
        mut requests: mpsc::Receiver<Transaction>,
        end: watch::Sender<Option<CallEnd>>,
        how: CallEnd,
    ) {
        self.media.stop();
        self.place = None;
        let cause = match how.by {
            EndedBy::Silence => r#"Q.850;cause=41;text="no media""#,
            _ => r#"Q.850;cause=16;text="Normal call clearing""#,
        };
        end.send_replace(Some(how));
        let dialog = self.dialog.clone();
        let bye = dialog.exchange(Method::Bye, vec![Header::Reason(cause.into())], None);
        tokio::pin!(bye);
        loop {
            tokio::select! {
                // Whatever they say to it, it is over.
                _ = &mut bye => return,
                Some(mut tx) = requests.recv() => {
                    let status = if tx.original.method == Method::Bye { 200 } else { 481 };
                    self.shared.wire.reply(&mut tx, status, Vec::new()).await;
                }
            }
        }
    }

    fn wanted(&mut self, ask: Option<Ask>) -> Then {
        match ask {
            Some(Ask::HangUp) | None if self.unacked => {
                // A BYE before the ACK would overtake it (RFC 3261, section 15).
                self.hanging_up = true;
                self.media.stop();
                Then::GoOn
            }
            Some(Ask::HangUp) | None => Then::Leave(CallEnd::by(EndedBy::Us)),
            Some(Ask::Refer { done, .. }) if self.referring.is_some() => {
                _ = done.send(Err(SipError::Refused { status: 491 }));
                Then::GoOn
            }
            Some(Ask::Refer { to, done }) => {
                self.referring = Some(Referring { done, until: Instant::now() + REFER_PATIENCE });
                let headers = self.refer_headers(&to);
                let (dialog, inside) = (self.dialog.clone(), self.inside.clone());
                tokio::spawn(async move {
                    _ = inside
                        .send(Inside::ReferAnswered(dialog.exchange(Method::Refer, headers, None).await));
                });
                Then::GoOn
            }
            Some(Ask::Ringing | Ask::Answer(_) | Ask::Reject(_)) => Then::GoOn,
        }
    }

    fn refer_headers(&self, to: &E164) -> Vec<Header> {
        let settings = &self.trunk.settings;
        let port = settings.port.map(|port| format!(":{port}")).unwrap_or_default();
        vec![
            Header::ReferTo(format!("<sip:{to}@{}{port}>", settings.domain).into()),
            Header::ReferredBy(format!("<{}>", self.dialog.contact).into()),
        ]
    }

    fn happened(&mut self, inside: Inside) -> Then {
        match inside {
            Inside::Acked { body } => {
                self.unacked = false;
                if self.hanging_up {
                    return Then::Leave(CallEnd::by(EndedBy::Us));
                }
                // What cannot be taken leaves the audio as it was.
                if !body.is_empty() {
                    _ = self.media.accept(&body);
                }
                Then::GoOn
            }
            Inside::NeverAcked => {
                let text = Some(Pii::new("our answer was not acknowledged".to_owned()));
                Then::Leave(CallEnd { by: EndedBy::Silence, cause: None, text })
            }
            Inside::Refreshed { by, outcome } => self.refreshed(by, outcome),
            Inside::ReferAnswered(Ok(response)) if response.status_code.code() < 300 => Then::GoOn,
            Inside::ReferAnswered(Ok(response)) => {
                let status = response.status_code.code();
                self.refer_over(Err(SipError::Refused { status }));
                if status == 481 { Then::Leave(lost()) } else { Then::GoOn }
            }
            Inside::ReferAnswered(Err(_)) => {
                self.refer_over(Err(SipError::Unreachable));
                Then::GoOn
            }
        }
    }

    fn refer_over(&mut self, outcome: Result<(), SipError>) {
        if let Some(referring) = self.referring.take() {
            // Who asked may have stopped waiting.
            _ = referring.done.send(outcome);
        }
    }

    /// A request of the far end.
    async fn asked(&mut self, mut tx: Transaction) -> Then {
        let wire = self.shared.wire.clone();
        if let Err(status) = self.dialog.accepts(&tx.original) {
            wire.reply(&mut tx, status, Vec::new()).await;
            return Then::GoOn;
        }
        let status = match tx.original.method {
            Method::Bye => {
                wire.reply(&mut tx, 200, Vec::new()).await;
                let (cause, text) = reason(values(&tx.original, "Reason"));
                // A far end that goes after it accepted our REFER has taken the caller with it.
                self.refer_over(Ok(()));
                return Then::Over(CallEnd { by: EndedBy::Them, cause, text: text.map(Pii::new) });
            }
            Method::Invite | Method::Update => {
                // The ACK that came before it takes another way through us and may be behind.
                if self.media.awaits_answer()
                    && let Ok(Some(inside)) = tokio::time::timeout(OVERTAKEN, self.insides.recv()).await
                {
                    match self.happened(inside) {
                        Then::GoOn => {}
                        over => return over,
                    }
                }
                self.changed(tx).await;
                return Then::GoOn;
            }
            Method::Info => self.informed(&tx.original),
            Method::Notify => match self.notified(&tx.original) {
                (status, false) => status,
                (status, true) => {
                    wire.reply(&mut tx, status, Vec::new()).await;
                    let text = Some(Pii::new("transferred".to_owned()));
                    return Then::Leave(CallEnd { by: EndedBy::Us, cause: None, text });
                }
            },
            Method::Options => 200,
            // Whoever may send a call anywhere can call anywhere at our cost.
            Method::Refer => 603,
            Method::PRack => 481,
            _ => 405,
        };
        wire.reply(&mut tx, status, vec![Header::Allow(ALLOW.into())]).await;
        Then::GoOn
    }

    /// A re-INVITE or an UPDATE: hold, another address, another codec, or only a sign of life.
    async fn changed(&mut self, mut tx: Transaction) {
        let wire = self.shared.wire.clone();
        let request = &tx.original;
        let is_invite = request.method == Method::Invite;
        let offers = !request.body.is_empty();
        // Two offers that cross (RFC 3261, section 14.2).
        let crossed = self.media.awaits_answer() && (offers || is_invite);
        let timer = SessionTimer::for_request(request, &self.trunk.settings);
        let refusal = match timer {
            _ if crossed => Some((491, Vec::new())),
            Err(TooShort(least)) => Some((422, vec![Header::MinSE(least.to_string().into())])),
            Ok(_) => None,
        };
        if let Some((status, headers)) = refusal {
            return self.finish_change(tx, &wire, status, headers, None);
        }
        let body = match (offers, is_invite) {
            (true, _) => match self.media.answer(&request.body) {
                Ok(answer) => Some(answer.into_bytes()),
                Err(error) => return self.finish_change(tx, &wire, error.status(), Vec::new(), None),
            },
            (false, true) => Some(self.media.offer().into_bytes()),
            (false, false) => None,
        };
        self.dialog.refresh_target(request, Wire::came_over(&tx));
        if let Ok(Some(timer)) = timer {
            self.timer = Some(timer);
        }
        self.timer_at = self.timer.map(|timer| Instant::now() + timer.due());
        let mut headers = vec![
            Header::Contact(format!("<{}>", self.dialog.contact).into()),
            Header::Allow(ALLOW.into()),
            Header::Supported(SUPPORTED.join(", ").into()),
        ];
        headers.extend(self.timer.map(SessionTimer::response_headers).unwrap_or_default());
        let response = wire.response(&tx.original, 200, self.dialog.local_tag(), headers, body);
        _ = tx.respond(response).await;
        if is_invite {
            await_ack(tx, self.inside.clone());
        }
    }

    fn finish_change(
        &self,
        mut tx: Transaction,
        wire: &Arc<Wire>,
        status: u16,
        headers: Vec<Header>,
        body: Option<Vec<u8>>,
    ) {
        let response = wire.response(&tx.original, status, self.dialog.local_tag(), headers, body);
        // A refused re-INVITE is repeated until its ACK is here, which the call need not wait for.
        tokio::spawn(async move {
            if tx.respond(response).await.is_ok() && tx.original.method == Method::Invite {
                _ = tokio::time::timeout(TRANSACTION_LIFE, async { while tx.receive().await.is_some() {} })
                    .await;
            }
        });
    }

    /// Keys that come by INFO.
    fn informed(&self, request: &Request) -> u16 {
        let content = value(request, "Content-Type").unwrap_or_default().to_ascii_lowercase();
        let body = String::from_utf8_lossy(&request.body);
        let key = match content.split(';').next().unwrap_or_default().trim() {
            "application/dtmf-relay" => body.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                name.trim().eq_ignore_ascii_case("Signal").then(|| value.trim().to_owned())
            }),
            "application/dtmf" => Some(body.trim().to_owned()),
            "" if request.body.is_empty() => return 200,
            _ => return 415,
        };
        let Some(key) = key.as_deref().and_then(key_of) else { return 400 };
        self.media.key(key);
        200
    }

    fn send_key(&self, key: char) {
        let body = format!("Signal={key}\r\nDuration=160\r\n").into_bytes();
        let headers = vec![Header::ContentType("application/dtmf-relay".into())];
        let dialog = self.dialog.clone();
        tokio::spawn(async move { dialog.exchange(Method::Info, headers, Some(body)).await });
    }

    /// How a transfer goes (RFC 3515, section 2.4): the answer, and whether the far end has reached the number.
    fn notified(&mut self, request: &Request) -> (u16, bool) {
        let event = value(request, "Event").unwrap_or_default();
        if self.referring.is_none()
            || !event.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("refer")
        {
            return (481, false);
        }
        let fragment = String::from_utf8_lossy(&request.body);
        let status = fragment
            .lines()
            .next()
            .and_then(|line| line.trim().strip_prefix("SIP/2.0 "))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|status| status.parse::<u16>().ok());
        let over = value(request, "Subscription-State")
            .is_some_and(|s| s.trim().to_ascii_lowercase().starts_with("terminated"));
        match status {
            Some(200..=299) => {
                self.refer_over(Ok(()));
                (200, true)
            }
            Some(status) if status >= 300 => {
                self.refer_over(Err(SipError::Refused { status }));
                (200, false)
            }
            _ if over => {
                self.refer_over(Err(SipError::Unreachable));
                (200, false)
            }
            _ => (200, false),
        }
    }

    /// The session is to be refreshed, or is over without a refresh.
    fn time_is_up(&mut self) -> Then {
        match self.timer {
            Some(timer) if timer.ours && !self.refreshing => {
                self.refresh(timer);
                Then::GoOn
            }
            _ => {
                let text = Some(Pii::new("the session was not refreshed".to_owned()));
                Then::Leave(CallEnd { by: EndedBy::Silence, cause: None, text })
            }
        }
    }

    fn refresh(&mut self, timer: SessionTimer) {
        let by = self.refresh_by;
        if by == Method::Invite && self.media.awaits_answer() {
            self.timer_at = Some(Instant::now() + MAX_GLARE_PAUSE);
            return;
        }
        self.refreshing = true;
        // The other half of the interval is left for it.
        self.timer_at = Some(Instant::now() + Duration::from_secs(u64::from(timer.interval_s)) / 2);
        let body = (by == Method::Invite).then(|| self.media.offer().into_bytes());
        let (dialog, inside) = (self.dialog.clone(), self.inside.clone());
        tokio::spawn(async move {
            let outcome = dialog.exchange(by, timer.refresh_headers(), body).await;
            _ = inside.send(Inside::Refreshed { by, outcome });
        });
    }

    fn refreshed(&mut self, by: Method, outcome: Result<Response, NoAnswer>) -> Then {
        self.refreshing = false;
        let now = Instant::now();
        let Ok(response) = outcome else { return Then::Leave(lost()) };
        match response.status_code.code() {
            200..=299 => {
                if by == Method::Invite {
                    _ = self.media.accept(&response.body);
                }
                self.dialog.refresh_target(&response, None);
                if let Some(timer) = SessionTimer::for_response(&response, &self.trunk.settings) {
                    self.timer = Some(timer);
                }
                self.timer_at = self.timer.map(|timer| now + timer.due());
            }
            408 | 481 => return Then::Leave(lost()),
            422 => {
                self.timer = self.timer.map(|timer| SessionTimer {
                    interval_s: timer.interval_s.max(min_se(&response)),
                    ..timer
                });
                self.timer_at = Some(now);
            }
            491 => self.timer_at = Some(now + glare_pause()),
            // It said that it knows UPDATE, and does not.
            _ if by == Method::Update => {
                self.refresh_by = Method::Invite;
                self.timer_at = Some(now);
            }
            // It lives, which is all that we wanted to know.
            _ => self.timer_at = self.timer.map(|timer| now + timer.due()),
        }
        Then::GoOn
    }
}

fn lost() -> CallEnd {
    CallEnd {
        by: EndedBy::Silence,
        cause: None,
        text: Some(Pii::new("the far end does not know the call any more".to_owned())),
    }
}

fn key_of(text: &str) -> Option<char> {
    match text {
        "10" => Some('*'),
        "11" => Some('#'),
        _ => {
            let mut chars = text.chars();
            let key = chars.next()?.to_ascii_uppercase();
            (chars.next().is_none() && matches!(key, '0'..='9' | '*' | '#' | 'A'..='D')).then_some(key)
        }
    }
}

/// A pause of chance, in steps of 10 ms.
fn glare_pause() -> Duration {
    let chance: usize = random_text(16).bytes().map(usize::from).sum();
    Duration::from_millis(10 * (chance as u64 % (MAX_GLARE_PAUSE.as_millis() as u64 / 10)))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits for the ACK of a 200, which the transaction repeats meanwhile.
fn await_ack(mut tx: Transaction, inside: mpsc::UnboundedSender<Inside>) {
    tokio::spawn(async move {
        while let Some(message) = tx.receive().await {
            if let SipMessage::Request(request) = message
                && request.method == Method::Ack
            {
                _ = inside.send(Inside::Acked { body: request.body });
                return;
            }
        }
        _ = inside.send(Inside::NeverAcked);
    });
}
