"""A queue that keeps what is finished: however a task completes, its row stays, and everything else is as it was."""

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.responses import Response

from hookware import QueueSettings, State, TaskContext, taskqueue
from hookware.errors import InvalidQueueError
from tests.databases import EVERY_ASYNC_DRIVER, EVERY_DATABASE_ON_A_LOOP
from tests.stage import AT_ONCE, Stage, Tally

KEEPS = [QueueSettings(retention_seconds=60)]


async def kept(stage: Stage) -> tuple[State, int, bool]:
    """Give what is left of the one task, kept for a minute: its state, its attempts, and whether its end has a time."""
    (info,) = await stage.hookware.inspector.list_tasks()
    (ended_us,) = stage.rows("SELECT ended_us FROM hookware_task")
    (created_us,) = stage.rows("SELECT created_us FROM hookware_task")
    assert stage.rows("SELECT owner FROM hookware_task") == [None]
    assert stage.rows("SELECT lease_until_us FROM hookware_task") == [ended_us + 60_000_000]
    assert stage.rows("SELECT name FROM hookware_name WHERE expires_us IS NOT NULL") == ["n"]
    return info.state, info.attempt_count, ended_us >= created_us


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("how", ["settled", "own session", "complete_in"])
async def test_however_it_completes_its_row_is_kept(stage: Stage, how: str) -> None:
    @stage.task_handler("/settled")
    def plain() -> None:
        """Write nothing."""

    @stage.task_handler("/own-session")
    def own_session(session: Session) -> None:
        session.add(Tally(key="x", count=1))

    @stage.task_handler("/complete-in")
    def complete_in(task: TaskContext) -> None:
        with Session(stage.sync_engine) as session:
            session.add(Tally(key="x", count=1))
            task.complete_in(session)
            session.commit()

    worker = {"settled": plain, "own session": own_session, "complete_in": complete_in}[how]
    async with stage.running(queues=KEEPS):
        await worker.options(name="n").add_async()
        (settled,) = await stage.settled()
        assert settled.accepted
        assert await kept(stage) == (State.COMPLETED, 1, True)
    assert stage.tally() == ({} if how == "settled" else {"x": 1})


@EVERY_DATABASE_ON_A_LOOP
async def test_a_stale_fence_refuses_the_end_that_is_kept(stage: Stage) -> None:
    raised: list[bool] = []

    @stage.task_handler("/worker")
    def worker(task: TaskContext) -> None:
        with Session(stage.sync_engine) as session:
            session.add(Tally(key="x", count=1))
            task.complete_in(session)
            stage.raise_fences()
            try:
                session.commit()
            except StaleDataError:
                raised.append(True)
                raise

    async with stage.running(queues=KEEPS):
        await worker.add_async()
        (settled,) = await stage.settled()
        assert (raised, settled.accepted) == ([True], False)
        (info,) = await stage.hookware.inspector.list_tasks()
        assert info.state is State.LEASED
    assert stage.tally() == {}


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("flushes", [True, False])
@pytest.mark.parametrize("released", [True, False])
async def test_an_end_inside_of_a_savepoint_goes_with_it(stage: Stage, flushes: bool, released: bool) -> None:
    @stage.task_handler("/worker")
    def worker(task: TaskContext) -> None:
        with Session(stage.sync_engine) as session:
            session.merge(Tally(key="x", count=task.attempt))
            nested = session.begin_nested()
            task.complete_in(session)
            if flushes:
                session.flush()
            if released or task.attempt > 1:
                nested.commit()
            else:
                nested.rollback()
            session.commit()

    async with stage.running(queues=KEEPS):
        await worker.options(name="n", retry_options=AT_ONCE).add_async()
        events = await stage.settled(1 if released else 2)
        assert await kept(stage) == (State.COMPLETED, 1 if released else 2, True)
    if not released:
        assert "session.commit()" in events[0].decision.error  # type: ignore[union-attr]  # a Retry


async def test_a_savepoint_that_is_rolled_back_after_the_end_was_flushed_does_not_undo_it(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker(task: TaskContext) -> None:
        with Session(stage.sync_engine) as session:
            task.complete_in(session)
            with session.begin_nested() as nested:
                session.add(Tally(key="x", count=1))
                session.flush()
                nested.rollback()
            session.commit()

    async with stage.running(queues=KEEPS):
        await worker.options(name="n").add_async()
        (settled,) = await stage.settled()
        assert settled.accepted
        assert await kept(stage) == (State.COMPLETED, 1, True)
    assert stage.tally() == {}


@EVERY_ASYNC_DRIVER
async def test_an_async_session_keeps_it_too(async_stage: Stage) -> None:
    @async_stage.task_handler("/worker")
    async def worker(task: TaskContext) -> Response:
        async with AsyncSession(async_stage.async_engine) as session:
            session.add(Tally(key="x", count=task.attempt))
            task.complete_in(session)
            if task.attempt == 1:
                await session.flush()
                await session.rollback()
            else:
                await session.commit()
        return Response(status_code=500)

    async with async_stage.running(queues=KEEPS):
        await worker.options(retry_options=AT_ONCE, name="n").add_async()
        await async_stage.settled(2)
        assert await kept(async_stage) == (State.COMPLETED, 2, True)
    assert async_stage.tally() == {"x": 2}


@EVERY_DATABASE_ON_A_LOOP
async def test_what_is_set_at_run_time_counts_for_the_handlers_transaction_too(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker(session: Session) -> None:
        session.add(Tally(key="x", count=1))

    async with stage.running() as hookware:
        await hookware.inspector.set_overrides("default", {"retention_seconds": 60.0})
        await worker.options(name="n").add_async()
        await stage.settled()
        assert await kept(stage) == (State.COMPLETED, 1, True)


@EVERY_DATABASE_ON_A_LOOP
async def test_where_the_dead_are_not_kept_nothing_is_left_but_the_name(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker() -> Response:
        return Response(status_code=400, headers={"X-Hookware-No-Retry": "1"})

    async with stage.running(queues=[QueueSettings(dead_retention_seconds=0)]):
        await taskqueue.add_async(url="/worker", name="n")
        (settled,) = await stage.settled()
        assert settled.accepted
    assert stage.task_count() == 0
    assert stage.rows("SELECT name FROM hookware_name WHERE expires_us IS NOT NULL") == ["n"]


async def test_a_queue_that_keeps_nothing_pays_nothing_for_others_that_do(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker(session: Session) -> None:
        session.add(Tally(key="x", count=1))

    asked: list[str] = []
    event.listen(stage.sync_engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    async with stage.running(queues=[QueueSettings(name="other", retention_seconds=60)]):
        await worker.add_async()
        await stage.settled()
    changes = [statement.split()[0] for statement in asked if "hookware_task" in statement]
    assert changes[-1] == "DELETE"
    assert "UPDATE" not in changes
    assert stage.task_count() == 0


@pytest.mark.parametrize(
    "wrong", [{"retention_seconds": -1}, {"retention_seconds": None}, {"dead_retention_seconds": float("nan")}]
)
async def test_times_that_are_none_are_refused(stage: Stage, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidQueueError, match=f"{next(iter(wrong))} must be a number of seconds"):
        stage.make(queues=[QueueSettings(name="q", **wrong)])
