"""What may be set of a queue, by its configuration or at run time, and what of it is refused."""

import math
import re
from dataclasses import replace
from typing import Final, Literal, TypedDict

from hookware.core.queue import QueueSettings
from hookware.core.retry import RetryOptions
from hookware.errors import InvalidQueueError

_RATE: Final = re.compile(r"0|(?P<count>[0-9]+(?:\.[0-9]*)?)/(?P<unit>[smhd])")
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MOST: Final = 1_000_000
_MOST_SECONDS: Final = 100 * 365 * 86_400


class QueueChanges(TypedDict, total=False):
    """What `Queue.update` may change of a queue; what is left out stays as it is."""

    rate: str | float | None
    bucket_size: int
    max_concurrent_requests: int | None
    retry_parameters: RetryOptions | None
    limit_per_key: int
    retention_seconds: float
    dead_retention_seconds: float | None


def parsed_rate(rate: str | float | None) -> float | None:
    """Give a rate per second: "5/s", "30/m", "2000/d" and "0" as in queue.yaml, or a number; None is no limit.

    Raises:
        InvalidQueueError: it is none of these.
    """
    if isinstance(rate, str):
        found = _RATE.fullmatch(rate)
        if found is None:
            raise InvalidQueueError(f"the rate {rate[:100]!r} is refused: write a number and s, m, h or d, as in '5/s'")
        rate = 0.0 if found["count"] is None else float(found["count"]) / _UNIT_SECONDS[found["unit"]]
    if rate is not None and not _is_number(rate, 0, _MOST):
        raise InvalidQueueError(f"rate must be text such as '5/s', or 0 to {_MOST} a second, got {rate!r:.100}")
    return rate


def check_settings(settings: QueueSettings) -> None:
    """Refuse settings that make no sense.

    Raises:
        InvalidQueueError: one of them is out of range.
    """
    try:
        _check(settings)
    except InvalidQueueError as error:
        raise InvalidQueueError(f"the queue {settings.name!r:.200} is refused: {error}") from None


def _check(settings: QueueSettings) -> None:
    parsed_rate(settings.rate)
    _check_count("bucket_size", settings.bucket_size, least=1)
    _check_count("limit_per_key", settings.limit_per_key, least=1)
    if settings.max_concurrent_requests is not None:
        _check_count("max_concurrent_requests", settings.max_concurrent_requests, least=0)
    if settings.mode not in ("push", "pull"):
        raise InvalidQueueError(f'mode must be "push" or "pull", got {settings.mode!r:.100}')
    if not isinstance(settings.retry, RetryOptions):
        raise InvalidQueueError(f"retry_parameters must be TaskRetryOptions(...), got {settings.retry!r:.100}")
    _check_seconds("retention_seconds", settings.retention_seconds)
    if settings.dead_retention_seconds is not None:
        _check_seconds("dead_retention_seconds", settings.dead_retention_seconds)


def overrides_of(queue_name: str, changes: QueueChanges) -> dict[str, object]:
    """Give what is stored of changes to a queue: fields of `QueueSettings`, checked.

    Raises:
        InvalidQueueError: one of them is out of range.
        TypeError: there is no such setting.
    """
    unknown = changes.keys() - QueueChanges.__annotations__.keys()
    if unknown:
        raise TypeError(
            f"a queue has no setting {', '.join(sorted(unknown))} that can be changed at run time: "
            f"use {', '.join(QueueChanges.__annotations__)}"
        )
    fields: dict[str, object] = dict(changes)
    if "rate" in changes:
        fields["rate"] = parsed_rate(changes["rate"])
    if "retry_parameters" in fields:
        fields["retry"] = fields.pop("retry_parameters") or RetryOptions()
    check_settings(replace(QueueSettings(name=queue_name), **fields))  # type: ignore[arg-type]  # checked there
    return fields


Mode = Literal["push", "pull"]


def _check_count(name: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or not _is_number(value, least, _MOST):
        raise InvalidQueueError(f"{name} must be a whole number from {least} to {_MOST}, got {value!r:.100}")


def _check_seconds(name: str, value: object) -> None:
    if not _is_number(value, 0, _MOST_SECONDS):
        raise InvalidQueueError(
            f"{name} must be a number of seconds from 0 to {_MOST_SECONDS} (100 years), got {value!r:.100}"
        )


def _is_number(value: object, least: float, most: float) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) and least <= value <= most
