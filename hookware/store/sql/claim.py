"""Claiming: which tasks are due, whose turn it is, and the lease. A claim locks no more rows than it may take."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from sqlalchemy import BigInteger, Connection, bindparam, func, select, update

from hookware.core.lifecycle import State
from hookware.core.queue import last_turn, share_slots, turn_order
from hookware.core.task import LeasedTask
from hookware.store.base import LATEST_US, Claim, Claimed, stored_error
from hookware.store.sql import names
from hookware.store.sql.damage import DamageError
from hookware.store.sql.outlook import Outlook
from hookware.store.sql.read import PENDING, Row, chunks, keyed, read
from hookware.store.sql.rows import MOST_ATTEMPTS, to_leased
from hookware.store.sql.tables import task_table

_columns = task_table.c

_DUE = (
    select(task_table)
    .where(
        PENDING,
        _columns.queue_name == bindparam("queue"),
        _columns.eta_us >= bindparam("floor", type_=BigInteger()),
        _columns.eta_us <= bindparam("now", type_=BigInteger()),
    )
    .order_by(_columns.eta_us, _columns.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_LEASE = (
    update(task_table)
    .where(_columns.id.in_(bindparam("ids", expanding=True)), keyed(State.PENDING))
    .values(
        state=int(State.LEASED),
        fence=_columns.fence + 1,
        owner=bindparam("by"),
        lease_until_us=bindparam("until_us"),
        attempt_count=_columns.attempt_count + 1,
        first_attempt_us=func.coalesce(_columns.first_attempt_us, bindparam("now_us", type_=BigInteger())),
    )
)
_BURY = (
    update(task_table)
    .where(_columns.id == bindparam("task_id"), keyed(State.PENDING))
    .values(
        state=int(State.DEAD),
        dead_us=bindparam("now_us"),
        dead_reason=bindparam("reason"),
        last_error=bindparam("error"),
    )
)


class _Unfit(NamedTuple):
    task_id: int
    reason: str
    error: str


def claim(connection: Connection, wish: Claim, now_us: int, outlook: Outlook, last_queue: str) -> tuple[Claimed, str]:
    """Lease due tasks; the second answer is to be the next claim's `last_queue`.

    Raises:
        DamageError: a damaged row is in the way; nothing has been written yet.
    """
    etas = _first_etas(connection, wish.exclude, now_us, outlook)
    due = turn_order([name for name, eta_us in etas.items() if eta_us <= now_us], last_queue)
    if not due or wish.limit < 1:
        return Claimed([], _until_first(etas, now_us)), last_queue
    floors = {name: outlook.floor_us(name) for name in due[: wish.limit]}
    rows = _share_out(connection, floors, now_us, wish.limit)
    tasks = _lease(connection, [row for some in rows.values() for row in some], wish, now_us)
    shares = {name: len(some) for name, some in rows.items()}
    return Claimed(tasks, next_due(connection, wish.exclude, now_us, outlook)), last_turn(due, shares, last_queue)


def next_due(connection: Connection, exclude: frozenset[str], now_us: int, outlook: Outlook) -> int | None:
    """Microseconds until the next PENDING task of a queue not excluded is due; None if there is none."""
    try:
        return _until_first(_first_etas(connection, exclude, now_us, outlook), now_us)
    except DamageError:
        return 0  # the next claim will bury what is in the way


def _first_etas(connection: Connection, exclude: frozenset[str], now_us: int, outlook: Outlook) -> dict[str, int]:
    return {name: eta_us for name, eta_us in outlook.look(connection, now_us).items() if name not in exclude}


def _until_first(etas: Mapping[str, int], now_us: int) -> int | None:
    return max(0, min(etas.values()) - now_us) if etas else None


def _share_out(connection: Connection, due: Mapping[str, int], now_us: int, slots: int) -> dict[str, list[Row]]:
    """Lock and read the due rows of each queue's share, from its floor on, as if it were known how many there are."""
    rows: dict[str, list[Row]] = {name: [] for name in due}
    waiting = dict.fromkeys(due, slots)
    while more := {name: n for name, n in share_slots(waiting, slots).items() if n > len(rows[name])}:
        for name, share in more.items():
            rows[name] = read(connection, _DUE, {"queue": name, "floor": due[name], "now": now_us, "most": share})
            if len(rows[name]) < share:
                waiting[name] = len(rows[name])  # what it leaves is shared out between the others
    return rows


def _lease(connection: Connection, rows: Sequence[Row], wish: Claim, now_us: int) -> list[LeasedTask]:
    if not all(isinstance(row["id"], int) for row in rows):
        raise DamageError("a task has no key by which it could be leased, or buried")
    until_us = min(now_us + wish.lease_us, LATEST_US)
    fit: list[LeasedTask] = []
    unfit: list[_Unfit] = []
    for row in rows:
        try:
            fit.append(_as_leased(row, until_us, now_us))
        except ValueError as error:
            unfit.append(_Unfit(cast("int", row["id"]), "undecodable", str(error)))
    tasks, duplicates = _named_apart(connection, fit, now_us)
    given = {"by": wish.owner, "until_us": until_us, "now_us": now_us}
    for some in chunks([task.id for task in tasks]):
        connection.execute(_LEASE, {"ids": some, **given})
    if dead := unfit + duplicates:
        errors = [{**one._asdict(), "error": stored_error(one.error), "now_us": now_us} for one in dead]
        connection.execute(_BURY, errors)
    return tasks


def _as_leased(row: Row, until_us: int, now_us: int) -> LeasedTask:
    """Give the task as it is once `_LEASE` has written."""
    fence, attempt_count, first_us = row["fence"], row["attempt_count"], row["first_attempt_us"]
    if not isinstance(fence, int) or not isinstance(attempt_count, int):
        raise ValueError("the fence or the attempt count is not a number")
    if fence >= LATEST_US or attempt_count >= MOST_ATTEMPTS:
        raise ValueError("the fence or the attempt count cannot be raised any more")
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
