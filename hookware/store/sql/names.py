"""Names of tasks: who holds one, winning it, and its tombstone."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    LargeBinary,
    Row,
    Select,
    String,
    bindparam,
    cast,
    delete,
    func,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import ARRAY

from hookware.core.lifecycle import State
from hookware.store.base import AddResult
from hookware.store.sql import attempts
from hookware.store.sql.damage import DamageError, fetched
from hookware.store.sql.read import chunks, keyed
from hookware.store.sql.tables import name_table, task_table

_names = name_table.c
_tasks = task_table.c

Key = tuple[str, str]
"""A queue's name and a task's name."""


class Wish(NamedTuple):
    """The wish of a task for a name in its queue."""

    queue_name: str
    name: str
    task_id: int

    @property
    def key(self) -> Key:
        """What is unique."""
        return self.queue_name, self.name


def taken(connection: Connection, keys: Iterable[Key], now_us: int) -> dict[Key, AddResult]:
    """Say which names cannot be added, and why; a waiting task takes its name before it has won it."""
    answers: dict[Key, AddResult] = {}
    for queue_name, names in _by_queue(keys).items():
        for name in _living(connection, queue_name, names):
            answers[queue_name, name] = AddResult.NAME_TAKEN
        for name, (_holder, expires_us) in _held(connection, queue_name, names, now_us).items():
            result = AddResult.NAME_TAKEN if expires_us is None else AddResult.NAME_TOMBSTONED
            answers.setdefault((queue_name, name), result)  # a task that waits for a tombstone's end has it first
    return answers


def win(connection: Connection, wishes: Sequence[Wish], now_us: int) -> dict[Key, int]:
    """Give each free name to the first task that wishes for it; whose each name is now, tombstones included."""
    holders: dict[Key, int] = {}
    for queue_name, names in _by_queue(wish.key for wish in wishes).items():
        for name, (task_id, _expires_us) in _held(connection, queue_name, names, now_us).items():
            holders[queue_name, name] = task_id
    free: dict[Key, Wish] = {}
    for wish in wishes:
        if wish.key not in holders:
            free.setdefault(wish.key, wish)
    # In one order everywhere: two that want the same names never wait for each other.
    won = _insert(connection, [free[key] for key in sorted(free)], now_us) if free else {}
    for queue_name, names in _by_queue(key for key in free if key not in won).items():  # another was faster
        for name, (task_id, _expires_us) in _held(connection, queue_name, names, now_us).items():
            holders[queue_name, name] = task_id
    return holders | won


def rows_of(connection: Connection, queue_name: str, names: Sequence[str], most: int) -> Iterator[Row[Any]]:
    """Give id, name, state and dead reason of up to `most` tasks of each name: of one, several may wait."""
    rows = select(_tasks.id, _tasks.name, _tasks.state, _tasks.dead_reason).where(_tasks.queue_name == queue_name)
    return _look_up(connection, rows, _tasks.name, names, most)


def tombstoned(connection: Connection, queue_name: str, names: Sequence[str], now_us: int) -> set[str]:
    """Say which of these names belonged to tasks that are gone, and are not free yet."""
    held = _held(connection, queue_name, names, now_us)
    return {name for name, (_holder, expires_us) in held.items() if expires_us is not None}


def named(dialect_name: str) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Give what a DELETE of tasks is to return for `wish_of`: SQLite gives text as bytes, which may be no text."""
    columns = (_tasks.queue_name, _tasks.name)
    if dialect_name != "sqlite":
        return columns
    queue_name, name = (cast(column, LargeBinary).label(column.name) for column in columns)
    return queue_name, name


def wish_of(task_id: int, given_queue: str | bytes, given_name: str | bytes | None) -> Wish | None:
    """Give the name of a task that was deleted, out of `named` columns; None if it had none that can be read."""
    queue_name, name = _text(given_queue), _text(given_name)
    return None if queue_name is None or name is None else Wish(queue_name, name, task_id)


def _text(value: str | bytes | None) -> str | None:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return None


def tombstone(connection: Connection, wishes: Sequence[Wish], expires_us: int, now_us: int) -> None:
    """Let the names of tasks that are gone stay taken until `expires_us`, unless another task holds them."""
    if not wishes:
        return
    statement = _upsert(connection)
    excluded = statement.excluded
    mine = (_names.task_id == excluded.task_id) | (_names.expires_us <= bindparam("now_us"))
    statement = statement.on_conflict_do_update(
        index_elements=[_names.queue_name, _names.name],
        set_={"task_id": excluded.task_id, "expires_us": excluded.expires_us},
        where=mine,
    )
    rows = [{**wish._asdict(), "expires_us": expires_us, "now_us": now_us} for wish in sorted(wishes)]
    connection.execute(statement, rows)


def drop(connection: Connection, task_ids: Iterable[int], expires_us: int) -> None:
    """Remove tasks that are locked here; the names that they have won, and still hold, stay taken until then."""
    for some in chunks(task_ids):
        connection.execute(delete(task_table).where(_tasks.id.in_(some)))
        attempts.forget(connection, some)
        let_go(connection, some, expires_us)


def let_go(connection: Connection, task_ids: Sequence[int], expires_us: int) -> None:
    """Let the names that tasks have won, and still hold, stay taken until `expires_us`: the tasks are gone."""
    held = update(name_table).where(_names.task_id.in_(task_ids), _names.expires_us.is_(None))
    connection.execute(held.values(expires_us=expires_us))


def tombstone_name(connection: Connection, task_id: int, expires_us: int) -> None:
    """Let the name that a task won, if it has one, stay taken until `expires_us`."""
    connection.execute(update(name_table).where(_names.task_id == task_id).values(expires_us=expires_us))


def _insert(connection: Connection, wishes: Sequence[Wish], now_us: int) -> dict[Key, int]:
    statement, rows = _upsert(connection), [wish._asdict() for wish in wishes]
    if connection.dialect.name == "postgresql":
        # With a condition beside the values SQLAlchemy would send a statement for each row.
        each = func.unnest(*(bindparam(f"{field}s", type_=ARRAY(_names[field].type)) for field in Wish._fields))
        given = each.table_valued(*Wish._fields).render_derived()
        statement = statement.from_select(Wish._fields, select(given))
        rows = [{f"{field}s": [row[field] for row in rows] for field in Wish._fields}]
    # A concurrent transaction may win the name first: then no row comes back for it.
    statement = statement.on_conflict_do_update(
        index_elements=[_names.queue_name, _names.name],
        set_={"task_id": statement.excluded.task_id, "expires_us": None},
        where=_names.expires_us <= now_us,
    )
    won = connection.execute(statement.returning(_names.queue_name, _names.name, _names.task_id), rows)
    return {(row.queue_name, row.name): row.task_id for row in won}


def _living(connection: Connection, queue_name: str, names: Sequence[str]) -> Iterator[str]:
    living = select(_tasks.name).where(_tasks.queue_name == queue_name, ~keyed(State.DEAD), ~keyed(State.COMPLETED))
    return (row.name for row in _look_up(connection, living, _tasks.name, names))


def _held(
    connection: Connection, queue_name: str, names: Sequence[str], now_us: int
) -> dict[str, tuple[int, int | None]]:
    unexpired = _names.expires_us.is_(None) | (_names.expires_us > now_us)
    held = select(_names.name, _names.task_id, _names.expires_us).where(_names.queue_name == queue_name, unexpired)
    rows = list(_look_up(connection, held, _names.name, names))
    if not all(isinstance(row.task_id, int) and isinstance(row.expires_us, int | None) for row in rows):
        raise DamageError("a name's task or end is no number")
    return {row.name: (row.task_id, row.expires_us) for row in rows}


def _look_up(
    connection: Connection, statement: Select[Any], column: Column[Any], names: Sequence[str], most: int = 1
) -> Iterator[Row[Any]]:
    """Give a row for each of the names that have one, or up to `most`."""
    for some in chunks(names):
        if connection.dialect.name == "postgresql":
            # A look for each: for all at once it may walk over every name that the queue has had.
            each = func.unnest(bindparam("some", some, type_=ARRAY(String))).table_valued("name").render_derived()
            look = statement.where(column == each.c.name).limit(most).lateral()
            yield from connection.execute(select(look).select_from(each.join(look, true())))
        else:
            yield from fetched(connection, statement.where(column.in_(some)))


def _by_queue(keys: Iterable[Key]) -> dict[str, list[str]]:
    queues: dict[str, list[str]] = {}
    for queue_name, name in dict.fromkeys(keys):
        queues.setdefault(queue_name, []).append(name)
    return queues


def _upsert(connection: Connection) -> "sqlite.Insert | postgresql.Insert":
    if connection.dialect.name == "sqlite":
        return sqlite.insert(name_table)
    return postgresql.insert(name_table)
