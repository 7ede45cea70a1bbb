"""Templates: everything in them is escaped, and nothing undefined is written."""

from pathlib import Path
from typing import Any, Final

from hookware.core.amounts import Count, many, moment, span
from hookware.dashboard.plots import HEIGHT, WIDTH

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from jinja2.filters import FILTERS
except ImportError as error:
    raise ImportError('the dashboard needs jinja2: pip install "hookware[dashboard]"', name="jinja2") from error

_MOST_LINE: Final = 160
_NOTHING: Final = "\u2013"


class Pages:
    """Fills the templates of the package."""

    def __init__(self, version: str) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "moment": _moment, "span": _span, "line": _line, "number": _number, "quoted": FILTERS["urlencode"],
            "seconds": _seconds, "time": _time,
        }  # fmt: skip
        self._environment.globals |= {"many": many, "plot_width": WIDTH, "plot_height": HEIGHT, "version": version}

    def fill(self, template: str, values: dict[str, Any]) -> str:
        """Give a page."""
        return self._environment.get_template(template).render(values)


def _moment(us: int | None) -> str:
    return _NOTHING if us is None else moment(us)


def _time(at: Any) -> str:
    return _NOTHING if at is None else f"{at:%Y-%m-%d %H:%M:%S UTC}"


def _span(us: int | None) -> str:
    return _NOTHING if us is None else span(us)


def _seconds(seconds: float) -> str:
    return span(int(seconds * 1_000_000))


def _number(value: object) -> str:
    if isinstance(value, Count):
        return f"> {value.number:,}" if value.more else f"{value.number:,}"
    return _NOTHING if value is None else f"{value:,}"


def _line(text: str | None) -> str:
    """Give the first line of a text, cut."""
    first = next((line.strip() for line in (text or "").splitlines() if line.strip()), "")
    return first if len(first) <= _MOST_LINE else first[: _MOST_LINE - 1] + "…"
