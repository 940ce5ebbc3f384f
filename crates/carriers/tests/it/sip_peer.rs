//! The other end of a trunk, by hand: a socket that says what a test writes, and shows what came back. And the house with our
//! user agent in it.

use offhook_carriers::sip::{
    Incoming, Listening, SipEvent, Trunk, TrunkId, TrunkSettings, TrunkState, UserAgent,
};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(20);
/// How long nothing must come for it to be silence.
pub const SILENCE: Duration = Duration::from_millis(400);

/// Our user agent with its owner's mailbox.
pub struct House {
    pub agent: UserAgent,
    pub address: SocketAddr,
    pub events: mpsc::Receiver<SipEvent>,
}

/// A trunk to this machine that neither registers nor probes.
pub fn trunk(change: impl FnOnce(&mut TrunkSettings)) -> Trunk {
    let mut settings = TrunkSettings::at("127.0.0.1");
    settings.allowed = vec!["127.0.0.1".parse().unwrap()];
    settings.options_s = 0;
    change(&mut settings);
    Trunk { id: TrunkId("con_sip".into()), settings, password: None }
}

pub fn listening() -> Listening {
    Listening {
        udp: Some("127.0.0.1:0".parse().unwrap()),
        tcp: None,
        tls: None,
        public_host: None,
        public_media: None,
        rtp_ports: 20_000..=29_999,
    }
}

impl House {
    pub async fn with(trunks: Vec<Trunk>) -> Self {
        House::listening(listening(), trunks).await
    }

    pub async fn listening(listening: Listening, trunks: Vec<Trunk>) -> Self {
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (events, mailbox) = mpsc::channel(64);
        let agent = UserAgent::start(listening, trunks, events).await.unwrap();
        let address = agent.listening().0.unwrap();
        House { agent, address, events: mailbox }
    }

    /// The next call; what trunks tell meanwhile is passed over.
    pub async fn rings(&mut self) -> Incoming {
        let wait = async {
            loop {
                if let SipEvent::Rings(incoming) = self.events.recv().await.unwrap() {
                    return incoming;
                }
            }
        };
        timeout(LIMIT, wait).await.expect("nobody calls")
    }

    /// The next news of a trunk.
    pub async fn news(&mut self) -> TrunkState {
        let wait = async {
            loop {
                if let SipEvent::Trunk { state, .. } = self.events.recv().await.unwrap() {
                    return state;
                }
            }
        };
        timeout(LIMIT, wait).await.expect("no news of the trunk")
    }
}

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Message {
    pub start: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Message {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':').map(|(n, v)| (n.to_lowercase(), v.trim().to_owned())))
            .collect();
        Message { start, headers, body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let name = name.to_lowercase();
        self.headers.iter().filter(move |(n, _)| *n == name).map(|(_, v)| v.as_str())
    }

    pub fn status(&self) -> u16 {
        self.start.strip_prefix("SIP/2.0 ").and_then(|s| s.get(..3)?.parse().ok()).unwrap_or(0)
    }

    pub fn method(&self) -> &str {
        if self.status() > 0 { "" } else { self.start.split(' ').next().unwrap_or_default() }
    }
}

/// The far end.
pub struct Peer {
    pub socket: UdpSocket,
    pub us: SocketAddr,
}

impl Peer {
    pub async fn of(house: &House) -> Self {
        Peer { socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(), us: house.address }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Sends a message; lines may end as Rust's do.
    pub async fn say(&self, text: &str) {
        self.socket.send_to(&wire(text), self.us).await.unwrap();
    }

    pub async fn hear(&self) -> Message {
        let mut buffer = vec![0; 65_536];
        let (length, _) =
            timeout(LIMIT, self.socket.recv_from(&mut buffer)).await.expect("nothing came").unwrap();
        Message::read(std::str::from_utf8(&buffer[..length]).unwrap())
    }

    /// The next answer with this status; provisional ones and repeats are passed over.
    pub async fn hear_status(&self, status: u16) -> Message {
        loop {
            let message = self.hear().await;
            if message.status() == status {
                return message;
            }
            assert!(
                message.status() < 200 || status < message.status() && message.status() < 300,
                "{message:?}"
            );
        }
    }

    /// The next request of this kind.
    pub async fn hear_request(&self, method: &str) -> Message {
        loop {
            let message = self.hear().await;
            if message.method() == method {
                return message;
            }
        }
    }

    /// Nothing comes.
    pub async fn hears_nothing(&self) {
        let mut buffer = vec![0; 65_536];
        if let Ok(came) = timeout(SILENCE, self.socket.recv_from(&mut buffer)).await {
            panic!("{}", String::from_utf8_lossy(&buffer[..came.unwrap().0]));
        }
    }

    /// Answers a request with these headers besides and this body.
    pub async fn answer(&self, request: &Message, status: &str, more: &str, body: &str) {
        let mut text = format!("SIP/2.0 {status}\n");
        for name in ["via", "from", "call-id", "cseq", "record-route"] {
            request.all(name).for_each(|value| text.push_str(&format!("{name}: {value}\n")));
        }
        let to = request.header("to");
        let tag = if to.contains("tag=") || status.starts_with("100") { "" } else { ";tag=far" };
        text.push_str(&format!("To: {to}{tag}\n{more}"));
        if !body.is_empty() {
            text.push_str("Content-Type: application/sdp\n");
        }
        let body = body.replace('\n', "\r\n");
        text.push_str(&format!("Content-Length: {}\n\n{body}", body.len()));
        self.say(&text).await;
    }
}

pub fn wire(text: &str) -> Vec<u8> {
    text.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes()
}

/// An offer of G.711 at that port.
pub fn sdp(port: u16, direction: &str) -> String {
    format!(
        "v=0\no=far 1 1 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0 8 101\n\
         a=rtpmap:0 PCMU/8000\na=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\n\
         a=ptime:20\na={direction}\n"
    )
}

/// A call of the far end's, as its requests.
pub struct FarCall<'a> {
    pub peer: &'a Peer,
    pub id: String,
    pub to_tag: String,
    pub sequence: u32,
    pub branch: u32,
}

impl<'a> FarCall<'a> {
    pub fn new(peer: &'a Peer, id: &str) -> Self {
        FarCall { peer, id: id.to_owned(), to_tag: String::new(), sequence: 1, branch: 1 }
    }

    /// A request of this call with these headers besides and this body.
    pub fn request(&self, method: &str, more: &str, body: &str) -> String {
        let (from, us) = (self.peer.address(), self.peer.us);
        let (id, branch, sequence) = (&self.id, self.branch, self.sequence);
        let tag = if self.to_tag.is_empty() { String::new() } else { format!(";tag={}", self.to_tag) };
        let content = if body.is_empty() || more.contains("Content-Type") {
            ""
        } else {
            "Content-Type: application/sdp\n"
        };
        let body = body.replace("\r\n", "\n").replace('\n', "\r\n");
        format!(
            "{method} sip:+14155550101@{us} SIP/2.0\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{id}{branch};rport\n\
             Max-Forwards: 70\nFrom: \"Ada\" <sip:+14155550100@{from}>;tag=near{id}\nTo: <sip:+14155550101@{us}>{tag}\n\
             Call-ID: {id}\nCSeq: {sequence} {method}\nContact: <sip:ada@{from}>\n{more}{content}Content-Length: {}\n\n{body}",
            body.len()
        )
    }

    pub async fn send(&mut self, method: &str, more: &str, body: &str) {
        self.branch += 1;
        self.peer.say(&self.request(method, more, body)).await;
    }

    /// Waits for our 200, and acknowledges it.
    pub async fn established(&mut self) -> Message {
        let ok = self.peer.hear_status(200).await;
        self.to_tag = ok.header("to").split("tag=").nth(1).unwrap().to_owned();
        self.send("ACK", "", "").await;
        ok
    }
}
