"""Many worlds, one promise: whatever befalls the nodes, no invariant breaks.

`HOOKWARE_SIM_SEEDS` says how many seeds are run (100), `HOOKWARE_SIM_FIRST` where to begin (0).
"""

import os
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.simulation.handlers import HANDLERS
from tests.simulation.run import repro, run
from tests.simulation.variants import PLANTED

FIRST = int(os.environ.get("HOOKWARE_SIM_FIRST", "0"))
COUNT = int(os.environ.get("HOOKWARE_SIM_SEEDS", "100"))
SECONDS_PER_SEED = 1


@pytest.mark.slow
@pytest.mark.timeout(60 + COUNT * SECONDS_PER_SEED)
def test_no_invariant_breaks_in_any_seed(capsys: pytest.CaptureFixture[str]) -> None:
    began, seconds, runs = time.perf_counter(), 0.0, 0
    counts: Counter[str] = Counter()
    broken: list[str] = []
    for seed in range(FIRST, FIRST + COUNT):
        result = run(seed)
        seconds, runs, counts = seconds + result.seconds, runs + result.runs, counts + result.counts
        if result.violations:
            broken.append("\n  ".join([repro(seed), *result.violations]))
    speed = seconds / (time.perf_counter() - began)
    with capsys.disabled():
        print(
            f"\nsimulation: seeds {FIRST} to {FIRST + COUNT - 1}, {seconds / 3600:.1f} virtual hours of 3 nodes, "
            f"{runs} runs, {counts['killed']} kills, {len(broken)} seeds with violations, {speed:.0f} times real time"
        )
    assert not broken, "\n".join(broken)
    assert counts["committed"] > 10 * COUNT
    assert counts["killed"] > COUNT


@pytest.mark.slow
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught(bug: str) -> None:
    for seed in range(100):
        result = run(seed, PLANTED[bug]())
        if result.violations:
            print(f"{bug}: caught at seed {seed}: {result.violations[0]}")
            return
    pytest.fail(f"{bug}: not caught in 100 seeds")


@pytest.mark.slow
def test_the_same_seed_is_the_same_world() -> None:
    assert [run(seed).trace for seed in range(3)] == [run(seed).trace for seed in range(3)]
    assert run(0).trace != run(1).trace


@pytest.mark.slow
def test_the_same_seed_is_the_same_world_in_another_process() -> None:
    trace = run(2).trace
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.simulation.run", "2"]
        printed = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        )
        assert f"trace {trace}" in printed.stdout


@pytest.fixture(scope="module")
def histories() -> list[dict[str, object]]:
    return [line for seed in range(20) for line in run(seed).history]


@pytest.mark.slow
def test_the_worlds_are_eventful_enough_to_mean_something(histories: list[dict[str, object]]) -> None:
    kinds = {line["url"] for line in histories if line["ev"] == "committed"}
    assert kinds == {f"/{kind}" for kind in HANDLERS}
    settled = Counter((line["outcome"], line["accepted"]) for line in histories if line["ev"] == "settled")
    for outcome in ("complete", "retry", "release"):
        assert settled[outcome, True] > 10
    assert settled["die", True] > 5
    assert sum(count for (_, accepted), count in settled.items() if not accepted) > 5
    assert sum(1 for line in histories if line["ev"] == "settled" and line["crashed"]) > 20
    assert {line["reason"] for line in histories if line["ev"] == "settled" and line["outcome"] == "die"} == {
        "crashes",
        "permanent",
        "retries",
    }
    killed_at = {line["why"] for line in histories if line["ev"] == "killed"}
    assert {"poison", "a blow", "dispatch.start", "dispatch.settle.before"} <= killed_at


@pytest.mark.slow
def test_poison_ends_dead_of_its_crashes(histories: list[dict[str, object]]) -> None:
    for seed in range(10):
        lines = run(seed).history
        poison = {line["task"] for line in lines if line["ev"] == "committed" and line["url"] == "/poison"}
        dead = {line["task"] for line in lines if line["ev"] == "settled" and line["reason"] == "crashes"}
        assert poison <= dead
