"""DBOS, a workflow for each task, by a queue in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import dbos
from sqlmodel import Session
from starlette.background import BackgroundTask

from benchmarks.handlers import KINDS
from benchmarks.systems.base import System

_QUEUE = "bench"


class Dbos(System):
    """Its queue is asked twenty times a second in place of once; what adds is its client."""

    package = "dbos"
    extra_packages = ("sqlalchemy", "psycopg")
    concurrency = 100

    async def install(self) -> None:
        """Let its first start make the tables."""
        async with self.opened(runs=True):
            pass

    @asynccontextmanager
    async def opened(self, *, runs: bool) -> AsyncIterator[None]:
        """Connect its client, and launch it."""
        url = self.place.database.replace("postgresql://", "postgresql+psycopg://")
        if runs:
            await asyncio.to_thread(self._launch, url)
        self._client = await asyncio.to_thread(lambda: dbos.DBOSClient(system_database_url=url))
        yield
        await asyncio.to_thread(self._client.destroy)
        if runs:
            await asyncio.to_thread(dbos.DBOS.destroy)

    async def add(self, kind: str, keys: Sequence[str], delay_seconds: float = 0) -> None:
        """Store one with each call: it has no way to store several."""
        await asyncio.to_thread(self._add, kind, keys, delay_seconds)

    def commit_with_task(self, session: Session, kind: str, key: str) -> BackgroundTask | None:
        """Join the session."""
        self._client.enqueue_in_transaction(session, self._options(kind), key)
        session.commit()
        return None

    def _add(self, kind: str, keys: Sequence[str], delay_seconds: float) -> None:
        options = self._options(kind)
        if delay_seconds:
            options["delay_seconds"] = delay_seconds
        for key in keys:
            self._client.enqueue(options, key)

    def _options(self, kind: str) -> Any:
        return {"workflow_name": kind, "queue_name": _QUEUE}

    def _launch(self, url: str) -> None:
        handlers = self.handlers
        dbos.DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR", "sys_db_pool_size": 20})

        async def noop(key: str) -> None:
            handlers.call("noop", key)

        async def stamp(key: str) -> None:
            handlers.call("stamp", key)

        async def hold(key: str) -> None:
            await handlers.hold()

        def increment(key: str) -> None:
            handlers.call("increment", key)

        for kind, function in zip(KINDS, (noop, increment, stamp, hold), strict=True):
            dbos.DBOS.workflow(name=kind)(function)
        dbos.DBOS.launch()
        dbos.DBOS.register_queue(_QUEUE, worker_concurrency=self.concurrency, polling_interval_sec=0.05)
