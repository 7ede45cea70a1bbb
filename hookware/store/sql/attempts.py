"""What is kept of attempts, in SQL: written in the transaction that settles them, and removed with their task."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Integer, Row, bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from hookware.core.history import AttemptRecord, outcome_of, superseded
from hookware.core.task import Headers
from hookware.store.base import stored_error
from hookware.store.sql.damage import is_unreadable
from hookware.store.sql.read import chunks
from hookware.store.sql.tables import attempt_table

_attempts = attempt_table.c
_AS_THEY_ARE: Final = [
    column.name for column in attempt_table.columns if column.name not in ("error", "response_headers", "response_text")
]
_FORGET_ONE = delete(attempt_table).where(
    _attempts.task_id == bindparam("of_task", type_=BigInteger()), _attempts.number == bindparam("old", type_=Integer())
)
_OF_TASK = (
    select(attempt_table)
    .where(_attempts.task_id == bindparam("of_task", type_=BigInteger()))
    .order_by(_attempts.number)
)


def write(connection: Connection, records: Sequence[AttemptRecord]) -> None:
    """Keep records of attempts; of tasks that have very many already, one in the middle goes for each."""
    if not records:
        return
    into = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    # One that is there already can only be a damaged count's doing, and must not keep the attempt from being settled.
    connection.execute(into(attempt_table).on_conflict_do_nothing(), [_values(record) for record in records])
    olds = ((record.task_id, superseded(record.number)) for record in records)
    too_many = [{"of_task": task_id, "old": old} for task_id, old in olds if old is not None]
    if too_many:
        connection.execute(_FORGET_ONE, too_many)


def forget(connection: Connection, task_ids: Iterable[int]) -> None:
    """Remove what is kept of tasks that are gone."""
    for some in chunks(task_ids):
        connection.execute(delete(attempt_table).where(_attempts.task_id.in_(some)))


def of_task(connection: Connection, task_id: int) -> list[AttemptRecord]:
    """Give what is kept of a task, in order; nothing if something else has made it unreadable."""
    try:
        rows = connection.execute(_OF_TASK, {"of_task": task_id}).all()
    except DBAPIError as error:
        if not is_unreadable(connection.dialect, error):
            raise
        return []
    return [_record(row) for row in rows]


def _values(record: AttemptRecord) -> dict[str, object]:
    values = {name: getattr(record, name) for name in _AS_THEY_ARE}
    values["error"] = None if record.error is None else stored_error(record.error)
    values["response_headers"] = json.dumps(record.response_headers)
    values["response_text"] = stored_error(record.response_text)
    return values


def _record(row: Row[Any]) -> AttemptRecord:
    values = dict(row._mapping) | {"outcome": outcome_of(row.outcome), "response_headers": _headers(row)}
    return AttemptRecord(**values)


def _headers(row: Row[Any]) -> Headers:
    try:
        return tuple((str(name), str(value)) for name, value in json.loads(row.response_headers))
    except (ValueError, TypeError, RecursionError):
        return ()
