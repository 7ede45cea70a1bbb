"""What a task costs, from its row to its end: CPU of the process and of the database, statements, WAL, memory.

No-op tasks are drained by one process. What the same process uses to start, with nothing to do, is taken off. WAL is
that of storing and running. Memory is what a process with a thousand tasks in flight has more than one with none.

    python -m benchmarks.measures.cost [--sizes 10000] [--quick]
"""

import time

from benchmarks.node import Node, wait_done
from benchmarks.run import Run, alone
from benchmarks.systems import QUEUES, REDIS, SQLITE

TITLE = "Cost"
REFERENCES = ("pgqueuer", "huey")
PLOT = "process_cpu_ms_per_1000"
LOWER_IS_BETTER = True

_IN_FLIGHT = 1000


def measure(run: Run) -> None:
    """Let all systems drain, and hold, in turns."""
    cells = [(name, size) for size in run.sizes((10_000,), (1_000,)) for name in run.systems(QUEUES)]
    for name, size in run.turns(cells):
        with run.trying(name):
            run.results.add(f"{size:,} no-op tasks", name, **drained(run, name, size))
    for (name,) in run.turns([(name,) for name in run.systems(QUEUES)]):
        with run.trying(name):
            run.results.add("1,000 tasks in flight", name, memory_mib=held(run, name))


def drained(run: Run, name: str, size: int) -> dict[str, float | None]:
    """Drain an empty queue, and then a full one; give what the tasks cost."""
    with run.nodes(name) as (_, [node]):
        empty = used(run, name, node, 0)
        run.places.checkpoint()
        wal = run.places.wal()
        node.call("open", runs=False)
        node.call("add", kind="noop", count=size)
        node.call("close")
        full = used(run, name, node, size)
        wal = run.places.wal() - wal
    on_postgresql = name not in (*SQLITE, *REDIS)
    process, database, statements = (max(0.0, more - less) for more, less in zip(full, empty, strict=True))
    return {
        "process_cpu_ms_per_1000": process * 1e6 / size,
        "database_cpu_ms_per_1000": database * 1e6 / size if on_postgresql and run.places.process else None,
        "statements_per_task": statements / size if name not in REDIS and name != "huey" else None,
        "wal_bytes_per_task": wal / size if on_postgresql else None,
    }


def used(run: Run, name: str, node: Node, size: int) -> tuple[float, float, float]:
    """Run tasks from start to end; give the CPU of the process and of the database, and the statements."""
    before, database, statements = node.call("usage"), run.places.cpu() or 0.0, run.places.statements()
    node.call("open", runs=True)
    if size:
        wait_done([node], size)
    else:
        time.sleep(0.2)
    node.call("close")
    after = node.call("usage")
    done = after["statements"] - before["statements"] if name in SQLITE else run.places.statements() - statements
    return after["cpu"] - before["cpu"], (run.places.cpu() or 0.0) - database, done


def held(run: Run, name: str) -> float | None:
    """Give how many MiB a thousand tasks in flight take."""
    with run.nodes(name) as (_, [node]):
        if not node.call("can")["hold"]:
            return None
        node.call("tune", concurrency=_IN_FLIGHT, batch=_IN_FLIGHT)
        memory = []
        for in_flight in (1, _IN_FLIGHT):
            node.call("open", runs=False)
            node.call("add", kind="hold", count=in_flight)
            node.call("close")
            node.call("open", runs=True)
            wait_done([node], in_flight, within=60)
            memory.append(node.call("memory"))
            node.call("close")
    return max(0.0, memory[1] - memory[0]) / 2**20


if __name__ == "__main__":
    alone("cost", __doc__)
