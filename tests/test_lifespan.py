"""The lifespan protocol with hookware's loops inside it: when they start, when they have ended, and what passes by."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hookware import Hookware, taskqueue
from hookware.errors import ConfigurationError
from tests.asgi import request
from tests.serving import StartupFailedError, serving
from tests.stage import Stage

STARTUP: Message = {"type": "lifespan.startup"}
SHUTDOWN: Message = {"type": "lifespan.shutdown"}


async def play(app: ASGIApp, *incoming: Message) -> list[Message]:
    """Give an app these lifespan messages, and then the end of the world; what it sent."""
    waiting, sent = list(incoming), []

    async def receive() -> Message:
        if not waiting:
            await anyio.sleep_forever()
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    return sent


def types(messages: list[Message]) -> list[str]:
    return [message["type"].removeprefix("lifespan.") for message in messages]


def app_with_lifespan(story: list[str], steps: dict[str, Callable[[], Any]] | None = None) -> Starlette:
    """Give an app that writes down its start-up and shutdown, and does what a test wants at each."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, str]]:
        story.append("app starts")
        await (steps or {}).get("start", anyio.lowlevel.checkpoint)()
        yield {"pool": "the pool"}
        story.append("app stops")
        await (steps or {}).get("stop", anyio.lowlevel.checkpoint)()

    return Starlette(lifespan=lifespan)


# Start-up.


async def test_tasks_run_between_the_apps_start_up_and_its_shutdown(stage: Stage) -> None:
    story: list[str] = []
    begun = anyio.Event()

    @stage.task_handler("/worker")
    async def worker(key: str) -> None:
        story.append(f"{key} begins")
        begun.set()
        await anyio.sleep(0.05)
        story.append(f"{key} ends")

    async def start() -> None:
        await worker.options(transactional=False).add_async("early")
        for _ in range(20):
            await anyio.lowlevel.checkpoint()  # a due task is there, and would run if it could

    hookware = stage.make(app_with_lifespan(story, {"start": start}))
    async with serving(hookware):
        story.append("served")
        await begun.wait()
    assert story == ["app starts", "served", "early begins", "early ends", "app stops"]
    assert stage.task_count() == 0


async def test_nothing_runs_after_the_shutdown(stage: Stage) -> None:
    ran = anyio.Event()

    @stage.task_handler("/worker")
    async def worker() -> None:
        ran.set()

    async def stop() -> None:
        await worker.add_async()
        with anyio.move_on_after(0.1):
            await ran.wait()

    hookware = stage.make(app_with_lifespan([], {"stop": stop}))
    async with serving(hookware):
        pass
    assert (ran.is_set(), stage.task_count()) == (False, 1)


async def test_shutdown_waits_for_running_tasks_and_gives_the_others_back(stage: Stage) -> None:
    story: list[str] = []
    begun = anyio.Event()

    @stage.task_handler("/hangs")
    async def hangs() -> None:
        begun.set()
        await anyio.sleep_forever()

    hookware = stage.make(app_with_lifespan(story), drain_seconds=0.05)
    async with serving(hookware):
        hangs.add()
        await begun.wait()
    assert story == ["app starts", "app stops"]
    assert stage.rows("SELECT state, attempt_count, owner FROM hookware_task") == [(0, 0, None)]


@pytest.mark.parametrize("framework", [True, False])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nothing_is_left_to_do_when_the_server_hears_of_the_end(stage: Stage, framework: bool) -> None:
    waiting, at_the_end = [STARTUP, SHUTDOWN], []
    hookware = stage.make(app_with_lifespan([]) if framework else returns)

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        if message["type"] == "lifespan.shutdown.complete":
            pool = hookware._outbox.runner._engine.pool  # type: ignore[attr-defined]  # a ThreadRunner
            at_the_end.append((hookware._outbox.running, pool.checkedin()))
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # as hypercorn does: what still waits for anything now is broken off

    await asyncio.create_task(hookware({"type": "lifespan", "state": {}}, receive, send))
    assert at_the_end == [(False, 0)]


async def test_the_apps_failure_to_start_passes_through(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []

    @stage.task_handler("/worker")
    async def worker() -> None:
        ran.append("ran")

    async def fail() -> None:
        await worker.add_async()
        raise ValueError("no pool")

    hookware = stage.make(app_with_lifespan([], {"start": fail}))
    with caplog.at_level(logging.INFO), pytest.raises(ValueError, match="no pool"):
        await play(hookware, STARTUP)
    assert ran == []
    assert "1 task handler" not in caplog.text, "the loops have not begun"
    assert stage.task_count() == 1


@pytest.mark.parametrize("when", ["start", "stop"])
async def test_an_exception_in_the_apps_lifespan_is_the_servers_to_see(stage: Stage, when: str) -> None:
    sent: list[Message] = []
    waiting = [STARTUP, SHUTDOWN]

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    async def fail() -> None:
        raise ValueError(when)

    hookware = stage.make(app_with_lifespan([], {when: fail}))
    with pytest.raises(ValueError, match=when):
        await hookware({"type": "lifespan", "state": {}}, receive, send)
    expected = {"start": ["startup.failed"], "stop": ["startup.complete", "shutdown.failed"]}
    assert types(sent) == expected[when]
    assert stage.sync_engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool


async def test_hookwares_own_failure_to_start_is_told_to_the_server(stage: Stage, tmp_path: Any) -> None:
    story: list[str] = []
    (tmp_path / "folder.db").mkdir()
    engine = create_engine(f"sqlite:///{tmp_path}/folder.db")
    hookware = Hookware(app_with_lifespan(story), engine=engine, router=stage.router)
    with pytest.raises(StartupFailedError, match=r"hookware cannot start: .*unable to open database file"):
        async with serving(hookware):
            pass
    # Some servers heed the message only, and Starlette's TestClient only the exception.
    with pytest.raises(ConfigurationError, match="unable to open database file"):
        await play(hookware, STARTUP)
    assert story == [], "the app never started"
    engine.dispose()


async def test_a_cancelled_lifespan_gives_everything_back(stage: Stage) -> None:
    begun = anyio.Event()

    @stage.task_handler("/hangs")
    async def hangs() -> None:
        begun.set()
        await anyio.sleep_forever()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(play, stage.make(), STARTUP)
            while not (hasattr(stage, "hookware") and stage.hookware._outbox.running):
                await anyio.lowlevel.checkpoint()
            await hangs.add_async()
            await begun.wait()
            group.cancel_scope.cancel()
    assert stage.rows("SELECT state, owner FROM hookware_task") == [(0, None)]
    assert stage.hookware._outbox.running is False


# Apps without a lifespan.


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await Response()(scope, receive, send)


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await Response()(scope, receive, send)


@pytest.mark.parametrize("app", [raises, returns, None], ids=["raises", "returns", "no app"])
async def test_an_app_without_lifespan_is_answered_for(stage: Stage, app: ASGIApp | None) -> None:
    @stage.task_handler("/worker")
    def worker() -> None: ...

    async with stage.running(app):
        worker.add()
        await stage.settled()
    assert types(await play(stage.make(app), STARTUP, SHUTDOWN)) == ["startup.complete", "shutdown.complete"]


async def test_an_app_that_breaks_after_it_asked_is_not_answered_for(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            taskqueue.add(url="/worker")
            await Response()(scope, receive, send)
            return
        await receive()
        raise LookupError("broken")

    hookware = stage.make(app)
    with pytest.raises(LookupError, match="broken"):
        await play(hookware, STARTUP)
    # Such servers as uvicorn serve on: then it is as if there were no lifespan.
    assert (await request(hookware, "/")).status == 200
    assert stage.task_count() == 1
    assert "nobody dispatches them here" in caplog.text
    await hookware._outbox.close()


# No lifespan at all.


def adds(_request: Request) -> Response:
    taskqueue.add(url="/worker")
    return Response()


async def test_without_lifespan_tasks_are_stored_and_one_warning_says_so(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    hookware = stage.make(Starlette(routes=[Route("/", adds, methods=["POST"])]))
    for _ in range(3):
        assert (await request(hookware, "/")).status == 200
    assert stage.task_count() == 3
    assert caplog.text.count("nobody dispatches them here") == 1
    await hookware._outbox.close()


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_on_a_mounted_sub_app_adding_is_an_error_that_says_what_to_do(stage: Stage, framework: Any) -> None:
    sub = framework(routes=[Route("/", adds, methods=["POST"])])
    stage.add_to(sub)
    wrapped = stage.make(Starlette(routes=[Route("/", adds, methods=["POST"])]))
    app = Starlette(routes=[Mount("/sub", sub), Mount("/wrapped", wrapped)])
    if framework is FastAPI:
        app = FastAPI()
        app.mount("/sub", sub)
        app.mount("/wrapped", wrapped)
    async with serving(app):
        for path in ("/sub/", "/wrapped/"):
            answer = await request(app, path)
            assert answer.status == 500
            assert isinstance(answer.error, ConfigurationError)
            assert "outermost app" in str(answer.error)


# The line at start-up.


@pytest.mark.parametrize(("options", "end"), [({}, ""), ({"dispatch": False}, ", dispatch off")])
async def test_one_line_at_start_up(
    stage: Stage, caplog: pytest.LogCaptureFixture, options: dict[str, Any], end: str
) -> None:
    stage.task_handler("/worker")(lambda: None)
    with caplog.at_level(logging.INFO):
        async with stage.running(**options):
            pass
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert lines == [f"hookware: 1 task handler, {stage.sync_engine.url}{end}"]


# State.


async def test_the_state_of_the_lifespan_is_in_every_task(stage: Stage) -> None:
    seen: list[object] = []

    def route(request: Request) -> Response:
        seen.append(request.state.pool)
        request.state.pool = "changed in one request"
        return Response()

    app = app_with_lifespan([])
    app.routes.append(Route("/route", route, methods=["POST"]))

    @stage.task_handler("/worker")
    def worker(request: Request) -> None:
        seen.append(request.state.pool)

    async with stage.running(app):
        await taskqueue.add_async(url="/route")
        await stage.settled(1)
        await taskqueue.add_async(url="/route")
        await stage.settled(2)
        worker.add()
        await stage.settled(3)
    assert seen == ["the pool"] * 3
