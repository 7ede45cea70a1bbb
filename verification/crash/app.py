"""The app that the crash tests kill. Every step leaves a line in its history, which survives kill -9.

The environment says what to do: CRASH_DATABASE and CRASH_HISTORY are files, CRASH_OPTIONS (JSON) goes to Hookware,
and CRASH_FAILPOINT, "name:hit", makes the process kill itself when it passes that failpoint for the hit-th time.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from sqlalchemy import create_engine, text
from sqlmodel import Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hookware import Hookware, QueueSettings, TaskContext, TaskRetryOptions, request_session, task_handler, taskqueue
from hookware.core.lifecycle import Die, Retry
from hookware.core.retry import RetryOptions
from hookware.env import Env
from hookware.events import AttemptSettled, Event
from verification.history import History

history = History(os.environ["CRASH_HISTORY"])
engine = create_engine(f"sqlite:///{os.environ['CRASH_DATABASE']}")


class CrashEnv(Env):
    """The real world, with a place to die in."""

    def __init__(self) -> None:
        super().__init__()
        name, _, hit = os.environ.get("CRASH_FAILPOINT", "").partition(":")
        self._deadly = name
        self._hits_left = int(hit or 1)
        self._lock = threading.Lock()
        self._here = threading.local()

    def fp(self, name: str) -> None:
        if name == "add.committed":
            history.write("stored", task=self._here.task)
        if name == self._deadly:
            with self._lock:
                self._hits_left -= 1
                if self._hits_left == 0:
                    history.write("killed", why=name)
                    os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def adding(self, *, countdown: float = 0.0, alone: bool = False) -> Iterator[None]:
        """Note of the tasks added in this block, by this thread, when they are due and whose transaction is theirs."""
        self._here.countdown, self._here.alone = countdown, alone
        try:
            yield
        finally:
            self._here.countdown, self._here.alone = 0.0, False

    def new_id(self) -> int:
        task = super().new_id()
        self._here.task = task
        due = time.time() + getattr(self._here, "countdown", 0.0)
        history.write("alone" if getattr(self._here, "alone", False) else "joining", task=task, eta=due)
        return task


env = CrashEnv()


# What clients ask for.


def order(request: Request) -> PlainTextResponse:
    """Write a row and add a task in the user's own session; `end` says what becomes of the transaction."""
    asked = request.query_params
    with Session(engine) as session:
        task = _add(request)
        _write_order(session, asked["key"], task)
        match asked["end"]:
            case "rollback":
                session.rollback()
            case "error":
                raise RuntimeError("asked for")
            case _:
                session.commit()
    return PlainTextResponse("ordered")


def own_order(request: Request) -> PlainTextResponse:
    """Do the same in hookware's own session, which commits before the response leaves, if it is no error."""
    asked = request.query_params
    task = _add(request)
    _write_order(request_session(), asked["key"], task)
    return PlainTextResponse("ordered", status_code=200 if asked["end"] == "commit" else 409)


def lonely_order(request: Request) -> PlainTextResponse:
    """Add a task in a transaction of its own."""
    _add(request, alone=True)
    return PlainTextResponse("ordered")


def _add(request: Request, *, alone: bool = False) -> taskqueue.Task:
    asked = request.query_params
    countdown = float(asked.get("countdown", 0))
    with env.adding(countdown=countdown, alone=alone):
        return taskqueue.add(
            url=asked["url"], params={"wait": asked["wait"], "then": asked["then"]}, countdown=countdown,
            transactional=not alone, retry_options=TaskRetryOptions(max_backoff_seconds=0.5),
        )  # fmt: skip


def _write_order(session: Session, key: str, task: taskqueue.Task) -> None:
    session.connection().execute(text("INSERT INTO crash_order VALUES (:key, :task)"), {"key": key, "task": task.id})


# What tasks do.


@task_handler("/own")
def own(session: Session, task: TaskContext, wait: float = 0, then: int = 0) -> None:
    """Write through hookware's session, and add the follow-up there too: both exactly once."""
    with _attempt(task):
        time.sleep(wait)
        _write_effect(session, task)
        if then:
            next_task = taskqueue.add(url="/own", params={"then": then - 1})
            _write_order(session, f"{task.id} then", next_task)


@task_handler("/joined")
def joined(task: TaskContext, wait: float = 0, then: int = 0) -> None:
    """Write through a session of its own, which completes the task."""
    with _attempt(task), Session(engine) as session:
        time.sleep(wait)
        _write_effect(session, task)
        task.complete_in(session)
        session.commit()


@task_handler("/outside")
async def outside(task: TaskContext, wait: float = 0, then: int = 0) -> None:
    """Have an effect where no transaction reaches: at least once."""
    with _attempt(task):
        await anyio.sleep(wait)


@task_handler("/failing")
async def failing(task: TaskContext, wait: float = 0, then: int = 0) -> None:
    """Fail in the first `then` attempts."""
    with _attempt(task):
        await anyio.sleep(wait)
        if task.attempt <= then:
            raise RuntimeError("asked for")


@task_handler("/blocking")
async def blocking(task: TaskContext, wait: float = 0, then: int = 0) -> None:
    """Block the event loop."""
    with _attempt(task):
        time.sleep(wait)  # noqa: ASYNC251 - that is the fault


@task_handler("/poison")
async def poison(task: TaskContext, wait: float = 0, then: int = 0) -> None:
    """Take the process down."""
    with _attempt(task):
        await anyio.sleep(wait)
        history.write("killed", why="poison")
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _attempt(task: TaskContext) -> Iterator[None]:
    line = {"task": task.id, "attempt": task.attempt, "fence": task.fence, "url": task.url}
    history.write("start", **line)
    try:
        yield
    except BaseException as error:
        history.write("end", **line, outcome=type(error).__name__)
        raise
    history.write("end", **line, outcome="ok")


def _write_effect(session: Session, task: TaskContext) -> None:
    session.connection().execute(
        text("INSERT INTO crash_effect (task, attempt, fence, pid) VALUES (:task, :attempt, :fence, :pid)"),
        {"task": task.id, "attempt": task.attempt, "fence": task.fence, "pid": os.getpid()},
    )


def _note_settled(event: Event) -> None:
    if isinstance(event, AttemptSettled):
        task, decision = event.task, event.decision
        history.write(
            "settled", task=task.id, attempt=task.attempt_count, fence=task.fence, accepted=event.accepted,
            outcome=type(decision).__name__.lower(),
            crashed=isinstance(decision, Retry | Die) and decision.crashed,
            delay=decision.delay_us / 1e6 if isinstance(decision, Retry) else 0.0,
        )  # fmt: skip


app = Starlette(
    routes=[
        Route("/order", order, methods=["POST"]),
        Route("/order/own", own_order, methods=["POST"]),
        Route("/order/alone", lonely_order, methods=["POST"]),
    ]
)
hookware = Hookware(
    app,
    engine=engine,
    env=env,
    queues=[QueueSettings(retry=RetryOptions(max_backoff_seconds=0.5))],
    **json.loads(os.environ.get("CRASH_OPTIONS", "{}")),
)
hookware.events.subscribe(_note_settled)
