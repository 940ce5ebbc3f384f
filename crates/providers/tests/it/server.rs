//! Servers that do nothing by themselves: a test accepts each connection and plays the provider line by line.
//! They know HTTP and WebSockets, and no provider.

use futures_util::{SinkExt, StreamExt};
use offhook_providers::{Connection, ProviderSettings};
use serde_json::Value;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// Longest wait for anything that must happen.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Waits for what must happen soon.
pub async fn soon<T>(what: &str, happening: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, happening).await.unwrap_or_else(|_| panic!("{what}: nothing happened"))
}

/// The next report of a session.
pub async fn next<T>(events: &mut mpsc::Receiver<T>) -> T {
    soon("a report", events.recv()).await.expect("the session has not ended")
}

/// Settings for a server of ours, with short timeouts.
pub fn settings(kind: &str, base_url: &str) -> ProviderSettings {
    settings_with(kind, base_url, Value::Null)
}

/// The same with options of the provider.
pub fn settings_with(kind: &str, base_url: &str, options: Value) -> ProviderSettings {
    let connection = Connection {
        base_url: Some(base_url.into()),
        connect_timeout_ms: Some(400),
        first_byte_timeout_ms: Some(400),
        idle_timeout_ms: Some(400),
        options: options.as_object().cloned().unwrap_or_default(),
        ..Connection::default()
    };
    match kind {
        "openai" => ProviderSettings::Openai(connection),
        "deepgram" => ProviderSettings::Deepgram(connection),
        "deepgram_flux" => ProviderSettings::DeepgramFlux(connection),
        "elevenlabs" => ProviderSettings::Elevenlabs(connection),
        "cartesia" => ProviderSettings::Cartesia(connection),
        _ => panic!("no such provider: {kind}"),
    }
}

/// The same with timeouts that a busy machine does not reach.
pub fn patient(settings: ProviderSettings) -> ProviderSettings {
    let mut settings = settings;
    let (ProviderSettings::Openai(connection)
    | ProviderSettings::Deepgram(connection)
    | ProviderSettings::DeepgramFlux(connection)
    | ProviderSettings::Elevenlabs(connection)
    | ProviderSettings::Cartesia(connection)) = &mut settings
    else {
        return settings;
    };
    connection.connect_timeout_ms = Some(8_000);
    connection.first_byte_timeout_ms = Some(8_000);
    connection.idle_timeout_ms = Some(8_000);
    settings
}

/// A port that connections can be accepted from, one by one.
pub struct Server {
    listener: TcpListener,
    /// `http://127.0.0.1:port`.
    pub url: String,
}

impl Server {
    pub async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Server { listener, url }
    }

    /// The next connection, before anything is said on it.
    pub async fn connection(&self) -> TcpStream {
        let (stream, _) = soon("a connection", self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// The next request.
    pub async fn request(&self) -> Exchange {
        Exchange::read(self.connection().await).await
    }

    /// The next WebSocket.
    pub async fn socket(&self) -> Socket {
        let stream = self.connection().await;
        let (mut uri, mut headers) = (String::new(), BTreeMap::new());
        #[allow(clippy::result_large_err, reason = "the handshake's own callback type")]
        let read = |request: &Request, response: Response| {
            uri = request.uri().to_string();
            headers = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect();
            Ok(response)
        };
        let socket = soon("an upgrade", accept_hdr_async(stream, read)).await.unwrap();
        Socket { uri, headers, socket }
    }
}

/// One request and its answer.
pub struct Exchange {
    pub line: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    stream: TcpStream,
}

impl Exchange {
    async fn read(mut stream: TcpStream) -> Exchange {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            assert!(
                soon("a request", stream.read_buf(&mut bytes)).await.unwrap() > 0,
                "the request broke off"
            );
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let line = lines.next().unwrap().to_owned();
        let headers: BTreeMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = bytes.split_off(end + 4);
        while body.len() < length {
            assert!(soon("a body", stream.read_buf(&mut body)).await.unwrap() > 0, "the body broke off");
        }
        Exchange { line, headers, body, stream }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Answers whole.
    pub async fn answer(mut self, status: u16, content_type: &str, body: &str) {
        self.begin(status, content_type, &format!("content-length: {}\r\n", body.len())).await;
        self.say(body.as_bytes()).await;
    }

    /// Answers with a body that comes in chunks, and does not end the connection.
    pub async fn stream_in_chunks(&mut self, content_type: &str) {
        let head = format!(
            "HTTP/1.1 200 Said\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        self.say(head.as_bytes()).await;
    }

    /// The next chunk of such a body; an empty one ends it.
    pub async fn say_chunk(&mut self, bytes: &[u8]) {
        let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        self.say(&chunk).await;
    }

    /// The next request on the same connection.
    pub async fn again(self) -> Exchange {
        Exchange::read(self.stream).await
    }

    /// Answers with a body that ends when the connection does.
    pub async fn stream(&mut self, content_type: &str) {
        self.begin(200, content_type, "").await;
    }

    async fn begin(&mut self, status: u16, content_type: &str, more: &str) {
        let head = format!(
            "HTTP/1.1 {status} Said\r\ncontent-type: {content_type}\r\n{more}connection: close\r\n\r\n"
        );
        self.say(head.as_bytes()).await;
    }

    /// Says something; whether anyone still listens shows elsewhere.
    pub async fn say(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Waits until the other side has closed the connection.
    pub async fn closed(&mut self) {
        let mut rest = Vec::new();
        let _ = soon("the end of the connection", self.stream.read_to_end(&mut rest)).await;
    }
}

/// One WebSocket session.
pub struct Socket {
    /// Path and query.
    pub uri: String,
    pub headers: BTreeMap<String, String>,
    socket: WebSocketStream<TcpStream>,
}

impl Socket {
    /// The value, or values, of a query parameter.
    pub fn query(&self, name: &str) -> Vec<String> {
        let url = url::Url::parse(&format!("http://x{}", self.uri)).unwrap();
        url.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
    }

    /// The next message, control frames aside; `None` once the other side has closed.
    pub async fn message(&mut self) -> Option<Message> {
        loop {
            match soon("a message", self.socket.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(message)) => return Some(message),
            }
        }
    }

    /// The next message, which must be JSON.
    pub async fn json(&mut self) -> Value {
        match self.message().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("no JSON: {other:?}"),
        }
    }

    /// The next message, which must be audio.
    pub async fn audio(&mut self) -> Vec<u8> {
        match self.message().await {
            Some(Message::Binary(audio)) => audio.to_vec(),
            other => panic!("no audio: {other:?}"),
        }
    }

    pub async fn say(&mut self, message: Value) {
        self.say_text(&message.to_string()).await;
    }

    pub async fn say_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub async fn say_audio(&mut self, audio: &[u8]) {
        self.socket.send(Message::binary(audio.to_vec())).await.unwrap();
    }

    pub async fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        let _ = self.socket.send(Message::Close(Some(frame))).await;
    }

    /// Waits for the other side to close, and answers what it said before.
    pub async fn closed(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(message) = self.message().await {
            said.push(message.to_string());
        }
        said
    }
}
