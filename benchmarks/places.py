"""Where the systems work: one PostgreSQL, one Redis and one disk for all of them."""

import itertools
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

from benchmarks.node import SystemFailedError
from benchmarks.systems import REDIS, SQLITE
from benchmarks.systems.base import Place
from tests.postgres import PostgresServer, binaries

_SETTINGS = {
    "fsync": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "max_connections": "300",
    "autovacuum_naptime": "10s",
}
_STATEMENTS = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_utility": "off"}


@dataclass(kw_only=True)
class Places:
    """The servers, and what they have done.

    Attributes:
        postgres: the URL of a database of the server from which new ones are made; empty: there is none.
        redis: the URL of a database of Redis that is ours alone; empty: there is none.
        folder: where the SQLite files are.
        process: PostgreSQL's first process, if it is ours.
    """

    postgres: str
    redis: str
    folder: Path
    process: int | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @contextmanager
    def place(self, name: str) -> Iterator[Place]:
        """Hold an empty database for a system, and an empty Redis if it uses one."""
        redis = self._empty_redis() if name in REDIS else ""
        number = next(self._numbers)
        if name in SQLITE:
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                yield Place(database=f"sqlite:///{folder}/bench.db", redis=redis)
            return
        database = f"hookware_bench_{number}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {database}".encode())
        try:
            yield Place(database=self.postgres.rpartition("/")[0] + "/" + database, redis=redis)
        finally:
            with self.connect() as connection:
                connection.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())

    def connect(self, place: Place | None = None) -> "psycopg.Connection[tuple[object, ...]]":
        """Open a connection of the harness's own."""
        if not self.postgres:
            raise SystemFailedError("there is no PostgreSQL")
        return psycopg.connect(self.postgres if place is None else place.database, autocommit=True)

    def cpu(self) -> float | None:
        """Give the seconds of CPU that PostgreSQL has used, with all its processes; None if it is not ours."""
        if self.process is None:
            return None
        root = psutil.Process(self.process)
        used = root.cpu_times()
        seconds = used.user + used.system + used.children_user + used.children_system
        for child in root.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                seconds += times.user + times.system
        return seconds

    def statements(self, beside: str = "") -> float:
        """Give how many statements were run in the systems' databases, without BEGIN, COMMIT and the like.

        `beside`: not those that say this.
        """
        with self.connect() as connection, suppress(psycopg.Error):
            return _number(
                connection,
                "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid "
                f"WHERE datname LIKE 'hookware_bench_%' AND NOT ('{beside}' <> '' AND query LIKE '%{beside}%')",
            )
        raise SystemFailedError("statements cannot be counted: the server has no pg_stat_statements")

    def wal(self) -> float:
        """Give how many bytes of WAL were written."""
        with self.connect() as connection:
            return _number(connection, "SELECT pg_current_wal_insert_lsn() - '0/0'")

    def transactions(self) -> float:
        """Give how many transactions there were in the systems' databases."""
        query = "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname LIKE 'hookware_bench_%'"
        with self.connect() as connection:
            return _number(connection, query)

    def checkpoint(self) -> None:
        """Let no checkpoint fall into a measurement by itself, as far as that can be."""
        with self.connect() as connection:
            connection.execute("CHECKPOINT")

    def _empty_redis(self) -> str:
        import redis

        if not self.redis:
            raise SystemFailedError("there is no Redis: install redis-server, or give --redis")
        with closing(redis.Redis.from_url(self.redis)) as client:
            client.flushdb()
        return self.redis


def _number(connection: "psycopg.Connection[tuple[object, ...]]", query: str) -> float:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return float(str(row[0] or 0))


@contextmanager
def places(postgres: str, redis: str, folder: Path | None) -> Iterator[Places]:
    """Hold the servers: those that are named, else some of the harness's own."""
    with (
        tempfile.TemporaryDirectory(prefix="hookware-bench-", dir=folder) as own,
        _postgres(postgres) as (postgres_url, process),
        _redis(redis) as redis_url,
    ):
        yield Places(postgres=postgres_url, redis=redis_url, folder=Path(own), process=process)


@contextmanager
def _postgres(url: str) -> Iterator[tuple[str, int | None]]:
    if url:
        yield url, None
        return
    counts = any((binaries().parent / "lib").rglob("pg_stat_statements.so"))
    server = PostgresServer(**_SETTINGS, **(_STATEMENTS if counts else {}))
    try:
        server.start()
        if counts:
            with server.connect() as connection:
                connection.execute("CREATE EXTENSION pg_stat_statements")
        yield f"postgresql://postgres@127.0.0.1:{server.port}/postgres", server.pid
    finally:
        server.remove()


@contextmanager
def _redis(url: str) -> Iterator[str]:
    program = shutil.which("redis-server")
    if url or program is None:
        yield _ours(url) if url else ""
        return
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir())
    try:
        _wait_for(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def _ours(url: str) -> str:
    import redis

    with closing(redis.Redis.from_url(url)) as client:
        if client.dbsize():
            raise SystemExit(f"{url} is not empty, and the harness would empty it: name another database of Redis")
    return url


def _wait_for(port: int) -> None:
    for _ in range(500):
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), timeout=1)):
            return
        time.sleep(0.01)
    raise SystemFailedError("redis-server did not start")
