"""Values as they are typed on a command line, and as they are shown."""

import re
from datetime import datetime
from typing import Final

_SPAN: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|min|m|h|d)?", re.ASCII)
_UNITS_US: Final = {"ms": 1000, "s": 1_000_000, "m": 60_000_000, "min": 60_000_000, "h": 3_600_000_000}
_DAY_US: Final = 86_400_000_000


def span_us(text: str) -> int:
    """Give the microseconds of a span of time, "90", "90s", "10min", "2h", "1d"; without a unit: seconds.

    Raises:
        ValueError: it is none.
    """
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text[:50]!r} is no span of time: write a number and s, min, h or d, such as 10min")
    return round(float(found[1]) * ({**_UNITS_US, "d": _DAY_US}[found[2] or "s"]))


def moment_of(text: str) -> datetime:
    """Give the moment of a text in ISO 8601; without a time zone it is local time.

    Raises:
        ValueError: it is none.
    """
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:50]!r} is no time: write it like 2026-12-24T18:00+01:00") from None


def rate_text(rate: float | None) -> str | None:
    """Write a rate as people set it."""
    if rate is None:
        return None
    for seconds, unit in ((1, "s"), (60, "m"), (3600, "h"), (86_400, "d")):
        if rate * seconds >= 1:
            return f"{rate * seconds:.4g}/{unit}"
    return "0" if rate == 0 else f"{rate * 86_400:.4g}/d"
