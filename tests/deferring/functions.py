"""Functions that the tests of this folder defer: at the top of a module, as an app's are."""

import functools
import threading
from collections.abc import Callable
from datetime import datetime
from shutil import rmtree
from typing import Any, Unpack

from pydantic import BaseModel
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from hookware import PermanentTaskFailure, SingularTaskFailure, TaskContext, deferred
from tests.stage import Tally

CALLS: list[Any] = []
"""What the functions were called with; a fixture empties it."""

imported_from_elsewhere = rmtree


class Item(BaseModel):
    name: str
    price: float = 1.0


def note(what: str, *, more: int = 0) -> None:
    CALLS.append((what, more))


def note_thread() -> None:
    CALLS.append(threading.current_thread() is threading.main_thread())


async def note_async(what: str) -> None:
    CALLS.append((what, threading.current_thread() is threading.main_thread()))


def typed(at: datetime, item: Item, items: list[Item], raw: bytes, limit: float = 0.5) -> None:
    CALLS.append((at, item, items, raw, limit))


def who(task: TaskContext, what: str) -> None:
    CALLS.append((task.attempt, task.queue_name, task.headers.get("x-color"), what))


def count(session: Session, key: str, *, fail_first: bool = False, task: TaskContext) -> None:
    tally = session.get(Tally, key) or Tally(key=key)
    tally.count += 1
    session.add(tally)
    deferred.defer(note, f"after attempt {task.attempt}")
    if fail_first and task.attempt == 1:
        raise ValueError("not yet")


async def count_async(session: AsyncSession, key: str) -> None:
    session.add(Tally(key=key, count=1))


def anything(what) -> None:  # type: ignore[no-untyped-def]  # no annotation
    CALLS.append(what)


def permanent() -> None:
    raise PermanentTaskFailure("the account is gone")


def singular(session: Session, task: TaskContext) -> None:
    if task.attempt == 1:
        session.add(Tally(key="lost", count=1))
        raise SingularTaskFailure("the page is not there yet")
    session.add(Tally(key="kept", count=1))


def broken() -> None:
    raise RuntimeError("broken")


def no_type(what: threading.Thread) -> None:
    """Takes what no task can carry."""


def rest(first: str, *more: int, last: str = "z") -> None:
    CALLS.append((first, more, last))


def others(first: str = "a", **more: float) -> None:
    CALLS.append((first, more))


def by_place(first: int, second: int = 2, /, third: int = 3) -> None:
    CALLS.append((first, second, third))


def all_kinds(first: int, /, second: int, *more: int, third: int = 3, **others: int) -> None:
    CALLS.append((first, second, more, third, others))


def hidden(session: Session, first: int, /, task: TaskContext, *more: int, **others: int) -> None:
    CALLS.append((isinstance(session, Session), first, task.attempt, more, others))


def as_before(*args, **kwargs) -> None:  # type: ignore[no-untyped-def]  # as code from App Engine has it
    CALLS.append((args, kwargs))


class Options(TypedDict, total=False):
    at: datetime


def with_options(**options: Unpack[Options]) -> None:
    CALLS.append(options)


def shout(function: Callable[[str], None]) -> Callable[[str], None]:
    @functools.wraps(function)
    def shouted(what: str) -> None:
        function(what.upper())

    return shouted


def quiet(what: str) -> None:
    CALLS.append(what)


loud = shout(quiet)
"""It has the name of `quiet`, and is another function."""


class Greeter:
    """What only a pickle can carry."""

    def __init__(self, name: str) -> None:
        self.name = name
        CALLS.append("made")

    def __call__(self, greeting: str) -> None:
        CALLS.append((greeting, self.name))

    def greet(self, greeting: str) -> None:
        CALLS.append((greeting, self.name))

    async def greet_async(self, greeting: str) -> None:
        CALLS.append((greeting, self.name))

    @classmethod
    def classy(cls, greeting: str) -> None:
        CALLS.append((greeting, cls.__name__))

    @staticmethod
    def static(greeting: str) -> None:
        CALLS.append(greeting)
