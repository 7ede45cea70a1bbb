"""Several schedulers at once, each in a thread of its own with connections of its own: one task for each time."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from hookware.config import Config
from hookware.env import Env
from hookware.events import Events
from hookware.health import Health
from hookware.scheduler import Scheduler, planned
from hookware.store.sql.outbox import Outbox
from tests.cron.clockwork import HOUR_US, MINUTE_US, entry
from tests.cron.conftest import MakePost
from tests.databases import EVERY_DATABASE, EVERY_POSTGRESQL_DRIVER, Database, Look

THREADS, ENTRIES, ROUNDS = 8, 5, 4
MINUTELY = [entry(f"/{number}", "* * * * *") for number in range(ENTRIES)]
HOURLY = [entry(f"/{number}", "0 * * * *") for number in range(ENTRIES)]


class Rivals:
    """Schedulers that all look at the same moment, again and again."""

    def __init__(self, database: Database, look: Look) -> None:
        self._database, self._look = database, look
        self._ready = threading.Barrier(THREADS + 1)
        self.failed: list[BaseException] = []

    def run(self) -> None:
        """Be one of them."""
        try:
            anyio.run(self._main)
        except BaseException as error:  # noqa: BLE001 - the test has to hear of it
            self.failed.append(error)
            self._ready.abort()

    async def _main(self) -> None:
        env = Env()
        outbox = Outbox(self._database.engine(), env=env, config=Config(), events=Events())
        scheduler = Scheduler(outbox, planned(MINUTELY), Health(env))
        await outbox.prepare()
        for _ in range(ROUNDS):
            self._ready.wait(timeout=60)
            await scheduler.fire_due()
            await scheduler.fire_due()
            self._ready.wait(timeout=60)
        await outbox.close()
        outbox.sync_engine.dispose()

    def round(self, overdue_us: int) -> list[tuple[str, int]]:
        """Let all fire what has been due for so long; give what there is then."""
        self._look.execute("DELETE FROM hookware_task")
        self._look.execute("UPDATE hookware_cron SET next_us = next_us - ? WHERE next_us IS NOT NULL", overdue_us)
        self._ready.wait(timeout=60)
        self._ready.wait(timeout=60)
        return self._look.rows("SELECT url, eta_us FROM hookware_task")


@contextmanager
def rivals(database: Database, look: Look) -> Iterator[Rivals]:
    group = Rivals(database, look)
    threads = [threading.Thread(target=group.run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield group
    finally:
        for thread in threads:
            thread.join(timeout=60)
    assert group.failed == []


@pytest.mark.slow
@EVERY_DATABASE
def test_of_eight_schedulers_one_fires_each_time(database: Database) -> None:
    anyio.run(prepared, database)
    look = database.look()
    with rivals(database, look) as group:
        for number in range(ROUNDS):
            fired = Counter(group.round((number + 2) * MINUTE_US))
            # A minute may have passed meanwhile, which is another time.
            assert set(fired.values()) == {1}
            assert {url for url, _ in fired} == {each.url for each in MINUTELY}
            assert len({eta_us for _, eta_us in fired}) <= 2
    look.close()


async def prepared(database: Database) -> None:
    """Make the rows of the entries."""
    env = Env()
    outbox = Outbox(database.engine(), env=env, config=Config(), events=Events())
    await outbox.prepare()
    await Scheduler(outbox, planned(MINUTELY), Health(env)).fire_due()
    await outbox.close()
    outbox.sync_engine.dispose()


@EVERY_POSTGRESQL_DRIVER
async def test_each_driver_fires_by_the_time_of_the_database(make_post: MakePost, database: Database) -> None:
    # The clock of this process stands still in January 2026.
    post = make_post(*HOURLY)
    assert 0 < await post.look() <= 30
    assert post.tasks() == []
    look = database.look()
    look.execute("UPDATE hookware_cron SET next_us = next_us - ?", 2 * HOUR_US)
    await post.look()
    await post.look()
    recent = "EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 - {} BETWEEN 0 AND 3600000000"
    of_last_hour = f"SELECT count(*) FROM hookware_task WHERE {recent.format('eta_us')}"
    made_in_last_hour = f"SELECT count(*) FROM hookware_task WHERE {recent.format('created_us')}"
    assert look.rows(of_last_hour) == [ENTRIES]
    assert look.rows(made_in_last_hour) == [ENTRIES]
    await post.cron.pause(HOURLY[0].name)
    assert [status.is_paused for status in await post.cron.entries()] == [True, False, False, False, False]
    assert await post.cron.run_now(HOURLY[0].name) in look.rows("SELECT id FROM hookware_task WHERE url = '/0'")
    assert look.rows(of_last_hour) == [ENTRIES + 1]
    look.close()
