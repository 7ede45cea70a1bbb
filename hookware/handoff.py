"""Tasks that a commit of this process leaves already leased to it: its dispatcher runs them at once, without a claim.

The dispatcher offers the slots that it would claim for, as long as nothing else waits for them. Whoever is about to
commit a task, in any thread, may take one, and inserts the task leased. If the transaction rolls back, nothing was
there, and the slot is free again.
"""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

from hookware.config import Config
from hookware.core.task import Birth, LeasedTask
from hookware.env import Env, Wake

STALE_PART: Final = 3 / 8
"""Nothing begins on a lease of which more has gone by: one more beat of the heartbeat, and it would be given up."""


class Place(Birth):
    """A slot of the dispatcher's, taken for a task that is about to be committed.

    As a context it is given back at the end, if nothing was committed. `taken_at` is by `Env.monotonic`.
    """

    __slots__ = ("_hand_off", "taken_at")

    def __init__(self, hand_off: "HandOff", taken_at: float, birth: Birth) -> None:
        super().__init__(birth.owner, birth.lease_us, birth.retry)
        self._hand_off, self.taken_at = hand_off, taken_at

    def committed(self) -> None:
        """Pass the task on to the dispatcher: it is durable."""
        self._hand_off.settle(self, committed=self.task is not None)

    def forget(self) -> None:
        """Give the slot back, unless the task was committed."""
        self._hand_off.settle(self, committed=False)

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.forget()

    def __del__(self) -> None:
        self.forget()  # whoever took it is gone, without a word


class HandOff:
    """Where commits and one dispatcher meet.

    Args:
        owner: whom the tasks are leased to.
        env: for the clock.
        config: how long a lease is, and what the queues' settings are.
    """

    def __init__(self, owner: str, env: Env, config: Config) -> None:
        self._wake = Wake()
        self._owner, self._env, self._config = owner, env, config
        # Not held while anything is waited for; and taken again by a Place that the collector finds meanwhile.
        self._lock = threading.RLock()
        self._offered = 0
        self._shut_queues = frozenset[str]()
        self._taken: dict[int, float] = {}
        self._arrived: list[Place] = []
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
        if not (self._taken or self._arrived):
            return 0
        latest = self._env.monotonic() - self._late_seconds
        with self._lock:
            return len(self._arrived) + sum(taken_at >= latest for taken_at in self._taken.values())

    async def run(self, take_over: Callable[[], None]) -> None:
        """Call `take_over` whenever a task was committed, or a slot given back; until cancelled."""
        while True:
            take_over()
            await self._wake.wait(self._config.lease_seconds)

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

    def place_for(self, queue_name: str) -> Place | None:
        """Take a slot for a plain task of a queue that is about to be inserted; None: it has to be claimed like others.

        Plain is a task of which only the order decides when it begins: it is due, with neither a name to win nor keys.
        """
        settings = self._config.queue(queue_name)
        if settings.is_limited:
            return None
        with self._lock:
            if self._offered < 1 or queue_name in self._shut_queues:
                return None
            self._offered -= 1
            taken_at, lease_us = self._env.monotonic(), int(self._config.lease_seconds * 1e6)
            place = Place(self, taken_at, Birth(self._owner, lease_us, settings.retry))
            self._taken[id(place)] = taken_at
            return place

    def settle(self, place: Place, *, committed: bool) -> None:
        """Note, once, what became of a place."""
        with self._lock:
            was_taken = self._taken.pop(id(place), None) is not None
            if was_taken and committed and not self._closed:
                self._arrived.append(place)
        if was_taken:
            self._wake.notify()
