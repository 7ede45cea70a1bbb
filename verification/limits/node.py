"""A process that runs tasks, and writes down when its handler begins and ends, until its standard input ends.

    python -m verification.limits.node URL LOG

A line is written with one `write()` to a file opened for appending. Its time is of the clock that never steps, which
all processes of a machine share.
"""

import json
import os
import sys
import time

import anyio
from anyio import to_thread

from hookware import Hookware, QueueSettings, TaskContext, TaskRouter
from tests.serving import serving

LEASE_SECONDS = 2.0
POLL_SECONDS = 0.5
QUEUES = [
    QueueSettings(name="rate", rate=5.0, bucket_size=5),
    QueueSettings(name="three", max_concurrent_requests=3),
    QueueSettings(name="names"),
    QueueSettings(name="fair"),
    QueueSettings(name="keys", limit_per_key=2),
]


async def main(url: str, log: str) -> None:
    """Run tasks until the standard input ends."""
    router, file = TaskRouter(), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(ev: str, task: TaskContext, key: str) -> None:
        line = {"ev": ev, "t": time.monotonic(), "pid": os.getpid(), "queue": task.queue_name, "key": key}
        os.write(file, json.dumps({**line, "task": task.id, "fence": task.fence}).encode() + b"\n")

    @router.task_handler("/work")
    async def work(task: TaskContext, wait: float = 0.0, key: str = "") -> None:
        write("start", task, key)
        await anyio.sleep(wait)
        write("end", task, key)

    hookware = Hookware(
        engine=url, router=router, queues=QUEUES, lease_seconds=LEASE_SECONDS, poll_seconds=POLL_SECONDS,
        tombstone_seconds=3600,
    )  # fmt: skip
    async with serving(hookware):
        print("ready", flush=True)
        await to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
