"""Many deadlines, one timer: what is not over when its time has come is told so."""

from collections.abc import Callable

import anyio

from hookware.env import Env, Wake
from hookware.log import log_of

_logger = log_of()


class Alarms:
    """Calls actions when their time has come, unless they are cleared before; `run` is its loop.

    Nearly all are cleared: so setting and clearing one costs no more than an entry in a dictionary.
    """

    def __init__(self, env: Env) -> None:
        self._env = env
        self._set: dict[object, tuple[float, Callable[[], None]]] = {}
        self._wake = Wake()
        self._looks_at = float("inf")
        self._closed = False

    def set(self, key: object, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` in `seconds`, instead of what was set for `key` before."""
        at = self._env.monotonic() + seconds
        self._set[key] = (at, action)
        if at < self._looks_at:
            self._looks_at = at
            self._wake.notify()

    def clear(self, key: object) -> None:
        """Call nothing for `key`."""
        self._set.pop(key, None)

    def close(self) -> None:
        """Let `run` return."""
        self._closed = True
        self._wake.notify()

    async def run(self) -> None:
        """Call what is due until closed; not cancelled, for those that are cut short at the end wait for it."""
        with anyio.CancelScope(shield=True):
            while not self._closed:
                self._call_due()
                self._looks_at = min((at for at, _action in self._set.values()), default=float("inf"))
                await self._wake.wait(self._looks_at - self._env.monotonic())

    def _call_due(self) -> None:
        now = self._env.monotonic()
        for key, (at, action) in list(self._set.items()):
            if at <= now:
                self.clear(key)
                try:
                    action()
                except Exception:
                    _logger.exception("what follows a deadline failed")
