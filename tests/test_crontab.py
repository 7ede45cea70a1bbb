"""Crontab expressions: what cronsim reads, and what daylight saving makes of it, in every zone."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.crontab import CronExpression
from hookware.errors import InvalidScheduleError
from tests.zones import EPOCH, MICROSECOND, YEARS, Window, around, between, times_near, walk, windows

Matches = Callable[[datetime], bool]
WILDCARDS: list[tuple[str, Matches]] = [
    ("* * * * *", lambda wall: True),
    ("*/7 * * * *", lambda wall: wall.minute % 7 == 0),
    ("30 * * * *", lambda wall: wall.minute == 30),
    ("*/10 0-4 * * *", lambda wall: wall.minute % 10 == 0 and wall.hour < 5),
    ("0,15 */3 * * *", lambda wall: wall.minute in {0, 15} and wall.hour % 3 == 0),
    ("*/30 23 * * sat,sun", lambda wall: wall.minute % 30 == 0 and wall.hour == 23 and wall.weekday() > 4),
]


def us_of(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // MICROSECOND


def first_after(text: str, start: str, zone: str = "UTC") -> str:
    found_us = CronExpression(text=text, zone=ZoneInfo(zone)).next_after(us_of(start))
    assert found_us is not None
    return (EPOCH + found_us * MICROSECOND).replace(tzinfo=None).isoformat()


@pytest.mark.parametrize(
    ("text", "start", "found"),
    [
        ("*/5 * * * *", "2024-02-28T23:57:12", "2024-02-29T00:00:00"),
        ("*/5 * * * *", "2024-02-29T00:00:00", "2024-02-29T00:05:00"),
        ("30 9 * * MON-FRI", "2024-03-01T09:30:00", "2024-03-04T09:30:00"),
        ("0 0 1 jan,jul *", "2024-01-01T00:00:00", "2024-07-01T00:00:00"),
        ("0 12 13 * 5", "2024-03-01T12:00:00", "2024-03-08T12:00:00"),  # the 13th or a Friday
        ("0 12 */2 * 5", "2024-03-01T12:00:00", "2024-03-15T12:00:00"),  # an odd day and a Friday
        ("10-20/5 1 * * 7", "2024-03-03T01:10:00", "2024-03-03T01:15:00"),
        ("0 0 29 2 *", "2096-02-29T00:00:00", "2104-02-29T00:00:00"),
        ("0 0 * 2 mon#5", "2072-02-29T00:00:00", "2112-02-29T00:00:00"),
        ("  0\t0 1 1 *  ", "2024-01-01T00:00:00", "2025-01-01T00:00:00"),
    ],
)
def test_the_first_time_after(text: str, start: str, found: str) -> None:
    assert first_after(text, start) == found


@pytest.mark.parametrize(
    ("text", "start", "found"),
    [
        ("30 2 * * *", "2009-03-07T12:00:00", "2009-03-08T07:00:00"),  # the clock goes from 2 to 3
        ("30 1 * * *", "2009-11-01T05:30:00", "2009-11-02T06:30:00"),  # it shows 1:30 twice
        ("*/30 1 * * *", "2009-11-01T05:30:00", "2009-11-01T06:00:00"),
        ("* 9 1 7 *", "2009-01-01T00:00:00", "2009-07-01T13:00:00"),
        ("0 9 1 7 *", "2009-01-01T00:00:00", "2009-07-01T13:00:00"),
        ("*/30 2 * * *", "2009-03-07T12:00:00", "2009-03-09T06:00:00"),
    ],
)
def test_daylight_saving_in_new_york(text: str, start: str, found: str) -> None:
    assert first_after(text, start, "America/New_York") == found


@pytest.mark.slow
@pytest.mark.parametrize("year", YEARS)
@pytest.mark.parametrize(("text", "matches"), WILDCARDS, ids=[text for text, _ in WILDCARDS])
def test_every_minute_that_the_clock_shows_and_that_matches(year: int, text: str, matches: Matches) -> None:
    count = 0
    for here in windows(year, hours=4):
        begin_us, end_us = around(here, hours=4)
        found = walk(CronExpression(text=text, zone=here.zone), begin_us, end_us)
        assert found == between(here.instants(matches), begin_us, end_us), here.zone
        count += 1
    assert count > 20


@pytest.mark.slow
@pytest.mark.parametrize("year", YEARS)
def test_a_time_of_day_comes_due_once_a_day(year: int) -> None:
    count = 0
    for here in windows(year, hours=50):
        begin_us, end_us = around(here, hours=26)
        for hour, minute in times_near(here):
            found = walk(CronExpression(text=f"{minute} {hour} * * *", zone=here.zone), begin_us, end_us)
            assert found == between(once_a_day(here, hour * 60 + minute), begin_us, end_us), (here.zone, hour, minute)
            count += 1
    assert count > 100


def once_a_day(here: Window, minute: int) -> list[int]:
    """Give when the clock of each day first shows a time, or is set forward past it."""
    days = sorted({wall.date() for wall in here.walls})
    return sorted({us for day in days if (us := here.first_past(day, minute)) is not None})


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *"),
        *("* * * * 8", "* * * * foo", "*/0 * * * *", "5-1 * * * *", "a * * * *", "1,, * * * *", "-1 * * * *"),
        *("0 0 30 2 *", "0 0 31 4,6 *", "@ * * * *", f"{'9' * 5000} * * * *", "*/\u0966 * * * *"),
    ],
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(InvalidScheduleError, match=r"the crontab expression .* is refused: .*write it as in"):
        CronExpression(text=text)


def test_an_expression_that_never_comes_due_is_refused() -> None:
    with pytest.raises(InvalidScheduleError, match="no day matches"):
        CronExpression(text="0 0 */30 2 5#5")


@given(st.text("0123456789*/-,#lLwW monfrijan ", min_size=9, max_size=30) | st.text(max_size=20))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    with suppress(InvalidScheduleError):
        CronExpression(text=text)


@given(st.integers(-(2**62), 2**62) | st.integers(0, 4 * 10**15), st.sampled_from(["5 5 * * *", "*/5 * * * *"]))
def test_it_moves_on_from_every_instant(us: int, text: str) -> None:
    next_us = CronExpression(text=text, zone=ZoneInfo("Africa/Cairo")).next_after(us)
    assert next_us is None or next_us > us


@pytest.mark.parametrize("text", ["0 0 1 1 *", "*/5 0 1 1 *", "0 0 29 2 *", "0 0 * * mon#5", "0 23 31 12 *"])
@pytest.mark.parametrize("start", ["9999-12-23T23:59:00", "9999-12-31T12:00:00"])
def test_when_the_dates_end_there_is_no_next_time(text: str, start: str) -> None:
    assert CronExpression(text=text).next_after(us_of(start)) in {None, us_of("9999-12-31T23:00:00")}


@pytest.mark.slow
def test_without_cronsim_it_says_what_to_install() -> None:
    code = """
import sys
sys.modules["cronsim"] = None
from hookware.schedules import schedule
schedule("every day 09:00")
schedule("0 9 * * *")
"""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100, check=False)
    assert result.stderr.endswith('ImportError: crontab expressions need cronsim: pip install "hookware[cron]"\n')
