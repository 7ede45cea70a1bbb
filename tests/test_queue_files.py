"""The settings of queues from a queue.yaml, by its path or as a mapping."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hookware import Hookware, QueueSettings, TaskRetryOptions
from hookware.core.queue import CRON_QUEUE
from hookware.core.retry import RetryOptions
from hookware.errors import ConfigurationError, InvalidQueueNameError

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


def test_a_name_that_no_task_could_be_added_to() -> None:
    with pytest.raises(InvalidQueueNameError):
        Hookware(engine=FILE, queues={"queue": [{"name": "a" * 101}]})
