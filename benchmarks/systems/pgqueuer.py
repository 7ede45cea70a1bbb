"""PgQueuer, with asyncpg, the driver that its documentation uses first."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import asyncpg
import pgqueuer
from sqlmodel import Session
from starlette.background import BackgroundTask

from benchmarks.handlers import chunks
from benchmarks.systems.base import System


class PgQueuer(System):
    """Plain functions, by batches; the best size is tried out."""

    package = "pgqueuer"
    extra_packages = ("asyncpg",)
    batches = (100, 300, 1000)
    batch = 300

    async def install(self) -> None:
        """Make its tables and triggers."""
        connection = await asyncpg.connect(self.place.database)
        await pgqueuer.Queries.from_asyncpg_connection(connection).install()
        await connection.close()

    @asynccontextmanager
    async def opened(self, *, runs: bool) -> AsyncIterator[None]:
        """Add through a pool; run on a connection of its own."""
        async with asyncpg.create_pool(self.place.database, min_size=1, max_size=20) as pool:
            self._queries = pgqueuer.Queries(pgqueuer.AsyncpgPoolDriver(pool))
            if not runs:
                yield
                return
            connection = await asyncpg.connect(self.place.database)
            queue = pgqueuer.PgQueuer.from_asyncpg_connection(connection)
            self._register(queue)
            running = asyncio.create_task(
                queue.run(batch_size=self.batch, dequeue_timeout=timedelta(seconds=5), max_concurrent_tasks=None)
            )
            yield
            queue.shutdown.set()
            await running
            await connection.close()

    async def add(self, kind: str, keys: Sequence[str], delay_seconds: float = 0) -> None:
        """Store a thousand with one statement."""
        after = timedelta(seconds=delay_seconds)
        for some in chunks(keys, 1000):
            number = len(some)
            payloads: list[bytes | None] = [key.encode() for key in some]
            await self._queries.enqueue([kind] * number, payloads, [0] * number, [after] * number)

    def commit_with_task(self, session: Session, kind: str, key: str) -> BackgroundTask | None:
        """Store it after the commit: its driver wants a connection in autocommit, which no session has."""
        session.commit()
        anyio.from_thread.run(self._queries.enqueue, kind, key.encode())
        return None

    def _register(self, queue: pgqueuer.PgQueuer) -> None:
        handlers = self.handlers

        @queue.entrypoint("noop")
        async def noop(task: pgqueuer.Job) -> None:
            handlers.call("noop", (task.payload or b"").decode())

        @queue.entrypoint("stamp")
        async def stamp(task: pgqueuer.Job) -> None:
            handlers.call("stamp", (task.payload or b"").decode())

        @queue.entrypoint("hold")
        async def hold(_task: pgqueuer.Job) -> None:
            await handlers.hold()

        @queue.entrypoint("increment")
        async def increment(task: pgqueuer.Job) -> None:
            await asyncio.to_thread(handlers.call, "increment", (task.payload or b"").decode())
