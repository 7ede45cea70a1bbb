"""What people do to the tasks of a queue by hand: deleting, purging, moving an ETA, counting."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    String,
    bindparam,
    case,
    delete,
    func,
    literal,
    literal_column,
    select,
    union_all,
    update,
)

from hookware.core.allowance import QueueState, effective
from hookware.core.lifecycle import State
from hookware.core.queue import QueueSettings
from hookware.store.sql import attempts, executed, names, queues
from hookware.store.sql.operation import Moment
from hookware.store.sql.read import DEAD, LEASED, PENDING, PULL, chunks
from hookware.store.sql.tables import queue_table, task_table

PURGE_LIMIT: Final = 1000
"""The most tasks that one transaction purges: long ones would keep others from writing."""

_MOST_OF_A_NAME: Final = 100
_SETTLING_SECONDS: Final = 2
"""How long to wait for whoever holds a row: a claim is quick, and a handler's own transaction may never end."""

_tasks = task_table.c
_queue = bindparam("queue", type_=String())
_ITS_OWN = _tasks.queue_name == _queue
# A lane is the queue's name, or begins with it and a slash; "0" comes after the slash. Each has a part of its own,
# because each is found by the index of lanes, and either or the other is not.
_OTHER_LANES = (_tasks.lane >= _queue + "/") & (_tasks.lane < _queue + "0")
_OF_QUEUE = ((PENDING, _tasks.lane == _queue), (PENDING, _OTHER_LANES), (PULL, _ITS_OWN), (LEASED, _ITS_OWN))
_WAITING = (_tasks.state + literal_column("0")).in_((int(State.PENDING), int(State.PULL)))


class Counted(NamedTuple):
    """The numbers of a queue, as App Engine gives them."""

    tasks: int
    oldest_eta_us: int | None
    executed_last_minute: int
    in_flight: int | None
    enforced_rate: float | None


# Deleting.


def delete_tasks(connection: Connection, moment: Moment, queue_name: str, labels: Sequence[str]) -> list[bool]:
    """Remove tasks by their names, an unnamed one by its id; which were there. Names stay taken for a while."""
    wait_briefly(connection)
    ids = [task_id for some in find(connection, queue_name, labels).values() for task_id in some]
    gone = delete_by_id(connection, moment, queue_name, ids)
    return [label in gone for label in labels]


class Purge:
    """Removes the tasks that a queue has when the first transaction begins: some in each.

    `before_us`: when that was; given, to go on with a purge that began then.
    """

    def __init__(self, queue_name: str, before_us: int | None = None) -> None:
        self._queue_name = queue_name
        self.before_us = before_us

    def __call__(self, connection: Connection, moment: Moment) -> bool:
        """Remove some; say whether there may be more."""
        wait_briefly(connection)
        if self.before_us is None:
            self.before_us = moment.now_us
        given = {"queue": self._queue_name, "before_us": self.before_us}
        rows = connection.execute(_TO_PURGE, given).all()
        ids = [row.id for row in rows if row.state != State.LEASED]
        # A running task that is locked is just being completed by its handler's transaction.
        running = select(_tasks.id).where(_tasks.id.in_([row.id for row in rows if row.state == State.LEASED]))
        ids += connection.execute(running.with_for_update(skip_locked=True)).scalars().all()
        return bool(delete_by_id(connection, moment, self._queue_name, ids))


def find(connection: Connection, queue_name: str, labels: Sequence[str]) -> dict[str, list[int]]:
    """Give the ids of the tasks that have these names, or as unnamed ones these ids; duplicates that lost theirs not.

    Several tasks may wait for one name: the first that is claimed wins it.
    """
    found: dict[str, list[int]] = {}
    for row in names.rows_of(connection, queue_name, labels, _MOST_OF_A_NAME):
        lost = row.state == State.DEAD and row.dead_reason == "duplicate"
        if not lost and row.state != State.COMPLETED:
            found.setdefault(row.name, []).append(row.id)
    numbers = {int(label): label for label in labels if label not in found and label.isdecimal() and len(label) < 19}
    for some in chunks(numbers):
        unnamed = select(_tasks.id).where(_tasks.id.in_(some), _tasks.queue_name == queue_name, _tasks.name.is_(None))
        there = connection.execute(unnamed.where(_tasks.state != int(State.COMPLETED))).scalars()
        found.update((numbers[task_id], [task_id]) for task_id in there)
    return found


def delete_by_id(connection: Connection, moment: Moment, queue_name: str, ids: Collection[int]) -> set[str]:
    """Remove tasks by id; the names or ids of those that were there."""
    gone: list[names.Wish] = []
    labels: set[str] = set()
    for some in chunks(ids):
        statement = delete(task_table).where(_tasks.id.in_(some), _tasks.queue_name == queue_name)
        recorded: list[int] = []
        for row in connection.execute(statement.returning(_tasks.id, _tasks.name, _tasks.state, _tasks.record_count)):
            if row.record_count is not None:
                recorded.append(row.id)
            labels.add(row.name or str(row.id))
            if row.state == State.LEASED:
                moment.on_removed(row.id)
            if row.name is not None:
                gone.append(names.Wish(queue_name, row.name, row.id))
        attempts.forget(connection, recorded)
    names.tombstone(connection, gone, moment.tombstone_until_us, moment.now_us)
    return labels


def wait_briefly(connection: Connection) -> None:
    """Let a row that another transaction keeps locked be a conflict soon: it is tried again, and said in the end."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.set_config("lock_timeout", f"{_SETTLING_SECONDS}s", True)))


# One statement, because it is one look: a task that changes its state meanwhile is seen in one of them.
_TO_PURGE = union_all(
    *(
        select(part.c.id, part.c.state)
        for part in (
            select(_tasks.id, _tasks.state)
            .where(condition, its, _tasks.created_us <= bindparam("before_us", type_=BigInteger()))
            .limit(PURGE_LIMIT)
            .subquery()
            for condition, its in (*_OF_QUEUE, (DEAD, _ITS_OWN))
        )
    )
)


# Moving an ETA.


class Place(NamedTuple):
    """Which task is meant: by its id, or where that is not known, by its name."""

    queue_name: str
    label: str
    task_id: int | None


def run_now(connection: Connection, moment: Moment, place: Place) -> int | None:
    """Make a waiting task due now, if it is not; its ETA, None: it does not wait."""
    now_us = literal(moment.now_us, BigInteger())
    return _move(connection, place, case((_tasks.eta_us > now_us, now_us), else_=_tasks.eta_us))


def postpone(connection: Connection, moment: Moment, place: Place, eta_us: int | None, countdown_us: int) -> int | None:
    """Make a waiting task due at `eta_us`, or `countdown_us` from now; its ETA, None: it does not wait."""
    return _move(connection, place, moment.now_us + countdown_us if eta_us is None else eta_us)


def _move(connection: Connection, place: Place, eta_us: object) -> int | None:
    wait_briefly(connection)
    ids = [place.task_id]
    if place.task_id is None:
        ids = [*find(connection, place.queue_name, [place.label]).get(place.label, ())]
    statement = update(task_table).where(_tasks.id.in_(ids), _tasks.queue_name == place.queue_name, _WAITING)
    etas = connection.execute(statement.values(eta_us=eta_us).returning(_tasks.eta_us)).scalars().all()
    return min(etas, default=None)


# Settings and numbers.


def change_settings(connection: Connection, _moment: Moment, queue_name: str, changes: Mapping[str, object]) -> None:
    """Put settings in the place of the configured ones; those that were changed before stay changed."""
    queues.make_rows(connection, [queue_name])
    row = select(queue_table.c.overrides).where(queue_table.c.name == queue_name).with_for_update()
    before = queues.decode_overrides(connection.execute(row).scalar_one())
    queues.set_overrides(connection, queue_name, {**(before or {}), **changes})


def settings_of(connection: Connection, moment: Moment, queue_name: str) -> tuple[QueueSettings, QueueState]:
    """Give the settings of a queue as they are now, and what is set of it at run time."""
    state = queues.get_state(connection, queue_name)
    return effective(moment.settings(queue_name), state), state


def count(connection: Connection, moment: Moment, queue_names: Sequence[str]) -> list[Counted]:
    """Give the numbers of queues."""
    wanted = set(queue_names)
    executed_counts = executed.last_minute(connection, wanted, moment.now_us)
    running = queues.running(connection, wanted, moment.now_us)
    counts: dict[str, Counted] = {}
    for name in wanted:
        settings, state = settings_of(connection, moment, name)
        is_pull = settings.mode == "pull"
        tasks, oldest_us = connection.execute(_COUNT, {"queue": name}).one()
        rate = 0.0 if state.paused else settings.rate
        counts[name] = Counted(
            int(tasks),
            oldest_us,
            executed_counts.get(name, 0),
            None if is_pull else running[name].total,
            None if is_pull else rate,
        )
    return [counts[name] for name in queue_names]


_counts = union_all(
    *(
        select(func.count().label("tasks"), func.min(_tasks.eta_us).label("eta_us")).where(condition, its)
        for condition, its in _OF_QUEUE
    )
).subquery()
_COUNT = select(func.coalesce(func.sum(_counts.c.tasks), 0), func.min(_counts.c.eta_us))
