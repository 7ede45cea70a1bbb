"""Calls that ended well more often than once: at least once is the promise, and each must have had a reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from verification.checker.nodes import Nodes
from verification.history import Line


def count_duplicates(lives: Mapping[int, Sequence[Line]], nodes: Nodes) -> Counter[str]:
    """Count the calls that ended well after another of their task had, by the fault that befell the earlier one.

    Tasks whose effect is in hookware's transaction are left out: what was rolled back there is no duplicate.
    """
    counts: Counter[str] = Counter()
    for life in lives.values():
        if any(line.inside for line in life):
            continue
        begun = {line.fence: line for line in life if line.ev == "start"}
        ended = [line for line in life if line.ev == "end" and line.outcome == "ok" and line.fence in begun]
        for earlier, later in pairwise(ended):
            counts[nodes.fault(earlier.node, begun[earlier.fence].t, max(earlier.t, begun[later.fence].t))] += 1
    return counts
