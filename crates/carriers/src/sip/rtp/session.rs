//! What the line, the signalling and the pacing of one call share: sockets, the sending half, and figures.

use super::pace::Clock;
use super::rtcp::Block;
use super::sending::{Outgoing, Sending};
use super::{Lateness, Received};
use crate::sip::sdp::Stream;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A lock whose holder never panics half-way.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pair of sockets of one call. They do not block, and nobody waits for them: who is paced looks into them.
#[derive(Debug)]
pub(super) struct Sockets {
    pub rtp: UdpSocket,
    pub rtcp: UdpSocket,
}

pub(super) struct Session {
    pub sockets: Sockets,
    pub sending: Mutex<Sending>,
    /// What was agreed on last.
    pub stream: Mutex<Stream>,
    /// Rises with every agreement.
    pub agreement: AtomicU32,
    /// Our name in reports.
    pub name: String,
    stopped: AtomicBool,
    /// Ticks that were sent.
    ticks: AtomicU64,
    round: AtomicU64,
    ticked: Notify,
    failed_sends: AtomicU64,
    lateness: Lateness,
    /// Of all calls together.
    all: Arc<Lateness>,
    /// When the other end was last heard, µs.
    pub heard_us: AtomicU64,
    pub received: Mutex<Received>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("sockets", &self.sockets).finish_non_exhaustive()
    }
}

impl Session {
    pub fn new(
        sockets: Sockets,
        sending: Sending,
        stream: Stream,
        name: String,
        all: Arc<Lateness>,
        now_us: u64,
    ) -> Session {
        Session {
            sockets,
            sending: Mutex::new(sending),
            stream: Mutex::new(stream),
            agreement: AtomicU32::new(0),
            name,
            stopped: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
            round: AtomicU64::new(0),
            ticked: Notify::new(),
            failed_sends: AtomicU64::new(0),
            lateness: Lateness::default(),
            all,
            heard_us: AtomicU64::new(now_us),
            received: Mutex::default(),
        }
    }

    /// Sends what is due in this round.
    pub fn send(&self, round: u64, due_us: u64, clock: Clock, outgoing: &mut Outgoing) {
        if self.is_stopped() {
            return;
        }
        let before = self.round.swap(round, Ordering::Relaxed);
        let missed = if before == 0 { 0 } else { round.saturating_sub(before + 1) };
        let target = {
            let mut sending = lock(&self.sending);
            sending.tick(missed as u32, outgoing);
            sending.target
        };
        for packet in outgoing.packets() {
            if self.sockets.rtp.send_to(packet, target).is_err() {
                self.failed_sends.fetch_add(1, Ordering::Relaxed);
            }
            let late_us = clock.now_us().saturating_sub(due_us);
            self.lateness.note(late_us);
            self.all.note(late_us);
        }
        self.ticks.fetch_add(1, Ordering::Release);
    }

    /// Wakes the line.
    pub fn wake(&self) {
        self.ticked.notify_one();
    }

    /// Waits for a tick after those that are known.
    pub async fn ticked(&self, known: u64) -> u64 {
        loop {
            let ticks = self.ticks.load(Ordering::Acquire);
            if ticks != known || self.is_stopped() {
                return ticks;
            }
            self.ticked.notified().await;
        }
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.ticked.notify_one();
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub fn say_goodbye(&self, now_us: u64) {
        self.report(&mut Vec::new(), now_us, None, true);
    }

    /// Sends a report; on a shared port it goes from there.
    pub fn report(&self, packet: &mut Vec<u8>, now_us: u64, block: Option<Block>, goodbye: bool) {
        let target: Option<SocketAddr> =
            lock(&self.sending).report(packet, &self.name, now_us, block, goodbye);
        let Some(target) = target else { return };
        let shared = lock(&self.stream).rtcp_mux;
        let socket = if shared { &self.sockets.rtp } else { &self.sockets.rtcp };
        if socket.send_to(packet, target).is_err() {
            self.failed_sends.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn failed_sends(&self) -> u64 {
        self.failed_sends.load(Ordering::Relaxed)
    }

    pub fn lateness(&self) -> &Lateness {
        &self.lateness
    }
}
