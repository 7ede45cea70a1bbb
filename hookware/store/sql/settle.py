"""Settling: what a decision does to the row, fenced, many in few statements."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Executable, Row, bindparam, case, delete, func, select, tuple_, update

from hookware.core.lifecycle import CANCELLED, Complete, Die, Release, Retry, State
from hookware.core.retention import NO_RETENTION, Retention
from hookware.core.task import Lease
from hookware.store.base import LATEST_US, Settlement, stored_error
from hookware.store.sql import attempts
from hookware.store.sql.names import drop, named, tombstone, tombstone_name, wish_of
from hookware.store.sql.read import chunks, drops, held, keyed
from hookware.store.sql.rows import MOST_ATTEMPTS
from hookware.store.sql.tables import task_table
from hookware.store.sql.times import Clock

__all__ = ["complete", "refusal", "renew", "settle", "tombstone_name"]

_columns = task_table.c
_ENDED: Mapping[str, None] = {"owner": None, "lease_until_us": None}
_RECORDED: dict[str, object] = {"record_count": func.coalesce(_columns.record_count, 0) + 1}

_under_lease = update(task_table).where(
    _columns.id == bindparam("task_id"), _columns.fence == bindparam("held_fence"), keyed(State.LEASED)
)
_attempted = _under_lease.values(
    crash_count=case(
        (_columns.crash_count < MOST_ATTEMPTS, _columns.crash_count + bindparam("crashed")),
        else_=_columns.crash_count,
    ),
    last_status=func.coalesce(bindparam("status"), _columns.last_status),
    last_error=bindparam("error"),
    record_count=func.coalesce(bindparam("recorded"), _columns.record_count),
    **_ENDED,
)
_RETRY = _attempted.values(state=int(State.PENDING), eta_us=bindparam("due_us"))
_DIE = _attempted.values(state=int(State.DEAD), ended_us=bindparam("died_us"), dead_reason=bindparam("reason"))


def settle(
    connection: Connection,
    settlements: Sequence[Settlement],
    now_us: int,
    tombstone_us: int,
    retention: Retention = NO_RETENTION,
) -> list[bool]:
    """Carry out decisions; which of them were accepted."""
    wanted: dict[Lease, Settlement] = {}
    for settlement in settlements:
        wanted.setdefault(settlement.lease, settlement)
    completes = [one for one in wanted.values() if isinstance(one.decision, Complete)]
    releases: dict[tuple[int, bool], list[Settlement]] = {}
    for one in wanted.values():
        if isinstance(one.decision, Release):
            releases.setdefault((one.decision.delay_us, one.record is not None), []).append(one)
    ends = [one for one in wanted.values() if isinstance(one.decision, Retry | Die)]
    until_us = min(now_us + tombstone_us, LATEST_US)
    done = _complete(connection, completes, lambda _: now_us, tombstone_us, retention)
    for (delay_us, recorded), released in releases.items():
        changes: dict[str, object] = {"eta_us": min(now_us + delay_us, LATEST_US)} if delay_us else {}
        done |= _release(connection, released, changes | (_RECORDED if recorded else {}))
    done |= _end_attempts(connection, ends, now_us, until_us, retention)
    return [_take(done, settlement.lease) for settlement in settlements]


def complete(
    connection: Connection, ended: Settlement, clock: Clock, tombstone_us: int, retention: Retention = NO_RETENTION
) -> bool:
    """End a task in the caller's transaction if the lease still holds; False if it does not: roll back then."""
    return ended.lease in _complete(connection, [ended], clock, tombstone_us, retention)


def refusal(connection: Connection, task_id: int) -> str:
    """Say what has become of a task whose lease does not hold any more."""
    reason = connection.execute(select(_columns.dead_reason).where(_columns.id == task_id)).scalar_one_or_none()
    return "was cancelled" if reason == CANCELLED else "has been given to another attempt"


def renew(connection: Connection, leases: Sequence[Lease], lease_until_us: int) -> frozenset[int]:
    """Prolong leases that are still held; their task ids."""
    until_us = min(lease_until_us, LATEST_US)
    kept: set[int] = set()
    for some in chunks(leases):
        still_held = select(_columns.id).where(*held(some))
        # A handler's own transaction may have removed its row, and be long in committing: the others cannot wait.
        free = connection.execute(still_held.with_for_update(skip_locked=True)).scalars().all()
        connection.execute(update(task_table).where(_columns.id.in_(free)).values(lease_until_us=until_us))
        kept.update(free)
        if len(free) < len(some):
            kept.update(connection.execute(still_held).scalars())  # what is locked can be taken by nobody
    return frozenset(kept)


def _complete(
    connection: Connection, ended: Sequence[Settlement], clock: Clock, tombstone_us: int, retention: Retention
) -> set[Lease]:
    done: set[Lease] = set()
    kept: set[Lease] = set()
    for some in chunks([one.lease for one in ended]):
        rows = _keep(connection, some, clock, retention)
        kept.update(Lease(row.id, row.fence) for row in rows)
        if len(rows) < len(some):
            rows += _remove(connection, some)
        done.update(Lease(task_id, fence) for task_id, fence, _queue_name, _name in rows)
        names = [(task_id, queue_name, name) for task_id, _fence, queue_name, name in rows if name is not None]
        gone = [wish for each in names if (wish := wish_of(*each)) is not None]
        if gone:  # most have no name: the time is not asked for their sake
            now_us = clock(connection)
            tombstone(connection, gone, min(now_us + tombstone_us, LATEST_US), now_us)
    # Most have never failed, and those whose queue keeps nothing leave nothing: they ask the database for nothing here.
    attempts.write(connection, [one.record for one in ended if one.record is not None and one.lease in kept])
    attempts.forget(connection, [one.lease.task_id for one in ended if one.has_history and one.lease in done - kept])
    return done


def _remove(connection: Connection, leases: Sequence[Lease]) -> list[Any]:
    one, several = _removals(connection.dialect.name)
    if len(leases) > 1:
        return list(connection.execute(several, {"ids": [lease.task_id for lease in leases], "leases": leases}))
    given = [{"task_id": lease.task_id, "held_fence": lease.fence} for lease in leases]
    return list(connection.execute(one, given[0]))


@cache
def _removals(dialect_name: str) -> tuple[Executable, Executable]:
    """Give the statements that remove one task and several, made once: to make one takes longer than to run it."""
    returned = _columns.id, _columns.fence, *named(dialect_name)
    one = _columns.id == bindparam("task_id"), _columns.fence == bindparam("held_fence"), keyed(State.LEASED)
    leases = tuple_(_columns.id, _columns.fence).in_(bindparam("leases", expanding=True))
    several = _columns.id.in_(bindparam("ids", expanding=True)), leases, keyed(State.LEASED)
    removal = delete(task_table).returning(*returned)
    return removal.where(*one), removal.where(*several)


def _keep(connection: Connection, leases: Sequence[Lease], clock: Clock, retention: Retention) -> list[Any]:
    """Complete those tasks whose queue keeps them; where no queue does, this asks the database nothing."""
    if not retention.completed_us:
        return []
    now_us = clock(connection)
    statement = update(task_table).where(*held(leases), _columns.queue_name.in_(sorted(retention.completed_us)))
    # Until when, for processes whose settings do not say it: in place of the lease, which has ended.
    ends = {name: min(now_us + kept_us, LATEST_US) for name, kept_us in retention.completed_us.items()}
    until = case(ends, value=_columns.queue_name)
    statement = statement.values(state=int(State.COMPLETED), ended_us=now_us, owner=None, lease_until_us=until)
    returned = _columns.id, _columns.fence, *named(connection.dialect.name)
    return list(connection.execute(statement.returning(*returned)))


def _release(connection: Connection, released: Sequence[Settlement], changes: Mapping[str, object]) -> set[Lease]:
    done: set[Lease] = set()
    unstarted = case((_columns.attempt_count <= 1, None), else_=_columns.first_attempt_us)
    for some in chunks([one.lease for one in released]):
        statement = update(task_table).where(*held(some))
        statement = statement.values(
            state=int(State.PENDING),
            attempt_count=_columns.attempt_count - 1,
            first_attempt_us=unstarted,
            **_ENDED,
            **changes,
        )
        rows = connection.execute(statement.returning(_columns.id, _columns.fence))
        done.update(Lease(row.id, row.fence) for row in rows)
    attempts.write(connection, [one.record for one in released if one.record is not None and one.lease in done])
    return done


def _end_attempts(
    connection: Connection,
    ends: Sequence[Settlement],
    now_us: int,
    tombstone_until_us: int,
    retention: Retention,
) -> set[Lease]:
    found: dict[Lease, Row[Any]] = {}
    # What is only taken back is left alone while its holder's transaction is at it.
    others = all(one.lease_until_us is not None for one in ends)
    for some in chunks(one.lease for one in ends):
        # Many rows with values of their own cannot tell which of them matched: look first, under the lock.
        looked_at = (_columns.id, _columns.fence, _columns.lease_until_us, drops(retention))
        statement = select(*looked_at).where(*held(some))
        statement = statement.with_for_update(skip_locked=others)
        found.update((Lease(row.id, row.fence), row) for row in connection.execute(statement))
    accepted = [
        one for one in ends if one.lease in found and one.lease_until_us in (None, found[one.lease].lease_until_us)
    ]
    dropped = [one.lease for one in accepted if isinstance(one.decision, Die) and found[one.lease].drops]
    kept = [one for one in accepted if one.lease not in dropped]
    retries = [_retry_values(one, one.decision, now_us) for one in kept if isinstance(one.decision, Retry)]
    deaths = [_die_values(one, one.decision, now_us) for one in kept if isinstance(one.decision, Die)]
    if retries:
        connection.execute(_RETRY, retries)
    if deaths:
        connection.execute(_DIE, deaths)
    drop(connection, [lease.task_id for lease in dropped], tombstone_until_us)
    attempts.write(connection, [one.record for one in kept if one.record is not None])
    return {one.lease for one in accepted}


def _retry_values(ended: Settlement, decision: Retry, now_us: int) -> dict[str, object]:
    return _attempt_values(ended, decision) | {"due_us": min(now_us + decision.delay_us, LATEST_US)}


def _die_values(ended: Settlement, decision: Die, now_us: int) -> dict[str, object]:
    return _attempt_values(ended, decision) | {"died_us": now_us, "reason": decision.reason}


def _attempt_values(ended: Settlement, decision: Retry | Die) -> dict[str, object]:
    return {
        "task_id": ended.lease.task_id,
        "held_fence": ended.lease.fence,
        "recorded": None if ended.record is None else ended.record.number,
        "crashed": int(decision.crashed),
        "status": decision.status,
        "error": stored_error(decision.error),
    }


def _take(done: set[Lease], lease: Lease) -> bool:
    """Say whether a settlement was accepted: of two for one lease the first was."""
    if lease not in done:
        return False
    done.remove(lease)
    return True
