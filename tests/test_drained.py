"""What a process that is to end by itself asks its dispatcher, and what an impatient one tells it."""

import anyio
import pytest

from hookware import dispatcher
from hookware.core.lifecycle import Complete, Failed, Release, Retry, State
from hookware.store.base import Claim
from tests.dispatching import Dispatching, Gate, dispatching, succeed
from tests.samples import new_task

HOUR_US = 3_600_000_000


async def until_drained(world: Dispatching) -> None:
    with anyio.fail_after(10):
        while not await world.dispatcher.is_drained():
            await anyio.wait_all_tasks_blocked()


async def test_it_is_drained_when_everything_due_has_run() -> None:
    gate = Gate()
    async with dispatching(gate, new_task(1)) as world:
        await world.until(lambda: gate.inside)
        assert not await world.dispatcher.is_drained()
        gate.open.set()
        await until_drained(world)
        assert world.settled == [(1, Complete(), True)]


async def test_a_task_that_is_due_and_has_no_slot_yet_holds_it() -> None:
    gate = Gate()
    async with dispatching(gate, new_task(1), new_task(2), concurrency=1) as world:
        gate.open.set()
        await until_drained(world)
        assert len(world.settled) == 2


async def test_tasks_that_wait_for_their_time_do_not_hold_it() -> None:
    async def fail(_task: object) -> Failed:
        return Failed(500, "no")

    async with dispatching(fail, new_task(1), new_task(2, countdown_us=HOUR_US)) as world:
        await world.until(lambda: world.settled)
        (_, decision, _) = world.settled[0]
        assert isinstance(decision, Retry)
        await until_drained(world)
        assert [task.state for task in await world.store.list_tasks()] == [State.PENDING] * 2


async def test_tasks_that_others_run_do_not_hold_it() -> None:
    async with dispatching() as world:
        await until_drained(world)
        world.store.insert([new_task(1)])
        assert not await world.dispatcher.is_drained()  # due, and not claimed by anybody
        await world.store.claim(Claim(owner="another", limit=1, lease_us=HOUR_US))
        assert await world.dispatcher.is_drained()


async def test_a_claim_on_its_way_holds_it() -> None:
    on_its_way, go_on = anyio.Event(), anyio.Event()

    async def hold(call: str) -> None:
        if call == "claim":
            on_its_way.set()
            await go_on.wait()

    async with dispatching() as world:
        await until_drained(world)
        world.store.after = hold
        world.insert(new_task(1))
        await on_its_way.wait()
        assert await world.store.next_due() is None  # leased, and the dispatcher does not know it yet
        assert not await world.dispatcher.is_drained()
        go_on.set()
        await until_drained(world)
        assert world.started == [1]


async def test_what_runs_while_it_is_asked_counts() -> None:
    answers: list[bool] = []

    async def run_one(call: str) -> None:
        if call == "next_due" and not world.settled:
            world.insert(new_task(1))
            await world.until(lambda: world.settled)

    async def ask() -> None:
        answers.append(await world.dispatcher.is_drained())

    async with dispatching(succeed) as world:
        await until_drained(world)
        world.store.before = run_one
        await ask()
    assert answers == [False]


async def test_an_impatient_end_cuts_short_what_runs_and_gives_it_back() -> None:
    gate = Gate()
    async with dispatching(gate, new_task(1), drain_seconds=3600) as world:
        await world.until(lambda: gate.inside)
        async with anyio.create_task_group() as stopping:
            stopping.start_soon(world.dispatcher.stop)
            await anyio.wait_all_tasks_blocked()
            assert gate.cancelled_count == 0
            world.dispatcher.cut_short()
        assert gate.cancelled_count == 1
        assert world.settled == [(1, Release(), True)]


async def test_an_impatient_end_before_the_patient_one_is_as_good() -> None:
    gate = Gate()
    async with dispatching(gate, new_task(1), drain_seconds=3600) as world:
        world.dispatcher.cut_short()
        await world.dispatcher.stop()
    async with dispatching(gate, new_task(1), drain_seconds=3600) as world:
        await world.until(lambda: gate.inside)
        world.dispatcher.cut_short()
        await world.dispatcher.stop()
        assert world.settled == [(1, Release(), True)]


async def test_impatience_does_not_cut_short_the_giving_back() -> None:
    gate, settling, go_on = Gate(), anyio.Event(), anyio.Event()

    async def hold(call: str) -> None:
        if call == "settle":
            settling.set()
            await go_on.wait()

    async with dispatching(gate, new_task(1), drain_seconds=3600) as world:
        await world.until(lambda: gate.inside)
        world.store.before = hold
        async with anyio.create_task_group() as stopping:
            stopping.start_soon(world.dispatcher.stop)
            await anyio.wait_all_tasks_blocked()
            world.dispatcher.cut_short()
            await settling.wait()
            world.dispatcher.cut_short()
            await anyio.wait_all_tasks_blocked()
            go_on.set()
        assert world.settled == [(1, Release(), True)]


async def test_impatience_does_not_wait_for_a_database_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "_WRITE_SECONDS", 0.05)
    gate = Gate()

    async def hang(call: str) -> None:
        if call == "settle":
            await anyio.sleep_forever()

    async with dispatching(gate, new_task(1), drain_seconds=3600) as world:
        await world.until(lambda: gate.inside)
        world.store.before = hang
        with anyio.fail_after(10):
            async with anyio.create_task_group() as stopping:
                stopping.start_soon(world.dispatcher.stop)
                await anyio.wait_all_tasks_blocked()
                world.dispatcher.cut_short()
        assert world.settled == []
