"""Looks for due tasks on PostgreSQL: wide ones while they are quick, narrow ones between them when they are slow."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Engine, create_engine, event

from hookware.core.lifecycle import Complete, Release
from hookware.env import Env
from hookware.store.base import Claim, Claimed, Settlement
from hookware.store.sql.engines import own_engine
from hookware.store.sql.runner import ThreadRunner
from hookware.store.sql.store import SQLStore
from tests.postgres import PostgresServer
from tests.store.subject import LEASE_US, SECOND_US, START_US, TOMBSTONE_US, ManualClock, new_task

pytestmark = pytest.mark.postgres

SLOW_SECONDS = 0.1
OFTEN_SECONDS = 50 * SLOW_SECONDS


class LookEnv(Env):
    """An Env whose time passes when it is told to, and in each wide look."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.now = 100.0
        self.look_seconds = 0.0
        self.looks: list[str] = []
        event.listen(engine, "before_cursor_execute", self.before_execute)

    def monotonic(self) -> float:
        return self.now

    def before_execute(self, *args: object) -> None:
        statement = str(args[2])
        if statement.startswith("WITH RECURSIVE"):
            self.looks.append("wide")
            self.now += self.look_seconds
        elif statement.startswith("SELECT known"):
            self.looks.append("narrow")


class Site:
    """A store, its clocks, and what it does with a few tasks."""

    def __init__(self, engine: Engine) -> None:
        self.env, self.clock = LookEnv(engine), ManualClock()
        self.store = SQLStore(ThreadRunner(engine, self.env), self.clock, env=self.env, tombstone_us=TOMBSTONE_US)

    async def claim(self) -> Claimed:
        return await self.store.claim(Claim(owner="me", limit=10, lease_us=LEASE_US))

    async def claimed(self) -> list[int]:
        return [task.id for task in (await self.claim()).tasks]

    async def looks_of_a_claim(self) -> list[str]:
        self.env.looks.clear()
        await self.claim()
        return list(self.env.looks)

    async def become_slow(self) -> None:
        """Let three wide looks take long, and let the queue "default" be known."""
        self.env.look_seconds = SLOW_SECONDS
        await self.store.add([new_task(task_id=1000)])
        await self.store.settle([Settlement(task.lease, Complete()) for task in (await self.claim()).tasks])
        await self.store.next_due()


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
async def site(postgres: PostgresServer, database: str) -> AsyncIterator[Site]:
    engine = own_engine(create_engine(postgres.url(database)))
    site = Site(engine)
    await site.store.prepare(create_tables=True)
    yield site
    await site.store.close()
    with postgres.connect(database) as connection:
        connection.execute("TRUNCATE hookware_task, hookware_name, hookware_queue")


async def test_quick_looks_are_wide_however_many_there_are(site: Site) -> None:
    for _ in range(5):
        await site.store.add([new_task(eta_us=START_US - 9 * SECOND_US)])
        assert await site.looks_of_a_claim() == ["wide", "wide"]
    site.env.look_seconds = 0.005
    for _ in range(5):
        assert await site.looks_of_a_claim() == ["wide"]


async def test_one_slow_look_alone_changes_nothing(site: Site) -> None:
    await site.store.add([new_task()])
    await site.claim()
    site.env.look_seconds = SLOW_SECONDS
    await site.claim()
    site.env.look_seconds = 0.0
    await site.claim()
    assert await site.looks_of_a_claim() == ["wide"]


async def test_slow_looks_are_narrow_until_it_is_time_for_a_wide_one(site: Site) -> None:
    await site.become_slow()
    assert await site.looks_of_a_claim() == ["narrow"]
    site.env.now += OFTEN_SECONDS - 0.01
    assert await site.looks_of_a_claim() == ["narrow"]
    site.env.now += 0.02
    assert await site.looks_of_a_claim() == ["wide"]
    assert await site.looks_of_a_claim() == ["narrow"]


async def test_looks_are_wide_again_when_they_are_quick_again(site: Site) -> None:
    await site.become_slow()
    site.env.now += OFTEN_SECONDS
    site.env.look_seconds = 0.0
    assert [await site.looks_of_a_claim() for _ in range(3)] == [["wide"]] * 3


async def test_narrow_looks_find_what_becomes_due_now(site: Site) -> None:
    await site.become_slow()
    await site.store.add([new_task(task_id=1), new_task(task_id=2, countdown_us=99 * SECOND_US)])
    claimed = await site.claim()
    assert ([task.id for task in claimed.tasks], claimed.next_due_us) == ([1], 99 * SECOND_US)
    site.clock.advance(60 * SECOND_US)
    assert await site.claimed() == []
    # Inserted a while before it is committed.
    await site.store.add([new_task(task_id=3, eta_us=site.clock.now_us - 5 * SECOND_US)])
    assert await site.claimed() == [3]
    assert "wide" not in site.env.looks[-4:]


async def test_what_is_due_since_long_ago_is_found_by_the_next_wide_look(site: Site) -> None:
    await site.store.add([new_task(task_id=1), new_task(task_id=2, countdown_us=99 * SECOND_US)])
    (task,) = (await site.claim()).tasks
    site.clock.advance(30 * SECOND_US)
    await site.become_slow()
    await site.store.settle([Settlement(task.lease, Release())])
    await site.store.add([new_task(task_id=3, eta_us=5)])
    assert await site.claim() == Claimed([], 69 * SECOND_US)
    assert await site.store.next_due() == 69 * SECOND_US
    site.env.now += OFTEN_SECONDS + 0.01
    assert await site.store.next_due() == 0
    assert await site.claimed() == [3, 1]


async def test_a_new_queue_is_found_by_the_next_wide_look_and_then_kept_in_mind(site: Site) -> None:
    await site.become_slow()
    await site.store.add([new_task("new", task_id=1)])
    assert await site.claimed() == []
    site.env.now += OFTEN_SECONDS + 0.01
    assert await site.claimed() == [1]
    site.env.now += OFTEN_SECONDS + 0.01
    assert await site.looks_of_a_claim() == ["wide"]
    await site.store.add([new_task("new", task_id=2)])
    assert await site.claimed() == [2]
    assert site.env.looks[-2:] == ["narrow", "narrow"]


async def test_who_looks_for_owners_of_leases_makes_the_wide_looks_that_claims_are_spared(site: Site) -> None:
    await site.store.owners()
    assert site.env.looks == []
    await site.become_slow()
    await site.store.add([new_task(task_id=1, eta_us=5)])
    assert await site.claimed() == []
    await site.store.owners()
    assert await site.claimed() == [1]
    assert site.env.looks[-3:] == ["wide", "narrow", "narrow"]


async def test_queues_are_forgotten_where_too_many_come_and_go(site: Site) -> None:
    for first in (0, 600):
        await site.store.add([new_task(f"q{first + n}") for n in range(600)])
        tasks = (await site.store.claim(Claim(owner="me", limit=600, lease_us=LEASE_US))).tasks
        assert all(await site.store.settle([Settlement(task.lease, Complete()) for task in tasks]))
    await site.become_slow()
    await site.store.add([new_task("q5", task_id=1), new_task(task_id=2)])
    assert await site.claimed() == [2]
