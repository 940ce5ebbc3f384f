//! Trouble that the simulated REST API makes with chosen requests, and the journal of all of them.
//! It knows requests by method and path only.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

const MAX_REQUESTS: usize = 10_000;
/// How long to wait when a connection cannot be taken, as when the process has no descriptors left.
const ACCEPT_AGAIN_MS: u64 = 100;

/// Trouble that the REST API makes with every request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestFaults {
    /// So many requests are answered 429 (20429) from now on.
    pub too_many_requests: u32,
    /// So many requests are answered 503 from now on.
    pub unavailable: u32,
    /// Every request is answered 401 (20003), as by another region's host.
    pub wrong_region: bool,
}

/// Which request to come is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Which {
    /// Of those that fit, counted from now on; the first is 0.
    pub nth: usize,
    /// `GET`, `POST` or `DELETE`; any where it is missing.
    pub method: Option<String>,
    /// What the path contains; anything where it is missing.
    pub path: Option<String>,
}

impl Which {
    /// The request that comes after so many others, whatever they are.
    pub fn nth(nth: usize) -> Which {
        Which { nth, method: None, path: None }
    }

    /// The next request of a method whose path contains a text.
    pub fn next(method: impl Into<String>, path: impl Into<String>) -> Which {
        Which { nth: 0, method: Some(method.into()), path: Some(path.into()) }
    }

    fn fits(&self, method: &str, path: &str) -> bool {
        self.method.as_deref().is_none_or(|wished| wished == method)
            && self.path.as_deref().is_none_or(|wished| path.contains(wished))
    }
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestTrouble {
    /// It is answered 500, and nothing is done.
    InternalError,
    /// It is answered 429 (20429), and nothing is done.
    TooManyRequests,
    /// It is answered 503, and nothing is done.
    Unavailable,
    /// It is never answered, and nothing is done.
    NoAnswer,
    /// The connection breaks, and nothing is done.
    Cut,
    /// It is carried out and answered 500.
    DoneThenInternalError,
    /// It is carried out and never answered.
    DoneThenNoAnswer,
    /// It is carried out, and the connection breaks before the answer.
    DoneThenCut,
}

impl RestTrouble {
    /// Whether the request is carried out first.
    pub(super) fn is_done_first(self) -> bool {
        use RestTrouble::{DoneThenCut, DoneThenInternalError, DoneThenNoAnswer};
        matches!(self, DoneThenInternalError | DoneThenNoAnswer | DoneThenCut)
    }
}

/// One request to the REST API and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestRecord {
    /// `GET`, `POST` or `DELETE`.
    pub method: String,
    /// The path, as it was sent.
    pub path: String,
    /// The parameters of the query.
    pub query: Vec<(String, String)>,
    /// The parameters of the body.
    pub form: Vec<(String, String)>,
    /// The account or key whose credentials it carried, right or not.
    pub user: Option<String>,
    /// The trouble that was made with it.
    pub trouble: Option<RestTrouble>,
    /// The HTTP status that it came to, also where the answer never arrived; nothing while or if it was not carried out.
    pub status: Option<u16>,
    /// Twilio's code, where it was refused.
    pub code: Option<u32>,
}

impl RestRecord {
    /// A parameter of the body; the last one where a name repeats.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.form.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What was asked, and what is to go wrong.
#[derive(Default)]
pub(super) struct Journal {
    records: VecDeque<RestRecord>,
    /// How many records were dropped from the front.
    forgotten: usize,
    planned: Vec<(Which, RestTrouble)>,
}

impl Journal {
    pub(super) fn plan(&mut self, which: Which, trouble: RestTrouble) {
        self.planned.push((which, trouble));
    }

    pub(super) fn forget_plans(&mut self) {
        self.planned.clear();
    }

    /// Writes a request down: its number, and the trouble that was planned for it.
    pub(super) fn begin(&mut self, mut record: RestRecord) -> (usize, Option<RestTrouble>) {
        let mut due = None;
        for (index, (which, _)) in self.planned.iter_mut().enumerate() {
            if !which.fits(&record.method, &record.path) {
                continue;
            }
            match which.nth.checked_sub(1) {
                Some(left) => which.nth = left,
                None => due = due.or(Some(index)),
            }
        }
        record.trouble = due.map(|index| self.planned.remove(index).1);
        let trouble = record.trouble;
        if self.records.len() == MAX_REQUESTS {
            self.records.pop_front();
            self.forgotten += 1;
        }
        self.records.push_back(record);
        (self.forgotten + self.records.len() - 1, trouble)
    }

    /// Writes down what a request came to.
    pub(super) fn end(&mut self, number: usize, status: u16, code: Option<u32>) {
        let index = number.checked_sub(self.forgotten);
        if let Some(record) = index.and_then(|index| self.records.get_mut(index)) {
            record.status = Some(status);
            record.code = code;
        }
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &RestRecord> {
        self.records.iter()
    }
}

/// The connection that a request came by; it can be broken before its answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Wire(Arc<AtomicBool>);

impl Wire {
    /// From here on nothing is written to the connection, and the first attempt ends it.
    pub(super) fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Takes connections that can be cut.
pub(super) struct Wires(pub(super) TcpListener);

impl Listener for Wires {
    type Io = WireIo;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (WireIo, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((socket, from)) => {
                    // Without this the first byte of an answer can wait 40 ms for an acknowledgement.
                    let _ = socket.set_nodelay(true);
                    return (WireIo { socket, wire: Wire::default() }, from);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(ACCEPT_AGAIN_MS)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Wires>> for Wire {
    fn connect_info(stream: IncomingStream<'_, Wires>) -> Wire {
        stream.io().wire.clone()
    }
}

/// A socket that breaks when its wire is cut.
pub(super) struct WireIo {
    socket: TcpStream,
    wire: Wire,
}

impl AsyncRead for WireIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for WireIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.wire.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str) -> RestRecord {
        RestRecord {
            method: method.into(),
            path: path.into(),
            query: Vec::new(),
            form: Vec::new(),
            user: None,
            trouble: None,
            status: None,
            code: None,
        }
    }

    #[test]
    fn trouble_meets_the_request_it_was_planned_for_and_no_other() {
        let mut journal = Journal::default();
        journal.plan(Which { nth: 1, ..Which::next("POST", "Numbers") }, RestTrouble::Cut);
        journal.plan(Which::nth(3), RestTrouble::NoAnswer);
        let met: Vec<Option<RestTrouble>> = [
            ("POST", "/Numbers"),
            ("GET", "/Numbers"),
            ("POST", "/Numbers"),
            ("GET", "/"),
            ("POST", "/Numbers"),
        ]
        .map(|(method, path)| journal.begin(request(method, path)).1)
        .into();
        assert_eq!(met, [None, None, Some(RestTrouble::Cut), Some(RestTrouble::NoAnswer), None]);
    }

    #[test]
    fn the_journal_tells_what_a_request_came_to() {
        let mut journal = Journal::default();
        let (number, _) = journal.begin(request("GET", "/"));
        journal.begin(request("GET", "/"));
        journal.end(number, 404, Some(20404));
        let statuses: Vec<_> = journal.records().map(|record| (record.status, record.code)).collect();
        assert_eq!(statuses, [(Some(404), Some(20404)), (None, None)]);
    }
}
