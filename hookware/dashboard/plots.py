"""Plots of minutes as SVG paths: computed here, drawn by a template, told in a sentence to who cannot see them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hookware.core.amounts import many, moment, span
from hookware.core.statistics import Minutes

WIDTH: Final = 600
HEIGHT: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line, or the bars of one kind: `css` is its class, `path` what is drawn."""

    css: str
    label: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One plot: `top` is what its upper edge stands for, `text` all of it in a sentence."""

    name: str
    title: str
    top: str
    text: str
    series: tuple[Series, ...]
    first: str
    last: str
    is_empty: bool


def throughput(minutes: Sequence[Minutes]) -> Plot:
    """Draw what ended in each minute, completed, failed and dead on top of each other."""
    most = max((each.ended_count for each in minutes), default=0)
    kinds = (
        ("ok", "completed", [each.completed_count for each in minutes]),
        ("retry", "failed, to be tried again", [each.failed_count for each in minutes]),
        ("dead", "dead", [each.dead_count for each in minutes]),
    )
    series, below = [], [0] * len(minutes)
    for css, label, counts in kinds:
        series.append(Series(css=css, label=label, path=_bars(below, counts, most)))
        below = [low + count for low, count in zip(below, counts, strict=True)]
    busiest = max(minutes, key=lambda each: each.ended_count, default=None)
    when = f"; most in one minute: {busiest.ended_count:,}" if busiest and most else ""
    sums = ", ".join(f"{sum(counts):,} {label}" for _css, label, counts in kinds)
    return _plot("throughput", "Attempts per minute", f"{most:,}", f"{sums}{when}.", series, minutes, not most)


def latency(minutes: Sequence[Minutes]) -> Plot:
    """Draw how long attempts ran, and how long tasks waited when they were due."""
    kinds = (
        ("p50", "half of the attempts ran at most", [each.run.percentile_us(0.5) for each in minutes]),
        ("p95", "95 % of the attempts ran at most", [each.run.percentile_us(0.95) for each in minutes]),
        ("wait", "95 % of the tasks began at most so late", [each.wait.percentile_us(0.95) for each in minutes]),
    )
    most = max((us for _css, _label, values in kinds for us in values if us is not None), default=0)
    series = [Series(css=css, label=label, path=_line(values, most)) for css, label, values in kinds]
    worst = [(label, max((us for us in values if us is not None), default=None)) for _css, label, values in kinds]
    told = "; ".join(f"{label} {span(us)}" for label, us in worst if us is not None)
    text = f"At worst in one minute: {told}." if told else "No attempt ended."
    return _plot("latency", "Run time and delay", span(most), text, series, minutes, not most)


def errors(minutes: Sequence[Minutes]) -> Plot:
    """Draw how many attempts went wrong in each minute."""
    counts = [each.failed_count + each.dead_count for each in minutes]
    most = max(counts, default=0)
    series = [Series(css="dead", label="failed or dead", path=_bars([0] * len(counts), counts, most))]
    crashed_count = sum(each.crashed_count for each in minutes)
    text = f"{many(sum(counts), 'attempt')} failed; the process of {crashed_count:,} of them died."
    return _plot("errors", "Errors per minute", f"{most:,}", text, series, minutes, not most)


def _plot(
    name: str, title: str, top: str, text: str, series: Sequence[Series], minutes: Sequence[Minutes], is_empty: bool
) -> Plot:
    first, last = (moment(minutes[n].begin_us)[11:16] for n in (0, -1)) if minutes else ("", "")
    return Plot(
        name=name, title=title, top=top, text=text, series=tuple(series), first=first, last=last, is_empty=is_empty
    )


def _bars(below: Sequence[int], counts: Sequence[int], most: int) -> str:
    step = WIDTH / max(1, len(counts))
    wide = step * 0.8
    return "".join(
        f"M{n * step:.1f} {HEIGHT - low * HEIGHT / most:.1f}h{wide:.1f}v{-count * HEIGHT / most:.1f}h{-wide:.1f}z"
        for n, (low, count) in enumerate(zip(below, counts, strict=True))
        if count
    )


def _line(values: Sequence[int | None], most: int) -> str:
    """Draw a line through the minutes that have a value; one that stands alone is a short stroke."""
    step, path, pen_down = WIDTH / max(1, len(values)), "", False
    for n, value in enumerate(values):
        if value is None:
            pen_down = False
            continue
        y = HEIGHT - value * HEIGHT / max(1, most)
        path += f"L{(n + 0.5) * step:.1f} {y:.1f}" if pen_down else f"M{n * step:.1f} {y:.1f}h{step / 2:.1f}"
        pen_down = True
    return path
