"""Rows and back: what may be configured and given survives it."""

import pytest

from hookware.arguments import MAX_QUEUE_NAME_LENGTH, MAX_TASK_NAME_LENGTH, TaskRetryOptions
from hookware.config import Config
from hookware.core.retry import MOST_RETRY
from hookware.core.task import MOST_DEADLINE_US
from hookware.errors import ConfigurationError, InvalidTaskRetryOptionsError
from hookware.store.sql.rows import to_leased, to_row
from tests.store.subject import START_US, new_task

HUNDRED_YEARS_SECONDS = 3_153_600_000
LARGEST = 1_000_000_000
CLAIMED = {
    "fence": 1, "attempt_count": 1, "first_attempt_us": START_US, "lease_until_us": START_US, "last_status": None,
    "depth": None, "record_count": None,
}  # fmt: skip


def test_the_largest_values_that_are_accepted_survive() -> None:
    config = Config(dispatch_deadline_seconds=HUNDRED_YEARS_SECONDS)
    retry = TaskRetryOptions(
        min_backoff_seconds=LARGEST, max_backoff_seconds=LARGEST, max_doublings=LARGEST, task_retry_limit=LARGEST,
        task_age_limit=LARGEST,
    )  # fmt: skip
    task = new_task(
        "q" * MAX_QUEUE_NAME_LENGTH, "n" * MAX_TASK_NAME_LENGTH, retry=retry,
        deadline_us=int(config.dispatch_deadline_seconds * 1_000_000),
    )  # fmt: skip
    leased = to_leased(to_row(task, START_US) | CLAIMED, START_US)
    assert (leased.queue_name, leased.name, leased.deadline_us) == (task.queue_name, task.name, task.deadline_us)
    assert leased.retry is not None
    assert (leased.retry.task_retry_limit, leased.retry.task_age_limit) == (LARGEST, LARGEST)
    assert (leased.retry.min_backoff_seconds, leased.retry.max_doublings) == (LARGEST, LARGEST)


def test_what_is_larger_is_neither_accepted_nor_read() -> None:
    with pytest.raises(ConfigurationError, match="dispatch_deadline_seconds"):
        Config(dispatch_deadline_seconds=MOST_DEADLINE_US / 1_000_000 + 1)
    with pytest.raises(InvalidTaskRetryOptionsError, match="task_retry_limit"):
        TaskRetryOptions(task_retry_limit=int(MOST_RETRY) + 1)
    row = to_row(new_task(deadline_us=MOST_DEADLINE_US + 1), START_US) | CLAIMED
    with pytest.raises(ValueError, match="deadline"):
        to_leased(row, START_US)
    row |= {"deadline_us": MOST_DEADLINE_US, "retry_options": f'{{"task_retry_limit": {LARGEST + 1}}}'}
    with pytest.raises(ValueError, match="task_retry_limit"):
        to_leased(row, START_US)
