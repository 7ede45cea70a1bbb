"""The one checker: reads what happened, line by line, and names every broken invariant.

I1   every committed task ends completed or dead: nothing is lost
I2   nothing runs whose transaction rolled back
I3   no claim and no start before the ETA, nor before an attempt's end plus its backoff, by the database's clock
I4   one valid lease at a time, and nobody takes a valid one away
I5   the fence only grows; the result of an old lease is refused; no zombie's effect is kept
I6   nothing runs after an accepted success
I7   a success was a call that returned without raising and answered 2xx
I8   of the tasks with one name in one queue at most one runs, also as long as its tombstone stands
I11  a failed attempt's wait is at least what the formula of its retry options says
I12  a task is given up at its retry limit, and not before
I13  attempts are claims minus refunds; what was only interrupted, or never began, is refunded
I15  a claim gives no more than was asked, and what is claimed begins soon, on half of a lease at least, or goes back
I17  the task of a dead node is taken back within lease and poll
I18  without faults, what is due is claimed, whatever happened before
I19  on an idle system a committed task begins as soon as it was promised to, hint or no hint
I20  a node that was stopped ends in time and leaves no lease
I21  a task arrives as it was sent
I22  the crash that reaches the limit makes a task dead, and none before
I26  at the end no row is left that should not be
I27  an effect written in hookware's transaction is there exactly once
I28  what a client was told is true
I29  nobody waits by turning in circles

The other numbers are properties of one function or one answer, and are proved by the tests of those.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from verification.checker.duplicates import count_duplicates
from verification.checker.findings import Complaint, Findings, Limits
from verification.checker.life import Life
from verification.checker.names import check_names
from verification.checker.nodes import Nodes
from verification.history import Line

__all__ = ["Complaint", "Findings", "Limits", "check"]


def check(history: Iterable[Line], limits: Limits) -> Findings:
    """Read a history in the order of time, and say what it counts and which invariants it breaks."""
    lines = list(history)
    lives: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        if line.task:
            lives[line.task].append(line)
    nodes = Nodes(lines)
    complaints = [complaint for task, life in lives.items() for complaint in Life(task, life, nodes, limits).check()]
    complaints += nodes.check_shutdowns(lives, limits)
    complaints += check_names(lives, limits, nodes)
    complaints += _check_the_rest(lines)
    counts = Counter(line.ev for line in lines)
    duplicates = count_duplicates(lives, nodes)
    if limits.duplicates_have_causes and duplicates["none"]:
        complaints.append(
            Complaint("I6", 0, f"{duplicates['none']} calls that ended well were repeated without a cause")
        )
    return Findings(
        complaints=tuple(complaints),
        committed=counts["committed"],
        unknown=sum({line.ev for line in life} == {"alone"} for life in lives.values()),
        runs=counts["start"],
        effects=counts["effect"],
        dead=sum(any(_died(line) for line in life) for life in lives.values()),
        refused=sum(line.ev == "settled" and not line.accepted for line in lines),
        duplicates=duplicates,
        kills=Counter(line.why or "unknown" for line in lines if line.ev == "killed"),
    )


def _died(line: Line) -> bool:
    return line.ev == "settled" and line.outcome == "die" and line.accepted


def _check_the_rest(lines: Iterable[Line]) -> Iterator[Complaint]:
    for line in lines:
        if line.ev == "batch" and line.got > line.asked:
            yield Complaint("I15", 0, f"{line.got} tasks claimed at {line.t:.3f} where {line.asked} were asked")
        elif line.ev == "spun":
            yield Complaint("I29", 0, f"{line.node} turned in circles at {line.t:.3f}")
        elif line.ev == "left" and line.got:
            yield Complaint("I26", 0, f"{line.got} rows are left that should not be there")
        elif line.ev == "answered" and line.outcome == "commit" and line.status == 200 and not line.kept:
            yield Complaint("I28", 0, f"{line.name}: answered 200, but nothing was committed")
        elif line.ev == "answered" and line.outcome == "undo" and line.kept:
            yield Complaint("I28", 0, f"{line.name}: rolled back, but it is there")
