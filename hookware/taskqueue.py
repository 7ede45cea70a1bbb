"""ENQUEUE: App Engine's task queue, reborn. `add()` checks, drafts a row, and puts it into your transaction.

    taskqueue.add(url="/worker", params={"key": key})

Names, arguments and exceptions are App Engine's; docs/reference/differences.md lists where ours differ, and why.
Read on: the Task is made in task.py by the rules in arguments.py; which transaction it joins, in transaction.py.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Final, Unpack, overload

from hookware.arguments import (
    MAX_DISPATCH_DEADLINE,
    MAX_QUEUE_NAME_LENGTH,
    MAX_TAG_LENGTH,
    MAX_TASK_NAME_LENGTH,
    MIN_DISPATCH_DEADLINE,
    TaskArguments,
    TaskRetryOptions,
    checked_queue_name,
)
from hookware.core.queue import DEFAULT_QUEUE
from hookware.core.url import MAX_PATH_BYTES
from hookware.errors import (
    AmbiguousSessionError,
    BadTaskStateError,
    BadTransactionStateError,
    DuplicateTaskNameError,
    Error,
    InvalidDispatchDeadlineError,
    InvalidEtaError,
    InvalidQueueError,
    InvalidQueueModeError,
    InvalidQueueNameError,
    InvalidTagError,
    InvalidTaskError,
    InvalidTaskNameError,
    InvalidTaskRetryOptionsError,
    InvalidUrlError,
    PermanentTaskFailure,
    TaskAlreadyExistsError,
    TaskTooLargeError,
    TombstonedTaskError,
    TooManyTasksError,
    TransientError,
    UnknownQueueError,
)
from hookware.task import MAX_TASK_SIZE_BYTES, MAX_TASKS_PER_ADD, Task, add_tasks, add_tasks_async

__all__ = [
    "DEFAULT_APP_VERSION", "MAX_DISPATCH_DEADLINE", "MAX_PULL_TASK_SIZE_BYTES", "MAX_PUSH_TASK_SIZE_BYTES",
    "MAX_QUEUE_NAME_LENGTH", "MAX_TAG_LENGTH", "MAX_TASKS_PER_ADD", "MAX_TASK_NAME_LENGTH", "MAX_TASK_SIZE_BYTES",
    "MAX_URL_LENGTH", "MIN_DISPATCH_DEADLINE", "AmbiguousSessionError", "BadTaskStateError",
    "BadTransactionStateError", "DuplicateTaskNameError", "Error", "InvalidDispatchDeadlineError", "InvalidEtaError",
    "InvalidQueueError", "InvalidQueueModeError", "InvalidQueueNameError", "InvalidTagError", "InvalidTaskError",
    "InvalidTaskNameError", "InvalidTaskRetryOptionsError", "InvalidUrlError", "PermanentTaskFailure", "Queue",
    "Task", "TaskAlreadyExistsError", "TaskArguments", "TaskRetryOptions", "TaskTooLargeError",
    "TombstonedTaskError", "TooManyTasksError", "TransientError", "UnknownQueueError", "add", "add_async",
]  # fmt: skip

MAX_PUSH_TASK_SIZE_BYTES: Final = MAX_TASK_SIZE_BYTES
MAX_PULL_TASK_SIZE_BYTES: Final = MAX_TASK_SIZE_BYTES
MAX_URL_LENGTH: Final = MAX_PATH_BYTES
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
    if isinstance(payload, str) and payload.startswith("/") and not task_arguments.get("url"):
        raise InvalidTaskError(f"the payload {payload[:100]!r} looks like a path: write add(url={payload[:100]!r})")


class Queue:
    """A queue of this app, by its name.

    Raises:
        InvalidQueueNameError: the name breaks the rule for queue names.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str = DEFAULT_QUEUE) -> None:
        self._name = checked_queue_name(name)

    def __repr__(self) -> str:
        return f"Queue<name={self._name!r}>"

    def __eq__(self, other: object) -> bool:
        return self._name == other._name if isinstance(other, Queue) else NotImplemented

    def __hash__(self) -> int:
        return hash((Queue, self._name))

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._name

    @overload
    def add(
        self, task: Task, transactional: bool | None = ..., *, session: object = ..., connection: object = ...
    ) -> Task: ...

    @overload
    def add(
        self,
        task: Iterable[Task] | None,
        transactional: bool | None = ...,
        *,
        session: object = ...,
        connection: object = ...,
    ) -> list[Task]: ...

    def add(
        self,
        task: Task | Iterable[Task] | None,
        transactional: bool | None = None,
        *,
        session: object | None = None,
        connection: object | None = None,
    ) -> Task | list[Task]:
        """Add a task, or up to 100 at once in one statement; if one of them is invalid, none is added.

        Args:
            task: a Task, several, or nothing.
            transactional: as in `taskqueue.add`.
            session: as in `taskqueue.add`.
            connection: as in `taskqueue.add`.

        Returns:
            The task, or for several the list of them.

        Raises:
            BadTaskStateError: a task was added before.
            DuplicateTaskNameError: two tasks have the same name.
            InvalidQueueModeError: a pull task; pull queues are not supported yet.
            InvalidTaskError: push and pull tasks in one call.
            TaskAlreadyExistsError: a name is taken, where the tasks are stored at once. The tasks with other names
                are added all the same: `was_enqueued` says which.
            TombstonedTaskError: the same, for a name that was used before and is not free yet.
            TooManyTasksError: more than 100 tasks.
        """
        tasks = _several(task)
        if tasks:
            add_tasks(tasks, self._name, session=session, connection=connection, transactional=transactional)
        return task if isinstance(task, Task) else tasks

    @overload
    async def add_async(
        self, task: Task, transactional: bool | None = ..., *, session: object = ..., connection: object = ...
    ) -> Task: ...

    @overload
    async def add_async(
        self,
        task: Iterable[Task] | None,
        transactional: bool | None = ...,
        *,
        session: object = ...,
        connection: object = ...,
    ) -> list[Task]: ...

    async def add_async(
        self,
        task: Task | Iterable[Task] | None,
        transactional: bool | None = None,
        *,
        session: object | None = None,
        connection: object | None = None,
    ) -> Task | list[Task]:
        """Do what `add` does, without blocking the event loop where the tasks are stored at once."""
        tasks = _several(task)
        if tasks:
            await add_tasks_async(
                tasks, self._name, session=session, connection=connection, transactional=transactional
            )
        return task if isinstance(task, Task) else tasks


def _several(task: Task | Iterable[Task] | None) -> list[Task]:
    if isinstance(task, Task):
        return [task]
    # One more than the limit is enough to refuse them, however many an iterator would give.
    return list(islice(task, MAX_TASKS_PER_ADD + 1)) if task else []
