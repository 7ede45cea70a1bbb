"""huey on SQLite, in threads, synchronous=FULL as with hookware."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import huey
from sqlmodel import Session
from starlette.background import BackgroundTask

from benchmarks.systems.base import System


class Huey(System):
    """Without results, and with workers that hardly sleep."""

    package = "huey"
    holds = False
    concurrency = 1

    @asynccontextmanager
    async def opened(self, *, runs: bool) -> AsyncIterator[None]:
        """Let the consumer's threads run in this process."""
        logging.getLogger("huey").setLevel(logging.ERROR)
        path = self.place.database.removeprefix("sqlite:///") + ".huey"
        queue = huey.SqliteHuey(filename=path, fsync=True, results=False, journal_mode="wal")
        handlers = self.handlers

        @queue.task(name="call")
        def call(kind: str, key: str) -> None:
            handlers.call(kind, key)

        self._call = call
        if not runs:
            yield
            return
        consumer = queue.create_consumer(
            workers=self.concurrency, periodic=False, initial_delay=0.001, max_delay=0.01, check_worker_health=False
        )
        consumer.start()
        yield
        await asyncio.to_thread(consumer.stop, graceful=True)

    async def add(self, kind: str, keys: Sequence[str], delay_seconds: float = 0) -> None:
        """Store one after the other: it has no way to store several."""
        await asyncio.to_thread(self._add, kind, keys, delay_seconds)

    def commit_with_task(self, session: Session, kind: str, key: str) -> BackgroundTask | None:
        """Store it after the commit: it has a file of its own."""
        session.commit()
        self._call(kind, key)
        return None

    def _add(self, kind: str, keys: Sequence[str], delay_seconds: float) -> None:
        for key in keys:
            if delay_seconds:
                self._call.schedule((kind, key), delay=delay_seconds)
            else:
                self._call(kind, key)
