"""Slots that are taken by commits: never more than are offered, none for ever, and each task once."""

import gc
from functools import partial

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.config import Config
from hookware.core.lifecycle import Complete, Release, State
from hookware.core.queue import QueueSettings
from hookware.core.task import NewTask
from hookware.handoff import DEAF_SECONDS, STALE_PART, HandOff, Place
from tests.dispatching import Dispatching, Gate, dispatching
from tests.samples import SteppedEnv, leased_task, new_task

LEASE_SECONDS = 30.0
QUEUES = {
    settings.name: settings
    for settings in (
        QueueSettings(name="rated", rate=5.0),
        QueueSettings(name="narrow", max_concurrent_requests=2),
        QueueSettings(name="plain"),
    )
}


def opened(count: int, env: SteppedEnv | None = None) -> HandOff:
    hand_off = HandOff("me", env or SteppedEnv(), Config(queues=QUEUES, lease_seconds=LEASE_SECONDS), lambda: 10)
    hand_off.offer(count)
    return hand_off


def place_in(hand_off: HandOff, queue_name: str = "default") -> Place:
    place = hand_off.place_for(queue_name, 1)
    assert place is not None
    return place


@given(
    st.lists(st.sampled_from(["offer", "take", "commit", "forget", "drop", "arrive"]), max_size=40), st.integers(0, 4)
)
def test_no_more_is_taken_than_is_offered_and_all_is_given_back(steps: list[str], count: int) -> None:
    hand_off = opened(0)
    offered, taken, arrived = 0, list[Place](), 0
    for step in steps:
        if step == "offer":
            hand_off.offer(count)
            offered = count
        elif step == "take":
            place = hand_off.place_for("default", 1)
            assert (place is not None) is (offered > 0)
            if place is not None:
                offered -= 1
                taken.append(place)
        elif step == "arrive":
            assert len(hand_off.arrived()) == arrived
            arrived = 0
        elif taken:
            place = taken.pop()
            if step == "commit":
                arrived += _commit(place)
            elif step == "forget":
                place.forget()
            del place
        assert hand_off.taken_count == len(taken) + arrived


def _commit(place: Place) -> int:
    place.task = leased_task(1)
    place.committed()
    place.committed()
    place.forget()  # what is committed is not forgotten, and comes once
    return 1


@pytest.mark.parametrize(("queue_name", "is_open"), [("rated", False), ("narrow", False), ("plain", True), ("x", True)])
def test_only_queues_without_limits_are_open(queue_name: str, is_open: bool) -> None:
    assert (opened(1).place_for(queue_name, 1) is not None) is is_open


def test_a_queue_that_is_left_alone_is_not_open() -> None:
    hand_off = opened(1)
    hand_off.offer(1, frozenset({"slow"}))
    assert hand_off.place_for("slow", 1) is None
    assert hand_off.place_for("other", 1) is not None


def test_a_place_that_nobody_speaks_of_any_more_is_given_back() -> None:
    hand_off = opened(2)
    places = [place_in(hand_off), place_in(hand_off)]
    assert hand_off.taken_count == 2
    del places
    gc.collect()
    assert hand_off.taken_count == 0


def test_a_transaction_that_takes_too_long_holds_no_slot() -> None:
    env = SteppedEnv()
    hand_off = opened(2, env)
    early = place_in(hand_off)
    env.advance(LEASE_SECONDS * STALE_PART)
    late = place_in(hand_off)
    assert hand_off.taken_count == 2
    env.advance(0.001)
    assert hand_off.taken_count == 1
    assert [hand_off.is_late(place.taken_at) for place in (early, late)] == [True, False]


def test_nothing_comes_once_it_is_closed() -> None:
    hand_off = opened(2)
    place = place_in(hand_off)
    hand_off.close()
    assert hand_off.place_for("default", 1) is None
    _commit(place)
    assert (hand_off.arrived(), hand_off.taken_count) == ([], 0)


def test_no_more_come_at_once_than_may() -> None:
    hand_off = HandOff("me", SteppedEnv(), Config(), lambda: 1)
    hand_off.offer(5)
    place = place_in(hand_off)
    assert hand_off.place_for("default", 2) is None
    place.forget()
    assert hand_off.place_for("default", 3) is not None


def test_where_the_event_loop_does_not_listen_the_next_tasks_are_for_anybody() -> None:
    env = SteppedEnv()
    hand_off = opened(5, env)
    _commit(place_in(hand_off))
    env.advance(DEAF_SECONDS)
    _commit(place_in(hand_off))
    env.advance(DEAF_SECONDS / 2)
    assert hand_off.place_for("default", 1) is None
    assert len(hand_off.arrived()) == 2
    assert hand_off.place_for("default", 1) is not None


def test_what_may_be_committed_is_in_doubt_at_once_and_again() -> None:
    env = SteppedEnv()
    hand_off = opened(9, env)
    unknown, never_inserted, cancelled = place_in(hand_off), place_in(hand_off), place_in(hand_off)
    unknown.task = leased_task(1)
    unknown.forget()
    never_inserted.forget()
    with pytest.raises(KeyError), cancelled:
        raise KeyError
    leases = [unknown.lease, cancelled.lease]
    assert hand_off.taken_count == 0
    for seconds in (0.0, 1.0, LEASE_SECONDS / 4 - 1.0):
        env.advance(seconds)
        assert hand_off.doubtful() == leases
        assert hand_off.doubtful() == []
    env.advance(3600)
    assert hand_off.doubtful() == []


# With a dispatcher.


def commit(world: Dispatching, task: NewTask, place: Place | None = None) -> Place:
    """Be a transaction that commits a task in a place."""
    place = place or place_in(world.dispatcher.hand_off)
    world.store.insert([task], place)
    place.committed()
    return place


def has_settled(world: Dispatching, count: int) -> bool:
    return world.store.asked.count("settle") == count


async def until_it_offers(world: Dispatching) -> None:
    """Wait until nothing is due, and the dispatcher waits."""
    await world.until(lambda: world.store.asked)
    await anyio.wait_all_tasks_blocked()


async def test_a_born_task_runs_without_a_claim() -> None:
    async with dispatching() as world:
        await until_it_offers(world)
        for number in range(1, 30):
            commit(world, new_task(number))
            await anyio.wait_all_tasks_blocked()
        assert world.store.asked.count("claim") == 1
        assert world.settled == [(number, Complete(), True) for number in range(1, 30)]


async def test_born_and_claimed_tasks_share_the_slots() -> None:
    gate = Gate()
    async with dispatching(gate, concurrency=3) as world:
        await until_it_offers(world)
        commit(world, new_task(1))
        place = place_in(world.dispatcher.hand_off)  # of a transaction that goes on
        world.insert(*[new_task(number) for number in range(10, 20)])
        await world.until(lambda: gate.inside == 2)
        await anyio.wait_all_tasks_blocked()
        assert (gate.inside, world.store.claims[-1].limit) == (2, 1)
        assert world.dispatcher.hand_off.place_for("default", 1) is None, "others wait for a slot"
        commit(world, new_task(2), place)
        await world.until(lambda: gate.inside == 3)
        gate.open.set()
        await world.until(lambda: len(world.settled) == 12)
        assert gate.most_inside == 3


async def test_a_slot_that_is_given_back_is_claimed_for_at_once() -> None:
    async with dispatching(concurrency=1) as world:
        await until_it_offers(world)
        place = place_in(world.dispatcher.hand_off)
        world.insert(new_task(1))
        await anyio.wait_all_tasks_blocked()
        assert world.started == []
        place.forget()
        await world.until(lambda: world.settled)


async def test_nothing_is_offered_while_something_is_due() -> None:
    gate = Gate()
    async with dispatching(gate, new_task(1), new_task(2), concurrency=1) as world:
        await world.until(lambda: gate.inside)
        assert world.dispatcher.hand_off.place_for("default", 1) is None
        gate.open.set()
        await world.until(lambda: len(world.settled) == 2)
        await until_it_offers(world)
        assert world.dispatcher.hand_off.place_for("default", 1) is not None


async def test_a_commit_under_way_is_waited_for_at_the_stop_and_its_task_given_back() -> None:
    async with dispatching() as world:
        await until_it_offers(world)
        place = place_in(world.dispatcher.hand_off)
        async with anyio.create_task_group() as stopping:
            stopping.start_soon(world.dispatcher.stop)
            await anyio.wait_all_tasks_blocked()
            assert world.dispatcher.hand_off.place_for("default", 1) is None
            commit(world, new_task(1), place)
    info = await world.store.get(1)
    assert info is not None
    assert (info.state, info.attempt_count, info.owner, world.started) == (State.PENDING, 0, None, [])


async def test_no_slot_is_offered_any_more_once_the_stop_has_begun() -> None:
    gate, answer = Gate(), anyio.Event()

    async def wait(_call: str) -> None:
        await answer.wait()

    async with dispatching(gate) as world:
        await until_it_offers(world)
        commit(world, new_task(1))
        await world.until(lambda: gate.inside)
        world.store.before = wait
        world.dispatcher.wake.notify()
        await world.until(lambda: world.store.asked.count("claim") == 2)
        async with anyio.create_task_group() as stopping:
            stopping.start_soon(world.dispatcher.stop)
            await anyio.wait_all_tasks_blocked()
            answer.set()  # of a claim that was under way
            await anyio.wait_all_tasks_blocked()
            assert world.dispatcher.hand_off.place_for("default", 1) is None
            gate.open.set()


async def test_what_was_committed_unknown_to_anybody_runs_at_once_and_has_not_crashed() -> None:
    async with dispatching() as world:
        await until_it_offers(world)
        place = place_in(world.dispatcher.hand_off)
        world.store.insert([new_task(1)], place)
        place.forget()
        await world.until(lambda: world.settled)
        (attempt,) = world.deliveries
        assert (world.settled, attempt.task.crash_count) == ([(1, Complete(), True)], 0)
        assert attempt.task.attempt_count == 1


async def test_what_is_given_back_is_no_other_lease_of_the_task() -> None:
    gate = Gate()
    async with dispatching(gate) as world:
        await until_it_offers(world)
        for number in range(2):
            place = place_in(world.dispatcher.hand_off)
            place.task = leased_task(1)  # inserted, and rolled back
            place.forget()
            if number == 0:
                world.insert(new_task(1))  # the same one, tried again
                await world.until(lambda: gate.inside)
            await world.until(partial(has_settled, world, number + 1))
        info = await world.store.get(1)
        assert info is not None
        assert info.state is State.LEASED
        gate.open.set()
        await world.until(lambda: world.settled)
        assert world.settled == [(1, Complete(), True)]


async def test_what_was_committed_too_late_is_given_back_and_claimed_anew() -> None:
    env = SteppedEnv()
    async with dispatching(env=env, lease_seconds=LEASE_SECONDS) as world:
        await until_it_offers(world)
        place = place_in(world.dispatcher.hand_off)
        world.store.insert([new_task(1)], place)
        env.advance(LEASE_SECONDS * STALE_PART + 0.001)
        place.committed()
        await world.until(lambda: len(world.settled) == 2)
        assert [decision for _, decision, _ in world.settled] == [Release(), Complete()]
        assert len(world.started) == 1


async def test_the_process_is_not_drained_while_a_commit_is_under_way() -> None:
    async with dispatching() as world:
        await until_it_offers(world)
        assert await world.dispatcher.is_drained() is True
        place = place_in(world.dispatcher.hand_off)
        assert await world.dispatcher.is_drained() is False
        commit(world, new_task(1), place)
        assert await world.dispatcher.is_drained() is False
        await world.until(lambda: world.settled)
        await anyio.wait_all_tasks_blocked()
        assert await world.dispatcher.is_drained() is True
