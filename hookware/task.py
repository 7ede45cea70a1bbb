"""A task before it is enqueued, as the user sees it: App Engine's `Task`, and the way of several into a queue."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import parse_qs

from hookware import arguments
from hookware.arguments import HeaderArgument, TaskRetryOptions
from hookware.core.headers import is_internal
from hookware.core.queue import DEFAULT_QUEUE
from hookware.core.task import PULL, Draft, Headers, Keys, NewTask
from hookware.env import Env
from hookware.errors import (
    BadTaskStateError,
    DuplicateTaskNameError,
    InvalidTaskError,
    TaskTooLargeError,
    TooManyTasksError,
)
from hookware.keys import OnConflict, checked_keys, with_debounce
from hookware.transaction import enqueue, enqueue_async

MAX_TASK_SIZE_BYTES: Final = 1_048_576
MAX_TASKS_PER_ADD: Final = 100

_QUEUE_PATH: Final = "/_ah/queue"
_ENV: Final = Env()


class Task:
    """A unit of work: a request that this app will be sent, until it answers 2xx.

    Args:
        payload: the body; text is sent as UTF-8 with a content type of text/plain.
        countdown: seconds from now until the task is due.
        eta: when the task is due; a naive datetime is local time. At most 30 days ahead.
        headers: the request's headers, a mapping or pairs; a list as value repeats the header.
        method: POST, GET, HEAD, PUT or DELETE; or PULL, for a pull queue.
        name: unique in its queue, also for nine days after the task is done. Unnamed tasks get their id as name.
        params: what the handler gets: a form in the body of a POST, the query of the others.
        retry_options: how often and how long the task is tried again, in place of the queue's options; of a pull task
            they have no effect, as on App Engine.
        tag: for pull tasks only.
        target: accepted and ignored: a task always goes to this app.
        url: a path of this app; `/_ah/queue/<queue>` if left out.
        dispatch_deadline_usec: how long an attempt may take, in microseconds, 15 s to 24 h.
        dispatch_deadline: the same in seconds or as a timedelta, more than 0.
        priority: of two due tasks of a queue the one with the higher number begins first; -100 to 100.
        key: of the waiting tasks of a queue with one key, one runs.
        on_conflict: which one: "skip", the default, the first; "replace" the last; "raise" the first, and adding
            another raises TaskAlreadyExistsError where one is known to wait.
        debounce: run so many seconds after the last add with this key.
        fair_key: tasks of one queue with different keys take turns, however many there are of each.
        limit_key: of tasks of one queue with the same key, only `limit_per_key` of the queue run at once, by default 1.

    Raises:
        InvalidTaskError: the arguments are wrong, or do not go together; a subclass says which.
        InvalidTagError: the tag is no text, holds NUL, or is too long.
        InvalidDispatchDeadlineError: the deadline is out of its range.
        TypeError: an argument is unknown, or of a type that cannot be meant.
    """

    __slots__ = (
        "_countdown_us", "_created_us", "_deadline_us", "_eta_us", "_headers", "_id", "_keys", "_method", "_name",
        "_payload", "_queue_name", "_retry_count", "_retry_options", "_tag", "_target", "_url", "_was_deleted",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - App Engine's arguments
        self,
        payload: str | bytes | None = None,
        *,
        countdown: float | str | None = None,
        eta: datetime | None = None,
        headers: HeaderArgument | None = None,
        method: str = "POST",
        name: str | None = None,
        params: Mapping[str, object] | None = None,
        retry_options: TaskRetryOptions | None = None,
        tag: str | None = None,
        target: object = None,
        url: str = "",
        dispatch_deadline_usec: int | None = None,
        dispatch_deadline: float | timedelta | None = None,
        priority: int = 0,
        key: str | None = None,
        on_conflict: OnConflict | None = None,
        debounce: float | None = None,
        fair_key: str | None = None,
        limit_key: str | None = None,
        _size_check: bool = True,
    ) -> None:
        self._name = arguments.checked_name(name)
        self._method = arguments.checked_method(method)
        self._headers = arguments.checked_headers(headers)
        path, query = arguments.path_and_query(url)
        arguments.check_mode(self._method, tag, url=url, headers=headers, target=target)
        content = arguments.content_of(self._method, payload, params, query)
        self._payload = content.payload
        if content.content_type:
            self._headers.setdefault("content-type", content.content_type)
        self._url = arguments.joined_url(path, content.query)
        self._created_us = _ENV.now_us()
        self._keys = checked_keys(
            method=self._method, priority=priority, key=key, on_conflict=on_conflict, debounce=debounce,
            fair_key=fair_key, limit_key=limit_key,
        )  # fmt: skip
        countdown = with_debounce(debounce, countdown, eta)
        self._eta_us, self._countdown_us = arguments.due(eta, countdown, self._created_us)
        self._deadline_us = arguments.deadline_us(dispatch_deadline_usec, dispatch_deadline)
        self._retry_options = arguments.checked_retry(retry_options)
        self._tag, self._target = tag, target
        self._id: int | None = None
        self._queue_name: str | None = None
        self._retry_count, self._was_deleted = 0, False
        if _size_check and self.size > MAX_TASK_SIZE_BYTES:
            raise TaskTooLargeError(
                f"the task has {self.size} bytes of {MAX_TASK_SIZE_BYTES}: store the data, and send its key"
            )

    def __repr__(self) -> str:
        """Name the task without its payload, which may hold secrets."""
        return f"Task<name={self._name!r}, method={self._method!r}, url={self._url!r}, queue_name={self._queue_name!r}>"

    @property
    def id(self) -> int | None:
        """The task's id, once it is enqueued."""
        return self._id

    @property
    def name(self) -> str | None:
        """The task's name; an unnamed one has its id as name once it is enqueued."""
        return self._name

    @property
    def queue_name(self) -> str | None:
        """The queue in which the task was enqueued."""
        return self._queue_name

    @property
    def method(self) -> str:
        """The request's method."""
        return self._method

    @property
    def url(self) -> str:
        """The path and query in canonical spelling; without a path if it is the queue's own."""
        return self._url

    @property
    def on_queue_url(self) -> bool:
        """Whether the task goes to its queue's own path."""
        return not self._url.startswith("/")

    @property
    def headers(self) -> dict[str, str | list[str]]:
        """A copy of the headers, by lower-case name."""
        return {name: value if isinstance(value, str) else list(value) for name, value in self._headers.items()}

    @property
    def payload(self) -> str | bytes | None:
        """The body: bytes, the text of a form made of params, or None."""
        return self._payload

    @property
    def size(self) -> int:
        """The bytes of method, URL, headers and body together."""
        body = len(self._payload or "")
        return len(self._method) + len(self._url) + body + sum(len(k) + len(v) + 4 for k, v in self._header_pairs())

    @property
    def eta_posix(self) -> float:
        """When the task is due, in seconds since the epoch; a countdown by this host's clock at construction."""
        return self._due_us() / 1e6

    @property
    def eta(self) -> datetime:
        """When the task is due, as an aware datetime in UTC."""
        return arguments.as_datetime(self._due_us())

    @property
    def retry_options(self) -> TaskRetryOptions | None:
        """The task's own retry options."""
        return self._retry_options

    @property
    def dispatch_deadline_usec(self) -> int | None:
        """How long an attempt may take, in microseconds, where the task says so."""
        return self._deadline_us

    @property
    def retry_count(self) -> int:
        """How often a leased pull task has been leased; 0 for any other."""
        return self._retry_count

    @property
    def tag(self) -> str | None:
        """The tag of a pull task."""
        return self._tag

    @property
    def keys(self) -> Keys:
        """The task's priority and keys."""
        return self._keys

    @property
    def target(self) -> object:
        """What was given as target; it has no effect."""
        return self._target

    @property
    def was_enqueued(self) -> bool:
        """Whether the task was added; in a transaction it counts from its commit."""
        return self._id is not None

    @property
    def was_deleted(self) -> bool:
        """Whether the task was deleted through this object."""
        return self._was_deleted

    def extract_params(self) -> dict[str, str | list[str]]:
        """Give the params back, a list where a name stands more than once.

        Raises:
            ValueError: the payload of a POST or pull task, or the query of another, is not a form.
        """
        in_payload = self._method in {"POST", PULL}
        encoded = (self._payload or "") if in_payload else self._url.partition("?")[2]
        text = encoded.decode() if isinstance(encoded, bytes) else encoded
        fields = parse_qs(text, keep_blank_values=True, strict_parsing=True, errors="strict") if text else {}
        return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}

    def add(
        self,
        queue_name: str = DEFAULT_QUEUE,
        transactional: bool | None = None,
        *,
        session: object | None = None,
        connection: object | None = None,
    ) -> "Task":
        """Add the task to a queue; `Queue.add` tells what the arguments mean."""
        add_tasks([self], queue_name, session=session, connection=connection, transactional=transactional)
        return self

    async def add_async(
        self,
        queue_name: str = DEFAULT_QUEUE,
        transactional: bool | None = None,
        *,
        session: object | None = None,
        connection: object | None = None,
    ) -> "Task":
        """Add the task to a queue without blocking the event loop."""
        await add_tasks_async([self], queue_name, session=session, connection=connection, transactional=transactional)
        return self

    def _header_pairs(self) -> Headers:
        return tuple(
            (name, one)
            for name, value in self._headers.items()
            for one in ([value] if isinstance(value, str) else value)
        )  # fmt: skip

    def _draft(self, queue_name: str) -> Draft:
        body = self._payload or b""
        return Draft(
            queue_name=queue_name,
            name=self._name or None,
            method=self._method,
            url=f"{_QUEUE_PATH}/{queue_name}{self._url}" if self.on_queue_url else self._url,
            headers=tuple(pair for pair in self._header_pairs() if not is_internal(pair[0])),
            body=body if isinstance(body, bytes) else body.encode(),
            eta_us=self._eta_us,
            countdown_us=self._countdown_us,
            retry=None if self._method == PULL else self._retry_options,
            deadline_us=self._deadline_us,
            keys=self._keys,
            tag=self._tag or None,
        )

    def _due_us(self) -> int:
        return self._created_us + self._countdown_us if self._eta_us is None else self._eta_us

    def _moved(self, eta_us: int) -> None:
        self._eta_us = eta_us

    def _leased(self, task_id: int, queue_name: str, eta_us: int, retry_count: int) -> "Task":
        self._id, self._queue_name, self._eta_us, self._retry_count = task_id, queue_name, eta_us, retry_count
        return self

    def _enqueued(self, added: NewTask) -> None:
        self._id, self._name, self._queue_name = added.id, added.name or str(added.id), added.queue_name


def due_from_now(eta: datetime | None, countdown: float | None) -> tuple[int | None, int]:
    """Give an ETA, if one is given, and a countdown, in microseconds.

    Raises:
        InvalidEtaError: the time is too far away.
        InvalidTaskError: both are given, or one is no time.
    """
    return arguments.due(eta, countdown, _ENV.now_us())


def add_tasks(
    tasks: Sequence[Task],
    queue_name: str,
    *,
    session: object | None,
    connection: object | None,
    transactional: bool | None,
) -> None:
    """Add tasks to a queue: all, or where one of them is invalid, none; a taken name leaves only its task out."""
    drafts = _drafts(tasks, queue_name)
    try:
        added = enqueue(drafts, session=session, connection=connection, transactional=transactional)
    except InvalidTaskError as error:
        _mark(tasks, error.added)
        raise
    _mark(tasks, added)


async def add_tasks_async(
    tasks: Sequence[Task],
    queue_name: str,
    *,
    session: object | None,
    connection: object | None,
    transactional: bool | None,
) -> None:
    """Do the same without blocking the event loop."""
    drafts = _drafts(tasks, queue_name)
    try:
        added = await enqueue_async(drafts, session=session, connection=connection, transactional=transactional)
    except InvalidTaskError as error:
        _mark(tasks, error.added)
        raise
    _mark(tasks, added)


def _drafts(tasks: Sequence[Task], queue_name: str) -> list[Draft]:
    arguments.checked_queue_name(queue_name)
    _check_kinds(tasks)
    if len(tasks) > MAX_TASKS_PER_ADD:
        raise TooManyTasksError(f"one call may add {MAX_TASKS_PER_ADD} tasks: split them over several calls")
    _check_each(tasks)
    return [task._draft(queue_name) for task in tasks]


def _check_kinds(tasks: Sequence[Task]) -> None:
    for task in tasks:
        if not isinstance(task, Task):
            raise TypeError(
                f"only Task objects can be added, got {type(task).__name__}: use taskqueue.add() for others"
            )
    if len({task.method == PULL for task in tasks}) > 1:
        raise InvalidTaskError("push and pull tasks cannot be added in one call: add them separately")


def _check_each(tasks: Sequence[Task]) -> None:
    """Refuse names and tasks that come twice, in App Engine's order: the first task with a flaw decides."""
    names: set[str] = set()
    objects: set[int] = set()
    for task in tasks:
        if task.name and task.name in names:
            raise DuplicateTaskNameError(
                f"the task name {task.name!r} is used more than once in one call: give each its own"
            )
        if task.was_enqueued or id(task) in objects:
            raise BadTaskStateError("a task can be added only once: make a new Task for each time")
        names.add(task.name or "")
        objects.add(id(task))


def _mark(tasks: Sequence[Task], added: Sequence[NewTask | None]) -> None:
    """Tell the tasks that were added; an error for the whole call says of none that it was."""
    for task, new in zip(tasks, added, strict=False):
        if new is not None:
            task._enqueued(new)
