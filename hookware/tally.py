"""How many tasks a process ran, and what became of them."""

from hookware.core.lifecycle import Complete, Die, Release, Retry
from hookware.core.task import Lease
from hookware.events import AttemptSettled, AttemptStarted, Event

_COMPLETED, _RETRIED, _DEAD, _GIVEN_BACK = "completed", "to be tried again", "dead", "given back"
_UNSETTLED = "not settled"


class Tally:
    """Counts the attempts of one process from its events."""

    def __init__(self) -> None:
        self._running: set[Lease] = set()
        self._counts = dict.fromkeys((_COMPLETED, _RETRIED, _DEAD, _GIVEN_BACK, _UNSETTLED), 0)

    def note(self, event: Event) -> None:
        """Take an event of a Hookware."""
        match event:
            case AttemptStarted():
                self._running.add(event.task.lease)
            case AttemptSettled() if event.task.lease in self._running:  # others are what the reaper took back
                self._running.discard(event.task.lease)
                self._counts[_what(event)] += 1

    def __str__(self) -> str:
        counts = {**self._counts, _UNSETTLED: self._counts[_UNSETTLED] + len(self._running)}
        total = sum(counts.values())
        if total == 0:
            return "no task ran"
        parts = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return f"{total} attempt{'' if total == 1 else 's'} ({parts})"


def _what(event: AttemptSettled) -> str:
    if event.accepted is False:
        return _UNSETTLED  # the task had been given to a newer attempt
    match event.decision:
        case Complete():
            return _COMPLETED
        case Retry():
            return _RETRIED
        case Die():
            return _DEAD
        case Release():
            return _GIVEN_BACK
