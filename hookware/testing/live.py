"""Waiting for the dispatchers that run by themselves."""

from collections.abc import Sequence
from functools import partial

import anyio
import anyio.from_thread
import anyio.to_thread

from hookware.env import Env, is_running, runs_here
from hookware.loops import Loops
from hookware.processing import Processing
from hookware.testing.rehearsal import Rehearsal
from hookware.testing.report import Report

_MOST_SECONDS = 30.0
_PAUSE_SECONDS = 0.01


async def wait_until_done(rehearsal: Rehearsal, parts: Sequence[Loops]) -> Report:
    """Wait until no task is due and none runs; tell what has run in the test.

    Raises:
        TimeoutError: that has not come within half a minute.
        RuntimeError: the lifespan of an app does not run, and so no dispatcher.
    """
    env = Env()
    with anyio.fail_after(_MOST_SECONDS):
        while not all([await _is_done(part) for part in parts]):
            await env.sleep(_PAUSE_SECONDS)
    return rehearsal.lived(parts)


async def _is_done(part: Loops) -> bool:
    token, processing = part.token, part.processing
    if token is None or not is_running(token) or not isinstance(processing, Processing):
        raise RuntimeError(
            'nothing dispatches the tasks in mode="live": start the app\'s lifespan, `with TestClient(app)`, and leave '
            "dispatch=True"
        )
    if runs_here(token):
        return await processing.is_drained()
    return await anyio.to_thread.run_sync(partial(anyio.from_thread.run, processing.is_drained, token=token))
