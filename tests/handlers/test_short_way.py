"""The short way to a task handler and the whole way through Hookware's middleware: nobody can tell them apart."""

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import Session
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from hookware import (
    PermanentTaskFailure,
    QueueSettings,
    TaskContext,
    TaskHandler,
    TaskRetryOptions,
    TaskRouter,
    taskqueue,
)
from hookware.core.lifecycle import Complete
from hookware.delivery import Call
from hookware.direct import DirectRoutes
from tests.stage import Stage, Tally

Handler = Callable[..., Any]


async def returns_nothing(key: str, number: int = 3) -> None:
    assert (key, number) == ("k", 3)


def returns_nothing_from_a_thread(key: str) -> None:
    assert key == "k"


async def returns_json(key: str) -> dict[str, str]:
    return {"key": key}


async def returns_a_response() -> Response:
    return Response(status_code=204)


async def returns_a_refusal() -> Response:
    return Response("no room", 429, {"Retry-After": "77"})


async def streams() -> Response:
    async def chunks() -> Any:
        yield b"a"
        yield b"b"

    return StreamingResponse(chunks())


async def fails_in_the_background() -> Response:
    def fail() -> None:
        raise RuntimeError("in the background")

    return JSONResponse({}, background=BackgroundTask(fail))


async def breaks_the_protocol() -> Response:
    class Odd(Response):
        async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.body", "body": b""})

    return Odd()


async def raises() -> None:
    raise ValueError("odd")


async def gives_up() -> None:
    raise PermanentTaskFailure("never again")


async def refuses_for_good() -> None:
    raise HTTPException(410, "gone", {"X-Hookware-No-Retry": "1"})


async def asks_to_come_later() -> None:
    raise HTTPException(503, "busy", {"Retry-After": "99"})


async def wants_a_number(number: int) -> None:
    raise AssertionError(number)


def writes(session: Session, key: str) -> None:
    session.add(Tally(key=key, count=1))


def writes_and_fails(session: Session, key: str) -> None:
    session.add(Tally(key=key, count=1))
    raise ValueError("after the write")


def adds_another(key: str) -> None:
    taskqueue.add(url="/end", countdown=3600, params={"key": key})


def adds_another_and_fails(key: str) -> None:
    adds_another(key)
    raise ValueError("after the add")


async def takes_the_request(request: Request) -> None:
    assert request.headers["x-appengine-queuename"] == "default"
    assert await request.body() == b"key=k"


async def takes_the_task(task: TaskContext) -> None:
    assert task.attempt == 1


HANDLERS: list[Handler] = [
    returns_nothing, returns_nothing_from_a_thread, returns_json, returns_a_response, returns_a_refusal, streams,
    fails_in_the_background, breaks_the_protocol, raises, gives_up, refuses_for_good, asks_to_come_later,
    wants_a_number, writes, writes_and_fails, adds_another, adds_another_and_fails, takes_the_request, takes_the_task,
]  # fmt: skip


async def outcome_of(stage: Stage, handler: Handler) -> list[object]:
    """Run one task; what is decided, what it wrote, and what it added."""
    stage.router = TaskRouter()
    stage.task_handler("/worker")(handler)
    async with stage.running():
        stage.execute("DELETE FROM tally")
        stage.execute("DELETE FROM hookware_task")
        retry = TaskRetryOptions(task_retry_limit=3, min_backoff_seconds=50)
        await taskqueue.Queue().add_async(taskqueue.Task(url="/worker", params={"key": "k"}, retry_options=retry))
        (settled,) = await stage.settled()
        added = stage.rows("SELECT url FROM hookware_task WHERE url != '/worker'")
        decision = re.sub(r"delay_us=(\d+)\d{6}\b", r"delay_us=\1 s", repr(settled.decision))
        return [decision, settled.accepted, stage.tally(), added]


@pytest.mark.parametrize("handler", HANDLERS)
async def test_both_ways_end_alike(stage: Stage, handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[bool] = []
    serve = TaskHandler.serve

    async def noting(*args: Any) -> None:
        served.append(True)
        await serve(*args)

    monkeypatch.setattr(TaskHandler, "serve", noting)
    short = await outcome_of(stage, handler)
    assert served == ([] if handler in (takes_the_request, takes_the_task) else [True])
    monkeypatch.setattr(DirectRoutes, "find", lambda _routes, _path: None)
    assert await outcome_of(stage, handler) == short
    assert len(served) <= 1


@pytest.mark.parametrize("way", ["short", "whole"])
async def test_what_a_plain_handler_wrote_counts_if_it_ends_soon_after_its_deadline(
    stage: Stage, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_up = threading.Event()
    cut = Call.cut

    def noting(call: Call) -> None:
        cut(call)
        is_up.set()

    monkeypatch.setattr(Call, "cut", noting)
    if way == "whole":
        monkeypatch.setattr(DirectRoutes, "find", lambda _routes, _path: None)

    @stage.task_handler("/worker")
    def writes_late(session: Session) -> None:
        session.add(Tally(key="late", count=1))
        session.flush()
        assert is_up.wait(30)

    async with stage.running():
        await taskqueue.Queue().add_async(taskqueue.Task(url="/worker", dispatch_deadline=0.2))
        (settled,) = await stage.settled()
        assert (settled.decision, stage.tally(), stage.task_count()) == (Complete(), {"late": 1}, 0)


async def test_a_plain_handler_needs_one_thread(stage: Stage) -> None:
    used: list[tuple[str, int]] = []

    @stage.task_handler("/worker")
    def writes(session: Session) -> None:
        used.append(("handler", threading.get_ident()))
        session.add(Tally(key="k", count=1))
        session.flush()

    event.listen(stage.sync_engine, "commit", lambda _connection: used.append(("commit", threading.get_ident())))
    async with stage.running():
        await taskqueue.Queue().add_async(taskqueue.Task(url="/worker"))
        await stage.settled()
        assert stage.tally() == {"k": 1}
    begun = [thread for what, thread in used if what == "handler"]
    assert used[used.index(("handler", begun[0])) + 1] == ("commit", begun[0])


async def test_the_attempt_that_a_plain_handlers_own_commit_ends_was_answered_200(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def flushes(session: Session) -> None:
        session.add(Tally(key="k", count=1))
        session.flush()

    async with stage.running(attempt_history="all", queues=[QueueSettings(retention_seconds=60)]) as hookware:
        await taskqueue.Queue().add_async(taskqueue.Task(url="/worker"))
        await stage.settled()
        (task,) = await hookware.inspector.list_tasks()
        assert [kept.status for kept in await hookware.inspector.attempts(task.id)] == [200]
