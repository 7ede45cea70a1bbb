"""The signals that ask a process to end, counted.

The first one lets running tasks end for the drain time, the second one cuts them short; both give back what did not
end. The third one leaves at once, as SIGKILL does: then others take over what ran.
"""

import math
import os
import signal
from types import FrameType
from typing import Final

from hookware.env import Wake

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Takes SIGINT and SIGTERM. Their handlers are set explicitly, because process 1 of a container has no defaults.

    Args:
        is_awaited: somebody waits for the process to end by itself, so that its status tells of any signal; else the
            first one is the ordinary end, and its status is 0.

    Attributes:
        count: how many have come.
        heard: somebody waits for them; before that, the first one ends the process.
    """

    def __init__(self, *, is_awaited: bool) -> None:
        self.count = 0
        self.heard = False
        self._is_awaited = is_awaited
        self._number = 0
        self._wake = Wake()

    @property
    def status(self) -> int:
        """The exit status that tells of them: 128 and the signal's number, or 0."""
        return 128 + self._number if self.count > (0 if self._is_awaited else 1) else 0

    @property
    def name(self) -> str:
        """The name of the latest one."""
        return signal.Signals(self._number).name

    def install(self) -> None:
        """Take the signals from now on, whoever had them before."""
        for number in _SIGNALS:
            signal.signal(number, self._take)

    async def wait(self) -> None:
        """Wait for the next one."""
        await self._wake.wait(math.inf)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.count, self._number = self.count + 1, number
        if not self.heard:
            raise SystemExit(self.status)
        if self.count > 2:
            os._exit(self.status)
        self._wake.notify()
