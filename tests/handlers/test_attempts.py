"""What can be seen of each attempt at a task, and where the task came from, in a running app."""

import anyio
import pytest
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from hookware import PermanentTaskFailure, QueueSettings, TaskContext, TaskRetryOptions, taskqueue
from hookware.core.codec import TaskIdentity
from hookware.core.history import AttemptRecord
from hookware.errors import ConfigurationError
from tests.asgi import request
from tests.databases import EVERY_ASYNC_DRIVER, EVERY_DATABASE_ON_A_LOOP
from tests.stage import AT_ONCE, Stage, Tally

KEEPS = [QueueSettings(retention_seconds=60)]


async def history(stage: Stage) -> list[AttemptRecord]:
    """Give what is kept of the one task."""
    (info,) = await stage.hookware.inspector.list_tasks()
    return await stage.hookware.inspector.attempts(info.id)


def kept_count(stage: Stage) -> int:
    return int(stage.rows("SELECT count(*) FROM hookware_attempt")[0])


# Attempts.


@EVERY_DATABASE_ON_A_LOOP
async def test_a_failed_attempt_shows_the_exchange(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker(page: int) -> Response:
        headers = {"X-Reason": "full", "Set-Cookie": "session=s3cret", "X-Auth-Token": "s3cret"}
        return PlainTextResponse("the printer has no paper", 503, headers)

    async with stage.running():
        retry = TaskRetryOptions(min_backoff_seconds=1000)
        await taskqueue.add_async(url="/worker?page=7", method="PUT", retry_options=retry)
        await stage.settled()
        (kept,) = await history(stage)
    assert (kept.number, kept.attempt_count, kept.outcome, kept.status) == (1, 1, "retry", 503)
    assert (kept.method, kept.url) == ("PUT", "/worker?page=7")
    assert kept.error == "answered 503: the printer has no paper"
    assert kept.response_headers == (
        ("x-reason", "full"), ("content-length", "24"), ("content-type", "text/plain; charset=utf-8"),
    )  # fmt: skip
    assert (kept.response_text, kept.response_byte_count) == ("the printer has no paper", 24)
    assert kept.began_us is not None
    assert kept.duration_us is not None
    assert 0 <= kept.duration_us <= kept.ended_us - kept.began_us < 60_000_000
    assert kept.owner is not None
    assert [text for text in stage.rows("SELECT response_headers FROM hookware_attempt") if "s3cret" in text] == []


async def test_what_raised_shows_the_error_and_no_response(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker() -> None:
        raise PermanentTaskFailure("no such key")

    async with stage.running():
        await worker.add_async()
        await stage.settled()
        (kept,) = await history(stage)
    assert (kept.outcome, kept.status, kept.response_headers, kept.response_text) == ("dead", None, (), "")
    assert kept.error is not None
    assert "no such key" in kept.error


async def test_of_a_long_answer_the_beginning_is_kept_and_the_error_stays_short(stage: Stage) -> None:
    async def chunks() -> object:
        for _ in range(100):
            yield b"\xc3\xa4" * 500

    async def app(_request: Request) -> Response:
        return StreamingResponse(chunks(), 500)  # type: ignore[arg-type]  # an async generator

    async with stage.running(Starlette(routes=[Route("/long", app, methods=["POST"])])):
        await taskqueue.add_async(url="/long")
        await stage.settled()
        (kept,) = await history(stage)
    assert (kept.response_text, kept.response_byte_count) == ("ä" * 1000, 100_000)
    assert kept.error == "answered 500: " + "ä" * 100


@EVERY_DATABASE_ON_A_LOOP
async def test_each_attempt_is_there_until_the_task_completes(stage: Stage) -> None:
    seen: list[list[str]] = []

    @stage.task_handler("/worker")
    async def worker(task: TaskContext) -> Response:
        records = await stage.hookware.inspector.attempts(task.id)
        seen.append([f"{each.attempt_count} {each.outcome}" for each in records])
        return Response(status_code=500 if task.attempt < 3 else 200)

    async with stage.running():
        await worker.options(retry_options=AT_ONCE).add_async()
        await stage.settled(3)
    assert seen == [[], ["1 retry"], ["1 retry", "2 retry"]]
    assert (stage.task_count(), kept_count(stage)) == (0, 0)


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("how", ["own session", "complete_in"])
@pytest.mark.parametrize("keeps", [False, True])
async def test_a_handlers_own_transaction_takes_the_history_along(stage: Stage, how: str, keeps: bool) -> None:
    @stage.task_handler("/worker")
    def own_session(task: TaskContext, session: Session) -> None:
        session.merge(Tally(key="x", count=task.attempt))
        if task.attempt == 1:
            raise ValueError

    @stage.task_handler("/complete-in")
    def complete_in(task: TaskContext) -> None:
        with Session(stage.sync_engine) as session:
            session.merge(Tally(key="x", count=task.attempt))
            task.complete_in(session)
            if task.attempt == 1:
                raise ValueError
            session.commit()

    worker = own_session if how == "own session" else complete_in
    async with stage.running(queues=KEEPS if keeps else []):
        await worker.options(retry_options=AT_ONCE).add_async()
        await stage.settled(2)
        outcomes = [each.outcome for each in await history(stage)] if keeps else []
    assert outcomes == (["retry"] if keeps else [])
    assert (stage.tally(), kept_count(stage)) == ({"x": 2}, int(keeps))


@EVERY_ASYNC_DRIVER
async def test_an_async_session_takes_it_along_too(async_stage: Stage) -> None:
    @async_stage.task_handler("/worker")
    async def worker(task: TaskContext) -> None:
        async with AsyncSession(async_stage.async_engine) as session:
            task.complete_in(session)
            if task.attempt == 1:
                raise ValueError
            await session.commit()

    async with async_stage.running():
        await worker.options(retry_options=AT_ONCE).add_async()
        await async_stage.settled(2)
    assert (async_stage.task_count(), kept_count(async_stage)) == (0, 0)


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("how", ["settled", "own session", "complete_in"])
async def test_all_attempts_of_a_kept_task_are_seen_where_one_wants_it(stage: Stage, how: str) -> None:
    @stage.task_handler("/settled")
    def settled() -> Response:
        return PlainTextResponse("done", headers={"X-Rows": "3"})

    @stage.task_handler("/own-session")
    def own_session(session: Session) -> Response:
        session.add(Tally(key="x", count=1))
        return PlainTextResponse("done", headers={"X-Rows": "3"})

    @stage.task_handler("/complete-in")
    def complete_in(task: TaskContext) -> None:
        with Session(stage.sync_engine) as session:
            task.complete_in(session)
            session.commit()

    worker = {"settled": settled, "own session": own_session, "complete_in": complete_in}[how]
    async with stage.running(queues=KEEPS, attempt_history="all"):
        await worker.add_async()
        await stage.settled()
        (kept,) = await history(stage)
    assert (kept.outcome, kept.error, kept.attempt_count) == ("completed", None, 1)
    assert kept.duration_us is not None
    if how != "complete_in":  # there the handler had not answered yet
        assert (kept.status, kept.response_text, kept.response_headers[0]) == (200, "done", ("x-rows", "3"))


async def test_all_attempts_of_a_task_that_is_not_kept_leave_nothing(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker(task: TaskContext) -> Response:
        return Response(status_code=500 if task.attempt == 1 else 200)

    async with stage.running(attempt_history="all"):
        await worker.options(retry_options=AT_ONCE).add_async()
        await stage.settled(2)
    assert (stage.task_count(), kept_count(stage)) == (0, 0)


async def test_by_default_a_success_leaves_no_record(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker(task: TaskContext) -> None:
        """Do nothing."""

    async with stage.running(queues=KEEPS):
        await worker.add_async()
        await stage.settled()
    assert (stage.task_count(), kept_count(stage)) == (1, 0)


async def test_switched_off_nothing_is_kept(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker(task: TaskContext) -> Response:
        return Response(status_code=500)

    async with stage.running(attempt_history="off"):
        await worker.options(retry_options=AT_ONCE).add_async()
        await stage.settled(3)
        assert await history(stage) == []
    assert kept_count(stage) == 0


class Reversed:
    """A codec, as simple as one can be."""

    name = "reversed"

    def encode(self, body: bytes, _task: TaskIdentity) -> bytes:
        return body[::-1]

    def decode(self, body: bytes, _task: TaskIdentity) -> bytes:
        return body[::-1]


async def test_where_payloads_are_encoded_nothing_is_kept_of_responses(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker() -> Response:
        return PlainTextResponse("name and address", 500, {"X-Name": "name"})

    async with stage.running(codec=Reversed()):
        await worker.add_async()
        await stage.settled()
        (kept,) = await history(stage)
    assert (kept.status, kept.response_headers, kept.response_text, kept.response_byte_count) == (500, (), "", 16)


async def test_what_the_stop_cuts_short_is_seen_and_not_counted(stage: Stage) -> None:
    begun = anyio.Event()

    @stage.task_handler("/worker")
    async def worker() -> None:
        begun.set()
        await anyio.sleep_forever()

    async with stage.running(drain_seconds=0):
        await worker.add_async()
        await begun.wait()
    kept = stage.rows("SELECT number, attempt_count, outcome, status FROM hookware_attempt")
    assert kept == [(1, 1, "given back", None)]
    assert stage.rows("SELECT attempt_count, record_count FROM hookware_task") == [(0, 1)]


@pytest.mark.parametrize("wrong", ["some", True, None])
async def test_another_history_is_refused(stage: Stage, wrong: object) -> None:
    with pytest.raises(ConfigurationError, match='attempt_history must be "failures", "all" or "off", got'):
        stage.make(attempt_history=wrong)


# Where a task comes from.


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("way", ["waiting", "session", "connection", "at once", "async"])
async def test_a_task_knows_the_request_and_its_child_the_task(stage: Stage, way: str) -> None:
    async def add(url: str) -> None:
        match way:
            case "waiting":
                taskqueue.add(url=url, countdown=1000)
            case "session":
                with Session(stage.sync_engine) as session:
                    taskqueue.add(url=url, countdown=1000, session=session)
                    session.commit()
            case "connection":
                with stage.sync_engine.begin() as connection:
                    taskqueue.add(url=url, countdown=1000, connection=connection)
            case "at once":
                taskqueue.add(url=url, countdown=1000, transactional=False)
            case _:
                await taskqueue.add_async(url=url, countdown=1000, transactional=False)

    async def orders(_request: Request) -> Response:
        await add("/parent")
        return Response()

    @stage.task_handler("/parent")
    async def parent() -> Response:
        await add("/child")
        return Response(status_code=200)

    app = Starlette(routes=[Route("/orders/{number}", orders, methods=["PUT"])])
    async with stage.running(app, queues=KEEPS) as hookware:
        answer = await request(hookware, "/orders/7", method="PUT", query=b"token=s3cret")
        assert answer.status == 200
        (before,) = await hookware.inspector.list_tasks()
        assert (before.url, before.origin, before.parent_id) == ("/parent", "PUT /orders/7", None)
        stage.execute("UPDATE hookware_task SET eta_us = 0")
        await taskqueue.add_async(url="/nowhere", countdown=1000)  # also wakes
        await stage.settled()
        (child,) = await hookware.inspector.children(before.id)
        assert (child.url, child.origin, child.parent_id, child.depth) == ("/child", "POST /parent", before.id, 1)
        others = [info for info in await hookware.inspector.list_tasks() if info.url == "/nowhere"]
        assert [(info.origin, info.parent_id) for info in others] == [(None, None)]


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("path", ["/a\0b\n", "/" + "ä" * 5000], ids=["unprintable", "long"])
async def test_no_path_can_keep_a_request_from_adding_a_task(stage: Stage, path: str) -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        taskqueue.add(url="/worker", countdown=1000)
        await Response()(scope, receive, send)  # type: ignore[arg-type]  # as ASGI has them

    async with stage.running() as hookware:
        hookware.app = app
        answer = await request(hookware, path, raw_path=b"/", method="PROPFIND-AND-MORE")
        assert answer.status == 200
        (info,) = await hookware.inspector.list_tasks()
    assert info.origin is not None
    assert info.origin == ("PROPFIND-A /a\ufffdb\ufffd" if len(path) < 100 else f"PROPFIND-A {path}"[:200])
