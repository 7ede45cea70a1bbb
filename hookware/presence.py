"""Says that this process is alive, and how it is, every twenty seconds: nobody else could tell."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import anyio

from hookware.core.overview import BEAT_SECONDS
from hookware.health import Health
from hookware.owner import place_of
from hookware.store.sql import processes
from hookware.store.sql.outbox import Outbox
from hookware.supervisor import supervise


class Doing(NamedTuple):
    """What a process does: how many tasks it runs, and which queues it leaves alone for how many seconds."""

    running_count: int
    slowed: Mapping[str, float]


class Presence:
    """Beats from `run` until `stop`, and leaves at `close`.

    Args:
        outbox: where it is written down.
        owner: what the leases of this process say.
        health: told of failures and successes.
        doing: says what the process does; None: it runs no tasks.
    """

    def __init__(self, outbox: Outbox, owner: str, health: Health, doing: Callable[[], Doing] | None = None) -> None:
        self._outbox, self._owner, self._health, self._doing = outbox, owner, health, doing
        self._scope = anyio.CancelScope()
        self._ended: anyio.Event | None = None

    async def run(self) -> None:
        """Beat at once, and then every twenty seconds, with jitter, until `stop()`."""
        outbox, self._ended = self._outbox, anyio.Event()
        try:
            with self._scope:
                await supervise(
                    "presence", self._beat_forever, env=outbox.env, events=outbox.events, health=self._health
                )
        finally:
            self._ended.set()

    def stop(self) -> None:
        """Beat no more."""
        self._scope.cancel()

    async def close(self) -> None:
        """Leave in order."""
        self.stop()
        try:
            if self._ended is not None:
                await self._ended.wait()  # a beat that is on its way would write the row anew
            await self._outbox.runner.run(partial(processes.leave, owner=self._owner))
        except Exception as error:  # noqa: BLE001 - whatever a database can raise; others see that it is silent
            self._health.failed("presence", error)

    async def _beat_forever(self) -> None:
        env, runner, clock = self._outbox.env, self._outbox.runner, self._outbox.own_clock
        while True:
            await runner.run(partial(processes.beat, clock=clock, own_clock=env.now_us, present=self._self()))
            self._health.worked("presence")
            await env.sleep(BEAT_SECONDS * (0.9 + env.random() / 5))

    def _self(self) -> processes.Present:
        host, pid = place_of(self._owner)
        doing = Doing(0, {}) if self._doing is None else self._doing()
        return processes.Present(
            owner=self._owner,
            host=host,
            pid=pid,
            version=_version(),
            concurrency=self._outbox.config.concurrency,
            dispatches=self._doing is not None,
            running_count=doing.running_count,
            slowed_seconds=doing.slowed,
        )


def _version() -> str:
    # Not imported: everything else of the package would come with it.
    return str(vars(sys.modules["hookware"])["__version__"])
