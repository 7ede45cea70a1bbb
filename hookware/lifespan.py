"""The lifespan protocol with hookware's loops inside it.

The loops start when the app says that its start-up is complete, and have ended before the app hears of the
shutdown: its resources outlive the tasks that use them. An app without lifespan is answered for.
"""

import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import NoReturn

import anyio
from anyio.abc import TaskGroup
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hookware.errors import Error
from hookware.log import log_of

_logger = log_of()


async def fail_startup(error: Exception, receive: Receive, send: Send) -> NoReturn:
    """Tell the server that start-up failed, by the protocol's own word, and raise.

    Servers print the message and end; an exception alone makes some serve on without a lifespan. Starlette's
    TestClient waits for the exception.
    """
    await receive()
    if not isinstance(error, Error):
        _logger.error("hookware cannot start", exc_info=error)
    await send({"type": "lifespan.startup.failed", "message": f"hookware cannot start: {error}"})
    raise error


class Lifespan:
    """Runs one app's lifespan.

    Args:
        app: the app whose lifespan it is.
        prepare: checks and makes what the loops need; if it raises, the server is told that start-up failed.
        start: starts the loops in a task group.
        stop: ends them; nothing runs when it returns.
        close: gives everything back, after the app's own shutdown, which may still add tasks.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        prepare: Callable[[], Awaitable[None]],
        start: Callable[[TaskGroup], Awaitable[None]],
        stop: Callable[[], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._app, self._prepare, self._start, self._stop, self._close = app, prepare, start, stop, close
        self._asked = False
        self._started = False
        self._closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Play the protocol between server and app."""
        try:
            await self._prepare_or_fail(receive, send)
            error: BaseException | None = None
            async with anyio.create_task_group() as loops:
                try:
                    await self._run(loops, scope, receive, send)
                except (Exception, SystemExit, KeyboardInterrupt) as raised:  # noqa: BLE001 - it is raised below
                    error = raised  # not here, where the task group would wrap it
                await _safely(self._stop)
                loops.cancel_scope.cancel()  # handlers that ignored their cancellation get another one
            if error is not None:
                raise error
        except anyio.get_cancelled_exc_class():
            if not self._closed:
                raise
            # It was as good as over: hypercorn cancels what it takes for ended, and would log a traceback.
        finally:
            with anyio.CancelScope(shield=True):  # also when the server cancels the lifespan
                await self._end()

    async def _prepare_or_fail(self, receive: Receive, send: Send) -> None:
        try:
            await self._prepare()
        except Exception as error:  # noqa: BLE001 - it is raised again
            await fail_startup(error, receive, send)

    async def _run(self, loops: TaskGroup, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_for_app() -> Message:
            self._asked = True
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await _safely(self._stop)
            return message

        async def send_for_app(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._started = True
                await self._start(loops)
            elif message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self._end()  # servers end or cancel us once they have this: nothing may be left to do
            await send(message)

        try:
            await self._app(scope, receive_for_app, send_for_app)
        except Exception:
            if self._asked or self._started:
                raise
        if not self._asked and not self._started:
            await self._answer_for_app(loops, receive, send)

    async def _answer_for_app(self, loops: TaskGroup, receive: Receive, send: Send) -> None:
        """Play the app's part: it raised or returned without asking, so it has no lifespan."""
        await receive()
        await self._start(loops)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._end()
        await send({"type": "lifespan.shutdown.complete"})

    async def _end(self) -> None:
        await _safely(self._stop)
        if not self._closed:
            self._closed = True
            await _safely(self._close)


async def _safely(step: Callable[[], Awaitable[None]]) -> None:
    """Take a step of the shutdown; what goes wrong is no reason to keep the app from its own."""
    try:
        await step()
    except Exception:
        _logger.exception("hookware could not stop cleanly; what it held is given back when its lease ends")


def built_in_a_call() -> bool:
    """Say whether Starlette makes this layer just now, inside the server's first call of the app.

    An exception there would tell the server only that the app has no lifespan, and some serve on.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name != "build_middleware_stack":
        frame = frame.f_back
    return frame is not None
