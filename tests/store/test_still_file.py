"""A SQLite file that nobody writes to is not asked what is due; one that somebody writes to is, at once."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from anyio.lowlevel import checkpoint
from sqlalchemy import Engine, create_engine, event

from hookware.env import Env
from hookware.store.base import Claim
from hookware.store.sql.engines import own_engine
from hookware.store.sql.runner import ThreadRunner
from hookware.store.sql.sqlite import file_of
from hookware.store.sql.still_file import MOST_SECONDS, STILL_SECONDS, Look, StillFile
from hookware.store.sql.store import SQLStore
from tests.store.subject import TOMBSTONE_US, new_task

LATER_US = 3_600_000_000


@dataclass
class Site:
    """A store on a file, and what it asks."""

    store: SQLStore
    env: Env
    engine: Engine
    path: Path
    statements: list[str] = field(default_factory=list)

    async def until_not_asked(self) -> int | None:
        """Ask the store until it knows the answer by itself; give the answer."""
        until = self.env.monotonic() + MOST_SECONDS / 2
        while self.env.monotonic() < until:
            self.statements.clear()
            answer = await self.store.next_due()
            if not self.statements:
                return answer
            await checkpoint()
        raise AssertionError("it was asked again and again")

    @contextmanager
    def other_process(self) -> Iterator[sqlite3.Connection]:
        """Give a connection of which the store knows nothing."""
        with closing(sqlite3.connect(self.path)) as connection:
            yield connection


class FastEnv(Env):
    """An Env whose clocks a test moves on, beside the real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0.0

    def now_us(self) -> int:
        return super().now_us() + int(self.moved * 1e6)

    def monotonic(self) -> float:
        return Env.monotonic() + self.moved


@pytest.fixture
async def site(path: Path) -> AsyncIterator[Site]:
    engine, env = own_engine(create_engine(f"sqlite:///{path}")), FastEnv()
    runner = ThreadRunner(engine, env)
    store = SQLStore(runner, lambda _: env.now_us(), env=env, tombstone_us=TOMBSTONE_US, path=str(path))
    await store.prepare(create_tables=True)
    site = Site(store, env, engine, path)

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        site.statements.append(statement)

    yield site
    await store.close()


async def test_a_file_that_is_still_is_not_asked(site: Site) -> None:
    assert await site.until_not_asked() is None
    assert await site.store.next_due() is None
    assert site.statements == []


async def test_what_another_process_commits_is_found_by_the_next_question(site: Site) -> None:
    await site.store.add([new_task(task_id=1, countdown_us=LATER_US)])
    assert 0 < (await site.until_not_asked() or 0) <= LATER_US
    for number in range(2, 30):
        with site.other_process() as other:
            other.execute("UPDATE hookware_task SET eta_us = ? WHERE id = 1", (number,))
            other.commit()
        assert await site.store.next_due() == 0, number
        with site.other_process() as other:
            other.execute("UPDATE hookware_task SET eta_us = ? WHERE id = 1", (site.env.now_us() + LATER_US,))
            other.commit()
        answer = await (site.until_not_asked() if number % 5 == 0 else site.store.next_due())
        assert (answer or 0) > 0, number


async def test_a_task_becomes_due_although_the_file_is_still(site: Site) -> None:
    assert isinstance(site.env, FastEnv)
    await site.store.add([new_task(task_id=1, countdown_us=LATER_US)])
    before = await site.until_not_asked() or 0
    site.env.moved += 5
    after = await site.store.next_due() or 0
    assert (site.statements, before - after >= 5_000_000) == ([], True)
    site.env.moved += LATER_US / 1e6
    assert await site.store.next_due() == 0
    claimed = await site.store.claim(Claim(owner="me", limit=1, lease_us=LATER_US))
    assert [task.id for task in claimed.tasks] == [1]


async def test_it_is_asked_all_the_same_after_a_while_and_for_other_queues(site: Site) -> None:
    assert isinstance(site.env, FastEnv)
    await site.until_not_asked()
    await site.store.next_due(frozenset({"default"}))
    assert site.statements != []
    await site.until_not_asked()
    site.env.moved += MOST_SECONDS
    await site.store.next_due()
    assert site.statements != []


async def test_an_answer_counts_only_if_the_file_was_still_before_it_was_asked(site: Site) -> None:
    still = StillFile(str(site.path), site.env)
    assert still.look().is_still is False
    for seconds, counts in ((STILL_SECONDS / 2, False), (STILL_SECONDS * 2, True)):
        look = Look(still.look().signature, 7.0, 7.0 - seconds, 0)
        still.remember(look, frozenset(), LATER_US)
        assert (still.answer(look, frozenset()) is not None) is counts


@pytest.mark.parametrize("place", ["", "/nowhere/app.db"])
async def test_what_cannot_be_looked_at_is_always_asked(site: Site, place: str) -> None:
    assert isinstance(site.env, FastEnv)
    still = StillFile(place, site.env)
    still.look()
    site.env.moved += 1
    look = still.look()
    still.remember(look, frozenset(), None)
    assert still.answer(still.look(), frozenset()) is None


async def test_through_a_link_it_is_the_file_itself_that_is_looked_at(site: Site) -> None:
    link = site.path.with_name("link.db")
    link.symlink_to(site.path)
    still = StillFile(str(link), site.env)
    before = still.look()
    with site.other_process() as other:
        other.execute("PRAGMA user_version = 7")
        other.commit()
        assert still.look().signature != before.signature, "the log of the file has changed, not the file"


def test_only_a_plain_path_is_looked_at() -> None:
    urls = ("sqlite:////a/app.db", "sqlite:///app.db", "sqlite:///file:app.db?uri=true", "sqlite://")
    assert [file_of(create_engine(url).url) for url in urls] == ["/a/app.db", "app.db", "", ""]
