"""A claimed task in its slot: what the dispatcher knows of it, and how often it is delivered."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio

from hookware.core.lifecycle import Conflicted, Failed, Outcome
from hookware.core.task import LeasedTask
from hookware.delivery import Delivery
from hookware.env import Env
from hookware.errors import describe

_MOST_CONFLICTS = 20
_CONFLICT_SECONDS = 0.02


class Attempt:
    """A claimed task that holds a slot.

    Attributes:
        task: the task, as it was claimed.
        claimed_at: when the claim was sent, by `Env.monotonic`.
        delivery: what is on its way through the app, or about to be.
        scope: what cuts the attempt short.
        lost: its lease has gone to another attempt, or can no longer be relied on.
        settling: its outcome is being stored.
        postponed: it is to be given back and not begun.
        delay_us: for how long nobody is to take it then.
        after: the attempts that must have ended before it begins.
        ended: set when the slot is free.
    """

    def __init__(self, task: LeasedTask, claimed_at: float) -> None:
        self.task = task
        self.claimed_at = claimed_at
        self.delivery = Delivery(task)
        self.scope = anyio.CancelScope(shield=True)  # only the dispatcher cuts an attempt short
        self.lost = False
        self.settling = False
        self.postponed = False
        self.delay_us = 0
        self.after: list[Attempt] = []
        self.ended = anyio.Event()

    def is_ending(self) -> bool:
        """Say whether the result is being stored, or has been, by hookware or by the handler's own transaction."""
        return self.settling or self.delivery.completing

    async def turn(self) -> None:
        """Wait for the attempts beside which this one must not run."""
        if not self.postponed:
            for other in self.after:
                await other.ended.wait()

    async def deliver(self, deliver: Callable[[Delivery], Awaitable[Outcome]], env: Env) -> Outcome:
        """Deliver; where the handler's transaction met another one, again at once, within the same deadline."""
        deadline = env.monotonic() + self.task.deadline_us / 1e6
        outcome = await self._deliver_once(deliver)
        for _ in range(_MOST_CONFLICTS):
            left_us = int((deadline - env.monotonic()) * 1e6)
            if not isinstance(outcome, Conflicted) or left_us <= 0:
                break
            await env.sleep(_CONFLICT_SECONDS * env.random())
            again = replace(self.task, deadline_us=left_us)
            last = self.delivery
            self.delivery = Delivery(again, collided=last.collided, sees_snapshot=last.sees_snapshot)
            outcome = await self._deliver_once(deliver)
        return outcome

    async def _deliver_once(self, deliver: Callable[[Delivery], Awaitable[Outcome]]) -> Outcome:
        try:
            return await deliver(self.delivery)
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - it is in the outcome
            return Failed(None, f"the task could not be delivered: {describe(error)}")
