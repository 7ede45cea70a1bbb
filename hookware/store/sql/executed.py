"""How many attempts ended in the last minutes: counted by queue and ten seconds, whoever ran them."""

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from sqlalchemy import BigInteger, Connection, bindparam, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from hookware.store.sql.tables import executed_table

SLOT_US: Final = 10_000_000
_MINUTE_US: Final = 60_000_000
_KEPT_US: Final = 86_400_000_000
_PRUNE_LIMIT: Final = 1000

_slots = executed_table.c
_LAST_MINUTE = (
    select(_slots.queue_name, func.sum(_slots.completed_count + _slots.failed_count + _slots.dead_count).label("total"))
    .where(_slots.queue_name.in_(bindparam("names", expanding=True)))
    .where(_slots.slot_us > bindparam("after_us", type_=BigInteger()))
    .group_by(_slots.queue_name)
)


class Ended(NamedTuple):
    """How many attempts ended how; of a pull queue, `completed` counts the leases."""

    completed: int = 0
    failed: int = 0
    dead: int = 0

    def plus(self, other: "Ended") -> "Ended":
        """Give both together."""
        return Ended(self.completed + other.completed, self.failed + other.failed, self.dead + other.dead)


def note(connection: Connection, counts: Mapping[str, Ended], now_us: int) -> None:
    """Add to what is counted of queues."""
    into = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = into(executed_table)
    columns = (_slots.completed_count, _slots.failed_count, _slots.dead_count)
    statement = statement.on_conflict_do_update(
        index_elements=[_slots.queue_name, _slots.slot_us],
        set_={column.name: column + statement.excluded[column.name] for column in columns},
    )
    slot_us = now_us - now_us % SLOT_US
    # In one order everywhere: two that count for the same queues never wait for each other.
    rows = [
        {"queue_name": name, "slot_us": slot_us} | {f"{what}_count": n for what, n in counts[name]._asdict().items()}
        for name in sorted(counts)
    ]
    if rows:
        connection.execute(statement, rows)


def last_minute(connection: Connection, names: Collection[str], now_us: int) -> dict[str, int]:
    """Give how many attempts ended in each queue in the last minute, to the ten seconds."""
    given = {"names": sorted(names), "after_us": now_us - _MINUTE_US}
    return {row.queue_name: int(row.total) for row in connection.execute(_LAST_MINUTE, given)}


def prune(connection: Connection, now_us: int) -> int:
    """Remove some of what is older than a day; how many. Zero: there is no more."""
    old = select(_slots.slot_us).where(_slots.slot_us <= now_us - _KEPT_US).order_by(_slots.slot_us)
    oldest = connection.execute(old.limit(_PRUNE_LIMIT)).scalars().all()
    if not oldest:
        return 0
    return connection.execute(delete(executed_table).where(_slots.slot_us <= oldest[-1])).rowcount
