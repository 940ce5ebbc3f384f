use super::*;
use serde_json::json;

fn zone(name: &str) -> Zone {
    Zone::find(name).unwrap()
}

fn us(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_microsecond()
}

fn hours(value: Value) -> BusinessHours {
    BusinessHours::read(&value).unwrap()
}

fn shop() -> BusinessHours {
    let day = json!(["09:00-12:30", "13:30-17:00"]);
    hours(json!({
        "weekly": { "monday": day, "tuesday": day, "wednesday": day, "thursday": day, "friday": ["09:00-15:00"] },
        "holidays": [{ "name": "New Year's Day", "date": "01-01" }, { "name": "Christmas Eve", "date": "12-24", "hours": ["09:00-12:00"] }],
        "exceptions": [{ "name": "stocktaking", "from": "2027-02-03", "to": "2027-02-05", "hours": ["15:00-17:00"] }],
    }))
}

#[test]
fn the_business_says_how_it_stands_and_when_that_changes() {
    let berlin = zone("Europe/Berlin");
    for (now, expected) in [
        ("2027-01-14T09:00:00Z", "The business is open now, until 12:30."),
        ("2027-01-14T12:00:00Z", "The business is closed now; it opens at 13:30."),
        ("2027-01-15T16:00:00Z", "The business is closed now; it opens on Monday at 9:00."),
        (
            "2027-01-01T10:00:00Z",
            "The business is closed now because of New Year's Day; it opens on Monday at 9:00.",
        ),
        ("2026-12-24T10:00:00Z", "The business is open now because of Christmas Eve, until 12:00."),
        ("2027-02-03T09:00:00Z", "The business is closed now because of stocktaking; it opens at 15:00."),
    ] {
        assert_eq!(shop().at(&berlin, us(now)).sentence(&berlin, us(now)), expected, "{now}");
    }
    let always = BusinessHours::default().at(&berlin, us("2027-01-14T09:00:00Z"));
    assert_eq!(always, Hours { open: true, why: Why::Always, changes_at_us: None, opens_at_us: None });
    let never = hours(json!({ "weekly": {} }));
    assert!(!never.at(&berlin, 0).open && never.at(&berlin, 0).opens_at_us.is_none());
}

#[test]
fn a_night_belongs_to_the_day_on_which_it_begins() {
    let bar = hours(json!({
        "weekly": { "friday": ["20:00-03:00"], "saturday": ["20:00-24:00"] },
        "holidays": [{ "name": "closed", "date": "2027-01-16" }],
    }));
    let utc = Zone::utc();
    for (now, open) in [
        ("2027-01-15T19:59:59Z", false),
        ("2027-01-15T20:00:00Z", true),
        ("2027-01-16T02:59:59Z", true),
        ("2027-01-16T03:00:00Z", false),
        ("2027-01-16T21:00:00Z", false),
        ("2027-01-23T23:59:59Z", true),
        ("2027-01-24T00:00:00Z", false),
    ] {
        assert_eq!(bar.at(&utc, us(now)).open, open, "{now}");
    }
}

#[test]
fn every_mistake_is_named_by_its_field() {
    let error = |value: Value| BusinessHours::read(&value).unwrap_err().to_string();
    assert!(error(json!({ "weekly": { "moonday": [] } })).starts_with("weekly.moonday: no such day"));
    assert!(
        error(json!({ "weekly": { "monday": ["9-17"] } }))
            .starts_with("weekly.monday[0]: `9-17` is no interval")
    );
    assert!(error(json!({ "weekly": { "monday": ["09:00-09:00"] } })).contains("a whole day is 00:00-24:00"));
    assert_eq!(
        error(json!({ "weekly": { "monday": ["09:00-12:00", "11:00-13:00"] } })),
        "weekly.monday[1]: 11:00-13:00 overlaps 09:00-12:00"
    );
    assert!(
        error(json!({ "holidays": [{ "name": "x", "date": "02-30" }] }))
            .starts_with("holidays[0].date: `02-30` is no date")
    );
    assert!(
        error(json!({ "exceptions": [{ "name": "x", "from": "2027-02-03", "to": "2027-02-01" }] }))
            .starts_with("exceptions[0].to: 2027-02-01 is before 2027-02-03")
    );
    assert!(error(json!({ "weeky": {} })).contains("unknown field `weeky`"));
}

#[test]
fn hours_are_written_as_they_were_read() {
    let written = serde_json::to_value(shop()).unwrap();
    assert_eq!(hours(written.clone()), shop());
    assert_eq!(serde_json::to_value(BusinessHours::default()).unwrap(), json!({}));
}
