"""ENQUEUE: App Engine's task queue, reborn. `add()` checks, drafts a row, and puts it into your transaction.

    taskqueue.add(url="/worker", params={"key": key})

Names, arguments and exceptions are App Engine's; docs/reference/differences.md lists where ours differ, and why.
Read on: the Task is made in task.py by the rules in arguments.py; which transaction it joins, in transaction.py.
"""

from typing import Final, Unpack

from hookware.arguments import (
    MAX_DISPATCH_DEADLINE,
    MAX_QUEUE_NAME_LENGTH,
    MAX_TAG_LENGTH,
    MAX_TASK_NAME_LENGTH,
    MIN_DISPATCH_DEADLINE,
    TaskArguments,
    TaskRetryOptions,
)
from hookware.core.queue import DEFAULT_QUEUE
from hookware.core.task import PULL
from hookware.core.url import MAX_PATH_BYTES
from hookware.errors import (
    AmbiguousSessionError,
    BadTaskStateError,
    BadTransactionStateError,
    DatastoreError,
    DuplicateTaskNameError,
    Error,
    InternalError,
    InvalidDeadlineError,
    InvalidDispatchDeadlineError,
    InvalidEtaError,
    InvalidLeaseTimeError,
    InvalidMaxTasksError,
    InvalidQueueError,
    InvalidQueueModeError,
    InvalidQueueNameError,
    InvalidTagError,
    InvalidTaskError,
    InvalidTaskNameError,
    InvalidTaskRetryOptionsError,
    InvalidUrlError,
    PermanentTaskFailure,
    PermissionDeniedError,
    QueuePausedError,
    TaskAlreadyExistsError,
    TaskLeaseExpiredError,
    TaskTooLargeError,
    TombstonedTaskError,
    TooManyTasksError,
    TransactionalRequestTooLargeError,
    TransientError,
    UnknownQueueError,
)
from hookware.pull import MAX_LEASE_SECONDS, MAX_TASKS_PER_LEASE
from hookware.queue import Queue, QueueStatistics
from hookware.queue_settings import QueueChanges
from hookware.task import MAX_TASK_SIZE_BYTES, MAX_TASKS_PER_ADD, Task

__all__ = [
    "DEFAULT_APP_VERSION", "MAX_DISPATCH_DEADLINE", "MAX_LEASE_SECONDS", "MAX_PULL_TASK_SIZE_BYTES",
    "MAX_PUSH_TASK_SIZE_BYTES", "MAX_QUEUE_NAME_LENGTH", "MAX_TAG_LENGTH", "MAX_TASKS_PER_ADD",
    "MAX_TASKS_PER_LEASE", "MAX_TASK_NAME_LENGTH", "MAX_TASK_SIZE_BYTES", "MAX_TRANSACTIONAL_REQUEST_SIZE_BYTES",
    "MAX_URL_LENGTH", "MIN_DISPATCH_DEADLINE", "AmbiguousSessionError", "BadTaskStateError", "BadTransactionState",
    "BadTransactionStateError", "DatastoreError", "DuplicateTaskNameError", "Error", "InternalError",
    "InvalidDeadlineError", "InvalidDispatchDeadlineError", "InvalidEtaError", "InvalidLeaseTimeError",
    "InvalidMaxTasksError", "InvalidQueueError", "InvalidQueueModeError", "InvalidQueueNameError",
    "InvalidTagError", "InvalidTaskError", "InvalidTaskNameError", "InvalidTaskRetryOptionsError",
    "InvalidUrlError", "PermanentTaskFailure", "PermissionDeniedError", "Queue", "QueueChanges", "QueuePausedError",
    "QueueStatistics", "Task", "TaskAlreadyExistsError", "TaskArguments", "TaskLeaseExpiredError",
    "TaskRetryOptions", "TaskTooLargeError", "TombstonedTaskError", "TooManyTasksError",
    "TransactionalRequestTooLargeError", "TransientError", "UnknownQueueError", "add", "add_async",
]  # fmt: skip

MAX_PUSH_TASK_SIZE_BYTES: Final = MAX_TASK_SIZE_BYTES
MAX_PULL_TASK_SIZE_BYTES: Final = MAX_TASK_SIZE_BYTES
MAX_URL_LENGTH: Final = MAX_PATH_BYTES
MAX_TRANSACTIONAL_REQUEST_SIZE_BYTES: Final = 1_048_576
"""App Engine's limit for the tasks of one transaction; here there is none."""
BadTransactionState = BadTransactionStateError
DEFAULT_APP_VERSION: Final = "<DefaultApplicationVersion>"
"""A `target` of App Engine; here every task goes to this app."""


def add(
    payload: str | bytes | None = None,
    *,
    queue_name: str = DEFAULT_QUEUE,
    transactional: bool | None = None,
    session: object | None = None,
    connection: object | None = None,
    **task_arguments: Unpack[TaskArguments],
) -> Task:
    """Make a task and add it to a queue.

    In a request, the task is one row in the transaction of the session that is open there, before or after this
    call: it exists if that commits, and was never there if not. Elsewhere it is stored at once.

    Args:
        payload: the body of the request; params are more usual.
        queue_name: the queue.
        transactional: True raises where there is no transaction to join; False stores the task at once, whatever
            becomes of the transaction; None, the default, joins one where there is one.
        session: the SQLAlchemy or SQLModel Session or AsyncSession that the task joins.
        connection: the SQLAlchemy Connection in whose transaction the task is stored.
        **task_arguments: the arguments of `Task`: url, params, method, headers, name, eta, countdown,
            retry_options, dispatch_deadline and the others.

    Returns:
        The task, with its name and id.

    Raises:
        InvalidTaskError: the task's arguments are wrong, or do not go together; a subclass says which.
        InvalidQueueNameError: the queue's name breaks the rule for queue names.
        TaskAlreadyExistsError: the name is taken (only where the task is stored at once).
        TombstonedTaskError: the name was used, and is not free yet (only where the task is stored at once).
        BadTransactionStateError: `transactional=True`, and there is no transaction to join.
        AmbiguousSessionError: several sessions are open; say which with `session=`.
    """
    _refuse_path_as_payload(payload, task_arguments)
    task = Task(payload, **task_arguments)
    return task.add(queue_name, transactional, session=session, connection=connection)


async def add_async(
    payload: str | bytes | None = None,
    *,
    queue_name: str = DEFAULT_QUEUE,
    transactional: bool | None = None,
    session: object | None = None,
    connection: object | None = None,
    **task_arguments: Unpack[TaskArguments],
) -> Task:
    """Make a task and add it to a queue, without blocking the event loop where it is stored at once.

    In a request, `add` does no I/O and serves async code as well. See there for the arguments.
    """
    _refuse_path_as_payload(payload, task_arguments)
    task = Task(payload, **task_arguments)
    return await task.add_async(queue_name, transactional, session=session, connection=connection)


def _refuse_path_as_payload(payload: object, task_arguments: TaskArguments) -> None:
    """Notice the likeliest slip: add("/worker") would go to the queue's own path, with "/worker" as its body."""
    if not isinstance(payload, str) or not payload.startswith("/") or task_arguments.get("url"):
        return
    if str(task_arguments.get("method")).upper() != PULL:
        raise InvalidTaskError(
            f"the payload {payload[:100]!r} looks like a path: write add(url={payload[:100]!r}); if it is one for the "
            "queue's own handler, give that handler's path as url="
        )
