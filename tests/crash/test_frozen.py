"""Processes that stand still: a blocked event loop keeps its task, a stopped process loses it, and its result."""

import signal

import pytest

from tests.crash.conftest import on_both
from verification.crash.site import Site, wait_until

pytestmark = [pytest.mark.crash, pytest.mark.slow]

LEASE_SECONDS = 1.0


def test_a_task_that_blocks_the_event_loop_for_three_leases_runs_once(site: Site) -> None:
    first, second = site.start_two(lease_seconds=LEASE_SECONDS, poll_seconds=0.1)
    assert first.order("order", "/blocking", wait=3 * LEASE_SECONDS) == 200
    wait_until(lambda: site.lines("settled"), seconds=10)
    site.wait_until_quiet(20)
    assert len(site.lines("start")) == 1
    assert [line.outcome for line in site.lines("settled")] == ["complete"]
    assert {first.status, second.status} == {None}


@on_both("url", "/own", "/joined")
def test_what_a_stopped_process_wrote_is_refused_when_it_goes_on(site: Site, url: str) -> None:
    stopped = site.start(lease_seconds=LEASE_SECONDS)
    assert stopped.order("order", url, wait=1.0) == 200
    wait_until(lambda: site.lines("start"), seconds=20)
    site.freeze(stopped)
    other = site.start(lease_seconds=LEASE_SECONDS)
    wait_until(site.effects, seconds=20, what="the task ran elsewhere")
    stopped.signal(signal.SIGCONT)
    wait_until(lambda: [line for line in site.lines("end") if line.node == stopped.pid], seconds=20)

    assert stopped.order("afterwards", url) == 200
    site.wait_until_quiet(20)
    assert site.effects() == dict.fromkeys(site.orders().values(), 1)
    (task,) = (task for key, task in site.orders().items() if key == "order")
    ((pid, fence),) = site.rows("SELECT pid, fence FROM crash_effect WHERE task = ?", task)
    assert (pid, fence >= 2) == (other.pid, True)
    zombie = {line.fence for line in site.lines("start", task=task) if line.node == stopped.pid}
    assert not any(
        line.accepted and not line.crashed for line in site.lines("settled", task=task) if line.fence in zombie
    )


def test_after_a_pause_of_the_whole_machine_every_effect_is_there_once(site: Site) -> None:
    both = site.start_two(lease_seconds=LEASE_SECONDS, poll_seconds=0.1)
    for number in range(12):
        assert both[number % 2].order(f"order {number}", ("/own", "/joined")[number // 6], wait=0.3) == 200
    wait_until(lambda: site.lines("start"), seconds=20)
    for process in both:
        process.signal(signal.SIGSTOP)
    last = max(until for (until,) in site.rows("SELECT max(lease_until_us) FROM hookware_task"))
    wait_until(lambda: site.now_us() > last, seconds=20, what="all leases have ended")
    for process in both:
        process.signal(signal.SIGCONT)
    site.wait_until_quiet(10)
    assert site.effects() == dict.fromkeys(site.orders().values(), 1)
    assert len(site.effects()) == 12
