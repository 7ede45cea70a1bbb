"""What only PostgreSQL, its clock, its connections and its text can bring about, in a whole Hookware."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request

from hookware import TaskContext, TaskRetryOptions, taskqueue
from hookware.core.lifecycle import Complete, Retry
from hookware.env import Env
from hookware.errors import Error
from tests.asgi import request
from tests.databases import (
    EVERY_DATABASE_ON_A_LOOP,
    EVERY_POSTGRESQL_DRIVER,
    POSTGRESQL_ON_A_LOOP,
    Database,
)
from tests.stage import AT_ONCE, Stage, Tally

# Connections.


@pytest.fixture
async def stage_of_two(database: Database) -> AsyncIterator[Stage]:
    """Give a stage whose app has two connections and no more."""
    stage = Stage(database, is_async=bool(database.driver), pool_size=2, max_overflow=0)
    yield stage
    await stage.close()


def counting(stage: Stage) -> Any:
    """Register a handler that counts through hookware's session."""

    def add_one(session: Any, key: str) -> None:
        tally = session.get(Tally, key, with_for_update=True) or Tally(key=key)
        tally.count += 1
        session.add(tally)

    if stage.async_engine is None:

        @stage.task_handler("/worker")
        def plain(session: Session, key: str) -> None:
            add_one(session, key)

        return plain

    @stage.task_handler("/worker")
    async def worker(session: AsyncSession, key: str) -> None:
        await session.run_sync(add_one, key)

    return worker


@pytest.mark.slow
@EVERY_POSTGRESQL_DRIVER
async def test_ten_handlers_get_along_with_two_connections(stage_of_two: Stage) -> None:
    stage = stage_of_two
    worker = counting(stage)
    async with stage.running(concurrency=10):
        for _ in range(30):
            await worker.add_async("x")
        await stage.recorder.wait(lambda: stage.task_count() == 0, seconds=30)
    assert stage.tally() == {"x": 30}


@pytest.mark.parametrize("takes_session", [False, True])
@EVERY_POSTGRESQL_DRIVER
async def test_no_transaction_of_hookwares_is_open_while_a_handler_runs(
    database: Database, takes_session: bool
) -> None:
    stage = Stage(database, is_async=bool(database.driver))
    held, go_on = anyio.Event(), anyio.Event()

    async def hold() -> None:
        held.set()
        await go_on.wait()

    async def hold_session(session: Session) -> None:
        await hold()

    async def hold_async_session(session: AsyncSession) -> None:
        await hold()

    holder: Callable[..., Awaitable[None]] = hold
    if takes_session:
        holder = hold_session if stage.async_engine is None else hold_async_session
    holding = stage.task_handler("/hold")(holder)
    worker = counting(stage)
    async with stage.running():
        await holding.add_async()
        await held.wait()
        (since,) = stage.rows("SELECT clock_timestamp()")
        for _ in range(5):
            await worker.add_async("x")
        await stage.settled(5)
        sessions = "FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()"
        assert stage.rows(f"SELECT count(*) > 1 {sessions}") == [True]
        assert stage.rows(f"SELECT state, query {sessions} AND xact_start < ?", since) == []
        go_on.set()
        await stage.settled(6)
    await stage.close()


@EVERY_POSTGRESQL_DRIVER
async def test_a_hundred_tasks_are_one_insert(database: Database) -> None:
    stage, inserts = Stage(database, is_async=bool(database.driver)), list[str]()
    engine = stage.engine

    @event.listens_for(engine.sync_engine if isinstance(engine, AsyncEngine) else engine, "before_cursor_execute")
    def count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        inserts.extend([statement] * ("INSERT INTO hookware_task" in statement))

    tasks = [taskqueue.Task(str(number), url="/worker") for number in range(100)]
    async with stage.running(dispatch=False):
        inserts.clear()  # the start-up's self-test
        if isinstance(engine, AsyncEngine):
            async with AsyncSession(engine) as session:
                taskqueue.Queue().add(tasks, session=session)
                await session.commit()
        else:
            with Session(engine) as plain:
                taskqueue.Queue().add(tasks, session=plain)
                plain.commit()
    assert (stage.task_count(), len(inserts)) == (100, 1)
    await stage.close()


# Clocks.


class SkewedEnv(Env):
    """The clock of a host that goes wrong."""

    def __init__(self, hours: int) -> None:
        super().__init__()
        self._skew_us = hours * 3_600_000_000

    def now_us(self) -> int:
        return super().now_us() + self._skew_us


DATABASE_US = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


@pytest.mark.slow
@pytest.mark.parametrize("hours", [-1, 1])
@POSTGRESQL_ON_A_LOOP
async def test_only_the_databases_clock_says_when(stage: Stage, hours: int) -> None:
    began: dict[str, list[int]] = {}

    @stage.task_handler("/worker")
    def worker(key: str, task: TaskContext) -> None:
        began.setdefault(key, []).extend(stage.rows(DATABASE_US))
        if task.attempt == 1:
            raise ValueError("no")

    def add_in_a_session() -> None:
        with Session(stage.sync_engine) as session:
            worker.options(session=session, countdown=0.3, retry_options=retry).add("in a session")
            session.commit()

    retry = TaskRetryOptions(min_backoff_seconds=0.3)
    async with stage.running(env=SkewedEnv(hours), poll_seconds=0.1):
        (now_us,) = stage.rows(DATABASE_US)
        eta = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now_us + 300_000)
        add_in_a_session()
        await worker.options(countdown=0.3, retry_options=retry).add_async("at once")
        await worker.options(eta=eta, retry_options=retry).add_async("by its ETA")
        await stage.recorder.wait_settled(6, seconds=30)
    assert began.keys() == {"in a session", "at once", "by its ETA"}
    for first, second in began.values():
        assert first >= now_us + 300_000
        assert second >= first + 300_000


# Text.

ODD = {
    "NUL": "a\0b",
    "surrogate": "a\ud800b",
    "astral": "a\U0001f41eb",
    "noncharacter": "a\uffffb",
    "quote": "a'\"\\b%s",
}


def places(odd: str) -> dict[str, dict[str, Any]]:
    return {
        "path": {"url": f"/worker/{odd}"},
        "query": {"url": f"/worker?q={odd}", "method": "GET"},
        "params": {"url": "/worker", "params": {"q": odd, odd: "q"}},
        "params in the query": {"url": "/worker", "method": "GET", "params": {"q": odd}},
        "payload": {"url": "/worker", "payload": odd},
        "bytes": {"url": "/worker", "payload": odd.encode("utf-8", "surrogatepass")},
        "header": {"url": "/worker", "headers": {"X-Odd": odd}},
        "header's name": {"url": "/worker", "headers": {f"X-{odd}": "odd"}},
        "name": {"url": "/worker", "name": odd},
        "queue": {"url": "/worker", "queue_name": odd},
    }


@pytest.mark.slow
@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("kind", ODD)
async def test_text_is_refused_by_add_or_stored(stage: Stage, kind: str) -> None:
    """Never by the commit, which would take the user's other writes with it."""
    refused: list[str] = []
    for place, arguments in places(ODD[kind]).items():
        try:
            taskqueue.Task(**{k: v for k, v in arguments.items() if k != "queue_name"})
            taskqueue.Queue(arguments.get("queue_name", "default"))
        except Error:
            refused.append(place)
    async with stage.running(dispatch=False):
        with Session(stage.sync_engine) as session:
            session.add(Tally(key="mine"))
            for place, arguments in places(ODD[kind]).items():
                if place not in refused:
                    taskqueue.add(**arguments, session=session)
            session.commit()
    assert stage.tally() == {"mine": 0}
    assert stage.task_count() == len(places("")) - len(refused)
    assert stage.task_count() > 0
    assert ("header" in refused) == (kind != "quote")  # HTTP's headers hold Latin-1


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("kind", ODD)
async def test_an_exception_with_odd_text_does_not_stand_in_the_way_of_its_own_record(
    stage: Stage, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "hookware")  # test reports cannot carry surrogates

    @stage.task_handler("/worker")
    async def worker(task: TaskContext) -> None:
        if task.attempt == 1:
            raise ValueError(ODD[kind] * 1000)

    async with stage.running():
        await worker.options(retry_options=AT_ONCE).add_async()
        first, second = await stage.settled(2)
    assert isinstance(first.decision, Retry)
    assert isinstance(second.decision, Complete)


@EVERY_DATABASE_ON_A_LOOP
async def test_what_arrives_is_what_was_added(stage: Stage) -> None:
    seen: list[tuple[bytes, str, str]] = []

    @stage.task_handler("/worker")
    async def worker(request: Request) -> None:
        seen.append((await request.body(), request.query_params["q"], request.headers["x-odd"]))

    body, query, header = bytes(range(256)), "a\0b\U0001f41e", "caf\xe9"
    async with stage.running() as hookware:
        await taskqueue.add_async(body, url="/worker?q=a%00b%F0%9F%90%9E", method="PUT", headers={"X-Odd": header})
        (settled,) = await stage.settled()
        assert (await request(hookware, "/nothing")).status == 404
    assert isinstance(settled.decision, Complete)
    assert seen == [(body, query, header)]
