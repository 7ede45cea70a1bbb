"""DEFER: App Engine's `google.appengine.ext.deferred`, reborn: call a function later, as a task.

    deferred.defer(send_mail, to="ada@example.org", _countdown=60)

Which functions may be called so, and how the call travels, stands in functions.py. docs/reference/differences.md
lists where this differs from App Engine's.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, TypeVar, Unpack

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from hookware.arguments import HeaderValue, TaskArguments, TaskRetryOptions
from hookware.core.queue import DEFAULT_QUEUE
from hookware.errors import ConfigurationError, Error, PermanentTaskFailure, SingularTaskFailure
from hookware.functions import Functions, context
from hookware.handlers import DEFERRED_URL, default_router
from hookware.task import Task
from hookware.transaction import outbox_for
from hookware.unit_of_work import current_unit

__all__ = ["Error", "PermanentTaskFailure", "SingularTaskFailure", "application", "defer", "defer_async", "function"]

F = TypeVar("F", bound=Callable[..., object])

_CONTENT_TYPE: Final = "content-type"


def function(function: F) -> F:
    """Let a function be deferred; a decorator for functions at the top of a module.

    A parameter annotated `Session`, `AsyncSession`, `Request` or `TaskContext` is injected when the task runs. The
    others are validated by their annotations, when the task is added and when it runs.

    Raises:
        ConfigurationError: the function has no name by which another process could call it, or a parameter that no
            task can fill.
    """
    return default_router.deferred_function(function)


def defer(
    obj: Callable[..., object],
    /,
    *args: object,
    _countdown: float | str | None = None,
    _eta: datetime | None = None,
    _name: str | None = None,
    _target: object = None,
    _retry_options: TaskRetryOptions | None = None,
    _url: str = DEFERRED_URL,
    _transactional: bool | None = None,
    _headers: Mapping[str, HeaderValue] | None = None,
    _queue: str = DEFAULT_QUEUE,
    _session: object | None = None,
    _connection: object | None = None,
    **kwargs: object,
) -> Task:
    """Add a task that calls `obj(*args, **kwargs)`, in the transaction that `taskqueue.add` would join.

    Args:
        obj: a function that `function` registered or that is in one of `Hookware(deferred_packages=...)`; with
            `Hookware(deferred_pickle_key=...)` any callable that can be pickled.
        *args: its arguments, without those that are injected.
        _countdown: seconds from now until the task is due.
        _eta: when the task is due.
        _name: the task's name, unique in its queue.
        _target: accepted and ignored.
        _retry_options: how often and how long the task is tried again.
        _url: where the task goes; any other path is one where the app has `deferred.application`.
        _transactional: as in `taskqueue.add`.
        _headers: headers of the task's request.
        _queue: the queue.
        _session: the session that the task joins; App Engine has no such argument.
        _connection: the connection in whose transaction the task is stored; App Engine has no such argument.
        **kwargs: its arguments by name; as on App Engine, none of them can begin with an underscore that is above.

    Returns:
        The task, with its name and id.

    Raises:
        InvalidTaskError: the function may not be deferred, or the arguments do not fit it; or what `taskqueue.add`
            raises.
    """
    task = _task(
        obj, args, kwargs, _queue, _session, _connection,
        countdown=_countdown, eta=_eta, name=_name, target=_target, retry_options=_retry_options, url=_url,
        headers=_headers,
    )  # fmt: skip
    return task.add(_queue, _transactional, session=_session, connection=_connection)


async def defer_async(
    obj: Callable[..., object],
    /,
    *args: object,
    _countdown: float | str | None = None,
    _eta: datetime | None = None,
    _name: str | None = None,
    _target: object = None,
    _retry_options: TaskRetryOptions | None = None,
    _url: str = DEFERRED_URL,
    _transactional: bool | None = None,
    _headers: Mapping[str, HeaderValue] | None = None,
    _queue: str = DEFAULT_QUEUE,
    _session: object | None = None,
    _connection: object | None = None,
    **kwargs: object,
) -> Task:
    """Do what `defer` does, without blocking the event loop where the task is stored at once."""
    task = _task(
        obj, args, kwargs, _queue, _session, _connection,
        countdown=_countdown, eta=_eta, name=_name, target=_target, retry_options=_retry_options, url=_url,
        headers=_headers,
    )  # fmt: skip
    return await task.add_async(_queue, _transactional, session=_session, connection=_connection)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Run deferred functions under a path of your own: an ASGI app to mount where `_url` leads.

    `/_ah/queue/deferred` is served without it. From the network it answers 403.
    """
    unit = current_unit.get()
    if scope["type"] != "http" or unit is None:
        await PlainTextResponse("Forbidden: this path runs tasks only.", 403)(scope, receive, send)
    else:
        await _functions(unit.outbox.functions).handle(scope, receive, send)


def _task(
    obj: Callable[..., object],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    queue_name: str,
    session: object | None,
    connection: object | None,
    **task_arguments: Unpack[TaskArguments],
) -> Task:
    outbox, _ = outbox_for(session, connection)
    functions, name = _functions(outbox.functions), task_arguments.get("name")
    body, content_type = functions.write(obj, args, kwargs, context(queue_name, name))
    given = dict(task_arguments.get("headers") or ())
    headers = {key: value for key, value in given.items() if key.lower() != _CONTENT_TYPE}
    task_arguments["headers"] = {**headers, _CONTENT_TYPE: content_type}
    return Task(body, **task_arguments)


def _functions(functions: object) -> Functions:
    if not isinstance(functions, Functions):
        raise ConfigurationError("no Hookware of this process runs deferred functions: make one before this is called")
    return functions
