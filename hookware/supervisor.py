"""Keeps the background loops alive: whatever one raises, it is reported, and the loop begins again."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio

from hookware.env import Env
from hookware.events import Events, LoopFailed
from hookware.health import Health

LONGEST_DELAY_SECONDS = 2.0
"""The longest wait after a failure."""

_FIRST_DELAY_SECONDS = 0.1
_SETTLED_SECONDS = 30.0


async def supervise(
    name: str, body: Callable[[], Awaitable[None]], *, env: Env, events: Events, health: Health
) -> None:
    """Run `body` until it returns; when it raises, tell it as `LoopFailed`, wait a little, and run it again.

    The wait doubles from 0.1 to 2 s while failures follow each other, with jitter: short enough to be back soon after
    the database. Cancellation passes through.
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
            with suppress(Exception):  # even an attribute of a foreign error may raise
                health.failed(name, error)
            events.emit(LoopFailed(name, error, pause))
        delay = min(delay * 2, LONGEST_DELAY_SECONDS)
        await env.sleep(pause)


def _holds_cancellation(error: BaseException) -> bool:
    return isinstance(error, BaseExceptionGroup) and error.subgroup(anyio.get_cancelled_exc_class()) is not None
