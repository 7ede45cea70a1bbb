"""The reaper: whatever a process leaves behind is taken back, once, and poison is put aside."""

from collections.abc import Mapping

import anyio
import pytest

from hookware.config import Config
from hookware.core.lifecycle import Complete, Decision, Die, Retry, State
from hookware.core.queue import QueueSettings
from hookware.core.task import LeasedTask
from hookware.env import Wake
from hookware.errors import TransientError
from hookware.events import AttemptSettled, Event, Events
from hookware.heartbeat import Heartbeat
from hookware.reaper import Reaper
from hookware.store.base import Claim, Settlement
from tests.dispatching import WatchedStore
from tests.samples import SteppedEnv, new_task

LEASE_US = 30_000_000


class World:
    """A store under a stepped clock and a reaper over it; `dead` names the owners known to be gone."""

    def __init__(self, queues: Mapping[str, QueueSettings] | None = None) -> None:
        self.env = QuickEnv()
        self.store = WatchedStore(self.env)
        self.wake = Wake()
        self.dead: set[str] = set()
        self.decisions: list[Decision] = []
        self.heartbeat = Heartbeat(self.store, self.env, Config())
        self.reaper = self.new_reaper(Config(queues=queues or {}))

    def new_reaper(self, config: Config) -> Reaper:
        events = Events()
        events.subscribe(self._see)
        return Reaper(
            self.store, self.env, config, events, self.wake,
            is_held=self.heartbeat.holds, is_dead=self.dead.__contains__,
        )  # fmt: skip

    def _see(self, event: Event) -> None:
        if isinstance(event, AttemptSettled):
            assert event.accepted
            self.decisions.append(event.decision)

    async def claim(self, owner: str = "n1", limit: int = 1000) -> list[LeasedTask]:
        claimed = await self.store.claim(Claim(owner=owner, limit=limit, lease_us=LEASE_US))
        return list(claimed.tasks)


class QuickEnv(SteppedEnv):
    """Its sleeps take no time and move the clock; after as many as the test allows it falls asleep for good."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []
        self.allowed = 0
        self.asleep = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        if len(self.slept) == self.allowed:
            self.asleep.set()
            await anyio.sleep_forever()
        self.slept.append(seconds)
        self.advance(seconds)
        await anyio.lowlevel.checkpoint()

    def random(self) -> float:
        return 0.0


@pytest.fixture
async def world() -> World:
    return World()


async def test_an_expired_lease_is_taken_back_and_the_task_is_due_at_once(world: World) -> None:
    world.store.insert([new_task(1)])
    await world.claim()
    world.env.advance(29.9)
    assert await world.reaper.reap() == 0
    world.env.advance(0.1)
    assert await world.reaper.reap() == 1
    (again,) = await world.claim("n2")
    assert (again.attempt_count, again.crash_count, again.failure_count) == (2, 1, 0)
    assert isinstance(world.decisions[0], Retry)


async def test_a_crash_is_kept_of_the_attempt(world: World) -> None:
    world.store.insert([new_task(1)])
    (task,) = await world.claim("n1")
    world.env.advance(30)
    assert await world.reaper.reap() == 1
    (first,) = await world.store.attempts(1)
    assert (first.number, first.outcome, first.owner, first.fence) == (1, "crashed", "n1", task.fence)
    assert (first.began_us, first.duration_us) == (task.claimed_us, LEASE_US)
    assert (first.error or "").startswith("the process that ran it died")
    await world.claim("n2")
    world.env.advance(30)
    assert await world.reaper.reap() == 1
    second = (await world.store.attempts(1))[1]
    assert (second.number, second.owner, second.began_us, second.duration_us) == (2, "n2", None, None)


async def test_where_no_attempts_are_kept_no_crash_is(world: World) -> None:
    world.reaper = world.new_reaper(Config(attempt_history="off"))
    world.store.insert([new_task(1)])
    await world.claim()
    world.env.advance(30)
    assert await world.reaper.reap() == 1
    assert await world.store.attempts(1) == []


async def test_when_the_clock_steps_the_living_tasks_of_this_process_are_left_alone(world: World) -> None:
    world.store.insert([new_task(number) for number in range(1, 4)])
    mine, dropped, _ = await world.claim()
    for task in (mine, dropped):
        world.heartbeat.hold(task.lease, 1e9, lambda: None)
    world.heartbeat.drop(dropped.lease)
    world.env.advance(60)
    assert await world.reaper.reap() == 2
    assert [task.lease for task in await world.store.expired(10)] == [mine.lease]
    world.heartbeat.beat()
    assert await world.store.expired(10) == []


async def test_the_leases_of_a_dead_owner_are_taken_back_before_they_end(world: World) -> None:
    world.store.insert([new_task(1), new_task(2)])
    await world.claim("gone", limit=1)
    await world.claim("alive", limit=1)
    world.dead.add("gone")
    assert await world.reaper.reap() == 1
    assert [task.id for task in await world.claim("n2")] == [1]


async def test_a_result_that_comes_first_wins(world: World) -> None:
    world.store.insert([new_task(1)])
    (task,) = await world.claim()
    world.env.advance(30)

    async def the_owner_is_quicker(call: str) -> None:
        world.store.before = nothing
        if call == "settle":
            await world.store.settle([Settlement(task.lease, Complete())])

    async def nothing(call: str) -> None:
        pass

    world.store.before = the_owner_is_quicker
    assert await world.reaper.reap() == 0
    assert world.decisions == []
    assert await world.store.list_tasks() == []


async def test_poison_is_dead_after_the_crash_limit_and_the_others_go_on(world: World) -> None:
    world.store.insert([new_task(1)])
    for crash in range(3):
        world.env.advance(3600)
        assert [task.crash_count for task in await world.claim()] == [crash]
        world.env.advance(30)
        assert await world.reaper.reap() == 1
    (info,) = await world.store.list_tasks()
    assert (info.state, info.dead_reason, info.crash_count) == (State.DEAD, "crashes", 3)
    assert isinstance(world.decisions[-1], Die)


async def test_more_than_one_page_is_taken_back_in_one_go(world: World) -> None:
    world.store.insert([new_task(number) for number in range(1, 251)])
    assert len(await world.claim()) == 250
    world.env.advance(30)
    assert await world.reaper.reap() == 250


async def test_a_page_that_is_refused_does_not_make_it_spin(world: World) -> None:
    world.store.insert([new_task(number) for number in range(1, 101)])
    leases = [task.lease for task in await world.claim("gone")]
    world.dead.add("gone")

    async def renew(call: str) -> None:
        if call == "settle":
            assert len(world.store.settled) < 5
            world.env.advance(1)
            world.store.renew(leases, LEASE_US)

    world.store.before = renew
    assert await world.reaper.reap() == 0


async def run_through(reaper: Reaper, env: QuickEnv, sleeps: int) -> None:
    """Run the loop until it has slept `sleeps` times."""
    env.allowed = sleeps
    async with anyio.create_task_group() as loops:
        loops.start_soon(reaper.run)
        with anyio.fail_after(5):
            await env.asleep.wait()
        await reaper.stop()
        await reaper.stop()


async def test_it_reaps_at_once_and_wakes_the_dispatcher(world: World) -> None:
    world.store.insert([new_task(1)])
    await world.claim("gone")
    world.dead.add("gone")
    await run_through(world.reaper, world.env, 0)
    assert len(world.decisions) == 1
    assert await world.wake.wait(0)


async def test_it_reaps_every_half_lease_and_wakes_nobody_for_nothing(world: World) -> None:
    world.store.insert([new_task(1)])
    await world.claim()
    await run_through(world.reaper, world.env, 2)
    assert all(10 <= pause <= 15 for pause in world.env.slept)
    assert world.decisions == []
    assert not await world.wake.wait(0)


async def test_it_goes_on_after_an_error(world: World) -> None:
    world.store.insert([new_task(1)])
    await world.claim("gone")
    world.dead.add("gone")

    async def away(call: str) -> None:
        if call == "settle" and len(world.store.settled) < 3:
            raise ConnectionError("away")

    world.store.before = away
    await run_through(world.reaper, world.env, 2)
    assert world.reaper.health.ok, "it works again"
    assert len(world.decisions) == 1
    assert await world.wake.wait(0)


async def test_it_is_there_when_a_lease_ends_that_nobody_renews(world: World) -> None:
    world.store.insert([new_task(1)])
    await world.claim("elsewhere")
    world.env.advance(5)
    await run_through(world.reaper, world.env, 2)
    assert [round(seconds, 2) for seconds in world.env.slept] == [13.5, 11.51]
    assert len(world.decisions) == 1


async def test_it_is_there_when_the_next_lease_of_the_same_owner_ends(world: World) -> None:
    world.store.insert([new_task(1), new_task(2)])
    await world.claim("elsewhere", limit=1)
    world.env.advance(2)
    await world.claim("elsewhere", limit=1)
    await run_through(world.reaper, world.env, 4)
    assert world.env.monotonic() - LEASE_US / 1e6 == pytest.approx(2, abs=0.1), (
        "the first ended at 30 s, this one at 32"
    )
    assert len(world.decisions) == 2


async def test_a_lease_that_ends_while_it_takes_another_back_is_not_left_for_later(world: World) -> None:
    world.store.insert([new_task(1), new_task(2)])
    await world.claim("elsewhere", limit=1)
    world.env.advance(0.5)
    await world.claim("elsewhere", limit=1)
    world.env.advance(29.6)

    async def time_passes(call: str) -> None:
        if call == "settle" and not world.decisions:
            world.env.advance(0.5)

    world.store.before = time_passes
    assert await world.reaper.reap() == 2


async def test_of_a_lease_that_has_ended_and_cannot_be_taken_it_makes_no_hurry(world: World) -> None:
    world.store.insert([new_task(1)])
    (task,) = await world.claim("elsewhere")
    world.heartbeat.hold(task.lease, 1e9, lambda: None)  # a clock has stepped: it is kept alive here
    world.env.advance(31)
    await run_through(world.reaper, world.env, 3)
    assert world.env.slept == [13.5, 13.5, 13.5]


@pytest.mark.parametrize(
    ("times", "seconds"),
    [({}, 3600), ({"retention_seconds": 600}, 600), ({"retention_seconds": 1}, 60), ({"retention_seconds": 1e6}, 3600),
     ({"dead_retention_seconds": 0}, 3600), ({"dead_retention_seconds": 300}, 300)],
)  # fmt: skip
async def test_what_a_queue_keeps_for_a_short_time_is_looked_for_more_often(
    times: dict[str, float], seconds: float
) -> None:
    world = World(queues={"q": QueueSettings(name="q", **times)})  # type: ignore[arg-type]  # times only
    pruned: list[float] = []

    async def prune() -> int:
        pruned.append(world.env.monotonic())
        return 0

    world.store.prune = prune  # type: ignore[method-assign]  # to see when it is called
    world.env.allowed = 600
    async with anyio.create_task_group() as group:
        group.start_soon(world.reaper.run)
        with anyio.fail_after(5):
            await world.env.asleep.wait()
        await world.reaper.stop()
    assert seconds <= pruned[1] - pruned[0] <= seconds + 15


async def test_it_prunes_at_its_start_and_then_every_hour(world: World) -> None:
    pruned: list[float] = []

    class Store(WatchedStore):
        async def prune(self) -> int:
            pruned.append(world.env.monotonic())
            return await super().prune()

    reaper = Reaper(Store(world.env), world.env, Config(), Events(), world.wake, is_held=world.heartbeat.holds)
    await run_through(reaper, world.env, 300)
    assert len(pruned) == 2
    assert 3600 <= pruned[1] - pruned[0] <= 3615


async def test_stop_before_run_lets_it_return(world: World) -> None:
    await world.reaper.stop()
    with anyio.fail_after(5):
        await world.reaper.run()


async def test_a_call_that_the_stop_breaks_off_is_no_failure(world: World) -> None:
    class Store(WatchedStore):
        async def owners(self) -> dict[str, int]:
            asked.set()
            with anyio.CancelScope(shield=True):
                await broken_off.wait()
            raise TransientError("the database did not answer within 0.0 s")

    asked, broken_off = anyio.Event(), anyio.Event()
    reaper = Reaper(Store(world.env), world.env, Config(), Events(), world.wake, is_held=world.heartbeat.holds)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as loops:
            loops.start_soon(reaper.run)
            await asked.wait()
            loops.start_soon(reaper.stop)
            await anyio.wait_all_tasks_blocked()
            broken_off.set()
    assert reaper.health.ok


async def test_it_says_when_it_has_been_through_once(world: World) -> None:
    seen: list[bool] = []

    class Store(WatchedStore):
        async def owners(self) -> dict[str, int]:
            seen.append(reaper.has_reaped)
            return await super().owners()

    reaper = Reaper(Store(world.env), world.env, Config(), Events(), world.wake, is_held=world.heartbeat.holds)
    await run_through(reaper, world.env, 1)
    assert seen == [False, True]
