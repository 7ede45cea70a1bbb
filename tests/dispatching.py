"""A dispatcher over a store in memory, for tests: what happens in it can be waited for, and made to fail."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from hookware.alarms import Alarms
from hookware.attempt import Calling
from hookware.config import Config
from hookware.core.lifecycle import Decision, Failed, Outcome, Succeeded
from hookware.core.task import LeasedTask, NewTask
from hookware.delivery import Delivery
from hookware.dispatcher import Dispatcher
from hookware.env import Env
from hookware.events import AttemptSettled, AttemptStarted, Event, Events, LoopFailed
from hookware.heartbeat import Heartbeat
from hookware.store.base import Claim, Claimed, Settlement
from hookware.store.memory import MemoryStore
from tests.calling import FunctionCall

Handler = Callable[[LeasedTask], Awaitable[Outcome]]
NEVER_POLL = 3600.0


class WatchedStore(MemoryStore):
    """Counts what it is asked, and raises or waits where a test says so."""

    def __init__(self, env: Env) -> None:
        super().__init__(env.now_us, tombstone_us=0)
        self.asked: list[str] = []
        self.claims: list[Claim] = []
        self.settled: list[Sequence[Settlement]] = []
        self.before: Callable[[str], Awaitable[None]] = nothing
        self.after: Callable[[str], Awaitable[None]] = nothing

    async def claim(self, claim: Claim) -> Claimed:
        self.asked.append("claim")
        self.claims.append(claim)
        await self.before("claim")
        claimed = await super().claim(claim)
        await self.after("claim")
        return claimed

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        self.asked.append("settle")
        self.settled.append(settlements)
        await self.before("settle")
        accepted = await super().settle(settlements)
        await self.after("settle")
        return accepted

    async def next_due(self, exclude: frozenset[str] = frozenset()) -> int | None:
        self.asked.append("next_due")
        await self.before("next_due")
        return await super().next_due(exclude)


async def nothing(_call: str) -> None:
    """Let a call through."""


async def succeed(_task: LeasedTask) -> Outcome:
    """Be a handler that answers 200."""
    return Succeeded(200)


class Gate:
    """A handler that lets a test see who is inside, and let them out."""

    def __init__(self, outcome: Outcome | None = None) -> None:
        self.outcome = outcome or Succeeded(200)
        self.inside = 0
        self.most_inside = 0
        self.cancelled_count = 0
        self.open = anyio.Event()

    async def __call__(self, _task: LeasedTask) -> Outcome:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await self.open.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled_count += 1
            raise
        finally:
            self.inside -= 1
        return self.outcome


class Dispatching:
    """A dispatcher, what it works on, and what has happened."""

    def __init__(self, handler: Handler, config: Config, env: Env) -> None:
        self.env = env
        self.store = WatchedStore(env)
        self.events = Events()
        self.seen: list[Event] = []
        self.deliveries: list[Delivery] = []
        self.hurried: list[float] = []
        self.left_over_count = 0
        self.calls: TaskGroup | None = None
        self.deliver_error: BaseException | None = None
        self._handler = handler
        self.heartbeat = Heartbeat(self.store, env, config)
        self.dispatcher = Dispatcher(
            store=self.store,
            deliver=self._deliver,
            heartbeat=self.heartbeat,
            env=env,
            config=config,
            events=self.events,
            owner="me",
            hurry=self.hurried.append,
            on_left_over=self._leave_over,
        )
        self._changed = anyio.Event()
        self.events.subscribe(self._see)

    def _deliver(self, delivery: Delivery, _alarms: Alarms, on_ended: Callable[[Calling], None]) -> Calling | Failed:
        self.deliveries.append(delivery)
        if self.deliver_error is not None:
            raise self.deliver_error
        assert self.calls is not None
        return FunctionCall(lambda: self._handler(delivery.task), on_ended).begin(self.calls)

    def _leave_over(self) -> None:
        self.left_over_count += 1
        self.changed()

    def _see(self, event: Event) -> None:
        self.seen.append(event)
        self.changed()

    def changed(self) -> None:
        """Let those who wait look again."""
        self._changed.set()
        self._changed = anyio.Event()

    def insert(self, *tasks: NewTask) -> None:
        """Commit tasks, and tell the dispatcher."""
        self.store.insert(tasks)
        self.dispatcher.wake.notify()

    @property
    def started(self) -> list[int]:
        return [event.task.id for event in self.seen if isinstance(event, AttemptStarted)]

    @property
    def settled(self) -> list[tuple[int, Decision, bool | None]]:
        return [(e.task.id, e.decision, e.accepted) for e in self.seen if isinstance(e, AttemptSettled)]

    @property
    def failures(self) -> list[BaseException]:
        return [event.error for event in self.seen if isinstance(event, LoopFailed)]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something happened that makes `condition` true."""
        with anyio.fail_after(5):
            while not condition():
                with anyio.move_on_after(0.01):  # nothing tells that a handler is inside
                    await self._changed.wait()


@asynccontextmanager
async def dispatching(
    handler: Handler = succeed,
    *tasks: NewTask,
    env: Env | None = None,
    poll_seconds: float = NEVER_POLL,
    concurrency: int = 10,
    lease_seconds: float = 30.0,
    drain_seconds: float = 5.0,
) -> AsyncIterator[Dispatching]:
    """Run a dispatcher on `tasks`; it is stopped at the end."""
    config = Config(
        poll_seconds=poll_seconds,
        concurrency=concurrency,
        lease_seconds=lease_seconds,
        drain_seconds=drain_seconds,
        overrun_seconds=0.05,
    )
    world = Dispatching(handler, config, env or Env())
    world.store.insert(tasks)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as loops:
            world.calls = loops
            loops.start_soon(world.dispatcher.run)
            try:
                yield world
            finally:
                await world.dispatcher.stop()
