"""The test in the place of the loops: which apps take part in it, in what mode, and what was added and run."""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.from_thread
import anyio.to_thread
from sqlalchemy.exc import InterfaceError, OperationalError

from hookware.core.task import LeasedTask
from hookware.env import call_soon, is_running, runs_here
from hookware.events import AttemptSettled, AttemptStarted, Event, TasksCommitted
from hookware.loops import Loops
from hookware.store.base import TaskInfo
from hookware.store.sql.outbox import Outbox
from hookware.testing.clock import Clock
from hookware.testing.database import WithinRunner, blocking, empty, engine_within, stored, sync_connection_of
from hookware.testing.faults import Faults
from hookware.testing.matching import AddedTask, added_of
from hookware.testing.report import EndlessTasksError, Ran, Report, ran_of
from hookware.testing.steps import steps_of

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

Mode = Literal["manual", "inline", "live"]
MOST_ATTEMPTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How much is to be run.

    Attributes:
        most: so many attempts.
        waits: let time pass for retries, and for what a process has left behind.
        raises: stop at what fails without a plan, and raise it.
    """

    most: int = MOST_ATTEMPTS
    waits: bool = True
    raises: bool = True


class Rehearsal:
    """One test that decides when tasks run, of every Hookware that takes part in it.

    Those take part whose lifespan runs, that serve a request, or whose tasks are committed. Of several on one
    database it is the one that did so last.
    """

    def __init__(self, mode: Mode) -> None:
        self.mode: Mode = mode
        self.clock = Clock(self._moved)
        self.faults = Faults()
        self._lock = RLock()
        self._parts: Sequence[Loops] = []
        self._watched: dict[Loops, Callable[[Event], None]] = {}
        self._seen: dict[int, tuple[AddedTask, object]] = {}  # with the database's pool
        self._settled: list[tuple[AttemptSettled, object]] = []
        self._outer: Connection | AsyncConnection | None = None
        self._begun: set[int] = set()
        self._is_running = False

    # From its begin to its end.

    @property
    def holds(self) -> bool:
        """Whether the loops are not to run."""
        return self.mode != "live"

    def begin(self) -> None:
        """Take the place of the loops.

        Raises:
            RuntimeError: another test has.
        """
        if Loops.director is not None:
            raise RuntimeError("another rehearsal is going on: end it before the next begins")
        Loops.director = self
        try:
            for loops in list(Loops.made):
                self._watch(loops)
                if loops.token is not None:
                    self.met(loops)
                    self._turn(loops)
                    self._empty(loops.outbox)
        except BaseException:
            self._give_up()
            raise

    def end(self) -> None:
        """Leave nothing behind, and let the loops run again."""
        try:
            for part in self._parts:
                if part.outbox.within is None:
                    self._empty(part.outbox)
        finally:
            self._give_up()

    def _give_up(self) -> None:
        Loops.director = None
        for loops, watcher in self._watched.items():
            loops.outbox.events.unsubscribe(watcher)
            loops.outbox.env.ahead_us = 0
        for part in self._parts:
            self._turn(part)

    def _turn(self, loops: Loops) -> None:
        """Have the loops run, or run no longer, as is right now; wait for it where that is possible."""
        token = loops.token
        if token is None:
            return
        if runs_here(token):
            loops.change_soon()
        elif is_running(token):
            anyio.from_thread.run(loops.change, token=token)
        else:
            with suppress(RuntimeError):  # it has ended
                call_soon(token, loops.change_soon)

    def _empty(self, outbox: Outbox) -> None:
        # A database that is gone, or was never there, is empty.
        with suppress(OperationalError, InterfaceError):
            blocking(outbox, partial(empty, clock=outbox.own_clock))

    # What the loops tell.

    def met(self, loops: Loops) -> None:
        """Hear of an app that has been made, has started, or serves a request."""
        with self._lock:
            self._watch(loops)
            self._parts = [part for part in self._parts if part is not loops] + [loops]
        loops.outbox.env.ahead_us = self.clock.ahead_us
        if loops.outbox.is_prepared:
            self._go_within(loops.outbox)

    async def served(self, loops: Loops) -> None:
        """Run what a request has added, before its client may go on."""
        if self.mode == "inline" and not self._is_running:
            await self.run_async([loops], Wish())

    def _watch(self, loops: Loops) -> None:
        if loops not in self._watched:
            watcher = self._watched[loops] = partial(self._note, loops)
            loops.outbox.events.subscribe(watcher)
            loops.outbox.env.ahead_us = self.clock.ahead_us

    def _note(self, loops: Loops, event: Event) -> None:
        match event:
            case TasksCommitted():
                self.met(loops)
            case AttemptStarted(task=task):
                with self._lock:
                    self._saw(loops, task)
            case AttemptSettled():
                with self._lock:
                    self._settled.append((event, loops.outbox.sync_engine.pool))

    def _moved(self) -> None:
        for loops in self._watched:
            loops.outbox.env.ahead_us = self.clock.ahead_us
            if self.mode == "live" and loops.token is not None:
                loops.outbox.changed()

    # What the test asks.

    def parts(self) -> list[Loops]:
        """Give those that take part, one for each database: the one that was met last."""
        with self._lock:
            return list({part.outbox.sync_engine.pool: part for part in self._parts}.values())

    def stored(self, parts: Sequence[Loops]) -> list[TaskInfo]:
        """Give the tasks that are stored now, oldest first."""
        infos: list[TaskInfo] = []
        for part in parts:
            self._go_within(part.outbox)
            part.outbox.prepare_blocking()
            infos.extend(self._remember(part, blocking(part.outbox, stored)))
        return sorted(infos, key=lambda info: info.id)

    async def stored_async(self, parts: Sequence[Loops]) -> list[TaskInfo]:
        """Do the same without blocking the event loop."""
        infos = [info for part in parts for info in self._remember(part, await self._stored_of(part))]
        return sorted(infos, key=lambda info: info.id)

    async def _stored_of(self, part: Loops) -> list[TaskInfo]:
        self._go_within(part.outbox)
        await part.outbox.prepare()
        return await part.outbox.runner.run(stored, write=False)

    def _remember(self, part: Loops, infos: list[TaskInfo]) -> list[TaskInfo]:
        with self._lock:
            for info in infos:
                self._saw(part, info)
        return infos

    def _saw(self, part: Loops, task: TaskInfo | LeasedTask) -> None:
        if task.id not in self._seen:
            self._seen[task.id] = added_of(task, part.outbox.config.codec), part.outbox.sync_engine.pool

    def seen(self, parts: Sequence[Loops]) -> list[AddedTask]:
        """Give the tasks that were added, as far as they have been seen: stored, or at their first attempt."""
        pools = {part.outbox.sync_engine.pool for part in parts}
        with self._lock:
            return [task for _, (task, pool) in sorted(self._seen.items()) if pool in pools]

    def lived(self, parts: Sequence[Loops]) -> Report:
        """Give what the dispatchers themselves have run."""
        pools = {part.outbox.sync_engine.pool for part in parts}
        with self._lock:
            ended = [event for event, pool in self._settled if pool in pools]
        return Report(tuple(ran_of(event.task, event, None, planned=False) for event in ended))

    def run(self, parts: Sequence[Loops], wish: Wish) -> Report:
        """Run tasks from synchronous code, each in the event loop of its app.

        Raises:
            HandlerFailedError: an attempt failed, and nobody had planned it.
            EndlessTasksError: there is no end to it.
        """
        __tracebackhide__ = True
        run = _Run(wish)
        while any(_at_home(part, partial(self._work, part, run)) for part in parts):
            pass  # what one app runs may add tasks to another
        return run.report()

    async def run_async(self, parts: Sequence[Loops], wish: Wish) -> Report:
        """Do the same from a coroutine."""
        __tracebackhide__ = True
        run = _Run(wish)
        while any([await _at_home_async(part, partial(self._work, part, run)) for part in parts]):
            pass
        return run.report()

    async def _work(self, part: Loops, run: "_Run") -> bool:
        """Run what one app has to run; say whether there was anything."""
        count = len(run.attempts)
        self._go_within(part.outbox)
        self._remember(part, await self._stored_of(part))
        self._is_running = True
        try:
            async with steps_of(part, self.clock, self.faults, self._begun) as steps:
                with run.catching():
                    while not run.is_over:
                        ran = await steps.step()
                        if ran is not None:
                            run.attempts.append(ran)
                        elif not (run.wish.waits and await steps.let_time_pass()):
                            break
                run.died += steps.died
        finally:
            self._is_running = False
        return len(run.attempts) > count and not run.is_over

    # Within a transaction that is rolled back.

    @contextmanager
    def within(self, connection: "Connection | AsyncConnection") -> Iterator[None]:
        """Work inside the transaction of a connection."""
        if self.mode == "live":
            raise RuntimeError(
                'mode="live" cannot work within a transaction: its dispatcher has connections of its own'
            )
        inner = sync_connection_of(connection)
        self._outer = connection
        mine = [loops.outbox for loops in list(Loops.made) if loops.outbox.owns_engine(inner.engine)]
        for outbox in mine:
            if outbox.is_prepared:
                self._go_within(outbox)
        try:
            yield
        finally:
            self._outer = None
            for loops in list(Loops.made):
                loops.outbox.work_within(None)

    def _go_within(self, outbox: Outbox) -> None:
        outer = self._outer
        if outer is None or outbox.within is not None:
            return
        inner = sync_connection_of(outer)
        if outbox.owns_engine(inner.engine):
            if not outbox.is_prepared:
                outbox.prepare_blocking()
            engine = engine_within(inner)
            outbox.work_within(engine, WithinRunner(engine, outer))


class _Run:
    """What is running: the attempts so far, and whether there are to be more."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.attempts: list[Ran] = []
        self.died = 0
        self._error: Exception | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to run."""
        failed = self.wish.raises and bool(self.attempts) and self.attempts[-1].failed_by_itself
        return failed or self._error is not None or len(self.attempts) >= self.wish.most

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Keep an error out of the task group that it would be wrapped by."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - it is raised by `report`
            self._error = error

    def report(self) -> Report:
        """Tell what has run, or raise what went wrong."""
        __tracebackhide__ = True
        if self._error is not None:
            raise self._error
        if self.wish.raises and self.attempts:
            self.attempts[-1].raise_failure()
        if self.wish.most == MOST_ATTEMPTS == len(self.attempts):
            urls = ", ".join(sorted({ran.task.url for ran in self.attempts[-100:]}))
            raise EndlessTasksError(
                f"{MOST_ATTEMPTS} attempts have run, and there are more to come, of late {urls}: if tasks add tasks, "
                "or fail, again and again, say how many are to run: run(max_attempts=...)"
            )
        return Report(tuple(self.attempts), self.died)


def _at_home(part: Loops, work: Callable[[], Coroutine[object, object, bool]]) -> bool:
    token = part.token
    if token is not None and is_running(token):
        return anyio.from_thread.run(work, token=token)
    return anyio.run(work)


async def _at_home_async(part: Loops, work: Callable[[], Coroutine[object, object, bool]]) -> bool:
    token = part.token
    if token is None or runs_here(token) or not is_running(token):
        return await work()
    return await anyio.to_thread.run_sync(partial(anyio.from_thread.run, work, token=token))
