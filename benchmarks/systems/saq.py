"""SAQ, on PostgreSQL and on Redis."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
import saq
from sqlmodel import Session
from starlette.background import BackgroundTask

from benchmarks.handlers import KINDS, chunks
from benchmarks.systems.base import System

_AT_ONCE = 20


class SaqPostgresql(System):
    """Its own pool of connections, and a worker in the event loop."""

    package = "saq"
    extra_packages: ClassVar[tuple[str, ...]] = ("psycopg",)
    concurrency = 50

    async def install(self) -> None:
        """Let its first connection make the tables."""
        async with self.opened(runs=False):
            pass

    @asynccontextmanager
    async def opened(self, *, runs: bool) -> AsyncIterator[None]:
        """Connect, and let the worker run."""
        self._queue = saq.Queue.from_url(self._url(), **self._options())
        await self._queue.connect()
        if runs:
            worker = saq.Worker(self._queue, self._functions(), concurrency=self.concurrency)
            running = asyncio.create_task(worker.start())
            yield
            await worker.stop()
            await asyncio.gather(running, return_exceptions=True)
        else:
            yield
        await self._queue.disconnect()

    async def add(self, kind: str, keys: Sequence[str], delay_seconds: float = 0) -> None:
        """Store one with each call, some at once: it has no way to store several."""
        given = {"scheduled": round(time.time() + delay_seconds)} if delay_seconds else {}
        for some in chunks(keys, _AT_ONCE):
            await asyncio.gather(*(self._queue.enqueue(kind, key_of=key, **given) for key in some))

    def commit_with_task(self, session: Session, kind: str, key: str) -> BackgroundTask | None:
        """Store it after the commit: it does not join a session."""
        session.commit()
        anyio.from_thread.run(self._enqueue, kind, key)
        return None

    async def _enqueue(self, kind: str, key: str) -> None:
        await self._queue.enqueue(kind, key_of=key)

    def _url(self) -> str:
        return self.place.database

    def _options(self) -> dict[str, Any]:
        return {"min_size": 4, "max_size": 20}

    def _functions(self) -> list[tuple[str, Any]]:
        handlers = self.handlers

        async def noop(_context: object, *, key_of: str) -> None:
            handlers.call("noop", key_of)

        async def stamp(_context: object, *, key_of: str) -> None:
            handlers.call("stamp", key_of)

        async def hold(_context: object, *, key_of: str) -> None:
            await handlers.hold()

        async def increment(_context: object, *, key_of: str) -> None:
            await asyncio.to_thread(handlers.call, "increment", key_of)

        return list(zip(KINDS, (noop, increment, stamp, hold), strict=True))


class SaqRedis(SaqPostgresql):
    """Its queue on Redis."""

    extra_packages = ("redis",)

    def _url(self) -> str:
        return self.place.redis

    def _options(self) -> dict[str, Any]:
        return {}
