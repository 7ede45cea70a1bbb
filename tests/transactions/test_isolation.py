"""Every isolation level of PostgreSQL: conflicts are nobody's fault, and whoever holds a snapshot still completes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from hookware import TaskContext, taskqueue
from hookware.core.lifecycle import Complete
from hookware.processing import Processing
from tests.databases import EVERY_POSTGRESQL_DRIVER, POSTGRESQL_ON_A_LOOP, Database
from tests.serving import StartupFailedError
from tests.stage import Stage, Tally

SNAPSHOTS = pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])


@asynccontextmanager
async def staged(database: Database, **options: Any) -> AsyncIterator[Stage]:
    stage = Stage(database, is_async=bool(database.driver), **options)
    try:
        yield stage
    finally:
        await stage.close()


def beat(stage: Stage) -> None:
    """Renew the leases of all running tasks, as the heartbeat's thread does every quarter of a lease."""
    processing = stage.hookware._loops.processing
    assert isinstance(processing, Processing)
    processing._heartbeat.beat()


def add_one(session: Session, key: str) -> None:
    tally = session.get(Tally, key, with_for_update=True) or Tally(key=key)
    tally.count += 1
    session.add(tally)


@pytest.mark.slow
@SNAPSHOTS
@POSTGRESQL_ON_A_LOOP
async def test_sixty_concurrent_tasks_count_to_sixty(database: Database, level: str) -> None:
    async with staged(database, isolation_level=level) as stage:

        @stage.task_handler("/worker")
        def worker(session: Session, key: str) -> None:
            add_one(session, key)

        async with stage.running():
            await taskqueue.Queue().add_async([taskqueue.Task(url="/worker", params={"key": "x"}) for _ in range(60)])
            await stage.settled(60)
            await stage.recorder.wait(lambda: stage.task_count() == 0, seconds=20)
        assert stage.tally() == {"x": 60}


@SNAPSHOTS
@POSTGRESQL_ON_A_LOOP
async def test_a_lease_renewed_meanwhile_does_not_stand_in_the_way(database: Database, level: str) -> None:
    runs: list[int] = []
    async with staged(database, isolation_level=level) as stage:

        @stage.task_handler("/worker")
        def worker(session: Session, task: TaskContext) -> None:
            runs.append(task.attempt)
            add_one(session, "x")
            beat(stage)

        async with stage.running():
            await worker.add_async()
            (settled,) = await stage.settled()
        assert isinstance(settled.decision, Complete)
        assert (runs, stage.tally(), stage.task_count()) == ([1], {"x": 1}, 0)


@EVERY_POSTGRESQL_DRIVER
async def test_nor_in_the_way_of_a_session_with_a_level_of_its_own(database: Database) -> None:
    """Nobody can know of such a session beforehand: the second try of the same attempt succeeds."""
    runs: list[int] = []
    async with staged(database) as stage:

        @stage.task_handler("/worker")
        async def worker(task: TaskContext) -> None:
            runs.append(task.attempt)
            if isinstance(stage.engine, AsyncEngine):
                async with AsyncSession(stage.engine.execution_options(isolation_level="SERIALIZABLE")) as session:
                    await session.run_sync(work, task)
                    await session.commit()
            else:
                with Session(stage.engine.execution_options(isolation_level="SERIALIZABLE")) as plain:
                    work(plain, task)
                    plain.commit()

        def work(session: Any, task: TaskContext) -> None:
            session.add(Tally(key="x", count=session.execute(text("SELECT count(*) FROM tally")).scalar() + 1))
            beat_elsewhere()
            task.complete_in(session)

        def beat_elsewhere() -> None:
            # What a beat does to the row; an asyncio driver's heartbeat cannot beat on the event loop.
            rests = next(iter(stage.hookware._loops.processing._heartbeat._held.values())).rests  # type: ignore[union-attr]  # it runs
            if not rests:
                stage.execute("UPDATE hookware_task SET lease_until_us = lease_until_us + 1")

        async with stage.running():
            await worker.add_async()
            (settled,) = await stage.settled()
        assert isinstance(settled.decision, Complete)
        assert (runs, stage.tally(), stage.task_count()) == ([1, 1], {"x": 1}, 0)


@pytest.mark.parametrize(("sqlstate", "rests"), [("40P01", False), ("55P03", False), ("40001", True)])
@EVERY_POSTGRESQL_DRIVER
async def test_a_lease_goes_on_being_short_after_a_conflict_that_has_nothing_to_do_with_it(
    database: Database, sqlstate: str, rests: bool
) -> None:
    left_us: list[int] = []
    async with staged(database) as stage:

        @stage.task_handler("/worker")
        async def worker() -> None:
            now_us = "(extract(epoch from clock_timestamp()) * 1e6)::bigint"
            left_us.extend(stage.rows(f"SELECT lease_until_us - {now_us} FROM hookware_task"))
            if len(left_us) > 1:
                return
            raising = text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$")
            if isinstance(stage.engine, AsyncEngine):
                async with AsyncSession(stage.engine) as session:
                    await (await session.connection()).execute(raising)
            else:
                with Session(stage.engine) as plain:
                    plain.connection().execute(raising)

        async with stage.running(dispatch_deadline_seconds=3600.0):
            await worker.add_async()
            await stage.settled()
    assert len(left_us) == 2
    assert (left_us[1] > 3000e6) == rests


@EVERY_POSTGRESQL_DRIVER
async def test_hookwares_own_statements_are_at_read_committed_whatever_the_servers_default(database: Database) -> None:
    look = database.look()
    look.execute(f"ALTER ROLE {database.url.username} SET default_transaction_isolation = 'serializable'")
    look.close()
    async with staged(database) as stage, stage.running(dispatch=False) as hookware:
        outbox = hookware._outbox

        def level(connection: Any) -> object:
            return connection.execute(text("SHOW transaction_isolation")).scalar()

        assert await outbox.runner.run(level) == "read committed"
        assert outbox.keeps_snapshots
        if outbox.is_async:
            async with outbox.engine.connect() as connection:  # type: ignore[union-attr]  # is_async says which
                assert await connection.run_sync(level) == "serializable"
        else:
            with outbox.sync_engine.connect() as plain:
                assert level(plain) == "serializable"


@EVERY_POSTGRESQL_DRIVER
async def test_autocommit_is_refused(database: Database) -> None:
    with pytest.raises(StartupFailedError, match=r"survived the rollback.* Take isolation_level= \(AUTOCOMMIT\)"):
        async with staged(database, isolation_level="AUTOCOMMIT") as stage, stage.running():
            raise AssertionError("it must not start")
