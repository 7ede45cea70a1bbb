"""A runner's call is one transaction, tried again after conflicts, with an end in time, and never lost."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import anyio
import pytest
from anyio import to_thread
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine

from hookware.env import Env
from hookware.errors import TransientError
from hookware.store.sql import runner as runner_module
from hookware.store.sql import sqlite
from hookware.store.sql.async_runner import AsyncRunner
from hookware.store.sql.engines import own_engine
from hookware.store.sql.runner import Runner, ThreadRunner


class PacedEnv(Env):
    """An Env whose pauses take no time, but count, and let something happen."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.pauses: list[float] = []
        self.on_pause: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.seconds

    def random(self) -> float:
        return 0.5

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.seconds += seconds
        self.on_pause()


@pytest.fixture
def other(path: Path) -> Iterator[sqlite3.Connection]:
    """Give another program's connection."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE note (word TEXT)")
        yield connection


def write(connection: Connection) -> str:
    connection.execute(text("INSERT INTO note VALUES ('a')"))
    return "done"


def count(connection: Connection) -> object:
    return connection.execute(text("SELECT count(*) FROM note")).scalar()


def impatient(path: Path, env: Env) -> ThreadRunner:
    """Give a runner whose connections do not wait for a lock."""
    return ThreadRunner(create_engine(f"sqlite:///{path}", connect_args={"timeout": 0}), env)


async def test_a_call_is_committed_when_it_returns_and_undone_when_it_raises(
    path: Path, other: sqlite3.Connection
) -> None:
    runner = ThreadRunner(own_engine(create_engine(f"sqlite:///{path}")), Env())

    def write_and_fail(connection: Connection) -> None:
        write(connection)
        raise LookupError("after the write")

    assert await runner.run(write) == "done"
    with pytest.raises(LookupError, match="after the write"):
        await runner.run(write_and_fail)
    with pytest.raises(LookupError, match="after the write"):
        runner.run_blocking(write_and_fail)
    assert runner.run_blocking(write) == "done"
    assert await runner.run(count, write=False) == 2
    await runner.close()


async def test_a_conflict_is_tried_again(path: Path, other: sqlite3.Connection) -> None:
    env = PacedEnv()
    runner = impatient(path, env)
    other.execute("BEGIN IMMEDIATE")

    def third_time_free() -> None:
        if len(env.pauses) == 3:
            other.execute("ROLLBACK")

    env.on_pause = third_time_free
    assert await runner.run(write) == "done"
    assert env.pauses == [0.1] * 3
    assert await runner.run(count, write=False) == 1
    await runner.close()


async def test_a_conflict_that_does_not_end_is_a_transient_error(path: Path, other: sqlite3.Connection) -> None:
    env = PacedEnv()
    runner = impatient(path, env)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TransientError, match="stayed busy for 10 s"):
        await runner.run(write)
    assert env.seconds == pytest.approx(10.0, abs=0.2)
    with pytest.raises(TransientError, match="the database is busy"):
        runner.run_blocking(write)
    await runner.close()


def test_a_turn_to_write_that_does_not_come_is_a_transient_error(
    path: Path, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 20)
    engine, turns = own_engine(create_engine(f"sqlite:///{path}")), sqlite.WriteLock()
    runner = ThreadRunner(engine, Env(), turns)
    turns.acquire()
    with pytest.raises(TransientError, match="has been writing"):
        runner.run_blocking(write)
    turns.release()
    assert runner.run_blocking(write) == "done"
    engine.dispose()


async def test_reading_takes_no_lock(path: Path, other: sqlite3.Connection) -> None:
    runner = impatient(path, PacedEnv())
    other.execute("BEGIN IMMEDIATE")
    assert await runner.run(count, write=False) == 0
    assert runner.run_blocking(count, write=False) == 0
    await runner.close()


async def test_cancelling_waits_for_the_end_of_the_transaction(path: Path, other: sqlite3.Connection) -> None:
    runner = ThreadRunner(own_engine(create_engine(f"sqlite:///{path}")), Env())
    started, release = anyio.Event(), threading.Event()
    answers: list[str] = []

    def slow(connection: Connection) -> str:
        anyio.from_thread.run_sync(started.set)
        release.wait(10)
        return write(connection)

    async def call() -> None:
        answers.append(await runner.run(slow))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await started.wait()
        group.cancel_scope.cancel()
        release.set()
    assert answers == ["done"]
    assert await runner.run(count, write=False) == 1
    await runner.close()


async def test_a_read_does_not_wait_behind_a_write(path: Path, other: sqlite3.Connection) -> None:
    runner = ThreadRunner(own_engine(create_engine(f"sqlite:///{path}")), Env())
    started, release = anyio.Event(), threading.Event()

    def slow(connection: Connection) -> str:
        anyio.from_thread.run_sync(started.set)
        release.wait(10)
        return write(connection)

    async with anyio.create_task_group() as group:
        group.start_soon(runner.run, slow)
        await started.wait()
        assert await runner.run(count, write=False) == 0
        release.set()
    await runner.close()


async def test_threads_of_the_app_do_not_hold_up_a_call(path: Path, other: sqlite3.Connection) -> None:
    runner = ThreadRunner(own_engine(create_engine(f"sqlite:///{path}")), Env())
    release = threading.Event()
    limiter = to_thread.current_default_thread_limiter()
    limiter.total_tokens = 1
    async with anyio.create_task_group() as group:
        group.start_soon(to_thread.run_sync, release.wait, 10)
        while limiter.borrowed_tokens < 1:
            await anyio.lowlevel.checkpoint()
        assert await runner.run(write) == "done"
        assert limiter.borrowed_tokens == 1
        release.set()
    limiter.total_tokens = 40
    await runner.close()


@pytest.mark.parametrize("write", [True, False])
async def test_a_call_has_an_end_in_time(
    path: Path, other: sqlite3.Connection, write: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "LIMIT_SECONDS", 0.05)
    runner = ThreadRunner(own_engine(create_engine(f"sqlite:///{path}")), Env())
    release, ended = threading.Event(), threading.Event()

    def stuck(_connection: Connection) -> None:
        release.wait(10)
        ended.set()

    with pytest.raises(TransientError, match="did not answer within"):
        await runner.run(stuck, write=write)
    release.set()
    assert await to_thread.run_sync(ended.wait, 10)
    await runner.close()


async def test_in_a_hurry_calls_on_their_way_and_calls_to_come_end_soon(path: Path, other: sqlite3.Connection) -> None:
    runner = impatient(path, Env())
    other.execute("BEGIN IMMEDIATE")
    await hurried(runner)
    other.execute("ROLLBACK")
    runner.relax()
    assert await runner.run(write) == "done"
    await runner.close()


async def hurried(runner: Runner) -> None:
    """Hurry while a call is on its way; it and another one end although the database stays locked."""
    refused: list[str] = []

    async def call() -> None:
        with pytest.raises(TransientError, match="did not answer within") as caught:
            await runner.run(write)
        refused.append(str(caught.value))

    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        assert refused == []
        runner.hurry(0.05)
        group.start_soon(call)
    assert len(refused) == 2
    runner.hurry(5)  # is no leave to take longer
    await call()
    assert anyio.current_time() - began < 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_async_runner_hurries_too(path: Path, other: sqlite3.Connection) -> None:
    runner = AsyncRunner(create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": 0}), Env())
    other.execute("BEGIN IMMEDIATE")
    await hurried(runner)
    other.execute("ROLLBACK")
    runner.relax()
    assert await runner.run(write) == "done"
    await runner.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_async_runner_does_does_the_same(path: Path, other: sqlite3.Connection) -> None:
    env = PacedEnv()
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": 0})
    runner: Runner = AsyncRunner(engine, env)
    other.execute("BEGIN IMMEDIATE")
    assert await runner.run(count, write=False) == 0
    with pytest.raises(TransientError, match="stayed busy for 10 s"):
        await runner.run(write)
    env.on_pause = lambda: other.execute("ROLLBACK").close()
    env.seconds = 0.0
    assert await runner.run(write) == "done"
    assert await to_thread.run_sync(runner.run_blocking, write) == "done"
    assert await runner.run(count, write=False) == 2
    await runner.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_call_ends_in_time_although_its_rollback_hangs(path: Path, other: sqlite3.Connection) -> None:
    may_roll_back, hangs = anyio.Event(), anyio.Event()
    may_roll_back.set()

    class Hanging(aiosqlite.Connection):
        async def rollback(self) -> None:
            hangs.set()
            await may_roll_back.wait()
            await super().rollback()

    async def connect(*_args: object, **_options: object) -> aiosqlite.Connection:
        return await Hanging(lambda: sqlite3.connect(path, check_same_thread=False), 64)

    runner = AsyncRunner(create_async_engine(f"sqlite+aiosqlite:///{path}", async_creator=connect), Env())
    assert await runner.run(count) == 0
    may_roll_back, hangs = anyio.Event(), anyio.Event()
    runner.hurry(0.2)
    with anyio.fail_after(10), pytest.raises(TransientError, match="did not answer within"):
        await runner.run(count)
    assert hangs.is_set()
    may_roll_back.set()
    await runner.close()


async def test_a_call_that_outlives_the_close_leaves_no_connection_open(path: Path, other: sqlite3.Connection) -> None:
    engine = own_engine(create_engine(f"sqlite:///{path}"))
    opened, closed = list[object](), list[object]()
    event.listen(engine, "connect", lambda connection, _record: opened.append(connection))
    event.listen(engine, "close", lambda connection, _record: closed.append(connection))
    runner, begun, go_on = ThreadRunner(engine, Env()), threading.Event(), threading.Event()

    def linger(connection: Connection) -> None:
        begun.set()
        go_on.wait(10)

    async with anyio.create_task_group() as calls:
        calls.start_soon(runner.run, linger)
        await to_thread.run_sync(begun.wait)
        await runner.close()
        go_on.set()
    assert opened == closed
    assert len(opened) == 1


async def test_a_call_whose_thread_begins_after_the_close_leaves_no_connection_open(
    path: Path, other: sqlite3.Connection
) -> None:
    engine = own_engine(create_engine(f"sqlite:///{path}"))
    opened, closed = list[object](), list[object]()
    event.listen(engine, "connect", lambda connection, _record: opened.append(connection))
    event.listen(engine, "close", lambda connection, _record: closed.append(connection))
    begun, go_on = threading.Event(), threading.Event()

    class Late(ThreadRunner):
        def _run(self, *args: Any) -> Any:
            begun.set()
            go_on.wait(10)
            return super()._run(*args)

    runner = Late(engine, Env())
    async with anyio.create_task_group() as calls:
        calls.start_soon(runner.run, count)
        await to_thread.run_sync(begun.wait)
        await runner.close()
        go_on.set()
    assert opened == closed
    assert len(opened) == 1
