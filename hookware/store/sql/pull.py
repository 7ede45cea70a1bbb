"""Pull queues: who works on a task leases it by moving its ETA, which is the token of the lease.

Nobody waits for another's lease: a row that is just being leased is passed over.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Connection, Select, bindparam, func, literal, select, update

from hookware.core.codec import TaskIdentity
from hookware.core.lifecycle import State
from hookware.core.retry import may_retry
from hookware.encoding import plain_body
from hookware.errors import (
    Error,
    PermanentTaskFailure,
    QueuePausedError,
    TaskLeaseExpiredError,
    TombstonedTaskError,
    describe,
)
from hookware.store.base import LATEST_US, stored_error
from hookware.store.sql import executed, names
from hookware.store.sql.executed import Ended
from hookware.store.sql.operation import Moment
from hookware.store.sql.queue_ops import Place, delete_by_id, find, settings_of, wait_briefly
from hookware.store.sql.read import PULL, Row, chunks, keyed, read
from hookware.store.sql.rows import PulledTask, to_pulled
from hookware.store.sql.tables import task_table

_MOST_LOOKS: Final = 100
"""How often a lease that found nothing it can read looks further: what cannot be read must not hold up the others."""

_tasks = task_table.c
_MOVE = (
    update(task_table)
    .where(_tasks.id.in_(bindparam("ids", expanding=True)), keyed(State.PULL))
    .values(
        eta_us=bindparam("until_us", type_=BigInteger()),
        attempt_count=_tasks.attempt_count + 1,
        first_attempt_us=func.coalesce(_tasks.first_attempt_us, bindparam("now_us", type_=BigInteger())),
    )
)
_BURY = (
    update(task_table)
    .where(_tasks.id == bindparam("task_id"), keyed(State.PULL))
    .values(
        state=int(State.DEAD),
        ended_us=bindparam("now_us"),
        dead_reason=bindparam("reason"),
        last_error=bindparam("error"),
    )
)


class Leased(NamedTuple):
    """What a lease gives: the tasks, and those that it passed over because their bodies cannot be decoded here."""

    tasks: list[PulledTask]
    unreadable: dict[int, Error]


class Lease:
    """Leases up to `max_tasks` tasks of a queue for `lease_us`.

    `by_tag`: only tasks with this tag; "": with that of the oldest task, or if it has none, those without a tag among
    the first `max_tasks`; None: whatever their tags.
    """

    def __init__(self, queue_name: str, lease_us: int, max_tasks: int, by_tag: str | None = None) -> None:
        self._queue_name, self._lease_us, self._max_tasks, self._by_tag = queue_name, lease_us, max_tasks, by_tag
        self._unreadable: dict[int, Error] = {}

    def __call__(self, connection: Connection, moment: Moment) -> Leased:
        """Lease them, the one with the earliest ETA first; fewer if some may be leased no more."""
        self._unreadable = {}  # a transaction may be tried again
        settings, state = settings_of(connection, moment, self._queue_name)
        if state.paused:
            return Leased([], {})
        leasable: list[PulledTask] = []
        worn_out: list[int] = []
        for task in self._readable(connection, moment):
            # Asked as at the first lease: an age limit alone never ends a pull task.
            if may_retry(settings.retry, task.lease_count + 1, 0):
                leasable.append(task)
            else:
                worn_out.append(task.id)
        delete_by_id(connection, moment, self._queue_name, worn_out)
        leased = self._lease(connection, moment, self._winners(connection, moment, leasable))
        return Leased(leased, self._unreadable)

    def _readable(self, connection: Connection, moment: Moment) -> list[PulledTask]:
        for _ in range(_MOST_LOOKS):
            rows = self._rows(connection, moment.now_us)
            tasks = self._decoded(connection, moment, rows)
            if tasks or not rows:
                return tasks
        return []

    def _rows(self, connection: Connection, now_us: int) -> list[Row]:
        if self._by_tag is None:
            return read(connection, self._due(now_us, self._max_tasks))
        tag = self._by_tag
        if not tag:
            oldest = connection.execute(self._due(now_us, 1).with_only_columns(_tasks.tag)).first()
            if oldest is None:
                return []
            tag = oldest.tag
        if not tag:
            first = self._due(now_us, self._max_tasks, locked=False).with_only_columns(_tasks.id)
            ids = connection.execute(first).scalars().all()
            untagged = self._due(now_us, self._max_tasks).where(_tasks.id.in_(ids), _tasks.tag.is_(None))
            return read(connection, untagged)
        return read(connection, self._due(now_us, self._max_tasks).where(_tasks.tag == tag))

    def _due(self, now_us: int, most: int, *, locked: bool = True) -> Select[Any]:
        due = _tasks.eta_us < literal(now_us, BigInteger())
        statement = select(task_table).where(PULL, _tasks.queue_name == self._queue_name, due)
        if self._unreadable:
            statement = statement.where(_tasks.id.not_in(self._unreadable))
        statement = statement.order_by(_tasks.eta_us, _tasks.id).limit(most)
        return statement.with_for_update(skip_locked=True) if locked else statement

    def _decoded(self, connection: Connection, moment: Moment, rows: Sequence[Row]) -> list[PulledTask]:
        tasks: list[PulledTask] = []
        for row in rows:
            try:
                task = to_pulled(row)
            except ValueError as error:
                _bury(connection, moment, row["id"], "undecodable", str(error))
                continue
            identity = TaskIdentity(id=task.id, queue_name=self._queue_name, name=task.name)
            try:
                tasks.append(task._replace(body=plain_body(moment.codec, task.headers, task.body, identity)))
            except PermanentTaskFailure as error:
                _bury(connection, moment, task.id, "permanent", describe(error))
            except Error as error:
                self._unreadable[task.id] = error
        return tasks

    def _winners(self, connection: Connection, moment: Moment, tasks: Sequence[PulledTask]) -> list[PulledTask]:
        """Let named tasks win their names, as a claim does; those whose name is another's are dead."""
        wishes = {task.id: names.Wish(self._queue_name, task.name, task.id) for task in tasks if task.name is not None}
        holders = names.win(connection, list(wishes.values()), moment.now_us) if wishes else {}
        lost = {task_id: holders.get(wish.key) for task_id, wish in wishes.items() if holders.get(wish.key) != task_id}
        for task_id, holder in lost.items():
            _bury(connection, moment, task_id, "duplicate", f"the name is held by task {holder}")
        return [task for task in tasks if task.id not in lost]

    def _lease(self, connection: Connection, moment: Moment, tasks: Sequence[PulledTask]) -> list[PulledTask]:
        until_us = min(moment.now_us + self._lease_us, LATEST_US)
        for ids in chunks([task.id for task in tasks]):
            connection.execute(_MOVE, {"ids": ids, "until_us": until_us, "now_us": moment.now_us})
        if tasks:
            # Last, because the leases of other processes wait for this row until the commit.
            executed.note(connection, {self._queue_name: Ended(completed=len(tasks))}, moment.now_us)
        return [task._replace(eta_us=until_us, lease_count=task.lease_count + 1) for task in tasks]


def modify_lease(connection: Connection, moment: Moment, place: Place, token_us: int, lease_us: int) -> int:
    """Let a lease end `lease_us` from now, if `token_us` is still its end and has not passed; its new end.

    Raises:
        QueuePausedError: the queue is paused.
        TaskLeaseExpiredError: the lease has ended, or is another's.
        TombstonedTaskError: the task is gone, and its name is still taken.
        Error: there is no such task.
    """
    if settings_of(connection, moment, place.queue_name)[1].paused:
        raise QueuePausedError(f"the queue {place.queue_name!r} is paused: resume() it, then change leases")
    wait_briefly(connection)
    ids = [place.task_id]
    if place.task_id is None:
        ids = [*find(connection, place.queue_name, [place.label]).get(place.label, ())]
    # In a pull queue several tasks may have one name until the first of them is leased: it is the one with the token.
    mine = select(_tasks.id, _tasks.eta_us).where(_tasks.id.in_(ids), _tasks.queue_name == place.queue_name)
    rows = connection.execute(mine.where(keyed(State.PULL)).with_for_update()).all()
    if not rows:
        _refuse_missing(connection, moment, place)
    held = [row.id for row in rows if row.eta_us == token_us and row.eta_us >= moment.now_us]
    if not held:
        raise TaskLeaseExpiredError(
            f"the lease of task {place.label!r} has ended, or was changed by another: leave the task to whoever has it"
        )
    until_us = min(moment.now_us + lease_us, LATEST_US)
    connection.execute(update(task_table).where(_tasks.id == held[0]).values(eta_us=until_us))
    return until_us


def _refuse_missing(connection: Connection, moment: Moment, place: Place) -> None:
    if names.tombstoned(connection, place.queue_name, [place.label], moment.now_us):
        raise TombstonedTaskError(f"the task {place.label!r} of queue {place.queue_name!r} is done or was deleted")
    raise Error(f"the queue {place.queue_name!r} has no task {place.label!r}: it may be done, or was never added")


def _bury(connection: Connection, moment: Moment, task_id: object, reason: str, error: str) -> None:
    given = {"task_id": task_id, "now_us": moment.now_us, "reason": reason, "error": stored_error(error)}
    connection.execute(_BURY, given)
