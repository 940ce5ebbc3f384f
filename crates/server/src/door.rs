//! Connections in: how many at once, how slowly they may come, and how they end. It does not know what is asked.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections that are open at once; more wait. Media sockets are not among them: tickets bound those.
const CONNECTIONS: usize = 4_096;
/// How long a client may take to send the head of a request, or to send nothing. Longer than proxies keep idle connections, or a
/// webhook meets one that is being closed.
pub(crate) const HEAD_PATIENCE: Duration = Duration::from_secs(75);
/// How soon it is tried again when the system has no connection to give: there may be no file descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until `closing`, then until every connection has ended. Clients have `patience` for the head of a request.
pub(crate) async fn keep(
    listener: TcpListener,
    router: Router,
    patience: Duration,
    closing: CancellationToken,
) {
    let (places, open) = (Arc::new(Semaphore::new(CONNECTIONS)), TaskTracker::new());
    let next = async || {
        let place = places.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, place)),
                Err(error) => {
                    tracing::warn!(%error, "A connection could not be taken");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    };
    while let Some(Some((stream, place))) = closing.run_until_cancelled(next()).await {
        open.spawn(serve(stream, place, router.clone(), patience, closing.clone()));
    }
    drop(listener);
    open.close();
    open.wait().await;
}

async fn serve(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    router: Router,
    patience: Duration,
    closing: CancellationToken,
) {
    // Without it a streamed answer waits 40 ms for the acknowledgement of the piece before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "A connection stays without TCP_NODELAY");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    tokio::pin!(connection);
    let ended = match closing.run_until_cancelled(connection.as_mut()).await {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "A connection broke off");
    }
    drop(place);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn half_a_head_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let closing = CancellationToken::new();
        let kept = tokio::spawn(keep(listener, Router::new(), Duration::from_millis(50), closing.clone()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"POST / HTTP/1.1\r\nhost: off").await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(HEAD_PATIENCE, client.read_to_end(&mut answer)).await;
        ended.expect("half a head is still waited for").unwrap();
        closing.cancel();
        kept.await.unwrap();
    }
}
