"""How long a claim takes on PostgreSQL while another transaction holds a snapshot: an hour of tasks in minutes.

Nothing that ended after that transaction began can be cleaned up, in any table of its database. Three databases of
one server take turns: without such a transaction; with it; with it, and every look for due tasks made from the very
beginning. In each, tasks come and go in bulk, as the store's own statements would make them do it one by one; then
claims are timed, of ten tasks each that have just been added. The database's clock is one that jumps, so that the
tasks have the ETAs of a whole hour.

    python -m benchmarks.bloat [--minutes 60] [--rate 300] [--slices 6] [--claims 300]
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
from sqlalchemy import Connection, create_engine, text

from hookware.core.lifecycle import Complete
from hookware.core.task import NewTask
from hookware.env import Env
from hookware.store.base import Claim, Settlement
from hookware.store.sql.engines import own_engine
from hookware.store.sql.runner import ThreadRunner
from hookware.store.sql.store import SQLStore
from tests.postgres import PostgresServer, postgres_server

START_US = 1_700_000_000_000_000
LEASE_US = 30_000_000
BATCH = 10
CHUNK = 3000
RARELY = 20
"""Of so many claims, one is made with wide looks: they are slow."""


INSERT = text(
    "INSERT INTO hookware_task (id, queue_name, method, url, headers, body, deadline_us, created_us, eta_us, state, "
    "fence, attempt_count, crash_count) SELECT :first + i, 'default', 'POST', '/worker', '[]', :body, 30000000, "
    ":begin + i * :step, :begin + i * :step, 0, 0, 0, 0 FROM generate_series(0, :count - 1) AS i"
)
LEASE = text(
    "UPDATE hookware_task SET state = 1, fence = 1, attempt_count = 1, owner = 'me', "
    f"lease_until_us = eta_us + {LEASE_US}, first_attempt_us = eta_us WHERE id >= :first AND state = 0"
)
COMPLETE = text("DELETE FROM hookware_task WHERE id >= :first AND state = 1")


class Hurried(Env):
    """An Env in which no look takes time: every one is wide."""

    def monotonic(self) -> float:
        """Stand still."""
        return 0.0


class Site:
    """One database, its store, and perhaps the transaction that holds a snapshot of it."""

    def __init__(self, name: str, url: str, env: Env, rate: int) -> None:
        self.name = name
        self.step_us = 1_000_000 // rate
        self.now_us = START_US
        self.engine = create_engine(url)
        self.runner = ThreadRunner(own_engine(self.engine), Env())
        self.store = SQLStore(self.runner, lambda _: self.now_us, env=env, tombstone_us=0)
        self._ids = 0
        self._holder: Connection | None = None

    def hold_snapshot(self) -> None:
        """Begin the transaction that stays open."""
        self._holder = self.engine.connect().execution_options(isolation_level="REPEATABLE READ")
        self._holder.execute(text("SELECT count(*) FROM hookware_task"))

    def release_snapshot(self) -> None:
        """End it."""
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    def pass_in_bulk(self, count: int) -> None:
        """Let tasks be added, claimed and completed."""
        for begun in range(0, count, CHUNK):
            some = min(CHUNK, count - begun)
            first, self._ids = self._ids + 1, self._ids + some
            given = {"first": first, "count": some, "begin": self.now_us, "step": self.step_us, "body": b"x" * 100}
            for statement in (INSERT, LEASE, COMPLETE):
                with self.engine.begin() as connection:
                    names = statement.compile().params.keys()
                    connection.execute(statement, {name: given[name] for name in names})
            self.now_us += some * self.step_us

    async def time_claim(self) -> float:
        """Add tasks, claim them, and complete them; the seconds of the claim."""
        ids = range(self._ids + 1, self._ids + BATCH + 1)
        self._ids += BATCH
        await self.store.add([_task(task_id) for task_id in ids])
        began = time.perf_counter()
        claimed = await self.store.claim(Claim(owner="me", limit=BATCH, lease_us=LEASE_US))
        seconds = time.perf_counter() - began
        if len(claimed.tasks) != BATCH:
            raise RuntimeError(f"{self.name}: {len(claimed.tasks)} of {BATCH} due tasks were claimed")
        await self.store.settle([Settlement(task.lease, Complete()) for task in claimed.tasks])
        self.now_us += BATCH * self.step_us
        return seconds

    async def time_recovery(self) -> float:
        """Give the seconds in which the reaper looks for leases that have ended."""
        began = time.perf_counter()
        await self.store.owners()
        await self.store.expired(100)
        return time.perf_counter() - began


def _task(task_id: int) -> NewTask:
    return NewTask(
        id=task_id, queue_name="default", name=None, method="POST", url="/worker", headers=(), body=b"x" * 100
    )


@asynccontextmanager
async def open_site(server: PostgresServer, name: str, env: Env, rate: int) -> AsyncIterator[Site]:
    """Hold a site in a new database."""
    site = Site(name, server.url(server.new_database()).render_as_string(), env, rate)
    await site.store.prepare(create_tables=True)
    yield site
    site.release_snapshot()
    await site.store.close()
    site.engine.dispose()


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Give what is shown of many claims, in milliseconds."""
    ordered = sorted(seconds)
    shown = {"p50": ordered[len(ordered) // 2], "p99": ordered[len(ordered) * 99 // 100], "max": ordered[-1]}
    return {name: round(value * 1000, 2) for name, value in shown.items()}


async def measure(server: PostgresServer, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all sites in turn, slice by slice."""
    per_slice = options.minutes * 60 * options.rate // options.slices
    rows: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:
        sites = [
            await stack.enter_async_context(open_site(server, name, env, options.rate))
            for name, env in (("no snapshot", Env()), ("snapshot", Env()), ("snapshot, wide looks", Hurried()))
        ]
        plain, held, wide = sites
        held.hold_snapshot()
        wide.hold_snapshot()
        for number in range(options.slices + 1):
            for site in sites if number else []:
                site.pass_in_bulk(per_slice)
            for site, row in zip(sites, await measure_slice(sites, options.claims), strict=True):
                rows.append({"tasks": number * per_slice, "site": site.name, **row})
                print("{tasks:>9} {site:<22}{p50:>9}{p99:>9}{max:>9}{reaping:>9}".format_map(rows[-1]), flush=True)
        held.release_snapshot()
        print("seconds from the snapshot's end until claims are as fast as without:", await recovery(plain, held))
    return rows


async def measure_slice(sites: Sequence[Site], claims: int) -> list[dict[str, float]]:
    """Time claims, one of each site in turn: what else the machine does is the same for all of them."""
    seconds: list[list[float]] = [[] for _ in sites]
    reaping = [await site.time_recovery() for site in sites]
    for number in range(claims):
        for site, some in zip(sites, seconds, strict=True):
            if site is not sites[-1] or number % RARELY == 0:
                some.append(await site.time_claim())
    return [{**summary(some), "reaping": round(took * 1000, 1)} for some, took in zip(seconds, reaping, strict=True)]


async def recovery(plain: Site, held: Site) -> float:
    """Wait until claims take at most twice what they take without a snapshot, all looks being wide."""
    began = time.perf_counter()
    held.store = SQLStore(held.runner, lambda _: held.now_us, env=Hurried(), tombstone_us=0)
    while True:
        pairs = [(await plain.time_claim(), await held.time_claim()) for _ in range(20)]
        usual, now = (statistics.median(some) for some in zip(*pairs, strict=True))
        if now < 2 * usual or time.perf_counter() - began > 300:
            return round(time.perf_counter() - began, 1)


def main() -> None:
    """Measure, and print a table and the raw figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--rate", type=int, default=300)
    parser.add_argument("--slices", type=int, default=6)
    parser.add_argument("--claims", type=int, default=300)
    options = parser.parse_args()
    # A minute of the cleaner's naps is as many tasks here as there.
    with postgres_server(autovacuum_naptime="3s", shared_buffers="256MB", max_wal_size="2GB") as server:
        with server.connect() as connection:
            (release,) = connection.execute("SHOW server_version").fetchone() or ("",)
        print(f"{'tasks':>9} {'milliseconds a claim':<22}{'p50':>9}{'p99':>9}{'max':>9}{'reaping':>9}")
        rows = anyio.run(measure, server, options)
    print(json.dumps({"rows": rows, "python": platform.python_version(), "postgresql": release}))


if __name__ == "__main__":
    main()
