"""A database with the user's own table, and a second look at it."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.databases import Database
from tests.transactions.stored import Stored, business_table


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    engine = database.engine()
    with engine.begin() as connection:
        business_table.create(connection)
    yield engine
    engine.dispose()


@pytest.fixture
async def async_engine(database: Database) -> AsyncIterator[AsyncEngine]:
    engine = database.async_engine()
    async with engine.begin() as connection:
        await connection.run_sync(business_table.create)
    yield engine
    await engine.dispose()


@pytest.fixture
def stored(database: Database) -> Iterator[Stored]:
    stored = Stored(database)
    yield stored
    stored.close()
