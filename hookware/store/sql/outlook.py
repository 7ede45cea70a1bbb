"""Where tasks wait: the first ETA of each lane, and from where on to look for it; and what is set of queues.

While a transaction stays open anywhere in a PostgreSQL server, nothing is cleaned up: the index entries of finished
tasks stay where they were, before those of the waiting ones, and a look from the very beginning walks over all of
them. So a store remembers where it found each lane's first task, and looks from there on once that is worth it.
What is due by an ETA from before is found by the next wide look: a release, a past ETA, a slow user's transaction.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, Label, String, bindparam, func, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError

from hookware.core.allowance import QueueState
from hookware.store.base import LATEST_US
from hookware.store.sql.damage import DamageError, is_unreadable
from hookware.store.sql.queues import SET_COLUMNS, to_state
from hookware.store.sql.read import LEASED, PENDING
from hookware.store.sql.tables import queue_table, task_table

EARLIEST_US = -LATEST_US - 1

SLOW_SECONDS: Final = 0.005
"""What a look takes at most while nothing is in its way."""

_PART_OF_TIME = 1 / 50
"""What wide looks may take of the time, once they are slow."""

_MARGIN_US = 5_000_000
"""How long before now a narrow look begins, at most: transactions commit later than they insert."""

_MOST_LANES = 1000
_columns = task_table.c

# A loose index scan: from each lane straight to the next one, and to its first ETA. DISTINCT would read every
# waiting task.
_walk = select(func.min(_columns.lane).label("lane")).where(PENDING).cte("walk", recursive=True)
_later = select(func.min(_columns.lane)).where(PENDING, _columns.lane > _walk.c.lane).scalar_subquery()
_lanes = _walk.union_all(select(_later).where(_walk.c.lane.is_not(None)))
_first_eta = select(func.min(_columns.eta_us)).where(PENDING, _columns.lane == _lanes.c.lane).scalar_subquery()
_pairs = func.unnest(bindparam("lanes", type_=ARRAY(String)), bindparam("floors", type_=ARRAY(BigInteger)))
_known = _pairs.table_valued("lane", "floor_us").render_derived(name="known")
_next_eta = select(func.min(_columns.eta_us)).where(
    PENDING, _columns.lane == _known.c.lane, _columns.eta_us >= _known.c.floor_us
)
LANES: Final = select(_lanes.c.lane, _first_eta.label("eta_us")).where(_lanes.c.lane.is_not(None))
"""The lanes in which tasks wait, each with its first ETA."""

# What is set of queues comes with the same question: most often nothing is.
_nothing: list[Label[Any]] = [literal_column("NULL").label(column.name) for column in SET_COLUMNS]
_set = select(queue_table.c.name, literal_column("NULL"), *SET_COLUMNS)
_wide = LANES.add_columns(*_nothing)
_narrow = select(_known.c.lane, _next_eta.scalar_subquery().label("eta_us"), *_nothing)
# So does how many run in queues with a limit: one that is full then costs nobody a lock.
_null: ColumnElement[Any] = literal_column("NULL")
_running = (
    select(_columns.queue_name, _null, _null, _null, func.count(), _null)
    .where(LEASED, _columns.lease_until_us > bindparam("now_us", type_=BigInteger()))
    .where(_columns.queue_name.in_(bindparam("counted", expanding=True)))
    .group_by(_columns.queue_name)
)
WIDE, WIDE_COUNTED = _wide.union_all(_set), _wide.union_all(_set, _running)
NARROW, NARROW_COUNTED = _narrow.union_all(_set), _narrow.union_all(_set, _running)


class Look(NamedTuple):
    """The first ETA of each lane in which tasks wait, what is set of queues, and how many run where that was asked."""

    etas: Mapping[str, int]
    states: Mapping[str, QueueState]
    running: Mapping[str, int]


class Outlook:
    """What one store knows of where its tasks wait; `monotonic` tells it how long a look takes."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._floors: dict[str, int] = {}
        self._took = deque([0.0], maxlen=3)
        self._looked_at = float("-inf")

    @property
    def is_slow(self) -> bool:
        """Whether wide looks are slow, each of the last ones: one alone may have met a busy machine."""
        return min(self._took) > SLOW_SECONDS

    def look(self, connection: Connection, now_us: int, *, wide: bool = False, counted: Collection[str] = ()) -> Look:
        """Look where tasks wait, and how many run in the queues `counted`.

        Raises:
            DamageError: one of the ETAs is no time, or a lane is no text.
        """
        began, floors = self._monotonic(), self._floors
        counting = {"counted": sorted(counted), "now_us": now_us} if counted else {}
        if wide or connection.dialect.name != "postgresql" or not floors or self._may_be_wide(began):
            rows: Sequence[Any] = _look_wide(connection, counting)
            self._looked_at = self._monotonic()
            self._took.append(self._looked_at - began)
        else:
            given = {"lanes": [*floors], "floors": [*floors.values()], **counting}
            rows = connection.execute(NARROW_COUNTED if counting else NARROW, given).all()
        etas = {row.lane: row.eta_us for row in rows if row.eta_us is not None}
        self._learn(etas, now_us)
        states = {row.lane: to_state(row) for row in rows if row.paused is not None}
        others = [row for row in rows if row.eta_us is None and row.paused is None]
        return Look(etas, states, {row.lane: row.tokens for row in others if row.tokens is not None})

    @property
    def age(self) -> float:
        """How many seconds ago the latest wide look was; infinite: there was none."""
        return self._monotonic() - self._looked_at

    def floor_us(self, lane: str) -> int:
        """Give the ETA before which no task of a lane waited when it was last looked at."""
        return self._floors.get(lane, EARLIEST_US)

    def _may_be_wide(self, now: float) -> bool:
        return not self.is_slow or min(self._took) <= (now - self._looked_at) * _PART_OF_TIME

    def _learn(self, etas: Mapping[str, int], now_us: int) -> None:
        # Lanes that are empty now are kept in mind: to find one anew takes a wide look.
        known = [*self._floors, *etas] if len(self._floors) < _MOST_LANES else etas
        latest_us = now_us - _MARGIN_US
        self._floors = {lane: min(etas.get(lane, LATEST_US), latest_us) for lane in known}


def _look_wide(connection: Connection, counting: Mapping[str, object]) -> Sequence[Any]:
    try:
        rows = connection.execute(WIDE_COUNTED if counting else WIDE, counting).all()
    except DBAPIError as error:
        if not is_unreadable(connection.dialect, error):
            raise
        raise DamageError("a lane, or an ETA, cannot be read") from error
    for row in rows:
        if not isinstance(row.lane, str) or not isinstance(row.eta_us, int | None):
            raise DamageError("a lane is no text, or an ETA is no time")
    return rows
