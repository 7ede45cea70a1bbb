"""Tasks that a commit of this process leaves already leased to it: its dispatcher runs them at once, without a claim.

The dispatcher offers the slots that it would claim for, as long as nothing else waits for them. Whoever is about to
commit a task, in any thread, may take one, and inserts the task leased. If the transaction rolls back, nothing was
there, and the slot is free again. Where nobody can say whether it was committed, the lease is given back unseen.
"""

import threading
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Final

from hookware.config import Config
from hookware.core.task import Birth, Lease, LeasedTask
from hookware.env import Env, Wake

STALE_PART: Final = 3 / 8
"""Nothing begins on a lease of which more has gone by: one more beat of the heartbeat, and it would be given up."""

DEAF_SECONDS: Final = 0.05
"""Where a task waits longer for the event loop, the next ones are left for any process to claim."""

_AGAIN_SECONDS: Final = 1.0
_FIRST_FENCE: Final = 2**20  # claims raise a fence by one: hardly any task has so many


class Place(Birth):
    """A slot of the dispatcher's, taken for a task that is about to be committed.

    As a context it is given back at the end, if nothing was committed. `taken_at` and `arrived_at` are by
    `Env.monotonic`.
    """

    __slots__ = ("_hand_off", "arrived_at", "lease", "taken_at")

    def __init__(self, hand_off: "HandOff", taken_at: float, lease: Lease, birth: Birth) -> None:
        super().__init__(birth.owner, birth.lease_us, birth.fence, birth.retry)
        self._hand_off, self.taken_at, self.arrived_at, self.lease = hand_off, taken_at, 0.0, lease

    def committed(self) -> None:
        """Pass the task on to the dispatcher: it is durable."""
        if self.task is not None:
            self._hand_off.arrive(self)

    def forget(self) -> None:
        """Give the slot back, unless the task was committed; if it was inserted, it may be there all the same."""
        self._hand_off.drop(self, is_doubtful=self.task is not None)

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What was cancelled may go on in its thread.
        self._hand_off.drop(self, is_doubtful=kind is not None or self.task is not None)

    def __del__(self) -> None:
        self.forget()  # whoever took it is gone, without a word


class HandOff:
    """Where commits and one dispatcher meet.

    Args:
        owner: whom the tasks are leased to.
        env: for the clock.
        config: how long a lease is, and what the queues' settings are.
        most_to_come: says how many may be on their way at once.
    """

    def __init__(self, owner: str, env: Env, config: Config, most_to_come: Callable[[], int]) -> None:
        self._owner, self._env, self._config, self._most_to_come = owner, env, config, most_to_come
        self._wake = Wake()
        self._fences = count(_FIRST_FENCE)
        # Not held while anything is waited for; and taken again by a Place that the collector finds meanwhile.
        self._lock = threading.RLock()
        self._offered = 0
        self._shut_queues = frozenset[str]()
        self._taken: dict[Lease, float] = {}
        self._arrived: list[Place] = []
        self._doubts: list[tuple[float, Lease]] = []
        self._closed = False

    # The dispatcher's side.

    def offer(self, count: int, shut_queues: frozenset[str] = frozenset()) -> None:
        """Let up to `count` slots be taken from now on, 0: none; and none for tasks of `shut_queues`."""
        with self._lock:
            self._offered, self._shut_queues = count, shut_queues

    @property
    def taken_count(self) -> int:
        """How many slots are taken for tasks that have not been passed on to the dispatcher yet.

        One whose transaction takes too long counts no more: its task will be given back.
        """
        latest = self._env.monotonic() - self._late_seconds
        with self._lock:
            return len(self._arrived) + sum(taken_at >= latest for taken_at in list(self._taken.values()))

    async def run(self, take_over: Callable[[], None]) -> None:
        """Call `take_over` when something was committed or given back, and when something is in doubt; for ever."""
        while True:
            take_over()
            with self._lock:
                first = min((at for at, _lease in self._doubts), default=float("inf"))
            await self._wake.wait(min(first - self._env.monotonic(), self._config.lease_seconds))

    def doubtful(self) -> list[Lease]:
        """Give the leases that may have been committed unknown to anybody: at once, and later once more, and again."""
        now = self._env.monotonic()
        with self._lock:
            due = list(dict.fromkeys(lease for at, lease in self._doubts if at <= now))
            self._doubts = [(at, lease) for at, lease in self._doubts if at > now]
        return due

    def arrived(self) -> list[tuple[LeasedTask, float]]:
        """Give the tasks that were committed, each with the time by `Env.monotonic` at which its slot was taken."""
        if self._arrived:
            self._env.fp("dispatch.handed")
        with self._lock:
            places, self._arrived = self._arrived, []
        return [(place.task, place.taken_at) for place in places if place.task is not None]

    def close(self) -> None:
        """Take nothing any more: what is committed from now on waits until its lease ends."""
        with self._lock:
            self._offered, self._closed = 0, True

    def is_late(self, taken_at: float) -> bool:
        """Say whether a slot was taken so long ago that another may have it by now."""
        return self._env.monotonic() - taken_at > self._late_seconds

    @property
    def _late_seconds(self) -> float:
        return self._config.lease_seconds * STALE_PART

    # The commits' side.

    def place_for(self, queue_name: str, task_id: int) -> Place | None:
        """Take a slot for a plain task of a queue that is about to be inserted; None: it has to be claimed like others.

        Plain is a task of which only the order decides when it begins: it is due, with neither a name to win nor keys.
        """
        settings, now = self._config.queue(queue_name), self._env.monotonic()
        if self._offered < 1 or settings.is_limited:
            return None
        lease = Lease(task_id, next(self._fences))
        lease_us = int(self._config.lease_seconds * 1e6)
        place = Place(self, now, lease, Birth(self._owner, lease_us, lease.fence, settings.retry))
        with self._lock:
            is_deaf = bool(self._arrived) and now - self._arrived[0].arrived_at > DEAF_SECONDS
            on_their_way = len(self._taken) + len(self._arrived)
            if self._offered < 1 or queue_name in self._shut_queues or is_deaf or on_their_way >= self._most_to_come():
                return None
            self._offered -= 1
            self._taken[lease] = now
        return place

    def arrive(self, place: Place) -> None:
        """Take a task that was committed in its place; once."""
        with self._lock:
            if self._taken.pop(place.lease, None) is None:
                return
            place.arrived_at = self._env.monotonic()
            if not self._closed:
                self._arrived.append(place)
        self._wake.notify()

    def drop(self, place: Place, *, is_doubtful: bool) -> None:
        """Take back a place in which nothing was committed; `is_doubtful`: as far as is known."""
        with self._lock:
            if self._taken.pop(place.lease, None) is None:
                return
            if is_doubtful:
                now = self._env.monotonic()
                times = (now, now + _AGAIN_SECONDS, now + max(_AGAIN_SECONDS, self._config.lease_seconds / 4))
                self._doubts += [(at, place.lease) for at in times]
        self._wake.notify()
