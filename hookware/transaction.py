"""COMMIT: which database transaction a task joins.

A task is an object in the user's own Session: inserted by the session's flush, at the latest by its commit, expunged
by a rolled-back savepoint, dropped by a close, and durable with the commit. `after_commit` only wakes the dispatcher:
it is a hint.

Read `enqueue` first: it is the table of the documentation, in code.
"""

import sys
from collections.abc import Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, Engine, TextClause, event
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction

from hookware.ancestry import new_tasks
from hookware.core.task import Draft, NewTask
from hookware.delivery import Delivery
from hookware.errors import BadTransactionStateError, ConfigurationError, SessionError
from hookware.handoff import Place
from hookware.store.sql.on_connection import insert_on
from hookware.store.sql.outbox import Outbox, outbox_of, the_outbox
from hookware.store.sql.own_session import OwnSession
from hookware.store.sql.passed_by import complain_if_astray, complain_if_bypassed
from hookware.store.sql.row_events import Ending, write_new
from hookware.store.sql.rows import to_object
from hookware.store.sql.tables import TaskRow
from hookware.unit_of_work import UnitOfWork, current_unit, warn_left_behind

_LEDGER: Final = "hookware.ledger"
_WROTE: Final = "hookware.wrote"
_TRIED: Final = "hookware.tried"


# ENQUEUE


def enqueue(
    drafts: Sequence[Draft], *, session: object | None, connection: object | None, transactional: bool | None
) -> list[NewTask]:
    """Put tasks where their transaction is; give them with their ids.

    Raises:
        AmbiguousSessionError: two sessions are open in this request and `session` does not say which.
        ChainTooDeepError: the task that adds them is as deep in its chain as one may be.
        BadTransactionStateError: `transactional=True`, and there is no transaction to join.
        ConfigurationError: no Hookware serves this process, session or connection.
        TaskAlreadyExistsError: added at once, and the name is taken.
    """
    outbox, unit = outbox_for(session, connection)
    tasks = new_tasks(drafts, outbox, unit)
    if connection is not None:
        insert_on(_sync_connection(connection), tasks, outbox)
    elif session is not None:
        _join(_sync_session(session), _rows(tasks, outbox), outbox, unit)
    elif transactional is False or (unit is None and transactional is None):
        _refuse_second_writer(unit)
        if transactional is None and current_unit not in copy_context():
            complain_if_astray(outbox)
        outbox.add_blocking(tasks)
    elif unit is None:
        raise BadTransactionStateError(
            "transactional=True outside of a request: pass session= or connection=, or leave transactional out"
        )
    else:
        _enqueue_in_request(tasks, outbox, unit, transactional)
    return tasks


async def enqueue_async(
    drafts: Sequence[Draft], *, session: object | None, connection: object | None, transactional: bool | None
) -> list[NewTask]:
    """Do the same without blocking the event loop, also where the task is inserted at once."""
    outbox, unit = outbox_for(session, connection)
    if connection is not None and hasattr(connection, "sync_connection"):
        tasks = new_tasks(drafts, outbox, unit)
        await connection.run_sync(insert_on, tasks, outbox)  # type: ignore[attr-defined]  # an AsyncConnection
        return tasks
    at_once = session is None and connection is None and (transactional is False or not _may_join(unit))
    if not at_once or transactional is True:
        return enqueue(drafts, session=session, connection=connection, transactional=transactional)
    tasks = new_tasks(drafts, outbox, unit)
    _refuse_second_writer(unit)
    await outbox.add(tasks)
    return tasks


def _enqueue_in_request(tasks: Sequence[NewTask], outbox: Outbox, unit: UnitOfWork, transactional: bool | None) -> None:
    joined = unit.joined_session()
    if joined is not None:
        _join(joined, _rows(tasks, outbox), outbox, unit)
    elif unit.collects:
        unit.wait(_rows(tasks, outbox))
    elif transactional:
        raise BadTransactionStateError(
            "transactional=True, but the response has left and no session has a transaction open: pass session="
        )
    else:
        outbox.add_blocking(tasks)


def _refuse_second_writer(unit: UnitOfWork | None) -> None:
    if unit is not None:
        unit.refuse_second_writer()


def _may_join(unit: UnitOfWork | None) -> bool:
    return unit is not None and (unit.collects or unit.joined_session() is not None)


def outbox_for(session: object | None, connection: object | None) -> tuple[Outbox, UnitOfWork | None]:
    """Give the database that a task goes to, and the request that it is added in.

    Raises:
        ConfigurationError: no Hookware serves this process, session or connection.
        SessionError: the session or connection is none.
    """
    unit = current_unit.get()
    if unit is not None and unit.misplaced is not None:
        raise ConfigurationError(unit.misplaced)
    outbox = _outbox_of_given(session, connection, unit)
    if unit is None:
        complain_if_bypassed(outbox)
    return outbox, unit


def _outbox_of_given(session: object | None, connection: object | None, unit: UnitOfWork | None) -> Outbox:
    if session is None and connection is None:
        return the_outbox() if unit is None else unit.outbox
    if session is not None and unit is not None and unit.has(_sync_session(session)):
        return unit.outbox
    outbox = outbox_of(_engine_of(session, connection))
    if outbox is None:
        raise ConfigurationError(
            f"no Hookware of this process dispatches from the database of {session or connection!r}: "
            "the task would never run. Give Hookware(engine=...) the engine that the session uses"
        )
    return outbox


def _engine_of(session: object | None, connection: object | None) -> Engine:
    if connection is not None:
        inner = getattr(connection, "sync_connection", connection)
        return _sync_connection(inner).engine
    try:
        return _sync_session(session).get_bind(mapper=TaskRow).engine
    except UnboundExecutionError:
        raise SessionError(
            "the session has no engine for hookware's tables: bind it to the queue's engine, or pass connection="
        ) from None


def _sync_session(session: object) -> Session:
    inner = getattr(session, "sync_session", session)
    if not isinstance(inner, Session):
        raise SessionError(f"session= takes a Session or an AsyncSession, got {session!r}")
    return inner


def _sync_connection(connection: object) -> Connection:
    if hasattr(connection, "sync_connection"):
        raise SessionError("an AsyncConnection needs the async form: await taskqueue.add_async(..., connection=...)")
    if not isinstance(connection, Connection):
        raise SessionError(f"connection= takes a Connection or an AsyncConnection, got {connection!r}")
    return connection


def _rows(tasks: Sequence[NewTask], outbox: Outbox) -> list[TaskRow]:
    stamp_us = outbox.stamp_us()
    return [to_object(task, stamp_us) for task in tasks]


# COMMIT


@dataclass(slots=True)
class _Ledger:
    """What one session transaction carries, and how it ended.

    `reserved` are the tasks that waited for a session: they are put in at its commit, and wait again if it only read.
    `written` are those that its commit has inserted by itself, and that the session does not hold any more.
    `places` are of those that it has inserted already leased to this process.
    `completes` is the delivery whose task ends with the commit, unless one of `savepoints` is rolled back before.
    """

    outbox: Outbox
    unit: UnitOfWork | None
    rows: list[TaskRow] = field(default_factory=list)
    reserved: list[TaskRow] = field(default_factory=list)
    written: list[TaskRow] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    completes: Delivery | None = None
    savepoints: list[SessionTransaction] = field(default_factory=list)
    ending: Ending | None = None
    over: bool = False


def complete_in(session: object, unit: UnitOfWork, delivery: Delivery) -> None:
    """Let the task's end commit with a session of the handler's own.

    It carries the fence: in a session whose task has been cancelled or given to a newer attempt the commit raises
    `StaleDataError`, and the handler's writes roll back with it.
    """
    inner = _sync_session(session)
    if isinstance(inner, OwnSession):
        return
    if unit.completing:
        raise SessionError("complete_in() was called in this attempt before: call it once, before the last commit")
    if not unit.outbox.owns(inner):
        raise SessionError(
            "complete_in(session): the session is on another database than the queue's; "
            "one transaction cannot span both"
        )
    ledger = _ledger(inner, unit.outbox, unit)
    ledger.completes, ledger.savepoints = delivery, list(_savepoints(inner))
    unit.completing = True


def _savepoints(session: Session) -> Iterator[SessionTransaction]:
    transaction = session.get_nested_transaction()
    while transaction is not None and transaction.nested:
        yield transaction
        transaction = transaction.parent


def _join(session: Session, rows: Sequence[TaskRow], outbox: Outbox, unit: UnitOfWork | None) -> None:
    session.add_all(rows)
    _ledger(session, outbox, unit).rows.extend(rows)


def _ledger(session: Session, outbox: Outbox, unit: UnitOfWork | None) -> _Ledger:
    ledger = session.info.get(_LEDGER)
    if not isinstance(ledger, _Ledger):
        ledger = session.info[_LEDGER] = _Ledger(outbox, unit)
    return ledger


@event.listens_for(Session, "after_transaction_create")
def _transaction_created(session: Session, transaction: SessionTransaction) -> None:
    unit = current_unit.get()
    if unit is None or transaction.parent is not None:
        return
    if not unit.has(session):
        unit.opened_elsewhere(session)
        return
    rows = unit.opened(session)
    if rows:
        _ledger(session, unit.outbox, unit).reserved.extend(rows)


@event.listens_for(Session, "before_flush")
def _flushes(session: Session, _flush: object, _instances: object) -> None:
    session.info[_TRIED] = True  # of a flush that fails nothing else tells


@event.listens_for(Session, "after_flush")
def _flushed(session: Session, _flush: object) -> None:
    session.info[_WROTE] = True


@event.listens_for(Session, "do_orm_execute")
def _executes(state: ORMExecuteState) -> None:
    # Comes before the transaction is created, so it cannot be noted in the ledger.
    if not state.is_select and not _is_reading_text(state.statement):
        state.session.info[_WROTE] = True


def _is_reading_text(statement: object) -> bool:
    return isinstance(statement, TextClause) and statement.text.lstrip("( \n\t").upper().startswith(
        ("SELECT", "PRAGMA")
    )


@event.listens_for(Session, "before_commit")
def _commits(session: Session) -> None:
    ledger = session.info.get(_LEDGER)
    if ledger is None or session.in_nested_transaction():
        return
    _join(session, ledger.reserved, ledger.outbox, ledger.unit)
    ledger.reserved = []
    if ledger.completes is not None:
        # No earlier: it locks the task's row, and while that is locked its lease cannot be renewed.
        ledger.completes.completing, task = True, ledger.completes.task
        keep, record = ledger.outbox.store.retention.keeps(task.queue_name), ledger.completes.completion()
        ledger.ending = Ending(session, task, keep=keep, record=record)
    if ledger.rows and ledger.unit is not None:
        ledger.unit.commits_late()  # said before, because the commit that fails is the one that matters
    if ledger.rows and _owns_transaction(session):
        session.info[_TRIED] = True
        is_last = not isinstance(session, OwnSession) or session.is_ending
        written, ledger.rows, places = write_new(session, ledger.rows, is_last=is_last)
        session.info[_WROTE] = session.info.get(_WROTE, False) or bool(written)
        ledger.written += written
        ledger.places += places


def _owns_transaction(session: Session) -> bool:
    """Say whether a commit that fails here ends all; else only a flush that fails sees to it that nothing is left."""
    return isinstance(session, OwnSession) or not isinstance(session.get_bind(mapper=TaskRow), Connection)


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    ledger = session.info.get(_LEDGER)
    if ledger is None or session.in_nested_transaction():
        return  # a released savepoint also comes here: nothing is durable yet
    ledger.over = True
    expunged = [row for row in ledger.rows if row not in session]
    if expunged:
        warn_left_behind(_labels(expunged))
    count = len(ledger.rows) - len(expunged) + len(ledger.written)
    if isinstance(session, OwnSession):
        session.task_count += count  # only a savepoint of the unit's own transaction, which tells of them all
        session.places, ledger.places = [*session.places, *ledger.places], []
        return
    if ledger.completes is not None and ledger.ending is not None and ledger.ending.is_committed:
        ledger.completes.completed = True
    ledger.outbox.committed(count, ledger.places)


@event.listens_for(Session, "after_rollback")
def _rolled_back(session: Session) -> None:
    ledger = session.info.get(_LEDGER)
    if ledger is not None and not session.in_nested_transaction():
        ledger.over = True


@event.listens_for(Session, "after_soft_rollback")
def _savepoint_rolled_back(session: Session, transaction: SessionTransaction) -> None:
    ledger = session.info.get(_LEDGER)
    if ledger is not None and transaction.nested:
        ledger.rows = [row for row in ledger.rows if row in session]
        if transaction in ledger.savepoints:
            ledger.completes = None


@event.listens_for(Session, "after_transaction_end")
def _transaction_ended(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    unit = current_unit.get()
    if unit is not None:
        unit.closed(session)
    ledger, wrote = session.info.pop(_LEDGER, None), session.info.pop(_WROTE, False)
    tried = session.info.pop(_TRIED, False) or wrote
    if ledger is None:
        return
    for place in ledger.places:
        place.forget()  # where it is not committed
    if ledger.over:
        if ledger.reserved and ledger.unit is not None and not tried:
            ledger.unit.left_behind(_labels(ledger.reserved))  # what only read had nothing else to roll back
        return
    ledger.rows.extend(ledger.written)
    if ledger.unit is not None and ledger.unit.collects and not wrote:
        ledger.unit.wait_again(ledger.reserved)
    else:
        ledger.rows.extend(ledger.reserved)
    if ledger.rows:
        _left_behind(ledger)


def _left_behind(ledger: _Ledger) -> None:
    """Note tasks whose session was closed with neither commit nor rollback: most often a forgotten commit."""
    labels = _labels(ledger.rows)
    if ledger.unit is not None:
        ledger.unit.left_behind(labels)
    elif sys.exc_info()[0] is None:
        warn_left_behind(labels)


def _labels(rows: Sequence[TaskRow]) -> list[str]:
    return [f"{row.method} {row.url}" for row in rows]
