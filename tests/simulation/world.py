"""A simulated world: nodes that run the real dispatcher, reaper and heartbeat against one store, and their fate."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import anyio

from hookware.config import Config
from hookware.delivery import Target
from hookware.dispatcher import Dispatcher
from hookware.env import Env, Ticker
from hookware.events import Events
from hookware.heartbeat import Heartbeat
from hookware.reaper import Reaper
from hookware.store.memory import MemoryStore
from tests.simulation.faults import NO_FAULTS, Faults, draw
from tests.simulation.handlers import App
from tests.simulation.loop import NODE, WORLD, SimLoop, context_of
from tests.simulation.store import SimStore
from tests.simulation.variants import Variant

EPOCH_US = 1_700_000_000_000_000
CONFIG = Config(concurrency=4, poll_seconds=5.0, drain_seconds=8.0)
HEARTBEAT = ".heartbeat"


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

    def __init__(self, world: "World", node: str, skew_seconds: float) -> None:
        self._world = world
        self._node = node
        self._skew_us = int(skew_seconds * 1e6)

    def now_us(self) -> int:
        return self._world.now_us() + self._skew_us

    def monotonic(self) -> float:
        return self._world.loop.time()

    def random(self) -> float:
        return self._world.random.random()

    def fp(self, name: str) -> None:
        self._world.pass_failpoint(self._node, name)

    def every(self, seconds: float, step: Callable[[], None], *, name: str) -> Ticker:
        thread = self._world.variant.heartbeat_node(self._node, HEARTBEAT)
        return SimTicker(self._world.loop, thread, seconds, step)


class Node:
    """One process: from its start to its kill or its stop."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.skew_seconds = world.random.gauss(0, world.faults.skew_seconds) if world.faults.skew_seconds else 0.0
        self._world = world
        self._stop = asyncio.Event()
        self.dispatcher: Dispatcher | None = None
        self.task = world.loop.on_node(name, self._main())

    def stop(self) -> None:
        """Ask it to shut down."""
        self._stop.set()

    async def _main(self) -> None:
        world, name = self._world, self.name
        env, events = SimEnv(world, name, self.skew_seconds), Events()
        async with anyio.create_task_group() as calls:
            target = Target(App(world), {}, calls)
            deliver = partial(world.variant.deliver, target, env=env, config=CONFIG)
            heartbeat = Heartbeat(world.store, env, CONFIG)
            dispatcher = Dispatcher(
                store=world.store, deliver=deliver, heartbeat=heartbeat,
                env=env, config=CONFIG, events=events, owner=name,
            )  # fmt: skip
            reaper = Reaper(
                world.store, env, CONFIG, events, dispatcher.wake,
                is_held=heartbeat.holds, is_dead=partial(world.sees_dead, name),
            )  # fmt: skip
            self.dispatcher = dispatcher
            async with anyio.create_task_group() as loops:
                loops.start_soon(dispatcher.run)
                loops.start_soon(reaper.run)
                await self._stop.wait()
                world.note("stop", calm=world.faults is NO_FAULTS)
                await reaper.stop()
                await dispatcher.stop()
            world.note("stopped")
            calls.cancel_scope.cancel()


class World:
    """Everything there is in one seed. `history` is what happened in it."""

    def __init__(self, seed: int, variant: Variant) -> None:
        self.random = Random(seed)
        self.loop = SimLoop(self.random.getrandbits(64))
        self.variant = variant
        self.faults: Faults = draw(self.random)
        self.over = False
        self.left: dict[int, int] = {}
        self.history: list[dict[str, Any]] = []
        self.trace = hashlib.blake2b(digest_size=12)
        self.nodes: dict[str, Node] = {}
        self._dead: set[str] = set()
        self._generation = 0
        memory = MemoryStore(partial(variant.database_now_us, self), tombstone_us=0)
        self.store = SimStore(self, memory)
        self.memory = memory

    # What is known.

    def now_us(self) -> int:
        """The database's time."""
        return EPOCH_US + int(self.loop.time() * 1e6)

    def note(self, event: str, *, node: str | None = None, **fields: object) -> None:
        """Write a line into the history."""
        if self.over:
            return
        where = (NODE.get() if node is None else node).removesuffix(HEARTBEAT)
        line = {"ev": event, "t": round(self.loop.time(), 6), "node": where, **fields}
        self.history.append(line)
        self.trace.update(json.dumps(line).encode())

    def disturb(self, node: str, seconds: float) -> None:
        """Note that something keeps a node from its work."""
        self.note("disturbed", node=node, until=round(self.loop.time() + seconds, 6))

    def is_dead(self, node: str) -> bool:
        """Whether the node has been killed."""
        return node.removesuffix(HEARTBEAT) in self._dead

    def sees_dead(self, here: str, owner: str) -> bool:
        """Whether `here` can know that `owner` is dead: only a process of the same host."""
        return owner in self._dead and owner.partition(".")[0] == here.partition(".")[0]

    # What befalls the nodes.

    def begin(self, host: str) -> None:
        """Start a process on a host."""
        self._generation += 1
        name = f"{host}.{self._generation}"
        self.nodes[host] = Node(self, name)

    def kill(self, node: str, why: str) -> None:
        """Kill a process, and start the next one on its host a little later."""
        name = node.removesuffix(HEARTBEAT)
        if self.over or name in self._dead or name == WORLD:
            return
        self.note("killed", node=name, why=why)
        self._dead.add(name)
        self.loop.freeze(name, name + HEARTBEAT)
        self.loop.after(self.random.uniform(0.5, 20), self._begin_again, name)

    def pause(self, node: str, seconds: float) -> None:
        """Freeze a whole process for a while."""
        if node not in self._dead and not self.loop.is_frozen(node):
            self.disturb(node, seconds)
            self.loop.freeze(node, node + HEARTBEAT)
            self.loop.after(seconds, self._thaw, node, node + HEARTBEAT)

    def block(self, node: str, seconds: float) -> None:
        """Freeze only the event loop of a process, as a handler does that does not await."""
        if node not in self._dead and not self.loop.is_frozen(node):
            self.note("blocked", node=node, until=round(self.loop.time() + seconds, 6))
            self.loop.freeze(node)
            self.loop.after(seconds, self._thaw, node)

    def restart(self, host: str) -> None:
        """Shut a process down in good order, and start the next one."""
        node = self.nodes[host]
        if node.name in self._dead or self.loop.is_frozen(node.name):
            return
        node.stop()
        self.begin(host)

    def pass_failpoint(self, node: str, name: str) -> None:
        """Perhaps kill the node here, or raise."""
        if self.over:
            return
        lot = self.random.random()
        if lot < self.faults.failpoint_kill:
            self.kill(node, name)
        elif lot < self.faults.failpoint_kill + self.faults.failpoint_error and not name.startswith(
            "dispatch.shutdown"
        ):
            self.disturb(node, 0)
            raise RuntimeError(f"failpoint {name}")

    def _thaw(self, *nodes: str) -> None:
        if nodes[0] not in self._dead:
            self.loop.thaw(*nodes)

    def _begin_again(self, dead: str) -> None:
        host = dead.partition(".")[0]
        if not self.over and self.nodes[host].name == dead:
            self.loop.call_soon(self.begin, host, context=context_of(WORLD))

    def bury(self) -> None:
        """Let everything that still waits end, so that nothing of this world is left in the next."""
        self.over = True
        self.faults = NO_FAULTS
        self.loop.thaw(*list(self.loop.frozen))
