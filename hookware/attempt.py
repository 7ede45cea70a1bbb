"""A claimed task in its slot: what the dispatcher knows of it, and how often it is delivered."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import anyio

from hookware.config import Config
from hookware.core.lifecycle import COMPLETE, Conflicted, Decision, Outcome, Succeeded, decide
from hookware.core.task import LeasedTask
from hookware.delivery import Delivery
from hookware.env import Env

_MOST_CONFLICTS = 20


class Calling(Protocol):
    """A call of the app that is under way."""

    def cut(self) -> None:
        """Cut it short."""

    def outcome(self) -> Outcome:
        """Judge it, once it has ended."""
        ...


class Attempt:
    """A claimed task that holds a slot.

    Attributes:
        task, lease: the task, as it was claimed.
        claimed_at: when the claim was sent, by `Env.monotonic`.
        delivery: what is on its way through the app, or about to be.
        waiting: what cuts it short while it waits, if it does.
        call: its call of the app, while there is one.
        began_at: when it was first delivered, by `Env.monotonic`; 0: not yet.
        lost: its lease has gone to another attempt, or can no longer be relied on.
        settling: its outcome is being stored.
        holds_slot: nothing else is to run in its place.
        postponed: it is to be given back and not begun.
        delay_us: for how long nobody is to take it then.
        after: the attempts that must have ended before it begins.
    """

    def __init__(self, task: LeasedTask, claimed_at: float) -> None:
        self.task = task
        self.lease = task.lease
        self.claimed_at = claimed_at
        self.delivery = Delivery(task)
        self.waiting: anyio.CancelScope | None = None
        self.call: Calling | None = None
        self.began_at = 0.0
        self._conflict_count = 0
        self.lost = False
        self.settling = False
        self.holds_slot = True
        self.postponed = False
        self.delay_us = 0
        self.after: Sequence[Attempt] = ()
        self._ended = False
        self._ends: anyio.Event | None = None  # few are waited for

    def is_ending(self) -> bool:
        """Say whether the result is being stored, or has been, by hookware or by the handler's own transaction."""
        return self.settling or self.delivery.completing

    def late_seconds(self, now: float) -> float:
        """Give how long its task has been due: by the database's time, carried on by a clock that never steps."""
        return max(0.0, (self.task.claimed_us - self.task.eta_us) / 1e6 + now - self.claimed_at)

    async def turn(self) -> None:
        """Wait for the attempts beside which this one must not run."""
        if not self.postponed:
            for other in self.after:
                await other.wait_ended()

    def end(self) -> None:
        """Note that the slot is free."""
        self._ended = True
        if self._ends is not None:
            self._ends.set()

    async def wait_ended(self) -> None:
        """Wait until the slot is free."""
        self._ends = self._ends or anyio.Event()
        if not self._ended:
            await self._ends.wait()

    def cut(self) -> None:
        """Cut it short, whether it waits or runs; not where its result is being stored."""
        if self.waiting is not None:
            self.waiting.cancel()
        if self.call is not None:
            self.call.cut()

    def decision(self, outcome: Outcome, config: Config, env: Env) -> Decision:
        """Say what is to become of its task."""
        if isinstance(outcome, Succeeded):
            return COMPLETE  # it depends on nothing else, and most do
        # The database's time, carried on by a clock that never steps.
        now_us = self.task.claimed_us + int((env.monotonic() - self.claimed_at) * 1e6)
        return decide(self.task, outcome, config.circumstances(self.task, now_us=now_us, jitter=env.random()))

    def may_try_again(self, outcome: Outcome) -> bool:
        """Say whether its transaction met another one, and not too often yet."""
        if not isinstance(outcome, Conflicted) or self._conflict_count == _MOST_CONFLICTS:
            return False
        self._conflict_count += 1
        return True

    def again(self, now: float) -> bool:
        """Get ready to be delivered once more, within the same deadline; False if that is over."""
        left_us = self.task.deadline_us - int((now - self.began_at) * 1e6)
        last, again = self.delivery, replace(self.task, deadline_us=left_us)
        self.delivery = Delivery(again, collided=last.collided, sees_snapshot=last.sees_snapshot)
        self.delivery.completion = last.completion
        return left_us > 0
