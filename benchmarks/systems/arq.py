"""arq, on Redis."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import arq
from arq.connections import RedisSettings
from sqlmodel import Session
from starlette.background import BackgroundTask

from benchmarks.handlers import KINDS, chunks
from benchmarks.systems.base import System

_AT_ONCE = 50


class Arq(System):
    """Without results, and with a worker that asks a hundred times a second in place of twice."""

    package = "arq"
    extra_packages = ("redis",)
    concurrency = 100

    @asynccontextmanager
    async def opened(self, *, runs: bool) -> AsyncIterator[None]:
        """Connect, and let the worker run."""
        settings = RedisSettings.from_dsn(self.place.redis)
        self._pool = await arq.create_pool(settings)
        if not runs:
            yield
            await self._pool.aclose()
            return
        worker = arq.Worker(
            functions=self._functions(),
            redis_settings=settings,
            max_jobs=self.concurrency,
            poll_delay=0.01,
            keep_result=0,
            handle_signals=False,
        )
        running = asyncio.create_task(worker.async_run())
        yield
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await asyncio.gather(worker.close(), return_exceptions=True)  # it hands its own cancellation on
        await self._pool.aclose()

    async def add(self, kind: str, keys: Sequence[str], delay_seconds: float = 0) -> None:
        """Store one with each call, some at once: it has no way to store several."""
        after = timedelta(seconds=delay_seconds) if delay_seconds else None
        for some in chunks(keys, _AT_ONCE):
            await asyncio.gather(*(self._pool.enqueue_job(kind, key, _defer_by=after) for key in some))

    def commit_with_task(self, session: Session, kind: str, key: str) -> BackgroundTask | None:
        """Store it after the commit: Redis takes no part in it."""
        session.commit()
        anyio.from_thread.run(self._pool.enqueue_job, kind, key)
        return None

    def _functions(self) -> list[arq.worker.Function]:
        handlers = self.handlers

        async def noop(_context: object, key: str) -> None:
            handlers.call("noop", key)

        async def stamp(_context: object, key: str) -> None:
            handlers.call("stamp", key)

        async def hold(_context: object, _key: str) -> None:
            await handlers.hold()

        async def increment(_context: object, key: str) -> None:
            await asyncio.to_thread(handlers.call, "increment", key)

        functions = (noop, increment, stamp, hold)
        return [arq.func(function, name=kind) for kind, function in zip(KINDS, functions, strict=True)]
