"""SQLite files and stores on them."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, insert

from hookware.core.task import NewTask
from hookware.env import Env
from hookware.store.sql import sqlite
from hookware.store.sql.engines import own_engine
from hookware.store.sql.rows import to_rows
from hookware.store.sql.runner import Runner, ThreadRunner
from hookware.store.sql.store import SQLStore
from hookware.store.sql.swift import Stamp
from hookware.store.sql.tables import task_table
from tests.store.subject import QUEUES, TOMBSTONE_US, ManualClock, Subject


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    """Give the user's engine, configured."""
    engine = create_engine(f"sqlite:///{path}")
    sqlite.configure(engine)
    yield engine
    engine.dispose()


class TimelessEnv(Env):
    """An Env in which nothing takes time: how busy the machine is changes nothing in what a store does."""

    def monotonic(self) -> float:
        return 0.0


@asynccontextmanager
async def sql_subject(runner: Runner, *, at_once: bool = False) -> AsyncIterator[Subject]:
    """Make a store; `at_once`: one that claims in one statement where it can, from its first claim on."""
    clock = ManualClock()
    stamp: Stamp = clock if at_once else lambda: None
    store = SQLStore(runner, clock, env=TimelessEnv(), tombstone_us=TOMBSTONE_US, queues=QUEUES, stamp=stamp)
    await store.prepare(create_tables=True)
    await store.next_due()

    async def put(tasks: Sequence[NewTask]) -> None:
        def rows(connection: Connection) -> None:
            connection.execute(insert(task_table), to_rows(tasks, clock.now_us))

        await runner.run(rows)

    yield Subject(store, clock, put)
    await store.close()


@pytest.fixture
async def thread_subject(engine: Engine) -> AsyncIterator[Subject]:
    async with sql_subject(ThreadRunner(own_engine(engine), Env())) as subject:
        yield subject
