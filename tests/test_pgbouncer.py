"""A whole Hookware through PgBouncer in transaction mode, with the settings that the documentation gives.

The pooler gives each transaction the server's connection that was idle the longest, so that nothing which is left on
one by a transaction is found by the next.
"""

import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import Session, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookware import Hookware, TaskRouter, listener, taskqueue
from hookware.events import LoopFailed
from tests import pgbouncer
from tests.asgi import request
from tests.databases import Look
from tests.pgbouncer import PgBouncer
from tests.postgres import PostgresServer
from tests.serving import Recorder, StartupFailedError, serving
from tests.stage import Tally

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.skipif(pgbouncer.program() is None, reason="pgbouncer is not installed"),
]

HARDLY_EVER = 3600.0
PATIENCE_SECONDS = 30.0
EVERY_DRIVER = pytest.mark.parametrize(
    ("anyio_backend", "driver"), [("asyncio", driver) for driver in ("psycopg", "psycopg_async", "asyncpg")]
)
WAYS = pgbouncer.ways()
GUIDE = Path(__file__).parent.parent / "docs" / "how-to" / "postgresql.md"

# What PgBouncer itself sets for each client is no leak, nor what asyncpg sets back in the same transaction (jit).
SET_FOR_CLIENTS = "'application_name', 'client_encoding', 'DateStyle', 'standard_conforming_strings', 'TimeZone'"
LEFT_BEHIND = f"""
SELECT name, setting FROM pg_settings
WHERE source = 'session' AND setting <> reset_val AND name NOT IN ({SET_FOR_CLIENTS})
UNION ALL SELECT 'prepared', statement FROM pg_prepared_statements
UNION ALL SELECT 'listening', channel FROM pg_listening_channels() AS channel
UNION ALL SELECT 'lock', objid::text FROM pg_locks WHERE locktype = 'advisory'
"""


def documented_arguments(driver: str) -> dict[str, Any]:
    """Give the connect_args= that the documentation has for a driver."""
    _, section = GUIDE.read_text().split("## Through PgBouncer\n")
    found = re.findall(r"postgresql\+(\w+)://app@bouncer.*?connect_args=(\{.*?\})", section, re.DOTALL)
    arguments: dict[str, Any] = eval(dict(found)[driver.removesuffix("_async")])
    return arguments


class Process:
    """One process of an app that reaches its database through the pooler."""

    def __init__(self, pooler: PgBouncer, driver: str, **options: Any) -> None:
        url, arguments = pooler.url(driver), documented_arguments(driver)
        self.engine: Engine | AsyncEngine
        router, route = TaskRouter(), cast("Callable[..., Any]", self._add)
        if driver == "psycopg":
            self.engine = create_engine(url, connect_args=arguments)
            router.task_handler("/worker")(count_one)
        else:
            self.engine, route = create_async_engine(url, connect_args=arguments), self._add_async
            router.task_handler("/worker")(count_one_async)
        self.app = Starlette(routes=[Route("/{end}", route, methods=["POST"])])
        self.hookware = Hookware(self.app, engine=self.engine, router=router, **options)
        self.recorder = Recorder(self.hookware)

    def _add(self, request: Request) -> Response:
        assert isinstance(self.engine, Engine)
        with Session(self.engine) as session:
            add(session, request)
            if request.path_params["end"] == "commit":
                session.commit()
                session.get(Tally, "nobody")  # another transaction, on the same connection to the pooler
                session.rollback()
        return Response()

    async def _add_async(self, request: Request) -> Response:
        assert isinstance(self.engine, AsyncEngine)
        async with AsyncSession(self.engine) as session:
            await session.run_sync(add, request)
            if request.path_params["end"] == "commit":
                await session.commit()
                await session.get(Tally, "nobody")
                await session.rollback()
        return Response()

    async def post(self, path: str, keys: Iterator[str]) -> None:
        """Send a request for each key, all of them at once."""

        async def send(key: str) -> None:
            answer = await request(self.hookware, path, query=f"key={key}".encode())
            assert answer.status == (500 if path == "/fail" else 200), answer

        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(send, key)

    @property
    def failures(self) -> list[LoopFailed]:
        """What went wrong in the background."""
        return [event for event in self.recorder.events if isinstance(event, LoopFailed)]


def add(session: Any, request: Request) -> None:
    key = request.query_params["key"]
    session.add(Tally(key=f"request {key}"))
    taskqueue.add(url="/worker", params={"key": key}, session=session)
    session.flush()
    match request.path_params["end"]:
        case "fail":
            raise ValueError("no")
        case "rollback":
            session.rollback()


def add_one(session: Any, key: str) -> None:
    tally = session.get(Tally, key, with_for_update=True) or Tally(key=key)
    tally.count += 1
    session.add(tally)


def count_one(session: Session, key: str) -> None:
    add_one(session, key)


async def count_one_async(session: AsyncSession, key: str) -> None:
    await session.run_sync(add_one, key)


@asynccontextmanager
async def process(pooler: PgBouncer, driver: str, **options: Any) -> AsyncIterator[Process]:
    one = Process(pooler, driver, poll_seconds=options.pop("poll_seconds", HARDLY_EVER), **options)
    async with serving(one.hookware):
        yield one
    dispose: Callable[[], Any] = one.engine.dispose
    if (waiting := dispose()) is not None:
        await waiting


@pytest.fixture(params=WAYS, ids=str)
def pooler(request: pytest.FixtureRequest, postgres: PostgresServer, postgres_database: str) -> Iterator[PgBouncer]:
    with pgbouncer.pgbouncer(postgres, postgres_database, **request.param) as pooler:
        around = create_engine(pooler.direct_url)
        SQLModel.metadata.create_all(around, tables=[SQLModel.metadata.tables["tally"]])
        around.dispose()
        yield pooler


async def until_it_hears(one: Process) -> None:
    found = one.hookware._loops.processing._listener  # type: ignore[union-attr]  # of a process that dispatches
    assert found is not None
    with anyio.fail_after(PATIENCE_SECONDS):
        while not found.hears:  # noqa: ASYNC110 - nothing tells of it
            await anyio.sleep(0.01)
    await anyio.wait_all_tasks_blocked()


def tally(url: URL) -> dict[str, int]:
    look = Look(url)
    try:
        return dict(look.rows("SELECT key, count FROM tally"))
    finally:
        look.close()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give what anybody complained of."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def expected(keys: list[str]) -> dict[str, int]:
    return {f"request {key}": 0 for key in keys} | dict.fromkeys(keys, 1)


@EVERY_DRIVER
async def test_committed_tasks_run_in_another_process_at_once_and_no_others(
    pooler: PgBouncer, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept, dropped = [f"k{n}" for n in range(30)], [f"d{n}" for n in range(5)]
    around = pooler.direct_url.set(drivername=f"postgresql+{driver}")
    async with (
        process(pooler, driver, dispatch=False) as web,
        process(pooler, driver, listen=around) as worker,
    ):
        await until_it_hears(worker)
        for path, keys in (("/fail", dropped), ("/rollback", dropped), ("/commit", kept)):
            await web.post(path, iter(keys))
        await worker.recorder.wait_settled(len(kept), seconds=PATIENCE_SECONDS)
        assert web.failures == worker.failures == []
    assert tally(pooler.direct_url) == expected(kept)
    assert pooler.ask_each_connection("SELECT id FROM hookware_task") == []
    assert pooler.ask_each_connection(LEFT_BEHIND) == []
    assert warnings(caplog) == []


@EVERY_DRIVER
async def test_without_a_way_around_tasks_are_found_by_asking(
    pooler: PgBouncer, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [f"k{n}" for n in range(10)]
    async with (
        process(pooler, driver, dispatch=False, listen=False) as web,
        process(pooler, driver, listen=False, poll_seconds=0.1) as worker,
    ):
        await web.post("/commit", iter(keys))
        await worker.recorder.wait_settled(len(keys), seconds=PATIENCE_SECONDS)
        assert web.failures == worker.failures == []
    assert tally(pooler.direct_url) == expected(keys)
    assert pooler.ask_each_connection(LEFT_BEHIND) == []
    assert warnings(caplog) == []


@pytest.mark.parametrize("pooler", WAYS[:1], ids=str, indirect=True)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_engine_that_prepares_is_told_how_not_to(pooler: PgBouncer) -> None:
    engine = create_async_engine(pooler.url("asyncpg"))
    with pytest.raises(StartupFailedError) as failed:
        async with serving(Hookware(engine=engine, router=TaskRouter())):
            raise AssertionError("it must not start")
    await engine.dispose()
    assert "prepared statement" in str(failed.value)
    for driver in ("psycopg", "asyncpg"):
        assert all(name in str(failed.value) for name in documented_arguments(driver))


@pytest.mark.parametrize("pooler", WAYS[:1], ids=str, indirect=True)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_listens_through_it_is_told_that_this_has_no_effect_and_asks(
    pooler: PgBouncer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "ECHO_SECONDS", 0.05)
    keys = [f"k{n}" for n in range(20)]
    async with (
        process(pooler, "psycopg", dispatch=False) as web,
        process(pooler, "psycopg", poll_seconds=0.1) as worker,
    ):
        with anyio.fail_after(PATIENCE_SECONDS):
            while not warnings(caplog):  # noqa: ASYNC110 - nothing tells of it
                await anyio.sleep(0.01)
        for key in keys:
            await web.post("/commit", iter([key]))
        await worker.recorder.wait_settled(len(keys), seconds=PATIENCE_SECONDS)
        assert web.failures == worker.failures == []
    assert tally(pooler.direct_url) == expected(keys)
    (warning,) = warnings(caplog)
    assert "LISTEN has no effect here" in warning
