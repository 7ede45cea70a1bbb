"""A task that one more crash makes dead runs with nothing beside it, where that can be had in reasonable time.

Who took the process down is not known when several were running: what always ran beside the culprit would die with it.
But nobody waits for ever. Where something else runs, the suspect goes back, for an idle process to take, and nothing
begins here for a moment, so that what runs may end. If it does not, the suspect stays out of everybody's way for a
growing time, while the others go on. What has not been alone after many rounds runs beside others.
"""

from collections.abc import Sequence
from typing import Final

from hookware.attempt import Attempt
from hookware.core.lifecycle import on_last_chance
from hookware.env import Env
from hookware.log import fields_of, log_of

HOLD_SECONDS: Final = 2.0
"""How long nothing begins here while a suspect waits for what runs: longer than an idle process takes to find it."""

ALONE_SECONDS: Final = 30.0
"""How long a suspect that runs keeps everything else from beginning: as long as most deadlines."""

REST: Final = 4
"""How many times as long as they waited the others go on before the next suspect may keep them waiting."""

MOST_ROUNDS: Final = 8
_FIRST_DELAY_SECONDS: Final = 1.0
_LONGEST_DELAY_SECONDS: Final = 60.0
_MOST_KNOWN: Final = 1000

_logger = log_of()


class LastChance:
    """Sees to it that a suspect runs alone, or after about four minutes beside others."""

    def __init__(self, crash_limit: int, env: Env) -> None:
        self._crash_limit, self._env = crash_limit, env
        self._held_since = self._held_until = self._rest_until = float("-inf")
        self._waits = False
        self._rounds: dict[int, int] = {}  # how often a suspect has been sent away with a delay

    def remaining(self) -> float:
        """For how many more seconds nothing may begin before everything that runs has ended; 0: it may."""
        return max(0.0, self._held_until - self._env.monotonic())

    def arrange(self, claimed: Sequence[Attempt], *, others_run: bool) -> None:
        """Let one suspect run after all others of this claim went back; while anything else runs, it goes back too."""
        self._end_hold()
        suspects = [attempt for attempt in claimed if on_last_chance(attempt.task, self._crash_limit)]
        patient = [attempt for attempt in suspects if self._rounds.get(attempt.task.id, 0) < MOST_ROUNDS]
        if patient:
            self._keep_apart(patient, claimed, others_run=others_run)
        for attempt in suspects:
            if not attempt.postponed and self._rounds.pop(attempt.task.id, 0) == MOST_ROUNDS:
                label, fields = attempt.task.label, fields_of(attempt.task)
                _logger.warning("task %s could not run alone after its crashes, and runs now", label, extra=fields)

    def _end_hold(self) -> None:
        until = min(self._env.monotonic(), self._held_until)
        has_begun = not self._waits  # else what ran has ended in time, and this is the suspect's moment
        if self._held_until > self._held_since and (has_begun or until == self._held_until):
            self._rest_until = until + REST * (until - self._held_since)
        self._held_since = self._held_until = float("-inf")

    def _keep_apart(self, suspects: Sequence[Attempt], claimed: Sequence[Attempt], *, others_run: bool) -> None:
        now = self._env.monotonic()
        if now < self._rest_until and (others_run or len(suspects) < len(claimed)):
            for attempt in suspects:
                self._send_away(attempt)
            return
        self._held_since, self._held_until = now, now + (HOLD_SECONDS if others_run else ALONE_SECONDS)
        self._waits = others_run
        others = [attempt for attempt in claimed if attempt is not suspects[0]]
        for attempt in suspects if others_run else others:
            attempt.postponed = True
        suspects[0].after = others

    def _send_away(self, suspect: Attempt) -> None:
        count = self._rounds.pop(suspect.task.id, 0)
        if len(self._rounds) >= _MOST_KNOWN:
            del self._rounds[next(iter(self._rounds))]
        self._rounds[suspect.task.id] = count + 1
        seconds = min(_FIRST_DELAY_SECONDS * 2**count, _LONGEST_DELAY_SECONDS)
        suspect.postponed, suspect.delay_us = True, int(seconds * (1 + self._env.random() / 10) * 1e6)
