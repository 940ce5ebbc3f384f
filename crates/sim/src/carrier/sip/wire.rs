//! How SIP messages travel: one UDP socket and one TCP listener on one port, retransmissions, and the journal of both ways
//! (RFC 3261 sections 17 and 18). It knows transactions, not calls.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;

use super::message::{MAX_MESSAGE_BYTES, Message, Writing, whole_message};
use super::{Sim, Traced};

/// RFC 3261 section 17: the first wait for an answer over UDP, the longest, and the end of all waiting.
pub(super) const T1: Duration = Duration::from_millis(500);
pub(super) const T2: Duration = Duration::from_secs(4);
pub(super) const GIVE_UP: Duration = Duration::from_secs(32);
/// Answers that are kept for requests that come again.
const MAX_ANSWERED: usize = 1_000;
const MAX_TRACED: usize = 10_000;

/// The way to the other side of a transaction.
#[derive(Clone)]
pub(super) enum Path {
    Udp(SocketAddr),
    Tcp(mpsc::UnboundedSender<String>),
}

#[derive(Default)]
pub(super) struct Transactions {
    /// Our requests that may still be answered, by branch and method.
    asked: HashMap<(String, String), mpsc::UnboundedSender<Message>>,
    /// Our answers, by branch and method of the request.
    answered: VecDeque<((String, String), String)>,
}

/// Answers to one request of ours; forgetting them ends the transaction.
pub(super) struct Answers {
    sim: Arc<Sim>,
    key: (String, String),
    received: mpsc::UnboundedReceiver<Message>,
    repeating: Option<tokio::task::JoinHandle<()>>,
}

impl Answers {
    /// The next answer; nothing when the other side has been silent for 32 s.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let answer = tokio::time::timeout(GIVE_UP, self.received.recv()).await.ok().flatten();
        if let Some(repeating) = self.repeating.take() {
            repeating.abort();
        }
        answer
    }

    /// The first answer that is final.
    pub(super) async fn last(mut self) -> Option<Message> {
        loop {
            let answer = self.next().await?;
            if answer.status().is_some_and(|status| status >= 200) {
                return Some(answer);
            }
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        if let Some(repeating) = self.repeating.take() {
            repeating.abort();
        }
        self.sim.lock().transactions.asked.remove(&self.key);
    }
}

impl Sim {
    pub(super) fn transport(&self) -> &'static str {
        if self.settings.tcp { "tcp" } else { "udp" }
    }

    /// The way to the customer's user agent: a connection is made where there is none.
    pub(super) async fn path_to(self: &Arc<Self>, peer: SocketAddr) -> io::Result<Path> {
        if !self.settings.tcp {
            return Ok(Path::Udp(peer));
        }
        if let Some(path) = self.lock().connections.get(&peer).filter(|path| !path.is_closed()) {
            return Ok(Path::Tcp(path.clone()));
        }
        let socket = TcpStream::connect(peer).await?;
        Ok(Path::Tcp(self.clone().hold(socket, peer)))
    }

    /// Sends a request and listens for its answers; over UDP it is repeated until the first one.
    pub(super) async fn ask(self: &Arc<Self>, request: &Message, path: &Path, writing: Writing) -> Answers {
        let (sender, received) = mpsc::unbounded_channel();
        let key = key_of(request);
        self.lock().transactions.asked.insert(key.clone(), sender);
        let text = request.write(writing);
        self.send(&text, path).await;
        let repeating = matches!(path, Path::Udp(_)).then(|| {
            let (sim, path, invite) = (self.clone(), path.clone(), request.method() == Some("INVITE"));
            tokio::spawn(async move {
                let mut wait = T1;
                loop {
                    tokio::time::sleep(wait).await;
                    sim.send(&text, &path).await;
                    wait = if invite { wait * 2 } else { (wait * 2).min(T2) };
                }
            })
        });
        Answers { sim: self.clone(), key, received, repeating }
    }

    /// Answers a request, and again whenever it comes again.
    pub(super) async fn answer(self: &Arc<Self>, request: &Message, answer: &Message, path: &Path) {
        let text = answer.write(Writing::default());
        {
            let transactions = &mut self.lock().transactions;
            let key = key_of(request);
            transactions.answered.retain(|(known, _)| *known != key);
            if transactions.answered.len() == MAX_ANSWERED {
                transactions.answered.pop_front();
            }
            transactions.answered.push_back((key, text.clone()));
        }
        self.send(&text, path).await;
    }

    pub(super) async fn send(&self, text: &str, path: &Path) {
        self.trace(true, text);
        match path {
            // A port where nobody listens is found out by the silence that follows.
            Path::Udp(peer) => drop(self.udp.send_to(text.as_bytes(), peer).await),
            Path::Tcp(connection) => drop(connection.send(text.to_owned())),
        }
    }

    /// Takes datagrams for as long as the simulator lives.
    pub(super) async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut datagram = vec![0; MAX_MESSAGE_BYTES];
        loop {
            // On some systems an earlier datagram that reached nobody is reported here.
            let Ok((length, from)) = socket.recv_from(&mut datagram).await else { continue };
            self.take(&datagram[..length], Path::Udp(from));
        }
    }

    pub(super) async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        while let Ok((socket, from)) = listener.accept().await {
            self.clone().hold(socket, from);
        }
    }

    /// Reads from and writes to a connection until it ends.
    fn hold(self: Arc<Self>, socket: TcpStream, peer: SocketAddr) -> mpsc::UnboundedSender<String> {
        let (sender, mut outgoing) = mpsc::unbounded_channel::<String>();
        self.lock().connections.insert(peer, sender.clone());
        let (mut reading, mut writing) = socket.into_split();
        tokio::spawn(async move {
            while let Some(text) = outgoing.recv().await {
                if writing.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let path = Path::Tcp(sender.clone());
        let taken = tokio::spawn({
            let sim = self.clone();
            async move {
                let mut stream = Vec::new();
                while reading.read_buf(&mut stream).await.is_ok_and(|length| length > 0) {
                    while stream.starts_with(b"\r\n") {
                        stream.drain(..2);
                    }
                    while let Some(length) = whole_message(&stream) {
                        let message: Vec<u8> = stream.drain(..length).collect();
                        sim.take(&message, path.clone());
                    }
                    if stream.len() > MAX_MESSAGE_BYTES {
                        break;
                    }
                }
                sim.lock().connections.remove(&peer);
            }
        });
        self.lock().tasks.push(taken);
        sender
    }

    fn take(self: &Arc<Self>, bytes: &[u8], path: Path) {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        self.trace(false, &String::from_utf8_lossy(bytes));
        match Message::parse(bytes) {
            Err(malformed) => self.complain(malformed.to_string()),
            Ok(message) if message.method().is_some() => self.take_request(message, path),
            Ok(answer) => {
                let (sequence, key) =
                    (answer.sequence().map(|(_, method)| method.to_owned()), answer.branch());
                let key = (key.unwrap_or_default(), sequence.unwrap_or_default());
                if let Some(asked) = self.lock().transactions.asked.get(&key) {
                    // The asker may have heard enough.
                    let _ = asked.send(answer);
                }
            }
        }
    }

    fn take_request(self: &Arc<Self>, request: Message, path: Path) {
        let key = key_of(&request);
        let again = self.lock().transactions.answered.iter().find(|(known, _)| *known == key).cloned();
        let sim = self.clone();
        tokio::spawn(async move {
            match again {
                Some((_, text)) => sim.send(&text, &path).await,
                None => sim.requested(request, path).await,
            }
        });
    }

    fn trace(&self, sent: bool, text: &str) {
        let mut state = self.lock();
        if state.traced.len() == MAX_TRACED {
            state.traced.pop_front();
        }
        state.traced.push_back(Traced { sent, text: text.to_owned() });
        drop(state);
        self.changed.send_replace(());
    }
}

fn key_of(request: &Message) -> (String, String) {
    (request.branch().unwrap_or_default(), request.method().unwrap_or_default().to_owned())
}
