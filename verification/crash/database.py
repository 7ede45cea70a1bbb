"""The databases that a site may stand on: a SQLite file, or a database of its own on a PostgreSQL server."""

import argparse
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import psycopg

from tests.postgres import PostgresServer, postgres_server

_TABLES = (
    "CREATE TABLE crash_order (key TEXT PRIMARY KEY, task BIGINT NOT NULL)",
    "CREATE TABLE crash_effect (id INTEGER PRIMARY KEY, task BIGINT, attempt INTEGER, fence BIGINT, pid INTEGER)",
)
_RETURN_SECONDS = 120

DRIVERS = ("psycopg", "psycopg_async", "asyncpg")


class Database(Protocol):
    """A database with the tables of the app that is killed.

    Attributes:
        url: how the app's processes reach it; they put their own name into it.
        name: for people.
    """

    url: str
    name: str

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database; `?` stands for a value."""
        ...

    def is_held_by(self, pid: int) -> bool:
        """Say whether a process has a transaction open that others wait for."""
        ...

    def close(self) -> None:
        """Look no more."""
        ...


class SQLiteFile:
    """A SQLite file."""

    name = "SQLite"

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self._path = path
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(";".join(("PRAGMA journal_mode = WAL", *_TABLES)))

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._path, timeout=10)) as connection:
            return connection.execute(query, values).fetchall()

    def is_held_by(self, _pid: int) -> bool:
        """Say whether anybody holds the one lock that there is."""
        with closing(sqlite3.connect(self._path, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.execute("ROLLBACK")
            return False

    def close(self) -> None:
        """Hold nothing."""


class PostgresDatabase:
    """A database on a server that may be away for a while.

    Args:
        server: where it is made.
        driver: the app's: psycopg, psycopg_async or asyncpg.
        port: where the app's processes find the server, if not at its own port.
    """

    def __init__(self, server: PostgresServer, driver: str = "psycopg", *, port: int | None = None) -> None:
        database = server.new_database()
        self.url = server.url(database, driver, port=port).render_as_string(hide_password=False)
        self.server = server
        self._database = database
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        for table in _TABLES:
            self.rows(table.replace("INTEGER PRIMARY KEY", "BIGSERIAL PRIMARY KEY"))
        ((version,),) = self.rows("SHOW server_version_num")
        self.name = f"PostgreSQL {int(version) // 10_000} ({driver})"

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database, again while the server is away."""
        began = time.monotonic()
        while True:
            try:
                cursor = self._connected().execute(query.replace("?", "%s").encode(), values)
                return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                self.close()
                if time.monotonic() - began > _RETURN_SECONDS:
                    raise
                time.sleep(0.05)

    def is_held_by(self, pid: int) -> bool:
        busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = ? AND state <> 'idle'"
        return self.rows(busy, application_name(pid)) != [(0,)]

    def throw_out(self, most: int = 1000) -> int:
        """Terminate sessions of the app's processes, chosen by chance; give how many there were."""
        victims = "SELECT pid FROM pg_stat_activity WHERE starts_with(application_name, ?) ORDER BY random() LIMIT ?"
        return len(
            self.rows(f"SELECT pg_terminate_backend(pid) FROM ({victims}) AS victim", application_name(""), most)
        )

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> psycopg.Connection[tuple[object, ...]]:
        if self._connection is None:
            self._connection = self.server.connect(self._database)
        return self._connection


def application_name(pid: int | str) -> str:
    """Give the name by which a process is known to PostgreSQL."""
    return f"site-{pid}"


def add_database_arguments(parser: argparse.ArgumentParser, *, default: str) -> None:
    """Let a command ask for a database."""
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default=default)
    parser.add_argument("--driver", choices=DRIVERS, default=DRIVERS[0], help="the app's, on PostgreSQL")


@contextmanager
def chosen_database(asked: argparse.Namespace, directory: Path) -> Iterator[Database]:
    """Hold the database that a command asks for; PostgreSQL is a server of its own, which writes to the disk."""
    if asked.database == "sqlite":
        yield SQLiteFile(directory / "crash.db")
        return
    with postgres_server(fsync="on") as server:
        yield PostgresDatabase(server, asked.driver)
