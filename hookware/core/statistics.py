"""What is kept of each minute: sums that may be added up in any order, and histograms that tell percentiles."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

MINUTE_US: Final = 60_000_000

BOUNDS_US: Final = tuple(
    int(seconds * 1_000_000) for seconds in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
)
"""The upper bounds of a histogram's buckets; what is longer than the last lies in one more."""

BUCKET_COUNT: Final = len(BOUNDS_US) + 1

COUNTS: Final = ("completed", "failed", "dead", "released", "crashed")
TIMES: Final = ("run", "wait")
FIELDS: Final = (
    *(f"{name}_count" for name in COUNTS),
    *(f"{name}_{what}" for name in TIMES for what in ("us", "most_us", *(f"h{n}" for n in range(BUCKET_COUNT)))),
)
"""The numbers of one row, in the order in which `Sums` has them."""

MAXIMA: Final = frozenset(name for name in FIELDS if name.endswith("most_us"))
"""Those of which the larger one counts; the others are added up."""

Outcome = Literal[0, 1, 2, 3, 4]
_RUN: Final = len(COUNTS)
_WAIT: Final = _RUN + 2 + BUCKET_COUNT
_RUN_MOST, _RUN_BUCKETS, _WAIT_MOST, _WAIT_BUCKETS = _RUN + 1, _RUN + 2, _WAIT + 1, _WAIT + 2
_IS_MAXIMUM: Final = tuple(name in MAXIMA for name in FIELDS)


class Sums:
    """The numbers of one queue and minute, while they are gathered."""

    __slots__ = ("numbers",)

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self.numbers = list(numbers) or [0] * len(FIELDS)

    def ended(self, outcome: Outcome, run_us: int, wait_us: int) -> None:
        """Count an attempt that ran: by its place in `COUNTS`, how long it ran, and how late it had begun."""
        numbers = self.numbers
        numbers[outcome] += 1
        numbers[_RUN] += run_us
        numbers[_RUN_MOST] = max(numbers[_RUN_MOST], run_us)
        numbers[_RUN_BUCKETS + bisect_left(BOUNDS_US, run_us)] += 1
        numbers[_WAIT] += wait_us
        numbers[_WAIT_MOST] = max(numbers[_WAIT_MOST], wait_us)
        numbers[_WAIT_BUCKETS + bisect_left(BOUNDS_US, wait_us)] += 1

    def counted(self, outcome: Outcome) -> None:
        """Count one of which no times are known."""
        self.numbers[outcome] += 1

    def add(self, other: "Sums") -> None:
        """Add another one's numbers."""
        pairs = zip(self.numbers, other.numbers, _IS_MAXIMUM, strict=True)
        self.numbers = [max(one, two) if is_maximum else one + two for one, two, is_maximum in pairs]


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took: `count` times, `sum_us` in all, `most_us` at most, and how that was spread.

    `buckets` counts those up to each of `BOUNDS_US`, and beyond.
    """

    sum_us: int = 0
    most_us: int = 0
    buckets: tuple[int, ...] = (0,) * BUCKET_COUNT

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.buckets)

    @property
    def mean_us(self) -> int | None:
        """The mean; None: there were none."""
        return self.sum_us // self.count if self.count else None

    def percentile_us(self, part: float) -> int | None:
        """Give what `part` of them, such as 0.5 or 0.99, did not exceed, to within the width of a bucket; None: none.

        Between two bounds it is reckoned as if they were spread evenly; never more than the longest.
        """
        wanted, seen = part * self.count, 0
        if not self.count:
            return None
        bounds = (0, *BOUNDS_US, max(self.most_us, BOUNDS_US[-1]))
        for n, found in enumerate(self.buckets):
            if found and seen + found >= wanted:
                inside = bounds[n] + (bounds[n + 1] - bounds[n]) * (wanted - seen) / found
                return min(int(inside), self.most_us)
            seen += found
        return self.most_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Minutes:
    """What ended in a minute, or in several that are put together; of one queue, or of all.

    Attributes:
        begin_us: the beginning of the first of them, by the database's clock.
        completed_count: attempts that completed their task.
        failed_count: attempts that failed, and whose task was to be tried again.
        dead_count: attempts after which their task was dead.
        released_count: attempts that were given back, at a shutdown or so.
        crashed_count: those of the failed and dead ones whose process died, or was frozen.
        run: how long attempts ran.
        wait: how long after it was due a task's attempt began. A retry is due at its own time.
    """

    begin_us: int = 0
    completed_count: int = 0
    failed_count: int = 0
    dead_count: int = 0
    released_count: int = 0
    crashed_count: int = 0
    run: Times = Times()
    wait: Times = Times()

    @property
    def ended_count(self) -> int:
        """How many attempts ended and were not given back."""
        return self.completed_count + self.failed_count + self.dead_count

    @property
    def numbers(self) -> list[int]:
        """Its numbers, in the order of `FIELDS`."""
        counts = [self.completed_count, self.failed_count, self.dead_count, self.released_count, self.crashed_count]
        times = [[each.sum_us, each.most_us, *each.buckets] for each in (self.run, self.wait)]
        return counts + times[0] + times[1]


NO_MINUTES: Final = Minutes()


def together(begin_us: int, several: Iterable[Minutes]) -> Minutes:
    """Put minutes together: of several queues, or one after another."""
    sums = Sums()
    for each in several:
        sums.add(Sums(each.numbers))
    return to_minutes(begin_us, sums.numbers)


def to_minutes(begin_us: int, numbers: Sequence[int]) -> Minutes:
    """Give a row's numbers, in the order of `FIELDS`, as a value."""
    completed, failed, dead, released, crashed = numbers[:_RUN]
    run, wait = (Times(numbers[at], numbers[at + 1], tuple(numbers[at + 2 : at + 2 + BUCKET_COUNT])) for at in _PLACES)
    return Minutes(
        begin_us=begin_us, completed_count=completed, failed_count=failed, dead_count=dead,
        released_count=released, crashed_count=crashed, run=run, wait=wait,
    )  # fmt: skip


_PLACES: Final = (_RUN, _WAIT)
