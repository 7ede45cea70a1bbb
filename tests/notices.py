"""Notices without a database, for tests: what is sent is counted, and what is heard is up to the test."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from hookware.store.notices import Ear, Heard


class FakeEar:
    """Hears what a test says, until it is told to break."""

    def __init__(self) -> None:
        self._heard: set[Heard] = set()
        self._error: Exception | None = None
        self._something = anyio.Event()

    async def hear(self) -> frozenset[Heard]:
        await self._something.wait()
        self._something = anyio.Event()
        if self._error is not None:
            raise self._error
        heard, self._heard = self._heard, set()
        return frozenset(heard)

    def say(self, what: Heard) -> None:
        self._heard.add(what)
        self._something.set()

    def break_off(self, error: Exception) -> None:
        self._error = error
        self._something.set()


class FakeNotices:
    """Counts what is sent, and opens ears that get an echo if `echoes`."""

    def __init__(self, *, echoes: bool = True) -> None:
        self.echoes = echoes
        self.sent_count = 0
        self.ping_count = 0
        self.opened: list[FakeEar] = []
        self.open_count = 0
        self.before_send: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint
        self.before_open: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint

    @property
    def ear(self) -> FakeEar:
        return self.opened[-1]

    async def send(self) -> None:
        await self.before_send()
        self.sent_count += 1

    def send_blocking(self) -> None:
        self.sent_count += 1

    async def ping(self) -> None:
        self.ping_count += 1
        if self.echoes:
            self.ear.say(Heard.ECHO)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Ear]:
        await self.before_open()
        self.opened.append(FakeEar())
        self.open_count += 1
        try:
            yield self.ear
        finally:
            self.open_count -= 1

    def start_over(self) -> None:
        """Have nothing of another process."""


async def until(condition: Callable[[], object]) -> None:
    """Let others run until the condition holds."""
    with anyio.fail_after(10):
        while not condition():
            await anyio.lowlevel.checkpoint()
