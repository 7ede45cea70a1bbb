"""Gathers what ends in this process, by queue and minute, and writes it down every ten seconds: nothing per task."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry
from hookware.core.statistics import MINUTE_US, Outcome, Sums
from hookware.core.task import LeasedTask
from hookware.env import Env
from hookware.events import AttemptSettled, Event, Events
from hookware.flushing import Flushing
from hookware.health import Health
from hookware.store.sql.minutes import ALL_QUEUES, Gathered

_SECONDS = 10.0
_MOST_ROWS = 10_000
_RELEASED: Final = 3
_CRASHED: Final = 4
_OUTCOMES: Final[Mapping[type[Decision], Outcome]] = {Complete: 0, Retry: 1, Die: 2, Release: _RELEASED}


class Minutes:
    """What a process has gathered since it last wrote; one that dies loses that, at most ten seconds of it.

    What a database took that was too slow to say so is added once more.

    A minute is one of the database's clock: the time of the claim, carried on by a clock that never steps.

    Args:
        write: adds numbers to the stored ones.
        env: for the pauses.
        events: tell of attempts, and are told of failures.
        health: told when the numbers cannot be written.
    """

    def __init__(self, write: Callable[[Gathered], Awaitable[None]], env: Env, events: Events, health: Health) -> None:
        self._write, self._events = write, events
        self._gathered: dict[tuple[str, int], Sums] = {}
        self._flushing = Flushing("minutes", _SECONDS, self._flush, env=env, events=events, health=health)
        events.subscribe(self.note, AttemptSettled)

    async def run(self) -> None:
        """Write the numbers down until `stop()`."""
        await self._flushing.run()

    def stop(self) -> None:
        """End; what is gathered meanwhile is written down by `close()`."""
        self._flushing.stop()

    async def close(self) -> None:
        """Gather no more, and write down what is left."""
        self._events.unsubscribe(self.note)
        await self._flushing.close()

    def note(self, event: Event) -> None:
        """Take an event; one dictionary is looked into for an attempt that ended, and a few numbers are raised."""
        if type(event) is not AttemptSettled or not event.accepted:
            return
        task, decision = event.task, event.decision
        run_us, begin_us = int(event.duration_seconds * 1e6), task.claimed_us + int(event.waited_seconds * 1e6)
        ended_us = begin_us + run_us
        sums = self._gathered.get((task.queue_name, ended_us - ended_us % MINUTE_US)) or self._sums(task, ended_us)
        outcome = _OUTCOMES[type(decision)]
        if outcome == _RELEASED:
            sums.counted(outcome)
        elif isinstance(decision, Retry | Die) and decision.crashed:
            sums.counted(outcome)
            sums.counted(_CRASHED)
        else:
            sums.ended(outcome, run_us, max(0, begin_us - task.eta_us))

    def _sums(self, task: LeasedTask, ended_us: int) -> Sums:
        sums = Sums()
        if len(self._gathered) < _MOST_ROWS:  # else it is not counted: so many can hardly ever be written
            self._gathered[task.queue_name, ended_us - ended_us % MINUTE_US] = sums
        self._flushing.owe()
        return sums

    async def _flush(self) -> None:
        gathered, self._gathered = self._gathered, {}
        if not gathered:
            return
        written = False
        try:
            await self._write({**gathered, **_totals(gathered)})
            written = True
        finally:
            if not written:
                self._keep(gathered)

    def _keep(self, gathered: dict[tuple[str, int], Sums]) -> None:
        for key, sums in self._gathered.items():
            if key in gathered:
                gathered[key].add(sums)
            else:
                gathered[key] = sums
        self._gathered = gathered
        self._flushing.owe()


def _totals(gathered: Gathered) -> Gathered:
    """Give the numbers of all queues together, by minute: who asks for them is not to add up every queue's."""
    totals: dict[tuple[str, int], Sums] = {}
    for (_name, minute_us), sums in gathered.items():
        totals.setdefault((ALL_QUEUES, minute_us), Sums()).add(sums)
    return totals
