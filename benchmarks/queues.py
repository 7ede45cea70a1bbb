"""Whether a queue that may not begin delays another one: from the commit of a task to the start of its handler.

Each site is a database and a Hookware of its own. In the first one nothing waits. In the others very many tasks do: in
a queue that is paused, in one whose only slot is taken, with a limit key that is, or due tomorrow. All are up during
the whole run and take turns, a few tasks each, so that a slow moment of the machine hits all of them. What counts is
the ratio of the medians.

    python -m benchmarks.queues [--database sqlite] [--rounds 20] [--tasks 10] [--waiting 100000] [--later 1000000]
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, text
from sqlmodel import Session

from hookware import Hookware, QueueSettings, TaskRouter, taskqueue
from hookware.store.sql.schema import make_tables
from tests.postgres import postgres_server
from tests.serving import serving

SITES = ("alone", "paused", "saturated", "held back", "tomorrow")
DAY_US = 86_400_000_000

FILL = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
INSERT INTO hookware_task (id, queue_name, method, url, headers, body, deadline_us, created_us, eta_us, state, fence,
    owner, lease_until_us, attempt_count, crash_count, first_attempt_us, lane, fair_key, limit_key)
SELECT i, 'busy', 'POST', '/worker', '[]', :body, 30000000, :created, :eta + i, CASE i WHEN 1 THEN :first ELSE 0 END, 0,
    CASE WHEN i = 1 AND :first = 1 THEN 'elsewhere' END, CASE WHEN i = 1 AND :first = 1 THEN :until END, :first, 0,
    CASE WHEN i = 1 AND :first = 1 THEN :created END, :lane, :fair, :limited
FROM n
"""


class Site:
    """One database, one Hookware, and the time of its handler's last start."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name, self.engine = name, engine
        self.seconds: list[float] = []
        self._started: asyncio.Queue[float] = asyncio.Queue()
        router = TaskRouter()

        @router.task_handler("/worker")
        async def worker() -> None:
            self._started.put_nowait(time.monotonic())

        busy = QueueSettings(name="busy", max_concurrent_requests=1 if name == "saturated" else None)
        queues = [busy, QueueSettings(name="quick")]
        self.hookware = Hookware(engine=engine, router=router, queues=queues)

    def fill(self, waiting: int, later: int) -> None:
        """Let many tasks wait."""
        if self.name == "alone":
            return
        now_us = time.time_ns() // 1000
        keyed, taken = self.name == "held back", self.name in ("held back", "saturated")
        given = {
            "rows": later if self.name == "tomorrow" else waiting, "body": b"", "created": now_us,
            "eta": now_us + (DAY_US if self.name == "tomorrow" else -DAY_US), "first": int(taken),
            "until": now_us + DAY_US, "lane": "busy/100k" if keyed else "busy",
            "fair": "" if keyed else None, "limited": "hog" if keyed else None,
        }  # fmt: skip
        with self.engine.begin() as connection:
            if self.name == "paused":
                connection.execute(text("INSERT INTO hookware_queue (name, paused) VALUES ('busy', 1)"))
            connection.execute(text(_typed(FILL) if self.engine.dialect.name == "postgresql" else FILL), given)
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))

    async def measure(self) -> None:
        """Add a task when all is quiet, and note how long after its commit it starts."""
        await asyncio.sleep(0.03 + random.random() * 0.04)
        committed = await asyncio.to_thread(self._add)
        self.seconds.append(await asyncio.wait_for(self._started.get(), 30) - committed)

    def _add(self) -> float:
        with Session(self.engine) as session:
            taskqueue.add(url="/worker", queue_name="quick", session=session)
            session.commit()
            return time.monotonic()


def _typed(statement: str) -> str:
    for name in ("rows", "created", "eta", "first", "until"):
        statement = statement.replace(f":{name}", f"CAST(:{name} AS bigint)")
    for name in ("lane", "fair", "limited"):
        statement = statement.replace(f":{name}", f"CAST(:{name} AS text)")
    return statement.replace("THEN CAST(:first AS bigint) ELSE", "THEN CAST(:first AS smallint) ELSE")


@asynccontextmanager
async def running(sites: list[Site], waiting: int, later: int) -> AsyncIterator[None]:
    """Make the tables, let the tasks wait, and dispatch."""
    async with AsyncExitStack() as stack:
        for site in sites:
            with site.engine.begin() as connection:
                make_tables(connection)
            site.fill(waiting, later)
            await stack.enter_async_context(serving(site.hookware))
        yield


async def measure(sites: list[Site], options: argparse.Namespace) -> None:
    """Let the sites take turns."""
    async with running(sites, options.waiting, options.later):
        for site in sites:  # what only the first ones pay
            for _ in range(5):
                await site.measure()
            site.seconds.clear()
        for _round in range(options.rounds):
            for site in random.sample(sites, len(sites)):
                for _ in range(options.tasks):
                    await site.measure()


@contextmanager
def engines(database: str) -> Iterator[list[Engine]]:
    """Make an engine for each site."""
    if database == "sqlite":
        with tempfile.TemporaryDirectory() as directory:
            yield [create_engine(f"sqlite:///{Path(directory) / f'{n}.db'}") for n in range(len(SITES))]
        return
    with postgres_server(fsync="on", max_wal_size="1GB") as server:
        made = [create_engine(server.url(server.new_database())) for _ in SITES]
        yield made
        for engine in made:
            engine.dispose()


def summary(sites: list[Site]) -> dict[str, dict[str, float]]:
    """Give the medians and their ratios to that of the site where nothing waits."""
    alone = statistics.median(sites[0].seconds)
    return {
        site.name: {
            "median_ms": round(statistics.median(site.seconds) * 1000, 2),
            "p95_ms": round(statistics.quantiles(site.seconds, n=20)[-1] * 1000, 2),
            "ratio": round(statistics.median(site.seconds) / alone, 3),
        }
        for site in sites
    }


def main() -> None:
    """Measure, and print a table and the raw figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="postgresql")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--later", type=int, default=1_000_000)
    options = parser.parse_args()
    load = os.getloadavg()
    with engines(options.database) as made:
        sites = [Site(name, engine) for name, engine in zip(SITES, made, strict=True)]
        asyncio.run(measure(sites, options))
    rows: dict[str, Any] = summary(sites)
    for name, row in rows.items():
        print(f"{name:<12}{row['median_ms']:>9} ms{row['p95_ms']:>9} ms (p95){row['ratio']:>8}")
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "load_before": load}
    print(json.dumps({"sites": rows, "asked": vars(options), "machine": machine}))


if __name__ == "__main__":
    main()
