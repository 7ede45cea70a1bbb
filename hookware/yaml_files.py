"""queue.yaml and cron.yaml from files, text or mappings: `pip install "hookware[yaml]"` for files and text.

Only plain values are taken: no tags, anchors or second documents. An error names the file, the line and the key.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TypeVar

from hookware.arguments import checked_queue_name
from hookware.core.cron import CronEntry, cron_entries
from hookware.core.queue import QueueSettings
from hookware.core.queue_yaml import QueueFile, queue_file
from hookware.core.yaml_values import Path as KeyPath
from hookware.core.yaml_values import SettingError
from hookware.errors import ConfigurationError, InvalidQueueError, InvalidScheduleError
from hookware.queue_settings import check_settings
from hookware.schedules import schedule

_MOST_BYTES = 1_048_576
_RUNNABLE = ("rate", "bucket_size", "max_concurrent_requests")
"""What a queue.yaml may say that no queue can have which is to run."""

Source = str | PathLike[str] | Mapping[str, object]
T = TypeVar("T")
"""A queue.yaml, by its path or as a mapping, or settings made in Python."""


def load_queues(source: Source) -> QueueFile:
    """Read a queue.yaml.

    Args:
        source: the path of the file, or what it would say, as a mapping.

    Raises:
        ConfigurationError: the file cannot be read, or a value in it is refused; it says where.
        ImportError: PyYAML is not installed, and `source` is a path.
    """
    return _translated(_document(source), queue_file)


def listed_queues(source: Source | Iterable[T]) -> Iterable[T | QueueSettings]:
    """Give the settings of a queue.yaml, of two queues with one name the later ones, or those that are given.

    Raises:
        ConfigurationError: the file cannot be read, or a value in it is refused; it says where.
        ImportError: PyYAML is not installed, and `source` is a path.
    """
    if isinstance(source, str | PathLike | Mapping):
        return _translated(_document(source), _runnable_queues)
    return source


def load_cron(source: Source) -> tuple[CronEntry, ...]:
    """Read a cron.yaml; its schedules may also be crontab expressions.

    Args:
        source: the path of the file, or what it would say, as a mapping.

    Raises:
        ConfigurationError: the file cannot be read, or a value in it is refused; it says where.
        ImportError: PyYAML is not installed, and `source` is a path; or cronsim, for a crontab expression.
    """
    return _translated(_document(source), _checked_entries)


def parse_queues(text: str, name: str = "queue.yaml") -> QueueFile:
    """Read the text of a queue.yaml; `name` is what errors call it. Raises as `load_queues` does."""
    return _translated(_parsed(text, name), queue_file)


def parse_cron(text: str, name: str = "cron.yaml") -> tuple[CronEntry, ...]:
    """Read the text of a cron.yaml; `name` is what errors call it. Raises as `load_cron` does."""
    return _translated(_parsed(text, name), _checked_entries)


@dataclass(frozen=True, slots=True)
class _Document:
    """What a source says, and in which line each value stands, if it has lines."""

    value: object
    name: str = ""
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """Say where a value stands, or the nearest that it stands in."""
        near = next((path[:length] for length in range(len(path), -1, -1) if path[:length] in self.lines), None)
        where = [self.name] if self.name else []
        where += [] if near is None else [f"line {self.lines[near]}"]
        keys = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")
        return ": ".join(filter(None, [", ".join(where), keys]))


def _runnable_queues(value: object) -> list[QueueSettings]:
    queues: dict[str, QueueSettings] = {}
    for index, given in enumerate(queue_file(value).queues):
        queue = replace(given, bucket_size=max(1, given.bucket_size))
        try:
            key = "name"
            checked_queue_name(queue.name)
            for key in _RUNNABLE:
                check_settings(replace(QueueSettings(name=queue.name), **{key: getattr(queue, key)}))
        except InvalidQueueError as error:
            raise SettingError(("queue", index, key), str(error)) from None
        queues[queue.name] = queue
    return list(queues.values())


def _checked_entries(value: object) -> tuple[CronEntry, ...]:
    entries = cron_entries(value)
    for index, entry in enumerate(entries):
        for key, text, timezone in (("timezone", "every 1 hours", entry.timezone), ("schedule", entry.schedule, "UTC")):
            try:
                schedule(text, timezone)
            except InvalidScheduleError as error:
                raise SettingError(("cron", index, key), str(error)) from None
    return entries


def _translated(document: _Document, translate: Callable[[object], T]) -> T:
    try:
        return translate(document.value)
    except SettingError as error:
        place = document.place(error.path)
        raise ConfigurationError(f"{place}: {error}" if place else str(error)) from None


def _document(source: Source) -> _Document:
    if isinstance(source, Mapping):
        return _Document(source)
    if not isinstance(source, str | PathLike):
        raise TypeError(f"source must be a path or a mapping, got {type(source).__name__}")
    try:
        with Path(source).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{source} cannot be read: {error}; give the path of a YAML file in UTF-8") from None
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"{source} is refused: it is larger than {_MOST_BYTES} bytes")
    return _parsed(text, str(source))


def _parsed(text: str, name: str) -> _Document:
    from hookware.yaml_nodes import read_yaml

    lines: dict[KeyPath, int] = {}
    return _Document(read_yaml(text, name, lines), name, lines)
