"""The dispatcher beside users, in virtual time: its claims shrink and recover, and tasks never starve."""

from collections.abc import Callable, Coroutine
from random import Random

import anyio
import pytest
from anyio.abc import TaskGroup
from starlette.types import Message

from hookware.alarms import Alarms
from hookware.attempt import Calling
from hookware.config import Config
from hookware.core.lifecycle import Failed, Outcome, Succeeded
from hookware.delivery import Delivery
from hookware.dispatcher import Dispatcher
from hookware.env import Env, Ticker
from hookware.events import Events
from hookware.foreground import FRESH_SECONDS, PRESENCE_SECONDS, Foreground
from hookware.heartbeat import Heartbeat
from hookware.store.base import Claim, Claimed
from hookware.store.memory import MemoryStore
from tests.calling import FunctionCall
from tests.samples import new_task
from verification.simulation.loop import SimLoop, context_of

APP = "app"
SLOTS = 8


class Still:
    """A heart that does not beat: leases are long here."""

    def stop(self) -> None:
        """Have nothing to stop."""


class VirtualEnv(Env):
    """The time of a simulated loop."""

    def __init__(self, loop: SimLoop) -> None:
        super().__init__()
        self._loop = loop
        self._chance = Random(1)

    def now_us(self) -> int:
        return 1_700_000_000_000_000 + int(self._loop.time() * 1e6)

    def monotonic(self) -> float:
        return self._loop.time()

    def random(self) -> float:
        return self._chance.random()

    def every(self, seconds: float, step: Callable[[], None], *, name: str) -> Ticker:
        return Still()


class CountingStore(MemoryStore):
    """Remembers how many tasks each claim asked for, and when."""

    def __init__(self, env: Env) -> None:
        super().__init__(env.now_us, tombstone_us=0)
        self.asked: list[tuple[float, int]] = []
        self._env = env

    async def claim(self, claim: Claim) -> Claimed:
        self.asked.append((self._env.monotonic(), claim.limit))
        return await super().claim(claim)


class Process:
    """A dispatcher, its event loop, and its users."""

    def __init__(self, loop: SimLoop, *, foreground_first: bool = True) -> None:
        self.loop, self.env = loop, VirtualEnv(loop)
        config = Config(
            concurrency=SLOTS, foreground_first=foreground_first, lease_seconds=3600, poll_seconds=60, drain_seconds=0
        )
        self.store = CountingStore(self.env)
        self.foreground = Foreground(self.env, config)
        self.work: Callable[[], Coroutine[object, object, None]] = self.do_nothing
        self.begun: list[float] = []
        self.calls: TaskGroup | None = None
        self.running = 0
        self.most_running = 0
        self._count = 0
        self.dispatcher = Dispatcher(
            store=self.store,
            deliver=self._deliver,
            heartbeat=Heartbeat(self.store, self.env, config, None),
            env=self.env,
            config=config,
            events=Events(),
            owner="me",
            foreground=self.foreground,
        )

    def _deliver(self, _delivery: Delivery, _alarms: Alarms, on_ended: Callable[[Calling], None]) -> Calling | Failed:
        assert self.calls is not None
        return FunctionCall(self._run, on_ended).begin(self.calls)

    async def _run(self) -> Outcome:
        self.begun.append(self.loop.time())
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await self.work()
        self.running -= 1
        return Succeeded(200)

    def add(self, count: int = 1) -> None:
        """Commit tasks."""
        self.store.insert([new_task(self._count + number) for number in range(1, count + 1)])
        self._count += count
        self.dispatcher.wake.notify()

    async def ask(self, seconds: float) -> None:
        """Be a user whose request takes so long."""
        with self.foreground.request(ignore) as send:
            await anyio.sleep(seconds)
            await send({"type": "http.response.start", "status": 200})

    async def ask_again_and_again(self, for_seconds: float, *, every: float, seconds: float = 0.001) -> None:
        """Be many users."""
        until = self.loop.time() + for_seconds
        async with anyio.create_task_group() as group:
            while self.loop.time() < until:
                group.start_soon(self.ask, seconds)
                await anyio.sleep(every)

    # What tasks do.

    async def do_nothing(self) -> None:
        """Be done at once."""

    async def compute(self) -> None:
        """Keep the event loop from everything else for most of a second."""
        for _ in range(12):
            self.loop.freeze(APP)
            self.loop.after(0.06, self.loop.thaw, APP)
            await anyio.lowlevel.checkpoint()
            await anyio.sleep(0.001)

    async def wait(self) -> None:
        """Wait for another server."""
        await anyio.sleep(1.0)

    async def wait_for_long(self) -> None:
        """Wait for a slow one."""
        await anyio.sleep(60.0)


async def ignore(_message: Message) -> None:
    """Be a server's send."""


Story = Callable[[Process], Coroutine[object, object, None]]


def play(story: Story, *, foreground_first: bool = True, seed: int = 1) -> Process:
    """Run a story beside a dispatcher, and stop it."""
    loop = SimLoop(seed)

    async def main() -> Process:
        process = Process(loop, foreground_first=foreground_first)
        async with anyio.create_task_group() as loops:
            process.calls = loops
            loops.start_soon(process.dispatcher.run)
            loops.start_soon(process.foreground.probe)
            await anyio.sleep(1)
            await story(process)
            await process.dispatcher.stop()
            loops.cancel_scope.cancel()
        return process

    try:
        return loop.run_until_complete(loop.create_task(main(), context=context_of(APP)))
    finally:
        loop.close()


# No user, or none that has just asked.


def test_without_users_all_slots_are_filled_by_one_claim_and_at_once() -> None:
    begun_at = 0.0

    async def story(process: Process) -> None:
        nonlocal begun_at
        process.work, begun_at = process.wait, process.loop.time()
        process.add(SLOTS)
        await anyio.sleep(0.5)

    process = play(story)
    assert process.store.asked[-1][1] == SLOTS
    assert len(process.begun) == SLOTS
    assert process.begun[-1] - begun_at < 0.01


def test_those_of_one_claim_begin_one_after_another_if_a_user_came_while_it_was_under_way() -> None:
    async def story(process: Process) -> None:
        async def claim(claim: Claim) -> Claimed:
            claimed = await CountingStore.claim(process.store, claim)
            if claimed.tasks:
                await process.ask(0.001)
            return claimed

        process.store.claim = claim  # type: ignore[method-assign]  # for this one process
        process.work = process.wait
        process.add(4)
        await anyio.sleep(0.5)

    process = play(story)
    assert process.store.asked[-1][1] == SLOTS
    first, *others = process.begun
    assert len(others) == 3
    assert all(later - earlier > FRESH_SECONDS * 0.9 for earlier, later in zip([first, *others], others, strict=False))


def test_the_first_task_after_an_answered_request_begins_at_once() -> None:
    added_at = 0.0

    async def story(process: Process) -> None:
        nonlocal added_at
        await process.ask(0.02)
        added_at = process.loop.time()
        process.add()
        await anyio.sleep(0.5)

    (begun_at,) = play(story).begun
    assert begun_at - added_at < 0.002


# Users.


def test_a_task_waits_for_the_answer_and_then_no_longer() -> None:
    added_at = 0.0

    async def story(process: Process) -> None:
        nonlocal added_at
        added_at = process.loop.time()
        async with anyio.create_task_group() as group:
            group.start_soon(process.ask, 0.03)
            await anyio.sleep(0.01)
            process.add()
        await anyio.sleep(0.5)

    (begun_at,) = play(story).begun
    assert 0.03 <= begun_at - added_at < 0.032


def test_tasks_begin_one_after_another_while_users_are_there() -> None:
    async def story(process: Process) -> None:
        process.work = process.wait
        await process.ask(0.001)
        process.add(5)
        await anyio.sleep(0.5)

    process = play(story)
    pauses = [later - earlier for earlier, later in zip(process.begun, process.begun[1:], strict=False)]
    assert len(pauses) == 4
    steps = 0.0005  # of the loop, between the begin and the handler, which notes it
    assert all(FRESH_SECONDS - steps <= pause < FRESH_SECONDS + 0.005 for pause in pauses), pauses
    assert {asked for at, asked in process.store.asked if at >= 1} == {1}


def test_switched_off_tasks_begin_together_whoever_waits() -> None:
    async def story(process: Process) -> None:
        process.work = process.wait
        async with anyio.create_task_group() as group:
            group.start_soon(process.ask, 0.5)
            await anyio.sleep(0.1)
            process.add(5)

    process = play(story, foreground_first=False)
    assert len(process.begun) == 5
    assert process.begun[-1] - process.begun[0] < 0.005


# Lag.


@pytest.mark.slow
def test_claims_shrink_while_the_loop_is_late_and_recover() -> None:
    seen: dict[str, int] = {}

    async def story(process: Process) -> None:
        async def look(phase: str, users_for: float) -> None:
            async with anyio.create_task_group() as group:
                if users_for:
                    group.start_soon(lambda: process.ask_again_and_again(users_for, every=0.05))
                await anyio.sleep(max(8.0, users_for - 2))
                process.most_running = process.running
                await anyio.sleep(2)
                seen[phase] = process.most_running

        process.add(400)
        process.work = process.wait
        await look("tasks that wait", 10)
        process.work = process.compute
        await look("tasks that compute", 20)
        process.work = process.wait
        await look("tasks that wait again", 20)
        process.work = process.compute
        await look("tasks that compute again", 20)
        await look("no users any more", 0)

    play(story)
    assert seen == {
        "tasks that wait": SLOTS,
        "tasks that compute": 1,
        "tasks that wait again": SLOTS,
        "tasks that compute again": 1,
        "no users any more": SLOTS,
    }


# Starvation.


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, SLOTS])
def test_under_requests_without_end_at_least_eight_short_tasks_begin_every_second(limit: int) -> None:
    async def story(process: Process) -> None:
        process.foreground._rule.limit = limit
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: process.ask_again_and_again(11, every=0.02, seconds=0.9))  # some 45 wait
            await anyio.sleep(0.5)
            process.add(300)

    process = play(story)
    seconds = [int(at - process.begun[0]) for at in process.begun]
    assert min(seconds.count(second) for second in range(9)) >= 8


def test_a_slot_that_a_long_task_holds_does_not_keep_the_others_from_theirs() -> None:
    async def story(process: Process) -> None:
        process.foreground._rule.limit = 1
        await process.ask(0.001)
        process.work = process.wait_for_long
        process.add(3)
        await anyio.sleep(PRESENCE_SECONDS + 1)

    process = play(story)
    assert len(process.begun) == 3
    assert process.begun[1] - process.begun[0] > 0.5


# The same again.


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run() -> None:
    async def story(process: Process) -> None:
        process.work = process.compute
        process.add(30)
        await process.ask_again_and_again(12, every=0.04, seconds=0.02)

    runs = [play(story, seed=seed) for seed in (7, 7, 8)]
    traces = [(run.begun, run.store.asked, run.loop.step_count) for run in runs]
    assert traces[0] == traces[1]
    assert traces[0] != traces[2]
