"""The last chance: a task that one more crash makes dead runs alone."""

from dataclasses import replace

import anyio
import pytest

from hookware import last_chance
from hookware.attempt import Attempt
from hookware.core.lifecycle import Complete, Outcome, Release, Retry, State, Succeeded
from hookware.core.task import LeasedTask
from hookware.events import AttemptStarted
from hookware.last_chance import LastChance
from hookware.store.base import Claim, Settlement
from hookware.store.memory import MemoryStore
from tests.dispatching import Gate, dispatching
from tests.samples import SteppedEnv, leased_task, new_task


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


class LongOne:
    """A handler whose task 1 runs until it is told to end."""

    def __init__(self) -> None:
        self.may_end = anyio.Event()

    async def __call__(self, task: LeasedTask) -> Outcome:
        if task.id == 1:
            await self.may_end.wait()
        return Succeeded(200)


@pytest.mark.parametrize("taken_elsewhere", [True, False])
async def test_a_suspect_does_not_keep_others_waiting_for_a_long_attempt(
    monkeypatch: pytest.MonkeyPatch, taken_elsewhere: bool
) -> None:
    monkeypatch.setattr(last_chance, "HOLD_SECONDS", 0.05)
    handler = LongOne()
    async with dispatching(handler) as world:
        world.insert(new_task(1))
        await world.until(lambda: world.started == [1])
        world.store.insert([new_task(2)])
        await crash(world.store, times=2)
        world.dispatcher.wake.notify()
        await world.until(lambda: world.settled == [(2, Release(), True)])
        if taken_elsewhere:
            (task,) = (await world.store.claim(Claim(owner="idle", limit=1, lease_us=10**9))).tasks
            await world.store.settle([Settlement(task.lease, Complete())])
        world.insert(*[new_task(number) for number in range(3, 13)])
        await world.until(lambda: {3, 12} <= set(world.started))
        assert 2 not in world.started
        handler.may_end.set()
        await world.until(lambda: len(world.started) == (11 if taken_elsewhere else 12))


async def test_a_suspect_that_cannot_be_alone_runs_beside_others_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_chance, "HOLD_SECONDS", 0.02)
    monkeypatch.setattr(last_chance, "_FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(last_chance, "_LONGEST_DELAY_SECONDS", 0.04)
    handler = LongOne()
    async with dispatching(handler) as world:
        world.insert(new_task(1))
        await world.until(lambda: world.started == [1])
        world.store.insert([new_task(2)])
        await crash(world.store, times=2)
        world.dispatcher.wake.notify()
        await world.until(lambda: world.started == [1, 2])
        delayed = [decision for _, decision, _ in world.settled if isinstance(decision, Release) and decision.delay_us]
        assert len(delayed) == last_chance.MOST_ROUNDS
        handler.may_end.set()


async def test_what_comes_while_a_suspect_runs_waits_for_it_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_chance, "ALONE_SECONDS", 0.05)
    handler = LongOne()
    async with dispatching(handler) as world:
        world.store.insert([new_task(1)])
        await crash(world.store, times=2)
        world.insert(new_task(2))
        await world.until(lambda: world.started == [1, 2])
        handler.may_end.set()


async def test_suspects_keep_others_waiting_for_a_fifth_of_the_time_at_most() -> None:
    env, others_waited = SteppedEnv(), 0.0
    rule = LastChance(3, env)
    suspects = dict.fromkeys(range(1, 40), 0.0)  # when each is due; none of them is ever taken elsewhere
    while env.monotonic() < 100:
        now = env.monotonic()
        claimed = [attempt_of(number) for number, due_at in suspects.items() if due_at <= now][:5]
        rule.arrange(claimed, others_run=True)
        for attempt in claimed:
            suspects[attempt.task.id] = now + attempt.delay_us / 1e6 if attempt.postponed else float("inf")
        hold = rule.remaining()
        assert hold <= 2
        others_waited += hold
        env.advance(max(hold, 0.05))
    assert others_waited <= env.monotonic() / 5 + 2


def attempt_of(task_id: int) -> Attempt:
    return Attempt(replace(leased_task(task_id), crash_count=2), claimed_at=0.0)


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
