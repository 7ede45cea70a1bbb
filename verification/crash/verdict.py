"""What a history and its database say once nothing runs any more: what was lost, what ran that never should have."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from verification.checker import Limits, check
from verification.crash.site import Site

EXACTLY_ONCE = frozenset({"/own", "/joined"})

_NEVER = ("lost", "ran_after_rollback", "duplicates_inside", "broken_answers", "dead", "zombies_accepted")


@dataclass(slots=True)
class Answers:
    """What the clients heard: how often, and the status by the order's key; None where nothing came back."""

    committed: dict[str, int | None] = field(default_factory=dict)
    undone: dict[str, int | None] = field(default_factory=dict)
    answered: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The figures of a run.

    Attributes:
        committed: tasks whose transaction is known to have committed.
        unknown: tasks added on their own that neither were known to be stored nor ran.
        effects: rows written by tasks, and runs to the end of those that write none.
        lost: committed tasks without an effect.
        ran_after_rollback: tasks that ran although their transaction was rolled back.
        duplicates_inside: effects too many where hookware promises exactly one.
        duplicates_outside: runs to the end too many of tasks whose effect is outside.
        broken_answers: orders answered 200 that are not there, or undone ones that are.
        dead: tasks given up.
        zombies_accepted: effects written under a fence older than another run's start.
        complaints: what the checker of all histories finds.
    """

    committed: int
    unknown: int
    effects: int
    lost: int
    ran_after_rollback: int
    duplicates_inside: int
    duplicates_outside: int
    broken_answers: int
    dead: int
    zombies_accepted: int
    complaints: list[str]

    def check(self) -> None:
        """Fail on everything that hookware promises never to do."""
        assert self.committed, "nothing was committed: the run proves nothing"
        broken = {name: count for name in _NEVER if (count := getattr(self, name))}
        assert not broken, broken
        assert not self.complaints, "\n".join(self.complaints)


def judge(site: Site, answers: Answers) -> Verdict:
    """Judge a site whose tasks have all run. A commit of which no answer came is decided by the order's row."""
    orders, effects, lines = site.orders(), site.effects(), site.lines()
    alone = {line.task for line in lines if line.ev == "alone"}
    started = {line.task for line in lines if line.ev == "start"}
    finished = Counter(line.task for line in lines if line.ev == "end" and line.outcome == "ok")
    urls = {line.task: line.url for line in lines if line.ev == "start"}
    committed = committed_tasks(site)
    runs = {task: effects.get(task, 0) if urls[task] in EXACTLY_ONCE else finished[task] for task in urls}
    inside = [count for task, count in runs.items() if urls[task] in EXACTLY_ONCE]
    outside = [count for task, count in runs.items() if urls[task] not in EXACTLY_ONCE]
    return Verdict(
        committed=len(committed),
        unknown=len(alone - committed),
        effects=sum(runs.values()),
        lost=sum(runs.get(task, 0) == 0 for task in committed),
        ran_after_rollback=len(started - committed),
        duplicates_inside=_surplus(inside),
        duplicates_outside=_surplus(outside),
        broken_answers=_broken(answers, orders),
        dead=int(site.rows("SELECT count(*) FROM hookware_task WHERE state = 2")[0][0]),
        zombies_accepted=_zombies(site),
        complaints=check(as_the_checker_reads(site), Limits()),
    )


def _surplus(counts: Iterable[int]) -> int:
    return sum(max(0, count - 1) for count in counts)


def _broken(answers: Answers, orders: dict[str, int]) -> int:
    lied = [key for key, status in answers.committed.items() if status == 200 and key not in orders]
    kept = [key for key in answers.undone if key in orders]
    return len(lied) + len(kept)


def _zombies(site: Site) -> int:
    """Count effects in the database of an attempt that was not the task's newest when it wrote."""
    newest: dict[int, int] = {}
    for line in site.lines("start"):
        newest[line.task] = max(newest.get(line.task, 0), line.fence)
    return sum(fence != newest[task] for task, fence in site.rows("SELECT task, fence FROM crash_effect"))


def as_the_checker_reads(site: Site) -> list[dict[str, Any]]:
    """Give the history as the checker wants it, with what a killed process could not write any more.

    Whether a transaction committed is known by its row, and which attempt completed the task by its effect.
    Settlements that only give a task back are left out: their lines may come later than the attempt they allow.
    """
    lines, committed = site.lines(), committed_tasks(site)
    completes = {(line.task, line.fence) for line in lines if line.ev == "settled" and line.outcome == "complete"}
    told = {task for task, _ in completes}
    by = {line.task: line.fence for line in lines if line.ev == "end" and line.outcome == "ok"}
    by |= dict(site.rows("SELECT task, fence FROM crash_effect"))
    runs = {(line.task, line.fence): line for line in lines if line.ev in ("start", "end")}
    untold = {runs[task, fence] for task, fence in by.items() if task not in told}
    history: list[dict[str, Any]] = []
    for line in lines:
        fields = asdict(line)
        match line.ev:
            case "joining" | "alone":
                history.append(fields | {"ev": "committed" if line.task in committed else "rolled_back"})
            case "start" | "end":
                conflict = {"outcome": "conflict"} if line.outcome == "OperationalError" else {}
                history.append(fields | conflict)
            case "settled" if (line.task, line.fence) in completes:
                history.append(fields)
        if line in untold:
            history.append(fields | {"ev": "settled", "outcome": "complete", "by_handler": True})
    return history


def committed_tasks(site: Site) -> set[int]:
    """Give the tasks whose transaction has committed, and those added on their own that nobody saw end but ran."""
    lines = site.lines()
    stored = {line.task for line in lines if line.ev == "stored"}
    alone = {line.task for line in lines if line.ev == "alone"}
    return set(site.orders().values()) | stored | (alone & {line.task for line in lines if line.ev == "start"})
