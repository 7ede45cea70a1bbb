"""Deleting a task by hand so that it can be brought back for a while: its row stays with the entry of the audit."""

import base64
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Connection, insert, select, update

from hookware.core.lifecycle import State
from hookware.store.sql import statements
from hookware.store.sql.damage import UNREADABLE
from hookware.store.sql.read import Row, read
from hookware.store.sql.tables import audit_table, name_table, task_table

if TYPE_CHECKING:
    from hookware.store.sql.operation import Moment

UNDO_US: Final = 3_600_000_000
"""How long what was deleted can be brought back; the next pruning after that forgets its payload."""

_audit = audit_table.c
_names = name_table.c


class Deleted(NamedTuple):
    """Whether a task was deleted, and what is kept to bring it back; None: its row could not be read."""

    done: bool
    kept: bytes | None = None


def delete(connection: Connection, moment: "Moment", task_id: int, tombstone_us: int) -> Deleted:
    """Remove a task that is not running."""
    rows = read(connection, select(task_table).where(task_table.c.id == task_id).with_for_update())
    if not rows or not statements.remove(connection, task_id, moment.now_us, tombstone_us):
        return Deleted(done=False)
    return Deleted(done=True, kept=None if UNREADABLE in rows[0].values() else _packed(rows[0]))


def restore(connection: Connection, moment: "Moment", entry_id: int) -> int | None:
    """Bring a task back, once, as it was; its id, or None if it is too late for that.

    If another task has taken its name or its key by now, the two are told apart when they are claimed.
    """
    mine = _audit.id == entry_id
    fresh = select(_audit.kept).where(mine, _audit.kept.is_not(None), _audit.at_us > moment.now_us - UNDO_US)
    kept = connection.execute(fresh.with_for_update()).scalar_one_or_none()
    if kept is None:
        return None
    connection.execute(update(audit_table).where(mine).values(kept=None))
    row = _unpacked(kept)
    connection.execute(insert(task_table), [{**row, "record_count": None}])  # its attempts were forgotten
    if row["name"] is not None and row["state"] != State.COMPLETED:
        held = update(name_table).where(_names.queue_name == row["queue_name"], _names.name == row["name"])
        connection.execute(held.where(_names.task_id == row["id"]).values(expires_us=None))
    return int(row["id"])


def forget(connection: Connection, now_us: int) -> None:
    """Keep nothing of what was deleted longer than it can be brought back."""
    old = update(audit_table).where(_audit.kept.is_not(None), _audit.at_us <= now_us - UNDO_US)
    connection.execute(old.values(kept=None))


def _packed(row: Row) -> bytes:
    def plain(value: object) -> object:
        return [base64.b64encode(value).decode()] if isinstance(value, bytes) else value

    return json.dumps({name: plain(value) for name, value in row.items()}).encode()


def _unpacked(kept: bytes) -> dict[str, Any]:
    row = json.loads(kept)
    return {name: base64.b64decode(value[0]) if isinstance(value, list) else value for name, value in row.items()}
