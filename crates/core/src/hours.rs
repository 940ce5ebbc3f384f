//! When a business is open, by the clock on its own wall, and when that changes next. It knows neither calls nor what the answer
//! is used for.
//!
//! Everything is said in local time, and what is open is decided by what the clock shows: hours from 2:15 to 2:45 are open twice
//! where the clock goes back over them, and not at all where it skips them. Hours that run past midnight belong to the day on which
//! they begin, whatever the next day is.

mod written;
mod zone;

pub use written::HoursError;
pub use zone::{NoSuchZone, Zone};

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Weekday};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use written::Written;

/// How far ahead it is looked for the next change, in days: two years.
pub const SEARCH_DAYS: i32 = 731;
/// Minutes of a day on the wall.
const DAY: u16 = 24 * 60;

/// Weekly hours, holidays and exceptions. The default is open around the clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct BusinessHours {
    /// By weekday, from Monday. `None`: around the clock on every day that is neither holiday nor exception.
    weekly: Option<[Vec<Span>; 7]>,
    holidays: Vec<Holiday>,
    exceptions: Vec<Exception>,
}

/// From one minute of a day to another; more than [`DAY`] is on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    from: u16,
    to: u16,
}

const ALL_DAY: &[Span] = &[Span { from: 0, to: DAY }];

/// A day that is not as its weekday, with its own hours, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holiday {
    name: String,
    on: HolidayDate,
    hours: Vec<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HolidayDate {
    Yearly { month: i8, day: i8 },
    Once(Date),
}

/// Days from one to another, both included, that go before all else.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exception {
    name: String,
    from: Date,
    to: Date,
    hours: Vec<Span>,
}

/// How a business stands at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Whether it is open.
    pub open: bool,
    /// What makes it so.
    pub why: Why,
    /// When that changes next, µs since 1970 UTC. `None`: not within [`SEARCH_DAYS`].
    pub changes_at_us: Option<i64>,
    /// When it opens next, µs since 1970 UTC; of a business that is open: after it has closed. `None`: not within [`SEARCH_DAYS`].
    pub opens_at_us: Option<i64>,
}

/// What makes a business open or closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// There are no weekly hours: it is open around the clock.
    Always,
    /// The weekly hours.
    Weekly,
    /// A holiday of this name.
    Holiday(String),
    /// An exception of this name.
    Exception(String),
}

/// A [`Why`] that is still with its hours.
#[derive(Clone, Copy)]
enum Rule<'a> {
    Always,
    Weekly,
    Holiday(&'a Holiday),
    Exception(&'a Exception),
}

impl BusinessHours {
    /// Reads hours as they are stored or sent.
    ///
    /// # Errors
    /// Names the field that cannot be, and what would be right.
    pub fn read(hours: &Value) -> Result<Self, HoursError> {
        let written = serde_json::from_value::<Written>(hours.clone())
            .map_err(|error| HoursError { field: String::new(), wrong: error.to_string() })?;
        written.try_into()
    }

    /// Whether nothing is set, so that the business is open around the clock.
    pub fn are_unset(&self) -> bool {
        *self == BusinessHours::default()
    }

    /// Whether the business is open at a moment, µs since 1970 UTC.
    pub fn is_open(&self, zone: &Zone, now_us: i64) -> bool {
        self.state(zone.wall(timestamp(now_us))).0
    }

    /// How the business stands at a moment, µs since 1970 UTC.
    pub fn at(&self, zone: &Zone, now_us: i64) -> Hours {
        let now = timestamp(now_us);
        let (open, rule) = self.state(zone.wall(now));
        let wanted = if open { 2 } else { 1 };
        let changes = if self.are_unset() { Vec::new() } else { self.changes(zone, now, open, wanted) };
        Hours {
            open,
            why: rule.why(),
            changes_at_us: changes.first().copied(),
            opens_at_us: changes.get(wanted - 1).copied(),
        }
    }

    /// Whether the business is open at what the clock shows, and what makes it so.
    fn state(&self, shown: DateTime) -> (bool, Rule<'_>) {
        let minute = shown.hour() as u16 * 60 + shown.minute() as u16;
        let (rule, spans) = self.day(shown.date());
        if spans.iter().any(|span| (span.from..span.to).contains(&minute)) {
            return (true, rule);
        }
        if let Ok(yesterday) = shown.date().yesterday() {
            let (before, spans) = self.day(yesterday);
            if spans.iter().any(|span| DAY + minute < span.to) {
                return (true, before);
            }
        }
        (false, rule)
    }

    /// The hours that begin on a day.
    fn day(&self, date: Date) -> (Rule<'_>, &[Span]) {
        if let Some(exception) = self.exceptions.iter().find(|e| (e.from..=e.to).contains(&date)) {
            return (Rule::Exception(exception), &exception.hours);
        }
        let once = self.holidays.iter().find(|h| h.on == HolidayDate::Once(date));
        let yearly = HolidayDate::Yearly { month: date.month(), day: date.day() };
        if let Some(holiday) = once.or_else(|| self.holidays.iter().find(|h| h.on == yearly)) {
            return (Rule::Holiday(holiday), &holiday.hours);
        }
        match &self.weekly {
            None => (Rule::Always, ALL_DAY),
            Some(weekly) => (Rule::Weekly, &weekly[place(date.weekday())]),
        }
    }

    /// The next moments, `wanted` at most, at which the business opens or closes.
    ///
    /// Between two moments of which neither begins or ends hours and at neither of which the clock is put, the state is the same: it
    /// is enough to look at those.
    fn changes(&self, zone: &Zone, now: Timestamp, open: bool, wanted: usize) -> Vec<i64> {
        let (mut changes, mut state) = (Vec::new(), open);
        let mut moments = BTreeSet::new();
        let mut puts = zone.puts_after(now).peekable();
        let Ok(mut date) = zone.wall(now).date().yesterday() else { return changes };
        for _ in 0..SEARCH_DAYS {
            self.bounds(date, |shown| zone.moments(shown, |moment| _ = moments.insert(moment)));
            // What stands before noon cannot be preceded by anything of a later day, wherever the clock is put at night.
            let Some(settled) = zone.first_moment(date.at(12, 0, 0, 0)) else { break };
            while let Some(put) = puts.next_if(|put| *put < settled) {
                moments.insert(put);
            }
            while let Some(moment) = moments.first().copied().filter(|moment| *moment < settled) {
                moments.pop_first();
                if moment > now && self.state(zone.wall(moment)).0 != state {
                    state = !state;
                    changes.push(moment.as_microsecond());
                    if changes.len() == wanted {
                        return changes;
                    }
                }
            }
            let Ok(tomorrow) = date.tomorrow() else { break };
            date = tomorrow;
        }
        changes
    }

    /// What the clock shows on a date when hours may begin or end: those of the date and, past midnight, of the day before.
    fn bounds(&self, date: Date, mut found: impl FnMut(DateTime)) {
        let mut at = |minute: u16| found(date.at((minute / 60) as i8, (minute % 60) as i8, 0, 0));
        at(0);
        for span in self.day(date).1 {
            at(span.from);
            if span.to < DAY {
                at(span.to);
            }
        }
        if let Ok(yesterday) = date.yesterday() {
            self.day(yesterday).1.iter().filter(|span| span.to > DAY).for_each(|span| at(span.to - DAY));
        }
    }
}

impl Rule<'_> {
    fn why(self) -> Why {
        match self {
            Rule::Always => Why::Always,
            Rule::Weekly => Why::Weekly,
            Rule::Holiday(holiday) => Why::Holiday(holiday.name.clone()),
            Rule::Exception(exception) => Why::Exception(exception.name.clone()),
        }
    }
}

impl Hours {
    /// How the business stands, as a sentence for callers: "The business is open now, until 17:00."
    pub fn sentence(&self, zone: &Zone, now_us: i64) -> String {
        let because = match &self.why {
            Why::Holiday(name) | Why::Exception(name) => format!(" because of {name}"),
            Why::Always | Why::Weekly => String::new(),
        };
        let when = |at_us: i64| zone.when(timestamp(now_us), timestamp(at_us));
        match (self.open, self.changes_at_us) {
            (true, None) if self.why == Why::Always => "The business is open around the clock.".to_owned(),
            (true, None) => format!("The business is open now{because}."),
            (true, Some(at_us)) => {
                let until = when(at_us);
                format!(
                    "The business is open now{because}, until {}.",
                    until.strip_prefix("at ").unwrap_or(&until)
                )
            }
            (false, None) => format!("The business is closed now{because}; no opening is planned."),
            (false, Some(at_us)) => format!("The business is closed now{because}; it opens {}.", when(at_us)),
        }
    }
}

/// The place of a weekday in a week.
fn place(day: Weekday) -> usize {
    day.to_monday_zero_offset().unsigned_abs().into()
}

/// A moment; what no calendar reaches is its first or last moment.
fn timestamp(us: i64) -> Timestamp {
    Timestamp::from_microsecond(us).unwrap_or(if us < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests;
