"""Whether a long queue is a slow one: the rate at a backlog, and with as many tasks that are due tomorrow.

The queue is filled once; in each round, some tasks are added and as many are run. All systems have their full queues
at the same time, and take turns.

    python -m benchmarks.measures.growth [--sizes 10000 1000000] [--quick]
"""

from contextlib import ExitStack

from benchmarks.node import Node, wait_done
from benchmarks.run import Run, alone
from benchmarks.systems import SQLITE
from benchmarks.systems.base import Place

TITLE = "Growth"
REFERENCES = ("pgqueuer", "hookware-sqlite")
PLOT = "tasks_per_second"
SYSTEMS = ("hookware", "hookware-route", "pgqueuer", "procrastinate", "hookware-sqlite")
"""Those that can be filled with a million tasks in a reasonable time."""

_DAY_SECONDS = 86_400.0


def measure(run: Run) -> None:
    """Fill the queues of all systems, and let them take turns; once for each size."""
    some = 500 if run.quick else 5_000
    for size in run.sizes((10_000, 1_000_000), (1_000, 10_000)):
        for case, delay in ((f"backlog of {size:,}", 0.0), (f"{size:,} due tomorrow", _DAY_SECONDS)):
            with ExitStack() as stack:
                filled: dict[str, Node] = {}
                for name in run.systems(SYSTEMS):
                    with run.trying(name):
                        place, [node] = stack.enter_context(run.nodes(name))
                        fill(run, name, place, node, size, delay)
                        filled[name] = node
                for (name,) in run.turns([(name,) for name in filled]):
                    with run.trying(name):
                        run.results.add(case, name, tasks_per_second=rate(filled[name], some))


def fill(run: Run, name: str, place: Place, node: Node, size: int, delay: float) -> None:
    """Add many tasks, and let PostgreSQL know how many there are."""
    node.call("open", runs=False)
    node.call("add", kind="noop", count=size, delay_seconds=delay, within=7200.0)
    node.call("close")
    if name not in SQLITE:
        with run.places.connect(place) as connection:
            connection.execute("VACUUM ANALYZE")


def rate(node: Node, some: int) -> float:
    """Add some tasks that are due, and let as many be run; give how many a second."""
    warm = some // 10
    node.call("open", runs=False)
    node.call("add", kind="noop", count=some)
    node.call("close")
    node.call("open", runs=True, warm=warm)
    done, seconds = wait_done([node], some)
    node.call("close")
    return (done - warm) / seconds


if __name__ == "__main__":
    alone("growth", __doc__)
