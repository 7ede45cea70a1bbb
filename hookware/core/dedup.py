"""Which of the waiting tasks with one dedup key runs."""

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple, TypeVar

K = TypeVar("K")


class Waiting(NamedTuple):
    """A waiting task with the key; `on_conflict` says what it does to one that waits already."""

    task_id: int
    on_conflict: str


def survivor(waiting: Sequence[Waiting]) -> int:
    """Give the id of the one that runs, of one or more tasks in the order in which they were added.

    Each one that came later either took the place of the one before ("replace"), or gave way to it.
    """
    kept = waiting[0]
    for one in waiting[1:]:
        if one.on_conflict == "replace":
            kept = one
    return kept.task_id


def survivors(groups: Mapping[K, Sequence[Waiting]], beaten: Container[int]) -> dict[K, int]:
    """Give the one of each group that runs. A task whose name is another's is `beaten`: none gives way to it."""
    fit = {key: [one for one in group if one.task_id not in beaten] for key, group in groups.items()}
    return {key: survivor(group) for key, group in fit.items() if group}
