"""How many tasks a second are run, where nothing but tasks is to be done.

All are added beforehand. The time is from the end of the first tenth to the end of the last task, over all processes:
starting a process does not count, nor does the fetch of a first large batch. A task that increments writes one of a
thousand rows, and afterwards the rows must add up.

    python -m benchmarks.measures.drain [--sizes 20000] [--processes 1 2 4] [--kinds noop increment] [--quick]
"""

import statistics

from benchmarks.node import SystemFailedError, wait_done
from benchmarks.run import Run, alone
from benchmarks.systems import QUEUES

TITLE = "Drain"
REFERENCES = ("pgqueuer", "huey")
PLOT = "tasks_per_second"


def measure(run: Run) -> None:
    """Let all systems drain in turns."""
    names = run.systems(QUEUES)
    kinds = run.options.kinds or ["noop", "increment"]
    processes = run.options.processes or ([1, 2] if run.quick else [1, 2, 4])
    for name in names:
        with run.trying(name):
            choose_batch(run, name)
    cells = [
        (name, kind, size, number)
        for kind in kinds
        for size in run.sizes((20_000,), (2_000,))
        for number in (processes[:1] if run.quick and kind != "noop" else processes)
        for name in names
    ]
    for name, kind, size, number in run.turns(cells):
        with run.trying(name):
            rate = drained(run, name, kind, size, number)
            plural = "es" if number > 1 else ""
            run.results.add(f"{kind}, {size:,} tasks, {number} process{plural}", name, tasks_per_second=rate)


def drained(run: Run, name: str, kind: str, size: int, processes: int) -> float:
    """Add tasks to an empty queue, and run them; give how many a second."""
    warm = max(1, size // 10 // processes)
    with run.nodes(name, processes) as (_, held):
        first = held[0]
        first.call("open", runs=False)
        first.call("add", kind=kind, count=size)
        first.call("close")
        for node in held:
            node.send("open", runs=True, warm=warm)
        for node in held:
            node.answer()
        done, seconds = wait_done(held, size)
        for node in held:
            node.call("close")
        if kind == "increment" and (rows := first.call("counted")) < size:
            raise SystemFailedError(f"{size} tasks were done, and {rows} increments are in the database")
    return (done - warm * processes) / seconds


def choose_batch(run: Run, name: str) -> None:
    """Give a system that fetches by batches the best size for no-op tasks."""
    with run.nodes(name) as (_, [node]):
        sizes = node.call("batches")
    if not sizes or "batch" in run.tuned.get(name, {}):
        return
    rates = {}
    for size in sizes:
        run.tuned.setdefault(name, {})["batch"] = size
        tasks = max(2_000 if run.quick else 10_000, 3 * size)
        rates[size] = statistics.median(drained(run, name, "noop", tasks, 1) for _ in range(1 if run.quick else 3))
    best = max(sizes, key=lambda size: rates[size])
    run.tuned[name]["batch"] = best
    run.results.settings[f"batch of {name}"] = {"best": best, "tasks per second": rates}


if __name__ == "__main__":
    alone("drain", __doc__)
