"""Two processes on one database: every task runs once, and nobody is told that the database is locked."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.crash.conftest import on_both
from verification.crash.site import Process, Site

pytestmark = [pytest.mark.crash, pytest.mark.slow]

URLS = ("/own", "/joined", "/outside")


@on_both("workers", 1, 2)
def test_200_tasks_run_once_each(site: Site, workers: int) -> None:
    # Both look for work all the time, so that they meet.
    servers: list[Process] = [site.start(workers=2, poll_seconds=0.01)] if workers == 2 else []
    servers = servers or list(site.start_two(poll_seconds=0.01))

    def order(number: int) -> int | None:
        return servers[number % len(servers)].order(f"order {number}", URLS[number % 3])

    with ThreadPoolExecutor(8) as clients:
        assert Counter(clients.map(order, range(200))) == {200: 200}
    site.wait_until_quiet(20)

    orders = set(site.orders().values())
    assert len(orders) == 200
    assert Counter(line.task for line in site.lines("start")) == dict.fromkeys(orders, 1)
    inside = {task for key, task in site.orders().items() if int(key.split()[1]) % 3 != 2}
    assert site.effects() == dict.fromkeys(inside, 1)
    assert len({line.node for line in site.lines("start")}) == 2
