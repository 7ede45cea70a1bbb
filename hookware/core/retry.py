"""When is a failed task tried again, and when is it given up: App Engine's formula, exactly.

Source: `taskqueue_stub.Retry` of the App Engine SDK, whose answers are the golden vectors of the tests.
"""

from dataclasses import dataclass

SECOND_US = 1_000_000
MOST_RETRY = 1e9
"""The largest number that any retry option may have."""

_MOST_DOUBLINGS = 1023


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """The retry limits and waits of one task or queue, in seconds and counts; None means not set.

    A task's options replace its queue's as a whole; fields left None then have App Engine's defaults.
    """

    task_retry_limit: int | None = None
    task_age_limit: int | None = None
    min_backoff_seconds: float | None = None
    max_backoff_seconds: float | None = None
    max_doublings: int | None = None


DEFAULT_RETRY = RetryOptions()
"""No limits, waits from 0.1 s doubling 16 times up to an hour."""


def backoff_us(options: RetryOptions, failure_count: int) -> int:
    """Give the wait before the next attempt, after `failure_count` (1 or more) failed ones, in microseconds."""
    shortest = 0.1 if options.min_backoff_seconds is None else options.min_backoff_seconds
    longest = 3600.0 if options.max_backoff_seconds is None else options.max_backoff_seconds
    doublings = 16 if options.max_doublings is None else options.max_doublings
    exponent = min(failure_count - 1, int(doublings), _MOST_DOUBLINGS)
    steps = failure_count - exponent
    wait_us = int(shortest * SECOND_US) * (1 << exponent) * steps
    return min(int(longest * SECOND_US), wait_us)


def may_retry(options: RetryOptions, failure_count: int, age_us: int) -> bool:
    """Say whether a task may be tried again after `failure_count` failures, `age_us` after its first attempt.

    With both limits set, a task is given up only when both are exceeded.
    """
    within_count = options.task_retry_limit is not None and failure_count <= options.task_retry_limit
    within_age = options.task_age_limit is not None and age_us <= options.task_age_limit * SECOND_US
    unlimited = options.task_retry_limit is None and options.task_age_limit is None
    return unlimited or within_count or within_age
