"""What ended in each minute, by queue: added to by every process, read for plots and percentiles, kept for a week."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Label,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from hookware.core.statistics import FIELDS, MAXIMA, MINUTE_US, Minutes, Sums, to_minutes
from hookware.store.sql.asking import Context
from hookware.store.sql.read import chunks
from hookware.store.sql.tables import minute_table
from hookware.store.sql.times import Clock

KEPT_US: Final = 7 * 86_400_000_000
"""How long a minute is kept."""

ALL_QUEUES: Final = ""
"""What stands for all queues together, in place of a queue's name."""

MOST_MINUTES: Final = KEPT_US // MINUTE_US
_PRUNE_LIMIT: Final = 1000
_minutes = minute_table.c
_SUMMED: Final[list[Label[Any]]] = [
    (func.max if name in MAXIMA else func.sum)(_minutes[name]).label(name) for name in FIELDS
]
_after = _minutes.minute_us >= bindparam("after_us", type_=BigInteger())
_until = _minutes.minute_us < bindparam("until_us", type_=BigInteger())
_BY_QUEUE = (
    select(_minutes.queue_name, *_SUMMED)
    .where(_after, _until, _minutes.queue_name != ALL_QUEUES)
    .group_by(_minutes.queue_name)
)

Gathered = Mapping[tuple[str, int], Sums]
"""The numbers by queue and the beginning of the minute."""


def add(connection: Connection, clock: Clock, gathered: Gathered) -> None:
    """Add to what is stored."""
    clock(connection)  # for PostgreSQL's limits in time: the minutes are known already
    into = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = into(minute_table)
    changes = {name: _together(name, statement.excluded[name]) for name in FIELDS}
    statement = statement.on_conflict_do_update(index_elements=[_minutes.queue_name, _minutes.minute_us], set_=changes)
    # In one order everywhere: two that add to the same rows never wait for each other.
    rows = [
        {
            "queue_name": name,
            "minute_us": minute_us,
            **dict(zip(FIELDS, gathered[name, minute_us].numbers, strict=True)),
        }
        for name, minute_us in sorted(gathered)
    ]
    for some in chunks(rows):
        connection.execute(statement, list(some))


def _together(name: str, added: Any) -> Any:
    column = _minutes[name]
    return case((column > added, column), else_=added) if name in MAXIMA else column + added


def by_queue(connection: Connection, after_us: int, until_us: int) -> dict[str, Minutes]:
    """Put together, for each queue, the minutes that begin from `after_us` on and before `until_us`."""
    rows = connection.execute(_BY_QUEUE, {"after_us": after_us, "until_us": until_us})
    return {row.queue_name: _to_minutes(after_us, row[1:]) for row in rows}


def series(connection: Connection, queue_name: str, until_us: int, step_us: int, count: int) -> list[Minutes]:
    """Put each `step_us` together of the `count` that end at `until_us`, of a queue or of `ALL_QUEUES`."""
    after_us = until_us - count * step_us
    # Of whole numbers: a whole number. SQLAlchemy would make another type of it.
    step: ColumnElement[int] = literal_column(f"(minute_us - {int(after_us)}) / {int(step_us)}")
    statement = select(step.label("n"), *_SUMMED).where(_minutes.queue_name == queue_name, _after, _until)
    rows = connection.execute(statement.group_by(step), {"after_us": after_us, "until_us": until_us})
    found = {int(row.n): row[1:] for row in rows}
    begins = [after_us + n * step_us for n in range(count)]
    return [_to_minutes(begin, found[n]) if n in found else Minutes(begin_us=begin) for n, begin in enumerate(begins)]


def last(connection: Connection, context: Context, queue_name: str, step: int, count: int) -> list[Minutes]:
    """Put each `step` minutes together of the last `count` times as many, with the one that has begun."""
    now_us = context.begin(connection)
    until_us = now_us - now_us % MINUTE_US + MINUTE_US
    return series(connection, queue_name, until_us, step * MINUTE_US, count)


def latest_us(connection: Connection) -> int | None:
    """Give the beginning of the latest minute that there is."""
    found: int | None = connection.execute(select(func.max(_minutes.minute_us))).scalar_one()
    return found


def prune(connection: Connection, now_us: int) -> int:
    """Remove some of what is older than a week; how many rows. Zero: there is no more."""
    old = select(_minutes.minute_us).where(_minutes.minute_us <= now_us - KEPT_US).order_by(_minutes.minute_us)
    oldest = connection.execute(old.limit(_PRUNE_LIMIT)).scalars().all()
    if not oldest:
        return 0
    return connection.execute(delete(minute_table).where(_minutes.minute_us <= oldest[-1])).rowcount


def _to_minutes(begin_us: int, numbers: Any) -> Minutes:
    return to_minutes(begin_us, [int(number) for number in numbers])
