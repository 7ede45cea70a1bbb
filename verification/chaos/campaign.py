"""Do everything at once to processes that share a PostgreSQL server: `python -m verification chaos --minutes 10`.

Clients order all the time, and meanwhile processes are killed every half second and replaced at once, the server is
restarted like after a crash or goes away, sessions are terminated, processes are frozen for longer than a lease, and
their clocks are wrong by an hour. `--calm --orders 20000` does none of it. At the end comes a calm time in which all
that is left has to run, and then the checker; the exit status is 1 if a promise was broken.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.postgres import postgres_server
from verification import ledger
from verification.chaos.faults import Faults, Plan
from verification.chaos.fleet import Fleet, Load
from verification.checker import Findings, Limits
from verification.crash.database import DRIVERS, PostgresDatabase
from verification.crash.evidence import judge
from verification.crash.site import Site, site_in

# A kill is nobody's fault here: no task may become dead by being near too many of them.
OPTIONS: dict[str, Any] = {"lease_seconds": 4.0, "poll_seconds": 0.25, "drain_seconds": 1.0, "crash_limit": 100_000}
LIMITS = Limits(lease=OPTIONS["lease_seconds"], poll=OPTIONS["poll_seconds"], crash_limit=OPTIONS["crash_limit"])
_TAIL_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a campaign did and found."""

    findings: Findings
    fleet: Fleet
    faults: Faults
    load: Load
    database: str
    seconds: float
    tail_seconds: float

    def verify(self) -> None:
        """Raise AssertionError on a broken promise, or where the campaign itself failed."""
        assert not self.faults.errors, self.faults.errors
        assert not self.fleet.figures.ended, f"ended by themselves: {self.fleet.figures.ended[:3]}"
        assert not self.findings.dead
        self.findings.verify()

    def __str__(self) -> str:
        findings, figures, load = self.findings, self.fleet.figures, self.load
        serving = sum(figures.serving) / max(1, len(figures.serving))
        return (
            f"{self.seconds:.0f} s: orders {load.asked}, answered {load.answers.answered}, committed "
            f"{findings.committed}, runs {findings.runs}, effects in our transaction {findings.effects}; faults "
            f"{dict(self.faults.counts)}; processes started {figures.starts}, of which {figures.failed_starts} found "
            f"no database, serving on average {serving:.2f}; duplicates {dict(findings.duplicates)}, results refused "
            f"{findings.refused}, dead {findings.dead}, unknown {findings.unknown}, violations "
            f"{dict(findings.violations)}; all had run {self.tail_seconds:.1f} s after the last fault"
        )


@contextmanager
def postgres_site(driver: str) -> Iterator[tuple[Site, PostgresDatabase]]:
    """Hold a site on a server of its own that survives a power cut."""
    with (
        tempfile.TemporaryDirectory() as directory,
        postgres_server(fsync="on", max_connections="300") as server,
        site_in(Path(directory), database := PostgresDatabase(server, driver)) as site,
    ):
        yield site, database


def run(
    asked: argparse.Namespace,
    plan: Plan,
    site: Site,
    database: PostgresDatabase,
    *,
    spared: int = 0,
    watch: Callable[[Fleet], AbstractContextManager[object]] = nullcontext,
) -> Outcome:
    """Run a campaign on a site; nobody kills the last `spared` processes, and `watch` looks on until the last fault."""
    clocks = asked.wrong_clocks and not asked.calm
    fleet = Fleet(site, web=asked.web, both=asked.both, wrong_clocks=clocks, options=OPTIONS, spared=spared)
    with closing(fleet):
        return _run(asked, plan, site, database, fleet, watch)


def _run(
    asked: argparse.Namespace,
    plan: Plan,
    site: Site,
    database: PostgresDatabase,
    fleet: Fleet,
    watch: Callable[[Fleet], AbstractContextManager[object]],
) -> Outcome:
    load = Load(fleet, seed=asked.seed, per_second=asked.per_second, orders=asked.orders, plain=asked.plain)
    faults = Faults(site, database, fleet, plan, asked.seed)
    fleet.wait_until_serving()
    began = time.monotonic()
    try:
        with watch(fleet):
            faults.start()
            load.start()
            while not load.is_over and (asked.orders is not None or time.monotonic() - began < asked.minutes * 60):
                time.sleep(0.1)
    finally:
        load.stop()
        faults.stop()
    seconds, calm = time.monotonic() - began, time.monotonic()
    site.note("quiet", node="")
    site.wait_until_quiet(_TAIL_SECONDS)
    tail_seconds = time.monotonic() - calm
    for process in site.processes:
        process.signal(signal.SIGTERM)
    for process in site.processes:
        process.ended(30)
    findings = judge(site, load.answers, LIMITS)
    return Outcome(
        findings=findings, fleet=fleet, faults=faults, load=load, database=database.name, seconds=seconds,
        tail_seconds=tail_seconds,
    )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked of this command."""
    parser.add_argument("--minutes", type=float, default=10.0, help="how long, without --orders")
    parser.add_argument("--orders", type=int, help="end after so many orders instead")
    parser.add_argument("--per-second", type=float, default=60.0, help="orders per second, at most")
    parser.add_argument("--web", type=int, default=2, help="processes that take orders and run no tasks")
    parser.add_argument("--both", type=int, default=2, help="processes that do both")
    parser.add_argument("--driver", choices=DRIVERS, default=DRIVERS[0])
    parser.add_argument("--seed", type=int, default=1, help="of the choices; the moments are the system's")
    for name, default, what in (
        ("kill", 0.5, "kill -9 of a random process"),
        ("restart", 20.0, "an immediate restart of PostgreSQL"),
        ("terminate", 5.0, "the end of random sessions"),
        ("freeze", 15.0, "SIGSTOP of a process for longer than a lease"),
        ("away", 200.0, "PostgreSQL stopped for a while"),
    ):
        parser.add_argument(f"--{name}-every", type=float, default=default, help=f"seconds; {what}; 0: never")
    parser.add_argument("--away-seconds", type=float, default=60.0, help="how long PostgreSQL is away, at most")
    parser.add_argument("--no-wrong-clocks", dest="wrong_clocks", action="store_false", help="all clocks are right")
    parser.add_argument("--plain", action="store_true", help="each order is one task with one effect, and commits")
    parser.add_argument("--calm", action="store_true", help="no faults at all")


def plan_of(asked: argparse.Namespace) -> Plan:
    """Give the faults that are asked for."""
    if asked.calm:
        return Plan()
    return Plan(
        kill=asked.kill_every or None,
        restart=asked.restart_every or None,
        terminate=asked.terminate_every or None,
        freeze=asked.freeze_every or None,
        freeze_seconds=OPTIONS["lease_seconds"] * 1.25,
        away=asked.away_every or None,
        away_seconds=asked.away_seconds,
    )


def run_command(asked: argparse.Namespace) -> int:
    """Run a campaign, print what it found, and give the exit status."""
    began = time.monotonic()
    with postgres_site(asked.driver) as (site, database):
        outcome = run(asked, plan_of(asked), site, database)
    ledger.record(entry_of("chaos", asked, outcome, time.monotonic() - began), asked.ledger)
    print(outcome)
    try:
        outcome.verify()
    except AssertionError as broken:
        print(f"BROKEN: {broken}", file=sys.stderr)
        return 1
    return 0


def entry_of(what: str, asked: argparse.Namespace, outcome: Outcome, seconds: float) -> ledger.Entry:
    """Give the ledger's line of a campaign."""
    counts = dict(outcome.faults.counts)
    kills = {"at random": counts.pop("kills", 0)}
    if wrong := sum(bool(place.clock_error) for place in outcome.fleet.places):
        counts["wrong clocks"] = wrong
    return ledger.Entry(
        commit=ledger.current_commit(),
        date=ledger.now(),
        what=what,
        where=outcome.database,
        first_seed=asked.seed,
        seed_count=1,
        node_count=asked.web + asked.both,
        hours=round(outcome.seconds / 3600, 3),
        virtual=False,
        tasks=outcome.findings.committed,
        runs=outcome.findings.runs,
        kills=kills,
        faults=counts,
        violations=outcome.findings.violations,
        duplicates=outcome.findings.duplicates,
        machine=ledger.machine(),
        seconds=round(seconds, 1),
    )
