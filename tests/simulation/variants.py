"""The program as it is, and the same with a bug planted in it: what the checker must catch."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from hookware.config import Config
from hookware.core.lifecycle import Die, Failed, Outcome, Release, Retry, Succeeded
from hookware.core.task import Lease
from hookware.delivery import Delivery, Target, deliver
from hookware.env import Env
from hookware.store.base import Settlement
from tests.simulation.loop import NODE

if TYPE_CHECKING:
    from tests.simulation.world import World


class Variant:
    """The program without a bug; each subclass plants one."""

    async def deliver(self, target: Target, delivery: Delivery, *, env: Env, config: Config) -> Outcome:
        return await deliver(target, delivery, env=env, config=config)

    def database_now_us(self, world: "World") -> int:
        return world.now_us()

    def heartbeat_node(self, node: str, suffix: str) -> str:
        return node + suffix

    def stored(self, settlement: Settlement, latest: Lease) -> Settlement:
        """Give what the store makes of a settlement; `latest` is the lease that was given out last."""
        return settlement


class NoFence(Variant):
    """A result is accepted whatever fence it comes with."""

    def stored(self, settlement: Settlement, latest: Lease) -> Settlement:
        return replace(settlement, lease=latest)


class AckDespiteException(Variant):
    """A response with status 200 is a success, even if the call raised after it."""

    async def deliver(self, target: Target, delivery: Delivery, *, env: Env, config: Config) -> Outcome:
        outcome = await deliver(target, delivery, env=env, config=config)
        return Succeeded(200) if isinstance(outcome, Failed) and outcome.status == 200 else outcome


class NodeClock(Variant):
    """Whether a task is due is judged by the clock of the node that asks."""

    def database_now_us(self, world: "World") -> int:
        node = next((node for node in world.nodes.values() if node.name == NODE.get()), None)
        return world.now_us() + (0 if node is None else int(node.skew_seconds * 1e6))


class HeartbeatOnTheLoop(Variant):
    """Leases are renewed on the handlers' own event loop."""

    def heartbeat_node(self, node: str, suffix: str) -> str:
        return node


class NotRefunded(Variant):
    """An attempt that was interrupted counts."""

    def stored(self, settlement: Settlement, latest: Lease) -> Settlement:
        counted = Retry(0, None, "interrupted")
        return replace(settlement, decision=counted) if isinstance(settlement.decision, Release) else settlement


class ReaperWithoutFence(Variant):
    """The reaper takes a lease back whoever has it by now."""

    def stored(self, settlement: Settlement, latest: Lease) -> Settlement:
        by_reaper = isinstance(settlement.decision, Retry | Die) and settlement.decision.crashed
        return replace(settlement, lease=latest, lease_until_us=None) if by_reaper else settlement


PLANTED: dict[str, Callable[[], Variant]] = {
    "no fence in settle": NoFence,
    "ack although exception": AckDespiteException,
    "node clock for ETA": NodeClock,
    "heartbeat on the handler's loop": HeartbeatOnTheLoop,
    "attempts not refunded": NotRefunded,
    "reaper ignoring the fence": ReaperWithoutFence,
}
