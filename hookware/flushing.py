"""A loop that writes down what a process has gathered, some time after the first of it; else it waits."""

import math
from collections.abc import Awaitable, Callable

import anyio

from hookware.env import Env, Wake
from hookware.events import Events
from hookware.health import Health
from hookware.supervisor import supervise


class Flushing:
    """Calls `flush` once `seconds` after it was told that there is something, until `stop()`; and at `close()`.

    Args:
        name: the loop's name, for the log.
        seconds: how long to gather.
        flush: writes down what there is, and keeps it where that fails.
        env: for the pauses.
        events: told of failures.
        health: told of failures and successes.
    """

    def __init__(
        self,
        name: str,
        seconds: float,
        flush: Callable[[], Awaitable[None]],
        *,
        env: Env,
        events: Events,
        health: Health,
    ) -> None:
        self._name, self._seconds, self._flush = name, seconds, flush
        self._env, self._events, self._health = env, events, health
        self._wake = Wake()
        self._scope = anyio.CancelScope()

    def owe(self) -> None:
        """Note that there is something to write down; from any thread."""
        self._wake.notify()

    async def run(self) -> None:
        """Write down what there is until `stop()`."""
        with self._scope:
            await supervise(self._name, self._flush_forever, env=self._env, events=self._events, health=self._health)

    def stop(self) -> None:
        """End; what is gathered meanwhile is written down by `close()`."""
        self._scope.cancel()

    async def close(self) -> None:
        """Write down what is left."""
        try:
            await self._flush()
        except Exception as error:  # noqa: BLE001 - whatever a database can raise; what is gathered here is no task
            self._health.failed(self._name, error)

    async def _flush_forever(self) -> None:
        while True:
            await self._wake.wait(math.inf)
            await self._env.sleep(self._seconds)
            await self._flush()
            self._health.worked(self._name)
