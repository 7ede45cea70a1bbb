"""The whole of it: requests that write a row and leave a task, and tasks that write another row.

uvicorn serves the app, and 32 connections of another process send requests as fast as they are answered. hookware runs
its tasks in the web process, and as `hookware-apart` in a process of their own; so do the peers, as their documentation
has it. hookware's tasks end with the transaction of their handler; as `hookware-plain` it commits in a session of its
own, as in the peers, and tasks end by batches. The tasks done per second are counted until the last one is in the
database, from the first request on; statements are those beside the user's own, of which there are two. Beside it stand
the same request without a task, and with Starlette's BackgroundTasks, which forget theirs when the process ends.

    python -m benchmarks.measures.web [--sizes 5000] [--quick]
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from typing import Any

from benchmarks.node import ROOT, Node, SystemFailedError, python_of
from benchmarks.run import Run, alone
from benchmarks.systems import APART, INSIDE, PLAIN, QUEUES, REDIS, SQLITE, TASKLESS
from benchmarks.systems.base import Place

TITLE = "Requests with tasks"
REFERENCES = ("background", "background sqlite")
PLOT = "tasks_per_second"
CONNECTIONS = 32

_DONE_SECONDS = 120.0


def measure(run: Run) -> None:
    """Let all systems serve in turns."""
    every = (*TASKLESS, *QUEUES, *APART, *PLAIN)
    systems = [name for name in every if not name.endswith("route")]  # the task is the same there
    for name, requests in run.turns([(n, size) for size in run.sizes((5_000,), (300,)) for n in run.systems(systems)]):
        with run.trying(name):
            database = "SQLite, synchronous=FULL" if name in SQLITE else "PostgreSQL"
            run.results.add(f"{database}, {requests:,} requests", name, **served(run, name, requests))


def served(run: Run, name: str, requests: int) -> dict[str, float | None]:
    """Serve requests on an empty database until all tasks are done; give how many a second of each."""
    number = 1 if name in INSIDE or name in TASKLESS else 2
    with run.nodes(name, number) as (place, held):
        if number == 2:
            held[1].call("open", runs=True)
        with serving(run, name, place) as port:
            load(port, 100)
            warm = 0 if name.startswith("no task") else 100
            wait_counted(held[0], warm)
            statements = _statements(run, name)
            found = load(port, requests)
            if found["failed"]:
                raise SystemFailedError(f"{found['failed']} of {requests} requests failed")
            seconds = found["ended_at"] - found["began_at"]
            done_at = wait_counted(held[0], warm + requests) if warm else None
            statements = (_statements(run, name) - statements) / requests
        if number == 2:
            held[1].call("close")
    return {
        "tasks_per_second": None
        if done_at is None
        else requests / (max(done_at, found["ended_at"]) - found["began_at"]),
        "requests_per_second": requests / seconds,
        "statements_per_request": None if name in SQLITE or name in REDIS else statements,
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
    }


def _statements(run: Run, name: str) -> float:
    return 0.0 if name in SQLITE or name in REDIS else run.places.statements(beside="bench_c")


@contextmanager
def serving(run: Run, name: str, place: Place) -> Iterator[int]:
    """Hold uvicorn with the app of a system; give its port."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    tuned = " ".join(f"{key}={value}" for key, value in run.tuned.get(name, {}).items())
    inside = name in INSIDE or name in TASKLESS
    told = {
        "BENCH_SYSTEM": name,
        "BENCH_PLACE": json.dumps(asdict(place)),
        "BENCH_RUNS": "yes" if inside else "no",
        "BENCH_TUNED": tuned,
        "PYTHONPATH": str(ROOT),
    }
    command = ["-m", "uvicorn", "--factory", "benchmarks.web_app:served", "--port", str(port), "--no-access-log"]
    with (run.places.folder / "uvicorn.log").open("w+b") as log:
        process = subprocess.Popen(
            [python_of(name), *command, "--log-level", "warning"], cwd=ROOT, env={**os.environ, **told}, stderr=log
        )
        try:
            _wait_for(port, process, log)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Any) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), timeout=1)):
            return
        time.sleep(0.05)
    log.seek(0)
    last = log.read().decode(errors="replace").strip().rpartition("\n")[2]
    raise SystemFailedError(f"uvicorn does not serve: {last}")


def load(port: int, requests: int) -> dict[str, Any]:
    """Send requests from another process."""
    command = [sys.executable, "-m", "benchmarks.load", str(port), str(requests), str(CONNECTIONS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemFailedError(f"requests failed: {done.stderr.strip().rpartition(chr(10))[2]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def wait_counted(node: Node, count: int) -> float:
    """Wait until so many increments are in the database; give the time."""
    until = time.monotonic() + _DONE_SECONDS
    while (found := node.call("counted")) < count:
        if time.monotonic() > until:
            raise SystemFailedError(f"{found} of {count} tasks were done after {_DONE_SECONDS:.0f} s")
        time.sleep(0.02)
    return time.monotonic()


if __name__ == "__main__":
    alone("web", __doc__)
