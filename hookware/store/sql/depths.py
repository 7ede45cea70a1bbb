"""How much waits, runs and lies dead in each queue: counted up to a bound, so that it costs the same at 10^7 tasks."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Executable,
    Integer,
    String,
    bindparam,
    func,
    select,
)

from hookware.core.queue import lane_of
from hookware.store.sql.read import DEAD, LEASED, PENDING, PULL
from hookware.store.sql.tables import task_table

MOST_PLACES: Final = 100
"""How many lanes, and how many queues of each other kind, are looked at."""

_tasks = task_table.c
_place = bindparam("place", type_=String())
_now_us = bindparam("now_us", type_=BigInteger())
_most = bindparam("most", type_=Integer())


class Depth(NamedTuple):
    """The numbers of one queue. A count that has reached the bound means: at least as many.

    `oldest_due_us` is the earliest ETA of those that are due and do not run.
    """

    waiting: int = 0
    due: int = 0
    leased: int = 0
    dead: int = 0
    oldest_due_us: int | None = None

    def plus(self, other: "Depth") -> "Depth":
        """Give both together."""
        oldest = min((us for us in (self.oldest_due_us, other.oldest_due_us) if us is not None), default=None)
        return Depth(
            waiting=self.waiting + other.waiting,
            due=self.due + other.due,
            leased=self.leased + other.leased,
            dead=self.dead + other.dead,
            oldest_due_us=oldest,
        )

    def up_to(self, most: int) -> "Depth":
        """Give no count above the bound."""
        waiting, due, leased, dead = (min(count, most) for count in self[:4])
        return Depth(waiting, due, leased, dead, self.oldest_due_us)


class Depths(NamedTuple):
    """The numbers of the queues that have tasks, by name, and the database's time at which they were counted."""

    now_us: int
    by_queue: dict[str, Depth]


def count(connection: Connection, now_us: int, most: int) -> Depths:
    """Count the tasks of each queue, up to `most` in each lane and state."""
    found: dict[str, Depth] = {}
    for queue_name, depth in _parts(connection, now_us, most):
        found[queue_name] = found.get(queue_name, Depth()).plus(depth)
    return Depths(now_us, {name: depth.up_to(most) for name, depth in found.items()})


def _parts(connection: Connection, now_us: int, most: int) -> Iterator[tuple[str, Depth]]:
    given = {"now_us": now_us, "most": most}
    for lane in _places(connection, _LANES):
        yield lane_of(lane).queue_name, _waiting(connection, _PENDING, {**given, "place": lane})
    for queue_name in _places(connection, _PULL_QUEUES):
        pulled = _waiting(connection, _PULLED, {**given, "place": queue_name})
        # The lease of a pull task is its ETA: whether it runs or waits for its time cannot be told.
        yield queue_name, pulled
    for queue_name, leased in connection.execute(_LEASED, {"most": most}):
        yield queue_name, Depth(leased=leased)
    for queue_name in _places(connection, _DEAD_QUEUES):
        dead = connection.execute(_DEAD, {"place": queue_name, "most": most}).scalar_one()
        yield queue_name, Depth(dead=dead)


def _places(connection: Connection, statement: Executable) -> list[str]:
    return [place for place in connection.execute(statement).scalars() if isinstance(place, str)]


def _waiting(connection: Connection, statement: Executable, given: dict[str, object]) -> Depth:
    row = connection.execute(statement, given).one()
    oldest_us = row.oldest_us if isinstance(row.oldest_us, int) else None
    return Depth(waiting=row.waiting, due=row.due, oldest_due_us=oldest_us)


def _distinct(column: "Column[Any]", condition: ColumnElement[bool]) -> Executable:
    """Go from each value of an index's first column straight to the next one: DISTINCT would read every entry."""
    walk = select(func.min(column).label("place")).where(condition).cte("walk", recursive=True)
    later = select(func.min(column)).where(condition, column > walk.c.place).scalar_subquery()
    places = walk.union_all(select(later).where(walk.c.place.is_not(None)))
    return select(places.c.place).where(places.c.place.is_not(None)).limit(MOST_PLACES)


def _split(column: "Column[Any]", condition: ColumnElement[bool]) -> Executable:
    """Count what is due and what waits for its time at one place, each up to the bound, and find the oldest."""
    # In the order of the index, so that PostgreSQL uses it and does not hope to meet enough on its way through all.
    here = select(_tasks.eta_us).where(condition, column == _place).order_by(_tasks.eta_us).limit(_most)
    due = here.where(_tasks.eta_us <= _now_us).subquery()
    waiting = here.where(_tasks.eta_us > _now_us).subquery()
    oldest = select(func.min(_tasks.eta_us)).where(condition, column == _place, _tasks.eta_us <= _now_us)
    return select(
        select(func.count()).select_from(due).scalar_subquery().label("due"),
        select(func.count()).select_from(waiting).scalar_subquery().label("waiting"),
        oldest.scalar_subquery().label("oldest_us"),
    )


_LANES = _distinct(_tasks.lane, PENDING)
_PULL_QUEUES = _distinct(_tasks.queue_name, PULL)
_DEAD_QUEUES = _distinct(_tasks.queue_name, DEAD)
_PENDING = _split(_tasks.lane, PENDING)
_PULLED = _split(_tasks.queue_name, PULL)
_leased = select(_tasks.queue_name).where(LEASED).order_by(_tasks.lease_until_us).limit(_most).subquery()
_LEASED = select(_leased.c.queue_name, func.count()).group_by(_leased.c.queue_name)
_dead = select(_tasks.id).where(DEAD, _tasks.queue_name == _place).order_by(_tasks.ended_us).limit(_most).subquery()
_DEAD = select(func.count()).select_from(_dead)
