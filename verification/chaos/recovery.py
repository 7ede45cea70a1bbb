"""Kill a process in the middle of its tasks, and measure when they run again: `python -m verification recovery`.

On the same host a process that starts sees that its predecessor is dead, and takes its tasks back at once. On another
host nobody can know: there they run again when the lease ends. Printed are both, over several rounds.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verification import ledger
from verification.checker import Limits
from verification.crash.database import add_database_arguments, chosen_database
from verification.crash.evidence import Answers, judge
from verification.crash.site import Process, Site, site_in, wait_until

_TASKS = 4
_MOST_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """When the tasks of one dead process ran again.

    Attributes:
        after_kill: seconds from the kill to the start of the last one.
        after_lease: seconds from the end of its lease to that start; negative: before it.
        after_ready: seconds from the moment when the process that took it served; negative: before it.
    """

    after_kill: float
    after_lease: float
    after_ready: float


def on_the_same_host(site: Site, lease_seconds: float, poll_seconds: float) -> Recovery:
    """Kill a process in the middle of its tasks, and start another one in its place."""
    options: dict[str, Any] = {"lease_seconds": lease_seconds, "poll_seconds": poll_seconds}
    first = site.start(**options)
    tasks = _busy(site, first)
    killed, lease_end = _kill(site, first)
    successor = site.start(**options)
    return _recovery(site, successor, tasks, killed, lease_end, time.time())


def elsewhere(site: Site, lease_seconds: float, poll_seconds: float) -> Recovery:
    """Kill a process in the middle of its tasks, while another one runs on another host."""
    options: dict[str, Any] = {"lease_seconds": lease_seconds, "poll_seconds": poll_seconds}
    first = site.start(variables={"CRASH_HOST": "here"}, **options)
    tasks = _busy(site, first)
    other = site.start(variables={"CRASH_HOST": "there"}, **options)
    ready = time.time()
    killed, lease_end = _kill(site, first)
    return _recovery(site, other, tasks, killed, lease_end, ready)


def _busy(site: Site, process: Process) -> set[int]:
    def begun() -> set[int]:
        return {line.task for line in site.lines("start") if line.node == process.pid}

    for number in range(_TASKS):
        assert process.order(f"{process.pid} {number}", "/outside", wait=600, then=1) == 200
    wait_until(lambda: len(begun()) == _TASKS, seconds=60, what="all of them run")
    return begun()


def _kill(site: Site, process: Process) -> tuple[float, float]:
    """Give the time of the death, and when the leases end that it leaves."""
    process.kill()
    killed = time.time()
    ((lease_end_us,),) = site.rows("SELECT max(lease_until_us) FROM hookware_task")
    return killed, lease_end_us / 1e6


def _recovery(
    site: Site, successor: Process, tasks: set[int], killed: float, lease_end: float, ready: float
) -> Recovery:
    def again() -> list[float]:
        return [line.t for line in site.lines("start") if line.task in tasks and line.node == successor.pid]

    wait_until(lambda: len(again()) == len(tasks), seconds=_MOST_SECONDS, what="they run again")
    site.wait_until_quiet(30)
    successor.kill()
    last = max(again())
    return Recovery(after_kill=last - killed, after_lease=last - lease_end, after_ready=last - ready)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked of this command."""
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--lease-seconds", type=float, default=10.0)
    parser.add_argument("--poll-seconds", type=float, default=1.0)
    add_database_arguments(parser, default="postgresql")


def run_command(asked: argparse.Namespace) -> int:
    """Measure, print, and give the exit status: 1 if one took longer than promised."""
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as directory,
        chosen_database(asked, Path(directory)) as database,
        site_in(Path(directory), database) as site,
    ):
        times = (asked.lease_seconds, asked.poll_seconds)
        here = [on_the_same_host(site, *times) for _round in range(asked.rounds)]
        there = [elsewhere(site, *times) for _round in range(asked.rounds)]
        findings = judge(site, Answers(), Limits(lease=asked.lease_seconds, poll=asked.poll_seconds))
    ledger.record(
        ledger.Entry(
            commit=ledger.current_commit(), date=ledger.now(), what="recovery", where=database.name, first_seed=0,
            seed_count=1, node_count=2, hours=round((time.monotonic() - began) / 3600, 3), virtual=False,
            tasks=findings.committed, runs=findings.runs, kills={"while tasks ran": 2 * asked.rounds},
            violations=findings.violations, duplicates=findings.duplicates, machine=ledger.machine(),
            seconds=round(time.monotonic() - began, 1),
        ),
        asked.ledger,
    )  # fmt: skip
    print(f"lease {times[0]:g} s, poll {times[1]:g} s; {asked.rounds} rounds of {_TASKS} tasks on {database.name}")
    print(f"same host: after the kill {_spread([one.after_kill for one in here])} (a start of the server included),")
    print(f"           after the successor served {_spread([one.after_ready for one in here])}")
    print(f"elsewhere: after the kill {_spread([one.after_kill for one in there])},")
    print(f"           after the end of the lease {_spread([one.after_lease for one in there])}")
    try:
        findings.verify()
        assert max(one.after_ready for one in here) < times[1]
        assert max(one.after_kill for one in there) < times[0] + times[1]
        assert min(one.after_lease for one in there) >= 0
    except AssertionError as broken:
        print(f"BROKEN: {broken}", file=sys.stderr)
        return 1
    return 0


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f} s (median {statistics.median(values):.2f} s)"
