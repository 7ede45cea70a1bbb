"""What a queue.yaml says, once it is parsed: App Engine's rules, its repairs, and what it lets pass.

Source: `queueinfo` of the App Engine SDK, whose answers are the golden vectors of the tests.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from hookware.core.queue import QueueSettings
from hookware.core.retry import DEFAULT_RETRY, RetryOptions
from hookware.core.yaml_values import (
    Path,
    SettingError,
    age_seconds,
    count,
    fields_of,
    items_of,
    matched,
    required,
    seconds,
    shown,
    whole,
)

_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_BYTES: Final = "BKMGT"
_NAME: Final = re.compile(r"[A-Za-z0-9-]{0,499}")
_RATE: Final = re.compile(r"0|[0-9]+(\.[0-9]*)?/[smhd]", re.ASCII)
_LIMIT: Final = re.compile(r"[0-9]+(\.[0-9]*)?[BKMGT]?", re.ASCII)
_APPLICATION: Final = re.compile(r"([a-z\d-]{1,100}~)?((?!-)[a-z\d.-]{1,100}:)?(?!-)[a-z\d-]{0,99}[a-z\d]", re.ASCII)
_TARGET: Final = re.compile(r"((?!-)[a-z\d-]{1,100}\.)?(?!-)[a-z\d-]{1,63}", re.ASCII)
_MOST_BYTES: Final = 2**62
_TOP_KEYS: Final = ("queue", "application", "total_storage_limit", "resume_paused_queues")
_RETRY_KEYS: Final = (
    *("task_retry_limit", "task_age_limit", "min_backoff_seconds", "max_backoff_seconds", "max_doublings"),
)
_QUEUE_KEYS: Final = (
    *("name", "rate", "mode", "bucket_size", "max_concurrent_requests", "retry_parameters", "acl", "target"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFile:
    """What a queue.yaml says.

    Attributes:
        queues: in the order of the file; of two with one name, the later one counts.
        total_storage_limit: in bytes; None if it does not say.
    """

    queues: tuple[QueueSettings, ...] = ()
    total_storage_limit: int | None = None


def queue_file(value: object) -> QueueFile:
    """Translate a parsed queue.yaml.

    Raises:
        SettingError: a value breaks its rule.
    """
    fields = fields_of(value, _TOP_KEYS, ())
    limit = fields.get("total_storage_limit")
    if "application" in fields:
        matched(fields["application"], _APPLICATION, "an application's id is in lower case", ("application",))
    if str(fields.get("resume_paused_queues", True)) not in {"True", "False"}:
        raise SettingError(("resume_paused_queues",), "resume_paused_queues must be True or False")
    return QueueFile(
        queues=tuple(_queue(each, path) for path, each in items_of(fields.get("queue"), ("queue",))),
        total_storage_limit=None if limit is None else storage_bytes(limit, ("total_storage_limit",)),
    )


def rate_of(value: object, path: Path = ("rate",)) -> float:
    """Give a rate of a queue.yaml, such as `5/s`, `2000/d` or `0`, in tasks per second.

    Raises:
        SettingError: it is no such rate.
    """
    says = "write a number and one of /s, /m, /h, /d, as in 5/s, or 0 to pause"
    rate = parse_rate(matched(value, _RATE, says, path))
    if rate > 1e9:
        raise SettingError(path, f"rate {shown(value)} is refused: at most 1e9 tasks a second")
    return rate


def parse_rate(text: str) -> float:
    """Give a rate in tasks per second, in the wider notation of App Engine's own `ParseRate`: `.5/s`, `5 /s`.

    Raises:
        ValueError: it is no rate.
    """
    if text == "0":
        return 0.0
    number, slash, unit = text.partition("/")
    if not slash or unit not in _UNIT_SECONDS:
        raise ValueError(f"the rate {shown(text)} is refused: it must end with one of /s, /m, /h, /d")
    try:
        return float(number) / _UNIT_SECONDS[unit]
    except ValueError:
        raise ValueError(f"the rate {shown(text)} is refused: {shown(number)} is not a number") from None


def storage_bytes(value: object, path: Path = ("total_storage_limit",)) -> int:
    """Give a size such as `120M`, `1.5G` or `100` in bytes; the units are powers of 1024.

    Raises:
        SettingError: it is no such size.
    """
    says = "write a number and one of B, K, M, G, T, as in 1.5G"
    text = matched(value, _LIMIT, says, path)
    number, power = (text[:-1], _BYTES.index(text[-1])) if text[-1] in _BYTES else (text, 0)
    if text[-1] not in _BYTES and "." in text:
        raise SettingError(path, f"total_storage_limit {shown(value)} is refused: bytes are whole; {says}")
    size = float(number) * 1024**power
    if size > _MOST_BYTES:
        raise SettingError(path, f"total_storage_limit {shown(value)} is refused: it is more than 4 EiB")
    return int(size)


def retry_options(value: object, path: Path = ("retry_parameters",)) -> RetryOptions:
    """Translate `retry_parameters`, and repair the wait that is not given where the given one contradicts its default.

    Raises:
        SettingError: a value breaks its rule.
    """
    fields = fields_of(value, _RETRY_KEYS, path)
    found: dict[str, int | float] = {}
    for key, each in fields.items():
        at = (*path, key)
        if key == "task_age_limit":
            found[key] = age_seconds(each, at)
        else:
            found[key] = seconds(each, at) if key.endswith("_seconds") else count(each, at)
    return _repaired(found, path)


def _repaired(found: Mapping[str, float], path: Path) -> RetryOptions:
    shortest, longest = found.get("min_backoff_seconds"), found.get("max_backoff_seconds")
    if shortest is not None and longest is None and shortest > 3600:
        longest = shortest
    elif longest is not None and shortest is None and longest < 0.1:
        shortest = longest
    elif shortest is not None and longest is not None and shortest > longest:
        raise SettingError(
            (*path, "min_backoff_seconds"),
            f"min_backoff_seconds ({shortest}) must not be more than max_backoff_seconds ({longest}): swap them",
        )
    limit, age, doublings = (found.get(key) for key in ("task_retry_limit", "task_age_limit", "max_doublings"))
    return RetryOptions(
        task_retry_limit=None if limit is None else int(limit),
        task_age_limit=None if age is None else int(age),
        min_backoff_seconds=shortest,
        max_backoff_seconds=longest,
        max_doublings=None if doublings is None else int(doublings),
    )


def _queue(value: object, path: Path) -> QueueSettings:
    fields = fields_of(value, _QUEUE_KEYS, path)
    for at, entry in items_of(fields.get("acl"), (*path, "acl")):
        fields_of(entry, ("user_email", "writer_email"), at)
    name_says = "at most 499 of the characters a-z A-Z 0-9 - are allowed"
    target_says = "write a module, or version.module, in lower case"
    most, rate = fields.get("max_concurrent_requests"), fields.get("rate")
    retry, target = fields.get("retry_parameters"), fields.get("target")
    return QueueSettings(
        name=matched(required(fields, "name", path), _NAME, name_says, (*path, "name")),
        retry=DEFAULT_RETRY if retry is None else retry_options(retry, (*path, "retry_parameters")),
        rate=None if rate is None else rate_of(rate, (*path, "rate")),
        bucket_size=whole(fields.get("bucket_size", 5), (*path, "bucket_size")),
        max_concurrent_requests=None if most is None else whole(most, (*path, "max_concurrent_requests")),
        mode=_mode(fields.get("mode", "push"), (*path, "mode")),
        target=None if target is None else matched(target, _TARGET, target_says, (*path, "target")),
    )


def _mode(value: object, path: Path) -> Literal["push", "pull"]:
    if value == "push":
        return "push"
    if value == "pull":
        return "pull"
    raise SettingError(path, f"mode {shown(value)} is refused: it must be push or pull")
