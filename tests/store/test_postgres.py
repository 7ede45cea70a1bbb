"""The SQL store keeps the contract on PostgreSQL: in threads on asyncio and trio, and on the two asyncio drivers."""

from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hookware.env import Env
from hookware.store.sql.async_runner import AsyncRunner, own_async_engine
from hookware.store.sql.engines import own_engine
from hookware.store.sql.runner import Runner, ThreadRunner
from hookware.store.sql.store import SQLStore
from hookware.store.sql.times import postgresql_clock
from tests.postgres import PostgresServer
from tests.store.conftest import sql_subject
from tests.store.contract import StoreContract
from tests.store.subject import Subject, new_task

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
def empty(postgres: PostgresServer, database: str) -> Iterator[str]:
    """Give the module's database without rows."""
    yield database
    with postgres.connect(database) as connection:
        connection.execute("TRUNCATE hookware_task, hookware_name, hookware_queue, hookware_attempt")


class TestThreads(StoreContract):
    """A synchronous engine, in worker threads; on trio the same statements run on SQLite."""

    @pytest.fixture(scope="module")
    @classmethod
    def anyio_backend(cls) -> str:
        return "asyncio"

    @pytest.fixture(scope="class")
    @classmethod
    def own(cls, postgres: PostgresServer, database: str) -> Engine:
        """Give one engine for all tests: to compile its statements takes longer than a test."""
        return own_engine(create_engine(postgres.url(database)))

    @pytest.fixture
    async def subject(self, own: Engine, empty: str) -> AsyncIterator[Subject]:
        async with sql_subject(ThreadRunner(own, Env())) as subject:
            yield subject


class TestAtOnce(TestThreads):
    """The same, with claims in one statement where they can be."""

    @pytest.fixture
    async def subject(self, own: Engine, empty: str) -> AsyncIterator[Subject]:
        async with sql_subject(ThreadRunner(own, Env()), at_once=True) as subject:
            yield subject


class TestAsyncpg(StoreContract):
    """asyncpg, on the event loop: where no synchronous driver is installed, as psycopg always is."""

    @pytest.fixture(scope="module")
    @classmethod
    def anyio_backend(cls) -> str:
        return "asyncio"

    @pytest.fixture(scope="class")
    @classmethod
    def own(cls, postgres: PostgresServer, database: str) -> AsyncEngine:
        """Give one engine for all tests, as above."""
        return own_async_engine(create_async_engine(postgres.url(database, "asyncpg")))

    @pytest.fixture
    async def subject(self, own: AsyncEngine, empty: str) -> AsyncIterator[Subject]:
        async with sql_subject(AsyncRunner(own, Env()), at_once=True) as subject:
            yield subject


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


async def test_two_apps_in_one_database_have_tables_of_their_own(postgres: PostgresServer) -> None:
    database = postgres.new_database()
    with postgres.connect(database) as connection:
        connection.execute("CREATE SCHEMA one; CREATE SCHEMA two")
    claims: list[list[int]] = []
    for schema in ("one", "two"):
        options = {"options": f"-csearch_path={schema}"}
        runner = ThreadRunner(own_engine(create_engine(postgres.url(database), connect_args=options)), Env())
        async with sql_subject(runner) as subject:
            await subject.add(new_task(schema, task_id=len(claims) + 1, name="a"))
            claims.append([task.id for task in await subject.claim()])
    assert claims == [[1], [2]]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_the_databases_isolation_level_is_not_hookwares(postgres: PostgresServer, driver: str) -> None:
    database = postgres.new_database()
    with postgres.connect(database) as connection:
        connection.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = serializable".encode())
    runner: Runner = ThreadRunner(own_engine(create_engine(postgres.url(database))), Env())
    if driver == "asyncpg":
        runner = AsyncRunner(own_async_engine(create_async_engine(postgres.url(database, driver))), Env())
    show = text("SHOW transaction_isolation")
    assert await runner.run(lambda connection: connection.execute(show).scalar_one()) == "read committed"
    await runner.close()
