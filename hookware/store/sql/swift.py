"""Claiming and settling in one statement each, on PostgreSQL, where nothing but the order decides what is next.

A claim as `claim` does it asks seven times: begin, time, look, rows, leases, look, commit. Most often all that is due
and may begin lies in one lane of a queue that has no limits, and has no names to win. Then the database can do the same
by itself, with one question, which is a transaction of its own. It sees to it that this is so; where it is not, it
leases nothing, and `claim` has its turn. So it is with the ends of tasks that leave nothing behind.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    String,
    bindparam,
    cast,
    column,
    delete,
    exists,
    func,
    literal_column,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from hookware.core.lifecycle import State
from hookware.core.retention import Retention
from hookware.core.task import Lease, LeasedTask
from hookware.store.base import LATEST_US, Claim, Claimed
from hookware.store.sql.board import Guess
from hookware.store.sql.outlook import LANES, SLOW_SECONDS
from hookware.store.sql.read import LEASED, PENDING, keyed
from hookware.store.sql.rows import LEASED_COLUMNS, MOST_ATTEMPTS, to_leased
from hookware.store.sql.tables import queue_table, task_table
from hookware.store.sql.times import STATEMENT_SECONDS, DatabaseTime

Stamp = Callable[[], int | None]
"""Gives what stands for the database's time in a statement: `from_now(...)`, or a time; None: nothing can."""

_ROW_SECONDS: Final = 0.0002
"""What leasing one row may take in the database before it counts as slow."""

_columns = task_table.c
_big, _text = BigInteger(), String()
_NONE: ColumnElement[Any] = literal_column("0")
_ONE: ColumnElement[Any] = literal_column("1")
# All that is given lies in a row, so that a plan for just these values looks no better than one for any: to plan
# takes longer than to claim.
_given = select(
    bindparam("stamp", type_=DatabaseTime()).label("now_us"),
    cast(bindparam("in_lane"), _text).label("lane"),
    cast(bindparam("of_queue"), _text).label("queue_name"),
    cast(bindparam("most"), _big).label("most"),
    cast(bindparam("by"), _text).label("owner"),
    cast(bindparam("for_us"), _big).label("lease_us"),
).cte("given")
_given = _given.prefix_with("MATERIALIZED")
_now, _lane, _queue, _most, _owner, _lease = (select(column).scalar_subquery() for column in _given.c)
_seen = LANES.cte("seen").prefix_with("MATERIALIZED")
_names_and_limits = bindparam("names", type_=ARRAY(_text)), bindparam("limits", type_=ARRAY(_big))
_limited = func.unnest(*_names_and_limits).table_valued(column("name", _text), column("most", _big))
_limited = _limited.render_derived(name="limited")
_running = (
    select(func.count())
    .where(LEASED, _columns.lease_until_us > _now, _columns.queue_name == _limited.c.name)
    .scalar_subquery()
)
_is_overridden = exists().where(queue_table.c.name == _limited.c.name, queue_table.c.overrides.is_not(None))
_full = select(_limited.c.name).where(_running >= _limited.c.most, ~_is_overridden).cte("full_queue")
_full = _full.prefix_with("MATERIALIZED")
_paused = select(queue_table.c.name).where(queue_table.c.paused != _NONE).cte("paused_queue")


def _lies_in(queue_names: Any) -> ColumnElement[bool]:
    # As `str(Lane(...))` has it: a queue's name has no slash.
    return exists().where(literal_column("split_part(seen.lane, '/', 1)") == queue_names.c.name)


_open = (_seen.c.lane != _lane, ~_lies_in(_paused), ~_lies_in(_full))
_waits = exists().where(_seen.c.lane != _lane, _seen.c.eta_us <= _now, ~_lies_in(_paused), _lies_in(_full))
_is_set = (queue_table.c.paused != _NONE) | queue_table.c.overrides.is_not(None)
_blocked = exists().where(*_open, _seen.c.eta_us <= _now) | exists().where(queue_table.c.name == _queue, _is_set)
_way = select(_blocked.label("is_blocked")).cte("way").prefix_with("MATERIALIZED")
_in_the_way = select(_way.c.is_blocked).scalar_subquery()
_in_lane = (PENDING, _columns.lane == _lane)
_needs_look = (
    _columns.name.is_not(None) | _columns.dedup_key.is_not(None)
    | (_columns.fence >= LATEST_US) | (_columns.attempt_count >= MOST_ATTEMPTS)
)  # fmt: skip
_due = (
    select(_columns.id, _needs_look.label("needs_look"))
    .where(*_in_lane, _columns.eta_us <= _now, ~_in_the_way)
    .order_by(_columns.eta_us, _columns.id)
    .limit(_most)
    .with_for_update(skip_locked=True, of=task_table)
    .cte("due")
    .prefix_with("MATERIALIZED")
)
# An array, because the planner takes a list of unknown length for long, and would read the whole table to join it.
_ids = func.array(select(_due.c.id).scalar_subquery())
_all_plain = select(func.coalesce(func.bool_and(~_due.c.needs_look), true())).scalar_subquery()
_leased = (
    update(task_table)
    .where(_columns.id == func.any(_ids), keyed(State.PENDING), _all_plain)
    .values(
        state=int(State.LEASED),
        fence=_columns.fence + _ONE,
        owner=_owner,
        lease_until_us=func.least(_now, LATEST_US - _lease) + _lease,
        attempt_count=_columns.attempt_count + _ONE,
        first_attempt_us=func.coalesce(_columns.first_attempt_us, _now),
    )
    .returning(*LEASED_COLUMNS)
    .cte("leased")
)
_next = select(func.min(_columns.eta_us)).where(*_in_lane, _columns.id != func.all(_ids)).scalar_subquery()
# A queue that is full now may not be so when its next task is due.
_open_then = (_seen.c.lane != _lane, ~_lies_in(_paused), (_seen.c.eta_us > _now) | ~_lies_in(_full))
_next_of_others = select(func.min(_seen.c.eta_us)).where(*_open_then).scalar_subquery()
_took: Any = literal_column("EXTRACT(EPOCH FROM clock_timestamp() - statement_timestamp())::float8")
CLAIM: Final = (
    select(
        _given.c.now_us,
        _in_the_way.label("is_blocked"),
        _all_plain.label("all_plain"),
        func.least(_next, _next_of_others).label("next_us"),
        _waits.label("waits"),
        _took.label("took"),
        *_leased.c,
    )
    .select_from(_given.outerjoin(_leased, true()))
    .order_by(_leased.c.eta_us, _leased.c.id)
)

_patience: Any = func.set_config("lock_timeout", bindparam("patience", f"{STATEMENT_SECONDS}s"), true())
_wait = select(_patience).cte("wait").prefix_with("MATERIALIZED")
# As texts, which the database takes apart: a driver takes a microsecond for each number of an array.
_their_ids, _their_fences = (cast(bindparam(name, type_=_text), ARRAY(_big)) for name in ("ids", "fences"))
_held = func.unnest(_their_ids, _their_fences).table_valued("id", "fence").render_derived(name="held")
COMPLETE: Final = (
    delete(task_table)
    .where(select(_wait).scalar_subquery().is_not(None))  # asked first: nothing waits longer for another's lock
    .where(_columns.id == func.any(_their_ids))
    .where(tuple_(_columns.id, _columns.fence).in_(select(_held.c.id, _held.c.fence)))
    .where(keyed(State.LEASED), _columns.name.is_(None))
    .where(_columns.queue_name != func.all(bindparam("kept", type_=ARRAY(String))))
    .returning(_columns.id, _columns.fence)
)


class Swift(NamedTuple):
    """What came of a claim in one statement.

    `claimed` is None where nothing is leased, because something was in the way. `unfit` are leased, and cannot run.
    `needs_look`: what there is needs the other way; or the database took long, whatever this process did meanwhile.
    """

    claimed: Claimed | None
    unfit: list[Lease]
    needs_look: bool


def claim(connection: Connection, wish: Claim, guess: Guess, stamp_us: int) -> Swift:
    """Lease due tasks of the lane in which they most likely lie; `stamp_us` stands for the database's time."""
    given = {
        "in_lane": guess.lane, "of_queue": guess.queue_name, "most": wish.limit,
        "by": wish.owner, "for_us": wish.lease_us, "stamp": stamp_us,
        "names": [*guess.limits], "limits": [*guess.limits.values()],
    }  # fmt: skip
    rows = connection.execute(CLAIM, given).all()
    first = rows[0]
    if first.is_blocked or not first.all_plain:
        return Swift(None, [], not first.all_plain)
    tasks: list[LeasedTask] = []
    unfit: list[Lease] = []
    for row in rows if first.id is not None else []:
        try:
            tasks.append(to_leased(row._mapping, first.now_us, guess.retry))
        except ValueError:
            unfit.append(Lease(row.id, row.fence))
    until_next_us = None if first.next_us is None else max(0, first.next_us - first.now_us)
    was_slow = rows[-1].took > SLOW_SECONDS + len(rows) * _ROW_SECONDS
    return Swift(Claimed(tasks, until_next_us, held_back=first.waits), unfit, was_slow or bool(unfit))


def complete(connection: Connection, leases: Sequence[Lease], retention: Retention) -> set[Lease]:
    """Remove tasks that are held under these leases, and leave nothing behind; which those were."""
    ids, fences = (",".join(map(str, numbers)) for numbers in zip(*leases, strict=True))
    given = {"ids": f"{{{ids}}}", "fences": f"{{{fences}}}", "kept": [*retention.completed_us]}
    return {Lease(row.id, row.fence) for row in connection.execute(COMPLETE, given)}
