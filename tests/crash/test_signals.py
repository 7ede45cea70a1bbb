"""SIGTERM, SIGINT: the process ends in time, gives its tasks back, and the interrupted attempts do not count."""

import random
import signal
import time

import pytest

from tests.crash.conftest import on_both
from verification.crash.site import Site, wait_until

pytestmark = [pytest.mark.crash, pytest.mark.slow]

DRAIN_SECONDS = 0.4
TERM, INT = signal.SIGTERM, signal.SIGINT


def given_back(site: Site) -> bool:
    """Say whether no lease is left, and no attempt of a task that is still to run has counted."""
    rows = site.rows("SELECT state, owner, attempt_count, crash_count FROM hookware_task")
    return all(row == (0, None, 0, 0) for row in rows)


@on_both()
def test_terminated_at_random_it_ends_in_time_and_gives_everything_back(site: Site) -> None:
    for round_ in range(3):
        process = site.start(drain_seconds=DRAIN_SECONDS)
        for number in range(8):
            url = ("/own", "/joined", "/outside", "/outside")[number % 4]
            wait = 1.5 if number == 7 else 0.1
            assert process.order(f"order {round_}.{number}", url, wait=wait) == 200
        time.sleep(random.uniform(0, 0.3))
        process.signal(TERM)
        process.ended(DRAIN_SECONDS + 1)
        assert given_back(site)
    site.start()
    site.wait_until_quiet(10)
    assert {line.attempt for line in site.lines("start")} == {1}
    tasks = set(site.orders().values())

    def completed() -> set[int]:
        return {line.task for line in site.lines("settled") if line.outcome == "complete"}

    wait_until(lambda: completed() >= tasks, seconds=20, what="each task's completion is in the history")
    assert completed() == tasks


@pytest.mark.parametrize(
    "signals", [(TERM, TERM), (INT,), (TERM, TERM, TERM)], ids=lambda each: "+".join(s.name for s in each)
)
def test_signals_that_ask_to_end(site: Site, signals: tuple[signal.Signals, ...]) -> None:
    process = site.start(drain_seconds=DRAIN_SECONDS)
    assert process.order("long", "/outside", wait=1.5) == 200
    wait_until(lambda: site.lines("start"), seconds=20)
    for number in signals:
        process.signal(number)
        time.sleep(0.15)
    process.ended(DRAIN_SECONDS + 1)
    assert given_back(site)
    site.start()
    site.wait_until_quiet(20)
    assert [line.outcome for line in site.lines("end")] == ["CancelledError", "ok"]
    assert [line.outcome for line in site.settled(2)] == ["release", "complete"]


def test_an_impatient_second_interrupt_ends_it_and_nothing_is_lost(site: Site) -> None:
    process = site.start(drain_seconds=10)
    assert process.order("long", "/outside", wait=1.5) == 200
    wait_until(lambda: site.lines("start"), seconds=20)
    process.signal(INT)
    process.signal(INT)
    process.ended(20)
    site.start()
    site.wait_until_quiet(20)
    assert site.lines("end")[-1].outcome == "ok"


def test_what_drains_for_three_leases_is_not_taken_away(site: Site) -> None:
    both = site.start_two(lease_seconds=0.5, poll_seconds=0.1, drain_seconds=5)
    assert both[0].order("long", "/outside", wait=1.5) == 200
    wait_until(lambda: site.lines("start"), seconds=20)
    (runner,) = (process for process in both if process.pid == site.lines("start")[0].node)
    runner.signal(TERM)
    runner.ended(10)
    assert [line.outcome for line in site.lines("settled")] == ["complete"]
    assert len(site.lines("start")) == 1
