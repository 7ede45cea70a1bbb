"""Where tasks wait: the first ETA of each queue, and from where on to look for it.

While a transaction stays open anywhere in a PostgreSQL server, nothing is cleaned up: the index entries of finished
tasks stay where they were, before those of the waiting ones, and a look from the very beginning walks over all of
them. So a store remembers where it found each queue's first task, and looks from there on once that is worth it.
What is due by an ETA from before is found by the next wide look: a release, a past ETA, a slow user's transaction.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, String, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError

from hookware.store.base import LATEST_US
from hookware.store.sql.damage import DamageError, is_unreadable
from hookware.store.sql.read import PENDING
from hookware.store.sql.tables import task_table

EARLIEST_US = -LATEST_US - 1

_SLOW_SECONDS = 0.005
_PART_OF_TIME = 1 / 50
"""What wide looks may take of the time, once they are slow."""

_MARGIN_US = 5_000_000
"""How long before now a narrow look begins, at most: transactions commit later than they insert."""

_MOST_QUEUES = 1000
_columns = task_table.c

# A loose index scan: from each queue's name straight to the next one, and to its first ETA. DISTINCT would read
# every waiting task.
_walk = select(func.min(_columns.queue_name).label("name")).where(PENDING).cte("queue", recursive=True)
_later = select(func.min(_columns.queue_name)).where(PENDING, _columns.queue_name > _walk.c.name).scalar_subquery()
_queues = _walk.union_all(select(_later).where(_walk.c.name.is_not(None)))
_first_eta = select(func.min(_columns.eta_us)).where(PENDING, _columns.queue_name == _queues.c.name).scalar_subquery()
WIDE = select(_queues.c.name, _first_eta.label("eta_us")).where(_queues.c.name.is_not(None))

_pairs = func.unnest(bindparam("names", type_=ARRAY(String)), bindparam("floors", type_=ARRAY(BigInteger)))
_known = _pairs.table_valued("name", "floor_us").render_derived(name="known")
_next_eta = select(func.min(_columns.eta_us)).where(
    PENDING, _columns.queue_name == _known.c.name, _columns.eta_us >= _known.c.floor_us
)
NARROW = select(_known.c.name, _next_eta.scalar_subquery().label("eta_us"))


class Outlook:
    """What one store knows of where its tasks wait; `monotonic` tells it how long a look takes."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._floors: dict[str, int] = {}
        self._took = deque([0.0], maxlen=3)
        self._looked_at = 0.0

    @property
    def is_slow(self) -> bool:
        """Whether wide looks are slow, each of the last ones: one alone may have met a busy machine."""
        return min(self._took) > _SLOW_SECONDS

    def look(self, connection: Connection, now_us: int, *, wide: bool = False) -> dict[str, int]:
        """Give the first ETA of each queue in which tasks wait.

        Raises:
            DamageError: one of them is no time, or a queue's name is no text.
        """
        began, floors = self._monotonic(), self._floors
        if wide or connection.dialect.name != "postgresql" or not floors or self._may_be_wide(began):
            rows: Sequence[Any] = _look_wide(connection)
            self._looked_at = self._monotonic()
            self._took.append(self._looked_at - began)
        else:
            rows = connection.execute(NARROW, {"names": [*floors], "floors": [*floors.values()]}).all()
        etas = {row.name: row.eta_us for row in rows if row.eta_us is not None}
        self._learn(etas, now_us)
        return etas

    def floor_us(self, queue_name: str) -> int:
        """Give the ETA before which no task of a queue waited when it was last looked at."""
        return self._floors.get(queue_name, EARLIEST_US)

    def _may_be_wide(self, now: float) -> bool:
        return not self.is_slow or min(self._took) <= (now - self._looked_at) * _PART_OF_TIME

    def _learn(self, etas: dict[str, int], now_us: int) -> None:
        # Queues that are empty now are kept in mind: to find one anew takes a wide look.
        known = [*self._floors, *etas] if len(self._floors) < _MOST_QUEUES else etas
        latest_us = now_us - _MARGIN_US
        self._floors = {name: min(etas.get(name, LATEST_US), latest_us) for name in known}


def _look_wide(connection: Connection) -> Sequence[Any]:
    try:
        rows = connection.execute(WIDE).all()
    except DBAPIError as error:
        if not is_unreadable(connection.dialect, error):
            raise
        raise DamageError("the name of a queue, or an ETA, cannot be read") from error
    for row in rows:
        if not isinstance(row.name, str) or not isinstance(row.eta_us, int | None):
            raise DamageError("the name of a queue is no text, or an ETA is no time")
    return rows
