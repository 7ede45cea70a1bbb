"""Celery, on Redis, its worker in threads."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import celery
from celery.worker import WorkController
from sqlmodel import Session
from starlette.background import BackgroundTask

from benchmarks.systems.base import System


class CeleryThreads(System):
    """Without results; its heartbeat and its gossip are off, as one worker has nobody to tell."""

    package = "celery"
    extra_packages = ("redis",)
    schedules = False  # a worker holds them in its memory
    holds = False
    concurrency = 10

    @asynccontextmanager
    async def opened(self, *, runs: bool) -> AsyncIterator[None]:
        """Let a worker's threads run in this process."""
        app, handlers = celery.Celery("bench", broker=self.place.redis, set_as_current=False), self.handlers
        app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=100, task_acks_late=True)
        app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)

        @app.task(name="call")
        def call(kind: str, key: str) -> None:
            handlers.call(kind, key)

        self._call = call
        if not runs:
            yield
            app.close()
            return
        worker = WorkController(
            app=app,
            pool_cls="threads",
            concurrency=self.concurrency,
            hostname="bench@localhost",
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
            loglevel="ERROR",
        )
        thread = threading.Thread(target=worker.start, daemon=True)
        thread.start()
        yield
        await asyncio.to_thread(worker.stop)
        thread.join(10)
        app.close()

    async def add(self, kind: str, keys: Sequence[str], delay_seconds: float = 0) -> None:
        """Store one with each call, over one connection."""
        await asyncio.to_thread(self._add, kind, keys)

    def commit_with_task(self, session: Session, kind: str, key: str) -> BackgroundTask | None:
        """Store it after the commit: Redis takes no part in it."""
        session.commit()
        self._call.delay(kind, key)
        return None

    def _add(self, kind: str, keys: Sequence[str]) -> None:
        for key in keys:
            self._call.delay(kind, key)
