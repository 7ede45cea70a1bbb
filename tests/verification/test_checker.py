"""The checker itself: a clean life passes, and every invariant has histories that break it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from verification.checker import Limits, check
from verification.history import History, Line, read_history

LIMITS = Limits(lease=30, poll=1, shutdown=15, begin=4, tail=100, tombstone=100, crash_limit=2)


def line(event: str, t: float, **fields: Any) -> Line:
    return Line(**{"ev": event, "t": t, "node": "n1", "task": 1, **fields})


def claimed(t: float, fence: int = 1, attempt: int = 1, **fields: Any) -> Line:
    return line("claimed", t, fence=fence, attempt=attempt, **{"deadline": 30.0, **fields})


def start(t: float, fence: int = 1, attempt: int = 1, **fields: Any) -> Line:
    return line("start", t, fence=fence, attempt=attempt, **fields)


def end(t: float, outcome: str = "ok", fence: int = 1) -> Line:
    return line("end", t, fence=fence, outcome=outcome)


def settled(t: float, outcome: str = "complete", fence: int = 1, **fields: Any) -> Line:
    return line("settled", t, fence=fence, outcome=outcome, **{"accepted": True, **fields})


def node_line(event: str, t: float, node: str = "n1", **fields: Any) -> Line:
    return Line(ev=event, t=t, node=node, **fields)


def success(t: float, fence: int, attempt: int) -> list[Line]:
    """Give a whole attempt that succeeds."""
    return [claimed(t, fence, attempt), start(t, fence, attempt), end(t + 1, fence=fence), settled(t + 2, fence=fence)]


COMMITTED = line("committed", 0.0, eta=1.0)
CRASHED = settled(100, "retry", crashed=True, delay=0)
CLEAN = [COMMITTED, claimed(1), start(1.1), end(2), settled(2.1)]
AGAIN = [claimed(110, 2, 2), start(110.1, 2, 2), end(111, fence=2), settled(112, fence=2)]

INSIDE = replace(COMMITTED, inside=True)
FORMULA = replace(COMMITTED, backoff=[2.0, 60.0, 1], retry_limit=3)
EFFECT = line("effect", 2.0, fence=1)


def named(task: int, t: float = 0.0) -> Line:
    return line("committed", t, task=task, queue="q", name="n")


LIVES: dict[str, list[Line]] = {
    "one run": CLEAN,
    "a claim whose answer came late, and the lease was renewed": [
        COMMITTED, claimed(1, until=31), node_line("disturbed", 1, until=17, why="hung call"),
        line("renewed", 17, fence=1, until=47), start(18), end(19), settled(20),
    ],
    "a retry after its wait": [
        COMMITTED, claimed(1), start(1), end(2, "raised"), settled(3, "retry", delay=7),
        *success(10, 2, 2),
    ],
    "retries after the waits of their formula": [
        FORMULA, claimed(1), start(1), end(2, "raised"), settled(2, "retry", due=4.0),
        claimed(4, 2, 2), start(4, 2, 2), end(5, "raised", 2), settled(5, "retry", 2, due=9.0),
        claimed(9, 3, 3), start(9, 3, 3), end(10, "raised", 3), settled(10, "retry", 3, due=18.0),
        claimed(18, 4, 4), start(18, 4, 4), end(19, "raised", 4), settled(19, "die", 4, reason="retries"),
    ],
    "a failure at the deadline": [
        FORMULA, claimed(1), start(1), end(31, "cancelled"), settled(31, "retry", due=33.0), *success(33, 2, 2),
    ],
    "a handler's own commit after its task was put back, and before it was begun anew": [
        INSIDE, claimed(1), start(1), CRASHED, EFFECT, settled(105, by_handler=True), end(105.1),
    ],
    "a release that refunds": [
        COMMITTED, claimed(1), start(1), end(2, "raised"), settled(3, "release"),
        *success(4, 2, 1),
    ],
    "a conflict run again under its fence": [
        COMMITTED, claimed(1), start(1), end(2, "conflict"), start(2), end(3), settled(4),
    ],
    "a completion by the handler that failed later": [
        COMMITTED, claimed(1), start(1), settled(2, by_handler=True), end(2, "raised"),
    ],
    "a zombie whose result is refused": [
        COMMITTED, claimed(1), start(1), CRASHED, *AGAIN, end(120), settled(121, accepted=False),
    ],
    "a zombie that was frozen before its start": [
        COMMITTED, claimed(1), node_line("disturbed", 2, until=150), CRASHED, *AGAIN, start(150), end(151),
        settled(152, accepted=False),
    ],
    "a lease of a killed node": [
        COMMITTED, claimed(1), start(1), node_line("killed", 2), settled(20, "retry", crashed=True, node="n2"),
        *success(21, 2, 2),
    ],
    "a rollback": [line("rolled_back", 0.0)],
    "a lease renewed until its node is killed": [
        COMMITTED, claimed(1, until=31), start(1), line("renewed", 20, fence=1, until=50), node_line("killed", 30),
        settled(51, "retry", crashed=True, node="n2"), *success(52, 2, 2),
    ],
    "a lease that ends when the clock is set forward": [
        COMMITTED, claimed(1, until=31), start(1), line("clock", 5, task=0, node="", by=60.0),
        settled(6, "retry", crashed=True, node="n2"), *success(7, 2, 2),
    ],
    "a clock that is set back between a claim and its start": [
        COMMITTED, claimed(1), line("clock", 1.05, task=0, node="", by=-0.5), start(1.1), end(2), settled(3),
    ],
    "a lease of a claim that was long on its way": [
        COMMITTED, node_line("disturbed", 1, until=3.999, why="slow line"), claimed(4, until=34),
        settled(35, "retry", crashed=True, node="n2"), *success(36, 2, 2),
    ],
    "a claim that was sent just before a handler blocked the loop": [
        COMMITTED, node_line("blocked", 1, until=20), claimed(20), start(27), end(28), settled(29),
    ],
    "a task that its process put off once the clock was set back": [
        replace(COMMITTED, eta=50.0), claimed(50), line("clock", 50.5, task=0, node="", by=-10.0),
        settled(51, "release", due=42.0), *success(53, 2, 1),
    ],
    "a name that is free again": [
        named(1), *CLEAN[1:], named(2, t=200), *(replace(each, task=2, t=each.t + 200) for each in CLEAN[1:]),
    ],
    "a name that was free before the clock was set back": [
        named(1), *CLEAN[1:], line("clock", 150, task=0, node="", by=-100.0), named(2, t=160),
        *(replace(each, task=2, t=each.t + 170) for each in CLEAN[1:]),
    ],
    "a duplicate that is dropped": [named(1), named(2), *CLEAN[1:], line("dropped", 3, task=2)],
    "a duplicate that is dropped once the clock is set back": [
        named(1), named(2), *CLEAN[1:], line("clock", 4, task=0, node="", by=-60.0), line("dropped", 5, task=2),
    ],
    "an effect": [INSIDE, claimed(1), start(1), end(2), EFFECT, settled(2.1, by_handler=True)],
    "a promise that is kept": [replace(COMMITTED, within=3.0), claimed(4), start(4), end(5), settled(6)],
    "answers that are true": [
        line("answered", 0, task=0, outcome="commit", status=200, kept=True),
        line("answered", 0, task=0, outcome="commit", status=None, kept=False),
        line("answered", 0, task=0, outcome="undo", status=500, kept=False), line("left", 9, task=0, got=0),
    ],
    "a calm shutdown": [*CLEAN, node_line("stop", 3, calm=True), node_line("stopped", 10)],
}  # fmt: skip

BROKEN: dict[str, tuple[str, list[Line]]] = {
    "never run": ("I1", [COMMITTED]),
    "still retrying at the end": ("I1", [COMMITTED, claimed(1), start(1), settled(2, "retry")]),
    "run after rollback": ("I2", [line("rolled_back", 0.0), start(1)]),
    "run before its transaction's end": ("I2", [start(1), line("rolled_back", 2.0)]),
    "claimed before its time": ("I3", [COMMITTED, claimed(0.5), start(1), end(2), settled(3)]),
    "started before its time": ("I3", [line("committed", 0.0, eta=5.0), start(4.9), end(6), settled(7)]),
    "retried before its wait": ("I3", [
        COMMITTED, claimed(1), start(1), settled(2, "retry", delay=7),
        claimed(8.9, 2, 2), start(9, 2, 2), end(9, fence=2), settled(10, fence=2),
    ]),
    "claimed while leased": ("I4", [COMMITTED, claimed(1), start(1), *success(2, 2, 1)]),
    "run twice under one fence": ("I4", [COMMITTED, claimed(1), start(1), start(2), end(3), settled(4)]),
    "taken from a node that was well": ("I4", [
        COMMITTED, claimed(1), start(1), settled(35, "retry", crashed=True, delay=0),
        *success(36, 2, 2),
    ]),
    "fence given out again": ("I5", [
        COMMITTED, claimed(1), start(1), end(1.5, "raised"), settled(2, "release"),
        claimed(3), settled(5, "release"), *success(6, 2, 1),
    ]),
    "zombie accepted": ("I5", [
        COMMITTED, claimed(1), start(1), CRASHED, claimed(110, 2, 2), start(110, 2, 2), end(112), settled(113),
    ]),
    "two results": ("I5", [*CLEAN, settled(3)]),
    "two commits of one handler": ("I5", [INSIDE, claimed(1), start(1), EFFECT, *[settled(2, by_handler=True)] * 2]),
    "a handler's own commit after its task was begun anew": ("I5", [
        INSIDE, claimed(1), start(1), CRASHED, claimed(110, 2, 2), start(110, 2, 2), EFFECT,
        settled(111, by_handler=True), end(111.1), end(112, fence=2),
    ]),
    "claimed after success": ("I6", [*CLEAN, claimed(5, 2, 2), settled(6, "release", fence=2)]),
    "run after success": ("I6", [COMMITTED, start(1), end(2), settled(2.1), start(3, 2, 2), end(4, fence=2)]),
    "success of a call that raised": ("I7", [COMMITTED, claimed(1), start(1), end(2, "raised"), settled(3)]),
    "success of a call that has not ended": ("I7", [COMMITTED, claimed(1), start(1), settled(3), end(4)]),
    "attempt not refunded": ("I13", [
        COMMITTED, claimed(1), settled(3, "release"), *success(4, 2, 2),
    ]),
    "attempt not counted": ("I13", [
        COMMITTED, claimed(1), start(1), settled(2, "retry"), *success(3, 2, 1),
    ]),
    "more than asked": ("I15", [*CLEAN, node_line("batch", 1, asked=1, got=2)]),
    "there although rolled back": ("I2", [COMMITTED, line("rolled_back", 1)]),
    "rolled back and there": ("I2", [line("rolled_back", 1), replace(COMMITTED, t=2)]),
    "due before its backoff is over": ("I11", [
        FORMULA, claimed(1), start(1), end(2, "raised"), settled(3, "retry", due=3.9), *success(4, 2, 2),
    ]),
    "due before its third backoff is over": ("I11", [
        FORMULA, claimed(1), start(1), end(2, "raised"), settled(2, "retry", due=4.0),
        claimed(4, 2, 2), start(4, 2, 2), end(5, "raised", 2), settled(5, "retry", 2, due=9.0),
        claimed(9, 3, 3), start(9, 3, 3), end(10, "raised", 3), settled(10, "retry", 3, due=17.9), *success(18, 4, 4),
    ]),
    "given up before its limit": ("I12", [
        FORMULA, claimed(1), start(1), end(2, "raised"), settled(3, "die", reason="retries"),
    ]),
    "not given up at its limit": ("I12", [
        replace(FORMULA, retry_limit=0), claimed(1), start(1), end(2, "raised"), settled(3, "retry", due=9.0),
        *success(9, 2, 2),
    ]),
    "counted although it never began": ("I13", [FORMULA, claimed(1), settled(3, "retry", due=9.0), *success(9, 2, 2)]),
    "counted although it was interrupted": ("I13", [
        FORMULA, claimed(1), start(1), end(3, "cancelled"), settled(3, "retry", due=9.0), *success(9, 2, 2),
    ]),
    "counted although it still runs": ("I13", [
        FORMULA, claimed(1), start(1), settled(3, "retry", due=9.0), *success(9, 2, 2),
    ]),
    "mangled": ("I21", [COMMITTED, claimed(1), start(1, mangled=True), end(2), settled(3)]),
    "begun before the time to which its process put it off": ("I3", [
        COMMITTED, claimed(1), settled(2, "release", due=9.0), *success(5, 2, 1),
    ]),
    "begun late": ("I15", [COMMITTED, claimed(1), start(6), end(7), settled(8)]),
    "begun at the end of its lease": ("I15", [
        COMMITTED, claimed(1, until=31), node_line("disturbed", 1, until=17, why="hung call"), start(17), end(18),
        settled(19),
    ]),
    "claimed and forgotten": ("I15", [*CLEAN[:1], claimed(1)]),
    "lease of the dead kept": ("I17", [
        COMMITTED, claimed(1), start(1), node_line("killed", 2), settled(60, "retry", crashed=True, node="n2"),
        *success(61, 2, 2),
    ]),
    "idle although all is well": ("I18", [
        COMMITTED, node_line("quiet", 5), claimed(106), start(106), end(107), settled(108),
    ]),
    "shutdown too long": ("I20", [*CLEAN, node_line("stop", 3, calm=True), node_line("stopped", 19)]),
    "shutdown without end": ("I20", [*CLEAN, node_line("stop", 3, calm=True)]),
    "lease left at shutdown": ("I20", [
        COMMITTED, claimed(1), start(1), node_line("stop", 2, calm=True), node_line("stopped", 3), end(4), settled(5),
    ]),
    "poison never dead": ("I22", [
        COMMITTED, claimed(1), start(1), CRASHED, claimed(101, 2, 2), start(101, 2, 2),
        settled(200, "retry", fence=2, crashed=True, delay=0),
        *success(201, 3, 3),
    ]),
    "a valid lease taken": ("I4", [
        COMMITTED, claimed(1, until=31), start(1), line("renewed", 20, fence=1, until=50),
        node_line("disturbed", 30, until=90), settled(40, "retry", crashed=True, node="n2"), *success(41, 2, 2),
    ]),
    "renewed by another": ("I5", [
        COMMITTED, claimed(1), start(1), line("renewed", 1.5, fence=1, until=50, node="n2"), end(2), settled(3),
    ]),
    "meddled with": ("I5", [COMMITTED, claimed(1), start(1), line("meddled", 1.5, fence=1), end(2), settled(3)]),
    "leased too long": ("I17", [COMMITTED, claimed(1, until=99), start(1), end(2), settled(3)]),
    "a success that came too late": ("I7", [COMMITTED, claimed(1), start(1), end(32), settled(33)]),
    "a crash that was not counted": ("I22", [
        FORMULA, claimed(1), start(1), node_line("killed", 2), settled(40, "retry", node="n2", due=42),
        *success(42, 2, 2),
    ]),
    "renewed after its end": ("I5", [*CLEAN, line("renewed", 20, fence=1, until=50)]),
    "due by no clock but the node's": ("I3", [
        line("committed", 0.0, eta=5.0), line("clock", 1, task=0, node="", by=-3.0), *CLEAN[1:],
        claimed(6), start(7.9), end(8), settled(9),
    ]),
    "two of one name": ("I8", [
        named(1), named(2), *CLEAN[1:3], *(replace(each, task=2) for each in CLEAN[1:]), *CLEAN[3:],
    ]),
    "a name taken from its tombstone": ("I8", [
        named(1), *CLEAN[1:], named(2, t=20), *(replace(each, task=2, t=each.t + 20) for each in CLEAN[1:]),
    ]),
    "dropped for nobody": ("I8", [named(1), line("dropped", 3)]),
    "dropped for a name that was free again": ("I8", [named(1), *CLEAN[1:], named(2), line("dropped", 110, task=2)]),
    "promise not kept": ("I19", [replace(COMMITTED, within=3.0), claimed(4.1), start(4.1), end(5), settled(6)]),
    "not claimed although all is well": ("I18", [
        COMMITTED, node_line("quiet", 5), claimed(66), start(66), end(67), settled(68),
    ]),
    "rows left": ("I26", [line("left", 9, task=0, got=1)]),
    "two effects": ("I27", [INSIDE, claimed(1), start(1), end(2), EFFECT, EFFECT, settled(2.1, by_handler=True)]),
    "no effect": ("I27", [INSIDE, claimed(1), start(1), end(2), settled(2.1)]),
    "an effect without completion": ("I27", [INSIDE, claimed(1), start(1), EFFECT, end(2), settled(3, "die")]),
    "a zombie's effect": ("I5", [
        INSIDE, claimed(1), start(1), CRASHED, *AGAIN, replace(EFFECT, t=120), end(120), settled(121, accepted=False),
    ]),
    "turning in circles": ("I29", [*CLEAN, node_line("spun", 1)]),
    "answered without a commit": ("I28", [line("answered", 0, task=0, outcome="commit", status=200, kept=False)]),
    "kept although undone": ("I28", [line("answered", 0, task=0, outcome="undo", status=500, kept=True)]),
    "dead of one crash": ("I22", [COMMITTED, claimed(1), start(1), settled(100, "die", crashed=True)]),
}  # fmt: skip


def test_no_history_at_all_is_clean() -> None:
    assert check([], LIMITS).complaints == ()


@pytest.mark.parametrize("name", LIVES)
def test_a_life_as_it_should_be_is_clean(name: str) -> None:
    assert check(LIVES[name], LIMITS).complaints == ()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_invariant_is_named(name: str) -> None:
    invariant, history = BROKEN[name]
    found = check(history, LIMITS)
    assert invariant in found.violations, found.complaints
    assert str(found.complaints[0])


def test_of_a_history_that_is_not_finished_nothing_is_expected() -> None:
    unfinished = Limits(lease=30, finished=False)
    assert check([COMMITTED, claimed(1)], unfinished).complaints == ()
    assert check([COMMITTED, claimed(0.5)], unfinished).violations == {"I3": 1}


def test_a_history_without_claims_is_checked_as_far_as_it_tells() -> None:
    bare = [COMMITTED, start(1, attempt=1), end(2, "raised"), start(5, 2, 4), end(6, fence=2), settled(6, fence=2)]
    assert check(bare, LIMITS).complaints == ()
    assert check([*bare, start(9, 3, 5)], LIMITS).violations == {"I6": 1}


def test_lines_are_read_back_in_the_order_of_time_without_one_that_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    assert read_history(path) == []
    written = History(path)
    for each in reversed(CLEAN):
        written.write(**{name: getattr(each, name) for name in Line.__dataclass_fields__})
    written.write("killed", why="SIGKILL")
    written.close()
    with path.open("a") as file:
        file.write('{"ev": "sta')
    *clean, killed = read_history(path)
    assert clean == CLEAN
    assert (killed.ev, killed.why, killed.node, killed.t > 1e9) == ("killed", "SIGKILL", os.getpid(), True)


def test_a_duplicate_is_counted_by_the_fault_that_made_it() -> None:
    lives = {
        "kill": [node_line("killed", 2, why="SIGKILL")],
        "kill at settle.before": [node_line("killed", 2, why="settle.before")],
        "pause": [node_line("disturbed", 2, until=90, why="pause")],
        "shutdown": [node_line("stop", 2)],
        "none": [],
    }
    for fault, lines in lives.items():
        history = [COMMITTED, claimed(1), start(1), end(1.5), *lines, CRASHED, *AGAIN]
        assert check(history, LIMITS).duplicates == {fault: 1}
    noted_before = [COMMITTED, claimed(1), node_line("killed", 0.9, why="SIGKILL"), start(1), end(1.5), CRASHED, *AGAIN]
    assert check(noted_before, LIMITS).duplicates == {"kill": 1}
    assert check(CLEAN, LIMITS).duplicates == {}
    inside = [INSIDE, claimed(1), start(1), end(1.5), CRASHED, *AGAIN, replace(EFFECT, fence=2, t=111)]
    assert check(inside, LIMITS).duplicates == {}


def test_a_duplicate_without_a_cause_is_a_violation_where_all_causes_are_known() -> None:
    history = [COMMITTED, claimed(1), start(1), end(1.5), CRASHED, *AGAIN]
    known = replace(LIMITS, duplicates_have_causes=True)
    assert check(history, known).violations["I6"] == check(history, LIMITS).violations["I6"] + 1
    overdue = [replace(COMMITTED), claimed(1), start(1), end(40), settled(41, "retry", due=42.0), *success(42, 2, 2)]
    assert check(overdue, known).complaints == ()
    assert check(overdue, known).duplicates == {"overdue": 1}


def test_what_a_history_counts() -> None:
    history = [*CLEAN, line("alone", 1, task=2), *(replace(each, task=3) for each in BROKEN["dead of one crash"][1])]
    found = check([*history, settled(4, accepted=False), replace(EFFECT, task=4)], LIMITS)
    assert (found.committed, found.unknown, found.runs, found.effects, found.dead, found.refused) == (2, 1, 2, 1, 1, 1)


def test_a_run_that_proves_nothing_does_not_pass() -> None:
    with pytest.raises(AssertionError, match="proves nothing"):
        check([], LIMITS).verify()
    with pytest.raises(AssertionError, match="I1 committed"):
        check([COMMITTED], LIMITS).verify()
    check(CLEAN, LIMITS).verify()
