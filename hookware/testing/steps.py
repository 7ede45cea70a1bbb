"""Runs the tasks of one Hookware one by one, by the dispatcher that runs them elsewhere.

The store stands behind a gate that lets one claim through when the test asks for it. All else is as ever: the scope,
the outcome, the decision, what is settled, and the reaper that takes back what a process has left.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
from anyio.abc import TaskGroup

from hookware.core.lifecycle import Decision, Die, State
from hookware.core.task import Birth, Lease, LeasedTask, NewTask, Progress
from hookware.delivery import Target
from hookware.env import Env
from hookware.events import AttemptSettled, Event
from hookware.loops import Loops
from hookware.processing import Processing
from hookware.store.base import AddResult, Claim, Claimed, Settlement, Store, TaskInfo
from hookware.testing.clock import Clock
from hookware.testing.faults import Faults, FaultyEntrance
from hookware.testing.report import Ran, ran_of

_MOST_TASKS = 100_000
_MOST_MOVES = 100


class Gate:
    """A store that gives one task at a time, when asked to.

    Attributes:
        claimed: what the last claim gave.
        beats: whether leases are renewed in the database.
    """

    def __init__(self, store: Store, *, beats: bool) -> None:
        self._store = store
        self.beats = beats
        self.claimed = Claimed([], None)
        self._error: Exception | None = None
        self._closed = False
        self._opened = anyio.Event()
        self._reached = anyio.Event()

    async def let_one_through(self) -> LeasedTask | None:
        """Let the next claim through; give what it claimed once that has ended, None if nothing is due."""
        await self._reached.wait()
        self._reached = anyio.Event()
        self._opened.set()
        await self._reached.wait()
        if self._error is not None:
            raise self._error
        return self.claimed.tasks[0] if self.claimed.tasks else None

    def close(self) -> None:
        """Let nothing through any more."""
        self._closed = True
        self._opened.set()

    async def claim(self, claim: Claim) -> Claimed:
        """Wait until the test asks, and lease one task; whatever was leased before has run."""
        self._reached.set()
        await self._opened.wait()
        if self._closed:
            return Claimed([], None)
        self._opened = anyio.Event()
        try:
            self.claimed = await self._store.claim(replace(claim, limit=1))
        except Exception as error:  # noqa: BLE001 - it is the test's, not the dispatcher's
            self._error, self.claimed = error, Claimed([], None)
        return Claimed(self.claimed.tasks, 0, cleared=True)  # so that the dispatcher comes again at once

    def renew(self, leases: Sequence[Lease], lease_us: int) -> frozenset[int]:
        """Renew leases, unless that would disturb a transaction of the test's."""
        if self.beats:
            return self._store.renew(leases, lease_us)
        return frozenset(lease.task_id for lease in leases)

    # As ever.

    async def add(self, tasks: Sequence[NewTask], birth: Birth | None = None) -> list[AddResult]:
        """See `Store`."""
        return await self._store.add(tasks, birth)

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """See `Store`."""
        return await self._store.settle(settlements)

    async def expired(self, limit: int, owners: Sequence[str] = ()) -> list[LeasedTask]:
        """See `Store`."""
        return await self._store.expired(limit, owners)

    async def owners(self) -> dict[str, int]:
        """See `Store`."""
        return await self._store.owners()

    async def next_due(self, exclude: frozenset[str] = frozenset()) -> int | None:
        """See `Store`."""
        return await self._store.next_due(exclude)

    async def prune(self) -> int:
        """See `Store`."""
        return await self._store.prune()

    async def note_progress(self, notes: Mapping[Lease, Progress]) -> frozenset[int]:
        """See `Store`."""
        return await self._store.note_progress(notes)


class _Env(Env):
    """The app's, without jitter: a retry comes exactly when its backoff says."""

    def __init__(self, env: Env) -> None:
        super().__init__()
        self._env = env

    def now_us(self) -> int:
        return self._env.now_us()

    def monotonic(self) -> float:
        return self._env.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._env.sleep(seconds)

    def random(self) -> float:
        return 0.0


class Steps(Processing):
    """The dispatcher of one Hookware, which a test leads; `begun` are the tasks that have had an attempt."""

    def __init__(self, loops: Loops, group: TaskGroup, clock: Clock, faults: Faults, begun: set[int]) -> None:
        outbox = loops.outbox
        self._clock, self._faults = clock, faults
        self._gate = Gate(outbox.store, beats=outbox.within is None)
        self._entrance = FaultyEntrance(loops.entrance)
        env = _Env(outbox.env)
        env.at_failpoint = self._at_failpoint
        config = replace(outbox.config, concurrency=1, foreground_first=False)
        target = Target(app=self._entrance, state=loops.state, calls=group)
        super().__init__(outbox, target, store=self._gate, config=config, env=env)
        self._settled: dict[Lease, AttemptSettled] = {}
        self._begun = begun
        self._move_count = 0
        self.died = 0

    async def start(self, loops: TaskGroup) -> None:
        """Have a dispatcher that waits at the gate, and nothing else that runs by itself."""
        self._outbox.events.subscribe(self._note)
        self._outbox.env.at_failpoint = self._entrance.at_failpoint
        self._outbox.store.on_cancelled = self._dispatcher.cancelled
        loops.start_soon(self._dispatcher.run)

    async def stop(self) -> None:
        """End it."""
        self._gate.close()
        await self._dispatcher.stop()
        self._outbox.env.at_failpoint = self._outbox.store.on_cancelled = None
        self._outbox.runner.relax()
        await self._progress.write()
        await self._executed.close()
        self._outbox.events.unsubscribe(self._note)

    async def step(self) -> Ran | None:
        """Run the task that is next; None if none is due."""
        while (task := await self._gate.let_one_through()) is None:
            if not self._gate.claimed.cleared:
                return None
        await self._dispatcher.until_idle()
        self._begun.add(task.id)
        self._move_count = 0
        planned, raised = self._entrance.fault is not None, self._entrance.raised
        return ran_of(task, self._settled.get(task.lease), raised, planned=planned)

    async def let_time_pass(self) -> bool:
        """Move the clock to where something may go on that has begun or is due; False if nothing waits for that."""
        store, now_us = self._outbox.store, await self._outbox.runner.run(self._outbox.own_clock, write=False)
        tasks = await store.list_tasks(limit=_MOST_TASKS)
        waits = [wait for wait in (await self._until_taken_back(tasks), await self._until_due(tasks, now_us)) if wait]
        self._move_count += 1
        if not waits or self._move_count > _MOST_MOVES:
            return False
        self._clock.advance(min(waits) / 1e6)
        await self._reaper.reap()
        return True

    async def _until_taken_back(self, tasks: Sequence[TaskInfo]) -> int | None:
        """Microseconds until a lease ends that a process has left behind."""
        left = {task.owner for task in tasks if task.state is State.LEASED and task.id in self._begun}
        if not left:
            return None
        ends = await self._outbox.store.owners()
        return min((max(1, us) for owner, us in ends.items() if owner in left), default=None)

    async def _until_due(self, tasks: Sequence[TaskInfo], now_us: int) -> int | None:
        """Microseconds until a task may begin that has failed, or is due and held back by its queue's rate."""
        waiting = [task for task in tasks if task.state is State.PENDING]
        own = [task for task in waiting if task.id in self._begun or task.eta_us <= now_us]
        others = {task.queue_name for task in waiting} - {task.queue_name for task in own}
        if not own:
            return None
        next_us = await self._outbox.store.next_due(frozenset(others))
        return None if next_us is None else max(next_us, min(task.eta_us for task in own) - now_us, 0)

    def _at_failpoint(self, name: str) -> None:
        if name == "dispatch.start":
            [task] = self._gate.claimed.tasks
            self._entrance.raised = None
            self._entrance.fault = self._faults.take(task)
        self._entrance.at_failpoint(name)

    def _note(self, event: Event) -> None:
        if isinstance(event, AttemptSettled):
            if _is_by_crash(event.decision):
                self.died += isinstance(event.decision, Die)
            else:
                self._settled[event.task.lease] = event


def _is_by_crash(decision: Decision) -> bool:
    return bool(getattr(decision, "crashed", False))


@asynccontextmanager
async def steps_of(loops: Loops, clock: Clock, faults: Faults, begun: set[int]) -> AsyncIterator[Steps]:
    """Give the steps of one Hookware; what is raised in the `with` comes out of it in a group."""
    await loops.outbox.prepare()
    async with anyio.create_task_group() as group:
        steps = Steps(loops, group, clock, faults, begun)
        await steps.start(group)
        try:
            yield steps
        finally:
            with anyio.CancelScope(shield=True):
                await steps.stop()
            group.cancel_scope.cancel()
