"""Processes say that they are alive, and leave at a clean stop; one that does neither is gone."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel

import hookware
from hookware.core.overview import ALIVE_US, BEAT_SECONDS
from hookware.env import Env
from hookware.store.sql import statements
from hookware.store.sql.processes import KEPT_US
from tests.databases import EVERY_ASYNC_DRIVER, EVERY_DATABASE_ON_A_LOOP
from tests.insight.stored import World
from tests.stage import Stage


@asynccontextmanager
async def present(stage: Stage, **options: Any) -> AsyncIterator[hookware.Hookware]:
    async with stage.running(**options) as app:
        while not stage.rows("SELECT owner FROM hookware_process"):
            await anyio.lowlevel.checkpoint()
        yield app


async def says_how_it_is(stage: Stage) -> None:
    async with present(stage, concurrency=3) as app:
        (process,) = await app.insight.processes()
        assert (process.pid, process.version, process.concurrency) == (os.getpid(), hookware.__version__, 3)
        assert (process.is_alive, process.dispatches, process.running_count) == (True, True, 0)
        assert abs(process.clock_offset_us) < 1_000_000
        assert process.host
        assert process.started_us <= process.seen_us
    assert stage.rows("SELECT owner FROM hookware_process") == [], "it has left"


@EVERY_DATABASE_ON_A_LOOP
async def test_a_process_says_how_it_is_and_leaves_at_a_clean_stop(stage: Stage) -> None:
    await says_how_it_is(stage)


@EVERY_ASYNC_DRIVER
async def test_it_does_so_on_an_async_engine(async_stage: Stage) -> None:
    await says_how_it_is(async_stage)


async def test_a_process_that_only_stores_says_so(stage: Stage) -> None:
    async with present(stage, dispatch=False) as app:
        (process,) = await app.insight.processes()
        assert (process.is_alive, process.dispatches) == (True, False)


class Patient(Env):
    """Keeps how long its loops pause."""

    def __init__(self) -> None:
        super().__init__()
        self.paused: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.paused.append(seconds)
        await super().sleep(seconds)


async def test_a_process_beats_no_more_often_than_every_eighteen_seconds(stage: Stage) -> None:
    env = Patient()
    async with present(stage, env=env):
        await anyio.wait_all_tasks_blocked()
    assert len([seconds for seconds in env.paused if BEAT_SECONDS * 0.9 <= seconds <= BEAT_SECONDS * 1.1]) >= 1
    assert 3 * BEAT_SECONDS * 1.1 * 1e6 > ALIVE_US > 2 * BEAT_SECONDS * 1.1 * 1e6, "two beats may fail"


@EVERY_DATABASE_ON_A_LOOP
async def test_who_was_silent_for_too_long_is_gone_and_forgotten_after_a_day(world: World) -> None:
    world.process(owner="alive", seen_us=world.now_us - ALIVE_US + 30_000_000)
    world.process(owner="gone", seen_us=world.now_us - ALIVE_US - 1)
    world.process(owner="of a wrong clock", seen_us=world.now_us + 10 * ALIVE_US)
    world.process(owner="forgotten", seen_us=world.now_us - KEPT_US)
    alive = {process.owner: process.is_alive for process in await world.insight.processes()}
    assert alive == {"alive": True, "gone": False, "of a wrong clock": False, "forgotten": False}
    assert next(iter(alive)) == "alive"
    world.outbox.runner.run_blocking(lambda c: statements.prune(c, world.now_us, 0))
    assert {process.owner for process in await world.insight.processes()} == {"alive", "gone", "of a wrong clock"}


async def test_a_process_that_died_on_this_host_is_gone_at_once(world: World) -> None:
    async with present(world.stage):
        (owner,) = world.stage.rows("SELECT owner FROM hookware_process")
        dead = "|".join([*owner.split("|")[:4], str(2**22 + 1), owner.split("|")[5]])
        world.process(owner=dead)
        alive = {process.owner: process.is_alive for process in await world.insight.processes()}
        assert alive == {owner: True, dead: False}


async def test_queues_that_are_left_alone_are_told(world: World) -> None:
    world.process(slowed='{"default": %d}' % (world.now_us + 20_000_000))  # noqa: UP031 - braces of JSON
    (task_id,) = world.put()
    said = await world.insight.why(task_id)
    assert said.code == "slowed"
    assert "web-1 (pid 12) leaves its queue default alone for " in said.sentence
    assert "because a handler of it answered 503" in said.sentence
    world.stage.execute("UPDATE hookware_process SET slowed = 'nonsense'")
    assert (await world.insight.why(task_id)).code == "about-to-begin"
