"""An app without a server: its lifespan, from the start-up to a signal, or until no task is due."""

import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import anyio
from starlette.types import ASGIApp, Message, Scope

from hookware.env import Wake
from hookware.errors import describe
from hookware.events import AttemptSettled, Event
from hookware.log import log_of
from hookware.middleware import NOTICE_KEY, Hookware
from hookware.processing import Processing
from hookware.signals import Signals
from hookware.tally import Tally

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_LINGER_SECONDS = 1.0

_NO_HOOKWARE = (
    "the app has started, and no Hookware in it: nobody would run its tasks. Name the app that Hookware wraps, "
    "`app = Hookware(app, engine=engine)`, or add it to the outermost app, "
    "`app.add_middleware(Hookware, engine=engine)`"
)
_logger = log_of()


class Headless:
    """Runs the tasks of one app, once.

    Args:
        app: the app, with a Hookware around it or in it.
        signals: what ends it.
        drain: end by itself when no task is due and none runs here.
        leave: ends the process at once, with this status, where handlers go on for ever.
    """

    def __init__(
        self, app: ASGIApp, signals: Signals, *, drain: bool, leave: Callable[[int], NoReturn] = os._exit
    ) -> None:
        self._signals = signals
        self._drain = drain
        self._leave = leave
        self._found: list[Hookware] = []
        self._processing: list[Processing] = []
        self._tally = Tally()
        self._settled = Wake()
        self._end = anyio.Event()
        self._failed = False
        self._lifespan = _ServedLifespan(app, notice=self._take, on_started=self._look)

    @property
    def status(self) -> int:
        """The exit status: 0, or 1 after a failure, or what tells of signals."""
        return 1 if self._failed else self._signals.status

    async def run(self) -> str | None:
        """Start the app, wait for its end, and shut it down.

        Returns:
            Why it could not start; None if it did.
        """
        self._signals.heard = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._lifespan.run)
            refusal = await self._lifespan.start()
            if refusal is None and not self._processing:
                refusal = _NO_HOOKWARE
            tasks.start_soon(self._obey_signals)
            if refusal is None:
                tasks.start_soon(self._end_with_the_lifespan)
                if self._drain:
                    tasks.start_soon(self._end_when_drained)
                await self._end.wait()
            await self._stop()
            tasks.cancel_scope.cancel()
        self._failed = self._failed or refusal is not None
        return refusal

    def _take(self, hookware: Hookware) -> None:
        self._found.append(hookware)
        hookware.events.subscribe(self._note)

    def _look(self) -> None:
        self._processing = [each.processing for each in self._found if each.processing is not None]

    def _note(self, event: Event) -> None:
        self._tally.note(event)
        if isinstance(event, AttemptSettled):
            self._settled.notify()

    # What ends it.

    async def _obey_signals(self) -> None:
        while self._signals.count == 0:
            await self._signals.wait()
        _logger.info("hookware: %s, running tasks may end", self._signals.name)
        self._end.set()
        while self._signals.count == 1:
            await self._signals.wait()
        _logger.info("hookware: %s again, running tasks are cut short and given back", self._signals.name)
        for processing in self._processing:
            processing.cut_short()

    async def _end_with_the_lifespan(self) -> None:
        await self._lifespan.ended.wait()
        self._end.set()

    async def _end_when_drained(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not await self._is_drained():
            settled = await self._settled.wait(pause)
            pause = _FIRST_PAUSE_SECONDS if settled else min(pause * 2, _LONGEST_PAUSE_SECONDS)
        self._end.set()

    async def _is_drained(self) -> bool:
        try:
            for processing in self._processing:
                if not await processing.is_drained():
                    return False
        except Exception as error:  # noqa: BLE001 - the dispatcher meets it too, and tells
            _logger.debug("what is due is not known: %r", error)
            return False
        return True

    # Its end.

    async def _stop(self) -> None:
        complaint = await self._lifespan.stop()
        if complaint is not None:
            self._failed = True
            _logger.error("%s", complaint)
        if self._processing:
            _logger.info("hookware: ended, %s", self._tally)
        if await self._lifespan.has_ended(_LINGER_SECONDS):
            return
        # Handlers that ignore their cancellation. Their tasks were given back; Python would wait for their threads.
        _logger.error("handlers that do not end are left behind; their tasks will run again")
        logging.shutdown()
        sys.stdout.flush()
        self._leave(self.status)


class _ServedLifespan:
    """The server's part of the lifespan protocol."""

    def __init__(self, app: ASGIApp, *, notice: Callable[[Hookware], None], on_started: Callable[[], None]) -> None:
        self.ended = anyio.Event()
        self._app = app
        self._notice = notice
        self._on_started = on_started
        self._scope: anyio.CancelScope | None = None
        self._asked = 0
        self._shutdown = anyio.Event()
        self._answered = anyio.Event()
        self._started = False
        self._complaint: str | None = None
        self._raised: BaseException | None = None

    async def run(self) -> None:
        """Call the app, until it returns."""
        scope: Scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": {},
            NOTICE_KEY: self._notice,
        }
        try:
            with anyio.CancelScope() as self._scope:
                await self._app(scope, self._receive, self._send)
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - it is told as a complaint
            self._raised = error
        finally:
            self.ended.set()
            self._answered.set()

    async def start(self) -> str | None:
        """Wait until the app has started; or say why it has not."""
        await self._answered.wait()
        if self._started or self._complaint is not None:
            return self._complaint
        what = "it returned at once" if self._raised is None else describe(self._raised)
        return f"the app does not answer the lifespan protocol, by which a Hookware in it would start: {what}"

    async def stop(self) -> str | None:
        """Shut the app down, if it has started; say what went wrong."""
        if not self._started:
            return None
        if self.ended.is_set():
            return f"the app's lifespan has ended by itself: {self._ending}"
        self._answered = anyio.Event()
        self._shutdown.set()
        await self._answered.wait()
        if self._raised is not None and self._complaint is None:
            return f"the app's shutdown failed: {self._ending}"
        return self._complaint

    async def has_ended(self, seconds: float) -> bool:
        """Say whether the app returns within `seconds` by itself, or else within as many when it is cancelled."""
        for _ in range(2):
            with anyio.move_on_after(seconds):
                await self.ended.wait()
                return True
            if self._scope is not None:
                self._scope.cancel()
        return False

    @property
    def _ending(self) -> str:
        return "it returned" if self._raised is None else describe(self._raised)

    async def _receive(self) -> Message:
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        await self._shutdown.wait()
        if self._asked > 2:
            await anyio.sleep_forever()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._started = True
                self._on_started()
            case "lifespan.startup.failed":
                self._complaint = message.get("message") or "the app's start-up failed"
            case "lifespan.shutdown.failed":
                self._complaint = message.get("message") or "the app's shutdown failed"
        self._answered.set()
