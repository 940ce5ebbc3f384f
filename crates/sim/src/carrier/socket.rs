//! The carrier's end of a media socket, before anything is said on it: how it is opened, and how it is lost.
//! It knows no messages.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, http};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use url::{Host, Url};

use super::phone::StreamLoss;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The largest message that is taken: a minute and a half of audio in G.711, half a minute of it at 16 kHz.
const MAX_MESSAGE_BYTES: usize = 2 << 20;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a socket with these headers; why it could not be, with the words of the failure.
pub(super) async fn connect(
    url: &str,
    headers: &[(&'static str, String)],
) -> Result<Socket, (StreamLoss, String)> {
    let opening = async {
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            let value = http::HeaderValue::try_from(value).map_err(http::Error::from)?;
            request.headers_mut().insert(*name, value);
        }
        let tcp = connect_tcp(url).await?;
        tcp.set_nodelay(true)?;
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES));
        client_async_tls_with_config(request, tcp, Some(config), None).await
    };
    match timeout(CONNECT_LIMIT, opening).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error @ Error::Http(_))) => Err((StreamLoss::Refused, error.to_string())),
        Ok(Err(error)) => Err((StreamLoss::NotConnected, error.to_string())),
        Err(_) => Err((StreamLoss::NotConnected, "no answer in time".into())),
    }
}

async fn connect_tcp(url: &str) -> std::io::Result<TcpStream> {
    let url = Url::parse(url).map_err(std::io::Error::other)?;
    let port = url.port_or_known_default().unwrap_or_default();
    match url.host() {
        Some(Host::Domain(name)) => TcpStream::connect((name, port)).await,
        Some(Host::Ipv4(ip)) => TcpStream::connect((ip, port)).await,
        Some(Host::Ipv6(ip)) => TcpStream::connect((ip, port)).await,
        None => Err(std::io::Error::other("the URL names no host")),
    }
}

/// How a socket was lost that failed in this way.
pub(super) fn loss(error: &Error) -> StreamLoss {
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::ConnectionClosed => {
            StreamLoss::ClosedByServer
        }
        _ => StreamLoss::Broken,
    }
}

/// Makes the coming drop of the socket a TCP reset.
pub(super) fn reset(socket: &Socket) {
    let tcp = match socket.get_ref() {
        MaybeTlsStream::Plain(tcp) => tcp,
        MaybeTlsStream::Rustls(tls) => tls.get_ref().0,
        _ => return,
    };
    if let Err(error) = tcp.set_zero_linger() {
        tracing::warn!(%error, "The socket is closed instead of reset");
    }
}

/// Waits for a moment; for ever where there is none.
pub(super) async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
