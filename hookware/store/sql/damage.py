"""Rows that something else has damaged, so far that they cannot even be named: they must not hold up the others.

SQLite takes anything for anything: a key that is text, a queue's name that is not UTF-8, an ETA that is a blob. Where
a statement stumbles over one, `bury` takes all of them out of the way, and the statement is tried again.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Dialect,
    LargeBinary,
    Row,
    Select,
    bindparam,
    cast,
    delete,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from hookware.core.lifecycle import State
from hookware.store.base import LATEST_US
from hookware.store.sql.tables import name_table, task_table

_columns = task_table.c
_names = name_table.c
_ROWID: Final[ColumnElement[int]] = literal_column("rowid").label("rowid")
_PENDING = _columns.state == literal_column(str(int(State.PENDING)))
_LEASED = _columns.state == literal_column(str(int(State.LEASED)))
_KEYS: Final = (_columns.fair_key, _columns.limit_key, _columns.dedup_key)
LEASE_US: Final = 30_000_000
"""How long a lease without an end still lasts, where it is not known how long leases are: as long as by default."""

_REASON: Final = "undecodable"
_ERROR: Final = "the stored task cannot be decoded: its id, queue, fence or times are not of their type"


class DamageError(Exception):
    """A damaged row is in the way of a statement: `bury`, and try again."""


class Unreadable:
    """Stands for a value that the driver cannot read."""


UNREADABLE: Final = Unreadable()


def is_unreadable(dialect: Dialect, error: DBAPIError) -> bool:
    """Say whether the driver could not read a value: SQLite, and no other database, takes any bytes for text."""
    return dialect.name == "sqlite" and "decode" in str(error.orig)


def fetched(connection: Connection, statement: Select[Any]) -> Sequence[Row[Any]]:
    """Give the rows of a statement; raise DamageError if the driver cannot read a value of them."""
    try:
        return connection.execute(statement).all()
    except DBAPIError as error:
        if not is_unreadable(connection.dialect, error):
            raise
        raise DamageError("a value cannot be read") from error


def raw(column: Column[object]) -> tuple[ColumnElement[object], ColumnElement[object]]:
    """Give what is selected in place of a column where the driver cannot read it: its type, and text as its bytes."""
    value = f"CASE typeof({column.name}) WHEN 'text' THEN CAST({column.name} AS BLOB) ELSE {column.name} END"
    kind: ColumnElement[object] = literal_column(f"typeof({column.name})")
    return kind.label(f"{column.name}_kind"), literal_column(value).label(column.name)


def from_raw(row: Mapping[str, object]) -> dict[str, object]:
    """Give the row that was selected by `raw` columns."""
    return {column.name: _decoded(row[f"{column.name}_kind"], row[column.name]) for column in _columns}


def bury(connection: Connection, now_us: int, lease_us: int = LEASE_US) -> None:
    """Make tasks dead that can neither be claimed nor settled, let leases end that have no end, and drop bad names.

    These end in `lease_us` from now, for their holders may live: those renew them before. A running task whose limit
    key cannot be read counts for no key.
    """
    endless: ColumnElement[bool] = _columns.lease_until_us.is_(None)
    if connection.dialect.name == "sqlite":
        endless = _is_not("integer", _columns.lease_until_us)
        keys = _is_not("integer", _columns.id) | _is_not("integer", _columns.fence)
        _make_dead(connection, _PENDING & (keys | _nowhere(connection)), now_us)
        _make_dead(connection, _LEASED & keys, now_us)
        key = cast(_columns.limit_key, LargeBinary)
        keyless = _LEASED & key.in_(_unreadable(connection, _columns.limit_key, _LEASED))
        connection.execute(update(task_table).where(keyless).values(limit_key=""))
        _give_ids(connection, now_us)
        _drop_names(connection)
    connection.execute(
        update(task_table).where(_LEASED, endless).values(lease_until_us=min(now_us + lease_us, LATEST_US))
    )


def _make_dead(connection: Connection, which: ColumnElement[bool], now_us: int) -> None:
    connection.execute(
        update(task_table)
        .where(which)
        .values(
            state=int(State.DEAD),
            ended_us=now_us,
            dead_reason=_REASON,
            last_error=_ERROR,
            owner=None,
            lease_until_us=None,
        )
    )


def _give_ids(connection: Connection, now_us: int) -> None:
    """Give ids to dead tasks whose ids are no numbers: else nobody could have them deleted."""
    # Below zero, where no other task's is; and one that is there all the same holds up nobody.
    free = literal(-now_us) - literal_column("rowid")
    statement = update(task_table).prefix_with("OR IGNORE").values(id=free)
    dead = _columns.state == literal_column(str(int(State.DEAD)))
    connection.execute(statement.where(dead, _columns.dead_reason == _REASON, _is_not("integer", _columns.id)))


def _drop_names(connection: Connection) -> None:
    """Forget names that cannot be read, or are no task's: they could be neither won nor pruned."""
    times = func.typeof(_names.expires_us).in_(["integer", "null"])
    texts = [_is_not("text", _names.queue_name), _is_not("text", _names.name)]
    connection.execute(delete(name_table).where(or_(*texts, _is_not("integer", _names.task_id), ~times)))
    for column in (_names.queue_name, _names.name):
        values = connection.execute(select(_ROWID, cast(column, LargeBinary).label("value")).select_from(name_table))
        unreadable = [{"row": row.rowid} for row in values if _decoded("text", row.value) is UNREADABLE]
        if unreadable:
            connection.execute(delete(name_table).where(bindparam("row") == _ROWID), unreadable)


def _nowhere(connection: Connection) -> ColumnElement[bool]:
    """Give the condition that a task is in no lane, or has no time or keys, by which it could be found."""
    return or_(
        _is_not("integer", _columns.eta_us),
        _is_not("text", _columns.lane),
        *(_is_not("text", key) & key.is_not(None) for key in _KEYS),
        *(cast(column, LargeBinary).in_(_unreadable(connection, column)) for column in (_columns.lane, *_KEYS)),
    )


def _unreadable(connection: Connection, column: Column[Any], among: ColumnElement[bool] = _PENDING) -> list[object]:
    found = select(cast(column, LargeBinary)).where(among, ~_is_not("text", column)).distinct()
    return [each for each in connection.execute(found).scalars() if _decoded("text", each) is UNREADABLE]


def _is_not(kind: str, column: Column[object]) -> ColumnElement[bool]:
    return func.typeof(column) != literal_column(f"'{kind}'")


def _decoded(kind: object, value: object) -> object:
    if kind != "text" or not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return UNREADABLE
