//! How one number at a carrier is bought, pointed here, given back and released: a machine that is told what the carrier answered and
//! says what to ask next. It knows no carrier and no store, and nothing in it waits.
//!
//! The order of calls: [`Provisioning::ask`], store the machine, send the request, [`Provisioning::told`], store it again. A process
//! that died in between leaves a machine whose [`Provisioning::resume`] takes the answer for lost. As every request is looked after
//! before it is repeated, a number ends fully ours or as it was, and nothing is bought twice.

mod settings;
#[cfg(test)]
mod tests;

use crate::entity::Capability;
use serde::{Deserialize, Serialize};

pub use settings::{Difference, Settings};

/// Failures in a row after which an operation that has changed nothing is given up.
pub const TRIES_MAX: u32 = 6;
/// Looks for a number that may have been bought, before it is believed that it was not: lists lag behind.
pub const LOOKS_MAX: u32 = 5;
/// Looks for a number that the carrier says is bought: with their pauses, about an hour.
pub const BOUGHT_LOOKS_MAX: u32 = 125;
/// Purchases that are begun when the one before has left no trace.
pub const PURCHASES_MAX: u32 = 3;
/// Times that a setting is written which the carrier takes and does not keep.
pub const WRITES_MAX: u32 = 3;
/// Changes that fail one after the other, whatever is seen between them, after which the way back is taken.
pub const CHANGES_MAX: u32 = 20;
/// Refusals in a row to tell how a number stands that has been changed; somebody may mend the credentials meanwhile.
pub const REFUSALS_MAX: u32 = 20;
/// The first pause after a failure, ms. It doubles with each.
pub const PAUSE_MS: u32 = 500;
/// The longest pause, ms.
pub const PAUSE_MS_MAX: u32 = 30_000;
/// The longest that a carrier is left alone because it asks for that, ms.
pub const AFTER_MS_MAX: u32 = 3_600_000;

/// What is to become of a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// It is bought and leads here.
    Buy,
    /// It is the account's and shall lead here.
    TakeOver {
        /// Where it led before it was ours at all; `None`: where it is found to lead.
        previous: Option<Settings>,
    },
    /// It leads here and shall lead where it led before.
    GiveBack {
        /// What leads here.
        ours: Settings,
        /// What led there.
        previous: Settings,
    },
    /// It shall not be the account's any more.
    Release,
}

/// A number as the carrier has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct There {
    /// The carrier's id of it.
    pub id: String,
    /// What it can carry.
    pub capabilities: Vec<Capability>,
    /// Where its calls go.
    pub settings: Settings,
}

/// What is asked of the carrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// How the number stands in the account: answered with [`Answer::Looked`].
    Look,
    /// What leads here; the carrier may have to be told of us first: [`Answer::Prepared`].
    Prepare,
    /// To buy the number: [`Answer::Purchase`].
    Buy {
        /// Where it shall lead.
        settings: Settings,
    },
    /// The order that an unanswered purchase may have made: [`Answer::Order`].
    FindOrder,
    /// How an order stands: [`Answer::Purchase`].
    FollowOrder {
        /// The carrier's id of it.
        order: String,
    },
    /// To change settings, and how the number stands then: [`Answer::Looked`].
    Set {
        /// The number.
        there: There,
        /// The settings.
        settings: Settings,
    },
    /// To let the number go: [`Answer::Released`].
    Release {
        /// The number.
        there: There,
    },
}

/// What a purchase has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purchase {
    /// The number is the account's.
    Done,
    /// The carrier works on this order.
    Ordered(String),
    /// It will not happen, and why.
    Failed(String),
}

/// What the carrier has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// How the number stands; `None` if it is not the account's.
    Looked(Option<There>),
    /// What leads here.
    Prepared(Settings),
    /// How the purchase stands.
    Purchase(Purchase),
    /// The order, if there is one.
    Order(Option<String>),
    /// It is not the account's any more.
    Released,
    /// It did not do what was asked.
    Failed(Failure),
}

/// Why the carrier did not do what was asked, by what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing has happened and asking again may help.
    Passing {
        /// What went wrong, in a sentence for the user.
        reason: String,
        /// How long the carrier wants to be left alone, ms.
        after_ms: Option<u32>,
    },
    /// It may have happened.
    Unknown {
        /// What went wrong.
        reason: String,
    },
    /// It will not happen.
    Refused {
        /// Why.
        reason: String,
    },
}

/// How it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As wanted.
    Done,
    /// The number is not the account's, or not any more.
    Gone,
    /// Not as wanted; the number is as it was before.
    Unchanged {
        /// Why, in a sentence for the user.
        reason: String,
    },
    /// Not as wanted, and the number is not as it was either: somebody has to look.
    Unclear {
        /// Why, in a sentence for the user.
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// How does it stand before anything is done?
    Look,
    Prepare,
    Buy,
    /// Has the purchase that was not answered made an order?
    FindOrder,
    FollowOrder {
        order: String,
    },
    /// Is it the account's now?
    LookBought,
    Point,
    /// Does it lead here?
    LookPointed,
    /// What of it is still ours?
    LookBack,
    GiveBack {
        back: Settings,
    },
    Release,
    /// Is it still there?
    LookReleased,
    Over(Outcome),
}

/// What is done to one number at its carrier, and how far it is. To be stored after every change of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioning {
    task: Task,
    stage: Stage,
    /// The stage's request may be under way.
    asked: bool,
    /// How the number was found first, and how it was seen last.
    before: Option<Settings>,
    there: Option<There>,
    ours: Option<Settings>,
    /// Something at the carrier may have been changed.
    touched: bool,
    /// The carrier has said that it is bought.
    bought: bool,
    /// Why it will not come to what was wanted, while that is being cleared up.
    why: Option<String>,
    /// Why not even the way back can be gone.
    stuck: Option<String>,
    failures: u32,
    /// Changes in a row that were not answered as done. A look between them is no progress.
    #[serde(default)]
    failed_changes: u32,
    /// Why changes are not tried any more, until it has been looked what became of the last.
    #[serde(default)]
    given_up: Option<String>,
    refusals: u32,
    looks: u32,
    purchases: u32,
    writes: u32,
    waits: u32,
    pause_ms: u32,
}

impl Provisioning {
    /// Nothing has been asked yet.
    pub fn new(task: Task) -> Self {
        let ours = match &task {
            Task::GiveBack { ours, .. } => Some(ours.clone()),
            _ => None,
        };
        Provisioning {
            task,
            stage: Stage::Look,
            asked: false,
            before: None,
            there: None,
            ours,
            touched: false,
            bought: false,
            why: None,
            stuck: None,
            failures: 0,
            failed_changes: 0,
            given_up: None,
            refusals: 0,
            looks: 0,
            purchases: 0,
            writes: 0,
            waits: 0,
            pause_ms: 0,
        }
    }

    /// There is nothing to ask a carrier, and this has come of it.
    pub fn over_already(task: Task, outcome: Outcome) -> Self {
        Provisioning { stage: Stage::Over(outcome), ..Provisioning::new(task) }
    }

    /// What is to become of the number.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// How it has ended; `None` while there is something to do.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.stage {
            Stage::Over(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// What leads here, once it is known.
    pub fn ours(&self) -> Option<&Settings> {
        self.ours.as_ref()
    }

    /// What the number is to be given back one day, known before the first change.
    pub fn previous(&self) -> Option<Settings> {
        match &self.task {
            Task::Buy => self.ours.as_ref().map(Settings::emptied),
            Task::TakeOver { previous: Some(previous) } | Task::GiveBack { previous, .. } => {
                Some(previous.clone())
            }
            Task::TakeOver { previous: None } => self.before.clone(),
            Task::Release => None,
        }
    }

    /// The number as it was seen last.
    pub fn there(&self) -> Option<&There> {
        self.there.as_ref()
    }

    /// How long to wait before the next request, ms.
    pub fn pause_ms(&self) -> u32 {
        self.pause_ms
    }

    /// The request that comes next, or is under way; `None` when it is over.
    pub fn request(&self) -> Option<Request> {
        let there = || self.there.clone().expect("a number is looked at before it is changed");
        let ours = || self.ours.clone().expect("it was prepared before it is wanted");
        Some(match &self.stage {
            Stage::Over(_) => return None,
            Stage::Look | Stage::LookBought | Stage::LookPointed | Stage::LookBack | Stage::LookReleased => {
                Request::Look
            }
            Stage::Prepare => Request::Prepare,
            Stage::Buy => Request::Buy { settings: ours() },
            Stage::FindOrder => Request::FindOrder,
            Stage::FollowOrder { order } => Request::FollowOrder { order: order.clone() },
            Stage::Point => Request::Set { there: there(), settings: ours() },
            Stage::GiveBack { back } => Request::Set { there: there(), settings: back.clone() },
            Stage::Release => Request::Release { there: there() },
        })
    }

    /// Takes the next request as under way: to be stored before it is sent.
    pub fn ask(&mut self) -> Option<Request> {
        let request = self.request()?;
        self.asked = true;
        Some(request)
    }

    /// Goes on after the process has died that had asked.
    pub fn resume(&mut self) {
        if self.asked {
            let reason = "the process that asked has died before it heard the answer".into();
            self.told(Answer::Failed(Failure::Unknown { reason }));
        }
    }

    /// Takes the answer to the request that was asked.
    ///
    /// # Panics
    /// When the answer is none to that request: both are ours, so that is a bug.
    pub fn told(&mut self, answer: Answer) {
        self.asked = false;
        self.pause_ms = 0;
        match answer {
            Answer::Failed(Failure::Refused { reason }) => return self.refused(reason),
            Answer::Failed(Failure::Unknown { reason }) => return self.unanswered(reason, true, None),
            Answer::Failed(Failure::Passing { reason, after_ms }) => {
                return self.unanswered(reason, false, after_ms);
            }
            _ => (self.failures, self.refusals) = (0, 0),
        }
        if self.changes() {
            self.failed_changes = 0;
        }
        match (self.stage.clone(), answer) {
            (Stage::Look, Answer::Looked(there)) => self.begin(there),
            (Stage::Prepare, Answer::Prepared(ours)) => self.prepared(ours),
            (Stage::Buy | Stage::FollowOrder { .. }, Answer::Purchase(purchase)) => self.purchase(purchase),
            (Stage::FindOrder, Answer::Order(order)) => {
                self.stage = order.map_or(Stage::LookBought, |order| Stage::FollowOrder { order });
            }
            (Stage::LookBought, Answer::Looked(there)) => self.looked_bought(there),
            (Stage::Point | Stage::LookPointed, Answer::Looked(there)) => self.pointed(there),
            (Stage::LookBack, Answer::Looked(there)) => self.looked_back(there),
            (Stage::GiveBack { back }, Answer::Looked(there)) => self.given_back(&back, there),
            (Stage::Release, Answer::Released) => self.over(Outcome::Gone),
            (Stage::LookReleased, Answer::Looked(there)) => self.looked_released(there),
            (stage, answer) => panic!("{answer:?} is no answer in {stage:?}"),
        }
    }

    /// Whether the stage's request changes something at the carrier.
    fn changes(&self) -> bool {
        matches!(self.stage, Stage::Buy | Stage::Point | Stage::GiveBack { .. } | Stage::Release)
    }

    fn over(&mut self, outcome: Outcome) {
        self.stage = Stage::Over(outcome);
    }

    fn begin(&mut self, there: Option<There>) {
        self.before = there.as_ref().map(|there| there.settings.clone());
        let found = there.is_some();
        self.there = there;
        match (&self.task, found) {
            (Task::Buy, false) | (Task::TakeOver { .. }, true) => self.stage = Stage::Prepare,
            (Task::Buy, true) => self.over(Outcome::Unchanged {
                reason: "the number is this account's already: import it instead of buying it".into(),
            }),
            (Task::TakeOver { .. }, false) => self.over(Outcome::Gone),
            (Task::GiveBack { .. } | Task::Release, false) => self.over(Outcome::Gone),
            (Task::GiveBack { .. }, true) => self.way_back(),
            (Task::Release, true) => self.stage = Stage::Release,
        }
    }

    fn prepared(&mut self, ours: Settings) {
        self.stage = match &self.before {
            None => Stage::Buy,
            Some(before) if ours.hold(before) => Stage::Over(Outcome::Done),
            Some(_) => Stage::Point,
        };
        self.ours = Some(ours);
    }

    fn purchase(&mut self, purchase: Purchase) {
        match purchase {
            Purchase::Done => {
                (self.touched, self.bought, self.looks) = (true, true, 0);
                self.stage = Stage::LookBought;
            }
            Purchase::Ordered(order) => {
                self.waits += 1;
                self.pause_ms = pause_ms(self.waits);
                self.stage = Stage::FollowOrder { order };
            }
            Purchase::Failed(reason) => self.not_sold(reason),
        }
    }

    /// The carrier will not sell it; an earlier request that was not answered may still have bought it.
    fn not_sold(&mut self, reason: String) {
        if !self.touched {
            return self.over(Outcome::Unchanged { reason });
        }
        self.why = Some(reason);
        self.stage = Stage::LookBought;
    }

    fn looked_bought(&mut self, there: Option<There>) {
        if let Some(there) = there {
            self.why = None;
            return self.pointed(Some(there));
        }
        if self.bought {
            return self.look_for_bought(Stage::LookBought);
        }
        self.looks += 1;
        self.pause_ms = pause_ms(self.looks);
        if self.looks < LOOKS_MAX {
            self.stage = Stage::FindOrder;
            return;
        }
        self.looks = 0;
        match self.why.take() {
            Some(reason) => self.over(Outcome::Unchanged { reason }),
            None if self.purchases >= PURCHASES_MAX => self.over(Outcome::Unchanged {
                reason: "the carrier did not answer the purchase and has not carried it out".into(),
            }),
            None => self.stage = Stage::Buy,
        }
    }

    /// It is the account's and was not seen: it is looked for again, but not for ever.
    fn look_for_bought(&mut self, stage: Stage) {
        self.looks += 1;
        if self.looks >= BOUGHT_LOOKS_MAX {
            let reason =
                "the carrier has sold the number and does not list it: look for it there, then take it back";
            return self.over(Outcome::Unclear { reason: reason.into() });
        }
        self.pause_ms = pause_ms(self.looks);
        self.stage = stage;
    }

    fn pointed(&mut self, there: Option<There>) {
        let written = self.stage == Stage::Point;
        self.touched |= written;
        let Some(there) = there else {
            // What was just bought may be missing from a list once more; what was the account's before has been taken away.
            if self.bought || self.task == Task::Buy {
                return self.look_for_bought(Stage::LookPointed);
            }
            return self.over(Outcome::Gone);
        };
        let ours = self.ours.as_ref().expect("it was prepared before it was pointed");
        let differences = ours.differences(&there.settings);
        self.there = Some(there);
        let Some(first) = differences.first() else { return self.over(Outcome::Done) };
        if written {
            self.writes += 1;
            if self.writes >= WRITES_MAX {
                let reason = format!("the carrier took the change and did not keep `{}`", first.setting);
                return self.not_pointed(reason);
            }
            self.pause_ms = pause_ms(self.writes);
        }
        if let Some(reason) = self.given_up.take() {
            return self.not_pointed(reason);
        }
        self.stage = if written { Stage::LookPointed } else { Stage::Point };
    }

    /// It cannot be pointed here: what was bought stays bought, what was the account's before is given back.
    fn not_pointed(&mut self, reason: String) {
        if self.task == Task::Buy {
            return self.over(Outcome::Unclear { reason });
        }
        (self.why, self.writes, self.failed_changes) = (Some(reason), 0, 0);
        self.stage = Stage::LookBack;
    }

    fn looked_back(&mut self, there: Option<There>) {
        match there {
            None => self.over(Outcome::Gone),
            Some(there) => {
                self.there = Some(there);
                self.way_back();
            }
        }
    }

    fn way_back(&mut self) {
        let ours = self.ours.as_ref().expect("it was prepared before it was pointed");
        let there = &self.there.as_ref().expect("it was looked at").settings;
        let before = match &self.task {
            Task::GiveBack { previous, .. } => previous,
            _ => self.before.as_ref().expect("it was looked at first"),
        };
        let back = Settings::way_back(ours, before, there);
        let still_ours = matches!(self.task, Task::GiveBack { .. }) && ours.hold(there);
        match (back.0.is_empty(), self.stuck.take(), self.why.take()) {
            (true, _, None) => self.over(Outcome::Done),
            (true, _, Some(reason)) => self.over(Outcome::Unchanged { reason }),
            (false, Some(reason), _) if still_ours => self.over(Outcome::Unchanged { reason }),
            (false, Some(reason), _) => self.over(Outcome::Unclear { reason }),
            (false, None, why) => {
                self.why = why;
                self.stage = Stage::GiveBack { back };
            }
        }
    }

    fn given_back(&mut self, back: &Settings, there: Option<There>) {
        self.touched = true;
        let kept = there.as_ref().is_some_and(|there| !back.hold(&there.settings));
        if kept {
            self.writes += 1;
            self.pause_ms = pause_ms(self.writes);
            if self.writes >= WRITES_MAX {
                self.stuck = Some("the carrier took the change and did not keep it".into());
            }
        }
        match (kept, there) {
            // Looked at anew: the answer to a change may be older than the change.
            (true, _) => self.stage = Stage::LookBack,
            (false, there) => self.looked_back(there),
        }
    }

    fn looked_released(&mut self, there: Option<There>) {
        let Some(there) = there else { return self.over(Outcome::Gone) };
        self.there = Some(there);
        self.looks += 1;
        match self.why.take() {
            None => self.stage = Stage::Release,
            Some(reason) if self.looks >= LOOKS_MAX => self.over(Outcome::Unchanged { reason }),
            // The request before the one that was refused may have released it, and the list lag behind.
            Some(reason) => {
                self.pause_ms = pause_ms(self.looks);
                self.why = Some(reason);
            }
        }
    }

    /// The request was not answered, or with a failure that passes; `sent` if it may have been carried out.
    fn unanswered(&mut self, reason: String, sent: bool, after_ms: Option<u32>) {
        self.failures += 1;
        if self.changes() {
            self.failed_changes += 1;
        }
        let after_ms = after_ms.unwrap_or(0).min(AFTER_MS_MAX);
        self.pause_ms = pause_ms(self.failures.max(self.failed_changes)).max(after_ms);
        let given_up = self.changes() && self.failed_changes >= CHANGES_MAX;
        match self.stage {
            Stage::Buy if sent => {
                (self.touched, self.looks) = (true, 0);
                self.purchases += 1;
                self.stage = Stage::FindOrder;
            }
            Stage::Buy if given_up => self.not_sold(reason),
            // A change is more than one request at some carriers: the first may have been carried out, whatever became of the last.
            Stage::Point => {
                self.touched = true;
                self.given_up = given_up.then_some(reason);
                self.stage = Stage::LookPointed;
            }
            Stage::GiveBack { .. } => {
                self.touched = true;
                self.stuck = given_up.then_some(reason);
                self.stage = Stage::LookBack;
            }
            Stage::Release if sent || given_up => {
                self.touched = true;
                if given_up {
                    (self.why, self.looks) = (Some(reason), 0);
                }
                self.stage = Stage::LookReleased;
            }
            // An order that is known may be carried out whether or not we follow it.
            Stage::FollowOrder { .. } => {}
            _ if !self.touched && self.failures >= TRIES_MAX => self.over(Outcome::Unchanged { reason }),
            _ => {}
        }
    }

    fn refused(&mut self, reason: String) {
        self.refusals += 1;
        match self.stage {
            Stage::Look | Stage::Prepare => self.over(Outcome::Unchanged { reason }),
            Stage::Buy => self.not_sold(reason),
            Stage::FindOrder => self.stage = Stage::LookBought,
            Stage::FollowOrder { .. } => {
                self.touched = true;
                self.not_sold(reason);
            }
            Stage::Point => {
                self.touched = true;
                self.not_pointed(reason);
            }
            Stage::Release if self.touched => {
                (self.why, self.looks) = (Some(reason), 0);
                self.stage = Stage::LookReleased;
            }
            Stage::Release => self.over(Outcome::Unchanged { reason }),
            Stage::GiveBack { .. } => {
                self.touched = true;
                self.stuck = Some(reason);
                self.stage = Stage::LookBack;
            }
            // How it stands must be known; whoever can may mend the credentials meanwhile.
            _ if self.refusals < REFUSALS_MAX => self.pause_ms = pause_ms(self.refusals),
            _ => self.over(Outcome::Unclear { reason }),
        }
    }
}

/// The pause after so many failures in a row, ms.
fn pause_ms(failures: u32) -> u32 {
    let doublings = failures.saturating_sub(1).min(16);
    PAUSE_MS.saturating_mul(1 << doublings).min(PAUSE_MS_MAX)
}
