"""Claiming: which tasks are due, whose turn it is, and the lease. A claim locks no more rows than it may take."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from sqlalchemy import BigInteger, Connection, bindparam, func, update

from hookware.core.lifecycle import State
from hookware.core.queue import last_turn, share_slots, turn_order
from hookware.core.retry import RetryOptions
from hookware.core.task import LeasedTask
from hookware.store.base import LATEST_US, Claim, Claimed, stored_error
from hookware.store.sql import dedup, names, queues
from hookware.store.sql.board import Board, Desk, look
from hookware.store.sql.damage import DamageError
from hookware.store.sql.read import Row, chunks, keyed
from hookware.store.sql.rows import MOST_ATTEMPTS, to_leased
from hookware.store.sql.tables import task_table

_columns = task_table.c

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
        ended_us=bindparam("now_us"),
        dead_reason=bindparam("reason"),
        last_error=bindparam("error"),
    )
)


class _Unfit(NamedTuple):
    task_id: int
    reason: str
    error: str


def claim(
    connection: Connection, wish: Claim, now_us: int, desk: Desk, last_queue: str, tombstone_us: int
) -> tuple[Claimed, str]:
    """Lease due tasks; the second answer is to be the next claim's `last_queue`.

    Raises:
        DamageError: a damaged row is in the way; no task has been touched yet.
    """
    board = look(connection, wish.exclude, now_us, desk)
    board.agree(connection, locking=wish.limit > 0)
    due = turn_order(board.due_queues, last_queue)
    if not due or wish.limit < 1:
        return Claimed([], *board.until_next()), last_queue
    rows = _share_out(connection, board, due, wish.limit)
    tasks, cleared = _lease(connection, rows, board, wish, now_us, tombstone_us)
    begun = {task.id for task in tasks}
    # By the lanes that the rows were found in: what a damaged row says of its queue may not fit.
    counts = {name: sum(row["id"] in begun for row in some) for name, some in rows.items()}
    queues.store_buckets(connection, board.begun({name: count for name, count in counts.items() if count}))
    shares = {name: len(some) for name, some in rows.items()}
    until_next = _until_next(connection, wish.exclude, now_us, desk, board)
    return Claimed(tasks, *until_next, cleared), last_turn(due, shares, last_queue)


def next_due(connection: Connection, exclude: frozenset[str], now_us: int, desk: Desk) -> int | None:
    """Microseconds until the next PENDING task of a queue not excluded may begin; None if there is none."""
    return _until_next(connection, exclude, now_us, desk)[0]


def _until_next(
    connection: Connection, exclude: frozenset[str], now_us: int, desk: Desk, earlier: Board | None = None
) -> tuple[int | None, bool]:
    try:
        board = look(connection, exclude, now_us, desk)
    except DamageError:
        return 0, False  # the next claim will bury what is in the way
    if earlier is None:
        board.agree(connection, locking=False)
    else:
        board.carry_over(earlier)
    return board.until_next()


def _share_out(connection: Connection, board: Board, due: Sequence[str], slots: int) -> dict[str, list[Row]]:
    """Lock and read the due rows of each queue's share, as if it were known how many there are."""
    rows: dict[str, list[Row]] = {name: [] for name in due}
    waiting = {name: min(slots, board.may_begin(name)) for name in due}
    while more := {name: n for name, n in share_slots(waiting, slots).items() if n > len(rows[name])}:
        for name, share in more.items():
            rows[name] = board.rows(connection, name, share)
            if len(rows[name]) < share:
                waiting[name] = len(rows[name])  # what it leaves is shared out between the others
    return rows


def _lease(
    connection: Connection, rows: Mapping[str, list[Row]], board: Board, wish: Claim, now_us: int, tombstone_us: int
) -> tuple[list[LeasedTask], bool]:
    """Lease the rows that can run; and say whether others were put aside."""
    if not all(isinstance(row["id"], int) for some in rows.values() for row in some):
        raise DamageError("a task has no key by which it could be leased, or buried")
    until_us = min(now_us + wish.lease_us, LATEST_US)
    fit: list[LeasedTask] = []
    unfit: list[_Unfit] = []
    keys: dict[int, names.Key] = {}
    for name, some in rows.items():
        retry = board.settings(name).retry
        for row in some:
            try:
                fit.append(task := _as_leased(row, until_us, now_us, retry))
            except ValueError as error:
                unfit.append(_Unfit(cast("int", row["id"]), "undecodable", str(error)))
                continue
            if isinstance(row["dedup_key"], str):
                keys[task.id] = (task.queue_name, row["dedup_key"])
    _bury(connection, unfit, now_us)  # first: no other task gives way to one of these
    tasks, beaten, has_dropped = dedup.sort_out(connection, fit, keys, now_us, tombstone_us)
    given = {"by": wish.owner, "until_us": until_us, "now_us": now_us}
    for ids in chunks([task.id for task in tasks]):
        connection.execute(_LEASE, {"ids": ids, **given})
    duplicates = [_Unfit(i, "duplicate", f"the name is held by task {holder}") for i, holder in beaten.items()]
    _bury(connection, duplicates, now_us)
    return tasks, has_dropped or bool(unfit or beaten)


def _bury(connection: Connection, dead: Sequence[_Unfit], now_us: int) -> None:
    if dead:
        errors = [{**one._asdict(), "error": stored_error(one.error), "now_us": now_us} for one in dead]
        connection.execute(_BURY, errors)


def _as_leased(row: Row, until_us: int, now_us: int, retry: RetryOptions) -> LeasedTask:
    """Give the task as it is once `_LEASE` has written; where it has no retry options, with its queue's."""
    fence, attempt_count, first_us = row["fence"], row["attempt_count"], row["first_attempt_us"]
    if not isinstance(fence, int) or not isinstance(attempt_count, int):
        raise ValueError("the fence or the attempt count is not a number")
    if fence >= LATEST_US or attempt_count >= MOST_ATTEMPTS:
        raise ValueError("the fence or the attempt count cannot be raised any more")
    first_us = now_us if first_us is None else first_us
    counted = {"fence": fence + 1, "attempt_count": attempt_count + 1}
    return to_leased({**row, **counted, "first_attempt_us": first_us, "lease_until_us": until_us}, now_us, retry)
