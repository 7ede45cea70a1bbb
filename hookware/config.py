"""The settings of one Hookware, in one frozen value, checked once."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from hookware.core.codec import CODEC_HEADER, Codec
from hookware.core.dotted import is_module_name
from hookware.core.headers import check_header
from hookware.core.history import HISTORIES, AttemptHistory
from hookware.core.lifecycle import Circumstances
from hookware.core.queue import DEFAULT_QUEUE, QueueSettings
from hookware.core.task import MOST_DEADLINE_US, LeasedTask
from hookware.core.url import split_base_url
from hookware.errors import ConfigurationError, InvalidQueueModeError, UnknownQueueError

MAX_BODY_BYTES = 1_048_576
MIN_KEY_BYTES: Final = 32
DISPATCH_VARIABLE: Final = "HOOKWARE_DISPATCH"
_MOST_SECONDS = MOST_DEADLINE_US // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How hookware behaves in this process. Seconds are floats.

    Attributes:
        concurrency: tasks that may run at once in this process.
        dispatch_deadline_seconds: how long an attempt may take, where the task does not say.
        lease_seconds: how long a claim is good for without renewal; a dead process's tasks wait this long.
        poll_seconds: the longest wait before the database is asked for due tasks, woken or not; three times as long
            where the notices of other processes are heard.
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
        deferred_packages: the modules and packages whose functions may be deferred.
        deferred_pickle_keys: what signs pickled calls: the first signs, all verify; none: there are no pickled calls.
        codec: encodes payloads for the database; None: they are stored as they are.
        cron_grace_seconds: how old a time of a cron entry may be that is made up for; at least a minute, which is
            what a database that is away for a moment, or a busy process, may take.
        max_chain_depth: how many tasks may follow each other, each added by the one before; None: no limit.
        refuse_unknown_queues: a queue that is neither in `queues` nor the default one cannot be used.
        attempt_history: which attempts are kept to be looked at, as long as their task is there.
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
    deferred_packages: tuple[str, ...] = ()
    deferred_pickle_keys: tuple[bytes, ...] = field(default=(), repr=False)
    codec: Codec | None = field(default=None, repr=False)
    cron_grace_seconds: float = 3600.0
    max_chain_depth: int | None = None
    refuse_unknown_queues: bool = False
    attempt_history: AttemptHistory = "failures"

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
        _check("cron_grace_seconds", self.cron_grace_seconds, least=60)
        for name in ("create_tables", "dispatch", "foreground_first"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} must be True or False, got {getattr(self, name)!r}")
        try:
            split_base_url(self.base_url)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(str(error)) from None
        self._check_optional()

    def _check_optional(self) -> None:
        if self.codec is not None:
            _check_codec(self.codec)
        if self.max_chain_depth is not None:
            _check_count("max_chain_depth", self.max_chain_depth)
        if self.attempt_history not in HISTORIES:
            raise ConfigurationError(
                f'attempt_history must be "failures", "all" or "off", got {self.attempt_history!r}'
            )
        for queue in self.queues.values():
            _check_retention(queue)

    def queue(self, name: str) -> QueueSettings:
        """Give the settings of the queue `name`."""
        return self.queues.get(name) or _unconfigured(name)

    def known_queue(self, name: str) -> QueueSettings:
        """Give the settings of the queue `name`, if it may be used.

        Raises:
            UnknownQueueError: queues have to be configured, and this one is not.
        """
        if self.refuse_unknown_queues and name not in self.queues and name != DEFAULT_QUEUE:
            raise UnknownQueueError(
                f"the queue {name!r} is not configured: add Queue({name!r}) to Hookware(queues=[...]), "
                'or pass unknown_queues="allow"'
            )
        return self.queue(name)

    def circumstances(self, task: LeasedTask, *, now_us: int, jitter: float) -> Circumstances:
        """Give what a decision about `task` depends on: its own retry options, or else its queue's."""
        retry = task.retry or self.queue(task.queue_name).retry
        return Circumstances(retry=retry, now_us=now_us, jitter=jitter, crash_limit=self.crash_limit)


@lru_cache(256)
def _unconfigured(name: str) -> QueueSettings:
    return QueueSettings(name=name)


def check_mode(settings: QueueSettings, *, wants_pull: bool) -> None:
    """See that a queue is of the kind that its tasks, or a lease, want it to be.

    Raises:
        InvalidQueueModeError: it is of the other kind.
    """
    if wants_pull and settings.mode != "pull":
        raise InvalidQueueModeError(
            f"the queue {settings.name!r} is a push queue: leave method='PULL' out, or make it a pull queue, "
            f'Hookware(queues=[Queue({settings.name!r}, mode="pull")])'
        )
    if not wants_pull and settings.mode == "pull":
        raise InvalidQueueModeError(
            f"the queue {settings.name!r} is a pull queue: add tasks with method='PULL' and a payload, or another queue"
        )


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


def _check_retention(queue: QueueSettings) -> None:
    _check(f"retention_seconds of queue {queue.name!r}", queue.retention_seconds, least=0)
    if queue.dead_retention_seconds is not None:
        _check(f"dead_retention_seconds of queue {queue.name!r}", queue.dead_retention_seconds, least=0)


def _check(name: str, value: object, *, least: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= _MOST_SECONDS:
        raise ConfigurationError(
            f"{name} must be a number of seconds from {least} to {_MOST_SECONDS} (100 years), got {value!r}"
        )


def packages_of(packages: object) -> tuple[str, ...]:
    """Give the packages whose functions may be deferred.

    Raises:
        ConfigurationError: they are not names of packages.
    """
    names = tuple(packages) if isinstance(packages, Iterable) and not isinstance(packages, str) else (None,)
    for name in names:
        if not is_module_name(name):
            raise ConfigurationError(f'deferred_packages= takes names of packages, ["myapp.tasks"], got {packages!r}')
    return names


def pickle_keys_of(keys: object) -> tuple[bytes, ...]:
    """Give the keys that sign pickled calls, of one, several or None.

    Raises:
        ConfigurationError: a key is too short, or not bytes.
    """
    several = tuple(keys) if isinstance(keys, list | tuple) else () if keys is None else (keys,)
    for key in several:
        if not isinstance(key, bytes) or len(key) < MIN_KEY_BYTES:
            got = f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
            raise ConfigurationError(
                f"deferred_pickle_key= takes keys of at least {MIN_KEY_BYTES} bytes, got {got}: make one with "
                f"secrets.token_bytes({MIN_KEY_BYTES})"
            )
    return several


def _check_codec(codec: Codec) -> None:
    name = getattr(codec, "name", None)
    if (
        not isinstance(name, str)
        or not name
        or not all(callable(getattr(codec, m, None)) for m in ("encode", "decode"))
    ):
        raise ConfigurationError(f"codec= takes an object with name, encode() and decode(), got {type(codec).__name__}")
    try:
        check_header(CODEC_HEADER, name)
    except ValueError:
        raise ConfigurationError(f"the codec's name {name!r} is refused: write a short name in ASCII") from None
