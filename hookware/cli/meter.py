"""How far a long work is: one line that is written over on a terminal, and elsewhere a line every 5 seconds."""

from collections.abc import Callable
from typing import Final

from hookware.cli.printer import Printer
from hookware.core.amounts import Count

_WIDTH: Final = 20
_EVERY_SECONDS: Final = {True: 0.1, False: 5.0}


class Meter:
    """Shows progress on standard error.

    Args:
        name: what is done.
        total: to how many, as far as that was counted.
        printer: where it is shown.
        clock: seconds.
        begun_count: how many an earlier run has done.
    """

    def __init__(self, name: str, total: Count, printer: Printer, clock: Callable[[], float], begun_count: int) -> None:
        self._name, self._total, self._printer, self._clock = name, total, printer, clock
        self._begun_count = begun_count
        self._begun_at = self._shown_at = clock()
        self._last = ""

    def show(self, done_count: int, left_count: int = 0) -> None:
        """Say it, if it is time to."""
        now = self._clock()
        self._last = self._line(done_count, left_count, now)
        if now - self._shown_at >= _EVERY_SECONDS[self._printer.in_place]:
            self._shown_at = now
            self._write()

    def end(self) -> None:
        """Say the last of it."""
        if self._last and self._printer.in_place:
            self._write()
            self._printer.say("")

    def _write(self) -> None:
        if self._printer.in_place:
            self._printer.say_in_place(self._last)
        else:
            self._printer.say(self._last)

    def _line(self, done_count: int, left_count: int, now: float) -> str:
        seen = done_count + left_count
        per_second = (done_count - self._begun_count) / max(now - self._begun_at, 1e-3)
        parts = [self._name]
        if not self._total.more:
            most = max(self._total.number, seen, 1)
            filled = _WIDTH * seen // most
            parts += ["━" * filled + "╸" * (filled < _WIDTH) + " " * max(0, _WIDTH - filled - 1), f"{seen:,}/{most:,}"]
        else:
            parts.append(f"{seen:,} of {self._total}" if seen <= self._total.number else f"{seen:,}")
        if left_count:
            parts.append(f"left alone {left_count:,}")
        parts.append(f"{per_second:,.0f}/s")
        if not self._total.more and per_second > 0:
            minutes, seconds = divmod(int(max(0, self._total.number - seen) / per_second), 60)
            parts.append(f"eta {minutes}:{seconds:02}")
        return "  ".join(parts)
