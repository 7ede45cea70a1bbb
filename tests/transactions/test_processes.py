"""Processes of their own on PostgreSQL: forked ones, and one in which asyncpg is the only driver."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.databases import Database

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.postgres, pytest.mark.slow]


def run(script: str, url: str) -> str:
    """Run a script with warnings as errors; give what it wrote."""
    command = [sys.executable, "-W", "error", "-c", script, url]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


FORKING = """
import os, sys, anyio
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from hookware import Hookware, TaskRouter, taskqueue
from tests.asgi import request
from tests.serving import serving

is_async = "sync" not in sys.argv[1].partition("?")[2]
url = sys.argv[1].partition("?")[0]
engine = create_async_engine(url) if is_async else create_engine(url)

async def use():
    # Connections of the app's and of hookware's own, open before and after the fork.
    if is_async:
        async with engine.begin() as connection:
            return (await connection.execute(text("SELECT pg_backend_pid()"))).scalar()
    with engine.begin() as connection:
        return connection.execute(text("SELECT pg_backend_pid()")).scalar()

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] != "/":
        raise ValueError("not yet")
    before = await use()
    pid = os.fork()
    if pid == 0:
        try:
            taskqueue.add("child", url="/worker")
            print("child", await use() if not is_async else "", flush=True)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert await use() == before, "the parent's connection is still the parent's"
    taskqueue.add("parent", url="/worker")
    await send({"type": "http.response.start", "status": 200 if status == 0 else 500, "headers": []})
    await send({"type": "http.response.body", "body": b""})

hookware = Hookware(app, engine=engine, router=TaskRouter())

async def main():
    async with serving(hookware):
        for _ in range(2):
            answer = await request(hookware, "/")
            print(answer.status, answer.error)
    if is_async:
        await engine.dispose()
    else:
        engine.dispose()

anyio.run(main)
"""


@pytest.mark.parametrize("database", ["postgresql", "postgresql+psycopg"], indirect=True)
def test_a_forked_child_leaves_its_parent_the_connections(database: Database) -> None:
    url = database.async_url if database.driver else database.url
    suffix = "" if database.driver else "?sync"
    output = run(FORKING, url.render_as_string(hide_password=False) + suffix)
    assert output.count("200 None") == 2, output
    look = database.look()
    assert sorted(bytes(body).decode() for body in look.rows("SELECT body FROM hookware_task")) == [
        *["child"] * 2,
        *["parent"] * 2,
    ]
    look.close()


ASYNCPG_ALONE = """
import sys
sys.modules["psycopg"] = sys.modules["psycopg_binary"] = None

import threading, time, anyio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession
from hookware import Hookware, TaskRouter, TaskContext, request_session, taskqueue
from hookware.errors import SessionError
from tests.serving import Recorder, serving

url, schema = sys.argv[1].split("?")
settings = {"application_name": "alone"}
engine = create_async_engine(url, connect_args={"server_settings": settings})
router, ran = TaskRouter(), []
GONE = "999999999999:elsewhere:boot:1:1:1"

@router.task_handler("/worker")
async def worker(key: str, session: AsyncSession, task: TaskContext) -> None:
    ran.append(key)
    connection = await session.connection()
    assert (await connection.execute(text("SHOW application_name"))).scalar() == "alone"

@router.task_handler("/blocks")
async def blocks() -> None:
    ran.append("blocks")
    time.sleep(2)  # longer than its lease: the heartbeat has a thread and a loop of its own

hookware = Hookware(engine=engine, router=router, lease_seconds=1.5, poll_seconds=0.2)
recorder = Recorder(hookware)

def from_a_thread():
    worker.add("from a thread")

async def main():
    async with serving(hookware):
        thread = threading.Thread(target=from_a_thread)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        await worker.add_async("from async code")
        try:
            worker.add("on the loop")
        except SessionError as error:
            assert "await taskqueue.add_async(...)" in str(error) and "psycopg" in str(error), error
        else:
            raise AssertionError("it must be refused")
        await recorder.wait_settled(2, seconds=30)
        await blocks.add_async()
        await recorder.wait_settled(3, seconds=30)
        task = await worker.options(countdown=3600).add_async("of a process that died")
        async with engine.begin() as connection:
            lost = "UPDATE hookware_task SET state = 1, fence = 1, owner = :o, lease_until_us = 0, "
            lost += "attempt_count = 1, first_attempt_us = 0 WHERE id = :i"
            await connection.execute(text(lost), {"o": GONE, "i": task.id})
        await recorder.wait_settled(5, seconds=30)  # taken back, and run
    await engine.dispose()
    assert sorted(ran) == ["blocks", "from a thread", "from async code", "of a process that died"], ran

anyio.run(main)
"""


@pytest.mark.parametrize("database", ["postgresql+asyncpg"], indirect=True)
def test_asyncpg_is_enough(database: Database) -> None:
    run(ASYNCPG_ALONE, f"{database.async_url.render_as_string(hide_password=False)}?")
