"""One process of a simulated world: the one place where the program under test is put together."""

import asyncio
from collections.abc import Callable
from functools import partial

import anyio
from starlette.types import Receive, Scope, Send

from hookware.delivery import SCOPE_KEY, Target, begin
from hookware.dispatcher import Dispatcher
from hookware.env import Env, Ticker
from hookware.events import Events
from hookware.handoff import HandOff
from hookware.heartbeat import Heartbeat
from hookware.reaper import Reaper
from verification.simulation.handlers import Call
from verification.simulation.loop import SimLoop
from verification.simulation.world import HEARTBEAT, World


class SimTicker:
    """A step repeated by a task on a node of its own: its thread."""

    def __init__(self, loop: SimLoop, node: str, seconds: float, step: Callable[[], None]) -> None:
        self._task = loop.on_node(node, self._repeat(seconds, step))

    def stop(self) -> None:
        self._task.cancel()

    async def _repeat(self, seconds: float, step: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            step()


class SimEnv(Env):
    """One node's door to the world: its own clock, which may be wrong; the seed's randomness; failpoints."""

    def __init__(self, world: World, node: str) -> None:
        self._world = world
        self._node = node
        skew = world.faults.skew_seconds
        self._off_us = int(world.random.uniform(-skew, skew) * 1e6) if skew else 0
        self._token_count = 0
        self.next_id = 0

    def now_us(self) -> int:
        return self._world.now_us() + self._off_us

    def monotonic(self) -> float:
        return self._world.loop.time()

    def random(self) -> float:
        return self._world.random.random()

    def new_id(self) -> int:
        return self.next_id

    def new_token(self) -> str:
        self._token_count += 1
        return f"{self._node}:{self._token_count}"

    def fp(self, name: str) -> None:
        self._world.pass_failpoint(self._node, name)

    def every(self, seconds: float, step: Callable[[], None], *, name: str) -> Ticker:
        return SimTicker(self._world.loop, self._node + HEARTBEAT, seconds, step)

    def step(self, seconds: float) -> None:
        """Set this node's clock."""
        self._off_us += int(seconds * 1e6)


class Node:
    """One process: from its start to its kill or its stop.

    Attributes:
        name: its host's name, a dot, and a number that no other process has.
        env: its door to the world.
        events: what happens in it.
        hand_off: where what it commits goes that is leased to it already; None: it runs nothing.
        ended: it was stopped in good order, and nothing of it runs any more.
    """

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.env = SimEnv(world, name)
        self.events = Events()
        self.hand_off: HandOff | None = None
        self._wake: Callable[[], None] = lambda: None
        self.ended = False
        self._world = world
        self._stop = asyncio.Event()
        self.task = world.loop.on_node(name, self._main())

    def hint(self) -> None:
        """Tell its dispatcher, perhaps, that tasks may be due."""
        if self._world.random.random() >= self._world.lost_wakeup:
            self._wake()

    def stop(self) -> None:
        """Ask it to shut down."""
        self._stop.set()

    async def _main(self) -> None:
        world = self._world
        store = world.database.store_of(self)
        async with anyio.create_task_group() as calls:
            target = Target(self._enter_app, {}, calls)
            heartbeat = Heartbeat(store, self.env, world.config)
            dispatcher = Dispatcher(
                store=store,
                deliver=partial(begin, target, env=self.env, config=world.config),
                heartbeat=heartbeat,
                env=self.env,
                config=world.config,
                events=self.events,
                owner=self.name,
                hurry=partial(world.database.hurry, self),
            )
            reaper = Reaper(
                store, self.env, world.config, self.events, dispatcher.wake,
                is_held=heartbeat.holds, is_dead=partial(world.sees_dead, self.name),
            )  # fmt: skip
            self._wake, self.hand_off = dispatcher.wake.notify, dispatcher.hand_off
            await self._run(dispatcher, reaper)
            calls.cancel_scope.cancel()
        self.ended = True
        world.database.lose(self.name)

    async def _run(self, dispatcher: Dispatcher, reaper: Reaper) -> None:
        async with anyio.create_task_group() as loops:
            loops.start_soon(dispatcher.run)
            loops.start_soon(reaper.run)
            await self._stop.wait()
            self.hand_off = None
            self._world.note("stop", calm=self._world.faults.calm)
            async with anyio.create_task_group() as stopping:
                stopping.start_soon(reaper.stop)
                await dispatcher.stop()
        self._world.note("stopped")

    async def _enter_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(self._world)
        await call.watch(self._world.database.serve(self, call.app, scope[SCOPE_KEY], scope, receive, send))
