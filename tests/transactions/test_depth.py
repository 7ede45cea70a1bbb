"""How deep a task is in a chain of tasks that add tasks, and the limit on that."""

import pytest
from sqlalchemy import insert
from sqlmodel import Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hookware import State, TaskContext, TaskRetryOptions, taskqueue
from hookware.core.task import MOST_DEPTH
from hookware.errors import ConfigurationError, InvalidTaskError
from hookware.store.sql.rows import to_rows
from hookware.store.sql.tables import task_table
from tests.asgi import request
from tests.databases import EVERY_DATABASE_ON_A_LOOP
from tests.samples import new_task
from tests.stage import Stage

WAYS = ["waiting", "session", "connection", "at once", "async"]


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("way", WAYS)
async def test_a_task_that_a_task_adds_is_one_deeper(stage: Stage, way: str) -> None:
    depths: list[int] = []

    @stage.task_handler("/worker")
    async def worker(task: TaskContext) -> None:
        depths.append(task.depth)
        if task.depth == 3:
            return
        again = {"url": "/worker"}
        match way:
            case "waiting":
                taskqueue.add(**again)  # type: ignore[arg-type]  # only a URL
            case "session":
                with Session(stage.sync_engine) as session:
                    taskqueue.add(session=session, **again)  # type: ignore[arg-type]  # only a URL
                    session.commit()
            case "connection":
                with stage.sync_engine.begin() as connection:
                    taskqueue.add(connection=connection, **again)  # type: ignore[arg-type]  # only a URL
            case "at once":
                taskqueue.add(transactional=False, **again)  # type: ignore[arg-type]  # only a URL
            case _:
                await taskqueue.add_async(transactional=False, **again)  # type: ignore[arg-type]  # only a URL

    async with stage.running():
        await worker.add_async()
        await stage.settled(4)
    assert depths == [0, 1, 2, 3]


async def test_a_request_begins_a_chain(stage: Stage) -> None:
    depths: list[int] = []

    @stage.task_handler("/worker")
    def worker(task: TaskContext) -> None:
        depths.append(task.depth)

    async def add(_request: Request) -> PlainTextResponse:
        taskqueue.add(url="/worker")
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/add", add, methods=["POST"])])
    async with stage.running(app, max_chain_depth=1) as hookware:
        await request(hookware, "/add")
        await stage.settled()
    assert depths == [0]


@EVERY_DATABASE_ON_A_LOOP
async def test_beyond_the_limit_no_task_is_added_and_the_one_that_wanted_it_is_dead(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker() -> None:
        taskqueue.add(url="/worker")
        taskqueue.add(url="/worker")

    async with stage.running(max_chain_depth=2):
        await worker.options(name="bomb").add_async()
        await stage.settled(7)  # 1 + 2 + 4
        tasks = await stage.hookware.inspector.list_tasks()
    assert [(task.state, task.dead_reason, task.depth) for task in tasks] == [(State.DEAD, "permanent", 2)] * 4
    assert "max_chain_depth is 2: end the chain" in (tasks[0].last_error or "")


async def test_a_handler_may_end_its_chain_well(stage: Stage) -> None:
    refused: list[int] = []

    @stage.task_handler("/worker")
    def worker(task: TaskContext) -> None:
        try:
            taskqueue.add(url="/worker")
        except InvalidTaskError:
            refused.append(task.depth)

    async with stage.running(max_chain_depth=1):
        await worker.options(retry_options=TaskRetryOptions(task_retry_limit=0)).add_async()
        await stage.settled(2)
        assert await stage.hookware.inspector.list_tasks() == []
    assert refused == [1]


@EVERY_DATABASE_ON_A_LOOP
async def test_a_chain_that_goes_on_for_ever_meets_no_end_of_the_column(stage: Stage) -> None:
    depths: list[int] = []

    @stage.task_handler("/worker")
    def worker(task: TaskContext) -> None:
        depths.append(task.depth)
        if len(depths) < 3:
            taskqueue.add(url="/worker")

    async with stage.running():
        row = to_rows([new_task(1)], 0)[0] | {"depth": MOST_DEPTH - 1}
        with stage.sync_engine.begin() as connection:
            connection.execute(insert(task_table), row)
        await stage.settled(3)
    assert depths == [MOST_DEPTH - 1, MOST_DEPTH, MOST_DEPTH]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2"])
async def test_a_limit_that_is_none_is_refused(stage: Stage, wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="max_chain_depth must be a whole number of at least 1, got"):
        stage.make(max_chain_depth=wrong)


async def test_tasks_that_breed_are_warned_of_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    @stage.task_handler("/bomb")
    def bomb(task: TaskContext) -> None:
        later = [taskqueue.Task(url="/bomb", countdown=3600) for _ in range(99)]
        taskqueue.Queue().add([*later, taskqueue.Task(url="/bomb")] if task.depth < 25 else later)

    async with stage.running():
        await bomb.add_async()
        await stage.settled(26)
    (warning,) = [r for r in caplog.records if "add more of them than run" in r.getMessage()]
    assert "POST /bomb for one" in warning.getMessage()


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_worker_that_has_more_to_do_adds_itself_back_without_any_setting(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    rest = 1200 - 10

    @stage.task_handler("/worker")
    def worker() -> None:
        nonlocal rest
        if rest:
            rest -= 1
            taskqueue.add(url="/worker")

    async with stage.running():
        with stage.sync_engine.begin() as connection:
            rows = [to_rows([new_task(n)], 0)[0] | {"depth": 10} for n in range(10)]
            connection.execute(insert(task_table), rows)
        await stage.recorder.wait_settled(1200, seconds=60)
    assert stage.task_count() == 0
    assert caplog.records == []
