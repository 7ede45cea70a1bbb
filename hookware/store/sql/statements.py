"""The other statements of the store: adding, recovering, pruning, and what people ask and do by hand."""

from collections.abc import Sequence
from typing import Any

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
    update,
)

from hookware.core.lifecycle import State
from hookware.core.task import LeasedTask, NewTask
from hookware.store.base import LATEST_US, AddResult, TaskInfo
from hookware.store.sql import names
from hookware.store.sql.damage import DamageError, fetched
from hookware.store.sql.read import DEAD, LEASED, chunks, in_state, keyed, leased_or_bare, read
from hookware.store.sql.rows import to_info, to_row
from hookware.store.sql.tables import name_table, task_table

_columns = task_table.c
_names = name_table.c

_FORGET = delete(name_table).where(_names.queue_name == bindparam("of_queue"), _names.name == bindparam("old_name"))

PRUNE_LIMIT = 1000
"""The most rows that one prune transaction removes of each kind: long ones would keep others from writing."""


def add(connection: Connection, tasks: Sequence[NewTask], now_us: int) -> list[AddResult]:
    """Insert tasks and win their names; the result of each, in order."""
    wishes = {task.id: names.Wish(task.queue_name, task.name, task.id) for task in tasks if task.name is not None}
    taken = names.taken(connection, [wish.key for wish in wishes.values()], now_us)
    free = [wish for wish in wishes.values() if wish.key not in taken]
    holders = names.win(connection, free, now_us) if free else {}
    results = [
        AddResult.ADDED
        if (wish := wishes.get(task.id)) is None or holders.get(wish.key) == task.id
        else taken.get(wish.key, AddResult.NAME_TAKEN)
        for task in tasks
    ]
    rows = [to_row(task, now_us) for task, result in zip(tasks, results, strict=True) if result is AddResult.ADDED]
    if rows:
        connection.execute(insert(task_table), rows)
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
        if name is not None:
            ends[name if isinstance(name, str) else name.decode(errors="replace")] = end_us - now_us
    return ends


def prune(connection: Connection, now_us: int, tombstone_us: int) -> int:
    """Remove some expired tombstones and old duplicates; how many. Zero: there are no more.

    Raises:
        DamageError: a name cannot be read.
    """
    # Locked where they are chosen: a name that is won again, or a duplicate that is run again, is none any more.
    # The order is that of the index: without it PostgreSQL may read the whole table.
    expired = select(_names.queue_name, _names.name).where(_names.expires_us <= now_us).order_by(_names.expires_us)
    keys = _locked(connection, expired)
    if keys:
        connection.execute(_FORGET, [{"of_queue": key.queue_name, "old_name": key.name} for key in keys])
    old = select(_columns.id).where(
        DEAD, _columns.dead_reason == "duplicate", _columns.dead_us <= now_us - tombstone_us
    )
    ids = [row.id for row in _locked(connection, old.order_by(_columns.dead_us))]
    for some in chunks(ids):
        connection.execute(delete(task_table).where(_columns.id.in_(some)))
    return len(keys) + len(ids)


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


def run_again(connection: Connection, task_id: int, now_us: int) -> bool:
    """Make a dead task pending and due now; the fence goes on counting, so that no old lease fits again."""
    statement = update(task_table).where(_columns.id == task_id, keyed(State.DEAD))
    statement = statement.values(
        state=int(State.PENDING),
        eta_us=now_us,
        attempt_count=0,
        crash_count=0,
        first_attempt_us=None,
        last_status=None,
        last_error=None,
        dead_reason=None,
        dead_us=None,
    )
    return connection.execute(statement).rowcount == 1


def remove(connection: Connection, task_id: int, now_us: int, tombstone_us: int) -> bool:
    """Remove a task that is not running and tombstone its name."""
    statement = delete(task_table).where(_columns.id == task_id, ~keyed(State.LEASED))
    row = connection.execute(statement.returning(*names.named(connection))).one_or_none()
    if row is not None and (wish := names.wish_of(task_id, row.queue_name, row.name)) is not None:
        names.tombstone(connection, [wish], min(now_us + tombstone_us, LATEST_US), now_us)
    return row is not None
