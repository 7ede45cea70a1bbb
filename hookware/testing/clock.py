"""The time by which tasks come due in a test: the host's, and as far ahead of it as the test has moved it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hookware.env import Env


class Clock:
    """The database's time, as a test moves it. It runs on like any clock, and is never set back.

    Only when tasks come due depends on it, and when leases end: how long a handler may take does not.
    """

    def __init__(self, on_moved: Callable[[], None]) -> None:
        self._on_moved = on_moved
        self._env = Env()
        self.ahead_us = 0

    @property
    def now(self) -> datetime:
        """What time it is, in UTC."""
        return datetime.fromtimestamp((self._env.now_us() + self.ahead_us) / 1e6, UTC)

    def advance(self, by: float | timedelta) -> None:
        """Let time pass: so many seconds, or a timedelta. What comes due by that runs when it is run.

        Raises:
            ValueError: time cannot go back.
        """
        seconds = by.total_seconds() if isinstance(by, timedelta) else float(by)
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"time cannot pass by {by!r}: give seconds of at least 0, or a timedelta")
        self.ahead_us += round(seconds * 1e6)
        self._on_moved()
