//! The carrier's end of a media stream: sends what the caller says 50 times a second, plays what comes back in real time,
//! returns marks when they have been heard. It knows one socket of one call, and not what the audio means.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use jiff::Timestamp;
use offhook_media::g711::Law;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::super::phone::{FRAME_MS, FromPhone, SAMPLES_PER_MS, StreamLoss, What};
use super::super::socket::{self, Socket, at};
use super::call::Call;
use super::twiml::{Complaint, Hook, Stream};
use super::webhook::WebhookKind;
use super::{AfterLoss, Sim, new_sid};

/// A server that does not read for so long is gone.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// How long our close is waited for.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
const MAX_MARK_CHARACTERS: usize = 1_024;

/// How the network between the telephone and the carrier treats audio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// How much later everything arrives, each way.
    pub delay_ms: u64,
    /// How much later again each of the caller's frames may arrive, at most; their order is kept.
    pub jitter_ms: u64,
    /// Share of the caller's frames that never arrive, 0 to 1.
    pub loss: f64,
    /// What decides which.
    pub seed: u64,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum StreamEnd {
    /// The server closed it.
    Closed,
    /// It never came to be.
    NotConnected,
    /// The socket broke.
    Lost(AfterLoss),
}

/// Opens a stream and waits for its end; dropped, the stream is stopped in order and closed.
pub(super) async fn run(
    sim: &Arc<Sim>,
    call: &Arc<Call>,
    stream: &Stream,
    status_callback: Option<Hook>,
) -> StreamEnd {
    let report = Report {
        sim: sim.clone(),
        call: call.clone(),
        sid: new_sid("MZ"),
        stream: stream.clone(),
        status_callback,
    };
    let socket = match connect(sim, call, &stream.url).await {
        Ok(socket) => socket,
        Err((loss, message)) => {
            report.ended(Some((loss, message)));
            return StreamEnd::NotConnected;
        }
    };
    let (control, lose) = mpsc::channel(1);
    call.stream_opened(control);
    let (_stopped_by_drop, stop) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    let pump = Pump::new(report, socket);
    tokio::spawn(async move {
        // Nobody waits any more where the call has gone on already.
        let _ = ended.send(pump.run(stop, lose).await);
    });
    end.await.unwrap_or(StreamEnd::Closed)
}

async fn connect(sim: &Sim, call: &Call, url: &str) -> Result<Socket, (StreamLoss, String)> {
    let arrives_at = sim.webhooks.arrives_at(url);
    let mut headers = vec![("user-agent", "Twilio.TmeWs/1.0".to_owned())];
    headers.extend(sim.webhooks.signature(url, &[], call.signing).map(|value| ("x-twilio-signature", value)));
    socket::connect(&arrives_at, &headers).await
}

/// What is told about a stream outside of its socket.
struct Report {
    sim: Arc<Sim>,
    call: Arc<Call>,
    sid: String,
    stream: Stream,
    status_callback: Option<Hook>,
}

impl Report {
    fn opened(&self) {
        self.call.line.note(What::StreamOpened { stream: self.sid.clone() });
        self.call_back("stream-started", None);
    }

    fn ended(&self, loss: Option<(StreamLoss, String)>) {
        let (loss, message) = loss.unzip();
        self.call.line.note(What::StreamEnded { stream: self.sid.clone(), loss });
        if let (Some(loss), Some(message)) = (loss, message) {
            let code = match loss {
                StreamLoss::NotConnected => 31901,
                StreamLoss::Refused => 31920,
                StreamLoss::Broken => 31903,
                StreamLoss::ClosedByServer => 31921,
            };
            self.alert(code, &message);
            self.call_back("stream-error", Some(&format!("{code} {message}")));
        }
        self.call_back("stream-stopped", None);
    }

    fn alert(&self, code: u32, message: &str) {
        self.sim.alert(&self.call.sid, Complaint { code, message: message.to_owned() });
    }

    fn call_back(&self, event: &str, error: Option<&str>) {
        let Some(hook) = &self.status_callback else { return };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut params = vec![
            pair("AccountSid", &self.sim.settings.account_sid),
            pair("CallSid", &self.call.sid),
            pair("StreamSid", &self.sid),
            pair("StreamName", self.stream.name.as_deref().unwrap_or(&self.sid)),
            pair("StreamEvent", event),
            pair("Timestamp", &Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()),
        ];
        params.extend(error.map(|error| pair("StreamError", error)));
        let request = self.call.request(WebhookKind::Stream, hook, params);
        let webhooks = self.sim.webhooks.clone();
        // Best effort, as documented.
        tokio::spawn(async move { webhooks.send(request).await });
    }
}

/// A message from the server.
#[derive(Deserialize)]
struct Incoming {
    event: String,
    #[serde(rename = "streamSid")]
    stream_sid: Option<String>,
    media: Option<IncomingMedia>,
    mark: Option<IncomingMark>,
}

#[derive(Deserialize)]
struct IncomingMedia {
    payload: String,
}

#[derive(Deserialize)]
struct IncomingMark {
    name: String,
}

/// Why the pump ends.
enum Stopped {
    /// The call is over or does something else.
    ByCall,
    /// The server closed the socket in order.
    ByServer,
    /// The far end has lost its socket on demand.
    OnDemand(AfterLoss),
    /// The socket is gone.
    Broken(StreamLoss, String),
}

/// Moves audio and messages between one line and one socket.
struct Pump {
    report: Report,
    socket: Socket,
    /// Frames on their way through the caller's network, and when they arrive.
    under_way: VecDeque<(Instant, Value)>,
    random: ChaCha8Rng,
    opened_at: u64,
    sequence: u64,
    chunk: u64,
}

impl Pump {
    fn new(report: Report, socket: Socket) -> Pump {
        Pump {
            random: ChaCha8Rng::seed_from_u64(report.call.network.seed),
            opened_at: report.call.line.now(),
            report,
            socket,
            under_way: VecDeque::new(),
            sequence: 0,
            chunk: 0,
        }
    }

    async fn run(mut self, stop: oneshot::Receiver<()>, lose: mpsc::Receiver<AfterLoss>) -> StreamEnd {
        self.report.opened();
        let stopped = match self.pump(stop, lose).await {
            Ok(stopped) => stopped,
            Err(error) => broken(error),
        };
        self.report.call.line.cut();
        match stopped {
            Stopped::ByCall => {
                self.leave().await;
                self.report.ended(None);
                StreamEnd::Closed
            }
            Stopped::ByServer => {
                self.report.ended(None);
                StreamEnd::Closed
            }
            Stopped::OnDemand(then) => {
                socket::reset(&self.socket);
                self.report.ended(Some((StreamLoss::Broken, "the socket was lost on demand".into())));
                StreamEnd::Lost(then)
            }
            Stopped::Broken(loss, message) => {
                let then = self.report.sim.settings.after_loss;
                self.report.ended(Some((loss, message)));
                StreamEnd::Lost(then)
            }
        }
    }

    async fn pump(
        &mut self,
        mut stop: oneshot::Receiver<()>,
        mut lose: mpsc::Receiver<AfterLoss>,
    ) -> Result<Stopped, Error> {
        let line = self.report.call.line.clone();
        let mut from_phone = line.take();
        self.open().await?;
        loop {
            let next_mark = line.next_mark();
            let next_frame = self.under_way.front().map(|(due, _)| *due);
            tokio::select! {
                biased;
                _ = &mut stop => return Ok(Stopped::ByCall),
                Some(then) = lose.recv() => return Ok(Stopped::OnDemand(then)),
                () = at(next_mark) => {
                    for name in line.due_marks() {
                        self.send_mark(&name).await?;
                    }
                }
                () = at(next_frame) => {
                    if let Some((_, mut media)) = self.under_way.pop_front() {
                        self.chunk += 1;
                        media["chunk"] = self.chunk.to_string().into();
                        self.send("media", media).await?;
                    }
                }
                Some(said) = from_phone.recv() => match said {
                    FromPhone::Frame { at, pcm } => self.carry(at, pcm.as_slice()),
                    FromPhone::Digit(digit) => {
                        let digit = json!({"track": "inbound_track", "digit": digit.to_string()});
                        self.send("dtmf", digit).await?;
                    }
                },
                message = self.socket.next() => match message {
                    None => return Ok(Stopped::Broken(StreamLoss::ClosedByServer, "end of stream".into())),
                    Some(Ok(Message::Close(_))) => {
                        // The answer to the close has been queued by the library and leaves with the flush.
                        let _ = timeout(CLOSE_LIMIT, self.socket.flush()).await;
                        return Ok(Stopped::ByServer);
                    }
                    Some(Ok(Message::Text(text))) => self.receive(text.as_str()).await?,
                    Some(Ok(Message::Binary(_))) => self.report.alert(31924, "a binary message"),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                },
            }
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        self.write(json!({"event": "connected", "protocol": "Call", "version": "1.0.0"})).await?;
        let parameters: serde_json::Map<String, Value> = self
            .report
            .stream
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().into()))
            .collect();
        let start = json!({
            "accountSid": self.report.sim.settings.account_sid,
            "streamSid": self.report.sid,
            "callSid": self.report.call.sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": parameters,
        });
        self.send("start", start).await
    }

    /// Puts a frame on its way through the caller's network.
    fn carry(&mut self, at: u64, pcm: &[i16]) {
        let network = self.report.call.network;
        if network.loss > 0.0 && self.random.random_bool(network.loss.clamp(0.0, 1.0)) {
            return;
        }
        let mut coded = Vec::with_capacity(pcm.len());
        Law::Mu.encode(pcm, &mut coded);
        let timestamp_ms = at.saturating_sub(self.opened_at) / SAMPLES_PER_MS + FRAME_MS;
        let media = json!({
            "track": "inbound",
            "timestamp": timestamp_ms.to_string(),
            "payload": STANDARD.encode(coded),
        });
        let late_ms = network.delay_ms + self.random.random_range(0..=network.jitter_ms);
        let due = Instant::now() + Duration::from_millis(late_ms);
        let due = self.under_way.back().map_or(due, |(last, _)| due.max(*last));
        self.under_way.push_back((due, media));
    }

    /// Does what the server asks; what cannot be understood is an alert and is skipped.
    async fn receive(&mut self, text: &str) -> Result<(), Error> {
        match self.obey(text) {
            Ok(returned_marks) => {
                for name in returned_marks {
                    self.send_mark(&name).await?;
                }
            }
            Err(message) => self.report.alert(31924, &message),
        }
        Ok(())
    }

    fn obey(&self, text: &str) -> Result<Vec<String>, String> {
        let message: Incoming =
            serde_json::from_str(text).map_err(|error| format!("not understood: {error}"))?;
        if message.stream_sid.as_deref() != Some(&self.report.sid) {
            return Err(format!("a {} message without this stream's streamSid", message.event));
        }
        let line = &self.report.call.line;
        let full = |_| "more audio or marks than the buffer holds".to_owned();
        match (message.event.as_str(), message.media, message.mark) {
            ("media", Some(media), None) => {
                let coded = STANDARD.decode(media.payload).map_err(|error| format!("payload: {error}"))?;
                if coded.starts_with(b"RIFF") {
                    return Err("the payload has a WAV header".into());
                }
                let mut pcm = Vec::with_capacity(coded.len());
                Law::Mu.decode(&coded, &mut pcm);
                line.hear(&pcm, self.report.call.network.delay_ms).map_err(full)?;
                Ok(Vec::new())
            }
            ("mark", None, Some(mark)) if mark.name.chars().count() <= MAX_MARK_CHARACTERS => {
                line.mark(mark.name).map_err(full)?;
                Ok(Vec::new())
            }
            ("clear", None, None) => Ok(line.clear()),
            (event, ..) => {
                Err(format!("\"{event}\" is no message that a server sends, or lacks its content"))
            }
        }
    }

    async fn send_mark(&mut self, name: &str) -> Result<(), Error> {
        self.send("mark", json!({"name": name})).await
    }

    /// Sends an event with its content under its own name, as all but the first are built.
    async fn send(&mut self, event: &str, content: Value) -> Result<(), Error> {
        self.sequence += 1;
        let message = json!({
            "event": event,
            "sequenceNumber": self.sequence.to_string(),
            "streamSid": self.report.sid,
            event: content,
        });
        self.write(message).await
    }

    async fn write(&mut self, message: Value) -> Result<(), Error> {
        let sending = self.socket.send(Message::text(message.to_string()));
        timeout(SEND_LIMIT, sending)
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }

    /// Ends the stream from this side: stop, close, and a moment for the server to agree.
    async fn leave(&mut self) {
        let stop = json!({
            "accountSid": self.report.sim.settings.account_sid,
            "callSid": self.report.call.sid,
        });
        if self.send("stop", stop).await.is_err() || self.socket.close(None).await.is_err() {
            return;
        }
        let agreed = async { while let Some(Ok(_)) = self.socket.next().await {} };
        // A server that does not answer a close is left alone.
        let _ = timeout(CLOSE_LIMIT, agreed).await;
    }
}

fn broken(error: Error) -> Stopped {
    Stopped::Broken(socket::loss(&error), error.to_string())
}
