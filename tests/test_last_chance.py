"""The last chance: a task that one more crash makes dead runs alone."""

import anyio
import pytest

from hookware.core.lifecycle import Release, Retry, State
from hookware.events import AttemptStarted
from hookware.store.base import Claim, Settlement
from hookware.store.memory import MemoryStore
from tests.dispatching import Gate, dispatching
from tests.samples import new_task


async def crash(store: MemoryStore, times: int) -> None:
    """Let the process die in which the one task that is due runs, so and so often."""
    for _ in range(times):
        (task,) = (await store.claim(Claim(owner="dead", limit=1, lease_us=1))).tasks
        assert await store.settle([Settlement(task.lease, Retry(0, None, "crashed", crashed=True))]) == [True]


async def test_a_task_on_its_last_chance_runs_alone_and_the_others_lose_no_attempt() -> None:
    gate = Gate()
    async with dispatching(gate) as world:
        world.store.insert([new_task(1)])
        await crash(world.store, times=2)
        world.insert(*[new_task(number) for number in range(2, 5)])
        await world.until(lambda: gate.inside == 1 and len(world.settled) == 3)
        assert world.started == [1]
        assert [decision for _, decision, _ in world.settled] == [Release()] * 3
        world.insert(new_task(5))
        await anyio.wait_all_tasks_blocked()
        assert world.started == [1]
        gate.open.set()
        await world.until(lambda: len(world.settled) == 8)
        assert sorted(world.started) == [1, 2, 3, 4, 5]
        attempts = [event.task.attempt_count for event in world.seen if isinstance(event, AttemptStarted)]
        assert attempts == [3, 1, 1, 1, 1]


async def test_a_task_on_its_last_chance_waits_until_nothing_else_runs() -> None:
    gate = Gate()
    async with dispatching(gate) as world:
        world.insert(new_task(1))
        await world.until(lambda: gate.inside == 1)
        world.store.insert([new_task(2)])
        await crash(world.store, times=2)
        world.dispatcher.wake.notify()
        await world.until(lambda: world.settled == [(2, Release(), True)])
        world.insert(new_task(3))
        await anyio.wait_all_tasks_blocked()
        assert world.started == [1]
        gate.open.set()
        await world.until(lambda: len(world.settled) == 5)
        assert world.started == [1, 2, 3]


async def test_a_task_that_saw_one_crash_of_three_runs_beside_others() -> None:
    gate = Gate()
    async with dispatching(gate) as world:
        world.store.insert([new_task(1)])
        await crash(world.store, times=1)
        world.insert(new_task(2))
        await world.until(lambda: gate.inside == 2)
        gate.open.set()


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_task_on_its_last_chance_begins_when_the_others_are_given_back(stopped: bool) -> None:
    held = anyio.Event()

    async def hold(call: str) -> None:
        if call == "settle":
            await held.wait()

    async with dispatching() as world:
        world.store.insert([new_task(1)])
        await crash(world.store, times=2)
        world.store.before = hold
        world.insert(new_task(2))
        await anyio.wait_all_tasks_blocked()
        assert (world.store.asked[-1], world.started) == ("settle", [])
        async with anyio.create_task_group() as group:
            if stopped:
                group.start_soon(world.dispatcher.stop)
                await anyio.wait_all_tasks_blocked()
            held.set()
        if not stopped:
            await world.until(lambda: len(world.settled) == 3)
        assert world.started == ([] if stopped else [1, 2])
        left = [(info.id, info.state) for info in await world.store.list_tasks()]
        assert left == ([(1, State.PENDING), (2, State.PENDING)] if stopped else [])
