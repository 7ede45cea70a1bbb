"""The life of a task as one table, and the one function that decides its next step.

Rule: whatever makes a task change its state stands here. Stores only carry decisions out.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, assert_never

from hookware.core.retry import RetryOptions, backoff_us, may_retry
from hookware.core.task import LeasedTask


class State(IntEnum):
    """What is stored of a task's life; scheduled, ready and retrying are predicates over PENDING and its ETA."""

    PENDING = 0
    LEASED = 1
    DEAD = 2
    COMPLETED = 3
    """Done, and kept to be looked at for its queue's retention time."""
    PULL = 4
    """In a pull queue: who works on it takes a lease by moving its ETA. No dispatcher looks at it."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The app answered 2xx, sent its last byte and returned without raising.

    `completed` says that the handler's own transaction has already removed the task.
    """

    status: int
    completed: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed: another status, an exception, no answer within the deadline.

    `retry_after_us` is the least wait the app asked for; `permanent` forbids another attempt.
    """

    status: int | None
    error: str
    retry_after_us: int = 0
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Conflicted:
    """The handler's transaction met a concurrent one (serialization failure, deadlock, busy): not its fault."""

    error: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The process is shutting down: the attempt was cut short, or never begun. It does not count.

    `delay_us` is for how long the task is better left alone by every process.
    """

    delay_us: int = 0


@dataclass(frozen=True, slots=True)
class LeaseExpired:
    """The process that held the lease died or froze."""


Outcome = Succeeded | Failed | Conflicted | Interrupted | LeaseExpired


@dataclass(frozen=True, slots=True)
class Complete:
    """Remove the task, or keep it as COMPLETED: it is done. Its name stays taken for the time of a tombstone."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Make the task pending again, due `delay_us` from now by the database's clock."""

    delay_us: int
    status: int | None
    error: str
    crashed: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """Make the task pending again as it was before the claim: the attempt is not counted.

    The ETA is the same; with a `delay_us`, that long from now by the database's clock.
    """

    delay_us: int = 0


@dataclass(frozen=True, slots=True)
class Die:
    """Never run the task again by itself: it is dead until a person runs or deletes it, or its queue's time is up."""

    reason: str
    status: int | None
    error: str
    crashed: bool = False


COMPLETE: Final = Complete()

Decision = Complete | Retry | Release | Die


@dataclass(frozen=True, slots=True)
class Cancel:
    """A person calls the task off, whatever an attempt makes of it: no decision after an attempt."""


CANCELLED: Final = "cancelled"
"""The reason of a task that was dead because a person called it off while it ran."""

TRANSITIONS: dict[tuple[State, type], tuple[State | None, ...]] = {
    (State.LEASED, Complete): (None, State.COMPLETED),
    (State.LEASED, Retry): (State.PENDING,),
    (State.LEASED, Release): (State.PENDING,),
    (State.LEASED, Die): (State.DEAD, None),
    (State.LEASED, Cancel): (State.DEAD, None),
    (State.PENDING, Cancel): (None,),
    (State.PULL, Cancel): (None,),
}
"""From a state by a decision to a state; None: the row is gone. Where there are two, the queue's retention says which.
Claiming is PENDING to LEASED, running again DEAD to PENDING. All else is refused by the fence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What a decision depends on besides the task and the outcome.

    `now_us` is the database's time at the end of the attempt; `jitter` a number in [0, 1).
    """

    retry: RetryOptions
    now_us: int
    jitter: float
    crash_limit: int


def decide(task: LeasedTask, outcome: Outcome, given: Circumstances) -> Decision:
    """Decide what becomes of a task after an attempt."""
    match outcome:
        case Succeeded():
            return Complete()
        case Interrupted(delay_us=delay_us):
            return Release(delay_us)
        case Conflicted():
            return _after_failure(task, Failed(None, outcome.error), given)
        case Failed():
            return _after_failure(task, outcome, given)
        case LeaseExpired():
            return _after_crash(task, given)
        case _:
            assert_never(outcome)


def on_last_chance(task: LeasedTask, crash_limit: int) -> bool:
    """Say whether a task has seen crashes, and one more makes it dead."""
    return 0 < task.crash_count >= crash_limit - 1


def _after_failure(task: LeasedTask, failed: Failed, given: Circumstances) -> Decision:
    if failed.permanent:
        return Die("permanent", failed.status, failed.error)
    failure_count = task.failure_count + 1
    if not may_retry(given.retry, failure_count, given.now_us - task.first_attempt_us):
        return Die("retries", failed.status, failed.error)
    wait_us = max(backoff_us(given.retry, failure_count), failed.retry_after_us)
    return Retry(_jittered(wait_us, given.jitter), failed.status, failed.error)


def _after_crash(task: LeasedTask, given: Circumstances) -> Decision:
    crash_count = task.crash_count + 1
    error = f"the process that ran it died, or froze until its lease ended (crash {crash_count} of {given.crash_limit})"
    if crash_count >= given.crash_limit:
        return Die("crashes", None, error, crashed=True)
    # The first crash is most often a deploy or a kill: try again at once. Later ones look like the task's fault.
    wait_us = 0 if task.crash_count == 0 else backoff_us(given.retry, task.crash_count)
    return Retry(_jittered(wait_us, given.jitter), None, error, crashed=True)


def _jittered(wait_us: int, jitter: float) -> int:
    """Lengthen a wait by up to a tenth, at most a second: never run before the formula says."""
    return wait_us + int(min(wait_us / 10, 1_000_000) * jitter)
