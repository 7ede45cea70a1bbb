"""Asks the database something now and then, for people who must not wait, or be refused, while it is away."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread

from hookware.env import Env, in_background, in_event_loop

T = TypeVar("T")

PATIENCE_SECONDS = 2.0


class Asking(Generic[T]):
    """A question to the database, whose answer is good for a while.

    However many ask, it is put once in that time, and by one thread: where that hangs, nobody else waits for longer
    than two seconds, and no more threads are spent.

    Args:
        ask: asks, blocking its thread.
        env: for the clock.
        good_for_seconds: how long an answer is given again.

    Attributes:
        answer: the latest answer; None: there is none, or the latest question failed.
        error: why it failed.
    """

    def __init__(self, ask: Callable[[], T], env: Env, *, good_for_seconds: float) -> None:
        self._ask, self._env, self._good_for_seconds = ask, env, good_for_seconds
        self._one_thread = CapacityLimiter(1)
        self._asking = threading.Lock()
        self._asked_at = float("-inf")
        self.answer: T | None = None
        self.error: BaseException | None = None

    async def wait(self) -> T | None:
        """Give an answer that is good, for which it may ask, and wait two seconds at most."""
        if self._is_due():
            with anyio.move_on_after(PATIENCE_SECONDS) as waiting:
                await to_thread.run_sync(self._put, limiter=self._one_thread, abandon_on_cancel=True)
            if waiting.cancelled_caught:
                self._failed(TimeoutError(f"no answer within {PATIENCE_SECONDS:g} s"))
        return self.answer

    def now(self) -> T | None:
        """Give an answer without `await`: in an event loop the latest, and the next question is put in a thread."""
        if self._is_due():
            if not in_event_loop():
                self._put()
            elif not self._asking.locked():
                in_background(self._put, name="hookware asks")
        return self.answer

    def _is_due(self) -> bool:
        return self._env.monotonic() - self._asked_at >= self._good_for_seconds

    def _put(self) -> None:
        if not self._asking.acquire(timeout=PATIENCE_SECONDS):
            return
        try:
            if self._is_due():  # else another one has asked while this one waited
                self.answer, self.error = self._ask(), None
                self._asked_at = self._env.monotonic()
        except Exception as error:  # noqa: BLE001 - whatever a database can raise is the answer
            self._failed(error)
            self._asked_at = self._env.monotonic()
        finally:
            self._asking.release()

    def _failed(self, error: BaseException) -> None:
        self.answer, self.error = None, error
