"""A queue, as its users see it: its settings, adding to it, and all that can be done to what is in it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Self, overload

from hookware.arguments import checked_queue_name
from hookware.control import Control
from hookware.core.queue import CRON_QUEUE, DEFAULT_BUCKET_SIZE, DEFAULT_QUEUE, QueueSettings
from hookware.core.retry import RetryOptions
from hookware.operations import perform, perform_async
from hookware.pull import Pulling, check_deadline
from hookware.queue_settings import Mode, check_settings, parsed_rate
from hookware.store.sql import queue_ops
from hookware.store.sql.operation import Operation
from hookware.store.sql.queue_ops import Counted
from hookware.task import MAX_TASKS_PER_ADD, Task, add_tasks, add_tasks_async


class Queue(Control, Pulling):
    """A queue of this app, by its name; its settings count where it is given to `Hookware(queues=[...])`.

    Args:
        name: the queue; "__cron" is that of cron entries, to look after: it takes no tasks and no configuration.
        rate: how many attempts may begin in a second, a minute, an hour or a day, as "5/s", "30/m", "10/h", "2000/d";
            or a number per second. It holds for all processes together. None: no limit; "0": none at all.
        bucket_size: how many may begin at once after a quiet time, where there is a rate.
        max_concurrent_requests: how many may run at once, in all processes together; None: no limit.
        retry_parameters: how its tasks are tried again, where they do not say.
        mode: "push": tasks are delivered; "pull": they wait for `lease_tasks`.
        target: accepted, without effect: every task goes to this app.
        limit_per_key: how many tasks with one limit key may run at once.
        retention_seconds: how long finished tasks are kept to be looked at.
        dead_retention_seconds: how long dead tasks are kept; None: for ever.

    Raises:
        InvalidQueueNameError: the name breaks the rule for queue names.
        InvalidQueueError: a setting is out of range.
    """

    __slots__ = ()

    def __init__(  # noqa: PLR0913 - the settings of a queue
        self,
        name: str = DEFAULT_QUEUE,
        *,
        rate: str | float | None = None,
        bucket_size: int = DEFAULT_BUCKET_SIZE,
        max_concurrent_requests: int | None = None,
        retry_parameters: RetryOptions | None = None,
        mode: Mode = "push",
        target: str | None = None,
        limit_per_key: int = 1,
        retention_seconds: float = 0,
        dead_retention_seconds: float | None = None,
    ) -> None:
        self._name = name if name == CRON_QUEUE else checked_queue_name(name)
        self._settings = QueueSettings(
            name=name,
            retry=RetryOptions() if retry_parameters is None else retry_parameters,
            rate=parsed_rate(rate),
            bucket_size=bucket_size,
            max_concurrent_requests=max_concurrent_requests,
            mode=mode,
            target=target,
            limit_per_key=limit_per_key,
            retention_seconds=retention_seconds,
            dead_retention_seconds=dead_retention_seconds,
        )
        check_settings(self._settings)

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

    @property
    def settings(self) -> QueueSettings:
        """What this object would configure. What holds in the app is what `Hookware(queues=[...])` was given."""
        return self._settings

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
            InvalidQueueModeError: pull tasks, and the queue is a push queue; or the reverse.
            InvalidTaskError: push and pull tasks in one call.
            TaskAlreadyExistsError: a name is taken, where the tasks are stored at once. The tasks with other names
                are added all the same: `was_enqueued` says which.
            TombstonedTaskError: the same, for a name that was used before and is not free yet.
            TooManyTasksError: more than 100 tasks.
            UnknownQueueError: the queue would have to be configured.
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

    def fetch_statistics(self, deadline: float = 10) -> "QueueStatistics":
        """Count what is in the queue, and what it did in the last minute.

        Args:
            deadline: accepted for code from App Engine; a call to the database has a limit of its own.

        Raises:
            InvalidDeadlineError: `deadline` is not more than 0.
        """
        return QueueStatistics.fetch(self, deadline)

    async def fetch_statistics_async(self) -> "QueueStatistics":
        """Do what `fetch_statistics` does, without blocking the event loop."""
        return await QueueStatistics.fetch_async(self)


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """The numbers of a queue at one moment.

    Attributes:
        queue: the queue.
        tasks: how many tasks wait or run; dead ones do not count.
        oldest_eta_usec: the earliest ETA among them, in microseconds since the epoch; None if there are none.
        executed_last_minute: how many attempts ended in the last minute, however they ended; of a pull queue, how many
            tasks were leased. To about ten seconds.
        in_flight: how many run now, in all processes; None for a pull queue.
        enforced_rate: how many may begin in a second: the rate of the queue, 0 while it is paused; None for a pull
            queue, or without a rate.
    """

    queue: Queue
    tasks: int
    oldest_eta_usec: int | None = None
    executed_last_minute: int | None = None
    in_flight: int | None = None
    enforced_rate: float | None = None

    @overload
    @classmethod
    def fetch(  # type: ignore[overload-overlap]  # a text is no list
        cls, queue_or_queues: str | Queue, deadline: float = ...
    ) -> Self: ...

    @overload
    @classmethod
    def fetch(cls, queue_or_queues: Iterable[str] | Iterable[Queue], deadline: float = ...) -> list[Self]: ...

    @classmethod
    def fetch(
        cls, queue_or_queues: str | Queue | Iterable[str] | Iterable[Queue], deadline: float = 10
    ) -> Self | list[Self]:
        """Count what is in one queue or several; a queue that nothing is known of has no tasks.

        Args:
            queue_or_queues: a Queue or a name, or several of the one or the other.
            deadline: accepted for code from App Engine; a call to the database has a limit of its own.

        Returns:
            The numbers; for several queues a list in their order.

        Raises:
            TypeError: names and Queues are mixed, or something else is given.
            InvalidDeadlineError: `deadline` is not more than 0.
            InvalidQueueNameError: a name breaks the rule for queue names.
        """
        check_deadline(deadline)
        queues, several = _queues(queue_or_queues)
        statistics = cls._of(queues, perform(_counting(queues)) if queues else [])
        return statistics if several else statistics[0]

    @overload
    @classmethod
    async def fetch_async(  # type: ignore[overload-overlap]  # a text is no list
        cls, queue_or_queues: str | Queue
    ) -> Self: ...

    @overload
    @classmethod
    async def fetch_async(cls, queue_or_queues: Iterable[str] | Iterable[Queue]) -> list[Self]: ...

    @classmethod
    async def fetch_async(cls, queue_or_queues: str | Queue | Iterable[str] | Iterable[Queue]) -> Self | list[Self]:
        """Do what `fetch` does, without blocking the event loop."""
        queues, several = _queues(queue_or_queues)
        statistics = cls._of(queues, await perform_async(_counting(queues)) if queues else [])
        return statistics if several else statistics[0]

    @classmethod
    def _of(cls, queues: list[Queue], counts: list[Counted]) -> list[Self]:
        return [cls(queue, *counted) for queue, counted in zip(queues, counts, strict=True)]


def _counting(queues: list[Queue]) -> Operation[list[Counted]]:
    statement = partial(queue_ops.count, queue_names=[queue.name for queue in queues])
    return Operation(statement=statement, writes=False)


def _queues(given: object) -> tuple[list[Queue], bool]:
    """Give the queues, and whether several were asked for."""
    if isinstance(given, str):
        return [Queue(given)], False
    if isinstance(given, Queue):
        return [given], False
    wanted = list(given) if isinstance(given, Iterable) else [given]
    names = [each for each in wanted if isinstance(each, str)]
    queues = [each for each in wanted if isinstance(each, Queue)]
    if len(names) not in (0, len(wanted)) or len(names) + len(queues) != len(wanted):
        raise TypeError("queue_or_queues must be names, or Queue objects, not both and nothing else")
    return queues or [Queue(name) for name in names], True


def _several(task: Task | Iterable[Task] | None) -> list[Task]:
    if isinstance(task, Task):
        return [task]
    # Of an iterator, which may have no end, one more than the limit is enough to refuse them.
    return list(islice(task, MAX_TASKS_PER_ADD + 1) if isinstance(task, Iterator) else task or ())
