"""The checker: reads what happened, line by line, and names every broken invariant.

A history is a list of lines in the order of time, each a dict; the simulator makes them, and processes that are
killed write them as JSON lines. Fields: `ev`, `t` (seconds by the database's clock), `node`, `task`, `fence`,
`attempt`, `outcome`. What a history does not tell (claims, kills) is not checked.

    committed     the task's transaction committed; `eta` where known
    rolled_back   it rolled back
    claimed       leased; `asked` and `got` of the claim
    start, end    the handler; `outcome` of an end: ok (2xx and returned), conflict, or anything else
    settled       the store's answer to a settle; `outcome` complete, retry, release or die, `accepted`, and
                  `crashed`, `delay`, `reason`, `by_handler` where they apply
    disturbed     the node was frozen, or the store failed it, until `until`
    blocked       a handler kept the node's event loop to itself, until `until`
    killed        the node is gone
    stop, stopped the node's shutdown; `calm` if nothing disturbed it
    quiet         no more faults from here on
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What was configured, in seconds, where the invariants depend on it."""

    lease: float = 30.0
    poll: float = 1.0
    shutdown: float = 15.0
    begin: float = 5.0
    tail: float = 600.0
    crash_limit: int = 3
    finished: bool = True
    slack: float = 6.0


def read_history(path: Path) -> list[Line]:
    """Read a history of JSON lines; a last line cut short by a kill is left out."""
    lines: list[Line] = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return sorted(lines, key=lambda line: float(line["t"]))


def check(history: Iterable[Line], limits: Limits) -> list[str]:
    """Name each broken invariant with the task and the time; an empty list is a clean run."""
    lines = list(history)
    lives: dict[Any, list[Line]] = defaultdict(list)
    for line in lines:
        if "task" in line:
            lives[line["task"]].append(line)
    nodes = _Nodes(lines)
    found = [complaint for task, life in lives.items() for complaint in _Life(task, life, nodes, limits).check()]
    return found + list(nodes.check_shutdowns(lives, limits))


class _Nodes:
    """What is known about the nodes: when they were frozen, failed by the store, killed and stopped."""

    def __init__(self, lines: list[Line]) -> None:
        self.killed = {line["node"]: float(line["t"]) for line in lines if line["ev"] == "killed"}
        self.quiet = next((float(line["t"]) for line in lines if line["ev"] == "quiet"), None)
        self._stops = {line["node"]: line for line in lines if line["ev"] == "stop"}
        self._stopped = {line["node"]: float(line["t"]) for line in lines if line["ev"] == "stopped"}
        self._spans: dict[tuple[str, Any], list[tuple[float, float]]] = defaultdict(list)
        for line in lines:
            if line["ev"] in ("disturbed", "blocked"):
                self._spans[line["ev"], line["node"]].append((float(line["t"]), float(line["until"])))

    @property
    def calm_from(self) -> float:
        """When the faults and what they had begun are over."""
        ends = [end for (event, _), spans in self._spans.items() if event == "disturbed" for _, end in spans]
        return max([self.quiet or 0.0, *ends])

    def disturbed(self, node: Any, since: float, until: float) -> bool:
        """Whether something from outside kept the node from its work in that time."""
        killed = self.killed.get(node, until) < until
        return killed or self._overlaps("disturbed", node, since, until)

    def blocked(self, node: Any, since: float, until: float) -> bool:
        """Whether a handler blocked the node's loop in that time; its heartbeat goes on."""
        return self._overlaps("blocked", node, since, until)

    def _overlaps(self, event: str, node: Any, since: float, until: float) -> bool:
        return any(begin <= until and end >= since for begin, end in self._spans[event, node])

    def check_shutdowns(self, lives: Mapping[Any, list[Line]], limits: Limits) -> Iterator[str]:
        for node, stop in self._stops.items():
            if not stop.get("calm"):
                continue
            stopped = self._stopped.get(node)
            if self.disturbed(node, stop["t"], float("inf") if stopped is None else stopped):
                continue
            if stopped is None or stopped - stop["t"] > limits.shutdown:
                yield f"I20 node {node}: its shutdown from {stop['t']:.3f} did not end in time ({stopped})"
                continue
            for task, life in lives.items():
                mine = {line["fence"] for line in life if line["ev"] == "claimed" and line["node"] == node}
                settled = {line["fence"] for line in life if _accepted(line) and line["t"] <= stopped}
                if mine - settled:
                    yield f"I20 node {node}: it left with the lease of task {task}, fences {sorted(mine - settled)}"


class _Life:
    """One task from its commit to its end, followed line by line."""

    def __init__(self, task: Any, lines: list[Line], nodes: _Nodes, limits: Limits) -> None:
        self._task, self._lines, self._nodes, self._limits = task, lines, nodes, limits
        self._claims = [line for line in lines if line["ev"] == "claimed"]
        self._due = 0.0
        self._committed: float | None = None
        self._rolled_back = False
        self._settled: dict[int, Line] = {}
        self._ok: set[int] = set()
        self._conflicted: set[int] = set()
        self._started: dict[int, Line] = {}
        self._fence = 0
        self._crash_count = 0
        self._final: Line | None = None

    def check(self) -> Iterator[str]:
        checks = {
            "committed": self._on_committed,
            "rolled_back": self._on_rolled_back,
            "claimed": self._on_claimed,
            "start": self._on_start,
            "end": self._on_end,
            "settled": self._on_settled,
        }
        for line in self._lines:
            for complaint in checks[line["ev"]](line):
                yield f"{complaint} (task {self._task} at {line['t']:.3f} on {line.get('node')})"
        for complaint in self._at_the_end():
            yield f"{complaint} (task {self._task})"

    def _on_committed(self, line: Line) -> Iterator[str]:
        self._committed = float(line["t"])
        self._due = float(line.get("eta", line["t"]))
        yield from ()

    def _on_rolled_back(self, _line: Line) -> Iterator[str]:
        self._rolled_back = True
        if self._started:
            yield "I2 it ran although its transaction rolled back"

    def _on_claimed(self, line: Line) -> Iterator[str]:
        fence = line["fence"]
        if fence <= self._fence:
            yield f"I5 the fence went from {self._fence} to {fence}"
        if self._fence and self._fence not in self._settled:
            yield f"I4 claimed while the lease with fence {self._fence} was not settled"
        if self._final is not None:
            yield "I6 claimed after its end"
        if line["t"] < self._due - 1e-6:
            yield f"I3 claimed {self._due - line['t']:.3f} s before it was due"
        if line["got"] > line["asked"]:
            yield f"I15 {line['got']} tasks claimed where {line['asked']} were asked"
        yield from self._check_attempt(line)
        self._fence = max(self._fence, fence)

    def _on_start(self, line: Line) -> Iterator[str]:
        fence = line["fence"]
        if self._rolled_back or self._committed is None:
            yield "I2 it ran although its transaction did not commit"
        if fence in self._started and fence not in self._conflicted:
            yield f"I4 two runs under fence {fence}"
        self._started[fence] = line
        self._conflicted.discard(fence)
        if fence in self._settled:
            return  # frozen between claim and start: the fence will refuse its result
        if line["t"] < self._due - 1e-6:
            yield f"I3 started {self._due - line['t']:.3f} s before it was due"
        if fence < self._fence:
            yield f"I4 started under fence {fence} while {self._fence} was given out"
        if self._final is not None:
            yield "I6 started after its end"
        yield from self._check_attempt(line)

    def _check_attempt(self, line: Line) -> Iterator[str]:
        counted = [settled for settled in self._settled.values() if settled["outcome"] != "release"]
        expected = 1 + sum(1 for settled in counted if settled["fence"] < line["fence"])
        if self._settles_are_known and line["attempt"] != expected:
            yield f"I13 attempt {line['attempt']} under fence {line['fence']}, {expected} expected"

    @property
    def _settles_are_known(self) -> bool:
        return bool(self._claims)

    def _on_end(self, line: Line) -> Iterator[str]:
        if line["fence"] not in self._started:
            yield "I7 an end without a start"
        if line["outcome"] == "ok":
            self._ok.add(line["fence"])
        elif line["outcome"] == "conflict":
            self._conflicted.add(line["fence"])

    def _on_settled(self, line: Line) -> Iterator[str]:
        if not line.get("accepted", True):
            return
        fence, outcome = line["fence"], line["outcome"]
        if fence in self._settled:
            yield f"I5 two results accepted under fence {fence}"
        elif fence < self._fence:
            yield f"I5 a result under fence {fence} was accepted after {self._fence} had been given out"
        if outcome == "complete" and not line.get("by_handler") and fence not in self._ok:
            yield "I7 success accepted, but no call under this fence returned without raising and with 2xx"
        if line.get("crashed"):
            yield from self._on_crash(line)
        self._settled[fence] = line
        if outcome == "retry":
            self._due = float(line["t"]) + float(line.get("delay", 0))
        elif outcome in ("complete", "die"):
            self._final = line

    def _on_crash(self, line: Line) -> Iterator[str]:
        self._crash_count += 1
        if (self._crash_count >= self._limits.crash_limit) != (line["outcome"] == "die"):
            yield f"I22 crash {self._crash_count} of {self._limits.crash_limit} was answered by {line['outcome']}"
        claim = next((claim for claim in self._claims if claim["fence"] == line["fence"]), None)
        if claim is None:
            return
        hard_end = claim["t"] + float(claim["deadline"]) + self._limits.lease / 2
        known = line["fence"] in self._started
        if not known and self._nodes.blocked(claim["node"], claim["t"], line["t"]):
            return  # the answer to the claim waited behind the handler: nobody could renew
        if line["t"] < hard_end and not self._nodes.disturbed(claim["node"], claim["t"], line["t"]):
            yield f"I4 the lease of fence {line['fence']} was taken from {claim['node']}, which was well"

    def _at_the_end(self) -> Iterator[str]:
        limits = self._limits
        quiet = None if self._nodes.quiet is None else self._nodes.calm_from
        if self._committed is not None and self._final is None and limits.finished:
            yield "I1 committed, but neither completed nor dead"
        if self._final is not None and quiet is not None and self._final["t"] > max(quiet, self._due) + limits.tail:
            yield f"I18 it took until {self._final['t']:.3f}, the faults had ended at {quiet:.3f}"
        for claim in self._claims:
            yield from self._check_claim(claim)

    def _check_claim(self, claim: Line) -> Iterator[str]:
        limits, fence, node = self._limits, claim["fence"], claim["node"]
        started, settled = self._started.get(fence), self._settled.get(fence)
        if started is None and settled is None and limits.finished:
            yield f"I15 claimed under fence {fence}, but neither started nor given back"
        first = next((float(s["t"]) for s in self._lines if s["ev"] == "start" and s["fence"] == fence), claim["t"])
        if first - claim["t"] > limits.begin and not self._nodes.disturbed(node, claim["t"], first):
            yield f"I15 claimed under fence {fence} at {claim['t']:.3f}, started only at {first:.3f}"
        killed = self._nodes.killed.get(node)
        if killed is None or killed < claim["t"]:
            return
        latest = max(killed, self._nodes.calm_from) + limits.lease * 1.5 + limits.poll + limits.slack
        if limits.finished and (settled is None or settled["t"] > latest):
            yield f"I17 its node {node} died at {killed:.3f}, and the lease was not taken back by {latest:.3f}"


def _accepted(line: Line) -> bool:
    return line["ev"] == "settled" and bool(line.get("accepted", True))
