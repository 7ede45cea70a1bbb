"""Which databases a test runs on: a SQLite file of its own, or a schema of its own on the tests' PostgreSQL server.

A test takes the fixture `database`, or one that is built on it, and gets SQLite; with one of the marks below it runs
once for each of several.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
import pytest
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

_POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.postgres)

EVERY_DATABASE = pytest.mark.parametrize("database", ["sqlite", _POSTGRESQL], indirect=True)
"""For a test that needs no event loop."""

EVERY_DATABASE_ON_A_LOOP = pytest.mark.parametrize(
    ("anyio_backend", "database"),
    [
        ("asyncio", "sqlite"),
        ("trio", "sqlite"),
        pytest.param("asyncio", "postgresql", marks=pytest.mark.postgres),
    ],
    indirect=["database"],
)
"""For one that needs an event loop: what differs between two loops does not depend on the database as well."""

POSTGRESQL_ON_A_LOOP = pytest.mark.parametrize(
    ("anyio_backend", "database"),
    [pytest.param("asyncio", "postgresql", marks=pytest.mark.postgres)],
    indirect=["database"],
)
"""For what only PostgreSQL does, where the driver does not matter."""

EVERY_ASYNC_DRIVER = pytest.mark.parametrize(
    ("anyio_backend", "database"),
    [
        ("asyncio", "sqlite+aiosqlite"),
        pytest.param("asyncio", "postgresql+psycopg", marks=pytest.mark.postgres),
        pytest.param("asyncio", "postgresql+asyncpg", marks=pytest.mark.postgres),
    ],
    indirect=["database"],
)
"""For one with an AsyncEngine."""

EVERY_POSTGRESQL_DRIVER = pytest.mark.parametrize(
    ("anyio_backend", "database"),
    [
        pytest.param("asyncio", f"postgresql+{driver}", marks=pytest.mark.postgres)
        for driver in ("", "psycopg", "asyncpg")
    ],
    indirect=["database"],
)
"""For what only PostgreSQL does: with `Database.user_engine`, on the synchronous driver and both asynchronous ones."""


class _Connection(Protocol):
    """What sqlite3's and psycopg's connections have in common."""

    def execute(self, sql: Any, values: Any = (), /) -> Any: ...

    def close(self) -> None: ...


class Look:
    """Reads and changes what is committed, through a driver's own connection: each statement is a transaction."""

    def __init__(self, url: URL) -> None:
        self._connection: _Connection
        self._sqlite = url.get_backend_name() == "sqlite"
        if self._sqlite:
            self._connection = sqlite3.connect(str(url.database), check_same_thread=False, isolation_level=None)
        else:
            conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
            self._connection = psycopg.connect(conninfo, autocommit=True)

    def rows(self, sql: str, *values: object) -> list[Any]:
        """Ask the database; a single column comes without its tuple."""
        rows = self.execute(sql, *values).fetchall()
        return [row[0] if len(row) == 1 else tuple(row) for row in rows]

    def execute(self, sql: str, *values: object) -> Any:
        """Carry out a statement; `?` stands for a value."""
        return self._connection.execute(sql if self._sqlite else sql.replace("?", "%s").encode(), values)

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """An empty database of one test; `driver` is the asynchronous one, if the test asks for one."""

    url: URL
    driver: str = ""

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def async_url(self) -> URL:
        """The URL with an asynchronous driver."""
        driver = self.driver or ("aiosqlite" if self.is_sqlite else "psycopg")
        return self.url.set(drivername=f"{self.url.get_backend_name()}+{driver}")

    def engine(self, **options: Any) -> Engine:
        """Make a synchronous engine."""
        return create_engine(self.url, **options)

    def async_engine(self, **options: Any) -> AsyncEngine:
        """Make an AsyncEngine."""
        return create_async_engine(self.async_url, **options)

    def user_engine(self, **options: Any) -> Engine | AsyncEngine:
        """Make the kind of engine that the test is marked with."""
        return self.async_engine(**options) if self.driver else self.engine(**options)

    def look(self) -> Look:
        """Open a connection that sees what is committed."""
        return Look(self.url)


def refuse_at_commit(database: Database, engine: Engine | AsyncEngine) -> None:
    """Make a table `child` whose rows let the engine's commit fail: their foreign key is checked only then."""
    if database.is_sqlite:
        sync_engine = engine if isinstance(engine, Engine) else engine.sync_engine

        @event.listens_for(sync_engine, "connect")
        def foreign_keys(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA foreign_keys = ON")

        sync_engine.dispose()
    look = database.look()
    look.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    look.execute("CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
    look.close()
