"""What rows of the queues' table may hold."""

import logging

import pytest

from hookware.core.retry import RetryOptions
from hookware.store.sql.queues import decode_overrides, encode_overrides


def test_settings_are_read_as_they_were_written() -> None:
    overrides = {"rate": 2.5, "max_concurrent_requests": None, "retry": RetryOptions(task_retry_limit=3)}
    assert decode_overrides(encode_overrides(overrides)) == overrides
    assert decode_overrides(None) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "5", "{", "[" * 100_000, '{"later": 1}', '{"retry": 5}', '{"retry": {"later": 1}}', '{"rate": "x"}',
        '{"rate": 1e999}', '{"rate": NaN}', '{"rate": 5, "bucket_size": "x"}', '{"max_concurrent_requests": "x"}',
    ],
)  # fmt: skip
def test_settings_that_cannot_be_read_count_for_nothing(text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hookware"):
        assert decode_overrides(text) is None
    assert "cannot be read" in caplog.text
