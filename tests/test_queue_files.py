"""The settings of queues from a queue.yaml, by its path or as a mapping."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hookware import Hookware, Queue, QueueSettings, TaskRetryOptions
from hookware.core.queue import CRON_QUEUE
from hookware.core.retry import RetryOptions
from hookware.errors import ConfigurationError, InvalidQueueError

FILE = "sqlite:///unused.db"
MAPPING: dict[str, object] = {
    "total_storage_limit": "120M",
    "queue": [
        {"name": "mail", "rate": "5/s", "retry_parameters": {"task_retry_limit": 7}},
        {"name": "mail", "rate": "10/m", "bucket_size": 3},
        {"name": "pulled", "mode": "pull"},
    ],
}
TEXT = """
total_storage_limit: 120M
queue:
- name: mail
  rate: 5/s
  retry_parameters:
    task_retry_limit: 7
- name: mail
  rate: 10/m
  bucket_size: 3
- name: pulled
  mode: pull
"""


@pytest.mark.parametrize("source", [str, Path, lambda _path: MAPPING])
def test_a_queue_yaml_by_its_path_or_as_a_mapping(tmp_path: Path, source: Callable[[Path], Any]) -> None:
    path = tmp_path / "queue.yaml"
    path.write_text(TEXT)
    queues = Hookware(engine=FILE, queues=source(path)).config.queues
    assert queues["mail"] == QueueSettings(name="mail", rate=10 / 60, bucket_size=3), "the later one counts"
    assert queues["pulled"].mode == "pull"
    assert set(queues) == {"mail", "pulled", CRON_QUEUE}
    assert queues[CRON_QUEUE].retry == RetryOptions(task_retry_limit=0)


def test_a_bucket_holds_one_token_at_least_whatever_the_file_says() -> None:
    given = {"queue": [{"name": "mail", "rate": "1/s", "bucket_size": -1}]}
    assert Hookware(engine=FILE, queues=given).config.queues["mail"].bucket_size == 1


def test_settings_made_in_python_are_taken_as_before() -> None:
    settings = QueueSettings(name="mail", retry=TaskRetryOptions(task_retry_limit=1))
    assert Hookware(engine=FILE, queues=(each for each in [settings])).config.queues["mail"] is settings


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("missing.yaml", r"missing\.yaml cannot be read: .*; give the path of a YAML file"),
        ({"queue": [{"name": "mail", "rate": "5"}]}, r"queue\[0\]\.rate: .*write a number and one of /s"),
        ({"queues": []}, "queues"),
    ],
)
def test_what_is_no_queue_yaml(source: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=says):
        Hookware(engine=FILE, queues=source)


REFUSED = [
    ("name", "''", "the queue name '' is refused"),
    ("name", "a" * 101, "1 to 100 of the characters"),
    ("name", "a" * 300, "1 to 100 of the characters"),
    ("rate", "2000000/s", "the queue 'slow' is refused: rate must be"),
    ("bucket_size", "2000000", "the queue 'slow' is refused: bucket_size must be a whole number from 1 to 1000000"),
    ("max_concurrent_requests", "-1", "'slow' is refused: max_concurrent_requests must be a whole number from 0"),
    ("max_concurrent_requests", "1000001", "'slow' is refused: max_concurrent_requests must be a whole number from 0"),
]


@pytest.mark.parametrize(("key", "value", "says"), REFUSED)
def test_what_no_queue_can_have_is_refused_with_its_file_line_key_and_queue(
    tmp_path: Path, key: str, value: str, says: str
) -> None:
    path = tmp_path / "queue.yaml"
    keys = {"name": "slow", "mode": "push", key: value}
    path.write_text("queue:\n- name: mail\n- " + "\n  ".join(f"{name}: {text}" for name, text in keys.items()))
    with pytest.raises(ConfigurationError) as refused:
        Hookware(engine=FILE, queues=path)
    line = 3 + list(keys).index(key)
    assert str(refused.value).startswith(f"{path}, line {line}: queue[1].{key}: ")
    assert says in str(refused.value)


def test_a_mapping_is_refused_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^queue\[0\]\.bucket_size: the queue 'mail' is refused: bucket_size"):
        Hookware(engine=FILE, queues={"queue": [{"name": "mail", "bucket_size": 1_000_001}]})


def test_an_earlier_queue_of_a_name_is_checked_too() -> None:
    given = {"queue": [{"name": "mail", "max_concurrent_requests": -1}, {"name": "mail"}]}
    with pytest.raises(ConfigurationError, match=r"^queue\[0\]"):
        Hookware(engine=FILE, queues=given)


def test_settings_made_in_python_are_refused_by_the_name_of_their_queue() -> None:
    with pytest.raises(InvalidQueueError, match="the queue 'mail' is refused: max_concurrent_requests must be"):
        Hookware(engine=FILE, queues=[QueueSettings(name="mail", max_concurrent_requests=-1)])
    with pytest.raises(InvalidQueueError, match="the queue 'mail' is refused: bucket_size must be"):
        Queue("mail", bucket_size=0)
