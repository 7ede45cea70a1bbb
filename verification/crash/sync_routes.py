"""The app that is killed, on a synchronous engine: what clients ask for, and what tasks do with a session."""

import time

from sqlalchemy import create_engine
from sqlmodel import Session
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hookware import TaskContext, request_session, task_handler, taskqueue
from verification.crash.recording import WRITE_EFFECT, WRITE_ORDER, attempt, database_url, effect, env
from verification.crash.wish import Wish

_url, _connect_args = database_url()
engine = create_engine(_url, connect_args=_connect_args)


def order(request: Request) -> PlainTextResponse:
    """Write a row and add a task in the user's own session; `end` says what becomes of the transaction."""
    wish = Wish(request)
    with Session(engine) as session:
        _write_order(session, wish.key, _add(wish))
        match wish.end:
            case "rollback":
                session.rollback()
            case "error":
                raise RuntimeError("asked for")
            case _:
                session.commit()
    return PlainTextResponse("ordered")


def own_order(request: Request) -> PlainTextResponse:
    """Do the same in hookware's own session, which commits before the response leaves, if it is no error."""
    wish = Wish(request)
    _write_order(request_session(), wish.key, _add(wish))
    return PlainTextResponse("ordered", status_code=wish.status)


def lonely_order(request: Request) -> PlainTextResponse:
    """Add a task in a transaction of its own."""
    _add(Wish(request), alone=True)
    return PlainTextResponse("ordered")


def _add(wish: Wish, *, alone: bool = False) -> taskqueue.Task:
    with env.adding(countdown=wish.countdown, alone=alone):
        return taskqueue.add(**wish.task, transactional=not alone)


def _write_order(session: Session, key: str, task: taskqueue.Task) -> None:
    session.connection().execute(WRITE_ORDER, {"key": key, "task": task.id})


@task_handler("/own")
def own(session: Session, task: TaskContext, wait: float = 0, then: int = 0) -> None:
    """Write through hookware's session, and add the follow-up there too: both exactly once."""
    with attempt(task):
        time.sleep(wait)
        session.connection().execute(WRITE_EFFECT, effect(task))
        if then:
            next_task = taskqueue.add(url="/own", params={"then": then - 1})
            _write_order(session, f"{task.id} then", next_task)


@task_handler("/joined")
def joined(task: TaskContext, wait: float = 0, then: int = 0) -> None:
    """Write through a session of its own, which completes the task."""
    with attempt(task), Session(engine) as session:
        time.sleep(wait)
        session.connection().execute(WRITE_EFFECT, effect(task))
        task.complete_in(session)
        session.commit()


ROUTES = [
    Route("/order", order, methods=["POST"]),
    Route("/order/own", own_order, methods=["POST"]),
    Route("/order/alone", lonely_order, methods=["POST"]),
]
