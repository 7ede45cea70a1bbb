"""A thread that does not know its request: the task is stored at once, and that is said aloud, where it is no wish."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from threading import Thread
from typing import Any

import anyio.to_thread
import pytest
import uvloop
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from hookware import Hookware, TaskRouter, taskqueue
from hookware.config import Config
from hookware.env import Env
from hookware.events import Events
from hookware.store.sql.outbox import Outbox
from tests.asgi import request
from tests.serving import serving

WORDS = "does not know its request"

Way = Callable[[Callable[[], object]], Awaitable[object]]


async def by_default_pool(add: Callable[[], object]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, add)


async def by_nameless_pool(add: Callable[[], object]) -> None:
    with ThreadPoolExecutor() as pool:
        await asyncio.get_running_loop().run_in_executor(pool, add)


async def by_named_pool(add: Callable[[], object]) -> None:
    with ThreadPoolExecutor(thread_name_prefix="mailer") as pool:
        await asyncio.get_running_loop().run_in_executor(pool, add)


async def by_copied_context(add: Callable[[], object]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, copy_context().run, add)


async def by_thread(add: Callable[[], object]) -> None:
    thread = Thread(target=add)
    thread.start()
    thread.join()


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum(WORDS in record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


async def serve(engine: Engine, way: Way, add: Callable[[], object], *, in_lifespan: bool = False) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            ready, go_on = asyncio.Event(), asyncio.Event()
            app.__dict__.update(ready=ready, go_on=go_on)
            task = asyncio.create_task(background(ready, go_on))
            for what in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{what}.complete"})
            await task
            return
        if in_lifespan:
            app.__dict__["go_on"].set()
            await app.__dict__["ready"].wait()
        else:
            for _time in range(2):
                await way(add)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def background(ready: asyncio.Event, go_on: asyncio.Event) -> None:
        if in_lifespan:
            await go_on.wait()
            await way(add)
        ready.set()

    hookware = Hookware(app, engine=engine, dispatch=False, router=TaskRouter())
    async with serving(hookware):
        assert (await request(hookware, "/")).error is None


PLAIN = partial(taskqueue.add, url="/worker")


@pytest.mark.parametrize("way", [by_default_pool, by_nameless_pool])
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_pool_that_does_not_know_the_request_is_warned_of_once(
    engine: Engine, caplog: pytest.LogCaptureFixture, way: Way, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve(engine, way, PLAIN))
    assert warnings(caplog) == 1


@pytest.mark.parametrize(
    "way", [by_copied_context, by_named_pool, by_thread, asyncio.to_thread, anyio.to_thread.run_sync]
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_threads_that_know_it_or_are_the_users_own_are_not(
    engine: Engine, caplog: pytest.LogCaptureFixture, way: Way
) -> None:
    await serve(engine, way, PLAIN)
    assert warnings(caplog) == 0


def add_to_session(engine: Engine) -> None:
    with Session(engine) as session:
        taskqueue.add(url="/worker", session=session)
        session.commit()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_says_what_is_meant_is_not(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    await serve(engine, by_default_pool, partial(PLAIN, transactional=False))
    await serve(engine, by_default_pool, partial(add_to_session, engine))
    assert warnings(caplog) == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_began_with_the_app_and_is_in_no_request_is_not(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    await serve(engine, asyncio.to_thread, PLAIN, in_lifespan=True)
    assert warnings(caplog) == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_process_without_requests_is_not(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    hookware = Hookware(engine=engine, dispatch=False, router=TaskRouter())
    async with serving(hookware):
        await by_default_pool(PLAIN)
    assert warnings(caplog) == 0


def test_a_forked_process_has_no_requests_of_its_parents(engine: Engine) -> None:
    outbox = Outbox(engine, env=Env(), config=Config(), events=Events())
    outbox.under_way_count = 3
    outbox.start_over()
    assert outbox.under_way_count == 0
