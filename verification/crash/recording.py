"""What all parts of the app that is killed write down, each step before the next one begins.

The environment says what to do: CRASH_DATABASE is a URL, CRASH_HISTORY a file, CRASH_CLOCK the seconds by which this
process's clock is wrong, CRASH_HOST the host that it says it is on, CRASH_NODE its name in the history if not its id,
and CRASH_FAILPOINT, "name:hit", makes the process kill itself when it passes that failpoint for the hit-th time.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import URL, make_url, text

from hookware import TaskContext
from hookware.core.lifecycle import Die, Retry
from hookware.env import Env
from hookware.events import AttemptSettled, Event
from verification.crash.database import application_name
from verification.history import History

WRITE_ORDER = text("INSERT INTO crash_order VALUES (:key, :task)")
WRITE_EFFECT = text("INSERT INTO crash_effect (task, attempt, fence, pid) VALUES (:task, :attempt, :fence, :pid)")

_countdown = ContextVar("countdown", default=0.0)
_alone = ContextVar("alone", default=False)
_newest_task = ContextVar("newest_task", default=0)


def true_time(clock: Callable[[], float] = time.time) -> float:
    """Give the time as everybody else has it."""
    return clock()


def _set_clock(error: float) -> None:
    """Let this process's clock be wrong: libfaketime 0.9.10 makes CPython's `sleep` raise, or its locks hang."""
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() + error
    time.time_ns = lambda: nanoseconds() + int(error * 1e9)


class _TrueHistory(History):
    def write(self, ev: str, **said: Any) -> None:
        super().write(ev, **{"t": true_time(), "node": os.environ.get("CRASH_NODE") or os.getpid(), **said})


history = _TrueHistory(os.environ["CRASH_HISTORY"])


def database_url() -> tuple[URL, dict[str, object]]:
    """Give the database's URL and connect_args; they name this process to PostgreSQL."""
    url = make_url(os.environ["CRASH_DATABASE"])
    if url.get_backend_name() == "sqlite":
        return url, {}
    name = {"application_name": application_name(os.getpid())}
    if url.drivername.endswith("asyncpg"):
        return url, {"server_settings": name}
    return url.update_query_dict(name), {}


def _set_host(name: str) -> None:
    """Let this process take itself for one of another host: nobody there can see whether it lives."""
    socket.gethostname = lambda: name


class CrashEnv(Env):
    """The real world, with a place to die in."""

    def __init__(self) -> None:
        super().__init__()
        name, _, hit = os.environ.get("CRASH_FAILPOINT", "").partition(":")
        self._deadly = name
        self._hits_left = int(hit or 1)
        self._lock = threading.Lock()

    def fp(self, name: str) -> None:
        """Note that a task added on its own is stored, and die where it is asked for."""
        if name == "add.committed":
            history.write("stored", task=_newest_task.get())
        if name == self._deadly:
            with self._lock:
                self._hits_left -= 1
                if self._hits_left == 0:
                    history.write("killed", why=name)
                    os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def adding(self, *, countdown: float = 0.0, alone: bool = False) -> Iterator[None]:
        """Note of the tasks added in this block when they are due and whose transaction is theirs."""
        tokens = _countdown.set(countdown), _alone.set(alone)
        try:
            yield
        finally:
            _countdown.reset(tokens[0])
            _alone.reset(tokens[1])

    def new_id(self) -> int:
        """Give an id, and write down whose it will be."""
        task = super().new_id()
        _newest_task.set(task)
        history.write("alone" if _alone.get() else "joining", task=task, eta=true_time() + _countdown.get())
        return task


env = CrashEnv()
_set_clock(float(os.environ.get("CRASH_CLOCK", "0")))
_set_host(os.environ.get("CRASH_HOST") or socket.gethostname())


@contextmanager
def attempt(task: TaskContext) -> Iterator[None]:
    """Write down the start and the end of a handler."""
    line = {"task": task.id, "attempt": task.attempt, "fence": task.fence, "url": task.url}
    history.write("start", **line)
    try:
        yield
    except BaseException as error:
        history.write("end", **line, outcome=type(error).__name__)
        raise
    history.write("end", **line, outcome="ok")


def effect(task: TaskContext) -> dict[str, int]:
    """Give the row that a handler leaves."""
    return {"task": task.id, "attempt": task.attempt, "fence": task.fence, "pid": os.getpid()}


def note_settled(event: Event) -> None:
    """Write down what became of an attempt."""
    if isinstance(event, AttemptSettled) and event.accepted is not None:  # what is not known is no evidence
        task, decision = event.task, event.decision
        history.write(
            "settled", task=task.id, attempt=task.attempt_count, fence=task.fence, accepted=event.accepted,
            outcome=type(decision).__name__.lower(),
            crashed=isinstance(decision, Retry | Die) and decision.crashed,
            delay=decision.delay_us / 1e6 if isinstance(decision, Retry) else 0.0,
        )  # fmt: skip
