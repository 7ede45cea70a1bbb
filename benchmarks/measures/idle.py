"""What a process costs that has nothing to do: statements, transactions, and CPU of its own and of PostgreSQL.

Each system has its process running, and no task; all of them are watched for the same time, one after the other.

    python -m benchmarks.measures.idle [--sizes 60] [--quick]        # --sizes are seconds here
"""

import time

from benchmarks.run import Run, alone
from benchmarks.systems import QUEUES, REDIS, SQLITE

TITLE = "Idle"
REFERENCES = ("procrastinate", "huey")
PLOT = "cpu_percent"
LOWER_IS_BETTER = True


def measure(run: Run) -> None:
    """Leave all systems alone, in turns."""
    names = [name for name in run.systems(QUEUES) if not name.endswith("route")]
    for name, seconds in run.turns([(name, size) for size in run.sizes((30,), (3,)) for name in names]):
        with run.trying(name):
            run.results.add("nothing to do", name, **left_alone(run, name, seconds))


def left_alone(run: Run, name: str, seconds: float) -> dict[str, float | None]:
    """Let a process run without tasks; give what it uses in a second."""
    with run.nodes(name) as (_, [node]):
        node.call("open", runs=True)
        time.sleep(1 if run.quick else 12)  # PostgreSQL's counts of transactions come late
        counts = name not in (*SQLITE, *REDIS)
        before = node.call("usage"), run.places.cpu(), run.places.statements(), run.places.transactions()
        time.sleep(seconds)
        after = node.call("usage"), run.places.cpu(), run.places.statements(), run.places.transactions()
        node.call("close")
    own = after[0]["statements"] - before[0]["statements"]
    of_database = None if before[1] is None or after[1] is None else after[1] - before[1]
    return {
        "cpu_percent": 100 * (after[0]["cpu"] - before[0]["cpu"]) / seconds,
        "database_cpu_percent": 100 * of_database / seconds if counts and of_database is not None else None,
        "statements_per_second": (after[2] - before[2]) / seconds if counts else own / seconds if own else None,
        "transactions_per_second": (after[3] - before[3]) / seconds if counts else None,
    }


if __name__ == "__main__":
    alone("idle", __doc__)
