"""The exceptions. Those of App Engine's task queue keep their names and places in the tree.

Error, the root
├── BadTaskStateError                 a task was added or deleted twice, or deleted without a name
├── BadTransactionStateError          transactional=True, but there is no transaction to join
├── ConfigurationError                hookware cannot work like this: the message says what to change
├── DatastoreError                    never raised: for `except` clauses that you bring along
├── DuplicateTaskNameError            one name twice in one call
├── InternalError                     never raised, as above
├── InvalidDeadlineError
├── InvalidDispatchDeadlineError
├── InvalidLeaseTimeError
├── InvalidMaxTasksError
├── InvalidQueueError                 a setting of a queue is out of range
│   └── InvalidQueueNameError
├── InvalidQueueModeError             a pull task for a push queue, or the reverse
├── InvalidScheduleError              also a ValueError: no schedule, or no time zone
├── InvalidTagError
├── InvalidProgressError              progress(done, total, note) with what is no number or text
├── InvalidTaskError
│   ├── ChainTooDeepError             a task adds a task, and is max_chain_depth deep itself
│   ├── InvalidEtaError
│   ├── InvalidTaskNameError
│   ├── InvalidUrlError
│   ├── TaskAlreadyExistsError
│   ├── TaskTooLargeError
│   │   └── TransactionalRequestTooLargeError   never raised, as above
│   └── TombstonedTaskError
├── InvalidTaskRetryOptionsError
├── PermanentTaskFailure              raised by a handler: do not try this task again
├── PermissionDeniedError             never raised, as above
├── QueuePausedError                  a lease cannot be changed while its queue is paused
├── SessionError
│   ├── AmbiguousSessionError         two open sessions: say which with session=
│   └── SecondWriterError             SQLite has one writer, and this request is already it
├── SingularTaskFailure               raised by a deferred function: try again, quietly
├── TaskLeaseExpiredError             the task was cancelled, deleted, or given to or leased by another
├── TooManyTasksError
├── TransientError                    the database did not answer; adding again may work
├── UnknownCronEntryError
└── UnknownQueueError                 the queue is not among those that are configured
"""

from collections.abc import Iterator
from itertools import islice

from hookware.core.task import NewTask


class Error(Exception):
    """Base of everything that hookware raises on purpose."""


class BadTaskStateError(Error):
    """The task is not in a state for this: it was already added or deleted, or has no name to be found by."""


class BadTransactionStateError(Error):
    """`transactional=True` was asked for where no transaction can be joined."""


class ConfigurationError(Error):
    """hookware cannot work with this engine, app or option; the message says what to change."""


class DatastoreError(Error):
    """Never raised here: it stands for `except` clauses in code that comes from App Engine."""


class DuplicateTaskNameError(Error):
    """Two tasks of one call have the same name."""


class InternalError(Error):
    """Never raised here: it stands for `except` clauses in code that comes from App Engine."""


class InvalidDeadlineError(Error):
    """The deadline of a call is not more than 0."""


class InvalidDispatchDeadlineError(Error):
    """The dispatch deadline is out of its range."""


class InvalidLeaseTimeError(Error):
    """The time of a lease is out of its range."""


class InvalidMaxTasksError(Error):
    """The number of tasks to lease is out of its range."""


class InvalidQueueError(Error):
    """The queue is not valid: a setting of it is out of range."""


class InvalidQueueNameError(InvalidQueueError):
    """The queue's name breaks the rule for queue names."""


class InvalidQueueModeError(Error):
    """The queue is of the other kind: a pull task for a push queue, or the reverse; or a lease from a push queue."""


class InvalidScheduleError(Error, ValueError):
    """The text is not a schedule, or the time zone is not known."""


class InvalidTagError(Error):
    """The tag is too long."""


class InvalidProgressError(Error):
    """What a task says of its progress is no number, or no text."""


class InvalidTaskError(Error):
    """The task's arguments are wrong, or do not go together.

    Attributes:
        added: what was stored all the same, where only a taken name or a waiting key stood in the way: of each task
            of the call, in order, its stored form or None.
    """

    added: tuple[NewTask | None, ...] = ()


class InvalidEtaError(InvalidTaskError):
    """The ETA is too far away."""


class InvalidTaskNameError(InvalidTaskError):
    """The task's name breaks the rule for task names."""


class InvalidUrlError(InvalidTaskError):
    """The task's URL is not a path of this app."""


class TaskAlreadyExistsError(InvalidTaskError):
    """A task of this name is waiting, running or dead in the queue."""


class TaskTooLargeError(InvalidTaskError):
    """The task is larger than the limit."""


class TransactionalRequestTooLargeError(TaskTooLargeError):
    """Never raised here: it stands for `except` clauses in code that comes from App Engine."""


class TombstonedTaskError(InvalidTaskError):
    """A task of this name has already run or was deleted; the name is not free yet."""


class InvalidTaskRetryOptionsError(Error):
    """The retry options are out of range, or contradict each other."""


class PermanentTaskFailure(Error):  # noqa: N818 - App Engine's name
    """Raise it in a handler: the task is dead at once, kept, and not tried again."""


class PermissionDeniedError(Error):
    """Never raised here: it stands for `except` clauses in code that comes from App Engine."""


class QueuePausedError(Error):
    """The queue is paused: leases of its tasks cannot be changed until it goes on."""


class SessionError(Error):
    """The task cannot join a database session."""


class AmbiguousSessionError(SessionError):
    """Two sessions are open in this request: say which one the task joins with `session=`."""


class SecondWriterError(SessionError):
    """A second session of one request wants to write to SQLite while the first one still does."""


class SingularTaskFailure(Error):  # noqa: N818 - App Engine's name
    """Raise it in a deferred function: the attempt has failed and the task is tried again, without a traceback."""


class ChainTooDeepError(InvalidTaskError, PermanentTaskFailure):
    """A task adds a task, and is as deep in its chain as `max_chain_depth` lets one be.

    A handler that does not catch it has failed for good: it would be as deep the next time.
    """


class TaskLeaseExpiredError(Error):
    """The task is another's now.

    In a handler: it has been cancelled, deleted or given to another attempt, and what this one wrote is rolled back.
    Of a pull task: its lease has ended, or was changed by somebody else.
    """


class TooManyTasksError(Error):
    """More tasks in one call than the limit."""


class TransientError(Error):
    """The database did not answer in time; adding again may work."""


class UnknownCronEntryError(Error):
    """There is no cron entry of this name."""


class UnknownQueueError(Error):
    """The queue is not configured, where queues have to be."""


_MOST_CHARACTERS = 2000
_MOST_LEAVES = 5


def describe(error: BaseException) -> str:
    """Say in bounded, storable text what an exception was, whatever its own `__str__` does."""
    text = _said(error)
    if isinstance(error, BaseExceptionGroup):
        leaves = list(islice(_leaves(error), _MOST_LEAVES))
        text = "; ".join([text, *map(_said, leaves)])
    # Lone surrogates cannot be stored as UTF-8.
    return text[:_MOST_CHARACTERS].encode("utf-8", "replace").decode()


def _said(error: BaseException) -> str:
    name = type(error).__qualname__
    try:
        text = str(error)[:_MOST_CHARACTERS]
    except BaseException:  # noqa: BLE001 - whatever a foreign __str__ raises is about the text only
        text = "its message cannot be shown"
    return f"{name}: {text}" if text else name


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
