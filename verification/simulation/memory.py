"""The store in memory, as the database of a simulated world: every call is one step, and transactions are instants."""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from hookware.core.lifecycle import Complete, State
from hookware.delivery import Delivery
from hookware.errors import TaskLeaseExpiredError
from hookware.store.base import Settlement, Store
from hookware.store.memory import MemoryStore
from hookware.store.memory_rows import Row
from verification.simulation.node import Node
from verification.simulation.watch import Seen, Watch
from verification.simulation.wire import Wire
from verification.simulation.world import Promise, World

_HANDED_PART = 0.5  # of the tasks that could be: the others are claimed


class WatchedMemory(MemoryStore):
    """The store, with an eye on each of its rows."""

    def __init__(self, world: World) -> None:
        super().__init__(world.now_us, tombstone_us=int(world.config.tombstone_seconds * 1e6))
        self._changed = Watch(world).changed
        self.in_handler = False

    def complete(self, settlement: Settlement) -> bool:
        """Be the commit of a handler's transaction that completes the task."""
        self.in_handler = True
        try:
            return self._settle(settlement, self._clock_us())
        finally:
            self.in_handler = False

    def _put(self, row: Row) -> None:
        before = self._rows.get(row.task.id)
        super()._put(row)
        self._changed(None if before is None else _seen(before), _seen(row))

    def _remove(self, row: Row, now_us: int) -> None:
        super()._remove(row, now_us)
        self._changed(_seen(row), None, by_handler=self.in_handler)


class MemoryDatabase:
    """One store for all nodes, each at the end of its own line."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._memory = WatchedMemory(world)

    def store_of(self, _node: Node) -> Store:
        return Wire(self._world, self._memory)

    def hurry(self, node: Node, seconds: float) -> None:
        """Nothing takes longer than its line."""

    async def order(self, node: Node, promise: Promise, *, commits: bool) -> None:
        world = self._world
        if not commits:
            world.note("rolled_back", task=promise.task.id)
            return
        new = promise.task
        hand_off = node.hand_off if new.is_plain and world.random.random() < _HANDED_PART else None
        place = None if hand_off is None else hand_off.place_for(new.queue_name, new.id)
        self._memory.insert([promise.task], place)
        if place is None or place.task is None:
            node.hint()
        else:
            await asyncio.sleep(world.random.expovariate(1 / world.faults.delay_seconds))
            if world.random.random() < world.faults.error_after:
                world.count("commits without an answer")
                place.forget()
            else:
                place.committed()

    async def serve(
        self, _node: Node, app: ASGIApp, _delivery: Delivery, scope: Scope, receive: Receive, send: Send
    ) -> None:
        await app(scope, receive, send)

    async def write_effect(self, delivery: Delivery, *, refused: bool = False) -> None:
        if refused:
            raise RuntimeError("the database refused the commit")
        delivery.completing = True
        lease = delivery.task.lease
        if not self._memory.complete(Settlement(lease, Complete())):
            delivery.lease_lost = True
            raise TaskLeaseExpiredError("stale")
        delivery.completed = True
        self._world.note("effect", task=lease.task_id, fence=lease.fence)

    def left(self) -> int:
        return sum(row.state is not State.DEAD for row in self._memory._rows.values())

    def holds_up_others(self, node: str) -> bool:
        return False

    def lose(self, node: str) -> None:
        """There is nothing to close."""

    def close(self) -> None:
        """There is nothing to close."""


def _seen(row: Row) -> Seen:
    return Seen(
        row.task.id, row.state, row.fence, row.owner, row.lease_until_us, row.attempt_count, row.crash_count,
        row.eta_us, row.dead_reason,
    )  # fmt: skip
