"""Results are stored many in one commit, and one that the store cannot take holds up no other."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import TaskGroup

from hookware.core.lifecycle import Complete
from hookware.core.task import Lease
from hookware.env import Env
from hookware.health import Health
from hookware.settler import Answer, Settler
from hookware.store.base import Claim, Settlement
from hookware.store.memory import MemoryStore
from tests.store.subject import LEASE_US, new_task

EVERYTHING = range(1, 31)


class PatientEnv(Env):
    """Notes the pauses that are made, and makes none."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self.pauses_end = True

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await (anyio.lowlevel.checkpoint() if self.pauses_end else anyio.sleep_forever())


class ChoosyStore(MemoryStore):
    """Refuses every settle in which one of certain tasks is, or all, and notes what it is asked."""

    def __init__(self, env: Env) -> None:
        super().__init__(env.now_us, tombstone_us=0)
        self.refused: set[int] = set()
        self.away_count = 0
        self.asked: list[list[int]] = []

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        ids = [each.lease.task_id for each in settlements]
        self.asked.append(ids)
        if self.away_count:
            self.away_count -= 1
            raise OSError("away")
        if self.refused & set(ids):
            raise ValueError("the store cannot take this")
        return await super().settle(settlements)


class World:
    """A settler at work on tasks that have been claimed."""

    def __init__(self) -> None:
        self.env = PatientEnv()
        self.store = ChoosyStore(self.env)
        self.health = Health(self.env)
        self.settler = Settler(self.store, self.env, self.health)
        self.leases: dict[int, Lease] = {}
        self.results: dict[int, Answer] = {}
        self._news = anyio.Event()

    async def claim(self) -> None:
        self.store.insert([new_task(task_id=n) for n in EVERYTHING])
        claimed = await self.store.claim(Claim(owner="me", limit=len(EVERYTHING), lease_us=LEASE_US))
        self.leases = {task.id: task.lease for task in claimed.tasks}

    async def settle(self, task_id: int) -> None:
        settlement = Settlement(self.leases[task_id], Complete())
        answered = anyio.Event()

        def answer(what: Answer) -> None:
            self.results[task_id] = what
            answered.set()

        self.settler.settle(settlement, lambda: True, answer)
        await answered.wait()
        self._news.set()
        self._news = anyio.Event()

    async def until_settled(self, ids: Sequence[int]) -> None:
        with anyio.fail_after(5):
            while any(task_id not in self.results for task_id in ids):
                await self._news.wait()


@asynccontextmanager
async def settling() -> AsyncIterator[tuple[World, TaskGroup]]:
    world = World()
    await world.claim()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.settler.run)
        try:
            yield world, tasks
        finally:
            world.settler.give_up()
            world.settler.close()


async def test_what_the_store_cannot_take_holds_up_what_came_with_it_only_once() -> None:
    async with settling() as (world, tasks):
        world.store.refused = {1}
        for task_id in range(1, 6):
            tasks.start_soon(world.settle, task_id)
        await world.until_settled(range(2, 6))
        for task_id in range(2, 6):
            assert sum(task_id in ids for ids in world.store.asked) <= 2
        assert len(world.env.pauses) <= 2
    assert world.results == {1: Answer.GIVEN_UP, **dict.fromkeys(range(2, 6), Answer.ACCEPTED)}


async def test_what_comes_later_goes_together_and_waits_for_nothing() -> None:
    async with settling() as (world, tasks):
        world.store.refused = {1}
        tasks.start_soon(world.settle, 1)
        while not world.env.pauses:
            await anyio.lowlevel.checkpoint()
        tasks.start_soon(world.settle, 2)
        await world.until_settled([2])
        while world.store.asked[-1] != [1]:
            await anyio.lowlevel.checkpoint()
        asked_count, pause_count = len(world.store.asked), len(world.env.pauses)
        for first in (3, 13, 23):
            some = range(first, min(first + 10, EVERYTHING.stop))
            for task_id in some:
                tasks.start_soon(world.settle, task_id)
            await world.until_settled(some)
        batches = [ids for ids in world.store.asked[asked_count:] if ids != [1]]
        assert sorted(task_id for ids in batches for task_id in ids) == list(range(3, EVERYTHING.stop))
        assert len(batches) == 3
        assert world.store.asked[asked_count:].count([1]) <= 3, "it waits longer each time"
        assert len(world.env.pauses) == pause_count
        assert world.health.failing == ["settler"]
        world.store.refused = set()
        await world.until_settled([1])
        assert world.health.ok


async def test_what_is_new_does_not_wait_for_the_pause_of_the_only_one_before_it() -> None:
    async with settling() as (world, tasks):
        world.store.refused, world.env.pauses_end = {1}, False
        tasks.start_soon(world.settle, 1)
        while not world.env.pauses:
            await anyio.lowlevel.checkpoint()
        tasks.start_soon(world.settle, 2)
        await world.until_settled([2])


async def test_what_failed_has_its_turn_however_much_comes() -> None:
    async with settling() as (world, tasks):
        world.store.away_count = 1
        tasks.start_soon(world.settle, 1)
        while not world.store.asked:
            await anyio.lowlevel.checkpoint()
        for task_id in EVERYTHING[1:]:
            if 1 in world.results:
                break
            tasks.start_soon(world.settle, task_id)
            await world.until_settled([task_id])
        assert world.results[1] is Answer.ACCEPTED
        assert len(world.store.asked) <= 4


@pytest.mark.parametrize("count", [1, 10])
async def test_a_store_that_is_away_is_asked_once_after_each_pause(count: int) -> None:
    async with settling() as (world, tasks):
        world.store.away_count = 20
        for task_id in range(1, count + 1):
            tasks.start_soon(world.settle, task_id)
        await world.until_settled(range(1, count + 1))
        assert len(world.env.pauses) == 20
        assert len(world.store.asked) == 20 + count
        assert all(early <= 4 * late for early, late in zip(world.env.pauses, world.env.pauses[1:], strict=False))
        assert 1 <= world.env.pauses[-1] <= 2


class BrokenHealth(Health):
    """Raises instead of noting a failure."""

    def failed(self, loop: str, error: BaseException) -> None:
        raise RuntimeError(f"{loop} cannot even say {error!r}")


async def test_whatever_breaks_off_nobody_waits_for_ever() -> None:
    world = World()
    await world.claim()
    world.store.away_count = 1
    world.settler = Settler(world.store, world.env, BrokenHealth(world.env))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.settle, 1)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="cannot even say"):
            await world.settler.run()
        world.settler.close()
        await world.settler.run()  # as its supervisor has it
        await world.until_settled([1])
    assert world.results == {1: Answer.ACCEPTED}


async def test_what_waits_for_its_next_try_is_given_up_at_once() -> None:
    async with settling() as (world, tasks):
        world.store.refused = {1}
        for task_id in (1, 2):
            tasks.start_soon(world.settle, task_id)
        await world.until_settled([2])
        while world.store.asked.count([1]) < 2:
            await anyio.lowlevel.checkpoint()
        began = anyio.current_time()
        world.settler.give_up()
        await world.until_settled([1])
        assert world.results[1] is Answer.GIVEN_UP
        assert anyio.current_time() - began < 0.04


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nobody_waits_for_a_settler_whose_loop_has_ended() -> None:
    """A server that is told twice to end cancels all tasks by asyncio's own means."""
    world = World()
    await world.claim()
    running = asyncio.create_task(world.settler.run())
    world.store.away_count = 1
    world.env.pauses_end = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.settle, 1)
        await anyio.wait_all_tasks_blocked()
        assert world.results == {}
        running.cancel()
        await world.until_settled([1])
        tasks.start_soon(world.settle, 2)
        await world.until_settled([2])
    assert set(world.results.values()) == {Answer.GIVEN_UP}
    assert running.cancelled()
