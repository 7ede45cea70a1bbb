"""One process of the benchmark: adds tasks when it is told to, and runs them if it is the one that does.

It is told by lines on its standard input and tells by lines of JSON on its standard output. Times are of the clock
that never steps, which all processes of a machine share.

    python -m benchmarks.wakeup.nodes {hookware,procrastinate,pgqueuer} {adds,runs} URL
"""

import asyncio
import json
import resource
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pgqueuer
import procrastinate
from sqlalchemy import create_engine
from sqlmodel import Session

from hookware import Hookware, TaskRouter, taskqueue
from tests.serving import serving

Add = Callable[[], Awaitable[float]]
"""Adds one task in a transaction of its own; gives the time when its commit had returned."""

_CONCURRENCY = 10


def tell(**what: float) -> None:
    """Write one line to whoever watches."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def started() -> None:
    """Be the handler."""
    tell(started=time.monotonic())


@asynccontextmanager
async def hookware_node(url: str, *, runs: bool) -> AsyncIterator[Add]:
    """Add as a synchronous route does: a session in a thread. All settings are hookware's own."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    router = TaskRouter()
    router.task_handler("/worker")(started)

    def add_and_commit() -> float:
        with Session(engine) as session:
            taskqueue.add(url="/worker", session=session)
            session.commit()
            return time.monotonic()

    async def add() -> float:
        return await asyncio.to_thread(add_and_commit)

    async with serving(Hookware(engine=engine, router=router, dispatch=runs)):
        yield add
    engine.dispose()


@asynccontextmanager
async def procrastinate_node(url: str, *, runs: bool) -> AsyncIterator[Add]:
    """Run the worker in the app's own event loop, as its guide for FastAPI does."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))
    task = app.task(name="started")(started)

    async def add() -> float:
        await task.defer_async()
        return time.monotonic()

    async with app.open_async():
        if runs:
            await app.schema_manager.apply_schema_async()
            worker = asyncio.create_task(app.run_worker_async(concurrency=_CONCURRENCY, install_signal_handlers=False))
        yield add
        if runs:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)


@asynccontextmanager
async def pgqueuer_node(url: str, *, runs: bool) -> AsyncIterator[Add]:
    """Use asyncpg, the driver that its documentation uses first."""
    connection = await asyncpg.connect(url)
    queue = pgqueuer.PgQueuer.from_asyncpg_connection(connection)
    adding = await asyncpg.connect(url)  # as any other part of an app, with a connection of its own
    queries = pgqueuer.Queries.from_asyncpg_connection(adding)
    if runs:
        await queries.install()

        @queue.entrypoint("started")
        async def _started(_task: object) -> None:
            await started()

        running = asyncio.create_task(queue.run())

    async def add() -> float:
        await queries.enqueue("started", None)
        return time.monotonic()

    yield add
    if runs:
        queue.shutdown.set()
        await running
    await adding.close()
    await connection.close()


NODES = {"hookware": hookware_node, "procrastinate": procrastinate_node, "pgqueuer": pgqueuer_node}


async def main(name: str, role: str, url: str) -> None:
    """Do what the lines of the standard input say, until it ends."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())
        loop.call_soon_threadsafe(lines.put_nowait, "end")

    async with NODES[name](url, runs=role == "runs") as add:
        threading.Thread(target=read, daemon=True).start()
        tell(ready=1)
        while (line := await lines.get()) != "end":
            match line:
                case "add":
                    began = time.monotonic()
                    tell(began=began, committed=await add())
                case "cpu":
                    used = resource.getrusage(resource.RUSAGE_SELF)
                    tell(cpu=used.ru_utime + used.ru_stime)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
