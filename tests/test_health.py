"""Health: which loops fail, and one story in the log of each trouble, never more than a line in ten seconds."""

import logging

import pytest

from hookware.health import Health
from tests.samples import SteppedEnv

AWAY = ConnectionRefusedError("nobody listens")


class Watched:
    """A health under a stepped clock, and what it has logged when."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.env = SteppedEnv()
        self.health = Health(self.env)
        self._caplog = caplog
        self.began = self.env.monotonic()

    def said(self) -> list[str]:
        """Give the lines since the last time."""
        lines = [record.getMessage() for record in self._caplog.records]
        self._caplog.clear()
        return lines

    def fail_for(self, seconds: int, *loops: str, error: BaseException = AWAY) -> list[tuple[int, str]]:
        """Let loops fail every second; give each line with its second."""
        lines: list[tuple[int, str]] = []
        for second in range(seconds):
            for loop in loops:
                self.health.failed(loop, error)
            lines += [(second, line) for line in self.said()]
            self.env.advance(1)
        return lines


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Watched:
    return Watched(caplog)


def test_a_database_that_is_away_is_told_ever_more_rarely_and_its_return_at_once(watched: Watched) -> None:
    lines = watched.fail_for(100, "dispatcher", "reaper")
    assert [second for second, _line in lines] == [0, 10, 30, 70]
    assert lines[0][1] == "dispatcher failed, and tries again until it works: ConnectionRefusedError: nobody listens"
    assert lines[2][1].startswith("still failing after 30 s and 61 tries (dispatcher, reaper): ")
    watched.health.worked("reaper")
    assert watched.said() == []
    assert watched.health.failing == ["dispatcher"]
    watched.health.worked("dispatcher")
    assert watched.said() == ["all works again, after 100.0 s and 200 failed tries"]
    assert watched.health.ok


def test_the_return_is_told_ten_seconds_after_the_last_line_and_how_long_it_really_took(watched: Watched) -> None:
    watched.fail_for(2, "dispatcher")
    for _second in range(7):
        watched.health.worked("dispatcher")
        watched.env.advance(1)
        assert watched.health.ok
    assert watched.said() == []
    watched.env.advance(1)
    watched.health.worked("dispatcher")
    assert watched.said() == ["all works again, after 2.0 s and 2 failed tries"]
    watched.env.advance(100)
    watched.health.worked("dispatcher")
    assert watched.said() == []


def test_a_database_that_comes_and_goes_is_no_more_talkative(watched: Watched) -> None:
    lines: list[str] = []
    for _round in range(40):
        lines += [line for _second, line in watched.fail_for(2, "dispatcher")]
        watched.health.worked("dispatcher")
        lines += watched.said()
        watched.env.advance(1)
    assert len(lines) <= 12
    watched.env.advance(10)
    watched.health.worked("dispatcher")
    (line,) = watched.said()
    assert line.startswith("all works again, after ")


def test_a_trouble_that_was_too_short_after_another_to_be_told_is_told_with_its_end(watched: Watched) -> None:
    watched.fail_for(20, "dispatcher")
    watched.health.worked("dispatcher")
    assert len(watched.said()) == 1
    watched.env.advance(1)
    assert watched.fail_for(1, "dispatcher", error=TimeoutError("no answer")) == []
    watched.health.worked("dispatcher")
    watched.env.advance(10)
    watched.health.worked("dispatcher")
    assert watched.said() == [
        "all works again, after 1.0 s and 1 failed tries, of which the last said: TimeoutError: no answer"
    ]


def test_a_loop_that_never_says_that_it_worked_is_well_after_half_a_minute(watched: Watched) -> None:
    watched.health.failed("listener", AWAY)
    watched.env.advance(29.9)
    watched.health.worked("dispatcher")
    assert watched.health.failing == ["listener"]
    assert len(watched.said()) == 1
    watched.env.advance(0.1)
    watched.health.worked("dispatcher")
    assert watched.health.ok
    assert watched.said() == ["all works again, after 0.0 s and 1 failed tries"]


def test_what_nobody_expected_comes_with_its_traceback_once_and_soon(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    def traced() -> list[BaseException | None]:
        errors = [record.exc_info[1] if record.exc_info else None for record in caplog.records]
        caplog.clear()
        return errors

    bug = KeyError("a bug")
    watched.health.failed("dispatcher", AWAY)
    assert traced() == [None]
    watched.env.advance(40)
    for _time in range(3):
        watched.health.failed("reaper", bug)
    assert traced() == [bug]
    # Long after, lines come every forty seconds; but of something new after ten.
    watched.env.advance(10)
    watched.health.failed("reaper", bug)
    assert traced() == []
    watched.health.failed("settler", bug)
    assert traced() == [bug]


def test_a_drivers_error_is_told_in_one_line_without_the_statement(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    class DriversError(Exception):
        orig = ValueError("server closed the connection\n\tunexpectedly")

    watched.health.failed("dispatcher", DriversError("SELECT a, lot, of, columns"))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert not record.exc_info
    assert record.getMessage().endswith(": ValueError: server closed the connection  unexpectedly")
