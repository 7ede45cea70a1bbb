"""Effect and completion in one transaction: a handler that writes through its session does so exactly once."""

from typing import Annotated, Any

import anyio
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from sqlalchemy import make_url
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, Response

from hookware import (
    TaskContext,
    async_request_session,
    request_session,
    require_task,
    taskqueue,
)
from hookware.core.lifecycle import Complete, Retry
from hookware.errors import ConfigurationError, SessionError
from tests.databases import EVERY_ASYNC_DRIVER, EVERY_DATABASE_ON_A_LOOP, POSTGRESQL_ON_A_LOOP, Database
from tests.serving import StartupFailedError, serving
from tests.stage import AT_ONCE, Stage, Tally

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def count(session: Session, key: str) -> None:
    tally = session.get(Tally, key, with_for_update=True) or Tally(key=key)
    tally.count += 1
    session.add(tally)


async def async_count(session: AsyncSession, key: str) -> None:
    tally = await session.get(Tally, key, with_for_update=True) or Tally(key=key)
    tally.count += 1
    session.add(tally)


# One transaction.


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("failure", ["raise", "status", "background"])
async def test_commit_then_fail_leaves_nothing_and_the_retry_writes_once(
    stage: Stage, commits: bool, failure: str
) -> None:
    seen: list[dict[str, int]] = []

    @stage.task_handler("/worker")
    def worker(session: Session, task: TaskContext) -> Response:
        seen.append(stage.tally())
        count(session, "x")
        if commits:
            session.commit()
        seen.append(stage.tally())

        def fail() -> None:
            raise ValueError("no")

        if task.attempt == 1 and failure == "raise":
            fail()
        late = BackgroundTask(fail) if task.attempt == 1 and failure == "background" else None
        return PlainTextResponse("", 500 if task.attempt == 1 and failure == "status" else 200, background=late)

    async with stage.running():
        await taskqueue.add_async(url="/worker", retry_options=AT_ONCE)
        await stage.settled(2)
    assert seen == [{}, {}, {}, {}], "nothing is visible before the handler has returned"
    assert stage.tally() == {"x": 1}
    assert stage.task_count() == 0


@EVERY_DATABASE_ON_A_LOOP
async def test_effect_completion_and_follow_up_tasks_commit_together(stage: Stage) -> None:
    states: list[object] = []

    @stage.task_handler("/worker")
    def worker(session: Session) -> None:
        count(session, "x")
        follow_up.add()

    @stage.task_handler("/follow-up")
    def follow_up() -> None:
        states.append((stage.tally(), stage.rows("SELECT url FROM hookware_task")))

    async with stage.running():
        worker.add()
        settled = await stage.settled(2)
    assert [each.accepted for each in settled] == [True, True]
    assert states == [({"x": 1}, ["/follow-up"])]
    assert stage.task_count() == 0


@pytest.mark.parametrize("takes_session", [True, False])
async def test_tasks_added_in_a_handler_that_fails_were_never_there(stage: Stage, takes_session: bool) -> None:
    ran: list[str] = []

    def add_then_fail(task: TaskContext) -> None:
        follow_up.add(str(task.attempt))
        if task.attempt == 1:
            raise ValueError("no")

    def add_then_fail_in_session(session: Session, task: TaskContext) -> None:
        count(session, "x")
        add_then_fail(task)

    worker = stage.task_handler("/worker")(add_then_fail_in_session if takes_session else add_then_fail)

    @stage.task_handler("/follow-up")
    def follow_up(key: str) -> None:
        ran.append(key)

    async with stage.running():
        worker.options(retry_options=AT_ONCE).add()
        await stage.settled(3)
    assert ran == ["2"]
    assert stage.task_count() == 0


@EVERY_DATABASE_ON_A_LOOP
async def test_a_stale_lease_rolls_the_effect_back(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    @stage.task_handler("/worker")
    def worker(session: Session) -> None:
        stage.raise_fences()
        count(session, "x")

    async with stage.running():
        worker.add()
        (settled,) = await stage.settled()
    assert not settled.accepted
    assert stage.tally() == {}
    assert stage.task_count() == 1, "it belongs to the newer attempt"
    assert "given to" in caplog.text


@EVERY_ASYNC_DRIVER
async def test_a_stale_lease_rolls_the_effect_of_an_async_session_back(async_stage: Stage) -> None:
    @async_stage.task_handler("/worker")
    async def worker(session: AsyncSession) -> None:
        async_stage.raise_fences()
        await async_count(session, "x")
        await session.commit()

    async with async_stage.running():
        await worker.add_async()
        (settled,) = await async_stage.settled()
    assert not settled.accepted
    assert async_stage.tally() == {}
    assert async_stage.task_count() == 1


async def test_an_ordinary_route_has_the_same_session(stage: Stage) -> None:
    app = FastAPI()

    @app.post("/route")
    def route(
        background: BackgroundTasks,
        session: Annotated[Session, Depends(request_session)],
        task: Annotated[TaskContext, Depends(require_task)],
    ) -> str:
        count(session, "x")
        session.commit()
        if task.attempt == 1:
            background.add_task(lambda: 1 / 0)
        return "counted"

    async with stage.running(app):
        await taskqueue.add_async(url="/route", retry_options=AT_ONCE)
        await stage.settled(2)
    assert stage.tally() == {"x": 1}
    assert stage.task_count() == 0


# The counter of the README.


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.slow
async def test_sixty_concurrent_tasks_count_to_sixty(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker(session: Session, key: str) -> None:
        count(session, key)

    async with stage.running():
        taskqueue.Queue().add([taskqueue.Task(url="/worker", params={"key": "x"}) for _ in range(60)])
        with anyio.fail_after(30):
            settled = await stage.settled(60)
    assert stage.tally() == {"x": 60}
    assert {event.task.attempt_count for event in settled} == {1}, "a conflict does not count as an attempt"
    assert stage.task_count() == 0


@EVERY_ASYNC_DRIVER
@pytest.mark.slow
async def test_sixty_concurrent_tasks_count_to_sixty_on_an_async_engine(async_stage: Stage) -> None:
    @async_stage.task_handler("/worker")
    async def worker(session: AsyncSession, key: str) -> None:
        await async_count(session, key)

    async with async_stage.running():
        await taskqueue.Queue().add_async([taskqueue.Task(url="/worker", params={"key": "x"}) for _ in range(60)])
        with anyio.fail_after(30):
            settled = await async_stage.settled(60)
    assert async_stage.tally() == {"x": 60}
    assert {event.task.attempt_count for event in settled} == {1}


@pytest.mark.parametrize("follows", ["alone", "hidden behind another error"])
async def test_a_conflict_is_tried_again_at_once_without_counting_an_attempt(stage: Stage, follows: str) -> None:
    attempts: list[int] = []

    @stage.task_handler("/worker")
    def worker(session: Session, task: TaskContext) -> None:
        attempts.append(task.attempt)
        count(session, "x")
        if len(attempts) < 3:
            # Another writer on a connection of its own that does not wait: SQLite's own "database is locked".
            with stage.sync_engine.connect() as other:
                other.exec_driver_sql("PRAGMA busy_timeout = 0")
                try:
                    other.exec_driver_sql("BEGIN IMMEDIATE")
                except Exception as error:
                    if follows != "alone":
                        raise LookupError("no lock") from error
                    raise
                finally:
                    other.exec_driver_sql("PRAGMA busy_timeout = 5000")

    async with stage.running():
        worker.add()
        await stage.settled()
    assert attempts == [1, 1, 1]
    assert stage.tally() == {"x": 1}


@POSTGRESQL_ON_A_LOOP
async def test_async_handlers_with_a_synchronous_session_do_not_wait_for_each_other_for_ever(stage: Stage) -> None:
    """A statement that waits for a row's lock stops the event loop, which whoever has the lock needs for his commit."""
    runs: list[int] = []
    locked, waits = anyio.Event(), anyio.Event()
    stage.execute("INSERT INTO tally VALUES ('x', 0)")

    @stage.task_handler("/worker")
    async def worker(session: Session) -> None:
        runs.append(1)
        if len(runs) == 1:
            count(session, "x")
            locked.set()
            await waits.wait()
        else:
            await locked.wait()
            waits.set()
            count(session, "x")

    async with stage.running():
        await worker.add_async()
        await worker.add_async()
        settled = await stage.settled(2)
    assert [event.task.attempt_count for event in settled] == [1, 1]
    assert stage.tally() == {"x": 2}


@EVERY_DATABASE_ON_A_LOOP
async def test_a_row_that_is_there_already_is_looked_for_once_more_at_once(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[int] = []

    @stage.task_handler("/worker")
    def worker(task: TaskContext) -> None:
        attempts.append(task.attempt)
        with Session(stage.sync_engine) as session:
            tally = session.get(Tally, "x")
            if tally is None:
                stage.execute("INSERT INTO tally VALUES ('x', 1)")  # by another, at the same moment
            session.add(tally or Tally(key="x"))
            session.commit()

    async with stage.running():
        worker.add()
        (settled,) = await stage.settled()
    assert attempts == [1, 1]
    assert isinstance(settled.decision, Complete)
    assert caplog.text == ""


@EVERY_DATABASE_ON_A_LOOP
async def test_a_row_that_is_still_there_fails_the_attempt(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    attempts: list[int] = []

    @stage.task_handler("/worker")
    def worker(task: TaskContext, session: Session) -> None:
        attempts.append(task.attempt)
        if task.attempt < 3:
            session.add(Tally(key="x"))

    async with stage.running():
        stage.execute("INSERT INTO tally VALUES ('x', 1)")
        await worker.options(retry_options=AT_ONCE).add_async()
        first, *_ = await stage.settled(3)
    assert attempts == [1, 1, 2, 2, 3]
    assert isinstance(first.decision, Retry)
    assert "IntegrityError" in first.decision.error
    assert caplog.text.count("Traceback (most recent call last)") == 2, "the driver's error and SQLAlchemy's, once"


async def test_a_conflict_that_the_handler_calls_permanent_is_that(stage: Stage) -> None:
    attempts: list[int] = []

    @stage.task_handler("/worker")
    def worker(task: TaskContext) -> None:
        attempts.append(task.attempt)
        with stage.sync_engine.connect() as one, stage.sync_engine.connect() as other:
            one.exec_driver_sql("BEGIN IMMEDIATE")
            other.exec_driver_sql("PRAGMA busy_timeout = 0")
            try:
                other.exec_driver_sql("BEGIN IMMEDIATE")
            except Exception as error:
                raise taskqueue.PermanentTaskFailure("give up") from error
            finally:
                other.exec_driver_sql("PRAGMA busy_timeout = 5000")

    async with stage.running():
        worker.add()
        dead = await stage.dead()
    assert attempts == [1]
    assert (dead.dead_reason, dead.last_error) == ("permanent", "PermanentTaskFailure: give up")


# Names.


def tombstones(stage: Stage) -> list[Any]:
    return stage.rows("SELECT name, expires_us IS NOT NULL FROM hookware_name")


@EVERY_DATABASE_ON_A_LOOP
async def test_a_named_task_leaves_its_tombstone_however_it_completes(stage: Stage) -> None:
    @stage.task_handler("/settled")
    def settled() -> None: ...

    @stage.task_handler("/own-session")
    def own_session(session: Session) -> None:
        count(session, "own")

    @stage.task_handler("/complete-in")
    def complete_in(task: TaskContext) -> None:
        with Session(stage.sync_engine) as session:
            count(session, "mine")
            task.complete_in(session)
            session.commit()

    handlers = {"a": settled, "b": own_session, "c": complete_in}
    async with stage.running():
        for name, handler in handlers.items():
            handler.options(name=name).add()
        await stage.settled(3)
        assert sorted(tombstones(stage)) == [("a", 1), ("b", 1), ("c", 1)]
        for name, handler in handlers.items():
            with pytest.raises(taskqueue.TombstonedTaskError, match=repr(name)):
                handler.options(name=name).add()
    assert stage.task_count() == 0


# The kind of session.


@ASYNCIO
async def test_a_session_of_the_other_kind_is_refused_at_start_up(stage: Stage, tmp_path: Any) -> None:
    async_stage = Stage(Database(url=make_url(f"sqlite:///{tmp_path}/other.db")), is_async=True)

    @async_stage.task_handler("/sync")
    def sync(session: Session) -> None: ...

    @stage.task_handler("/async")
    async def on_loop(session: AsyncSession) -> None: ...

    for each, text in ((async_stage, r"sync takes a Session.*AsyncEngine"), (stage, r"on_loop takes an AsyncSession")):
        with pytest.raises(StartupFailedError, match=text):
            async with serving(each.make()):
                raise AssertionError("it must not start")
    await async_stage.close()


async def test_the_wrong_kind_of_request_session_says_which_is_right(stage: Stage) -> None:
    errors: list[str] = []

    @stage.task_handler("/worker")
    async def worker() -> None:
        with pytest.raises(SessionError, match="request_session") as raised:
            async_request_session()
        errors.append(str(raised.value))

    async with stage.running():
        worker.add()
        await stage.settled()
    assert len(errors) == 1
    with pytest.raises(SessionError, match="none"):
        request_session()


async def test_a_sync_handler_with_an_async_session_is_refused(stage: Stage) -> None:
    def worker(session: AsyncSession) -> None: ...

    with pytest.raises(ConfigurationError, match=r"worker.*async def"):
        stage.task_handler("/worker")(worker)
    assert len(stage.router) == 0
