"""Claiming tasks that have keys: they take turns by their fair keys, and no limit key runs too often.

Most often all due tasks fit into a window, and the choice is made among them. Where more are due, the keys themselves
are walked, from the one that had the last turn: so a key with a hundred thousand waiting tasks hides nobody's ten.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Select,
    String,
    and_,
    bindparam,
    func,
    literal,
    select,
)
from sqlalchemy.exc import DBAPIError

from hookware.core.fairness import Candidate, Choice, choose
from hookware.core.lifecycle import State
from hookware.store.sql.damage import DamageError, is_unreadable
from hookware.store.sql.read import PENDING, Row, chunks, keyed, read
from hookware.store.sql.tables import task_table

_WINDOW_PER_SLOT = 4
_LEAST_WINDOW = 40
_MOST_LIMIT_KEYS = 50
_MOST_LIMIT_KEYS_BLOCKED = 2000
"""So many limit keys of one fair key are looked at where few have room."""

_PAGE = 100
_MOST_PAGES = 10
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
_ROWS = (
    # Due, still: another transaction may have postponed a task since it was chosen.
    select(task_table)
    .where(_columns.id.in_(bindparam("ids", expanding=True)), keyed(State.PENDING))
    .where(_columns.eta_us <= bindparam("now", type_=BigInteger()))
    .with_for_update(skip_locked=True)
)


def _next(column: ColumnElement[str], *conditions: ColumnElement[bool]) -> ColumnElement[str]:
    # Not min(): a planner that takes the table for tiny would read all of them for it.
    return select(column).where(_IN_LANE, *conditions).order_by(column).limit(1).scalar_subquery()


_fair = select(
    _next(_columns.fair_key, _columns.fair_key >= bindparam("first", type_=String())).label("fair"),
    literal(1, Integer).label("step"),
).cte("fair", recursive=True)
_fairs = _fair.union_all(
    select(_next(_columns.fair_key, _columns.fair_key > _fair.c.fair), _fair.c.step + 1).where(
        _fair.c.fair.is_not(None), _fair.c.step < bindparam("fairs", type_=Integer())
    )
)
_of_fair = _columns.fair_key == _fairs.c.fair
_first = _next(_columns.limit_key, _of_fair)
_first_after = _next(_columns.limit_key, _of_fair, _columns.limit_key > bindparam("after", type_=String()))


def _walk(first: ColumnElement[str]) -> Select[tuple[str, str]]:
    """Give the walk over pairs of keys: from each fair key's first one on, so many limit keys."""
    pair = (
        select(_fairs.c.fair, first.label("limited"), literal(1, Integer).label("step"))
        .where(_fairs.c.fair.is_not(None))
        .cte("pair", recursive=True)
    )
    later = _next(_columns.limit_key, _columns.fair_key == pair.c.fair, _columns.limit_key > pair.c.limited)
    pairs = pair.union_all(
        select(pair.c.fair, later, pair.c.step + 1).where(
            pair.c.limited.is_not(None), pair.c.step < bindparam("limiteds", type_=Integer())
        )
    )
    return select(pairs.c.fair, pairs.c.limited).where(pairs.c.limited.is_not(None))


_WALK = _walk(_first)
_WALK_ON = _walk(func.coalesce(_first_after, _first))


class Turn(NamedTuple):
    """The keys that had the last turn in a lane."""

    fair_key: str = ""
    limit_key: str | None = None


FIRST_TURN: Final = Turn()


class Wanted(NamedTuple):
    """What a claim wants of one lane: at most `slots` tasks; `running` are the counts of its queue's limit keys."""

    lane: str
    now_us: int
    floor_us: int
    slots: int
    limit: int
    running: Mapping[str, int]
    last: Turn

    def is_free(self, limit_key: str) -> bool:
        """Say whether a task with this limit key may begin."""
        return not limit_key or self.running.get(limit_key, 0) < self.limit

    @property
    def full_count(self) -> int:
        """How many limit keys have no room."""
        return sum(not self.is_free(key) for key in self.running)


def take(connection: Connection, wanted: Wanted) -> tuple[list[Row], Choice, Turn]:
    """Lock and read the tasks whose turn it is. The queue's row is locked: the counts stay true until the commit."""
    candidates, seen_to = _candidates(connection, wanted)
    choice = choose(candidates, wanted.slots, limit=wanted.limit, running=wanted.running, last_key=wanted.last.fair_key)
    given = [{"ids": list(some), "now": wanted.now_us} for some in chunks(choice.chosen)]
    rows = [row for each in given for row in read(connection, _ROWS, each)]
    place = {task_id: n for n, task_id in enumerate(choice.chosen)}
    rows.sort(key=lambda row: place.get(row["id"], 0))  # type: ignore[call-overload]  # an id
    return rows, choice, _next_turn(candidates, choice, seen_to, wanted.last)


def _next_turn(candidates: Sequence[Candidate], choice: Choice, seen_to: str, last: Turn) -> Turn:
    """Say from which keys the next claim walks on; where none of those seen may begin, from the last one seen."""
    if not choice.chosen:
        return Turn(seen_to, last.limit_key)
    limits = {one.task_id: one.limit_key for one in candidates}
    return Turn(choice.last_key, limits[choice.chosen[-1]])


def _candidates(connection: Connection, wanted: Wanted) -> tuple[list[Candidate], str]:
    """Give due tasks to choose from, and the last fair key that was looked at."""
    most = max(_LEAST_WINDOW, wanted.slots * _WINDOW_PER_SLOT)
    given = {"lane": wanted.lane, "now": wanted.now_us}
    try:
        window = connection.execute(_WINDOW, {**given, "floor": wanted.floor_us, "most": most}).all()
    except DBAPIError as error:
        if not is_unreadable(connection.dialect, error):
            raise
        raise DamageError("the key of a task cannot be read") from error
    candidates = [Candidate(row.id, row.fair_key or "", row.limit_key or "") for row in window]
    if not all(isinstance(part, str) for one in candidates for part in one[1:]):
        raise DamageError("the key of a task is no text")
    if len(window) < most:
        return candidates, wanted.last.fair_key
    known = {one.task_id for one in candidates}
    pairs, seen_to = _walked(connection, wanted)
    found = [one for pair in pairs for one in _of_keys(connection, wanted, pair, len(pairs))]
    return candidates + [one for one in found if one.task_id not in known], seen_to


def _walked(connection: Connection, wanted: Wanted) -> tuple[list[tuple[str, str]], str]:
    """Give the keys whose turn it is next and that have room, and the last fair key that was looked at."""
    wish = 1 + wanted.slots + wanted.full_count
    few, many = min(wish, _MOST_LIMIT_KEYS), min(wish, _MOST_LIMIT_KEYS_BLOCKED)
    free, seen_to = _free_keys(connection, wanted, few, wanted.last.limit_key)
    if sum(map(len, free.values())) < wanted.slots and (many > few or wanted.last.limit_key is not None):
        free, seen_to = _free_keys(connection, wanted, many, None)
    share = -(-wanted.slots // max(1, len(free)))
    return [(fair, limited) for fair, some in free.items() for limited in some[:share]], seen_to


def _free_keys(
    connection: Connection, wanted: Wanted, limiteds: int, after: str | None
) -> tuple[dict[str, list[str]], str]:
    """Walk over fair keys, once around at most, until enough of them have a limit key with room."""
    last, free, seen = wanted.last.fair_key, dict[str, list[str]](), set[str]()
    first, is_around, page = last, False, wanted.slots + 1
    statement = _WALK if after is None else _WALK_ON
    for _page in range(_MOST_PAGES):
        given = {"lane": wanted.lane, "first": first, "fairs": page, "limiteds": limiteds, "after": after or ""}
        found: dict[str, list[str]] = {}
        for row in connection.execute(statement, given):
            found.setdefault(row.fair, []).append(row.limited)
        for fair in sorted(found.keys() - seen):
            if some := [limited for limited in found[fair] if wanted.is_free(limited)]:
                free[fair] = some
        seen |= found.keys()
        if len(free.keys() - {last}) >= wanted.slots or (is_around and any(fair >= last for fair in found)):
            break
        if len(found) < page:  # that was the last one
            if is_around or not last:
                break
            first, is_around = "", True
        else:
            first, page = max(found), _PAGE
    return free, max(found, default=last)


def _of_keys(connection: Connection, wanted: Wanted, pair: tuple[str, str], pair_count: int) -> Sequence[Candidate]:
    given = {"lane": wanted.lane, "now": wanted.now_us, "fair": pair[0], "limited": pair[1]}
    most = -(-wanted.slots // max(1, pair_count))
    return [Candidate(task_id, *pair) for task_id in connection.execute(_OF_KEYS, {**given, "most": most}).scalars()]
