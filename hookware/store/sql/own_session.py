"""The request's own session: what a handler writes through it commits together with the task's completion.

It is bound to one connection whose transaction only hookware commits, so that a handler which commits and then fails
leaves nothing behind. What a handler has committed must outlast its later rollbacks: from its first `commit()` on, each
of its transactions is a savepoint. Most handlers commit once or never, and pay for none.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlmodel
from sqlalchemy import Connection, RootTransaction, event, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import SessionTransaction

from hookware.env import in_event_loop
from hookware.errors import SessionError
from hookware.handoff import Place
from hookware.store.sql import postgresql, sqlite
from hookware.store.sql.row_events import write
from hookware.store.sql.sqlite import WriteLock
from hookware.store.sql.tables import TaskRow

if TYPE_CHECKING:
    from sqlmodel.ext.asyncio.session import AsyncSession


FINISHED: Final = (
    "the request's own session is finished: it was committed before the response left. "
    "Open a session of your own for work after the response"
)
_ONE: Final = select(1)


class OwnSession(sqlmodel.Session):
    """A session whose connection is taken at its first statement, and given back when hookware ends it.

    Args:
        connect: takes a connection of the user's engine.
        turns: the line of this process's writers, on SQLite.
        takes_turn: begin as a writer at the first statement, reads included, as a task does: what it reads is then
            still true when it writes. Else only the first write begins the transaction.
        on_begin: asked before a writing transaction begins; it may refuse.
    """

    def __init__(
        self,
        *,
        connect: Callable[[], Connection],
        turns: WriteLock | None = None,
        takes_turn: bool = False,
        on_begin: Callable[[Connection, object | None], None] | None = None,
        **options: Any,
    ) -> None:
        options.pop("bind", None)
        super().__init__(join_transaction_mode="rollback_only", **options)
        self._connect = connect
        self._turns = turns
        self._takes_turn = takes_turn
        self._on_begin = on_begin
        self._has_turn = False
        self._is_limited = False
        self._own_connection: Connection | None = None
        self._own_transaction: RootTransaction | None = None
        self._finished = self._is_ending = False
        self.task_count = 0
        self.places: list[Place] = []

    @property
    def connected(self) -> bool:
        """Whether the session holds a connection."""
        return self._own_connection is not None

    @property
    def is_ending(self) -> bool:
        """Whether what is committed now is durable in a moment."""
        return self._is_ending

    @property
    def used(self) -> bool:
        """Whether anything was asked of the database, or waits to be written."""
        return self.connected or self._has_changes

    @property
    def _has_changes(self) -> bool:
        return bool(self.new or self.dirty or self.deleted)

    @property
    def _has_committed(self) -> bool:
        return self.join_transaction_mode == "create_savepoint"

    def has_committed(self) -> None:
        """Note that the handler has committed: nothing that it does from now on may undo that."""
        if self._own_transaction is not None and self._own_transaction.is_active:
            self.join_transaction_mode = "create_savepoint"

    def has_ended(self) -> None:
        """Note that a transaction of the handler's has ended; one that was only closed is rolled back by that."""
        if self._own_transaction is not None and self._own_transaction.is_active and not self._has_committed:
            self._own_transaction.rollback()

    def needs_turn(self, *, writes: bool) -> bool:
        """Whether its commit has to wait for other writers first, on SQLite; `writes`: besides what waits in it."""
        connection = self._own_connection
        if connection is None or connection.dialect.name != "sqlite" or sqlite.in_transaction(connection):
            return False
        return writes or self._has_changes

    def open(self, line: object | None = None) -> Connection:
        """Give the session's connection, in its transaction; `line` is whose doing it is, if another thread's."""
        if self._finished:
            raise SessionError(FINISHED)
        if self._own_connection is None:
            self._own_connection = self._connect()
        connection = self._own_connection
        if self._own_transaction is None or not (self._own_transaction.is_active or self._has_committed):
            try:
                self._own_transaction = connection.begin()
                if self._takes_turn:
                    self._take_turn(connection, line)
            except BaseException:
                self._drop_connection()
                raise
        return connection

    def get_bind(self, *_args: Any, **_options: Any) -> Connection:
        """Give the one connection for every mapper."""
        connection = self.open()
        if not self._is_limited and in_event_loop():
            self._is_limited = True
            if connection.dialect.name == "postgresql" and not connection.dialect.is_async:
                postgresql.limit_lock_waits(connection)
        return connection

    def commit_all(
        self,
        rows: Sequence[TaskRow],
        complete: Callable[[Connection], None] | None,
        committed: Callable[[], None],
        line: object | None = None,
    ) -> None:
        """Write what waits, then `rows`, then `complete`, and commit the lot; roll the lot back if any fails.

        `committed` is called as soon as it is durable, before others have their turn.
        """
        try:
            connection = self.open(line)
            if self.needs_turn(writes=bool(rows) or complete is not None):
                self._take_turn(connection, line)
            self.add_all(row for row in rows if row.dedup_key is not None)
            self.task_count += len(rows)
            self._is_ending = True
            self.commit()
            if fresh := [row for row in rows if row.dedup_key is None]:
                self.places += write(connection, fresh)
            if complete is not None:
                complete(connection)
            elif connection.dialect.name == "postgresql":
                # After a statement that failed, a commit is a rollback, of which the database says nothing.
                connection.execute(_ONE)
            if self._own_transaction is not None:
                self._own_transaction.commit()
            committed()
        except BaseException:
            self.discard()
            raise
        self._release()

    def discard(self) -> None:
        """Roll everything back, unless it has ended; nothing is held afterwards, whatever the database says."""
        if self._finished:
            return
        for place in self.places:
            place.forget()
        transaction = self._own_transaction
        try:
            if transaction is not None and transaction.is_active:
                transaction.rollback()
        except SQLAlchemyError:
            self._invalidate()
        finally:
            self._release()

    def _take_turn(self, connection: Connection, line: object | None) -> None:
        if connection.dialect.name != "sqlite":
            return
        if self._on_begin is not None:
            self._on_begin(connection, line)
        if self._turns is not None and not self._has_turn:
            self._turns.acquire()
            self._has_turn = True
        sqlite.begin_immediate(connection)

    def _release(self) -> None:
        self._finished = True
        try:
            self.close()
        except SQLAlchemyError:
            self._invalidate()
        finally:
            self._drop_connection()

    def _invalidate(self) -> None:
        """Throw a broken connection away: the database rolls back what was on it."""
        if self._own_connection is not None:
            self._own_connection.invalidate()

    def _drop_connection(self) -> None:
        connection, self._own_connection = self._own_connection, None
        try:
            if connection is not None:
                connection.close()
        finally:
            if self._has_turn and self._turns is not None:
                self._has_turn = False
                self._turns.release()


@event.listens_for(OwnSession, "after_commit")
def _committed(session: OwnSession) -> None:
    if not session.in_nested_transaction():
        session.has_committed()


@event.listens_for(OwnSession, "after_transaction_end")
def _transaction_ended(session: OwnSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.has_ended()


def new_async_session(
    connect: Callable[[], Connection], on_begin: Callable[[Connection, object | None], None], *, takes_turn: bool
) -> "tuple[AsyncSession, OwnSession]":
    """Make an AsyncSession around an `OwnSession`; `connect` takes a connection of the AsyncEngine's `sync_engine`.

    It takes no place in the line of writers: it would wait there on the event loop.
    """
    from sqlmodel.ext.asyncio.session import AsyncSession

    class AsyncOwnSession(AsyncSession):
        sync_session_class = OwnSession

    session = AsyncOwnSession(connect=connect, on_begin=on_begin, takes_turn=takes_turn, expire_on_commit=False)
    inner = session.sync_session
    if not isinstance(inner, OwnSession):
        raise TypeError(f"expected an OwnSession inside the AsyncSession, got {inner!r}")
    return session, inner
