"""What is sent by NOTIFY is heard by those who listen, on every driver and loop, and a lost connection is noticed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hookware.env import Env
from hookware.errors import ConfigurationError
from hookware.store.notices import Heard
from hookware.store.sql.async_runner import AsyncRunner
from hookware.store.sql.notify import PostgresNotices, notices_of
from hookware.store.sql.own_runner import own_runner
from hookware.store.sql.runner import Runner
from tests.postgres import PostgresServer
from tests.proxy import proxy_to
from tests.running import eventually

pytestmark = pytest.mark.postgres

UVLOOP = ("asyncio", {"use_uvloop": True})
EVERY_WAY = pytest.mark.parametrize(
    ("anyio_backend", "driver"),
    [
        ("asyncio", "psycopg"),
        ("trio", "psycopg"),
        (UVLOOP, "psycopg"),
        ("asyncio", "psycopg_async"),
        (UVLOOP, "psycopg_async"),
        ("asyncio", "asyncpg"),
        (UVLOOP, "asyncpg"),
    ],
    ids=lambda value: "uvloop" if value == UVLOOP else str(value),
)


@dataclass
class Process:
    """What a process has of its own: connections, and a voice."""

    runner: Runner
    notices: PostgresNotices


class Site:
    """Processes on one database."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.server, self.database = server, database

    @asynccontextmanager
    async def process(self, driver: str = "psycopg", *, port: int | None = None) -> AsyncIterator[Process]:
        """Be one; `port` is where it listens, if not where the server does."""
        engine = self._engine(driver)
        runner = own_runner(engine, Env(), None)
        assert isinstance(runner, AsyncRunner) == (driver != "psycopg")
        listen = True if port is None else self.server.url(self.database, port=port)
        notices = notices_of(engine, runner, Env(), listen)
        assert notices is not None
        try:
            yield Process(runner, notices)
        finally:
            await runner.close()

    def _engine(self, driver: str) -> Engine | AsyncEngine:
        if driver == "psycopg":
            return create_engine(self.server.url(self.database))
        # Options outside of the URL keep hookware from using the driver's synchronous twin.
        options = {"application_name": "app"} if driver == "psycopg_async" else {}
        return create_async_engine(self.server.url(self.database, driver), connect_args=options)

    def listeners(self) -> list[int]:
        """Give the server's processes behind the connections that listen."""
        with self.server.connect(self.database) as connection:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
            return [int(str(pid)) for (pid,) in rows]


@pytest.fixture(scope="module")
def one_database(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
def site(postgres: PostgresServer, one_database: str) -> Site:
    site = Site(postgres, one_database)
    eventually(lambda: not site.listeners())
    return site


@EVERY_WAY
async def test_others_hear_of_tasks_and_each_hears_its_own_echo_only(site: Site, driver: str) -> None:
    async with (
        site.process(driver) as one,
        site.process(driver) as other,
        one.notices.listening() as ear,
        other.notices.listening() as other_ear,
    ):
        with anyio.fail_after(20):
            for _ in range(3):
                await one.notices.send()
                assert await other_ear.hear() == {Heard.TASKS}
                await one.notices.ping()
                assert await ear.hear() == {Heard.ECHO}
            await other.notices.ping()
            assert await other_ear.hear() == {Heard.ECHO}


@EVERY_WAY
async def test_a_connection_that_the_server_ends_is_noticed(site: Site, driver: str) -> None:
    async with site.process(driver) as process, process.notices.listening() as ear:
        (pid,) = site.listeners()
        with site.server.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        with anyio.fail_after(20), pytest.raises(Exception, match=r"terminat|closed"):
            await ear.hear()


@EVERY_WAY
async def test_nothing_is_left_of_a_connection_that_is_no_longer_held(site: Site, driver: str) -> None:
    async with site.process(driver) as process:
        for _ in range(2):
            async with process.notices.listening():
                # The server takes a moment to end the one before.
                await anyio.to_thread.run_sync(lambda: eventually(lambda: len(site.listeners()) == 1))
        await anyio.to_thread.run_sync(lambda: eventually(lambda: not site.listeners()))


@pytest.mark.slow
async def test_a_notice_is_heard_in_its_own_database_only(site: Site, postgres: PostgresServer) -> None:
    elsewhere = Site(postgres, postgres.new_database())
    async with site.process() as one, elsewhere.process() as other, other.notices.listening() as ear:
        with anyio.fail_after(20):
            await one.notices.send()
            await other.notices.ping()
            assert await ear.hear() == {Heard.ECHO}


async def test_it_listens_where_it_is_told_to(site: Site) -> None:
    with proxy_to(site.server.port) as proxy:
        async with site.process(port=proxy.port) as process, process.notices.listening() as ear:
            assert len(proxy.ports) == 1
            with anyio.fail_after(20):
                await process.notices.ping()
                assert await ear.hear() == {Heard.ECHO}


async def test_a_half_open_connection_hears_nothing_and_looks_alive(site: Site) -> None:
    with proxy_to(site.server.port) as proxy:
        async with site.process(port=proxy.port) as process, process.notices.listening() as ear:
            proxy.fall_silent(proxy.ports)
            await process.notices.ping()
            with anyio.move_on_after(0.2) as scope:
                await ear.hear()
            assert scope.cancelled_caught


@pytest.mark.slow
async def test_a_connection_that_is_given_up_while_it_is_made_is_closed_when_it_is_there(site: Site) -> None:
    with proxy_to(site.server.port) as proxy:
        proxy.delay_seconds = 0.05
        async with site.process(port=proxy.port) as process:
            with anyio.move_on_after(0.1) as scope:
                async with process.notices.listening():
                    pass
            assert scope.cancelled_caught
            await anyio.to_thread.run_sync(lambda: eventually(lambda: proxy.link_count == 0))


@pytest.mark.parametrize("listen", ["sqlite:///app.db", "postgresql+nothing://host/name", "no url", 3])
def test_only_a_postgresql_can_be_listened_to(postgres: PostgresServer, listen: object) -> None:
    engine = create_engine(postgres.url())
    with pytest.raises(ConfigurationError):
        notices_of(engine, own_runner(engine, Env(), None), Env(), listen)  # type: ignore[arg-type]  # the mistake


def test_sqlite_has_no_notices_and_cannot_be_told_where_to_listen() -> None:
    engine = create_engine("sqlite:///app.db")
    runner = own_runner(engine, Env(), None)
    assert notices_of(engine, runner, Env(), True) is None
    with pytest.raises(ConfigurationError, match="listen="):
        notices_of(engine, runner, Env(), "postgresql+psycopg://host/name")
