"""Engines that are kept from one simulated process to the next, with the statements they have compiled.

Connections are never kept: each process opens its own, and loses them all when it dies.
"""

import asyncio
import atexit
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hookware.store.sql import schema
from hookware.store.sql.engines import configured
from verification.simulation.inline import InlineConnection

_SCHEMA = """
CREATE TABLE sim_effect (
    id INTEGER PRIMARY KEY, task INTEGER NOT NULL, fence INTEGER NOT NULL,
    stands_on INTEGER REFERENCES sim_effect DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE sim_order (
    task INTEGER NOT NULL, with_task BOOLEAN NOT NULL,
    stands_on INTEGER REFERENCES sim_effect DEFERRABLE INITIALLY DEFERRED
);
"""
NOTHING = -1
"""No row has this number: a row that stands on it is refused when it is to be committed."""


def _refuse() -> sqlite3.Connection:
    raise sqlite3.OperationalError("the process is gone")


GONE = create_engine("sqlite:///gone.db", creator=_refuse)
"""The engine of a process that has died."""


class Holder:
    """Who has connections open to a file. This one is warming up: nothing takes time, and nothing fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inline: list[InlineConnection] = []
        self._raw: list[sqlite3.Connection] = []

    @property
    def holds_lock(self) -> bool:
        """Whether it is in a transaction."""
        return any(connection.in_transaction for connection in self._inline)

    def cut_connections(self) -> None:
        """Close everything, whatever runs: what was not committed is gone."""
        for connection in list(self._inline):
            connection.cut()
        for raw in self._raw:
            raw.close()

    def connect(self) -> sqlite3.Connection:
        """Open a connection for what is synchronous."""
        connection = connect(self.path)
        self._raw.append(connection)
        return connection

    def opened(self, connection: InlineConnection) -> None:
        self._inline.append(connection)

    def closed(self, connection: InlineConnection) -> None:
        self._inline.remove(connection)

    async def before(self, connection: InlineConnection, what: str) -> None:
        """Let it be."""

    async def after(self, connection: InlineConnection, what: str) -> None:
        """Let it be."""

    def waits(self) -> Iterator[float]:
        yield from ()


class Engines:
    """The engines of one process at a time: the app's, hookware's own, and the one of the heartbeat's thread."""

    def __init__(self) -> None:
        self.holder: Holder
        self.app = self._async_engine(by_app=True)
        self.own = self._async_engine(by_app=False)
        configured(self.own.sync_engine)
        self.renewing = configured(create_engine("sqlite:///simulated.db", creator=lambda: self.holder.connect()))
        event.listen(self.renewing, "checkout", _never_wait)
        # An engine's first connection asks more of the database than later ones: every world is to meet the same.
        warming_up = threading.Thread(target=asyncio.run, args=(self._warm_up(),))
        warming_up.start()
        warming_up.join()

    def serve(self, holder: Holder) -> None:
        """Be the engines of this process from now on."""
        for engine in (self.app.sync_engine, self.own.sync_engine, self.renewing):
            engine.dispose(close=False)  # what the last process has opened since its end
        self.holder = holder

    def _async_engine(self, *, by_app: bool) -> AsyncEngine:
        def creator(*_args: object, **_options: object) -> InlineConnection:
            holder = self.holder
            return InlineConnection(lambda: connect(holder.path), holder, by_app=by_app)

        return create_async_engine("sqlite+aiosqlite:///simulated.db", async_creator=creator)

    async def _warm_up(self) -> None:
        self.serve(Holder(template()))
        for engine in (self.app, self.own):
            async with engine.connect():
                pass
        with self.renewing.connect():
            pass
        self.holder.cut_connections()


@cache
def template() -> Path:
    """Make a file with all tables, once for all worlds."""
    directory = tempfile.TemporaryDirectory(prefix="hookware-simulation-")
    atexit.register(directory.cleanup)
    path = Path(directory.name) / "template.db"
    engine = configured(create_engine(f"sqlite:///{path}"))
    with engine.begin() as connection:
        schema.make_tables(connection)
    engine.dispose()
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(_SCHEMA)
    return path


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection that waits for no lock."""
    # Of a process that was killed the collector may close what is left, in whatever thread it runs.
    connection = sqlite3.connect(path, timeout=0, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = OFF")  # what dies here are processes, never the machine
    return connection


def _never_wait(connection: sqlite3.Connection, _record: object, _proxy: object) -> None:
    connection.execute("PRAGMA busy_timeout = 0")
