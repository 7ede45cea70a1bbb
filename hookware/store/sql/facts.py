"""What is known of one task and of what could hold it back: one short transaction, each part at a bounded cost."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy import BigInteger, Connection, Integer, bindparam, func, select

from hookware.core.allowance import NO_STATE, QueueState, effective
from hookware.core.amounts import NONE, Count, counted
from hookware.core.lifecycle import State
from hookware.core.queue import MAX_PRIORITY, Lane, QueueSettings, lane_of
from hookware.core.rate_limit import full, ready_us
from hookware.core.task_facts import TaskFacts
from hookware.store.base import TaskInfo
from hookware.store.sql import dedup, overview, processes
from hookware.store.sql.asking import Context
from hookware.store.sql.damage import fetched
from hookware.store.sql.overview import NOTHING_RUNS
from hookware.store.sql.queues import SET_COLUMNS, to_state
from hookware.store.sql.read import LEASED, PENDING, Row, read
from hookware.store.sql.rows import shown_retry, to_info
from hookware.store.sql.tables import name_table, queue_table, task_table
from hookware.store.views import TaskDetail

_MOST_AHEAD: Final = 10_000
_BOTH: Final = (False, True)

_tasks, _names, _queues = task_table.c, name_table.c, queue_table.c
_now = bindparam("now_us", type_=BigInteger())
_of_lanes = (PENDING, _tasks.lane.in_(bindparam("lanes", expanding=True)))
_eta = bindparam("eta_us", type_=BigInteger())
_before = (_tasks.eta_us < _eta) | (_tasks.id < bindparam("task_id", type_=BigInteger()))
_most = bindparam("most", type_=Integer())
_ABOVE, _BEFORE = (
    select(func.count()).select_from(select(_tasks.id).where(*_of_lanes, *conditions).limit(_most).subquery())
    for conditions in ((_tasks.eta_us <= _now,), (_tasks.eta_us <= _eta, _before))
)
_OF_KEY = (
    select(_tasks.id)
    .where(LEASED, _tasks.lease_until_us > _now, _tasks.queue_name == bindparam("queue"))
    .where(_tasks.limit_key == bindparam("limited"))
)
_SET = select(*SET_COLUMNS, _queues.paused_us, _queues.paused_by).where(_queues.name == bindparam("queue"))


def detail(connection: Connection, context: Context, task_id: int) -> TaskDetail | None:
    """Give one task in full."""
    now_us = context.begin(connection)
    rows = read(connection, select(task_table).where(_tasks.id == task_id))
    if not rows:
        return None
    row = rows[0]
    own = shown_retry(row)
    info = to_info(row)
    return TaskDetail(
        info=info,
        now_us=now_us,
        created_us=_number(row, "created_us") or 0,
        first_attempt_us=_number(row, "first_attempt_us"),
        ended_us=_number(row, "ended_us"),
        lease_until_us=_number(row, "lease_until_us") if info.state is State.LEASED else None,
        deadline_us=_number(row, "deadline_us") or 0,
        retry=own or _settings(connection, context, info.queue_name)[0].retry,
        has_own_retry=own is not None,
        on_conflict=_text(row, "on_conflict"),
    )


def gather(connection: Connection, context: Context, task_id: int) -> TaskFacts:
    """Gather what is known of one task."""
    now_us = context.begin(connection)
    rows = read(connection, select(task_table).where(_tasks.id == task_id))
    if not rows:
        return _of_name(connection, now_us, task_id)
    row = rows[0]
    info = to_info(row)
    settings, state, since = _settings(connection, context, info.queue_name)
    runs = overview.running(connection, now_us).get(info.queue_name, NOTHING_RUNS)
    holder, until_us = _holder(connection, row, now_us)
    key_ids = _of_key(connection, info.queue_name, info.limit_key, now_us)
    return replace(
        _of_row(row, info),
        now_us=now_us,
        retry=shown_retry(row) or settings.retry,
        name_holder=holder,
        name_until_us=until_us,
        settings=settings,
        paused=state.paused,
        paused_us=since[0],
        paused_by=since[1],
        running=runs.number,
        running_since_us=runs.since_us,
        next_token_us=_next_token_us(settings, state, now_us),
        key_running=len(key_ids),
        key_holder=key_ids[0] if key_ids else None,
        twin_id=_twin(connection, info.queue_name, info.dedup_key, task_id) if info.state is State.PENDING else None,
        ahead=_ahead(connection, row, now_us) if info.state is State.PENDING else NONE,
        processes=processes.known(connection, context, now_us),
    )


def _of_row(row: Row, info: TaskInfo) -> TaskFacts:
    return TaskFacts(
        now_us=0,
        task_id=info.id,
        state=info.state,
        name=info.name,
        queue_name=info.queue_name,
        url=info.url,
        method=info.method,
        created_us=_number(row, "created_us") or 0,
        eta_us=info.eta_us,
        ended_us=_number(row, "ended_us"),
        lease_until_us=_number(row, "lease_until_us"),
        attempt_us=_number(row, "first_attempt_us") if info.attempt_count <= 1 else info.eta_us,
        attempt_count=info.attempt_count,
        crash_count=info.crash_count,
        last_status=info.last_status,
        last_error=info.last_error,
        dead_reason=info.dead_reason,
        owner=info.owner,
        fair_key=info.fair_key,
        limit_key=info.limit_key,
        dedup_key=info.dedup_key,
    )


def _of_name(connection: Connection, now_us: int, task_id: int) -> TaskFacts:
    """Say of a task that is not there what its name's row says."""
    wanted = select(_names.queue_name, _names.name, _names.expires_us).where(_names.task_id == task_id)
    row = next(iter(fetched(connection, wanted.limit(1))), None)
    if row is None:
        return TaskFacts(now_us=now_us, task_id=task_id)
    return TaskFacts(
        now_us=now_us, task_id=task_id, queue_name=row.queue_name, name=row.name, name_until_us=row.expires_us
    )


def _settings(
    connection: Connection, context: Context, queue_name: str
) -> tuple[QueueSettings, QueueState, tuple[int | None, str | None]]:
    row = connection.execute(_SET, {"queue": queue_name}).one_or_none()
    if row is None:
        return context.settings(queue_name), NO_STATE, (None, None)
    state = to_state(row)
    return effective(context.settings(queue_name), state), state, (row.paused_us, row.paused_by)


def _holder(connection: Connection, row: Row, now_us: int) -> tuple[int | None, int | None]:
    """Give the other task that holds a waiting task's name, and until when the name stays taken if that has ended."""
    if not isinstance(row["name"], str) or row["state"] not in (State.PENDING, State.PULL):
        return None, None
    held = select(_names.task_id, _names.expires_us).where(
        _names.queue_name == row["queue_name"], _names.name == row["name"], _names.task_id != row["id"]
    )
    held = held.where(_names.expires_us.is_(None) | (_names.expires_us > now_us))
    found = next(iter(fetched(connection, held)), None)
    return (None, None) if found is None else (found.task_id, found.expires_us)


def _of_key(connection: Connection, queue_name: str, limit_key: str | None, now_us: int) -> list[int]:
    if not limit_key:
        return []
    given = {"queue": queue_name, "limited": limit_key, "now_us": now_us}
    return list(connection.execute(_OF_KEY, given).scalars())


def _twin(connection: Connection, queue_name: str, key: str | None, task_id: int) -> int | None:
    """Give the one that runs of the waiting tasks with a key, if it is another one."""
    kept = None if key is None else dedup.kept(connection, queue_name, key)
    return None if kept == task_id else kept


def _ahead(connection: Connection, row: Row, now_us: int) -> Count:
    """Count the due tasks of its queue that are to begin before a waiting one."""
    lane = lane_of(str(row["lane"]))
    above = [
        str(Lane(lane.queue_name, n, keyed)) for n in range(lane.priority + 1, MAX_PRIORITY + 1) for keyed in _BOTH
    ]
    beside = [str(Lane(lane.queue_name, lane.priority, keyed)) for keyed in _BOTH]
    most = _MOST_AHEAD + 1
    before_us = min(now_us, _number(row, "eta_us") or 0)
    given = {"lanes": beside, "eta_us": before_us, "task_id": row["id"], "most": most}
    count: int = connection.execute(_BEFORE, given).scalar_one()
    if above:
        count += connection.execute(_ABOVE, {"lanes": above, "now_us": now_us, "most": most}).scalar_one()
    return counted(count, _MOST_AHEAD)


def _next_token_us(settings: QueueSettings, state: QueueState, now_us: int) -> int | None:
    if settings.rate is None:
        return 0
    bucket = state.bucket or full(settings.bucket_size, now_us)
    return ready_us(bucket, settings.rate, settings.bucket_size, now_us)


def _number(row: Mapping[str, object], column: str) -> int | None:
    value = row[column]
    return value if isinstance(value, int) else None


def _text(row: Mapping[str, object], column: str) -> str | None:
    value = row[column]
    return value if isinstance(value, str) else None
