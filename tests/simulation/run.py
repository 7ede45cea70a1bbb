"""One seed from beginning to end: chaos, then quiet, then an orderly shutdown, then the checker."""

import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass

from hookware.core.lifecycle import State
from tests.simulation.faults import NO_FAULTS
from tests.simulation.handlers import draw_task
from tests.simulation.loop import WORLD, context_of
from tests.simulation.variants import PLANTED, Variant
from tests.simulation.world import CONFIG, World
from verification.checker import Limits, check
from verification.history import Line

HOSTS = ("n0", "n1", "n2")
TASKS = 30
CHAOS_SECONDS = 300.0
QUIET_SECONDS = 900.0
LIMITS = Limits(
    lease=CONFIG.lease_seconds,
    poll=CONFIG.poll_seconds,
    shutdown=CONFIG.drain_seconds + CONFIG.overrun_seconds + 1,
    begin=CONFIG.lease_seconds / 8 + 0.5,
    tail=QUIET_SECONDS,
    crash_limit=CONFIG.crash_limit,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one seed gave."""

    seed: int
    seconds: float
    runs: int
    steps: int
    trace: str
    violations: list[str]
    counts: Counter[str]
    history: list[dict[str, object]]


def run(seed: int, variant: Variant | None = None) -> Result:
    """Run one seed and check it."""
    world = World(seed, variant or Variant())
    loop = world.loop
    quiet_logs = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        loop.run_until_complete(loop.create_task(_live(world), context=context_of(WORLD)))
        world.trace.update(str(loop.step_count).encode())
        seconds = loop.time()
        _bury(world)
    finally:
        logging.disable(quiet_logs)
        loop.close()
    return Result(
        seed=seed,
        seconds=seconds,
        runs=sum(line["ev"] == "start" for line in world.history),
        steps=loop.step_count,
        trace=world.trace.hexdigest(),
        violations=[str(each) for each in check([Line(**line) for line in world.history], LIMITS).complaints],
        counts=Counter(line["ev"] for line in world.history),
        history=world.history,
    )


async def _live(world: World) -> None:
    for host in HOSTS:
        world.begin(host)
    blows = [world.loop.create_task(blow) for blow in _blows(world)]
    for task_id in range(1, TASKS + 1):
        await asyncio.sleep(world.random.expovariate(TASKS / CHAOS_SECONDS))
        _commit(world, task_id)
    await asyncio.sleep(world.random.uniform(0, 60))
    for blow in blows:
        blow.cancel()
    world.faults = NO_FAULTS
    world.note("quiet")
    deadline = world.loop.time() + QUIET_SECONDS
    while world.loop.time() < deadline and await _unfinished(world):  # noqa: ASYNC110 - time is virtual
        await asyncio.sleep(5)
    await _stop(world)


async def _unfinished(world: World) -> bool:
    return any(info.state is not State.DEAD for info in await world.memory.list_tasks(limit=1000))


def _commit(world: World, task_id: int) -> None:
    """Be a request: its transaction commits, or rolls back; sometimes it tells a dispatcher."""
    task = draw_task(world, task_id)
    if world.random.random() < 0.1:
        world.note("rolled_back", task=task_id)
        return
    world.memory.insert([task])
    world.note("committed", task=task_id, eta=world.loop.time() + task.countdown_us / 1e6, url=task.url)
    node = world.nodes[world.random.choice(HOSTS)]
    if world.random.random() < 0.5 and node.dispatcher is not None:
        node.dispatcher.wake.notify()


def _blows(world: World) -> list[Coroutine[object, object, None]]:
    async def again_and_again(mean_seconds: float, blow: str) -> None:
        while mean_seconds != float("inf"):
            await asyncio.sleep(world.random.expovariate(1 / mean_seconds))
            host = world.random.choice(HOSTS)
            if blow == "kill":
                world.kill(world.nodes[host].name, "a blow")
            elif blow == "pause":
                world.pause(world.nodes[host].name, world.random.choice([1.0, 10.0, 40.0, 90.0]))
            elif blow == "sleep":
                for node in list(world.nodes.values()):
                    world.pause(node.name, 60.0)
            else:
                world.restart(host)

    faults = world.faults
    return [
        again_and_again(faults.kill_every, "kill"),
        again_and_again(faults.pause_every, "pause"),
        again_and_again(faults.sleep_every, "sleep"),
        again_and_again(faults.restart_every, "restart"),
    ]


async def _stop(world: World) -> None:
    nodes = [node for node in world.nodes.values() if not world.is_dead(node.name)]
    for node in nodes:
        node.stop()
    await asyncio.wait([node.task for node in nodes], timeout=60)


def _bury(world: World) -> None:
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


def repro(seed: int, bug: str | None = None) -> str:
    """Give the line that runs this seed again."""
    return f"python -m tests.simulation.run {seed}" + (f" {json.dumps(bug)}" if bug else "")


def main() -> None:
    """Run one seed, with its history: SEED [PLANTED BUG]."""
    seed = int(sys.argv[1])
    variant = PLANTED[sys.argv[2]]() if len(sys.argv) > 2 else Variant()
    result = run(seed, variant)
    for line in result.history:
        print(json.dumps(line))
    print(f"seed {seed}: {result.seconds:.0f} s, {result.runs} runs, {result.steps} steps, trace {result.trace}")
    print("\n".join(result.violations) or "no violation")


if __name__ == "__main__":
    main()
