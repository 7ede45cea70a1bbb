"""Task handlers: private routes whose parameters are the task's.

A handler runs only for a delivery of hookware's own; from the network its path answers 403.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from pydantic_core import to_json
from sqlalchemy import Connection
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from hookware.calling import call
from hookware.context import TaskContext, async_request_session, request_session, require_task
from hookware.core.cron import CronEntry
from hookware.core.dotted import dotted_name, label_of, why_unnamed
from hookware.core.url import canonical_url, split_url
from hookware.delivery import Call, Content, delivery_in
from hookware.errors import ConfigurationError, InvalidTaskError, PermanentTaskFailure
from hookware.keys import OnConflict
from hookware.signature import Injected, Kind, TaskSignature
from hookware.taskqueue import Task, TaskRetryOptions

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., object])
I1 = TypeVar("I1", bound="Session | AsyncSession | Request | TaskContext")
I2 = TypeVar("I2", bound="Session | AsyncSession | Request | TaskContext")


class TaskOptions(TypedDict, total=False):
    """What a handler's `options` takes: the arguments of `taskqueue.add` besides the payload and its address."""

    countdown: float
    eta: datetime
    headers: Mapping[str, str]
    name: str
    queue_name: str
    retry_options: TaskRetryOptions
    dispatch_deadline: float | timedelta
    session: "Session | AsyncSession"
    connection: "Connection | AsyncConnection"
    transactional: bool
    priority: int
    key: str
    on_conflict: OnConflict
    debounce: float
    fair_key: str
    limit_key: str


DEFERRED_URL: Final = "/_ah/queue/deferred"
"""Where tasks go that call a function instead of a handler."""

_OPTION_NAMES = frozenset(TaskOptions.__annotations__)
# A misspelt parameter must not make a task vanish as the duplicate of another.
_BESIDE_ARGUMENTS = _OPTION_NAMES - {"key"}
_JOIN_OPTIONS = ("session", "connection", "transactional")


class TaskHandler(Generic[P, R]):
    """A registered handler. Call it directly to run the plain function; `add` it to run it as a task.

    Attributes:
        function: the function as written.
        url: the path that it answers.
        public: whether the network may call it too.
    """

    def __init__(
        self,
        function: Callable[..., R],
        url: str,
        *,
        public: bool,
        names: Mapping[str, object] | None = None,
        kind: Kind = "task handler",
    ) -> None:
        self.function = function
        self.url = url
        self.public = public
        self.signature = TaskSignature(function, names or {}, kind)
        self._is_async = inspect.iscoroutinefunction(function)
        self._options: dict[str, Any] = {}
        is_async = inspect.iscoroutinefunction(inspect.unwrap(function))
        if self.signature.asks_for(Injected.ASYNC_SESSION) and not is_async:
            raise ConfigurationError(
                f"{self.signature.label} is a plain def and cannot await an AsyncSession: "
                "make it async def, or take a Session"
            )

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Run the function itself, here and now: no task, no retry."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"TaskHandler({self.url!r}, {self.signature.name})"

    def options(self, **options: Unpack[TaskOptions]) -> "TaskHandler[P, R]":
        """Give the same handler, with options for its next `add`: `worker.options(countdown=60).add(key="x")`.

        Raises:
            InvalidTaskError: there is no such option.
        """
        unknown = sorted(set(options) - _OPTION_NAMES)
        if unknown:
            raise InvalidTaskError(f"no option {', '.join(unknown)}; there are {', '.join(sorted(_OPTION_NAMES))}")
        twin: TaskHandler[P, R] = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, _options={**self._options, **options})
        return twin

    def add(self, *args: P.args, **kwargs: P.kwargs) -> Task:
        """Add a task that calls this handler with these arguments, which are checked here and travel as JSON.

        Injected parameters are left out. Options of `taskqueue.add`, such as countdown, may stand beside the
        arguments, unless the handler has a parameter of that name; type checkers want them in `options()`, where
        `key` has to be in any case.

        Raises:
            InvalidTaskError: the arguments do not fit the handler, or would not come back from JSON as they are, such
                as a `SecretStr` or a model's field that is excluded.
        """
        task, join = self._task(args, kwargs)
        return task.add(**join)

    async def add_async(self, *args: P.args, **kwargs: P.kwargs) -> Task:
        """Do the same from async code, outside of a request or with an AsyncConnection."""
        task, join = self._task(args, kwargs)
        return await task.add_async(**join)

    def _task(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> tuple[Task, dict[str, Any]]:
        taken = {name for name in kwargs if name in _BESIDE_ARGUMENTS and not self.signature.has(name)}
        options: dict[str, Any] = {**self._options, **{name: kwargs[name] for name in taken}}
        values = {name: value for name, value in kwargs.items() if name not in taken}
        join = {name: options.pop(name) for name in _JOIN_OPTIONS if name in options}
        join["queue_name"] = options.pop("queue_name", "default")
        headers = {**options.pop("headers", {}), "Content-Type": "application/json"}
        return Task(self.signature.write(args, values), url=self.url, headers=headers, **options), join

    def check_session(self, *, is_async: bool) -> None:
        """Refuse to ask for the other kind of session than the engine can give.

        Raises:
            ConfigurationError: it takes a Session and the engine is an AsyncEngine, or the reverse.
        """
        wrong, right = Injected.ASYNC_SESSION, Injected.SESSION
        if is_async:
            wrong, right = right, wrong
        if self.signature.asks_for(wrong):
            kind = "an AsyncEngine" if is_async else "a synchronous engine"
            raise ConfigurationError(
                f"{self.signature.label} takes {wrong.with_article}, but Hookware was given {kind}: "
                f"take {right.with_article}, or give Hookware the other engine"
            )

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as an ASGI app."""
        request = Request(scope, receive)
        try:
            response = _response(await self.run(await self._arguments(request), request))
        except HTTPException as error:
            await _refusal(error)(scope, receive, send)
            if delivery_in(scope) is not None:
                raise  # its text is the reason that is kept
        else:
            await response(scope, receive, send)

    @cached_property
    def takes_request(self) -> bool:
        """Whether it asks for the request, or for what is made of it."""
        return self.signature.asks_for(Injected.REQUEST) or self.signature.asks_for(Injected.TASK)

    async def serve(self, call: Call, content: Content) -> None:
        """Answer a delivery as `handle` does, with no request but for those that want one: most return nothing."""
        try:
            result = await self.run(self.signature.read(*content), None, call.answer.succeed)
        except HTTPException as error:
            await _refusal(error)(call.scope(), call.receive, call.answer.take)
            raise
        if result is None:
            call.answer.succeed()
        else:
            await _response(result)(call.scope(), call.receive, call.answer.take)

    async def _arguments(self, request: Request) -> dict[str, object]:
        content_type = request.headers.get("content-type", "")
        query_string: bytes = request.scope["query_string"]
        try:
            arguments = self.signature.read(request.method, content_type, query_string, await request.body())
        except PermanentTaskFailure as error:
            if delivery_in(request.scope) is not None:
                raise
            raise HTTPException(422, str(error)) from None
        return arguments

    async def run(
        self, arguments: Mapping[str, object], request: Request | None, succeed: Callable[[], None] | None = None
    ) -> object:
        """Call the function with the task's arguments and what is injected; give what it returns.

        `request` may be None where it `takes_request` no. `succeed` says that the task is done, if it returns nothing.
        """
        if self.signature.injected:
            injected = {name: _inject(what, request) for name, what in self.signature.injected.items()}
            arguments = {**arguments, **injected}
        args, kwargs = self.signature.bound(arguments)
        function = partial(self.function, *args, **kwargs)
        wants_session = self.signature.asks_for(Injected.SESSION)
        return await call(function, is_async=self._is_async, wants_session=wants_session, succeed=succeed)


def _inject(injected: Injected, request: Request | None) -> object:
    match injected:
        case Injected.SESSION:
            return request_session()
        case Injected.ASYNC_SESSION:
            return async_request_session()
        case Injected.REQUEST:
            return request
        case Injected.TASK:
            return require_task(cast("Request", request))


def _refusal(error: HTTPException) -> Response:
    return PlainTextResponse(str(error.detail), error.status_code, error.headers)


def _response(result: object) -> Response:
    if isinstance(result, Response):
        return result
    if result is None:
        return Response()
    return Response(to_json(result, fallback=repr), media_type="application/json")


class _Decorator(Protocol):
    """Takes injected parameters that come first out of the signature that `add` has for type checkers."""

    @overload
    def __call__(self, function: Callable[Concatenate[I1, I2, P], R], /) -> TaskHandler[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[I1, P], R], /) -> TaskHandler[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> TaskHandler[P, R]: ...


class TaskRouter:
    """The handlers of one app. `hookware.task_handler` registers in the default one."""

    def __init__(self) -> None:
        self._handlers: dict[str, TaskHandler[..., Any]] = {}
        self._functions: dict[str, TaskHandler[..., Any]] = {}
        self.cron_entries: list[CronEntry] = []

    def __len__(self) -> int:
        return len(self._handlers)

    def task_handler(self, url: str, *, public: bool = False) -> _Decorator:
        """Register a function as the handler of tasks for `url`.

        Parameters come from the task's params or JSON body, validated by their annotations. Those annotated
        `Session`, `AsyncSession`, `Request` or `TaskContext` are injected. A `def` handler runs in a thread. A
        value that does not fit makes the task dead at once; an exception makes it tried again.

        Args:
            url: an absolute path of this app without a query, such as "/worker".
            public: let the network call it too, as an ordinary route; a task all the same when hookware calls.

        Raises:
            ConfigurationError: the path is not valid or taken, or a parameter cannot be filled from a task.
        """
        path = _path(url)

        def register(function: Callable[..., Any]) -> TaskHandler[..., Any]:
            names = sys._getframe(1).f_locals  # where the function stands, its annotations may stand too
            handler: TaskHandler[..., Any] = TaskHandler(function, url, public=public, names=names)
            self._register(path, handler)
            return handler

        return cast("_Decorator", register)

    def add_handler(self, handler: TaskHandler[..., Any]) -> None:
        """Register a handler that is there already, at its path.

        Raises:
            ConfigurationError: the path is not valid, or another handler's.
        """
        self._register(_path(handler.url), handler)

    def has_handler(self, handler: TaskHandler[..., Any]) -> bool:
        """Say whether a handler is registered here."""
        found = self._handlers.get(_path(handler.url))
        return found is not None and found.function is handler.function

    def _register(self, path: str, handler: TaskHandler[..., Any]) -> None:
        taken = self._handlers.get(path)
        if taken is not None and not _same_place(taken.function, handler.function):
            raise ConfigurationError(
                f"{handler.url} already has a task handler, {taken.signature.name}: choose another path"
            )
        self._handlers[path] = handler

    def deferred_function(self, function: F) -> F:
        """Let a function be deferred; `hookware.deferred.function` does it in the default router.

        Raises:
            ConfigurationError: it has no name by which it could be called, or a parameter that no task can fill.
        """
        problem = why_unnamed(function)
        if problem is not None:
            raise ConfigurationError(f"{label_of(function)} cannot be deferred by its name: {problem}")
        self._functions[dotted_name(function)] = TaskHandler(
            function, DEFERRED_URL, public=False, kind="deferred function"
        )
        return function

    def find(self, path: str) -> TaskHandler[..., Any] | None:
        """Give the handler of a decoded path, or None."""
        return self._handlers.get(path)

    def find_function(self, name: str) -> TaskHandler[..., Any] | None:
        """Give the function that is registered under a dotted name, or None."""
        return self._functions.get(name)

    @property
    def has_functions(self) -> bool:
        """Whether functions are registered to be deferred."""
        return bool(self._functions)

    def check_sessions(self, *, is_async: bool) -> None:
        """Refuse handlers that ask for the other kind of session than the engine can give.

        Raises:
            ConfigurationError: a handler takes a Session and the engine is an AsyncEngine, or the reverse.
        """
        for handler in [*self._handlers.values(), *self._functions.values()]:
            handler.check_session(is_async=is_async)


def _path(url: object) -> str:
    if not isinstance(url, str):
        raise ConfigurationError(f'task_handler takes a path, got {url!r}: write @task_handler("/worker")')
    if "{" in url or "}" in url:
        raise ConfigurationError(
            f"task_handler({url!r}): a handler's path has no parameters; values come as params= or arguments of add()"
        )
    try:
        canonical = canonical_url(url)
    except ValueError as error:
        raise ConfigurationError(f"task_handler({url!r}): {error}") from None
    if "?" in canonical:
        raise ConfigurationError(f"task_handler({url!r}): a handler's path has no query string")
    return split_url(canonical).path


def _same_place(one: Callable[..., object], other: Callable[..., object]) -> bool:
    """A module that is imported again registers its handlers again: that is no clash."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


default_router = TaskRouter()
"""Where `hookware.task_handler` registers."""

task_handler = default_router.task_handler
