"""One process of a system, driven by lines of JSON.

    python -m benchmarks.child SYSTEM DATABASE REDIS [NAME=VALUE ...]

Each line on the standard input is a call of one of the methods named `do_...`; the answer is a line on the standard
output. Meanwhile it tells by itself how many tasks were done, and when a stamped one began. Times are of the clock
that never steps, which all processes of a machine share.
"""

import asyncio
import gc
import importlib
import json
import logging
import resource
import sys
import threading
import time
from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import anyio
import psutil
from sqlalchemy import Engine, event

from benchmarks.handlers import counted, keys, say
from benchmarks.systems import make
from benchmarks.systems.base import Place, System

_TALLY_SECONDS = 0.05


class Child:
    """Does what it is told with one system."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._opened: AsyncExitStack | None = None
        self._pacing: asyncio.Task[None] | None = None
        self._statements = 0
        event.listen(Engine, "before_cursor_execute", self._count_statement)

    async def do_prepare(self) -> None:
        """Make all tables."""
        await self._system.prepare()

    async def do_versions(self) -> dict[str, str]:
        """Say what it runs with."""
        found = {}
        for package in (self._system.package, *self._system.extra_packages):
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                found[package] = "?"
        return found

    async def do_batches(self) -> list[int]:
        """Say which sizes of its batches are worth a try."""
        return list(self._system.batches)

    async def do_can(self) -> dict[str, bool]:
        """Say what it can."""
        return {"schedule": self._system.schedules, "hold": self._system.holds}

    async def do_tune(self, **attributes: int) -> None:
        """Change a setting of the system."""
        for name, value in attributes.items():
            getattr(self._system, name)  # a slip of the pen raises
            setattr(self._system, name, value)

    async def do_open(self, *, runs: bool, warm: int = 0) -> None:
        """Be ready to add tasks; with `runs`, run them, the first `warm` of which are not timed."""
        self._system.handlers.reset(warm)
        gc.collect()
        self._opened = AsyncExitStack()
        await self._opened.enter_async_context(self._system.opened(runs=runs))

    async def do_close(self) -> None:
        """Stop running tasks."""
        await self.do_rest()
        self._system.handlers.release()
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None

    async def do_add(self, kind: str, count: int, delay_seconds: float = 0) -> float:
        """Store many tasks; give the seconds."""
        began = time.perf_counter()
        await self._system.add(kind, keys(count), delay_seconds)
        return time.perf_counter() - began

    async def do_add_one_by_one(self, kind: str, count: int, at_once: int) -> float:
        """Store tasks with one call each; give the seconds."""
        waiting = iter(keys(count))

        async def add_some() -> None:
            for key in waiting:
                await self._system.add(kind, [key])

        began = time.perf_counter()
        async with anyio.create_task_group() as group:
            for _ in range(at_once):
                group.start_soon(add_some)
        return time.perf_counter() - began

    async def do_stamp(self) -> list[float]:
        """Store one task that tells when it begins; give the times before and after."""
        called_at = time.monotonic()
        await self._system.add("stamp", ["stamp"])
        return [called_at, time.monotonic()]

    async def do_reset(self) -> None:
        """Count the tasks from zero."""
        self._system.handlers.reset()

    async def do_pace(self, rate: float, at_once: int) -> None:
        """Go on adding so many tasks a second, by `at_once`, until `do_rest`."""

        async def pace() -> None:
            due_at = time.monotonic()
            while True:
                await self._system.add("noop", keys(at_once))
                due_at = max(due_at + at_once / rate, time.monotonic() - 0.1)
                await asyncio.sleep(due_at - time.monotonic())

        self._pacing = asyncio.create_task(pace())

    async def do_rest(self) -> None:
        """Stop adding."""
        if self._pacing is not None:
            self._pacing.cancel()
            await asyncio.gather(self._pacing, return_exceptions=True)
            self._pacing = None

    async def do_usage(self) -> dict[str, float]:
        """Say what this process has used so far."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {"cpu": used.ru_utime + used.ru_stime, "statements": self._statements}

    async def do_memory(self) -> int:
        """Say how many bytes of memory this process has."""
        gc.collect()
        return psutil.Process().memory_info().rss

    async def do_counted(self) -> int:
        """How many increments are in the database."""
        return await asyncio.to_thread(counted, self._system.engine)

    async def do_measure(self, module: str, **arguments: Any) -> Any:
        """Call what a measure does in the system's own process: `inside(system, ...)` of its module."""
        return await importlib.import_module(module).inside(self._system, **arguments)

    def tell(self) -> None:
        """Tell how many tasks were done, whenever there are more."""
        handlers, told = self._system.handlers, 0
        while True:
            quiet = handlers.done == told  # then it must not be what an idle process costs
            time.sleep(_TALLY_SECONDS * (10 if quiet else 1))
            if handlers.done != told:
                told = handlers.done
                say(tally=[told, handlers.first_at, handlers.last_at])

    def _count_statement(self, _connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        self._statements += not statement.startswith(("BEGIN", "COMMIT", "PRAGMA"))  # as PostgreSQL's are counted


async def main(name: str, database: str, redis: str, *tuned: str) -> None:
    """Obey the lines of the standard input, until it ends."""
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, force=True)
    system = make(name, Place(database=database, redis=redis))
    child = Child(system)
    await child.do_tune(**{key: int(value) for key, _, value in (word.partition("=") for word in tuned)})
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    threading.Thread(target=child.tell, daemon=True).start()
    say(answer="ready")
    while line := await lines.get():
        call = json.loads(line)
        try:
            say(answer=await getattr(child, "do_" + call.pop("do"))(**call))
        except Exception as error:
            logging.getLogger("benchmarks").exception("%s", line)
            say(error=f"{type(error).__name__}: {error}")
    await child.do_close()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main(*sys.argv[1:]))
    else:
        uvloop.run(main(*sys.argv[1:]))
