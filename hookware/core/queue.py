"""A queue's settings as a value, its lanes, and how slots are shared between queues."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from hookware.core.retry import DEFAULT_RETRY, RetryOptions

DEFAULT_QUEUE = "default"
CRON_QUEUE = "__cron"
"""The queue of cron entries: App Engine's name for it, which nobody can add tasks to."""

DEFAULT_BUCKET_SIZE = 5
MAX_PRIORITY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """What is configured for one queue.

    Attributes:
        name: the queue.
        retry: how its tasks are tried again, where they do not say.
        rate: how many attempts may begin in a second, in all processes together; None: no limit, 0: none at all.
        bucket_size: how many may begin at once after a quiet time, where there is a rate; less than 1 counts as 1.
        max_concurrent_requests: how many may run at once, in all processes together; None: no limit.
        mode: "push": tasks are delivered; "pull": they are leased by whoever asks.
        target: accepted, without effect: every task goes to this app.
        limit_per_key: how many tasks with one `limit_key` may run at once.
        retention_seconds: how long finished tasks are kept to be looked at.
        dead_retention_seconds: how long dead tasks are kept; None: for ever, 0: they are removed at once.
    """

    name: str = DEFAULT_QUEUE
    retry: RetryOptions = DEFAULT_RETRY
    rate: float | None = None
    bucket_size: int = DEFAULT_BUCKET_SIZE
    max_concurrent_requests: int | None = None
    mode: Literal["push", "pull"] = "push"
    target: str | None = None
    limit_per_key: int = 1
    retention_seconds: float = 0.0
    dead_retention_seconds: float | None = None

    @property
    def is_limited(self) -> bool:
        """Whether processes have to agree on what may begin."""
        return self.rate is not None or self.max_concurrent_requests is not None


DEFAULT_SETTINGS: Final = QueueSettings()

CRON_SETTINGS: Final = QueueSettings(
    name=CRON_QUEUE, retry=RetryOptions(task_retry_limit=0), dead_retention_seconds=7 * 86_400.0
)
"""A run that failed is not tried again, as in App Engine: the next time comes anyway."""


class Lane(NamedTuple):
    """The waiting tasks of one queue that are claimed in the order of their ETAs: those of one priority.

    `keyed`: they have keys which a claim has to look at, so they lie apart from those that have none.
    """

    queue_name: str
    priority: int = 0
    keyed: bool = False

    def __str__(self) -> str:
        """Give the text by which the database finds the lane; of plain tasks it is the queue's name."""
        if not self.priority and not self.keyed:
            return self.queue_name
        return f"{self.queue_name}/{MAX_PRIORITY - self.priority:03d}{'k' if self.keyed else ''}"


def lane_of(text: str) -> Lane:
    """Give the lane of a text; one that no lane has is taken for a queue's name."""
    queue_name, slash, rest = text.rpartition("/")
    number = rest.removesuffix("k")
    if not slash or not (number.isascii() and number.isdigit() and len(number) == 3):
        return Lane(text)
    lane = Lane(queue_name, MAX_PRIORITY - int(number), rest.endswith("k"))
    # Another spelling would be another lane to the database, and hide this one.
    return lane if str(lane) == text else Lane(text)


def by_priority(lanes: Iterable[Lane]) -> list[list[Lane]]:
    """Group the lanes of a queue by priority, the highest first."""
    groups: dict[int, list[Lane]] = {}
    for lane in sorted(lanes):
        groups.setdefault(lane.priority, []).append(lane)
    return [groups[priority] for priority in sorted(groups, reverse=True)]


def share_slots(waiting_counts: Mapping[str, int], slots: int) -> dict[str, int]:
    """Share free slots between queues, one each in turn, so that a full queue never delays another.

    Args:
        waiting_counts: how many tasks are due in each queue; its order is the order of turns.
        slots: how many may be claimed in all.
    """
    shares = dict.fromkeys(waiting_counts, 0)
    open_queues = [name for name, count in waiting_counts.items() if count > 0]
    while slots > 0 and open_queues:
        turn = max(1, slots // len(open_queues))
        for name in open_queues:
            take = min(turn, waiting_counts[name] - shares[name], slots)
            shares[name] += take
            slots -= take
        open_queues = [name for name in open_queues if shares[name] < waiting_counts[name]]
    return shares


def turn_order(queue_names: Iterable[str], last: str) -> list[str]:
    """Put queues in the order of their turns, beginning after the queue `last`, so that none is always first."""
    ordered = sorted(queue_names)
    start = bisect_right(ordered, last)
    return ordered[start:] + ordered[:start]


def last_turn(order: Sequence[str], shares: Mapping[str, int], last: str) -> str:
    """Say after which queue the next turns begin, when `order` got `shares`: all queues come first equally often."""
    served = [name for name in order if shares.get(name, 0) > 0]
    if not served:
        return last
    return served[0] if len(served) == len(order) else served[-1]
