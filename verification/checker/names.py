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
    """The time in which a task had its name, by the database's clock."""

    task: int
    begin: float
    end: float


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
            reigns[key].append(_Reign(task=task, begin=nodes.database(begin), end=_end(life, limits, nodes)))
    for key, several in reigns.items():
        yield from _check_overlaps(key, several)
    for key, line in dropped:
        now = nodes.database(line.t)
        if not any(reign.begin <= now <= reign.end + _ROUNDING for reign in reigns[key] if reign.task != line.task):
            yield Complaint("I8", line.task, f"dropped as a duplicate, but nobody had the name {key} at {line.t:.3f}")


def _end(life: Sequence[Line], limits: Limits, nodes: Nodes) -> float:
    completed = next((line.t for line in life if is_accepted(line) and line.outcome == "complete"), None)
    return _FOREVER if completed is None else nodes.database(completed) + limits.tombstone


def _check_overlaps(key: tuple[str, str], reigns: list[_Reign]) -> Iterator[Complaint]:
    ordered = sorted(reigns, key=lambda reign: reign.begin)
    for before, after in pairwise(ordered):
        if after.begin < before.end - _ROUNDING:
            yield Complaint("I8", after.task, f"it runs as {key} at {after.begin:.3f}, which is task {before.task}'s")
