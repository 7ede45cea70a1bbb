"""Runs an app's lifespan in a test as a server does, and waits for what the dispatcher reports."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.types import ASGIApp, Message

from hookware import Hookware
from hookware.env import Wake
from hookware.events import AttemptSettled, Event


class StartupFailedError(Exception):
    """The app said that its start-up failed; the message is its own."""


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[dict[str, Any]]:
    """Hold the app between start-up and shutdown; gives the lifespan's state."""
    to_app_send, to_app = anyio.create_memory_object_stream[Message](math.inf)
    from_app_send, from_app = anyio.create_memory_object_stream[Message](math.inf)
    scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    failed: list[str] = []

    async def send(message: Message) -> None:
        if message["type"] == "lifespan.startup.failed":
            failed.append(message.get("message", ""))
        await from_app_send.send(message)

    async def run() -> None:
        try:
            await app(scope, to_app.receive, send)
        except Exception:
            if not failed:  # what was said already need not be raised as well
                raise

    async with anyio.create_task_group() as group, to_app_send, to_app, from_app_send, from_app:
        group.start_soon(run)
        await to_app_send.send({"type": "lifespan.startup"})
        answer = await from_app.receive()
        if answer["type"] != "lifespan.startup.failed":
            yield scope["state"]
            await to_app_send.send({"type": "lifespan.shutdown"})
            answer = await from_app.receive()
            assert answer["type"] == "lifespan.shutdown.complete", answer
    if failed:
        raise StartupFailedError(failed[0])


class Recorder:
    """Keeps a Hookware's events, and waits for some."""

    def __init__(self, hookware: Hookware) -> None:
        self.events: list[Event] = []
        self._wake = Wake()
        hookware.events.subscribe(self._record)

    def _record(self, event: Event) -> None:
        self.events.append(event)
        self._wake.notify()

    @property
    def settled(self) -> list[AttemptSettled]:
        """The attempts that were settled so far, in order."""
        return [event for event in self.events if isinstance(event, AttemptSettled)]

    async def wait_settled(self, count: int, *, seconds: float = 30) -> list[AttemptSettled]:
        """Wait until `count` attempts are settled."""
        await self.wait(lambda: len(self.settled) >= count, seconds=seconds)
        return self.settled

    async def wait(self, condition: Callable[[], bool], *, seconds: float = 30) -> None:
        """Wait until the condition holds; it is asked again after each event."""
        with anyio.fail_after(seconds):
            while not condition():
                await self._wake.wait(seconds)
