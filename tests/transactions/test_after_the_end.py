"""Code that outlives its request or its process: what it adds is durable or refused, never lost in silence."""

import gc
import os
import sqlite3
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from sqlalchemy import Engine, event, insert, text
from sqlalchemy.orm import Session

from hookware import Hookware, TaskContext, TaskRouter, request_session, taskqueue
from hookware.core.lifecycle import Complete
from hookware.errors import SessionError
from tests.asgi import request
from tests.serving import Recorder, serving
from tests.transactions.stored import Stored, business_table


async def test_the_own_session_begun_after_the_response_is_refused_and_holds_nothing(
    engine: Engine, stored: Stored
) -> None:
    refused: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        with pytest.raises(SessionError, match="session of your own"):
            request_session()
        refused.append("session")
        taskqueue.add("late", url="/worker")

    hookware = Hookware(app, engine=engine, dispatch=False, router=TaskRouter())
    async with serving(hookware):
        answer = await request(hookware, "/")
        assert answer.error is None
        assert refused == ["session"]
        assert stored.keys() == {"late"}
        await taskqueue.add_async("later", url="/worker")
    assert stored.keys() == {"late", "later"}


@pytest.mark.parametrize("with_async", [True, False])
async def test_what_code_adds_that_outlives_its_task_is_added_at_once(
    engine: Engine, stored: Stored, with_async: bool
) -> None:
    router, ended, go_on = TaskRouter(), anyio.Event(), anyio.Event()
    group: TaskGroup

    async def later() -> None:
        await go_on.wait()
        if with_async:
            await taskqueue.add_async("late", url="/nowhere", countdown=600)
        else:
            taskqueue.add("late", url="/nowhere", countdown=600)
        ended.set()

    @router.task_handler("/worker")
    async def worker(task: TaskContext) -> None:
        group.start_soon(later)

    hookware = Hookware(engine=engine, router=router)
    recorder = Recorder(hookware)
    async with anyio.create_task_group() as group, serving(hookware):
        await taskqueue.add_async("first", url="/worker")
        await recorder.wait_settled(1)
        go_on.set()
        await ended.wait()
        assert stored.task_keys() == ["late"]


async def test_tasks_that_waited_for_a_session_which_only_read_wait_again(engine: Engine, stored: Stored) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        taskqueue.add("task", url="/worker")
        with Session(engine) as reader:
            reader.execute(text("SELECT 1"))
        with Session(engine) as forgetful:
            forgetful.execute(insert(business_table).values(key="never committed"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    hookware = Hookware(app, engine=engine, dispatch=False, router=TaskRouter())
    async with serving(hookware):
        await request(hookware, "/")
    assert stored.keys() == set()  # the one that wrote took the task with it, and forgot them both

    async def reading_app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        taskqueue.add("task", url="/worker")
        with Session(engine) as reader:
            reader.execute(text("SELECT 1"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    hookware = Hookware(reading_app, engine=engine, dispatch=False, router=TaskRouter())
    async with serving(hookware):
        await request(hookware, "/")
    assert stored.keys() == {"task"}


async def test_complete_in_a_savepoint_that_is_rolled_back_completes_nothing(engine: Engine, stored: Stored) -> None:
    router, attempts = TaskRouter(), [0]

    @router.task_handler("/worker")
    def worker(task: TaskContext) -> None:
        attempts[0] += 1
        with Session(engine) as session:
            savepoint = session.begin_nested()
            task.complete_in(session)
            session.flush()
            if attempts[0] == 1:
                savepoint.rollback()
            session.execute(insert(business_table).values(key=f"attempt {attempts[0]}"))
            session.commit()

    hookware = Hookware(engine=engine, router=router)
    recorder = Recorder(hookware)
    async with serving(hookware):
        await taskqueue.add_async("task", url="/worker")
        first, second = await recorder.wait_settled(2)
    assert not isinstance(first.decision, Complete)
    assert isinstance(second.decision, Complete)
    assert stored.task_keys() == []


FORKING_APP = """
import os, sys, anyio, logging
sys.path.insert(0, {root!r})
from sqlalchemy import create_engine
from hookware import Hookware, TaskRouter, taskqueue
from tests.asgi import request
from tests.serving import serving

engine = create_engine("sqlite:///" + sys.argv[1])

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    hookware._outbox.write_lock.acquire()
    pid = os.fork()
    if pid == 0:
        try:
            taskqueue.add("child", url="/worker")
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    hookware._outbox.write_lock.release()
    _, status = os.waitpid(pid, 0)
    taskqueue.add("parent", url="/worker")
    await send({{"type": "http.response.start", "status": 200 if status == 0 else 500, "headers": []}})
    await send({{"type": "http.response.body", "body": b""}})

hookware = Hookware(app, engine=engine, dispatch=False, router=TaskRouter())

async def main():
    async with serving(hookware):
        answer = await request(hookware, "/")
        print(answer.status, answer.error)

anyio.run(main)
"""


@pytest.mark.slow
def test_a_forked_child_adds_for_itself(tmp_path: Path) -> None:
    script = FORKING_APP.format(root=str(Path(__file__).parents[2]))
    database = tmp_path / "forked.db"
    run = [sys.executable, "-c", script, str(database)]
    result = subprocess.run(run, capture_output=True, text=True, timeout=50, check=False, env={**os.environ})
    assert "200 None" in result.stdout, result.stdout + result.stderr
    connection = sqlite3.connect(database)
    keys = {body.decode() for (body,) in connection.execute("SELECT body FROM hookware_task")}
    connection.close()
    assert keys == {"child", "parent"}


@pytest.mark.usefixtures("alone")
def test_who_adds_without_a_lifespan_leaves_no_connection_open(engine: Engine, stored: Stored) -> None:
    gc.collect()
    hookware = Hookware(engine=engine, dispatch=False, router=TaskRouter())
    taskqueue.add("task", url="/worker")
    closed: list[object] = []
    own = hookware._outbox.runner._engine  # type: ignore[attr-defined]  # a ThreadRunner
    event.listen(own, "close", lambda *_args: closed.append(1))
    assert stored.keys() == {"task"}
    del hookware
    gc.collect()
    assert closed == [1]


def test_a_hookware_that_never_ran_goes_with_whoever_wanted_it(engine: Engine) -> None:
    gc.collect()
    gc.disable()  # in a cycle it would be there until somebody collects, and be taken for the one that `add` means
    try:
        hookware = Hookware(engine=engine, router=TaskRouter())
        outbox = weakref.ref(hookware._outbox)
        assert hookware.insight is not None
        del hookware
        assert outbox() is None
    finally:
        gc.enable()
