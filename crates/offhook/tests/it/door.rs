//! The way to the server from outside, as a load balancer keeps it: its address stays while processes come and go behind
//! it, and who comes in between waits. Of what passes it knows only the first lines.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long somebody waits at the door for a server behind it.
const PATIENCE: Duration = Duration::from_secs(12);

/// An address that outlives the process behind it.
pub struct Door {
    pub address: SocketAddr,
    behind: watch::Sender<Option<SocketAddr>>,
    keeper: JoinHandle<()>,
}

impl Door {
    /// A door with nothing behind it yet.
    pub async fn open() -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (behind, server) = watch::channel(None);
        let keeper = tokio::spawn(async move {
            while let Ok((visitor, _)) = listener.accept().await {
                tokio::spawn(pass(visitor, server.clone()));
            }
        });
        Door { address, behind, keeper }
    }

    /// Leads to this server from now on, or to none.
    pub fn leads_to(&self, server: Option<SocketAddr>) {
        self.behind.send_replace(server);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// More than the first lines of any request here.
const HEAD_BYTES: usize = 64 * 1024;

async fn pass(mut visitor: TcpStream, mut server: watch::Receiver<Option<SocketAddr>>) {
    let Ok(Some(mut inside)) = tokio::time::timeout(PATIENCE, somebody(&mut server)).await else { return };
    let _ = (visitor.set_nodelay(true), inside.set_nodelay(true));
    let Some(head) = head(&mut visitor).await else { return };
    if inside.write_all(&head).await.is_err() {
        return;
    }
    // Either side may break off; that is what the tests are about.
    let _ = tokio::io::copy_bidirectional(&mut visitor, &mut inside).await;
}

/// A connection to the first server that takes one.
async fn somebody(server: &mut watch::Receiver<Option<SocketAddr>>) -> Option<TcpStream> {
    loop {
        let address = *server.borrow_and_update();
        if let Some(address) = address
            && let Ok(inside) = TcpStream::connect(address).await
        {
            return Some(inside);
        }
        server.changed().await.ok()?;
    }
}

/// The beginning of a request up to the end of its head. Only media sockets stay: a connection that waits for the next
/// request would lead to a process that is gone by then.
async fn head(visitor: &mut TcpStream) -> Option<Vec<u8>> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = Vec::new();
    let end = loop {
        if visitor.read_buf(&mut head).await.ok()? == 0 || head.len() > HEAD_BYTES {
            return None;
        }
        if let Some(end) = head.windows(END.len()).position(|four| four == END) {
            break end;
        }
    };
    let is_socket = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase().contains("\r\nupgrade:");
    if !is_socket {
        head.splice(end..end, *b"\r\nconnection: close");
    }
    Some(head)
}
