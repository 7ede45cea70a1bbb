"""`complete_in(session)`: a handler's own session carries the task's completion."""

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import create_engine
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.responses import Response

from hookware import TaskContext, request_session, require_task, taskqueue
from hookware.errors import SessionError
from tests.databases import EVERY_ASYNC_DRIVER, EVERY_DATABASE_ON_A_LOOP
from tests.stage import AT_ONCE, Stage, Tally

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def handler(stage: Stage, end: Callable[[Session, TaskContext], object]) -> Any:
    """Register a handler that writes, lets its session complete the task, and ends as the test says."""

    @stage.task_handler("/worker")
    def worker(task: TaskContext) -> object:
        with Session(stage.sync_engine) as session:
            session.merge(Tally(key="x", count=task.attempt))
            task.complete_in(session)
            return end(session, task)

    return worker


async def run(stage: Stage, end: Callable[[Session, TaskContext], object], count: int) -> list[Any]:
    worker = handler(stage, end)
    async with stage.running():
        worker.options(retry_options=AT_ONCE).add()
        return await stage.settled(count)


def then_raises(session: Session, task: TaskContext) -> None:
    session.commit()
    raise ValueError("too late")


def then_answers_500(session: Session, task: TaskContext) -> Response:
    session.commit()
    return Response(status_code=500)


def commits(session: Session, task: TaskContext) -> None:
    session.commit()


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("end", [commits, then_raises, then_answers_500])
async def test_the_commit_completes_the_task_whatever_follows(
    stage: Stage, end: Callable[[Session, TaskContext], object]
) -> None:
    settled = await run(stage, end, 1)
    assert [event.accepted for event in settled] == [True]
    assert stage.tally() == {"x": 1}
    assert stage.task_count() == 0


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("how", ["rollback", "raise"])
async def test_a_rollback_lets_the_task_be_tried_again(stage: Stage, how: str) -> None:
    def end(session: Session, task: TaskContext) -> None:
        if task.attempt < 3:
            session.flush()
            if how == "raise":
                raise ValueError("no")
            session.rollback()
        session.commit()

    await run(stage, end, 3)
    assert stage.tally() == {"x": 3}
    assert stage.task_count() == 0


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("flushes", [True, False])
async def test_a_forgotten_commit_is_a_failure_that_says_so(stage: Stage, flushes: bool) -> None:
    def end(session: Session, task: TaskContext) -> None:
        if flushes:
            session.flush()
        if task.attempt == 2:
            session.commit()

    settled = await run(stage, end, 2)
    assert "session.commit()" in settled[0].decision.error
    assert stage.tally() == {"x": 2}
    assert stage.task_count() == 0


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("swallows", [True, False])
async def test_a_stale_fence_refuses_the_commit(stage: Stage, swallows: bool) -> None:
    raised: list[bool] = []

    def end(session: Session, task: TaskContext) -> None:
        stage.raise_fences()
        try:
            session.commit()
        except StaleDataError:
            raised.append(True)
            if not swallows:
                raise

    settled = await run(stage, end, 1)
    assert raised == [True]
    assert [event.accepted for event in settled] == [False]
    assert stage.tally() == {}
    assert stage.task_count() == 1


@EVERY_DATABASE_ON_A_LOOP
async def test_until_the_commit_the_lease_is_renewed(stage: Stage) -> None:
    ends: list[int] = []

    @stage.task_handler("/worker")
    def worker(task: TaskContext) -> None:
        heartbeat = stage.hookware._loops.processing._heartbeat  # type: ignore[union-attr]  # it runs
        with Session(stage.sync_engine) as session:
            task.complete_in(session)
            session.flush()
            for _ in range(2):
                heartbeat.beat()
                ends.extend(stage.rows("SELECT lease_until_us FROM hookware_task"))
            session.commit()

    async with stage.running():
        await worker.add_async()
        (settled,) = await stage.settled()
    assert settled.accepted
    assert ends[0] < ends[1]
    assert stage.task_count() == 0


@EVERY_DATABASE_ON_A_LOOP
async def test_tasks_added_through_that_session_commit_with_it(stage: Stage) -> None:
    ran: list[str] = []

    @stage.task_handler("/follow-up")
    def follow_up(key: str) -> None:
        ran.append(key)

    def end(session: Session, task: TaskContext) -> None:
        follow_up.options(session=session).add(str(task.attempt))
        if task.attempt == 1:
            raise ValueError("no")
        session.commit()
        raise ValueError("too late")

    await run(stage, end, 3)
    assert ran == ["2"]
    assert stage.task_count() == 0


@EVERY_ASYNC_DRIVER
async def test_an_async_session_completes_too(async_stage: Stage) -> None:
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

    async with async_stage.running():
        await worker.options(retry_options=AT_ONCE, name="n").add_async()
        await async_stage.settled(2)
    assert async_stage.tally() == {"x": 2}
    assert async_stage.task_count() == 0
    assert async_stage.rows("SELECT name FROM hookware_name WHERE expires_us IS NOT NULL") == ["n"]


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("became", ["pending", "dead"])
async def test_a_late_commit_ends_what_was_put_back_and_nobody_has_begun_anew(stage: Stage, became: str) -> None:
    def end(session: Session, task: TaskContext) -> None:
        stage.put_back(dead=became == "dead")
        session.commit()

    await run(stage, end, 1)
    assert stage.tally() == {"x": 1}
    assert stage.task_count() == 0


@EVERY_ASYNC_DRIVER
async def test_a_stale_fence_refuses_an_async_commit(async_stage: Stage) -> None:
    @async_stage.task_handler("/worker")
    async def worker(task: TaskContext) -> None:
        async with AsyncSession(async_stage.async_engine) as session:
            session.add(Tally(key="x", count=1))
            task.complete_in(session)
            async_stage.raise_fences()
            with pytest.raises(StaleDataError):
                await session.commit()

    async with async_stage.running():
        await worker.add_async()
        (settled,) = await async_stage.settled()
    assert not settled.accepted
    assert async_stage.tally() == {}
    assert async_stage.task_count() == 1


async def test_a_dependency_of_fastapi_may_commit_after_the_answer(stage: Stage) -> None:
    app = FastAPI()

    def get_session() -> Any:
        with Session(stage.sync_engine) as session:
            yield session
            session.commit()

    @app.post("/route")
    def route(
        session: Annotated[Session, Depends(get_session)], task: Annotated[TaskContext, Depends(require_task)]
    ) -> None:
        session.merge(Tally(key="x", count=task.attempt))
        task.complete_in(session)
        if task.attempt == 1:
            raise HTTPException(409)

    async with stage.running(app):
        await taskqueue.add_async(url="/route", retry_options=AT_ONCE)
        await stage.settled(2)
    assert stage.tally() == {"x": 2}
    assert stage.task_count() == 0


async def test_hookwares_own_session_completes_anyway(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker(session: Session, task: TaskContext) -> None:
        session.add(Tally(key="x", count=1))
        task.complete_in(session)

    async with stage.running():
        worker.add()
        (settled,) = await stage.settled()
    assert settled.accepted
    assert stage.tally() == {"x": 1}


async def test_a_session_on_another_database_or_after_the_request_is_refused(stage: Stage, tmp_path: Any) -> None:
    other = create_engine(f"sqlite:///{tmp_path}/other.db")
    kept: list[TaskContext] = []

    @stage.task_handler("/worker")
    def worker(task: TaskContext) -> None:
        kept.append(task)
        with Session(other) as session, pytest.raises(SessionError, match="another database"):
            task.complete_in(session)
        with pytest.raises(SessionError, match="AsyncSession, got None"):
            task.complete_in(None)  # type: ignore[arg-type]  # that is what is tried

    @stage.task_handler("/later")
    def later() -> None:
        with pytest.raises(SessionError, match="not the task of this request"):
            kept[0].complete_in(request_session())

    async with stage.running():
        worker.add()
        await stage.settled()
        later.add()
        assert [event.accepted for event in await stage.settled(2)] == [True, True]
    assert stage.task_count() == 0
    other.dispose()
