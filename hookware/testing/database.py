"""hookware's tables in a test: emptied, or worked on inside a transaction that the test rolls back.

There hookware's own transactions are savepoints on the test's connection. They are never released: a savepoint that
another session has begun meanwhile lies inside, and would go with them. The rollback at the end takes them all.
"""

from collections.abc import Callable
from functools import partial
from itertools import count
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.from_thread
import anyio.to_thread
from sqlalchemy import Connection, Engine, delete, inspect, select
from sqlalchemy.pool import NullPool

from hookware.core.overview import ALIVE_US
from hookware.env import Env, in_event_loop
from hookware.owner import current_owner, is_dead, place_of
from hookware.store.base import TaskInfo
from hookware.store.sql import address, sqlite
from hookware.store.sql.outbox import Outbox
from hookware.store.sql.statements import list_tasks
from hookware.store.sql.tables import executed_table, name_table, process_table, queue_table, task_table
from hookware.store.sql.times import Clock

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")

_MOST_TASKS = 100_000
_TABLES = (task_table, name_table, queue_table, executed_table)


def empty(connection: Connection, clock: Clock) -> None:
    """Remove every task, name and count, and what was changed of queues.

    Raises:
        RuntimeError: another process uses the database: it is no test's.
    """
    if not inspect(connection).has_table(task_table.name):
        return
    _refuse_others(connection, clock(connection))
    for table in _TABLES:
        connection.execute(delete(table))


def _refuse_others(connection: Connection, now_us: int) -> None:
    if not inspect(connection).has_table(process_table.name):
        return
    seen = select(process_table.c.owner).where(process_table.c.seen_us > now_us - ALIVE_US)
    here = place_of(current_owner(Env()))
    for owner in connection.execute(seen).scalars():
        host, pid = place_of(owner)
        if (host, pid) != here and not is_dead(owner):
            raise RuntimeError(
                f"process {pid} on {host} uses the database {address.shown(connection.engine.url)}, which tests would "
                "empty: give the app under test a database of its own"
            )


def stored(connection: Connection) -> list[TaskInfo]:
    """List the tasks that there are."""
    return list_tasks(connection, state=None, queue_name=None, limit=_MOST_TASKS)


def sync_connection_of(connection: "Connection | AsyncConnection") -> Connection:
    """Give the connection inside of an AsyncConnection, or the very one.

    Raises:
        TypeError: it is neither, or is not in a transaction.
    """
    inner = getattr(connection, "sync_connection", connection)
    if not isinstance(inner, Connection):
        raise TypeError(f"within() takes a Connection or an AsyncConnection, got {connection!r}")
    if not inner.in_transaction():
        raise TypeError(
            "within() takes a connection in a transaction: call connection.begin() before, and roll it back"
        )
    return inner


class WithinRunner:
    """Runs statements on a test's connection, each call in a savepoint."""

    def __init__(self, engine: Engine, outer: "Connection | AsyncConnection") -> None:
        self._engine = engine
        self._outer = outer
        self._is_async = hasattr(outer, "sync_connection")

    async def run(self, fn: Callable[[Connection], T], *, write: bool = True, single: bool = False) -> T:
        """Run `fn` in a savepoint."""
        if self._is_async:
            return await self._outer.run_sync(lambda _: self._in_savepoint(fn))  # type: ignore[union-attr]  # an AsyncConnection
        return self._in_savepoint(fn)

    def run_blocking(self, fn: Callable[[Connection], T], *, write: bool = True, single: bool = False) -> T:
        """Do so in this thread."""
        if self._is_async:
            raise RuntimeError("the test's connection is an AsyncConnection: use the method whose name ends in _async")
        return self._in_savepoint(fn)

    def _in_savepoint(self, fn: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection, connection.begin():
            return fn(connection)

    def hurry(self, seconds: float) -> None:
        """Take the time that it takes."""

    def relax(self) -> None:
        """Take the time that it takes."""

    async def close(self) -> None:
        """Leave the test's connection to the test."""

    def start_over(self) -> None:
        """Leave the test's connection to the test."""

    def dispose(self) -> None:
        """Leave the test's connection to the test."""


class _Savepoint:
    """A driver's connection as SQLAlchemy sees it, whose transactions are savepoints of the real one's."""

    def __init__(self, outer: Connection, numbers: "count[int]", lock: Any) -> None:
        self._outer = outer
        self._inner: Any = outer.connection.dbapi_connection
        self._numbers, self._lock = numbers, lock
        self._name: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def cursor(self, *args: Any, **options: Any) -> Any:
        self._begin()
        return self._inner.cursor(*args, **options)

    def commit(self) -> None:
        self._name = None

    def rollback(self) -> None:
        name, self._name = self._name, None
        if name is not None:
            self._execute(f"ROLLBACK TO SAVEPOINT {name}")

    def close(self) -> None:
        self.rollback()

    def _begin(self) -> None:
        if self._name is not None:
            return
        if self._outer.dialect.name == "sqlite":
            sqlite.begin_immediate(self._outer)  # the driver itself begins none for a SAVEPOINT
        name = f"hookware_{next(self._numbers)}"
        self._execute(f"SAVEPOINT {name}")
        self._name = name

    def _execute(self, statement: str) -> None:
        with self._lock:
            cursor = self._inner.cursor()
            try:
                cursor.execute(statement)
            finally:
                cursor.close()


def engine_within(outer: Connection) -> Engine:
    """Give an engine whose connections are all the one of a test, and whose transactions are savepoints on it."""
    engine, numbers, lock = outer.engine, count(1), RLock()
    pool = NullPool(lambda: _Savepoint(outer, numbers, lock), dialect=engine.dialect)
    within = Engine(pool, engine.dialect, engine.url)
    within.update_execution_options(
        **{k: v for k, v in engine.get_execution_options().items() if k != "isolation_level"}
    )
    return within


def blocking(outbox: Outbox, fn: Callable[[Connection], T]) -> T:
    """Run a statement and wait for it, in an event loop too; beside it where its driver is an asyncio one."""
    if outbox.within is not None or not in_event_loop():
        return outbox.runner.run_blocking(fn)
    with anyio.from_thread.start_blocking_portal() as portal:
        return portal.call(partial(anyio.to_thread.run_sync, partial(outbox.runner.run_blocking, fn)))
