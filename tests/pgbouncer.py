"""PgBouncer in transaction mode, a process in front of the tests' PostgreSQL server; gone after the test."""

import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import URL

from tests.postgres import PostgresServer
from tests.running import eventually

POOL_SIZE = 3
"""Connections to the server; each transaction gets the one that was idle the longest: never the same twice."""

_SETTINGS = {
    "listen_addr": "127.0.0.1",
    "unix_socket_dir": "",
    "auth_type": "trust",
    "pool_mode": "transaction",
    "default_pool_size": str(POOL_SIZE),
    "server_round_robin": "1",
    "so_reuseport": "0",
}


def program() -> str | None:
    """Find the program."""
    # Where a user's PATH has no place for what is started at boot.
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def ways() -> list[dict[str, str]]:
    """Give the settings that this version has for prepared statements: from 1.21 on drivers may use some."""
    found = program()
    said = (
        "" if found is None else subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    )
    major, minor, *_ = [*re.findall(r"\d+", said), "0", "0"]
    if (int(major), int(minor)) < (1, 21):
        return [{}]
    return [{"max_prepared_statements": "0"}, {"max_prepared_statements": "200"}]


class PgBouncer:
    """The pooler of one database, which its connections to the server stay with."""

    def __init__(self, server: PostgresServer, database: str, port: int) -> None:
        self._server, self.database, self.port = server, database, port

    def url(self, driver: str = "psycopg") -> URL:
        """Give the URL through the pooler."""
        return self._server.url(self.database, driver, port=self.port)

    @property
    def direct_url(self) -> URL:
        """The URL around it."""
        return self._server.url(self.database)

    def ask_each_connection(self, sql: str) -> list[tuple[object, ...]]:
        """Ask all of the pooler's connections to the server; what any of them answers."""
        answers: list[tuple[object, ...]] = []
        pids: set[object] = set()
        with ExitStack() as stack:
            for _ in range(POOL_SIZE):  # held at once, so that no two are the same
                connection = stack.enter_context(self.connect())
                pids.update(connection.execute("SELECT pg_backend_pid()"))
                answers += connection.execute(sql.encode())
                stack.callback(connection.rollback)
        assert len(pids) == POOL_SIZE
        return answers

    def connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        """Open a client's connection."""
        url = self.url().set(drivername="postgresql").render_as_string()
        return psycopg.connect(url, prepare_threshold=None)


@contextmanager
def pgbouncer(server: PostgresServer, database: str, **settings: str) -> Iterator[PgBouncer]:
    """Hold a pooler in front of one database, with all of its connections to the server open."""
    directory, port = Path(tempfile.mkdtemp(prefix="hookware-pgbouncer-")), _free_port()
    account = pwd.getpwnam("nobody") if os.getuid() == 0 else None  # it refuses to run as root
    lines = {**_SETTINGS, "listen_port": str(port), "auth_file": f"{directory}/users", **settings}
    (directory / "users").write_text('"postgres" ""\n')
    (directory / "ini").write_text(
        f"[databases]\n{database} = host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
        + "".join(f"{name} = {value}\n" for name, value in lines.items())
    )
    if account is not None:
        os.chown(directory, account.pw_uid, account.pw_gid)
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            [str(program()), str(directory / "ini")],
            stdout=log,
            stderr=log,
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else [],
            start_new_session=True,  # not ended by a Ctrl-C before the tests are
        )
    pooler = PgBouncer(server, database, port)
    try:
        eventually(lambda: _serves(pooler) or process.poll() is not None)
        assert process.poll() is None, (directory / "log").read_text()
        pooler.ask_each_connection("SELECT 1")
        yield pooler
    finally:
        process.kill()
        process.wait(timeout=10)
        shutil.rmtree(directory, ignore_errors=True)


def _serves(pooler: PgBouncer) -> bool:
    try:
        pooler.connect().close()
    except psycopg.OperationalError:
        return False
    return True


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
