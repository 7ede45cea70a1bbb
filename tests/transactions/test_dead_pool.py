"""A network that swallowed everything for a while leaves the user's pool full of connections that never answer."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass

import anyio
import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Session

from hookware import taskqueue
from hookware.store.sql import postgresql
from tests.databases import Database
from tests.postgres import PostgresServer
from tests.proxy import Proxy, proxy_to
from tests.stage import Stage, Tally

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

POOLED = 3


@dataclass(frozen=True, slots=True)
class Behind:
    """A stage whose database is behind a proxy."""

    stage: Stage
    proxy: Proxy

    async def fill_pool(self) -> frozenset[int]:
        """Let the user's engine have so many connections in its pool; by the ports that they come from."""
        before, engine = self.proxy.ports, self.stage.engine
        if isinstance(engine, Engine):
            with ExitStack() as held:
                for _connection in range(POOLED):
                    held.enter_context(engine.connect())
        else:
            async with AsyncExitStack() as all_held:
                for _connection in range(POOLED):
                    await all_held.enter_async_context(engine.connect())
        return self.proxy.ports - before


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
        await stage.close()


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
        assert len(dead) >= POOLED - 1, "the start has left one there already"
        behind.proxy.fall_silent(dead)
        with anyio.fail_after(10):
            began = anyio.current_time()
            await taskqueue.add_async(url="/worker")
            (settled,) = await stage.settled()
        assert settled.task.attempt_count == 1
        assert anyio.current_time() - began < 5
        assert stage.tally() == {"one": 1}
        assert dead.isdisjoint(await behind.fill_pool()), "the other dead ones were thrown away with it"
