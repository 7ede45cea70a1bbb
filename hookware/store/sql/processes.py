"""The processes with a Hookware: each says that it is alive, every twenty seconds or so, and leaves at a clean stop."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from hookware.core.overview import ALIVE_US, Process
from hookware.store.sql.asking import Context
from hookware.store.sql.tables import process_table
from hookware.store.sql.times import Clock

KEPT_US: Final = 86_400_000_000
"""How long a process is remembered that left without a word."""

MOST_PROCESSES: Final = 500
_processes = process_table.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What a process says of itself; `slowed_seconds`: the queues that it leaves alone, each for how long."""

    owner: str
    host: str
    pid: int
    version: str
    concurrency: int
    dispatches: bool
    running_count: int = 0
    slowed_seconds: Mapping[str, float] = field(default_factory=dict)


def beat(connection: Connection, clock: Clock, own_clock: Callable[[], int], present: Present) -> None:
    """Write down that a process is alive, how it is, and how far its clock is from the database's."""
    before_us, now_us = own_clock(), clock(connection)
    own_us = (before_us + own_clock()) // 2
    values = {
        "owner": present.owner,
        "host": present.host,
        "pid": present.pid,
        "version": present.version,
        "started_us": now_us,
        "seen_us": now_us,
        "concurrency": present.concurrency,
        "running_count": present.running_count,
        "dispatches": int(present.dispatches),
        "clock_offset_us": now_us - own_us,
        "slowed": _write_slowed(present.slowed_seconds, now_us),
    }
    into = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = into(process_table)
    changes = {name: statement.excluded[name] for name in values if name not in ("owner", "started_us")}
    connection.execute(statement.on_conflict_do_update(index_elements=[_processes.owner], set_=changes), values)


def leave(connection: Connection, owner: str) -> None:
    """Forget a process that has stopped in order."""
    connection.execute(delete(process_table).where(_processes.owner == owner))


def known(connection: Connection, context: Context, now_us: int | None = None) -> list[Process]:
    """List the processes, the living ones first, then those that spoke last.

    Alive is who has spoken a short time ago, and is not known to be gone, by the owner.
    """
    now_us = context.begin(connection) if now_us is None else now_us
    rows = connection.execute(select(process_table).order_by(_processes.seen_us.desc()).limit(MOST_PROCESSES))
    found = [_to_process(row, now_us, context.is_gone) for row in rows]
    return sorted(found, key=lambda process: not process.is_alive)


def prune(connection: Connection, now_us: int) -> int:
    """Forget processes that have not been heard of for a day; how many."""
    return connection.execute(delete(process_table).where(_processes.seen_us <= now_us - KEPT_US)).rowcount


def _to_process(row: Any, now_us: int, is_gone: Callable[[str], bool]) -> Process:
    is_silent = abs(now_us - row.seen_us) > ALIVE_US  # a time to come is of a wrong clock
    return Process(
        owner=row.owner,
        host=row.host,
        pid=row.pid,
        version=row.version,
        started_us=row.started_us,
        seen_us=row.seen_us,
        concurrency=row.concurrency,
        running_count=row.running_count,
        dispatches=bool(row.dispatches),
        clock_offset_us=row.clock_offset_us,
        slowed=_slowed(row.slowed),
        gone_us=row.seen_us if is_silent or is_gone(row.owner) else None,
    )


def _write_slowed(seconds: Mapping[str, float], now_us: int) -> str | None:
    until_us = {name: now_us + int(left * 1e6) for name, left in seconds.items()}
    return json.dumps(until_us) if until_us else None


def _slowed(text: str | None) -> tuple[tuple[str, int], ...]:
    try:
        found = json.loads(text) if text else {}
        return tuple((str(name), int(until_us)) for name, until_us in found.items())
    except (ValueError, TypeError, AttributeError):
        return ()
