"""When a cron pattern is due next, as cron-parser says it, which BullMQ for Node reads patterns with.

croniter finds the next time of the wall clock. Where the clock is put forward or back, croniter 2 is an hour off for the rest of
the day, so what a wall clock's time is in UTC is decided here.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter

_MOST_CHARS = 1024
_NAMED = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
    "@minutely": "0 * * * * *",
    "@secondly": "* * * * * *",
    "@weekdays": "0 0 0 * * 1-5",
    "@weekends": "0 0 0 * * 0,6",
}
# What a pattern of fewer than six fields begins with.
_DEFAULTS = ("0", "*", "*", "*", "*", "*")
_HOUR, _WEEKDAY = 2, 5
_PLAIN = re.compile(r"[0-9A-Za-z*?,/#-]+", re.ASCII)
_NEAR = timedelta(hours=3)


class PatternRefused(Exception):
    """The pattern or its time zone is not understood, or it is never due; the message says which."""


def next_due_ms(pattern: str, tz: str | None, after_ms: int) -> int:
    """The first time after `after_ms` (milliseconds since 1970) that fits `pattern`, read in `tz`, or else in UTC.

    A time that the clock skips is due as much later as it skips. A time that it shows twice is due the first time, and both times
    if the pattern names no hour. `H` (hashed) and `W` are refused.

    Raises:
        PatternRefused: see there.
    """
    fields = _fields(pattern)
    zone = _zone(tz)
    after = datetime.fromtimestamp(after_ms / 1000, UTC).astimezone(zone)
    offset = _offset(after)
    wall = _next_wall(pattern, fields, after.replace(tzinfo=None))
    due = wall.replace(tzinfo=timezone(offset)).astimezone(zone)
    if _offset(due) != offset:  # the clock is put forward or back in between
        put_back = _offset(due) < offset
        due = wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)
        if put_back and fields[_HOUR] in ("*", "?") and due - after < _NEAR:
            changed = _change(after, due)
            before = changed.replace(tzinfo=None) - timedelta(seconds=1)
            due = _next_wall(pattern, fields, before).replace(tzinfo=timezone(_offset(changed)))
    return round(due.timestamp() * 1000)


def _fields(pattern: str) -> list[str]:
    fields = _NAMED.get(pattern, pattern).split()
    if len(pattern) > _MOST_CHARS or not 0 < len(fields) <= len(_DEFAULTS):
        raise PatternRefused(f"a pattern has 1 to 6 fields: {pattern[:100]!r}")
    fields = [*_DEFAULTS[: len(_DEFAULTS) - len(fields)], *fields]
    for field in fields:
        if _PLAIN.fullmatch(field) is None or re.search(r"H|\dW", field):
            raise PatternRefused(f"the field {field!r} of the pattern {pattern!r} is not supported")
    # croniter knows Sunday only as 0 there, and writes the last Friday L5.
    weekday = re.sub(r"(?<![0-9#/-])7(?![0-9])", "0", fields[_WEEKDAY])
    weekday = re.sub(r"(?<![0-9])([0-6])-7(?![0-9/])", r"\1-6,0", weekday)
    fields[_WEEKDAY] = re.sub(r"(?<![0-9])([0-7])[lL]", r"L\1", weekday)
    return fields


def _next_wall(pattern: str, fields: list[str], wall: datetime) -> datetime:
    try:
        due: datetime = croniter(" ".join(fields), wall, second_at_beginning=True).get_next(datetime)
    except (ValueError, KeyError, OverflowError) as error:
        raise PatternRefused(f"the pattern {pattern!r} is not understood, or never due: {error}") from error
    return due


def _zone(name: str | None) -> tzinfo:
    try:
        return UTC if name is None else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise PatternRefused(f"the time zone {name!r} is not known") from error


def _change(low: datetime, high: datetime) -> datetime:
    """The second, to within one, at which the offset of the zone changes between these two."""
    zone, before = low.tzinfo, _offset(low)
    earlier, later = int(low.timestamp()), int(high.timestamp())
    while later - earlier > 1:
        middle = (earlier + later) // 2
        if _offset(datetime.fromtimestamp(middle, zone)) == before:
            earlier = middle
        else:
            later = middle
    return datetime.fromtimestamp(later, zone)


def _offset(moment: datetime) -> timedelta:
    return moment.utcoffset() or timedelta(0)
