"""The dispatcher over a real store in memory, on asyncio and trio: claim, deliver, settle."""

from collections.abc import Awaitable, Callable, Sequence

import anyio
import pytest

from hookware.config import Config
from hookware.core.lifecycle import (
    Complete,
    Conflicted,
    Die,
    Failed,
    Interrupted,
    Outcome,
    Release,
    Retry,
    State,
    Succeeded,
)
from hookware.core.retry import RetryOptions
from hookware.core.task import Lease, LeasedTask
from hookware.env import Env
from hookware.events import AttemptSettled
from hookware.slowdown import Slowdown
from hookware.store.base import Settlement
from hookware.store.memory import MemoryStore
from tests.dispatching import Dispatching, Gate, Handler, dispatching, nothing, succeed
from tests.samples import SteppedEnv, new_task

TAKEN_BACK = Retry(3_600_000_000, None, "taken back")


def always(outcome: Outcome) -> Handler:
    async def handler(_task: LeasedTask) -> Outcome:
        return outcome

    return handler


def in_turn(*outcomes: Outcome) -> Handler:
    left = list(outcomes)

    async def handler(_task: LeasedTask) -> Outcome:
        return left.pop(0)

    return handler


def once(call: str, error: Exception) -> Callable[[str], Awaitable[None]]:
    left = [error]

    async def fail(name: str) -> None:
        if name == call and left:
            raise left.pop()

    return fail


# Claim.


async def test_a_task_that_is_due_runs_and_is_gone() -> None:
    async with dispatching(succeed, new_task(1)) as world:
        await world.until(lambda: world.settled)
        assert (world.started, world.settled) == ([1], [(1, Complete(), True)])
        assert await world.store.list_tasks() == []


async def test_a_notice_starts_a_task_without_waiting_for_the_poll() -> None:
    async with dispatching() as world:
        world.insert(new_task(1))
        await world.until(lambda: world.settled)


async def test_the_poll_finds_tasks_that_nobody_told_of() -> None:
    async with dispatching(poll_seconds=0.02) as world:
        world.insert(new_task(1))
        await world.until(lambda: world.settled)
        world.store.insert([new_task(2)])
        await world.until(lambda: len(world.settled) == 2)


async def test_the_next_task_is_claimed_when_it_is_due_not_at_the_poll() -> None:
    async with dispatching(succeed, new_task(1, countdown_us=50_000)) as world:
        await world.until(lambda: world.settled)
        assert world.store.claims[0].limit == 10


async def test_a_retry_is_claimed_when_it_is_due() -> None:
    async with dispatching(in_turn(Failed(500, "x"), Succeeded(200)), new_task(1)) as world:
        await world.until(lambda: len(world.settled) == 2)
        assert [type(decision) for _, decision, _ in world.settled] == [Retry, Complete]


async def test_no_more_tasks_run_at_once_than_there_are_slots() -> None:
    gate = Gate()
    async with dispatching(gate, *[new_task(number) for number in range(1, 8)], concurrency=3) as world:
        await world.until(lambda: len(world.started) == 3)
        gate.open.set()
        await world.until(lambda: len(world.settled) == 7)
        assert gate.most_inside == 3
        assert all(claim.limit <= 3 for claim in world.store.claims)
        assert world.store.claims[0].owner == "me"
        assert world.store.claims[0].lease_us == 30_000_000


async def test_an_idle_dispatcher_asks_one_cheap_question_per_poll() -> None:
    async with dispatching(poll_seconds=0.01) as world:
        with anyio.fail_after(5):
            while world.store.asked.count("next_due") < 5:
                await anyio.lowlevel.checkpoint()
        assert world.store.asked.count("claim") == 1


async def test_the_end_of_an_attempt_asks_nothing_when_nothing_else_waits() -> None:
    async with dispatching(succeed, new_task(1)) as world:
        await world.until(lambda: world.settled)
        await anyio.wait_all_tasks_blocked()
        assert world.store.asked == ["claim", "settle"]


async def test_with_no_free_slot_nothing_is_asked() -> None:
    gate = Gate()
    async with dispatching(gate, new_task(1), new_task(2), concurrency=1, poll_seconds=0.01) as world:
        await world.until(lambda: world.started)
        world.dispatcher.wake.notify()
        await anyio.wait_all_tasks_blocked()
        assert world.store.asked == ["claim"]
        gate.open.set()
        await world.until(lambda: len(world.settled) == 2)


async def test_a_claim_that_raises_is_tried_again() -> None:
    async with dispatching() as world:
        world.store.before = once("claim", ConnectionError("away"))
        world.insert(new_task(1))
        await world.until(lambda: world.settled)
        assert [str(error) for error in world.failures] == ["away"]
        assert world.dispatcher.health.ok, "it works again"


def slow_store(env: SteppedEnv, world: Dispatching, *, claim: float, renewals: float = 0.0) -> None:
    """Let so many seconds pass between what the first claim, and each renewal, does in the store and its answer."""
    renewing, passing = world.store.renew, [claim]

    async def after(call: str) -> None:
        if call == "claim" and passing:
            env.advance(passing.pop())

    def renew_slowly(leases: Sequence[Lease], lease_us: int) -> frozenset[int]:
        if leases:
            world.store.asked.append("renew")
        renewed = renewing(leases, lease_us)
        env.advance(renewals)
        return renewed

    world.store.after, world.store.renew = after, renew_slowly  # type: ignore[method-assign]  # for this test


async def test_a_claim_that_took_too_long_is_given_back_and_not_begun() -> None:
    env = SteppedEnv()
    async with dispatching(succeed, env=env, lease_seconds=0.4) as world:
        slow_store(env, world, claim=0.16, renewals=0.16)
        world.insert(new_task(1))
        await world.until(lambda: world.settled)
        assert world.settled[0] == (1, Release(), True)
        assert isinstance(world.seen[0], AttemptSettled)


@pytest.mark.parametrize("claim", [0.1, 0.2, 0.39])
async def test_what_a_slow_claim_brings_begins_on_a_lease_that_is_surely_held(claim: float) -> None:
    env = SteppedEnv()
    async with dispatching(succeed, env=env, lease_seconds=0.4) as world:
        slow_store(env, world, claim=claim)
        world.insert(new_task(1))
        await world.until(lambda: world.settled)
        assert (world.started, world.settled) == ([1], [(1, Complete(), True)])
        assert claim <= 0.4 * 3 / 8 or "renew" in world.store.asked


async def test_what_a_slow_claim_brings_is_not_begun_where_another_has_taken_it() -> None:
    env = SteppedEnv()
    async with dispatching(succeed, env=env, lease_seconds=0.4) as world:
        slow_store(env, world, claim=0.41)
        late = world.store.after

        async def taken(call: str) -> None:
            await late(call)
            world.store.after = nothing
            (task,) = await world.store.expired(9)
            await world.store.settle([Settlement(task.lease, Retry(3_600_000_000, None, "reaped", crashed=True))])

        world.store.after = taken
        world.insert(new_task(1))
        with anyio.fail_after(5):
            while world.dispatcher._attempts or not world.store.settled:
                await anyio.lowlevel.checkpoint()
        assert world.started == []


# Deliver.


async def test_a_failure_is_decided_and_stored() -> None:
    once_only = RetryOptions(task_retry_limit=0)
    async with dispatching(always(Failed(500, "broken")), new_task(1, retry=once_only)) as world:
        await world.until(lambda: world.settled)
        assert world.settled == [(1, Die("retries", 500, "broken"), True)]
        (info,) = await world.store.list_tasks(state=State.DEAD)
        assert (info.last_status, info.last_error, info.dead_reason) == (500, "broken", "retries")


async def test_a_permanent_failure_is_dead_at_once() -> None:
    async with dispatching(always(Failed(400, "no", permanent=True)), new_task(1)) as world:
        await world.until(lambda: world.settled)
        assert world.settled == [(1, Die("permanent", 400, "no"), True)]


@pytest.mark.parametrize("error", [ValueError("odd"), BaseExceptionGroup("g", [SystemExit(1)])], ids=repr)
async def test_a_delivery_that_raises_is_a_failure(error: BaseException) -> None:
    async with dispatching() as world:
        world.deliver_error = error
        world.insert(new_task(1))
        await world.until(lambda: world.settled)
        _, decision, _ = world.settled[0]
        assert isinstance(decision, Retry)
        assert "could not be delivered" in decision.error


async def test_a_task_completed_by_its_handler_is_not_settled_again() -> None:
    async with dispatching(always(Succeeded(200, completed=True)), new_task(1)) as world:
        await world.until(lambda: world.settled)
        assert world.settled == [(1, Complete(), True)]
        assert "settle" not in world.store.asked


async def test_a_conflict_is_delivered_again_at_once_and_not_counted() -> None:
    seen: list[LeasedTask] = []
    outcomes: list[Outcome] = [*[Conflicted("deadlock")] * 20, Succeeded(200)]

    async def handler(task: LeasedTask) -> Outcome:
        seen.append(task)
        return outcomes.pop(0)

    async with dispatching(handler, new_task(1)) as world:
        await world.until(lambda: world.settled)
        assert world.settled == [(1, Complete(), True)]
        assert {(task.attempt_count, task.fence) for task in seen} == {(1, 1)}
        assert len(seen) == 21
        deadlines = [task.deadline_us for task in seen]
        assert deadlines == sorted(deadlines, reverse=True)
        assert deadlines[-1] < deadlines[0]


async def test_a_conflict_that_does_not_end_is_a_failure() -> None:
    async with dispatching(always(Conflicted("deadlock")), new_task(1)) as world:
        await world.until(lambda: world.settled)
        _, decision, _ = world.settled[0]
        assert isinstance(decision, Retry)
        assert decision.error == "deadlock"


async def test_a_process_that_was_frozen_delivers_nothing_again_before_it_knows_that_its_lease_is_good() -> None:
    """What it met is most likely the attempt that has the task now."""

    class BeatingEnv(SteppedEnv):
        async def sleep(self, seconds: float) -> None:
            if seconds > 0.5:  # no conflict is waited out for so long
                world.heartbeat.beat()
            await anyio.lowlevel.checkpoint()

    env, fences = BeatingEnv(), list[int]()

    async def handler(task: LeasedTask) -> Outcome:
        fences.append(task.fence)
        await MemoryStore.settle(world.store, [Settlement(task.lease, TAKEN_BACK)])
        env.advance(20)
        return Conflicted("duplicate key")

    async with dispatching(handler, env=env, lease_seconds=30) as world:
        world.insert(new_task(1))
        await world.until(lambda: fences and not world.dispatcher._attempts)
        assert fences == [1]
        assert world.settled == []


async def test_the_age_of_a_task_is_judged_by_the_databases_clock() -> None:
    class WrongClock(SteppedEnv):
        """The host's clock; the store keeps the right one."""

        def now_us(self) -> int:
            return super().now_us() + 10**15

    env = WrongClock()

    async def handler(_task: LeasedTask) -> Outcome:
        env.advance(5)
        return Failed(500, "x")

    retry = RetryOptions(task_age_limit=9, min_backoff_seconds=0)
    async with dispatching(handler, env=env) as world:
        right = SteppedEnv.now_us
        world.store._clock_us = lambda: right(env) - 5 * 10**15
        world.insert(new_task(1, retry=retry))
        await world.until(lambda: len(world.settled) == 1)
        world.dispatcher.wake.notify()
        await world.until(lambda: len(world.settled) == 2)
        assert [type(decision) for _, decision, _ in world.settled] == [Retry, Die]


async def test_a_lost_lease_cuts_the_attempt_short_and_settles_nothing() -> None:
    gate = Gate()
    async with dispatching(gate, new_task(1), lease_seconds=30) as world:
        await world.until(lambda: gate.inside)
        taken = (await world.store.expired(1, ["me"]))[0]
        await MemoryStore.settle(world.store, [Settlement(taken.lease, TAKEN_BACK)])
        world.heartbeat.beat()
        with anyio.fail_after(5):
            while gate.inside:
                await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        assert gate.cancelled_count == 1
        assert "settle" not in world.store.asked


async def test_a_task_that_its_handler_completes_is_not_cut_short(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(Succeeded(200, completed=True))
    outcomes: list[Outcome] = [Conflicted("deadlock")]

    async def handler(task: LeasedTask) -> Outcome:
        if outcomes:
            world.deliveries[-1].completing = True
            return outcomes.pop()
        assert [each.completing for each in world.deliveries] == [True, False], "the second delivery begins anew"
        world.deliveries[-1].completing = True
        await MemoryStore.settle(world.store, [Settlement(task.lease, Complete())])
        return await gate(task)

    async with dispatching(handler) as world:
        world.insert(new_task(1))
        await world.until(lambda: world.started)
        with anyio.fail_after(5):
            while not gate.inside:
                await anyio.lowlevel.checkpoint()
        world.heartbeat.beat()
        await anyio.wait_all_tasks_blocked()
        assert gate.inside == 1
        gate.open.set()
        await world.until(lambda: world.settled)
        assert world.settled == [(1, Complete(), True)]
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


# Settle.


async def test_others_begin_while_results_are_being_stored_but_not_without_end() -> None:
    stored = anyio.Event()

    async def hang(name: str) -> None:
        if name == "settle":
            await stored.wait()

    async with dispatching(succeed, *[new_task(number) for number in range(1, 10)], concurrency=2) as world:
        world.store.before = hang
        await world.until(lambda: len(world.started) == 4)
        await anyio.wait_all_tasks_blocked()
        assert len(world.started) == 4
        assert world.settled == []
        assert world.dispatcher.running_count == 0
        stored.set()
        await world.until(lambda: len(world.settled) == 9)


async def test_results_gather_while_one_settle_is_on_its_way() -> None:
    first_is_on_its_way, go_on = anyio.Event(), anyio.Event()
    gate = Gate()

    async def handler(task: LeasedTask) -> Outcome:
        return await gate(task) if task.id > 1 else Succeeded(200)

    async def hold(call: str) -> None:
        if call == "settle":
            first_is_on_its_way.set()
            await go_on.wait()

    async with dispatching(handler) as world:
        world.store.before = hold
        world.insert(*[new_task(number) for number in range(1, 6)])
        await first_is_on_its_way.wait()
        gate.open.set()
        await anyio.wait_all_tasks_blocked()
        go_on.set()
        await world.until(lambda: len(world.settled) == 5)
        assert [len(batch) for batch in world.store.settled] == [1, 4]


async def test_a_settle_that_raises_before_its_effect_is_tried_again() -> None:
    async with dispatching() as world:
        world.store.before = once("settle", ConnectionError("away"))
        world.insert(new_task(1))
        await world.until(lambda: world.settled)
        assert world.settled == [(1, Complete(), True)]
        assert await world.store.list_tasks() == []


async def test_a_settle_that_raises_after_its_effect_is_not_reported_as_a_lost_lease() -> None:
    async with dispatching() as world:
        world.store.after = once("settle", ConnectionError("away"))
        world.insert(new_task(1))
        await world.until(lambda: world.settled)
        assert world.settled == [(1, Complete(), None)]
        assert len(world.store.settled) == 2


async def test_a_lease_that_the_settle_itself_ended_is_not_reported_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    error = [ConnectionError("no answer came")]

    async def beat_before_the_answer(call: str) -> None:
        if call == "settle":
            world.heartbeat.beat()
            if error:
                raise error.pop()

    async with dispatching() as world:
        world.store.after = beat_before_the_answer
        world.insert(new_task(1))
        await world.until(lambda: world.settled)
        assert world.settled == [(1, Complete(), None)]
    assert "lost the lease" not in caplog.text


async def test_a_handler_that_completes_is_not_cut_when_the_database_goes_away() -> None:
    gate, env = Gate(Succeeded(200, completed=True)), SteppedEnv()

    def away(leases: Sequence[Lease], lease_us: int) -> frozenset[int]:
        raise ConnectionError("away")

    async with dispatching(gate, new_task(1), env=env) as world:
        await world.until(lambda: gate.inside)
        world.deliveries[0].completing = True
        world.store.renew = away  # type: ignore[method-assign]  # the database goes away
        env.advance(20)
        world.heartbeat.beat()
        await anyio.wait_all_tasks_blocked()
        assert gate.inside == 1
        gate.open.set()


async def test_a_result_whose_fence_is_old_is_refused_and_reported() -> None:
    async def handler(task: LeasedTask) -> Outcome:
        await MemoryStore.settle(world.store, [Settlement(task.lease, TAKEN_BACK)])
        return Succeeded(200)

    async with dispatching(handler) as world:
        world.insert(new_task(1))
        await world.until(lambda: world.settled)
        assert world.settled == [(1, Complete(), False)]
        (info,) = await world.store.list_tasks()
        assert info.last_error == "taken back"


@pytest.mark.slow
async def test_a_result_that_cannot_be_stored_does_not_hold_up_the_others() -> None:
    async def refuse_the_first(call: str) -> None:
        if call == "settle" and any(one.lease.task_id == 1 for one in world.store.settled[-1]):
            raise ValueError("cannot be stored")

    async with dispatching() as world:
        world.store.before = refuse_the_first
        world.insert(*[new_task(number) for number in range(1, 5)])
        await world.until(lambda: len(world.settled) == 3)
        assert {task_id for task_id, _, _ in world.settled} == {2, 3, 4}
        world.store.before = once("", ValueError())
        await world.until(lambda: len(world.settled) == 4)


# Slow down.


async def test_a_queue_that_answers_503_is_left_out_of_claims_and_the_others_are_not() -> None:
    async def handler(task: LeasedTask) -> Outcome:
        return Failed(503, "busy") if task.queue_name == "slow" else Succeeded(200)

    async with dispatching(handler) as world:
        world.insert(new_task(1, queue_name="slow"))
        await world.until(lambda: world.settled)
        world.insert(new_task(2, queue_name="slow"), new_task(3))
        await world.until(lambda: 3 in world.started)
        assert world.store.claims[-1].exclude == {"slow"}
        await world.until(lambda: 2 in world.started)


def test_the_slowdown_doubles_to_thirty_seconds_and_ends_with_a_success() -> None:
    env = SteppedEnv()
    slowdown = Slowdown(env)
    busy = Failed(503, "busy")
    waits = []
    for _ in range(11):
        slowdown.note("q", busy)
        slowdown.note("q", busy)  # side by side: once
        waits.append(round(slowdown.remaining(), 3))
        assert slowdown.excluded() == {"q"}
        env.advance(slowdown.remaining() + 1e-6)
        assert slowdown.excluded() == frozenset()
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]
    assert slowdown.remaining() == float("inf")
    slowdown.note("q", Succeeded(200))
    slowdown.note("q", Failed(500, "x"))
    assert slowdown.excluded() == frozenset()
    slowdown.note("q", busy)
    assert round(slowdown.remaining(), 3) == 0.1


# Shut down.


async def leased_now(world: Dispatching) -> int:
    return len(await world.store.expired(100, ["me"]))


async def test_stop_lets_running_tasks_end() -> None:
    gate = Gate()
    async with dispatching(gate, new_task(1), new_task(2), concurrency=1) as world:
        await world.until(lambda: gate.inside)
        async with anyio.create_task_group() as stopping:
            stopping.start_soon(world.dispatcher.stop)
            await anyio.wait_all_tasks_blocked()
            assert gate.inside == 1
            gate.open.set()
        assert world.settled == [(1, Complete(), True)]
        assert world.started == [1]
        assert await leased_now(world) == 0


async def test_stop_cuts_short_what_takes_longer_and_refunds_the_attempt() -> None:
    gate = Gate()
    async with dispatching(gate, new_task(1), drain_seconds=0.02) as world:
        await world.until(lambda: gate.inside)
        await world.dispatcher.stop()
        assert gate.cancelled_count == 1
        assert world.settled == [(1, Release(), True)]
        (info,) = await world.store.list_tasks()
        assert (info.state, info.attempt_count) == (State.PENDING, 0)


@pytest.mark.parametrize("by", ["stop", "cancel"])
async def test_the_database_has_little_time_at_the_end_and_none_after_it(by: str) -> None:
    world = Dispatching(Gate(), Config(drain_seconds=0.02, overrun_seconds=0.02), Env())
    world.store.insert([new_task(1)])
    async with anyio.create_task_group() as calls, anyio.create_task_group() as loops:
        world.calls = calls
        loops.start_soon(world.dispatcher.run)
        await world.until(lambda: world.started)
        assert world.hurried == []
        if by == "stop":
            await world.dispatcher.stop()
        loops.cancel_scope.cancel()
    assert world.hurried == [5.0, 0]


async def test_stop_counts_the_drain_time_from_its_beginning() -> None:
    gate, on_its_way, go_on = Gate(), anyio.Event(), anyio.Event()
    env = SteppedEnv()

    async def hold(call: str) -> None:
        if call == "claim":
            on_its_way.set()
            await go_on.wait()

    async with dispatching(gate, new_task(1), env=env, drain_seconds=3) as world:
        await world.until(lambda: gate.inside)
        world.store.after = hold
        world.dispatcher.wake.notify()
        await on_its_way.wait()
        async with anyio.create_task_group() as stopping:
            stopping.start_soon(world.dispatcher.stop)
            await anyio.wait_all_tasks_blocked()
            env.advance(3)
            began = anyio.current_time()
            go_on.set()
        assert gate.cancelled_count == 1
        assert anyio.current_time() - began < 2


async def test_stop_gives_back_what_a_claim_on_its_way_brings() -> None:
    on_its_way, go_on = anyio.Event(), anyio.Event()

    async def hold(call: str) -> None:
        if call == "claim":
            on_its_way.set()
            await go_on.wait()

    async with dispatching() as world:
        world.store.after = hold
        world.insert(new_task(1))
        await on_its_way.wait()
        async with anyio.create_task_group() as stopping:
            stopping.start_soon(world.dispatcher.stop)
            await anyio.wait_all_tasks_blocked()
            go_on.set()
        assert (world.started, world.settled) == ([], [(1, Release(), True)])
        assert await leased_now(world) == 0


async def test_stop_before_run_and_twice_and_together_does_no_harm() -> None:
    async with dispatching(succeed, new_task(1)) as world:
        await world.dispatcher.stop()
        assert world.started == []
    async with dispatching(succeed, new_task(1)) as world:
        await world.until(lambda: world.settled)
        async with anyio.create_task_group() as stopping:
            for _ in range(3):
                stopping.start_soon(world.dispatcher.stop)
        await world.dispatcher.stop()


async def test_stop_does_not_wait_for_a_database_that_is_away() -> None:
    async def away(call: str) -> None:
        raise ConnectionError("away")

    async with dispatching() as world:
        world.store.before = away
        world.insert(new_task(1))
        await world.until(lambda: len(world.failures) >= 2)
        with anyio.fail_after(1):
            await world.dispatcher.stop()


async def test_stop_does_not_wait_for_a_question_that_hangs() -> None:
    asking = anyio.Event()

    async def hang(call: str) -> None:
        if call == "next_due":
            asking.set()
            await anyio.sleep_forever()

    async with dispatching(poll_seconds=0.01) as world:
        world.store.before = hang
        await asking.wait()
        with anyio.fail_after(1):
            await world.dispatcher.stop()


@pytest.mark.slow
async def test_the_heartbeat_beats_until_the_last_task_has_ended() -> None:
    gate = Gate()
    async with dispatching(gate, new_task(1), lease_seconds=0.2) as world:
        await world.until(lambda: gate.inside)
        async with anyio.create_task_group() as stopping:
            stopping.start_soon(world.dispatcher.stop)
            with anyio.move_on_after(0.5):
                await anyio.sleep_forever()
            assert await world.store.expired(10) == []
            gate.open.set()
        assert world.settled == [(1, Complete(), True)]


async def test_cancelling_run_gives_running_tasks_back() -> None:
    gate = Gate()
    async with dispatching() as world:
        await world.dispatcher.stop()
    other = Dispatching(gate, world.dispatcher._config, Env())
    other.store.insert([new_task(1)])
    async with anyio.create_task_group() as calls, anyio.create_task_group() as loops:
        other.calls = calls
        loops.start_soon(other.dispatcher.run)
        await other.until(lambda: gate.inside)
        loops.cancel_scope.cancel()
    assert other.settled == [(1, Release(), True)]
    assert await leased_now(other) == 0


async def test_an_interrupted_outcome_of_the_delivery_refunds_the_attempt() -> None:
    async with dispatching(in_turn(Interrupted(), Succeeded(200)), new_task(1)) as world:
        await world.until(lambda: world.settled)
        assert world.settled == [(1, Release(), True)]
