"""Which functions a deferred task may call, how it carries the call, and how the call is made.

A call travels as JSON: the function's dotted name, and its arguments as a task handler's. The name is looked up among
the registered functions and in the packages that are allowed, and nowhere else. Any other callable travels as a
pickle, if the app has a key to sign it with.
"""

import importlib
import json
import sys
from collections.abc import Mapping
from functools import partial
from types import FunctionType
from typing import Any, Final

import anyio.to_thread
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from hookware import signed_pickle
from hookware.calling import call
from hookware.config import Config
from hookware.core.dotted import dotted_name, is_within, label_of, split_dotted, why_unnamed
from hookware.core.task import LeasedTask
from hookware.delivery import delivery_in
from hookware.errors import ConfigurationError, InvalidTaskError, PermanentTaskFailure, SingularTaskFailure
from hookware.handlers import DEFERRED_URL, TaskHandler, TaskRouter

_JSON: Final = "application/json"
_OCTETS: Final = "application/octet-stream"
_ALLOW: Final = 'put @deferred.function above it, or allow its package with Hookware(deferred_packages=["{package}"])'


class Functions:
    """The functions that the deferred tasks of one Hookware may call.

    Attributes:
        public: False: the network may call none of them.
    """

    public: Final = False

    def __init__(self, router: TaskRouter, config: Config, *, is_async: bool) -> None:
        self._router = router
        self._packages = config.deferred_packages
        self._keys = config.deferred_pickle_keys
        self._is_async = is_async
        self._imported: dict[str, TaskHandler[..., Any]] = {}

    @property
    def exist(self) -> bool:
        """Whether any function can be deferred here."""
        return bool(self._router.has_functions or self._packages or self._keys)

    def write(
        self, function: object, args: tuple[object, ...], kwargs: Mapping[str, object], context: bytes
    ) -> tuple[bytes, str]:
        """Give the body that carries a call, and its content type; a pickle is signed for this context alone.

        Raises:
            ConfigurationError: the function has a parameter that no task can fill.
            InvalidTaskError: it may not be called like this; the message says what to do.
        """
        if not callable(function):
            raise InvalidTaskError(f"defer() takes a function, and its arguments after it, got {function!r:.100}")
        if isinstance(function, TaskHandler):
            raise InvalidTaskError(f"{function!r} is a task handler: add it with its own add()")
        problem = why_unnamed(function)
        if problem is None and isinstance(function, FunctionType):
            if function.__module__ == "__main__":
                raise InvalidTaskError(
                    f"{label_of(function)} stands in the script that was started, which no other process knows by the "
                    "name __main__: move it to a module"
                )
            handler = self._named(function)
            if handler is not None:
                name = json.dumps(dotted_name(function)).encode()
                return b'{"function":%b,"arguments":%b}' % (name, handler.signature.write(args, kwargs)), _JSON
            problem = f"it is not allowed: {_ALLOW.format(package=function.__module__)}"
        if not self._keys:
            raise InvalidTaskError(f"{label_of(function)} cannot be deferred: {problem}")
        return signed_pickle.dumps((function, args, dict(kwargs)), self._keys, context), _OCTETS

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request of a deferred task, as an ASGI app; any other gets 403."""
        delivery = delivery_in(scope)
        if delivery is None:
            response = PlainTextResponse("Forbidden: this path runs tasks only.", 403)
        elif scope["method"] != "POST":
            response = PlainTextResponse("a deferred task is a POST", 405, {"Allow": "POST"})
        else:
            try:
                await self._run(delivery.task, Request(scope, receive))
                response = PlainTextResponse("Success")
            except SingularTaskFailure as error:
                response = PlainTextResponse(str(error), 408)
        await response(scope, receive, send)

    async def _run(self, task: LeasedTask, request: Request) -> None:
        if task.body.startswith(signed_pickle.MAGIC):
            await self._run_pickled(task)
            return
        name, arguments = _read(task.body)
        handler = self._router.find_function(name) or self._imported.get(name)
        if handler is None:
            handler = await anyio.to_thread.run_sync(self._imported_handler, name)
        values = handler.signature.read("POST", _JSON, b"", arguments)
        await handler.run(values, request)

    async def _run_pickled(self, task: LeasedTask) -> None:
        if not self._keys:
            raise PermanentTaskFailure(
                "the task carries a pickled call, and pickle is off here: give Hookware the deferred_pickle_key= that "
                "signed it, and run the task again"
            )
        function, args, kwargs = _parts(signed_pickle.loads(task.body, self._keys, context_of(task)))
        await call(partial(function, *args, **kwargs), is_async=False)  # an async one only makes its coroutine there

    # Names.

    def _named(self, function: FunctionType) -> "TaskHandler[..., Any] | None":
        """Give what the function's name will mean where the task runs; None if it means nothing."""
        name = dotted_name(function)
        handler = self._router.find_function(name)
        if handler is None and is_within(function.__module__, self._packages):
            found = getattr(sys.modules.get(function.__module__), function.__name__, None)
            handler = self._handler(name, found)
        if handler is None:
            return None
        if handler.function is not function:
            raise InvalidTaskError(
                f"the name {name} means another function than the one that was given: a decorator of it must not be "
                "left out, and @deferred.function stands above all others"
            )
        return handler

    def _imported_handler(self, name: str) -> "TaskHandler[..., Any]":
        """Give the function of a stored name, from an allowed package; what its module raises passes through."""
        module_name, function_name = split_dotted(name) or ("", "")
        if not is_within(module_name, self._packages):
            raise PermanentTaskFailure(
                f"the function {name!r:.300} is neither registered in this process nor in a package of "
                "deferred_packages=: import the module that registers it, and run the task again"
            )
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise  # another module, which that one imports
            raise PermanentTaskFailure(f"the module of the function {name!r:.300} is gone") from error
        try:
            return self._router.find_function(name) or self._handler(name, getattr(module, function_name, None))
        except ConfigurationError as error:
            raise PermanentTaskFailure(str(error)) from error

    def _handler(self, name: str, found: object) -> "TaskHandler[..., Any]":
        """Check that what a name means is a function of an allowed package, not one that its module imported."""
        known = self._imported.get(name)
        if known is not None and known.function is found:
            return known
        if not isinstance(found, FunctionType) or not is_within(found.__module__, self._packages):
            raise ConfigurationError(
                f"{name!r:.300} is no function of a package in deferred_packages=: is it gone, or hidden by another "
                "object of its name?"
            )
        handler: TaskHandler[..., Any] = TaskHandler(found, DEFERRED_URL, public=False, kind="deferred function")
        handler.check_session(is_async=self._is_async)
        self._imported[name] = handler
        return handler


def context_of(task: LeasedTask) -> bytes:
    """Give what the signature of a pickled call covers besides the call: it is good for no other queue or name."""
    return context(task.queue_name, task.name)


def context(queue_name: str, name: str | None) -> bytes:
    """Give the same for a task that is being made."""
    return json.dumps([queue_name, name or None]).encode()


def _read(body: bytes) -> tuple[str, bytes]:
    try:
        called = from_json(body)
        name, arguments = called["function"], called["arguments"]
    except (ValueError, TypeError, KeyError) as error:
        raise PermanentTaskFailure("the task's body is none that defer() made") from error
    if not isinstance(name, str):
        raise PermanentTaskFailure("the task's body is none that defer() made: its function is no name")
    return name, json.dumps(arguments).encode()


def _parts(loaded: object) -> tuple[Any, tuple[object, ...], dict[str, object]]:
    match loaded:
        case (function, tuple() as args, dict() as kwargs) if callable(function):
            return function, args, kwargs
        case _:
            raise PermanentTaskFailure("the pickled call is none that defer() made")
