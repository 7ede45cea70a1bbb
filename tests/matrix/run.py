"""A server process that runs one app on one SQLite file, and what the harness asks it and tells it."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from threading import Event
from typing import Any

import httpx2

from tests.matrix.servers import ServerKind

ROOT = Path(__file__).parent.parent.parent
MOST_SECONDS_TO_START = 40
MOST_SECONDS_TO_STOP = 15
_USUAL_STATUSES = (0, -signal.SIGTERM, 128 + signal.SIGTERM)
_SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS matrix_order (key TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS matrix_effect (id INTEGER PRIMARY KEY, key TEXT NOT NULL);
"""


class Run:
    """A server that runs one app on the database of a folder; `close` leaves no process of it behind."""

    def __init__(self, app: str, server: ServerKind, folder: Path, **environment: str) -> None:
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
                    **environment,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    # What it says.

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    @property
    def journal(self) -> list[str]:
        return self.journal_path.read_text().splitlines()

    @property
    def status(self) -> int | None:
        return self._process.poll()

    @property
    def ended_as_usual(self) -> bool:
        return self.status in _USUAL_STATUSES

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            return connection.execute(query).fetchall()

    def effects(self) -> dict[str, int]:
        return dict(self.rows("SELECT key, count(*) FROM matrix_effect GROUP BY key"))

    def orders(self) -> set[str]:
        return {key for (key,) in self.rows("SELECT key FROM matrix_order")}

    def tasks(self) -> list[tuple[Any, ...]]:
        """Give what is stored of each task that is not complete: state, owner, lease, attempts, crashes."""
        return self.rows("SELECT state, owner, lease_until_us, attempt_count, crash_count FROM hookware_task")

    def times_said(self, what: str) -> int:
        """Count the lines of the journal that say `what`; each ends with the id of its process."""
        return sum(line.rpartition(" ")[0] == what for line in self.journal)

    # What it is asked and told.

    def wait(self, condition: Callable[[], object], what: str, *, seconds: float = 30) -> None:
        """Wait until it is true, and fail if that takes longer."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            Event().wait(0.02)

    def wait_ready(self) -> None:
        """Wait until all its processes serve."""
        self.wait(self._serves, "it serves", seconds=MOST_SECONDS_TO_START)
        # granian waits for ever for a worker that is told to stop while it starts.
        self.wait(lambda: self.output.count("hookware: ") >= self.server.processes, "all processes have started")

    def _serves(self) -> bool:
        assert self.status is None, f"the server has ended with status {self.status}"
        with suppress(httpx2.TransportError):
            return httpx2.get(f"http://127.0.0.1:{self._port}/ready").status_code < 500
        return False

    def is_silent(self) -> bool:
        with suppress(httpx2.TransportError):
            httpx2.get(f"http://127.0.0.1:{self._port}/ready", timeout=1)
            return False
        return True

    def post_order(self, key: str, url: str, end: str = "commit") -> int:
        """Post an order, and give the answer's status; 0 if none came."""
        asked = {"key": key, "url": url, "end": end}
        with suppress(httpx2.TransportError):
            return httpx2.post(f"http://127.0.0.1:{self._port}/order", params=asked, timeout=30).status_code
        return 0

    def order(self, key: str, url: str, end: str = "commit") -> None:
        status = self.post_order(key, url, end)
        assert status // 100 == 2, f"an order got {status}"

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the process that was started, as a supervisor does."""
        self._process.send_signal(signal.SIGTERM)

    def wait_stopped(self) -> None:
        self.wait(lambda: self.status is not None, "it has stopped", seconds=MOST_SECONDS_TO_STOP)
        # multiprocessing has a process that watches the others, and ends a little later.
        self.wait(lambda: not self._has_processes(), "all its processes have ended", seconds=10)

    def close(self) -> None:
        """Kill what is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _has_processes(self) -> bool:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, 0)
            return True
        return False


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
