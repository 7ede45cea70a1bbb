"""What happened, as values: one log line each, and a place where tests can wait for them."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry
from hookware.core.queue import CRON_QUEUE
from hookware.core.task import LeasedTask
from hookware.log import fields_of, log_of

_ANSWERED = re.compile(r"answered [^3]\d\d(?: \([^)]*\))?")
_logger = log_of()


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """A handler is about to be called, `late_seconds` after the task was due."""

    task: LeasedTask
    late_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class AttemptSettled:
    """An attempt ended, and the decision about the task is stored.

    `accepted` False: the task had been cancelled, deleted or given to a newer attempt, and this one's result was
    refused. None: the database broke off while it was stored, so that either it was, or a newer attempt has the task.
    `was_begun` False: its handler was not called here; the task is given back as it was, or its process has died.
    `waited_seconds`: how long after the claim the attempt began.
    """

    task: LeasedTask
    decision: Decision
    accepted: bool | None
    duration_seconds: float
    was_begun: bool = True
    waited_seconds: float = 0.0

    @property
    def outcome(self) -> str:
        """What became of the attempt: "completed", "retried", "dead", "released", "refused" or "unknown"."""
        if self.accepted is None:
            return "unknown"
        if not self.accepted:
            return "refused"
        match self.decision:
            case Complete():
                return "completed"
            case Retry():
                return "retried"
            case Die():
                return "dead"
            case Release():
                return "released"


@dataclass(frozen=True, slots=True)
class TasksCommitted:
    """A transaction that carried tasks was committed in this process."""

    count: int


@dataclass(frozen=True, slots=True)
class LoopFailed:
    """A background loop raised; it begins again after `delay_seconds`."""

    loop: str
    error: BaseException
    delay_seconds: float


@dataclass(frozen=True, slots=True)
class CronFired:
    """A cron entry has come due, and this process has added its task; `time_us` is the time by its schedule."""

    name: str
    time_us: int
    task_id: int


Event = AttemptStarted | AttemptSettled | TasksCommitted | LoopFailed | CronFired


class Events:
    """Tells subscribers, and the log, what happened. A subscriber that raises is logged, never obeyed."""

    def __init__(self) -> None:
        self._subscribers: list[tuple[Callable[[Event], None], type[Event] | None]] = []

    def subscribe(self, subscriber: Callable[[Event], None], kind: type[Event] | None = None) -> None:
        """Call `subscriber` with every event from now on, or every one of a kind, on whatever thread it happens."""
        self._subscribers = [*self._subscribers, (subscriber, kind)]  # another list: an event may be on its way

    def unsubscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Do so no longer."""
        self._subscribers = [each for each in self._subscribers if each[0] != subscriber]

    def wants(self, kind: type[Event]) -> bool:
        """Say whether anybody is to hear of events of a kind: there are many, and none need be made for nobody."""
        return _logger.isEnabledFor(logging.DEBUG) or any(each[1] in (None, kind) for each in self._subscribers)

    def emit(self, event: Event) -> None:
        """Log the event and tell the subscribers."""
        kind = type(event)
        try:
            _log(event)
        except Exception:
            _logger.exception("an event could not be logged")
        for subscriber, wanted in self._subscribers:
            if wanted is None or wanted is kind:
                try:
                    subscriber(event)
                except Exception:
                    _logger.exception("a subscriber failed on %s", kind.__name__)


def _log(event: Event) -> None:
    match event:
        case AttemptSettled():
            _log_settled(event)
        case LoopFailed():
            # What is said of it, and how often, is `Health`'s to know.
            _logger.debug("%s starts again in %.1f s", event.loop, event.delay_seconds)
        case CronFired():
            fields = {"task_id": event.task_id, "queue_name": CRON_QUEUE, "attempt": 0}
            _logger.info("cron entry %s: task %d is added", one_line(event.name), event.task_id, extra=fields)
        case AttemptStarted() | TasksCommitted():
            if _logger.isEnabledFor(logging.DEBUG):
                _logger.debug("%s", event.__class__.__name__)


def _log_settled(event: AttemptSettled) -> None:
    level, what = _described(event)
    if not _logger.isEnabledFor(level):
        return
    task = event.task
    _logger.log(
        level,
        "task %s %s %s: attempt %d %s after %.3f s",
        task.label, task.method, task.url.partition("?")[0], task.attempt_count, what, event.duration_seconds,
        extra={**fields_of(task), "outcome": event.outcome, "duration_seconds": event.duration_seconds},
    )  # fmt: skip


def _described(event: AttemptSettled) -> tuple[int, str]:
    if event.accepted is None:
        return logging.WARNING, "ended, and the database broke off while that was stored: most likely it is"
    if not event.accepted:
        why = f" ({loggable(event.decision.error)})" if isinstance(event.decision, Retry | Die) else ""
        return logging.WARNING, f"was refused: the task had been cancelled, deleted or given to a newer attempt{why}"
    match event.decision:
        case Complete():
            return logging.INFO, "completed"
        case Release():
            return logging.INFO, "was given back"
        case Retry(delay_us=delay_us, error=error):
            return logging.WARNING, f"failed, next in {delay_us / 1e6:.1f} s ({loggable(error)})"
        case Die(reason=reason, error=error):
            what = f"failed for the last time [{reason}]; the task is dead ({loggable(error)})"
            return logging.ERROR, f"{what}. inspector().run_again(id) revives it"


def loggable(error: str) -> str:
    """Give an attempt's error for a log line or a span: without the text of an answer, which may repeat the payload."""
    answered = _ANSWERED.match(error)
    if answered is None or answered.end() == len(error):
        return one_line(error)
    return f"{answered[0]}; the text of the answer is in the task's last_error"


def one_line(text: str, limit: int = 300) -> str:
    """Make `text` fit for one log line: no control characters, bounded."""
    return "".join(c if c.isprintable() else " " for c in text[:limit])
