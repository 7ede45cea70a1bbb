"""A month of cron in a simulated world: each time once, whatever befalls the processes.

`python -m verification cron` runs years of it.
"""

from datetime import UTC, datetime

import pytest

from verification.simulation.cron import Plan, run
from verification.simulation.cron_entries import ENTRIES, times_of

# Without the hourly entry, which is most of the work of a year.
MONTH = Plan(nodes=4, days=31, begin=datetime(2024, 10, 5, tzinfo=UTC), entries=ENTRIES[1:])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_time_of_a_month_is_fired_once_whatever_befalls_the_processes() -> None:
    result = run(1, MONTH)
    assert result.complaints == ()
    # It must be eventful enough to mean something.
    assert result.fired > 300
    assert result.unfired > 0
    assert result.kills["SIGKILL"] > 15
    assert result.kills["kill at a failpoint"] > 5
    for fault in ("pause", "sleep of all", "restart", "node clock set", "failpoint error", "pause at a failpoint"):
        assert result.faults[fault] > 0, fault
    assert result.faults["statement errors after the effect"] > 50


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_same_seed_is_the_same_month() -> None:
    plan = Plan(nodes=2, days=1)
    trace = run(1, plan).trace
    assert run(1, plan).trace == trace
    assert run(2, plan).trace != trace


def test_the_second_opinion_knows_the_changes_of_the_clocks() -> None:
    def times(url: str, first: datetime, days: int) -> list[str]:
        [watched] = [each for each in ENTRIES if each.entry.url == url]
        begin = int(first.replace(tzinfo=UTC).timestamp())
        return [f"{datetime.fromtimestamp(at, UTC):%d %H:%M}" for at in times_of(watched, begin, begin + days * 86_400)]

    # In New York 2:00 to 3:00 is skipped on 9 March 2025, and 1:00 to 2:00 is there twice on 3 November 2024.
    assert times("/skipped", datetime(2025, 3, 8), 3) == ["08 07:30", "10 06:30"]  # noqa: DTZ001 - taken for UTC
    assert times("/twice", datetime(2024, 11, 2), 3) == ["02 05:30", "03 05:30", "03 06:30", "04 06:30"]  # noqa: DTZ001 - as above
    # Lord Howe sets its clocks by half an hour: 2:00 is 1:30 again on 6 April 2025.
    assert times("/half-an-hour", datetime(2025, 4, 5), 2) == ["05 14:45", "05 15:15", "06 15:15"]  # noqa: DTZ001 - as above
