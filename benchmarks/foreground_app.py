"""The app of `benchmarks.foreground`: a page that reads, one that writes, and tasks of several kinds without end.

uvicorn runs it. FOREGROUND_FIRST is "on" or "off", FOREGROUND_DATABASE the path of the SQLite file.
"""

import os
import time
from bisect import bisect
from collections.abc import Iterator

import anyio
from fastapi import Depends, FastAPI
from sqlmodel import Field, Session, SQLModel, create_engine, select

from hookware import Hookware, TaskRouter
from hookware.events import AttemptSettled, Event

engine = create_engine(f"sqlite:///{os.environ['FOREGROUND_DATABASE']}")
router = TaskRouter()
api = FastAPI()


class Note(SQLModel, table=True):
    """The user's own rows."""

    id: int | None = Field(default=None, primary_key=True)
    text: str


class Load:
    """Which tasks add themselves again, and when attempts ended."""

    kind = ""
    settled_at: list[float] = []  # noqa: RUF012 - there is one load


def get_session() -> Iterator[Session]:
    """Be the app's own session."""
    with Session(engine) as session:
        yield session


@api.get("/read")
def read(session: Session = Depends(get_session)) -> int:  # noqa: B008 - FastAPI's way
    """Read twenty rows."""
    return read_twenty(session)


@api.post("/write")
def write(session: Session = Depends(get_session)) -> int:  # noqa: B008 - FastAPI's way
    """Write a row and commit."""
    session.add(Note(text="x"))
    session.commit()
    return 1


@api.post("/load")
async def load(kind: str, chains: int) -> int:
    """Let `chains` tasks of a kind add themselves again and again; no kind: let them end."""
    Load.kind = kind
    for _ in range(chains if kind else 0):
        await WORKERS[kind].add_async()
    return len(Load.settled_at)


@api.get("/settled")
async def settled(seconds: float) -> int:
    """Say how many attempts have ended in the last so many seconds."""
    return len(Load.settled_at) - bisect(Load.settled_at, time.monotonic() - seconds)


def read_twenty(session: Session) -> int:
    """Read the first twenty rows."""
    return len(session.exec(select(Note).where(Note.id < 21)).all())  # type: ignore[operator]  # a column


def burn(seconds: float) -> None:
    """Use the processor for so long, whoever else runs."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def again(kind: str) -> None:
    """Add the same task again, in the transaction that ends this one."""
    if Load.kind == kind:
        WORKERS[kind].add()


@router.task_handler("/noop")
async def noop() -> None:
    """Do nothing."""
    again("noop")


@router.task_handler("/loop2")
async def loop2() -> None:
    """Keep the event loop busy for 2 ms."""
    burn(0.002)
    again("loop2")


@router.task_handler("/loop5")
async def loop5() -> None:
    """Keep the event loop busy for 5 ms."""
    burn(0.005)
    again("loop5")


@router.task_handler("/thread5")
def thread5() -> None:
    """Keep a thread, and Python's lock, busy for 5 ms."""
    burn(0.005)
    again("thread5")


@router.task_handler("/thread300")
def thread300() -> None:
    """Keep a thread, and Python's lock, busy for 300 ms."""
    burn(0.3)
    again("thread300")


@router.task_handler("/rows")
def rows(session: Session) -> None:
    """Write and read through hookware's session: some 5 ms of work with the database, in one transaction."""
    for _ in range(5):
        session.add(Note(text="y"))
        session.flush()
        read_twenty(session)
    again("rows")


@router.task_handler("/wait")
async def wait() -> None:
    """Wait for 100 ms, as for another server."""
    await anyio.sleep(0.1)
    again("wait")


WORKERS = {
    "noop": noop,
    "loop2": loop2,
    "loop5": loop5,
    "thread5": thread5,
    "thread300": thread300,
    "rows": rows,
    "wait": wait,
}

app = Hookware(api, engine=engine, router=router, foreground_first=os.environ["FOREGROUND_FIRST"] == "on")


def note(event: Event) -> None:
    """Note when an attempt has ended."""
    if isinstance(event, AttemptSettled):
        Load.settled_at.append(time.monotonic())


app.events.subscribe(note)
SQLModel.metadata.create_all(engine, tables=[SQLModel.metadata.tables["note"]])
