"""One task from its commit to its end, followed line by line."""

from collections.abc import Callable, Iterator, Sequence

from verification.checker.findings import Complaint, Limits
from verification.checker.nodes import SLOW_CALLS, STEPS_SECONDS, Nodes
from verification.history import Line

_Broken = Iterator[tuple[str, str]]
"""Which invariant, and how."""

_ROUNDING = 1e-5


class Life:
    """Checks the lines of one task."""

    def __init__(self, task: int, lines: Sequence[Line], nodes: Nodes, limits: Limits) -> None:
        self._task, self._lines, self._nodes, self._limits = task, lines, nodes, limits
        self._claims = {line.fence: line for line in lines if line.ev == "claimed"}
        self._effects = [line for line in lines if line.ev == "effect"]
        self._checks: dict[str, Callable[[Line], _Broken]] = {
            "committed": self._on_committed,
            "rolled_back": self._on_rolled_back,
            "claimed": self._on_claimed,
            "renewed": self._on_renewed,
            "start": self._on_start,
            "end": self._on_end,
            "settled": self._on_settled,
            "dropped": self._on_dropped,
            "meddled": self._on_meddled,
        }
        self._committed: Line | None = None
        self._rolled_back = False
        self._inside = False
        # By the database's clock: when it may run, since when it could be claimed, how long its lease is good.
        self._due = 0.0
        self._waiting_since: float | None = None
        self._lease_until = 0.0
        self._fence = 0
        self._started: dict[int, Line] = {}
        self._ended: dict[int, Line] = {}
        self._ok: set[int] = set()
        self._conflicted: set[int] = set()
        self._settled: dict[int, Line] = {}
        self._crash_count = 0
        self._final: Line | None = None

    def check(self) -> Iterator[Complaint]:
        """Give everything that is wrong with this life."""
        for line in self._lines:
            check = self._checks.get(line.ev)
            for invariant, text in () if check is None else check(line):
                yield Complaint(invariant, self._task, f"{text} at {line.t:.3f} on {line.node}")
        if self._limits.finished:
            for invariant, text in self._at_the_end():
                yield Complaint(invariant, self._task, text)

    # Committed, claimed.

    def _on_committed(self, line: Line) -> _Broken:
        if self._rolled_back:
            yield "I2", "it is there although its transaction rolled back"
        self._committed = line
        self._inside = line.inside
        self._due = self._nodes.database(line.t) if line.eta is None else line.eta
        self._waiting_since = line.t

    def _on_rolled_back(self, _line: Line) -> _Broken:
        self._rolled_back = True
        if self._started or self._committed is not None:
            yield "I2", "it is there, or ran, although its transaction rolled back"

    def _on_claimed(self, line: Line) -> _Broken:
        if line.fence <= self._fence:
            yield "I5", f"the fence went from {self._fence} to {line.fence}"
        if self._fence and self._fence not in self._settled:
            yield "I4", f"claimed while the lease with fence {self._fence} was not settled"
        if self._final is not None:
            yield "I6", "claimed after its end"
        yield from self._check_due(line, "claimed")
        if line.until > self._nodes.database(line.t) + self._limits.lease + STEPS_SECONDS:
            yield "I17", f"leased until {line.until:.3f}, which is longer than a lease"
        yield from self._check_attempt(line)
        yield from self._check_wait(line)
        self._fence = max(self._fence, line.fence)
        self._lease_until = line.until

    def _on_renewed(self, line: Line) -> _Broken:
        claim = self._claims.get(line.fence)
        if line.fence in self._settled:
            yield "I5", f"the lease of fence {line.fence} was renewed after its end"
        elif claim is not None and claim.node != line.node:
            yield "I5", f"the lease of fence {line.fence} was renewed by another than {claim.node}"
        if line.fence == self._fence:
            self._lease_until = line.until

    def _check_due(self, line: Line, what: str) -> _Broken:
        early = self._due - self._nodes.database(line.t)
        if early > _ROUNDING:
            yield "I3", f"{what} {early:.3f} s before it was due"

    def _check_wait(self, line: Line) -> _Broken:
        """Check that without faults what is due is claimed soon."""
        nodes, since = self._nodes, self._waiting_since
        self._waiting_since = None
        if nodes.quiet is None or since is None:
            return
        due = self._due - (nodes.database(line.t) - line.t)
        if (waited := line.t - max(since, due, nodes.calm_from)) > self._limits.claim:
            yield "I18", f"it was due and nothing was wrong, but it waited {waited:.1f} s for its claim"

    # Started, ended.

    def _on_start(self, line: Line) -> _Broken:
        fence = line.fence
        self._inside = self._inside or line.inside
        if self._rolled_back or self._committed is None:
            yield "I2", "it ran although its transaction did not commit"
        if fence in self._started and fence not in self._conflicted:
            yield "I4", f"two runs under fence {fence}"
        self._started.setdefault(fence, line)
        self._conflicted.discard(fence)
        if fence in self._settled:
            return  # frozen between claim and start: the fence will refuse its result
        if fence not in self._claims:  # else the claim was in time: the clock may have been set back since
            yield from self._check_due(line, "started")
        if fence < self._fence:
            yield "I4", f"started under fence {fence} while {self._fence} was given out"
        if self._final is not None:
            yield "I6", "started after its end"
        if line.mangled:
            yield "I21", "it did not arrive as it was sent"
        yield from self._check_attempt(line)
        yield from self._check_lease(line)
        yield from self._check_promise(line)

    def _check_lease(self, line: Line) -> _Broken:
        """Check that half of a lease is left when a task begins on it: a node can see that its calls take long."""
        claim, nodes = self._claims.get(line.fence), self._nodes
        if claim is None or not claim.until or line.fence != self._fence:
            return
        left = self._lease_until - nodes.database(line.t)
        if left >= self._limits.lease / 2 or nodes.blocked(claim.node, claim.t, line.t):
            return
        if not nodes.disturbed(claim.node, claim.t, line.t, besides=SLOW_CALLS):
            yield "I15", f"started with {left:.1f} s left of its lease"

    def _check_promise(self, line: Line) -> _Broken:
        committed = self._committed
        if committed is None or not committed.within or len(self._started) > 1:
            return
        due = max(committed.t, self._due - (self._nodes.database(line.t) - line.t))
        if line.t > due + committed.within:
            yield "I19", f"promised within {committed.within:.1f} s, but it began after {line.t - due:.1f} s"

    def _check_attempt(self, line: Line) -> _Broken:
        counted = [each for each in self._settled.values() if each.outcome != "release" and each.fence < line.fence]
        if self._claims and line.attempt != 1 + len(counted):
            yield "I13", f"attempt {line.attempt} under fence {line.fence}, {1 + len(counted)} expected"

    def _on_end(self, line: Line) -> _Broken:
        if line.fence not in self._started:
            yield "I7", "an end without a start"
        self._ended[line.fence] = line
        if line.outcome == "ok":
            self._ok.add(line.fence)
        elif line.outcome == "conflict":
            self._conflicted.add(line.fence)

    # Settled.

    def _on_settled(self, line: Line) -> _Broken:
        if not line.accepted:
            return
        fence, outcome = line.fence, line.outcome
        if fence in self._settled and not self._is_late_commit(line):
            yield "I5", f"two results accepted under fence {fence}"
        elif fence < self._fence:
            yield "I5", f"a result under fence {fence} was accepted after {self._fence} had been given out"
        if outcome == "complete" and not line.by_handler and fence not in self._ok:
            yield "I7", "success accepted, but no call under this fence returned without raising and with 2xx"
        if outcome == "complete" and not line.by_handler:
            yield from self._check_in_time(fence)
        if line.crashed:
            yield from self._on_crash(line)
        elif outcome in ("retry", "die"):
            yield from self._on_failure(line)
        self._settled[fence] = line
        self._waiting_since = line.t
        if outcome == "retry":
            self._due = self._due_after(line)
        elif outcome == "release" and line.due is not None:
            self._due = line.due  # one that is put off by its process, by a clock that may be set back
        elif outcome in ("complete", "die"):
            self._final = line

    def _is_late_commit(self, line: Line) -> bool:
        """Say whether a handler's own commit ends a task that was put back, and that nobody has begun anew."""
        ends_it = line.by_handler and line.outcome == "complete"
        return ends_it and line.fence == self._fence and self._settled[line.fence].outcome != "complete"

    def _check_in_time(self, fence: int) -> _Broken:
        claim, start, end = (each.get(fence) for each in (self._claims, self._started, self._ended))
        if claim is None or start is None or end is None:
            return
        if end.t - start.t > claim.deadline + STEPS_SECONDS:
            yield "I7", f"success accepted, but the call took {end.t - start.t:.3f} s of {claim.deadline:.0f}"

    def _due_after(self, retry: Line) -> float:
        if retry.due is not None:
            return retry.due
        # The store's own word is not known: the wait counts from the attempt's end, a little earlier.
        return self._nodes.database(self._ended.get(retry.fence, retry).t) + retry.delay

    def _on_failure(self, line: Line) -> _Broken:
        failures = [each for each in self._settled.values() if each.outcome == "retry" and not each.crashed]
        committed, count = self._committed, len(failures) + 1
        if committed is None or committed.backoff is None:
            return
        yield from self._check_counted(line)
        limit = committed.retry_limit
        exceeded = limit is not None and count > limit
        if exceeded != (line.outcome == "die") and line.reason != "permanent":
            yield "I12", f"failure {count} with a retry limit of {limit} was answered by {line.outcome}"
        end = self._ended.get(line.fence)
        if line.outcome == "die" or end is None:
            return
        earliest = self._nodes.database(end.t) + _backoff(committed.backoff, count) - self._nodes.set_back(end.t)
        if self._due_after(line) < earliest - _ROUNDING:
            yield "I11", f"failure {count}: due {earliest - self._due_after(line):.3f} s before its backoff is over"

    def _check_counted(self, line: Line) -> _Broken:
        """Check that the attempt which counts as failed was begun, and was not merely interrupted."""
        claim, start, end = (each.get(line.fence) for each in (self._claims, self._started, self._ended))
        if claim is None:
            return
        if start is None:
            yield "I13", "an attempt was counted that never began"
            return
        if end is None and self._nodes.killed.get(claim.node, line.t) < line.t:
            yield "I22", f"{claim.node} died under it, and no crash was counted"
            return
        until = line.t if end is None else end.t
        interrupted = end is None or end.outcome == "cancelled"
        in_time = until < start.t + claim.deadline - STEPS_SECONDS
        node = claim.node
        if (
            interrupted
            and in_time
            and not (self._nodes.disturbed(node, claim.t, until) or self._nodes.blocked(node, claim.t, until))
        ):
            yield "I13", "an attempt was counted that was only interrupted"

    def _on_crash(self, line: Line) -> _Broken:
        self._crash_count += 1
        limit = self._limits.crash_limit
        if (self._crash_count >= limit) != (line.outcome == "die"):
            yield "I22", f"crash {self._crash_count} of {limit} was answered by {line.outcome}"
        claim = self._claims.get(line.fence)
        if claim is None:
            return
        nodes, node = self._nodes, claim.node
        now = nodes.database(line.t) + nodes.set_back(line.t - 60)  # what has looked ended may do so no more
        if claim.until and now < self._lease_until - _ROUNDING and node not in nodes.killed:
            yield "I4", f"the lease of fence {line.fence} was taken from {node} {self._lease_until - now:.3f} s early"
        hard_end = claim.t + claim.deadline + self._limits.lease / 2
        if line.fence not in self._started and nodes.blocked(node, claim.t, line.t):
            return  # the answer to the claim waited behind the handler: nobody could renew
        # A claim that was long on its way is one of a node that is not well.
        if line.t < hard_end and not nodes.disturbed(node, claim.t - STEPS_SECONDS, line.t):
            yield "I4", f"the lease of fence {line.fence} was taken from {node}, which was well"

    def _on_meddled(self, _line: Line) -> _Broken:
        yield "I5", "the row of a running task was changed by somebody else"

    def _on_dropped(self, line: Line) -> _Broken:
        if self._started or self._claims:
            yield "I8", "dropped as a duplicate after it had been claimed"
        self._final = line

    # At the end.

    def _at_the_end(self) -> _Broken:
        nodes, final = self._nodes, self._final
        if self._committed is not None and final is None:
            yield "I1", "committed, but neither completed nor dead"
        if final is not None and final.ev == "settled" and nodes.quiet is not None:
            due = self._due - (nodes.database(final.t) - final.t)
            if final.t > max(nodes.calm_from, due) + self._limits.tail:
                yield "I18", f"it took until {final.t:.3f}, the faults had ended at {nodes.calm_from:.3f}"
        for claim in self._claims.values():
            yield from self._check_claim(claim)
        yield from self._check_effects()

    def _check_claim(self, claim: Line) -> _Broken:
        limits, nodes, fence, node = self._limits, self._nodes, claim.fence, claim.node
        started, settled = self._started.get(fence), self._settled.get(fence)
        if started is None and settled is None:
            yield "I15", f"claimed under fence {fence}, but neither started nor given back"
        if started is not None and started.t - claim.t > limits.begin and not self._excused(claim, started.t):
            yield "I15", f"claimed under fence {fence} at {claim.t:.3f}, started only at {started.t:.3f}"
        killed = nodes.killed.get(node)
        if killed is None or killed < claim.t:
            return
        latest = max(killed, nodes.calm_from) + limits.lease * 1.5 + limits.poll + limits.slack
        latest += nodes.set_back(claim.t)
        if settled is None or settled.t > latest:
            yield "I17", f"its node {node} died at {killed:.3f}, and the lease was not taken back by {latest:.3f}"

    def _excused(self, claim: Line, until: float) -> bool:
        # What a claim brings that was long on its way waits for a beat: its lease must surely be held. It may have been
        # sent just before a handler blocked the loop.
        nodes, since = self._nodes, claim.t - STEPS_SECONDS
        return nodes.disturbed(claim.node, since, until) or nodes.blocked(claim.node, since, until)

    def _check_effects(self) -> _Broken:
        if len(self._effects) > 1:
            yield "I27", f"{len(self._effects)} effects in hookware's transaction"
        completed = self._final is not None and self._final.outcome == "complete"
        if self._inside and completed and not self._effects:
            yield "I27", "completed, but its effect is not there"
        newest = max(self._started, default=0)
        for effect in self._effects:
            if effect.fence != newest:
                yield "I5", f"an effect under fence {effect.fence} was kept, the newest attempt has {newest}"
            if not completed:
                yield "I27", "its effect is there, but it is not completed"


def _backoff(options: Sequence[float], failure_count: int) -> float:
    """Give the wait after a failure: doubled so many times from the shortest on, then growing by the last step."""
    shortest, longest, doublings = options
    wait = shortest
    for failure in range(1, failure_count):
        wait = wait * 2 if failure <= doublings else wait + shortest * 2**doublings
    return min(wait, longest)
