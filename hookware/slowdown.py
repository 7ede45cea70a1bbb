"""A queue whose handlers answer 503 is left alone for a while, in this process."""

from hookware.core.lifecycle import Failed, Outcome, Succeeded
from hookware.env import Env

_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 30.0


class Slowdown:
    """Knows which queues to leave out of a claim: for 0.1 s after a 503, doubling to 30 s, until a success."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._seconds: dict[str, float] = {}
        self._until: dict[str, float] = {}

    def note(self, queue_name: str, outcome: Outcome) -> None:
        """Learn from an attempt of the queue."""
        if isinstance(outcome, Succeeded):
            if self._seconds:
                self._seconds.pop(queue_name, None)
                self._until.pop(queue_name, None)
            return
        now = self._env.monotonic()
        if isinstance(outcome, Failed) and outcome.status == 503 and now >= self._until.get(queue_name, 0.0):
            # Attempts that ran side by side and failed together count once.
            seconds = min(self._seconds.get(queue_name, _FIRST_SECONDS / 2) * 2, _LONGEST_SECONDS)
            self._seconds[queue_name] = seconds
            self._until[queue_name] = now + seconds

    def excluded(self) -> frozenset[str]:
        """The queues to leave out now."""
        now = self._env.monotonic()
        return frozenset(name for name, until in self._until.items() if now < until)

    def seconds(self) -> dict[str, float]:
        """The queues to leave out now, each for how many seconds more."""
        now = self._env.monotonic()
        return {name: until - now for name, until in self._until.items() if now < until}

    def remaining(self) -> float:
        """Seconds until the first of them is open again; infinite if there is none."""
        now = self._env.monotonic()
        return min((until - now for until in self._until.values() if now < until), default=float("inf"))
