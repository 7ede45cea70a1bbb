"""The one interface that every system is measured through."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

from sqlmodel import Session
from starlette.background import BackgroundTask
from starlette.types import ASGIApp

from benchmarks.handlers import Handlers, engine_of, make_tables


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a system works: a database of its own, and the Redis that it has for itself."""

    database: str
    redis: str = ""


class System:
    """One way to run tasks, in one process.

    Attributes:
        package: the distribution whose version is stated, and the name of its environment.
        extra_packages: others that matter.
        schedules: it takes tasks for tomorrow.
        holds: it can have a thousand tasks in flight in one process.
        concurrency: tasks at once.
        batch: how many it fetches at once; 0 where there is no such setting.
        batches: the sizes to choose the best from.
    """

    package: ClassVar[str] = ""
    extra_packages: ClassVar[tuple[str, ...]] = ()
    schedules: ClassVar[bool] = True
    holds: ClassVar[bool] = True
    batches: ClassVar[tuple[int, ...]] = ()
    concurrency: int = 100
    batch: int = 0

    def __init__(self, place: Place) -> None:
        self.place = place
        self.engine = engine_of(place.database)
        self.handlers = Handlers(self.engine)

    async def install(self) -> None:
        """Make the tables that it needs, once for a database."""

    @asynccontextmanager
    async def opened(self, *, runs: bool) -> AsyncIterator[None]:
        """Be ready to add tasks, and with `runs` run them, too."""
        yield

    async def add(self, kind: str, keys: Sequence[str], delay_seconds: float = 0) -> None:
        """Store tasks, one for each key, in the fastest way that its documentation shows."""
        raise NotImplementedError

    def commit_with_task(self, session: Session, kind: str, key: str) -> BackgroundTask | None:
        """Commit a request's session and store a task, in one transaction if it can; called in a thread."""
        raise NotImplementedError

    def wrap(self, app: ASGIApp, *, runs: bool) -> ASGIApp:
        """Put it around a web app; most only need to be open meanwhile."""
        return app

    async def prepare(self) -> None:
        """Make all tables in an empty database."""
        make_tables(self.engine)
        await self.install()
