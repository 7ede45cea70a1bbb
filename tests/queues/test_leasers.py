"""Two who lease from one pull queue at the same moment never get the same task; on PostgreSQL really at once."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from hookware import Hookware, Queue, Task
from hookware.core.task import PULL
from tests.databases import EVERY_DATABASE, Database

TASKS = 600
LEASERS = 4


def lease_all(barrier: Barrier, hookware: Hookware, by_tag: bool) -> list[str]:
    """Lease a few at a time until there are none; the names."""
    del hookware  # the one of this process: it is here so that it lives
    queue, names, empty = Queue("pull"), list[str](), 0
    barrier.wait(timeout=20)
    while empty < 3:  # what another has locked just now is passed over
        some: list[Task] = queue.lease_tasks_by_tag(600, 7) if by_tag else queue.lease_tasks(600, 7)
        empty = 0 if some else empty + 1
        names += [str(task.name) for task in some]
        if len(some) > 3:
            queue.delete_tasks(some[:2])
    return names


@pytest.mark.slow
@EVERY_DATABASE
@pytest.mark.parametrize("by_tag", [False, True])
def test_no_task_is_leased_twice_and_none_is_forgotten(database: Database, by_tag: bool) -> None:
    engine = database.engine()
    hookware = Hookware(engine=engine, dispatch=False, queues=[Queue("pull", mode="pull")])
    outbox = hookware._outbox
    outbox.running = True
    options: dict[str, Any] = {"method": PULL, "countdown": -5}
    for first in range(0, TASKS, 100):
        tags = [None if n % 3 == 0 else f"t{n % 5}" for n in range(first, first + 100)]
        Queue("pull").add([Task("x", name=f"n{first + n}", tag=tag, **options) for n, tag in enumerate(tags)])
    barrier = Barrier(LEASERS)
    with ThreadPoolExecutor(LEASERS) as threads:
        leased = [threads.submit(lease_all, barrier, hookware, by_tag) for _ in range(LEASERS)]
        names = Counter(name for each in leased for name in each.result(timeout=100))
    assert names == {f"n{n}": 1 for n in range(TASKS)}
    assert Queue("pull").fetch_statistics().executed_last_minute == TASKS
    outbox.running = False
    outbox.runner.dispose()
    engine.dispose()
