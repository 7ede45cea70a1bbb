"""Notices go out soon, few, and not into the void: what could not be sent is sent later."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from hookware.env import Env
from hookware.health import Health
from hookware.notifier import Notifier
from tests.dispatching import Dispatching, Gate, dispatching
from tests.notices import FakeNotices, until
from tests.samples import new_task


class HeldEnv(Env):
    """Pauses end when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self._go_on = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self._go_on.wait()

    def go_on(self) -> None:
        self._go_on.set()
        self._go_on = anyio.Event()


class Sending:
    """A notifier, what it sends into, and its pauses."""

    def __init__(self) -> None:
        self.env = HeldEnv()
        self.notices = FakeNotices()
        self.health = Health(self.env)
        self.notifier = Notifier(self.notices, self.env, self.health)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as loops:
            loops.start_soon(self.notifier.run)
            yield
            loops.cancel_scope.cancel()


@pytest.fixture
async def sending() -> Sending:
    return Sending()


async def test_a_first_notice_is_sent_at_once_and_those_of_the_pause_after_it_as_one(sending: Sending) -> None:
    async with sending.running():
        sending.notifier.notify()
        await until(lambda: sending.env.pauses)
        assert sending.notices.sent_count == 1
        for _ in range(50):
            sending.notifier.notify()
        await anyio.wait_all_tasks_blocked()
        assert sending.notices.sent_count == 1
        sending.env.go_on()
        await until(lambda: len(sending.env.pauses) == 2)
        assert sending.notices.sent_count == 2
        sending.env.go_on()
        await anyio.wait_all_tasks_blocked()
        assert sending.notices.sent_count == 2


async def test_what_comes_while_a_notice_is_on_its_way_is_told_by_another_one(sending: Sending) -> None:
    on_its_way, arrive = anyio.Event(), anyio.Event()

    async def travel() -> None:
        on_its_way.set()
        await arrive.wait()

    sending.notices.before_send = travel
    async with sending.running():
        sending.notifier.notify()
        await on_its_way.wait()
        sending.notifier.notify()
        arrive.set()
        await until(lambda: sending.env.pauses)
        sending.env.go_on()
        await until(lambda: sending.notices.sent_count == 2)


async def test_a_notice_that_cannot_be_sent_is_tried_again_later_and_later(sending: Sending) -> None:
    async def fail() -> None:
        raise ConnectionError("away")

    sending.notices.before_send = fail
    async with sending.running():
        sending.notifier.notify()
        for count in range(1, 7):
            await until(lambda count=count: len(sending.env.pauses) == count)  # type: ignore[misc]  # mypy infers no lambda with a default
            assert sending.health.failing == ["notifier"]
            if count < 6:
                sending.env.go_on()
        assert sending.env.pauses == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
        sending.notices.before_send = anyio.lowlevel.checkpoint
        sending.env.go_on()
        await until(lambda: sending.notices.sent_count == 1)
        await until(lambda: sending.health.ok)


async def test_what_is_still_to_be_told_at_the_end_is_told(sending: Sending) -> None:
    await sending.notifier.close()
    assert sending.notices.sent_count == 0
    sending.notifier.notify()
    await sending.notifier.close()
    assert sending.notices.sent_count == 1


async def test_closing_ends_its_loop_and_loses_nothing_of_the_pause(sending: Sending) -> None:
    async with anyio.create_task_group() as loops:
        loops.start_soon(sending.notifier.run)
        sending.notifier.notify()
        await until(lambda: sending.env.pauses)
        sending.notifier.notify()
        await sending.notifier.close()
    assert sending.notices.sent_count == 2


async def test_without_notices_it_does_nothing() -> None:
    notifier = Notifier(None, Env())
    notifier.notify()
    await notifier.run()
    await notifier.close()


async def test_others_are_told_of_what_is_left_over_once_and_only_if_it_is_of_this_process(sending: Sending) -> None:
    sending.notifier.left_over()
    await sending.notifier.close()
    assert sending.notices.sent_count == 0
    sending.notifier.owe()
    sending.notifier.owe()
    for _ in range(3):
        sending.notifier.left_over()
        await sending.notifier.close()
    assert sending.notices.sent_count == 1


# When the dispatcher leaves something over.


async def waiting(world: Dispatching) -> None:
    """Wait until the dispatcher has looked, and waits."""
    await until(lambda: world.store.asked)
    await anyio.wait_all_tasks_blocked()


async def test_a_dispatcher_that_can_take_all_leaves_nothing_over() -> None:
    async with dispatching(concurrency=2) as world:
        await waiting(world)
        world.insert(new_task(1), new_task(2))
        await world.until(lambda: len(world.settled) == 2)
        assert world.left_over_count == 0


async def test_a_claim_that_fills_the_slots_and_leaves_due_tasks_behind_says_so() -> None:
    gate = Gate()
    async with dispatching(gate, concurrency=2) as world:
        await waiting(world)
        world.insert(*[new_task(number) for number in (1, 2, 3)])
        await world.until(lambda: len(world.started) == 2)
        assert world.left_over_count == 1
        gate.open.set()


async def test_tasks_that_are_due_later_are_not_left_over() -> None:
    gate = Gate()
    async with dispatching(gate, concurrency=1) as world:
        await waiting(world)
        world.insert(new_task(1), new_task(2, countdown_us=10**9))
        await world.until(lambda: world.started)
        assert world.left_over_count == 0
        gate.open.set()


async def test_a_hint_that_finds_no_free_slot_leaves_its_task_over() -> None:
    gate = Gate()
    async with dispatching(gate, new_task(1), concurrency=1) as world:
        await world.until(lambda: world.started)
        assert world.left_over_count == 0
        world.insert(new_task(2))
        await world.until(lambda: world.left_over_count)
        gate.open.set()
