"""What a store must do. Its rules are tests: every store passes tests/store/contract.py.

A store moves rows. It never decides when a task may run again or whether it is dead: `core` does.
Each method is one short transaction. Time is the store's own clock (its database's), never the caller's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from hookware.core.history import AttemptRecord
from hookware.core.lifecycle import Complete, Decision, State
from hookware.core.task import Birth, Headers, Lease, LeasedTask, NewTask, Progress

LATEST_US = 2**63 - 1
"""The last moment that a store can hold: what would be later is stored as this."""

MAX_ERROR_CHARACTERS = 4096


def stored_error(text: str) -> str:
    """Give an error's text as stores keep it: bounded, without NUL, and always encodable."""
    return text.replace("\0", "")[:MAX_ERROR_CHARACTERS].encode("utf-8", "replace").decode()


class AddResult(Enum):
    """What became of one task of an `add`."""

    ADDED = "added"
    NAME_TAKEN = "name taken"
    NAME_TOMBSTONED = "name tombstoned"
    KEY_WAITS = "key waits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A wish for work: at most `limit` due tasks, leased to `owner` for `lease_us`, none of queues in `exclude`."""

    owner: str
    limit: int
    lease_us: int
    exclude: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Claimed:
    """The answer to a claim.

    `next_due_us`: microseconds until the next unclaimed task of a queue not excluded may begin (0: now already);
    None if nothing waits. `held_back`: some wait for a running one to end. `cleared`: some that will not run, such as
    duplicates, were put aside, so that even where no task is given, the next claim may give some.
    """

    tasks: Sequence[LeasedTask]
    next_due_us: int | None
    held_back: bool = False
    cleared: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """A decision about the task held under `lease`.

    `lease_until_us`: for whoever takes a task back, the end of the lease as it saw it. If the holder has renewed the
    lease since, or its transaction is just removing the task, it lives, and the decision is refused.
    `record`: what is to be kept of the attempt, if the decision is accepted and leaves the task there.
    `has_history`: records of earlier attempts are kept; where the decision removes the task, they go with it.
    `has_name`: the task has a name, or it is not known to have none.
    """

    lease: Lease
    decision: Decision
    lease_until_us: int | None = None
    record: AttemptRecord | None = None
    has_history: bool = False
    has_name: bool = True

    @property
    def is_simple(self) -> bool:
        """Whether nothing is left of the task."""
        return isinstance(self.decision, Complete) and self.record is None and not (self.has_history or self.has_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """A stored task as people see it.

    `origin`: the request that added it, as its method and path, "POST /orders"; of one that a task has added, the
    request which that task was delivered as. None: it was added outside of requests. `parent_id`: the task that added
    it in its handler, which may be gone by now.
    """

    id: int
    queue_name: str
    name: str | None
    method: str
    url: str
    headers: Headers
    body: bytes
    state: State
    eta_us: int
    attempt_count: int
    crash_count: int
    last_status: int | None
    last_error: str | None
    dead_reason: str | None
    owner: str | None
    priority: int = 0
    tag: str | None = None
    dedup_key: str | None = None
    fair_key: str | None = None
    limit_key: str | None = None
    depth: int = 0
    progress: Progress | None = None
    origin: str | None = None
    parent_id: int | None = None


class Store(Protocol):
    """The seam between dispatching and storage."""

    async def add(self, tasks: Sequence[NewTask], birth: Birth | None = None) -> list[AddResult]:
        """Insert tasks in one transaction of the store's own; the names of those added are won at once.

        A name that is taken or tombstoned leaves its task out and the others in; a waiting task takes its name even
        before it has won it. Two of the same new name in one call: the first is added. A task that is to "raise" on a
        conflict is left out where one with its dedup key waits. When this returns, the added tasks are durable.
        With `birth`, the one task, which is due at once and has neither name nor keys, is leased by the same
        transaction as by a claim, unless its queue is paused or set otherwise at run time; `birth.task` says so.
        """
        ...

    async def claim(self, claim: Claim) -> Claimed:
        """Lease due tasks: PENDING and ETA not after now. Never more than `limit`, never one twice.

        Each claimed task has its fence and attempt count raised by one, its first attempt's time set if unset.
        Slots are shared between queues in turn (`core.queue.share_slots`); within a queue: by ETA, then id.
        A named task that has not won its name wins it here; if another task holds the name, it becomes DEAD
        with the reason "duplicate" instead of being claimed. Of waiting tasks with one dedup key, one that has its name
        stays (`core.dedup.survivor`), and wins it here even if it is not due; the others are removed.
        A row that cannot be decoded, or holds numbers that no task has, becomes DEAD with the reason "undecodable", and
        the others are claimed all the same.
        """
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Carry out decisions, each only if its lease is still the task's: LEASED under this very fence.

        A Retry or Die that names `lease_until_us` also needs that to be the lease's end still.
        False for a refused one, of which nothing at all is changed. Complete removes the task, or keeps it as
        COMPLETED where its queue retains what is finished, and tombstones its name. Retry: PENDING, due `delay_us`
        from now. Release: PENDING with the ETA it had, or with a `delay_us` due that long from now; attempt count
        lowered by one (first attempt's time unset again if it was the first). Die: DEAD with reason, status and error;
        where its queue keeps no dead tasks, it is removed and its name tombstoned.
        A Retry or Die with `crashed` raises the crash count; a status that is not None becomes the last status.
        Error texts are stored without NUL and cut to 4096 characters.
        """
        ...

    async def expired(self, limit: int, owners: Sequence[str] = ()) -> list[LeasedTask]:
        """List leased tasks whose lease has ended by now, and those leased to one of `owners`, oldest first.

        Nothing is changed: settling them with their fence decides who acts. `claimed_us` of these is now.
        """
        ...

    async def owners(self) -> dict[str, int]:
        """List the owners that hold leases, each with the microseconds until the first of its leases ends.

        Leases of nobody, which somebody else has meddled with, are listed as those of "".
        """
        ...

    async def next_due(self, exclude: frozenset[str] = frozenset()) -> int | None:
        """Microseconds until the next PENDING task of a queue not excluded is due, 0 if one is; None: none."""
        ...

    async def prune(self) -> int:
        """Remove what has had its time; how many.

        That is: expired tombstones, duplicates as old as a tombstone, and the COMPLETED and DEAD tasks that their
        queues retain no longer. The name that a dead one has won is tombstoned.
        """
        ...

    async def note_progress(self, notes: Mapping[Lease, Progress]) -> frozenset[int]:
        """Write down how far tasks have come, as far as no newer claim has been made; of which that was possible.

        A task whose row is locked just now is left out, and holds up nobody: so is one that is gone.
        """
        ...

    def renew(self, leases: Sequence[Lease], lease_us: int) -> frozenset[int]:
        """Prolong leases to `lease_us` from now; the ids of those that were still held under their fence.

        A task that a handler's own transaction is just removing is still held, and holds up no other.
        Synchronous, because the heartbeat calls it from a thread of its own while the event loop may be blocked.
        """
        ...


class Inspector(Protocol):
    """What people ask a store, and the few things they may do by hand."""

    async def get(self, task_id: int) -> TaskInfo | None:
        """Give one task, or None if there is none (any more)."""
        ...

    async def list_tasks(
        self, *, state: State | None = None, queue_name: str | None = None, limit: int = 100
    ) -> list[TaskInfo]:
        """List tasks by id, oldest first."""
        ...

    async def attempts(self, task_id: int) -> list[AttemptRecord]:
        """List what is kept of a task's attempts, in their order; of more than 20, the first and the last 10.

        Which are kept says `Hookware(attempt_history=...)`. They go with the task.
        """
        ...

    async def children(self, task_id: int, limit: int = 100) -> list[TaskInfo]:
        """List the tasks that a task has added in its handler and that are still there, by id."""
        ...

    async def set_paused(self, queue_name: str, paused: bool) -> None:
        """Let a queue's tasks wait, whatever their ETA, or let them go on: in all processes."""
        ...

    async def set_overrides(self, queue_name: str, overrides: Mapping[str, object]) -> None:
        """Put these fields of `QueueSettings` in the place of what is configured, in all processes; none: undo it."""
        ...

    async def run_again(self, task_id: int) -> bool:
        """Make a DEAD task PENDING and due now, as if never tried; False if it is not dead."""
        ...

    async def run_again_all(self, queue_name: str, *, reason: str | None = None, limit: int = 1000) -> int:
        """Do so with the tasks of a queue that are dead when this begins, the longest dead first; how many.

        In several short transactions. `reason` says which; None: all but those that are "cancelled" or "duplicate",
        which were not given up because of a failure.
        """
        ...

    async def cancel(self, task_id: int) -> bool:
        """Call a task off: a waiting one is removed and its name tombstoned, a running one is DEAD as "cancelled".

        The result of the running attempt is refused and what it writes together with its end rolled back. Its handler
        is cancelled at once where this process runs it, elsewhere with the next renewal of its lease, a quarter of
        `lease_seconds` later at most; one that is `def` goes on to its end. False if the task has ended, or is none.
        """
        ...

    async def delete(self, task_id: int) -> bool:
        """Remove a task that is not running and tombstone its name; False if there is none, or it is running.

        A name that another task holds stays that task's; that of a COMPLETED one has been tombstoned before.
        """
        ...
