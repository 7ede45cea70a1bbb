"""Let three processes share queues with rates, limits, names and keys: `python -m verification limits`.

Each part adds tasks, and judges by what the handlers themselves wrote down, with one clock for all processes. A rate of
5 a second and a bucket of 5; three at once, with one process killed in the middle; fifty transactions at once that add
a task of one name; a fair key with ten tasks beside one with ten thousand; and two at once of each limit key, one of
which has very many tasks. The exit status is 1 if a promise was broken.
"""

import argparse
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from verification import ledger
from verification.crash.database import add_database_arguments, chosen_database
from verification.crash.site import wait_until
from verification.limits.fleet import Fleet, fleet_on, most_at_once
from verification.limits.node import QUEUES

_SECONDS = 180.0
_NODES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many tasks each part has."""

    rate: int = 200
    three: int = 60
    names: int = 50
    many: int = 10_000
    few: int = 10
    hog: int = 400
    keys: int = 30


SHORT: Final = Sizes(rate=25, three=24, names=12, many=600, few=10, hog=60, keys=10)


class Part(Protocol):
    """One part of a campaign: says what it saw, or raises AssertionError."""

    def __call__(self, fleet: Fleet, sizes: Sizes) -> str: ...


def rate(fleet: Fleet, sizes: Sizes) -> str:
    """A rate holds over all processes: neither faster nor much slower, and never a second with a burst."""
    (settings,) = (one for one in QUEUES if one.name == "rate")
    assert settings.rate is not None
    fleet.add("rate", [{}] * sizes.rate)
    starts = [run.start for run in fleet.wait_ended("rate", sizes.rate, seconds=_SECONDS)]
    took, ideal = starts[-1] - starts[0], (sizes.rate - settings.bucket_size) / settings.rate
    densest = max(bisect_left(starts, start + 1.0) - n for n, start in enumerate(starts))
    said = f"{len(starts)} tasks in {took:.2f} s (ideal {ideal:g} s), at most {densest} within a second"
    assert len(starts) == sizes.rate, said
    assert abs(took - ideal) <= 3, said
    assert densest <= settings.bucket_size + settings.rate, said
    return said


def three(fleet: Fleet, sizes: Sizes) -> str:
    """Three run at once, never more, though a process is killed; once its leases have ended there are three again."""
    fleet.add("three", [{}] * sizes.three, wait=0.3)
    wait_until(lambda: len(fleet.runs("three")) >= 4, seconds=_SECONDS, what="some run")
    wait_until(lambda: any(run.end is None for run in fleet.runs("three")), seconds=_SECONDS, what="one runs")
    victim = next(run.pid for run in reversed(fleet.runs("three")) if run.end is None)
    (node,) = (node for node in fleet.nodes if node.pid == victim)
    node.kill()
    runs = fleet.wait_ended("three", sizes.three, seconds=_SECONDS)
    most = most_at_once(runs)
    # Of those that began later, three at once is too many before the dead one's leases end.
    again = most_at_once([run for run in runs if run.start > (node.killed or 0.0)])
    cut = sum(run.pid == victim and run.end == node.killed for run in runs)
    said = (
        f"{len(runs)} runs of {sizes.three} tasks, at most {most} at once; {cut} were cut short by the kill, and of "
        f"those that began after it {again} ran at once"
    )
    fleet.replace_killed()
    assert most == 3, said
    assert again == 3, said
    return said


def names(fleet: Fleet, sizes: Sizes) -> str:
    """Of tasks of one name in transactions at once one runs, all transactions commit, and the others are shown."""
    fleet.add_at_once("names", "the-name", sizes.names)
    fleet.wait_ended("names", 1, seconds=_SECONDS)
    left = "SELECT count(*) FROM hookware_task WHERE queue_name = 'names' AND state <> 2"
    wait_until(lambda: fleet.count(left) == 0, seconds=_SECONDS, what="none waits")
    rows = fleet.count("SELECT count(*) FROM business")
    duplicates = fleet.count("SELECT count(*) FROM hookware_task WHERE dead_reason = 'duplicate'")
    runs = len(fleet.runs("names"))
    said = f"{rows} rows of {sizes.names} transactions, {runs} run, {duplicates} duplicates"
    assert (rows, runs, duplicates) == (sizes.names, 1, sizes.names - 1), said
    return said


def fair(fleet: Fleet, sizes: Sizes) -> str:
    """A key with few tasks does not wait behind one with many that came first."""
    many = [{"fair_key": "many", "mark": "many"}] * sizes.many
    fleet.add("fair", many + [{"fair_key": "few", "mark": "few"}] * sizes.few, wait=0.01)

    def places() -> list[int]:
        return [n for n, run in enumerate(fleet.runs("fair"), 1) if run.key == "few"]

    wait_until(lambda: len(places()) >= sizes.few, seconds=_SECONDS, what="the few have begun")
    fleet.drop_waiting("fair")
    place = max(places())
    said = f"the last of {sizes.few} tasks was number {place} of {sizes.many + sizes.few}"
    assert place <= 100, said
    return said


def keys(fleet: Fleet, sizes: Sizes) -> str:
    """Two of a key run at once, never more, and a key with very many tasks holds up no other."""
    hog = [{"limit_key": "hog", "mark": "hog"}] * sizes.hog
    others = [{"limit_key": f"k{n % sizes.keys}", "mark": f"k{n % sizes.keys}"} for n in range(6 * sizes.keys)]
    fleet.add("keys", hog + others, wait=0.05)
    runs = fleet.wait_ended("keys", sizes.hog + len(others), seconds=_SECONDS)
    by_key = {key: most_at_once([run for run in runs if run.key == key]) for key in {run.key for run in runs}}
    hogs = [run for run in runs if run.key == "hog"]
    last = max(run.end or 0.0 for run in runs if run.key != "hog")
    done = sum(run.start < last for run in hogs)
    said = (
        f"{len(runs)} runs of {len(by_key)} keys, at most {max(by_key.values())} at once of one; the others were done "
        f"when {done} of {len(hogs)} of the full key had begun"
    )
    assert len(runs) == sizes.hog + len(others), said
    assert max(by_key.values()) == 2, said
    assert done < len(hogs), said
    return said


PARTS: Final[dict[str, Part]] = {"rate": rate, "names": names, "fair": fair, "keys": keys, "three": three}


def run_parts(fleet: Fleet, sizes: Sizes, parts: dict[str, Part], say: Callable[[str], None] = print) -> dict[str, int]:
    """Run parts, say what each saw, and give those that broke a promise."""
    broken: dict[str, int] = {}
    for name, part in parts.items():
        try:
            say(f"{name}: {part(fleet, sizes)}")
        except AssertionError as error:
            broken[name] = 1
            say(f"{name}: BROKEN: {error}")
    return broken


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked of this command."""
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="these parts")
    parser.add_argument("--short", action="store_true", help="with fewer tasks, as in the tests")
    add_database_arguments(parser, default="postgresql")


def run_command(asked: argparse.Namespace) -> int:
    """Run the campaign, print what it saw, and give the exit status."""
    began = time.monotonic()
    parts = {name: part for name, part in PARTS.items() if name in asked.only}
    with (
        tempfile.TemporaryDirectory() as directory,
        chosen_database(asked, Path(directory)) as database,
        fleet_on(database.url, Path(directory), _NODES) as fleet,
    ):
        broken = run_parts(fleet, SHORT if asked.short else Sizes(), parts)
        runs = fleet.runs()
    seconds = time.monotonic() - began
    ledger.record(
        ledger.Entry(
            commit=ledger.current_commit(), date=ledger.now(), what="limits", where=database.name, first_seed=0,
            seed_count=1, node_count=_NODES, hours=round(seconds / 3600, 3), virtual=False,
            tasks=len({run.task for run in runs}), runs=len(runs), kills={"while tasks ran": int("three" in parts)},
            violations=broken, machine=ledger.machine(), seconds=round(seconds, 1),
        ),
        asked.ledger,
    )  # fmt: skip
    if broken:
        print(f"BROKEN: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0
