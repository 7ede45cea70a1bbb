"""What a task costs on SQLite: the same request without hookware, with it, with a task, and with its dispatch.

Requests go in process into a Starlette app that writes one row and commits. The variants take turns in each round,
so that a slow moment of the machine hits all of them; the medians of the rounds are compared. Commits are counted
by the driver's own trace of every statement that the user's connections run.

    python -m benchmarks.task_cost [--rounds 5] [--requests 300] [--idle-seconds 60]
"""

import argparse
import gc
import json
import platform
import resource
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
from sqlalchemy import Engine, event
from sqlmodel import Field, Session, SQLModel, create_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Send

from hookware import Hookware, TaskRouter, taskqueue
from hookware.events import AttemptSettled, Event


class Hit(SQLModel, table=True):
    """The user's own row."""

    id: int | None = Field(default=None, primary_key=True)
    text: str


class Variant:
    """One way to serve the same request, on a database file of its own."""

    def __init__(self, name: str, folder: Path, *, hookware: bool, task: bool, dispatch: bool) -> None:
        self.name = name
        self.engine = create_engine(f"sqlite:///{folder / name.replace(' ', '_')}.db")
        self.commit_count = 0
        self.completed_count = 0
        self._task = task
        self.app: ASGIApp = Starlette(routes=[Route("/", self._hit, methods=["POST"])])
        if hookware:
            wrapped = Hookware(self.app, engine=self.engine, dispatch=dispatch, router=self._router())
            wrapped.events.subscribe(self._note)
            self.app = wrapped
        event.listen(self.engine, "connect", self._trace)

    def _router(self) -> TaskRouter:
        router = TaskRouter()

        @router.task_handler("/worker")
        async def worker(text: str) -> None:
            """Do nothing: what is measured is the way to here and back."""

        return router

    def _note(self, what: Event) -> None:
        self.completed_count += isinstance(what, AttemptSettled)

    def _trace(self, connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")  # as hookware sets it: it alone makes commits faster
        connection.set_trace_callback(self._count)

    def _count(self, statement: str) -> None:
        self.commit_count += statement.startswith("COMMIT")

    def _hit(self, _request: Request) -> Response:
        with Session(self.engine) as session:
            session.add(Hit(text="x"))
            if self._task:
                taskqueue.add(url="/worker", params={"text": "x"})
            session.commit()
        return Response()


async def post(app: ASGIApp) -> None:
    """Send one request into `app`."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "http_version": "1.1",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": None,
        "server": None,
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] != 200:
            raise RuntimeError(f"the request failed: {message}")

    await app(scope, receive, send)


async def _call(app: ASGIApp, receive: Receive, send: Send) -> None:
    await app({"type": "lifespan", "state": {}}, receive, send)


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[None]:
    """Hold `app` between start-up and shutdown."""
    shutdown, started = anyio.Event(), anyio.Event()
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        if asked == 1:
            return {"type": "lifespan.startup"}
        await shutdown.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            started.set()

    async with anyio.create_task_group() as group:
        group.start_soon(_call, app, receive, send)
        await started.wait()
        yield
        shutdown.set()


async def time_requests(variant: Variant, count: int) -> float:
    """Give the seconds per request of `count` requests, one after the other."""
    gc.collect()
    began = time.perf_counter()
    for _ in range(count):
        await post(variant.app)
    return (time.perf_counter() - began) / count


async def measure_requests(folder: Path, rounds: int, requests: int) -> dict[str, Any]:
    """Measure all variants in turn."""
    variants = [
        Variant("without hookware", folder, hookware=False, task=False, dispatch=False),
        Variant("no task", folder, hookware=True, task=False, dispatch=False),
        Variant("task stored", folder, hookware=True, task=True, dispatch=False),
        Variant("task dispatched", folder, hookware=True, task=True, dispatch=True),
    ]
    seconds: dict[str, list[float]] = {variant.name: [] for variant in variants}
    async with AsyncExitStack() as stack:
        for variant in variants:
            SQLModel.metadata.create_all(variant.engine, tables=[SQLModel.metadata.tables["hit"]])
            await stack.enter_async_context(serving(variant.app))
            await time_requests(variant, 20)
            variant.commit_count = 0
        for _ in range(rounds):
            for variant in variants:
                seconds[variant.name].append(await time_requests(variant, requests))
                if variant.name == "task dispatched":  # the others must not pay for its backlog
                    await until(lambda v=variant: v.completed_count >= total(v, folder))  # type: ignore[misc]  # mypy infers no lambda with a default
    for variant in variants:
        variant.engine.dispose()
    base = statistics.median(seconds["without hookware"])
    return {
        name: {
            "median_us": round(statistics.median(values) * 1e6, 1),
            "ratio": round(statistics.median(values) / base, 3),
            "added_us": round((statistics.median(values) - base) * 1e6, 1),
            "commits_per_request": variant.commit_count / (rounds * requests),
        }
        for variant, (name, values) in zip(variants, seconds.items(), strict=True)
    }


def total(variant: Variant, folder: Path) -> int:
    """How many tasks were added so far."""
    connection = sqlite3.connect(folder / f"{variant.name.replace(' ', '_')}.db")
    (count,) = connection.execute("SELECT count(*) FROM hit").fetchone()
    connection.close()
    return int(count)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, a minute at most."""
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - nothing to wait for but the count
            await anyio.sleep(0.02)


async def measure_idle(folder: Path, seconds: float) -> dict[str, float]:
    """Measure what an idle process asks of the database and of the processor."""
    engine = create_engine(f"sqlite:///{folder}/idle.db")
    statements: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    async with serving(Hookware(engine=engine, router=TaskRouter())):
        await anyio.sleep(1)
        statements.clear()
        began = resource.getrusage(resource.RUSAGE_SELF)
        await anyio.sleep(seconds)
        ended = resource.getrusage(resource.RUSAGE_SELF)
        seen = [s for s in statements if not s.startswith(("BEGIN", "COMMIT"))]
    event.remove(Engine, "before_cursor_execute", count)
    engine.dispose()
    cpu = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    writes = sum(not s.lstrip("( \n").startswith(("SELECT", "WITH", "PRAGMA")) for s in seen)
    return {
        "queries_per_minute": round(len(seen) * 60 / seconds, 1),
        "writes_per_minute": round(writes * 60 / seconds, 1),
        "cpu_percent": round(100 * cpu / seconds, 2),
    }


def main() -> None:
    """Measure, and print a table and the raw figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--idle-seconds", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        requests = anyio.run(measure_requests, Path(name), options.rounds, options.requests)
        idle = anyio.run(measure_idle, Path(name), options.idle_seconds)
    print(f"{'variant':<18}{'median us':>10}{'ratio':>8}{'added us':>10}{'commits':>9}")
    for variant, row in requests.items():
        print(
            f"{variant:<18}{row['median_us']:>10}{row['ratio']:>8}{row['added_us']:>10}{row['commits_per_request']:>9}"
        )
    print("idle process:", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in idle.items()))
    packages = {package: version(package) for package in ("sqlalchemy", "starlette", "anyio")}
    machine = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, **packages}
    print(json.dumps({"requests": requests, "idle": idle, "machine": machine}))


if __name__ == "__main__":
    main()
