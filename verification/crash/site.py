"""A database, a history, and the server processes that share them; none of them outlives its test."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import urlencode

from verification.crash.database import Database, SQLiteFile
from verification.history import History, Line, read_history

ROOT = Path(__file__).parent.parent.parent
_ADDRESS = "Uvicorn running on http://"
_READY = "Application startup complete"


def wait_until(condition: Any, *, seconds: float, what: str = "") -> float:
    """Wait until `condition()` is true, and give the time that took; fail if it takes more than `seconds`."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < seconds, f"not within {seconds} s: {what or condition}"
        time.sleep(0.01)
    return time.monotonic() - began


class Running(Protocol):
    """What is asked of a process that runs, as of a `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...

    def send_signal(self, number: int) -> None: ...


Spawn = Callable[[dict[str, str], Path, int], Running]
"""Starts a `uvicorn` as the leader of a session of its own: with this environment, log, and number of workers."""


def spawn(environment: dict[str, str], log: Path, workers: int) -> Running:
    """Start a `uvicorn` with an interpreter of its own."""
    arguments = [] if workers == 1 else ["--workers", str(workers)]
    with log.open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "verification.crash.app:hookware", "--port", "0", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )


class Process:
    """A server process. Made with its file of standard error as the log; `ready` waits until it serves.

    Attributes:
        node: its name in the history: the one that it was given, or its id.
    """

    def __init__(
        self, log: Path, environment: dict[str, str], workers: int, note: Callable[..., None], spawn: Spawn
    ) -> None:
        self.log_path = log
        self._note = note
        self._stopped_at = 0.0
        self._workers = workers
        self._address: tuple[str, int] | None = None
        self.started_at = time.monotonic()
        self._process = spawn(environment, log, workers)
        self.node = environment.get("CRASH_NODE") or self.pid

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.poll()

    def ready(self, seconds: float = 30) -> bool:
        """Wait until it serves; False if it ends before that."""
        wait_until(self._is_settled, seconds=seconds, what="the server has started")
        return self._address is not None and self.status is None

    @property
    def serves(self) -> bool:
        """Whether it answers requests; does not wait."""
        return (self._address is not None or self._is_settled()) and self._address is not None and self.status is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.status is None:
            if number == signal.SIGSTOP:
                self._stopped_at = time.time()
            elif number == signal.SIGCONT and self._stopped_at:
                self._note("disturbed", node=self.node, t=self._stopped_at, until=time.time(), why="pause")
            elif number in (signal.SIGTERM, signal.SIGINT):
                self._note("stop", node=self.node)
            self._process.send_signal(number)

    def kill(self) -> None:
        """Pull the plug: the process and its workers are gone when this returns."""
        if self.status is None:  # else its id may be another's by now
            self._note("killed", node=self.node, why="SIGKILL")
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait(timeout=10)

    def ended(self, seconds: float) -> float:
        """Wait for its end, and give the time that took."""
        return wait_until(lambda: self.status is not None, seconds=seconds, what="the server has ended")

    def post(self, path: str, *, seconds: float = 15, **params: Any) -> int | None:
        """Post a request, and give the status; None if there was no answer."""
        if self._address is None:
            return None
        connection = HTTPConnection(*self._address, timeout=seconds)
        with closing(connection), suppress(OSError, HTTPException):
            connection.request("POST", f"{path}?{urlencode(params)}")
            response = connection.getresponse()
            response.read()
            return response.status
        return None

    def order(self, key: str, url: str, *, path: str = "/order", wait: float = 0, **params: Any) -> int | None:
        """Order a task: the row of the order, and the task in its transaction."""
        return self.post(path, key=key, url=url, **{"wait": wait, "then": 0, "end": "commit", **params})

    def _is_settled(self) -> bool:
        before, found, after = self.log.partition(_ADDRESS)
        serves = found and "\n" in after and (before + after).count(_READY) >= self._workers
        if serves:
            host, _, port = after.split()[0].rpartition(":")
            self._address = (host, int(port))
        return bool(serves) or self.status is not None


class Site:
    """A directory with one history, and a database: a file in it, or the one that is given; `spawn` starts servers."""

    def __init__(self, directory: Path, database: Database | None = None, spawn: Spawn = spawn) -> None:
        self.directory = directory
        self.spawn = spawn
        self.database = database or SQLiteFile(directory / "crash.db")
        self.history = directory / "history.jsonl"
        self.processes: list[Process] = []
        self._own_history = History(self.history)

    def note(self, ev: str, **said: Any) -> None:
        """Write a line of the history."""
        self._own_history.write(ev, **said)

    def launch(
        self,
        *,
        failpoint: str = "",
        workers: int = 1,
        spawn: Spawn | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
        **options: Any,
    ) -> Process:
        """Start a process and do not wait; `options` are Hookware's, `variables` the process's own."""
        environment = {
            **variables,
            "CRASH_DATABASE": self.database.url,
            "CRASH_HISTORY": str(self.history),
            "CRASH_OPTIONS": json.dumps(options),
            "CRASH_FAILPOINT": failpoint,
        }
        log = self.directory / f"server-{len(self.processes)}.log"
        process = Process(log, environment, workers, self.note, spawn or self.spawn)
        self.processes.append(process)
        return process

    def start(self, *, workers: int = 1, **options: Any) -> Process:
        """Start a process that serves when this returns."""
        process = self.launch(workers=workers, **options)
        assert process.ready(), process.log
        return process

    def start_two(self, **options: Any) -> tuple[Process, Process]:
        """Start two processes side by side."""
        both = self.launch(**options), self.launch(**options)
        for process in both:
            assert process.ready(), process.log
        return both

    def freeze(self, process: Process) -> None:
        """Stop a process where it does not hold a lock that others wait for, such as SQLite's for writing."""
        process.signal(signal.SIGSTOP)
        while self.database.is_held_by(process.pid):
            process.signal(signal.SIGCONT)
            time.sleep(0.005)
            process.signal(signal.SIGSTOP)

    def close(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            process.signal(signal.SIGCONT)
            process.kill()
        self._own_history.close()
        self.database.close()

    @property
    def logs(self) -> str:
        """What all processes have written."""
        return "\n".join(process.log for process in self.processes)

    def lines(self, ev: str = "", *, url: str = "", task: int = 0) -> list[Line]:
        """Give the history, or those lines of it that are asked for."""
        lines = read_history(self.history)
        return [
            line
            for line in lines
            if ev in ("", line.ev) and url in ("", line.url.partition("?")[0]) and task in (0, line.task)
        ]

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database."""
        return self.database.rows(query, *values)

    def effects(self) -> dict[int, int]:
        """Count each task's effects in the database."""
        return dict(self.rows("SELECT task, count(*) FROM crash_effect GROUP BY task"))

    def effect_fences(self) -> list[tuple[int, int]]:
        """Give the task and the fence of each effect in the database, in their order."""
        return [(task, fence) for task, fence in self.rows("SELECT task, fence FROM crash_effect ORDER BY id")]

    def dead_tasks(self) -> list[int]:
        """Give the tasks that were given up."""
        return [task for (task,) in self.rows("SELECT id FROM hookware_task WHERE state = 2")]

    def orders(self) -> dict[str, int]:
        """Give the id of each committed order's task."""
        return dict(self.rows("SELECT key, task FROM crash_order"))

    def now_us(self) -> int:
        """The time by which leases end."""
        return time.time_ns() // 1000

    def tasks_left(self) -> int:
        """Count the tasks that still have to run."""
        return int(self.rows("SELECT count(*) FROM hookware_task WHERE state != 2")[0][0])

    def wait_until_quiet(self, seconds: float) -> float:
        """Wait until nothing is left to run."""
        return wait_until(lambda: self.tasks_left() == 0, seconds=seconds, what="all tasks have run")

    def settled(self, count: int, *, seconds: float = 5) -> list[Line]:
        """Wait for `count` settlements: a process writes its line after the commit that ends the task."""
        wait_until(lambda: len(self.lines("settled")) >= count, seconds=seconds, what=f"{count} settlements")
        return self.lines("settled")


@contextmanager
def site_in(directory: Path, database: Database | None = None, spawn: Spawn = spawn) -> Iterator[Site]:
    """Give a site whose processes end with the block."""
    site = Site(directory, database, spawn)
    try:
        yield site
    finally:
        site.close()
