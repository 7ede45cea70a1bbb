"""The store as the nodes of a simulation see it: slow, failing before or after its effect, and watched."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry
from hookware.core.task import Lease, LeasedTask
from hookware.store.base import AddResult, Claim, Claimed, Settlement
from hookware.store.memory import MemoryStore
from tests.simulation.loop import NODE

if TYPE_CHECKING:
    from hookware.core.task import NewTask
    from tests.simulation.world import World

T = TypeVar("T")
SLOW_HOST = "n2."
_OUTCOMES: dict[type[Decision], str] = {Complete: "complete", Retry: "retry", Release: "release", Die: "die"}


class StoreDown(Exception):  # noqa: N818 - a state of the world
    """The database did not answer, or its answer was lost."""


class SimStore:
    """The one store of a simulated world, behind every node's unreliable line to it."""

    def __init__(self, world: "World", memory: MemoryStore) -> None:
        self._world = world
        self._memory = memory
        self._latest: dict[int, Lease] = {}

    async def add(self, tasks: "Sequence[NewTask]") -> list[AddResult]:
        return await self._call(lambda: self._memory.add(tasks))

    async def claim(self, claim: Claim) -> Claimed:
        return await self._call(lambda: self._claim(claim))

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        return await self._call(lambda: self.settle_now(settlements))

    async def expired(self, limit: int, owners: Sequence[str] = ()) -> list[LeasedTask]:
        return await self._call(lambda: self._memory.expired(limit, owners))

    async def owners(self) -> list[str]:
        return await self._call(self._memory.owners)

    async def next_due(self, exclude: frozenset[str] = frozenset()) -> int | None:
        return await self._call(lambda: self._memory.next_due(exclude))

    async def prune(self) -> int:
        return await self._call(self._memory.prune)

    def renew(self, leases: Sequence[Lease], lease_us: int) -> frozenset[int]:
        world = self._world
        if world.over or world.is_dead(NODE.get()):
            raise StoreDown("nobody is there")
        lot = world.random.random()
        if lot < world.faults.renew_error / 2:
            raise self._failed("before")
        renewed = self._memory.renew(leases, lease_us)
        if lot < world.faults.renew_error:
            raise self._failed("after")
        return renewed

    async def settle_now(self, settlements: Sequence[Settlement], *, by_handler: bool = False) -> list[bool]:
        """Settle without any fault, as one transaction, and write it down."""
        stored = [
            self._world.variant.stored(one, self._latest.get(one.lease.task_id, one.lease)) for one in settlements
        ]
        accepted = await self._memory.settle(stored)
        for one, was_accepted in zip(settlements, accepted, strict=True):
            decision = one.decision
            self._world.note(
                "settled",
                task=one.lease.task_id,
                fence=one.lease.fence,
                outcome=_OUTCOMES[type(decision)],
                accepted=was_accepted,
                crashed=isinstance(decision, Retry | Die) and decision.crashed,
                delay=decision.delay_us / 1e6 if isinstance(decision, Retry) else 0.0,
                reason=decision.reason if isinstance(decision, Die) else "",
                by_handler=by_handler,
            )
        return accepted

    async def _claim(self, claim: Claim) -> Claimed:
        claimed = await self._memory.claim(claim)
        for task in claimed.tasks:
            self._latest[task.id] = task.lease
            self._world.note(
                "claimed",
                task=task.id,
                attempt=task.attempt_count,
                fence=task.fence,
                asked=claim.limit,
                got=len(claimed.tasks),
                deadline=task.deadline_us / 1e6,
            )
        return claimed

    async def _call(self, effect: Callable[[], Awaitable[T]]) -> T:
        world = self._world
        await self._travel()
        lot = world.random.random()
        if lot < world.faults.error_before:
            raise self._failed("before")
        result = await effect()
        await self._travel()
        if world.faults.error_before <= lot < world.faults.error_before + world.faults.error_after:
            raise self._failed("after")
        return result

    async def _travel(self) -> None:
        world = self._world
        slow_seconds = world.faults.slow_line_seconds if NODE.get().startswith(SLOW_HOST) else 0.0
        seconds = world.random.expovariate(1 / (world.faults.delay_seconds + slow_seconds))
        if world.random.random() < world.faults.long_delay:
            seconds += world.random.choice([1.0, 5.0, 20.0, 60.0])
        if seconds > 1:
            world.disturb(NODE.get(), seconds)
        await asyncio.sleep(seconds)

    def _failed(self, when: str) -> StoreDown:
        self._world.disturb(NODE.get(), 0)
        return StoreDown(f"{when} its effect")
