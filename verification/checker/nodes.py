"""What is known about the nodes and the clock: who was frozen, failed by the store, killed, stopped."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from verification.checker.findings import Complaint, Limits
from verification.history import Line

Node = int | str
Span = tuple[float, float, str]
"""From when, until when, and why."""

STEPS_SECONDS = 0.01
"""What a few steps of a program may take, between what it measures and what it writes down."""

SLOW_CALLS = frozenset({"slow line", "hung call", "hung statement"})
"""The disturbances that a node can see for itself: its own calls take long."""

_CLOCK_ECHO_SECONDS = 120.0
"""How long a step of the clock is felt: leases and renewals measured before it."""


class Nodes:
    """The surroundings of the tasks. An empty node in a line means all of them."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.killed = {line.node: line.t for line in lines if line.ev == "killed"}
        self.quiet = next((line.t for line in lines if line.ev == "quiet"), None)
        self._why = {line.node: line.why for line in lines if line.ev == "killed"}
        self._stops = {line.node: line for line in lines if line.ev == "stop"}
        self._stopped = {line.node: line.t for line in lines if line.ev == "stopped"}
        self._steps = [(line.t, line.by) for line in lines if line.ev == "clock"]
        self._spans: dict[tuple[str, Node], list[Span]] = defaultdict(list)
        for line in lines:
            if line.ev in ("disturbed", "blocked"):
                self._spans[line.ev, line.node].append((line.t, max(line.t, line.until), line.why))
        for t, _by in self._steps:
            self._spans["disturbed", ""].append((t, t + _CLOCK_ECHO_SECONDS, "clock"))
        spans = (span for (event, _), each in self._spans.items() if event == "disturbed" for span in each)
        self.calm_from = max([self.quiet or 0.0, *(end for _begin, end, why in spans if why != "clock")])
        """When the faults and what they had begun are over."""

    def database(self, t: float) -> float:
        """Give the database's time at `t`."""
        return t + sum(by for at, by in self._steps if at <= t)

    def furthest(self, since: float, until: float) -> float:
        """Give the latest time that the database's clock has shown in that time."""
        before_steps = [self.database(at) - by for at, by in self._steps if since <= at <= until]
        return max([self.database(until), *before_steps])

    def set_back(self, since: float) -> float:
        """How far the database's clock was set back after `since`, in all."""
        return -sum(by for at, by in self._steps if at >= since and by < 0)

    def disturbed(self, node: Node, since: float, until: float, *, besides: Collection[str] = ()) -> bool:
        """Whether something from outside kept the node from its work in that time, `besides` these reasons."""
        if self.killed.get(node, until) < until:
            return True
        return any(why not in besides for _begin, _end, why in self._overlapping("disturbed", node, since, until))

    def blocked(self, node: Node, since: float, until: float) -> bool:
        """Whether a handler blocked the node's loop in that time; its heartbeat goes on."""
        return any(self._overlapping("blocked", node, since, until))

    def fault(self, node: Node, since: float, until: float) -> str:
        """Name what befell the node in that time, the hardest blow first; "none" if nothing did."""
        if self.killed.get(node, float("inf")) <= until:  # noted just before it: a run may still begin meanwhile
            why = self._why[node]
            return "kill" if why in ("", "SIGKILL") else f"kill at {why}"
        for event in ("disturbed", "blocked"):
            for _begin, _end, why in self._overlapping(event, node, since, until):
                return why or event
        stop = self._stops.get(node)
        return "shutdown" if stop is not None and stop.t <= until else "none"

    def _overlapping(self, event: str, node: Node, since: float, until: float) -> Iterator[Span]:
        for whose in (node, ""):
            for span in self._spans.get((event, whose), ()):
                if span[0] <= until and span[1] >= since:
                    yield span

    def check_shutdowns(self, lives: Mapping[int, Sequence[Line]], limits: Limits) -> Iterator[Complaint]:
        """Check I20 of each node whose shutdown nothing disturbed."""
        for node, stop in self._stops.items():
            stopped = self._stopped.get(node)
            if not stop.calm or self.disturbed(node, stop.t, float("inf") if stopped is None else stopped):
                continue
            if stopped is None or stopped - stop.t > limits.shutdown:
                yield Complaint("I20", 0, f"{node}: its shutdown from {stop.t:.3f} did not end in time ({stopped})")
                continue
            for task, life in lives.items():
                mine = {line.fence for line in life if line.ev == "claimed" and line.node == node}
                settled = {line.fence for line in life if is_accepted(line) and line.t <= stopped}
                if mine - settled:
                    yield Complaint("I20", task, f"{node} left with its lease, fences {sorted(mine - settled)}")


def is_accepted(line: Line) -> bool:
    """Say whether this is a settlement that the fence let pass."""
    return line.ev == "settled" and line.accepted
