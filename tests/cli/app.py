"""The app of these tests: a web process stores its tasks, `hookware dispatch` runs them. TEST_FOLDER is its place."""

import json
import os
from pathlib import Path
from threading import Event

import anyio
from sqlmodel import create_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hookware import Hookware, task_handler, taskqueue

FOLDER = Path(os.environ["TEST_FOLDER"])
engine = create_engine(f"sqlite:///{FOLDER / 'app.db'}")


def note(what: str) -> None:
    """Leave a line with what happened in which process."""
    with (FOLDER / "notes").open("a") as notes:
        notes.write(f"{what} {os.getpid()}\n")


def released() -> bool:
    """Say whether the test lets handlers go on."""
    return (FOLDER / "release").exists()


@task_handler("/count")
async def count(left: int = 0) -> None:
    """Add a task, as long as there are some left."""
    note("counted")
    if left:
        count.add(left=left - 1)


@task_handler("/hold")
async def hold() -> None:
    """Run until the test lets go."""
    note("begun")
    while not released():  # noqa: ASYNC110 - another process lets go
        await anyio.sleep(0.02)
    note("ended")


@task_handler("/block")
def block() -> None:
    """Do the same in a thread, which nobody can cut short."""
    note("begun")
    while not released():
        Event().wait(0.02)
    note("ended")


async def add(_request: Request) -> PlainTextResponse:
    """Add a task that adds another one."""
    taskqueue.add(url="/count", params={"left": 1})
    return PlainTextResponse("added")


app = Starlette(routes=[Route("/", add, methods=["POST"])])
app.add_middleware(Hookware, engine=engine, **json.loads(os.environ.get("TEST_OPTIONS", "{}")))
