"""Stores what became of attempts, many in one commit: while one settle is on its way, the next ones gather.

Settling is fenced, so trying again after an error is safe, and needed: an error does not say what was committed.
"""

from collections import deque
from collections.abc import Callable

import anyio

from hookware.env import Env
from hookware.health import Health
from hookware.store.base import Settlement, Store

_FIRST_DELAY_SECONDS = 0.05
_LONGEST_DELAY_SECONDS = 2.0


class _Entry:
    """A settlement on its way. `accepted` is None until the store has said, or it is given up."""

    def __init__(self, settlement: Settlement, is_held: Callable[[], bool]) -> None:
        self.settlement = settlement
        self.is_held = is_held
        self.tried = False
        self.accepted: bool | None = None
        self.done = anyio.Event()

    def finish(self, accepted: bool | None) -> None:
        self.accepted = accepted
        self.done.set()


class Settler:
    """Settles for many attempts at once; `run` is its loop."""

    def __init__(self, store: Store, env: Env, health: Health) -> None:
        self._store = store
        self._env = env
        self._health = health
        self._waiting: deque[_Entry] = deque()
        self._news = anyio.Event()
        self._failure_count = 0
        self._closed = False
        self._given_up = False
        self._sending: anyio.CancelScope | None = None

    async def settle(self, settlement: Settlement, is_held: Callable[[], bool]) -> bool | None:
        """Settle, again and again while the store raises and `is_held()` says that the lease is still ours.

        Returns:
            Whether the fence accepted it; None if it was given up.
        """
        if self._given_up:
            return None
        entry = _Entry(settlement, is_held)
        self._waiting.append(entry)
        self._news.set()
        await entry.done.wait()
        return entry.accepted

    def close(self) -> None:
        """Let `run` return once nothing waits."""
        self._closed = True
        self._news.set()

    def give_up(self) -> None:
        """Try nothing again from now on, and break off what hangs: time is up."""
        self._given_up = True
        if self._sending is not None:
            self._sending.cancel()

    async def run(self) -> None:
        """Settle what comes, until closed; not cancelled while attempts wait for it."""
        with anyio.CancelScope(shield=True):
            while self._waiting or not self._closed:
                if self._waiting:
                    await self._settle_next()
                else:
                    self._news = anyio.Event()
                    await self._news.wait()

    async def _settle_next(self) -> None:
        # After an error one at a time: a settlement that the store cannot take must not hold up the others.
        count = 1 if self._failure_count else len(self._waiting)
        batch = [self._waiting.popleft() for _ in range(count)]
        with anyio.CancelScope() as self._sending:
            try:
                self._env.fp("dispatch.settle.before")
                results = await self._store.settle([entry.settlement for entry in batch])
                self._env.fp("dispatch.settle.settled")
                for entry, accepted in zip(batch, results, strict=True):
                    # Refused after an error: most likely the try that failed had worked. Not a lost lease.
                    entry.finish(accepted or entry.tried)
                self._failure_count = 0
                self._health.worked("settler")
            except Exception as error:  # noqa: BLE001 - a store may raise anything
                self._failure_count += 1
                self._health.failed("settler", error)
                self._put_back(batch)
                await self._env.sleep(self._delay())
        self._sending = None
        if self._given_up:
            self._waiting.extend(batch)
            self._abandon_waiting()

    def _put_back(self, batch: list[_Entry]) -> None:
        for entry in batch:
            entry.tried = True
            if entry.is_held():
                self._waiting.append(entry)
            else:
                entry.finish(None)

    def _abandon_waiting(self) -> None:
        while self._waiting:
            entry = self._waiting.popleft()
            if not entry.done.is_set():
                entry.finish(None)

    def _delay(self) -> float:
        delay = min(_FIRST_DELAY_SECONDS * float(1 << min(self._failure_count, 10)), _LONGEST_DELAY_SECONDS)
        return delay * (0.5 + self._env.random() / 2)
