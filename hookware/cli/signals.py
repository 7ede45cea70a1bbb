"""Ctrl-C between two steps of a long work, not within one: what was done is known then."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from hookware.env import Env, Wake

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SAME_SECONDS: Final = 1.0
"""Programs that pass a signal on, and the terminal itself, send one and the same twice."""


class Interruptions:
    """Counts the signals that ask to end; the second one ends the command at once."""

    def __init__(self) -> None:
        self.count = 0
        self._number = 0
        self._clock = Env().monotonic
        self._first_at = 0.0
        self._wake = Wake()

    @property
    def status(self) -> int:
        """The exit status that tells of them: 128 and the signal's number."""
        return 128 + self._number

    async def wait_for(self, seconds: float) -> None:
        """Wait so long, or until one comes."""
        await self._wake.wait(seconds)

    def take(self, number: int, _frame: FrameType | None) -> None:
        """Count one."""
        now = self._clock()
        if self.count and now - self._first_at < _SAME_SECONDS:
            return
        self.count, self._number = self.count + 1, number
        if self.count > 1:
            raise KeyboardInterrupt
        self._first_at = now
        self._wake.notify()


@contextmanager
def interruptible() -> Iterator[Interruptions]:
    """Take SIGINT and SIGTERM while this lasts; not in other threads than the main one, which gets none."""
    taken = Interruptions()
    if threading.current_thread() is not threading.main_thread():
        yield taken
        return
    before = [signal.signal(number, taken.take) for number in _SIGNALS]
    try:
        yield taken
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)
