"""What tests of several folders share."""

import gc
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from sqlalchemy import make_url

from hookware.store.sql.outbox import outboxes
from tests.databases import Database
from tests.postgres import PostgresServer, postgres_server
from tests.stage import Stage

pytest_plugins = ["pytester"]

# The same examples in every run: whoever changes something else is not the one to hear of an old fault.
settings.register_profile("dev", max_examples=40, deadline=None, stateful_step_count=30, derandomize=True)
settings.register_profile("ci", max_examples=100, deadline=None, stateful_step_count=40, print_blob=True)
settings.register_profile("nightly", max_examples=2000, deadline=None, stateful_step_count=60, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_collection_finish() -> None:
    """Let the collector leave alone what has been imported, and come seldom: it took a seventh of the tests' time."""
    gc.freeze()
    gc.set_threshold(20_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow ones first: where several processes share them, none is left alone with a long one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Give an empty database: a SQLite file, or what the test is marked with."""
    database, _, driver = getattr(request, "param", "sqlite").partition("+")
    if database == "sqlite":
        return Database(url=make_url(f"sqlite:///{tmp_path}/test.db"), driver=driver)
    server: PostgresServer = request.getfixturevalue("postgres")
    return Database(url=server.new_schema(), driver=driver)


@pytest.fixture
async def stage(database: Database) -> AsyncIterator[Stage]:
    """Give a stage on a synchronous engine."""
    stage = Stage(database)
    yield stage
    await stage.close()


@pytest.fixture
async def async_stage(database: Database) -> AsyncIterator[Stage]:
    """Give a stage on an AsyncEngine; asyncio only, as SQLAlchemy's."""
    stage = Stage(database, is_async=True)
    yield stage
    await stage.close()


@pytest.fixture
def alone() -> None:
    """Let there be no other Hookware in this process: what frameworks keep of other tests' apps counts no more."""
    for outbox in outboxes():
        outbox.running = False


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Give a PostgreSQL server, one for all tests of this process."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres_database(postgres: PostgresServer) -> str:
    """Give the name of an empty database."""
    return postgres.new_database()
