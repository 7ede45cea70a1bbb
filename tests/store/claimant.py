"""A process of its own that claims and completes all it can: `python -m tests.store.claimant PATH OWNER`."""

import sys

import anyio
from sqlalchemy import create_engine

from hookware.core.lifecycle import Complete
from hookware.env import Env
from hookware.store.base import Claim, Settlement
from hookware.store.sql.engines import own_engine
from hookware.store.sql.runner import ThreadRunner
from hookware.store.sql.store import SQLStore


async def claim_all(path: str, owner: str) -> None:
    """Print the id of each task that was claimed and whose completion was accepted."""
    env = Env()
    store = SQLStore(
        ThreadRunner(own_engine(create_engine(f"sqlite:///{path}")), env),
        lambda _: env.now_us(),
        env=env,
        tombstone_us=0,
    )
    await store.prepare(create_tables=True)
    print("ready", flush=True)
    sys.stdin.readline()
    while True:
        claimed = await store.claim(Claim(owner=owner, limit=7, lease_us=60_000_000))
        accepted = await store.settle([Settlement(task.lease, Complete()) for task in claimed.tasks])
        for task, good in zip(claimed.tasks, accepted, strict=True):
            print(task.id if good else f"{task.id} refused", flush=True)
        if not claimed.tasks and claimed.next_due_us is None:
            break
    await store.close()


if __name__ == "__main__":
    anyio.run(claim_all, sys.argv[1], sys.argv[2])
