"""The other statements of the store: adding, recovering, pruning, and what people ask and do by hand."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Row,
    Select,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal_column,
    select,
    tuple_,
    update,
)

from hookware.core.lifecycle import CANCELLED, State
from hookware.core.retention import NO_RETENTION, Retention
from hookware.core.task import PULL, Lease, LeasedTask, NewTask, Progress
from hookware.store.base import LATEST_US, AddResult, TaskInfo
from hookware.store.sql import attempts, dedup, executed, minutes, names, processes
from hookware.store.sql.damage import DamageError, fetched
from hookware.store.sql.read import COMPLETED, DEAD, LEASED, chunks, drops, in_state, keyed, leased_or_bare, read
from hookware.store.sql.rows import to_info, to_rows
from hookware.store.sql.tables import name_table, task_table

_columns = task_table.c
_names = name_table.c

_FORGET = delete(name_table).where(_names.queue_name == bindparam("of_queue"), _names.name == bindparam("old_name"))

_AS_NEW: Final[Mapping[str, Any]] = {
    "state": case((_columns.method == PULL, int(State.PULL)), else_=int(State.PENDING)),
    "attempt_count": 0,
    "crash_count": 0,
    **dict.fromkeys(("first_attempt_us", "last_status", "last_error", "dead_reason", "ended_us", "progress")),
}
_CANCEL = (
    update(task_table)
    .where(_columns.id == bindparam("task_id"), keyed(State.LEASED))
    .values(
        state=int(State.DEAD),
        fence=_columns.fence + 1,
        dead_reason=CANCELLED,
        ended_us=bindparam("now_us"),
        owner=None,
        lease_until_us=None,
    )
)
_NOTE = update(task_table).where(_columns.id == bindparam("task_id")).values(progress=bindparam("said"))

NOT_GIVEN_UP: Final = (CANCELLED, "duplicate")
"""Reasons of dead tasks that did not fail."""

PRUNE_LIMIT = 1000
"""The most rows that one prune transaction removes of each kind: long ones would keep others from writing."""


def add(connection: Connection, tasks: Sequence[NewTask], now_us: int) -> list[AddResult]:
    """Insert tasks and win their names; the result of each, in order."""
    results = _foreseen(connection, tasks, now_us)
    wishes = [
        names.Wish(task.queue_name, task.name, task.id)
        for task, result in zip(tasks, results, strict=True)
        if task.name is not None and result is AddResult.ADDED
    ]
    holders = names.win(connection, wishes, now_us) if wishes else {}
    lost = {wish.task_id for wish in wishes if holders.get(wish.key) != wish.task_id}  # another was faster
    results = [AddResult.NAME_TAKEN if task.id in lost else each for task, each in zip(tasks, results, strict=True)]
    added = [task for task, result in zip(tasks, results, strict=True) if result is AddResult.ADDED]
    if added:
        connection.execute(insert(task_table), to_rows(added, now_us))
    return results


def _foreseen(connection: Connection, tasks: Sequence[NewTask], now_us: int) -> list[AddResult]:
    """Say what would become of each task if nobody else added any, the ones before it in the call being there."""
    taken = names.taken(connection, [(task.queue_name, task.name) for task in tasks if task.name is not None], now_us)
    waiting: set[tuple[str, str | None]] = {*dedup.waiting_for(connection, tasks)}
    results: list[AddResult] = []
    for task in tasks:
        key, result = (task.queue_name, task.keys.dedup_key), AddResult.ADDED
        if task.keys.on_conflict == "raise" and key in waiting:
            result = AddResult.KEY_WAITS
        elif task.name is not None:
            result = taken.get((task.queue_name, task.name), AddResult.ADDED)
        if result is AddResult.ADDED:
            waiting.add(key)
            if task.name is not None:
                taken[task.queue_name, task.name] = AddResult.NAME_TAKEN
        results.append(result)
    return results


def expired(connection: Connection, limit: int, owners: Sequence[str], now_us: int) -> list[LeasedTask]:
    """List leased tasks whose lease has ended or whose owner is one of `owners`, the longest ended first.

    Raises:
        DamageError: one of them can never be settled.
    """
    ended = _columns.lease_until_us <= now_us
    statement = select(task_table).where(LEASED, ended | _columns.owner.in_(owners) if owners else ended)
    statement = statement.order_by(_columns.lease_until_us, _columns.id).limit(max(0, limit))
    return [leased_or_bare(row, now_us) for row in read(connection, statement)]


def owners(connection: Connection, now_us: int) -> dict[str, int]:
    """List the owners that hold leases, each with the microseconds until the first of its leases ends.

    Raises:
        DamageError: a lease has no end.
    """
    end = _columns.lease_until_us
    owner: ColumnElement[Any] = _columns.owner
    number: ColumnElement[Any] = end
    if connection.dialect.name == "sqlite":  # which takes anything for text, and for a time
        owner, number = cast(owner, LargeBinary), case((func.typeof(end) == literal_column("'integer'"), end))
    every = func.count(number) == func.count()
    statement = select(owner, case((every, func.min(number)))).where(LEASED).group_by(owner)
    ends: dict[str, int] = {}
    for name, end_us in connection.execute(statement):
        if end_us is None:
            raise DamageError("a lease has no end")
        text = name if isinstance(name, str) else (name or b"").decode(errors="replace")
        ends[text] = min(ends.get(text, LATEST_US), end_us - now_us)
    return ends


def prune(connection: Connection, now_us: int, tombstone_us: int, retention: Retention = NO_RETENTION) -> int:
    """Remove some of what has had its time; how many. Zero: there is no more.

    Raises:
        DamageError: a name cannot be read.
    """
    count = _prune_names_and_duplicates(connection, now_us, tombstone_us)
    until_us = min(now_us + tombstone_us, LATEST_US)
    for queue_name, kept_us in retention.dead_us.items():
        count += _prune_queue(connection, DEAD, queue_name, now_us - kept_us, until_us)
    for queue_name in _queues_with_completed(connection):
        if retention.keeps(queue_name):
            old_us = now_us - retention.completed_us[queue_name]
            count += _prune_queue(connection, COMPLETED, queue_name, old_us, until_us)
        else:
            count += _prune_as_promised(connection, queue_name, now_us, until_us)
    return count


def _prune_as_promised(connection: Connection, queue_name: str, now_us: int, tombstone_until_us: int) -> int:
    """Prune a queue that keeps nothing, as far as this process knows: by what the one that kept it has noted."""
    kept = select(_columns.id, _columns.lease_until_us).where(COMPLETED, _columns.queue_name == queue_name)
    rows = _locked(connection, kept.order_by(_columns.ended_us))
    old = [row.id for row in rows if not isinstance(row.lease_until_us, int) or row.lease_until_us <= now_us]
    names.drop(connection, old, tombstone_until_us)
    return len(old)


def _queues_with_completed(connection: Connection) -> Iterator[str]:
    # From one queue straight to the next: DISTINCT would read every task.
    first = select(func.min(_columns.queue_name)).where(COMPLETED)
    queue_name = connection.execute(first).scalar_one()
    while queue_name is not None:
        yield queue_name
        queue_name = connection.execute(first.where(_columns.queue_name > queue_name)).scalar_one()


def _prune_queue(
    connection: Connection, state: ColumnElement[bool], queue_name: str, until_us: int, tombstone_until_us: int
) -> int:
    old = select(_columns.id).where(state, _columns.queue_name == queue_name, _columns.ended_us <= until_us)
    ids = [row.id for row in _locked(connection, old.order_by(_columns.ended_us))]
    names.drop(connection, ids, tombstone_until_us)
    return len(ids)


def _prune_names_and_duplicates(connection: Connection, now_us: int, tombstone_us: int) -> int:
    # Locked where they are chosen: a name that is won again, or a duplicate that is run again, is none any more.
    # The order is that of the index: without it PostgreSQL may read the whole table.
    expired = select(_names.queue_name, _names.name).where(_names.expires_us <= now_us).order_by(_names.expires_us)
    keys = _locked(connection, expired)
    if keys:
        connection.execute(_FORGET, [{"of_queue": key.queue_name, "old_name": key.name} for key in keys])
    old = select(_columns.id).where(
        DEAD, _columns.dead_reason == "duplicate", _columns.ended_us <= now_us - tombstone_us
    )
    ids = [row.id for row in _locked(connection, old.order_by(_columns.ended_us))]
    for some in chunks(ids):
        connection.execute(delete(task_table).where(_columns.id.in_(some)))  # they have never run
    old_statistics = executed.prune(connection, now_us) + minutes.prune(connection, now_us)
    return len(keys) + len(ids) + old_statistics + processes.prune(connection, now_us)


def _locked(connection: Connection, statement: Select[Any]) -> Sequence[Row[Any]]:
    return fetched(connection, statement.limit(PRUNE_LIMIT).with_for_update(skip_locked=True))


def get(connection: Connection, task_id: int) -> TaskInfo | None:
    """Give one task as people see it."""
    rows = read(connection, select(task_table).where(_columns.id == task_id))
    return to_info(rows[0]) if rows else None


def list_tasks(connection: Connection, *, state: State | None, queue_name: str | None, limit: int) -> list[TaskInfo]:
    """List tasks by id."""
    statement = select(task_table).order_by(_columns.id).limit(max(0, limit))
    if state is not None:
        statement = statement.where(in_state(state))
    if queue_name is not None:
        statement = statement.where(_columns.queue_name == queue_name)
    return [to_info(row) for row in read(connection, statement)]


def children(connection: Connection, task_id: int, limit: int) -> list[TaskInfo]:
    """List the tasks that a task has added, by id."""
    statement = select(task_table).where(_columns.parent_id == task_id).order_by(_columns.id).limit(max(0, limit))
    return [to_info(row) for row in read(connection, statement)]


def run_again(connection: Connection, task_id: int, now_us: int) -> bool:
    """Make a dead task pending and due now; the fence goes on counting, so that no old lease fits again."""
    statement = update(task_table).where(_columns.id == task_id, keyed(State.DEAD))
    return connection.execute(statement.values(eta_us=now_us, **_AS_NEW)).rowcount == 1


def run_some_again(
    connection: Connection, queue_name: str, reason: str | None, now_us: int, died_until_us: int, limit: int
) -> int:
    """Do so with some tasks of a queue that were dead by `died_until_us`, the longest dead first; how many."""
    dead = select(_columns.id).where(DEAD, _columns.queue_name == queue_name, _columns.ended_us <= died_until_us)
    wanted = dead.where(_columns.dead_reason.not_in(NOT_GIVEN_UP) if reason is None else _columns.dead_reason == reason)
    wanted = wanted.order_by(_columns.ended_us, _columns.id).limit(limit).with_for_update(skip_locked=True)
    ids = connection.execute(wanted).scalars().all()
    run_all_again(connection, ids, now_us)
    return len(ids)


def run_all_again(connection: Connection, ids: Sequence[int], now_us: int) -> int:
    """Do so with the tasks of these ids that are dead; how many."""
    count = 0
    for some in chunks(ids):
        again = update(task_table).where(_columns.id.in_(some), keyed(State.DEAD))
        count += connection.execute(again.values(eta_us=now_us, **_AS_NEW)).rowcount
    return count


def cancel(connection: Connection, task_id: int, now_us: int, tombstone_us: int, retention: Retention) -> bool:
    """Call off a task that has not ended: a running one dies under a new fence, which no attempt has."""
    # Who waited for a handler's transaction that is just ending the task might wait for long: try again instead.
    lock = select(_columns.state, drops(retention)).where(_columns.id == task_id).with_for_update(nowait=True)
    row = connection.execute(lock).one_or_none()
    if row is None or row.state in (State.DEAD, State.COMPLETED):
        return False
    if row.state != State.LEASED:
        return remove(connection, task_id, now_us, tombstone_us)
    if row.drops:
        names.drop(connection, [task_id], min(now_us + tombstone_us, LATEST_US))
    else:
        connection.execute(_CANCEL, {"task_id": task_id, "now_us": now_us})
    return True


def note_progress(connection: Connection, notes: Mapping[Lease, Progress]) -> frozenset[int]:
    """Write down how far tasks have come, as long as no other attempt has begun; those that are locked are left out."""
    written: set[int] = set()
    for some in chunks(notes):
        by_key = _columns.id.in_([lease.task_id for lease in some])
        same = select(_columns.id, _columns.fence).where(by_key, tuple_(_columns.id, _columns.fence).in_(some))
        rows = connection.execute(same.with_for_update(skip_locked=True)).all()
        texts = [{"task_id": row.id, "said": json.dumps(notes[Lease(row.id, row.fence)])} for row in rows]
        if texts:
            connection.execute(_NOTE, texts)
        written.update(row.id for row in rows)
    return frozenset(written)


def remove(connection: Connection, task_id: int, now_us: int, tombstone_us: int) -> bool:
    """Remove a task that is not running and tombstone its name."""
    statement = delete(task_table).where(_columns.id == task_id, ~keyed(State.LEASED))
    row = connection.execute(statement.returning(*names.named(connection.dialect.name), _columns.state)).one_or_none()
    if row is not None:
        attempts.forget(connection, [task_id])
    wish = None if row is None else names.wish_of(task_id, row.queue_name, row.name)
    if row is not None and wish is not None and row.state != State.COMPLETED:
        names.tombstone(connection, [wish], min(now_us + tombstone_us, LATEST_US), now_us)
    return row is not None
