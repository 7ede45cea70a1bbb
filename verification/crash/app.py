"""The app that the crash tests kill. Every step leaves a line in its history, which survives kill -9.

`recording` says which environment variables tell it what to do; CRASH_OPTIONS (JSON) goes to Hookware. An engine of
each kind has its routes in a module of its own; what no session is needed for is here.
"""

import importlib
import json
import os
import signal
import time

import anyio
from starlette.applications import Starlette

from hookware import Hookware, QueueSettings, TaskContext, task_handler
from hookware.core.retry import RetryOptions
from verification.crash.recording import attempt, database_url, env, history, note_settled


@task_handler("/outside")
async def outside(task: TaskContext, wait: float = 0, then: int = 0) -> None:
    """Have an effect where no transaction reaches: at least once. With `then` only the first attempt waits."""
    with attempt(task):
        await anyio.sleep(0 if then and task.attempt > 1 else wait)


@task_handler("/failing")
async def failing(task: TaskContext, wait: float = 0, then: int = 0) -> None:
    """Fail in the first `then` attempts."""
    with attempt(task):
        await anyio.sleep(wait)
        if task.attempt <= then:
            raise RuntimeError("asked for")


@task_handler("/blocking")
async def blocking(task: TaskContext, wait: float = 0, then: int = 0) -> None:
    """Block the event loop."""
    with attempt(task):
        time.sleep(wait)  # noqa: ASYNC251 - that is the fault


@task_handler("/poison")
async def poison(task: TaskContext, wait: float = 0, then: int = 0) -> None:
    """Take the process down."""
    with attempt(task):
        await anyio.sleep(wait)
        history.write("killed", why="poison")
        os.kill(os.getpid(), signal.SIGKILL)


_is_async = database_url()[0].get_dialect().is_async
_routes = importlib.import_module(f"verification.crash.{'async' if _is_async else 'sync'}_routes")

hookware = Hookware(
    Starlette(routes=_routes.ROUTES),
    engine=_routes.engine,
    env=env,
    queues=[QueueSettings(retry=RetryOptions(max_backoff_seconds=0.5))],
    **json.loads(os.environ.get("CRASH_OPTIONS", "{}")),
)
hookware.events.subscribe(note_settled)
