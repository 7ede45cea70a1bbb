"""hookware's own engine reaches the same database in the user's way, with connections of its own."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from hookware.store.sql.async_runner import own_async_engine
from hookware.store.sql.engines import own_engine
from hookware.store.sql.selftest import check_atomicity
from hookware.store.sql.sqlite import configure
from hookware.store.sql.tables import metadata, name_table, task_table


def pragma(engine: Engine, name: str) -> object:
    with engine.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_it_keeps_the_users_creator_and_listeners_but_not_the_pool(path: Path) -> None:
    opened: list[sqlite3.Connection] = []

    def creator() -> sqlite3.Connection:
        opened.append(sqlite3.connect(path, check_same_thread=False))
        return opened[-1]

    user = create_engine("sqlite:///elsewhere.db", creator=creator)
    event.listen(user, "connect", lambda connection, _record: connection.execute("PRAGMA foreign_keys = ON"))
    configure(user)
    own = own_engine(user)
    assert pragma(user, "foreign_keys") == pragma(own, "foreign_keys") == 1
    assert pragma(own, "busy_timeout") == 5000
    assert len(opened) == 2
    assert own.pool is not user.pool
    user.dispose()
    assert pragma(own, "foreign_keys") == 1
    assert len(opened) == 2
    own.dispose()


def test_it_begins_for_real_although_the_users_engine_is_not_configured(path: Path) -> None:
    user = create_engine(f"sqlite:///{path}", connect_args={"timeout": 9})
    own = own_engine(user)
    metadata.create_all(own, tables=[task_table, name_table])
    check_atomicity(own)
    assert pragma(own, "busy_timeout") == 9000
    own.dispose()
    user.dispose()


def test_a_user_without_a_pool_keeps_having_none(path: Path) -> None:
    user = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    own = own_engine(user)
    assert isinstance(own.pool, NullPool)
    assert pragma(own, "journal_mode") == "wal"
    assert pragma(own, "busy_timeout") == 5000


def test_listeners_of_connections_are_not_run_twice(path: Path) -> None:
    calls: list[ConnectionPoolEntry] = []
    user = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    event.listen(user, "connect", lambda _connection, record: calls.append(record))
    own = own_engine(user)
    pragma(own, "user_version")
    assert len(calls) == 1


def test_it_has_the_users_options_but_the_isolation_level(path: Path) -> None:
    user = create_engine(f"sqlite:///{path}", execution_options={"schema_translate_map": {"a": None}})
    configure(user)
    options = own_engine(user.execution_options(isolation_level="SERIALIZABLE")).get_execution_options()
    assert options["schema_translate_map"] == {"a": None}
    assert "isolation_level" not in options


async def test_of_an_aiosqlite_engine_it_is_a_synchronous_one_on_the_same_file(path: Path) -> None:
    user = create_async_engine(f"sqlite+aiosqlite:///{path}?timeout=9")
    own = own_engine(user)
    with own.connect() as connection:
        (row,) = connection.exec_driver_sql("PRAGMA database_list").all()
    assert row.file == str(path)
    assert own.dialect.driver == "pysqlite"
    assert pragma(own, "busy_timeout") == 9000
    own.dispose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("pooled", [True, False])
async def test_an_async_engine_has_its_own_connections_too(path: Path, pooled: bool) -> None:
    user = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": 9})
    own = own_async_engine(user, pooled=pooled)
    assert own.pool is not user.pool
    assert isinstance(own.pool, NullPool) is not pooled
    async with own.connect() as connection:
        assert (await connection.exec_driver_sql("PRAGMA busy_timeout")).scalar() == 9000
    await own.dispose()
