"""The whole history of a site: what its processes wrote, and what the database and the clients add to it.

A process that is killed cannot write its last line any more. Whether a transaction committed is known by its row, and
which attempt completed a task by its effect.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from verification.checker import Findings, Limits, check
from verification.crash.site import Site
from verification.history import Line

EXACTLY_ONCE = frozenset({"/own", "/joined"})
"""The handlers that write in hookware's transaction."""


@dataclass(slots=True)
class Answers:
    """What the clients heard: how often, and the status by the order's key; None where nothing came back."""

    committed: dict[str, int | None] = field(default_factory=dict)
    undone: dict[str, int | None] = field(default_factory=dict)
    answered: int = 0


def judge(site: Site, answers: Answers, limits: Limits) -> Findings:
    """Let the checker read a site whose tasks have all run."""
    return check(evidence(site, answers), limits)


def evidence(site: Site, answers: Answers) -> list[Line]:
    """Give the history as the checker reads it."""
    lines, committed = site.lines(), committed_tasks(site)
    ended_at = {(line.task, line.fence): line.t for line in lines if line.ev == "end"}
    complete = [line for line in lines if line.ev == "settled" and line.outcome == "complete" and line.accepted]
    told = {line.task for line in complete}
    history: list[Line] = []
    for line in lines:
        match line.ev:
            case "joining" | "alone" if line.task in committed:
                history.append(replace(line, ev="committed"))
            case "joining":
                history.append(replace(line, ev="rolled_back"))
            case "start":
                history.append(replace(line, inside=line.url.partition("?")[0] in EXACTLY_ONCE))
            case "end" if line.outcome == "OperationalError":
                history.append(replace(line, outcome="conflict"))
            case "settled":
                history += _settled(line, ended_at)
            case _:
                history.append(line)
    history += _untold(site, lines, told)
    history += _answered(site, answers)
    return sorted(history, key=lambda line: line.t)


def committed_tasks(site: Site) -> set[int]:
    """Give the tasks whose transaction has committed, and those added on their own that nobody saw end but ran."""
    lines = site.lines()
    stored = {line.task for line in lines if line.ev == "stored"}
    alone = {line.task for line in lines if line.ev == "alone"}
    return set(site.orders().values()) | stored | (alone & {line.task for line in lines if line.ev == "start"})


def _settled(line: Line, ended_at: dict[tuple[int, int], float]) -> list[Line]:
    """Give a settlement its place: its line follows the commit, and the attempt that it allows may be faster."""
    if line.outcome in ("complete", "die") or not line.accepted:
        return [line]
    end = ended_at.get((line.task, line.fence))
    return [] if end is None or line.crashed else [replace(line, t=end)]


def _untold(site: Site, lines: list[Line], told: set[int]) -> Iterator[Line]:
    """Give the effects, and the ends of the tasks whose process died before it could tell."""
    runs = {(line.task, line.fence): line for line in lines if line.ev in ("start", "end")}
    by = {line.task: line.fence for line in lines if line.ev == "end" and line.outcome == "ok"}
    for task, fence in site.effect_fences():
        run = runs[task, fence]
        yield Line(ev="effect", t=run.t, node=run.node, task=task, fence=fence)
        by[task] = fence
    for task, fence in by.items():
        if task not in told:
            run = runs[task, fence]
            yield replace(run, ev="settled", outcome="complete", by_handler=True)
    dead = {line.task for line in lines if line.ev == "settled" and line.outcome == "die"}
    last = lines[-1].t if lines else 0.0
    for task in site.dead_tasks():
        if task not in dead:
            yield Line(ev="settled", t=last, task=task, fence=10**18, outcome="die")


def _answered(site: Site, answers: Answers) -> Iterator[Line]:
    orders = site.orders()
    for asked, statuses in (("commit", answers.committed), ("undo", answers.undone)):
        for key, status in statuses.items():
            yield Line(ev="answered", t=0.0, name=key, outcome=asked, status=status, kept=key in orders)
