"""Rows out of the task table, one damaged row never holding up the others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import Boolean, ColumnElement, Connection, Label, Select, literal_column, tuple_
from sqlalchemy.exc import DBAPIError

from hookware.core.lifecycle import State
from hookware.core.retention import Retention
from hookware.core.task import DEFAULT_DEADLINE_US, Lease, LeasedTask
from hookware.store.sql.damage import DamageError, from_raw, is_unreadable, raw
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
COMPLETED = in_state(State.COMPLETED)
PULL = in_state(State.PULL)


def keyed(state: State) -> ColumnElement[bool]:
    """Give the condition that a row which is found by its key or name is in a state.

    It is spelled so that no index of a state fits: PostgreSQL takes that for tiny when the table was empty as it was
    last looked at, and walks over the entries of all tasks that have been in the state since.
    """
    return _columns.state + literal_column("0") == int(state)


def drops(retention: Retention) -> Label[bool]:
    """Give the column that says whether a row's queue removes what is dead: not every name can be read out of a row."""
    names = retention.dropping
    condition = _columns.queue_name.in_(names) if names else literal_column("NULL", Boolean())
    return condition.label("drops")


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
    """Give whole rows of the task table; what the driver cannot read of one is `UNREADABLE`."""
    try:
        return [row._asdict() for row in connection.execute(statement, given)]
    except DBAPIError as error:
        if not is_unreadable(connection.dialect, error):
            raise
    pieces = [piece for column in _columns for piece in raw(column)]
    rows = connection.execute(statement.with_only_columns(*pieces).select_from(task_table), given)
    return [from_raw(row._asdict()) for row in rows]


def leased_or_bare(row: Row, now_us: int) -> LeasedTask:
    """Give the leased task of a row; of a damaged one what can be had, so that its lease can be ended at least.

    The row itself stays as it is: the next claim finds it undecodable.

    Raises:
        DamageError: not even its key and its fence are there.
    """
    owner = row["owner"] if isinstance(row["owner"], str) else None
    try:
        return replace(to_leased(row, now_us), owner=owner)
    except ValueError:
        if not isinstance(row["id"], int) or not isinstance(row["fence"], int):
            raise DamageError("a leased task has no key, or no fence") from None
    lease_until_us = row["lease_until_us"]
    return LeasedTask(
        id=row["id"],
        fence=row["fence"],
        queue_name="",
        name=None,
        method="POST",
        url="/",
        headers=(),
        body=b"",
        eta_us=now_us,
        attempt_count=1,
        crash_count=0,
        first_attempt_us=now_us,
        claimed_us=now_us,
        last_status=None,
        retry=None,
        deadline_us=DEFAULT_DEADLINE_US,
        lease_until_us=lease_until_us if isinstance(lease_until_us, int) else 0,
        owner=owner,
    )
