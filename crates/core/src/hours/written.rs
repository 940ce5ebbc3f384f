//! Business hours as people write them, and every mistake in them named by its field.

use super::zone::WEEKDAYS;
use super::{BusinessHours, DAY, Exception, Holiday, HolidayDate, Span};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Intervals of one day.
const SPANS: usize = 12;
/// Holidays, and exceptions, of one business.
const DAYS: usize = 366;
/// Days that one exception lasts.
const EXCEPTION_DAYS: i32 = 366;
/// Characters of the name of a holiday or an exception.
const NAME_CHARS: usize = 100;

/// The JSON form.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    weekly: Option<BTreeMap<String, Vec<String>>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    holidays: Vec<WrittenHoliday>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exceptions: Vec<WrittenException>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHoliday {
    name: String,
    date: String,
    #[serde(default)]
    hours: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenException {
    name: String,
    from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(default)]
    hours: Vec<String>,
}

/// Why these are no business hours: which field, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoursError {
    /// The field: `weekly.monday[0]`; empty: the whole.
    pub field: String,
    /// What is wrong with it.
    pub wrong: String,
}

impl std::fmt::Display for HoursError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.field.is_empty() {
            true => f.write_str(&self.wrong),
            false => write!(f, "{}: {}", self.field, self.wrong),
        }
    }
}

impl std::error::Error for HoursError {}

fn wrong<T>(field: impl Into<String>, wrong: impl Into<String>) -> Result<T, HoursError> {
    Err(HoursError { field: field.into(), wrong: wrong.into() })
}

impl TryFrom<Written> for BusinessHours {
    type Error = HoursError;

    fn try_from(written: Written) -> Result<Self, HoursError> {
        for (field, count) in [("holidays", written.holidays.len()), ("exceptions", written.exceptions.len())]
        {
            if count > DAYS {
                return wrong(field, format!("at most {DAYS}"));
            }
        }
        let mut hours =
            BusinessHours { weekly: written.weekly.map(weekly).transpose()?, ..BusinessHours::default() };
        for (index, holiday) in written.holidays.into_iter().enumerate() {
            let field = format!("holidays[{index}]");
            let holiday = self::holiday(&field, holiday)?;
            if let Some(same) = hours.holidays.iter().position(|other| other.on == holiday.on) {
                return wrong(
                    format!("{field}.date"),
                    format!("this is the date of holidays[{same}] already"),
                );
            }
            hours.holidays.push(holiday);
        }
        for (index, exception) in written.exceptions.into_iter().enumerate() {
            let field = format!("exceptions[{index}]");
            let exception = self::exception(&field, exception)?;
            let overlaps = |other: &Exception| other.from <= exception.to && exception.from <= other.to;
            if let Some(other) = hours.exceptions.iter().position(overlaps) {
                let day = exception.from.max(hours.exceptions[other].from);
                return wrong(field, format!("{day} belongs to exceptions[{other}] already"));
            }
            hours.exceptions.push(exception);
        }
        Ok(hours)
    }
}

fn weekly(written: BTreeMap<String, Vec<String>>) -> Result<[Vec<Span>; 7], HoursError> {
    let mut weekly: [Vec<Span>; 7] = Default::default();
    for (day, hours) in written {
        let field = format!("weekly.{day}");
        let Some(place) = WEEKDAYS.iter().position(|name| *name == day) else {
            return wrong(field, format!("no such day: the days are {}", WEEKDAYS.join(", ")));
        };
        weekly[place] = spans(&field, &hours)?;
    }
    Ok(weekly)
}

fn holiday(field: &str, written: WrittenHoliday) -> Result<Holiday, HoursError> {
    let Some(on) = holiday_date(&written.date) else {
        let right = "a date is written 2027-04-05, or 12-25 for every year";
        return wrong(format!("{field}.date"), format!("`{}` is no date: {right}", written.date));
    };
    Ok(Holiday {
        name: name(field, written.name)?,
        on,
        hours: spans(&format!("{field}.hours"), &written.hours)?,
    })
}

fn exception(field: &str, written: WrittenException) -> Result<Exception, HoursError> {
    let day = |name: &str, text: &str| match date(text) {
        Some(date) => Ok(date),
        None => {
            wrong(format!("{field}.{name}"), format!("`{text}` is no date: a date is written 2027-04-05"))
        }
    };
    let from = day("from", &written.from)?;
    let to = written.to.map_or(Ok(from), |to| day("to", &to))?;
    let days = from.until(to).map_or(i32::MAX, |span| span.get_days());
    if days < 0 {
        return wrong(format!("{field}.to"), format!("{to} is before {from}, where it begins"));
    }
    if days >= EXCEPTION_DAYS {
        return wrong(format!("{field}.to"), format!("it lasts {EXCEPTION_DAYS} days at most"));
    }
    let hours = spans(&format!("{field}.hours"), &written.hours)?;
    Ok(Exception { name: name(field, written.name)?, from, to, hours })
}

fn name(field: &str, name: String) -> Result<String, HoursError> {
    let name = name.trim().to_owned();
    match (1..=NAME_CHARS).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        true => Ok(name),
        false => wrong(format!("{field}.name"), format!("1 to {NAME_CHARS} characters in one line")),
    }
}

/// The intervals of a day, in order.
fn spans(field: &str, written: &[String]) -> Result<Vec<Span>, HoursError> {
    if written.len() > SPANS {
        return wrong(field, format!("at most {SPANS} intervals a day"));
    }
    let mut spans = Vec::with_capacity(written.len());
    for (index, text) in written.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let span = match span(text) {
            Ok(span) => span,
            Err(why) => return wrong(field, format!("`{text}` is no interval: {why}")),
        };
        let overlaps = |other: &&Span| other.from < span.to && span.from < other.to;
        if let Some(other) = spans.iter().find(overlaps) {
            return wrong(field, format!("{text} overlaps {}", other.written()));
        }
        spans.push(span);
    }
    spans.sort_unstable();
    Ok(spans)
}

fn span(text: &str) -> Result<Span, &'static str> {
    const FORM: &str =
        "it is written 09:00-17:30; one that ends at or before its beginning ends on the next day";
    let (from, to) = text.split_once('-').ok_or(FORM)?;
    let (from, to) = (minute(from.trim()).ok_or(FORM)?, minute(to.trim()).ok_or(FORM)?);
    if from == DAY {
        return Err("it cannot begin at 24:00: write 00:00 on the next day");
    }
    if from == to {
        return Err("it begins when it ends: a whole day is 00:00-24:00");
    }
    Ok(Span { from, to: if to < from { to + DAY } else { to } })
}

/// Minutes from midnight of `09:30`, up to `24:00`.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let (hour, minute): (u16, u16) = (digits(hour, 2)?, digits(minute, 2)?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= DAY).then_some(minutes)
}

fn holiday_date(text: &str) -> Option<HolidayDate> {
    /// February has its 29th in it.
    const LEAP_YEAR: i16 = 2000;
    match text.split_once('-') {
        Some((month, day)) if month.len() == 2 => {
            let (month, day) = (digits(month, 2)?, digits(day, 2)?);
            Date::new(LEAP_YEAR, month, day).ok()?;
            Some(HolidayDate::Yearly { month, day })
        }
        _ => date(text).map(HolidayDate::Once),
    }
}

fn date(text: &str) -> Option<Date> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    Date::new(digits(year, 4)?, digits(month, 2)?, digits(day, 2)?).ok()
}

fn digits<T: std::str::FromStr>(text: &str, count: usize) -> Option<T> {
    (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

impl Span {
    fn written(self) -> String {
        let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        let to = if self.to > DAY { self.to - DAY } else { self.to };
        format!("{}-{}", clock(self.from), clock(to))
    }
}

impl From<BusinessHours> for Written {
    fn from(hours: BusinessHours) -> Self {
        let all = |spans: &[Span]| spans.iter().map(|span| span.written()).collect::<Vec<_>>();
        let days = hours.weekly.map(|weekly| {
            let days = WEEKDAYS.iter().zip(&weekly).filter(|(_, spans)| !spans.is_empty());
            days.map(|(day, spans)| ((*day).to_owned(), all(spans))).collect()
        });
        let holidays = hours.holidays.into_iter().map(|holiday| WrittenHoliday {
            name: holiday.name,
            date: match holiday.on {
                HolidayDate::Yearly { month, day } => format!("{month:02}-{day:02}"),
                HolidayDate::Once(date) => date.to_string(),
            },
            hours: all(&holiday.hours),
        });
        let exceptions = hours.exceptions.into_iter().map(|exception| WrittenException {
            name: exception.name,
            from: exception.from.to_string(),
            to: (exception.to != exception.from).then(|| exception.to.to_string()),
            hours: all(&exception.hours),
        });
        Written { weekly: days, holidays: holidays.collect(), exceptions: exceptions.collect() }
    }
}
