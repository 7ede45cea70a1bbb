"""Claiming: which tasks are due, whose turn it is, and the lease. A claim locks no more rows than it may take."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from sqlalchemy import BigInteger, ColumnElement, Connection, bindparam, func, select, update

from hookware.core.lifecycle import State
from hookware.core.queue import last_turn, share_slots, turn_order
from hookware.core.task import LeasedTask
from hookware.store.base import LATEST_US, Claim, Claimed, stored_error
from hookware.store.sql import names
from hookware.store.sql.read import PENDING, Row, chunks, read
from hookware.store.sql.rows import to_leased
from hookware.store.sql.tables import task_table

_columns = task_table.c

# A loose index scan: from each queue's name straight to the next one, and to its first ETA. DISTINCT would read
# every waiting task.
_walk = select(func.min(_columns.queue_name).label("name")).where(PENDING).cte("queue", recursive=True)
_later = select(func.min(_columns.queue_name)).where(PENDING, _columns.queue_name > _walk.c.name).scalar_subquery()
_queues = _walk.union_all(select(_later).where(_walk.c.name.is_not(None)))
_first_eta = select(func.min(_columns.eta_us)).where(PENDING, _columns.queue_name == _queues.c.name).scalar_subquery()
_FIRST_ETAS = select(_queues.c.name, _first_eta.label("eta_us")).where(_queues.c.name.is_not(None))

_DUE = (
    select(task_table)
    .where(PENDING, _columns.queue_name == bindparam("queue"), _columns.eta_us <= bindparam("now", type_=BigInteger()))
    .order_by(_columns.eta_us, _columns.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)


class _Unfit(NamedTuple):
    task_id: int
    reason: str
    error: str


def claim(connection: Connection, wish: Claim, now_us: int, last_queue: str) -> tuple[Claimed, str]:
    """Lease due tasks; the second answer is to be the next claim's `last_queue`."""
    etas = _first_etas(connection, wish.exclude)
    due = turn_order([name for name, eta_us in etas.items() if eta_us <= now_us], last_queue)
    if not due or wish.limit < 1:
        return Claimed([], _until_first(etas, now_us)), last_queue
    rows = _share_out(connection, due[: wish.limit], now_us, wish.limit)
    tasks = _lease(connection, [row for some in rows.values() for row in some], wish, now_us)
    shares = {name: len(some) for name, some in rows.items()}
    return Claimed(tasks, next_due(connection, wish.exclude, now_us)), last_turn(due, shares, last_queue)


def next_due(connection: Connection, exclude: frozenset[str], now_us: int) -> int | None:
    """Microseconds until the next PENDING task of a queue not excluded is due; None if there is none."""
    return _until_first(_first_etas(connection, exclude), now_us)


def _first_etas(connection: Connection, exclude: frozenset[str]) -> dict[str, int]:
    rows = connection.execute(_FIRST_ETAS).all()
    return {row.name: row.eta_us for row in rows if row.name not in exclude}


def _until_first(etas: Mapping[str, int], now_us: int) -> int | None:
    return max(0, min(etas.values()) - now_us) if etas else None


def _share_out(connection: Connection, due: Sequence[str], now_us: int, slots: int) -> dict[str, list[Row]]:
    """Lock and read the due rows of each queue's share, as if it were known how many wait in each."""
    rows: dict[str, list[Row]] = {name: [] for name in due}
    waiting = dict.fromkeys(due, slots)
    while more := {name: n for name, n in share_slots(waiting, slots).items() if n > len(rows[name])}:
        for name, share in more.items():
            rows[name] = read(connection, _DUE, {"queue": name, "now": now_us, "most": share})
            if len(rows[name]) < share:
                waiting[name] = len(rows[name])  # what it leaves is shared out between the others
    return rows


def _lease(connection: Connection, rows: Sequence[Row], wish: Claim, now_us: int) -> list[LeasedTask]:
    until_us = min(now_us + wish.lease_us, LATEST_US)
    fit: list[LeasedTask] = []
    unfit: list[_Unfit] = []
    for row in rows:
        try:
            fit.append(_as_leased(row, until_us, now_us))
        except ValueError as error:
            unfit.append(_Unfit(cast("int", row["id"]), "undecodable", str(error)))
    tasks, duplicates = _named_apart(connection, fit, now_us)
    _write_lease(connection, [task.id for task in tasks], wish.owner, until_us, now_us)
    _bury(connection, unfit + duplicates, now_us)
    return tasks


def _among(ids: Sequence[int]) -> ColumnElement[bool]:
    return _columns.id.in_(ids)


def _as_leased(row: Row, until_us: int, now_us: int) -> LeasedTask:
    """Give the task as it is once `_write_lease` has written."""
    fence, attempt_count, first_us = row["fence"], row["attempt_count"], row["first_attempt_us"]
    if not isinstance(fence, int) or not isinstance(attempt_count, int):
        raise ValueError("the fence or the attempt count is not a number")
    first_us = now_us if first_us is None else first_us
    counted = {"fence": fence + 1, "attempt_count": attempt_count + 1}
    return to_leased({**row, **counted, "first_attempt_us": first_us, "lease_until_us": until_us}, now_us)


def _named_apart(
    connection: Connection, tasks: Sequence[LeasedTask], now_us: int
) -> tuple[list[LeasedTask], list[_Unfit]]:
    """Part the tasks that need no name or hold theirs from those whose name is another's."""
    wishes = {task.id: names.Wish(task.queue_name, task.name, task.id) for task in tasks if task.name is not None}
    holders = names.win(connection, list(wishes.values()), now_us) if wishes else {}
    lost = {task_id: holders.get(wish.key) for task_id, wish in wishes.items() if holders.get(wish.key) != task_id}
    duplicates = [
        _Unfit(task_id, "duplicate", f"the name is held by task {holder}") for task_id, holder in lost.items()
    ]
    return [task for task in tasks if task.id not in lost], duplicates


def _write_lease(connection: Connection, ids: Sequence[int], owner: str, until_us: int, now_us: int) -> None:
    for some in chunks(ids):
        statement = update(task_table).where(_among(some), PENDING)
        connection.execute(
            statement.values(
                state=int(State.LEASED),
                fence=_columns.fence + 1,
                owner=owner,
                lease_until_us=until_us,
                attempt_count=_columns.attempt_count + 1,
                first_attempt_us=func.coalesce(_columns.first_attempt_us, now_us),
            )
        )


def _bury(connection: Connection, unfit: Sequence[_Unfit], now_us: int) -> None:
    if not unfit:
        return
    statement = update(task_table).where(_columns.id == bindparam("task_id"), PENDING)
    statement = statement.values(
        state=int(State.DEAD), dead_us=now_us, dead_reason=bindparam("reason"), last_error=bindparam("error")
    )
    connection.execute(statement, [{**one._asdict(), "error": stored_error(one.error)} for one in unfit])
