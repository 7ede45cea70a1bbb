"""The numbers of all queues at a bounded cost: from queue to queue by a loose index scan, no count without an end.

All counts together look at so many index entries at most, however many tasks there are: the more queues, the earlier
each count stops.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Select,
    String,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    select,
)

from hookware.core.allowance import NO_STATE, QueueState, allowance, effective
from hookware.core.amounts import NONE, Count, counted
from hookware.core.overview import Overview, QueueOverview
from hookware.core.queue import lane_of
from hookware.core.statistics import MINUTE_US, Minutes, together
from hookware.store.sql import minutes, processes
from hookware.store.sql.asking import Context
from hookware.store.sql.damage import fetched
from hookware.store.sql.queues import SET_COLUMNS, to_state
from hookware.store.sql.read import COMPLETED, DEAD, LEASED, PENDING, PULL
from hookware.store.sql.tables import queue_table, task_table

MOST_QUEUES: Final = 200
CAP: Final = 10_000
"""Where a count stops at the latest."""

_LEAST_CAP: Final = 100
_MOST_LANES: Final = 202  # of one queue: each of the priorities, with and without keys
_BUDGET: Final = 40_000
"""How many index entries one overview looks at."""

_RATE_MINUTES: Final = 5
_columns = task_table.c
_most = bindparam("most", type_=Integer())
_cap = bindparam("cap", type_=Integer())
_now = bindparam("now_us", type_=BigInteger())
_since = bindparam("since", "", type_=String())


def _walk(column: ColumnElement[str], condition: ColumnElement[bool]) -> Any:
    """Give a walk from each value of an index's first column straight to the next, as the outlook's over lanes."""
    first = select(func.min(column).label("found"), literal(1, Integer).label("step")).where(
        condition, column >= _since
    )
    walk = first.cte("walk", recursive=True)
    later = select(func.min(column)).where(condition, column > walk.c.found).scalar_subquery()
    return walk.union_all(select(later, walk.c.step + 1).where(walk.c.found.is_not(None), walk.c.step < _most))


def _some(walk: Any, *conditions: ColumnElement[bool]) -> ColumnElement[int]:
    """Count, of one value of the walk, the tasks for which these hold, up to one more than the cap."""
    found: Select[Any] = select(literal_column("1").label("one")).select_from(task_table).where(*conditions).limit(_cap)
    return select(func.count()).select_from(found.correlate(walk).subquery()).scalar_subquery()


def _first(walk: Any, column: ColumnElement[int], *conditions: ColumnElement[bool]) -> ColumnElement[int]:
    return select(func.min(column)).where(*conditions).correlate(walk).scalar_subquery()


def _waiting(column: ColumnElement[str], state: ColumnElement[bool]) -> Select[Any]:
    walk = _walk(column, state)
    its, eta_us = column == walk.c.found, _columns.eta_us
    due, later = (state, its, eta_us <= _now), (state, its, eta_us > _now)
    return select(
        walk.c.found,
        _some(walk, *due).label("due"),
        _some(walk, *later).label("later"),
        _first(walk, eta_us, *due).label("oldest_us"),
        _first(walk, eta_us, *later).label("next_us"),
    ).where(walk.c.found.is_not(None))


def _ended(state: ColumnElement[bool]) -> Select[Any]:
    walk = _walk(_columns.queue_name, state)
    number = _some(walk, state, _columns.queue_name == walk.c.found)
    return select(walk.c.found, number.label("number")).where(walk.c.found.is_not(None))


_PENDING, _PULL = _waiting(_columns.lane, PENDING), _waiting(_columns.queue_name, PULL)
_DEAD, _COMPLETED = _ended(DEAD), _ended(COMPLETED)
BEGAN_US: Final = case((_columns.attempt_count <= 1, _columns.first_attempt_us), else_=_columns.eta_us)
"""When the attempt of a leased task began: exactly for the first one, else when it came due."""

_leased = (
    select(_columns.queue_name, BEGAN_US.label("began_us"))
    .where(LEASED, _columns.lease_until_us > _now)
    .limit(_cap)
    .subquery()
)
_RUNNING = select(
    _leased.c.queue_name.label("found"), func.count().label("number"), func.min(_leased.c.began_us).label("since_us")
).group_by(_leased.c.queue_name)
_SET = select(queue_table.c.name, *SET_COLUMNS, queue_table.c.paused_us, queue_table.c.paused_by).limit(_most)


class Running(NamedTuple):
    """How many tasks of a queue run, and since when the one that has run the longest."""

    number: Count = NONE
    since_us: int | None = None


NOTHING_RUNS: Final = Running()


class Seen(NamedTuple):
    """An overview, and since when the longest running task of each queue runs."""

    overview: Overview
    since_us: Mapping[str, int]


@dataclass(slots=True)
class _Draft:
    due: Count = NONE
    scheduled: Count = NONE
    dead: Count = NONE
    completed: Count = NONE
    running: Running = NOTHING_RUNS
    oldest_us: list[int] = field(default_factory=list)
    next_us: list[int] = field(default_factory=list)


def look(connection: Connection, context: Context, now_us: int | None = None, *, only: str | None = None) -> Seen:
    """Look at all queues; or at one alone, wherever it stands among them."""
    now_us = context.begin(connection) if now_us is None else now_us
    settings = _SET if only is None else _SET.where(queue_table.c.name == only)
    states = {row.name: row for row in fetched(connection, settings.params(most=MOST_QUEUES))}
    ended = last_minutes(connection, now_us)
    drafts = {name: _Draft() for name in [*context.configured, *states, *ended]} if only is None else {only: _Draft()}
    cap = _count(connection, drafts, now_us, only or "")
    wanted = sorted(drafts) if only is None else [only]
    queues = [_queue(name, drafts[name], states.get(name), ended, context, now_us) for name in wanted]
    overview = Overview(
        now_us=now_us,
        queues=queues[:MOST_QUEUES],
        more_queues=len(queues) > MOST_QUEUES,
        processes=processes.known(connection, context, now_us),
        last_minutes=together(now_us, ended.values()),
        cap=cap,
    )
    since = {name: draft.running.since_us for name, draft in drafts.items()}
    return Seen(overview, {name: us for name, us in since.items() if us is not None})


def last_minutes(connection: Connection, now_us: int, *, back: int = 0) -> dict[str, Minutes]:
    """Put together the last minutes of each queue; or as many before those from `back` minutes ago on."""
    until_us = now_us - now_us % MINUTE_US + MINUTE_US - back * MINUTE_US
    return minutes.by_queue(connection, until_us - (_RATE_MINUTES + 1) * MINUTE_US, until_us)


def running(connection: Connection, now_us: int, cap: int = CAP) -> dict[str, Running]:
    """Count what runs in each queue, and say since when."""
    rows = fetched(connection, _RUNNING.params(now_us=now_us, cap=cap + 1))
    return {row.found: Running(counted(row.number, cap), row.since_us) for row in rows}


def _count(connection: Connection, drafts: dict[str, _Draft], now_us: int, since: str) -> int:
    """Count what there is of each queue, beginning with `since`; where the counts stopped."""
    walks = [names(connection, *each, since=since) for each in ((_columns.lane, PENDING), (_columns.queue_name, PULL))]
    walks += [names(connection, _columns.queue_name, state, since=since) for state in (DEAD, COMPLETED)]
    pieces = 2 * len(walks[0]) + 2 * len(walks[1]) + len(walks[2]) + len(walks[3])
    cap = max(_LEAST_CAP, min(CAP, _BUDGET // max(1, pieces)))
    given = {"most": MOST_QUEUES, "cap": cap + 1, "now_us": now_us, "since": since}
    for statement, there in ((_PENDING, walks[0]), (_PULL, walks[1])):
        for row in fetched(connection, statement.params(given)) if there else ():
            draft = drafts.setdefault(lane_of(row.found).queue_name if statement is _PENDING else row.found, _Draft())
            draft.due = draft.due.plus(counted(row.due, cap))
            draft.scheduled = draft.scheduled.plus(counted(row.later, cap))
            draft.oldest_us += [] if row.oldest_us is None else [row.oldest_us]
            draft.next_us += [] if row.next_us is None else [row.next_us]
    for row in fetched(connection, _DEAD.params(given)) if walks[2] else ():
        drafts.setdefault(row.found, _Draft()).dead = counted(row.number, cap)
    for row in fetched(connection, _COMPLETED.params(given)) if walks[3] else ():
        drafts.setdefault(row.found, _Draft()).completed = counted(row.number, cap)
    for name, run in running(connection, now_us).items():
        drafts.setdefault(name, _Draft()).running = run
    return cap


def names(
    connection: Connection,
    column: ColumnElement[str],
    condition: ColumnElement[bool],
    most: int = MOST_QUEUES,
    *,
    since: str = "",
) -> list[str]:
    """List the values of an index's first column, from `since` on: of so many queues, or lanes."""
    walk = _walk(column, condition)
    statement = select(walk.c.found).where(walk.c.found.is_not(None))
    return [row.found for row in fetched(connection, statement.params(most=most, since=since))]


def lanes_of(connection: Connection, queue_names: Sequence[str]) -> list[str]:
    """List the lanes of these queues in which something may wait."""
    lanes = list(queue_names)
    for name in queue_names:  # a slash stands between the queue and the rest; "0" comes after it
        others = (_columns.lane >= name + "/") & (_columns.lane < name + "0")
        lanes += names(connection, _columns.lane, PENDING & others, _MOST_LANES)
    return lanes


def _queue(
    name: str, draft: _Draft, row: Any, ended: Mapping[str, Minutes], context: Context, now_us: int
) -> QueueOverview:
    state: QueueState = NO_STATE if row is None else to_state(row)
    settings = effective(context.settings(name), state)
    tokens = None
    if settings.rate is not None:
        free = replace(settings, max_concurrent_requests=None)
        tokens = allowance(free, replace(state, paused=False), 0, now_us).count
    return QueueOverview(
        name=name,
        settings=settings,
        is_configured=name in context.configured,
        overrides=tuple(sorted(state.overrides or ())),
        paused=state.paused,
        paused_us=None if row is None else row.paused_us,
        paused_by=None if row is None else row.paused_by,
        due=draft.due,
        scheduled=draft.scheduled,
        running=draft.running.number,
        dead=draft.dead,
        completed=draft.completed,
        oldest_due_us=min(draft.oldest_us, default=None),
        next_due_us=min(draft.next_us, default=None),
        token_count=tokens,
        last_minutes=ended.get(name, Minutes()),
    )
