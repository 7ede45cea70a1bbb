"""Simulate hours of many processes in seconds, by seeds: `python -m verification simulation --seeds 100`.

In each world nodes run the real dispatcher, reaper and heartbeat in virtual time, while they are killed, frozen and
restarted, their clocks are set, their store fails before and after it did what it was asked, and handlers do all that
handlers do. The same seed is the same world, to the last step. Broken seeds are printed with the line that runs them
again; the exit status is 1 if there are any.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from verification import ledger
from verification.simulation.run import DATABASES, Plan, Result, run


@dataclass(slots=True)
class Total:
    """What many seeds did and gave, added up.

    Attributes:
        broken: of each seed with violations, what it said and how to run it again.
    """

    plan: Plan
    seed_count: int = 0
    virtual_seconds: float = 0.0
    seconds: float = 0.0
    tasks: int = 0
    runs: int = 0
    refused: int = 0
    dead: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Add one seed."""
        found = result.findings
        self.seed_count += 1
        self.virtual_seconds += result.seconds
        self.tasks += found.committed
        self.runs += found.runs
        self.refused += found.refused
        self.dead += found.dead
        self.kills.update(_kinds(found.kills))
        self.faults.update(result.faults)
        self.violations.update(found.violations)
        self.duplicates.update(_kinds(found.duplicates))
        if found.complaints:
            self.broken.append("\n  ".join([repro(result.seed, self.plan), *map(str, found.complaints[:10])]))

    @property
    def summary(self) -> str:
        """Say it in a few lines."""
        speed = self.virtual_seconds / max(self.seconds, 0.001)
        return (
            f"{self.seed_count} seeds on {self.plan.store}: {self.virtual_seconds / 3600:.1f} virtual hours of "
            f"{self.plan.nodes} nodes in {self.seconds:.0f} s ({speed:,.0f} times real time)\n"
            f"{self.tasks} tasks, {self.runs} runs, {self.refused} results refused, {self.dead} dead\n"
            f"kills: {_said(self.kills)}\nother faults: {_said(self.faults)}\n"
            f"duplicates: {_said(self.duplicates)}\nviolations: {_said(self.violations)}"
        )


def run_seeds(first: int, count: int, plan: Plan, until: Sequence[str] = ()) -> Total:
    """Run seeds one after the other, until one of the named invariants breaks."""
    total, began = Total(plan), time.process_time()
    for seed in range(first, first + count):
        total.add(run(seed, plan))
        if any(total.violations[invariant] for invariant in until):
            break
    total.seconds = time.process_time() - began
    return total


def repro(seed: int, plan: Plan) -> str:
    """Give the line that runs one seed again, and prints its history."""
    return (
        f"python -m verification simulation --first {seed} --seeds 1 --nodes {plan.nodes} --hours {plan.hours:g} "
        f"--store {plan.store} --show --ledger /dev/null"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked of this command."""
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--nodes", type=int, default=5, help="processes, each on a host of its own")
    parser.add_argument("--hours", type=float, default=1.0, help="of virtual time, for each seed")
    parser.add_argument("--store", choices=list(DATABASES), default="memory")
    parser.add_argument("--until", default="", metavar="I4,I5", help="stop at the first seed that breaks one of these")
    parser.add_argument("--show", action="store_true", help="print the history of each seed, and its trace hash")


def run_command(asked: argparse.Namespace) -> int:
    """Run the seeds, print what they did, and give the exit status."""
    plan = Plan(nodes=asked.nodes, hours=asked.hours, store=asked.store)
    if asked.show:
        _show(range(asked.first, asked.first + asked.seeds), plan)
    began = time.monotonic()
    total = run_seeds(asked.first, asked.seeds, plan, asked.until.split(","))
    print(f"seeds {asked.first} to {asked.first + asked.seeds - 1}\n{total.summary}")
    ledger.record(_entry(asked.first, total, time.monotonic() - began), asked.ledger)
    for broken in total.broken:
        print(f"BROKEN: {broken}", file=sys.stderr)
    return 1 if total.broken else 0


def _show(seeds: Iterable[int], plan: Plan) -> None:
    for seed in seeds:
        result = run(seed, plan)
        for line in result.history:
            print(line.as_json())
        print(f"seed {seed}: {result.steps} steps, trace {result.trace}")


def _entry(first: int, total: Total, seconds: float) -> ledger.Entry:
    return ledger.Entry(
        commit=ledger.current_commit(),
        date=ledger.now(),
        what="simulation",
        where={"memory": "memory", "sqlite": "SQLAlchemy and SQLite"}[total.plan.store],
        first_seed=first,
        seed_count=total.seed_count,
        node_count=total.plan.nodes,
        hours=round(total.virtual_seconds / 3600, 1),
        virtual=True,
        tasks=total.tasks,
        runs=total.runs,
        kills=dict(total.kills),
        faults=dict(total.faults),
        violations=dict(total.violations),
        duplicates=dict(total.duplicates),
        machine=ledger.machine(),
        seconds=round(seconds, 1),
    )


def _kinds(counts: Counter[str]) -> Counter[str]:
    """Put the failpoints together, of which there are many: the history has each."""
    kinds: Counter[str] = Counter()
    for what, count in counts.items():
        kinds[what if "." not in what else "kill at a failpoint" if what.startswith("kill") else "at failpoints"] += (
            count
        )
    return kinds


def _said(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common()) or "none"
