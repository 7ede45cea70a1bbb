"""What people do to a queue and its tasks: delete, purge, pause, change settings, run now, postpone.

Each of these is a transaction of its own, at once, whatever becomes of the request's.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Final, Unpack, overload

from hookware.core.queue import QueueSettings
from hookware.errors import BadTaskStateError, DuplicateTaskNameError, InvalidTaskError, TooManyTasksError
from hookware.operations import perform, perform_async
from hookware.queue_settings import QueueChanges, overrides_of
from hookware.store.sql import queue_ops, queues
from hookware.store.sql.operation import Operation
from hookware.store.sql.queue_ops import Place
from hookware.task import Task, due_from_now

MAX_TASKS_PER_DELETE: Final = 1000


class Named:
    """A queue by its name, and what its settings would be."""

    __slots__ = ("_name", "_settings")

    _name: str
    _settings: QueueSettings


class Control(Named):
    """The half of a `Queue` that looks after its tasks."""

    __slots__ = ()

    # Deleting.

    @overload
    def delete_tasks(self, task: Task) -> Task: ...

    @overload
    def delete_tasks(self, task: Iterable[Task]) -> list[Task]: ...

    def delete_tasks(self, task: Task | Iterable[Task]) -> Task | list[Task]:
        """Delete a task, or up to 1000, whatever state they are in; found by their names only.

        A running one is cut short, and what it writes through hookware's session is rolled back. The names stay taken
        for a while, as if the tasks had run.

        Args:
            task: a Task with a name, or several; a task that was added has one, and so has a leased one.

        Returns:
            What was given. `was_deleted` says which were there.

        Raises:
            BadTaskStateError: a task has no name, or was deleted through this object before.
            DuplicateTaskNameError: two have the same name.
            TooManyTasksError: more than 1000.
            TransientError: on PostgreSQL, the handler's own transaction keeps a running task locked; try again.
            UnknownQueueError: the queue would have to be configured.
        """
        tasks = _deletable(task)
        if tasks:
            _mark_deleted(tasks, perform(self._delete(tasks)))
        return task if isinstance(task, Task) else tasks

    @overload
    async def delete_tasks_async(self, task: Task) -> Task: ...

    @overload
    async def delete_tasks_async(self, task: Iterable[Task]) -> list[Task]: ...

    async def delete_tasks_async(self, task: Task | Iterable[Task]) -> Task | list[Task]:
        """Do what `delete_tasks` does, without blocking the event loop."""
        tasks = _deletable(task)
        if tasks:
            _mark_deleted(tasks, await perform_async(self._delete(tasks)))
        return task if isinstance(task, Task) else tasks

    @overload
    def delete_tasks_by_name(self, task_name: str) -> Task: ...  # type: ignore[overload-overlap]  # a text is no list

    @overload
    def delete_tasks_by_name(self, task_name: Iterable[str]) -> list[Task]: ...

    def delete_tasks_by_name(self, task_name: str | Iterable[str]) -> Task | list[Task]:
        """Delete the task of a name, or those of up to 1000 names; an unnamed one has its id as name.

        Returns:
            A Task for each name, whose `was_deleted` is False where there was none, or no more.

        Raises:
            BadTaskStateError: a name is empty.
            DuplicateTaskNameError: one name is given twice.
            InvalidTaskNameError: a name breaks the rule for task names.
            TooManyTasksError: more than 1000.
            UnknownQueueError: the queue would have to be configured.
        """
        if isinstance(task_name, str):
            return self.delete_tasks(Task(name=task_name))
        return self.delete_tasks([Task(name=name) for name in task_name])

    @overload
    async def delete_tasks_by_name_async(  # type: ignore[overload-overlap]  # a text is no list
        self, task_name: str
    ) -> Task: ...

    @overload
    async def delete_tasks_by_name_async(self, task_name: Iterable[str]) -> list[Task]: ...

    async def delete_tasks_by_name_async(self, task_name: str | Iterable[str]) -> Task | list[Task]:
        """Do what `delete_tasks_by_name` does, without blocking the event loop."""
        if isinstance(task_name, str):
            return await self.delete_tasks_async(Task(name=task_name))
        return await self.delete_tasks_async([Task(name=name) for name in task_name])

    def purge(self) -> None:
        """Delete every task that the queue has now: waiting, running and dead ones.

        Those that are running are cut short, as in `delete_tasks`. Names stay taken for a while. It goes on in short
        transactions; tasks that are added meanwhile stay.

        Raises:
            UnknownQueueError: the queue would have to be configured.
        """
        some = self._purge()
        while perform(some):
            pass

    async def purge_async(self) -> None:
        """Do what `purge` does, without blocking the event loop."""
        some = self._purge()
        while await perform_async(some):
            pass

    # Pausing.

    def pause(self) -> None:
        """Let the queue's tasks wait, in all processes, until `resume`; what runs goes on, adding too."""
        perform(self._set_paused(True))

    async def pause_async(self) -> None:
        """Do what `pause` does, without blocking the event loop."""
        await perform_async(self._set_paused(True))

    def resume(self) -> None:
        """Let a paused queue go on, in all processes."""
        perform(self._set_paused(False))

    async def resume_async(self) -> None:
        """Do what `resume` does, without blocking the event loop."""
        await perform_async(self._set_paused(False))

    @property
    def is_paused(self) -> bool:
        """Whether the queue is paused; asks the database, blocking."""
        return perform(self._is_paused())

    async def is_paused_async(self) -> bool:
        """Say whether the queue is paused, without blocking the event loop."""
        return await perform_async(self._is_paused())

    # Settings at run time.

    def update(self, **changes: Unpack[QueueChanges]) -> None:
        """Change settings of the queue for all processes, until `reset`; they stay across restarts.

        Args:
            **changes: rate, bucket_size, max_concurrent_requests, retry_parameters, limit_per_key, retention_seconds,
                dead_retention_seconds, each as in `Queue`. What is left out stays as it is; None lifts a limit.

        Raises:
            InvalidQueueError: a setting is out of range.
            UnknownQueueError: the queue would have to be configured.
        """
        perform(self._update(changes))

    async def update_async(self, **changes: Unpack[QueueChanges]) -> None:
        """Do what `update` does, without blocking the event loop."""
        await perform_async(self._update(changes))

    def reset(self) -> None:
        """Undo every `update`: what is configured is good again. A pause stays."""
        perform(self._reset())

    async def reset_async(self) -> None:
        """Do what `reset` does, without blocking the event loop."""
        await perform_async(self._reset())

    # Moving one task.

    def run_now(self, task: Task) -> bool:
        """Make a waiting task due now, whatever its ETA or the wait for its retry; no attempt is counted for it.

        Pauses, rates and limits of the queue hold all the same. A task of a pull queue may be leased then.

        Returns:
            Whether it waited: False if it runs, is dead, or is not there.

        Raises:
            BadTaskStateError: the task has no name.
        """
        return _mark_moved(task, perform(self._run_now(task)))

    async def run_now_async(self, task: Task) -> bool:
        """Do what `run_now` does, without blocking the event loop."""
        return _mark_moved(task, await perform_async(self._run_now(task)))

    def postpone(self, task: Task, *, countdown: float | None = None, eta: datetime | None = None) -> bool:
        """Give a waiting task another time at which it is due: earlier or later.

        Args:
            task: the task; one with a name is enough.
            countdown: seconds from now, by the database's clock.
            eta: the time; a naive datetime is local time. At most 30 days ahead.

        Returns:
            Whether it waited: False if it runs, is dead, or is not there.

        Raises:
            BadTaskStateError: the task has no name.
            InvalidEtaError: the time is too far away.
            InvalidTaskError: neither or both of countdown and eta are given.
        """
        return _mark_moved(task, perform(self._postpone(task, countdown, eta)))

    async def postpone_async(self, task: Task, *, countdown: float | None = None, eta: datetime | None = None) -> bool:
        """Do what `postpone` does, without blocking the event loop."""
        return _mark_moved(task, await perform_async(self._postpone(task, countdown, eta)))

    # What is done.

    def _delete(self, tasks: Sequence[Task]) -> Operation[list[bool]]:
        labels = [task.name or "" for task in tasks]
        statement = partial(queue_ops.delete_tasks, queue_name=self._name, labels=labels)
        return Operation(statement=statement, queue_name=self._name)

    def _purge(self) -> Operation[bool]:
        return Operation(statement=queue_ops.Purge(self._name), queue_name=self._name)

    def _set_paused(self, paused: bool) -> Operation[None]:
        return Operation(
            statement=lambda connection, moment: queues.set_paused(connection, self._name, paused, moment.now_us),
            queue_name=self._name, wakes=not paused,
        )  # fmt: skip

    def _is_paused(self) -> Operation[bool]:
        return Operation(
            statement=lambda connection, _moment: queues.get_state(connection, self._name).paused,
            queue_name=self._name, writes=False,
        )  # fmt: skip

    def _update(self, changes: QueueChanges) -> Operation[None]:
        overrides = overrides_of(self._name, changes)
        statement = partial(queue_ops.change_settings, queue_name=self._name, changes=overrides)
        return Operation(statement=statement, queue_name=self._name, wakes=True)

    def _reset(self) -> Operation[None]:
        return Operation(
            statement=lambda connection, _moment: queues.set_overrides(connection, self._name, {}),
            queue_name=self._name, wakes=True,
        )  # fmt: skip

    def _run_now(self, task: Task) -> Operation[int | None]:
        statement = partial(queue_ops.run_now, place=place_of(task, self._name))
        return Operation(statement=statement, queue_name=self._name, wakes=True)

    def _postpone(self, task: Task, countdown: float | None, eta: datetime | None) -> Operation[int | None]:
        if countdown is None and eta is None:
            raise InvalidTaskError("neither eta nor countdown is given: say when the task is due")
        place = place_of(task, self._name)
        eta_us, countdown_us = due_from_now(eta, countdown)
        statement = partial(queue_ops.postpone, place=place, eta_us=eta_us, countdown_us=countdown_us)
        return Operation(statement=statement, queue_name=self._name, wakes=True)


def place_of(task: Task, queue_name: str) -> Place:
    """Say how a task of a queue is found.

    Raises:
        BadTaskStateError: it has no name.
    """
    if not isinstance(task, Task):
        raise TypeError(f"a Task is wanted, got {type(task).__name__}: taskqueue.Task(name=...) finds one by its name")
    if not task.name:
        raise BadTaskStateError("the task has no name to find it by: take one that was added, or Task(name=...)")
    return Place(queue_name, task.name, task.id)


def _deletable(task: Task | Iterable[Task]) -> list[Task]:
    tasks = [task] if isinstance(task, Task) else list(task)
    if len(tasks) > MAX_TASKS_PER_DELETE:
        raise TooManyTasksError(f"one call may delete {MAX_TASKS_PER_DELETE} tasks: split them over several calls")
    seen: set[str] = set()
    for each in tasks:
        name = place_of(each, "").label
        if each.was_deleted:
            raise BadTaskStateError(f"the task {name!r} has already been deleted through this object")
        if name in seen:
            raise DuplicateTaskNameError(f"the task name {name!r} is used more than once in one call: leave one out")
        seen.add(name)
    return tasks


def _mark_deleted(tasks: Sequence[Task], deleted: list[bool]) -> None:
    for task, was_deleted in zip(tasks, deleted, strict=True):
        task._was_deleted = was_deleted


def _mark_moved(task: Task, eta_us: int | None) -> bool:
    if eta_us is not None:
        task._moved(eta_us)
    return eta_us is not None
