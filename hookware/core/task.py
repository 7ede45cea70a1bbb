"""The values that travel between enqueue, store and dispatcher.

All times are integers of microseconds since the epoch by the database's clock, unless a name says otherwise.
"""

from dataclasses import dataclass
from typing import NamedTuple

from hookware.core.queue import Lane
from hookware.core.retry import RetryOptions

Headers = tuple[tuple[str, str], ...]
"""Header names (lower case) and values, in order; a name may stand more than once."""

DEFAULT_DEADLINE_US = 30_000_000
"""How long one attempt may take by default: 30 seconds, as in App Engine's first years."""

MOST_DEADLINE_US = 100 * 365 * 86_400 * 1_000_000
"""The longest deadline that an attempt may be configured with: a hundred years."""


MOST_DEPTH = 2**31 - 1
"""The depth that stands for all that is deeper: a task that adds itself again for ever gets there one day."""

MOST_ORIGIN = 200
"""How many characters of the request that added a task are kept."""

PULL = "PULL"
"""The method of tasks that are not delivered, but leased from a pull queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What a task has in common with others of its queue.

    Attributes:
        priority: of two due tasks of a queue the higher one begins first.
        fair_key: tasks of different keys take turns.
        limit_key: of tasks with one key, only as many run at once as the queue's `limit_per_key` says.
        dedup_key: of waiting tasks with one key, one runs; `on_conflict` says which.
        on_conflict: "skip": the first one; "replace": the last one; "raise": the first one, and adding another raises
            where that can be known.
    """

    priority: int = 0
    fair_key: str | None = None
    limit_key: str | None = None
    dedup_key: str | None = None
    on_conflict: str = "skip"

    @property
    def are_shared(self) -> bool:
        """Whether a claim has to look at the task's keys to choose."""
        return self.fair_key is not None or self.limit_key is not None or self.dedup_key is not None


NO_KEYS = Keys()


class Lineage(NamedTuple):
    """Where a task comes from.

    Attributes:
        origin: the method and path of the request that it was added in; None: it was added outside of requests.
        parent_id: the task whose handler has added it, in that request.
        depth: how many tasks came before it, each of which has added the next one.
    """

    origin: str | None = None
    parent_id: int | None = None
    depth: int = 0


NO_LINEAGE = Lineage()


def stored_origin(method: str, path: str) -> str:
    """Give a request as it is kept with the tasks that are added in it: bounded, and fit for any database."""
    text = f"{method:.10} {path:.{MOST_ORIGIN}}"[:MOST_ORIGIN]
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


class Progress(NamedTuple):
    """How far a task has come, as its handler last said: `done` of `total`, and a note for people."""

    done: float
    total: float | None = None
    note: str = ""


class Lease(NamedTuple):
    """The right to run and settle one task once: a claim gives it, a newer claim makes it worthless."""

    task_id: int
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A validated task before it has an id: what `add()` hands to the transaction.

    `headers` carries only what a task may set. `eta_us` None means "now, by the database's clock, plus
    `countdown_us`"; `deadline_us` None means the configured default.
    """

    queue_name: str
    name: str | None
    method: str
    url: str
    headers: Headers
    body: bytes
    eta_us: int | None = None
    countdown_us: int = 0
    retry: RetryOptions | None = None
    deadline_us: int | None = None
    keys: Keys = NO_KEYS
    tag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A validated task on its way into the store.

    `eta_us` None means "now, by the database's clock, plus `countdown_us`".
    """

    id: int
    queue_name: str
    name: str | None
    method: str
    url: str
    headers: Headers
    body: bytes
    eta_us: int | None = None
    countdown_us: int = 0
    retry: RetryOptions | None = None
    deadline_us: int = DEFAULT_DEADLINE_US
    keys: Keys = NO_KEYS
    tag: str | None = None
    lineage: Lineage = NO_LINEAGE

    @property
    def lane(self) -> str:
        """The lane in which the task waits."""
        if self.keys is NO_KEYS:
            return self.queue_name
        return str(Lane(self.queue_name, self.keys.priority, self.keys.are_shared))

    @property
    def is_pull(self) -> bool:
        """Whether the task waits to be leased from a pull queue."""
        return self.method == PULL

    @property
    def is_plain(self) -> bool:
        """Whether the task is due at once, and only the order decides when it begins: no name, and no keys."""
        has_time = self.eta_us is not None or self.countdown_us > 0
        return self.name is None and self.lane == self.queue_name and not (has_time or self.is_pull)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedTask:
    """A task that this process has claimed: what a delivery and the decision after it need to know.

    `attempt_count` includes the attempt now beginning; `crash_count` of them ended with an expired lease.
    `lease_until_us` is as it was read; a heartbeat may have moved it on since. `record_count` is how many records there
    have been of earlier attempts. `owner` is whose lease has ended, where the task is taken back.
    """

    id: int
    fence: int
    queue_name: str
    name: str | None
    method: str
    url: str
    headers: Headers
    body: bytes
    eta_us: int
    attempt_count: int
    crash_count: int
    first_attempt_us: int
    claimed_us: int
    last_status: int | None
    retry: RetryOptions | None
    deadline_us: int
    lease_until_us: int = 0
    depth: int = 0
    record_count: int = 0
    owner: str | None = None

    @property
    def lease(self) -> Lease:
        """The lease under which this attempt runs."""
        return Lease(self.id, self.fence)

    @property
    def failure_count(self) -> int:
        """How many attempts before this one reached the handler and failed."""
        return self.attempt_count - 1 - self.crash_count

    @property
    def label(self) -> str:
        """The task's name, or its id where it has none: what people and headers call it."""
        return self.name or str(self.id)


@dataclass(slots=True, eq=False)
class Birth:
    """The wish that a task be leased as it is inserted, and what came of it.

    No other lease of the task has this `fence`, not even where its transaction is tried again. `retry` is how the task
    is tried again where it does not say. `task` is what was leased; None: nothing was, because the queue is paused, or
    is set otherwise at run time.
    """

    owner: str
    lease_us: int
    fence: int
    retry: RetryOptions | None = None
    task: LeasedTask | None = None
