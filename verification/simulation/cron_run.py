"""What happens in a world of cron, from its beginning to its end."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from verification.simulation.cron_world import CronWorld
from verification.simulation.faults import NO_FAULTS

QUIET_SECONDS = 24 * 3600.0
_PAUSES = (30.0, 600.0, 3600.0, 3 * 3600.0)
_OUTAGES = (1800.0, 2 * 3600.0, 30 * 3600.0)


async def live(world: CronWorld, hosts: Sequence[str], seconds: float) -> None:
    """Let the nodes work, with all that befalls them, and then a day in which nothing does."""
    for host in hosts:
        world.begin(host)
    blows = [world.loop.create_task(blow) for blow in _blows(world, hosts)]
    await asyncio.sleep(seconds)
    for blow in blows:
        blow.cancel()
    world.faults = NO_FAULTS
    world.note("quiet")
    await asyncio.sleep(QUIET_SECONDS)


def _blows(world: CronWorld, hosts: Sequence[str]) -> list[Coroutine[object, object, None]]:
    faults, random = world.faults, world.random

    async def again_and_again(mean_seconds: float, blow: Callable[[str], None]) -> None:
        while True:
            await asyncio.sleep(random.expovariate(1 / mean_seconds))
            blow(random.choice(hosts))

    def outage(_host: str) -> None:
        seconds = random.choice(_OUTAGES)
        for node in world.living():
            world.pause(node.name, seconds, "sleep of all")

    return [
        again_and_again(faults.kill_every, lambda host: world.kill(world.nodes[host].name, "SIGKILL")),
        again_and_again(faults.pause_every, lambda host: world.pause(world.nodes[host].name, random.choice(_PAUSES))),
        again_and_again(faults.restart_every, world.restart),
        again_and_again(faults.sleep_every, outage),
        again_and_again(
            faults.node_clock_every, lambda host: world.set_node_clock(host, random.uniform(-86_400.0, 86_400.0))
        ),
    ]
