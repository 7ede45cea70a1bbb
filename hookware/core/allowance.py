"""How many tasks of a queue may begin now: pauses, rates and limits, as pure functions of what is stored."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from hookware.core import rate_limit
from hookware.core.queue import QueueSettings
from hookware.core.rate_limit import Bucket

NO_LIMIT: Final = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """What is stored of a queue: set at run time, or counted for all processes."""

    paused: bool = False
    overrides: Mapping[str, object] | None = None
    bucket: Bucket | None = None


NO_STATE: Final = QueueState()


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many tasks may begin now; if none, `ready_us` is when the next may, None: not before one ends."""

    count: int
    ready_us: int | None = None
    bucket: Bucket | None = None

    def left(self, taken: int, settings: QueueSettings, now_us: int) -> "Allowance":
        """Give what is allowed after `taken` have begun."""
        count = self.count - taken
        if self.bucket is None or settings.rate is None:
            return replace(self, count=count)
        bucket = rate_limit.take(self.bucket, taken, settings.rate, settings.bucket_size, now_us)
        ready_us = _ready_us(bucket, settings.rate, settings.bucket_size, now_us)
        if count <= 0 and ready_us is not None and ready_us <= now_us:
            ready_us = None  # there are tokens: what is full is the limit
        return Allowance(count, ready_us, bucket)


def effective(settings: QueueSettings, state: QueueState) -> QueueSettings:
    """Give the settings with what was set at run time."""
    return replace(settings, **dict(state.overrides)) if state.overrides else settings  # type: ignore[arg-type]  # checked when they were set


def allowance(settings: QueueSettings, state: QueueState, running_count: int, now_us: int) -> Allowance:
    """Say how many tasks of a queue may begin now, by its effective settings."""
    if state.paused:
        return Allowance(0)
    count = NO_LIMIT
    if settings.max_concurrent_requests is not None:
        count = max(0, settings.max_concurrent_requests - running_count)
    if settings.rate is None:
        return Allowance(count)
    rate, size = settings.rate, settings.bucket_size
    bucket = rate_limit.refill(state.bucket or rate_limit.full(size, now_us), rate, size, now_us)
    ready_us = None if count == 0 else _ready_us(bucket, rate, size, now_us)
    return Allowance(min(count, rate_limit.available(bucket, rate, size, now_us)), ready_us, bucket)


def _ready_us(bucket: Bucket, rate: float, size: int, now_us: int) -> int | None:
    wait_us = rate_limit.ready_us(bucket, rate, size, now_us)
    return None if wait_us is None else now_us + wait_us
