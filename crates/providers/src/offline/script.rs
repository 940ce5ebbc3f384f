//! What the scripted receptionist knows of a business: its name, its hours, its answers. It does not know conversations.
//!
//! A script is TOML between "```toml" and "```" in an agent's instructions, so that a language model can read it too.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A business as the receptionist knows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The name, as it is spoken.
    pub business: String,
    /// When it is open; without it, questions about hours end in an offer to take a message.
    pub hours: Option<Hours>,
    /// Questions and their answers.
    #[serde(default)]
    pub questions: Vec<Question>,
    /// Further sentences that a caller may dictate as a message, for a recogniser that needs to expect them.
    #[serde(default)]
    pub messages: Vec<String>,
}

/// One question that callers ask.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What it is about, as in "you can ask about …".
    pub about: String,
    /// Some ways to ask it.
    pub ask: Vec<String>,
    /// What is said then.
    pub answer: String,
}

/// Why a text is no script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the receptionist's script cannot be read: {0}")]
pub struct NotAScript(String);

impl Script {
    /// Reads TOML as in `receptionist.toml`.
    ///
    /// # Errors
    /// [`NotAScript`] with the line and what is wrong there.
    pub fn parse(toml: &str) -> Result<Self, NotAScript> {
        toml::from_str(toml).map_err(|error| NotAScript(error.to_string().trim().replace('\n', " ")))
    }

    /// The script in an agent's instructions, if one stands there.
    ///
    /// # Errors
    /// [`NotAScript`] when there is one that cannot be read.
    pub fn within(instructions: &str) -> Result<Option<Self>, NotAScript> {
        let Some((_, rest)) = instructions.split_once("```toml") else { return Ok(None) };
        let toml = rest.split_once("```").map_or(rest, |(toml, _)| toml);
        Script::parse(toml).map(Some)
    }
}

/// A day of the week, Monday first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(usize);

const DAY_NAMES: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Day {
    /// Every day, Monday first.
    pub fn all() -> impl DoubleEndedIterator<Item = Day> {
        (0..DAY_NAMES.len()).map(Day)
    }

    /// The day of a name such as `monday`, `Mondays` or `mon`.
    pub fn named(name: &str) -> Option<Day> {
        let name = name.to_lowercase();
        let name = name.strip_suffix('s').filter(|rest| rest.ends_with("day")).unwrap_or(&name);
        let short =
            |full: &str| name.len() >= 3 && full.starts_with(name) && (name.len() <= 4 || full == name);
        Day::all().find(|day| short(&day.name().to_lowercase()))
    }

    /// The day of a date in the Gregorian calendar, `None` for what is no date.
    pub fn of_date(year: u32, month: u32, day: u32) -> Option<Day> {
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || !(1..=9_999).contains(&year) {
            return None;
        }
        // Sakamoto's method: months counted from March, so that the leap day comes last; 0 is Sunday.
        const SHIFTS: [u32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = if month < 3 { year - 1 } else { year };
        let from_sunday = year + year / 4 - year / 100 + year / 400 + SHIFTS[month as usize - 1] + day;
        Some(Day((from_sunday as usize + 6) % 7))
    }

    /// The English name.
    pub fn name(self) -> &'static str {
        DAY_NAMES[self.0]
    }

    /// The day after.
    pub fn next(self) -> Day {
        Day((self.0 + 1) % 7)
    }

    /// Saturday and Sunday.
    pub fn is_weekend(self) -> bool {
        self.0 >= 5
    }
}

/// Opening hours of a week.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Hours([Vec<Span>; 7]);

/// From opening to closing, in minutes after midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When the doors open.
    pub opens_min: u32,
    /// When they close.
    pub closes_min: u32,
}

impl TryFrom<BTreeMap<String, String>> for Hours {
    type Error = String;

    fn try_from(days: BTreeMap<String, String>) -> Result<Self, String> {
        let mut hours = Hours::default();
        for (name, text) in days {
            let day = Day::named(&name).ok_or_else(|| format!("`{name}` is no day of the week"))?;
            if text.trim() != "closed" {
                let wrong = || {
                    format!(
                        "{name} = `{text}`: hours are written as \"9:00-12:00, 13:30-18:00\" or \"closed\""
                    )
                };
                hours.0[day.0] = text.split(',').map(span).collect::<Option<_>>().ok_or_else(wrong)?;
            }
        }
        Ok(hours)
    }
}

fn span(text: &str) -> Option<Span> {
    let (opens, closes) = text.split_once('-')?;
    let span = Span { opens_min: minutes(opens)?, closes_min: minutes(closes)? };
    (span.opens_min < span.closes_min).then_some(span)
}

/// A clock time in minutes: `9:30`, `09:30` or `9`.
pub fn minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.trim().split_once(':').unwrap_or((text.trim(), "0"));
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let time = hours * 60 + minutes;
    (hours <= 24 && minutes < 60 && time <= 24 * 60).then_some(time)
}

/// A clock time as it is said: `9 am`, `5:30 pm`, `noon`.
pub fn spoken_time(minutes: u32) -> String {
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    match (hour, minute) {
        (0, 0) => return "midnight".into(),
        (12, 0) => return "noon".into(),
        _ => {}
    }
    let half = if hour < 12 { "am" } else { "pm" };
    let hour = if hour % 12 == 0 { 12 } else { hour % 12 };
    if minute == 0 { format!("{hour} {half}") } else { format!("{hour}:{minute:02} {half}") }
}

impl Hours {
    /// The open spans of a day; none when it is closed.
    pub fn on(&self, day: Day) -> &[Span] {
        &self.0[day.0]
    }

    /// `from 9 am to noon and from 1:30 pm to 6 pm`; `None` when it is closed.
    pub fn spoken(&self, day: Day) -> Option<String> {
        let spans = self.on(day).iter();
        let spans: Vec<_> = spans
            .map(|s| format!("from {} to {}", spoken_time(s.opens_min), spoken_time(s.closes_min)))
            .collect();
        (!spans.is_empty()).then(|| listed(&spans))
    }

    /// The whole week in one or two sentences, days with equal hours together.
    pub fn spoken_week(&self) -> String {
        let mut groups: Vec<(Day, Day)> = Vec::new();
        for day in Day::all() {
            match groups.last_mut() {
                Some((_, last)) if self.on(*last) == self.on(day) => *last = day,
                _ => groups.push((day, day)),
            }
        }
        let name = |(first, last): &(Day, Day)| match last.0 - first.0 {
            0 => first.name().to_owned(),
            1 => format!("{} and {}", first.name(), last.name()),
            _ => format!("{} to {}", first.name(), last.name()),
        };
        let open: Vec<_> =
            groups.iter().filter_map(|g| Some(format!("{} {}", name(g), self.spoken(g.0)?))).collect();
        let closed: Vec<_> = groups.iter().filter(|g| self.on(g.0).is_empty()).map(name).collect();
        let mut text = String::new();
        if !open.is_empty() {
            let _ = write!(text, "We are open {}.", listed(&open));
        }
        if !closed.is_empty() {
            let _ = write!(text, " We are closed on {}.", listed(&closed));
        }
        text.trim().to_owned()
    }
}

/// `a`, `a and b`, `a, b, and c`.
pub fn listed<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match items.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [one, two] => format!("{one} and {two}"),
        [most @ .., last] => format!("{}, and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_is_said_in_groups() {
        let script = Script::parse(super::super::RECEPTIONIST).unwrap();
        assert_eq!(
            script.hours.unwrap().spoken_week(),
            "We are open Tuesday and Wednesday from 9 am to 6 pm, Thursday from 9 am to 8 pm, Friday from 9 am to 6 pm, \
             and Saturday from 10 am to 4 pm. We are closed on Monday and Sunday."
        );
    }

    #[test]
    fn what_is_wrong_with_a_script_is_said() {
        let wrong = |toml: &str| Script::parse(toml).unwrap_err().to_string();
        assert!(wrong("business = 'A'\n[hours]\nfunday = '9-5'").contains("`funday` is no day of the week"));
        assert!(wrong("business = 'A'\n[hours]\nmonday = '17:00-9:00'").contains("hours are written as"));
        assert!(wrong("business = 'A'\nopen = true").contains("unknown field `open`"));
        assert_eq!(Script::within("Be brief."), Ok(None));
        assert_eq!(
            Script::within("Be brief.\n```toml\nbusiness = 'A'\n```\nSmile.").unwrap().unwrap().business,
            "A"
        );
    }

    #[test]
    fn days_are_found_by_name_and_date() {
        for (name, day) in [("monday", 0), ("Sundays", 6), ("sat", 5), ("thurs", 3), ("wed", 2)] {
            assert_eq!(Day::named(name), (name != "thurs").then_some(Day(day)), "{name}");
        }
        assert_eq!(Day::named("money"), None);
        for ((y, m, d), name) in
            [((2026, 11, 21), "Saturday"), ((2024, 2, 29), "Thursday"), ((2000, 1, 1), "Saturday")]
        {
            assert_eq!(Day::of_date(y, m, d).unwrap().name(), name);
        }
        assert_eq!(Day::of_date(2026, 13, 1), None);
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        let said = |text: &str| spoken_time(minutes(text).unwrap());
        assert_eq!(
            ["9:00", "0:00", "12", "17:30", "12:05"].map(said),
            ["9 am", "midnight", "noon", "5:30 pm", "12:05 pm"]
        );
        assert!(["", "25:00", "9:60", "-1", "24:01"].iter().all(|text| minutes(text).is_none()));
    }
}
