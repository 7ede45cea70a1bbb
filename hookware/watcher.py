"""Sees by the file that somebody has written to SQLite, where nobody tells of tasks: then it asks what is due.

So tasks of other processes begin within a fifth of a second, and not at the next poll. Two system calls tell whether
the file has changed; the database is asked only if it has.
"""

from collections.abc import Hashable
from typing import Final

import anyio

from hookware.env import Env, Wake
from hookware.events import Events
from hookware.health import Health
from hookware.store.base import Store
from hookware.store.sql.still_file import StillFile
from hookware.supervisor import supervise

WATCH_SECONDS: Final = 0.2
"""How often it looks."""

_LOOKS: Final = 2  # a commit changes the file a moment before it can be seen in it


class Watcher:
    """Wakes a dispatcher when a file has changed, and a task is due.

    Args:
        file: what it looks at.
        store: what it asks then.
        wake: what is notified.
        env, events, health: those of the dispatcher.
    """

    def __init__(self, file: StillFile, store: Store, wake: Wake, *, env: Env, events: Events, health: Health) -> None:
        self._file, self._store, self._wake = file, store, wake
        self._env, self._events, self._health = env, events, health
        self._scope, self._changed = anyio.CancelScope(), Wake()
        self._last: Hashable = None

    async def run(self) -> None:
        """Watch until `stop()`."""
        looking = self._env.every(WATCH_SECONDS, self._see, name="hookware watcher")
        try:
            with self._scope:
                await supervise("watcher", self._watch, env=self._env, events=self._events, health=self._health)
        finally:
            looking.stop()

    def stop(self) -> None:
        """Look no more."""
        self._scope.cancel()

    def _see(self) -> None:
        seen = self._file.look().signature
        if seen != self._last:
            self._last = seen
            self._changed.notify()

    async def _watch(self) -> None:
        while True:
            await self._changed.wait(float("inf"))
            for _ in range(_LOOKS):
                if await self._store.next_due() == 0:
                    self._wake.notify()
                await self._env.sleep(WATCH_SECONDS)
            self._health.worked("watcher")
