//! A time zone of the IANA database that is compiled in: what its clocks show at a moment, and at which moments they show something.
//! The machine's own database is not asked, so that every server says the same.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};

/// A time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// There is no time zone of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such time zone: write an IANA name such as Europe/Berlin")]
pub struct NoSuchZone;

/// The days as they are written, from Monday.
pub(super) const WEEKDAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
/// From how many days on a weekday alone would be misunderstood.
const WEEK: i32 = 7;

impl Zone {
    /// The zone with an IANA name.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(name: &str) -> Result<Zone, NoSuchZone> {
        TimeZoneDatabase::bundled().get(name).map(Zone).map_err(|_| NoSuchZone)
    }

    /// Coordinated universal time.
    pub fn utc() -> Zone {
        Zone(TimeZone::UTC)
    }

    /// What the clock shows at a moment.
    pub(super) fn wall(&self, moment: Timestamp) -> DateTime {
        self.0.to_datetime(moment)
    }

    /// Every moment at which the clock shows this: one, two where it goes back over it, and where it skips it the moment at which it
    /// does.
    pub(super) fn moments(&self, shown: DateTime, mut found: impl FnMut(Timestamp)) {
        let mut at = |offset: Offset| _ = offset.to_timestamp(shown).map(&mut found);
        match self.0.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } => at(offset),
            // The moment of the skip is found among those at which the clock is put.
            AmbiguousOffset::Gap { .. } => {}
            AmbiguousOffset::Fold { before, after } => {
                at(before);
                at(after);
            }
        }
    }

    /// The first moment at which the clock shows this or, where it skips it, something later.
    pub(super) fn first_moment(&self, shown: DateTime) -> Option<Timestamp> {
        self.0.to_ambiguous_timestamp(shown).compatible().ok()
    }

    /// The moments after one at which the clock is put forward or back.
    pub(super) fn puts_after(&self, moment: Timestamp) -> impl Iterator<Item = Timestamp> {
        self.0.following(moment).map(|transition| transition.timestamp())
    }

    /// A moment as one says it at another: `at 17:00`, `on Friday at 9:00`, `on Friday, 15 January 2027, at 9:00`.
    pub(super) fn when(&self, now: Timestamp, moment: Timestamp) -> String {
        let (today, shown) = (self.wall(now).date(), self.wall(moment));
        let days = today.until(shown.date()).map_or(WEEK, |span| span.get_days());
        let form = match days {
            0 => "at %-H:%M",
            1..WEEK => "on %A at %-H:%M",
            _ => "on %A, %-d %B %Y, at %-H:%M",
        };
        shown.strftime(form).to_string()
    }
}
