"""hookware, through its task handlers and through routes of the app; on PostgreSQL and on SQLite."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar

from sqlmodel import Session
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from benchmarks.handlers import chunks, increment_in
from benchmarks.systems.base import System
from hookware import Hookware, TaskRouter, request_session, taskqueue
from hookware.taskqueue import MAX_TASKS_PER_ADD, Queue, Task
from tests.serving import serving

_TASKS_PER_COMMIT = 1000


class HookwareHandlers(System):
    """Tasks go to `@task_handler` functions; an increment and the task's end commit together."""

    package = "hookware"
    extra_packages = ("sqlalchemy", "psycopg", "starlette", "anyio")
    prefix: ClassVar[str] = "/task"

    async def install(self) -> None:
        """Let a first start make the tables."""
        async with self.opened(runs=False):
            pass

    @asynccontextmanager
    async def opened(self, *, runs: bool) -> AsyncIterator[None]:
        """Serve an app that has nothing else."""
        async with serving(self.wrap(Starlette(routes=self._routes()), runs=runs)):
            yield

    async def add(self, kind: str, keys: Sequence[str], delay_seconds: float = 0) -> None:
        """Store a thousand with one commit, as a synchronous route does: a session in a thread. A stamp goes alone."""
        if kind == "stamp":
            await taskqueue.add_async(url=f"{self.prefix}/{kind}", params={"key": keys[0]})
        else:
            await asyncio.to_thread(self._add, kind, keys, delay_seconds)

    def commit_with_task(self, session: Session, kind: str, key: str) -> BackgroundTask | None:
        """Join the session."""
        taskqueue.add(url=f"{self.prefix}/{kind}", params={"key": key}, session=session)
        session.commit()
        return None

    def wrap(self, app: ASGIApp, *, runs: bool) -> ASGIApp:
        """Be the middleware, with its own defaults but for the number of tasks at once."""
        if self.prefix != "/task" and isinstance(app, Starlette):
            app.router.routes.extend(self._routes())
        return Hookware(app, engine=self.engine, router=self._router(), dispatch=runs, concurrency=self.concurrency)

    def _add(self, kind: str, keys: Sequence[str], delay_seconds: float) -> None:
        url, countdown = f"{self.prefix}/{kind}", delay_seconds or None
        for some in chunks(keys, _TASKS_PER_COMMIT):
            with Session(self.engine) as session:
                for few in chunks(some, MAX_TASKS_PER_ADD):
                    tasks = [Task(url=url, params={"key": key}, countdown=countdown) for key in few]
                    Queue().add(tasks, session=session)
                session.commit()

    def _router(self) -> TaskRouter:
        router, handlers = TaskRouter(), self.handlers

        @router.task_handler("/task/noop")
        async def noop(key: str) -> None:
            handlers.call("noop", key)

        @router.task_handler("/task/stamp")
        async def stamp(key: str) -> None:
            handlers.call("stamp", key)

        @router.task_handler("/task/hold")
        async def hold(key: str) -> None:
            await handlers.hold()

        self._add_increment(router)
        return router

    def _add_increment(self, router: TaskRouter) -> None:
        handlers = self.handlers

        @router.task_handler("/task/increment")
        def increment(key: str, session: Session) -> None:
            handlers.begin()
            increment_in(session, key)
            handlers.note()

    def _routes(self) -> list[Route]:
        async def route(kind: str, request: Request) -> Response:
            key = str((await request.form())["key"])
            match kind:
                case "increment":
                    await run_in_threadpool(self._increment, key)
                case "hold":
                    await self.handlers.hold()
                case _:
                    self.handlers.call(kind, key)
            return Response()

        def endpoint(kind: str) -> Any:
            return partial(route, kind)

        kinds = ("noop", "stamp", "hold", "increment")
        return [Route(f"/route/{kind}", endpoint(kind), methods=["POST"]) for kind in kinds]

    def _increment(self, key: str) -> None:
        self.handlers.begin()
        increment_in(request_session(), key)
        self.handlers.note()


class HookwarePlain(HookwareHandlers):
    """An increment commits in a session of its own, as the peers have it: it may happen twice, and ends by batches."""

    def _add_increment(self, router: TaskRouter) -> None:
        handlers = self.handlers

        @router.task_handler("/task/increment")
        def increment(key: str) -> None:
            handlers.call("increment", key)


class HookwareRoutes(HookwareHandlers):
    """Tasks go to Starlette routes that read their form."""

    prefix = "/route"


class HookwareSqliteHandlers(HookwareHandlers):
    """The same on a file of SQLite, synchronous=FULL."""


class HookwareSqliteRoutes(HookwareRoutes):
    """The same on a file of SQLite, synchronous=FULL."""
