"""One attempt: a leased task becomes an ASGI request into the app, and its answer an outcome.

Rule: success is a 2xx status *and* the last body message *and* a call that returned without raising, all of it
before the deadline. Whatever else the app does, up to SystemExit, is a failure of the attempt, never of the loop.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

import anyio
from anyio.abc import TaskGroup
from starlette.types import ASGIApp, Message, Scope

from hookware.alarms import Alarms
from hookware.answer import Answer
from hookware.config import Config
from hookware.core.headers import check_names, checked_method, content_type_of, delivery_headers
from hookware.core.history import AttemptRecord
from hookware.core.lifecycle import Conflicted, Failed, Interrupted, Outcome, Succeeded
from hookware.core.queue import CRON_QUEUE
from hookware.core.task import Lease, LeasedTask, Progress
from hookware.core.url import split_base_url, split_url
from hookware.env import Env, forget_cancellation, is_being_cancelled, start_task
from hookware.errors import describe
from hookware.log import fields_of, log_of
from hookware.raised import is_cancellation, is_our_cancellation, is_permanent

_split_base_url, _split_url = lru_cache(8)(split_base_url), lru_cache(256)(split_url)

SCOPE_KEY = "hookware.task"
"""Where a delivery's scope carries its `Delivery`. A network peer cannot put an object there."""

CLIENT = ("0.1.0.2", 0)
CRON_CLIENT = ("0.1.0.1", 0)
"""The address that deliveries come from: App Engine's."""

_logger = log_of()


def _nothing(*_args: object) -> None:
    pass


class Delivery:
    """One attempt on its way through the app.

    Its identity in the scope proves that the request is a task. The layers that it passes write on it what the
    answer alone does not tell.

    Attributes:
        task: the task being delivered.
        completed: the handler's own transaction has committed the task's removal.
        completing: its handler's own transaction commits, or has committed, the removal: a lease that is gone says
            nothing any more.
        lease_lost: the task has been cancelled or given to another attempt; whatever this one wrote is rolled back.
        conflict: the handler's transaction met a concurrent one, and this is what the database said.
        collided: it wrote a value that must be unique and was there already, in this try or an earlier one of the
            attempt: once is taken for a concurrent transaction, twice for the handler's fault.
        sees_snapshot: its transaction, or that of an earlier try of the attempt, saw the database as it was at its
            begin, and was refused for what had changed since.
        failure: why the attempt failed although a response may have left.
        refused: the app's own answer was no success, whatever a layer outside of hookware made of it.
        progress: how far it has come, as its handler last said.
        trace: gives what is entered around the app, in the request's own context.
        on_progress: told under which lease it says what, in whatever thread; it must not block.
        answer: what the app has answered; None: it has not been called.
        completion: gives what is to be kept of the attempt if its handler's own transaction ends the task.
    """

    __slots__ = (
        "answer",
        "collided",
        "completed",
        "completing",
        "completion",
        "conflict",
        "failure",
        "lease_lost",
        "on_progress",
        "progress",
        "refused",
        "sees_snapshot",
        "task",
        "trace",
    )

    def __init__(self, task: LeasedTask, *, collided: bool = False, sees_snapshot: bool = False) -> None:
        self.task = task
        self.collided = collided
        self.sees_snapshot = sees_snapshot
        self.completed = False
        self.completing = False
        self.lease_lost = False
        self.conflict: str | None = None
        self.failure: BaseException | None = None
        self.refused = False
        self.progress: Progress | None = None
        self.trace: Callable[[], AbstractContextManager[object]] = nullcontext
        self.on_progress: Callable[[Lease, Progress], object] = _nothing
        self.answer: Answer | None = None
        self.completion: Callable[[], AttemptRecord | None] = _nothing


def delivery_in(scope: Mapping[str, object]) -> Delivery | None:
    """Give the delivery that a scope carries; None: the request comes from the network.

    By the type itself: an object may claim any class where `isinstance` asks it.
    """
    delivery = scope.get(SCOPE_KEY)
    return delivery if type(delivery) is Delivery else None


class Content(NamedTuple):
    """What a handler reads its arguments from."""

    method: str
    content_type: str
    query_string: bytes
    body: bytes


Serve = Callable[["Call", Content], Awaitable[None]]
"""Serves a task without a request: its answer is in `Call.answer`, or it raises."""


def nowhere(_path: str) -> Serve | None:
    """Give no short way."""
    return None


@dataclass(frozen=True, slots=True)
class Target:
    """Where deliveries go.

    Attributes:
        app: the app that answers them.
        state: the app's lifespan state; each request gets a copy.
        calls: the task group in which the app is called. It outlives the attempts, because a handler that ignores
            its cancellation outlives its attempt.
        direct: gives what serves a decoded path without a request being made of the task, where the app would do the
            same; None: the app serves it.
        new_scope: makes cancel scopes for the event loop that runs now. To find out which one that is takes anyio
            longer than to make one.
    """

    app: ASGIApp
    state: Mapping[str, object]
    calls: TaskGroup
    direct: Callable[[str], Serve | None] = nowhere
    new_scope: Callable[..., anyio.CancelScope] = field(default_factory=lambda: type(anyio.CancelScope()))


class Call:
    """One attempt's call of the app, in a task of its own.

    It ends at the latest `overrun_seconds` after the task's deadline, or after it was cut short, whatever the handler
    does; then `on_ended` is called with it, once.

    Attributes:
        delivery: what is delivered.
        answer: what has been answered so far.

    Args:
        target: where it goes.
        delivery: what is delivered.
        env: for the clock.
        config: for `base_url` and `overrun_seconds`.
        alarms: keep the deadline.
        on_ended: must not raise.
    """

    def __init__(
        self,
        target: Target,
        delivery: Delivery,
        *,
        env: Env,
        config: Config,
        alarms: Alarms,
        on_ended: "Callable[[Call], None]",
    ) -> None:
        self._target = target
        self._base_url = config.base_url
        self._overrun_seconds = config.overrun_seconds
        self.delivery = delivery
        self._task = delivery.task
        self._env = env
        self._alarms = alarms
        self._on_ended = on_ended
        self.answer = delivery.answer = Answer(env, keeps_all=config.attempt_history == "all")
        self._seconds = delivery.task.deadline_us / 1e6
        self._began = env.monotonic()
        self._ended_at: float | None = None
        self._cancel_scope = target.new_scope(shield=True)  # only this cuts the app's call short
        self._is_over = False
        self._left: anyio.Event | None = None
        self._body_taken = False
        self._timed_out = False
        self._cut_short = False
        self._cancelled = False
        self._raised: BaseException | None = None
        self._outcome: Outcome | None = None

    def begin(self) -> None:
        """Call the app; raise ValueError if the task cannot be made into a request."""
        entering = self._enter_app(self._way())
        self._alarms.set(self, self._seconds, self._time_out)
        try:
            start_task(self._target.calls, entering, f"task {self._task.label}", on_done=self._leave)
        except BaseException:
            self._is_over = True
            self._alarms.clear(self)
            entering.close()
            raise

    def cut(self) -> None:
        """Cancel the handler."""
        if not (self._is_over or self._cut_short):
            self._cut_short = True
            self._cancel_scope.cancel()
            self._alarms.set(self, self._overrun_seconds, self._give_up)

    def _time_out(self) -> None:
        self._timed_out = True
        self.cut()

    def _give_up(self) -> None:
        label, fields = self._task.label, fields_of(self._task)
        _logger.error("task %s ignores its cancellation; it lingers without a slot", label, extra=fields)
        self._left = anyio.Event()
        try:
            self._target.calls.start_soon(self._linger, self._left)
        finally:
            self._end()

    def _leave(self) -> None:
        self._end()
        if self._left is not None:
            self._left.set()

    async def _linger(self, left: anyio.Event) -> None:
        """Keep the lifespan from ending before the handler: who ends it may choose not to wait."""
        with anyio.CancelScope(shield=True):
            await left.wait()

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._alarms.clear(self)
            self._on_ended(self)

    async def _enter_app(self, way: Callable[[], Awaitable[None]]) -> None:
        try:
            with self._cancel_scope:
                if not self._cut_short:
                    await self._through_app(way)
            # Nor does a cancellation leave this task that the app has asked for by asyncio's own means.
            if is_being_cancelled():
                with suppress(anyio.get_cancelled_exc_class()):
                    await forget_cancellation()
        finally:
            self._end()

    async def _through_app(self, way: Callable[[], Awaitable[None]]) -> None:
        try:
            await way()
        except BaseException as error:  # noqa: BLE001 - nothing leaves this task
            # Not even our own cancellation: one that the app raises by itself in that moment cannot be told from it.
            self._cancelled = is_our_cancellation(error)
            if not self._cancelled:
                self._raised = error
        finally:
            self._ended_at = self._env.monotonic()

    def _way(self) -> Callable[[], Awaitable[None]]:
        """Give the way to the handler; raise ValueError if the task cannot be made into a request."""
        serve = self._target.direct(_split_url(self._task.url).path)
        if serve is None:
            return partial(self._target.app, self.scope(), self.receive, self.answer.take)
        check_names(self._task)
        return partial(serve, self, self._content())

    def _content(self) -> Content:
        task = self._task
        return Content(checked_method(task.method), content_type_of(task), _split_url(task.url).query_string, task.body)

    def scope(self) -> Scope:
        """Make the request of it."""
        url, base = _split_url(self._task.url), _split_base_url(self._base_url)
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": checked_method(self._task.method),
            "scheme": base.scheme,
            "path": url.path,
            "raw_path": url.raw_path,
            "query_string": url.query_string,
            "root_path": "",
            "headers": delivery_headers(self._task, base.authority),
            "client": CRON_CLIENT if self._task.queue_name == CRON_QUEUE else CLIENT,
            "server": (base.host, base.port),
            "state": dict(self._target.state),
            "extensions": {},
            SCOPE_KEY: self.delivery,
        }

    async def receive(self) -> Message:
        """Give the request's body, and once the answer is complete that the client has gone."""
        if self._body_taken:
            # Any earlier, a disconnect would cut streaming responses short with status 200; and some frameworks wait
            # for it before they return.
            await self.answer.wait_finished()
            return {"type": "http.disconnect"}
        self._body_taken = True
        return {"type": "http.request", "body": self._task.body, "more_body": False}

    @property
    def _late(self) -> bool:
        """Whether the call had not ended in time; by the clock, because a sync handler cannot be cancelled."""
        return self._timed_out or self._ended_at is None or self._ended_at - self._began > self._seconds

    def outcome(self) -> Outcome:
        """Judge the call, once it has ended."""
        if self._outcome is None:  # what there is to say of it in the log is said once
            self._outcome = self._found()
        return self._outcome

    def _found(self) -> Outcome:
        outcome = self._judged()
        if self._cut_short and not self._timed_out and not isinstance(outcome, Succeeded):
            return Interrupted()
        return outcome  # also where it finished in spite of the cancellation: again would be the work done twice

    def _judged(self) -> Outcome:
        """Judge it. What is known to be committed comes first, then the first thing that went wrong."""
        delivery, answer, label = self.delivery, self.answer, self._task.label
        error = self.error()
        if delivery.completed:
            if error is not None or not answer.succeeded or self._late:
                text, fields = "task %s is complete, but its handler then failed: %s", fields_of(self._task)
                _logger.warning(text, label, self._complaint(error), extra=fields)
            return Succeeded(answer.status or 200, completed=True)
        if delivery.lease_lost:
            # There is nothing left to settle, and the fence refuses whoever tries.
            gone = (
                "the task had been cancelled, deleted or given to a newer attempt; what this one wrote is rolled back"
            )
            return self._failed(gone if error is None else describe(error))
        if delivery.conflict is not None and not is_permanent(error):
            return Conflicted(delivery.conflict)
        if self._cancelled and not self._timed_out:
            return Interrupted()
        if error is None and not self._late and answer.succeeded and not delivery.refused:
            return Succeeded(answer.status)
        permanent = is_permanent(error) or answer.no_retry
        if error is not None and not permanent and self._task.attempt_count == 1:
            self._log(error)  # once is enough: each attempt has its line, with the error's text
        return self._failed(self._complaint(error), permanent=permanent)

    def error(self) -> BaseException | None:
        """Give what the handler raised; the cancellation by which it was cut short is not its doing."""
        error = self.delivery.failure or self._raised
        by_us = self._cut_short or self._cancelled
        return None if by_us and is_cancellation(error) else error

    def _complaint(self, error: BaseException | None) -> str:
        if error is not None:
            return describe(error)
        if self._late:
            return f"no response within {self._seconds:g} s ({self.answer.progress})"
        if self.answer.succeeded:
            return f"a middleware outside of Hookware made a {self.answer.status} of an answer that was no success"
        return self.answer.complaint

    def _failed(self, error: str, *, permanent: bool = False) -> Failed:
        return Failed(self.answer.status or None, error, self.answer.retry_after_us, permanent)

    def _log(self, error: BaseException) -> None:
        with suppress(Exception):  # neither the error's own methods nor a log handler may change the outcome
            label, fields = self._task.label, fields_of(self._task)
            _logger.warning("task %s: the app raised", label, exc_info=error, extra=fields)


def begin(
    target: Target, delivery: Delivery, alarms: Alarms, on_ended: Callable[[Call], None], *, env: Env, config: Config
) -> Call | Failed:
    """Call the app with the delivery's task as a request; or say why it can be none."""
    call = Call(target, delivery, env=env, config=config, alarms=alarms, on_ended=on_ended)
    try:
        call.begin()
    except ValueError as error:  # a row that something else has written: no attempt will ever reach the app
        return Failed(None, f"the task cannot be made into a request: {error}", permanent=True)
    return call
