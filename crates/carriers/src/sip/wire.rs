//! Messages on their way: listeners, names turned into addresses, streams that are reused, and requests that wait for their
//! answer. Parser, transactions and transports are the library rsipstack's; it knows no calls and no trunks' rules.

use super::guard::{Guard, GuardedSocket, MAX_HEADERS, MAX_SDP_BYTES};
use super::message::UriRef;
use super::reading::value;
use super::trunk::{Transport, Trunk, TrunkId, TrunkSettings};
use super::{Listening, SipError};
use rsipstack::platform::CancellationToken;
use rsipstack::resolver::SipResolver;
use rsipstack::sip::headers::{CSeq, CallId, From as FromHeader, To, Via};
use rsipstack::sip::{
    Domain, HasHeaders, Header, Headers, HeadersExt, HostWithPort, Method, Request, Response, SipMessage,
    StatusCode, Uri, Version,
};
use rsipstack::transaction::endpoint::{EndpointInnerRef, TransportEventInspector};
use rsipstack::transaction::key::{TransactionKey, TransactionRole};
use rsipstack::transaction::transaction::Transaction;
use rsipstack::transaction::{TransactionReceiver, random_text};
use rsipstack::transport::tls::TlsConnection;
use rsipstack::transport::udp::UdpConnection;
use rsipstack::transport::{
    SipAddr, SipConnection, TcpListenerConnection, TlsConfig, TlsListenerConnection, TransportEvent,
    TransportLayer,
};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// T1 of RFC 3261: a guess at the time there and back.
pub const T1: Duration = Duration::from_millis(500);
/// T2 of RFC 3261: the longest pause between repeats.
pub const T2: Duration = Duration::from_secs(4);
/// How long a transaction is tried (64·T1).
pub const TRANSACTION_LIFE: Duration = Duration::from_secs(32);
/// How long a stream may take to open, and the next address of a name is tried when one stays silent.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The most addresses of one name that are tried.
pub const MAX_TARGETS: usize = 6;
/// What we understand in a request, as `Allow` says it.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK, REFER, NOTIFY";
/// The extensions that a request may `Require`.
pub const SUPPORTED: [&str; 2] = ["timer", "100rel"];
const BRANCH_CHARS: usize = 20;
const AGENT: &str = concat!("Offhook/", env!("CARGO_PKG_VERSION"));

/// Where messages go: a socket and an address.
#[derive(Clone, Debug)]
pub struct Hop {
    pub connection: SipConnection,
    pub address: SocketAddr,
    pub transport: Transport,
}

impl Hop {
    /// Whether its stream has not fallen; datagrams need none.
    pub fn is_alive(&self) -> bool {
        self.connection.cancel_token().is_none_or(|token| !token.is_cancelled())
            || self.transport == Transport::Udp
    }

    fn sip_address(&self) -> SipAddr {
        SipAddr { r#type: Some(theirs(self.transport)), addr: self.address.into() }
    }

    /// Sends an empty line, which keeps a NAT and a stream open (RFC 5626, section 3.5).
    pub async fn keep_alive(&self) {
        const PING: &[u8] = b"\r\n\r\n";
        use rsipstack::transport::stream::StreamConnection as _;
        // Whether it arrived shows when the next request is answered or not.
        _ = match &self.connection {
            SipConnection::Udp(udp) => udp.send_raw(PING, &self.sip_address()).await,
            SipConnection::Tcp(tcp) => tcp.send_raw(PING).await,
            SipConnection::Tls(tls) => tls.send_raw(PING).await,
            _ => Ok(()),
        };
    }
}

/// The sockets, and what stands behind them.
pub struct Wire {
    endpoint: EndpointInnerRef,
    guard: Arc<Guard>,
    resolver: SipResolver,
    udp: Option<(SipConnection, SocketAddr)>,
    tcp: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    public_host: Option<String>,
    roots: Option<Arc<rustls_platform_verifier::Verifier>>,
    /// Encrypted streams that we have opened, by address and by the name that their certificate was checked against.
    streams: Mutex<HashMap<(SocketAddr, String), SipConnection>>,
    stopping: CancellationToken,
}

/// What came of a request.
#[derive(Debug)]
pub enum NoAnswer {
    /// It could not be sent, or the stream fell.
    Unreachable,
    /// Nothing came back in time.
    Silent,
}

impl Wire {
    /// Opens the listeners; requests come out of the receiver.
    pub async fn open(
        listening: &Listening,
        guard: Arc<Guard>,
    ) -> Result<(Arc<Wire>, TransactionReceiver), SipError> {
        let stopping = CancellationToken::new();
        let layer = TransportLayer::new(stopping.clone());
        let mut wire_udp = None;
        if let Some(address) = listening.udp {
            let socket =
                tokio::net::UdpSocket::bind(address).await.map_err(|e| SipError::listening(address, e))?;
            let address = socket.local_addr().map_err(|e| SipError::listening(address, e))?;
            let guarded = Arc::new(GuardedSocket::new(socket, guard.clone()));
            let udp = UdpConnection::from_socket(guarded, None, Some(stopping.child_token()));
            let connection = SipConnection::from(udp.await.map_err(|_| SipError::Stopped)?);
            layer.add_transport(connection.clone());
            wire_udp = Some((connection, address));
        }
        let mut tcp = None;
        if let Some(address) = listening.tcp {
            let address = free(address)?;
            let listener = TcpListenerConnection::new(address, None).await.map_err(|_| SipError::Stopped)?;
            layer.add_transport(listener.into());
            tcp = Some(address);
        }
        let mut tls = None;
        if let Some(wanted) = &listening.tls {
            let address = free(wanted.address)?;
            let config = TlsConfig {
                cert: Some(wanted.certificate_chain.clone().into_bytes()),
                key: Some(wanted.private_key.expose().clone().into_bytes()),
                ..TlsConfig::default()
            };
            check_certificate(&config)?;
            let listener =
                TlsListenerConnection::new(address, None, config).await.map_err(|_| SipError::Stopped)?;
            layer.add_transport(listener.into());
            tls = Some(address);
        }
        let door = guard.clone();
        layer.set_whitelist(move |from: IpAddr| {
            let admitted = door.admits_stream(from);
            async move { admitted }
        });
        let mut builder = rsipstack::EndpointBuilder::new();
        builder
            .with_user_agent(AGENT)
            .with_transport_layer(layer)
            .with_cancel_token(stopping.clone())
            .with_transport_inspector(Box::new(Bounds(guard.clone())));
        let endpoint = builder.build();
        let requests = endpoint.incoming_transactions().map_err(|_| SipError::Stopped)?;
        let inner = endpoint.inner.clone();
        tokio::spawn(async move { inner.serve().await });
        let wire = Wire {
            endpoint: endpoint.inner.clone(),
            guard,
            resolver: SipResolver::new(),
            udp: wire_udp,
            tcp,
            tls,
            public_host: listening.public_host.clone(),
            roots: roots(),
            streams: Mutex::default(),
            stopping,
        };
        Ok((Arc::new(wire), requests))
    }

    /// Closes everything.
    pub fn close(&self) {
        self.stopping.cancel();
    }

    /// Where the listeners are.
    pub fn listening(&self) -> (Option<SocketAddr>, Option<SocketAddr>, Option<SocketAddr>) {
        (self.udp.as_ref().map(|(_, address)| *address), self.tcp, self.tls)
    }

    /// The hop that a request came over, which is also the way back.
    pub fn came_over(tx: &Transaction) -> Option<Hop> {
        let connection = tx.connection.clone()?;
        let remote = connection.get_remote_addr()?;
        let address = remote.get_socketaddr().ok()?;
        let transport = ours(remote.r#type?)?;
        Some(Hop { connection, address, transport })
    }

    /// The addresses of a trunk's proxy or host, the first to be tried first (RFC 3263); the guard lets them in.
    pub async fn targets(&self, id: &TrunkId, settings: &TrunkSettings) -> Result<Vec<SocketAddr>, SipError> {
        let (host, port) =
            match settings.outbound_proxy.as_deref().and_then(|proxy| HostWithPort::try_from(proxy).ok()) {
                Some(proxy) => (proxy.host.to_string(), proxy.port),
                None => (settings.domain.clone(), settings.port.map(Into::into)),
            };
        let host = host.trim_matches(['[', ']']);
        let found = self.resolve(host, port, settings.transport).await?;
        found.iter().for_each(|address| self.guard.learn(id, address.ip()));
        Ok(found)
    }

    async fn resolve(
        &self,
        host: &str,
        port: Option<rsipstack::sip::Port>,
        transport: Transport,
    ) -> Result<Vec<SocketAddr>, SipError> {
        let secure = transport == Transport::Tls;
        let domain = Domain(host.to_owned());
        let lookup = self.resolver.lookup(&domain, port, Some(theirs(transport)), secure);
        let found =
            tokio::time::timeout(CONNECT_TIMEOUT, lookup).await.unwrap_or_else(|_| Err("no answer".into()));
        let mut found: Vec<SocketAddr> =
            found.map_err(|_| SipError::NoSuchHost)?.into_iter().map(|target| target.addr).collect();
        let ours = self.family();
        found.retain(|address| ours.is_none_or(|v4| address.is_ipv4() == v4));
        found.truncate(MAX_TARGETS);
        if found.is_empty() { Err(SipError::NoSuchHost) } else { Ok(found) }
    }

    /// Whether only IPv4 (true) or only IPv6 can be spoken.
    fn family(&self) -> Option<bool> {
        let address = self.udp.as_ref().map(|(_, address)| *address).or(self.tcp).or(self.tls)?;
        match address.ip() {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => None,
            address => Some(address.is_ipv4()),
        }
    }

    /// The way to an address: the UDP socket, a stream that is open, or a new one.
    pub async fn hop(&self, address: SocketAddr, settings: &TrunkSettings) -> Result<Hop, SipError> {
        let transport = settings.transport;
        let to = SipAddr { r#type: Some(theirs(transport)), addr: address.into() };
        let connection = match transport {
            Transport::Udp => {
                self.udp.as_ref().map(|(connection, _)| connection.clone()).ok_or(SipError::Unreachable)?
            }
            Transport::Tcp => {
                let stream = self.endpoint.transport_layer.lookup(&to, None);
                let found =
                    tokio::time::timeout(CONNECT_TIMEOUT, stream).await.map_err(|_| SipError::Unreachable)?;
                found.map_err(|_| SipError::Unreachable)?.0
            }
            Transport::Tls => self.tls_stream(address, &to, settings).await?,
        };
        Ok(Hop { connection, address, transport })
    }

    async fn tls_stream(
        &self,
        address: SocketAddr,
        to: &SipAddr,
        settings: &TrunkSettings,
    ) -> Result<SipConnection, SipError> {
        let key = (address, settings.domain.clone());
        {
            let mut streams = self.streams.lock().unwrap_or_else(|e| e.into_inner());
            streams.retain(|_, stream| stream.cancel_token().is_some_and(|token| !token.is_cancelled()));
            if let Some(open) = streams.get(&key) {
                return Ok(open.clone());
            }
        }
        let config = TlsConfig {
            ca_certs: settings.ca_certificate.as_ref().map(|pem| pem.clone().into_bytes()),
            sni_hostname: Some(settings.domain.clone()),
            ..TlsConfig::default()
        };
        let own_ca = config.ca_certs.is_some();
        let verifier = self
            .roots
            .clone()
            .filter(|_| !own_ca)
            .map(|v| v as Arc<dyn rustls::client::danger::ServerCertVerifier>);
        let stream = TlsConnection::connect(to, Some(&config), verifier, Some(self.stopping.child_token()));
        let stream =
            tokio::time::timeout(CONNECT_TIMEOUT, stream).await.map_err(|_| SipError::Unreachable)?;
        let connection = SipConnection::from(stream.map_err(|_| SipError::Unreachable)?);
        self.endpoint.transport_layer.add_connection(connection.clone());
        self.streams.lock().unwrap_or_else(|e| e.into_inner()).insert(key, connection.clone());
        Ok(connection)
    }

    fn listener(&self, transport: Transport) -> Option<SocketAddr> {
        match transport {
            Transport::Udp => self.udp.as_ref().map(|(_, address)| *address),
            Transport::Tcp => self.tcp,
            Transport::Tls => self.tls,
        }
    }

    /// Our host and port for a transport, as far as others can be told.
    pub fn address(&self, transport: Transport) -> Option<String> {
        let own = self.listener(transport)?;
        match &self.public_host {
            Some(host) => Some(format!("{host}:{}", own.port())),
            None => (!own.ip().is_unspecified()).then(|| own.to_string()),
        }
    }

    /// Our host and port as a peer behind this hop should write them.
    pub fn sent_by(&self, hop: &Hop) -> String {
        let own = self.listener(hop.transport).or_else(|| self.listener(Transport::Udp));
        let port = own.map_or(super::trunk::SIP_PORT, |own| own.port());
        match &self.public_host {
            Some(host) => format!("{host}:{port}"),
            None => SocketAddr::new(self.local_address(hop.address.ip()), port).to_string(),
        }
    }

    /// The address of ours that a peer at `toward` sees, as far as we can know.
    pub fn local_address(&self, toward: IpAddr) -> IpAddr {
        let bound = self
            .udp
            .as_ref()
            .map(|(_, address)| *address)
            .or(self.tcp)
            .or(self.tls)
            .map(|address| address.ip());
        match bound {
            Some(bound) if !bound.is_unspecified() => bound,
            _ => way_toward(toward).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        }
    }

    /// The value of a `Via` that brings answers back.
    pub fn via(&self, hop: &Hop) -> String {
        let transport = theirs(hop.transport);
        let branch = random_text(BRANCH_CHARS);
        // `alias`: requests may come back over the same stream (RFC 5923).
        let alias = if hop.transport == Transport::Udp { "" } else { ";alias" };
        format!("SIP/2.0/{transport} {};rport;branch=z9hG4bK{branch}{alias}", self.sent_by(hop))
    }

    /// The URI at which we are called back.
    pub fn contact_uri(&self, hop: &Hop, user: &str) -> String {
        let transport = match hop.transport {
            Transport::Udp => "",
            Transport::Tcp => ";transport=tcp",
            Transport::Tls => ";transport=tls",
        };
        format!("sip:{user}@{}{transport}", self.sent_by(hop))
    }

    /// A request with everything that every request has.
    pub fn request(
        &self,
        line: RequestLine<'_>,
        hop: &Hop,
        more: Vec<Header>,
        body: Option<Vec<u8>>,
    ) -> Request {
        let RequestLine { method, uri, call_id, from, to, sequence } = line;
        let mut headers = vec![
            Header::Via(Via::new(self.via(hop))),
            Header::MaxForwards("70".into()),
            Header::From(FromHeader::new(from)),
            Header::To(To::new(to)),
            Header::CallId(CallId::new(call_id)),
            Header::CSeq(CSeq::new(format!("{sequence} {method}"))),
            Header::UserAgent(AGENT.into()),
        ];
        headers.extend(more);
        if body.is_some() && !headers.iter().any(|h| matches!(h, Header::ContentType(_))) {
            headers.push(Header::ContentType("application/sdp".into()));
        }
        let body = body.unwrap_or_default();
        headers.push(Header::ContentLength((body.len() as u32).into()));
        Request { method, uri: uri.clone(), version: Version::V2, headers: Headers(headers), body }
    }

    /// Begins a transaction of ours.
    ///
    /// # Errors
    /// The request could not be sent.
    pub async fn begin(&self, request: Request, hop: &Hop) -> Result<Transaction, NoAnswer> {
        let key = TransactionKey::from_request(&request, TransactionRole::Client)
            .map_err(|_| NoAnswer::Unreachable)?;
        let mut tx =
            Transaction::new_client(key, request, self.endpoint.clone(), Some(hop.connection.clone()));
        tx.destination = Some(hop.sip_address());
        tx.send().await.map_err(|_| NoAnswer::Unreachable)?;
        Ok(tx)
    }

    /// Sends a request that is no INVITE and waits for its final answer.
    ///
    /// # Errors
    /// None came.
    pub async fn exchange(
        &self,
        request: Request,
        hop: &Hop,
        patience: Duration,
    ) -> Result<Response, NoAnswer> {
        let mut tx = self.begin(request, hop).await?;
        let answered = async {
            while let Some(message) = tx.receive().await {
                match message {
                    SipMessage::Response(response) if response.status_code.code() >= 200 => {
                        return Some(response);
                    }
                    _ => {}
                }
            }
            None
        };
        tokio::time::timeout(patience, answered).await.ok().flatten().ok_or(NoAnswer::Silent)
    }

    /// An answer to a request, with our tag in `To`.
    pub fn response(
        &self,
        request: &Request,
        code: u16,
        tag: &str,
        more: Vec<Header>,
        body: Option<Vec<u8>>,
    ) -> Response {
        let mut response = self.endpoint.make_response(request, StatusCode::from(code), body);
        let dialog = request.method == Method::Invite && (101..300).contains(&code);
        for header in response.headers.iter_mut() {
            if let Header::To(to) = header
                && code > 100
                && super::message::NameAddr::read(to.value()).is_none_or(|to| to.params.get("tag").is_none())
            {
                *to = To::new(format!("{};tag={tag}", to.value().trim()));
            }
        }
        if dialog {
            // What the proxies on the way want to be asked again (RFC 3261, 12.1.1).
            let routes =
                request.headers.iter().filter(|h| matches!(h, Header::RecordRoute(_))).cloned().collect();
            response.headers.extend(routes);
        }
        response.headers.extend(more);
        if !response.body.is_empty() {
            response.headers.push(Header::ContentType("application/sdp".into()));
        }
        response
    }

    /// Answers a request for good, once.
    pub async fn reply(&self, tx: &mut Transaction, code: u16, more: Vec<Header>) {
        let response = self.response(&tx.original, code, &random_text(BRANCH_CHARS), more, None);
        // The peer asks again if it did not hear.
        _ = tx.respond(response).await;
    }

    /// Where a request inside a dialog goes: the first route or the remote target (RFC 3261, 12.2.1.1), but to where the peer
    /// really is when that is an address that only the peer's own network knows.
    pub async fn next_hop(&self, next: &str, known: &Hop, trunk: &Trunk) -> Hop {
        if known.transport != Transport::Udp && known.is_alive() {
            return known.clone();
        }
        let settings = TrunkSettings { transport: known.transport, ..trunk.settings.clone() };
        let address = match UriRef::read(next) {
            None => known.address,
            Some(uri) => {
                let port = uri.port.unwrap_or(if known.transport == Transport::Tls { 5061 } else { 5060 });
                match uri.host.parse::<IpAddr>() {
                    Ok(ip) if is_private(ip) && !is_private(known.address.ip()) => known.address,
                    Ok(ip) => SocketAddr::new(ip, port),
                    Err(_) => match self.resolve(uri.host, uri.port.map(Into::into), known.transport).await {
                        Ok(found) => found.first().copied().unwrap_or(known.address),
                        Err(_) => known.address,
                    },
                }
            }
        };
        self.guard.expect(address.ip());
        match self.hop(address, &settings).await {
            Ok(hop) => hop,
            Err(_) => known.clone(),
        }
    }
}

/// The first line of a request and the headers that name its dialog.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine<'a> {
    pub method: Method,
    pub uri: &'a Uri,
    pub call_id: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    pub sequence: u32,
}

/// What messages may be, and how many of them streams may carry: the library limits each to 64 KiB, the rest is here.
struct Bounds(Arc<Guard>);

#[async_trait::async_trait]
impl TransportEventInspector for Bounds {
    async fn handle(&self, event: TransportEvent) -> Option<TransportEvent> {
        if let TransportEvent::Incoming(message, connection, from) = &event {
            // Datagrams were counted before they were parsed.
            let counted = matches!(connection, SipConnection::Udp(_));
            if !counted && !from.get_socketaddr().is_ok_and(|from| self.0.admits_message(from.ip())) {
                return None;
            }
            let sdp = value(message, "Content-Type").is_some_and(|t| t.to_ascii_lowercase().contains("sdp"));
            let body = match message {
                SipMessage::Request(request) => request.body.len(),
                SipMessage::Response(response) => response.body.len(),
            };
            if message.headers().len() > MAX_HEADERS || sdp && body > MAX_SDP_BYTES {
                return None;
            }
            if let SipMessage::Request(request) = message
                && !is_whole(request)
            {
                return None;
            }
        }
        Some(event)
    }
}

/// Whether a request has what every request must have, each once, and its parts agree (RFC 3261, 8.1.1): what does not is dropped,
/// since an answer to it could not be told apart from others.
pub fn is_whole(request: &Request) -> bool {
    let once = |is: fn(&Header) -> bool| request.headers.iter().filter(|h| is(h)).count() == 1;
    let sequence = request.cseq_header().ok().map(|cseq| cseq.value().trim().to_owned()).unwrap_or_default();
    let (number, method) = sequence.split_once(char::is_whitespace).unwrap_or_default();
    once(|h| matches!(h, Header::From(_)))
        && once(|h| matches!(h, Header::To(_)))
        && once(|h| matches!(h, Header::CallId(_)))
        && once(|h| matches!(h, Header::CSeq(_)))
        && number.parse::<u32>().is_ok_and(|number| number < 1 << 31)
        && method.trim().eq_ignore_ascii_case(&request.method.to_string())
}

fn theirs(transport: Transport) -> rsipstack::sip::Transport {
    match transport {
        Transport::Udp => rsipstack::sip::Transport::Udp,
        Transport::Tcp => rsipstack::sip::Transport::Tcp,
        Transport::Tls => rsipstack::sip::Transport::Tls,
    }
}

fn ours(transport: rsipstack::sip::Transport) -> Option<Transport> {
    match transport {
        rsipstack::sip::Transport::Udp => Some(Transport::Udp),
        rsipstack::sip::Transport::Tcp => Some(Transport::Tcp),
        rsipstack::sip::Transport::Tls => Some(Transport::Tls),
        _ => None,
    }
}

/// The address of ours from which packets to `toward` leave; no packet is sent.
fn way_toward(toward: IpAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if toward.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = std::net::UdpSocket::bind((any, 0)).ok()?;
    probe.connect((toward, 9)).ok()?;
    Some(probe.local_addr().ok()?.ip())
}

/// Whether only its own network knows an address.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || is_shared(v4)
        }
        IpAddr::V6(v6) => {
            v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified()
        }
    }
}

/// Addresses that carriers share among customers (RFC 6598).
fn is_shared(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    a == 100 && (64..128).contains(&b)
}

/// Finds out whether a stream can listen there; port 0 becomes a free one. The library binds later and would only log it.
fn free(address: SocketAddr) -> Result<SocketAddr, SipError> {
    let probe = std::net::TcpListener::bind(address).map_err(|e| SipError::listening(address, e))?;
    probe.local_addr().map_err(|e| SipError::listening(address, e))
}

fn check_certificate(config: &TlsConfig) -> Result<(), SipError> {
    let provider = rustls::crypto::CryptoProvider::get_default().ok_or(SipError::Certificate)?;
    let (certificate, key) =
        (config.cert.as_deref().unwrap_or_default(), config.key.as_deref().unwrap_or_default());
    rsipstack::transport::tls::ReloadableCertResolver::new(certificate, key, provider.clone())
        .map(drop)
        .map_err(|_| SipError::Certificate)
}

fn roots() -> Option<Arc<rustls_platform_verifier::Verifier>> {
    let provider = rustls::crypto::CryptoProvider::get_default()?;
    rustls_platform_verifier::Verifier::new(provider.clone()).ok().map(Arc::new)
}
