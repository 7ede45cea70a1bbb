"""Named tasks: at most one of a name is alive, and the name stays taken for the time of a tombstone."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from verification.checker.findings import Complaint, Limits
from verification.checker.nodes import Nodes, is_accepted
from verification.history import Line

_FOREVER = float("inf")
_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reign:
    """The time in which a task had its name, by the database's clock; `since` and `until` are by the true one."""

    task: int
    begin: float
    end: float
    since: float
    until: float


def check_names(lives: Mapping[int, Sequence[Line]], limits: Limits, nodes: Nodes) -> Iterator[Complaint]:
    """Check I8: no two reigns over one name overlap, and nobody loses a name that was free."""
    reigns: dict[tuple[str, str], list[_Reign]] = defaultdict(list)
    dropped: list[tuple[tuple[str, str], Line]] = []
    for task, life in lives.items():
        key = next(((line.queue, line.name) for line in life if line.name and line.ev == "committed"), None)
        if key is None:
            continue
        dropped += [(key, line) for line in life if line.ev == "dropped"]
        begin = next((line.t for line in life if line.ev in ("claimed", "start")), None)
        if begin is not None:
            end, until = _end(life, limits, nodes)
            reigns[key].append(_Reign(task=task, begin=nodes.database(begin), end=end, since=begin, until=until))
    for key, several in reigns.items():
        yield from _check_overlaps(key, several, nodes)
    for key, line in dropped:
        now = nodes.database(line.t)
        others = [reign for reign in reigns[key] if reign.task != line.task]
        # Its begin by the true time: the database's clock may have been set back since.
        if not any(reign.since <= line.t and now <= reign.end + _ROUNDING for reign in others):
            yield Complaint("I8", line.task, f"dropped as a duplicate, but nobody had the name {key} at {line.t:.3f}")


def _end(life: Sequence[Line], limits: Limits, nodes: Nodes) -> tuple[float, float]:
    completed = next((line.t for line in life if is_accepted(line) and line.outcome == "complete"), None)
    if completed is None:
        return _FOREVER, _FOREVER
    return nodes.database(completed) + limits.tombstone, completed


def _check_overlaps(key: tuple[str, str], reigns: list[_Reign], nodes: Nodes) -> Iterator[Complaint]:
    ordered = sorted(reigns, key=lambda reign: reign.since)
    for before, after in pairwise(ordered):
        # A tombstone that has ended once is gone, though the clock be set back later.
        if nodes.furthest(before.until, after.since) < before.end - _ROUNDING:
            yield Complaint("I8", after.task, f"it runs as {key} at {after.begin:.3f}, which is task {before.task}'s")
