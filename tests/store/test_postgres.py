"""The SQL store keeps the contract on PostgreSQL: in threads on asyncio and trio, and on the two asyncio drivers."""

from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from hookware.env import Env
from hookware.store.sql.async_runner import AsyncRunner, own_async_engine
from hookware.store.sql.engines import own_engine
from hookware.store.sql.runner import ThreadRunner
from hookware.store.sql.store import SQLStore
from hookware.store.sql.times import postgresql_clock
from tests.postgres import PostgresServer
from tests.store.conftest import sql_subject
from tests.store.contract import StoreContract
from tests.store.subject import Subject

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
def empty(postgres: PostgresServer, database: str) -> Iterator[str]:
    """Give the module's database without rows."""
    yield database
    with postgres.connect(database) as connection:
        connection.execute("TRUNCATE hookware_task, hookware_name")


class TestThreads(StoreContract):
    """A synchronous engine, in worker threads."""

    @pytest.fixture
    async def subject(self, postgres: PostgresServer, empty: str) -> AsyncIterator[Subject]:
        async with sql_subject(ThreadRunner(own_engine(create_engine(postgres.url(empty))), Env())) as subject:
            yield subject


class OnAsyncio:
    """AsyncEngines need asyncio."""

    driver = ""

    @pytest.fixture(scope="module")
    @classmethod
    def anyio_backend(cls) -> str:
        return "asyncio"

    @pytest.fixture
    async def subject(self, postgres: PostgresServer, empty: str) -> AsyncIterator[Subject]:
        engine = create_async_engine(postgres.url(empty, self.driver))
        async with sql_subject(AsyncRunner(own_async_engine(engine), Env())) as subject:
            yield subject


class TestAsyncpg(OnAsyncio, StoreContract):
    """asyncpg, on the event loop."""

    driver = "asyncpg"


class TestAsyncPsycopg(OnAsyncio, StoreContract):
    """psycopg's asynchronous side, on the event loop."""

    driver = "psycopg"


async def test_processes_that_start_at_once_make_the_tables_once(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.new_database())
    stores = [
        SQLStore(ThreadRunner(own_engine(create_engine(url)), Env()), postgresql_clock, env=Env(), tombstone_us=0)
        for _ in range(8)
    ]
    async with anyio.create_task_group() as starts:
        for store in stores:
            starts.start_soon(store.prepare, True)
    await stores[0].prepare(create_tables=False)
    for store in stores:
        await store.close()
