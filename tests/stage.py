"""A whole Hookware for one test: on its database, with handlers of its own, and a second connection that looks."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import Field, SQLModel
from starlette.types import ASGIApp

from hookware import Hookware, TaskHandler, TaskRetryOptions, TaskRouter
from hookware.events import AttemptSettled
from hookware.store.base import TaskInfo
from tests.databases import Database
from tests.serving import Recorder, serving

AT_ONCE = TaskRetryOptions(min_backoff_seconds=0)
"""Try again without a wait."""


class Tally(SQLModel, table=True):
    """The effect of the handlers in these tests."""

    __tablename__ = "tally"

    key: str = Field(primary_key=True)
    count: int = 0


class Stage:
    """Everything that one test of a running Hookware needs; `engine_options` are for the user's engines.

    `hookware` and `recorder` are those of the latest Hookware that was made here.
    """

    def __init__(self, database: Database, *, is_async: bool = False, **engine_options: Any) -> None:
        self.database = database
        self.sync_engine = database.engine(**engine_options)
        SQLModel.metadata.create_all(self.sync_engine, tables=[SQLModel.metadata.tables["tally"]])
        self.async_engine = database.async_engine(**engine_options) if is_async else None
        self.router = TaskRouter()
        self.hookware: Hookware
        self.recorder: Recorder
        self._look = database.look()

    @property
    def path(self) -> Path:
        """The file of a SQLite database."""
        return Path(str(self.database.url.database))

    @property
    def engine(self) -> Engine | AsyncEngine:
        return self.async_engine or self.sync_engine

    def task_handler(self, url: str, *, public: bool = False) -> Callable[[Callable[..., Any]], TaskHandler[..., Any]]:
        """Register a handler, whatever its signature."""
        return cast(
            "Callable[[Callable[..., Any]], TaskHandler[..., Any]]", self.router.task_handler(url, public=public)
        )

    def made(self, hookware: Hookware) -> None:
        self.hookware, self.recorder = hookware, Recorder(hookware)

    def make(self, app: ASGIApp | None = None, **options: Any) -> Hookware:
        """Wrap an app, or none."""
        hookware = Hookware(app, engine=self.engine, router=self.router, **options)
        self.made(hookware)
        return hookware

    def add_to(self, app: Any, **options: Any) -> None:
        """Add Hookware to a Starlette or FastAPI app; the one that this makes is `hookware` once the app runs."""
        stage = self

        class Noted(Hookware):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                stage.made(self)

        app.add_middleware(Noted, engine=self.engine, router=self.router, **options)

    @asynccontextmanager
    async def running(self, app: ASGIApp | None = None, **options: Any) -> AsyncIterator[Hookware]:
        """Wrap an app and hold it between start-up and shutdown."""
        hookware = self.make(app, **options)
        async with serving(hookware):
            yield hookware

    async def settled(self, count: int = 1) -> list[AttemptSettled]:
        """Wait until so many attempts are settled."""
        return await self.recorder.wait_settled(count)

    async def dead(self) -> TaskInfo:
        """Wait for the next attempt's end; give the one task that there is, which is dead."""
        await self.settled()
        (task,) = await self.hookware.inspector.list_tasks()
        assert task.state.name == "DEAD", task
        return task

    # What another connection sees.

    def rows(self, sql: str, *values: object) -> list[Any]:
        """Ask the database through the second connection; a single column comes without its tuple."""
        return self._look.rows(sql, *values)

    def execute(self, sql: str, *values: object) -> None:
        """Change the database through the second connection."""
        self._look.execute(sql, *values)

    def tally(self) -> dict[str, int]:
        """Give the committed effects."""
        return dict(self.rows("SELECT key, count FROM tally"))

    def task_count(self) -> int:
        """Count the stored tasks."""
        return int(self.rows("SELECT count(*) FROM hookware_task")[0])

    def raise_fences(self) -> None:
        """Claim every task away from whoever holds it, behind his back."""
        self._look.execute("UPDATE hookware_task SET fence = fence + 1")

    def put_back(self, *, dead: bool = False) -> None:
        """Take every lease away, as if it had ended and its task been found, for tomorrow or as dead."""
        self._look.execute(
            "UPDATE hookware_task SET state = ?, owner = NULL, lease_until_us = NULL, eta_us = eta_us + 86400000000",
            2 if dead else 0,
        )

    def close_blocking(self) -> None:
        """Do so where there is no AsyncEngine."""
        self._look.close()
        self.sync_engine.dispose()

    async def close(self) -> None:
        """Give every connection back."""
        self.close_blocking()
        if self.async_engine is not None:
            await self.async_engine.dispose()
