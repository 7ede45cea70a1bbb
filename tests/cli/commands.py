"""A folder with a database, and the commands that a test runs on it; none of them outlives the test."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from sqlmodel import Session, SQLModel, create_engine

from hookware import Hookware, taskqueue
from tests.running import ROOT, Server, eventually, serve

APP = "tests.cli.app:app"
STARTED = "hookware: 3 task handlers"


class Command:
    """`hookware ...` as a process of its own."""

    def __init__(self, arguments: tuple[str, ...], cwd: Path, environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hookware", *arguments],
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = Thread(target=self._read)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said so far."""
        return "".join(self.lines)

    def says(self, words: str) -> None:
        """Wait until it has said these words."""
        eventually(lambda: words in self.log or self._process.poll() is not None, seconds=30)
        assert words in self.log or words in self.ended()[1], self.log

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def ended(self) -> tuple[int, str]:
        """Wait for its end; give the status, and what it has said."""
        status = self._process.wait(timeout=100)
        self._reader.join(timeout=100)
        return status, self.log

    def kill(self) -> None:
        """Pull the plug."""
        self._process.kill()
        self.ended()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.lines.append(line)


class Site:
    """A folder with a database, and what the processes on it have noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[Command] = []
        self._engine = create_engine(f"sqlite:///{folder / 'app.db'}")
        self._hookware = Hookware(engine=self._engine, dispatch=False)
        SQLModel.metadata.create_all(self._engine)

    def environment(self, **options: Any) -> dict[str, str]:
        """Give the environment of a process."""
        return {"TEST_FOLDER": str(self.folder), "TEST_OPTIONS": json.dumps({"poll_seconds": 0.1, **options})}

    def start(self, *arguments: str, cwd: Path = ROOT, **options: Any) -> Command:
        """Start `hookware ...`; `options` are Hookware's."""
        command = Command(arguments, cwd, {**os.environ, "PYTHONPATH": str(ROOT), **self.environment(**options)})
        self.commands.append(command)
        return command

    def dispatch(self, *arguments: str, **options: Any) -> Command:
        """Start `hookware dispatch` on the app, and wait until it runs tasks."""
        command = self.start("dispatch", APP, *arguments, **options)
        command.says(STARTED)
        return command

    @contextmanager
    def web(self, **environment: str) -> Iterator[Server]:
        """Serve the app."""
        with serve(APP, env={**self.environment(), **environment}) as server:
            yield server

    def add(self, url: str, *, countdown: float = 0, **params: Any) -> None:
        """Commit a task, as any process of the app may."""
        with Session(self._engine) as session:
            taskqueue.add(url=url, params=params, countdown=countdown, session=session)
            session.commit()

    def release(self) -> None:
        """Let handlers that hold go on."""
        (self.folder / "release").touch()

    def notes(self, what: str) -> list[int]:
        """Give the process ids under which something was noted."""
        path = self.folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == what]

    def tasks(self) -> list[tuple[int, str | None, int]]:
        """Give the state, owner and attempts of the stored tasks."""
        with closing(sqlite3.connect(self.folder / "app.db", timeout=10)) as connection:
            return connection.execute("SELECT state, owner, attempt_count FROM hookware_task ORDER BY id").fetchall()

    def close(self) -> None:
        """Kill what still runs."""
        for command in self.commands:
            command.kill()
        self._engine.dispose()
