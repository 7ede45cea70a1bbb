"""hookware's own connections to PostgreSQL: few, at READ COMMITTED, and never waiting for ever on a dead network."""

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, Pool, QueuePool

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

ISOLATION_LEVEL: Final = "READ COMMITTED"
"""hookware's statements are written for it, whatever the server's default is: each sees what was committed before."""

SILENCE_SECONDS: Final = 15
"""How long a peer may leave what was sent to it unanswered before the connection counts as broken."""

_KEPT: Final = 2
_MORE: Final = 8
_TABLES_KEY: Final = 0x686F6F6B77617265 & (2**63 - 1)  # "hookware"


def own_pool(engine: Engine, *, pooled: bool = True) -> Pool:
    """Give a small pool that opens connections as the user's engine does: creator, connect_args, listeners."""
    theirs = engine.pool
    if not pooled or isinstance(theirs, NullPool):
        return NullPool(theirs._creator, dialect=engine.dialect)
    kind = AsyncAdaptedQueuePool if engine.dialect.is_async else QueuePool
    return kind(
        theirs._creator,
        pool_size=_KEPT,
        max_overflow=_MORE,
        recycle=1800,
        pre_ping=True,
        dialect=engine.dialect,
        _dispatch=theirs.dispatch,  # as Pool.recreate() does
    )


def configure(engine: Engine) -> None:
    """Let an engine of hookware's own notice when the other side is gone."""
    event.listen(engine, "connect", _limit_silence)


def lock_tables(connection: Connection) -> None:
    """Let one process at a time make the tables, until the transaction ends."""
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_TABLES_KEY})"))


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
