"""The line between a node and the store: slow, and failing before or after the store has done what it was asked."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from hookware.core.task import Birth, Lease, LeasedTask, Progress
from hookware.store.base import AddResult, Claim, Claimed, Settlement, Store
from verification.simulation.loop import NODE

if TYPE_CHECKING:
    from hookware.core.task import NewTask
    from verification.simulation.world import World

T = TypeVar("T")
SLOW_HOST = "n2."


class StoreDown(Exception):  # noqa: N818 - a state of the world
    """The database did not answer, or its answer was lost."""


class Wire:
    """A store at the end of an unreliable line."""

    def __init__(self, world: "World", store: Store) -> None:
        self._world, self._store = world, store

    async def add(self, tasks: "Sequence[NewTask]", birth: Birth | None = None) -> list[AddResult]:
        """Pass the call on, if nothing happens."""
        return await self._call(lambda: self._store.add(tasks, birth))

    async def claim(self, claim: Claim) -> Claimed:
        """Pass the call on, if nothing happens, and write down how much was asked and given."""
        return await self._call(lambda: self._claim(claim), both_ways=True)

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Pass the call on, if nothing happens, and write down what was refused."""
        return await self._call(lambda: self._settle(settlements), both_ways=True)

    async def expired(self, limit: int, owners: Sequence[str] = ()) -> list[LeasedTask]:
        """Pass the call on, if nothing happens."""
        return await self._call(lambda: self._store.expired(limit, owners))

    async def owners(self) -> dict[str, int]:
        """Pass the call on, if nothing happens."""
        return await self._call(self._store.owners)

    async def next_due(self, exclude: frozenset[str] = frozenset()) -> int | None:
        """Pass the call on, if nothing happens."""
        return await self._call(lambda: self._store.next_due(exclude))

    async def prune(self) -> int:
        """Pass the call on, if nothing happens."""
        return await self._call(self._store.prune)

    async def note_progress(self, notes: Mapping[Lease, Progress]) -> frozenset[int]:
        """Pass the call on, if nothing happens."""
        return await self._call(lambda: self._store.note_progress(notes))

    def renew(self, leases: Sequence[Lease], lease_us: int) -> frozenset[int]:
        """Pass the call on, if nothing happens."""
        world = self._world
        if world.over or world.is_dead(NODE.get()):
            raise StoreDown("nobody is there")
        lot = world.random.random()
        if lot < world.faults.renew_error / 2:
            raise self._failed("before")
        renewed = self._store.renew(leases, lease_us)
        if lot < world.faults.renew_error:
            raise self._failed("after")
        return renewed

    async def _claim(self, claim: Claim) -> Claimed:
        claimed = await self._store.claim(claim)
        if claimed.tasks:
            self._world.note("batch", asked=claim.limit, got=len(claimed.tasks))
        return claimed

    async def _settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        results = await self._store.settle(settlements)
        for settlement, accepted in zip(settlements, results, strict=True):
            if not accepted:
                lease, outcome = settlement.lease, type(settlement.decision).__name__.lower()
                self._world.note("settled", task=lease.task_id, fence=lease.fence, outcome=outcome, accepted=False)
        return results

    async def _call(self, effect: Callable[[], Awaitable[T]], *, both_ways: bool = False) -> T:
        # Of what only reads, the way there is enough.
        world, faults = self._world, self._world.faults
        await self._travel()
        lot = world.random.random()
        if lot < faults.error_before:
            raise self._failed("before")
        result = await effect()
        if both_ways:
            await self._travel()
        if faults.error_before <= lot < faults.error_before + faults.error_after:
            raise self._failed("after")
        return result

    async def _travel(self) -> None:
        """Let the time of the line pass."""
        world, faults = self._world, self._world.faults
        mean = faults.delay_seconds
        if faults.slow_line_seconds and NODE.get().startswith(SLOW_HOST):
            mean += faults.slow_line_seconds
        seconds = world.random.expovariate(1 / mean)
        if seconds > 1:
            world.disturb(NODE.get(), seconds, "slow line")
        await asyncio.sleep(seconds)
        if faults.hang and world.random.random() < faults.hang:
            await self._hang()

    async def _hang(self) -> None:
        world = self._world
        seconds = world.random.choice((1.0, 5.0, 20.0, 70.0))
        world.count("hung calls")
        world.disturb(NODE.get(), seconds, "hung call")
        await asyncio.sleep(seconds)

    def _failed(self, when: str) -> StoreDown:
        self._world.count(f"store errors {when} the effect")
        self._world.disturb(NODE.get(), 0, f"store error {when} the effect")
        return StoreDown(f"{when} its effect")
