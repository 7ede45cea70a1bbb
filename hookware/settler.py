"""Stores what became of attempts, many in one commit: while one settle is on its way, the next ones gather.

Settling is fenced, so trying again after an error is safe, and needed: an error does not say what was committed.
"""

import math
from collections.abc import Callable
from enum import Enum

import anyio

from hookware.env import Env
from hookware.health import Health
from hookware.store.base import Settlement, Store

_FIRST_DELAY_SECONDS = 0.05
_LONGEST_DELAY_SECONDS = 2.0


class Answer(Enum):
    """What became of a settlement."""

    ACCEPTED = "accepted"
    REFUSED = "refused: the task had been given to another attempt"
    UNKNOWN = "refused after an error: either the try that failed had worked, or another attempt has the task"
    GIVEN_UP = "given up: the store did not answer while the lease was ours"


class _Entry:
    """A settlement on its way, until it is done."""

    def __init__(
        self, settlement: Settlement, is_held: Callable[[], bool], on_answer: Callable[[Answer], None]
    ) -> None:
        self.settlement = settlement
        self.is_held = is_held
        self.is_done = False
        self.tried = False
        self.fault_count = 0  # how often it failed while the store took others
        self.success_count = 0  # the settler's, when it last failed
        self.due_at = 0.0
        self._on_answer = on_answer

    def finish(self, answer: Answer) -> None:
        self.is_done = True
        self._on_answer(answer)


class Settler:
    """Settles for many attempts at once; `run` is its loop."""

    def __init__(self, store: Store, env: Env, health: Health) -> None:
        self._store = store
        self._env = env
        self._health = health
        self._untried: list[_Entry] = []
        self._tried: list[_Entry] = []
        self._is_turn_of_tried = False
        self._news = anyio.Event()
        self._failure_count = 0
        self._success_count = 0
        self._closed = False
        self._given_up = False
        self._sending: anyio.CancelScope | None = None
        self._pause: anyio.CancelScope | None = None

    def settle(self, settlement: Settlement, is_held: Callable[[], bool], on_answer: Callable[[Answer], None]) -> None:
        """Settle, again and again while the store raises and `is_held()` says that the lease is still ours.

        `on_answer` is called once, with what became of it; it must not raise.
        """
        if self._given_up:
            on_answer(Answer.GIVEN_UP)
            return
        self._untried.append(_Entry(settlement, is_held, on_answer))
        self._news.set()
        if self._pause is not None:
            self._is_turn_of_tried = False
            self._pause.cancel()

    def close(self) -> None:
        """Let `run` return once nothing waits."""
        self._closed = True
        self._news.set()

    def give_up(self) -> None:
        """Try nothing again from now on, and break off what hangs: time is up."""
        self._given_up = True
        self._news.set()
        if self._sending is not None:
            self._sending.cancel()

    async def run(self) -> None:
        """Settle what comes, until closed; not cancelled while attempts wait for it."""
        with anyio.CancelScope(shield=True):
            while self._untried or self._tried or not self._closed:
                batch = self._next_batch()
                try:
                    await (self._settle_batch(batch) if batch else self._wait())
                except anyio.get_cancelled_exc_class():  # by asyncio's own means, when its loop ends
                    self._given_up = True
                    self._abandon(batch + self._untried + self._tried)
                    raise
                finally:
                    self._keep_unfinished(batch)
                if self._given_up:
                    self._abandon(self._untried + self._tried)

    def _next_batch(self) -> list[_Entry]:
        """Take what is tried next: all that is new, or in turn with that, alone, one that has failed before."""
        # Alone, because a settlement that the store cannot take must not hold up the others, again and again.
        first = min(self._tried, key=lambda entry: entry.due_at, default=None)
        is_due = first is not None and first.due_at <= self._env.monotonic()
        if first is not None and is_due and (self._is_turn_of_tried or not self._untried):
            self._is_turn_of_tried = False
            self._tried.remove(first)
            return [first]
        self._is_turn_of_tried = True
        batch, self._untried = self._untried, []
        return batch

    async def _wait(self) -> None:
        """Wait for something new, or until one that has failed is due."""
        self._news = anyio.Event()
        due_at = min((entry.due_at for entry in self._tried), default=math.inf)
        with anyio.move_on_after(due_at - self._env.monotonic()):
            await self._news.wait()

    async def _settle_batch(self, batch: list[_Entry]) -> None:
        with anyio.CancelScope() as self._sending:
            try:
                self._env.fp("dispatch.settle.before")
                results = await self._store.settle([entry.settlement for entry in batch])
                self._env.fp("dispatch.settle.settled")
                for entry, accepted in zip(batch, results, strict=True):
                    if not accepted and entry.tried:
                        entry.finish(Answer.UNKNOWN)
                    else:
                        entry.finish(Answer.ACCEPTED if accepted else Answer.REFUSED)
                self._failure_count = 0
                self._success_count += 1
                if not self._tried:
                    self._health.worked("settler")
            except Exception as error:  # noqa: BLE001 - a store may raise anything
                self._health.failed("settler", error)
                await self._put_back(batch)
        self._sending = None

    async def _put_back(self, batch: list[_Entry]) -> None:
        """Keep what failed, to be tried again: after a while, which what is itself at fault waits alone."""
        is_alone = len(batch) == 1
        for entry in batch:
            # Once it has failed where others had not, the fault is its own, and not the store's.
            is_at_fault = is_alone and entry.tried and (entry.fault_count or entry.success_count < self._success_count)
            entry.fault_count += bool(is_at_fault)
            entry.tried, entry.success_count = True, self._success_count
            entry.due_at = self._env.monotonic() + (self._delay(entry.fault_count) if is_at_fault else 0)
            if entry.is_held():
                self._tried.append(entry)
            else:
                entry.finish(Answer.GIVEN_UP)
        if not (is_alone and batch[0].fault_count):
            self._failure_count += 1
            with anyio.CancelScope() as pause:
                self._pause = pause if is_alone else None  # then something new may well be taken
                await self._env.sleep(self._delay(self._failure_count))
            self._pause = None

    def _keep_unfinished(self, batch: list[_Entry]) -> None:
        """Whatever broke off, forget nobody who waits; whether the store has settled is not known then."""
        for entry in batch:
            if not entry.is_done and entry not in self._tried:
                entry.tried = True
                self._tried.append(entry)

    def _abandon(self, entries: list[_Entry]) -> None:
        self._untried, self._tried = [], []
        for entry in entries:
            if not entry.is_done:
                entry.finish(Answer.GIVEN_UP)

    def _delay(self, count: int) -> float:
        delay = min(_FIRST_DELAY_SECONDS * float(1 << min(count, 10)), _LONGEST_DELAY_SECONDS)
        return delay * (0.5 + self._env.random() / 2)
