//! The way to the server from outside, as a load balancer keeps it: its address stays while processes come and go behind
//! it, and who comes in between waits. It does not know what passes.

use std::net::SocketAddr;
use std::time::Duration;
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

async fn pass(mut visitor: TcpStream, mut server: watch::Receiver<Option<SocketAddr>>) {
    let found = tokio::time::timeout(PATIENCE, server.wait_for(Option::is_some)).await;
    let Ok(Ok(Some(address))) = found.map(|wait| wait.map(|address| *address)) else { return };
    let Ok(mut inside) = TcpStream::connect(address).await else { return };
    let _ = (visitor.set_nodelay(true), inside.set_nodelay(true));
    // Either side may break off; that is what the tests are about.
    let _ = tokio::io::copy_bidirectional(&mut visitor, &mut inside).await;
}
