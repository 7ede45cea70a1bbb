"""What a Queue is configured with: rates as in queue.yaml, and what of it is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from hookware import Hookware, Queue, QueueSettings, TaskRetryOptions
from hookware.errors import InvalidQueueError
from hookware.queue_settings import parsed_rate

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "task_vectors.json").read_text())
FILE = "sqlite:///unused.db"


@pytest.mark.parametrize("vector", VECTORS["rates"], ids=lambda vector: vector["rate"] or "empty")
def test_a_rate_is_read_as_queue_yaml_is(vector: dict[str, Any]) -> None:
    if vector["yaml_valid"]:
        assert parsed_rate(vector["rate"]) == vector["parse_rate"]
    else:
        with pytest.raises(InvalidQueueError, match="as in '5/s'"):
            parsed_rate(vector["rate"])


@pytest.mark.parametrize("rate", ["5/s\n", " 5/s", "-1/s", "1e2/s", "\u0665/s", "inf/s", "5/S"])
def test_other_texts_are_no_rates(rate: str) -> None:
    with pytest.raises(InvalidQueueError):
        Queue(rate=rate)


@pytest.mark.parametrize(("rate", "per_second"), [("60/m", 1), ("36/h", 0.01), ("5./s", 5), (0, 0), (2.5, 2.5)])
def test_a_rate_is_a_number_per_second(rate: str | float, per_second: float) -> None:
    assert Queue(rate=rate).settings.rate == per_second


def test_a_queue_gives_its_settings() -> None:
    retry = TaskRetryOptions(task_retry_limit=3)
    queue = Queue(
        "mail", rate="5/s", bucket_size=10, max_concurrent_requests=4, retry_parameters=retry, mode="pull",
        target="v1", limit_per_key=2, retention_seconds=60, dead_retention_seconds=90,
    )  # fmt: skip
    settings = QueueSettings(
        name="mail", rate=5.0, bucket_size=10, max_concurrent_requests=4, retry=retry, mode="pull", target="v1",
        limit_per_key=2, retention_seconds=60, dead_retention_seconds=90,
    )  # fmt: skip
    assert queue.settings == settings
    assert Hookware(engine=FILE, queues=[queue]).config.queue("mail") == settings
    assert Queue().settings == QueueSettings()


@pytest.mark.parametrize(
    "options",
    [
        {"rate": -1},
        {"rate": float("nan")},
        {"rate": float("inf")},
        {"rate": True},
        {"rate": 10**7},
        {"rate": []},
        {"bucket_size": 0},
        {"bucket_size": 1.5},
        {"bucket_size": None},
        {"max_concurrent_requests": -1},
        {"max_concurrent_requests": "4"},
        {"limit_per_key": 0},
        {"mode": "PULL"},
        {"retry_parameters": {}},
        {"retention_seconds": -0.1},
        {"retention_seconds": float("inf")},
        {"dead_retention_seconds": "1"},
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    name = next(iter(options))
    with pytest.raises(InvalidQueueError, match=name):
        Queue("mail", **options)


def test_settings_without_a_queue_are_checked_too() -> None:
    with pytest.raises(InvalidQueueError, match="bucket_size"):
        Hookware(engine=FILE, queues=[QueueSettings(name="mail", bucket_size=0)])
