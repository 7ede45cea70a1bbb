"""A network that swallowed everything for a while leaves the user's pool full of connections that never answer."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass

import anyio
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import greenlet_spawn
from sqlmodel import Session

from hookware import taskqueue
from hookware.env import Env, Ticker
from hookware.store.sql import postgresql
from tests.databases import Database
from tests.postgres import PostgresServer
from tests.proxy import Proxy, proxy_to
from tests.stage import Stage, Tally

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

POOLED = 3
PATIENCE_SECONDS = 20.0
"""Longer than any driver takes to give connections up, and far shorter than the task's deadline."""

PORT = text("SELECT inet_client_port()")


@dataclass(frozen=True, slots=True)
class Behind:
    """A stage whose database is behind a proxy."""

    stage: Stage
    proxy: Proxy

    async def fill_pool(self) -> frozenset[int]:
        """Let the user's engine have so many connections in its pool; by the ports that they come from."""
        engine, ports = self.stage.engine, set[int]()
        if isinstance(engine, Engine):
            with ExitStack() as held:
                for _connection in range(POOLED):
                    ports.add(held.enter_context(engine.connect()).execute(PORT).scalar_one())
        else:
            async with AsyncExitStack() as all_held:
                for _connection in range(POOLED):
                    connection = await all_held.enter_async_context(engine.connect())
                    ports.add((await connection.execute(PORT)).scalar_one())
        return frozenset(ports)


@pytest.fixture(params=["", "psycopg", "asyncpg"])
async def behind(
    request: pytest.FixtureRequest, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Behind]:
    monkeypatch.setattr(postgresql, "IDLE_SECONDS", 0)
    with proxy_to(postgres.port) as proxy:
        driver = str(request.param)
        database = Database(url=postgres.new_schema().set(port=proxy.port), driver=driver)
        stage = Stage(database, is_async=bool(driver))
        yield Behind(stage, proxy)
        proxy.reset()  # asyncpg would wait for ever for the goodbye of a peer that has fallen silent
        await stage.close()


class BlockingEnv(Env):
    """Blocks the event loop as soon as a ping is sent, until it has been seen to be overdue."""

    def __init__(self) -> None:
        super().__init__()
        self.overdue = threading.Event()
        self.blocked_count = 0

    def every(self, seconds: float, step: Callable[[], None], *, name: str) -> Ticker:
        def watched() -> None:
            step()
            self.overdue.set()

        asyncio.get_running_loop().call_soon(self._block)
        return super().every(seconds, watched, name=name)

    def _block(self) -> None:
        self.blocked_count += self.overdue.wait(10)


def engine_of(stage: Stage) -> Engine:
    return stage.sync_engine if stage.async_engine is None else stage.async_engine.sync_engine


def server_process(engine: Engine, env: Env) -> object:
    """Give the number of the server's process, over a connection as handlers get it."""
    with postgresql.connect_alive(engine, env) as connection:
        return connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()


async def process_of(stage: Stage, env: Env) -> object:
    """Do the same on any kind of engine."""
    if stage.async_engine is None:
        return await anyio.to_thread.run_sync(server_process, stage.sync_engine, env)
    return await greenlet_spawn(server_process, stage.async_engine.sync_engine, env)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_peer_that_is_slow_keeps_its_connection(behind: Behind) -> None:
    env = Env()
    postgresql.note_idle(engine_of(behind.stage), env)
    first = await process_of(behind.stage, env)
    behind.proxy.delay_seconds = 0.2  # in both directions, and up to three times
    assert await process_of(behind.stage, env) == first


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_loop_that_was_blocked_keeps_its_connection(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    if behind.stage.async_engine is None:
        return  # no loop reads its answers
    monkeypatch.setattr(postgresql, "ANSWER_SECONDS", 0.3)
    env = BlockingEnv()
    postgresql.note_idle(engine_of(behind.stage), env)
    first = await process_of(behind.stage, env)
    assert await process_of(behind.stage, env) == first
    assert env.blocked_count == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_ping_that_fails_otherwise_gives_its_connection_back(behind: Behind) -> None:
    engine, env = behind.stage.sync_engine, Env()
    if behind.stage.async_engine is not None:
        return  # the same code, and no loop here
    postgresql.note_idle(engine, env)
    server_process(engine, env)

    @event.listens_for(engine, "before_cursor_execute")
    def refuse(*_arguments: object) -> None:
        raise ValueError("a listener of the user's")

    with pytest.raises(ValueError, match="a listener") as raised:
        server_process(engine, env)
    assert raised.tb is not None, "which holds the connection"
    assert isinstance(engine.pool, QueuePool)
    assert engine.pool.checkedout() == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_finds_a_connection_that_works_long_before_its_deadline(behind: Behind) -> None:
    stage = behind.stage

    if stage.async_engine is None:

        @stage.task_handler("/worker")
        def count(session: Session) -> None:
            session.add(Tally(key="one", count=1))
    else:

        @stage.task_handler("/worker")
        async def count_async(session: AsyncSession) -> None:
            session.add(Tally(key="one", count=1))

    async with stage.running():
        dead = await behind.fill_pool()
        assert len(dead) == POOLED
        behind.proxy.fall_silent(dead)
        with anyio.fail_after(PATIENCE_SECONDS):
            await taskqueue.add_async(url="/worker")
            (settled,) = await stage.settled()
        assert settled.task.attempt_count == 1
        assert stage.tally() == {"one": 1}
        assert dead.isdisjoint(await behind.fill_pool()), "the other dead ones were thrown away with it"
