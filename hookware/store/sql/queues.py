"""What is set of queues at run time, in rows: read with each look, locked where processes have to agree."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, Connection, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from hookware.core.allowance import NO_STATE, QueueState, allowance
from hookware.core.queue import QueueSettings
from hookware.core.rate_limit import Bucket
from hookware.core.retry import RetryOptions
from hookware.log import log_of
from hookware.store.sql.damage import DamageError, is_unreadable
from hookware.store.sql.read import LEASED
from hookware.store.sql.tables import queue_table, task_table

_queues = queue_table.c
_tasks = task_table.c
SET_COLUMNS: Final = (_queues.paused, _queues.overrides, _queues.tokens, _queues.refilled_us)

_LOCK = (
    select(_queues.name, *SET_COLUMNS)
    .where(_queues.name.in_(bindparam("names", expanding=True)))
    .order_by(_queues.name)
    .with_for_update(skip_locked=True)
)
_RUNNING = (
    select(_tasks.queue_name, _tasks.limit_key, func.count().label("run_count"))
    .where(LEASED, _tasks.lease_until_us > bindparam("now_us", type_=BigInteger()))
    .where(_tasks.queue_name.in_(bindparam("names", expanding=True)))
    .group_by(_tasks.queue_name, _tasks.limit_key)
)
_FILL = update(queue_table).where(_queues.name == bindparam("of_queue"))
_FILL = _FILL.values(
    tokens=bindparam("now_tokens", type_=BigInteger()), refilled_us=bindparam("at_us", type_=BigInteger())
)

_SINCE: Final = ("paused_us", "paused_by")
_MOST_BY: Final = 200
_logger = log_of()


class Running(NamedTuple):
    """How many tasks run in a queue under valid leases, in all processes; and how many of each limit key."""

    total: int = 0
    by_key: Mapping[str, int] = {}


NOTHING_RUNS: Final = Running()
_EMPTY: Final = QueueState(bucket=Bucket(tokens=0, refilled_us=0))


def to_state(row: Any) -> QueueState:
    """Give what a row says of a queue; overrides that cannot be read are left out, with a line in the log."""
    counts = isinstance(row.tokens, int) and isinstance(row.refilled_us, int)
    bucket = Bucket(tokens=row.tokens, refilled_us=row.refilled_us) if counts else None
    return QueueState(paused=bool(row.paused), overrides=decode_overrides(row.overrides), bucket=bucket)


def lock(connection: Connection, names: Collection[str]) -> dict[str, QueueState]:
    """Lock the rows of queues in which processes have to agree; without those that another process has locked."""
    found = _locked(connection, names)
    if connection.dialect.name == "postgresql" and len(found) < len(names):
        there = select(_queues.name).where(_queues.name.in_(names))
        missing = set(names) - set(connection.execute(there).scalars())
        if missing:
            make_rows(connection, missing)
            found = _locked(connection, names)
    elif missing := set(names) - set(found):
        make_rows(connection, missing)
        found |= dict.fromkeys(missing, NO_STATE)
    return found


def make_rows(connection: Connection, names: Collection[str]) -> None:
    """Make the rows of queues that have none."""
    into = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    rows = [{"name": name, "paused": 0} for name in sorted(names)]
    connection.execute(into(queue_table).on_conflict_do_nothing(), rows)


def running(connection: Connection, names: Collection[str], now_us: int) -> dict[str, Running]:
    """Count what runs in queues.

    Raises:
        DamageError: a key cannot be read.
    """
    keys: dict[str, Counter[str]] = {name: Counter() for name in names}
    try:
        rows = connection.execute(_RUNNING, {"names": sorted(names), "now_us": now_us}).all()
    except DBAPIError as error:
        if not is_unreadable(connection.dialect, error):
            raise
        raise DamageError("the key of a running task cannot be read") from error
    for row in rows:
        keys[row.queue_name][row.limit_key or ""] += row.run_count
    return {name: Running(counts.total(), counts) for name, counts in keys.items()}


def store_buckets(connection: Connection, buckets: Mapping[str, Bucket]) -> None:
    """Write buckets down."""
    rows = [{"of_queue": name, "now_tokens": b.tokens, "at_us": b.refilled_us} for name, b in buckets.items()]
    if rows:
        connection.execute(_FILL, rows)


def set_paused(connection: Connection, name: str, paused: bool, now_us: int, by: str | None = None) -> None:
    """Let a queue wait, or go on; of one that waits already, since when and because of whom stays as it is."""
    make_rows(connection, [name])
    changed = update(queue_table).where(_queues.name == name, _queues.paused != int(paused))
    who = None if by is None else by[:_MOST_BY]
    since: dict[str, object] = {"paused_us": now_us, "paused_by": who} if paused else dict.fromkeys(_SINCE)
    connection.execute(changed.values(paused=int(paused), **since))


def set_overrides(connection: Connection, name: str, overrides: Mapping[str, object]) -> None:
    """Put these settings in the place of the configured ones; none: the configured ones are good again."""
    make_rows(connection, [name])
    text = encode_overrides(overrides) if overrides else None
    connection.execute(update(queue_table).where(_queues.name == name).values(overrides=text))


def get_state(connection: Connection, name: str) -> QueueState:
    """Give what is set of one queue."""
    row = connection.execute(select(*SET_COLUMNS).where(_queues.name == name)).one_or_none()
    return NO_STATE if row is None else to_state(row)


def overridden(connection: Connection) -> dict[str, QueueState]:
    """Give the queues that have settings of the run time."""
    rows = connection.execute(select(_queues.name, *SET_COLUMNS).where(_queues.overrides.is_not(None)))
    return {row.name: to_state(row) for row in rows}


def encode_overrides(overrides: Mapping[str, object]) -> str:
    """Write settings down."""
    plain = {name: asdict(value) if isinstance(value, RetryOptions) else value for name, value in overrides.items()}
    return json.dumps(plain)


def decode_overrides(text: str | None) -> Mapping[str, object] | None:
    """Read settings; None where there are none, or none that can be read."""
    if text is None:
        return None
    try:
        fields = json.loads(text)
        retry = fields.get("retry")
        overrides = fields if retry is None else {**fields, "retry": RetryOptions(**retry)}
        allowance(QueueSettings(**overrides), _EMPTY, running_count=0, now_us=0)
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        _logger.warning("the settings of a queue cannot be read, and count for nothing: %.200s", text)
        return None
    return dict(overrides)


def _locked(connection: Connection, names: Collection[str]) -> dict[str, QueueState]:
    return {row.name: to_state(row) for row in connection.execute(_LOCK, {"names": sorted(names)})}
