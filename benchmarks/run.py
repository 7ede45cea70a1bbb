"""One run of a measure: its options, its places, its rounds, and what came of it."""

import argparse
import importlib
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.figures import interleaved, ratio, short
from benchmarks.machine import describe
from benchmarks.node import Node, SystemFailedError, nodes
from benchmarks.places import Places, places
from benchmarks.results import FOLDER, Results
from benchmarks.systems import WHERE
from benchmarks.systems.base import Place

Cell = tuple[Any, ...]
"""What is measured in turn: the name of a system, and what it is to do."""


@dataclass(kw_only=True)
class Run:
    """What a measure is given.

    Attributes:
        options: of the command line.
        places: where the systems work.
        results: what was found so far.
        tuned: settings of systems that are not the adapters' own.
    """

    options: argparse.Namespace
    places: Places
    results: Results
    tuned: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def quick(self) -> bool:
        """Whether it only has to show that the harness works."""
        return bool(self.options.quick)

    def systems(self, names: Sequence[str]) -> list[str]:
        """Give those of a measure's systems that were asked for."""
        wanted = self.options.systems
        return [name for name in names if not wanted or name in wanted]

    def sizes(self, default: Sequence[int], quick: Sequence[int]) -> list[int]:
        """Give the sizes to measure."""
        return list(self.options.sizes or (quick if self.quick else default))

    def turns(self, cells: Sequence[Cell]) -> Iterator[Cell]:
        """Let all cells take turns, round by round; one whose system has failed is left out."""
        for number, cell in interleaved(cells, self.options.rounds):
            if cell[0] not in self.results.failed:
                print(f"{self.results.measure}, round {number + 1}: {', '.join(map(str, cell))}", file=sys.stderr)
                yield cell
                self.results.save(self.options.results)

    @contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """Note why a system could not be measured, and go on with the others."""
        try:
            yield
        except SystemFailedError as error:
            print(f"{self.results.measure}: {name} failed: {error}", file=sys.stderr)
            self.results.fail(name, str(error))

    @contextmanager
    def nodes(self, name: str, number: int = 1) -> Iterator[tuple[Place, list[Node]]]:
        """Hold an empty database with a system's tables, and some of its processes."""
        with (
            self.places.place(name) as place,
            nodes(name, place, number, self.tuned.get(name, {})) as held,
        ):
            held[0].call("prepare")
            stated = self.results.settings.setdefault("versions", {})
            stated.setdefault(name, held[0].call("versions"))
            yield place, held


def parser(about: str | None) -> argparse.ArgumentParser:
    """Make the command line of every measure."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, help="rounds in which all take turns (5; quick: 1)")
    made.add_argument("--systems", nargs="+", choices=list(WHERE), metavar="SYSTEM", help=f"of {', '.join(WHERE)}")
    made.add_argument("--sizes", nargs="+", type=int, help="how many tasks; each measure has its own default")
    made.add_argument("--processes", nargs="+", type=int, help="drain: in how many processes (1 2 4)")
    made.add_argument("--kinds", nargs="+", help="drain: noop, increment")
    made.add_argument("--quick", action="store_true", help="everything small: it shows that the harness works")
    made.add_argument("--tune", nargs="+", default=[], metavar="SYSTEM:NAME=NUMBER", help="a setting of an adapter")
    made.add_argument("--postgres", default=os.environ.get("BENCH_POSTGRES", ""), help="URL; none: a server of its own")
    made.add_argument("--redis", default=os.environ.get("BENCH_REDIS", ""), help="URL of a database that is emptied")
    made.add_argument("--directory", type=Path, help="where SQLite's files are; the system's temporary folder")
    made.add_argument("--results", type=Path, help="where the JSON goes; benchmarks/results, quick: its folder quick")
    return made


def tuned_of(words: Sequence[str]) -> dict[str, dict[str, int]]:
    """Read `SYSTEM:NAME=NUMBER`."""
    found: dict[str, dict[str, int]] = {}
    for word in words:
        name, _, setting = word.partition(":")
        attribute, _, value = setting.partition("=")
        if name not in WHERE or not value.isdigit():
            raise SystemExit(f"--tune takes SYSTEM:NAME=NUMBER, got {word!r}")
        found.setdefault(name, {})[attribute] = int(value)
    return found


def perform(names: Sequence[str], options: argparse.Namespace) -> list[Results]:
    """Run some measures, one after the other, and keep what they find."""
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.results = options.results or (FOLDER / "quick" if options.quick else FOLDER)
    done = []
    with places(options.postgres, options.redis, options.directory) as held:
        for name in names:
            module: ModuleType = importlib.import_module(f"benchmarks.measures.{name}")
            results = Results(
                measure=name, references=list(module.REFERENCES), quick=options.quick, machine=describe(held)
            )
            given = ("rounds", "systems", "sizes", "processes", "kinds", "tune")
            results.settings.update({key: value for key in given if (value := getattr(options, key))})
            measure: Callable[[Run], None] = module.measure
            measure(Run(options=options, places=held, results=results, tuned=tuned_of(options.tune)))
            results.save(options.results)
            show(results)
            done.append(results)
    return done


def show(results: Results) -> None:
    """Print the medians, and their ratios to the reference."""
    for case in results.cases():
        print(f"\n{results.measure}: {case}")
        for figure in results.figures(case):
            values = results.of(case, figure)
            for name, mine in values.items():
                against = [(other, ratio(mine, values.get(other, []))) for other in results.references]
                beside = "".join(f"{part:8.2f} x {other}" for other, part in against if part is not None)
                print(f"  {figure.replace('_', ' '):<34}{name:<24}{short(statistics.median(mine)):>12}{beside}")
    for name, why in results.failed.items():
        print(f"  {name}: not measured: {why}")


def alone(name: str, about: str | None) -> None:
    """Be the command of one measure."""
    perform([name], parser(about).parse_args())
