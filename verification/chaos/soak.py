"""Let processes work for long under load, with a fault now and then, and watch what grows.

`python -m verification soak --minutes 10` kills, restarts and freezes as the chaos campaign does, only more rarely, and
never kills one process. Of that one the memory, the open files, the threads and the connections are watched, and of the
database the rows that nobody cleans up. The exit status is 1 if anything grows, or a promise was broken.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Event, Thread

from verification import ledger
from verification.chaos import campaign
from verification.chaos.fleet import Fleet
from verification.crash.database import PostgresDatabase, application_name
from verification.crash.site import Process

_EVERY_SECONDS = 2.0
_MOST_MORE = {"memory in MB": 20, "open files": 10, "threads": 10, "connections": 10}
"""By how much the last third of the time may exceed the second one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """One figure: what was typical in the second and in the last third of the time, and the most at any time."""

    name: str
    second: float
    last: float
    most: float

    def __str__(self) -> str:
        return f"{self.name} {self.second:.0f} -> {self.last:.0f} (at most {self.most:.0f})"


class Watch:
    """Looks at the one process that nobody kills, and at the database, every few seconds."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._samples: list[dict[str, float]] = []
        self._stop = Event()

    @contextmanager
    def __call__(self, fleet: Fleet) -> Iterator[None]:
        """Watch the last process of a fleet."""
        thread = Thread(target=self._look, args=(fleet.places[-1].process,))
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    @property
    def growth(self) -> list[Growth]:
        """What was seen, by figure."""
        third = len(self._samples) // 3
        return [
            Growth(
                name=name,
                second=median(sample[name] for sample in self._samples[third : 2 * third]),
                last=median(sample[name] for sample in self._samples[2 * third :]),
                most=max(sample[name] for sample in self._samples),
            )
            for name in self._samples[0]
        ]

    def _look(self, process: Process) -> None:
        while not self._stop.wait(_EVERY_SECONDS):
            if process.serves:
                self._samples.append({**_of_process(process.pid), **self._of_database(process.pid)})

    def _of_database(self, pid: int) -> dict[str, float]:
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = ?"
        tables = "SELECT n_dead_tup, pg_table_size(relid) FROM pg_stat_user_tables WHERE relname = 'hookware_task'"
        ((connections,),) = self._database.rows(sessions, application_name(pid))
        ((dead, size),) = self._database.rows(tables)
        return {"connections": connections, "dead rows": dead, "table in kB": size / 1024}


def _of_process(pid: int) -> dict[str, float]:
    directory = Path(f"/proc/{pid}")
    (resident,) = (line for line in (directory / "status").read_text().splitlines() if line.startswith("VmRSS:"))
    return {
        "memory in MB": int(resident.split()[1]) / 1024,
        "open files": len(os.listdir(directory / "fd")),
        "threads": len(os.listdir(directory / "task")),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what may be asked of this command."""
    campaign.add_arguments(parser)
    parser.set_defaults(kill_every=30.0, restart_every=120.0, terminate_every=20.0, freeze_every=60.0, away_every=0.0)


def run_command(asked: argparse.Namespace) -> int:
    """Run a soak, print what grew, and give the exit status."""
    began = time.monotonic()
    with campaign.postgres_site(asked.driver) as (site, database):
        watch = Watch(database)
        outcome = campaign.run(asked, campaign.plan_of(asked), site, database, spared=1, watch=watch)
    ledger.record(campaign.entry_of("soak", asked, outcome, time.monotonic() - began), asked.ledger)
    print(outcome)
    print("Of the process that lived from the first to the last minute:", *watch.growth, sep="\n  ")
    try:
        outcome.verify()
        for growth in watch.growth:
            assert growth.last <= growth.second + _MOST_MORE.get(growth.name, float("inf")), f"it grows: {growth}"
    except AssertionError as broken:
        print(f"BROKEN: {broken}", file=sys.stderr)
        return 1
    return 0
