"""What the apps of the matrix have in common: they take an order and add its task in one transaction.

The task makes the effect. A line in the journal says what cannot be seen in the database.
"""

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlmodel import Field, Session, SQLModel, create_engine
from starlette.requests import Request
from starlette.responses import Response

from hookware import task_handler, taskqueue

DATABASE = os.environ.get("MATRIX_DATABASE", "matrix.db")
SLOW_SECONDS = 0.5
_SHORTLY_SECONDS = 0.01  # it has to be claimed then
engine = create_engine(f"sqlite:///{DATABASE}")


class Order(SQLModel, table=True):
    __tablename__ = "matrix_order"

    key: str = Field(primary_key=True)


class Effect(SQLModel, table=True):
    __tablename__ = "matrix_effect"

    id: int | None = Field(default=None, primary_key=True)
    key: str


def tell(what: str) -> None:
    """Write a line into the journal that the test reads."""
    with open(os.environ["MATRIX_JOURNAL"], "a") as journal:
        journal.write(f"{what} {os.getpid()}\n")


@asynccontextmanager
async def lifespan(_app: object) -> AsyncIterator[None]:
    tell("started")
    yield
    engine.dispose()
    tell("stopped")


def order(session: Session, key: str, url: str, end: str) -> None:
    """Take an order; `end` says what becomes of the transaction: commit, rollback, or commit a task that is due later.

    The caller commits.
    """
    session.add(Order(key=key))
    taskqueue.add(url=url, params={"key": key}, countdown=_SHORTLY_SECONDS if end == "later" else None)
    if end == "rollback":
        session.rollback()


def take_order(key: str, url: str, end: str) -> None:
    with Session(engine) as session:
        order(session, key, url, end)
        session.commit()


def order_in_a_session(request: Request) -> Response:
    asked = request.query_params
    take_order(asked["key"], asked["url"], asked["end"])
    return Response()


def make_effect(key: str) -> None:
    with Session(engine) as session:
        session.add(Effect(key=key))
        session.commit()


def make_effect_slowly(key: str) -> None:
    tell("slow begins")
    threading.Event().wait(SLOW_SECONDS)
    make_effect(key)
    tell("slow ends")


def handle_tasks() -> None:
    """Register handlers of hookware's own, for apps that have no routes for them."""

    @task_handler("/worker")
    def worker(key: str, session: Session) -> None:
        session.add(Effect(key=key))

    @task_handler("/slow")
    def slow(key: str, session: Session) -> None:
        tell("slow begins")
        threading.Event().wait(SLOW_SECONDS)
        session.add(Effect(key=key))
        tell("slow ends")
