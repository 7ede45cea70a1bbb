"""Numbers as people read them: counts that stop somewhere, spans of time, and moments."""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

_SECOND_US: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


class Count(NamedTuple):
    """A count that was stopped where it would have cost too much: `number`, or `more` than that."""

    number: int
    more: bool = False

    def __str__(self) -> str:
        return f"more than {self.number:,}" if self.more else f"{self.number:,}"

    def plus(self, other: "Count") -> "Count":
        """Give both together."""
        return Count(self.number + other.number, self.more or other.more)


NONE: Final = Count(0)


def counted(found: int, cap: int) -> Count:
    """Give the count of something of which at most `cap` + 1 were looked at."""
    return Count(cap, more=True) if found > cap else Count(found)


def span(us: int) -> str:
    """Write a span of time in its largest units: "0.4 s", "12 s", "3 min 20 s", "2 d 4 h"; less than none as 0 s."""
    us = max(0, us)
    if us < 10 * _SECOND_US:
        return f"{us / _SECOND_US:.3g} s" if us < _SECOND_US else f"{us / _SECOND_US:.1f} s".replace(".0 s", " s")
    seconds = us // _SECOND_US
    for n, (size, unit) in enumerate(_UNITS):
        if seconds >= size:
            rest, below = seconds % size, _UNITS[n + 1 : n + 2]
            parts = [f"{seconds // size} {unit}"] + [f"{rest // s} {u}" for s, u in below if rest // s]
            return " ".join(parts)
    return "0 s"


def moment(us: int) -> str:
    """Write a moment: "2026-11-30 02:33:09 UTC"."""
    try:
        return (_EPOCH + timedelta(seconds=us // _SECOND_US)).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError):
        return "the end of time" if us > 0 else "the beginning of time"


def many(number: int | Count, one: str, more: str | None = None) -> str:
    """Write a count with its noun: "1 task", "3 tasks"."""
    given = number if isinstance(number, Count) else Count(number)
    return f"{given} {one if given == (1, False) else more or one + 's'}"
