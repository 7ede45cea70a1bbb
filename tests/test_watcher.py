"""A process on SQLite sees by the file that another one has committed tasks, long before it would ask."""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import pytest
from sqlalchemy import create_engine
from starlette.types import Receive, Scope, Send

from hookware.config import Config
from hookware.delivery import Target
from hookware.env import Env, Ticker, Wake
from hookware.events import Events
from hookware.health import Health
from hookware.processing import Processing
from hookware.store.sql.outbox import Outbox
from hookware.store.sql.still_file import StillFile
from hookware.watcher import Watcher
from tests.store.subject import new_task

POLL_SECONDS = 60.0


def outbox_on(path: Path) -> Outbox:
    return Outbox(
        create_engine(f"sqlite:///{path}"), env=Env(), config=Config(poll_seconds=POLL_SECONDS), events=Events()
    )


class Process:
    """One that runs tasks, and hardly ever asks for them."""

    def __init__(self, path: Path) -> None:
        self.outbox = outbox_on(path)
        self.called = anyio.Event()

    async def app(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        self.called.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as loops:
            processing = Processing(self.outbox, Target(self.app, {}, loops))
            await processing.start(loops)
            with anyio.fail_after(POLL_SECONDS / 3):
                while not processing._dispatcher._claims_ended:
                    await anyio.lowlevel.checkpoint()
                yield
            await processing.stop()
            await processing.close()


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    outbox = outbox_on(tmp_path / "app.db")
    await outbox.prepare()
    await outbox.close()
    outbox.sync_engine.dispose()
    return tmp_path / "app.db"


async def test_a_task_of_another_process_begins_long_before_the_poll(path: Path) -> None:
    process, other = Process(path), outbox_on(path)
    await process.outbox.prepare()
    async with process.running():
        await other.add([new_task()])
        await process.called.wait()
    for outbox in (process.outbox, other):
        await outbox.close()
        outbox.sync_engine.dispose()


# The watcher alone.


class Looks:
    """A store of which only one thing is asked."""

    def __init__(self, *due_us: int | None) -> None:
        self.count = 0
        self._due_us = due_us

    async def next_due(self) -> int | None:
        self.count += 1
        return self._due_us[min(self.count, len(self._due_us)) - 1]


class ByHand(Env):
    """The thread's step is done by the test; pauses are short."""

    def __init__(self) -> None:
        super().__init__()
        self.step: Callable[[], None] = lambda: None
        self.is_stopped = False

    def every(self, seconds: float, step: Callable[[], None], *, name: str) -> Ticker:
        self.step = step
        return self

    def stop(self) -> None:
        self.is_stopped = True

    async def sleep(self, seconds: float) -> None:
        await anyio.lowlevel.checkpoint()


class Site:
    """A watcher, the file that it looks at, and what it is told by its store."""

    def __init__(self, path: Path, store: Looks) -> None:
        self.env, self.wake, self.store = ByHand(), Wake(), store
        file = StillFile(str(path), self.env)
        self.watcher = Watcher(
            file,
            store,  # type: ignore[arg-type]  # more is not asked
            self.wake,
            env=self.env,
            events=Events(),
            health=Health(self.env),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as loops:
            loops.start_soon(self.watcher.run)
            await anyio.wait_all_tasks_blocked()
            self.env.step()
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(10):
                yield
            self.watcher.stop()


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE note (word TEXT)")
        yield connection


async def woken(site: Site) -> bool:
    return await site.wake.wait(0)


async def test_it_asks_once_more_after_a_change_because_the_file_changes_a_moment_before_the_commit_is_seen(
    path: Path, connection: sqlite3.Connection
) -> None:
    site = Site(path, Looks(None, None, None, 0))
    async with site.running():
        assert site.store.count == 2  # it cannot know what came before
        assert not await woken(site)
        connection.execute("INSERT INTO note VALUES ('a')")
        site.env.step()
        await anyio.wait_all_tasks_blocked()
        assert site.store.count == 4
        assert await woken(site)
    assert site.env.is_stopped


async def test_a_file_that_nobody_writes_to_is_not_asked(path: Path, connection: sqlite3.Connection) -> None:
    site = Site(path, Looks(None))
    async with site.running():
        for _ in range(5):
            connection.execute("SELECT count(*) FROM note").fetchall()
            site.env.step()
            await anyio.wait_all_tasks_blocked()
        assert site.store.count == 2


@pytest.mark.parametrize("due_us", [None, 1])
async def test_nobody_is_woken_for_what_is_not_due(
    path: Path, connection: sqlite3.Connection, due_us: int | None
) -> None:
    site = Site(path, Looks(due_us))
    async with site.running():
        connection.execute("INSERT INTO note VALUES ('a')")
        site.env.step()
        await anyio.wait_all_tasks_blocked()
        assert site.store.count == 4
        assert not await woken(site)


async def test_a_file_that_goes_away_and_comes_back_is_seen(path: Path, connection: sqlite3.Connection) -> None:
    site = Site(path, Looks(None))
    async with site.running():
        os.rename(path, path.with_suffix(".away"))
        site.env.step()
        await anyio.wait_all_tasks_blocked()
        os.rename(path.with_suffix(".away"), path)
        site.env.step()
        await anyio.wait_all_tasks_blocked()
        assert site.store.count == 6
