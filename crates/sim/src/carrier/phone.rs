//! The telephone at the far end of a simulated call: what its owner says and hears, and when, on one clock of 8 kHz samples.
//! It knows no carrier: whoever holds the line takes what is said and delivers what is heard.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use offhook_media::dtmf::Detector;
use offhook_media::wav::Wav;
use offhook_media::{FRAME_SAMPLES, LINE_RATE_HZ};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::playout::{Full, Playout};

/// Samples of telephone audio in a millisecond.
pub const SAMPLES_PER_MS: u64 = LINE_RATE_HZ as u64 / 1_000;
pub(super) const FRAME_MS: u64 = offhook_media::FRAME_MS as u64;

/// Louder than this is sound: -40 dBFS, above line noise and below any voiced speech.
const SOUND_PEAK: u16 = 328;
/// A pause shorter than this lies inside speech.
const PAUSE_IN_SPEECH_MS: u64 = 200;
/// Frames that a slow taker of the line may fall behind before they are lost to it.
const LINE_BACKLOG_FRAMES: usize = 100;
/// From one telephone to the other through the carrier: room for both clocks to be late.
const BRIDGE_DELAY_MS: u64 = 60;
/// A key is held so long that 100 ms lie between two digits, as fast as people dial.
const FRAMES_BETWEEN_DIGITS: u64 = 5;

/// The far party's telephone: it speaks, presses keys, listens and hangs up. Clones are the same telephone.
#[derive(Clone)]
pub struct Phone {
    line: Line,
}

/// Something that happened on the line, in call time: milliseconds since the call was placed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LineEvent {
    /// When it happened; a pause is known to end speech only later, so events are not sorted by this.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// The facts of a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The call was answered: from here on both sides can be heard.
    Answered,
    /// The other side began to sound.
    AgentStarted,
    /// The other side had fallen silent.
    AgentStopped,
    /// The owner of the telephone began to speak.
    CallerStarted,
    /// The owner of the telephone had fallen silent.
    CallerStopped,
    /// The carrier itself spoke a text.
    CarrierSaid {
        /// The text.
        text: String,
    },
    /// The carrier played a sound file.
    CarrierPlayed {
        /// Its address.
        url: String,
    },
    /// A key tone was heard from the other side.
    DigitHeard {
        /// One of `0-9 * # A-D`.
        digit: char,
    },
    /// The owner of the telephone pressed a key.
    DigitPressed {
        /// One of `0-9 * # A-D`.
        digit: char,
    },
    /// A media stream was opened to the other side's server.
    StreamOpened {
        /// The carrier's name of the stream.
        stream: String,
    },
    /// The media stream is gone.
    StreamEnded {
        /// The carrier's name of the stream.
        stream: String,
        /// Nothing where it ended in order.
        loss: Option<StreamLoss>,
    },
    /// The carrier sent a mark back.
    Mark {
        /// Its name.
        name: String,
        /// Whether the audio before it was heard; false after a clear.
        played: bool,
    },
    /// The other side threw away what was waiting to be heard.
    Cleared {
        /// How much was waiting.
        dropped_ms: u64,
    },
    /// The call is over.
    HungUp {
        /// Who ended it.
        by: Party,
    },
}

/// How a media stream was lost, where it did not end in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamLoss {
    /// The server could not be reached or did not answer in time.
    NotConnected,
    /// The server answered something else than 101.
    Refused,
    /// The connection broke.
    Broken,
    /// The server closed the connection without a close message.
    ClosedByServer,
}

/// Who did something on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// The owner of the telephone.
    Caller,
    /// The other side: its documents or its requests.
    Agent,
    /// The carrier, by a rule or a failure.
    Carrier,
}

/// A condition did not come true within its limit, or can no more because the call is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotInTime {
    /// The limit passed first.
    #[error("it did not happen within the limit")]
    Limit,
    /// The call ended first.
    #[error("the call ended before it happened")]
    CallOver,
}

/// Both sides of a call on one clock, from the moment it was placed.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// What the owner of the telephone said, 8 kHz.
    pub said: Vec<i16>,
    /// What the owner of the telephone heard, 8 kHz, as long as `said`.
    pub heard: Vec<i16>,
}

impl Recording {
    /// Left what was said, right what was heard.
    pub fn wav(&self) -> Wav {
        Wav::stereo(LINE_RATE_HZ, &self.said, &self.heard)
    }
}

impl Phone {
    /// Speaks behind what is still being said; heard by the other side from the moment the call is answered.
    pub fn say(&self, pcm: &[i16]) {
        self.line.lock().to_say.extend(pcm);
    }

    /// Throws away what has not been said yet.
    pub fn fall_silent(&self) {
        self.line.lock().to_say.clear();
    }

    /// Presses keys one after the other.
    pub fn press(&self, digits: &str) {
        self.line.lock().to_press.extend(digits.chars());
    }

    /// Puts the receiver down.
    pub fn hang_up(&self) {
        self.line.lock().hung_up = true;
        self.line.tell();
    }

    /// When the call was placed: the beginning of call time, and of both sides of the recording.
    pub fn placed_at(&self) -> Instant {
        self.line.start
    }

    /// Call time: milliseconds since the call was placed.
    pub fn now_ms(&self) -> u64 {
        self.line.now() / SAMPLES_PER_MS
    }

    /// Whether something is still to be said.
    pub fn is_speaking(&self) -> bool {
        !self.line.lock().to_say.is_empty()
    }

    /// How long the other side has been silent; nothing before its first sound.
    pub fn agent_quiet_ms(&self) -> Option<u64> {
        let state = self.line.lock();
        Some(state.position.saturating_sub(state.agent_ear.last_sound?) / SAMPLES_PER_MS)
    }

    /// How long the other side has been sounding, pauses inside its speech included; nothing while it is silent.
    pub fn agent_sounding_ms(&self) -> Option<u64> {
        let state = self.line.lock();
        Some(state.position.saturating_sub(state.agent_ear.sounding_since?) / SAMPLES_PER_MS)
    }

    /// When the last sound was heard from the other side, in call time.
    pub fn agent_last_sound_ms(&self) -> Option<u64> {
        self.line.lock().agent_ear.last_sound.map(|at| at / SAMPLES_PER_MS)
    }

    /// When the owner of the telephone last made a sound, in call time.
    pub fn caller_last_sound_ms(&self) -> Option<u64> {
        self.line.lock().caller_ear.last_sound.map(|at| at / SAMPLES_PER_MS)
    }

    /// Everything that has happened so far.
    pub fn history(&self) -> Vec<LineEvent> {
        self.line.lock().events.clone()
    }

    /// Follows the line from its first event on: none is lost to a slow reader.
    pub fn events(&self) -> Events {
        Events { line: self.line.clone(), changed: self.line.changed.subscribe(), next: 0 }
    }

    /// Waits until `condition` holds: it is asked again at every frame and at every event.
    pub async fn until(&self, limit: Duration, condition: impl Fn(&Phone) -> bool) -> Result<(), NotInTime> {
        let mut changed = self.line.changed.subscribe();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                let over = self.line.lock().over;
                if condition(self) {
                    return Ok(());
                }
                if over || changed.changed().await.is_err() {
                    return Err(NotInTime::CallOver);
                }
            }
        };
        tokio::time::timeout(limit, waiting).await.unwrap_or(Err(NotInTime::Limit))
    }

    /// Waits for an event that fits, also if it has already happened.
    pub async fn until_event(
        &self,
        limit: Duration,
        fits: impl Fn(&What) -> bool,
    ) -> Result<LineEvent, NotInTime> {
        let find = |phone: &Phone| phone.line.lock().events.iter().find(|event| fits(&event.what)).cloned();
        self.until(limit, |phone| find(phone).is_some()).await?;
        find(self).ok_or(NotInTime::CallOver)
    }

    /// What was said and heard so far.
    pub fn recording(&self) -> Recording {
        let state = self.line.lock();
        let until = state.position;
        let mut said = state.said.clone();
        said.resize(until as usize, 0);
        Recording { said, heard: state.playout.between(0, until) }
    }
}

/// The events of one line in the order in which they became known.
pub struct Events {
    line: Line,
    changed: watch::Receiver<()>,
    next: usize,
}

impl Events {
    /// The next event; nothing when the call is over and everything was told.
    pub async fn next(&mut self) -> Option<LineEvent> {
        loop {
            self.changed.borrow_and_update();
            let (event, over) = {
                let state = self.line.lock();
                (state.events.get(self.next).cloned(), state.over)
            };
            if let Some(event) = event {
                self.next += 1;
                return Some(event);
            }
            if over || self.changed.changed().await.is_err() {
                return None;
            }
        }
    }
}

/// What the telephone sends into the line.
pub(super) enum FromPhone {
    Frame { at: u64, pcm: Box<[i16; FRAME_SAMPLES]> },
    Digit(char),
}

/// The carrier's end of the line. Clones are the same line.
#[derive(Clone)]
pub(super) struct Line {
    start: Instant,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    /// Everything before this sample is history: said, heard and listened to.
    position: u64,
    answered: bool,
    answered_at: u64,
    hung_up: bool,
    over: bool,
    to_say: VecDeque<i16>,
    to_press: VecDeque<char>,
    said: Vec<i16>,
    playout: Playout,
    caller_ear: Ear,
    agent_ear: Ear,
    key_ear: Detector,
    events: Vec<LineEvent>,
    taker: Option<mpsc::Sender<FromPhone>>,
}

impl Line {
    /// A line on which it rings.
    pub(super) fn place() -> Line {
        Line { start: Instant::now(), state: Arc::default(), changed: watch::Sender::new(()) }
    }

    pub(super) fn phone(&self) -> Phone {
        Phone { line: self.clone() }
    }

    /// Call time in samples.
    pub(super) fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64 * SAMPLES_PER_MS / 1_000
    }

    fn instant_of(&self, sample: u64) -> Instant {
        self.start + Duration::from_micros(sample * 1_000 / SAMPLES_PER_MS)
    }

    /// Answers: the telephone begins to send and hear frames. A second time changes nothing.
    pub(super) fn answer(&self) {
        let now = self.now();
        {
            let mut state = self.lock();
            if state.answered || state.over {
                return;
            }
            state.answered = true;
            state.answered_at = now;
            state.position = now;
            state.said.resize(now as usize, 0);
        }
        self.note(What::Answered);
        tokio::spawn(self.clone().run());
    }

    /// Ends the line: nothing is said or heard from now on. A second time changes nothing.
    pub(super) fn end(&self, by: Party) {
        let now = self.now();
        {
            let mut state = self.lock();
            if state.over {
                return;
            }
            state.playout.clear(now);
            state.over = true;
            state.taker = None;
        }
        self.note(What::HungUp { by });
    }

    /// Takes over what the telephone sends; whoever had it before gets nothing more.
    pub(super) fn take(&self) -> mpsc::Receiver<FromPhone> {
        let (taker, frames) = mpsc::channel(LINE_BACKLOG_FRAMES);
        let mut state = self.lock();
        state.taker = (!state.over).then_some(taker);
        frames
    }

    /// Delivers audio to be heard, `delay_ms` from now at the earliest.
    pub(super) fn hear(&self, pcm: &[i16], delay_ms: u64) -> Result<(), Full> {
        let at = self.now() + delay_ms * SAMPLES_PER_MS;
        self.lock().playout.play(at, pcm)
    }

    /// Whether nothing is waiting to be heard.
    pub(super) fn is_idle(&self) -> bool {
        let now = self.now();
        self.lock().playout.waiting(now) == 0
    }

    /// Delivers a frame from another telephone, each at its exact place behind the one before.
    pub(super) fn hear_from(&self, other: &Line, at: u64, pcm: &[i16]) -> Result<(), Full> {
        let due = self.bridged(other, at).max(self.now());
        self.lock().playout.play(due, pcm)
    }

    /// Where a sample of another telephone is due on this one.
    fn bridged(&self, other: &Line, at: u64) -> u64 {
        let samples = |earlier: Instant, later: Instant| {
            later.saturating_duration_since(earlier).as_micros() as u64 * SAMPLES_PER_MS / 1_000
        };
        let here = (at + samples(self.start, other.start)).saturating_sub(samples(other.start, self.start));
        here + BRIDGE_DELAY_MS * SAMPLES_PER_MS
    }

    /// Delivers a frame from another telephone into what else is to be heard then, behind what was `given` of it before.
    pub(super) fn mix_from(&self, other: &Line, at: u64, pcm: &[i16], given: &mut u64) -> Result<(), Full> {
        let now = self.now();
        let start = self.bridged(other, at).max(*given).max(now);
        *given = start + pcm.len() as u64;
        self.lock().playout.mix(now, start, pcm)
    }

    /// Delivers audio into what else is to be heard, from now on.
    pub(super) fn mix(&self, pcm: &[i16]) -> Result<(), Full> {
        let now = self.now();
        self.lock().playout.mix(now, now, pcm)
    }

    pub(super) fn mark(&self, name: String) -> Result<(), Full> {
        let now = self.now();
        self.lock().playout.mark(now, name)
    }

    /// Marks whose audio has been heard.
    pub(super) fn due_marks(&self) -> Vec<String> {
        let now = self.now();
        let names = self.lock().playout.due(now);
        for name in &names {
            self.note(What::Mark { name: name.clone(), played: true });
        }
        names
    }

    /// When the next mark falls due.
    pub(super) fn next_mark(&self) -> Option<Instant> {
        self.lock().playout.next_due().map(|sample| self.instant_of(sample))
    }

    /// Throws away what is waiting and returns the marks in it.
    pub(super) fn clear(&self) -> Vec<String> {
        let now = self.now();
        let cleared = self.lock().playout.clear(now);
        self.note(What::Cleared { dropped_ms: cleared.dropped_samples / SAMPLES_PER_MS });
        for name in &cleared.marks {
            self.note(What::Mark { name: name.clone(), played: false });
        }
        cleared.marks
    }

    /// Throws away what is waiting because the stream it came from is gone.
    pub(super) fn cut(&self) {
        let now = self.now();
        self.lock().playout.clear(now);
    }

    pub(super) fn note(&self, what: What) {
        let at_ms = self.now() / SAMPLES_PER_MS;
        self.lock().events.push(LineEvent { at_ms, what });
        self.tell();
    }

    pub(super) fn caller_has_hung_up(&self) -> bool {
        self.lock().hung_up
    }

    /// Resolves when the owner of the telephone has put the receiver down.
    pub(super) async fn caller_hangs_up(&self) {
        let mut changed = self.changed.subscribe();
        while !self.caller_has_hung_up() {
            // The sender lives in `self`, so that this cannot fail.
            let _ = changed.changed().await;
        }
    }

    /// The telephone's own clock: one frame each 20 ms until the line ends.
    async fn run(self) {
        let mut clock = tokio::time::interval_at(
            self.instant_of(self.lock().position + FRAME_SAMPLES as u64),
            Duration::from_millis(FRAME_MS),
        );
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for frame in 0_u64.. {
            clock.tick().await;
            if !self.lock().pass_frame(frame) {
                return;
            }
            self.tell();
        }
    }

    fn tell(&self) {
        self.changed.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// Moves 20 ms on: both sides are listened to, and what was said goes to whoever holds the line.
    fn pass_frame(&mut self, frame: u64) -> bool {
        if self.over {
            return false;
        }
        let at = self.position;
        let mut pcm = Box::new([0; FRAME_SAMPLES]);
        for sample in pcm.iter_mut() {
            *sample = self.to_say.pop_front().unwrap_or(0);
        }
        self.said.extend_from_slice(pcm.as_slice());
        self.position += FRAME_SAMPLES as u64;
        let heard = self.playout.between(at, self.position);
        self.caller_ear.listen(
            at,
            pcm.as_slice(),
            &mut self.events,
            What::CallerStarted,
            What::CallerStopped,
        );
        self.agent_ear.listen(at, &heard, &mut self.events, What::AgentStarted, What::AgentStopped);
        self.hear_keys(&heard);
        self.send(FromPhone::Frame { at, pcm });
        if frame.is_multiple_of(FRAMES_BETWEEN_DIGITS)
            && let Some(digit) = self.to_press.pop_front()
        {
            self.events.push(LineEvent { at_ms: at / SAMPLES_PER_MS, what: What::DigitPressed { digit } });
            self.send(FromPhone::Digit(digit));
        }
        true
    }

    fn hear_keys(&mut self, heard: &[i16]) {
        let mut presses = Vec::new();
        self.key_ear.push(heard, &mut presses);
        let answered_ms = self.answered_at / SAMPLES_PER_MS;
        self.events.extend(presses.into_iter().map(|press| LineEvent {
            at_ms: answered_ms + press.at_ms,
            what: What::DigitHeard { digit: press.digit },
        }));
    }

    fn send(&mut self, from_phone: FromPhone) {
        if let Some(taker) = &self.taker {
            // A taker that is a second behind loses frames, as a real line would.
            let _ = taker.try_send(from_phone);
        }
    }
}

/// Tells sound from silence on one side of the line.
#[derive(Default)]
struct Ear {
    sounding_since: Option<u64>,
    last_sound: Option<u64>,
}

impl Ear {
    fn listen(&mut self, at: u64, pcm: &[i16], events: &mut Vec<LineEvent>, started: What, stopped: What) {
        let loud = |sample: &i16| sample.unsigned_abs() > SOUND_PEAK;
        if let Some(first) = pcm.iter().position(loud) {
            let first = at + first as u64;
            if self.sounding_since.is_none() {
                self.sounding_since = Some(first);
                events.push(LineEvent { at_ms: first / SAMPLES_PER_MS, what: started });
            }
            self.last_sound = pcm.iter().rposition(loud).map(|last| at + last as u64);
        }
        let Some(last) = self.last_sound else { return };
        let silent = at + pcm.len() as u64 - last > PAUSE_IN_SPEECH_MS * SAMPLES_PER_MS;
        if silent && self.sounding_since.take().is_some() {
            events.push(LineEvent { at_ms: last / SAMPLES_PER_MS, what: stopped });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(ear: &mut Ear, frames: &[i16]) -> Vec<LineEvent> {
        let mut events = Vec::new();
        for (n, &level) in frames.iter().enumerate() {
            let at = (n * FRAME_SAMPLES) as u64;
            ear.listen(at, &[level; FRAME_SAMPLES], &mut events, What::AgentStarted, What::AgentStopped);
        }
        events
    }

    #[test]
    fn a_short_pause_lies_inside_speech_and_a_long_one_ends_it() {
        let mut frames = vec![0, 0, 3_000, 3_000, 0, 0, 0, 3_000];
        frames.extend([0; 12]);
        let events = listen(&mut Ear::default(), &frames);
        assert_eq!(
            events,
            [
                LineEvent { at_ms: 40, what: What::AgentStarted },
                LineEvent { at_ms: 159, what: What::AgentStopped },
            ]
        );
    }

    #[test]
    fn line_noise_is_silence() {
        assert_eq!(listen(&mut Ear::default(), &[28; 50]), []);
    }
}
