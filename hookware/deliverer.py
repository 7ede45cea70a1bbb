"""Brings claimed tasks to the app: each waits where it must, is called, and called again after a conflict.

Hardly any has to wait. Then all that is done for it here is a call of the app, which is the only task that it costs.
"""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from hookware.alarms import Alarms
from hookware.attempt import Attempt, Calling
from hookware.config import Config
from hookware.core.lifecycle import Failed, Interrupted, Outcome
from hookware.delivery import Delivery
from hookware.env import Env, start_task
from hookware.errors import describe
from hookware.events import AttemptStarted, Events
from hookware.foreground import Foreground
from hookware.handoff import STALE_PART
from hookware.heartbeat import Heartbeat
from hookware.log import fields_of, log_of

_CONFLICT_SECONDS = 0.02  # how long an attempt waits at the most that met a concurrent transaction

Begin = Callable[[Delivery, Alarms, Callable[[Calling], None]], Calling | Failed]
"""Calls the app, with what is to be told once the call has ended; or says why it cannot."""

_logger = log_of()


class Deliverer:
    """Delivers the attempts of one dispatcher.

    Args:
        begin: calls the app.
        rests: whether the row of the delivery's task must be left alone while it runs.
        on_concluded: told what came of an attempt, once; None: it broke off, and its lease will end by itself.
        alarms: keep the deadlines of calls.
        heartbeat, foreground, env, config, events: those of the dispatcher.

    Attributes:
        stopping: what has not begun is given back.
    """

    def __init__(  # noqa: PLR0913 - the parts it is wired from, each by keyword
        self,
        begin: Begin,
        rests: Callable[[Delivery], bool],
        on_concluded: Callable[[Attempt, Outcome | None], None],
        *,
        alarms: Alarms,
        heartbeat: Heartbeat,
        foreground: Foreground,
        env: Env,
        config: Config,
        events: Events,
    ) -> None:
        self._begin, self._rests, self._on_concluded, self._alarms = begin, rests, on_concluded, alarms
        self._heartbeat, self._foreground, self._events, self._env = heartbeat, foreground, events, env
        self._lease_seconds = config.lease_seconds
        self.stopping = False

    def deliver(self, waiting: TaskGroup, attempt: Attempt) -> None:
        """Deliver a claimed task: now, or when its turn has come."""
        if self.stopping or self._must_wait(attempt):
            self._let_wait(waiting, attempt, self._wait(waiting, attempt))
        else:
            self._start(waiting, attempt)

    def _must_wait(self, attempt: Attempt) -> bool:
        return bool(
            attempt.postponed
            or attempt.after
            or self._is_stale(attempt)
            or self._rests(attempt.delivery)
            or self._foreground.must_wait(attempt)
        )

    def _is_stale(self, attempt: Attempt) -> bool:
        return self._heartbeat.age(attempt.lease) > self._lease_seconds * STALE_PART

    async def _wait(self, waiting: TaskGroup, attempt: Attempt) -> None:
        with self._guarded(attempt):
            with self._interruptible(attempt) as scope:
                await attempt.turn()
                if not (attempt.postponed or self.stopping):
                    await self._foreground.turn(attempt)
                    await self._until_sure(attempt)
                    await self._rest(attempt)
            if scope.cancel_called or self._is_stale(attempt) or attempt.postponed or self.stopping:
                self._on_concluded(attempt, Interrupted(attempt.delay_us))
            else:
                self._start(waiting, attempt)

    def _start(self, waiting: TaskGroup, attempt: Attempt) -> None:
        with self._guarded(attempt):
            self._foreground.began(attempt)
            began_at = self._env.monotonic()
            if self._events.wants(AttemptStarted):
                self._events.emit(AttemptStarted(attempt.task, attempt.late_seconds(began_at)))
            self._env.fp("dispatch.start")
            attempt.began_at = began_at
            self._call(waiting, attempt)

    def _call(self, waiting: TaskGroup, attempt: Attempt) -> None:
        try:
            call = self._begin(attempt.delivery, self._alarms, partial(self._ended, waiting, attempt))
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - it is in the outcome
            call = Failed(None, f"the task could not be delivered: {describe(error)}")
        if isinstance(call, Failed):
            self._on_concluded(attempt, call)
        else:
            attempt.call = call

    def _ended(self, waiting: TaskGroup, attempt: Attempt, call: Calling) -> None:
        with self._guarded(attempt):
            self._env.fp("dispatch.app.returned")
            attempt.call, outcome = None, call.outcome()
            if attempt.may_try_again(outcome):
                self._let_wait(waiting, attempt, self._call_again(waiting, attempt, outcome))
            else:
                self._on_concluded(attempt, outcome)

    async def _call_again(self, waiting: TaskGroup, attempt: Attempt, outcome: Outcome) -> None:
        with self._guarded(attempt):
            with self._interruptible(attempt) as scope:
                await self._env.sleep(_CONFLICT_SECONDS * self._env.random())
                await self._until_sure(attempt)
                await self._rest(attempt)
            if scope.cancel_called or self._is_stale(attempt):
                # What it met may have been the attempt that has the task now: a process that was frozen wakes up here.
                self._on_concluded(attempt, Interrupted())
            elif attempt.again(self._env.monotonic()):
                self._call(waiting, attempt)
            else:
                self._on_concluded(attempt, outcome)

    def _let_wait(self, waiting: TaskGroup, attempt: Attempt, coroutine: Coroutine[Any, Any, None]) -> None:
        def done() -> None:
            if attempt.waiting is scope:  # it did not even begin to wait
                self._on_concluded(attempt, None)

        scope = attempt.waiting = anyio.CancelScope(shield=True)
        start_task(waiting, coroutine, f"task {attempt.task.label} waits", on_done=done)

    @contextmanager
    def _interruptible(self, attempt: Attempt) -> Iterator[anyio.CancelScope]:
        with attempt.waiting or anyio.CancelScope() as scope:
            yield scope
        attempt.waiting = None  # whoever cuts it short from now on finds its call, or that it is settled

    def _guarded(self, attempt: Attempt) -> "_Guard":
        return _Guard(attempt, self._on_concluded)

    async def _rest(self, attempt: Attempt) -> None:
        if self._rests(attempt.delivery):
            await self._heartbeat.rest(attempt.lease)

    async def _until_sure(self, attempt: Attempt) -> None:
        """Where a claim took long, wait for the next beat: given back, it would be brought as late again."""
        until = self._env.monotonic() + self._lease_seconds
        while self._is_stale(attempt) and self._env.monotonic() < until:
            if self.stopping or attempt.lost:
                break
            await self._env.sleep(self._lease_seconds / 32)


class _Guard:
    """Concludes an attempt in which something broke; a class, because a generator takes three times as long."""

    __slots__ = ("_attempt", "_on_concluded")

    def __init__(self, attempt: Attempt, on_concluded: Callable[[Attempt, Outcome | None], None]) -> None:
        self._attempt, self._on_concluded = attempt, on_concluded

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if error is None:
            return False
        is_passing = not isinstance(error, Exception | BaseExceptionGroup)
        if not is_passing:
            task = self._attempt.task
            text, fields = "task %s: the attempt broke; its lease will end by itself", fields_of(task)
            _logger.error(text, task.label, exc_info=error, extra=fields)
        self._on_concluded(self._attempt, None)
        return not is_passing
