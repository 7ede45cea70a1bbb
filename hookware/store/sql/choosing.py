"""Filters as SQL: which index leads to the tasks that are meant, and pages of them that each look at so many at most.

The tasks of one state lie in several stretches of an index, one for each lane or queue, in the order of a time and the
id. A page reads some from each, and puts them together as far as all of them have been looked at.
"""

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, func, literal, or_, select, tuple_

from hookware.core.amounts import Count
from hookware.core.filter import Filter, FilterError, Range
from hookware.core.lifecycle import State
from hookware.store.sql.asking import Context
from hookware.store.sql.damage import fetched
from hookware.store.sql.overview import lanes_of, names
from hookware.store.sql.read import COMPLETED, DEAD, LEASED, PENDING, PULL, keyed, read
from hookware.store.sql.rows import to_info
from hookware.store.sql.tables import task_table
from hookware.store.views import Page

_LISTED_VISITS: Final = 5000
"""How many tasks a page of a list looks at."""

_COUNTED_VISITS: Final = 10_000
_LEAST_VISITS: Final = 100
_MOST_COUNTED: Final = 10_000
_MOST_PLACES: Final = 10_000

_PENDING_STATES: Final = frozenset(("due", "scheduled", "waiting", "retrying"))
_STORED: Final = {"running": State.LEASED, "dead": State.DEAD, "completed": State.COMPLETED, "pull": State.PULL}
_PLACE = re.compile(r"(-?\d{1,19})\.(\d{1,19})")
_tasks = task_table.c

Condition = ColumnElement[bool]


class Place(NamedTuple):
    """A place in the order of a list: after it, the next page begins."""

    time_us: int
    task_id: int

    def __str__(self) -> str:
        return f"{self.time_us}.{self.task_id}"


def place_of(text: str) -> Place:
    """Read a place.

    Raises:
        FilterError: it is none.
    """
    found = _PLACE.fullmatch(text)
    if found is None or int(found[2]) >= 2**63 or abs(int(found[1])) >= 2**63:
        raise FilterError(f"{text[:50]!r} is no place in a list: take the after= that a page gave", 0)
    return Place(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of an index: what leads to it, and the column that its entries are ordered by, before the id.

    `is_small`: there are so few that they are sorted here, and the index need not have them in order.
    """

    conditions: tuple[Condition, ...]
    time: ColumnElement[int]
    is_small: bool = False


class Found(NamedTuple):
    """Places of tasks that are meant, in order; and up to where that is all there are; None: to the end."""

    places: list[Place]
    until: Place | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How the tasks of a filter are found: in which stretches, what else has to hold, and in which order."""

    stretches: tuple[Stretch, ...]
    rest: tuple[Condition, ...]
    descending: bool

    def page(self, connection: Connection, after: Place | None, limit: int, visits: int) -> Found:
        """Find up to `limit` after a place, looking at `visits` tasks or so."""
        share = max(limit + 1, visits // max(1, len(self.stretches)))
        parts = [self._part(connection, stretch, after, limit, share) for stretch in self.stretches]
        sign = -1 if self.descending else 1
        ends = [part.until for part in parts if part.until is not None]
        until = min(ends, key=lambda end: (sign * end[0], sign * end[1]), default=None)
        merged = heapq.merge(*(part.places for part in parts), reverse=self.descending)
        places = [place for place in merged if until is None or self._is_within(place, until)]
        if len(places) > limit:
            return Found(places[:limit], places[limit - 1])
        return Found(places, until)

    def count(self, connection: Connection, most: int, visits: int) -> Count:
        """Count, stretch by stretch, up to `most`, looking at `visits` tasks or so."""
        total, left, more = 0, visits, False
        share = max(_LEAST_VISITS, visits // max(1, len(self.stretches)))
        for stretch in self.stretches:
            if total > most or left <= 0:
                return Count(min(total, most), more=True)
            statement, until = select(_tasks.id).where(*stretch.conditions), None
            if self.rest and not stretch.is_small:
                until = self._nth(connection, stretch, statement, share)
                bound = () if until is None else (_compared(stretch, ">=" if self.descending else "<=", until),)
                statement = statement.where(*bound)
            some = statement.where(*self.rest).limit(most + 1 - total).subquery()
            found: int = connection.execute(select(func.count()).select_from(some)).scalar_one()
            total, more = total + found, more or until is not None
            left -= share if self.rest else found
        return Count(min(total, most), more=more or total > most)

    def _is_within(self, place: Place, until: Place) -> bool:
        return place >= until if self.descending else place <= until

    def _part(self, connection: Connection, stretch: Stretch, after: Place | None, limit: int, share: int) -> Found:
        if stretch.is_small:
            return self._small_part(connection, stretch, after, limit)
        conditions = stretch.conditions if after is None else (*stretch.conditions, self._past(stretch, after))
        statement, until = select(stretch.time.label("time_us"), _tasks.id).where(*conditions), None
        if self.rest:
            until = self._nth(connection, stretch, statement, share)
            if until is not None:
                statement = statement.where(_compared(stretch, ">=" if self.descending else "<=", until))
        ordered = statement.where(*self.rest).order_by(*self._ordered(stretch))
        places = _places(connection, ordered.limit(limit + 1))
        if len(places) > limit:
            return Found(places, places[-1])
        return Found(places, until)

    def _small_part(self, connection: Connection, stretch: Stretch, after: Place | None, limit: int) -> Found:
        every = select(stretch.time.label("time_us"), _tasks.id).where(*stretch.conditions, *self.rest)
        places = sorted(_places(connection, every.limit(_MOST_COUNTED)), reverse=self.descending)
        past = [each for each in places if after is None or (each < after if self.descending else each > after)]
        return Found(past[:limit], past[limit - 1] if len(past) > limit else None)

    def _nth(self, connection: Connection, stretch: Stretch, statement: Select[Any], n: int) -> Place | None:
        """Find the last one of the `n` that may be looked at; None: there are fewer."""
        columns = statement.with_only_columns(stretch.time.label("time_us"), _tasks.id)
        one = columns.order_by(*self._ordered(stretch)).offset(n - 1).limit(1)
        return next(iter(_places(connection, one)), None)

    def _ordered(self, stretch: Stretch) -> tuple[ColumnElement[Any], ...]:
        columns = (stretch.time,) if stretch.time is _tasks.id else (stretch.time, _tasks.id)
        return tuple(column.desc() if self.descending else column.asc() for column in columns)

    def _past(self, stretch: Stretch, after: Place) -> Condition:
        return _compared(stretch, "<" if self.descending else ">", after)


def _compared(stretch: Stretch, sign: str, place: Place) -> Condition:
    """Compare with a place: as one row, or the index would not lead to it."""
    time, task_id = literal(place.time_us, BigInteger()), literal(place.task_id, BigInteger())
    if stretch.time is _tasks.id:
        return _tasks.id.op(sign, is_comparison=True)(task_id)
    return tuple_(stretch.time, _tasks.id).op(sign, is_comparison=True)(tuple_(time, task_id))


def _places(connection: Connection, statement: Any) -> list[Place]:
    return [Place(row.time_us, row.id) for row in fetched(connection, statement)]


def plan(connection: Connection, chosen: Filter, now_us: int, *, oldest_first: bool = False) -> Plan:
    """Say how the tasks of a filter are found; `oldest_first`, or in the order in which people read them."""
    if chosen.states == ("dead",) and chosen.reasons and not (chosen.ids or chosen.names or chosen.queue_names):
        stretches = tuple(Stretch((DEAD, _tasks.dead_reason == reason), _tasks.ended_us) for reason in chosen.reasons)
        return Plan(stretches, _rest(replace(chosen, reasons=()), now_us), not oldest_first)
    rest = _rest(chosen, now_us)
    if chosen.ids:
        by_id = Stretch((_tasks.id.in_(chosen.ids),), _tasks.id, is_small=True)
        return Plan(
            (by_id,), (*_of_queues(chosen), *_of_names(chosen), *_of_states(chosen, now_us), *rest), not oldest_first
        )
    if chosen.names:
        queue_names = chosen.queue_names or _every(connection, _tasks.queue_name, _tasks.name.is_not(None))
        conditions = (_tasks.queue_name.in_(queue_names), _tasks.name.in_(chosen.names), _tasks.name.is_not(None))
        return Plan(
            (Stretch(conditions, _tasks.id, is_small=True),), (*_of_states(chosen, now_us), *rest), not oldest_first
        )
    states = {*chosen.states}
    if states and states <= _PENDING_STATES:
        return Plan(_lanes(connection, chosen, now_us), (*_retrying(chosen, now_us), *rest), False)
    if len(states) == 1:
        (state,) = states
        descending = state in ("dead", "completed") and not oldest_first
        return Plan(_of_state(connection, chosen, _STORED[state]), (*_beside(chosen, state), *rest), descending)
    return Plan((Stretch((), _tasks.id),), (*_of_queues(chosen), *_of_states(chosen, now_us), *rest), not oldest_first)


def listed(connection: Connection, context: Context, chosen: Filter, after: Place | None, limit: int) -> Page:
    """Give a page of the tasks of a filter."""
    now_us = context.begin(connection)
    found = plan(connection, chosen, now_us).page(connection, after, limit, _LISTED_VISITS)
    order = {place.task_id: n for n, place in enumerate(found.places)}
    rows = read(connection, select(task_table).where(_tasks.id.in_(order))) if order else []
    infos = sorted(map(to_info, rows), key=lambda info: order.get(info.id, 0))
    return Page(infos, None if found.until is None else str(found.until))


def count(connection: Connection, context: Context, chosen: Filter) -> Count:
    """Count the tasks of a filter, among as many as it may look at."""
    now_us = context.begin(connection)
    return plan(connection, chosen, now_us).count(connection, _MOST_COUNTED, _COUNTED_VISITS)


def conditions_of(chosen: Filter, now_us: int) -> tuple[Condition, ...]:
    """Give all that has to hold for a task which is found by its id."""
    ids = (_tasks.id.in_(chosen.ids),) if chosen.ids else ()
    return (*ids, *_of_queues(chosen), *_of_names(chosen), *_of_states(chosen, now_us), *_rest(chosen, now_us))


# Stretches.


def _lanes(connection: Connection, chosen: Filter, now_us: int) -> tuple[Stretch, ...]:
    wanted = (
        lanes_of(connection, chosen.queue_names) if chosen.queue_names else _every(connection, _tasks.lane, PENDING)
    )
    eta_us, now = _tasks.eta_us, literal(now_us, BigInteger())
    bounds: dict[tuple[str, ...], tuple[Condition, ...]] = {("due",): (eta_us <= now,), ("scheduled",): (eta_us > now,)}
    when = bounds.get(chosen.states, ())
    return tuple(Stretch((PENDING, _tasks.lane == lane, *when), eta_us) for lane in wanted)


def _of_state(connection: Connection, chosen: Filter, state: State) -> tuple[Stretch, ...]:
    condition = {State.LEASED: LEASED, State.DEAD: DEAD, State.COMPLETED: COMPLETED, State.PULL: PULL}[state]
    if state is State.LEASED:
        return (Stretch((condition,), _tasks.lease_until_us),)
    time = _tasks.eta_us if state is State.PULL else _tasks.ended_us
    queue_names = chosen.queue_names or _every(connection, _tasks.queue_name, condition)
    return tuple(Stretch((condition, _tasks.queue_name == name), time) for name in queue_names)


def _every(connection: Connection, column: ColumnElement[str], condition: Condition) -> list[str]:
    """List the queues, or lanes, that there are. To leave some out would be to forget their tasks."""
    found = names(connection, column, condition, _MOST_PLACES + 1)
    if len(found) > _MOST_PLACES:
        raise FilterError(f"the tasks lie in more than {_MOST_PLACES} queues: say which are meant, as queue:NAME", 0)
    return found


def _beside(chosen: Filter, state: str) -> tuple[Condition, ...]:
    """Give what the stretches of a state do not see to: the running ones of all queues lie in one."""
    return _of_queues(chosen) if state == "running" else ()


# Conditions.


def _of_queues(chosen: Filter) -> tuple[Condition, ...]:
    return (_tasks.queue_name.in_(chosen.queue_names),) if chosen.queue_names else ()


def _of_names(chosen: Filter) -> tuple[Condition, ...]:
    return (_tasks.name.in_(chosen.names),) if chosen.names else ()


def _of_states(chosen: Filter, now_us: int) -> tuple[Condition, ...]:
    if not chosen.states:
        return ()
    stored = [keyed(_STORED[state]) for state in chosen.states if state in _STORED]
    pending = [keyed(State.PENDING) & each for each in _pending(chosen, now_us)]
    return (or_(*stored, *pending),)


def _pending(chosen: Filter, now_us: int) -> list[Condition]:
    now = literal(now_us, BigInteger())
    meant: dict[str, Condition] = {
        "due": _tasks.eta_us <= now,
        "scheduled": _tasks.eta_us > now,
        "waiting": _tasks.attempt_count >= 0,
        "retrying": _tasks.attempt_count > 0,
    }
    return [meant[state] for state in chosen.states if state in meant]


def _retrying(chosen: Filter, now_us: int) -> tuple[Condition, ...]:
    plain = (("due",), ("scheduled",))
    return () if chosen.states in plain or "waiting" in chosen.states else (or_(*_pending(chosen, now_us)),)


def _rest(chosen: Filter, now_us: int) -> tuple[Condition, ...]:
    given: list[Condition] = []
    for column, values in (
        (_tasks.dead_reason, chosen.reasons), (_tasks.dedup_key, chosen.keys), (_tasks.fair_key, chosen.fair_keys),
        (_tasks.limit_key, chosen.limit_keys), (_tasks.tag, chosen.tags),
    ):  # fmt: skip
        given += [column.in_(values)] if values else []
    given += [or_(*map(_has_url, chosen.urls))] if chosen.urls else []
    given += [_says(text) for text in chosen.errors if text]
    given += [_has_status(chosen.statuses)] if chosen.statuses else []
    given += [*_within(_tasks.attempt_count, chosen.attempts), *_within(_tasks.crash_count, chosen.crashes)]
    when = func.coalesce(_tasks.ended_us, _tasks.created_us)
    given += [] if chosen.older_us is None else [when <= literal(now_us - chosen.older_us, BigInteger())]
    given += [] if chosen.newer_us is None else [when > literal(now_us - chosen.newer_us, BigInteger())]
    return tuple(given)


def _says(text: str) -> Condition:
    # Both in lower case by the database: SQLite knows the letters of ASCII only, and Python all of them.
    error, part = func.lower(_tasks.last_error), func.lower(literal(text))
    return func.replace(error, part, "") != error


def _has_url(url: str) -> Condition:
    if url.endswith("*"):
        return _begins(url[:-1])
    return _tasks.url == url if "?" in url else (_tasks.url == url) | _begins(url + "?")


def _begins(text: str) -> Condition:
    return func.substr(_tasks.url, 1, len(text)) == text


def _has_status(statuses: Sequence[int]) -> Condition:
    some = _tasks.last_status.in_([status for status in statuses if status])
    # 0 stands for none; a task that was never tried has none either, and is not meant.
    return some if 0 not in statuses else some | (_tasks.last_status.is_(None) & _tasks.last_error.is_not(None))


def _within(column: ColumnElement[int], bounds: Range | None) -> list[Condition]:
    if bounds is None:
        return []
    least = [] if bounds.least is None else [column >= literal(bounds.least, BigInteger())]
    return least + ([] if bounds.most is None else [column <= literal(bounds.most, BigInteger())])
