"""Tells tasks that breed from tasks that follow each other: a worker that adds itself back does not grow in number."""

from typing import Final

DEEP: Final = 10
"""From which depth on it is looked at: fanning out is done before, and what doubles has a thousand descendants here."""

_WINDOW_SECONDS: Final = 60.0
_MANY: Final = 1000
_RATIO: Final = 1.5


class Growth:
    """Counts, in windows of a minute, deep tasks that run in a process and tasks that these add."""

    def __init__(self) -> None:
        self._began = float("-inf")
        self._ran_count = 0
        self._added_count = 0

    def ran(self, depth: int, now: float) -> None:
        """Note an attempt."""
        if depth >= DEEP:
            self._turn(now)
            self._ran_count += 1

    def added(self, depth: int, count: int, now: float) -> bool:
        """Note that an attempt at a task of this depth adds some; say whether they breed."""
        if depth < DEEP:
            return False
        self._turn(now)
        self._added_count += count
        return self._added_count >= max(_MANY, self._ran_count * _RATIO)

    def _turn(self, now: float) -> None:
        if now - self._began >= _WINDOW_SECONDS:
            self._began, self._ran_count, self._added_count = now, 0, 0
