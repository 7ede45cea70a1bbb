"""One cell of the matrix: a server runs an app, takes orders, and is told to stop while a task runs."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import httpx2

from tests.matrix.apps import ASYNCIO_ONLY, MISCONFIGURED, WITHOUT_LIFESPAN
from tests.matrix.servers import ServerKind

ROOT = Path(__file__).parent.parent.parent
MOST_SECONDS_TO_START = 40
MOST_SECONDS_TO_STOP = 15
_SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS matrix_order (key TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS matrix_effect (id INTEGER PRIMARY KEY, key TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one cell went: `text` is for the table, `output` what the server wrote."""

    is_good: bool
    text: str
    output: str


class Run:
    """A server that runs one app in an empty folder; `close` leaves nothing of it behind."""

    def __init__(self, app: str, server: ServerKind, folder: Path) -> None:
        self.app, self.server, self.folder = app, server, folder
        self.database, self.journal_path = folder / "matrix.db", folder / "journal"
        self._output = folder / "output"
        (folder / "empty").mkdir(exist_ok=True)
        self.journal_path.touch()
        with closing(sqlite3.connect(self.database)) as connection:
            connection.executescript(_SCHEMA)
        self._port = _free_port()
        command = server.command.format(port=self._port, folder=folder / "empty").split()
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env={
                    **os.environ,
                    "MATRIX_APP": app,
                    "MATRIX_DATABASE": str(self.database),
                    "MATRIX_JOURNAL": str(self.journal_path),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    @property
    def journal(self) -> list[str]:
        return self.journal_path.read_text().splitlines()

    @property
    def status(self) -> int | None:
        return self._process.poll()

    def rows(self, query: str) -> list[tuple[str, int]]:
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            return connection.execute(query).fetchall()

    def effects(self) -> dict[str, int]:
        return dict(self.rows("SELECT key, count(*) FROM matrix_effect GROUP BY key"))

    def wait(self, condition: Callable[[], object], what: str, *, seconds: float = 15) -> None:
        """Wait until it is true, and fail if that takes longer."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            Event().wait(0.02)

    def serves(self) -> bool:
        assert self.status is None, f"the server has ended with status {self.status}"
        with suppress(httpx2.TransportError):
            return httpx2.get(f"http://127.0.0.1:{self._port}/ready").status_code < 500
        return False

    def is_silent(self) -> bool:
        with suppress(httpx2.TransportError):
            httpx2.get(f"http://127.0.0.1:{self._port}/ready", timeout=1)
            return False
        return True

    def order(self, key: str, url: str) -> None:
        response = httpx2.post(f"http://127.0.0.1:{self._port}/order", params={"key": key, "url": url}, timeout=15)
        assert response.status_code == 200, f"an order got {response.status_code}"

    def terminate(self) -> None:
        """Ask it to stop, and wait until it has."""
        self._process.send_signal(signal.SIGTERM)
        self.wait(lambda: self.status is not None, "it has stopped", seconds=MOST_SECONDS_TO_STOP)

    def close(self) -> None:
        """Kill what is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def has_processes(self) -> bool:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, 0)
            return True
        return False


def judge(app: str, server: ServerKind, folder: Path) -> Verdict:
    """Run one cell of the matrix in an empty folder."""
    running = Run(app, server, folder)
    try:
        if app == MISCONFIGURED or (server.is_trio and app in ASYNCIO_ONLY):
            is_good, text = True, _refusal(running)
        else:
            problems = _life(running)
            is_good, text = not problems, ", ".join(problems) or "ok"
            if problems and server.may_kill:
                is_good, text = True, f"killed undrained; {_recovery(running)}"
    except AssertionError as error:
        is_good, text = False, str(error).partition("\n")[0]
    finally:
        running.close()
    return Verdict(is_good=is_good, text=text, output=running.output)


def _refusal(running: Run) -> str:
    """See a server refuse to start: it says why, and ends, or else its processes do."""
    running.wait(lambda: "hookware cannot start: " in running.output, "it says why", seconds=MOST_SECONDS_TO_START)
    try:
        running.wait(lambda: running.status is not None, "it has ended", seconds=10)
    except AssertionError:
        assert running.is_silent(), "it serves"
        running.terminate()
        return "refused; the server goes on"
    return f"refused; status {running.status}"


def _life(running: Run) -> list[str]:
    """Start, order twice, stop while the second order's task runs; say what should not have happened."""
    running.wait(running.serves, "it serves", seconds=MOST_SECONDS_TO_START)
    # granian waits for ever for a worker that is told to stop while it starts.
    running.wait(lambda: running.output.count("hookware: ") >= running.server.processes, "all processes have started")
    running.order("first", "/worker")
    running.wait(lambda: running.effects() == {"first": 1}, "the first order has its effect")
    running.order("second", "/slow")
    running.wait(lambda: "slow begins" in running.journal_path.read_text(), "the second order's task runs")
    running.terminate()
    # multiprocessing has a process that watches the others, and ends a little later.
    running.wait(lambda: not running.has_processes(), "all its processes have ended", seconds=3)
    return [*_problems_of_the_end(running), *_problems_of_lifespans(running)]


def _problems_of_the_end(running: Run) -> Iterator[str]:
    if running.status not in (0, -signal.SIGTERM, 128 + signal.SIGTERM):
        yield f"exit status {running.status}"
    if running.effects() != {"first": 1, "second": 1}:
        yield f"effects {running.effects()}"
    tasks = running.rows("SELECT id, state FROM hookware_task")
    if tasks:
        yield f"{len(tasks)} tasks left"
    if "Traceback" in running.output:
        yield "traceback"


def _problems_of_lifespans(running: Run) -> Iterator[str]:
    if running.app in WITHOUT_LIFESPAN:
        return
    lines = [line.rpartition(" ") for line in running.journal]
    said = Counter(what for what, _, _pid in lines)
    if not said["stopped"] == said["started"] == running.server.processes:
        yield f"{said['stopped']} of {said['started']} lifespans shut down"
    order_of = {(what, pid): number for number, (what, _, pid) in enumerate(lines)}
    for what, pid in order_of:
        if what == "slow ends" and order_of[what, pid] > order_of.get(("stopped", pid), len(lines)):
            yield "the task outlived the app's resources"


def _recovery(killed: Run) -> str:
    """Start again after a kill: the task that was running has its effect, once."""
    with closing(Run(killed.app, killed.server, killed.folder)) as running:
        # Well before the lease's 30 s: a process on the same machine sees that the owner is dead.
        running.wait(lambda: running.effects() == {"first": 1, "second": 1}, "the second order has its effect")
        running.terminate()
    return "the task ran after the next start"


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
