"""Asks the database something now and then, for people who must not wait, or be refused, while it is away."""

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
    """

    def __init__(self, ask: Callable[[], T], env: Env, *, good_for_seconds: float) -> None:
        self._ask, self._env, self._good_for_seconds = ask, env, good_for_seconds
        self._one = CapacityLimiter(1)
        self._asked_at = float("-inf")
        self._is_asking = False
        self._answer: T | None = None
        self.error: BaseException | None = None

    @property
    def answer(self) -> T | None:
        """The latest answer; None: there is none, or the latest question failed."""
        return self._answer

    async def wait(self) -> T | None:
        """Give an answer that is good, for which it may ask, and wait two seconds at most."""
        if self._is_due():
            with anyio.move_on_after(PATIENCE_SECONDS) as waiting:
                await to_thread.run_sync(self._put, limiter=self._one, abandon_on_cancel=True)
            if waiting.cancelled_caught:
                self._failed(TimeoutError(f"no answer within {PATIENCE_SECONDS:g} s"))
        return self._answer

    def now(self) -> T | None:
        """Give an answer without `await`: in an event loop the latest, and the next question is put in a thread."""
        if self._is_due():
            if in_event_loop():
                in_background(self._put, name="hookware asks")
            else:
                self._put()
        return self._answer

    def _is_due(self) -> bool:
        return self._env.monotonic() - self._asked_at >= self._good_for_seconds and not self._is_asking

    def _put(self) -> None:
        if not self._is_due():
            return  # another one has asked while this one waited
        self._is_asking = True
        try:
            answer = self._ask()
        except Exception as error:  # noqa: BLE001 - whatever a database can raise is the answer
            self._failed(error)
        else:
            self._answer, self.error = answer, None
        finally:
            self._asked_at = self._env.monotonic()
            self._is_asking = False

    def _failed(self, error: BaseException) -> None:
        self._answer, self.error = None, error
