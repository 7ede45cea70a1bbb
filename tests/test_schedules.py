"""Which language a schedule is written in, and in which time zone."""

import os
import subprocess
import sys
from pathlib import Path
from zoneinfo import available_timezones

import pytest

from hookware.core.schedule import Days, Grid, Interval
from hookware.crontab import CronExpression
from hookware.errors import Error, InvalidScheduleError
from hookware.schedules import schedule


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("every 5 minutes", Interval),
        (" every 5 minutes synchronized", Grid),
        ("1st,third mon 09:00", Days),
        ("first mon 09:00", Days),
        ("1 of month 09:00", Days),
        ("1 ,8 of month 09:00", Days),  # five words
        ("1,8of month 09:00", Days),
        ("*/5 * * * *", CronExpression),
        ("0 9 * * mon", CronExpression),
        ("0 9 1 oct *", CronExpression),
        (" 1,8 0 1 1 *", CronExpression),
    ],
)
def test_the_beginning_tells_the_language(text: str, kind: type) -> None:
    assert isinstance(schedule(text, "Europe/Berlin"), kind)


@pytest.mark.parametrize("text", ["", "@hourly", "?", "-5 * * * *", "\u0665 * * * *"])
def test_what_is_in_neither_language_is_refused(text: str) -> None:
    with pytest.raises(InvalidScheduleError, match=r"neither English, as .* nor a crontab expression of five fields"):
        schedule(text)


@pytest.mark.parametrize(("text", "says"), [("every 5 hour", "character 9"), ("5 minutes", "five fields")])
def test_an_error_is_that_of_the_language(text: str, says: str) -> None:
    with pytest.raises(InvalidScheduleError, match=says) as caught:
        schedule(text)
    assert isinstance(caught.value, Error)
    assert isinstance(caught.value, ValueError)


def test_a_schedule_must_be_text() -> None:
    with pytest.raises(InvalidScheduleError, match="a schedule must be text, got int"):
        schedule(5)  # type: ignore[arg-type] # what the test is about


def test_the_time_zone_is_utc_unless_another_is_given() -> None:
    assert schedule("every day 09:00") == schedule("every day 09:00", "UTC")
    nine_us = 9 * 3_600_000_000
    assert schedule("every day 09:00").next_after(0) == nine_us
    assert schedule("every day 09:00", "Asia/Tokyo").next_after(1) == 24 * 3_600_000_000
    assert schedule("0 9 * * *", "Asia/Tokyo").next_after(1) == 24 * 3_600_000_000


OF_A_HOST = ["localtime", "LocalTime", "posixrules", "posix/Europe/Berlin", "right/Europe/Berlin"]
"""Names of files beside the time zones; what the first says depends on the host."""


@pytest.mark.parametrize("name", ["utc", "Utc", "europe/berlin", "EUROPE/BERLIN", "america/port-au-prince", "gmt"])
def test_the_case_of_a_time_zone_does_not_matter(name: str) -> None:
    [known] = [each for each in available_timezones() if each.casefold() == name.casefold()]
    for text in ("every day 09:00", "0 9 * * *"):
        assert schedule(text, name) == schedule(text, known)


@pytest.mark.parametrize(
    "name", ["", "Mars/Base", "America", "../UTC", "/etc/passwd", "Europe/Berlin\n", "a" * 5000, "\0", *OF_A_HOST]
)
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidScheduleError, match=r"the time zone .* is not known: use a name such as .*tzdata"):
        schedule("every 5 minutes", name)


def test_a_time_zone_must_be_text() -> None:
    with pytest.raises(InvalidScheduleError, match="the time zone 5 is not known"):
        schedule("every 5 minutes", 5)  # type: ignore[arg-type] # what the test is about


@pytest.mark.slow
def test_a_system_without_time_zones_has_utc_and_is_told_what_to_install() -> None:
    code = """
import sys
sys.modules["tzdata"] = None
from hookware.schedules import schedule
assert schedule("every day 09:00").next_after(0) == 9 * 3600 * 10**6
schedule("every day 09:00", "Europe/Berlin")
"""
    command, root = [sys.executable, "-c", code], Path(__file__).parent.parent
    env = {**os.environ, "PYTHONTZPATH": ""}
    result = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert "because this system has no time zones: pip install tzdata" in result.stderr
