"""What a test has in its hands: the tasks of the apps that it tests."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import anyio
import anyio.from_thread

from hookware.core.lifecycle import State
from hookware.env import in_event_loop
from hookware.handlers import TaskHandler
from hookware.loops import Loops
from hookware.store.base import TaskInfo
from hookware.testing.clock import Clock
from hookware.testing.faults import Fault
from hookware.testing.live import wait_until_done
from hookware.testing.matching import AddedTask, Expected, complaint
from hookware.testing.rehearsal import MOST_ATTEMPTS, Mode, Rehearsal, Wish
from hookware.testing.report import Ran, Report

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class Wishes(TypedDict, total=False):
    """What a test may expect of a task."""

    url: "str | TaskHandler[..., Any]"
    params: Mapping[str, object]
    payload: str | bytes
    queue_name: str
    name: str
    method: str
    headers: Mapping[str, str]
    countdown: float
    eta: datetime
    priority: int
    tag: str
    key: str
    fair_key: str
    limit_key: str


class Tasks:
    """The tasks of every Hookware that takes part in a test.

    Those take part whose lifespan runs, that serve a request, or whose tasks are committed, while the test lasts.
    Methods that run or read tasks block; in a coroutine, await the one whose name ends in `_async`.

    Attributes:
        mode: "manual": nothing runs until the test says so; "inline": what a request has added runs before its client
            has the response; "live": the dispatcher runs, as it does behind a server.
        clock: by which tasks come due.
    """

    def __init__(self, rehearsal: Rehearsal, engine: "Engine | AsyncEngine | None" = None) -> None:
        self._rehearsal = rehearsal
        self._engine = engine

    @property
    def mode(self) -> Mode:
        """How tasks come to run."""
        return self._rehearsal.mode

    @property
    def clock(self) -> Clock:
        """The time by which tasks come due."""
        return self._rehearsal.clock

    def of(self, engine: "Engine | AsyncEngine") -> "Tasks":
        """Give the tasks of one database alone, where several apps take part."""
        return Tasks(self._rehearsal, engine)

    def __len__(self) -> int:
        """How many are stored: those that wait, and those that are dead."""
        return len(self.list())

    # Look.

    def list(
        self, *, url: str | None = None, queue_name: str | None = None, state: State | None = None
    ) -> Sequence[TaskInfo]:
        """List the tasks that are stored, oldest first: those that wait, run or are dead."""
        _not_in_a_coroutine("list")
        return self._chosen(self._rehearsal.stored(self._parts()), url, queue_name, state)

    async def list_async(
        self, *, url: str | None = None, queue_name: str | None = None, state: State | None = None
    ) -> Sequence[TaskInfo]:
        """See `list`."""
        return self._chosen(await self._rehearsal.stored_async(self._parts()), url, queue_name, state)

    def added(self) -> Sequence[AddedTask]:
        """List the tasks that were added and committed in this test, also those that are done, oldest first."""
        _not_in_a_coroutine("added")
        self._rehearsal.stored(self._parts())
        return self._rehearsal.seen(self._parts())

    async def added_async(self) -> Sequence[AddedTask]:
        """See `added`."""
        await self._rehearsal.stored_async(self._parts())
        return self._rehearsal.seen(self._parts())

    def assert_added(self, *, count: int | None = None, **wishes: Unpack[Wishes]) -> AddedTask:
        """See that a task was added, and committed, as the arguments say; what they do not name may be anything.

        Args:
            count: exactly so many; None: at least one.
            **wishes: `url`, a path with or without its query, or the handler; `params`, of which the task may have
                more; `payload`, `queue_name`, `name`, `method`, `headers`, `countdown` and `eta`, each to the second,
                `priority`, `tag`, `key`, `fair_key`, `limit_key`.

        Returns:
            The first of them.

        Raises:
            AssertionError: there is none, or another number; it shows what was added instead, the nearest first.
        """
        __tracebackhide__ = True
        return _checked(self.added(), count, wishes)

    async def assert_added_async(self, *, count: int | None = None, **wishes: Unpack[Wishes]) -> AddedTask:
        """See `assert_added`."""
        __tracebackhide__ = True
        return _checked(await self.added_async(), count, wishes)

    def assert_none_added(self, **wishes: Unpack[Wishes]) -> None:
        """See that no such task was added and committed.

        Raises:
            AssertionError: one was; it shows which.
        """
        __tracebackhide__ = True
        _check_none(self.added(), wishes)

    async def assert_none_added_async(self, **wishes: Unpack[Wishes]) -> None:
        """See `assert_none_added`."""
        __tracebackhide__ = True
        _check_none(await self.added_async(), wishes)

    # Run.

    def run(self, *, max_attempts: int = MOST_ATTEMPTS, retries: bool = True, raise_errors: bool = True) -> Report:
        """Run the tasks that are due, one after another, and those that they add, until none is.

        A task that fails is tried again: the clock moves to when its retry is due. What waits for a later time of its
        own stays; let time pass by `clock.advance`. With mode="live" this waits for the dispatcher to have done so.

        Args:
            max_attempts: stop after so many.
            retries: False: each is tried once, and the clock stands.
            raise_errors: raise where an attempt fails without a plan of the test's.

        Raises:
            HandlerFailedError: an attempt failed, and nobody had planned it; the handler's exception is its cause.
            EndlessTasksError: a thousand attempts have not come to an end.
        """
        __tracebackhide__ = True
        _not_in_a_coroutine("run")
        if self.mode == "live":
            return anyio.run(partial(wait_until_done, self._rehearsal, self._parts()))
        return self._rehearsal.run(self._parts(), Wish(most=max_attempts, waits=retries, raises=raise_errors))

    async def run_async(
        self, *, max_attempts: int = MOST_ATTEMPTS, retries: bool = True, raise_errors: bool = True
    ) -> Report:
        """See `run`."""
        __tracebackhide__ = True
        if self.mode == "live":
            return await wait_until_done(self._rehearsal, self._parts())
        wish = Wish(most=max_attempts, waits=retries, raises=raise_errors)
        return await self._rehearsal.run_async(self._parts(), wish)

    def run_next(self, *, raise_errors: bool = True) -> Ran | None:
        """Run the one task that is due first; None if none is. The clock stands."""
        __tracebackhide__ = True
        _not_in_a_coroutine("run_next")
        self._refuse_live("run_next")
        report = self._rehearsal.run(self._parts(), Wish(most=1, waits=False, raises=raise_errors))
        return report.attempts[0] if report.attempts else None

    async def run_next_async(self, *, raise_errors: bool = True) -> Ran | None:
        """See `run_next`."""
        __tracebackhide__ = True
        self._refuse_live("run_next")
        report = await self._rehearsal.run_async(self._parts(), Wish(most=1, waits=False, raises=raise_errors))
        return report.attempts[0] if report.attempts else None

    # Let it go wrong.

    def fail(
        self,
        url: "str | TaskHandler[..., Any] | None" = None,
        *,
        queue_name: str | None = None,
        status: int = 500,
        times: int = 1,
        after: bool = False,
        retry_after: int | None = None,
        raises: Exception | None = None,
    ) -> None:
        """Let attempts to come fail.

        Args:
            url: of which tasks, by path or handler; None: of any.
            queue_name: of which queue; None: of any.
            status: what is answered.
            times: how many attempts.
            after: the handler does its work first, and its answer is lost. What it wrote through hookware's own session
                is rolled back; what it has committed or sent by itself stays, and will happen again.
            retry_after: seconds to wait at least, as the header of that name says.
            raises: what is raised instead of an answer.
        """
        self._refuse_live("fail")
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._plan("fail", url, queue_name, times, after=after, status=status, headers=headers, error=raises)

    def crash(
        self,
        url: "str | TaskHandler[..., Any] | None" = None,
        *,
        queue_name: str | None = None,
        at: Literal["before", "after"] = "after",
        times: int = 1,
    ) -> None:
        """Let the process die under attempts to come; another takes the task over once its lease has ended.

        Args:
            url: of which tasks, by path or handler; None: of any.
            queue_name: of which queue; None: of any.
            at: "before" the handler begins; or "after" it has done its work, and before hookware has committed or
                stored anything of it.
            times: how many attempts.
        """
        self._refuse_live("crash")
        if at not in ("before", "after"):
            raise ValueError(f'at= is "before" or "after", got {at!r}')
        self._plan("crash", url, queue_name, times, after=at == "after")

    def deliver_twice(
        self, url: "str | TaskHandler[..., Any] | None" = None, *, queue_name: str | None = None
    ) -> Report:
        """Run the tasks that are due, and the first of them that fits twice, as at-least-once allows.

        After its first attempt its process dies, before hookware has stored that it is done. An idempotent handler has
        the same effect as if it had run once.

        Raises:
            AssertionError: no task that fits was due.
        """
        __tracebackhide__ = True
        _not_in_a_coroutine("deliver_twice")
        fault = self._plan_twice(url, queue_name)
        return _twice(fault, self.run())

    async def deliver_twice_async(
        self, url: "str | TaskHandler[..., Any] | None" = None, *, queue_name: str | None = None
    ) -> Report:
        """See `deliver_twice`."""
        __tracebackhide__ = True
        fault = self._plan_twice(url, queue_name)
        return _twice(fault, await self.run_async())

    def cancel_faults(self) -> None:
        """Let nothing go wrong any more that was planned and has not."""
        self._rehearsal.faults.forget()

    # Where.

    @contextmanager
    def within(self, connection: "Connection | AsyncConnection") -> Iterator[None]:
        """Work inside the transaction of a connection, which the test rolls back at its end.

        In the `with`, hookware reads, runs and completes tasks on that very connection, each step in a savepoint, and
        its own sessions are there too: nothing is ever committed. Start the app, or make its tables, before.
        """
        with self._rehearsal.within(connection):
            yield

    # How.

    def _parts(self) -> Sequence[Loops]:
        parts = self._rehearsal.parts()
        engine = self._engine
        if engine is None:
            return parts
        pool = getattr(engine, "sync_engine", engine).pool
        return [part for part in parts if part.outbox.sync_engine.pool is pool]

    def _plan_twice(self, url: "str | TaskHandler[..., Any] | None", queue_name: str | None) -> Fault:
        self._refuse_live("deliver_twice")
        return self._plan("crash", url, queue_name, 1, after=True)

    def _plan(
        self,
        kind: Literal["fail", "crash"],
        url: "str | TaskHandler[..., Any] | None",
        queue_name: str | None,
        times: int,
        *,
        after: bool,
        status: int = 500,
        headers: Mapping[str, str] | None = None,
        error: Exception | None = None,
    ) -> Fault:
        fault = Fault(
            kind=kind, after=after, url=_path(url), queue_name=queue_name, times=times, status=status,
            headers=headers or {}, error=error,
        )  # fmt: skip
        self._rehearsal.faults.plan(fault)
        return fault

    def _refuse_live(self, what: str) -> None:
        if self.mode == "live":
            raise RuntimeError(
                f'{what}() needs mode="manual" or "inline": in mode="live" the dispatcher runs the tasks'
            )

    @staticmethod
    def _chosen(
        infos: Sequence[TaskInfo], url: str | None, queue_name: str | None, state: State | None
    ) -> Sequence[TaskInfo]:
        return [
            info
            for info in infos
            if url in (None, info.url, info.url.partition("?")[0])
            and queue_name in (None, info.queue_name)
            and state in (None, info.state)
        ]


@contextmanager
def rehearse(mode: Mode = "manual") -> Iterator[Tasks]:
    """Take the place of the dispatchers of this process, and give their tasks: the fixture `tasks`, without pytest.

    At its begin and at its end it removes all tasks from the databases of the apps that take part.
    """
    if mode not in ("manual", "inline", "live"):
        raise ValueError(f'mode is "manual", "inline" or "live", got {mode!r}')
    rehearsal = Rehearsal(mode)
    rehearsal.begin()
    try:
        yield Tasks(rehearsal)
    finally:
        rehearsal.end()


def _checked(tasks: Sequence[AddedTask], count: int | None, wishes: Wishes) -> AddedTask:
    __tracebackhide__ = True
    expected = _expected(wishes)
    found = [task for task in tasks if not expected.differences(task)]
    if not found or count not in (None, len(found)):
        raise AssertionError(complaint(expected, tasks, count, len(found)))
    return found[0]


def _check_none(tasks: Sequence[AddedTask], wishes: Wishes) -> None:
    __tracebackhide__ = True
    expected = _expected(wishes)
    found = [task for task in tasks if not expected.differences(task)]
    if found:
        raise AssertionError(complaint(expected, tasks, 0, len(found)))


def _expected(wishes: Wishes) -> Expected:
    if unknown := wishes.keys() - Wishes.__annotations__.keys():
        raise TypeError(f"a task has no {', '.join(sorted(unknown))}: expect {', '.join(Wishes.__annotations__)}")
    return Expected({**wishes, **({"url": _path(wishes["url"])} if "url" in wishes else {})})


def _path(url: "str | TaskHandler[..., Any] | None") -> str | None:
    return url.url if isinstance(url, TaskHandler) else url


def _twice(fault: Fault, report: Report) -> Report:
    if fault.times:
        fault.times = 0
        raise AssertionError("deliver_twice() has found no task that fits and is due")
    return report


def _not_in_a_coroutine(what: str) -> None:
    if in_event_loop():
        raise RuntimeError(f"{what}() would block the event loop: write `await tasks.{what}_async(...)`")
