"""Tells other processes of tasks committed in this one: soon, but not once per task, and nobody waits for it."""

import math

import anyio

from hookware.env import Env, Wake
from hookware.health import Health
from hookware.store.notices import Notices

GAP_SECONDS = 0.01
"""The least time between two notices of one process: what is committed meanwhile is told by the next one."""

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 2.0


class Notifier:
    """Sends the notices of one process.

    Args:
        notices: where they go; None: nowhere, the others find the tasks by themselves.
        env: for the pauses.
        health: told when they cannot be sent.
        gap_seconds: the least time between two.
    """

    def __init__(
        self, notices: Notices | None, env: Env, health: Health | None = None, *, gap_seconds: float = GAP_SECONDS
    ) -> None:
        self._notices, self._env, self._gap_seconds = notices, env, gap_seconds
        self._health = health or Health(env)
        self._wake = Wake()
        self._owed = False
        # From the start to the end.
        self._scope = anyio.CancelScope()
        self._running = False
        self._ended = anyio.Event()

    def owe(self) -> None:
        """Note, from any thread, that tasks were committed here which this process means to run itself."""
        self._owed = True

    def left_over(self) -> None:
        """Tell the others, if tasks were committed here since they were last told: some are left for them."""
        if self._owed:
            self._owed = False
            self.notify()

    def notify(self) -> None:
        """Tell the others that there may be tasks for them, from any thread: at once, or with the next notice."""
        self._wake.notify()

    async def run(self) -> None:
        """Send notices until `close()`; what could not be sent is tried again."""
        if self._notices is None:
            return
        self._running = True
        try:
            with self._scope:
                await self._send_forever()
        finally:
            self._ended.set()

    async def close(self) -> None:
        """Send what is still to be told, and end."""
        self._scope.cancel()
        if self._running:
            await self._ended.wait()
        if await self._wake.wait(0):
            await self._send()

    async def _send_forever(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            await self._wake.wait(math.inf)
            if await self._send():
                pause = _FIRST_PAUSE_SECONDS
                await self._env.sleep(self._gap_seconds)
            else:
                self._wake.notify()
                await self._env.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _send(self) -> bool:
        if self._notices is None:
            return True
        try:
            await self._notices.send()
        except Exception as error:  # noqa: BLE001 - whatever a database can raise; the tasks are stored all the same
            self._health.failed("notifier", error)
            return False
        self._health.worked("notifier")
        return True
