//! Somebody whose telephone a carrier rings: what they do while it rings, and what they say and press once they have picked up.
//! It knows no carrier: each turns a [`Pickup`] into its own words for how a call ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::phone::{Phone, SAMPLES_PER_MS};
use super::robot::{CallerStep, follow};

/// How long a person waits for what a step of theirs waits for.
const PATIENCE: Duration = Duration::from_secs(120);
/// A mailbox collects itself before it greets.
const MAILBOX_PAUSE_MS: u64 = 300;
const BEEP_MS: u64 = 400;

/// What somebody does whose telephone rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "does", rename_all = "snake_case")]
pub enum Pickup {
    /// Picks up.
    Answers {
        /// Time to the answer.
        after_ms: u64,
    },
    /// A machine picks up.
    Machine {
        /// Time to the answer.
        after_ms: u64,
    },
    /// Is on another call.
    Busy {
        /// Time to the busy signal.
        after_ms: u64,
    },
    /// Presses the red button.
    Rejects {
        /// Time to the refusal.
        after_ms: u64,
    },
    /// Lets it ring for as long as the call is allowed to.
    NoAnswer,
    /// There is no such number.
    NotFound,
}

impl Default for Pickup {
    fn default() -> Pickup {
        Pickup::Answers { after_ms: 200 }
    }
}

/// A person with a telephone.
#[derive(Clone, Debug)]
pub struct Person {
    /// What they do when it rings.
    pub pickup: Pickup,
    /// What they do once they have picked up, step by step; afterwards they stay on the line and listen.
    pub script: Arc<[CallerStep]>,
}

impl Person {
    /// Somebody who picks up and follows a script.
    pub fn answers(after_ms: u64, script: impl Into<Arc<[CallerStep]>>) -> Person {
        Person { pickup: Pickup::Answers { after_ms }, script: script.into() }
    }

    /// Somebody who never gets on the line.
    pub fn unreached(pickup: Pickup) -> Person {
        Person { pickup, script: Arc::default() }
    }

    /// A mailbox: it picks up, greets, beeps, and records what it hears.
    pub fn mailbox(after_ms: u64, greeting: impl Into<Arc<[i16]>>) -> Person {
        let script = [
            CallerStep::Pause { ms: MAILBOX_PAUSE_MS },
            CallerStep::Say(greeting.into()),
            CallerStep::Say(mailbox_beep().into()),
        ];
        Person { pickup: Pickup::Machine { after_ms }, script: script.into() }
    }

    /// Somebody who hears the other side out and then presses keys.
    pub fn presses_when_quiet(after_ms: u64, quiet_ms: u64, digits: &str) -> Person {
        let script = [CallerStep::WaitForAgentQuiet { ms: quiet_ms }, CallerStep::Dtmf(digits.to_owned())];
        Person::answers(after_ms, script)
    }
}

/// The beep of a mailbox, 8 kHz: a pure tone of 1 kHz.
fn mailbox_beep() -> Vec<i16> {
    const PERIOD: [i16; 8] = [0, 5_700, 8_000, 5_700, 0, -5_700, -8_000, -5_700];
    (0..BEEP_MS * SAMPLES_PER_MS).map(|sample| PERIOD[sample as usize % PERIOD.len()]).collect()
}

/// The people that a carrier knows by their numbers. A number that rings several times may do something else each time.
#[derive(Default)]
pub(super) struct People {
    by_number: BTreeMap<String, Vec<Person>>,
}

impl People {
    /// From now on this is who has the number.
    pub(super) fn set(&mut self, number: &str, person: Person) {
        self.by_number.insert(number.to_owned(), vec![person]);
    }

    /// One for each call to come, in this order; the last one stays.
    pub(super) fn set_all(&mut self, number: &str, people: Vec<Person>) {
        self.by_number.insert(number.to_owned(), people);
    }

    /// Who is at the number for the call that rings now.
    pub(super) fn ring(&mut self, number: &str) -> Option<Person> {
        let people = self.by_number.get_mut(number)?;
        if people.len() > 1 { Some(people.remove(0)) } else { people.first().cloned() }
    }
}

/// Lets somebody who has just picked up follow their script.
pub(super) fn act(phone: Phone, script: Arc<[CallerStep]>) {
    if script.is_empty() {
        return;
    }
    tokio::spawn(async move {
        let report = follow(&phone, &script, PATIENCE).await;
        if let Some(reason) = report.stopped {
            tracing::debug!(
                steps.done = report.steps_done,
                reason,
                "A person's script was not followed to its end"
            );
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_several_people_stays() {
        let mut people = People::default();
        let busy = Person::unreached(Pickup::Busy { after_ms: 1 });
        people.set_all("+1", vec![busy, Person::answers(2, [])]);
        let picked: Vec<_> = (0..3).map(|_| people.ring("+1").unwrap().pickup).collect();
        let answers = Pickup::Answers { after_ms: 2 };
        assert_eq!(picked, [Pickup::Busy { after_ms: 1 }, answers, answers]);
        assert!(people.ring("+2").is_none());
    }
}
