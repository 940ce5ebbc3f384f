//! A SIP carrier as a real peer on a socket: it calls into the customer's trunk, is called by it, registers it, and carries RTP.
//! Written from the RFCs and the carriers' documents alone; it knows nothing of the user agent that is tested against it.

mod digest;
mod invite;
mod leg;
mod message;
mod registrar;
mod rtp;
mod sdp;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::phone::{NotInTime, Party};
use invite::branch;
use leg::Leg;
use message::{Message, Writing, user_of};
use registrar::Registrar;
use wire::{Path, Transactions};

pub use digest::Algorithm;
pub use invite::{Carrier, SipOrder};
pub use leg::{LegStatus, ReferMood, SipLeg};
pub use message::Writing as SipWriting;
pub use registrar::{RegistrarSettings, Registration};
pub use rtp::{RtpReport, RtpTrouble};

const ALLOW: &str = "INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, INFO, UPDATE, REGISTER";
/// Attempts to find a port that is free for UDP and TCP.
const PORT_ATTEMPTS: usize = 20;

/// How the simulated carrier is reached and what it asks for.
#[derive(Clone, Debug, Default)]
pub struct SipSettings {
    /// Whether its own requests go over TCP; it is reached both ways.
    pub tcp: bool,
    /// Where the customer's user agent listens; can be told later.
    pub customer: Option<SocketAddr>,
    /// Whether the customer's calls are challenged with 407.
    pub challenges_calls: bool,
    /// Who may register and call.
    pub registrar: RegistrarSettings,
}

/// What meets a call of the customer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SipCallee {
    /// Rings and picks up.
    Answers {
        /// Time to the answer.
        after_ms: u64,
    },
    /// Rings until the call is taken back.
    NoAnswer,
    /// Is answered with a failure.
    Refuses {
        /// 486, 403, 503 and so on.
        status: u16,
        /// The reason phrase.
        reason: String,
        /// More headers, such as `Retry-After`.
        headers: Vec<(String, String)>,
    },
    /// Never gets an answer, not even 100.
    Silence,
}

impl SipCallee {
    /// A refusal without more headers.
    pub fn refuses(status: u16, reason: impl Into<String>) -> SipCallee {
        SipCallee::Refuses { status, reason: reason.into(), headers: Vec::new() }
    }
}

/// A message as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Whether the carrier sent it.
    pub sent: bool,
    /// The whole text.
    pub text: String,
}

/// The simulated SIP carrier; dropping it frees its sockets.
pub struct SipSim {
    sim: Arc<Sim>,
}

struct Sim {
    settings: SipSettings,
    address: SocketAddr,
    udp: Arc<UdpSocket>,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

struct State {
    customer: Option<SocketAddr>,
    transactions: Transactions,
    connections: HashMap<SocketAddr, mpsc::UnboundedSender<String>>,
    tasks: Vec<JoinHandle<()>>,
    traced: VecDeque<Traced>,
    complaints: Vec<String>,
    legs: Vec<Arc<Leg>>,
    callee: SipCallee,
    registrar: Registrar,
    /// The connections that registrations came by.
    registered_by: HashMap<String, Path>,
    refer: ReferMood,
    ignores_options: bool,
}

impl SipSim {
    /// Listens on one port for UDP and TCP; port 0 takes a free one. Fails where none can be had.
    pub async fn start(listen: SocketAddr, settings: SipSettings) -> io::Result<SipSim> {
        let (udp, tcp) = sockets(listen).await?;
        let udp = Arc::new(udp);
        let state = State {
            customer: settings.customer,
            transactions: Transactions::default(),
            connections: HashMap::new(),
            tasks: Vec::new(),
            traced: VecDeque::new(),
            complaints: Vec::new(),
            legs: Vec::new(),
            callee: SipCallee::Answers { after_ms: 100 },
            registrar: Registrar::new(settings.registrar.clone()),
            registered_by: HashMap::new(),
            refer: ReferMood::default(),
            ignores_options: false,
        };
        let address = udp.local_addr()?;
        let (state, changed) = (Mutex::new(state), watch::Sender::new(()));
        let sim = Arc::new(Sim { settings, address, udp: udp.clone(), state, changed });
        let tasks = [tokio::spawn(sim.clone().serve_udp(udp)), tokio::spawn(sim.clone().serve_tcp(tcp))];
        sim.lock().tasks.extend(tasks);
        Ok(SipSim { sim })
    }

    /// Where the carrier is reached, by UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.sim.address
    }

    /// Tells where the customer's user agent listens.
    pub fn customer_at(&self, customer: SocketAddr) {
        self.sim.lock().customer = Some(customer);
    }

    /// Places a call into the customer's trunk. Fails where the customer cannot be reached by TCP, or has not been named.
    pub async fn call(&self, order: SipOrder) -> io::Result<SipLeg> {
        leg::call(&self.sim, order).await
    }

    /// Sets what meets the customer's calls from now on.
    pub fn callee(&self, callee: SipCallee) {
        self.sim.lock().callee = callee;
    }

    /// Sets what becomes of the customer's REFERs from now on.
    pub fn refers(&self, mood: ReferMood) {
        self.sim.lock().refer = mood;
    }

    /// Changes the registrar's settings; who is registered stays so.
    pub fn registrar(&self, change: impl FnOnce(&mut RegistrarSettings)) {
        change(&mut self.sim.lock().registrar.settings);
    }

    /// Whether OPTIONS are left without an answer.
    pub fn ignore_options(&self, ignore: bool) {
        self.sim.lock().ignores_options = ignore;
    }

    /// Where a user is registered, if it is.
    pub fn registration(&self, user: &str) -> Option<Registration> {
        self.sim.lock().registrar.registered.get(user).cloned()
    }

    /// All calls, the oldest first.
    pub fn legs(&self) -> Vec<SipLeg> {
        self.sim.lock().legs.iter().map(|leg| SipLeg { sim: self.sim.clone(), leg: leg.clone() }).collect()
    }

    /// Every message so far, the oldest first.
    pub fn messages(&self) -> Vec<Traced> {
        self.sim.lock().traced.iter().cloned().collect()
    }

    /// What the customer's user agent did against the RFCs.
    pub fn complaints(&self) -> Vec<String> {
        self.sim.lock().complaints.clone()
    }

    /// Waits until `condition` holds: it is asked again at every message and every change of a call.
    pub async fn until(&self, limit: Duration, condition: impl Fn(&SipSim) -> bool) -> Result<(), NotInTime> {
        let mut changed = self.sim.changed.subscribe();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                if condition(self) {
                    return;
                }
                // The sender lives in `self`, so that this cannot fail.
                let _ = changed.changed().await;
            }
        };
        tokio::time::timeout(limit, waiting).await.map_err(|_| NotInTime::Limit)
    }

    /// Waits for the call to `user` whose number among the customer's calls is `nth`, the first being 0.
    pub async fn until_called(&self, limit: Duration, user: &str, nth: usize) -> Result<SipLeg, NotInTime> {
        let find = |sim: &SipSim| {
            let fits = |leg: &SipLeg| leg.leg.is_from_customer() && user_of(&leg.leg.uri) == user;
            sim.legs().into_iter().filter(fits).nth(nth)
        };
        self.until(limit, |sim| find(sim).is_some()).await?;
        find(self).ok_or(NotInTime::Limit)
    }

    /// Asks OPTIONS of the customer: the status of the answer, or nothing where none came within the limit.
    pub async fn options(&self, limit: Duration) -> io::Result<Option<u16>> {
        let customer = self.sim.customer()?;
        let path = self.sim.path_to(customer).await?;
        let (own, transport) = (self.sim.address, self.sim.transport());
        let request = Message::request("OPTIONS", &format!("sip:{customer};transport={transport}"))
            .with("Via", format!("SIP/2.0/{} {own};branch={}", transport.to_uppercase(), branch()))
            .with("Max-Forwards", "70")
            .with("From", format!("<sip:ping@{own}>;tag={}", random_hex()))
            .with("To", format!("<sip:{customer}>"))
            .with("Call-ID", random_hex())
            .with("CSeq", "1 OPTIONS")
            .with("Contact", format!("<sip:{own}>"));
        let answers = self.sim.ask(&request, &path, Writing::default()).await;
        let answer = tokio::time::timeout(limit, answers.last()).await.ok().flatten();
        Ok(answer.and_then(|answer| answer.status()))
    }

    /// Sends bytes as they are to the customer's UDP port: scanners, torture, rubbish.
    pub async fn send_raw(&self, bytes: &[u8]) -> io::Result<()> {
        self.sim.udp.send_to(bytes, self.sim.customer()?).await.map(drop)
    }
}

impl Drop for SipSim {
    fn drop(&mut self) {
        let mut state = self.sim.lock();
        for task in state.tasks.drain(..) {
            task.abort();
        }
        for leg in state.legs.drain(..) {
            leg.end(Party::Carrier);
        }
    }
}

impl Sim {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn customer(&self) -> io::Result<SocketAddr> {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "nobody said where the customer listens");
        self.lock().customer.ok_or_else(unknown)
    }

    fn complain(&self, complaint: String) {
        tracing::warn!(complaint, "Simulated SIP carrier complains");
        self.lock().complaints.push(complaint);
    }

    /// A request of the customer's that has not been seen before.
    async fn requested(self: &Arc<Self>, request: Message, path: Path) {
        let known = {
            let id = request.header("Call-ID").unwrap_or_default();
            self.lock().legs.iter().find(|leg| leg.call_id == id).cloned()
        };
        let in_dialog = request.tag("To").is_some();
        match (request.method().unwrap_or_default(), known) {
            ("OPTIONS", _) if self.lock().ignores_options => {}
            ("OPTIONS", _) => self.plain_answer(&request, 200, "OK", &path).await,
            ("REGISTER", _) => self.register(&request, path).await,
            ("INVITE", None) if !in_dialog => self.dialled(request, path).await,
            ("CANCEL", Some(leg)) => {
                self.plain_answer(&request, 200, "OK", &path).await;
                leg.cancelled();
            }
            ("ACK", Some(leg)) => leg.acknowledged(self, &request),
            ("ACK", None) => {}
            (_, Some(leg)) if in_dialog => leg.requested(self, request, &path).await,
            (_, None) if in_dialog => {
                self.plain_answer(&request, 481, "Call/Transaction Does Not Exist", &path).await;
            }
            _ => self.plain_answer(&request, 501, "Not Implemented", &path).await,
        }
    }

    async fn plain_answer(self: &Arc<Self>, request: &Message, status: u16, reason: &str, path: &Path) {
        let mut answer = Message::answer(request, status, reason).with("Allow", ALLOW);
        with_tag(&mut answer, &random_hex());
        self.answer(request, &answer, path).await;
    }

    async fn register(self: &Arc<Self>, request: &Message, path: Path) {
        let answer = self.lock().registrar.answer(request);
        let Some(mut answer) = answer else { return };
        with_tag(&mut answer, &random_hex());
        if answer.status() == Some(200) {
            let user = user_of(message::uri_of(request.header("To").unwrap_or_default())).to_owned();
            self.lock().registered_by.insert(user, path.clone());
        }
        self.answer(request, &answer, &path).await;
    }

    /// The customer calls: without credentials it is challenged, if calls are.
    async fn dialled(self: &Arc<Self>, request: Message, path: Path) {
        if self.settings.challenges_calls {
            let challenge = {
                let registrar = &mut self.lock().registrar;
                registrar.admit(&request, "Proxy-Authorization").err().map(|stale| registrar.challenge(stale))
            };
            if let Some(challenge) = challenge {
                let mut answer = Message::answer(&request, 407, "Proxy Authentication Required")
                    .with("Proxy-Authenticate", challenge);
                with_tag(&mut answer, &random_hex());
                self.answer(&request, &answer, &path).await;
                return;
            }
        }
        let callee = self.lock().callee.clone();
        if callee != SipCallee::Silence {
            leg::receive(self, request, path, callee).await;
        }
    }
}

/// Our tag in an answer that has none yet.
fn with_tag(answer: &mut Message, tag: &str) {
    if answer.tag("To").is_none() {
        let to = answer.header("To").unwrap_or_default().to_owned();
        answer.set("To", format!("{to};tag={tag}"));
    }
}

async fn sockets(listen: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_ATTEMPTS {
        let udp = UdpSocket::bind(listen).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn random_hex() -> String {
    format!("{:032x}", rand::random::<u128>())
}
