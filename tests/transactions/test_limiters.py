"""More requests than threads: who waits for a connection or for SQLite's writer never stops the one who has it."""

from typing import Any

import anyio
import pytest
from sqlalchemy import text
from sqlmodel import Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hookware import request_session, taskqueue
from hookware.core.lifecycle import Complete
from hookware.store.sql import sqlite
from tests.asgi import request
from tests.databases import EVERY_DATABASE_ON_A_LOOP, Database
from tests.stage import Stage, Tally

COUNT = 45  # there are 40 threads to commit in


class Site:
    """An app whose pages add a task, the one with a session that it holds on to before."""

    def __init__(self) -> None:
        self.inside = 0
        self.changed = anyio.Event()
        self.go_on = anyio.Event()
        self.statuses: list[int] = []
        pages = (("/hold", self.hold), ("/add", self.add))
        self.app = Starlette(routes=[Route(path, page, methods=["POST"]) for path, page in pages])

    async def hold(self, request: Request) -> PlainTextResponse:
        request_session().execute(text("SELECT 1"))
        self.entered()
        await self.go_on.wait()
        return await self.add(request)

    async def add(self, _request: Request) -> PlainTextResponse:
        taskqueue.add(url="/worker", countdown=3600)
        return PlainTextResponse("added")

    def entered(self) -> None:
        self.inside += 1
        self.changed.set()

    async def all_inside(self, count: int) -> None:
        while self.inside < count:
            self.changed = anyio.Event()
            await self.changed.wait()

    async def get(self, app: Any, path: str) -> None:
        self.statuses.append((await request(app, path)).status)


@pytest.mark.slow
@EVERY_DATABASE_ON_A_LOOP
async def test_requests_that_wait_for_a_connection_let_those_commit_that_have_one(database: Database) -> None:
    site, stage = Site(), Stage(database, pool_size=2, max_overflow=0, pool_timeout=2)
    async with stage.running(site.app, dispatch=False) as hookware, anyio.create_task_group() as requests:
        for _ in range(2):
            requests.start_soon(site.get, hookware, "/hold")
        await site.all_inside(2)
        for _ in range(COUNT):
            requests.start_soon(site.get, hookware, "/add")
        await anyio.wait_all_tasks_blocked()
        site.go_on.set()
    assert site.statuses == [200] * (COUNT + 2)
    await stage.close()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/add", "/hold"])
async def test_requests_that_wait_for_their_turn_to_write_let_the_writer_commit(
    database: Database, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 2000)
    site, writing, may_end = Site(), anyio.Event(), anyio.Event()
    stage = Stage(database, pool_size=COUNT + 5)

    @stage.task_handler("/write")
    async def write(session: Session) -> None:
        session.add(Tally(key="written"))
        session.flush()
        writing.set()
        await may_end.wait()

    async with stage.running(site.app) as hookware, anyio.create_task_group() as requests:
        await taskqueue.add_async(url="/write")
        with anyio.fail_after(5):
            await writing.wait()
        for _ in range(COUNT):
            requests.start_soon(site.get, hookware, path)
        if path == "/hold":
            await site.all_inside(COUNT)
            site.go_on.set()
        await anyio.wait_all_tasks_blocked()
        may_end.set()
        (settled,) = await stage.settled()
    assert isinstance(settled.decision, Complete)
    assert site.statuses == [200] * COUNT
    await stage.close()
