"""What makes SQLite's transactions real: the driver begins none for a SAVEPOINT, and its late BEGIN loses races.

A transaction begins with BEGIN IMMEDIATE just before its first writing statement, and the savepoints around that
follow: a released SAVEPOINT is undone by the outer rollback, no lock has to be upgraded, and what only reads never
waits.
"""

import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from hookware.env import in_event_loop
from hookware.errors import ConfigurationError, TransientError

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, ExecutionContext
    from sqlalchemy.pool import ConnectionPoolEntry

BUSY_TIMEOUT_MS = 5000
"""How long a statement waits for another process's transaction, at least."""

LOOP_TIMEOUT_MS = 250
"""How long an event loop may stand still for this process's own writers."""

_WAL_TIMEOUT_MS = 250

CONFIGURED = "hookware_sqlite"
_FIRST_WORD = re.compile(r"(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z)|;)*([A-Za-z]*)", re.DOTALL)
_WRITES_WITHIN = re.compile(r"\b(?:INSERT|UPDATE|DELETE|REPLACE\s+INTO)\b", re.IGNORECASE)
_SAVEPOINT = re.compile(
    r"\s*(?P<word>SAVEPOINT|RELEASE|ROLLBACK)(?:\s+TRANSACTION)?(?:\s+TO)?(?:\s+SAVEPOINT)?\s+(?P<name>\w+)\s*;?\s*",
    re.IGNORECASE,
)
_SAVEPOINTS = "hookware_savepoints"  # the names of those that are put off
_NOTHING = "SELECT 1 WHERE 0"
_NO_WRITE = frozenset(
    "SELECT PRAGMA EXPLAIN VALUES BEGIN COMMIT END ROLLBACK RELEASE ATTACH DETACH VACUUM".split()  # noqa: SIM905 - reads better
) | {""}


class _Listener:
    """What one engine was configured with."""

    def __init__(self) -> None:
        self.on_begin: Callable[[Connection], None] | None = None

    def checked_out(
        self, connection: "DBAPIConnection", record: "ConnectionPoolEntry", _proxy: "DBAPIConnection"
    ) -> None:
        # Not on "connect": connections that were pooled before the engine was configured come by here as well.
        if CONFIGURED not in record.info:
            _set_pragmas(connection)
            record.info[CONFIGURED] = True

    def checked_in(self, connection: "DBAPIConnection | None", record: "ConnectionPoolEntry") -> None:
        # A COMMIT that SQLite refuses leaves its transaction open, and SQLAlchemy takes it for ended: the next
        # request on this connection would commit what this one was told has failed.
        if connection is not None and getattr(record.driver_connection, "in_transaction", False):
            connection.rollback()

    def began(self, connection: Connection) -> None:
        connection.info[_SAVEPOINTS] = []

    def before_execute(
        self,
        connection: Connection,
        _cursor: "DBAPICursor",
        statement: str,
        parameters: object,
        context: "ExecutionContext | None",
        _many: bool,
    ) -> tuple[str, object]:
        savepoint = _SAVEPOINT.fullmatch(statement)
        if savepoint is not None:
            return self._at_savepoint(connection, statement, savepoint), parameters
        if _writes(statement, context):
            begin_immediate(connection, self.on_begin)
        return statement, parameters

    def _at_savepoint(self, connection: Connection, statement: str, savepoint: "re.Match[str]") -> str:
        """Put a savepoint off until something is written: one that only saw reads needs no lock."""
        if in_transaction(connection) or _is_autocommit(connection):
            return statement
        names: list[str] = connection.info.setdefault(_SAVEPOINTS, [])
        word, name = savepoint["word"].upper(), savepoint["name"]
        if word == "SAVEPOINT":
            names.append(name)
        elif name not in names:
            return statement  # SQLite has something to say about it
        else:
            del names[names.index(name) + (word == "ROLLBACK") :]
        return _NOTHING


class WriteLock:
    """The line in which the writers of one process wait for SQLite's lock.

    SQLite lets waiters sleep and look again, for up to 100 ms each time; here the next one starts at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def acquire(self) -> None:
        """Wait for the turn, as long as SQLite would; TransientError if it does not come.

        On the event loop only for a moment: whoever has the turn may need the loop to end it.
        """
        milliseconds = min(BUSY_TIMEOUT_MS, LOOP_TIMEOUT_MS) if in_event_loop() else BUSY_TIMEOUT_MS
        if not self._lock.acquire(timeout=milliseconds / 1000):
            raise TransientError(
                f"the database is locked: another transaction of this process has been writing for over "
                f"{milliseconds / 1000:g} s. Keep writing transactions short; in async code use "
                "`await taskqueue.add_async(...)` and async sessions, or a plain def"
            )

    def start_over(self) -> None:
        """Be free again: after a fork, whoever had the turn is not in this process."""
        self._lock = threading.Lock()

    def release(self) -> None:
        """Let the next one go; any thread may."""
        self._lock.release()


def configure(engine: Engine, on_begin: Callable[[Connection], None] | None = None) -> None:
    """Make an engine's transactions real; again and again is the same as once.

    Args:
        engine: an engine on a SQLite file; of an AsyncEngine its `sync_engine`.
        on_begin: called with the connection right before each BEGIN IMMEDIATE.

    Raises:
        ConfigurationError: the database is in memory, or the engine commits every statement.
    """
    refuse(engine)
    listener = cast("_Listener | None", engine.get_execution_options().get(CONFIGURED))
    if listener is None:
        listener = _Listener()
        event.listen(engine, "checkout", listener.checked_out)
        event.listen(engine, "checkin", listener.checked_in)
        event.listen(engine, "begin", listener.began)
        event.listen(engine, "before_cursor_execute", listener.before_execute, retval=True)
        engine.update_execution_options(**{CONFIGURED: listener})
    if on_begin is not None:
        listener.on_begin = on_begin


def begin_immediate(connection: Connection, on_begin: Callable[[Connection], None] | None = None) -> None:
    """Begin a writing transaction, unless the connection is in one or commits every statement."""
    if in_transaction(connection) or _is_autocommit(connection):
        return
    if on_begin is not None:
        on_begin(connection)
    _execute(connection, "BEGIN IMMEDIATE")
    names, connection.info[_SAVEPOINTS] = connection.info.get(_SAVEPOINTS, []), []
    for name in names:
        connection.exec_driver_sql(f"SAVEPOINT {name}")


def _execute(connection: Connection, statement: str) -> None:
    """Run a statement without SQLAlchemy's ado, which takes ten times as long as this one; it raises what it would."""
    dbapi_error = connection.dialect.loaded_dbapi.Error
    try:
        cursor = connection.connection.cursor()
        try:
            cursor.execute(statement)
        finally:
            cursor.close()
    except dbapi_error as error:
        raise DBAPIError.instance(statement, None, error, dbapi_error, dialect=connection.dialect) from error


def _is_autocommit(connection: Connection) -> bool:
    return connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"


def in_transaction(connection: Connection) -> bool:
    """Say whether the driver's connection is in a transaction; SQLAlchemy's may be in one that has not begun there."""
    # aiosqlite's adapted connection does not tell, but the one it adapts does.
    return bool(getattr(connection.connection.driver_connection, "in_transaction", False))


def is_memory(url: URL) -> bool:
    """Say whether a SQLite URL names a database in memory or a temporary one: each connection would have its own."""
    path = (url.database or "").removeprefix("file:")
    return path.partition("?")[0] in {"", ":memory:"} or "mode=memory" in path or url.query.get("mode") == "memory"


def file_of(url: URL) -> str:
    """Give the path of a SQLite URL's file; "" where it is a URI, of which only SQLite knows what it names."""
    path = url.database or ""
    return "" if path.startswith("file:") else path


def refuse(engine: Engine) -> None:
    """Raise ConfigurationError if tasks cannot be safe on this engine."""
    if is_memory(engine.url):
        raise ConfigurationError(
            f"{engine.url!r} is a database in memory: hookware's transactions and yours would be one, and it dies with "
            'the process. Use a file: "sqlite:///app.db"; in tests one in a temporary directory'
        )
    if isinstance(engine.pool, StaticPool | SingletonThreadPool):
        raise ConfigurationError(
            f"the engine's {type(engine.pool).__name__} shares connections, and with them transactions, between "
            "requests: leave poolclass= out of create_engine()"
        )
    level = engine.get_execution_options().get("isolation_level")
    if "AUTOCOMMIT" in (level, getattr(engine.dialect, "_on_connect_isolation_level", None)):
        raise ConfigurationError(
            "the engine's isolation level is AUTOCOMMIT: a task would stay although your transaction is rolled back. "
            "Leave isolation_level= out of create_engine(), and use connection.execution_options(isolation_level="
            '"AUTOCOMMIT") where you need it'
        )


def _writes(statement: str, context: "ExecutionContext | None") -> bool:
    found = _FIRST_WORD.match(statement)
    word = found[1].upper() if found else ""
    if word == "SELECT":
        compiled = getattr(context, "compiled", None)
        return getattr(getattr(compiled, "statement", None), "_for_update_arg", None) is not None
    if word == "WITH":
        return _WRITES_WITHIN.search(statement) is not None
    return word not in _NO_WRITE


def _set_pragmas(connection: "DBAPIConnection") -> None:
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA busy_timeout")
        (milliseconds,) = cursor.fetchone() or (0,)
        cursor.execute(f"PRAGMA busy_timeout = {_WAL_TIMEOUT_MS}")
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except Exception as error:
            # Another process has the file locked, or it is read-only: WAL is the file's property, and only faster.
            # The class is known by its name, because each driver has its own.
            if type(error).__name__ != "OperationalError":
                raise
        cursor.execute(f"PRAGMA busy_timeout = {max(milliseconds, BUSY_TIMEOUT_MS)}")
    finally:
        cursor.close()
