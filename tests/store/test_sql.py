"""The SQL store keeps the contract on SQLite: in threads on trio, and on aiosqlite.

One file and one engine do for all tests of a class: to compile the statements takes longer than a test.
"""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hookware.env import Env
from hookware.store.sql.async_runner import AsyncRunner, own_async_engine
from hookware.store.sql.engines import configured, own_engine
from hookware.store.sql.runner import ThreadRunner
from hookware.store.sql.tables import task_table
from tests.store.conftest import sql_subject
from tests.store.contract import StoreContract
from tests.store.contract_damage import DamageContract
from tests.store.subject import Subject


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "app.db"


@pytest.fixture
def path(file: Path) -> Path:
    return file


@pytest.fixture
def empty(file: Path) -> Iterator[Path]:
    """Give the module's file without rows."""
    yield file
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for table in task_table.metadata.tables:
            if table.startswith("hookware_"):
                connection.execute(f"DELETE FROM {table}")


class TestThreads(StoreContract, DamageContract):
    """A synchronous engine, in worker threads; on asyncio the same statements run on PostgreSQL."""

    @pytest.fixture(scope="module")
    @classmethod
    def anyio_backend(cls) -> str:
        return "trio"

    @pytest.fixture(scope="class")
    @classmethod
    def own(cls, file: Path) -> Engine:
        return own_engine(configured(create_engine(f"sqlite:///{file}")))

    @pytest.fixture
    async def subject(self, own: Engine, empty: Path) -> AsyncIterator[Subject]:
        async with sql_subject(ThreadRunner(own, Env())) as subject:
            yield subject


class TestAiosqlite(StoreContract, DamageContract):
    """An AsyncEngine, on its event loop."""

    @pytest.fixture(scope="module")
    @classmethod
    def anyio_backend(cls) -> str:
        return "asyncio"

    @pytest.fixture(scope="class")
    @classmethod
    def own(cls, file: Path) -> AsyncEngine:
        return own_async_engine(create_async_engine(f"sqlite+aiosqlite:///{file}"))

    @pytest.fixture
    async def subject(self, own: AsyncEngine, empty: Path) -> AsyncIterator[Subject]:
        async with sql_subject(AsyncRunner(own, Env())) as subject:
            yield subject
