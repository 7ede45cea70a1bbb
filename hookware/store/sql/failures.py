"""The errors of tasks that failed, by a bounded look: of each queue those that died last, and those to retry next."""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Connection, Integer, Select, String, bindparam, func, select

from hookware.core.amounts import Count, counted
from hookware.core.error_groups import FailedTask, grouped
from hookware.core.overview import Errors
from hookware.store.sql.asking import Context
from hookware.store.sql.damage import fetched
from hookware.store.sql.overview import lanes_of, names
from hookware.store.sql.read import DEAD, PENDING
from hookware.store.sql.tables import task_table

_BUDGET: Final = 2000
_LEAST: Final = 20
_MOST_CRASHED: Final = 1000
_MOST_ERROR: Final = 500

_columns = task_table.c
_most = bindparam("most", type_=Integer())
_its = bindparam("its", type_=String())
_error = func.substr(_columns.last_error, 1, _MOST_ERROR).label("error")
_WHAT: Final = (
    _columns.id, _columns.queue_name, _columns.url, _columns.last_status, _columns.dead_reason, _columns.ended_us,
    _columns.eta_us, _error,
)  # fmt: skip
_DEAD = (
    select(*_WHAT)
    .where(DEAD, _columns.queue_name == _its)
    .order_by(_columns.ended_us.desc(), _columns.id.desc())
    .limit(_most)
)
# So many of those that wait are looked at, whether or not they have an error.
_RETRYING = select(*_WHAT).where(PENDING, _columns.lane == _its).order_by(_columns.eta_us, _columns.id).limit(_most)
_CRASHED = select(func.count()).select_from(
    select(_columns.id).where(DEAD, _columns.dead_reason == "crashes").limit(_MOST_CRASHED + 1).subquery()
)


def of(connection: Connection, context: Context, queue_name: str | None, limit: int) -> Errors:
    """Group them in a transaction of its own."""
    context.begin(connection)  # for PostgreSQL's limits in time
    return look(connection, queue_name, limit)


def look(connection: Connection, queue_name: str | None, limit: int) -> Errors:
    """Group the errors of the tasks that died last and of those that are to be tried again next."""
    if queue_name is None:
        queues, lanes = names(connection, _columns.queue_name, DEAD), names(connection, _columns.lane, PENDING)
    else:
        queues, lanes = [queue_name], lanes_of(connection, [queue_name])
    dead, retrying = _Part(_DEAD, queues), _Part(_RETRYING, lanes)
    tasks = [*dead.tasks(connection), *retrying.tasks(connection)]
    looked_at = dead.looked_at + retrying.looked_at
    return Errors(grouped(tasks, limit), looked_at, more=dead.more or retrying.more)


def crashed(connection: Connection) -> Count:
    """Count the tasks that are dead because of crashes."""
    return counted(connection.execute(_CRASHED).scalar_one(), _MOST_CRASHED)


class _Part:
    """The dead tasks, or the waiting ones: the queues or lanes that have some, and a share of the budget for each."""

    def __init__(self, statement: Select[Any], places: list[str]) -> None:
        self._statement, self._places = statement, places
        self._share = max(_LEAST, _BUDGET // 2 // max(1, len(self._places)))
        self.looked_at = 0
        self.more = False

    def tasks(self, connection: Connection) -> Iterator[FailedTask]:
        for place in self._places:
            rows = fetched(connection, self._statement.params(its=place, most=self._share))
            self.looked_at += len(rows)
            self.more = self.more or len(rows) == self._share
            for row in rows:
                if row.error is not None:
                    yield _failed(row, is_dead=self._statement is _DEAD)


def _failed(row: Any, *, is_dead: bool) -> FailedTask:
    return FailedTask(
        task_id=row.id,
        queue_name=row.queue_name,
        url=row.url,
        is_dead=is_dead,
        error=row.error,
        status=row.last_status,
        reason=row.dead_reason,
        at_us=(row.ended_us if is_dead else row.eta_us) or 0,
    )
