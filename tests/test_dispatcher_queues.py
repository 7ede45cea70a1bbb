"""The dispatcher and the limits of queues: what may not begin makes no hot loop, and delays nothing that may."""

import anyio
import pytest

from hookware.core.queue import QueueSettings
from hookware.core.task import Keys, LeasedTask
from hookware.store.base import Claim
from tests.dispatching import Dispatching, Gate, dispatching
from tests.samples import new_task


async def set_queue(world: Dispatching, name: str, **overrides: object) -> None:
    QueueSettings(name=name, **overrides)  # type: ignore[arg-type]  # a test's own
    await world.store.set_overrides(name, overrides)


async def test_after_duplicates_the_others_begin_without_a_poll() -> None:
    duplicates = [new_task(n, name="n") for n in range(1, 41)]
    gate = Gate()
    async with dispatching(gate, concurrency=5) as world:
        world.insert(*duplicates, new_task(99))
        await world.until(lambda: len(world.started) == 2)
        assert world.started == [1, 99]
        gate.open.set()


async def test_a_full_queue_is_not_asked_for_again_and_again() -> None:
    gate = Gate()
    async with dispatching(gate) as world:
        await set_queue(world, "default", max_concurrent_requests=2, rate=100.0)
        world.insert(*[new_task(n) for n in range(9)])
        await world.until(lambda: len(world.started) == 2)
        await anyio.wait_all_tasks_blocked()
        claims = len(world.store.claims)
        await anyio.wait_all_tasks_blocked()
        assert len(world.store.claims) == claims < 5
        gate.open.set()
        await world.until(lambda: len(world.settled) == 9)
        assert gate.most_inside == 2


async def test_what_is_held_back_begins_when_what_holds_it_back_ends_here() -> None:
    gate = Gate()
    async with dispatching(gate) as world:
        world.insert(*[new_task(n, keys=Keys(limit_key="a")) for n in range(4)])
        await world.until(lambda: world.started)
        gate.open.set()
        await world.until(lambda: len(world.settled) == 4)
        assert gate.most_inside == 1


async def test_others_are_told_of_what_a_task_of_theirs_may_hold_back() -> None:
    async with dispatching() as world:
        await set_queue(world, "default", max_concurrent_requests=1)
        world.store.insert([new_task(1)])
        (elsewhere,) = (await world.store.claim(Claim(owner="other", limit=1, lease_us=10**9))).tasks
        assert isinstance(elsewhere, LeasedTask)
        world.insert(new_task(2))
        await world.until(lambda: world.left_over_count)
        assert world.started == []


@pytest.mark.parametrize("queue", [{"rate": 0.0}, {"max_concurrent_requests": 0}])
async def test_a_stopped_queue_delays_no_other(queue: dict[str, float]) -> None:
    async with dispatching() as world:
        await set_queue(world, "stopped", **queue)
        world.insert(*[new_task(n, queue_name="stopped") for n in range(50)], new_task(99))
        await world.until(lambda: len(world.settled) == 1)
        assert world.started == [99]
