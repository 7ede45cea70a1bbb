"""hookware's own connections to PostgreSQL: few, at READ COMMITTED, and never waiting for ever on a dead network."""

import os
import select
import socket
from contextlib import suppress
from inspect import getclosurevars, isfunction
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, Pool, QueuePool

from hookware.env import Env

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry
    from sqlalchemy.pool.base import _CreatorFnType, _CreatorWRecFnType

ISOLATION_LEVEL: Final = "READ COMMITTED"
"""hookware's statements are written for it, whatever the server's default is: each sees what was committed before."""

SILENCE_SECONDS: Final = 15
"""How long a peer may leave what was sent to it unanswered before the connection counts as broken."""

CONNECT_SECONDS: Final = 5
"""How long opening a connection may take, where the user's own engine sets no limit."""

IDLE_SECONDS: Final = 5
"""How long a connection of the user's may have lain unused before hookware's sessions ask whether it still works."""

ANSWER_SECONDS: Final = 2.5
"""How long it may take to answer that: a pooler with a queue, or a server that stalls for a moment, is not dead."""

LOOP_LOCK_MS: Final = 250
"""How long a statement that blocks an event loop may wait for a lock."""

_CONNECT_LIMITS: Final = {
    "psycopg": {"connect_timeout": CONNECT_SECONDS},
    "psycopg_async": {"connect_timeout": CONNECT_SECONDS},
    "asyncpg": {"timeout": CONNECT_SECONDS},
}
_IDLE_SINCE: Final = "hookware_idle_since"
_KEPT: Final = 2
_MORE: Final = 8
_TABLES_KEY: Final = 0x686F6F6B77617265 & (2**63 - 1)  # "hookware"


def own_pool(engine: Engine, *, pooled: bool = True) -> Pool:
    """Give a small pool that opens connections as the user's engine does: creator, connect_args, listeners."""
    theirs, creator = engine.pool, _impatient(engine)
    if not pooled or isinstance(theirs, NullPool):
        return NullPool(creator, dialect=engine.dialect, _dispatch=theirs.dispatch)
    kind = AsyncAdaptedQueuePool if engine.dialect.is_async else QueuePool
    return kind(
        creator,
        pool_size=_KEPT,
        max_overflow=_MORE,
        recycle=1800,
        pre_ping=not _looks(engine),
        dialect=engine.dialect,
        _dispatch=theirs.dispatch,  # as Pool.recreate() does
    )


def configure(engine: Engine) -> None:
    """Let an engine of hookware's own notice when the other side is gone."""
    event.listen(engine, "connect", _limit_silence)
    if _looks(engine):
        event.listen(engine, "checkout", _refuse_if_ended)


def note_idle(engine: Engine, env: Env) -> None:
    """Note when the connections of the user's engine are given back, for `connect_alive`."""

    def checked_in(_connection: object, record: "ConnectionPoolEntry") -> None:
        record.info[_IDLE_SINCE] = env.monotonic()

    event.listen(engine, "checkin", checked_in)


def connect_alive(engine: Engine, env: Env) -> Connection:
    """Take a connection of the user's engine; one that has lain idle for long is asked first whether it still works.

    A network that swallowed everything for a while leaves the pool full of connections that never answer again. Each
    would cost a task its whole deadline. When one is found dead, SQLAlchemy throws the others of the pool away, too.
    """
    connection = engine.connect()
    idle_since = connection.info.get(_IDLE_SINCE)
    try:
        if idle_since is None or env.monotonic() - idle_since < IDLE_SECONDS or _answers(connection, env):
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return engine.connect()


def _answers(connection: Connection, env: Env) -> bool:
    overdue: list[bool] = []
    driver_connection = connection.connection.driver_connection

    def give_up() -> None:
        if _has_come(driver_connection):
            return  # an event loop that was blocked has not read the answer yet
        overdue.append(True)
        break_off(driver_connection)

    watch = env.every(ANSWER_SECONDS, give_up, name="hookware connection")
    try:
        connection.exec_driver_sql("SELECT 1")
        connection.rollback()
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        return False
    finally:
        watch.stop()
    if overdue:
        connection.invalidate()  # it answered in the very moment in which it was given up
    return not overdue


def limit_lock_waits(connection: Connection) -> None:
    """Let the transaction's statements wait for locks only as long as an event loop may stand still.

    Whoever holds the lock may need that loop for his commit: then the wait has no end.
    """
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOOP_LOCK_MS}ms'"))


def lock_tables(connection: Connection) -> None:
    """Let one process at a time make the tables, until the transaction ends."""
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_TABLES_KEY})"))


def _impatient(engine: Engine) -> "_CreatorFnType | _CreatorWRecFnType":
    """Give the engine's way to connect, with a limit in time: a network that swallows everything never refuses."""
    creator, dialect = engine.pool._creator, engine.dialect
    # SQLAlchemy keeps the arguments nowhere else; a creator of the user's own has none, and its own limit.
    given = getclosurevars(creator).nonlocals if isfunction(creator) else {}
    if "cparams" not in given or "cargs_tup" not in given:
        return creator

    def connect(record: "ConnectionPoolEntry | None" = None) -> "DBAPIConnection":
        arguments, options = list(given["cargs_tup"]), _CONNECT_LIMITS[dialect.driver] | dict(given["cparams"])
        for listener in dialect.dispatch.do_connect:  # which may change both, or connect by itself
            connection = listener(dialect, record, arguments, options)
            if connection is not None:
                return connection  # type: ignore[no-any-return]  # as untyped as listeners are
        return dialect.connect(*arguments, **options)

    return connect


def break_off(connection: object) -> None:
    """End a driver's connection from another thread: whoever waits for its answer gets an error."""
    # Closed meanwhile, or the other side was faster.
    with suppress(Exception), socket.socket(fileno=os.dup(_descriptor(connection) or -1)) as peer:
        peer.shutdown(socket.SHUT_RDWR)


def _looks(engine: Engine) -> bool:
    """Say whether a look at a connection's socket shows that the other side has ended it."""
    return not engine.dialect.is_async and hasattr(select, "poll")


def _refuse_if_ended(connection: "DBAPIConnection", _record: object, _fairy: object) -> None:
    """Have another connection opened in place of one that the other side has ended while nobody used it.

    A ping would find out the same, and cost each transaction a round trip.
    """
    if _has_ended(connection):
        raise DisconnectionError


def _has_ended(connection: "DBAPIConnection") -> bool:
    return _has_come(connection)  # nothing was asked: what has come is most likely the end


def _has_come(connection: object) -> bool:
    """Say whether something has come that nobody has read, an end included."""
    if not hasattr(select, "poll"):
        return False
    try:
        incoming = select.poll()
        incoming.register(_descriptor(connection) or -1, select.POLLIN)
        return bool(incoming.poll(0))
    except Exception:  # noqa: BLE001 - whatever a driver raises for a connection that it knows to be closed
        return True


def _limit_silence(connection: "DBAPIConnection", _record: "ConnectionPoolEntry") -> None:
    descriptor = _descriptor(getattr(connection, "driver_connection", connection))
    if descriptor is None:
        return
    # Unix sockets, and systems without the option, have nothing of the kind.
    with suppress(OSError, AttributeError), socket.socket(fileno=os.dup(descriptor)) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE_SECONDS)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000)


def _descriptor(connection: object) -> int | None:
    """Give the socket of a driver's connection: psycopg's, or asyncpg's."""
    fileno = getattr(connection, "fileno", None)
    if fileno is not None:
        return int(fileno())
    transport = getattr(connection, "_transport", None)
    peer = None if transport is None else transport.get_extra_info("socket")
    return None if peer is None else int(peer.fileno())
