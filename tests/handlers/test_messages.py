"""The likeliest mistakes, and what they are told: the value, the rule and the next step."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlmodel import Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hookware import Hookware, PermanentTaskFailure, TaskContext, TaskRetryOptions, TaskRouter, taskqueue
from hookware.core.lifecycle import Complete, Die
from hookware.errors import ConfigurationError, InvalidTaskError
from hookware.events import AttemptSettled
from tests.serving import Recorder, serving
from tests.stage import Stage

ONCE = TaskRetryOptions(task_retry_limit=0)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/messages.db")
    yield engine
    engine.dispose()


async def settled(engine: Engine, router: TaskRouter, add: Callable[[], Any], app: Any = None) -> AttemptSettled:
    """Add a task, and give what became of its first attempt."""
    hookware = Hookware(app, engine=engine, router=router)
    recorder = Recorder(hookware)
    async with serving(hookware):
        add()
        return (await recorder.wait_settled(1))[0]


async def error_of(engine: Engine, router: TaskRouter, add: Callable[[], Any], app: Any = None) -> str:
    decision = (await settled(engine, router, add, app)).decision
    assert isinstance(decision, Die)
    return decision.error


async def test_a_url_that_nobody_answers_is_told_what_to_check(engine: Engine) -> None:
    error = await error_of(engine, TaskRouter(), lambda: taskqueue.add(url="/wroker", retry_options=ONCE), Starlette())
    assert error == (
        "answered 404 (does a handler or route of the app take this method and URL? Check url=, and that the module "
        "which registers the handler is imported): Not Found"
    )


async def test_the_beginning_of_a_failed_answer_is_kept(engine: Engine) -> None:
    async def refuse(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("key: Field required " + "x" * 500, 422)

    app = Starlette(routes=[Route("/form", refuse, methods=["POST"])])
    error = await error_of(engine, TaskRouter(), lambda: taskqueue.add(url="/form", retry_options=ONCE), app)
    assert error.startswith("answered 422: key: Field required xxx")
    assert len(error) == len("answered 422: ") + 200


async def test_a_missing_parameter_is_told_with_those_that_came(engine: Engine) -> None:
    router = TaskRouter()

    @router.task_handler("/worker")
    def worker(key: str) -> None:
        """Never called."""

    error = await error_of(engine, router, lambda: taskqueue.add(url="/worker", params={"kye": "a", "n": 1}))
    assert "key: Field required (the task carries: kye, n)" in error


async def test_several_values_for_one_are_refused(engine: Engine) -> None:
    router = TaskRouter()

    @router.task_handler("/worker")
    def worker(key: str) -> None:
        """Never called."""

    error = await error_of(engine, router, lambda: taskqueue.add(url="/worker", params={"key": [1, 2]}))
    assert "'key' comes 2 times, and takes one value: annotate it as a list" in error


async def test_an_annotated_session_is_a_session(engine: Engine) -> None:
    router, got = TaskRouter(), list[object]()

    @router.task_handler("/worker")
    def worker(session: Annotated[Session, "as FastAPI users write it"], task: Annotated[TaskContext, 1]) -> None:
        got.extend([session, task])

    assert isinstance((await settled(engine, router, worker.add)).decision, Complete)
    assert isinstance(got[0], Session)
    assert isinstance(got[1], TaskContext)


async def test_complete_in_is_called_once(engine: Engine) -> None:
    router = TaskRouter()

    @router.task_handler("/worker")
    def worker(task: TaskContext) -> None:
        with Session(engine) as session:
            task.complete_in(session)
            task.complete_in(session)

    error = await error_of(engine, router, worker.options(retry_options=ONCE).add)
    assert "complete_in() was called in this attempt before: call it once" in error


async def test_only_the_first_failure_shows_where_and_a_permanent_one_never_does(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    router = TaskRouter()

    @router.task_handler("/fails")
    def fails() -> None:
        raise ValueError("no")

    @router.task_handler("/gives-up")
    def gives_up() -> None:
        raise PermanentTaskFailure("never")

    hookware = Hookware(engine=engine, router=router)
    recorder = Recorder(hookware)
    async with serving(hookware):
        fails.options(retry_options=TaskRetryOptions(task_retry_limit=2, min_backoff_seconds=0)).add()
        gives_up.add()
        await recorder.wait_settled(4)
    assert [record.exc_info is not None for record in caplog.records if record.exc_info].count(True) == 1
    assert caplog.text.count("ValueError: no") >= 3
    assert "inspector().run_again(id)" in caplog.text


def test_a_path_given_as_the_payload_is_noticed() -> None:
    with pytest.raises(InvalidTaskError, match=r"'/worker' looks like a path: write add\(url='/worker'\)"):
        taskqueue.add("/worker", params={"key": "a"})


async def test_with_the_path_of_its_queue_such_a_payload_is_sent(stage: Stage) -> None:
    given: list[bytes] = []

    @stage.task_handler("/_ah/queue/files")
    async def on_file(request: Request) -> None:
        given.append(await request.body())

    async with stage.running():
        await taskqueue.add_async("/data/a.png", queue_name="files", url="/_ah/queue/files")
        await stage.settled()
    assert given == [b"/data/a.png"]


@pytest.mark.parametrize(
    ("path", "says"),
    [("/w/{key}", "has no parameters"), (len, r'write @task_handler\("/worker"\)')],
    ids=["braces", "bare"],
)
def test_a_handlers_path_is_a_plain_path(path: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        TaskRouter().task_handler(path)
