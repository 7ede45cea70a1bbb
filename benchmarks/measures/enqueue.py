"""How quickly tasks are stored: alone, and in the transaction of a request; nobody runs them meanwhile.

Alone: one call after the other, 50 at once, and as many with one call as the system takes. In a request: a Starlette
app is called in process, one request after the other and 50 at once; each writes a row, stores a task and commits. The
same request without a task is taken off: what is left, CPU of the process and statements, is what the task adds.

    python -m benchmarks.measures.enqueue [--sizes 2000] [--quick]
"""

import time
from collections.abc import Iterator

import anyio
from starlette.types import ASGIApp

from benchmarks.calls import call
from benchmarks.handlers import keys
from benchmarks.run import Run, alone
from benchmarks.systems import INSIDE, QUEUES, SQLITE
from benchmarks.systems.base import System
from benchmarks.web_app import app_of
from tests.serving import serving

TITLE = "Enqueue"
REFERENCES = ("procrastinate", "huey")
PLOT = "per_second"

_MODULE = "benchmarks.measures.enqueue"


def measure(run: Run) -> None:
    """Let all systems store tasks in turns."""
    names = [name for name in run.systems(QUEUES) if not name.endswith("route")]  # storing is the same there
    sizes = run.sizes((2_000,), (200,))
    for name, size in run.turns([(name, size) for size in sizes for name in names]):
        with run.trying(name), run.nodes(name) as (_, [node]):
            node.call("open", runs=False)
            for at_once in (1, 50):
                seconds = node.call("add_one_by_one", kind="noop", count=size, at_once=at_once)
                run.results.add(f"alone, {at_once} at once", name, per_second=size / seconds)
            run.results.add("in bulk", name, per_second=10 * size / node.call("add", kind="noop", count=10 * size))
            node.call("close")
    cells = [(name, size, at_once) for size in sizes for at_once in (1, 50) for name in names]
    for name, size, at_once in run.turns(cells):
        with run.trying(name):
            bare = requested(run, "no task sqlite" if name in SQLITE else "no task", size, at_once)
            found = requested(run, name, size, at_once)
            run.results.add(
                f"in a request, {at_once} at once",
                name,
                per_second=found["per_second"],
                part_of_no_task=found["per_second"] / bare["per_second"],
                added_cpu_us=max(0.0, found["cpu_us"] - bare["cpu_us"]),
                added_statements=found["statements"] - bare["statements"],
            )


def requested(run: Run, name: str, size: int, at_once: int) -> dict[str, float]:
    """Call the app in the system's own process; give what a request takes."""
    with run.nodes(name) as (_, [node]):
        counted = run.places.statements if name not in SQLITE else lambda: float(node.call("usage")["statements"])
        arguments = {"module": _MODULE, "wraps": name in INSIDE, "at_once": at_once}
        few = 2 * at_once
        node.call("measure", **arguments, requests=few)
        counts = [counted()]
        for requests in (few, few + size):  # the first shows what starting the app takes
            found: dict[str, float] = node.call("measure", **arguments, requests=requests)
            counts.append(counted())
    found["statements"] = (counts[2] - 2 * counts[1] + counts[0]) / size
    return found


async def inside(system: System, *, wraps: bool, requests: int, at_once: int) -> dict[str, float]:
    """Send requests into the app of a system; give how many a second, and the CPU of each."""
    app = app_of(system, runs=False, wraps=wraps)
    async with serving(app):
        waiting = iter(keys(requests))
        began, cpu = time.perf_counter(), time.process_time()
        async with anyio.create_task_group() as group:
            for _ in range(at_once):
                group.start_soon(_send, app, waiting)
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
    return {"per_second": requests / seconds, "cpu_us": used / requests * 1e6}


async def _send(app: ASGIApp, waiting: Iterator[str]) -> None:
    for key in waiting:
        await call(app, "/", query=f"key={key}".encode())


if __name__ == "__main__":
    alone("enqueue", __doc__)
