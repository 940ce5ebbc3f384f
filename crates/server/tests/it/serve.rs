//! The server on a real socket: health, metrics, and how it stops.

use crate::house::House;
use axum::http::StatusCode;
use offhook_server::router;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(20);

/// A house that listens, until it is told to stop.
struct Running {
    house: House,
    address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
}

impl Running {
    async fn start() -> Self {
        let house = House::sqlite().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let shutdown = stop.clone().cancelled_owned();
        let server = tokio::spawn(router::serve(house.app.clone(), listener, shutdown, LIMIT));
        Running { house, address, stop, server }
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = self.house.app.http.get(format!("http://{}{path}", self.address));
        let response = request.send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    async fn stopped(self) {
        tokio::time::timeout(LIMIT, self.server).await.expect("it stops in time").unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_server_tells_how_it_is() {
    let server = Running::start().await;
    assert_eq!(server.get("/healthz").await, (StatusCode::OK, "ok".into()));
    assert_eq!(server.get("/readyz").await, (StatusCode::OK, "ready".into()));
    let call = server.house.call().await;
    let _letters = server.house.drive(call.call());
    let (status, metrics) = server.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in ["offhook_calls_open 1", "offhook_store_up 1", r#"route="/healthz",status="200""#] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    server.house.app.around.registry.remove(call.call());
    server.stop.cancel();
    server.stopped().await;
}

#[tokio::test]
async fn a_server_that_stops_takes_no_new_calls_and_waits_for_open_ones() {
    let server = Running::start().await;
    let call = server.house.call().await;
    let _letters = server.house.drive(call.call());
    let live = server.house.app.http.get(format!("http://{}/api/live", server.address));
    let live = live.bearer_auth(server.house.key(offhook_core::entity::Role::Viewer)).send().await.unwrap();
    server.stop.cancel();
    let draining = async {
        while server.get("/readyz").await.0 == StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, draining).await.expect("it says that it stops");
    for hook in ["voice", "status"] {
        let status = server.get(&format!("/hooks/twilio/{hook}")).await.0;
        assert_eq!(status, StatusCode::FORBIDDEN, "{hook} is still heard, and not believed");
    }
    assert!(!server.server.is_finished());
    server.house.app.around.registry.remove(call.call());
    let rest = tokio::time::timeout(LIMIT, live.bytes()).await.expect("watchers are let go").unwrap();
    assert!(rest.starts_with(b"event: ringing"));
    server.stopped().await;
}

#[tokio::test]
async fn a_client_that_sends_half_a_request_is_not_waited_for() {
    let server = Running::start().await;
    let half = "POST /hooks/twilio/voice HTTP/1.1\r\nhost: offhook\r\n\
                content-type: application/x-www-form-urlencoded\r\ncontent-length: 10\r\n\r\nhalf";
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(half.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(LIMIT, client.read_to_end(&mut answer)).await;
    ended.expect("half a body is still waited for").unwrap();
    let large = vec![b'a'; 100 * 1024];
    let url = format!("http://{}/hooks/twilio/voice", server.address);
    let form = server.house.app.http.post(url).header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(form.body(large).send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    server.stop.cancel();
    server.stopped().await;
}
