"""Tasks to rows and back. A row that does not decode raises ValueError: one bad row must not hold up the others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Final, NamedTuple

from sqlalchemy import Connection, RowMapping, insert
from sqlalchemy.orm.attributes import instance_dict

from hookware.core.lifecycle import State
from hookware.core.queue import lane_of
from hookware.core.retry import MOST_RETRY, RetryOptions
from hookware.core.task import MOST_DEADLINE_US, NO_KEYS, Headers, LeasedTask, NewTask, Progress
from hookware.store.base import LATEST_US, TaskInfo
from hookware.store.sql.tables import TaskRow, task_table
from hookware.store.sql.times import from_now

LEASED_COLUMNS: Final = tuple(
    task_table.c[name]
    for name in (
        "id", "fence", "queue_name", "name", "method", "url", "headers", "body", "eta_us", "attempt_count",
        "crash_count", "first_attempt_us", "last_status", "retry_options", "deadline_us", "lease_until_us", "depth",
        "record_count",
    )
)  # fmt: skip
"""What `to_leased` needs of a row."""

_columns = task_table.c
_INSERT: Final = insert(task_table)

MOST_ATTEMPTS = 2**31 - 1
"""What a count of attempts or crashes can hold."""


class PulledTask(NamedTuple):
    """A task of a pull queue, as a lease gives it; `lease_count` includes the lease."""

    id: int
    name: str | None
    headers: Headers
    body: bytes
    tag: str | None
    eta_us: int
    lease_count: int


def to_row(task: NewTask, now_us: int | None) -> dict[str, object]:
    """Give the column values of a new task; `now_us` is the database's time, None: that of the INSERT."""
    created_us = from_now(0) if now_us is None else now_us
    if task.eta_us is not None:
        eta_us = task.eta_us + task.countdown_us
    else:
        eta_us = from_now(task.countdown_us) if now_us is None else now_us + task.countdown_us
    row = {
        "id": task.id,
        "queue_name": task.queue_name,
        "name": task.name,
        "method": task.method,
        "url": task.url,
        "headers": json.dumps(task.headers),
        "body": task.body,
        "retry_options": None if task.retry is None else json.dumps(asdict(task.retry)),
        "deadline_us": task.deadline_us,
        "created_us": created_us,
        "eta_us": min(eta_us, LATEST_US),
        "state": int(State.PULL if task.is_pull else State.PENDING),
        "fence": 0,
        "attempt_count": 0,
        "crash_count": 0,
        "lane": task.lane,
        "origin": task.lineage.origin,
    }
    return row if is_plain(task) else row | _rare(task)


def is_plain(task: NewTask) -> bool:
    """Say whether a task has none of the rarer columns: most have none, and need not pay for them."""
    return task.keys is NO_KEYS and task.tag is None and task.lineage.parent_id is None


def to_rows(tasks: Sequence[NewTask], now_us: int | None) -> list[dict[str, object]]:
    """Give the column values of several new tasks, of the same columns in each."""
    if all(map(is_plain, tasks)):
        return [to_row(task, now_us) for task in tasks]
    return [to_row(task, now_us) | _rare(task) for task in tasks]


def _rare(task: NewTask) -> dict[str, object]:
    keys = task.keys
    return {
        "tag": task.tag,
        "dedup_key": keys.dedup_key,
        "on_conflict": keys.on_conflict if keys.dedup_key is not None else None,
        "fair_key": (keys.fair_key or "") if keys.are_shared else None,
        "limit_key": (keys.limit_key or "") if keys.are_shared else None,
        "depth": task.lineage.depth or None,
        "parent_id": task.lineage.parent_id,
    }


def to_object(task: NewTask, now_us: int | None) -> TaskRow:
    """Give the same as an object that a Session can hold."""
    row = TaskRow()
    instance_dict(row).update(to_row(task, now_us))  # nobody listens to a new row's attributes
    return row


def insert_objects(connection: Connection, rows: Sequence[TaskRow]) -> None:
    """Insert rows that `to_object` gave, with one statement: a Session's flush takes three times as long for it."""
    given = [instance_dict(row) for row in rows]
    names = {name for values in given for name in values if name in _columns}
    connection.execute(_INSERT, [{name: values.get(name) for name in names} for values in given])


def to_leased(
    row: RowMapping | Mapping[str, object], now_us: int, default_retry: RetryOptions | None = None
) -> LeasedTask:
    """Give the leased task that a row describes; raise ValueError if the row is damaged."""
    try:
        task = LeasedTask(
            id=_int(row["id"]),
            fence=_int(row["fence"]),
            queue_name=_str(row["queue_name"]),
            name=_optional_str(row["name"]),
            method=_str(row["method"]),
            url=_str(row["url"]),
            headers=_headers(row["headers"]),
            body=_bytes(row["body"]),
            eta_us=_int(row["eta_us"]),
            attempt_count=_int(row["attempt_count"]),
            crash_count=_int(row["crash_count"]),
            first_attempt_us=_int(row["first_attempt_us"]),
            claimed_us=now_us,
            last_status=_optional_int(row["last_status"]),
            retry=_retry(row["retry_options"]) or default_retry,
            deadline_us=_int(row["deadline_us"]),
            lease_until_us=_int(row["lease_until_us"]),
            depth=_optional_int(row["depth"]) or 0,
            record_count=_optional_int(row["record_count"]) or 0,
        )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"the stored task cannot be decoded: {error}") from error
    _check(task)
    return task


def _check(task: LeasedTask) -> None:
    """Refuse numbers that no task has: what is decided by them would be nonsense, or an error."""
    if not 0 <= task.crash_count < task.attempt_count:
        raise ValueError(f"{task.crash_count} of {task.attempt_count} attempts cannot have crashed")
    if not 0 <= task.record_count < MOST_ATTEMPTS:
        raise ValueError(f"{task.record_count} attempts cannot have been recorded")
    if not 0 < task.deadline_us <= MOST_DEADLINE_US:
        raise ValueError(f"a deadline of {task.deadline_us} microseconds is none")


def to_pulled(row: RowMapping | Mapping[str, object]) -> PulledTask:
    """Give the pull task that a row describes; raise ValueError if the row is damaged."""
    try:
        return PulledTask(
            id=_int(row["id"]),
            name=_optional_str(row["name"]),
            headers=_headers(row["headers"]),
            body=_bytes(row["body"]),
            tag=_optional_str(row["tag"]),
            eta_us=_int(row["eta_us"]),
            lease_count=_int(row["attempt_count"]),
        )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"the stored task cannot be decoded: {error}") from error


def to_info(row: RowMapping | Mapping[str, object]) -> TaskInfo:
    """Give a stored task as people see it; what does not decode is shown empty."""
    try:
        headers = _headers(row["headers"])
    except (ValueError, TypeError, RecursionError):
        headers = ()
    return TaskInfo(
        id=_shown_int(row["id"]),
        queue_name=_shown(row["queue_name"]) or "",
        name=_shown(row["name"]),
        method=_shown(row["method"]) or "",
        url=_shown(row["url"]) or "",
        headers=headers,
        body=row["body"] if isinstance(row["body"], bytes) else b"",
        state=_shown_state(row["state"]),
        eta_us=_shown_int(row["eta_us"]),
        attempt_count=_shown_int(row["attempt_count"]),
        crash_count=_shown_int(row["crash_count"]),
        last_status=row["last_status"] if isinstance(row["last_status"], int) else None,
        last_error=_shown(row["last_error"]),
        dead_reason=_shown(row["dead_reason"]),
        owner=_shown(row["owner"]),
        priority=lane_of(_shown(row["lane"]) or "").priority,
        tag=_shown(row["tag"]),
        dedup_key=_shown(row["dedup_key"]),
        fair_key=_shown(row["fair_key"]) or None,
        limit_key=_shown(row["limit_key"]) or None,
        depth=_shown_int(row["depth"]),
        progress=_progress(row["progress"]),
        origin=_shown(row["origin"]),
        parent_id=row["parent_id"] if isinstance(row["parent_id"], int) else None,
    )


def shown_retry(row: RowMapping | Mapping[str, object]) -> RetryOptions | None:
    """Give a task's own retry options; None where it has none, or none that can be read."""
    try:
        return _retry(row["retry_options"])
    except (ValueError, TypeError, RecursionError):
        return None


def _shown(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _shown_int(value: object) -> int:
    return value if isinstance(value, int) else 0


def _shown_state(value: object) -> State:
    try:
        return State(_int(value))
    except (ValueError, TypeError):
        return State.DEAD  # a state that is none: nobody will run it


def _progress(value: object) -> Progress | None:
    try:
        done, total, note = json.loads(_str(value))
        return Progress(done, total, _str(note))
    except (ValueError, TypeError, RecursionError):
        return None


def _int(value: object) -> int:
    if isinstance(value, int):
        return value
    raise TypeError(f"expected a whole number, got {type(value).__name__}")


def _optional_int(value: object) -> int | None:
    return None if value is None else _int(value)


def _str(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError(f"expected text, got {type(value).__name__}")


def _optional_str(value: object) -> str | None:
    return None if value is None else _str(value)


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    raise TypeError(f"expected bytes, got {type(value).__name__}")


def _headers(value: object) -> Headers:
    return _headers_in(_str(value))


@lru_cache(256)
def _headers_in(text: str) -> Headers:
    pairs = json.loads(text)
    if not isinstance(pairs, list):
        raise TypeError("expected a list of headers")
    return tuple((_str(name), _str(text)) for name, text in pairs)


def _retry(value: object) -> RetryOptions | None:
    if value is None:
        return None
    fields = json.loads(_str(value))
    if not isinstance(fields, dict):
        raise TypeError("expected an object of retry options")
    for name, each in fields.items():
        if each is not None and not (isinstance(each, int | float) and 0 <= each <= MOST_RETRY):
            raise ValueError(f"the retry option {name[:100]!r} is not a number from 0 to 1e9")
    return RetryOptions(**fields)
