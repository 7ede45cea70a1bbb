"""Of waiting tasks with one dedup key, one runs: which, is decided when the first of them is claimed.

So adding takes no lock, and can neither wait for another's transaction nor break one's own commit.
"""

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, delete, false, func, select

from hookware.core.dedup import Waiting, survivor
from hookware.core.lifecycle import State
from hookware.core.task import NewTask
from hookware.store.base import LATEST_US
from hookware.store.sql import names
from hookware.store.sql.read import PENDING, Row, chunks, keyed
from hookware.store.sql.tables import task_table

_MOST_AT_ONCE: Final = 1000
"""Of how many waiting tasks with one key one claim finds the one that runs: who adds them may be quick for hours."""

_columns = task_table.c
_WAITING = (
    # Compared by the database, which minds no text that is none.
    select(_columns.id, func.coalesce(_columns.on_conflict == "replace", false()).label("replaces"))
    .where(PENDING, _columns.queue_name == bindparam("queue"), _columns.dedup_key == bindparam("dedup"))
    .order_by(_columns.created_us, _columns.id)
)
_DROP = (
    delete(task_table)
    .where(_columns.id.in_(bindparam("ids", expanding=True)), keyed(State.PENDING))
    .returning(_columns.id, _columns.queue_name, _columns.name)
)


def raises(connection: Connection, task: NewTask) -> bool:
    """Say whether a task may not be added, because one with its key waits and it wants to be told."""
    if task.keys.dedup_key is None or task.keys.on_conflict != "raise":
        return False
    return is_waiting(connection, task.queue_name, task.keys.dedup_key)


def is_waiting(connection: Connection, queue_name: str, dedup_key: str) -> bool:
    """Say whether a task with this key waits, as far as the transaction can see."""
    given = {"queue": queue_name, "dedup": dedup_key}
    return connection.execute(_WAITING.limit(1), given).first() is not None


def settle_keys(connection: Connection, rows: Sequence[Row], now_us: int, tombstone_us: int) -> tuple[list[Row], bool]:
    """Remove, of each key among these rows, all waiting tasks but one; give the rows that may run, and if some went.

    Of a key with very many, only so many are removed, and none runs yet: the next claim goes on with the one that won
    among them.
    """
    gone: set[object] = set()
    has_dropped = False
    keyed_rows = [row for row in rows if isinstance(row["dedup_key"], str) and isinstance(row["queue_name"], str)]
    for queue_name, key in dict.fromkeys((row["queue_name"], row["dedup_key"]) for row in keyed_rows):
        found = connection.execute(_WAITING.limit(_MOST_AT_ONCE), {"queue": queue_name, "dedup": key}).all()
        waiting = [Waiting(row.id, "replace" if row.replaces else "skip") for row in found]
        if not waiting:
            continue
        kept = survivor(waiting)
        dropped = [one.task_id for one in waiting if one.task_id != kept]
        drop(connection, dropped, now_us, tombstone_us)
        has_dropped |= bool(dropped)
        gone.update(dropped)
        if len(found) == _MOST_AT_ONCE:
            gone.update(row["id"] for row in keyed_rows if (row["queue_name"], row["dedup_key"]) == (queue_name, key))
    return [row for row in rows if row["id"] not in gone], has_dropped


def drop(connection: Connection, task_ids: Collection[int], now_us: int, tombstone_us: int) -> None:
    """Remove waiting tasks; the names they had won stay taken for a while."""
    for some in chunks(task_ids):
        rows = connection.execute(_DROP, {"ids": list(some)}).all()
        named = [names.Wish(row.queue_name, row.name, row.id) for row in rows if row.name is not None]
        names.tombstone(connection, named, min(now_us + tombstone_us, LATEST_US), now_us)
