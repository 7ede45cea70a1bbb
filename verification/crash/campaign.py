"""Kill real processes, restart them, and count: `python -m verification crash --kills 200 --requests 2000`.

Random kills fall while requests are answered and tasks run; further ones at each failpoint. After the last kill
one process runs what is left, and the verdict is printed; the exit status is 1 if a promise was broken.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from threading import Timer
from typing import Any

from verification import ledger
from verification.checker import Findings, Limits
from verification.crash.database import add_database_arguments, chosen_database
from verification.crash.evidence import judge
from verification.crash.load import Clients, random_ask
from verification.crash.site import Process, Site, site_in, wait_until

SHUTDOWN = tuple(f"dispatch.shutdown.{step}" for step in (1, 2, 3, 4, 5))
FAILPOINTS = (
    "add.before", "add.committed",
    "claim.before", "claim.updated", "claim.committed",
    "commit.before", "commit.committed",
    "dispatch.wake", "dispatch.claim.before", "dispatch.claim.claimed", "dispatch.handed", "dispatch.start",
    "dispatch.app.returned", "dispatch.settle.before", "dispatch.settle.settled",
    "heartbeat.renew", "renew.before", "renew.committed",
    "reap.before", "reap.settled",
    "settle.before", "settle.updated", "settle.committed",
    *SHUTDOWN,
)  # fmt: skip

FAILPOINTS_OF_CRON = ("cron.fire.before", "cron.fire.committed")
"""Not passed by orders: the simulation of cron kills at them, and tests/cron."""

RARE = frozenset({*SHUTDOWN, "reap.before", "reap.settled"})
"""Passed once in most processes."""

REACHED_BY: dict[str, dict[str, Any]] = {
    "add": {"path": "/order/alone"},
    "claim": {"countdown": 0.01},
    "dispatch.claim": {"countdown": 0.01},
    "dispatch": {"countdown": 0.0},
    "settle": {"url": "/outside"},
    "renew": {"wait": 0.5},
    "dispatch.settle": {"url": "/outside"},
    "heartbeat": {"wait": 0.5},
    "commit": {"path": "/order/own", "url": "/own"},
}
"""What has to be asked for, to pass a failpoint of such a name for certain."""

# A kill is nobody's fault here: no task may become dead by being near too many of them.
OPTIONS: dict[str, Any] = {"lease_seconds": 1.0, "poll_seconds": 0.25, "drain_seconds": 0.2, "crash_limit": 100_000}
LIMITS = Limits(lease=OPTIONS["lease_seconds"], poll=OPTIONS["poll_seconds"], crash_limit=OPTIONS["crash_limit"])
_PER_FAILPOINT_ROUND = 10


@dataclass(slots=True)
class Figures:
    """What was done to the processes."""

    random_kills: int = 0
    failpoint_kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0


class Campaign:
    """A site, its clients, and one or two processes that are killed again and again."""

    def __init__(self, site: Site, seed: int) -> None:
        self.clients = Clients()
        self.figures = Figures()
        self._site = site
        self._random = Random(seed)
        self._alive: list[Process] = []
        self.asked = 0

    def kill_at_random(self, kills: int, requests: int, *, processes: int = 1) -> None:
        """Kill `kills` times while `requests` are sent; of several processes, one at a time."""
        for number in range(kills):
            self._bring_up(processes)
            share = requests * (number + 1) // kills - requests * number // kills
            victim = self._random.choice(self._alive)
            # Some die before they serve: the start, too, claims and takes back.
            timer = Timer(self._random.uniform(0, 0.35), victim.kill)
            if self._random.randrange(10):
                self._wait_ready()
            timer.start()
            self._ask(share)
            timer.join()
            self._bury(victim)
            self.figures.random_kills += 1

    def kill_at(self, failpoint: str, *, processes: int = 1) -> bool:
        """Let one process die at a failpoint; False if it was not passed, and the process was killed anyway."""
        if failpoint.startswith("reap"):
            self._leave_leases()
        self._bring_up(processes - 1)
        victim = self._launch(failpoint=f"{failpoint}:{1 if failpoint in RARE else self._random.randint(1, 3)}")
        self._wait_ready()
        self._ask(_PER_FAILPOINT_ROUND, **REACHED_BY.get(failpoint.rpartition(".")[0], {}))
        if failpoint in SHUTDOWN:
            victim.signal(signal.SIGTERM)
        with suppress(AssertionError):
            victim.ended(6)
        self._bury(victim)
        died = any(line.node == victim.pid and line.why == failpoint for line in self._site.lines("killed"))
        self.figures.failpoint_kills[failpoint] += died
        return died

    def _leave_leases(self) -> None:
        """Kill every process while tasks run in it, so that the next one has something to take back."""
        self._bring_up(1)
        self._wait_ready()
        begun = len(self._site.lines("start"))
        self._ask(6, wait=2.0, end="commit")
        with suppress(AssertionError):  # what is not passed, is not passed
            wait_until(lambda: len(self._site.lines("start")) >= begun + 6, seconds=10)
        for process in list(self._alive):
            self._bury(process)

    def finish(self, seconds: float = 60) -> Findings:
        """Let everything that is left run, undisturbed, and judge."""
        self._bring_up(1)
        self._wait_ready()
        self._site.wait_until_quiet(seconds)
        for process in self._alive:
            process.signal(signal.SIGTERM)
            process.ended(10)
        self.clients.close()
        return judge(self._site, self.clients.answers, LIMITS)

    def _ask(self, count: int, **chosen: Any) -> None:
        asks = [replace(random_ask(f"order {self.asked + n}", self._random), **chosen) for n in range(count)]
        self.asked += count
        alive = list(self._alive)
        self.clients.ask(lambda number: alive[number % len(alive)], asks)

    def _bring_up(self, processes: int) -> None:
        while len(self._alive) < processes:
            self._launch()

    def _launch(self, *, failpoint: str = "") -> Process:
        process = self._site.launch(failpoint=failpoint, **OPTIONS)
        self._alive.append(process)
        self.figures.starts += 1
        return process

    def _wait_ready(self) -> None:
        for process in self._alive:
            process.ready()

    def _bury(self, process: Process) -> None:
        process.kill()
        self._alive.remove(process)


def run(site: Site, *, kills: int, requests: int, each: int, seed: int) -> tuple[Campaign, Findings]:
    """Run a campaign: a third of the random kills hit one of two processes, and half of those at failpoints."""
    campaign = Campaign(site, seed)
    alone = kills - kills // 3
    campaign.kill_at_random(alone, requests * alone // max(kills, 1))
    campaign.kill_at_random(kills - alone, requests - requests * alone // max(kills, 1), processes=2)
    for failpoint in FAILPOINTS if each else ():
        for attempt in range(each * 4):
            campaign.kill_at(failpoint, processes=1 + attempt % 2)
            if campaign.figures.failpoint_kills[failpoint] == each:
                break
    return campaign, campaign.finish()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked of this command."""
    parser.add_argument("--kills", type=int, default=200, help="kills at random moments")
    parser.add_argument("--requests", type=int, default=2000, help="requests sent meanwhile")
    parser.add_argument("--each", type=int, default=5, help="kills at each failpoint")
    parser.add_argument("--seed", type=int, default=1, help="of the choices; the moments of death are the system's")
    add_database_arguments(parser, default="sqlite")


def run_command(asked: argparse.Namespace) -> int:
    """Run a campaign in a directory of its own, print its figures, and give the exit status."""
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as directory,
        chosen_database(asked, Path(directory)) as database,
        site_in(Path(directory), database) as site,
    ):
        campaign, findings = run(site, kills=asked.kills, requests=asked.requests, each=asked.each, seed=asked.seed)
        locked = site.logs.count("is locked")
    figures, answers = campaign.figures, campaign.clients.answers
    fewest = min((figures.failpoint_kills[name] for name in FAILPOINTS), default=0)
    entry = _entry(asked, campaign, findings, time.monotonic() - began, where=database.name)
    print(
        f"kills {figures.random_kills} at random + {sum(figures.failpoint_kills.values())} at {len(FAILPOINTS)} "
        f"failpoints (at least {fewest} each), requests {campaign.asked}, answered {answers.answered}, "
        f"committed {findings.committed}, runs {findings.runs}, effects in our transaction {findings.effects}, "
        f"duplicates {dict(findings.duplicates)}, results refused {findings.refused}, dead {findings.dead}, "
        f"unknown {findings.unknown}, violations {dict(findings.violations)}, locked {locked}, "
        f"processes {figures.starts}, {entry.seconds:.0f} s"
    )
    ledger.record(entry, asked.ledger)
    try:
        findings.verify()
        assert not findings.dead
        assert fewest >= asked.each, figures.failpoint_kills
        assert not locked
    except AssertionError as broken:
        print(f"BROKEN: {broken}", file=sys.stderr)
        return 1
    return 0


def _entry(
    asked: argparse.Namespace, campaign: Campaign, findings: Findings, seconds: float, *, where: str
) -> ledger.Entry:
    at_failpoints = sum(campaign.figures.failpoint_kills.values())
    return ledger.Entry(
        commit=ledger.current_commit(),
        date=ledger.now(),
        what="crash",
        where=where,
        first_seed=asked.seed,
        seed_count=1,
        node_count=2,
        hours=round(seconds / 3600, 3),
        virtual=False,
        tasks=findings.committed,
        runs=findings.runs,
        kills={"at random": campaign.figures.random_kills, "at failpoints": at_failpoints},
        violations=findings.violations,
        duplicates=findings.duplicates,
        machine=ledger.machine(),
        seconds=round(seconds, 1),
    )
