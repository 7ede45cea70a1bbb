"""The values that travel between enqueue, store and dispatcher.

All times are integers of microseconds since the epoch by the database's clock, unless a name says otherwise.
"""

from dataclasses import dataclass
from typing import NamedTuple

from hookware.core.retry import RetryOptions

Headers = tuple[tuple[str, str], ...]
"""Header names (lower case) and values, in order; a name may stand more than once."""

DEFAULT_DEADLINE_US = 30_000_000
"""How long one attempt may take by default: 30 seconds, as in App Engine's first years."""

MOST_DEADLINE_US = 100 * 365 * 86_400 * 1_000_000
"""The longest deadline that an attempt may be configured with: a hundred years."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedTask:
    """A task that this process has claimed: what a delivery and the decision after it need to know.

    `attempt_count` includes the attempt now beginning; `crash_count` of them ended with an expired lease.
    `lease_until_us` is as it was read; a heartbeat may have moved it on since.
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
