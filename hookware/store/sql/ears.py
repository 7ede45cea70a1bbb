"""Connections that listen to PostgreSQL's channels, for each kind of driver.

They wait on the event loop, asyncio's or trio's, and take what has come without ever blocking it. They are outside of
every pool: what is listened to belongs to the connection.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol, cast

import anyio
from anyio import CapacityLimiter, to_thread
from sqlalchemy import Engine

from hookware.store.notices import Ear, Heard
from hookware.store.sql.runner import LIMIT_SECONDS

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Connection
    from psycopg.pq.abc import PGconn
    from sqlalchemy.ext.asyncio import AsyncEngine

Meaning = Callable[[str, str], Heard | None]
"""Says what a notification is, by its channel and its payload; None: not for this process."""

Listening = Callable[[Sequence[str], Meaning], AbstractAsyncContextManager[Ear]]
"""Opens a connection that listens to channels, and holds it."""


def listening_of(engine: "Engine | AsyncEngine") -> Listening:
    """Give the way to listen with an engine's driver."""
    if isinstance(engine, Engine):
        return _psycopg_in_a_thread(engine)
    return _psycopg(engine) if engine.dialect.driver.startswith("psycopg") else _asyncpg(engine)


def _psycopg_in_a_thread(engine: Engine) -> Listening:
    @asynccontextmanager
    async def listening(channels: Sequence[str], meaning: Meaning) -> AsyncIterator[Ear]:
        # The driver's own objects: dropped while it is open, a connection complains.
        to_close: deque[Connection] = deque()
        given_up = False

        def connect() -> "Connection":
            pooled = engine.raw_connection()
            connection = cast("Connection", pooled.driver_connection)
            pooled.detach()
            try:
                connection.autocommit = True
                connection.execute(_listen(channels))
            finally:
                to_close.append(connection)
                if given_up:  # nobody waits for it any more
                    _close(to_close)
            return connection

        try:
            with anyio.fail_after(LIMIT_SECONDS):
                connection = await to_thread.run_sync(connect, limiter=CapacityLimiter(1), abandon_on_cancel=True)
            yield _LibpqEar(connection.pgconn, meaning)
        finally:
            given_up = True
            _close(to_close)

    return listening


def _psycopg(engine: "AsyncEngine") -> Listening:
    @asynccontextmanager
    async def listening(channels: Sequence[str], meaning: Meaning) -> AsyncIterator[Ear]:
        connection = cast("AsyncConnection", await _driver_connection(engine))
        try:
            with anyio.fail_after(LIMIT_SECONDS):
                await connection.set_autocommit(True)
                await connection.execute(_listen(channels))
            yield _LibpqEar(connection.pgconn, meaning)
        finally:
            connection.pgconn.finish()

    return listening


def _asyncpg(engine: "AsyncEngine") -> Listening:
    @asynccontextmanager
    async def listening(channels: Sequence[str], meaning: Meaning) -> AsyncIterator[Ear]:
        connection = cast("_AsyncpgConnection", await _driver_connection(engine))
        try:
            ear = _AsyncpgEar(connection, meaning)
            with anyio.fail_after(LIMIT_SECONDS):
                for channel in channels:
                    await connection.add_listener(channel, ear.notified)
            yield ear
        finally:
            connection.terminate()

    return listening


async def _driver_connection(engine: "AsyncEngine") -> object:
    with anyio.fail_after(LIMIT_SECONDS):
        pooled = await engine.raw_connection()
    connection: object = pooled.driver_connection
    pooled.detach()
    return connection


def _close(connections: "deque[Connection]") -> None:
    """Close connections, while another thread may do the same."""
    with suppress(IndexError):
        while True:
            connection = connections.popleft()  # held until it is closed: the driver complains of one that is dropped
            connection.pgconn.finish()


def _listen(channels: Sequence[str]) -> bytes:
    return "; ".join(f'LISTEN "{channel}"' for channel in channels).encode()


class _LibpqEar:
    """Hears by libpq's own calls, which do not block."""

    def __init__(self, connection: "PGconn", meaning: Meaning) -> None:
        self._connection = connection
        self._meaning = meaning

    async def hear(self) -> frozenset[Heard]:
        """Wait until something is heard."""
        while not (heard := self._take()):
            await anyio.wait_readable(self._connection.socket)
        return heard

    def _take(self) -> frozenset[Heard]:
        heard = set()
        self._connection.consume_input()
        while (notification := self._connection.notifies()) is not None:
            heard.add(self._meaning(notification.relname.decode(), notification.extra.decode()))
        return frozenset(what for what in heard if what is not None)


class _AsyncpgConnection(Protocol):
    """What is used of asyncpg's connections, which come without types."""

    async def add_listener(self, channel: str, callback: Callable[[object, int, str, str], None]) -> None: ...

    def add_termination_listener(self, callback: Callable[[object], None]) -> None: ...

    def terminate(self) -> None: ...


class _AsyncpgEar:
    """Hears by asyncpg's callbacks."""

    def __init__(self, connection: _AsyncpgConnection, meaning: Meaning) -> None:
        self._meaning = meaning
        self._heard: set[Heard] = set()
        self._lost = False
        self._something = anyio.Event()
        connection.add_termination_listener(self._terminated)

    async def hear(self) -> frozenset[Heard]:
        """Wait until something is heard."""
        await self._something.wait()
        self._something = anyio.Event()
        if self._lost:
            raise ConnectionError("the connection was closed")
        heard, self._heard = self._heard, set()
        return frozenset(heard)

    def notified(self, _connection: object, _pid: int, channel: str, payload: str) -> None:
        what = self._meaning(channel, payload)
        if what is not None:
            self._heard.add(what)
            self._something.set()

    def _terminated(self, _connection: object) -> None:
        self._lost = True
        self._something.set()
