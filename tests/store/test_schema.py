"""What start-up says of tables that another version of hookware made."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from hookware import Hookware
from hookware.env import Env
from hookware.errors import ConfigurationError
from hookware.store.sql.async_runner import AsyncRunner, own_async_engine
from hookware.store.sql.runner import ThreadRunner
from hookware.store.sql.store import SQLStore
from tests.serving import StartupFailedError, serving
from tests.store.subject import TOMBSTONE_US, ManualClock


def store_on(engine: Engine) -> SQLStore:
    return SQLStore(ThreadRunner(engine, Env()), ManualClock(), env=Env(), tombstone_us=TOMBSTONE_US)


@pytest.fixture
async def store(engine: Engine) -> AsyncIterator[SQLStore]:
    """Give a store on tables of this version, which has not looked at them."""
    made = store_on(engine)
    await made.prepare(create_tables=True)
    yield store_on(engine)
    await made.close()


def alter(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize("create_tables", [True, False])
async def test_columns_that_an_earlier_version_did_not_have(store: SQLStore, path: Path, create_tables: bool) -> None:
    for column in ("crash_count", "last_status"):
        alter(path, f"ALTER TABLE hookware_task DROP COLUMN {column}")
    with pytest.raises(
        ConfigurationError,
        match=r"table hookware_task has no column crash_count, last_status: an earlier version of hookware made it\. "
        r"Run hookware db upgrade, or a migration \(alembic revision --autogenerate\); or, if no task waits in this "
        r"database, drop hookware_task and hookware_name",
    ):
        await store.prepare(create_tables=create_tables)


async def test_each_table_is_looked_at(store: SQLStore, path: Path) -> None:
    alter(path, "DROP INDEX ix_hookware_name_expires", "ALTER TABLE hookware_name DROP COLUMN expires_us")
    with pytest.raises(ConfigurationError, match=r"table hookware_name has no column expires_us: an earlier version"):
        store.prepare_blocking(create_tables=True)


@pytest.mark.parametrize("create_tables", [True, False])
async def test_a_column_that_a_later_version_fills(store: SQLStore, path: Path, create_tables: bool) -> None:
    alter(
        path,
        "DROP TABLE hookware_name",
        "CREATE TABLE hookware_name (queue_name TEXT, name TEXT, task_id BIGINT, expires_us BIGINT, "
        "colour TEXT NOT NULL, shape TEXT NOT NULL, PRIMARY KEY (queue_name, name))",
    )
    with pytest.raises(
        ConfigurationError,
        match=r"table hookware_name wants a value for the column colour, shape, which this version of hookware does "
        r"not know: a later one made it\. Upgrade hookware",
    ):
        await store.prepare(create_tables=create_tables)


@pytest.mark.parametrize("create_tables", [True, False])
async def test_columns_that_need_no_value_are_fine(
    store: SQLStore, path: Path, create_tables: bool, caplog: pytest.LogCaptureFixture
) -> None:
    alter(
        path,
        "ALTER TABLE hookware_task ADD COLUMN colour TEXT",
        "ALTER TABLE hookware_task ADD COLUMN weight INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE hookware_task ADD COLUMN shown_name TEXT GENERATED ALWAYS AS (queue_name || name) VIRTUAL",
    )
    await store.prepare(create_tables=create_tables)
    assert caplog.records == []


@pytest.mark.parametrize("create_tables", [True, False])
async def test_missing_indexes_are_told_once(
    store: SQLStore, path: Path, create_tables: bool, caplog: pytest.LogCaptureFixture
) -> None:
    alter(path, "DROP INDEX ix_hookware_task_pending", "DROP INDEX ix_hookware_name_task")
    await store.prepare(create_tables=create_tables)
    store.prepare_blocking(create_tables=create_tables)  # as each add outside of a server does
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "has no index ix_hookware_task_pending, ix_hookware_name_task: " in record.getMessage()


async def test_a_table_is_refused_until_it_is_mended(store: SQLStore, path: Path) -> None:
    alter(path, "ALTER TABLE hookware_task DROP COLUMN last_error")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="no column last_error"):
            await store.prepare(create_tables=True)
    alter(path, "ALTER TABLE hookware_task ADD COLUMN last_error TEXT")
    await store.prepare(create_tables=True)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_in_an_event_loop_it_is_the_same(store: SQLStore, path: Path) -> None:
    alter(path, "ALTER TABLE hookware_task DROP COLUMN last_error")
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    runner = AsyncRunner(own_async_engine(engine), Env())
    with pytest.raises(ConfigurationError, match="no column last_error"):
        await SQLStore(runner, ManualClock(), env=Env(), tombstone_us=0).prepare(create_tables=False)
    await runner.close()
    await engine.dispose()


async def test_the_server_is_told_and_does_not_start(store: SQLStore, path: Path) -> None:
    alter(path, "ALTER TABLE hookware_task DROP COLUMN last_error")
    engine = create_engine(f"sqlite:///{path}")
    with pytest.raises(StartupFailedError, match=r"cannot start: .* no column last_error: an earlier version"):
        async with serving(Hookware(engine=engine)):
            pass
    engine.dispose()
