//! Questions about opening hours, and their answers. It knows the words for days and times; when it is now, the agent's
//! instructions may say.

use super::script::{Day, Hours, minutes, spoken_time};
use super::words::{content, said_any};

/// What the instructions say about the present: "Today is Saturday, 2026-11-21. The time is 14:05."
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// The day of the week.
    pub today: Option<Day>,
    /// Minutes after midnight.
    pub now_min: Option<u32>,
}

impl Clock {
    /// Finds the day and the time in an agent's instructions.
    pub fn within(instructions: &str) -> Self {
        let text = instructions.to_lowercase();
        let after = |lead: &str| text.split_once(lead).map(|(_, rest)| rest.lines().next().unwrap_or(rest));
        let today = after("today is").and_then(|rest| {
            let mut words = rest.split(|c: char| c.is_whitespace() || c == ',' || c == '.').take(5);
            words.find_map(|word| Day::named(word).or_else(|| date(word)))
        });
        let now_min = after("time is")
            .and_then(|rest| minutes(rest.split_whitespace().next()?.trim_end_matches(['.', ','])));
        Clock { today, now_min }
    }
}

fn date(text: &str) -> Option<Day> {
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<u32>().ok());
    Day::of_date(parts.next()??, parts.next()??, parts.next()??)
}

/// Whether words ask for the hours; `follows` tells that the last question did, so that a day alone goes on with it.
pub fn is_asked(words: &[String], follows: bool) -> bool {
    let heard = content(words);
    let any = |wanted: &[&str]| heard.iter().any(|word| wanted.contains(&word.as_str()));
    any(&["hour", "open", "close"])
        || said_any(words, &["how late", "what time until", "business day"])
        || follows && !asked_days(words, Clock::default()).is_empty()
}

/// The answer to a question about the hours.
pub fn tell(hours: &Hours, clock: Clock, words: &[String]) -> String {
    let days = asked_days(words, clock);
    let Some((&first, more)) = days.split_first() else {
        // "Today" without a date, or no day at all: the week answers both.
        return match wanted(words) {
            Wanted::Time(time) => at_time(hours, clock, time),
            _ => hours.spoken_week(),
        };
    };
    let name = |day: Day| day_name(day, words, clock);
    match wanted(words) {
        Wanted::Time(time) if more.is_empty() => on_day_at(hours, first, &name(first), time),
        Wanted::Now if clock.now_min.is_some() => open_now(hours, first, clock.now_min.unwrap_or_default()),
        wanted => {
            let told: Vec<_> =
                days.iter().map(|day| on_day(hours, *day, &name(*day), wanted, more.is_empty())).collect();
            told.join(" ")
        }
    }
}

/// What is asked about a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Whether it is open, and from when to when.
    Whether,
    Opening,
    Closing,
    /// Whether it is open at this minute of the day.
    Time(u32),
    Now,
}

fn wanted(words: &[String]) -> Wanted {
    let heard = content(words);
    let has = |word: &str| heard.iter().any(|heard| heard == word);
    let when = said_any(words, &["when", "what time", "how late", "how long", "until when", "how early"]);
    if let Some(time) = asked_time(words) {
        return Wanted::Time(time);
    }
    match (when, has("close") || said_any(words, &["how late", "how long", "until when"]), has("open")) {
        (true, true, _) => Wanted::Closing,
        (true, false, true) => Wanted::Opening,
        _ if said_any(words, &["now", "still", "right away", "currently"]) => Wanted::Now,
        _ => Wanted::Whether,
    }
}

fn asked_days(words: &[String], clock: Clock) -> Vec<Day> {
    let mut days: Vec<Day> =
        words.iter().filter_map(|word| Day::named(word).filter(|_| word != "sun" && word != "sat")).collect();
    let today = clock.today;
    if said_any(words, &["tomorrow"]) {
        days.extend(today.map(Day::next));
    } else if said_any(
        words,
        &["today", "tonight", "now", "this evening", "this afternoon", "still", "currently"],
    ) {
        days.extend(today);
    }
    if said_any(words, &["weekend"]) {
        days.extend(Day::all().filter(|day| day.is_weekend()));
    }
    days.dedup();
    days
}

fn day_name(day: Day, words: &[String], clock: Clock) -> String {
    let relative = |word: &str, meant: Option<Day>| {
        (said_any(words, &[word]) && meant == Some(day)).then(|| word.to_owned())
    };
    relative("tomorrow", clock.today.map(Day::next))
        .or_else(|| clock.today.filter(|today| *today == day).map(|_| "today".to_owned()))
        .unwrap_or_else(|| format!("on {}", day.name()))
}

fn on_day(hours: &Hours, day: Day, name: &str, wanted: Wanted, alone: bool) -> String {
    let spans = hours.on(day);
    let (Some(first), Some(last), Some(spoken)) = (spans.first(), spans.last(), hours.spoken(day)) else {
        let again = if alone { opens_again(hours, day) } else { String::new() };
        return capital(&format!("{name} we are closed.{again}"));
    };
    capital(&match wanted {
        Wanted::Opening => format!("{name} we open at {}.", spoken_time(first.opens_min)),
        Wanted::Closing => format!("{name} we close at {}.", spoken_time(last.closes_min)),
        _ => format!("{name} we are open {spoken}."),
    })
}

fn on_day_at(hours: &Hours, day: Day, name: &str, time: u32) -> String {
    let open = hours.on(day).iter().any(|span| (span.opens_min..span.closes_min).contains(&time));
    let told = on_day(hours, day, name, Wanted::Whether, true);
    format!("{}, {}", if open { "Yes" } else { "No" }, uncapital(&told))
}

fn open_now(hours: &Hours, today: Day, now: u32) -> String {
    let spans = hours.on(today);
    if let Some(span) = spans.iter().find(|span| (span.opens_min..span.closes_min).contains(&now)) {
        return format!("Yes, we are open until {}.", spoken_time(span.closes_min));
    }
    match spans.iter().find(|span| span.opens_min > now) {
        Some(span) => format!("Not yet, we open at {}.", spoken_time(span.opens_min)),
        None => format!("No, we are closed now.{}", opens_again(hours, today)),
    }
}

/// A time without a day: the days on which that is within the hours.
fn at_time(hours: &Hours, clock: Clock, time: u32) -> String {
    if let Some(today) = clock.today {
        return on_day_at(hours, today, "today", time);
    }
    let open: Vec<_> = Day::all()
        .filter(|day| hours.on(*day).iter().any(|span| (span.opens_min..span.closes_min).contains(&time)))
        .map(Day::name)
        .collect();
    match open.is_empty() {
        true => format!("No, we are never open at {}. {}", spoken_time(time), hours.spoken_week()),
        false => format!("At {} we are open on {}.", spoken_time(time), super::script::listed(&open)),
    }
}

fn opens_again(hours: &Hours, closed: Day) -> String {
    let mut day = closed;
    for _ in 0..7 {
        day = day.next();
        if let Some(span) = hours.on(day).first() {
            return format!(" We open again on {} at {}.", day.name(), spoken_time(span.opens_min));
        }
    }
    String::new()
}

/// A clock time in a question: "at seven", "until 5 pm", "after half past four".
fn asked_time(words: &[String]) -> Option<u32> {
    const LEADS: [&str; 7] = ["at", "until", "till", "after", "before", "by", "past"];
    const HOURS: [&str; 12] =
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    if said_any(words, &["at noon", "at midday", "at lunch"]) {
        return Some(12 * 60);
    }
    let number = |word: &String| {
        let spoken = HOURS.iter().position(|hour| hour == word).map(|index| index as u32 + 1);
        spoken.or_else(|| {
            word.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse().ok().filter(|hour| *hour <= 24)
        })
    };
    let at =
        words.windows(2).position(|pair| LEADS.contains(&pair[0].as_str()) && number(&pair[1]).is_some())?;
    let hour = number(&words[at + 1])?;
    let rest = words[at + 1..].join(" ");
    let morning = rest.contains("am") || rest.contains("a m") || rest.contains("morning");
    let evening =
        rest.contains("pm") || rest.contains("p m") || rest.contains("evening") || rest.contains("night");
    let half = rest.contains("thirty")
        || rest.contains(" 30")
        || words[..at + 1].ends_with(&["half".into(), "past".into()]);
    // Nobody asks a shop about six in the morning without saying so.
    let hour = match hour {
        12 if morning => 0,
        1..=11 if evening || !morning && hour < 8 => hour + 12,
        hour => hour,
    };
    Some(hour % 24 * 60 + if half { 30 } else { 0 })
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn uncapital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offline::script::Script;
    use crate::offline::words::words;

    fn told(question: &str, now: &str) -> String {
        let hours = Script::parse(crate::offline::RECEPTIONIST).unwrap().hours.unwrap();
        let words = words(question);
        assert!(is_asked(&words, true), "{question}");
        tell(&hours, Clock::within(now), &words)
    }

    #[test]
    fn days_are_answered_by_name() {
        let told = |question| told(question, "");
        assert_eq!(
            told("are you open on Sunday?"),
            "On Sunday we are closed. We open again on Tuesday at 9 am."
        );
        assert_eq!(told("What time do you close on Thursdays"), "On Thursday we close at 8 pm.");
        assert_eq!(told("when do you open saturday"), "On Saturday we open at 10 am.");
        assert_eq!(
            told("are you open at the weekend"),
            "On Saturday we are open from 10 am to 4 pm. On Sunday we are closed."
        );
        assert_eq!(told("open at 7 pm on friday?"), "No, on Friday we are open from 9 am to 6 pm.");
        assert_eq!(
            told("are you still open at half past seven on thursday"),
            "Yes, on Thursday we are open from 9 am to 8 pm."
        );
        assert_eq!(told("and on wednesday"), "On Wednesday we are open from 9 am to 6 pm.");
        assert!(told("what time do you close today").starts_with("We are open Tuesday and Wednesday"));
    }

    #[test]
    fn today_is_what_the_instructions_say() {
        let told = |question| told(question, "Be brief. Today is Saturday, 2026-11-21. The time is 14:05.");
        assert_eq!(told("what time do you close today"), "Today we close at 4 pm.");
        assert_eq!(
            told("are you open tomorrow"),
            "Tomorrow we are closed. We open again on Tuesday at 9 am."
        );
        assert_eq!(told("are you open right now"), "Yes, we are open until 4 pm.");
        assert_eq!(told("are you open at five"), "No, today we are open from 10 am to 4 pm.");
        assert_eq!(Clock::within("today is 2026-11-22").today.unwrap().name(), "Sunday");
        assert_eq!(Clock::within("Today is a good day."), Clock::default());
    }
}
