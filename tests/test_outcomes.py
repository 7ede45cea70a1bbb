"""What is a success and what is a failure, end to end: through Hookware, a framework, and a real database."""

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Annotated, Any, Literal

import anyio
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI
from sqlalchemy import text
from sqlmodel import Session
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from hookware import PermanentTaskFailure, State, TaskRetryOptions, request_session, require_task, taskqueue
from hookware.core.lifecycle import Retry
from hookware.env import Env
from hookware.events import AttemptSettled, Event
from tests.asgi import request
from tests.databases import EVERY_DATABASE_ON_A_LOOP, refuse_at_commit
from tests.stage import AT_ONCE, Stage, Tally

ONLY_ONCE = TaskRetryOptions(task_retry_limit=0)
Endpoint = Callable[[Request], Awaitable[Response] | Response]


def starlette(endpoint: Endpoint) -> Starlette:
    return Starlette(routes=[Route("/worker", endpoint, methods=["POST"])])


# Statuses.


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["Starlette", "FastAPI"])
async def test_every_2xx_is_a_success_and_every_other_status_is_none(stage: Stage, framework: str) -> None:
    statuses = [100, 101, 103, *range(200, 300), 300, 301, 302, 303, 304, 307, 308, 399, 400, 401, 403, 404, 405, 408]
    statuses += [409, 410, 418, 422, 425, 451, 499, 500, 501, 502, 504, 505, 511, 599]

    async def endpoint(request: Request) -> Response:
        return Response(status_code=request.path_params["status"])

    routes: list[BaseRoute] = [Route("/worker/{status:int}", endpoint, methods=["POST"])]
    app = Starlette(routes=routes) if framework == "Starlette" else FastAPI(routes=routes)
    async with stage.running(app) as hookware:
        tasks = [taskqueue.Task(url=f"/worker/{status}", retry_options=ONLY_ONCE) for status in statuses]
        for some in (tasks[:100], tasks[100:]):
            await taskqueue.Queue().add_async(some)
        await stage.settled(len(statuses))
        left = await hookware.inspector.list_tasks(limit=1000)
    assert sorted(task.last_status or 0 for task in left) == [s for s in statuses if not 200 <= s < 300]
    assert {task.state for task in left} == {State.DEAD}


# Failures are tried again.


def raises(error: BaseException) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        raise error

    return endpoint


def raises_in_a_thread(error: BaseException) -> Endpoint:
    def endpoint(_request: Request) -> Response:
        raise error

    return endpoint


def fails() -> None:
    raise ValueError("after 200")


async def hangs(_request: Request) -> Response:
    await anyio.sleep_forever()
    raise AssertionError


async def stream(how: str) -> AsyncIterator[bytes]:
    yield b"one"
    if how == "hangs":
        await anyio.sleep_forever()
    raise ValueError("cut short")


class Raw(Response):
    """Sends only these messages."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        super().__init__()
        self.messages = messages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for message in self.messages:
            await send(message)


START = {"type": "http.response.start", "status": 200, "headers": []}
PART = {"type": "http.response.body", "body": b"x", "more_body": True}
END = {"type": "http.response.body", "body": b"x"}


class Swallowing(Raw):
    """Breaks the protocol, and does not mind."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for message in self.messages:
            try:
                await send(message)
            except RuntimeError:
                continue


FAILURES: dict[str, tuple[Endpoint, str]] = {
    "100": (lambda _: Response(status_code=100), "answered 100"),
    "303": (lambda _: RedirectResponse("/other", 303), "redirects are not followed"),
    "404": (lambda _: Response(status_code=404), "answered 404"),
    "500": (lambda _: Response(status_code=500), "answered 500"),
    "exception": (raises(ValueError("no")), "ValueError: no"),
    "exception in a thread": (raises_in_a_thread(ValueError("no")), "ValueError: no"),
    "HTTPException": (raises(HTTPException(409)), "answered 409"),
    "SystemExit": (raises(SystemExit(3)), "SystemExit: 3"),
    "SystemExit in a thread": (raises_in_a_thread(SystemExit(3)), "SystemExit: 3"),
    "KeyboardInterrupt": (raises(KeyboardInterrupt()), "KeyboardInterrupt"),
    "GeneratorExit": (raises(GeneratorExit()), "GeneratorExit"),
    "ExceptionGroup": (raises(ExceptionGroup("g", [ValueError("inside")])), "inside"),
    "BaseExceptionGroup": (raises(BaseExceptionGroup("g", [SystemExit(3)])), "SystemExit: 3"),
    "background task": (lambda _: PlainTextResponse("ok", background=BackgroundTask(fails)), "after 200"),
    "hang": (hangs, "no response within 0.05 s"),
    "stream that raises": (lambda _: StreamingResponse(stream("raises")), "cut short"),
    "stream that hangs": (lambda _: StreamingResponse(stream("hangs")), "status 200, 3 bytes so far"),
    "no last message": (lambda _: Raw(START, PART), "without its last body message"),
    "no response": (lambda _: Raw(), "without a response"),
    "two responses": (lambda _: Swallowing(START, END, START, END), "broke the ASGI protocol"),
    "no pair": (lambda _: Swallowing(START | {"headers": [(b"a", b"b", b"c")]}, END), "broke the ASGI protocol"),
    "no bytes": (lambda _: Swallowing(START | {"headers": [(b"retry-after", "5")]}, END), "must be a pair of bytes"),
    "two starts": (lambda _: Swallowing(START | {"status": 500}, START, END), "broke the ASGI protocol"),
}


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("writes", [True, False], ids=["writing", "plain"])
async def test_a_failure_is_tried_again_and_the_server_lives_on(stage: Stage, kind: str, writes: bool) -> None:
    attempts: list[int] = []
    fail, message = FAILURES[kind]

    async def endpoint(request: Request) -> Response:
        attempts.append(require_task(request).attempt)
        if writes:
            request_session().add(Tally(key="x", count=attempts[-1]))
        if attempts[-1] > 1:
            return Response()
        response = await anyio.to_thread.run_sync(fail, request) if "thread" in kind else fail(request)
        return await response if isinstance(response, Awaitable) else response

    async with stage.running(starlette(endpoint)) as hookware:
        await taskqueue.add_async(
            url="/worker", retry_options=AT_ONCE, dispatch_deadline=0.05 if "hang" in kind else 30
        )
        settled = await stage.settled(2)
        assert (await request(hookware, "/nothing")).status == 404
    assert attempts == [1, 2]
    assert isinstance(settled[0].decision, Retry)
    assert message in settled[0].decision.error
    assert stage.task_count() == 0
    assert stage.tally() == ({"x": 2} if writes else {})


@EVERY_DATABASE_ON_A_LOOP
async def test_a_failing_late_commit_after_200_is_a_failure(stage: Stage) -> None:
    """FastAPI commits a dependency of the default scope after the response: F07."""
    refuse_at_commit(stage.database, stage.sync_engine)
    app = FastAPI()

    def get_session() -> Any:
        with Session(stage.sync_engine) as session:
            yield session
            session.commit()

    @app.post("/worker")
    def worker(request: Request, session: Annotated[Session, Depends(get_session)]) -> str:
        attempt = require_task(request).attempt
        session.add(Tally(key=f"attempt {attempt}", count=1))
        if attempt < 3:
            session.execute(text("INSERT INTO child VALUES (7)"))
        return "ok"

    async with stage.running(app):
        await taskqueue.add_async(url="/worker", retry_options=AT_ONCE)
        settled = await stage.settled(3)
    assert [isinstance(each.decision, Retry) for each in settled] == [True, True, False]
    assert stage.tally() == {"attempt 3": 1}
    assert stage.task_count() == 0


async def test_a_failing_background_task_of_fastapi_is_a_failure(stage: Stage) -> None:
    app, attempts = FastAPI(), []

    @app.post("/worker")
    def worker(request: Request, background: BackgroundTasks) -> str:
        attempts.append(require_task(request).attempt)
        if attempts[-1] == 1:
            background.add_task(fails)
        return "ok"

    async with stage.running(app):
        await taskqueue.add_async(url="/worker", retry_options=AT_ONCE)
        await stage.settled(2)
    assert attempts == [1, 2]


# Waits.


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_postpones(stage: Stage, status: int) -> None:
    app = starlette(lambda _: Response(status_code=status, headers={"Retry-After": "120"}))
    async with stage.running(app):
        await taskqueue.add_async(url="/worker")
        (settled,) = await stage.settled()
    assert isinstance(settled.decision, Retry)
    assert 120_000_000 <= settled.decision.delay_us <= 121_000_000
    (wait_us,) = stage.rows("SELECT eta_us - created_us FROM hookware_task")
    assert wait_us >= 120_000_000


class HurryingEnv(Env):
    """An Env whose clocks jump over the wait of every retry."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.skipped_us

    def monotonic(self) -> float:
        return super().monotonic() + self.skipped_us / 1e6

    def random(self) -> float:
        return 0.0

    def note(self, settled: Event) -> None:
        if isinstance(settled, AttemptSettled) and isinstance(settled.decision, Retry):
            self.skipped_us += settled.decision.delay_us


async def test_a_worker_that_fails_six_times_shows_the_documented_gaps(stage: Stage) -> None:
    env = HurryingEnv()
    began: list[int] = []

    @stage.task_handler("/worker")
    async def worker() -> None:
        began.append(env.now_us())
        if len(began) < 7:
            raise ValueError("no")

    async with stage.running(env=env, poll_seconds=0.01, lease_seconds=100) as hookware:
        hookware.events.subscribe(env.note)
        worker.add()
        settled = await stage.settled(7)
    waits = [each.decision.delay_us for each in settled if isinstance(each.decision, Retry)]
    assert waits == [100_000, 200_000, 400_000, 800_000, 1_600_000, 3_200_000]
    gaps = [after - before for before, after in pairwise(began)]
    assert all(wait <= gap < wait + 1_000_000 for wait, gap in zip(waits, gaps, strict=True)), gaps
    assert stage.task_count() == 0


# Dead, and run again.


def says_no_retry(_request: Request) -> Response:
    return Response(status_code=409, headers={"X-Hookware-No-Retry": "1"})


def raises_permanent_failure(_request: Request) -> Response:
    raise PermanentTaskFailure("never")


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("refuse", [says_no_retry, raises_permanent_failure])
async def test_a_final_failure_is_dead_at_once_listed_and_may_run_again(stage: Stage, refuse: Endpoint) -> None:
    attempts: list[int] = []

    def endpoint(request: Request) -> Response:
        attempts.append(require_task(request).attempt)
        return Response() if len(attempts) > 1 else refuse(request)  # type: ignore[return-value]  # a sync one

    async with stage.running(starlette(endpoint), poll_seconds=0.05) as hookware:
        added = await taskqueue.add_async("payload", url="/worker", name="n")
        await stage.settled()
        (dead,) = await hookware.inspector.list_tasks(state=State.DEAD)
        assert (dead.id, dead.name, dead.body, dead.dead_reason) == (added.id, "n", b"payload", "permanent")
        assert dead.last_error
        assert await hookware.inspector.run_again(dead.id)
        await stage.settled(2)
        assert not await hookware.inspector.run_again(dead.id)
    assert attempts == [1, 1]
    assert stage.task_count() == 0


# What a handler sees.


@EVERY_DATABASE_ON_A_LOOP
async def test_the_headers_of_a_delivery(stage: Stage) -> None:
    seen: list[dict[str, str]] = []

    def endpoint(request: Request) -> Response:
        seen.append(dict(request.headers))
        assert request.client is not None
        assert request.client.host == "0.1.0.2"
        return Response(status_code=202 if len(seen) > 1 else 409)

    async with stage.running(starlette(endpoint)):
        task = await taskqueue.add_async(
            "x", url="/worker", name="n", queue_name="mail", headers={"X-Mine": "1"}, retry_options=AT_ONCE
        )
        await stage.settled(2)
    first, second = seen
    assert {name: first[name] for name in first if name.startswith("x-appengine-")} == {
        "x-appengine-queuename": "mail",
        "x-appengine-taskname": "n",
        "x-appengine-taskretrycount": "0",
        "x-appengine-taskexecutioncount": "0",
        "x-appengine-tasketa": first["x-appengine-tasketa"],
    }
    assert abs(float(first["x-appengine-tasketa"]) - task.eta_posix) < 5
    assert (second["x-appengine-taskretrycount"], second["x-appengine-taskexecutioncount"]) == ("1", "1")
    assert second["x-appengine-taskpreviousresponse"] == "409"
    assert int(second["x-hookware-fence"]) > int(first["x-hookware-fence"])
    assert (first["x-hookware-task-id"], first["x-hookware-deadline"]) == (str(task.id), "30.0")
    assert (first["x-mine"], first["content-length"], first["host"]) == ("1", "1", "localhost")


# FastAPI's dependencies where tasks are added.


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("scope", ["function", "request"])
async def test_a_commit_in_a_dependency_of_fastapi(
    stage: Stage, caplog: pytest.LogCaptureFixture, scope: Literal["function", "request"]
) -> None:
    refuse_at_commit(stage.database, stage.sync_engine)
    app = FastAPI()

    def get_session() -> Any:
        with Session(stage.sync_engine) as session:
            yield session
            session.commit()

    @app.post("/order")
    def order(fails: bool, session: Annotated[Session, Depends(get_session, scope=scope)]) -> str:
        session.execute(text("SELECT 1"))
        taskqueue.add(url="/worker")
        if fails:
            session.execute(text("INSERT INTO child VALUES (7)"))
        return "ordered"

    async with stage.running(app, dispatch=False) as hookware:
        for _ in range(2):
            answer = await request(hookware, "/order", query=b"fails=1")
            assert answer.status == (500 if scope == "function" else 200)
            assert stage.task_count() == 0
        assert (await request(hookware, "/order", query=b"fails=0")).status == 200
        assert stage.task_count() == 1
    assert caplog.text.count('scope="function"') == (0 if scope == "function" else 1)
