"""taskiq, on a stream of Redis, which keeps a task until it is acknowledged."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from sqlmodel import Session
from starlette.background import BackgroundTask
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from benchmarks.handlers import KINDS, chunks
from benchmarks.systems.base import System

_AT_ONCE = 50


class Taskiq(System):
    """Its receiver in the event loop; a thousand tasks at once, as it has no limit but this."""

    package = "taskiq"
    extra_packages = ("taskiq-redis", "redis")
    schedules = False  # a scheduler of its own would hold them
    concurrency = 1000

    @asynccontextmanager
    async def opened(self, *, runs: bool) -> AsyncIterator[None]:
        """Connect, and let the receiver run."""
        stream = RedisStreamBroker(self.place.redis)
        stream.is_worker_process = runs
        self._tasks = self._register(stream)
        await stream.startup()
        if runs:
            running = asyncio.create_task(
                run_receiver_task(stream, max_async_tasks=self.concurrency, max_prefetch=self.concurrency)
            )
            yield
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        else:
            yield
        await stream.shutdown()

    async def add(self, kind: str, keys: Sequence[str], delay_seconds: float = 0) -> None:
        """Store one with each call, some at once: it has no way to store several."""
        task = self._tasks[kind]
        for some in chunks(keys, _AT_ONCE):
            await asyncio.gather(*(task.kiq(key) for key in some))

    def commit_with_task(self, session: Session, kind: str, key: str) -> BackgroundTask | None:
        """Store it after the commit: Redis takes no part in it."""
        session.commit()
        anyio.from_thread.run(self._tasks[kind].kiq, key)
        return None

    def _register(self, stream: RedisStreamBroker) -> dict[str, Any]:
        handlers = self.handlers

        async def noop(key: str) -> None:
            handlers.call("noop", key)

        async def stamp(key: str) -> None:
            handlers.call("stamp", key)

        async def hold(_key: str) -> None:
            await handlers.hold()

        def increment(key: str) -> None:
            handlers.call("increment", key)

        functions = (noop, increment, stamp, hold)
        return {
            kind: stream.register_task(function, task_name=kind)
            for kind, function in zip(KINDS, functions, strict=True)
        }
