//! What happens to the account behind the customer's back: in Twilio's console, by another buyer, on a bad day of its API.
//! Tests ask here, too, what the account holds and what was asked of the API.

use std::time::Duration;

use super::super::phone::NotInTime;
use super::faults::{RestFaults, RestRecord, RestTrouble, Which};
use super::number::{Number, NumberState};
use super::rest::fields::Fields;
use super::rest::form::Form;
use super::stock::{ForSale, NumberKind};
use super::{AccountStatus, State, TwilioSim};

/// Why the console does not change a number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotChanged {
    /// The number is not the account's.
    #[error("{0} is not a number of this account")]
    NotOwned(String),
    /// A setting is refused, with Twilio's code.
    #[error("{code}: {message}")]
    Refused {
        /// Twilio's error code.
        code: u32,
        /// What is wrong, in words.
        message: String,
    },
}

impl TwilioSim {
    /// Makes the REST API fail on demand, whatever is asked.
    pub fn rest_faults(&self, faults: RestFaults) {
        self.sim.lock().rest_faults = faults;
    }

    /// Makes trouble with one request to come.
    pub fn trouble(&self, which: Which, trouble: RestTrouble) {
        self.sim.lock().journal.plan(which, trouble);
    }

    /// Forgets the trouble that was planned and has not come yet.
    pub fn no_more_trouble(&self) {
        self.sim.lock().journal.forget_plans();
    }

    /// Every request to the REST API so far, the oldest first.
    pub fn requests(&self) -> Vec<RestRecord> {
        self.sim.lock().journal.records().cloned().collect()
    }

    /// Waits for the request whose number among those that fit is `nth`, the first being 0.
    pub async fn until_requested(
        &self,
        limit: Duration,
        nth: usize,
        fits: impl Fn(&RestRecord) -> bool,
    ) -> Result<RestRecord, NotInTime> {
        let mut changed = self.sim.requests_changed.subscribe();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                let found = self.sim.lock().journal.records().filter(|record| fits(record)).nth(nth).cloned();
                if let Some(record) = found {
                    return record;
                }
                // The sender lives in `self`, so that this cannot fail.
                let _ = changed.changed().await;
            }
        };
        tokio::time::timeout(limit, waiting).await.map_err(|_| NotInTime::Limit)
    }

    /// Suspends, closes or restores the account.
    pub fn account_status(&self, status: AccountStatus) {
        self.sim.lock().account_status = status;
    }

    /// From now on a bought number is missing in so many lists, and a released one is still in as many.
    pub fn lists_lag(&self, lists: u32) {
        self.sim.lock().list_lag = lists;
    }

    /// A number of the account as it stands now.
    pub fn number(&self, e164: &str) -> Option<NumberState> {
        self.sim.lock().find_number(e164).map(|number| number.state())
    }

    /// All numbers of the account, the oldest first.
    pub fn numbers(&self) -> Vec<NumberState> {
        self.sim.lock().numbers.iter().map(Number::state).collect()
    }

    /// Somebody changes settings of a number in the console, by their names in requests: `("VoiceUrl", "https://…")`.
    pub fn change_in_console(&self, e164: &str, settings: &[(&str, &str)]) -> Result<(), NotChanged> {
        let mut state = self.sim.lock();
        let number = state.find_number(e164).ok_or_else(|| NotChanged::NotOwned(e164.to_owned()))?;
        let changed: Result<Fields, _> = number.fields.changed(&Form::of(settings), &[]);
        let changed = changed
            .map_err(|refusal| NotChanged::Refused { code: refusal.code, message: refusal.message })?;
        number.change(changed);
        Ok(())
    }

    /// Somebody gives a number back in the console; whether it was the account's.
    pub fn release_in_console(&self, e164: &str) -> bool {
        let mut state = self.sim.lock();
        let before = state.numbers.len();
        state.numbers.retain(|number| number.e164 != e164);
        state.numbers.len() < before
    }

    /// Another customer buys a number that is for sale; whether it was.
    pub fn somebody_else_buys(&self, e164: &str) -> bool {
        let mut state = self.sim.lock();
        let index = state.stock.iter().position(|number| number.e164 == e164);
        index.map(|index| state.sell(index)).is_some()
    }

    /// What is for sale.
    pub fn for_sale(&self) -> Vec<ForSale> {
        self.sim.lock().stock.clone()
    }

    /// Offers one more number.
    pub fn offer(&self, number: ForSale) {
        self.sim.lock().stock.push(number);
    }
}

impl State {
    pub(super) fn find_number(&mut self, e164: &str) -> Option<&mut Number> {
        self.numbers.iter_mut().find(|number| number.e164 == e164)
    }

    /// Takes a number off the shelf. The search for its kind goes on to find nothing rather than to fail.
    pub(super) fn sell(&mut self, index: usize) -> ForSale {
        let sold = self.stock.remove(index);
        let kind: (String, NumberKind) = (sold.country.clone(), sold.kind);
        if !self.sold.contains(&kind) {
            self.sold.push(kind);
        }
        sold
    }

    /// The numbers as a list shows them, which may be behind.
    pub(super) fn listed_numbers(&mut self) -> Vec<Number> {
        let mut listed = Vec::new();
        for number in &mut self.numbers {
            match number.missing_in_lists.checked_sub(1) {
                Some(left) => number.missing_in_lists = left,
                None => listed.push(number.clone()),
            }
        }
        self.released.retain_mut(|(number, lists)| match lists.checked_sub(1) {
            Some(left) => {
                *lists = left;
                listed.push(number.clone());
                true
            }
            None => false,
        });
        listed
    }
}
