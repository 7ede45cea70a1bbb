"""Pull queues: their tasks are not delivered, but leased by whoever works on them, in any process."""

from functools import partial
from typing import Final

from hookware.arguments import check_tag
from hookware.control import Named, place_of
from hookware.core.task import PULL
from hookware.errors import (
    ConfigurationError,
    Error,
    InvalidDeadlineError,
    InvalidLeaseTimeError,
    InvalidMaxTasksError,
    describe,
)
from hookware.log import log_of
from hookware.operations import perform, perform_async
from hookware.store.sql import pull
from hookware.store.sql.operation import Operation
from hookware.task import Task

MAX_LEASE_SECONDS: Final = 604_800
MAX_TASKS_PER_LEASE: Final = 1000

_logger = log_of()


class Pulling(Named):
    """The half of a `Queue` that is for pull queues."""

    __slots__ = ()

    def lease_tasks(self, lease_seconds: float, max_tasks: int, deadline: float = 10) -> list[Task]:
        """Lease tasks of a pull queue: until the leases end, nobody else gets them.

        Work on them, then `delete_tasks` them. What is not deleted when its lease ends may be leased again.

        Args:
            lease_seconds: for how long, 0 to 604,800 (a week).
            max_tasks: how many at most, 1 to 1000.
            deadline: accepted for code from App Engine; a call to the database has a limit of its own.

        Returns:
            The tasks, the one that was due first first. A task's `eta` is the end of its lease, its `retry_count` how
            often it has been leased. A paused queue gives none.

        Raises:
            InvalidLeaseTimeError: `lease_seconds` is out of range.
            InvalidMaxTasksError: `max_tasks` is out of range.
            InvalidDeadlineError: `deadline` is not more than 0.
            InvalidQueueModeError: the queue is not a pull queue.
            UnknownQueueError: the queue would have to be configured.
            ConfigurationError: there are only tasks that a codec has encoded whose name or key this process lacks.
                They are not leased; where there are others, too, it is logged.
            Error: the same, where the codec fails in another way.
        """
        check_deadline(deadline)
        return _leased(self._name, perform(self._lease(lease_seconds, max_tasks)))

    async def lease_tasks_async(self, lease_seconds: float, max_tasks: int) -> list[Task]:
        """Do what `lease_tasks` does, without blocking the event loop."""
        return _leased(self._name, await perform_async(self._lease(lease_seconds, max_tasks)))

    def lease_tasks_by_tag(
        self, lease_seconds: float, max_tasks: int, tag: str | None = None, deadline: float = 10
    ) -> list[Task]:
        """Lease tasks of a pull queue that have one tag.

        Args:
            lease_seconds: as in `lease_tasks`.
            max_tasks: as in `lease_tasks`.
            tag: the tag; None or "": that of the task that was due first. If it has none: of the first `max_tasks`
                tasks those without a tag.
            deadline: as in `lease_tasks`.

        Raises:
            InvalidTagError: the tag is longer than 500 bytes, or holds NUL.
            Error: as in `lease_tasks`.
        """
        check_deadline(deadline)
        return _leased(self._name, perform(self._lease(lease_seconds, max_tasks, tag or "")))

    async def lease_tasks_by_tag_async(
        self, lease_seconds: float, max_tasks: int, tag: str | None = None
    ) -> list[Task]:
        """Do what `lease_tasks_by_tag` does, without blocking the event loop."""
        return _leased(self._name, await perform_async(self._lease(lease_seconds, max_tasks, tag or "")))

    def modify_task_lease(self, task: Task, lease_seconds: float) -> None:
        """Let the lease of a task end `lease_seconds` from now; 0 gives it back at once.

        The lease's end, `task.eta`, is its token: it must be the very one that is stored, and not have passed. It is
        updated.

        Args:
            task: a leased task.
            lease_seconds: 0 to 604,800 (a week).

        Raises:
            TaskLeaseExpiredError: the lease has ended, or was changed by somebody else.
            TombstonedTaskError: the task is done or deleted, and its name still taken.
            QueuePausedError: the queue is paused.
            InvalidLeaseTimeError: `lease_seconds` is out of range.
            InvalidQueueModeError: the queue is not a pull queue.
            BadTaskStateError: the task has no name.
            Error: there is no such task.
        """
        until_us = perform(self._modify(task, lease_seconds))
        task._moved(until_us)

    async def modify_task_lease_async(self, task: Task, lease_seconds: float) -> None:
        """Do what `modify_task_lease` does, without blocking the event loop."""
        until_us = await perform_async(self._modify(task, lease_seconds))
        task._moved(until_us)

    def _lease(self, lease_seconds: float, max_tasks: int, by_tag: str | None = None) -> Operation[pull.Leased]:
        lease_us = _lease_us(lease_seconds)
        _check_max_tasks(max_tasks)
        if by_tag is not None:
            _check_tag(by_tag)
        statement = pull.Lease(self._name, lease_us, max_tasks, by_tag)
        return Operation(statement=statement, queue_name=self._name, only_pull=True)

    def _modify(self, task: Task, lease_seconds: float) -> Operation[int]:
        lease_us = _lease_us(lease_seconds)
        statement = partial(
            pull.modify_lease, place=place_of(task, self._name), token_us=task._due_us(), lease_us=lease_us
        )
        return Operation(statement=statement, queue_name=self._name, only_pull=True)


def check_deadline(deadline: object) -> None:
    """Refuse a deadline that App Engine refuses."""
    if not isinstance(deadline, int | float):
        raise TypeError(f"deadline must be a number of seconds, got {type(deadline).__name__}")
    if not deadline > 0:
        raise InvalidDeadlineError(f"deadline must be more than 0 seconds, got {deadline}")


def _lease_us(lease_seconds: object) -> int:
    if not isinstance(lease_seconds, int | float):
        raise TypeError(f"lease_seconds must be a number, got {type(lease_seconds).__name__}")
    if not 0 <= lease_seconds <= MAX_LEASE_SECONDS:
        raise InvalidLeaseTimeError(
            f"lease_seconds must be from 0 to {MAX_LEASE_SECONDS} (a week), got {lease_seconds!r:.100}"
        )
    return int(lease_seconds * 1_000_000)


def _check_max_tasks(max_tasks: object) -> None:
    if not isinstance(max_tasks, int):
        raise TypeError(f"max_tasks must be a whole number, got {type(max_tasks).__name__}")
    if not 1 <= max_tasks <= MAX_TASKS_PER_LEASE:
        raise InvalidMaxTasksError(f"max_tasks must be from 1 to {MAX_TASKS_PER_LEASE}, got {max_tasks!r:.100}")


def _check_tag(tag: object) -> None:
    if not isinstance(tag, str):
        raise TypeError(f"tag must be text, got {type(tag).__name__}")
    check_tag(tag)


def _leased(queue_name: str, leased: pull.Leased) -> list[Task]:
    if leased.unreadable:
        _complain(queue_name, leased)
    return [
        Task(task.body, name=task.name or str(task.id), method=PULL, tag=task.tag, _size_check=False)._leased(
            task.id, queue_name, task.eta_us, task.lease_count
        )
        for task in leased.tasks
    ]


def _complain(queue_name: str, leased: pull.Leased) -> None:
    """Log which tasks cannot be decoded here; raise it where there are no others."""
    task_id, error = next(iter(leased.unreadable.items()))
    text = (
        f"{len(leased.unreadable)} due tasks of the queue {queue_name!r} cannot be decoded here, and were left as they "
        f"are; task {task_id}: {describe(error)}"
    )
    if not leased.tasks:
        raise (ConfigurationError if isinstance(error, ConfigurationError) else Error)(text)
    _logger.error("%s", text)
