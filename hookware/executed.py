"""Counts the attempts that end in this process, and writes the counts down about once a second: nothing per task."""

from collections.abc import Awaitable, Callable, Mapping

from hookware.core.lifecycle import Complete, Die, Retry
from hookware.env import Env
from hookware.events import AttemptSettled, Event, Events
from hookware.flushing import Flushing
from hookware.health import Health
from hookware.store.sql.executed import Ended

_SECONDS = 1.0
_ENDED = {Complete: Ended(completed=1), Retry: Ended(failed=1), Die: Ended(dead=1)}
"""What an attempt counts as; one that was given back has not ended."""


class Executed:
    """What a process has counted since it last wrote; a process that dies loses that.

    Args:
        write: adds counts to the stored ones.
        env: for the pauses.
        events: tell of attempts, and are told of failures.
        health: told when the counts cannot be written.
    """

    def __init__(
        self, write: Callable[[Mapping[str, Ended]], Awaitable[None]], env: Env, events: Events, health: Health
    ) -> None:
        self._write, self._events = write, events
        self._counts: dict[str, Ended] = {}
        self._flushing = Flushing("executed", _SECONDS, self._flush, env=env, events=events, health=health)
        events.subscribe(self._note, AttemptSettled)

    async def run(self) -> None:
        """Write the counts down until `stop()`."""
        await self._flushing.run()

    def stop(self) -> None:
        """End; what is counted meanwhile is written down by `close()`."""
        self._flushing.stop()

    async def close(self) -> None:
        """Count no more, and write down what is left."""
        self._events.unsubscribe(self._note)
        await self._flushing.close()

    def _note(self, event: Event) -> None:
        if type(event) is AttemptSettled and event.accepted:
            ended = _ENDED.get(type(event.decision))
            if ended is not None:
                self._count(event.task.queue_name, ended)

    def _count(self, queue_name: str, ended: Ended) -> None:
        self._counts[queue_name] = self._counts.get(queue_name, Ended()).plus(ended)
        self._flushing.owe()

    async def _flush(self) -> None:
        counts, self._counts = self._counts, {}
        if not counts:
            return
        written = False
        try:
            await self._write(counts)
            written = True
        finally:
            if not written:
                for queue_name, ended in counts.items():
                    self._count(queue_name, ended)
