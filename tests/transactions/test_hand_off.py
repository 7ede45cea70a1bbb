"""A task that is committed where a slot is free begins there without a claim, whichever way it is committed."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import to_thread
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookware import Hookware, async_request_session, request_session, taskqueue
from hookware.core.queue import QueueSettings
from hookware.env import Env
from hookware.events import TasksCommitted
from hookware.processing import Processing
from hookware.taskqueue import Queue, Task
from tests.asgi import request
from tests.databases import (
    EVERY_ASYNC_DRIVER,
    EVERY_DATABASE_ON_A_LOOP,
    POSTGRESQL_ON_A_LOOP,
    Database,
    refuse_at_commit,
)
from tests.stage import Stage

HARDLY_EVER = 3600.0
_ROW = (
    "SELECT state, fence >= 1048576, attempt_count, eta_us = created_us, first_attempt_us - eta_us FROM hookware_task"
)


class CountingEnv(Env):
    """The real world, with a count of what is passed."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: Counter[str] = Counter()

    def fp(self, name: str) -> None:
        self.passed[name] += 1


class Scene:
    """A stage whose handler goes on until `go_on` is set."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.env, self.go_on = stage, CountingEnv(), anyio.Event()
        self.inside = self.most_inside = 0
        stage.task_handler("/held")(self._held)
        stage.task_handler("/adding")(self._adding)

    async def _held(self) -> None:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await self.go_on.wait()
        finally:
            self.inside -= 1

    async def _adding(self) -> None:
        taskqueue.add(url="/held")

    @asynccontextmanager
    async def running(self, route: Callable[..., Any] | None = None, **options: Any) -> AsyncIterator[Hookware]:
        """Run until nothing is to be claimed; then look."""
        app = Starlette(routes=[] if route is None else [Route("/order", route, methods=["POST"])])
        given = {"poll_seconds": HARDLY_EVER, "foreground_first": False, "env": self.env, **options}
        async with self.stage.running(app, **given) as hookware:
            await self.until(lambda: self._is_up)
            await anyio.wait_all_tasks_blocked()
            await self.until(lambda: self.offers)
            self.env.passed.clear()
            yield hookware
            self.go_on.set()

    @property
    def _is_up(self) -> bool:
        """Whether all has been done that a process does at its start, and wakes its dispatcher."""
        processing = self.stage.hookware._loops.processing
        assert isinstance(processing, Processing)
        listener = processing._listener
        return processing._reaper.has_reaped and (listener is None or listener.hears)

    @property
    def offers(self) -> bool:
        """Whether a slot could be taken now."""
        outbox = self.stage.hookware._outbox
        place = None if outbox.hand_off is None else outbox.hand_off.place_for("default", 1)
        if place is not None:
            place.forget()
        return place is not None

    async def until(self, condition: Callable[[], object]) -> None:
        with anyio.fail_after(20):
            while not condition():
                await to_thread.run_sync(lambda: None)

    async def until_inside(self, count: int) -> None:
        await self.until(lambda: self.inside == count)

    def assert_handed(self) -> None:
        """See that the one task runs that there is, and was never claimed."""
        assert self.env.passed["claim.before"] == 0, self.env.passed
        assert [tuple(row) for row in self.stage.rows(_ROW)] == [(1, True, 1, True, 0)]


@pytest.fixture
def scene(stage: Stage) -> Scene:
    return Scene(stage)


@pytest.fixture
def async_scene(async_stage: Stage) -> Scene:
    return Scene(async_stage)


async def in_a_session(scene: Scene) -> None:
    with Session(scene.stage.sync_engine) as session:
        session.execute(text("UPDATE tally SET count = 1"))
        taskqueue.add(url="/held", session=session)
        session.commit()


async def in_a_thread(scene: Scene) -> None:
    await to_thread.run_sync(lambda: taskqueue.add(url="/held"))


async def at_once(_scene: Scene) -> None:
    await taskqueue.add_async(url="/held")


async def on_request(scene: Scene) -> None:
    assert (await request(scene.stage.hookware, "/order")).status == 200


def route_with_own_session(_request: Request) -> Response:
    taskqueue.add(url="/held")
    request_session().connection().execute(text("INSERT INTO tally VALUES ('order', 1)"))
    return Response()


def route_without_session(_request: Request) -> Response:
    taskqueue.add(url="/held")
    return Response()


async def async_route(_request: Request) -> Response:
    await (await async_request_session().connection()).execute(text("INSERT INTO tally VALUES ('order', 1)"))
    taskqueue.add(url="/held")
    return Response()


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize(
    ("commit", "route"),
    [
        (in_a_session, None),
        (in_a_thread, None),
        (at_once, None),
        (on_request, route_with_own_session),
        (on_request, route_without_session),
    ],
)
async def test_a_plain_task_begins_without_a_claim(
    scene: Scene, commit: Callable[[Scene], Awaitable[None]], route: Callable[..., Any] | None
) -> None:
    async with scene.running(route):
        await commit(scene)
        await scene.until_inside(1)
        scene.assert_handed()
        scene.go_on.set()
        await scene.stage.settled()
        assert scene.stage.task_count() == 0


@EVERY_ASYNC_DRIVER
@pytest.mark.parametrize("in_request", [True, False])
async def test_so_it_does_on_an_async_engine(async_scene: Scene, in_request: bool) -> None:
    async with async_scene.running(async_route):
        if in_request:
            await on_request(async_scene)
        else:
            async with AsyncSession(async_scene.stage.async_engine) as session:
                taskqueue.add(url="/held", session=session)
                await session.commit()
        await async_scene.until_inside(1)
        async_scene.assert_handed()


@EVERY_DATABASE_ON_A_LOOP
async def test_what_a_task_adds_begins_without_a_claim(scene: Scene) -> None:
    async with scene.running():
        await taskqueue.add_async(url="/adding")
        await scene.until_inside(1)
        scene.assert_handed()


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize(
    "given", [{"name": "n"}, {"countdown": 0.001}, {"priority": 1}, {"fair_key": "k"}, {"queue_name": "narrow"}]
)
async def test_what_is_more_than_plain_is_claimed(scene: Scene, given: dict[str, Any]) -> None:
    async with scene.running(queues=[Queue("narrow", max_concurrent_requests=5)]):
        await to_thread.run_sync(lambda: taskqueue.add(url="/held", **given))
        await scene.until_inside(1)
        with Session(scene.stage.sync_engine) as session:
            more = given | ({"name": "other"} if "name" in given else {})
            taskqueue.add(url="/held", session=session, **more)
            session.commit()
        await scene.until_inside(2)
        assert scene.env.passed["dispatch.claim.claimed"] > 0
        assert scene.env.passed["dispatch.handed"] == 0


@EVERY_DATABASE_ON_A_LOOP
async def test_a_pull_task_is_nobodys(scene: Scene) -> None:
    async with scene.running(queues=[Queue("pull", mode="pull")]):
        await Queue("pull").add_async(Task("one", method="PULL"))
        with Session(scene.stage.sync_engine) as session:
            Queue("pull").add(Task("two", method="PULL"), session=session)
            session.commit()
        assert {tuple(row) for row in scene.stage.rows("SELECT fence, owner FROM hookware_task")} == {(0, None)}


@EVERY_DATABASE_ON_A_LOOP
async def test_in_a_paused_queue_it_waits(scene: Scene) -> None:
    async with scene.running():
        await Queue("default").pause_async()
        await in_a_session(scene)
        await taskqueue.add_async(url="/held")
        await anyio.wait_all_tasks_blocked()
        assert {tuple(row) for row in scene.stage.rows("SELECT state, fence FROM hookware_task")} == {(0, 0)}
        await Queue("default").resume_async()
        await scene.until_inside(2)


@POSTGRESQL_ON_A_LOOP
async def test_a_transaction_that_sees_the_past_leaves_its_tasks_to_claims(database: Database) -> None:
    stage = Stage(database)
    scene = Scene(stage)
    async with scene.running():
        with Session(stage.sync_engine.execution_options(isolation_level="REPEATABLE READ")) as session:
            session.execute(text("SELECT 1"))
            taskqueue.add(url="/held", session=session)
            session.commit()
        await scene.until_inside(1)
        assert scene.env.passed["dispatch.handed"] == 0
    await stage.close()


@EVERY_DATABASE_ON_A_LOOP
async def test_refused_commits_leave_neither_task_nor_lost_slot(database: Database) -> None:
    stage = Stage(database)
    refuse_at_commit(database, stage.sync_engine)
    scene = Scene(stage)
    async with scene.running(concurrency=3):
        for _ in range(5):
            with Session(stage.sync_engine) as session:
                taskqueue.add(url="/held", session=session)
                session.execute(text("INSERT INTO child VALUES (7)"))
                with pytest.raises(IntegrityError):
                    session.commit()
        assert (stage.task_count(), scene.inside) == (0, 0)
        for _ in range(3):
            await taskqueue.add_async(url="/held")
        await scene.until_inside(3)
    await stage.close()


@EVERY_DATABASE_ON_A_LOOP
async def test_no_more_run_at_once_than_there_are_slots(scene: Scene) -> None:
    async with scene.running(concurrency=3):
        async with anyio.create_task_group() as adding:
            for _ in range(12):
                adding.start_soon(to_thread.run_sync, lambda: taskqueue.add(url="/held"))
        await scene.until_inside(3)
        assert scene.stage.rows("SELECT count(*) FROM hookware_task WHERE state = 1") == [3]
        scene.go_on.set()
        await scene.stage.settled(12)
        assert scene.most_inside == 3
        assert scene.env.passed["dispatch.handed"] > 0


@EVERY_DATABASE_ON_A_LOOP
async def test_the_statement_that_adds_it_is_the_only_one_that_it_takes(scene: Scene) -> None:
    async with scene.running():
        asked: list[str] = []
        engines = (scene.stage.sync_engine, scene.stage.hookware._outbox._own_runner._engine)  # type: ignore[attr-defined]  # of a synchronous engine
        for engine in engines:
            event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_more: asked.append(statement))
        await in_a_session(scene)
        await scene.until_inside(1)
        await anyio.wait_all_tasks_blocked()
        changes = [each for each in asked if "INTO hookware_task" in each or "UPDATE hookware_task" in each]
        assert [each.split()[0] for each in changes] == ["INSERT"]


async def test_who_hears_of_a_commit_finds_the_writers_turn_free(scene: Scene) -> None:
    async with scene.running(route_with_own_session) as hookware:
        turns: list[bool] = []
        lock = hookware._outbox.write_lock
        assert lock is not None

        def note(_event: object) -> None:
            lock.acquire()
            lock.release()
            turns.append(True)

        hookware.events.subscribe(note, TasksCommitted)
        await on_request(scene)
        await scene.until_inside(1)
        assert turns == [True]


def test_the_settings_that_matter_are_limits() -> None:
    assert [QueueSettings(rate=rate).is_limited for rate in (None, 0.0, 5.0)] == [False, True, True]
