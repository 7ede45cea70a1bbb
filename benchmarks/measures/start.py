"""How long a task waits for its handler: from the call that stores it, and from the return of its commit.

Each system has a process that runs tasks and another that only adds them. `idle`: a task is added when all is quiet,
in either process. `half load`: the other process meanwhile adds no-op tasks without end, half as many a second as the
first can run, as a short drain has shown. A task that begins before its commit has returned counts as 0.

    python -m benchmarks.measures.start [--sizes 200] [--systems hookware pgqueuer] [--quick]
"""

import random
import statistics
import time

from benchmarks.figures import percentile
from benchmarks.node import Node, wait_done
from benchmarks.run import Run, alone
from benchmarks.systems import QUEUES

TITLE = "From the commit to the handler"
REFERENCES = ("hookware", "hookware-sqlite")
PLOT = "call_to_start_p50_ms"
LOWER_IS_BETTER = True

_MOST_LOAD = 2000.0  # what one process can add by tens in every system


def measure(run: Run) -> None:
    """Let all systems take turns, each with some tasks in each of three cases."""
    for name, count in run.turns([(n, size) for size in run.sizes((100,), (15,)) for n in run.systems(QUEUES)]):
        with run.trying(name), run.nodes(name, 2) as (_, (runs, adds)):
            rate = capacity(run, runs)
            adds.call("open", runs=False)
            waited(adds, runs, 5)
            waited(runs, runs, 5)
            note(run, name, "idle, same process", waited(runs, runs, count))
            note(run, name, "idle, another process", waited(adds, runs, count))
            adds.call("pace", rate=min(rate / 2, _MOST_LOAD), at_once=10)
            time.sleep(0.5 if run.quick else 2)
            began, before = time.monotonic(), runs.tally[0]
            loaded = waited(runs, runs, count)
            done = (runs.tally[0] - before) / (time.monotonic() - began)
            adds.call("rest")
            note(run, name, "half load, same process", loaded)
            run.results.add("half load, same process", name, load_tasks_per_second=done)
            runs.call("close")
            adds.call("close")


def capacity(run: Run, node: Node) -> float:
    """Let the process run tasks, and give how many a second it manages; it goes on running."""
    size = 300 if run.quick else 3000
    node.call("open", runs=False)
    node.call("add", kind="noop", count=size)
    node.call("close")
    node.call("open", runs=True)
    done, seconds = wait_done([node], size)
    return done / seconds


def waited(adds: Node, runs: Node, count: int) -> list[tuple[float, float]]:
    """Add tasks one after the other; give how many milliseconds each began after its call, and after its commit."""
    found = []
    for _ in range(count):
        time.sleep(0.03 + random.random() * 0.04)
        called_at, committed_at = adds.call("stamp")
        started_at = runs.started_at()
        found.append(((started_at - called_at) * 1000, max(0.0, started_at - committed_at) * 1000))
    return found


def note(run: Run, name: str, case: str, waited_ms: list[tuple[float, float]]) -> None:
    """Keep what matters of it."""
    for since, values in zip(("call", "commit"), zip(*waited_ms, strict=True), strict=True):
        figures = {"p50_ms": statistics.median(values), "p99_ms": percentile(values, 0.99)}
        run.results.add(case, name, **{f"{since}_to_start_{figure}": value for figure, value in figures.items()})


if __name__ == "__main__":
    alone("start", __doc__)
