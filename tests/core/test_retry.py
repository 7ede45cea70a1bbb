"""The backoff formula and the limits, against the answers of App Engine's own code."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.core.retry import DEFAULT_RETRY, SECOND_US, RetryOptions, backoff_us, may_retry

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "retry_vectors.json").read_text())
CONFIG_NAMES = {
    "retry_limit": "task_retry_limit",
    "age_limit_sec": "task_age_limit",
    "min_backoff_sec": "min_backoff_seconds",
    "max_backoff_sec": "max_backoff_seconds",
    "max_doublings": "max_doublings",
}

backoffs = st.floats(min_value=0, max_value=1e9, allow_nan=False)
retry_options = st.builds(
    RetryOptions,
    task_retry_limit=st.none() | st.integers(0, 100),
    task_age_limit=st.none() | st.integers(0, 10**6),
    min_backoff_seconds=st.none() | backoffs,
    max_backoff_seconds=st.none() | backoffs,
    max_doublings=st.none() | st.integers(0, 10**9),
)
failure_counts = st.integers(1, 10**6)


def options_of(config: dict[str, float]) -> RetryOptions:
    return RetryOptions(**{CONFIG_NAMES[name]: value for name, value in config.items()})  # type: ignore[arg-type] # by name


@pytest.mark.parametrize("vector", VECTORS["backoff"], ids=lambda vector: vector["name"])
def test_the_waits_are_those_of_app_engine(vector: dict[str, object]) -> None:
    config, waits = vector["config"], vector["backoff_seconds"]
    assert isinstance(config, dict)
    assert isinstance(waits, list)
    counts = vector.get("retry_counts", range(1, len(waits) + 1))
    assert [backoff_us(options_of(config), count) for count in counts] == [round(w * SECOND_US) for w in waits]  # type: ignore[attr-defined] # numbers of the vector


@pytest.mark.parametrize("vector", VECTORS["can_retry"], ids=lambda vector: str(vector["config"]))
def test_the_limits_are_those_of_app_engine(vector: dict[str, list[list[float]]]) -> None:
    options = options_of(vector["config"])  # type: ignore[arg-type] # the one entry that is an object
    rows = [(int(count), round(age * SECOND_US), allowed) for count, age, allowed in vector["rows"]]
    assert rows
    assert [may_retry(options, count, age_us) for count, age_us, _ in rows] == [allowed for _, _, allowed in rows]


@pytest.mark.parametrize(("limit", "attempts"), [(0, 1), (1, 2), (3, 4)])
def test_a_retry_limit_alone_allows_that_many_more_attempts(limit: int, attempts: int) -> None:
    failure_count = 1
    while may_retry(RetryOptions(task_retry_limit=limit), failure_count, age_us=10**15):
        failure_count += 1
    assert failure_count == attempts


def test_an_age_limit_alone_ends_after_it() -> None:
    options = RetryOptions(task_age_limit=60)
    assert may_retry(options, 10**6, 60 * SECOND_US)
    assert not may_retry(options, 1, 60 * SECOND_US + 1)


@given(retry_options, failure_counts, st.integers(0, 1000))
def test_a_wait_never_gets_shorter(options: RetryOptions, failure_count: int, more: int) -> None:
    assert backoff_us(options, failure_count) <= backoff_us(options, failure_count + more)


@given(retry_options, failure_counts)
def test_a_wait_lies_between_the_shortest_and_the_longest(options: RetryOptions, failure_count: int) -> None:
    shortest = 0.1 if options.min_backoff_seconds is None else options.min_backoff_seconds
    longest = 3600.0 if options.max_backoff_seconds is None else options.max_backoff_seconds
    wait_us = backoff_us(options, failure_count)
    assert wait_us <= int(longest * SECOND_US)
    assert wait_us >= min(int(shortest * SECOND_US), int(longest * SECOND_US))


@given(retry_options, failure_counts, st.integers(0, 10**15))
def test_a_task_given_up_stays_given_up(options: RetryOptions, failure_count: int, age_us: int) -> None:
    if not may_retry(options, failure_count, age_us):
        assert not may_retry(options, failure_count + 1, age_us + 1)


def test_a_million_failures_still_have_a_wait() -> None:
    doubling = RetryOptions(min_backoff_seconds=1, max_backoff_seconds=1e9, max_doublings=10**9)
    linear = RetryOptions(min_backoff_seconds=1, max_backoff_seconds=1e9, max_doublings=0)
    assert backoff_us(doubling, 10**6) == 10**15
    assert backoff_us(linear, 10**6) == 10**12
    assert backoff_us(DEFAULT_RETRY, 10**6) == 3600 * SECOND_US


@pytest.mark.parametrize(
    ("failure_count", "seconds"), [(1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 200), (10**6, 200)]
)
def test_after_the_doublings_the_wait_grows_by_the_last_one(failure_count: int, seconds: int) -> None:
    options = RetryOptions(min_backoff_seconds=10, max_backoff_seconds=200, max_doublings=3)
    assert backoff_us(options, failure_count) == seconds * SECOND_US
