"""Operations in a running app: in its requests, beside their transactions, and what they do to its dispatcher."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from sqlmodel import Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hookware import Queue, Task, request_session
from hookware.core.lifecycle import Complete
from hookware.errors import SecondWriterError
from tests.asgi import request
from tests.databases import EVERY_DATABASE_ON_A_LOOP
from tests.stage import Stage, Tally

NEVER_POLL = 60.0
MAIL = Queue("mail")


def app(endpoint: Callable[[Request], Any]) -> Starlette:
    return Starlette(routes=[Route("/", endpoint)])


def handler(stage: Stage) -> None:
    @stage.task_handler("/w")
    def work() -> None: ...


@EVERY_DATABASE_ON_A_LOOP
class TestWaking:
    async def test_a_queue_that_goes_on_runs_its_tasks_at_once(self, stage: Stage) -> None:
        handler(stage)
        async with stage.running(poll_seconds=NEVER_POLL):
            await MAIL.pause_async()
            await MAIL.add_async(Task(url="/w"))
            assert stage.recorder.settled == []
            await MAIL.resume_async()
            await stage.settled(1)

    async def test_a_task_that_is_run_now_runs_at_once(self, stage: Stage) -> None:
        handler(stage)
        async with stage.running(poll_seconds=NEVER_POLL):
            task = await MAIL.add_async(Task(url="/w", countdown=3600))
            assert await MAIL.run_now_async(task)
            [settled] = await stage.settled(1)
            assert (settled.task.attempt_count, settled.decision) == (1, Complete())

    async def test_a_higher_limit_is_used_at_once(self, stage: Stage) -> None:
        handler(stage)
        async with stage.running(poll_seconds=NEVER_POLL):
            await MAIL.update_async(max_concurrent_requests=0)
            await MAIL.add_async(Task(url="/w"))
            await MAIL.reset_async()
            await stage.settled(1)

    async def test_a_running_task_that_is_deleted_is_cut_short_and_its_effect_undone(self, stage: Stage) -> None:
        inside = anyio.Event()

        @stage.task_handler("/slow")
        async def slow() -> None:
            inside.set()
            await anyio.sleep_forever()

        async with stage.running(lease_seconds=0.4):
            task = await MAIL.add_async(Task(url="/slow", name="n"))
            await inside.wait()
            assert (await MAIL.delete_tasks_async(task)).was_deleted
            with anyio.fail_after(10):
                while stage.hookware.processing is None or stage.hookware.processing._dispatcher._attempts:
                    await anyio.wait_all_tasks_blocked()
        assert stage.task_count() == 0


async def test_in_a_request_they_stand_beside_its_transaction(stage: Stage) -> None:
    def endpoint(_request: Request) -> PlainTextResponse:
        request_session().get(Tally, "x")
        MAIL.delete_tasks_by_name("a")
        MAIL.add(Task(url="/w", name="b"))
        raise ZeroDivisionError

    async with stage.running(app(endpoint), dispatch=False) as hookware:
        await MAIL.add_async(Task(url="/w", name="a"))
        answer = await request(hookware, "/", method="GET")
        assert isinstance(answer.error, ZeroDivisionError)
    assert stage.task_count() == 0, "what was deleted stays so, and what was added is rolled back"


@pytest.mark.parametrize("call", [MAIL.purge, MAIL.pause, lambda: MAIL.delete_tasks_by_name("a")])
async def test_on_sqlite_not_while_the_request_writes(stage: Stage, call: Callable[[], object]) -> None:
    errors: list[Exception] = []

    def endpoint(_request: Request) -> PlainTextResponse:
        with Session(stage.sync_engine) as session:
            session.add(Tally(key="x", count=1))
            session.flush()
            try:
                call()
            except SecondWriterError as error:
                errors.append(error)
            _ = MAIL.is_paused  # reading is allowed
            session.commit()
            call()
        return PlainTextResponse("")

    async with stage.running(app(endpoint), dispatch=False) as hookware:
        assert (await request(hookware, "/", method="GET")).status == 200
    assert len(errors) == 1
    assert stage.tally() == {"x": 1}


async def test_awaited_in_a_request_neither(stage: Stage) -> None:
    caught: list[str] = []

    async def endpoint(_request: Request) -> PlainTextResponse:
        with Session(stage.sync_engine) as session:
            session.add(Tally(key="x", count=1))
            session.flush()
            calls: list[Callable[[], Awaitable[object]]] = [MAIL.purge_async, MAIL.resume_async]
            for call in calls:
                try:
                    await call()
                except SecondWriterError as error:
                    caught.append(str(error))
            session.commit()
        return PlainTextResponse("")

    async with stage.running(app(endpoint), dispatch=False) as hookware:
        assert (await request(hookware, "/", method="GET")).status == 200
    assert len(caught) == 2
