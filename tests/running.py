"""A real server process for the tests: started on a free port, ready when this returns, killed if it must be."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

ROOT = Path(__file__).parent.parent
forked = multiprocessing.get_context("forkserver")
"""Makes processes that have imported what most need, and done nothing else: that takes a second of a processor."""

forked.set_forkserver_preload(
    [
        "fastapi",
        "hookware",
        "hookware.testing",
        "psycopg",
        "sqlmodel.ext.asyncio.session",
        "starlette.testclient",
        "uvicorn",
    ]
)

_READY = "Uvicorn running on "


class Server:
    """`uvicorn APP` as a process of its own. `url` is where it answers, `log` what it has written."""

    def __init__(self, app: str, *, cwd: Path = ROOT, env: Mapping[str, str] | None = None, options: str = "") -> None:
        self.log: list[str] = []
        self.url = ""
        self._told = Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", app, "--port", "0", *options.split()],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = Thread(target=self._read)
        self._reader.start()
        self._told.wait(timeout=30)
        if not self.url:
            self.kill()
            raise AssertionError(f"the server did not start:\n{''.join(self.log)}")

    def kill(self) -> None:
        """Pull the plug: SIGKILL, nothing is cleaned up."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to shut down, and wait until it has; then `log` tells how it went."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(how)
        self._process.wait(timeout=20)
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self.log.append(line)
                if _READY in line:
                    self.url = line.partition(_READY)[2].split()[0]
                    self._told.set()
        self._told.set()


@contextmanager
def serve(app: str, *, cwd: Path = ROOT, env: Mapping[str, str] | None = None, options: str = "") -> Iterator[Server]:
    """Run a server for the length of a `with`; what is still running at its end is killed."""
    server = Server(app, cwd=cwd, env=env, options=options)
    try:
        yield server
    finally:
        server.kill()


def eventually(condition: Callable[[], object], *, seconds: float = 10) -> None:
    """Wait until `condition()` is true, and fail if it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not true within {seconds} s"
        Event().wait(0.02)
