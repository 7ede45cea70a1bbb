"""What goes with a task's row in a session of the user's: it is looked where it goes, and what ends leaves its name."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, event, inspect
from sqlalchemy.orm import Session, make_transient_to_detached
from sqlalchemy.orm.attributes import instance_dict, set_committed_value

from hookware.core.history import AttemptRecord
from hookware.core.lifecycle import State
from hookware.core.task import LeasedTask
from hookware.errors import TaskAlreadyExistsError
from hookware.handoff import Place
from hookware.store.base import LATEST_US
from hookware.store.sql import attempts
from hookware.store.sql.born import insert_leased
from hookware.store.sql.dedup import is_waiting
from hookware.store.sql.names import Wish, tombstone
from hookware.store.sql.outbox import Outbox, outbox_of
from hookware.store.sql.refused import waits_already
from hookware.store.sql.rows import insert_objects
from hookware.store.sql.tables import TaskRow
from hookware.store.sql.times import from_now


class Ending:
    """The end of a task, on its way in a session: its row is deleted, or changed to COMPLETED where it is kept.

    Either carries the fence.
    """

    def __init__(self, session: Session, task: LeasedTask, *, keep: bool, record: AttemptRecord | None = None) -> None:
        self._keep = keep
        row = self._row = TaskRow()
        row.id = task.id
        make_transient_to_detached(row)
        for name in ("fence", "queue_name", "name", "record_count"):
            set_committed_value(row, name, getattr(task, name))
        row.record = record
        if keep:
            session.add(row)
            row.state, row.owner = int(State.COMPLETED), None
        else:
            session.delete(row)

    @property
    def is_committed(self) -> bool:
        """Whether the commit that has just been made has ended the task."""
        return self._row.was_updated if self._keep else inspect(self._row).was_deleted


def write(connection: Connection, rows: Sequence[TaskRow], *, is_last: bool = True) -> list[Place]:
    """Insert new rows without a flush; give the places of those that are leased already: none but the last ones are."""
    outbox = outbox_of(connection.engine)
    if outbox is not None:
        outbox.check_schema(connection)
        hand_off = outbox.hand_off  # a stop may take it away
        if is_last and len(rows) == 1 and hand_off is not None and _is_plain(instance_dict(rows[0])):
            row, sees_snapshot = rows[0], _sees_snapshot(connection, outbox)
            place = None if sees_snapshot else hand_off.place_for(row.queue_name, row.id)
            if place is not None and _write_leased(connection, rows[0], place, outbox):
                return [place]
    insert_objects(connection, rows)
    return []


def _write_leased(connection: Connection, row: TaskRow, place: Place, outbox: Outbox) -> bool:
    try:
        stamp_us = outbox.stamp_us()
        return insert_leased(connection, instance_dict(row), place, from_now(0) if stamp_us is None else stamp_us)
    finally:
        if place.task is None:
            place.forget()


def _is_plain(row: Mapping[str, Any]) -> bool:
    """Say of a new row what `NewTask.is_plain` says of a task."""
    is_due = row["eta_us"] == row["created_us"] and row["state"] == State.PENDING
    return is_due and row["name"] is None and row["lane"] == row["queue_name"]


def _sees_snapshot(connection: Connection, outbox: Outbox) -> bool:
    # Of an old one: a pause that it does not know of may have begun long before the commit.
    return outbox.keeps_snapshots or "isolation_level" in connection.get_execution_options()


class Written(NamedTuple):
    """What `write_new` has inserted, what it left to the flush, and the places of what is leased already."""

    written: list[TaskRow]
    left: list[TaskRow]
    places: list[Place]


def write_new(session: Session, rows: Sequence[TaskRow], *, is_last: bool) -> Written:
    """Insert what no flush has inserted yet, as its session commits; `is_last`: all, and not only a part of it.

    The session has them until that has worked: none of its commits is made without them, not even the one of a handler
    that tries again after an error. Those with a dedup key are left to the flush, where conflicts are looked for.
    """
    fresh = [row for row in rows if inspect(row).pending and row.dedup_key is None]
    if not fresh:
        return Written([], list(rows), [])
    places = write(session.connection(bind_arguments={"mapper": TaskRow}), fresh, is_last=is_last)
    for row in fresh:
        session.expunge(row)
    written = {id(row) for row in fresh}
    return Written(fresh, [row for row in rows if id(row) not in written], places)


@event.listens_for(TaskRow, "before_insert")
def _inserted(_mapper: object, connection: Connection, row: TaskRow) -> None:
    outbox = outbox_of(connection.engine)
    if outbox is not None:
        outbox.check_schema(connection)
    if row.on_conflict == "raise":
        refuse_conflict(connection, row.queue_name, row.dedup_key)


@event.listens_for(Session, "before_flush")
def _refuse_equal_keys(session: Session, _flush: object, _instances: object) -> None:
    """See that tasks of one flush do not conflict: none of them is in the table when they are looked for."""
    waiting = set[tuple[str, str]]()
    for row in session.new:
        if isinstance(row, TaskRow) and row.dedup_key is not None:
            key = row.queue_name, row.dedup_key
            if row.on_conflict == "raise" and key in waiting:
                raise TaskAlreadyExistsError(waits_already(*key))
            waiting.add(key)


def refuse_conflict(connection: Connection, queue_name: str, dedup_key: str | None) -> None:
    """See that no task with a dedup key waits, as far as the transaction can see.

    Raises:
        TaskAlreadyExistsError: one does.
    """
    if dedup_key is not None and is_waiting(connection, queue_name, dedup_key):
        raise TaskAlreadyExistsError(waits_already(queue_name, dedup_key))


@event.listens_for(TaskRow, "before_update")
def _ends(_mapper: object, connection: Connection, row: TaskRow) -> None:
    outbox = outbox_of(connection.engine)
    if outbox is not None:
        row.ended_us = outbox.clock(connection)
        kept_us = outbox.store.retention.completed_us.get(row.queue_name, 0)
        row.lease_until_us = min(row.ended_us + kept_us, LATEST_US)  # as where it is settled


@event.listens_for(TaskRow, "after_update")
def _ended(_mapper: object, connection: Connection, row: TaskRow) -> None:
    row.was_updated = True
    if row.record is not None:
        attempts.write(connection, [row.record])
    _leave_name(_mapper, connection, row)


@event.listens_for(TaskRow, "after_delete")
def _gone(_mapper: object, connection: Connection, row: TaskRow) -> None:
    if row.record_count:
        attempts.forget(connection, [row.id])
    _leave_name(_mapper, connection, row)


def _leave_name(_mapper: object, connection: Connection, row: TaskRow) -> None:
    outbox = outbox_of(connection.engine)
    if outbox is not None and row.name is not None:
        now_us = outbox.clock(connection)
        tombstone(connection, [Wish(row.queue_name, row.name, row.id)], now_us + outbox.tombstone_us, now_us)
