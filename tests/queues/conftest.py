"""The site of a test: on SQLite, unless it is marked with `EVERY_SITE`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from hookware.store.sql.schema import TABLES
from tests.databases import Database
from tests.postgres import PostgresServer
from tests.queues.site import Site, site_on


@pytest.fixture(scope="module")
def schema(postgres: PostgresServer) -> URL:
    """Give a schema on PostgreSQL; the tests of a module share it, because the tables take longer than most of them."""
    return postgres.new_schema()


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Give a SQLite file, or the module's schema, emptied."""
    name, _, driver = getattr(request, "param", "sqlite").partition("+")
    if name == "sqlite":
        return Database(url=make_url(f"sqlite:///{tmp_path}/test.db"), driver=driver)
    database = Database(url=request.getfixturevalue("schema"), driver=driver)
    look = database.look()
    if look.rows("SELECT to_regclass('hookware_task')::text") != [None]:
        look.execute(f"TRUNCATE {', '.join(table.name for table in TABLES)}")
    look.close()
    return database


@pytest.fixture
async def site(database: Database) -> AsyncIterator[Site]:
    """Give a site on the database."""
    async with site_on(database) as site:
        yield site
