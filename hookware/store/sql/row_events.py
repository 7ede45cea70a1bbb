"""What goes with a task's row in a session of the user's: it is looked where it goes, and what ends leaves its name."""

from collections.abc import Sequence

from sqlalchemy import Connection, event, inspect
from sqlalchemy.orm import Session, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from hookware.core.history import AttemptRecord
from hookware.core.lifecycle import State
from hookware.core.task import LeasedTask
from hookware.errors import TaskAlreadyExistsError
from hookware.store.base import LATEST_US
from hookware.store.sql import attempts
from hookware.store.sql.dedup import is_waiting
from hookware.store.sql.names import Wish, tombstone
from hookware.store.sql.outbox import outbox_of
from hookware.store.sql.refused import waits_already
from hookware.store.sql.rows import insert_objects
from hookware.store.sql.tables import TaskRow


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


def write(connection: Connection, rows: Sequence[TaskRow]) -> None:
    """Insert new rows without a flush."""
    outbox = outbox_of(connection.engine)
    if outbox is not None:
        outbox.check_schema(connection)
    insert_objects(connection, rows)


def write_new(session: Session, rows: Sequence[TaskRow]) -> tuple[list[TaskRow], list[TaskRow]]:
    """Insert what no flush has inserted yet, as its session commits; give those, and the others.

    The session has them until that has worked: none of its commits is made without them, not even the one of a handler
    that tries again after an error. Those with a dedup key are left to the flush, where conflicts are looked for.
    """
    fresh = [row for row in rows if inspect(row).pending and row.dedup_key is None]
    if not fresh:
        return [], list(rows)
    write(session.connection(bind_arguments={"mapper": TaskRow}), fresh)
    for row in fresh:
        session.expunge(row)
    written = {id(row) for row in fresh}
    return fresh, [row for row in rows if id(row) not in written]


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
