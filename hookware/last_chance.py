"""A task that one more crash makes dead runs with nothing beside it.

Who took the process down is not known when several were running: what always ran beside the culprit would die with it.
"""

from collections.abc import Sequence

from hookware.attempt import Attempt
from hookware.core.lifecycle import on_last_chance


class LastChance:
    """Sees to it that a suspect runs alone.

    Attributes:
        awaited: the latest claim brought a suspect: nothing may begin before everything that runs has ended.
    """

    def __init__(self, crash_limit: int) -> None:
        self.awaited = False
        self._crash_limit = crash_limit

    def arrange(self, claimed: Sequence[Attempt], *, others_run: bool) -> None:
        """Let one suspect run after all others of this claim went back; while anything else runs, it goes back too."""
        suspects = [attempt for attempt in claimed if on_last_chance(attempt.task, self._crash_limit)]
        self.awaited = bool(suspects)
        if not suspects:
            return
        first, others = suspects[0], [attempt for attempt in claimed if attempt is not suspects[0]]
        for attempt in suspects if others_run else others:
            attempt.postponed = True
        first.after = others
