"""What one request has open: its sessions, the tasks that wait for one, and the session that is hookware's own."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from hookware.core.lifecycle import Complete
from hookware.core.task import stored_origin
from hookware.delivery import Delivery
from hookware.errors import AmbiguousSessionError, SecondWriterError, SessionError, TaskLeaseExpiredError
from hookware.log import log_of
from hookware.store.base import Settlement
from hookware.store.sql.outbox import Outbox
from hookware.store.sql.own_session import FINISHED, OwnSession, new_async_session
from hookware.store.sql.settle import complete, refusal
from hookware.store.sql.tables import TaskRow

if TYPE_CHECKING:
    from sqlmodel.ext.asyncio.session import AsyncSession

current_unit: ContextVar["UnitOfWork | None"] = ContextVar("hookware.unit_of_work", default=None)
"""The request's unit of work. Set by the middleware only; threads and copied contexts share the one object."""

_logger = log_of()

if hasattr(os, "register_at_fork"):
    # A forked child runs no part of the request that it was forked in: nobody would commit what it adds.
    os.register_at_fork(after_in_child=lambda: current_unit.set(None))


class UnitOfWork:
    """One mutable object per request.

    Attributes:
        outbox: the queue's database.
        delivery: the attempt, where this request is a task.
        misplaced: why no task may be added in this request, if so.
        scope: that of a request from the network.
        response_started: set by the middleware when the response begins to leave.
        completing: `complete_in` was called.
    """

    def __init__(
        self,
        outbox: Outbox,
        delivery: Delivery | None = None,
        misplaced: str | None = None,
        scope: Mapping[str, object] | None = None,
    ) -> None:
        self.outbox = outbox
        self.delivery = delivery
        self.misplaced = misplaced
        self.scope = scope
        self.response_started = False
        self.completing = False
        self._finished = False
        self._sessions: list[Session] = []
        self._elsewhere: list[Session] = []
        self._waiting: list[TaskRow] = []
        self._own: OwnSession | None = None
        self._own_async: AsyncSession | None = None
        self._left_behind: list[str] = []
        self._writer: tuple[Connection, object] | None = None
        if delivery is not None:
            outbox.growth.ran(delivery.task.depth, outbox.env.monotonic())

    # What enqueue and the session events ask.

    @property
    def origin(self) -> str | None:
        """The method and path of the request, as they are kept with the tasks that it adds."""
        if self.delivery is not None:
            task = self.delivery.task
            return stored_origin(task.method, task.url.partition("?")[0])
        if self.scope is None:
            return None
        return stored_origin(str(self.scope.get("method")), str(self.scope.get("path")))

    @property
    def collects(self) -> bool:
        """Whether a task may wait here: until the response starts, and in a task until the handler returns."""
        return not self._finished

    def has(self, session: Session) -> bool:
        """Say whether a session of this request can carry its tasks."""
        return session is self._own if isinstance(session, OwnSession) else self.outbox.owns(session)

    def joined_session(self) -> Session | None:
        """Give the one session that has a transaction open, None if there is none; raise if there are several."""
        match self._sessions:
            case []:
                return None
            case [session]:
                return session
            case sessions:
                raise AmbiguousSessionError(
                    f"{len(sessions)} sessions have a transaction open in this request; "
                    "say which one the task joins: taskqueue.add(..., session=session)"
                )

    def wait(self, rows: Sequence[TaskRow]) -> None:
        """Keep tasks for the first session that opens a transaction, or for hookware's own."""
        self._waiting.extend(rows)
        self._warn_of_transactions_elsewhere()

    def opened(self, session: Session) -> list[TaskRow]:
        """Take note of a session's new transaction; give the tasks that waited for one."""
        self._sessions.append(session)
        return self._take_waiting()

    def wait_again(self, rows: Sequence[TaskRow]) -> None:
        """Take tasks back from a session that only read."""
        self._waiting.extend(rows)

    def opened_elsewhere(self, session: Session) -> None:
        """Take note of a transaction on another database."""
        self._elsewhere.append(session)
        self._warn_of_transactions_elsewhere()

    def closed(self, session: Session) -> None:
        """Take note that a session's transaction has ended."""
        for sessions in (self._sessions, self._elsewhere):
            if session in sessions:
                sessions.remove(session)

    def left_behind(self, labels: list[str]) -> None:
        """Remember tasks whose session was closed without a commit; warned of if the request succeeds."""
        self._left_behind.extend(labels)

    def commits_late(self) -> None:
        """Warn, once, if tasks are committed after the response has left: a failing commit would be hidden."""
        if self.response_started and self.delivery is None:
            self.outbox.warn_once(
                "late commit",
                "tasks are committed after the response has been sent: if that commit fails, the client has a 2xx "
                'and there is no task. In FastAPI, mend it with Depends(get_session, scope="function")',
            )

    def begins_write(self, connection: Connection, line: object | None = None) -> None:
        """Take note of a transaction that is about to take SQLite's write lock.

        Raises:
            SecondWriterError: another connection of this request holds it.
        """
        line = _line_of_execution() if line is None else line
        self.refuse_second_writer(connection, line)
        self._writer = (connection, line)

    def refuse_second_writer(self, connection: Connection | None = None, line: object | None = None) -> None:
        """Refuse a second writing transaction on SQLite from the same line of execution: it would wait for itself.

        Raises:
            SecondWriterError: another connection of this request holds the write lock.
        """
        if self._writer is None:
            return
        writer, writers_line = self._writer
        same_line = writers_line == (_line_of_execution() if line is None else line)
        if writer is not connection and same_line and _writes(writer):
            raise SecondWriterError(
                "this request holds SQLite's write lock in one session and wants to write in another: they would wait "
                "for each other. Commit or close the first one, or use one session for both"
            )

    # The request's own session.

    def own_session(self) -> OwnSession:
        """Give the request's own Session, made at the first call."""
        if self.outbox.is_async:
            raise SessionError(
                "request_session() needs a synchronous engine, and this Hookware has an AsyncEngine: "
                "use async_request_session()"
            )
        if self._own is None:
            self._refuse_after_the_end()
            self._own = OwnSession(
                connect=self.outbox.connect,
                turns=self.outbox.write_lock,
                takes_turn=self.delivery is not None,
                on_begin=self.begins_write,
            )
        return self._own

    def own_async_session(self) -> "AsyncSession":
        """Give the request's own AsyncSession, made at the first call."""
        if not self.outbox.is_async:
            raise SessionError(
                "async_request_session() needs an AsyncEngine, and this Hookware has a synchronous one: "
                "use request_session()"
            )
        if self._own_async is None:
            self._refuse_after_the_end()
            takes_turn = self.delivery is not None
            self._own_async, self._own = new_async_session(
                self.outbox.connect, self.begins_write, takes_turn=takes_turn
            )
        return self._own_async

    async def open_own_session(self) -> None:
        """Open the own session's transaction off the event loop: waiting for SQLite's lock must not block it."""
        if self._own is not None and self._own_async is None:
            await anyio.to_thread.run_sync(self._own.open, _line_of_execution(), limiter=self.outbox.open_limiter)

    async def commit(self) -> None:
        """Commit the own session with the waiting tasks and, in a delivery, the task's completion.

        In a delivery whose handler used neither, nothing is done here: the dispatcher settles it.

        Raises:
            TaskLeaseExpiredError: the task has been cancelled or given to another attempt; all is rolled back.
        """
        if self._own is None and self._waiting:
            self._make_own()
        self._finished = True
        own, rows = self._own, self._take_waiting()
        if own is None or not (own.used or rows):
            await self._discard_own()
            return
        complete_too, line = self._completion(), _line_of_execution()
        self.outbox.env.fp("commit.before")
        limiter = self._commit_limiter(own, writes=bool(rows) or complete_too is not None)
        await self._run(lambda: own.commit_all(rows, complete_too, self._committed, line), limiter)
        self.outbox.env.fp("commit.committed")
        self.outbox.committed(own.task_count, own.places)

    def commit_here(self) -> None:
        """Commit in the thread in which a task's handler has just returned, where nothing has to be waited for.

        `commit` would need another thread for it, which costs more than the commit itself. What is left undone here,
        it does.
        """
        own = self._own
        if own is None or not own.connected or self._own_async is not None or own.needs_turn(writes=True):
            return
        if self._finished or self.completing or self.delivery is None:
            return
        self._finished = True
        rows, complete_too = self._take_waiting(), self._completion()
        self.outbox.env.fp("commit.before")
        own.commit_all(rows, complete_too, self._committed)
        self.outbox.env.fp("commit.committed")
        self.outbox.committed(own.task_count, own.places)

    def _completion(self) -> Callable[[Connection], None] | None:
        """Give what ends the task in the transaction that is about to be committed; None: nothing is to be ended."""
        if self.delivery is None or self.delivery.completed:
            return None
        self.delivery.completing = True
        return self._complete

    def _commit_limiter(self, own: OwnSession, *, writes: bool) -> anyio.CapacityLimiter:
        if not own.connected:
            return self.outbox.open_limiter
        return self.outbox.turn_limiter if own.needs_turn(writes=writes) else self.outbox.commit_limiter

    async def rollback(self) -> None:
        """Roll the own session back, and forget the tasks that wait."""
        self._finished = True
        self._take_waiting()
        await self._discard_own()

    def _committed(self) -> None:
        if self.delivery is not None:
            self.delivery.completed = True
        for place in () if self._own is None else self._own.places:
            place.committed()

    def _refuse_after_the_end(self) -> None:
        if self._finished:
            raise SessionError(FINISHED)

    def warn_of_tasks_left_behind(self) -> None:
        """Log the tasks that a session was closed over, although the request succeeded."""
        if self._left_behind:
            warn_left_behind(self._left_behind)

    def _warn_of_transactions_elsewhere(self) -> None:
        if self._elsewhere and self._waiting:
            self.outbox.warn_once(
                "elsewhere",
                "a task was added in a request whose open transaction is on another database than the queue's, "
                f"{self.outbox.address}: the task commits with the response, not with that transaction. Give "
                "Hookware(engine=...) the engine that your sessions use, if they are to be one",
            )

    def _take_waiting(self) -> list[TaskRow]:
        rows, self._waiting = self._waiting, []
        return rows

    def _make_own(self) -> None:
        if self.outbox.is_async:
            self.own_async_session()
        else:
            self.own_session()

    def _complete(self, connection: Connection) -> None:
        delivery = self.delivery
        if delivery is None:
            return
        task = delivery.task
        retention = self.outbox.store.retention.only(task.queue_name)
        has_history = task.record_count > 0
        ended = Settlement(task.lease, Complete(), record=delivery.completion(), has_history=has_history)
        if not complete(connection, ended, self.outbox.clock, self.outbox.tombstone_us, retention):
            delivery.lease_lost = True
            raise TaskLeaseExpiredError(
                f"task {task.label} {refusal(connection, task.id)}; what this one wrote is rolled back"
            )

    async def _discard_own(self) -> None:
        own = self._own
        if own is not None and own.connected:
            await self._run(own.discard, self.outbox.rollback_limiter)
        elif own is not None:
            own.discard()

    async def _run(self, step: Callable[[], None], limiter: anyio.CapacityLimiter) -> None:
        with anyio.CancelScope(shield=True):
            if self._own_async is not None:
                await self._own_async.run_sync(lambda _session: step())
            else:
                await anyio.to_thread.run_sync(step, limiter=limiter)


def warn_left_behind(labels: Sequence[str]) -> None:
    """Log tasks that are gone because their session was closed, or rolled back, without a commit."""
    _logger.warning(
        "%d task(s) were added to a session that was closed without a commit, was rolled back, or let go of them, and "
        "are gone: %s. Call session.commit() after adding them",
        len(labels),
        ", ".join(labels[:10]),
    )


def refuse_second_writer(connection: Connection) -> None:
    """Check a transaction that is about to take SQLite's write lock against the request it belongs to."""
    unit = current_unit.get()
    if unit is not None:
        unit.begins_write(connection)


def _writes(connection: Connection) -> bool:
    return not connection.closed and bool(getattr(connection.connection.driver_connection, "in_transaction", False))


def _line_of_execution() -> object:
    try:
        return anyio.get_current_task().id
    except RuntimeError:  # no event loop runs in this thread
        return threading.get_ident()
