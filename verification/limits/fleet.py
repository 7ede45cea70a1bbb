"""The processes of a campaign, the tasks that are added for them, and what their handlers wrote down."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Engine, create_engine, text
from sqlmodel import Session

from hookware import Hookware, State, taskqueue
from verification.crash.site import ROOT, wait_until


class Run(NamedTuple):
    """One call of a handler; `end` is None while it has none, and the kill of its process is one."""

    start: float
    end: float | None
    pid: int
    queue: str
    key: str
    task: int


class Node:
    """One process; `killed` is when it was, by the clock of the runs."""

    def __init__(self, url: str, log: Path) -> None:
        self.killed: float | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "verification.limits.node", url, str(log)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait_ready(self) -> None:
        """Wait until it runs tasks."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "a process did not start"

    def kill(self) -> None:
        """Pull the plug."""
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate(timeout=10)
        self.killed = time.monotonic()  # later than the truth: what ran until then counts as long as it may have

    def end(self) -> None:
        """Let it shut down, and wait until it has."""
        self._process.communicate(timeout=60)


class Fleet:
    """Processes on one database; the parent adds tasks and runs none."""

    def __init__(self, url: str, directory: Path, count: int = 3) -> None:
        self._url, self._log = url, directory / "runs.jsonl"
        self._read_to = 0
        self._seen: list[dict[str, Any]] = []
        self.nodes = [Node(url, self._log) for _ in range(count)]
        for node in self.nodes:
            node.wait_ready()
        self.engine: Engine = create_engine(url, pool_size=60)
        self._hookware = Hookware(engine=self.engine, dispatch=False)

    def add(self, queue: str, tasks: Sequence[dict[str, Any]], *, wait: float = 0.0) -> None:
        """Add tasks in one transaction: the arguments of each, of which `mark` goes to the handler as its key."""
        made = [
            taskqueue.Task(url="/work", params={"wait": wait, "key": given.pop("mark", "")}, **given)
            for given in map(dict, tasks)
        ]
        with Session(self.engine) as session:
            for start in range(0, len(made), 100):
                taskqueue.Queue(queue).add(made[start : start + 100], session=session)
            session.commit()

    def add_at_once(self, queue: str, name: str, count: int) -> None:
        """Commit a row and a task of this name in each of so many transactions that are open at the same time."""
        with self.engine.begin() as connection:
            connection.execute(text("CREATE TABLE business (number INTEGER PRIMARY KEY)"))
        together, errors = threading.Barrier(count), list[BaseException]()

        def one(number: int) -> None:
            try:
                with Session(self.engine) as session:
                    together.wait(30)
                    session.connection().execute(text("INSERT INTO business VALUES (:number)"), {"number": number})
                    taskqueue.Queue(queue).add(taskqueue.Task(url="/work", name=name), session=session)
                    session.commit()
            except BaseException as error:  # noqa: BLE001 - it is told below
                errors.append(error)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors[:3]

    def drop_waiting(self, queue: str) -> None:
        """Remove what is left of a queue and does not run yet."""
        with self.engine.begin() as connection:
            given = {"queue": queue, "state": int(State.PENDING)}
            connection.execute(text("DELETE FROM hookware_task WHERE queue_name = :queue AND state = :state"), given)

    def count(self, query: str) -> int:
        """Ask the database for a number."""
        with self.engine.connect() as connection:
            return int(connection.execute(text(query)).scalar_one())

    def replace_killed(self) -> None:
        """Start a process for each that was killed."""
        self.nodes = [Node(self._url, self._log) if node.killed else node for node in self.nodes]
        for node in self.nodes:
            if node.pid not in {run.pid for run in self.runs()}:
                node.wait_ready()

    def runs(self, queue: str = "") -> list[Run]:
        """Give what the handlers wrote, by the time of their start."""
        begun: dict[tuple[int, int], dict[str, Any]] = {}
        ended: dict[tuple[int, int], float] = {}
        for line in self._lines():
            if line["ev"] == "start":
                begun[line["task"], line["fence"]] = line
            else:
                ended[line["task"], line["fence"]] = line["t"]
        killed = {node.pid: node.killed for node in self.nodes}
        return sorted(
            Run(one["t"], ended.get(of, killed.get(one["pid"])), one["pid"], one["queue"], one["key"], of[0])
            for of, one in begun.items()
            if queue in ("", one["queue"])
        )

    def wait_ended(self, queue: str, count: int, *, seconds: float) -> list[Run]:
        """Wait until so many tasks of a queue have run to their end, and nothing of it is left."""

        def is_done() -> bool:
            return (
                len({line["task"] for line in self._lines() if (line["ev"], line["queue"]) == ("end", queue)}) >= count
            )

        wait_until(is_done, seconds=seconds, what=f"{count} tasks of {queue} have run")
        return self.runs(queue)

    def close(self) -> None:
        """End the processes."""
        for node in self.nodes:
            if node.killed is None:
                node.end()
        self.engine.dispose()

    def _lines(self) -> list[dict[str, Any]]:
        """Give the lines written so far; of a file that grows, the new ones are read."""
        if self._log.exists():
            with self._log.open("rb") as file:
                file.seek(self._read_to)
                whole = file.read().rpartition(b"\n")
            self._read_to += len(whole[0]) + len(whole[1])
            self._seen += map(json.loads, whole[0].splitlines())
        return self._seen


@contextmanager
def fleet_on(url: str, directory: Path, count: int = 3) -> Iterator[Fleet]:
    """Hold processes for the length of a block; killed at its end, if they do not end by themselves."""
    fleet = Fleet(url, directory, count)
    try:
        yield fleet
        fleet.close()
    finally:
        for node in fleet.nodes:
            if node.runs:
                node.kill()


def most_at_once(runs: Sequence[Run]) -> int:
    """Give how many runs were under way at the same time, at most; one that has no end goes on."""
    steps = sorted([(run.start, 1) for run in runs] + [(run.end, -1) for run in runs if run.end is not None])
    most = now = 0
    for _t, step in steps:
        now += step
        most = max(most, now)
    return most
