"""Keeps the background loops alive: whatever one raises, it is reported, and the loop begins again."""

from collections.abc import Awaitable, Callable

import anyio

from hookware.env import Env
from hookware.events import Events, LoopFailed

_FIRST_DELAY_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 10.0
_SETTLED_SECONDS = 30.0


class Health:
    """Whether the loops are well. A loop is well again when it has not failed for half a minute."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._failed_at: dict[str, float] = {}

    @property
    def ok(self) -> bool:
        """Whether every loop is well."""
        return not self.failing

    @property
    def failing(self) -> list[str]:
        """The names of the loops that are not well."""
        now = self._env.monotonic()
        return [name for name, failed_at in self._failed_at.items() if now - failed_at < _SETTLED_SECONDS]

    def report(self, loop: str) -> None:
        """Note that `loop` has just failed."""
        self._failed_at[loop] = self._env.monotonic()


async def supervise(
    name: str, body: Callable[[], Awaitable[None]], *, env: Env, events: Events, health: Health | None = None
) -> None:
    """Run `body` until it returns; when it raises, tell it as `LoopFailed`, wait a little, and run it again.

    The wait doubles from 0.1 to 10 s while failures follow each other, with jitter. Cancellation passes through.
    """
    delay = _FIRST_DELAY_SECONDS
    while True:
        began = env.monotonic()
        try:
            return await body()
        except (Exception, BaseExceptionGroup) as error:
            if _holds_cancellation(error):
                raise
            if env.monotonic() - began > _SETTLED_SECONDS:
                delay = _FIRST_DELAY_SECONDS
            pause = delay * (0.5 + env.random() / 2)
            if health is not None:
                health.report(name)
            events.emit(LoopFailed(name, error, pause))
        delay = min(delay * 2, _LONGEST_DELAY_SECONDS)
        await env.sleep(pause)


def _holds_cancellation(error: BaseException) -> bool:
    return isinstance(error, BaseExceptionGroup) and error.subgroup(anyio.get_cancelled_exc_class()) is not None
