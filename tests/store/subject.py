"""A store under test, with its clock and what stands outside of its protocol."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from anyio import to_thread

from hookware.core.history import AttemptOutcome, AttemptRecord
from hookware.core.lifecycle import Decision
from hookware.core.queue import QueueSettings
from hookware.core.retry import RetryOptions
from hookware.core.task import (
    DEFAULT_DEADLINE_US,
    NO_KEYS,
    NO_LINEAGE,
    Headers,
    Keys,
    Lease,
    LeasedTask,
    Lineage,
    NewTask,
)
from hookware.store.base import Claim, Claimed, Inspector, Settlement, Store, TaskInfo

START_US = 1_700_000_000_000_000
TOMBSTONE_US = 60_000_000
LEASE_US = 30_000_000
SECOND_US = 1_000_000

QUEUES = {
    settings.name: settings
    for settings in (
        QueueSettings(name="two-at-once", max_concurrent_requests=2),
        QueueSettings(name="one-a-second", rate=1.0, bucket_size=3),
        QueueSettings(name="stopped", rate=0.0),
        QueueSettings(name="both", rate=1.0, bucket_size=3, max_concurrent_requests=2),
        QueueSettings(name="two-of-a-key", limit_per_key=2),
        QueueSettings(name="seven-retries", retry=RetryOptions(task_retry_limit=7)),
        QueueSettings(name="kept-a-minute", retention_seconds=60),
        QueueSettings(name="dead-at-once", dead_retention_seconds=0),
        QueueSettings(name="dead-a-minute", dead_retention_seconds=60),
    )
}
"""The queues that every store under test has settings of."""

_ids = count(1)


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_us = START_US

    def __call__(self, _connection: object = None) -> int:
        return self.now_us

    def advance(self, us: int) -> None:
        self.now_us += us


class FullStore(Store, Inspector, Protocol):
    """What every store is."""


def new_task(
    queue_name: str = "default",
    name: str | None = None,
    *,
    task_id: int | None = None,
    url: str = "/worker",
    headers: Headers = (),
    body: bytes = b"",
    eta_us: int | None = None,
    countdown_us: int = 0,
    retry: RetryOptions | None = None,
    deadline_us: int = DEFAULT_DEADLINE_US,
    keys: Keys = NO_KEYS,
    method: str = "POST",
    lineage: Lineage = NO_LINEAGE,
) -> NewTask:
    return NewTask(
        id=next(_ids) if task_id is None else task_id,
        queue_name=queue_name,
        name=name,
        method=method,
        url=url,
        headers=headers,
        body=body,
        eta_us=eta_us,
        countdown_us=countdown_us,
        retry=retry,
        deadline_us=deadline_us,
        keys=keys,
        lineage=lineage,
    )


def record(task_id: int = 1, number: int = 1, outcome: AttemptOutcome = "retry", **fields: Any) -> AttemptRecord:
    """Give what is to be kept of an attempt."""
    values: dict[str, Any] = {
        "attempt_count": number, "fence": number, "owner": "me", "method": "POST", "url": "/worker",
        "began_us": START_US, "ended_us": START_US + SECOND_US, "status": 503, "error": f"busy {number}",
        "response_headers": (("content-type", "text/plain"), ("x-a", "1"), ("x-a", "2")), "response_text": "later",
        "response_byte_count": 5,
    }  # fmt: skip
    return AttemptRecord(task_id=task_id, number=number, outcome=outcome, **values | fields)


@dataclass(frozen=True, slots=True)
class Subject:
    """A store, its clock, and a way in as a committed transaction of the user's has: no name is won."""

    store: FullStore
    clock: ManualClock
    insert: Callable[[Sequence[NewTask]], Awaitable[None]]

    async def add(self, *tasks: NewTask) -> None:
        await self.store.add(tasks)

    async def claim(
        self, limit: int = 10, *, owner: str = "me", lease_us: int = LEASE_US, exclude: Sequence[str] = ()
    ) -> list[LeasedTask]:
        wish = Claim(owner=owner, limit=limit, lease_us=lease_us, exclude=frozenset(exclude))
        return list((await self.store.claim(wish)).tasks)

    async def claimed(self, limit: int = 10) -> Claimed:
        return await self.store.claim(Claim(owner="me", limit=limit, lease_us=LEASE_US))

    async def claim_one(self) -> LeasedTask:
        (task,) = await self.claim(1)
        return task

    async def settle(
        self, lease: Lease, decision: Decision, record: AttemptRecord | None = None, *, has_history: bool = False
    ) -> bool:
        settlement = Settlement(lease, decision, record=record, has_history=has_history)
        (accepted,) = await self.store.settle([settlement])
        return accepted

    async def renew(self, *leases: Lease, lease_us: int = LEASE_US) -> frozenset[int]:
        return await to_thread.run_sync(self.store.renew, leases, lease_us)

    async def get(self, task_id: int) -> TaskInfo:
        info = await self.store.get(task_id)
        assert info is not None
        return info
