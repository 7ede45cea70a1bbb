"""English schedules against the answers of App Engine's own code, and the rules that its answers do not reach."""

import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.core.cron_text import DaysText, IntervalText, ScheduleTextError, parse_text
from hookware.core.schedule import Days, Grid, Interval, Schedule, parse_schedule

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "cron_vectors.json").read_text())
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
CASES = [
    (case["schedule"], case["timezone"], key.removeprefix("from_"), case[key])
    for case in VECTORS["cases"]
    for key in case
    if key.startswith("from_")
]
KINDS = {"IntervalTimeSpecification": (Interval, Grid), "SpecificTimeSpecification": (Days,)}


def us_of(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // MICROSECOND


def texts_after(schedule: Schedule, start: str, count: int) -> list[str]:
    at_us: int | None = us_of(start)
    found = []
    for _ in range(count):
        assert at_us is not None
        at_us = schedule.next_after(at_us)
        assert at_us is not None
        found.append((EPOCH + at_us * MICROSECOND).replace(tzinfo=None).isoformat())
    return found


@pytest.mark.parametrize(("text", "zone", "start", "matches"), CASES)
def test_the_times_are_those_of_app_engine(text: str, zone: str, start: str, matches: list[str]) -> None:
    assert texts_after(parse_schedule(text, ZoneInfo(zone)), start, len(matches)) == matches


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["schedule"])
def test_the_kind_is_that_of_app_engine(case: dict[str, str]) -> None:
    schedule = parse_schedule(case["schedule"], UTC)
    assert isinstance(schedule, KINDS[case["kind"]])
    assert schedule.counts_from_end is isinstance(schedule, Interval)


@pytest.mark.parametrize("case", VECTORS["dst"], ids=lambda case: f"{case['schedule']} {case['start_utc']}")
def test_around_daylight_saving_the_times_are_those_of_app_engine(case: dict[str, Any]) -> None:
    schedule = parse_schedule(case["schedule"], ZoneInfo(case["timezone"]))
    assert texts_after(schedule, case["start_utc"], len(case["matches_utc"])) == case["matches_utc"]


@pytest.mark.parametrize("case", VECTORS["errors"], ids=lambda case: case["schedule"])
def test_what_app_engine_refuses_is_refused(case: dict[str, object]) -> None:
    text = str(case["schedule"])
    if not case["accepted"]:
        with pytest.raises(ScheduleTextError, match="is refused"):
            parse_schedule(text, UTC)
        return
    matches = case["matches"]
    assert isinstance(matches, list)
    assert texts_after(parse_schedule(text, UTC), VECTORS["default_start_utc"], len(matches)) == matches


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "Every 5 minutes", "every 1 hour", "every 5 minutes from 9:00"),
        *("every 5 from 9:00 to 10:00", "every day 24:00", "every day 9:60", "every day 009:00"),
        *("every day 9:00 10:00", "every day of 09:00", "1 of month of quarter 09:00"),
        *("1 of 4th month of quarter 09:00", "1 of 1st month quarter 09:00", "1, of month 09:00"),
        *("1 of month,quarter 09:00", "30 of feb 00:00", "1,32 of month 00:00", "0,5 of month 0:00"),
        *("every every day 09:00", "every 1st mon 09:00", "1st,mon 09:00", "mond 09:00", "every\xa0day 09:00"),
        *("every \u0665 minutes", "every 100000 hours", "every 1441 minutes synchronized", "every day 09:00;"),
    ],
)
def test_what_is_not_in_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(ScheduleTextError):
        parse_text(text)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("everyday09:00", "every day 9:00"),
        ("every5mins", "every 5 minutes"),
        ("every 00005 minutes", "every 5 mins"),
        ("\tevery\nday\r09:00 ", "every day 09:00"),
        ("first,second,third,fourth,fifth wednesday 1:00", "1st,2nd,3rd,4th,5th wed of month 01:00"),
        ("1 of 1st,3rd month of quarter 9:00", "1 of jan,mar,apr,jun,jul,sep,oct,dec 9:00"),
        ("2nd tue of second month of quarter 9:00", "2nd tue of feb,may,aug,nov 9:00"),
        ("15 of quarter 9:00", "15 of january,april,july,october 9:00"),
        ("5th day 9:00", "5 of month 9:00"),
        ("every day 9:00", "every mon,tue,wed,thu,fri,sat,sun of month 9:00"),
        ("30,29 of feb 9:00", "29,30 of february 9:00"),
        ("31 of feb,march 9:00", "31,31 of march,february 9:00"),
        ("every 60 minutes from 1:00 to 2:00", "every 1 hours from 01:00 to 02:00"),
        ("every 1440 mins synchronized", "every 24 hours synchronized"),
    ],
)
def test_texts_that_mean_the_same(text: str, same: str) -> None:
    assert parse_text(text) == parse_text(same)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("every 5 hour", "at 'hour' (character 9): this word is not part of the language"),
        ("every day", "at its end: expected a time from 0:00 to 23:59"),
        ("every 5", "at its end: expected hours, mins or minutes"),
        ("every 0 hours", "at '0' (character 7): the interval must be greater than zero"),
        ("every 7 hours synchronized", "at '7' (character 7): a synchronized interval must divide 24 hours evenly"),
        ("31 of feb 00:00", "at '31' (character 1): no named month has 31 days"),
        ("6 of 5th month of quarter 0:00", "at '5th' (character 6): a quarter has three months"),
        ("every day 9:00 PST", "at 'PST' (character 16): this word is not part of the language"),
        ("every day 9:00 mon", "at 'mon' (character 16): expected the end"),
        ("x" * 1001, "the schedule has 1001 characters of 1000"),
    ],
)
def test_an_error_tells_the_place_the_rule_and_an_example(text: str, says: str) -> None:
    with pytest.raises(ScheduleTextError) as caught:
        parse_text(text)
    assert says in str(caught.value)
    assert "write it as in 'every 5 minutes'" in str(caught.value)
    assert len(str(caught.value)) < 400


@given(st.text("every15stmonday ofjan09:,\t", max_size=30) | st.text(max_size=30))
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    with suppress(ScheduleTextError):
        assert isinstance(parse_text(text), IntervalText | DaysText)


@given(st.integers(0, 4 * 10**15), st.integers(1, 99_999), st.sampled_from(["hours", "mins"]))
def test_a_plain_interval_is_at_a_whole_minute_and_at_most_a_minute_early(us: int, count: int, unit: str) -> None:
    next_us = parse_schedule(f"every {count} {unit}", UTC).next_after(us)
    assert next_us is not None
    assert next_us % 60_000_000 == 0
    period_us = count * (3600 if unit == "hours" else 60) * 1_000_000
    assert us + period_us - 60_000_000 < next_us <= us + period_us
    assert next_us > us


weekday_names = st.sampled_from(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])
month_names = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
ordinal_names = ["1st", "2nd", "3rd", "4th", "5th"]


def names(values: Iterable[int], of: list[str]) -> str:
    return ",".join(of[value - 1] for value in values)


@given(
    st.sets(st.integers(1, 5), min_size=1),
    st.sets(st.integers(1, 7), min_size=1),
    st.sets(st.integers(1, 12), min_size=1),
    st.dates(date(1970, 1, 1), date(2090, 1, 1)),
)
def test_no_weekday_is_left_out_or_added(ordinals: set[int], weekdays: set[int], months: set[int], day: date) -> None:
    week = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    text = f"{names(ordinals, ordinal_names)} {names(weekdays, week)} of {names(months, month_names)} 12:00"
    start_us = (datetime(day.year, day.month, day.day, tzinfo=UTC) - EPOCH) // MICROSECOND
    next_us = parse_schedule(text, UTC).next_after(start_us)
    assert next_us is not None
    while day.month not in months or day.isoweekday() not in weekdays or (day.day - 1) // 7 + 1 not in ordinals:
        day += timedelta(days=1)
    assert EPOCH + next_us * MICROSECOND == datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


@given(
    st.sets(st.integers(1, 31), min_size=1, max_size=4),
    st.sets(st.integers(1, 12), min_size=1),
    st.dates(date(1970, 1, 1), date(2090, 1, 1)),
)
def test_no_day_of_the_month_is_left_out_or_added(days: set[int], months: set[int], day: date) -> None:
    text = f"{','.join(map(str, days))} of {names(months, month_names)} 12:00"
    longest = max(29 if month == 2 else 30 if month in {4, 6, 9, 11} else 31 for month in months)
    if min(days) > longest:
        with pytest.raises(ScheduleTextError, match="no named month"):
            parse_text(text)
        return
    start_us = (datetime(day.year, day.month, day.day, tzinfo=UTC) - EPOCH) // MICROSECOND
    next_us = parse_schedule(text, UTC).next_after(start_us)
    assert next_us is not None
    while day.month not in months or day.day not in days:
        day += timedelta(days=1)
    assert EPOCH + next_us * MICROSECOND == datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "start", "matches"),
    [
        ("29 of feb 06:00", "2096-02-29T06:00:00", ["2104-02-29T06:00:00", "2108-02-29T06:00:00"]),
        ("5th mon of feb 06:00", "2016-02-29T06:00:00", ["2044-02-29T06:00:00", "2072-02-29T06:00:00"]),
        ("5th mon of feb 06:00", "2072-02-29T06:00:00", ["2112-02-29T06:00:00"]),
    ],
)
def test_schedules_that_seldom_come_due(text: str, start: str, matches: list[str]) -> None:
    assert texts_after(parse_schedule(text, ZoneInfo("Europe/Berlin")), start, 2)[0] > start
    assert texts_after(parse_schedule(text, UTC), start, len(matches)) == matches


@pytest.mark.parametrize(
    ("text", "start", "matches"),
    [
        ("every 1 hours from 8:00 to 9:00", "2026-01-01T08:00:00", ["2026-01-01T09:00:00", "2026-01-02T08:00:00"]),
        ("every 1 hours from 8:01 to 9:00", "2026-01-01T08:01:00", ["2026-01-02T08:01:00"]),
        ("every 5 mins from 9:00 to 9:00", "2026-01-01T08:00:00", ["2026-01-01T09:00:00", "2026-01-02T09:00:00"]),
        ("every 36 hours from 9:00 to 8:59", "2026-01-01T08:00:00", ["2026-01-01T09:00:00", "2026-01-02T09:00:00"]),
    ],
)
def test_the_end_of_a_grid_belongs_to_it(text: str, start: str, matches: list[str]) -> None:
    assert texts_after(parse_schedule(text, UTC), start, len(matches)) == matches


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        (
            "15 of quarter 09:00",
            ["2026-04-15T13:00:00", "2026-07-15T13:00:00", "2026-10-15T13:00:00", "2027-01-15T14:00:00"],
        ),
        ("first mon of jul,dec 00:00", ["2026-07-06T04:00:00", "2026-12-07T05:00:00", "2027-07-05T04:00:00"]),
        ("8 of mar 02:30", ["2027-03-08T07:30:00", "2028-03-08T07:30:00"]),  # in 2026 the clock skips it
        ("1 of nov 01:30", ["2026-11-01T05:30:00", "2026-11-01T06:30:00", "2027-11-01T05:30:00"]),
    ],
)
def test_far_times_are_those_of_the_clock_of_their_season(text: str, matches: list[str]) -> None:
    schedule = parse_schedule(text, ZoneInfo("America/New_York"))
    assert texts_after(schedule, "2026-01-15T14:00:00", len(matches)) == matches


@pytest.mark.parametrize("text", ["29 of feb 06:00", "every 5 mins from 1:00 to 2:00", "every 5 mins synchronized"])
def test_when_the_dates_end_there_is_no_next_time(text: str) -> None:
    schedule = parse_schedule(text, ZoneInfo("America/New_York"))
    assert schedule.next_after(us_of("9999-12-30T12:00:00")) is None
    assert schedule.next_after(10**18) is None


@pytest.mark.parametrize("text", ["every day 06:00", "every 6 hours synchronized"])
def test_before_the_first_date_the_next_time_is_the_first_one(text: str) -> None:
    next_us = parse_schedule(text, UTC).next_after(-(10**18))
    assert next_us is not None
    assert (EPOCH + next_us * MICROSECOND).year == 1
