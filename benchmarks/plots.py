"""Bars as SVG, readable on a light page and on a dark one. Standard library only."""

from collections.abc import Mapping
from html import escape

from benchmarks.figures import short

_BAR, _GAP, _LEFT, _WIDTH, _RIGHT = 18, 8, 180, 420, 90
_OURS, _OTHERS, _TEXT = "#4051b5", "#9aa3ad", "#808a94"


def bars(title: str, values: Mapping[str, tuple[float, float, float]]) -> str:
    """Draw a bar for each median, with a line from the lowest to the highest round.

    Args:
        title: what is drawn.
        values: the lowest, the median and the highest of each system.
    """
    height = 30 + len(values) * (_BAR + _GAP)
    most = max((highest for _, _, highest in values.values()), default=0) or 1
    size = f"0 0 {_LEFT + _WIDTH + _RIGHT} {height}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" font-family="sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title>",
        f'<text x="0" y="16" font-weight="bold" fill="{_TEXT}">{escape(title)}</text>',
    ]
    for number, (name, (lowest, median, highest)) in enumerate(values.items()):
        top = 30 + number * (_BAR + _GAP)
        middle = top + _BAR / 2
        color = _OURS if name.startswith("hookware") else _OTHERS
        low, length, high = (_LEFT + _WIDTH * value / most for value in (lowest, median, highest))
        lines += [
            f'<text x="{_LEFT - 8}" y="{middle + 4.5}" text-anchor="end" fill="{_TEXT}">{escape(name)}</text>',
            f'<rect x="{_LEFT}" y="{top}" width="{length - _LEFT:.1f}" height="{_BAR}" fill="{color}"/>',
            f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="{_TEXT}" stroke-width="2"/>',
            f'<text x="{max(length, high) + 6:.1f}" y="{middle + 4.5}" fill="{_TEXT}">{short(median)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
