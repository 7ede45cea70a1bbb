"""decide(): every outcome against every limit, and App Engine's own runs replayed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.core.headers import delivery_headers
from hookware.core.lifecycle import (
    TRANSITIONS,
    Cancel,
    Circumstances,
    Complete,
    Conflicted,
    Decision,
    Die,
    Failed,
    Interrupted,
    LeaseExpired,
    Outcome,
    Release,
    Retry,
    State,
    Succeeded,
    decide,
    on_last_chance,
)
from hookware.core.retry import DEFAULT_RETRY, SECOND_US, RetryOptions, backoff_us
from hookware.core.task import LeasedTask

SCENARIOS = json.loads((Path(__file__).parents[1] / "vectors" / "push_vectors.json").read_text())["scenarios"]
START_US = 1_243_814_400 * SECOND_US
ATTEMPT_CAP = 40
HEADERS = {
    "QueueName": b"x-appengine-queuename",
    "TaskName": b"x-appengine-taskname",
    "TaskRetryCount": b"x-appengine-taskretrycount",
    "TaskExecutionCount": b"x-appengine-taskexecutioncount",
    "TaskETA": b"x-appengine-tasketa",
    "TaskPreviousResponse": b"x-appengine-taskpreviousresponse",
}
CONFIG_NAMES = {
    "retry_limit": "task_retry_limit",
    "age_limit_sec": "task_age_limit",
    "min_backoff_sec": "min_backoff_seconds",
    "max_backoff_sec": "max_backoff_seconds",
}

TASK = LeasedTask(
    id=1,
    fence=1,
    queue_name="q",
    name="tn",
    method="POST",
    url="/w",
    headers=(),
    body=b"x",
    eta_us=START_US,
    attempt_count=1,
    crash_count=0,
    first_attempt_us=START_US,
    claimed_us=START_US,
    last_status=None,
    retry=None,
    deadline_us=30_000_000,
)
GIVEN = Circumstances(retry=DEFAULT_RETRY, now_us=START_US, jitter=0.0, crash_limit=3)
NO_RETRY = replace(GIVEN, retry=RetryOptions(task_retry_limit=0))

outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Succeeded, st.integers(200, 299), st.booleans()),
    st.builds(Failed, st.none() | st.integers(100, 599), st.text(max_size=5), st.integers(0, 10**9), st.booleans()),
    st.builds(Conflicted, st.text(max_size=5)),
    st.just(Interrupted()),
    st.just(LeaseExpired()),
)


@st.composite
def tasks(draw: st.DrawFn) -> LeasedTask:
    attempt_count = draw(st.integers(1, 200))
    return replace(
        TASK,
        attempt_count=attempt_count,
        crash_count=draw(st.integers(0, attempt_count - 1)),
        first_attempt_us=START_US - draw(st.integers(0, 10**12)),
    )


circumstances = st.builds(
    Circumstances,
    retry=st.builds(
        RetryOptions,
        task_retry_limit=st.none() | st.integers(0, 100),
        task_age_limit=st.none() | st.integers(0, 10**6),
        max_backoff_seconds=st.none() | st.floats(0, 10**6),
    ),
    now_us=st.just(START_US),
    jitter=st.floats(0, 1, exclude_max=True),
    crash_limit=st.integers(1, 5),
)

FAILED = Failed(500, "boom")
UNLIMITED = [
    (Succeeded(204), TASK, Complete()),
    (Succeeded(200, completed=True), TASK, Complete()),
    (Interrupted(), TASK, Release()),
    (FAILED, TASK, Retry(100_000, 500, "boom")),
    (Failed(None, "no answer"), TASK, Retry(100_000, None, "no answer")),
    (FAILED, replace(TASK, attempt_count=5), Retry(1_600_000, 500, "boom")),
    (FAILED, replace(TASK, attempt_count=5, crash_count=2), Retry(400_000, 500, "boom")),
    (Failed(503, "busy", retry_after_us=7_000_000), TASK, Retry(7_000_000, 503, "busy")),
    (Failed(503, "busy", retry_after_us=7), TASK, Retry(100_000, 503, "busy")),
    (Failed(400, "bad", permanent=True), TASK, Die("permanent", 400, "bad")),
    (Conflicted("deadlock"), TASK, Retry(100_000, None, "deadlock")),
]
LAST = [
    (Succeeded(200), Complete()),
    (Interrupted(), Release()),
    (FAILED, Die("retries", 500, "boom")),
    (Failed(None, "no answer"), Die("retries", None, "no answer")),
    (Failed(503, "busy", retry_after_us=7_000_000), Die("retries", 503, "busy")),
    (Conflicted("deadlock"), Die("retries", None, "deadlock")),
]


@pytest.mark.parametrize(("outcome", "task", "decision"), UNLIMITED)
def test_without_limits_a_failure_is_tried_again(outcome: Outcome, task: LeasedTask, decision: Decision) -> None:
    assert decide(task, outcome, GIVEN) == decision


@pytest.mark.parametrize(("outcome", "decision"), LAST)
def test_at_the_retry_limit_a_failure_is_the_last(outcome: Outcome, decision: Decision) -> None:
    assert decide(TASK, outcome, NO_RETRY) == decision


def test_the_age_is_counted_from_the_first_attempt_to_the_end_of_this_one() -> None:
    young = replace(GIVEN, retry=RetryOptions(task_age_limit=10), now_us=START_US + 10 * SECOND_US)
    old = replace(young, now_us=young.now_us + 1)
    assert isinstance(decide(TASK, FAILED, young), Retry)
    assert decide(TASK, FAILED, old) == Die("retries", 500, "boom")


def test_with_both_limits_a_task_dies_when_both_are_exceeded() -> None:
    both = replace(GIVEN, retry=RetryOptions(task_retry_limit=0, task_age_limit=10))
    assert isinstance(decide(TASK, FAILED, both), Retry)
    assert isinstance(decide(TASK, FAILED, replace(both, now_us=START_US + 11 * SECOND_US)), Die)


def test_crashes_have_a_limit_of_their_own() -> None:
    first = decide(TASK, LeaseExpired(), GIVEN)
    second = decide(replace(TASK, attempt_count=2, crash_count=1), LeaseExpired(), GIVEN)
    third = decide(replace(TASK, attempt_count=3, crash_count=2), LeaseExpired(), GIVEN)
    died = "the process that ran it died, or froze until its lease ended"
    assert (first, second, third) == (
        Retry(0, None, f"{died} (crash 1 of 3)", crashed=True),
        Retry(100_000, None, f"{died} (crash 2 of 3)", crashed=True),
        Die("crashes", None, f"{died} (crash 3 of 3)", crashed=True),
    )


@pytest.mark.parametrize(
    ("crash_count", "crash_limit", "is_last"),
    [(0, 3, False), (1, 3, False), (2, 3, True), (3, 3, True), (0, 2, False), (1, 2, True), (0, 1, False)],
)
def test_the_last_chance_is_the_attempt_before_the_crash_limit(
    crash_count: int, crash_limit: int, is_last: bool
) -> None:
    assert on_last_chance(replace(TASK, crash_count=crash_count), crash_limit) is is_last


def test_a_crash_does_not_use_up_the_retry_limit() -> None:
    assert isinstance(decide(TASK, LeaseExpired(), NO_RETRY), Retry)
    once = replace(GIVEN, retry=RetryOptions(task_retry_limit=1))
    assert isinstance(decide(replace(TASK, attempt_count=3, crash_count=2), FAILED, once), Retry)
    assert isinstance(decide(replace(TASK, attempt_count=3, crash_count=1), FAILED, once), Die)


@given(tasks(), st.integers(0, 10**9), st.floats(0, 1, exclude_max=True))
def test_jitter_lengthens_a_wait_by_at_most_a_tenth_and_a_second(
    task: LeasedTask, retry_after_us: int, jitter: float
) -> None:
    plain = max(backoff_us(DEFAULT_RETRY, task.failure_count + 1), retry_after_us)
    decision = decide(task, Failed(500, "", retry_after_us), replace(GIVEN, jitter=jitter))
    assert isinstance(decision, Retry)
    assert plain <= decision.delay_us <= plain + min(plain // 10 + 1, SECOND_US)


@given(tasks(), outcomes, circumstances)
def test_every_outcome_has_a_decision_that_the_table_knows(
    task: LeasedTask, outcome: Outcome, given_: Circumstances
) -> None:
    decision = decide(task, outcome, given_)
    assert (State.LEASED, type(decision)) in TRANSITIONS
    crashed = isinstance(decision, Retry | Die) and decision.crashed
    assert crashed == isinstance(outcome, LeaseExpired)
    assert isinstance(decision, Complete) == isinstance(outcome, Succeeded)
    assert isinstance(decision, Release) == isinstance(outcome, Interrupted)


def test_the_table_has_exactly_the_decisions() -> None:
    assert {decision for _, decision in TRANSITIONS} == {*get_args(Decision), Cancel}
    assert {decision: after for (state, decision), after in TRANSITIONS.items() if state is State.LEASED} == {
        Complete: (None, State.COMPLETED),
        Retry: (State.PENDING,),
        Release: (State.PENDING,),
        Die: (State.DEAD, None),
        Cancel: (State.DEAD, None),
    }
    assert {key: after for key, after in TRANSITIONS.items() if key[0] is not State.LEASED} == {
        (State.PENDING, Cancel): (None,),
        (State.PULL, Cancel): (None,),
    }


class Attempt(NamedTuple):
    at_us: int
    headers: dict[bytes, bytes]
    decision: Decision


def run(task: LeasedTask, retry: RetryOptions, codes: list[int], handler_us: int) -> Iterator[Attempt]:
    """Do what dispatcher and store do together, on a simulated clock; the last code repeats."""
    for turn in range(ATTEMPT_CAP):
        code = codes[min(turn, len(codes) - 1)]
        end_us = task.eta_us + handler_us
        outcome = Succeeded(code) if 200 <= code <= 299 else Failed(code or None, f"status {code}")
        decision = decide(task, outcome, replace(GIVEN, retry=retry, now_us=end_us))
        yield Attempt(task.eta_us, dict(delivery_headers(task)), decision)
        if not isinstance(decision, Retry):
            return
        task = replace(
            task,
            eta_us=end_us + decision.delay_us,
            attempt_count=task.attempt_count + 1,
            last_status=decision.status or task.last_status,
        )


def replay(scenario: dict[str, Any]) -> list[Attempt]:
    first_us = START_US + round(scenario["attempts"][0]["at_s"] * SECOND_US)
    config = scenario["task_retry"] or scenario["queue_retry"] or {}
    retry = RetryOptions(**{CONFIG_NAMES[name]: value for name, value in config.items()})
    task = replace(TASK, eta_us=first_us, first_attempt_us=first_us, claimed_us=first_us)
    return list(run(task, retry, scenario["codes"], round(scenario["handler_seconds"] * SECOND_US)))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
def test_a_run_goes_as_in_app_engine(scenario: dict[str, Any]) -> None:
    attempts, recorded = replay(scenario), scenario["attempts"]
    assert len(attempts) == scenario["attempt_count"]
    assert len(recorded) == min(len(attempts), 30)  # a long run is recorded for its first 30 attempts
    for attempt, expected in zip(attempts, recorded, strict=False):
        assert attempt.at_us == START_US + round(expected["at_s"] * SECOND_US)
        sent = {name: attempt.headers.get(header) for name, header in HEADERS.items()}
        assert sent == {name: None if (v := expected[name]) is None else v.encode() for name in HEADERS}
    assert isinstance(attempts[-1].decision, Complete | Die) == scenario["task_gone_at_end"]
    assert isinstance(attempts[-1].decision, Retry) == scenario["stopped_by_attempt_cap"]


def test_the_first_request_carries_what_app_engine_sent() -> None:
    scenario = next(s for s in SCENARIOS if s["first_request"])
    sent = replay(scenario)[0].headers
    expected = {name.lower().encode(): value.encode() for name, value in scenario["first_request"]["headers"]}
    del expected[b"x-appengine-fake-is-admin"]  # only its development server sends it
    assert expected.items() <= sent.items()
