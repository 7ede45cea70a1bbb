"""Where statements run: each call is one transaction of its own, off the event loop, with an end in time."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar
from weakref import WeakSet

import anyio
from anyio import CapacityLimiter, to_thread
from sqlalchemy import Connection, Engine, event

from hookware.env import Env
from hookware.errors import TransientError
from hookware.store.sql.conflict import is_conflict
from hookware.store.sql.postgresql import break_off
from hookware.store.sql.sqlite import WriteLock, begin_immediate

T = TypeVar("T")

RETRY_SECONDS = 10.0
"""How long a transaction that met another one is tried again."""

LIMIT_SECONDS = 20.0
"""How long a call may take in all, waiting for its turn included."""

_LONGEST_PAUSE_SECONDS = 0.2


class Runner(Protocol):
    """Runs a function of a connection in a transaction: committed when it returns, rolled back when it raises."""

    async def run(self, fn: Callable[[Connection], T], *, write: bool = True, single: bool = False) -> T:
        """Run `fn`, again if it conflicts with another transaction; TransientError if that does not end.

        Cancelling waits for the transaction's end, so that a claim is never lost half-way. `single`: it is one
        statement, which needs no transaction around it, nor the two round trips that this would cost.
        """
        ...

    def run_blocking(self, fn: Callable[[Connection], T], *, write: bool = True, single: bool = False) -> T:
        """Run `fn` once, in the thread that calls: for the heartbeat and for synchronous code."""
        ...

    def hurry(self, seconds: float) -> None:
        """Give the calls of `run` at most `seconds`, from now or from their begin, until `relax`: for a shutdown.

        Cancelling cannot: it waits for the transaction's end.
        """
        ...

    def relax(self) -> None:
        """Give calls their usual time again."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...

    def start_over(self) -> None:
        """Forget the connections and locks of the process that this one was forked from, without closing them."""
        ...

    def dispose(self) -> None:
        """Close the connections in this thread, at the very end."""
        ...


class ThreadRunner:
    """Runs on a synchronous engine, in worker threads of any event loop."""

    def __init__(self, engine: Engine, env: Env, write_lock: WriteLock | None = None) -> None:
        self._engine = engine
        self._limit = TimeLimit(env)
        self._write_lock = write_lock
        self._closing_count = 0  # odd while the pool is being closed
        self._silence = Silence(engine, env)
        # Its own limiters: whatever else the app does in threads never delays a claim. SQLite has one writer, and
        # waiting in line here is fairer than its busy timeout.
        self._writing = CapacityLimiter(1 if engine.dialect.name == "sqlite" else 4)
        self._reading = CapacityLimiter(2)

    async def run(self, fn: Callable[[Connection], T], *, write: bool = True, single: bool = False) -> T:
        """Run `fn` in a worker thread."""
        limiter = self._writing if write else self._reading
        self._silence.end()
        count = self._closing_count  # as it is now: the thread of a call that was cancelled may begin after the close

        async def once() -> T:
            return await to_thread.run_sync(
                self._run, fn, write, single, count, limiter=limiter, abandon_on_cancel=True
            )

        return await self._limit.bound(once)

    def run_blocking(self, fn: Callable[[Connection], T], *, write: bool = True, single: bool = False) -> T:
        """Run `fn` in this thread."""
        try:
            return self._run(fn, write, single, self._closing_count)
        except Exception as error:
            if is_conflict(error):
                raise TransientError(f"the database is busy: {error}") from error
            raise

    def hurry(self, seconds: float) -> None:
        """Give the calls of `run` at most `seconds`, from now or from their begin, until `relax`."""
        self._limit.hurry(seconds)

    def relax(self) -> None:
        """Give calls their usual time again."""
        self._limit.relax()

    async def close(self) -> None:
        """Close the connections."""
        with anyio.move_on_after(LIMIT_SECONDS, shield=True):
            await to_thread.run_sync(self.dispose, limiter=CapacityLimiter(1), abandon_on_cancel=True)

    def start_over(self) -> None:
        """Forget the connections and locks of the process that this one was forked from, without closing them."""
        self._engine.dispose(close=False)
        if self._write_lock is not None:
            self._write_lock.start_over()

    def dispose(self) -> None:
        """Close the connections in this thread, at the very end."""
        self._closing_count += 1
        try:
            self._engine.dispose()
        finally:
            self._closing_count += 1

    def _run(self, fn: Callable[[Connection], T], write: bool, single: bool, closing_count: int) -> T:
        lock = self._write_lock if write else None
        if lock is not None:
            lock.acquire()
        try:
            with self._silence.limited(), self._engine.connect() as connection:
                try:
                    return transact(connection, fn, write, single)
                finally:
                    if closing_count != self._closing_count or closing_count % 2:
                        connection.invalidate()  # nobody waits for this call: its pool may be closed already
        finally:
            if lock is not None:
                lock.release()


def transact(connection: Connection, fn: Callable[[Connection], T], write: bool, single: bool) -> T:
    """Run `fn` in a transaction of `connection`; one that writes takes SQLite's lock at its beginning."""
    if single and connection.dialect.name == "postgresql":
        return fn(connection.execution_options(isolation_level="AUTOCOMMIT"))
    with connection.begin():
        if write and connection.dialect.name == "sqlite":
            begin_immediate(connection)
        return fn(connection)


class Silence:
    """Ends calls that a peer has left without an answer for good: a thread that waits in a driver cannot be cancelled.

    The kernel ends those whose packets are lost. But a proxy that lost its server, or a server that hangs, takes what
    is sent and says nothing: the heartbeat would wait for ever, and with it every lease.
    """

    def __init__(self, engine: Engine, env: Env) -> None:
        self._env = env
        self._connections: WeakSet[object] = WeakSet()
        self._began: dict[object, float] = {}
        if engine.dialect.name != "sqlite":
            event.listen(engine, "connect", lambda connection, _record: self._connections.add(connection))

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Let what is done here be ended once it is overdue."""
        call = object()
        self._began[call] = self._env.monotonic()
        try:
            yield
        finally:
            self._began.pop(call, None)

    def end(self) -> None:
        """Break off every connection if a call is overdue: the others will soon be as silent. All can begin anew."""
        latest = self._env.monotonic() - LIMIT_SECONDS
        overdue = [call for call, began in list(self._began.items()) if began < latest]
        for call in overdue:
            self._began.pop(call, None)
        if overdue:
            connections, self._connections = self._connections, WeakSet()
            for connection in list(connections):
                break_off(connection)


class TimeLimit:
    """How long the calls of one runner may take: `LIMIT_SECONDS`, or less in a hurry."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._seconds = LIMIT_SECONDS
        self._on_their_way: set[anyio.CancelScope] = set()

    def hurry(self, seconds: float) -> None:
        """Let calls on their way end within `seconds` from now, and those to come within `seconds` of their begin."""
        self._seconds = min(self._seconds, seconds)
        latest = anyio.current_time() + seconds
        for scope in self._on_their_way:
            scope.deadline = min(scope.deadline, latest)

    def relax(self) -> None:
        """Give calls to come their usual time again."""
        self._seconds = LIMIT_SECONDS

    async def bound(self, once: Callable[[], Awaitable[T]]) -> T:
        """Await `once`, again after conflicts, within the limits of a call."""
        began, retry_until = anyio.current_time(), self._env.monotonic() + RETRY_SECONDS
        with anyio.move_on_after(self._seconds, shield=True) as scope:
            self._on_their_way.add(scope)
            try:
                return await self._through_conflicts(once, retry_until)
            finally:
                self._on_their_way.discard(scope)
        raise TransientError(f"the database did not answer within {anyio.current_time() - began:.1f} s")

    async def _through_conflicts(self, once: Callable[[], Awaitable[T]], retry_until: float) -> T:
        while True:
            try:
                return await once()
            except Exception as error:
                if not is_conflict(error):
                    raise
                if self._env.monotonic() >= retry_until:
                    raise TransientError(f"the database stayed busy for {RETRY_SECONDS:.0f} s: {error}") from error
            await self._env.sleep(_LONGEST_PAUSE_SECONDS * self._env.random())
