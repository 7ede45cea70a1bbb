"""Inserting a task already leased, in the one statement that it takes anyway."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Connection, Insert, bindparam, exists, insert, literal_column, select

from hookware.core.lifecycle import State
from hookware.core.task import Birth
from hookware.store.sql.rows import to_leased
from hookware.store.sql.tables import queue_table, task_table
from hookware.store.sql.times import DatabaseTime

_NOW_COLUMNS: Final = ("created_us", "eta_us", "first_attempt_us")
_ONE: Final[ColumnElement[Any]] = literal_column("1")
_is_set = (queue_table.c.paused != literal_column("0")) | queue_table.c.overrides.is_not(None)
_is_open = ~exists().where(queue_table.c.name == bindparam("queue_name"), _is_set)


def insert_leased(connection: Connection, row: Mapping[str, Any], birth: Birth, now_us: int) -> bool:
    """Insert a new task that is due at once, leased as `birth` says, and note it there.

    Args:
        connection: in the transaction that the task is to commit with.
        row: what `to_row` gave.
        birth: to whom, and for how long.
        now_us: the database's time, or what stands for it (`from_now`).

    Returns:
        Whether it is there: not where its queue is paused, or is set at run time otherwise than configured.
    """
    birth.task = None  # what an earlier try has inserted is rolled back
    given = {name: value for name, value in row.items() if name in task_table.c}
    values = given | {"now": now_us, "lease_us": birth.lease_us, "owner": birth.owner, "fence": birth.fence}
    until_us = connection.execute(_statement(frozenset(given)), values).scalar_one_or_none()
    if until_us is None:
        return False
    began_us = until_us - birth.lease_us
    leased = {**_ABSENT, **given, **dict.fromkeys(_NOW_COLUMNS, began_us), "fence": birth.fence, "attempt_count": 1}
    birth.task = to_leased({**leased, "lease_until_us": until_us}, began_us, birth.retry)
    return True


_ABSENT: Final[Mapping[str, None]] = dict.fromkeys(task_table.c.keys())


@lru_cache(16)
def _statement(names: frozenset[str]) -> Insert:
    now = select(bindparam("now", type_=DatabaseTime()).label("us")).subquery("now")
    values: dict[str, Any] = {name: bindparam(name, type_=task_table.c[name].type) for name in sorted(names)}
    values |= dict.fromkeys(_NOW_COLUMNS, now.c.us)
    values |= {"state": literal_column(str(int(State.LEASED))), "attempt_count": _ONE}
    values["owner"] = bindparam("owner", type_=task_table.c.owner.type)
    values["lease_until_us"] = now.c.us + bindparam("lease_us", type_=BigInteger())
    chosen = select(*values.values()).select_from(now).where(_is_open)
    return insert(task_table).from_select(list(values), chosen).returning(task_table.c.lease_until_us)
