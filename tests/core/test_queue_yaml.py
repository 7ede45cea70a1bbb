"""What a queue.yaml says, against the answers of App Engine's own code."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.core.queue import QueueSettings
from hookware.core.queue_yaml import QueueFile, parse_rate, queue_file, rate_of, retry_options, storage_bytes
from hookware.core.retry import DEFAULT_RETRY, RetryOptions
from hookware.core.yaml_values import SettingError

VECTORS = Path(__file__).parents[1] / "vectors"
TASK_VECTORS = json.loads((VECTORS / "task_vectors.json").read_text())
RETRY_VECTORS = json.loads((VECTORS / "retry_vectors.json").read_text())
CONFIG_NAMES = {
    "retry_limit": "task_retry_limit",
    "age_limit_sec": "task_age_limit",
    "min_backoff_sec": "min_backoff_seconds",
    "max_backoff_sec": "max_backoff_seconds",
    "max_doublings": "max_doublings",
}
EXCEPTIONS = {"5/sm": "App Engine's ParseRate gives None, by oversight; no queue.yaml can say it"}


@pytest.mark.parametrize("vector", TASK_VECTORS["rates"], ids=lambda vector: repr(vector["rate"]))
def test_rates_are_those_of_app_engine(vector: dict[str, Any]) -> None:
    text = vector["rate"]
    if "parse_rate_raises" in vector or text in EXCEPTIONS:
        with pytest.raises(ValueError, match="the rate .* is refused"):  # noqa: RUF043 - a pattern
            parse_rate(text)
    else:
        assert parse_rate(text) == vector["parse_rate"]
    if vector["yaml_valid"]:
        assert rate_of(text) == vector["parse_rate"]
    else:
        with pytest.raises(SettingError, match="as in 5/s, or 0 to pause"):
            rate_of(text)


@pytest.mark.parametrize(("text", "expected"), TASK_VECTORS["total_storage_limit"])
def test_storage_limits_are_those_of_app_engine(text: str, expected: int | str) -> None:
    if isinstance(expected, int):
        assert storage_bytes(text) == expected
    else:
        with pytest.raises(SettingError, match=r"as in 1\.5G"):
            storage_bytes(text)


@pytest.mark.parametrize("vector", RETRY_VECTORS["queue_yaml"], ids=lambda vector: vector["retry_parameters"])
def test_retry_parameters_are_those_of_app_engine(vector: dict[str, Any]) -> None:
    pairs = [pair.split(": ") for pair in vector["retry_parameters"].split("; ")]
    given_values = {key: int(text) if text.lstrip("-").isdigit() else text for key, text in pairs}
    if "error" in vector:
        with pytest.raises(SettingError, match="is refused"):
            retry_options(given_values)
    else:
        expected = {CONFIG_NAMES[name]: value for name, value in vector["ok"].items()}
        assert retry_options(given_values) == RetryOptions(**expected)


@pytest.mark.parametrize(
    ("given_values", "expected"),
    [
        ({"max_backoff_seconds": 0.05}, RetryOptions(min_backoff_seconds=0.05, max_backoff_seconds=0.05)),
        ({"max_backoff_seconds": 0.1}, RetryOptions(max_backoff_seconds=0.1)),
        ({"min_backoff_seconds": 3600}, RetryOptions(min_backoff_seconds=3600)),
        ({"task_age_limit": "1e2s"}, RetryOptions(task_age_limit=100)),
        ({"task_age_limit": "1.9s"}, RetryOptions(task_age_limit=1)),
        ({"task_retry_limit": 1.9, "max_doublings": "3"}, RetryOptions(task_retry_limit=1, max_doublings=3)),
        ({"task_retry_limit": None}, DEFAULT_RETRY),
        ({}, DEFAULT_RETRY),
    ],
)
def test_repairs_and_conversions(given_values: dict[str, object], expected: RetryOptions) -> None:
    assert retry_options(given_values) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("task_age_limit", text) for text in ("0.5s", "s", "", "-1s", "nans", "infs", "5", "1h30m", "1w", "1e999s")),
        *(("min_backoff_seconds", each) for each in (-0.1, "x", float("nan"), float("inf"), [1], 2e9)),
        *(("task_retry_limit", each) for each in (-1, "1.5", "x", float("inf"), [2], 10**10, "9" * 5000)),
        *(("max_doublings", each) for each in (-1, "two")),
    ],
)
def test_a_retry_parameter_out_of_range_is_refused(key: str, value: object) -> None:
    with pytest.raises(SettingError) as caught:
        retry_options({key: value}, ("queue", 3, "retry_parameters"))
    assert caught.value.path == ("queue", 3, "retry_parameters", key)
    assert key in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_shortest_wait_over_the_longest_is_refused() -> None:
    with pytest.raises(SettingError, match="must not be more than max_backoff_seconds"):
        retry_options({"min_backoff_seconds": 2, "max_backoff_seconds": 1})


def test_everything_of_a_queue() -> None:
    entry = {
        "name": "mail-queue",
        "rate": "2000/d",
        "bucket_size": 10,
        "max_concurrent_requests": 5,
        "mode": "pull",
        "target": "v2.mailer",
        "retry_parameters": {"task_retry_limit": 7},
        "acl": [{"user_email": "a@example.com"}, {"writer_email": "b@example.com"}],
    }
    expected = QueueSettings(
        name="mail-queue",
        rate=2000 / 86_400,
        bucket_size=10,
        max_concurrent_requests=5,
        mode="pull",
        target="v2.mailer",
        retry=RetryOptions(task_retry_limit=7),
    )
    top = {"application": "s~my-app", "resume_paused_queues": "False", "total_storage_limit": "1G"}
    assert queue_file({**top, "queue": [entry]}) == QueueFile(queues=(expected,), total_storage_limit=2**30)


def test_a_queue_without_settings_has_the_defaults() -> None:
    assert queue_file({"queue": [{"name": "q"}]}).queues == (QueueSettings(name="q"),)
    assert queue_file({"queue": None}) == queue_file({}) == QueueFile()


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ({}, ()),
        ({"name": None}, ()),
        ({"name": "a_b"}, ("name",)),
        ({"name": "a" * 500}, ("name",)),
        ({"name": "a\n"}, ("name",)),
        ({"name": "q", "foo": 1}, ("foo",)),
        ({"name": "q", 5: 1}, ("5",)),
        ({"name": "q", "rate": 5}, ("rate",)),
        ({"name": "q", "rate": "5/s\n"}, ("rate",)),
        ({"name": "q", "rate": "9999999999/s"}, ("rate",)),
        ({"name": "q", "rate": "9" * 400 + "/s"}, ("rate",)),
        ({"name": "q", "mode": "PULL"}, ("mode",)),
        ({"name": "q", "bucket_size": "many"}, ("bucket_size",)),
        ({"name": "q", "bucket_size": 10**12}, ("bucket_size",)),
        ({"name": "q", "max_concurrent_requests": [1]}, ("max_concurrent_requests",)),
        ({"name": "q", "target": "A_b"}, ("target",)),
        ({"name": "q", "target": "-a"}, ("target",)),
        ({"name": "q", "target": "a.b.c"}, ("target",)),
        ({"name": "q", "acl": "a@example.com"}, ("acl",)),
        ({"name": "q", "acl": [{"email": "a@example.com"}]}, ("acl", 0, "email")),
        ({"name": "q", "retry_parameters": 5}, ("retry_parameters",)),
        ("q", ()),
        (None, ()),
    ],
)
def test_a_refusal_says_where(entry: object, path: tuple[str | int, ...]) -> None:
    with pytest.raises(SettingError) as caught:
        queue_file({"queue": [{"name": "first"}, entry]})
    assert caught.value.path == ("queue", 1, *path)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (None, ()),
        ([], ()),
        ({"queues": []}, ("queues",)),
        ({"queue": 5}, ("queue",)),
        ({"queue": "q"}, ("queue",)),
        ({"application": "A_b"}, ("application",)),
        ({"resume_paused_queues": "yes"}, ("resume_paused_queues",)),
        ({"total_storage_limit": 1.5}, ("total_storage_limit",)),
        ({"total_storage_limit": "9" * 400}, ("total_storage_limit",)),
        ({"total_storage_limit": "9" * 400 + "T"}, ("total_storage_limit",)),
        ({"total_storage_limit": -1}, ("total_storage_limit",)),
    ],
)
def test_a_refusal_at_the_top_says_where(value: object, path: tuple[str | int, ...]) -> None:
    with pytest.raises(SettingError) as caught:
        queue_file(value)
    assert caught.value.path == path


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
keys = st.sampled_from(["queue", "name", "rate", "retry_parameters", "acl", "mode", "task_age_limit"]) | st.text(
    max_size=3
)
anything = st.recursive(plain, lambda each: st.lists(each, max_size=3) | st.dictionaries(keys, each, max_size=3))


@given(anything)
def test_anything_is_translated_or_refused(value: object) -> None:
    for top in (value, {"queue": value}, {"queue": [value]}, {"queue": [{"name": "q", "retry_parameters": value}]}):
        try:
            found = queue_file(top)
        except SettingError:
            continue
        assert isinstance(found, QueueFile)
