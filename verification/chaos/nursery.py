"""Processes that start in a moment: forked from one that has imported everything, and has done nothing else.

Starting an interpreter and importing the app takes a second of processor time. Where a process is killed every half
second that would be all that the machine does.
"""

import importlib
import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import uvicorn

from verification.crash.site import ROOT, Running, spawn

_IMPORTED = (
    "asyncpg", "psycopg", "sqlalchemy.dialects.postgresql", "sqlalchemy.ext.asyncio", "sqlmodel.ext.asyncio.session",
    "starlette.applications", "uvicorn.lifespan.on", "uvicorn.loops.auto", "uvicorn.protocols.http.auto",
    "hookware", "verification.crash.database", "verification.crash.wish",
)  # fmt: skip
"""What the app needs; what opens connections or begins threads comes after the fork."""


class Nursery:
    """Forks servers."""

    def __init__(self) -> None:
        self._mother = subprocess.Popen(
            [sys.executable, "-m", "verification.chaos.nursery"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def spawn(self, environment: dict[str, str], log: Path, workers: int) -> Running:
        """Start a server, with variables of its own; one that has workers starts them itself, and is no child."""
        if workers > 1:
            return spawn(environment, log, workers)
        log.touch()
        stdin, stdout = self._mother.stdin, self._mother.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"environment": environment, "log": str(log)}).encode() + b"\n")
        stdin.flush()
        return Child(int(stdout.readline()))

    def close(self) -> None:
        """Bear no more; what still runs is killed."""
        for pipe in (self._mother.stdin, self._mother.stdout):
            assert pipe is not None
            pipe.close()
        self._mother.wait(timeout=30)


class Child:
    """A process that somebody else has started; how it ended, only its mother could know."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._lock = Lock()
        # An id may be given to another process at once; a descriptor stays this one's.
        self._descriptor: int | None = None
        with suppress(ProcessLookupError):
            self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Give zero if it has ended."""
        with self._lock:
            if self._descriptor is not None and self._has_ended(self._descriptor, 0):
                os.close(self._descriptor)
                self._descriptor = None
            return None if self._descriptor is not None else 0

    def wait(self, timeout: float) -> int:
        """Wait for its end."""
        with self._lock:
            ended = self._descriptor is None or self._has_ended(self._descriptor, timeout)
        assert ended, f"process {self.pid} does not end"
        return self.poll() or 0

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with self._lock, suppress(ProcessLookupError):
                if self._descriptor is not None:
                    signal.pidfd_send_signal(self._descriptor, number)

    @staticmethod
    def _has_ended(descriptor: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))


def _bear(wish: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        with suppress(OSError):  # the child may have done it before
            os.setpgid(pid, pid)  # whoever asked may kill the group at once
        return pid
    status = 1
    try:
        _become_a_server(wish["environment"], wish["log"])
        status = 0
    finally:
        os._exit(status)


def _become_a_server(environment: dict[str, str], log: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    os.environ.update(environment)
    null = os.open(os.devnull, os.O_RDWR)
    for there, here in ((null, 0), (null, 1), (os.open(log, os.O_WRONLY | os.O_APPEND), 2)):
        os.dup2(there, here)
    uvicorn.run("verification.crash.app:hookware", port=0)


def _main() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here asks how they end
    born = set()
    for line in sys.stdin:
        born.add(pid := _bear(json.loads(line)))
        print(pid, flush=True)
    # Whoever asked for them is gone; those who are still there are not to outlive him.
    for pid in born:
        if _mother_of(pid) == os.getpid():
            os.killpg(pid, signal.SIGKILL)


def _mother_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


if __name__ == "__main__":
    _main()
