"""What people did by hand: written in the transaction in which it was done, kept for three months."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import Connection, delete, insert, select

from hookware.core.audit import KEPT_US, MOST_RESULT, MOST_TARGET, MOST_WHO, AuditEntry
from hookware.store.base import stored_error
from hookware.store.sql.tables import audit_table

if TYPE_CHECKING:
    from hookware.store.sql.operation import Moment

R = TypeVar("R")

_audit = audit_table.c
_PRUNE_LIMIT: Final = 1000


def note(connection: Connection, moment: "Moment", entry: AuditEntry) -> None:
    """Write an entry down, with the database's time."""
    row = {
        "id": entry.id,
        "at_us": moment.now_us,
        "who": stored_error(entry.who)[:MOST_WHO],
        "role": entry.role,
        "action": entry.action,
        "target": stored_error(entry.target)[:MOST_TARGET],
        "result": stored_error(entry.result)[:MOST_RESULT],
        "kept": entry.kept,
    }
    connection.execute(insert(audit_table), [row])


def audited(
    act: Callable[[Connection, "Moment"], R],
    entry: AuditEntry,
    say: Callable[[R], str],
    keep: Callable[[R], bytes | None] = lambda _result: None,
) -> Callable[[Connection, "Moment"], R]:
    """Let an act and its entry, with what `say` and `keep` make of its result, be in one transaction."""

    def both(connection: Connection, moment: "Moment") -> R:
        result = act(connection, moment)
        note(connection, moment, replace(entry, result=say(result), kept=keep(result)))
        return result

    return both


def listed(connection: Connection, _moment: "Moment", before: int | None, limit: int) -> list[AuditEntry]:
    """List entries, the latest first; those before one of them."""
    wanted = select(audit_table).order_by(_audit.id.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(_audit.id < before)
    return [AuditEntry(**row) for row in connection.execute(wanted).mappings()]


def prune(connection: Connection, now_us: int) -> int:
    """Remove some that have been kept long enough; how many."""
    old = select(_audit.id).where(_audit.at_us < now_us - KEPT_US).order_by(_audit.at_us).limit(_PRUNE_LIMIT)
    ids = connection.execute(old).scalars().all()
    if ids:
        connection.execute(delete(audit_table).where(_audit.id.in_(ids)))
    return len(ids)
