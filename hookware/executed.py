"""Counts the attempts that end in this process, and writes the counts down about once a second: nothing per task."""

import math
from collections.abc import Awaitable, Callable, Mapping

import anyio

from hookware.core.lifecycle import Complete, Die, Retry
from hookware.env import Env, Wake
from hookware.events import AttemptSettled, Event, Events
from hookware.health import Health
from hookware.store.sql.executed import Ended
from hookware.supervisor import supervise

_SECONDS = 1.0


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
        self._write, self._env, self._events, self._health = write, env, events, health
        self._counts: dict[str, Ended] = {}
        self._wake = Wake()
        self._scope = anyio.CancelScope()
        events.subscribe(self._note)

    async def run(self) -> None:
        """Write the counts down until `stop()`."""
        with self._scope:
            await supervise("executed", self._write_forever, env=self._env, events=self._events, health=self._health)

    def stop(self) -> None:
        """End; what is counted meanwhile is written down by `close()`."""
        self._scope.cancel()

    async def close(self) -> None:
        """Count no more, and write down what is left."""
        self._events.unsubscribe(self._note)
        try:
            await self._flush()
        except Exception as error:  # noqa: BLE001 - whatever a database can raise; they are only counts
            self._health.failed("executed", error)

    def _note(self, event: Event) -> None:
        match event:
            case AttemptSettled(task=task, decision=Complete(), accepted=True):
                self._count(task.queue_name, Ended(completed=1))
            case AttemptSettled(task=task, decision=Retry(), accepted=True):
                self._count(task.queue_name, Ended(failed=1))
            case AttemptSettled(task=task, decision=Die(), accepted=True):
                self._count(task.queue_name, Ended(dead=1))
            case _:
                pass  # what was given back has not ended

    def _count(self, queue_name: str, ended: Ended) -> None:
        self._counts[queue_name] = self._counts.get(queue_name, Ended()).plus(ended)
        self._wake.notify()

    async def _write_forever(self) -> None:
        while True:
            await self._wake.wait(math.inf)
            await self._env.sleep(_SECONDS)
            await self._flush()
            self._health.worked("executed")

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
