"""Statements on an AsyncEngine, for databases of which only an asyncio driver is installed."""

import asyncio  # noqa: TID251 - an AsyncEngine needs it, and anyio's scopes cancel again and again
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anyio
from anyio import CapacityLimiter
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hookware.env import Env, in_event_loop
from hookware.errors import SessionError, TransientError
from hookware.store.sql.conflict import is_conflict
from hookware.store.sql.engines import configured, copied_options, own_pool
from hookware.store.sql.runner import LIMIT_SECONDS, TimeLimit, transact

T = TypeVar("T")


class AsyncRunner:
    """Runs on an AsyncEngine, in its event loop (asyncio only)."""

    def __init__(self, engine: AsyncEngine, env: Env) -> None:
        self._engine = engine
        self._limit = TimeLimit(env)
        self._writing = CapacityLimiter(1 if engine.dialect.name == "sqlite" else 4)
        self._reading = CapacityLimiter(2)
        self._left_alone: set[asyncio.Task[Any]] = set()

    async def run(self, fn: Callable[[Connection], T], *, write: bool = True, single: bool = False) -> T:
        """Run `fn` on the event loop, its statements in the driver."""

        async def once() -> T:
            async with self._writing if write else self._reading:
                return await self._cancelled_once(_run(self._engine, fn, write, single))

        return await self._limit.bound(once)

    def run_blocking(self, fn: Callable[[Connection], T], *, write: bool = True, single: bool = False) -> T:
        """Run `fn` in this thread, which must have no event loop: the connection gets a loop of its own."""
        if in_event_loop():
            raise SessionError(
                "the database's driver is an asyncio one, which cannot be waited for here: write "
                "`await taskqueue.add_async(...)`, or install psycopg and use postgresql+psycopg"
            )
        try:
            return anyio.run(self._run_apart, fn, write, single)
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
            if self._left_alone:
                await asyncio.wait(self._left_alone)
            await self._engine.dispose()

    def start_over(self) -> None:
        """Forget the connections of the process that this one was forked from, without closing them."""
        self._engine.sync_engine.dispose(close=False)

    def dispose(self) -> None:
        """Let go of the connections where no event loop is left to close them in."""
        self._engine.sync_engine.dispose(close=False)

    async def _cancelled_once(self, work: Coroutine[Any, Any, T]) -> T:
        """Await in a task of its own, which hears of a cancellation once, and is left alone then.

        SQLAlchemy lets nothing interrupt the close of a connection. Cancelled there again and again, as a scope does,
        it would turn the event loop in circles for as long as a rollback hangs.
        """
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            self._left_alone.add(task)
            task.add_done_callback(self._forget)
            task.cancel()
            raise
        return task.result()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._left_alone.discard(task)
        if not task.cancelled():
            task.exception()  # what is asked for is not complained of

    async def _run_apart(self, fn: Callable[[Connection], T], write: bool, single: bool) -> T:
        # A connection of an asyncio driver belongs to the loop that opened it: none is kept.
        engine = own_async_engine(self._engine, pooled=False)
        try:
            with anyio.fail_after(LIMIT_SECONDS):
                return await _run(engine, fn, write, single)
        finally:
            await engine.dispose()


def own_async_engine(user_engine: AsyncEngine, *, pooled: bool = True) -> AsyncEngine:
    """Give an AsyncEngine with connections of its own; not pooled, it may be used in any one event loop."""
    engine = user_engine.sync_engine
    pool = own_pool(engine, pooled=pooled)
    own = create_async_engine(engine.url, pool=pool, execution_options=copied_options(engine))
    configured(own.sync_engine)
    return own


async def _run(engine: AsyncEngine, fn: Callable[[Connection], T], write: bool, single: bool) -> T:
    async with engine.connect() as connection:
        return await connection.run_sync(transact, fn, write, single)
