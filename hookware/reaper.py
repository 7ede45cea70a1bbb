"""Takes back tasks whose process died or froze: expired leases, and leases of processes known to be gone.

Recovery looks at the task's row. Whoever settles with the row's fence first acts; the others are refused. Only the
leases that this very process keeps alive are left alone: where they look expired, a clock has stepped.
"""

from collections.abc import Callable

import anyio

from hookware.config import Config
from hookware.core.lifecycle import Decision, Die, LeaseExpired, Retry, decide
from hookware.core.retention import retention
from hookware.core.task import Lease, LeasedTask
from hookware.env import Env, Wake
from hookware.events import AttemptSettled, Events
from hookware.health import Health
from hookware.owner import is_dead
from hookware.recorder import crash_of
from hookware.store.base import LATEST_US, Settlement, Store
from hookware.supervisor import supervise

_BATCH = 100
_PRUNE_SECONDS = 3600.0
_LEAST_PRUNE_SECONDS = 60.0
_SHORTLY_SECONDS = 0.01


class Reaper:
    """Reaps at once, then every half lease and when a lease ends; at least every hour it removes what is over.

    Args:
        store: where the tasks are.
        env: clock and randomness.
        config: how long a lease is, and what the queues' retry options are.
        events: told of each task taken back.
        wake: notified when tasks may be due again.
        is_held: says whether this process keeps a lease alive.
        is_dead: says whether an owner's process is known to be gone.

    Attributes:
        has_reaped: every task has been taken back that could be when it began.
    """

    def __init__(
        self,
        store: Store,
        env: Env,
        config: Config,
        events: Events,
        wake: Wake,
        *,
        is_held: Callable[[Lease], bool],
        is_dead: Callable[[str], bool] = is_dead,
        health: Health | None = None,
    ) -> None:
        self.health = health or Health(env)
        self._store, self._env, self._config, self._events = store, env, config, events
        self._wake = wake
        self._is_held = is_held
        self._is_dead = is_dead
        self._prune_at = env.monotonic()
        self._first_end = float("inf")
        self._scope = anyio.CancelScope()
        self.has_reaped = False
        self._running = False
        self._ended = anyio.Event()

    async def run(self) -> None:
        """Reap until `stop()`."""
        self._running = True
        try:
            with self._scope:
                await supervise(
                    "reaper", self._reap_until_stopped, env=self._env, events=self._events, health=self.health
                )
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Stop reaping; what is on its way to the database is broken off, which the fence makes harmless."""
        self._scope.cancel()
        if self._running:
            await self._ended.wait()

    async def reap(self) -> int:
        """Take back every task whose lease has ended; how many."""
        count = 0
        while True:
            owners = await self._store.owners()
            dead = [owner for owner in owners if self._is_dead(owner)]
            if not dead and all(end_us > 0 for end_us in owners.values()):
                break  # nothing can have ended: most often nothing is leased at all
            taken_count = await self._take_all_back(dead)
            count += taken_count
            if taken_count == 0:
                break  # else others of the same owner may have ended meanwhile, or end soon
        ends_us = (end_us for owner, end_us in owners.items() if owner not in dead and end_us > 0)
        self._first_end = self._env.monotonic() + min(ends_us, default=LATEST_US) / 1e6
        return count

    async def _take_all_back(self, dead: list[str]) -> int:
        count = 0
        while True:
            tasks = await self._store.expired(_BATCH, dead)
            accepted_count = await self._take_back([task for task in tasks if not self._is_held(task.lease)])
            count += accepted_count
            if len(tasks) < _BATCH or accepted_count == 0:
                return count

    async def _reap_until_stopped(self) -> None:
        try:
            await self._reap_forever()
        except Exception:
            if not self._scope.cancel_called:
                raise
            # What the stop has broken off is no failure.

    async def _reap_forever(self) -> None:
        while True:
            if await self.reap():
                self._wake.notify()
            self.has_reaped = True
            if self._env.monotonic() >= self._prune_at:
                await self._store.prune()
                self._prune_at = self._env.monotonic() + _prune_seconds(self._config)
            self.health.worked("reaper")
            await self._env.sleep(self._pause())

    def _pause(self) -> float:
        """How long to wait: until the first lease ends that nobody renews, if that is soon."""
        half = self._config.lease_seconds / 2 * (0.9 + self._env.random() / 10)
        until_end = max(0.0, self._first_end - self._env.monotonic())
        # Not all processes at the same moment.
        return min(half, until_end + self._env.random() * min(self._config.poll_seconds, half) / 4 + _SHORTLY_SECONDS)

    async def _take_back(self, tasks: list[LeasedTask]) -> int:
        if not tasks:
            return 0
        decisions = [self._decide(task) for task in tasks]
        self._env.fp("reap.before")
        settlements = [self._settlement(task, decision) for task, decision in zip(tasks, decisions, strict=True)]
        results = await self._store.settle(settlements)
        self._env.fp("reap.settled")
        for task, decision, accepted in zip(tasks, decisions, results, strict=True):
            if accepted:
                self._events.emit(AttemptSettled(task, decision, accepted=True, duration_seconds=0.0, was_begun=False))
        return sum(results)

    def _settlement(self, task: LeasedTask, decision: Decision) -> Settlement:
        record = None
        if self._config.attempt_history != "off" and isinstance(decision, Retry | Die):
            record = crash_of(task, decision)
        return Settlement(task.lease, decision, task.lease_until_us, record)

    def _decide(self, task: LeasedTask) -> Decision:
        # `expired` gives the database's time as `claimed_us`.
        given = self._config.circumstances(task, now_us=task.claimed_us, jitter=self._env.random())
        return decide(task, LeaseExpired(), given)


def _prune_seconds(config: Config) -> float:
    """How long nothing need be removed: as long as the shortest time that a queue keeps tasks, within bounds."""
    kept = retention(config.queues.values())
    times_us = [us for us in (*kept.completed_us.values(), *kept.dead_us.values()) if us > 0]
    return max(_LEAST_PRUNE_SECONDS, min([_PRUNE_SECONDS, *(us / 1e6 for us in times_us)]))
