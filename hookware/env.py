"""The one door for time, randomness, ids, threads and failpoints.

Everything else in the package takes an `Env`; a simulator or a test gives its own. A lint bars the other doors.
"""

import asyncio
import os
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import EventLoopToken, current_token

from hookware.log import log_of

_JOIN_SECONDS = 1.0
_NAMELESS = re.compile(r"(?:asyncio|uvloop|ThreadPoolExecutor-[0-9]+)_[0-9]+")
_ID_EPOCH_MS = 1_577_836_800_000  # 2020-01-01: 41 bits of milliseconds last until 2089
_logger = log_of("hookware.env")
_tasks: set["asyncio.Task[None]"] = set()


class Ticker(Protocol):
    """A step that is repeated in the background until it is stopped."""

    def stop(self) -> None:
        """Stop repeating; a step that is running is waited for, for a short time."""


class Env:
    """The real world. Subclass it to give a test or a simulation its own.

    Attributes:
        ahead_us: how far `now_us` is ahead of this host's clock, and with it the database's time: a test moves it.
        at_failpoint: called with the name of each failpoint that is passed.
    """

    ahead_us = 0
    at_failpoint: Callable[[str], None] | None = None

    def __init__(self) -> None:
        self._id_ms = 0
        self._start_over()

    def now_us(self) -> int:
        """Microseconds since the epoch by this host's clock."""
        return time.time_ns() // 1000 + self.ahead_us

    monotonic = staticmethod(time.monotonic)
    """Seconds by a clock that never steps. It is asked a dozen times for each task: not by way of a method."""

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        await anyio.sleep(seconds)

    def random(self) -> float:
        """Give a number in [0, 1)."""
        return random.random()  # noqa: S311 - jitter, not a secret

    def new_id(self) -> int:
        """Give a task id: 63 bits, never given before by this process or another, growing with time.

        41 bits of milliseconds, which every id moves on by at least one, and 22 random bits per process.
        """
        if self._pid != os.getpid():
            self._start_over()  # forked: the parent goes on with its own
        with self._id_lock:
            self._id_ms = max(self._id_ms + 1, self.now_us() // 1000 - _ID_EPOCH_MS)
            return (self._id_ms << 22) | self._id_node

    def new_token(self) -> str:
        """Give 128 random bits as hexadecimal digits."""
        return secrets.token_hex(16)

    def fp(self, name: str) -> None:
        """Pass the failpoint `name`. Nothing happens in production; a test may raise, wait or kill here."""
        if self.at_failpoint is not None:
            self.at_failpoint(name)

    def every(self, seconds: float, step: Callable[[], None], *, name: str) -> Ticker:
        """Repeat `step` every `seconds` in a thread of its own, whatever it raises."""
        return _ThreadTicker(seconds, step, name)

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self._id_lock = threading.Lock()
        self._id_node = secrets.randbits(22)


class _ThreadTicker:
    def __init__(self, seconds: float, step: Callable[[], None], name: str) -> None:
        self._stopped = threading.Event()
        self._seconds = seconds
        self._step = step
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=_JOIN_SECONDS)

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                self._step()
            except Exception:
                _logger.exception("%s failed; it is tried again in %.1f s", self._thread.name, self._seconds)


def in_background(step: Callable[[], None], *, name: str) -> None:
    """Do `step`, which must not raise, in a thread of its own that ends with the process."""
    threading.Thread(target=step, name=name, daemon=True).start()


def new_nonce(byte_count: int) -> bytes:
    """Give random bytes for cryptography: always real ones, also where a simulation has an `Env` of its own."""
    return secrets.token_bytes(byte_count)


def time_of_id(task_id: int) -> int:
    """Give the time at which `Env.new_id` gave an id, to the millisecond: microseconds since the epoch."""
    return ((task_id >> 22) + _ID_EPOCH_MS) * 1000


def runs_here(token: EventLoopToken) -> bool:
    """Say whether this code runs on that event loop's own thread, in the loop."""
    return in_event_loop() and current_token().native_token is token.native_token


def is_running(token: EventLoopToken) -> bool:
    """Say whether an event loop runs just now: asyncio's may stand still between two of the things that it runs."""
    native_says = getattr(token.native_token, "is_running", None)
    return native_says is None or bool(native_says())


def call_soon(token: EventLoopToken, function: Callable[[], object]) -> None:
    """Call a function on an event loop's thread, from any thread and without waiting.

    Raises:
        RuntimeError: the loop has ended.
    """
    native = token.native_token
    soon = getattr(native, "call_soon_threadsafe", None) or getattr(native, "run_sync_soon")  # noqa: B009 - typed as object
    soon(function)


def in_event_loop() -> bool:
    """Say whether this code runs on an event loop's own thread, which it must not block."""
    try:
        current_token()
    except RuntimeError:  # NoEventLoopError, or asyncio's own in a child that was forked in its loop
        return False
    return True


def in_event_loop_or_its_thread() -> bool:
    """Say whether this code runs under an event loop: in it, or in one of its worker threads."""
    return in_event_loop() or threading.current_thread() is not threading.main_thread()


def in_nameless_pool() -> bool:
    """Say whether this code runs in an event loop's default pool of threads, or another that got no name."""
    return _NAMELESS.fullmatch(threading.current_thread().name) is not None


def on_asyncio() -> bool:
    """Say whether the event loop that runs this is asyncio's, as an AsyncEngine needs it."""
    return hasattr(current_token().native_token, "call_soon_threadsafe")


def start_task(
    group: TaskGroup, coroutine: Coroutine[Any, Any, None], name: str, on_done: Callable[[], None] = lambda: None
) -> None:
    """Run a coroutine, which must not raise, in a task and a context of its own: nothing of the caller is seen in it.

    `group` is for other loops than asyncio's: there a plain task costs a fifth of one in a group. `on_done` is told of
    its end even where it never began: asyncio cancels a task that has not run yet without a word to its coroutine.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        group.create_task(_then(coroutine, on_done), name=name, context=Context())
        return

    def done(task: "asyncio.Task[None]") -> None:
        _tasks.discard(task)
        on_done()

    task = Context().run(loop.create_task, coroutine, name=name)
    _tasks.add(task)  # the loop itself would forget it
    task.add_done_callback(done)


async def _then(coroutine: Coroutine[Any, Any, None], on_done: Callable[[], None]) -> None:
    try:
        await coroutine
    finally:
        on_done()


def is_being_cancelled() -> bool:
    """Say whether this task was cancelled by asyncio's own `Task.cancel`."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # another loop than asyncio's
        return False
    return task is not None and task.cancelling() > 0


async def forget_cancellation() -> None:
    """Undo what was asked of this task by asyncio's own `Task.cancel`; it may raise that cancellation once more."""
    task = asyncio.current_task() if is_being_cancelled() else None
    if task is None:
        return
    while task.uncancel():
        pass
    await asyncio.sleep(0)  # what was asked and not raised yet is raised here, before the task can end by it


class Wake:
    """An event that any thread may set, and that one task of the event loop waits for."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None
        self._token: EventLoopToken | None = None
        self._pending = False

    def notify(self) -> None:
        """Wake the waiter, from any thread, without ever blocking; unheard notices are kept, as one."""
        if self._pending:
            return
        self._pending = True
        token = self._token
        if token is None:
            return
        try:
            call_soon(token, self._set)
        except RuntimeError:  # the loop has ended: nobody waits any more
            self._token = None

    async def wait(self, seconds: float) -> bool:
        """Wait for a notice, at most `seconds`; True if there was one."""
        self._token = current_token()
        self._event = anyio.Event()
        if not self._pending:
            with anyio.move_on_after(max(0.0, seconds)):
                await self._event.wait()
        self._event = None
        noticed = self._pending
        if noticed:  # else one that comes in this moment would be forgotten
            self._pending = False
        return noticed

    def _set(self) -> None:
        if self._event is not None:
            self._event.set()
