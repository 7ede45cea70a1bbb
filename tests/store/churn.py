"""A process that does everything to a store at once: `python -m tests.store.churn URL OWNER SEED COUNT PACE`.

It adds COUNT tasks, and goes on until the store is empty. Each line that it prints is one thing that the store has
answered, as JSON. PACE is how fast time passes for the store's looks for due tasks: many times too fast, they are slow.
"""

import json
import random
import sys
import time
from collections.abc import Iterable, Sequence
from functools import partial

import anyio
from anyio import to_thread
from sqlalchemy import Connection, create_engine, event, insert

from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry, State
from hookware.core.task import LeasedTask, NewTask
from hookware.env import Env
from hookware.store.base import AddResult, Claim, Settlement
from hookware.store.sql.engines import own_engine
from hookware.store.sql.rows import to_row
from hookware.store.sql.runner import ThreadRunner
from hookware.store.sql.store import SQLStore
from hookware.store.sql.tables import task_table
from hookware.store.sql.times import postgresql_clock

WORKERS = 3
LEASE_US = 300_000
TOMBSTONE_US = 20_000


def say(kind: str, **facts: object) -> None:
    # One write a line: the threads of the pool print as well.
    sys.stdout.write(json.dumps({"kind": kind, **facts}) + "\n")


class PacedEnv(Env):
    """An Env with another pace of time."""

    def __init__(self, pace: float) -> None:
        super().__init__()
        self.pace = pace

    def monotonic(self) -> float:
        return super().monotonic() * self.pace


class Churn:
    """One store, and the workers on it."""

    def __init__(self, url: str, owner: str, seed: int, count: int, pace: float) -> None:
        engine = own_engine(create_engine(url))
        event.listen(engine, "handle_error", lambda context: say("error", text=str(context.original_exception)))
        env = Env()
        clock = postgresql_clock if engine.dialect.name == "postgresql" else lambda _: env.now_us()
        self.runner = ThreadRunner(engine, env)
        self.store = SQLStore(self.runner, clock, env=PacedEnv(pace), tombstone_us=TOMBSTONE_US)
        self.clock, self.env, self.owner = clock, env, owner
        self.random = random.Random(seed)
        self.to_add = count

    async def work(self) -> None:
        while self.to_add > 0 or await self.store.list_tasks(limit=1):
            await self.random.choice([self.add, self.commit, self.run, self.run, self.run, self.recover, self.tidy])()

    def new_tasks(self, at_most: int) -> list[NewTask]:
        count = min(self.random.randint(1, at_most), self.to_add)
        self.to_add -= count
        return [self.new_task() for _ in range(count)]

    def new_task(self) -> NewTask:
        name = self.random.choice([None, None, "a", "b", "c", "d"])
        queue_name = self.random.choice(["p", "q", "r"])
        return NewTask(
            id=self.env.new_id(), queue_name=queue_name, name=name, method="POST", url="/", headers=(), body=b"x",
            countdown_us=self.random.choice([0, 0, 5_000]),
        )  # fmt: skip

    async def add(self) -> None:
        tasks = self.new_tasks(4)
        results = await self.store.add(tasks)
        self.said_new(task for task, result in zip(tasks, results, strict=True) if result is AddResult.ADDED)

    async def commit(self) -> None:
        """Commit as a user's transaction does: no name is won."""
        tasks = self.new_tasks(4)

        def rows(connection: Connection) -> None:
            if tasks:
                now_us = self.clock(connection)
                connection.execute(insert(task_table), [to_row(task, now_us) for task in tasks])

        await self.runner.run(rows)
        self.said_new(tasks)

    def said_new(self, tasks: Iterable[NewTask]) -> None:
        for task in tasks:
            say("new", id=task.id, name=None if task.name is None else f"{task.queue_name}/{task.name}")

    async def run(self) -> None:
        limit = self.random.randint(1, 8)
        claimed = await self.store.claim(Claim(owner=self.owner, limit=limit, lease_us=LEASE_US))
        assert len(claimed.tasks) <= limit
        for task in claimed.tasks:
            say("claimed", id=task.id, fence=task.fence, at=time.monotonic())
        if not claimed.tasks:
            await anyio.sleep(0.002)
        kept = [task for task in claimed.tasks if self.random.random() < 0.95]  # the others are left to expire
        if kept and self.random.random() < 0.3:
            await to_thread.run_sync(partial(self.store.renew, [task.lease for task in kept], LEASE_US))
        await self.settle([Settlement(task.lease, self.decision()) for task in kept])

    def decision(self) -> Decision:
        others: list[Decision] = [Retry(1000, 500, "no"), Release(), Die("oh", 500, "")]
        return self.random.choice([Complete(), Complete(), Complete(), *others])

    async def settle(self, settlements: list[Settlement]) -> None:
        sent = time.monotonic()
        results = await self.store.settle(settlements)
        for each, accepted in zip(settlements, results, strict=True):
            task_id, fence = each.lease
            say(
                "settled", id=task_id, fence=fence, accepted=accepted, at=sent, ends=isinstance(each.decision, Complete)
            )

    async def recover(self) -> None:
        found: Sequence[LeasedTask] = await self.store.expired(50)
        taking_back = Retry(0, None, "gone", crashed=True)
        await self.settle([Settlement(task.lease, taking_back, task.lease_until_us) for task in found])

    async def tidy(self) -> None:
        await self.store.prune()
        for info in await self.store.list_tasks(state=State.DEAD, limit=20):
            if info.dead_reason != "duplicate" and self.random.random() < 0.5:
                await self.store.run_again(info.id)
            else:
                sent = time.monotonic()
                if await self.store.delete(info.id):
                    say("deleted", id=info.id, at=sent)


async def main(url: str, owner: str, seed: int, count: int, pace: float) -> None:
    churn = Churn(url, owner, seed, count, pace)
    await churn.store.prepare(create_tables=True)
    say("ready")
    sys.stdout.flush()
    sys.stdin.readline()
    async with anyio.create_task_group() as workers:
        for _ in range(WORKERS):
            workers.start_soon(churn.work)
    await churn.store.close()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
