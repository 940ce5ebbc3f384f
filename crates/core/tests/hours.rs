//! Business hours against a second implementation, which looks at every five minutes of a year by itself and reads Python's own time
//! zone database: overnight hours, holidays and exceptions across every change of the clock.

use offhook_core::hours::{BusinessHours, Zone};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

const YEARS: [i32; 2] = [2026, 2027];
/// Clocks that are put twice a year, at 2:00, at midnight, and by half an hour; one that never is; both hemispheres.
const ZONES: [&str; 5] =
    ["Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Asia/Kolkata"];

fn businesses() -> Vec<Value> {
    let day = json!(["09:00-12:30", "13:30-17:00"]);
    vec![
        json!({
            "weekly": { "monday": day, "tuesday": day, "wednesday": day, "thursday": day, "friday": ["09:00-15:00"] },
            "holidays": [
                { "name": "New Year", "date": "01-01" },
                { "name": "Christmas Eve", "date": "12-24", "hours": ["09:00-12:00"] },
                { "name": "once", "date": "2027-05-17" },
            ],
            "exceptions": [{ "name": "stocktaking", "from": "2027-02-03", "to": "2027-02-05", "hours": ["15:00-17:00"] }],
        }),
        // A bar: past midnight, also in the nights in which the clock is put.
        json!({
            "weekly": { "friday": ["20:00-03:00"], "saturday": ["19:30-02:15", "02:30-02:45"], "sunday": ["00:15-01:45", "23:00-24:00"] },
            "holidays": [{ "name": "New Year's Eve", "date": "12-31", "hours": ["18:00-06:00"] }],
        }),
        // Around the clock, but for a night.
        json!({ "exceptions": [{ "name": "works", "from": "2027-03-28", "hours": ["00:00-02:00", "03:30-24:00"] }] }),
        // What the clock skips or shows twice.
        json!({ "weekly": { "sunday": ["01:15-01:30", "02:00-03:00", "23:45-00:15"], "saturday": ["23:30-00:30"] } }),
    ]
}

#[test]
fn hours_are_what_a_second_implementation_says() {
    let mut compared = 0;
    for hours in businesses() {
        for zone in ZONES {
            for year in YEARS {
                let (open, changes) = second(&json!({ "zone": zone, "year": year, "hours": hours }));
                let found = ours(&hours, zone, year);
                assert_eq!(found, (open, changes.clone()), "{zone} {year} {hours}");
                compared += changes.len();
            }
        }
    }
    assert!(compared > 5_000, "{compared} changes are too few to tell anything");
}

/// Whether the business is open as the year begins, and every change within it, s since 1970 UTC.
fn ours(hours: &Value, zone: &str, year: i32) -> (bool, Vec<i64>) {
    let (hours, zone) = (BusinessHours::read(hours).unwrap(), Zone::find(zone).unwrap());
    let [first, last] =
        [year, year + 1].map(|year| format!("{year}-01-01T00:00:00Z").parse::<jiff::Timestamp>().unwrap());
    let (mut now, mut changes) = (first.as_microsecond(), Vec::new());
    let mut open = hours.is_open(&zone, now);
    let at_first = open;
    while let Some(at) = hours.at(&zone, now).changes_at_us.filter(|at| *at < last.as_microsecond()) {
        open = !open;
        assert_eq!(hours.is_open(&zone, at), open, "nothing changes at {at}");
        changes.push(at / 1_000_000);
        now = at;
    }
    (at_first, changes)
}

fn second(asked: &Value) -> (bool, Vec<i64>) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hours.py");
    let mut python = Command::new("python3");
    let mut python = python.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let changes = told["changes"].as_array().unwrap().iter().map(|at| at.as_i64().unwrap()).collect();
    (told["open"].as_bool().unwrap(), changes)
}
