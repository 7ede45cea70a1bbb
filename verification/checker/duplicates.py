"""Calls that ended well more often than once: at least once is the promise, and each must have had a reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from verification.checker.nodes import STEPS_SECONDS, Nodes
from verification.history import Line


def count_duplicates(lives: Mapping[int, Sequence[Line]], nodes: Nodes) -> Counter[str]:
    """Count the calls that ended well in vain, by the fault that befell them before the next one began.

    Tasks whose effect is in hookware's transaction are left out: what was rolled back there is no duplicate.
    """
    counts: Counter[str] = Counter()
    for life in lives.values():
        if any(line.inside for line in life):
            continue
        begun = {line.fence: line for line in life if line.ev == "start"}
        deadlines = {line.fence: line.deadline for line in life if line.ev == "claimed"}
        ended = {line.fence: line for line in life if line.ev == "end" and line.outcome == "ok" and line.fence in begun}
        for fence, next_fence in pairwise(sorted(ended)):
            start, end = begun[fence], ended[fence]
            if end.t > start.t + deadlines.get(fence, float("inf")) - STEPS_SECONDS:
                counts["overdue"] += 1
            else:
                counts[nodes.fault(start.node, start.t, begun[next_fence].t)] += 1
    return counts
