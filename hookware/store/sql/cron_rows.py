"""Cron entries in the database: when each comes due next, and that each time is fired once, whoever is first."""

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from hookware.core.lifecycle import State
from hookware.core.task import NewTask
from hookware.store.sql.read import keyed
from hookware.store.sql.rows import to_rows
from hookware.store.sql.tables import cron_table, task_table
from hookware.store.sql.times import Clock

_crons = cron_table.c
_tasks = task_table.c
_READ: Final = select(_crons.name, _crons.next_us, _crons.last_us, _crons.task_id, _crons.paused).where(
    _crons.name.in_(bindparam("names", expanding=True))
)
_RUNNING: Final = select(_tasks.id).where(
    _tasks.id.in_(bindparam("ids", expanding=True)), or_(keyed(State.PENDING), keyed(State.LEASED))
)


class CronRow(NamedTuple):
    """What is stored of an entry; `next_us` None: it comes due when its run has ended, or never again."""

    name: str
    next_us: int | None
    last_us: int | None
    task_id: int | None
    paused: bool
    is_running: bool = False


class Move(NamedTuple):
    """An entry's way to its next time.

    Attributes:
        seen: what was stored of it when this was decided.
        next_us: its next time.
        fire_us: the time that has come; None: none has.
        task: the task of that time.
        until_us: after this it is too late for it.
    """

    seen: CronRow
    next_us: int | None
    fire_us: int | None = None
    task: NewTask | None = None
    until_us: int = 0


def read(connection: Connection, names: Collection[str]) -> dict[str, CronRow]:
    """Give what is stored of entries, and whether the task of the last time has yet to end."""
    found = [CronRow(*row) for row in connection.execute(_READ, {"names": sorted(names)})]
    ids = [row.task_id for row in found if row.task_id is not None]
    running = set(connection.execute(_RUNNING, {"ids": ids}).scalars()) if ids else set[Any]()
    return {row.name: row._replace(paused=bool(row.paused), is_running=row.task_id in running) for row in found}


def look(connection: Connection, clock: Clock, names: Collection[str]) -> tuple[int, dict[str, CronRow]]:
    """Give the database's time, and what is stored of entries."""
    now_us = clock(connection)
    return now_us, read(connection, names)


def make(connection: Connection, firsts: Mapping[str, tuple[str, int | None]]) -> None:
    """Make the rows of new entries, each with its schedule and its first time; those that are there stay."""
    into = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    rows = [
        {"name": name, "schedule": text, "next_us": next_us, "paused": 0}
        for name, (text, next_us) in sorted(firsts.items())
    ]
    connection.execute(into(cron_table).on_conflict_do_nothing(), rows)


def fire(connection: Connection, clock: Clock, move: Move) -> bool:
    """Go on to an entry's next time, and add the task of the one that has come; False: another was faster.

    Both are one transaction, and the row's time is its fence: of all who saw the same time, one gets it. A process
    that stood still since it looked may come when it is too late for that time: then nothing changes.
    """
    now_us, seen = clock(connection), move.seen
    changes: dict[str, object] = {"next_us": move.next_us}
    if move.task is not None:
        if now_us > move.until_us:
            return False
        changes |= {"last_us": move.fire_us, "task_id": move.task.id}
    unchanged = _crons.next_us.is_(None) if seen.next_us is None else _crons.next_us == seen.next_us
    same_run = _crons.task_id.is_(None) if seen.task_id is None else _crons.task_id == seen.task_id
    statement = update(cron_table).where(_crons.name == seen.name, unchanged, same_run, _crons.paused == 0)
    if connection.execute(statement.values(**changes)).rowcount != 1:
        return False
    if move.task is not None:
        connection.execute(insert(task_table), to_rows([move.task], now_us))
    return True


def set_paused(connection: Connection, name: str, paused: bool) -> None:
    """Let an entry's times pass, or let it go on."""
    connection.execute(update(cron_table).where(_crons.name == name).values(paused=int(paused)))
