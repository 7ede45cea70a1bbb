"""The arithmetic of the harness: the order of the runs, medians, ratios, percentiles. Standard library only."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

Cell = TypeVar("Cell")


def interleaved(cells: Sequence[Cell], rounds: int) -> Iterator[tuple[int, Cell]]:
    """Give A B C, A B C, ...: a slow moment of the machine hits all of them."""
    for number in range(rounds):
        for cell in cells:
            yield number, cell


def ratio(values: Sequence[float], reference: Sequence[float]) -> float | None:
    """Give the ratio of two medians; None where the reference is zero or missing."""
    if not values or not reference:
        return None
    base = statistics.median(reference)
    return statistics.median(values) / base if base else None


def percentile(values: Iterable[float], part: float) -> float:
    """Give the value that `part` of all are not above, 0.99 for the slowest hundredth, by the nearest rank."""
    ordered = sorted(values)
    rank = -(-len(ordered) * round(part * 10_000) // 10_000)  # rounded up, without the errors of floats
    return ordered[max(rank, 1) - 1]


def short(value: float) -> str:
    """Write a number as people read it: three digits that count, and commas."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"
