"""How long tasks stay after their end, as a value: what is configured, and what was set at run time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Final

from hookware.core.queue import QueueSettings


@dataclass(frozen=True, slots=True)
class Retention:
    """How long tasks stay, in microseconds, by queue.

    Attributes:
        completed_us: finished ones; a queue that is not named keeps none.
        dead_us: dead ones; a queue that is not named keeps them for ever, 0: they are removed at once.
    """

    completed_us: Mapping[str, int] = field(default_factory=dict)
    dead_us: Mapping[str, int] = field(default_factory=dict)

    def keeps(self, queue_name: str) -> bool:
        """Say whether a queue keeps its finished tasks."""
        return queue_name in self.completed_us

    @property
    def dropping(self) -> list[str]:
        """The queues that remove their dead tasks at once."""
        return [name for name, kept_us in self.dead_us.items() if kept_us == 0]

    def only(self, queue_name: str) -> "Retention":
        """Give what concerns one queue."""
        return NO_RETENTION if queue_name not in self.completed_us else self


NO_RETENTION: Final = Retention()


def retention(queues: Iterable[QueueSettings]) -> Retention:
    """Give the retention of queues by their settings; what is no time counts as not set."""
    completed_us: dict[str, int] = {}
    dead_us: dict[str, int] = {}
    for settings in queues:
        if kept_us := _us(settings.retention_seconds):
            completed_us[settings.name] = kept_us
        if (kept_us := _us(settings.dead_retention_seconds)) is not None:
            dead_us[settings.name] = kept_us
    return Retention(completed_us, dead_us)


def _us(seconds: object) -> int | None:
    # What was set at run time comes out of a row.
    if not isinstance(seconds, int | float) or not isfinite(seconds) or seconds < 0:
        return None
    return int(seconds * 1_000_000)
