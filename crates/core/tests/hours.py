"""Business hours a second time, by the plainest means: every five minutes of a year is looked at by itself.

Reads {"zone", "year", "hours"} from standard input and writes the moments (seconds since 1970) at which the business opens or closes,
after whether it is open at the year's first moment. It shares no line and no time zone database with what it is compared with.
"""

import datetime
import json
import sys
import zoneinfo

STEP = 300
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


def minutes(text):
    hour, minute = text.split(":")
    return int(hour) * 60 + int(minute)


def intervals(hours):
    read = []
    for text in hours:
        begin, end = map(minutes, text.split("-"))
        read.append((begin, end if end > begin else end + 1440))
    return read


def begin_on(day, hours):
    """The intervals that begin on a day."""
    for exception in hours.get("exceptions", []):
        if exception["from"] <= day.isoformat() <= exception.get("to", exception["from"]):
            return intervals(exception.get("hours", []))
    for form in (day.isoformat(), day.strftime("%m-%d")):
        for holiday in hours.get("holidays", []):
            if holiday["date"] == form:
                return intervals(holiday.get("hours", []))
    if "weekly" not in hours:
        return [(0, 1440)]
    return intervals(hours["weekly"].get(DAYS[day.weekday()], []))


def main():
    asked = json.load(sys.stdin)
    zone, hours = zoneinfo.ZoneInfo(asked["zone"]), asked["hours"]
    known = {}

    def day_of(day):
        if day not in known:
            known[day] = begin_on(day, hours)
        return known[day]

    def is_open(at):
        shown = datetime.datetime.fromtimestamp(at, zone)
        minute, today = shown.hour * 60 + shown.minute, shown.date()
        yesterday = today - datetime.timedelta(days=1)
        return any(b <= minute < e for b, e in day_of(today)) or any(
            b <= minute + 1440 < e for b, e in day_of(yesterday)
        )

    first, last = (
        int(datetime.datetime(year, 1, 1, tzinfo=datetime.timezone.utc).timestamp())
        for year in (asked["year"], asked["year"] + 1)
    )
    state = is_open(first)
    changes = []
    now = state
    for at in range(first, last, STEP):
        if is_open(at) != now:
            now = not now
            changes.append(at)
    json.dump({"open": state, "changes": changes}, sys.stdout)


main()
