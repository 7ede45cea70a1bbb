"""One seed from beginning to end: chaos, quiet, an idle system, an orderly shutdown, and the checker."""

import asyncio
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from hookware.config import Config
from verification.checker import Findings, Limits, check
from verification.history import Line
from verification.simulation.faults import NEVER, NO_FAULTS, SLOW, draw
from verification.simulation.handlers import HANDLERS, draw_promise, promise
from verification.simulation.loop import WORLD, context_of
from verification.simulation.memory import MemoryDatabase
from verification.simulation.node import Node
from verification.simulation.sqlite import SQLiteDatabase
from verification.simulation.world import Database, Promise, World

DATABASES: dict[str, Callable[[World], Database]] = {"memory": MemoryDatabase, "sqlite": SQLiteDatabase}
_TASKS_PER_MINUTE = 2
_QUIET_PART = 0.25
_QUIET_SECONDS = 900.0
_IDLE_TASKS = 4
_BURST = 12
_BURST_PER_SLOT = 3
"""More than this on each slot, and tasks wait for their claim because all are busy, not because something is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is simulated: how many nodes, for how many hours of virtual time, on which store."""

    nodes: int = 5
    hours: float = 1.0
    store: str = "memory"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of the hosts."""
        return tuple(f"n{number}" for number in range(self.nodes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one seed gave: `seconds` of virtual time, `steps` of the loop, and a hash of all that happened."""

    seed: int
    seconds: float
    steps: int
    trace: str
    findings: Findings
    faults: Counter[str]
    history: list[Line]


def run(seed: int, plan: Plan = Plan()) -> Result:
    """Run one seed and check it."""
    random = Random(seed)
    faults, config = draw(random, tuple(HANDLERS)), _draw_config(random)
    world = World(random=random, faults=faults, config=config, make_node=Node)
    world.database = DATABASES[plan.store](world)
    loop = world.loop
    with undisturbed():
        try:
            loop.run_until_complete(loop.create_task(_live(world, plan), context=context_of(WORLD)))
            trace, seconds, steps = world.trace, loop.time(), loop.step_count
            bury(world)
        finally:
            world.database.close()
            loop.close()
    return Result(
        seed=seed, seconds=seconds, steps=steps, trace=trace, findings=check(world.history, _limits(config)),
        faults=world.counts, history=world.history,
    )  # fmt: skip


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep out what is not the world's: logs, warnings that somebody turns into errors."""
    quiet_logs = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(quiet_logs)


def _draw_config(random: Random) -> Config:
    return Config(
        concurrency=random.choice((2, 4, 8)),
        lease_seconds=random.choice((30.0, 30.0, 60.0)),
        poll_seconds=random.choice((5.0, 15.0, 30.0)),
        drain_seconds=random.choice((0.0, 8.0, 40.0)),
        tombstone_seconds=120.0,
    )


def _limits(config: Config) -> Limits:
    return Limits(
        lease=config.lease_seconds,
        poll=config.poll_seconds,
        shutdown=config.drain_seconds + config.overrun_seconds + 1,
        begin=config.lease_seconds / 8 + 0.5,
        claim=config.poll_seconds + 90,
        tail=_QUIET_SECONDS,
        tombstone=config.tombstone_seconds,
        crash_limit=config.crash_limit,
        duplicates_have_causes=True,
    )


async def _live(world: World, plan: Plan) -> None:
    hosts, seconds = plan.hosts, plan.hours * 3600
    for host in hosts:
        world.begin(host)
    chaos = seconds - min(_QUIET_SECONDS, seconds * _QUIET_PART)
    blows = [world.loop.create_task(blow) for blow in _blows(world, hosts)]
    count = await _order_until(world, chaos)
    for blow in blows:
        blow.cancel()
    world.faults = NO_FAULTS
    world.note("quiet")
    await _until_finished(world)
    await _be_idle(world, count)
    await _hand_over(world, count + _IDLE_TASKS)
    await asyncio.sleep(max(0.0, seconds - world.loop.time()))
    world.note("left", got=world.database.left())
    await _stop(world)


async def _order_until(world: World, end: float) -> int:
    """Order tasks, one by one and in bursts, until some time; how many."""
    count, random = 0, world.random
    while True:
        burst = random.choice((1, 1, 1, 8))
        await asyncio.sleep(random.expovariate(_TASKS_PER_MINUTE / 60 / burst))
        if world.loop.time() > end:
            return count
        for _ in range(burst):
            count += 1
            _order(world, draw_promise(world, count), commits=random.random() < 0.9)


def _order(world: World, promised: Promise, *, commits: bool) -> None:
    """Let a client ask one of the nodes for a task."""
    world.promises[promised.task.id] = promised
    able = [node for node in world.living() if not world.loop.is_frozen(node.name)]
    if able:
        node = world.random.choice(able)
        world.loop.on_node(node.name, world.database.order(node, promised, commits=commits))


def _blows(world: World, hosts: tuple[str, ...]) -> list[Coroutine[object, object, None]]:
    faults, random = world.faults, world.random

    async def again_and_again(mean_seconds: float, blow: Callable[[str], None]) -> None:
        while mean_seconds != NEVER:
            await asyncio.sleep(random.expovariate(1 / mean_seconds))
            blow(random.choice(hosts))

    def sleep(_host: str) -> None:
        for node in world.living():
            world.pause(node.name, 60.0, "sleep of all")

    return [
        again_and_again(faults.kill_every, lambda host: world.kill(world.nodes[host].name, "SIGKILL")),
        again_and_again(
            faults.pause_every, lambda host: world.pause(world.nodes[host].name, random.choice((1.0, 10.0, 40.0, 90.0)))
        ),
        again_and_again(faults.sleep_every, sleep),
        again_and_again(faults.restart_every, world.restart),
        again_and_again(
            faults.node_clock_every, lambda host: world.set_node_clock(host, random.uniform(-3600.0, 3600.0))
        ),
        again_and_again(
            faults.database_clock_every,
            lambda _host: world.set_database_clock(random.choice((-60.0, -5.0, -0.2, 10.0, 120.0, 3600.0))),
        ),
    ]


async def _until_finished(world: World) -> None:
    deadline = world.loop.time() + _QUIET_SECONDS
    while world.loop.time() < deadline and world.database.left():  # noqa: ASYNC110 - time is virtual
        await asyncio.sleep(5)


async def _be_idle(world: World, count: int) -> None:
    """Order tasks where nothing else is to do, of which somebody is told or nobody, and promise how soon they begin."""
    await asyncio.sleep(max(0.0, world.calm_at - world.loop.time()) + 60)
    for number in range(count + 1, count + _IDLE_TASKS + 1):
        told = number % 2 == 0
        within = 1.0 if told else world.config.poll_seconds + 1.0
        world.lost_wakeup = 0.0 if told else 1.0
        _order(world, promise(number, "fine", {"seconds": 1.0, "times": 0}, within=within), commits=True)
        await asyncio.sleep(world.config.poll_seconds * 2 + 5)


async def _hand_over(world: World, count: int) -> None:
    """Shut each process down in the midst of its work, while nothing else is wrong, and start the next."""
    world.faults, world.lost_wakeup, random = SLOW, 0.0, world.random
    burst = min(_BURST, _BURST_PER_SLOT * world.config.concurrency)
    for node in world.living():
        for kind in random.choices(("fine", "lengthy"), k=burst):
            count += 1
            _order(world, promise(count, kind, {"seconds": random.uniform(0, 15), "times": 0}), commits=True)
        await asyncio.sleep(random.uniform(0, random.choice((0.3, 5))))  # also while a claim is on its way
        node.stop()
        world.begin(node.name.partition(".")[0])
        await asyncio.sleep(random.uniform(0, 60))
    world.faults = NO_FAULTS
    await _until_finished(world)


async def _stop(world: World) -> None:
    nodes = world.living()
    for node in nodes:
        node.stop()
    if nodes:
        await asyncio.wait([node.task for node in nodes], timeout=120)


def bury(world: World) -> None:
    """End what still waits: frozen processes, lingering handlers; its coroutines must not outlive the loop."""
    world.bury()
    loop = world.loop
    loop.set_exception_handler(lambda _loop, _context: None)
    # First let begin what was about to begin: a coroutine that never began complains.
    loop.run_until_complete(loop.create_task(asyncio.sleep(1), context=context_of(WORLD)))
    for _ in range(100):
        tasks = asyncio.all_tasks(loop)
        if not tasks:
            break
        for task in tasks:
            task.cancel()
        loop.run_until_complete(loop.create_task(asyncio.wait(tasks, timeout=30), context=context_of(WORLD)))
