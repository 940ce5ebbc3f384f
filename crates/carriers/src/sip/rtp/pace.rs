//! The pacing of all calls: a few threads, each with its timer, each of which serves the calls of one phase after the other.
//! It knows when, not what.
//!
//! Threads of their own, because a sender must not stand in line behind whatever else a runtime has to do; and few of
//! them, because a timer for each call costs more than the call's packets. All packets of a phase are sent before anybody
//! is woken, or the woken would run first.

use super::sending::Outgoing;
use super::session::{Session, lock};
use offhook_media::FRAME_MS;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Threads at most: one sends for some thousand calls.
const MAX_SHARDS: usize = 4;
/// Phases of the 20 ms: a shard wakes every 2 ms, and each call has its place in one of them.
const PHASES: usize = 10;
const STEP_US: u64 = FRAME_MS as u64 * 1_000 / PHASES as u64;
/// A shard that is further behind (the process was stopped) leaves out what it missed instead of sending it in a burst.
const MAX_BEHIND_US: u64 = 100_000;

/// Time as media count it: since [`Clock::start`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn now_us(self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }
}

/// All shards; the threads end when this is dropped and the last call is over.
#[derive(Debug)]
pub(super) struct Shards(Vec<Arc<Shard>>);

#[derive(Debug, Default)]
struct Shard {
    arriving: Mutex<Arriving>,
    arrived: Condvar,
    /// Calls of each phase.
    load: [AtomicUsize; PHASES],
}

#[derive(Debug, Default)]
struct Arriving {
    sessions: Vec<(usize, Arc<Session>)>,
    closed: bool,
}

impl Shards {
    pub fn start(clock: Clock) -> io::Result<Shards> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut shards = Vec::new();
        for number in 0..cores.min(MAX_SHARDS) {
            let shard = Arc::new(Shard::default());
            let run = Arc::clone(&shard);
            std::thread::Builder::new().name(format!("rtp-{number}")).spawn(move || run.run(clock))?;
            shards.push(shard);
        }
        Ok(Shards(shards))
    }

    /// Gives a call to the phase that has the fewest.
    pub fn add(&self, session: Arc<Session>) {
        let places = self.0.iter().flat_map(|shard| (0..PHASES).map(move |phase| (shard, phase)));
        let load = |(shard, phase): &(&Arc<Shard>, usize)| shard.load[*phase].load(Ordering::Relaxed);
        let Some((shard, phase)) = places.min_by_key(load) else { return };
        shard.load[phase].fetch_add(1, Ordering::Relaxed);
        lock(&shard.arriving).sessions.push((phase, session));
        shard.arrived.notify_one();
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        for shard in &self.0 {
            lock(&shard.arriving).closed = true;
            shard.arrived.notify_one();
        }
    }
}

impl Shard {
    fn run(&self, clock: Clock) {
        let mut phases: [Vec<Arc<Session>>; PHASES] = Default::default();
        let mut outgoing = Outgoing::new();
        let mut step = 0;
        loop {
            if phases.iter().all(Vec::is_empty) {
                let arriving = lock(&self.arriving);
                let wait = |arriving: &mut Arriving| arriving.sessions.is_empty() && !arriving.closed;
                let arriving = self.arrived.wait_while(arriving, wait);
                let arriving = arriving.unwrap_or_else(std::sync::PoisonError::into_inner);
                if arriving.sessions.is_empty() {
                    return;
                }
                step = clock.now_us() / STEP_US;
            }
            for (phase, session) in lock(&self.arriving).sessions.drain(..) {
                phases[phase].push(session);
            }
            step += 1;
            let now_us = clock.now_us();
            if now_us > step * STEP_US + MAX_BEHIND_US {
                step = now_us / STEP_US;
            }
            let due_us = step * STEP_US;
            if let Some(early_us) = due_us.checked_sub(now_us).filter(|early_us| *early_us > 0) {
                std::thread::sleep(Duration::from_micros(early_us));
            }
            let phase = (step % PHASES as u64) as usize;
            self.serve(&mut phases[phase], phase, step / PHASES as u64, due_us, clock, &mut outgoing);
        }
    }

    fn serve(
        &self,
        sessions: &mut Vec<Arc<Session>>,
        phase: usize,
        round: u64,
        due_us: u64,
        clock: Clock,
        outgoing: &mut Outgoing,
    ) {
        for session in sessions.iter() {
            session.send(round, due_us, clock, outgoing);
        }
        sessions.retain(|session| {
            session.wake();
            if session.is_stopped() {
                self.load[phase].fetch_sub(1, Ordering::Relaxed);
                session.say_goodbye(clock.now_us());
            }
            !session.is_stopped()
        });
    }
}
