"""The heartbeat: leases live while their attempts do, and are given up before somebody else may take them."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import contains
from threading import Event, get_ident

import pytest

from hookware.config import Config
from hookware.core.lifecycle import Complete, Retry
from hookware.core.task import Lease
from hookware.env import Env
from hookware.errors import TransientError
from hookware.heartbeat import Heartbeat
from hookware.store.base import Claim, Settlement
from hookware.store.memory import MemoryStore
from tests.samples import SteppedEnv, new_task

LEASE_US = 30_000_000
FAR = 1e9
AWAY = ConnectionError("the database is away")
TAKEN_BACK = Retry(3_600_000_000, None, "taken back")


class World:
    """A memory store and a heartbeat under one stepped clock; the store's renewals can be made to fail."""

    def __init__(self) -> None:
        self.env = SteppedEnv()
        self.error: Exception | None = None
        self.renewal_count = 0
        self.during_renewal: Callable[[], None] = lambda: None
        self.store = MemoryStore(self.env.now_us, fp=self._fp, tombstone_us=0)
        self.heartbeat = Heartbeat(self.store, self.env, Config())
        self.lost: list[Lease] = []

    def _fp(self, name: str) -> None:
        if name == "renew.before":
            self.renewal_count += 1
            self.during_renewal()
            if self.error is not None:
                raise self.error

    async def claim(self, count: int = 1) -> list[Lease]:
        self.store.insert([new_task(number + 1) for number in range(count)])
        claimed = await self.store.claim(Claim(owner="me", limit=count, lease_us=LEASE_US))
        return [task.lease for task in claimed.tasks]

    def hold(self, lease: Lease, deadline: float = FAR) -> None:
        self.heartbeat.hold(lease, deadline, lambda: self.lost.append(lease))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, beating every quarter of a lease, as the thread does."""
        for _ in range(int(seconds / 7.5)):
            self.env.advance(7.5)
            self.heartbeat.beat()

    async def expired(self) -> set[Lease]:
        return {task.lease for task in await self.store.expired(100)}


@pytest.fixture
def world() -> World:
    return World()


async def test_leases_are_renewed_together_for_as_long_as_they_are_held(world: World) -> None:
    first, second, third = await world.claim(3)
    world.hold(first)
    world.hold(second)
    world.pass_time(300)
    assert await world.expired() == {third}
    assert world.renewal_count == 40
    assert world.lost == []


async def test_a_dropped_lease_is_left_alone(world: World) -> None:
    (lease,) = await world.claim()
    world.hold(lease)
    world.pass_time(30)
    world.heartbeat.drop(lease)
    world.heartbeat.drop(lease)
    world.pass_time(30)
    assert await world.expired() == {lease}
    assert world.lost == []


async def test_nothing_held_costs_nothing(world: World) -> None:
    world.pass_time(300)
    assert world.renewal_count == 0


async def test_past_the_hard_deadline_a_lease_is_renewed_no_more_and_then_lost(world: World) -> None:
    (lease,) = await world.claim()
    world.hold(lease, deadline=40.0)  # and five seconds of overrun
    world.pass_time(52.5)
    assert world.lost == []
    world.pass_time(7.5)  # last renewed at 37.5 s: 22.5 s ago
    assert world.lost == [lease]
    assert await world.expired() == set()
    world.pass_time(7.5)
    assert await world.expired() == {lease}


async def test_a_lease_that_went_to_another_attempt_is_lost_once(world: World) -> None:
    (lease,) = await world.claim()
    world.hold(lease)
    await world.store.settle([Settlement(lease, Complete())])
    world.pass_time(30)
    assert world.lost == [lease]


async def test_an_older_lease_of_the_same_task_is_not_taken_for_its_newer_one(world: World) -> None:
    """A claim whose answer came very late may bring a task that the process has claimed again since."""
    (old,) = await world.claim()
    await world.store.settle([Settlement(old, Retry(0, None, "taken back"))])
    (task,) = (await world.store.claim(Claim(owner="me", limit=1, lease_us=LEASE_US))).tasks
    for lease in (task.lease, old):
        world.hold(lease)
    world.pass_time(7.5)
    assert world.lost == [old]
    assert world.heartbeat.holds(task.lease)


async def test_a_lease_whose_attempts_result_is_being_stored_is_not_lost(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await world.claim(2)
    ending = {first, second}
    for lease in ending:
        world.heartbeat.hold(lease, FAR, partial(world.lost.append, lease), is_ending=partial(contains, ending, lease))
    await world.store.settle([Settlement(first, Complete())])
    world.pass_time(60)
    assert (world.lost, caplog.records) == ([], [])
    ending.remove(second)  # its transaction was rolled back
    await world.store.settle([Settlement(second, Complete())])
    world.pass_time(7.5)
    assert world.lost == [second]


async def test_failing_renewals_are_tolerated_while_there_is_time(world: World) -> None:
    (lease,) = await world.claim()
    world.hold(lease)
    world.error = AWAY
    world.pass_time(15)
    world.error = None
    world.pass_time(300)
    assert world.lost == []
    assert await world.expired() == set()


async def test_a_lease_that_cannot_be_renewed_is_lost_before_it_ends(world: World) -> None:
    leases = await world.claim(2)
    for lease in leases:
        world.hold(lease)
    world.error = AWAY
    world.pass_time(22.5)
    assert world.lost == leases
    assert await world.expired() == set()


async def test_while_others_hold_the_databases_lock_no_lease_is_lost(world: World) -> None:
    first, second = await world.claim(2)
    world.hold(first)
    world.hold(second)
    world.error = TransientError("the database is locked")
    world.pass_time(45)
    assert world.lost == []
    await world.store.settle([Settlement(second, TAKEN_BACK)])
    world.error = None
    world.pass_time(7.5)
    assert world.lost == [second]
    assert await world.expired() == set()


async def test_an_attempt_that_ends_during_a_renewal_loses_nothing(world: World) -> None:
    (lease,) = await world.claim()
    world.hold(lease)
    await world.store.settle([Settlement(lease, Complete())])
    world.during_renewal = lambda: world.heartbeat.drop(lease)
    world.pass_time(7.5)
    assert world.lost == []


async def test_a_raising_listener_does_not_keep_the_others_from_hearing(world: World) -> None:
    def broken() -> None:
        raise ValueError("deaf")

    first, second = await world.claim(2)
    world.heartbeat.hold(first, FAR, broken)
    world.hold(second)
    world.error = AWAY
    world.pass_time(30)
    assert world.lost == [second]


def test_the_beats_come_from_a_thread_of_their_own() -> None:
    beaten = Event()
    threads: list[int] = []

    class Watched(MemoryStore):
        def renew(self, leases: Sequence[Lease], lease_us: int) -> frozenset[int]:
            threads.append(get_ident())
            beaten.set()
            return frozenset(lease.task_id for lease in leases)

    env = Env()
    heartbeat = Heartbeat(Watched(env.now_us, tombstone_us=0), env, Config(lease_seconds=0.01))
    heartbeat.hold(Lease(1, 1), FAR * 10, lambda: None)
    heartbeat.start()
    heartbeat.start()
    try:
        assert beaten.wait(5)
    finally:
        heartbeat.stop()
        heartbeat.stop()
    assert get_ident() not in threads
    count = len(threads)
    assert not Event().wait(0.05)
    assert len(threads) == count


# Rest.


async def test_a_lease_that_rests_lasts_for_its_attempt_and_its_row_is_left_alone(world: World) -> None:
    (lease,) = await world.claim()
    world.hold(lease, deadline=600)
    await world.heartbeat.rest(lease)
    await world.heartbeat.rest(lease)
    world.pass_time(600)
    assert world.renewal_count == 1
    assert await world.expired() == set()
    assert world.lost == []
    world.pass_time(60)  # past the deadline, as any other
    assert world.lost == [lease]
    assert await world.expired() == {lease}


async def test_a_lease_that_rests_is_given_up_before_others_may_take_it(world: World) -> None:
    (lease,) = await world.claim()
    world.hold(lease, deadline=600)
    await world.heartbeat.rest(lease)
    while not world.lost:
        assert await world.expired() == set()
        world.pass_time(7.5)


@pytest.mark.parametrize("taken", [True, False])
async def test_a_lease_that_cannot_rest_is_renewed_as_before(world: World, taken: bool) -> None:
    (lease,) = await world.claim()
    world.hold(lease, deadline=600)
    if taken:
        await world.store.settle([Settlement(lease, TAKEN_BACK)])
    else:
        world.error = AWAY
    await world.heartbeat.rest(lease)
    world.error = None
    world.pass_time(60)
    assert world.renewal_count == (2 if taken else 9)
    assert world.lost == ([lease] if taken else [])


async def test_a_beat_that_comes_after_all_ends_the_rest(world: World) -> None:
    (lease,) = await world.claim()
    world.hold(lease, deadline=600)

    def rest_meanwhile() -> None:
        world.during_renewal = lambda: None
        world.heartbeat._held[lease].rests = True

    world.during_renewal = rest_meanwhile
    world.pass_time(60)
    assert world.renewal_count == 8
    assert await world.expired() == set()


async def test_only_what_is_held_rests(world: World) -> None:
    (lease,) = await world.claim()
    await world.heartbeat.rest(lease)
    assert world.renewal_count == 0
