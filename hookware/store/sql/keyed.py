"""Claiming tasks that have keys: they take turns by their fair keys, and no limit key runs too often.

Most often all due tasks fit into a window, and the choice is made among them. Where more are due, the keys themselves
are walked, from the one that had the last turn: so a key with a hundred thousand waiting tasks hides nobody's ten.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, Integer, String, and_, bindparam, func, literal, select
from sqlalchemy.exc import DBAPIError

from hookware.core.fairness import Candidate, Choice, choose
from hookware.core.lifecycle import State
from hookware.store.sql.damage import DamageError, is_unreadable
from hookware.store.sql.read import PENDING, Row, chunks, keyed, read
from hookware.store.sql.tables import task_table

_WINDOW_PER_SLOT = 4
_LEAST_WINDOW = 40
_MOST_LIMIT_KEYS = 50
_columns = task_table.c

# Spelled as in the index of keyed tasks, or it would not be used.
_IN_LANE = and_(PENDING, _columns.fair_key.is_not(None), _columns.lane == bindparam("lane", type_=String()))
_DUE = and_(_IN_LANE, _columns.eta_us <= bindparam("now", type_=BigInteger()))
_WINDOW = (
    select(_columns.id, _columns.fair_key, _columns.limit_key)
    .where(PENDING, _columns.lane == bindparam("lane"), _columns.eta_us >= bindparam("floor", type_=BigInteger()))
    .where(_columns.eta_us <= bindparam("now", type_=BigInteger()))
    .order_by(_columns.eta_us, _columns.id)
    .limit(bindparam("most"))
)
_OF_KEYS = (
    select(_columns.id)
    .where(_DUE, _columns.fair_key == bindparam("fair"), _columns.limit_key == bindparam("limited"))
    .order_by(_columns.eta_us, _columns.id)
    .limit(bindparam("most"))
)
_ROWS = select(task_table).where(_columns.id.in_(bindparam("ids", expanding=True)), keyed(State.PENDING))
_ROWS = _ROWS.with_for_update(skip_locked=True)


def _next(column: ColumnElement[str], *conditions: ColumnElement[bool]) -> ColumnElement[str]:
    return select(func.min(column)).where(_IN_LANE, *conditions).scalar_subquery()


_fair = select(
    _next(_columns.fair_key, _columns.fair_key >= bindparam("first", type_=String())).label("fair"),
    literal(1, Integer).label("step"),
).cte("fair", recursive=True)
_fairs = _fair.union_all(
    select(_next(_columns.fair_key, _columns.fair_key > _fair.c.fair), _fair.c.step + 1).where(
        _fair.c.fair.is_not(None), _fair.c.step < bindparam("fairs", type_=Integer())
    )
)
_first = _next(_columns.limit_key, _columns.fair_key == _fairs.c.fair)
_pair = (
    select(_fairs.c.fair, _first.label("limited"), literal(1, Integer).label("step"))
    .where(_fairs.c.fair.is_not(None))
    .cte("pair", recursive=True)
)
_later = _next(_columns.limit_key, _columns.fair_key == _pair.c.fair, _columns.limit_key > _pair.c.limited)
_pairs = _pair.union_all(
    select(_pair.c.fair, _later, _pair.c.step + 1).where(
        _pair.c.limited.is_not(None), _pair.c.step < bindparam("limiteds", type_=Integer())
    )
)
_WALK = select(_pairs.c.fair, _pairs.c.limited).where(_pairs.c.limited.is_not(None))


class Wanted(NamedTuple):
    """What a claim wants of one lane: at most `slots` tasks; `running` are the counts of its queue's limit keys."""

    lane: str
    now_us: int
    floor_us: int
    slots: int
    limit: int
    running: Mapping[str, int]
    last_key: str


def take(connection: Connection, wanted: Wanted) -> tuple[list[Row], Choice]:
    """Lock and read the tasks whose turn it is. The queue's row is locked: the counts stay true until the commit."""
    choice = _chosen(connection, wanted)
    rows = [row for some in chunks(choice.chosen) for row in read(connection, _ROWS, {"ids": list(some)})]
    place = {task_id: n for n, task_id in enumerate(choice.chosen)}
    return sorted(rows, key=lambda row: place.get(row["id"], 0)), choice  # type: ignore[call-overload]  # an id


def _chosen(connection: Connection, wanted: Wanted) -> Choice:
    most = max(_LEAST_WINDOW, wanted.slots * _WINDOW_PER_SLOT)
    given = {"lane": wanted.lane, "now": wanted.now_us}
    try:
        window = connection.execute(_WINDOW, {**given, "floor": wanted.floor_us, "most": most}).all()
    except DBAPIError as error:
        if not is_unreadable(error):
            raise
        raise DamageError("the key of a task cannot be read") from error
    candidates = [Candidate(row.id, row.fair_key or "", row.limit_key or "") for row in window]
    if not all(isinstance(part, str) for one in candidates for part in one[1:]):
        raise DamageError("the key of a task is no text")
    if len(window) == most:
        known = {one.task_id for one in candidates}
        candidates += [one for one in _walked(connection, wanted) if one.task_id not in known]
    return choose(candidates, wanted.slots, limit=wanted.limit, running=wanted.running, last_key=wanted.last_key)


def _walked(connection: Connection, wanted: Wanted) -> list[Candidate]:
    """Give the first due tasks of the keys whose turn it is next."""
    full = sum(count >= wanted.limit for key, count in wanted.running.items() if key)
    steps = {"fairs": wanted.slots + 1, "limiteds": min(1 + full + wanted.slots, _MOST_LIMIT_KEYS)}
    pairs: dict[tuple[str, str], None] = {}
    for first in (wanted.last_key, ""):  # from there on, and around from the beginning
        if len({fair for fair, _limited in pairs}) <= wanted.slots:
            rows = connection.execute(_WALK, {"lane": wanted.lane, "first": first, **steps})
            pairs |= {(row.fair, row.limited): None for row in rows}
    free = [pair for pair in pairs if not pair[1] or wanted.running.get(pair[1], 0) < wanted.limit]
    return [one for pair in free for one in _of_keys(connection, wanted, pair, len(free))]


def _of_keys(connection: Connection, wanted: Wanted, pair: tuple[str, str], pair_count: int) -> Sequence[Candidate]:
    given = {"lane": wanted.lane, "now": wanted.now_us, "fair": pair[0], "limited": pair[1]}
    most = -(-wanted.slots // max(1, pair_count))
    return [Candidate(task_id, *pair) for task_id in connection.execute(_OF_KEYS, {**given, "most": most}).scalars()]
