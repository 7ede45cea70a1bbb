"""The settings of one Hookware, in one frozen value, checked once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from hookware.core.lifecycle import Circumstances
from hookware.core.queue import QueueSettings
from hookware.core.task import MOST_DEADLINE_US, LeasedTask
from hookware.core.url import split_base_url
from hookware.errors import ConfigurationError

MAX_BODY_BYTES = 1_048_576
DISPATCH_VARIABLE: Final = "HOOKWARE_DISPATCH"
_MOST_SECONDS = MOST_DEADLINE_US // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How hookware behaves in this process. Seconds are floats.

    Attributes:
        concurrency: tasks that may run at once in this process.
        dispatch_deadline_seconds: how long an attempt may take, where the task does not say.
        lease_seconds: how long a claim is good for without renewal; a dead process's tasks wait this long.
        poll_seconds: the longest wait before the database is asked for due tasks, woken or not.
        drain_seconds: how long running tasks may go on at shutdown before they are cancelled and given back.
        overrun_seconds: how long past its deadline a handler may still hold its slot and lease.
        crash_limit: how many expired leases make a task dead.
        tombstone_seconds: how long the name of a finished task stays taken.
        max_body_bytes: the largest payload of a task; 1 MiB at most.
        base_url: the scheme and host that deliveries carry.
        create_tables: make hookware's tables at start-up if they are missing.
        dispatch: run tasks in this process; False only stores them.
        foreground_first: let tasks wait where users of this process would feel them.
        queues: settings by queue name; a queue not named here has the defaults.
    """

    concurrency: int = 10
    dispatch_deadline_seconds: float = 30.0
    lease_seconds: float = 30.0
    poll_seconds: float = 1.0
    drain_seconds: float = 10.0
    overrun_seconds: float = 5.0
    crash_limit: int = 3
    tombstone_seconds: float = 9 * 86_400.0
    max_body_bytes: int = MAX_BODY_BYTES
    base_url: str = "http://localhost"
    create_tables: bool = True
    dispatch: bool = True
    foreground_first: bool = True
    queues: Mapping[str, QueueSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("concurrency", "crash_limit", "max_body_bytes"):
            _check_count(name, getattr(self, name))
        if self.max_body_bytes > MAX_BODY_BYTES:
            raise ConfigurationError(
                f"max_body_bytes may be {MAX_BODY_BYTES} at most, got {self.max_body_bytes}: store larger data "
                "elsewhere, and send its key"
            )
        for name in ("lease_seconds", "poll_seconds", "dispatch_deadline_seconds"):
            _check(name, getattr(self, name), least=0.01)
        for name in ("drain_seconds", "overrun_seconds", "tombstone_seconds"):
            _check(name, getattr(self, name), least=0)
        for name in ("create_tables", "dispatch", "foreground_first"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} must be True or False, got {getattr(self, name)!r}")
        try:
            split_base_url(self.base_url)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(str(error)) from None

    def queue(self, name: str) -> QueueSettings:
        """Give the settings of the queue `name`."""
        return self.queues.get(name, QueueSettings(name=name))

    def circumstances(self, task: LeasedTask, *, now_us: int, jitter: float) -> Circumstances:
        """Give what a decision about `task` depends on: its own retry options, or else its queue's."""
        retry = task.retry or self.queue(task.queue_name).retry
        return Circumstances(retry=retry, now_us=now_us, jitter=jitter, crash_limit=self.crash_limit)


def dispatches_here(dispatch: bool) -> bool:
    """Give what the environment variable HOOKWARE_DISPATCH says, "on" or "off"; unset or empty, `dispatch`.

    Raises:
        ConfigurationError: it says something else.
    """
    match os.environ.get(DISPATCH_VARIABLE, ""):
        case "":
            return dispatch
        case "on":
            return True
        case "off":
            return False
        case other:
            raise ConfigurationError(f"{DISPATCH_VARIABLE} must be on or off, got {other!r}: change it, or unset it")


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number of at least 1, got {value!r}")


def _check(name: str, value: object, *, least: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= _MOST_SECONDS:
        raise ConfigurationError(
            f"{name} must be a number of seconds from {least} to {_MOST_SECONDS} (100 years), got {value!r}"
        )
