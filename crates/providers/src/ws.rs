//! One WebSocket session with a provider: connecting, order, limits, timeouts and farewell, around a [`Protocol`] that is
//! a plain state machine. It does not know what any provider says on the wire.
//!
//! A session is one task that owns its socket. It reads commands even while its consumer is slow, so that a cancel is
//! never stuck behind audio; it stops reading the socket instead, and so slows the provider down.

use crate::refusal::{by_close, by_status};
use crate::throttle::{Refused, Throttle};
use crate::{Cause, Endpoint, ProviderError, SESSION_QUEUE, http};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use url::Url;

/// Bytes read at once: a hundred idle sessions must not hold a hundred large buffers.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// Bytes gathered before they are written, within one turn of the session's loop.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;

/// Bytes that may wait in one session for a provider that does not read.
const MAX_UNSENT_BYTES: usize = 1 << 20;

/// Longest message and longest frame that are read: some seconds of base64 audio.
const MAX_MESSAGE_BYTES: usize = 2 << 20;

/// How long a provider may refuse to take what we send.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What saying goodbye may take when nobody listens any more.
const FAREWELL: Duration = Duration::from_millis(50);

/// How long the last answers are waited for once no more commands can come.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// A provider may close idle connections; one that closes two of them within this time is not asked again.
const MIN_LIFE: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What is said over a socket: turns commands into frames and frames into events, without any waiting of its own.
pub(crate) trait Protocol: Send + 'static {
    /// What the session's owner tells it.
    type Command: Send + 'static;
    /// What it reports.
    type Event: Send + 'static;

    /// After how long without a frame from us [`Protocol::keep_alive`] is asked for one.
    const KEEP_ALIVE: Option<Duration> = None;

    /// The event that says the session is up.
    fn opened() -> Self::Event;
    /// The event that says the session is dead.
    fn failed(error: ProviderError) -> Self::Event;
    /// Answers a command.
    fn command(&mut self, command: Self::Command, out: &mut Outbox<Self::Event>);
    /// Takes a text frame.
    fn text(&mut self, frame: &str, out: &mut Outbox<Self::Event>) -> Result<(), ProviderError>;
    /// Takes a binary frame.
    fn binary(&mut self, _frame: Bytes, _out: &mut Outbox<Self::Event>) -> Result<(), ProviderError> {
        Ok(())
    }
    /// Whether the provider must say something next. Then it may time out, and a session without further commands waits.
    fn is_owed(&self) -> bool;
    /// Whether the provider may close the connection without harm: then it is opened again.
    fn may_close(&self) -> bool {
        false
    }
    /// Sends something that keeps the connection open.
    fn keep_alive(&mut self, _out: &mut Outbox<Self::Event>) {}
    /// Sends what ends the session properly.
    fn farewell(&mut self, out: &mut Outbox<Self::Event>);
}

/// What a protocol wants sent and reported.
pub(crate) struct Outbox<E> {
    frames: VecDeque<Message>,
    events: VecDeque<E>,
}

impl<E> Outbox<E> {
    pub(crate) fn new() -> Self {
        Outbox { frames: VecDeque::new(), events: VecDeque::new() }
    }

    pub(crate) fn send_text(&mut self, frame: impl Into<String>) {
        self.frames.push_back(Message::text(frame.into()));
    }

    pub(crate) fn send_json(&mut self, frame: &impl serde::Serialize) {
        self.send_text(
            serde_json::to_string(frame).expect("frames are structs of plain values with text keys"),
        );
    }

    pub(crate) fn send_binary(&mut self, frame: Bytes) {
        self.frames.push_back(Message::Binary(frame));
    }

    /// Whether reports wait for their consumer.
    pub(crate) fn is_full(&self) -> bool {
        !self.events.is_empty()
    }

    /// Hands over the reports that the consumer has room for.
    pub(crate) fn deliver(&mut self, events: &mpsc::Sender<E>) {
        while !self.events.is_empty() {
            let Ok(permit) = events.try_reserve() else { return };
            let Some(event) = self.events.pop_front() else { return };
            permit.send(event);
        }
    }

    #[cfg(test)]
    pub(crate) fn take_texts(&mut self) -> Vec<String> {
        self.frames.drain(..).map(|frame| frame.to_string()).collect()
    }

    pub(crate) fn take_events(&mut self) -> impl Iterator<Item = E> {
        self.frames.clear();
        self.events.drain(..)
    }

    /// Hands over all reports, as the consumer takes them, unless it is gone.
    pub(crate) async fn deliver_all(&mut self, events: &mpsc::Sender<E>) {
        while let Some(event) = self.events.pop_front() {
            if events.send(event).await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn report(&mut self, event: E) {
        self.events.push_back(event);
    }
}

/// Where a session connects to.
pub(crate) struct Dial {
    pub(crate) provider: &'static str,
    pub(crate) endpoint: Endpoint,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) url: Url,
    /// Headers that carry the key, and the like.
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// Waits until a consumer has room for a report, or is gone.
pub(crate) async fn has_room<E>(events: &mpsc::Sender<E>) {
    // The permit is given back at once: nobody else sends to this consumer.
    let _ = events.reserve().await;
}

/// Starts a session in a task of its own.
pub(crate) fn open<P: Protocol>(
    dial: Dial,
    protocol: P,
) -> (mpsc::Sender<P::Command>, mpsc::Receiver<P::Event>) {
    let (commands_in, commands) = mpsc::channel(SESSION_QUEUE);
    let (events, events_out) = mpsc::channel(SESSION_QUEUE);
    let session = Session { dial, protocol, commands, accepting: true, events, out: Outbox::new() };
    tokio::spawn(session.run());
    (commands_in, events_out)
}

struct Session<P: Protocol> {
    dial: Dial,
    protocol: P,
    commands: mpsc::Receiver<P::Command>,
    /// Commands may still come.
    accepting: bool,
    events: mpsc::Sender<P::Event>,
    out: Outbox<P::Event>,
}

/// How a connection came to its end.
enum End {
    /// Nothing is left to do.
    Over,
    /// The provider closed an idle connection, in these words.
    Idle(ProviderError),
    Failed(ProviderError),
}

impl<P: Protocol> Session<P> {
    async fn run(mut self) {
        let mut opened = false;
        let mut reopened: Option<Instant> = None;
        loop {
            let connected = tokio::select! {
                connected = self.dial.connect() => connected,
                () = self.events.closed() => return,
            };
            let end = match connected {
                Ok(socket) => {
                    if !std::mem::replace(&mut opened, true) {
                        self.out.report(P::opened());
                    }
                    self.converse(socket).await
                }
                Err(error) => End::Failed(error),
            };
            match end {
                End::Over => return,
                End::Idle(_) if reopened.is_none_or(|at| at.elapsed() >= MIN_LIFE) => {
                    reopened = Some(Instant::now());
                }
                End::Idle(error) | End::Failed(error) => {
                    self.out.report(P::failed(error));
                    return self.out.deliver_all(&self.events).await;
                }
            }
        }
    }

    async fn converse(&mut self, mut socket: Socket) -> End {
        let mut watch = Watch::new(&self.dial.endpoint, P::KEEP_ALIVE);
        let timer = sleep_until(watch.due());
        tokio::pin!(timer);
        loop {
            self.out.deliver(&self.events);
            if !self.out.frames.is_empty()
                && let Err(error) = self.write(&mut socket).await
            {
                return End::Failed(error);
            }
            watch.expect(self.protocol.is_owed());
            if watch.due() < timer.deadline() {
                timer.as_mut().reset(watch.due());
            }
            let consumer_is_slow = self.out.is_full();
            if !self.accepting && !consumer_is_slow && !self.protocol.is_owed() {
                self.say_goodbye(&mut socket).await;
                return End::Over;
            }
            tokio::select! {
                biased;
                () = self.events.closed() => {
                    self.say_goodbye(&mut socket).await;
                    return End::Over;
                }
                () = has_room(&self.events), if consumer_is_slow => watch.hold(),
                command = self.commands.recv(), if self.accepting => {
                    self.take_commands(command, &mut watch);
                }
                frame = socket.next(), if !consumer_is_slow => {
                    if let Err(end) = self.take_frame(frame, &mut watch) {
                        return end;
                    }
                }
                () = &mut timer => {
                    if consumer_is_slow {
                        watch.hold();
                    }
                    match watch.ring() {
                        Some(Alarm::Dead(_)) if !self.accepting => return End::Over,
                        Some(Alarm::Dead(waited_for)) => {
                            return End::Failed(ProviderError::timed_out(self.dial.provider, waited_for));
                        }
                        Some(Alarm::Ended) => return End::Over,
                        Some(Alarm::Ping) => self.out.frames.push_back(Message::Ping(Bytes::new())),
                        Some(Alarm::KeepAlive) => self.protocol.keep_alive(&mut self.out),
                        None => {}
                    }
                    timer.as_mut().reset(watch.due());
                }
            }
        }
    }

    /// Handles a command and all that wait behind it, so that they leave in one write.
    fn take_commands(&mut self, first: Option<P::Command>, watch: &mut Watch) {
        let mut next = first;
        while let Some(command) = next {
            self.protocol.command(command, &mut self.out);
            if !self.out.frames.is_empty() {
                watch.sent = Instant::now();
            }
            next = match self.commands.try_recv() {
                Ok(command) => Some(command),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => None,
            };
        }
        self.accepting = false;
        self.protocol.farewell(&mut self.out);
        watch.ends = Some(Instant::now() + LAST_ANSWERS);
    }

    fn take_frame(&mut self, frame: Option<Result<Message, WsError>>, watch: &mut Watch) -> Result<(), End> {
        let provider = self.dial.provider;
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(WsError::Capacity(_) | WsError::Utf8(_) | WsError::AttackAttempt)) => {
                return Err(End::Failed(ProviderError::malformed(provider, "a frame that cannot be read")));
            }
            Some(Err(_)) | None => return Err(self.closed(None)),
        };
        watch.heard();
        let taken = match frame {
            Message::Text(text) => {
                watch.progress();
                self.protocol.text(&text, &mut self.out)
            }
            Message::Binary(data) => {
                watch.progress();
                self.protocol.binary(data, &mut self.out)
            }
            Message::Close(close) => {
                let close = close.map(|close| (close.code.into(), close.reason));
                return Err(self.closed(close.as_ref().map(|(code, reason)| (*code, reason.as_str()))));
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        };
        taken.map_err(End::Failed)
    }

    fn closed(&self, close: Option<(u16, &str)>) -> End {
        if !self.accepting {
            return End::Over;
        }
        let error = by_close(self.dial.provider, close, &self.dial.endpoint.key);
        if self.protocol.may_close() { End::Idle(error) } else { End::Failed(error) }
    }

    async fn write(&mut self, socket: &mut Socket) -> Result<(), ProviderError> {
        let frames = &mut self.out.frames;
        let write = async {
            while let Some(frame) = frames.pop_front() {
                socket.feed(frame).await?;
            }
            socket.flush().await
        };
        tokio::select! {
            biased;
            written = write => written.or_else(|error| match error {
                // Why it is closed is told by what is read next.
                WsError::ConnectionClosed | WsError::AlreadyClosed | WsError::Protocol(_) | WsError::Io(_) => Ok(()),
                _ => Err(ProviderError::new(self.dial.provider, Cause::Unreachable, "cannot send")),
            }),
            () = self.events.closed() => Ok(()),
            () = sleep(WRITE_TIMEOUT) => Err(ProviderError::timed_out(self.dial.provider, "sending")),
        }
    }

    /// Ends the provider's work, and its bill, when nobody wants the answers.
    async fn say_goodbye(&mut self, socket: &mut Socket) {
        self.out.frames.clear();
        if self.accepting {
            self.protocol.farewell(&mut self.out);
        }
        let frames = &mut self.out.frames;
        let goodbye = async {
            while let Some(frame) = frames.pop_front() {
                socket.feed(frame).await?;
            }
            socket.close(None).await
        };
        // Whether it was heard makes no difference: the connection is dropped next.
        let _ = timeout(FAREWELL, goodbye).await;
    }
}

/// What the session's one timer has to say.
enum Alarm {
    Ping,
    KeepAlive,
    Ended,
    Dead(&'static str),
}

/// The session's deadlines. One timer serves them all and is moved only when it must ring earlier, not with each frame.
struct Watch {
    /// When anything last came, pongs included.
    received: Instant,
    pinged: bool,
    sent: Instant,
    /// Since when, and for how long, an answer may be waited for.
    owed: Option<(Instant, Duration)>,
    ends: Option<Instant>,
    first_byte: Duration,
    idle: Duration,
    keep_alive: Option<Duration>,
}

impl Watch {
    fn new(endpoint: &Endpoint, keep_alive: Option<Duration>) -> Self {
        let now = Instant::now();
        Watch {
            received: now,
            pinged: false,
            sent: now,
            owed: None,
            ends: None,
            first_byte: endpoint.first_byte_timeout,
            idle: endpoint.idle_timeout,
            keep_alive,
        }
    }

    fn expect(&mut self, owed: bool) {
        match (owed, self.owed) {
            (true, None) => self.owed = Some((Instant::now(), self.first_byte)),
            (false, Some(_)) => self.owed = None,
            _ => {}
        }
    }

    fn heard(&mut self) {
        self.received = Instant::now();
        self.pinged = false;
    }

    fn progress(&mut self) {
        if let Some(owed) = &mut self.owed {
            *owed = (self.received, self.idle);
        }
    }

    /// The socket was not read for want of room: nothing that did not come can be held against the provider.
    fn hold(&mut self) {
        self.heard();
        self.progress();
    }

    fn due(&self) -> Instant {
        let silence = self.received + if self.pinged { self.idle } else { self.idle / 2 };
        let owed = self.owed.map(|(since, patience)| since + patience);
        let keep_alive = self.keep_alive.map(|interval| self.sent + interval);
        [Some(silence), owed, keep_alive, self.ends].into_iter().flatten().min().unwrap_or(silence)
    }

    fn ring(&mut self) -> Option<Alarm> {
        let now = Instant::now();
        let past = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if past(self.ends) {
            Some(Alarm::Ended)
        } else if past(self.owed.map(|(since, patience)| since + patience)) {
            Some(Alarm::Dead("waiting for an answer"))
        } else if past(Some(self.received + self.idle)) {
            Some(Alarm::Dead("the connection is silent"))
        } else if !self.pinged && past(Some(self.received + self.idle / 2)) {
            self.pinged = true;
            Some(Alarm::Ping)
        } else if past(self.keep_alive.map(|interval| self.sent + interval)) {
            self.sent = now;
            Some(Alarm::KeepAlive)
        } else {
            None
        }
    }
}

impl Dial {
    async fn connect(&self) -> Result<Socket, ProviderError> {
        let patience = self.endpoint.connect_timeout;
        let attempt = || async {
            timeout(patience, self.upgrade())
                .await
                .map_err(|_| ProviderError::timed_out(self.provider, "connecting"))?
        };
        self.throttle.ask(self.provider, patience, attempt).await
    }

    async fn upgrade(&self) -> Result<Socket, Refused> {
        let unreachable = |detail: &str| ProviderError::new(self.provider, Cause::Unreachable, detail);
        let refused = |detail: &str| ProviderError::new(self.provider, Cause::Refused, detail);
        let mut request =
            self.url.as_str().into_client_request().map_err(|_| refused("the base URL cannot be used"))?;
        let ours = self.headers.iter().map(|(name, value)| (*name, value));
        let theirs = self.endpoint.headers.iter().map(|(name, value)| (name.as_str(), value));
        for (name, value) in ours.chain(theirs) {
            let name = HeaderName::try_from(name).map_err(|_| refused("a header name is not allowed"))?;
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| refused("the key or a header holds odd characters"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        let (Some(host), Some(port)) = (self.url.host_str(), self.url.port_or_known_default()) else {
            return Err(refused("the base URL names no host").into());
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await.map_err(|_| unreachable("no connection"))?;
        stream.set_nodelay(true).map_err(|_| unreachable("no connection"))?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(MAX_UNSENT_BYTES)
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let connector = Connector::Rustls(http::tls());
        let upgraded = client_async_tls_with_config(request, stream, Some(config), Some(connector)).await;
        upgraded.map(|(socket, _)| socket).map_err(|error| match error {
            WsError::Http(response) => self.refused(&response),
            WsError::Tls(_) => unreachable("TLS failed").into(),
            WsError::Io(error) => {
                unreachable(&http::tls_failure(&error).unwrap_or("the connection broke".into())).into()
            }
            _ => ProviderError::malformed(self.provider, "not a WebSocket answer").into(),
        })
    }

    /// A refused upgrade. Deepgram gives its code in the header `dg-error`, with or without a body.
    fn refused(&self, response: &Response<Option<Vec<u8>>>) -> Refused {
        let body = response.body().as_deref().unwrap_or_default();
        let header = response.headers().get("dg-error").and_then(|value| value.to_str().ok());
        let from_header = header.map(|code| serde_json::json!({ "code": code, "message": code }).to_string());
        let body = if body.is_empty() { from_header.as_deref().unwrap_or("").as_bytes() } else { body };
        let error = by_status(self.provider, response.status().as_u16(), body, &self.endpoint.key);
        Refused { error, retry_after: http::retry_after(response.headers()) }
    }
}
