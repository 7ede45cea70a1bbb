"""Rows out of the task table, one damaged row never holding up the others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, Select, literal_column, select, tuple_
from sqlalchemy.exc import DBAPIError

from hookware.core.lifecycle import State
from hookware.core.task import Lease, LeasedTask
from hookware.store.sql.rows import to_leased
from hookware.store.sql.tables import task_table

T = TypeVar("T")
Row = Mapping[str, object]

_CHUNK = 500
_columns = task_table.c


def in_state(state: State) -> ColumnElement[bool]:
    """Give the condition for a state, spelled as in the partial indexes: a bound parameter would not fit them."""
    return _columns.state == literal_column(str(int(state)))


PENDING = in_state(State.PENDING)
LEASED = in_state(State.LEASED)
DEAD = in_state(State.DEAD)


def keyed(state: State) -> ColumnElement[bool]:
    """Give the condition that a row which is found by its key or name is in a state.

    It is spelled so that no index of a state fits: PostgreSQL takes that for tiny when the table was empty as it was
    last looked at, and walks over the entries of all tasks that have been in the state since.
    """
    return _columns.state + literal_column("0") == int(state)


def chunks(items: Iterable[T]) -> Iterator[Sequence[T]]:
    """Cut a list into pieces that fit into one statement of any database."""
    everything = list(items)
    for start in range(0, len(everything), _CHUNK):
        yield everything[start : start + _CHUNK]


def held(leases: Sequence[Lease]) -> tuple[ColumnElement[bool], ...]:
    """Give the condition that a row is LEASED under one of `leases`: the fence."""
    # The ids alone find the rows by their key; SQLite would scan for pairs.
    by_key = _columns.id.in_([lease.task_id for lease in leases])
    return by_key, tuple_(_columns.id, _columns.fence).in_(leases), keyed(State.LEASED)


def read(connection: Connection, statement: Select[tuple[object, ...]], given: Row | None = None) -> list[Row]:
    """Give whole rows of the task table; what the driver cannot read of one is None."""
    rows = _all(connection, statement, given)
    if rows is not None:
        return rows
    keys = connection.execute(statement.with_only_columns(_columns.id, _columns.fence), given).all()
    return [row for key in keys for row in _one(connection, key.id, key.fence)]


def _all(connection: Connection, statement: Select[tuple[object, ...]], given: Row | None = None) -> list[Row] | None:
    try:
        return [row._asdict() for row in connection.execute(statement, given)]
    except DBAPIError as error:
        # SQLite takes any bytes for text; the driver raises at the first row that holds them.
        if "decode" not in str(error.orig):
            raise
        return None


def _one(connection: Connection, task_id: int, fence: int) -> list[Row]:
    # The fence makes sure that it is still the row which the first statement chose.
    key = (_columns.id == task_id, _columns.fence == fence)
    whole = _all(connection, select(task_table).where(*key))
    if whole is not None:
        return whole
    row: dict[str, object] = {}
    for column in _columns:
        part = _all(connection, select(column).where(*key))
        row[column.name] = part[0][column.name] if part else None
    return [row]


def leased_or_bare(row: Row, now_us: int) -> LeasedTask | None:
    """Give the leased task of a row; of a damaged one what can be had, so that its lease can be ended at least.

    The row itself stays as it is: the next claim finds it undecodable. None if not even its numbers are there.
    """
    bare = {"queue_name": "", "name": None, "method": "POST", "url": "/", "headers": "[]", "body": b""}
    for known in ({}, {**bare, "retry_options": None, "last_status": None}):
        try:
            return to_leased({**row, **known}, now_us)
        except ValueError:
            continue
    return None
