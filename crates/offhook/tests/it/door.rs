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
    sockets: watch::Sender<bool>,
    keeper: JoinHandle<()>,
}

impl Door {
    /// A door with nothing behind it yet.
    pub async fn open() -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (behind, server) = watch::channel(None);
        let (sockets, open) = watch::channel(true);
        let keeper = tokio::spawn(async move {
            while let Ok((visitor, _)) = listener.accept().await {
                tokio::spawn(pass(visitor, server.clone(), *open.borrow()));
            }
        });
        Door { address, behind, sockets, keeper }
    }

    /// Leads to this server from now on, or to none.
    pub fn leads_to(&self, server: Option<SocketAddr>) {
        self.behind.send_replace(server);
    }

    /// Where it leads.
    pub fn behind(&self) -> Option<SocketAddr> {
        *self.behind.borrow()
    }

    /// Lets media sockets through from now on, or drops the upgrade, as a proxy does that was not told of WebSockets.
    pub fn lets_sockets_through(&self, open: bool) {
        self.sockets.send_replace(open);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// More than the first lines of any request here.
const HEAD_BYTES: usize = 64 * 1024;

async fn pass(mut visitor: TcpStream, mut server: watch::Receiver<Option<SocketAddr>>, sockets: bool) {
    let Ok(Some(mut inside)) = tokio::time::timeout(PATIENCE, somebody(&mut server)).await else { return };
    let _ = (visitor.set_nodelay(true), inside.set_nodelay(true));
    let Some(head) = head(&mut visitor, sockets).await else { return };
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
async fn head(visitor: &mut TcpStream, sockets: bool) -> Option<Vec<u8>> {
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
    let text = String::from_utf8_lossy(&head[..end]).into_owned();
    let is_socket = text.to_ascii_lowercase().contains("\r\nupgrade:");
    if is_socket && !sockets {
        let kept = |line: &&str| {
            !line.to_ascii_lowercase().starts_with("upgrade:")
                && !line.to_ascii_lowercase().starts_with("connection:")
        };
        let lines: Vec<_> = text.split("\r\n").filter(kept).collect();
        head.splice(..end, lines.join("\r\n").into_bytes());
    } else if !is_socket {
        head.splice(end..end, *b"\r\nconnection: close");
    }
    Some(head)
}
