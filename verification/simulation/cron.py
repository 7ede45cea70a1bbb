"""Simulate a year of cron in many processes: `python -m verification cron --days 366`.

Eight nodes run hookware's scheduler, dispatcher and reaper on one SQLite file, with entries in several time zones,
while they are killed, frozen, also for longer than the grace and all at once, restarted, their clocks are set, and
statements fail before and after they did what they were asked. The evidence is read off the database, where triggers
note each task that appears; which times there should be is reckoned by walking through every minute of the clocks on
the wall. Each of them must be there exactly once, unless nobody was able to work within its grace.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from verification import ledger
from verification.simulation.cron_check import check
from verification.simulation.cron_entries import ENTRIES, Watched
from verification.simulation.cron_run import live
from verification.simulation.cron_world import CronDatabase, CronWorld
from verification.simulation.loop import WORLD, context_of
from verification.simulation.run import bury, undisturbed

FIRST_DAY = datetime(2024, 10, 5, tzinfo=UTC)
"""The changes of Lord Howe, Berlin and New York follow within a month."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is simulated: how many nodes, for how many days, from when on, and which entries."""

    nodes: int = 8
    days: float = 366.0
    begin: datetime = FIRST_DAY
    entries: tuple[Watched, ...] = ENTRIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one seed gave.

    Attributes:
        seed: the seed.
        fired: how many tasks of cron appeared.
        unfired: nominal times that nobody was able to fire within their grace.
        complaints: the broken invariants.
        kills: processes killed, by what killed them.
        faults: everything else that was done.
        steps: of the loop.
        trace: a hash of all that happened.
    """

    seed: int
    fired: int
    unfired: int
    complaints: tuple[tuple[str, str], ...]
    kills: Counter[str]
    faults: Counter[str]
    steps: int
    trace: str


def run(seed: int, plan: Plan = Plan()) -> Result:
    """Run one seed and check it."""
    world = CronWorld(Random(seed), [each.entry for each in plan.entries], int(plan.begin.timestamp()) * 1_000_000)
    world.database = CronDatabase(world)
    loop = world.loop
    with undisturbed():
        try:
            main = live(world, [f"n{number}" for number in range(plan.nodes)], plan.days * 86_400)
            loop.run_until_complete(loop.create_task(main, context=context_of(WORLD)))
            world.end_spans()
            trace, steps, seconds, left = world.trace, loop.step_count, loop.time(), world.database.left()
            bury(world)
        finally:
            world.database.close()
            loop.close()
    findings = check(world, plan.entries, seconds, left)
    kills = Counter(_kind(each.why) for each in world.history if each.ev == "killed")
    return Result(
        seed=seed, fired=sum(each.what == "fired" for each in world.seen), unfired=findings.unfired,
        complaints=tuple(findings.complaints), kills=kills,
        faults=world.counts, steps=steps, trace=trace,
    )  # fmt: skip


def _kind(why: str) -> str:
    return "kill at a failpoint" if "." in why else why


def repro(seed: int, plan: Plan) -> str:
    """Give the line that runs one seed again."""
    return (
        f"python -m verification cron --first {seed} --seeds 1 --nodes {plan.nodes} --days {plan.days:g} "
        f"--begin {plan.begin:%Y-%m-%d} --ledger /dev/null"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked of this command."""
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--nodes", type=int, default=8, help="processes, each on a host of its own")
    parser.add_argument("--days", type=float, default=366.0, help="of virtual time, for each seed")
    parser.add_argument("--until", default="", metavar="C1,C4", help="stop at the first seed that breaks one of these")
    parser.add_argument("--begin", type=datetime.fromisoformat, default=FIRST_DAY, help="the first day")


def run_command(asked: argparse.Namespace) -> int:
    """Run the seeds, print what they did, and give the exit status."""
    plan = Plan(nodes=asked.nodes, days=asked.days, begin=asked.begin.replace(tzinfo=UTC))
    began, results = time.monotonic(), list[Result]()
    for seed in range(asked.first, asked.first + asked.seeds):
        began_cpu = time.process_time()
        results.append(result := run(seed, plan))
        print(
            f"seed {seed}: {plan.days:g} days of {plan.nodes} nodes in {time.process_time() - began_cpu:.0f} s; "
            f"{result.fired} tasks, {result.unfired} times nobody was there for, {result.kills.total()} kills, "
            f"{result.faults.total()} other faults, {result.steps} steps, trace {result.trace}", flush=True,
        )  # fmt: skip
        if result.complaints:
            lines = [f"  {name} {text}" for name, text in _some(result.complaints)]
            print("\n".join([f"BROKEN: {repro(seed, plan)}", *lines]), file=sys.stderr)
        if any(name in asked.until.split(",") for name, _ in result.complaints):
            break
    ledger.record(_entry(plan, results, time.monotonic() - began), asked.ledger)
    return 1 if any(result.complaints for result in results) else 0


def _some(complaints: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Give a few complaints of each invariant: one that breaks often must not hide another."""
    return [each for name in sorted(dict(complaints)) for each in [one for one in complaints if one[0] == name][:5]]


def _entry(plan: Plan, results: list[Result], seconds: float) -> ledger.Entry:
    def total(of: str) -> dict[str, int]:
        return dict(sum((getattr(result, of) for result in results), Counter[str]()))

    fired = sum(result.fired for result in results)
    return ledger.Entry(
        commit=ledger.current_commit(),
        date=ledger.now(),
        what="cron",
        where="SQLAlchemy and SQLite",
        first_seed=results[0].seed,
        seed_count=len(results),
        node_count=plan.nodes,
        hours=round(plan.days * 24 * len(results), 1),
        virtual=True,
        tasks=fired,
        runs=fired,
        kills=total("kills"),
        faults=total("faults"),
        violations=dict(Counter(name for result in results for name, _ in result.complaints)),
        machine=ledger.machine(),
        seconds=round(seconds, 1),
    )
