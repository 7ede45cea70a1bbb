"""A queue's settings as a value, and how slots are shared between queues."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hookware.core.retry import DEFAULT_RETRY, RetryOptions

DEFAULT_QUEUE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """What is configured for one queue.

    Attributes:
        name: the queue's name.
        retry: the retry options of its tasks that have none of their own.
        rate: tasks per second; None: no limit, 0: paused.
        bucket_size: how many tasks may start at once after a pause; less than 1 counts as 1.
        max_concurrent_requests: how many may run at once; None: no limit.
        mode: whether tasks are pushed to handlers, or pulled by workers.
        target: App Engine's version or module; without effect.
    """

    name: str = DEFAULT_QUEUE
    retry: RetryOptions = DEFAULT_RETRY
    rate: float | None = None
    bucket_size: int = 5
    max_concurrent_requests: int | None = None
    mode: Literal["push", "pull"] = "push"
    target: str | None = None


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
