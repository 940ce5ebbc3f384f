//! The caller's end of a simulated call: what is said into it, and what was heard, word for word.

use crate::house::LIMIT;
use offhook_media::LINE_RATE_HZ;
use offhook_media::level::{Voiced, gaps, voiced_spans};
use offhook_sim::carrier::twilio::{self, CallStatus};
use offhook_sim::carrier::{Party, Phone, What, telnyx};
use offhook_sim::provider::{heard_words, utterance};
use std::time::Duration;

/// How fast callers speak.
const LETTERS_PER_SECOND: f64 = 18.0;
/// Silence that tells a caller that the agent is done.
const QUIET_MS: u64 = 700;

/// Somebody on the phone, over a carrier.
#[derive(Clone)]
pub struct Caller<C = twilio::SimCall> {
    pub call: C,
    pub phone: Phone,
}

/// A call as a simulated carrier has it.
pub trait Leg {
    /// The carrier's id of it.
    fn carrier_call(&self) -> &str;
}

impl Leg for twilio::SimCall {
    fn carrier_call(&self) -> &str {
        self.sid()
    }
}

impl Leg for telnyx::SimCall {
    fn carrier_call(&self) -> &str {
        self.control_id()
    }
}

/// A text as the caller speaks it.
pub fn spoken(text: &str) -> Vec<i16> {
    utterance(text, text.len() as f64 / LETTERS_PER_SECOND)
}

/// A text as a list of words, as they are heard.
pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

impl Caller {
    pub fn of(call: twilio::SimCall) -> Caller {
        Caller { phone: call.phone(), call }
    }

    /// Puts the receiver down.
    pub async fn hang_up(&self) {
        self.phone.hang_up();
        assert_eq!(self.call.until_over(LIMIT).await, Ok(CallStatus::Completed));
    }

    /// Waits until the other side has hung up.
    pub async fn until_hung_up_on(&self) {
        self.until_agent_hangs_up().await;
        assert_eq!(self.call.until_over(LIMIT).await, Ok(CallStatus::Completed));
    }
}

impl<C> Caller<C> {
    /// Waits for something on the line.
    pub async fn until(&self, what: &str, condition: impl Fn(&Phone) -> bool) {
        if let Err(error) = self.phone.until(LIMIT, condition).await {
            panic!("{what}: {error}; heard {:?}; {:#?}", self.heard(), self.phone.history());
        }
    }

    /// Waits until so much time has passed on the line, also while it only rings.
    pub async fn until_ms(&self, at_ms: u64) {
        while self.phone.now_ms() < at_ms {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the agent has spoken since `since_ms` and is silent.
    pub async fn until_answered_since(&self, since_ms: u64) {
        self.until("the agent answers and is silent", |phone| {
            phone.agent_last_sound_ms().is_some_and(|at| at > since_ms)
                && phone.agent_quiet_ms().is_some_and(|quiet| quiet >= QUIET_MS)
        })
        .await;
    }

    /// Waits until the agent is silent.
    pub async fn until_quiet(&self) {
        self.until("the agent is silent", |phone| phone.agent_quiet_ms() >= Some(QUIET_MS)).await;
    }

    /// Listens to the greeting.
    pub async fn greeted(&self) {
        self.until_answered_since(0).await;
    }

    /// Says something to the end.
    pub async fn say(&self, text: &str) {
        self.phone.say(&spoken(text));
        self.until("the caller has spoken", |phone| !phone.is_speaking()).await;
    }

    /// Says something and listens to the answer; hands out when the caller was done.
    pub async fn ask(&self, text: &str) -> u64 {
        self.say(text).await;
        let done_ms = self.phone.caller_last_sound_ms().unwrap_or_default();
        self.until_answered_since(done_ms).await;
        done_ms
    }

    /// Waits until the agent has put the receiver down.
    pub async fn until_agent_hangs_up(&self) {
        let by_agent = |what: &What| *what == What::HungUp { by: Party::Agent };
        if let Err(error) = self.phone.until_event(LIMIT, by_agent).await {
            panic!("the agent hangs up: {error}; heard {:?}; {:#?}", self.heard(), self.phone.history());
        }
    }

    /// Every word that was heard so far, the last perhaps in part.
    pub fn heard(&self) -> Vec<String> {
        heard_words(&self.phone.recording().heard).into_iter().map(|word| word.word).collect()
    }

    /// Asserts that the line was never silent for longer, from the first sound to the last.
    pub fn no_silence_beyond(&self, ms: u32) {
        let recording = self.phone.recording();
        let both: Vec<i16> = recording
            .said
            .iter()
            .zip(&recording.heard)
            .map(|(said, heard)| said.saturating_add(*heard))
            .collect();
        let silences = gaps(&voiced_spans(&both, LINE_RATE_HZ, Voiced::default()));
        let long: Vec<_> = silences.iter().filter(|gap| gap.length_ms() > ms).collect();
        assert!(long.is_empty(), "dead air: {long:?} of {silences:?}");
    }

    /// How often the other side threw away what was waiting to be heard.
    pub fn clears(&self) -> usize {
        let history = self.phone.history();
        history.iter().filter(|event| matches!(event.what, What::Cleared { .. })).count()
    }
}
