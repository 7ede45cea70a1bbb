"""The checker itself: a clean life passes, and every invariant has histories that break it."""

import json
from pathlib import Path
from typing import Any

import pytest

from verification.checker import Limits, Line, check, read_history

LIMITS = Limits(lease=30, poll=1, shutdown=15, begin=4, tail=100, crash_limit=2)


def line(event: str, t: float, **fields: Any) -> Line:
    return {"ev": event, "t": t, "node": "n1", "task": 1, **fields}


def claimed(t: float, fence: int = 1, attempt: int = 1, **fields: Any) -> Line:
    return line("claimed", t, fence=fence, attempt=attempt, **{"asked": 4, "got": 1, "deadline": 30.0, **fields})


def start(t: float, fence: int = 1, attempt: int = 1, **fields: Any) -> Line:
    return line("start", t, fence=fence, attempt=attempt, **fields)


def end(t: float, outcome: str = "ok", fence: int = 1) -> Line:
    return line("end", t, fence=fence, outcome=outcome)


def settled(t: float, outcome: str = "complete", fence: int = 1, **fields: Any) -> Line:
    return line("settled", t, fence=fence, outcome=outcome, **{"accepted": True, **fields})


def node_line(event: str, t: float, node: str = "n1", **fields: Any) -> Line:
    return {"ev": event, "t": t, "node": node, **fields}


def success(t: float, fence: int, attempt: int) -> list[Line]:
    """Give a whole attempt that succeeds."""
    return [claimed(t, fence, attempt), start(t, fence, attempt), end(t + 1, fence=fence), settled(t + 2, fence=fence)]


COMMITTED = line("committed", 0.0, eta=1.0)
CRASHED = settled(100, "retry", crashed=True, delay=0)
CLEAN = [COMMITTED, claimed(1), start(1.1), end(2), settled(2.1)]
AGAIN = [claimed(110, 2, 2), start(110.1, 2, 2), end(111, fence=2), settled(112, fence=2)]

LIVES: dict[str, list[Line]] = {
    "one run": CLEAN,
    "a retry after its wait": [
        COMMITTED, claimed(1), start(1), end(2, "raised"), settled(3, "retry", delay=7),
        *success(10, 2, 2),
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
    "more than asked": ("I15", [COMMITTED, claimed(1, asked=1, got=2), start(1), end(2), settled(3)]),
    "begun late": ("I15", [COMMITTED, claimed(1), start(6), end(7), settled(8)]),
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
    "dead of one crash": ("I22", [COMMITTED, claimed(1), start(1), settled(100, "die", crashed=True)]),
}  # fmt: skip


def test_no_history_at_all_is_clean() -> None:
    assert check([], LIMITS) == []


@pytest.mark.parametrize("name", LIVES)
def test_a_life_as_it_should_be_is_clean(name: str) -> None:
    assert check(LIVES[name], LIMITS) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_invariant_is_named(name: str) -> None:
    invariant, history = BROKEN[name]
    found = check(history, LIMITS)
    assert invariant in {complaint.split()[0] for complaint in found}, found


def test_of_a_history_that_is_not_finished_nothing_is_expected() -> None:
    unfinished = Limits(lease=30, finished=False)
    assert check([COMMITTED, claimed(1)], unfinished) == []
    assert check([COMMITTED, claimed(1), start(0.5)], unfinished) != []


def test_a_history_without_claims_is_checked_as_far_as_it_tells() -> None:
    bare = [COMMITTED, start(1, attempt=1), end(2, "raised"), start(5, 2, 4), end(6, fence=2), settled(6, fence=2)]
    assert check(bare, LIMITS) == []
    assert check([*bare, start(9, 3, 5)], LIMITS) != []


def test_json_lines_are_read_back_without_the_one_that_a_kill_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in reversed(CLEAN)) + '{"ev": "sta')
    assert read_history(path) == CLEAN
