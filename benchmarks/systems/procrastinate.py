"""Procrastinate, its worker in the event loop as its guide for FastAPI shows."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import procrastinate
from sqlmodel import Session
from starlette.background import BackgroundTask

from benchmarks.handlers import KINDS, chunks
from benchmarks.systems.base import System


class Procrastinate(System):
    """Finished rows are deleted at once, as hookware does."""

    package = "procrastinate"
    extra_packages = ("psycopg",)
    concurrency = 30

    async def install(self) -> None:
        """Make its tables and functions."""
        async with self._app().open_async() as app:
            await app.schema_manager.apply_schema_async()

    @asynccontextmanager
    async def opened(self, *, runs: bool) -> AsyncIterator[None]:
        """Open its pool, and let the worker run."""
        async with self._app().open_async() as app:
            self._open = app
            if not runs:
                yield
                return
            running = asyncio.create_task(
                app.run_worker_async(
                    concurrency=self.concurrency, delete_jobs="successful", install_signal_handlers=False
                )
            )
            yield
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def add(self, kind: str, keys: Sequence[str], delay_seconds: float = 0) -> None:
        """Store a thousand with one statement."""
        later = {"schedule_at": datetime.now(UTC) + timedelta(seconds=delay_seconds)} if delay_seconds else {}
        task = self._open.configure_task(kind, **later)
        for some in chunks(keys, 1000):
            if len(some) == 1:
                await task.defer_async(key=some[0])
            else:
                await task.batch_defer_async(*({"key": key} for key in some))

    def commit_with_task(self, session: Session, kind: str, key: str) -> BackgroundTask | None:
        """Store it after the commit: it does not join a session."""
        session.commit()
        anyio.from_thread.run(self._defer, kind, key)
        return None

    async def _defer(self, kind: str, key: str) -> None:
        await self._open.configure_task(kind).defer_async(key=key)

    def _app(self) -> procrastinate.App:
        connector = procrastinate.PsycopgConnector(conninfo=self.place.database, min_size=4, max_size=20)
        app, handlers = procrastinate.App(connector=connector), self.handlers

        async def noop(key: str) -> None:
            handlers.call("noop", key)

        async def stamp(key: str) -> None:
            handlers.call("stamp", key)

        async def hold(key: str) -> None:
            await handlers.hold()

        def increment(key: str) -> None:
            handlers.call("increment", key)

        for kind, function in zip(KINDS, (noop, increment, stamp, hold), strict=True):
            app.task(name=kind)(function)
        return app
