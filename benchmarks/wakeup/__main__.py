"""Measure commit to handler start on an idle PostgreSQL: in the same process, and in another one, beside two peers.

Each system has two processes and a database of its own on one server: one process runs tasks, the other only adds
them. All are up during the whole run and take turns, a few tasks each, so that a slow moment of the machine hits all of
them. The server is PostgreSQL with fsync on.

    python -m benchmarks.wakeup [--rounds 25] [--tasks 20] [--idle-seconds 60]
"""

import argparse
import json
import os
import platform
import queue
import random
import statistics
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from typing import Any

from tests.postgres import PostgresServer, postgres_server

SYSTEMS = ("hookware", "procrastinate", "pgqueuer")
_SECONDS = 60


class Node:
    """One process of a system, driven by lines."""

    def __init__(self, system: str, role: str, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.wakeup.nodes", system, role, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answers: dict[str, queue.Queue[dict[str, float]]] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()
        self.wait("ready")

    def say(self, line: str) -> None:
        """Tell it to do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def wait(self, key: str) -> dict[str, float]:
        """Wait for its next line that has this key."""
        return self._queue(key).get(timeout=_SECONDS)

    def end(self) -> None:
        """Let it shut down."""
        self.say("end")
        self._process.wait(timeout=_SECONDS)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            self._queue(next(iter(answer))).put(answer)

    def _queue(self, key: str) -> "queue.Queue[dict[str, float]]":
        with self._lock:
            return self._answers.setdefault(key, queue.Queue())


class Site:
    """The two processes of one system, and its database."""

    def __init__(self, system: str, server: PostgresServer) -> None:
        self.system = system
        self._server = server
        self._database = server.new_database()
        url = server.url(self._database).set(drivername="postgresql").render_as_string(hide_password=False)
        self.runs = Node(system, "runs", url)
        self.adds = Node(system, "adds", url)
        self.after_commit: dict[str, list[float]] = {"same": [], "other": []}
        self.after_call: dict[str, list[float]] = {"same": [], "other": []}

    def measure(self, where: str, tasks: int) -> None:
        """Add some tasks, each when all is quiet, and note when they start."""
        node = self.runs if where == "same" else self.adds
        for _ in range(tasks):
            time.sleep(0.03 + random.random() * 0.04)
            node.say("add")
            added, started = node.wait("began"), self.runs.wait("started")
            self.after_commit[where].append(started["started"] - added["committed"])
            self.after_call[where].append(started["started"] - added["began"])

    def idle(self, seconds: float) -> dict[str, float]:
        """Leave it alone, and see what the process that runs tasks costs."""
        before, cpu_before = self._transactions(), self._cpu()
        time.sleep(seconds)
        return {
            "transactions_per_minute": round((self._transactions() - before) * 60 / seconds, 1),
            "cpu_percent": round((self._cpu() - cpu_before) * 100 / seconds, 2),
        }

    def end(self) -> None:
        """Shut both down."""
        self.adds.end()
        self.runs.end()

    def _cpu(self) -> float:
        self.runs.say("cpu")
        return self.runs.wait("cpu")["cpu"]

    def _transactions(self) -> int:
        with self._server.connect() as connection:
            row = connection.execute(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s", (self._database,)
            ).fetchone()
        assert row is not None
        return int(str(row[0]))


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Give p50 and p99 in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50_ms": round(cuts[49] * 1000, 2), "p99_ms": round(cuts[98] * 1000, 2)}


def measure(sites: list[Site], rounds: int, tasks: int) -> dict[str, Any]:
    """Let the systems take turns."""
    for site in sites:  # what only the first ones pay
        site.measure("same", 20)
        site.measure("other", 20)
        for values in (*site.after_commit.values(), *site.after_call.values()):
            values.clear()
    for _ in range(rounds):
        for site in random.sample(sites, len(sites)):
            for where in ("same", "other"):
                site.measure(where, tasks)
    return {
        site.system: {
            where: {
                "after_commit": percentiles(site.after_commit[where]),
                "after_call": percentiles(site.after_call[where]),
            }
            for where in ("same", "other")
        }
        for site in sites
    }


def show(latency: dict[str, Any], idle: dict[str, Any]) -> None:
    """Print tables."""
    print(f"{'':<16}{'process':<9}{'commit to start: p50':>22}{'p99':>9}{'call to start: p50':>20}{'p99':>9}")
    for system, by_place in latency.items():
        for where, row in by_place.items():
            commit, call = row["after_commit"], row["after_call"]
            print(
                f"{system:<16}{where:<9}{commit['p50_ms']:>19} ms{commit['p99_ms']:>6} ms"
                f"{call['p50_ms']:>17} ms{call['p99_ms']:>6} ms"
            )
    for system, row in idle.items():
        print(f"{system}, idle:", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.items()))


def main() -> None:
    """Measure, and print tables and the raw figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--idle-seconds", type=float, default=60)
    parser.add_argument("--systems", nargs="+", default=SYSTEMS)
    options = parser.parse_args()
    with postgres_server(fsync="on") as server:
        sites = [Site(system, server) for system in options.systems]
        latency = measure(sites, options.rounds, options.tasks)
        idle = {site.system: site.idle(options.idle_seconds) for site in sites} if options.idle_seconds else {}
        for site in sites:
            site.end()
        with server.connect() as connection:
            postgresql = str(connection.info.server_version)
    show(latency, idle)
    packages = {package: version(package) for package in ("sqlalchemy", "psycopg", "procrastinate", "pgqueuer")}
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "postgresql": postgresql, **packages}
    print(json.dumps({"latency": latency, "idle": idle, "machine": machine, "load": os.getloadavg()}))


if __name__ == "__main__":
    main()
