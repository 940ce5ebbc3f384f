//! The carrier's end of a media stream: sends what the far party says 50 times a second in the codec of the stream, plays what comes back
//! in real time, returns marks when they have been heard. It knows one socket of one leg, and not what the audio means.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use jiff::Timestamp;
use offhook_media::coding::Coding;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::super::phone::{FromPhone, Line, SAMPLES_PER_MS, StreamLoss, What};
use super::super::socket::{self, Socket, at};
use super::audio::{ByteOrder, Codec, Way};
use super::call::Call;
use super::{Sim, new_uuid, timestamp};

/// A server that does not read for so long is gone.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// How long our close is waited for.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// What a slow socket may fall behind before frames are lost to it.
const BACKLOG_FRAMES: usize = 100;
/// The least and the most that one message may hold.
const MEDIA_MS: std::ops::RangeInclusive<usize> = 20..=30_000;
/// In `mp3` mode one message may come in so long.
const MP3_PAUSE: Duration = Duration::from_secs(1);

/// What follows when a media socket is lost without a close: the documents do not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterLoss {
    /// `streaming.failed`
    #[default]
    Failed,
    /// `streaming.stopped`
    Stopped,
    /// No webhook at all.
    Nothing,
}

/// How the carrier treats the audio of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manners {
    /// The codec that arrives whatever was asked for.
    pub codec: Option<Codec>,
    /// How L16 is written, both ways.
    pub byte_order: ByteOrder,
    /// Every so many frames one is sent behind the next one; 0 for never.
    pub swap_every: u64,
    /// What happens when a socket breaks.
    pub after_loss: AfterLoss,
}

/// What a command asks a stream to be.
#[derive(Clone, Debug)]
pub(super) struct StreamWish {
    pub(super) url: String,
    pub(super) track: String,
    /// What we are to send.
    pub(super) codec: Option<Codec>,
    /// What we are to expect; nothing in `mp3` mode.
    pub(super) back: Option<Codec>,
    /// The rate of L16 in the way back, and that of the way there where it was named.
    pub(super) rate_hz: Option<u32>,
    pub(super) legs: Legs,
    pub(super) auth_token: Option<String>,
    pub(super) parameters: Value,
}

/// Who hears what the stream brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Legs {
    This,
    Opposite,
    Both,
}

impl StreamWish {
    /// Reads the stream fields of a command; nothing where it names no URL.
    pub(super) fn read(body: &super::request::Body, honours_rate: bool) -> Option<StreamWish> {
        let url = body.text("stream_url")?.to_owned();
        let rtp = body.text("stream_bidirectional_mode") == Some("rtp");
        // What is documented as default is PCMU, and what the simulator has not, is transcoded to it.
        let named = |name: &str| body.text(name).and_then(Codec::parse);
        let back = rtp.then(|| named("stream_bidirectional_codec").unwrap_or(Codec::Pcmu));
        let rate = body.0.get("stream_bidirectional_sampling_rate").and_then(Value::as_u64);
        let legs = match body.text("stream_bidirectional_target_legs") {
            Some("self") => Legs::This,
            Some("both") => Legs::Both,
            _ => Legs::Opposite,
        };
        let parameters = body.0.get("custom_parameters").and_then(Value::as_array);
        let parameters = parameters.into_iter().flatten().filter_map(|parameter| {
            Some((parameter["name"].as_str()?.to_owned(), parameter["value"].clone()))
        });
        Some(StreamWish {
            url,
            track: body.text("stream_track").unwrap_or("inbound_track").to_owned(),
            codec: named("stream_codec"),
            back,
            rate_hz: rate.filter(|_| honours_rate).and_then(|rate| u32::try_from(rate).ok()),
            legs,
            auth_token: body.text("stream_auth_token").map(str::to_owned),
            parameters: Value::Object(parameters.collect()),
        })
    }
}

/// What a running stream is told.
pub(super) enum Control {
    /// It ends in order.
    Stop,
    /// It loses its socket.
    Lose(AfterLoss),
}

/// The call's end of a stream.
#[derive(Clone)]
pub(super) struct StreamHandle {
    pub(super) id: String,
    frames: mpsc::Sender<FromPhone>,
    control: mpsc::Sender<Control>,
    told: watch::Receiver<()>,
}

impl StreamHandle {
    /// Hands on what the far party says; a socket that is behind loses it.
    pub(super) fn carry(&self, said: FromPhone) {
        let _ = self.frames.try_send(said);
    }

    /// Whether there was still something to tell.
    pub(super) fn tell(&self, control: Control) -> bool {
        self.control.try_send(control).is_ok()
    }

    /// Stops the stream and waits until its end was told.
    pub(super) async fn stop(mut self) {
        self.tell(Control::Stop);
        // An error means that the sender is gone, and with it the stream.
        let _ = self.told.changed().await;
    }
}

/// Opens a stream on a leg; what becomes of it is told by webhooks.
pub(super) fn start(sim: &Arc<Sim>, call: &Arc<Call>, wish: StreamWish) {
    let (frames, from_phone) = mpsc::channel(BACKLOG_FRAMES);
    let (control, controlled) = mpsc::channel(4);
    let (tell_end, told) = watch::channel(());
    let id = new_uuid();
    call.stream_opens(StreamHandle { id: id.clone(), frames, control, told });
    let report = Report { sim: sim.clone(), call: call.clone(), id, wish, tell_end };
    tokio::spawn(run(report, from_phone, controlled));
}

async fn run(report: Report, from_phone: mpsc::Receiver<FromPhone>, mut control: mpsc::Receiver<Control>) {
    let arrives_at = report.sim.webhooks.arrives_at(&report.wish.url);
    let token = report.wish.auth_token.clone().map(|token| ("x-telnyx-streaming-auth-token", token));
    let headers: Vec<_> = token.into_iter().collect();
    let connected = tokio::select! {
        biased;
        Some(told) = control.recv() => Err(match told {
            Control::Stop => None,
            Control::Lose(then) => Some((StreamLoss::Broken, then)),
        }),
        connected = socket::connect(&arrives_at, &headers) => connected.map_err(|(loss, message)| {
            tracing::warn!(message, "Simulated Telnyx could not open a media socket");
            Some((loss, AfterLoss::Failed))
        }),
    };
    match connected {
        Ok(socket) => Pump::new(report, socket).run(from_phone, control).await,
        Err(loss) => report.ended(loss),
    }
}

/// What is told about a stream outside of its socket.
struct Report {
    sim: Arc<Sim>,
    call: Arc<Call>,
    id: String,
    wish: StreamWish,
    /// Dropped or sent when the end was told.
    tell_end: watch::Sender<()>,
}

impl Report {
    fn opened(&self) {
        self.call.line.note(What::StreamOpened { stream: self.id.clone() });
        self.call.tell("streaming.started", json!({"stream_url": self.wish.url}));
    }

    fn ended(&self, loss: Option<(StreamLoss, AfterLoss)>) {
        self.call.stream_ended(&self.id);
        let how = loss.map(|(how, _)| how);
        self.call.line.note(What::StreamEnded { stream: self.id.clone(), loss: how });
        match loss.map_or(AfterLoss::Stopped, |(_, then)| then) {
            AfterLoss::Stopped => self.call.tell("streaming.stopped", json!({"stream_url": self.wish.url})),
            AfterLoss::Failed => {
                let failed = json!({
                    "failure_reason": "connection_failed",
                    "stream_id": self.id,
                    "stream_type": "websocket",
                    "stream_params": {"stream_url": self.wish.url, "track": self.wish.track},
                });
                self.call.tell("streaming.failed", failed);
            }
            AfterLoss::Nothing => {}
        }
        self.tell_end.send_replace(());
    }
}

/// A message from the server.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Incoming {
    Media { media: IncomingMedia },
    Mark { mark: IncomingMark },
    Clear {},
}

#[derive(Deserialize)]
struct IncomingMedia {
    payload: String,
}

#[derive(Deserialize)]
struct IncomingMark {
    name: String,
}

/// An error message of the stream.
struct Complaint {
    code: u32,
    title: &'static str,
    detail: String,
}

impl Complaint {
    fn malformed(detail: impl Into<String>) -> Complaint {
        Complaint { code: 100_003, title: "malformed_frame", detail: detail.into() }
    }

    fn invalid_media(detail: impl Into<String>) -> Complaint {
        Complaint { code: 100_004, title: "invalid_media", detail: detail.into() }
    }
}

/// Why the pump ends.
enum Stopped {
    /// The call is over or does something else.
    ByCall,
    /// The server closed the socket in order.
    ByServer,
    /// The socket is to be lost.
    OnDemand(AfterLoss),
    /// The socket is gone.
    Broken(StreamLoss),
}

/// Moves audio and messages between one line and one socket.
struct Pump {
    report: Report,
    socket: Socket,
    there: Way,
    /// Nothing in `mp3` mode.
    back: Option<Way>,
    last_mp3: Option<Instant>,
    opened_at: u64,
    sequence: u64,
    chunk: u64,
    /// A frame that the next one overtakes.
    overtaken: Option<Value>,
}

impl Pump {
    fn new(report: Report, socket: Socket) -> Pump {
        let manners = report.call.manners;
        // The documents call L16 16 kHz; a rate that was asked for goes before that.
        let rate_hz = report.wish.rate_hz;
        let codec = manners.codec.or(report.wish.codec).unwrap_or(Codec::Pcmu);
        let there = Way::there(codec.coding(rate_hz.unwrap_or(16_000)), manners.byte_order);
        let back = report.wish.back.map(|codec| {
            let coding = codec.coding(rate_hz.unwrap_or(8_000));
            Way::back(coding, manners.byte_order)
        });
        Pump {
            opened_at: report.call.line.now(),
            report,
            socket,
            there,
            back,
            last_mp3: None,
            sequence: 0,
            chunk: 0,
            overtaken: None,
        }
    }

    async fn run(mut self, from_phone: mpsc::Receiver<FromPhone>, control: mpsc::Receiver<Control>) {
        self.report.opened();
        let stopped = match self.pump(from_phone, control).await {
            Ok(stopped) => stopped,
            Err(error) => Stopped::Broken(socket::loss(&error)),
        };
        self.report.call.line.cut();
        match stopped {
            Stopped::ByCall => {
                self.report.ended(None);
                self.leave().await;
            }
            Stopped::ByServer => self.report.ended(None),
            Stopped::OnDemand(then) => {
                socket::reset(&self.socket);
                self.report.ended(Some((StreamLoss::Broken, then)));
            }
            Stopped::Broken(loss) => self.report.ended(Some((loss, self.report.call.manners.after_loss))),
        }
    }

    async fn pump(
        &mut self,
        mut from_phone: mpsc::Receiver<FromPhone>,
        mut control: mpsc::Receiver<Control>,
    ) -> Result<Stopped, Error> {
        // What was said before the socket opened is not part of the stream.
        while from_phone.try_recv().is_ok() {}
        self.open().await?;
        loop {
            let line = self.heard_by();
            let next_mark = line.as_ref().and_then(Line::next_mark);
            tokio::select! {
                biased;
                told = control.recv() => match told {
                    Some(Control::Lose(then)) => return Ok(Stopped::OnDemand(then)),
                    Some(Control::Stop) | None => return Ok(Stopped::ByCall),
                },
                () = at(next_mark) => {
                    for name in line.map(|line| line.due_marks()).unwrap_or_default() {
                        self.send_mark(&name).await?;
                    }
                }
                Some(said) = from_phone.recv() => match said {
                    FromPhone::Frame { at, pcm } => self.carry(at, pcm.as_slice()).await?,
                    FromPhone::Digit(digit) => self.send_digit(digit).await?,
                },
                message = self.socket.next() => match message {
                    None => return Ok(Stopped::Broken(StreamLoss::ClosedByServer)),
                    Some(Ok(Message::Close(_))) => {
                        // The answer to the close has been queued by the library and leaves with the flush.
                        let _ = timeout(CLOSE_LIMIT, self.socket.flush()).await;
                        return Ok(Stopped::ByServer);
                    }
                    Some(Ok(Message::Text(text))) => self.receive(text.as_str()).await?,
                    Some(Ok(Message::Binary(_))) => {
                        self.complain(Complaint::malformed("A binary message")).await?;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                },
            }
        }
    }

    /// The line that plays what the stream brings: nobody's where the opposite of a lone leg is meant.
    fn heard_by(&self) -> Option<Line> {
        match self.report.wish.legs {
            Legs::This | Legs::Both => Some(self.report.call.line.clone()),
            Legs::Opposite => self.report.call.peer().map(|peer| peer.line.clone()),
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        self.write(json!({"event": "connected", "version": "1.0.0"})).await?;
        let call = &self.report.call;
        let encoding = match self.there.coding {
            Coding::MU_LAW => "PCMU",
            Coding::A_LAW => "PCMA",
            _ => "L16",
        };
        let start = json!({
            "user_id": self.report.sim.user_id,
            "call_control_id": call.control_id,
            "call_session_id": call.session_id,
            "from": call.from,
            "to": call.to,
            "tags": [],
            "client_state": call.client_state(),
            "custom_parameters": self.report.wish.parameters,
            "media_format": {
                "encoding": encoding, "sample_rate": self.there.coding.rate_hz(), "channels": 1,
            },
        });
        self.send("start", start).await
    }

    async fn carry(&mut self, at: u64, pcm: &[i16]) -> Result<(), Error> {
        self.chunk += 1;
        let timestamp_ms = at.saturating_sub(self.opened_at) / SAMPLES_PER_MS;
        let media = json!({
            "track": "inbound",
            "chunk": self.chunk.to_string(),
            "timestamp": timestamp_ms.to_string(),
            "payload": STANDARD.encode(self.there.encode(pcm)),
        });
        let every = self.report.call.manners.swap_every;
        if every > 0 && self.chunk.is_multiple_of(every) && self.overtaken.is_none() {
            self.overtaken = Some(media);
            return Ok(());
        }
        self.send("media", media).await?;
        match self.overtaken.take() {
            Some(media) => self.send("media", media).await,
            None => Ok(()),
        }
    }

    async fn send_digit(&mut self, digit: char) -> Result<(), Error> {
        self.sequence += 1;
        let message = json!({
            "event": "dtmf",
            "stream_id": self.report.id,
            "occurred_at": timestamp(Timestamp::now()),
            "sequence_number": self.sequence.to_string(),
            "dtmf": {"digit": digit.to_string()},
        });
        self.write(message).await
    }

    /// Does what the server asks, or says why not.
    async fn receive(&mut self, text: &str) -> Result<(), Error> {
        match self.obey(text) {
            Ok(returned_marks) => {
                for name in returned_marks {
                    self.send_mark(&name).await?;
                }
                Ok(())
            }
            Err(complaint) => self.complain(complaint).await,
        }
    }

    fn obey(&mut self, text: &str) -> Result<Vec<String>, Complaint> {
        let message: Incoming =
            serde_json::from_str(text).map_err(|error| Complaint::malformed(error.to_string()))?;
        let full = |_| Complaint {
            code: 100_005,
            title: "rate_limit_reached",
            detail: "More audio or marks than the buffer holds".into(),
        };
        let line = self.heard_by();
        match message {
            Incoming::Media { media } => self.play(&media.payload)?,
            Incoming::Mark { mark } => {
                self.flush();
                match &line {
                    Some(line) => line.mark(mark.name).map_err(full)?,
                    None => return Ok(vec![mark.name]),
                }
            }
            Incoming::Clear {} => {
                if let Some(back) = &mut self.back {
                    back.reset();
                }
                return Ok(line.map(|line| line.clear()).unwrap_or_default());
            }
        }
        Ok(Vec::new())
    }

    fn play(&mut self, payload: &str) -> Result<(), Complaint> {
        let not_base64 = |_| Complaint::invalid_media("Media provided was not base64 encoded");
        let coded = STANDARD.decode(payload).map_err(not_base64)?;
        let Some(back) = &mut self.back else { return self.play_mp3() };
        let length_ms = coded.len() / back.coding.bytes_per_ms();
        if !MEDIA_MS.contains(&length_ms) {
            let detail = format!("Media must last from 20 ms to 30 s and lasts {length_ms} ms");
            return Err(Complaint::invalid_media(detail));
        }
        let pcm = back.decode(coded);
        self.sound(&pcm)
    }

    /// An MP3 is not opened: that one was played is all that is known.
    fn play_mp3(&mut self) -> Result<(), Complaint> {
        let now = Instant::now();
        if self.last_mp3.is_some_and(|last| now.duration_since(last) < MP3_PAUSE) {
            let detail = "One media message a second is taken in mp3 mode".into();
            return Err(Complaint { code: 100_005, title: "rate_limit_reached", detail });
        }
        self.last_mp3 = Some(now);
        self.report.call.line.note(What::CarrierPlayed { url: "mp3".into() });
        Ok(())
    }

    /// Plays what the resampler still holds.
    fn flush(&mut self) {
        let Some(back) = &mut self.back else { return };
        let pcm = back.flush();
        // A buffer that is full loses it, as it loses speech.
        let _ = self.sound(&pcm);
    }

    fn sound(&self, pcm: &[i16]) -> Result<(), Complaint> {
        let peer = self.report.call.peer().filter(|_| self.report.wish.legs != Legs::This);
        let lines = [
            (self.report.wish.legs != Legs::Opposite).then(|| self.report.call.line.clone()),
            peer.map(|peer| peer.line.clone()),
        ];
        for line in lines.into_iter().flatten() {
            line.hear(pcm, 0).map_err(|_| Complaint::invalid_media("More audio than the buffer holds"))?;
        }
        Ok(())
    }

    async fn complain(&mut self, complaint: Complaint) -> Result<(), Error> {
        let Complaint { code, title, detail } = complaint;
        tracing::warn!(code, detail, "Simulated Telnyx complains on a media socket");
        let payload = json!({"code": code, "title": title, "detail": detail});
        self.write(json!({"event": "error", "stream_id": self.report.id, "payload": payload})).await
    }

    async fn send_mark(&mut self, name: &str) -> Result<(), Error> {
        self.send("mark", json!({"name": name})).await
    }

    /// Sends an event with its content under its own name.
    async fn send(&mut self, event: &str, content: Value) -> Result<(), Error> {
        self.sequence += 1;
        let message = json!({
            "event": event,
            "sequence_number": self.sequence.to_string(),
            "stream_id": self.report.id,
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
            "user_id": self.report.sim.user_id,
            "call_control_id": self.report.call.control_id,
        });
        if self.send("stop", stop).await.is_err() || self.socket.close(None).await.is_err() {
            return;
        }
        let agreed = async { while let Some(Ok(_)) = self.socket.next().await {} };
        // A server that does not answer a close is left alone.
        let _ = timeout(CLOSE_LIMIT, agreed).await;
    }
}
