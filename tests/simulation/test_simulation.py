"""Many worlds, one promise: whatever befalls the nodes, no invariant breaks.

`python -m verification simulation` runs as many as you like; these are the minute of it that every test run has.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest

from hookware.store.memory import MemoryStore
from verification.history import Line
from verification.simulation.campaign import run_seeds
from verification.simulation.handlers import HANDLERS
from verification.simulation.run import Plan, Result, run

MEMORY, SQLITE = Plan(), Plan(store="sqlite")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_invariant_breaks_in_any_world() -> None:
    results = [run(seed, MEMORY) for seed in range(12)]
    broken = {result.seed: result.findings.complaints for result in results if result.findings.complaints}
    assert broken == {}
    assert all(result.seconds >= 3600 for result in results)
    # They must be eventful enough to mean something.
    check_what_happened([line for result in results for line in result.history])
    check_what_was_done(results)
    for result in results:
        check_that_poison_ends_dead(result)


def check_what_happened(lines: Sequence[Line]) -> None:
    assert {line.url for line in lines if line.ev == "committed"} == {f"/{kind}" for kind in HANDLERS}
    settled = Counter((line.outcome, line.accepted) for line in lines if line.ev == "settled")
    for outcome in ("complete", "retry", "release"):
        assert settled[outcome, True] > 50
    assert settled["die", True] > 20
    assert sum(count for (_, accepted), count in settled.items() if not accepted) > 20
    assert sum(line.crashed for line in lines) > 100
    reasons = {line.reason for line in lines if line.outcome == "die" and line.accepted}
    assert reasons == {"crashes", "permanent", "retries"}
    counts = Counter(line.ev for line in lines)
    for event in ("rolled_back", "dropped", "effect", "blocked", "clock", "renewed", "stop", "batch"):
        assert counts[event] > 5, event
    assert counts["killed"] > 200


def check_what_was_done(results: Sequence[Result]) -> None:
    kinds = {fault for result in results for fault in result.faults}
    assert kinds == {
        "blocked loop", "commits without an answer", "database clock set", "failpoint error", "hung calls",
        "node clock set", "pause", "restart", "sleep of all", "starved heartbeat",
        "store errors after the effect", "store errors before the effect",
    }  # fmt: skip
    for fault in kinds:
        assert not all(result.faults[fault] for result in results), f"{fault} in every seed hides others"
    killed_at = {line.why for result in results for line in result.history if line.ev == "killed"}
    assert {"SIGKILL", "poison", "dispatch.start", "dispatch.settle.before", "dispatch.wake"} <= killed_at


def check_that_poison_ends_dead(result: Result) -> None:
    def tasks(**said: str) -> set[int]:
        return {line.task for line in result.history if all(getattr(line, name) == said[name] for name in said)}

    poison = tasks(ev="committed", url="/poison") - tasks(ev="dropped")
    assert poison <= tasks(ev="settled", reason="crashes")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_invariant_breaks_in_any_world_on_sqlite() -> None:
    results = [run(seed, SQLITE) for seed in (2, 3)]
    assert {result.seed: result.findings.complaints for result in results if result.findings.complaints} == {}
    counts = Counter(line.ev for result in results for line in result.history)
    for event in ("rolled_back", "effect", "renewed", "killed", "stop"):
        assert counts[event] > 3, event
    assert {"hung statements", "statement errors after the effect"} <= {
        kind for each in results for kind in each.faults
    }
    answers = Counter(line.status for result in results for line in result.history if line.ev == "answered")
    assert {200, 202, 409, 500} <= answers.keys()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_the_same_seed_is_the_same_world(store: str) -> None:
    plan = Plan(hours=0.1, nodes=3, store=store)
    trace = run(0, plan).trace
    assert run(0, plan).trace == trace
    assert run(1, plan).trace != trace


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_the_same_seed_is_the_same_world_in_another_process(store: str) -> None:
    trace = run(2, Plan(hours=0.1, nodes=3, store=store)).trace
    command = [
        sys.executable,
        "-m",
        "verification",
        "simulation",
        "--first",
        "2",
        "--seeds",
        "1",
        "--hours",
        "0.1",
        "--nodes",
        "3",
    ]
    for hash_seed in ("1", "2"):
        printed = subprocess.run(
            [*command, "--store", store, "--show", "--ledger", os.devnull],
            env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert f"trace {trace}" in printed.stdout


@pytest.mark.slow
def test_a_store_that_forgets_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryStore, "_held", lambda store, lease: store._rows.get(lease.task_id))
    total = run_seeds(0, 3, MEMORY)
    assert total.violations["I5"] + total.violations["I7"] > 0
    assert len(total.broken) > 0
    assert "python -m verification simulation --first" in total.broken[0]


def test_lines_say_only_what_is_not_as_by_default() -> None:
    assert Line(ev="quiet", t=1.5, node="world").as_json() == '{"ev": "quiet", "t": 1.5, "node": "world"}'
