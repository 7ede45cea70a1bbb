"""CLAIM > DELIVER > SETTLE: the whole story of a task in one process, told in this order.

The claim loop waits for a notice, the next due time, a free slot or the poll, and leases as many due tasks as there
are free slots. Each attempt then delivers its task, decides (`core.lifecycle`), and has the decision settled. At the
end: stop claiming, let the running ones end, cut the others short and give them back, and stop the heartbeat last.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio
from anyio.abc import TaskGroup

from hookware.alarms import Alarms
from hookware.attempt import Attempt
from hookware.config import Config
from hookware.core.lifecycle import Decision, Interrupted, Outcome, Release, Retry, Succeeded
from hookware.core.task import Lease
from hookware.deliverer import Begin, Deliverer
from hookware.delivery import Delivery
from hookware.env import Env, Wake
from hookware.events import AttemptSettled, Events
from hookware.foreground import Foreground
from hookware.handoff import HandOff
from hookware.health import Health
from hookware.heartbeat import Heartbeat
from hookware.last_chance import LastChance
from hookware.log import fields_of, log_of
from hookware.recorder import Recorder
from hookware.settler import Answer, Settler
from hookware.slowdown import Slowdown
from hookware.store.base import Claim, Settlement, Store
from hookware.supervisor import supervise

_CLAIM_PART = 4
"""As soon as one of so many slots is free, more is claimed, even before the results of what ran are stored."""

POLLS_WHERE_TOLD = 3  # how many times as long as elsewhere nothing is asked where others tell of their tasks

_WRITE_SECONDS = 5.0  # what a database write may take at shutdown

_logger = log_of()


class Dispatcher:
    """Runs the due tasks of a store in this process.

    Attributes:
        wake: notify it, from any thread, when tasks may be due.
        health: whether the loops are well.
        hand_off: where tasks come from that commits of this process leave leased to it.
        slowdown: the queues that are left alone because their handlers answered 503.
    """

    def __init__(  # noqa: PLR0913 - the parts it is wired from, each by keyword
        self,
        *,
        store: Store,
        deliver: Begin,
        heartbeat: Heartbeat,
        env: Env,
        config: Config,
        events: Events,
        owner: str,
        hurry: Callable[[float], None] = lambda _seconds: None,
        foreground: Foreground | None = None,
        health: Health | None = None,
        on_left_over: Callable[[], None] = lambda: None,
        rests: Callable[[Delivery], bool] = lambda _delivery: False,
        is_told: Callable[[], bool] = lambda: False,
    ) -> None:
        self.wake = Wake()
        self.health = health or Health(env)
        self._store, self._heartbeat = store, heartbeat
        self._env, self._config, self._events, self._owner = env, config, events, owner
        self._hurry, self._on_left_over, self._is_told = hurry, on_left_over, is_told
        self._settler = Settler(store, env, self.health)
        self._recorder, self.slowdown = Recorder(env, config, owner), Slowdown(env)
        self._foreground = foreground or Foreground(env, config)
        self._alarms, self.hand_off = Alarms(env), HandOff(owner, env, config, self._foreground.most_to_come)
        self._deliverer = Deliverer(
            deliver, rests, self._concluded, alarms=self._alarms, heartbeat=heartbeat,
            foreground=self._foreground, env=env, config=config, events=events,
        )  # fmt: skip
        self._last_chance = LastChance(config.crash_limit, env)
        # What runs.
        self._attempts: dict[Lease, Attempt] = {}
        self._settling_count = 0  # of these: they have ended, and wait for their result to be stored
        self._lost, self._waiting, self._idle = Wake(), anyio.CancelScope(), anyio.Event()
        # When the claim loop looks again.
        self._hinted, self._held_back = True, False
        self._due_at = self._ask_at = 0.0
        self._claims_begun = self._claims_ended = 0
        # From the start to the end.
        self._running = self._stopping = False
        self._claiming, self._claim_on_its_way = anyio.CancelScope(), anyio.CancelScope()
        self._claiming_ended = anyio.Event()
        self._draining, self._drain_until, self._ended = anyio.CancelScope(), 0.0, anyio.Event()

    async def run(self) -> None:
        """Dispatch until `stop()`; returns when nothing runs any more and every lease is given back or settled."""
        self._running = True
        self._heartbeat.start()
        try:
            async with anyio.create_task_group() as loops:
                loops.start_soon(self._supervised, "deadlines", self._alarms.run)
                loops.start_soon(self._supervised, "settler", self._settler.run)
                loops.start_soon(self._supervised, "fencing", self._cut_lost_attempts)
                try:
                    await self._run_attempts(loops)
                finally:
                    self._settler.close()
                    self._alarms.close()
                    loops.cancel_scope.cancel()
        finally:
            self._heartbeat.stop()
            self._env.fp("dispatch.shutdown.5")
            self._ended.set()

    async def stop(self) -> None:
        """Stop claiming, let running tasks end for the drain time, give the others back; then return."""
        self._begin_to_stop(self._config.drain_seconds)
        self.wake.notify()
        if not self._running:
            self._heartbeat.stop()
            return
        self._claiming.cancel()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(_WRITE_SECONDS):
                await self._claiming_ended.wait()
            self._claim_on_its_way.cancel()
            await self._ended.wait()

    def cut_short(self) -> None:
        """Let running tasks end no longer: at the stop, under way or to come, they are cancelled and given back."""
        self._begin_to_stop(drain_seconds=0)
        self._drain_until = min(self._drain_until, self._env.monotonic())
        self._draining.cancel()

    async def is_drained(self) -> bool:
        """Say whether no task is due, and none runs here."""
        begun = self._claims_begun
        if self._is_busy or self._claims_ended != begun:
            return False
        next_due_us = await self._store.next_due()
        return next_due_us != 0 and self._claims_begun == begun

    async def until_idle(self, deadline: float = float("inf")) -> None:
        """Wait until nothing runs here, and what came of it is stored; at most until the monotonic clock says so."""
        if self._is_busy:
            self._idle = anyio.Event()
            with anyio.move_on_after(deadline - self._env.monotonic()):
                await self._idle.wait()

    @property
    def running_count(self) -> int:
        """How many tasks hold a slot here."""
        return len(self._attempts) - self._settling_count

    async def _supervised(self, name: str, body: Callable[[], Awaitable[None]]) -> None:
        await supervise(name, body, env=self._env, events=self._events, health=self.health)

    async def _run_attempts(self, loops: TaskGroup) -> None:
        async with anyio.create_task_group() as attempts:
            take_over = partial(self._take_over, attempts)
            loops.start_soon(self._supervised, "hand-off", partial(self.hand_off.run, take_over))
            try:
                with self._claiming:
                    await self._supervised("dispatcher", partial(self._claim_until_stopped, attempts))
            finally:
                self._claiming_ended.set()
                with anyio.CancelScope(shield=True):
                    await self._wind_down(attempts)

    # Claim.

    async def _claim_until_stopped(self, attempts: TaskGroup) -> None:
        self._hinted = True  # after a failure, what is due is not known
        while not self._stopping:
            if await self._claim_is_worthwhile() and await self._has_its_turn():
                self._claims_begun += 1
                await self._claim(attempts)
                self._claims_ended = self._claims_begun
            self._offer()
            with anyio.CancelScope() as self._waiting:
                self._hinted = await self.wake.wait(self._pause()) or self._hinted
            self._env.fp("dispatch.wake")

    async def _claim_is_worthwhile(self) -> bool:
        if self._free_slots == 0:
            if self._hinted:
                self._on_left_over()
            return False
        now = self._env.monotonic()
        if self._hinted or now >= self._due_at:
            return True
        if now < self._ask_at:
            return False
        # Nobody said that anything is due: a claim is a write, so ask first.
        self._know_due(await self._store.next_due(self.slowdown.excluded()))
        return self._env.monotonic() >= self._due_at

    async def _has_its_turn(self) -> bool:
        """Let users go first; say whether there is a free slot then."""
        await self._foreground.turn()
        self.hand_off.offer(0)  # before the slots are counted
        return self._free_slots > 0

    async def _claim(self, attempts: TaskGroup) -> None:
        asked, sent_at = self._free_slots, self._env.monotonic()
        self._hinted = False
        self._env.fp("dispatch.claim.before")
        lease_us, exclude = int(self._config.lease_seconds * 1e6), self.slowdown.excluded()
        claim = Claim(owner=self._owner, limit=asked, lease_us=lease_us, exclude=exclude)
        # What a cancelled claim has leased would be known to nobody.
        with anyio.CancelScope(shield=True) as self._claim_on_its_way:
            claimed = await self._store.claim(claim)
            self._env.fp("dispatch.claim.claimed")
            begun = [Attempt(task, sent_at) for task in claimed.tasks]
            self._last_chance.arrange(begun, others_run=bool(self._attempts))
            self._hinted = self._hinted or self._last_chance.remaining() > 0  # what goes back is due
            self._hold(begun)
            self._held_back = claimed.held_back
            self._know_due(claimed.next_due_us)
            for attempt in begun:  # each lease is held by now: the first of them may block the loop
                self._deliverer.deliver(attempts, attempt)
            if not (claimed.tasks or claimed.cleared) and claimed.next_due_us == 0:
                self._know_due(int(self._poll() * 1e6))  # due, but not given to us: others are at them
            elif claimed.held_back or (claimed.next_due_us == 0 and len(claimed.tasks) == asked):
                self._on_left_over()  # where another's task holds them back, its process goes on with them at once

    def _offer(self) -> None:
        """Let as many tasks be committed already leased to this process as could begin: nothing else waits for that."""
        self.hand_off.offer(0)  # before the slots are counted
        self.hand_off.offer(0 if self._stopping else self._free_slots, self.slowdown.excluded())

    def _take_over(self, attempts: TaskGroup) -> None:
        """Begin what was committed here already leased to this process; give back what must not begin now."""
        begun = [Attempt(task, taken_at) for task, taken_at in self.hand_off.arrived()]
        for attempt in begun:
            attempt.postponed = self.hand_off.is_late(attempt.claimed_at) or self._last_chance.remaining() > 0
        self._hold(begun)
        for attempt in begun:
            self._deliverer.deliver(attempts, attempt)
        for lease in self.hand_off.doubtful():  # where it is not leased, that is refused
            self._settler.settle(Settlement(lease, Release()), lambda: True, self._given_back)
        self._note_idle()
        if not begun:
            self._waiting.cancel()  # a slot was given back

    def _given_back(self, answer: Answer) -> None:
        if answer is Answer.ACCEPTED:
            self.wake.notify()

    def _hold(self, begun: Sequence[Attempt]) -> None:
        now = self._env.monotonic()
        for attempt in begun:
            lease, task, sent_at = attempt.lease, attempt.task, attempt.claimed_at
            self._attempts[lease] = attempt
            self._recorder.hold(attempt)
            deadline, on_lost = now + task.deadline_us / 1e6, partial(self._on_lost, attempt)
            self._heartbeat.hold(lease, deadline, on_lost, is_ending=attempt.is_ending, renewed_at=sent_at, task=task)
        self._foreground.claimed(begun)

    def cancelled(self, task_id: int) -> None:
        """Cut the attempt of a task short that was called off or deleted, if it runs here; from any thread."""
        for attempt in list(self._attempts.values()):
            if attempt.task.id == task_id:
                text, fields = "task %s was cancelled or deleted: its attempt is cut short", fields_of(attempt.task)
                _logger.info(text, attempt.task.label, extra=fields)
                self._heartbeat.drop(attempt.lease)
                attempt.lost = True  # whatever it is about to commit would be refused
                self._lost.notify()

    def _on_lost(self, attempt: Attempt) -> None:
        if not attempt.delivery.completing:
            attempt.lost = True
            self._lost.notify()

    def _know_due(self, next_due_us: int | None) -> None:
        """Note when the next task is due, as far as is known; ask again at the poll, or when a slowed queue opens."""
        self.health.worked("dispatcher")
        now = self._env.monotonic()
        self._due_at = float("inf") if next_due_us is None else now + next_due_us / 1e6
        polls = POLLS_WHERE_TOLD if self._is_told() and not self._held_back else 1
        self._ask_at = now + min(self._poll() * polls, self.slowdown.remaining())

    def _pause(self) -> float:
        """How long to wait for a notice or a free slot."""
        if self._free_slots == 0:
            return min(self._poll(), self._last_chance.remaining() or self._foreground.presence())
        return min(self._due_at, self._ask_at) - self._env.monotonic()

    def _poll(self) -> float:
        return self._config.poll_seconds * (0.9 + self._env.random() / 10)

    @property
    def _free_slots(self) -> int:
        if self._attempts and self._last_chance.remaining() > 0:
            return 0
        # Others may begin while results are being stored; but where the store takes long, not without end.
        unsettled = max(0, self._settling_count - self._config.concurrency)
        running = len(self._attempts) - self._settling_count + unsettled
        return self._foreground.room(running + self.hand_off.taken_count)

    # Settle.

    def _concluded(self, attempt: Attempt, outcome: Outcome | None) -> None:
        """Store what came of an attempt; None: nothing did that could be stored."""
        if outcome is None or (attempt.lost and isinstance(outcome, Interrupted)):
            self._end(attempt)
            return
        attempt.settling = True
        began_at = attempt.began_at or attempt.claimed_at
        seconds, waited = self._env.monotonic() - began_at, began_at - attempt.claimed_at
        self.slowdown.note(attempt.task.queue_name, outcome)
        decision = attempt.decision(outcome, self._config, self._env)
        settled = partial(self._settled, attempt, decision, seconds, waited)
        if isinstance(outcome, Succeeded) and outcome.completed:
            settled(Answer.ACCEPTED)
        else:
            record, task = self._recorder.of(attempt, decision), attempt.task
            has_history, has_name = task.record_count > 0, task.name is not None
            settlement = Settlement(attempt.lease, decision, record=record, has_history=has_history, has_name=has_name)
            self._settling_count += 1
            attempt.holds_slot = False
            self._settler.settle(settlement, lambda: not attempt.lost, settled)
            if not self._waiting.cancel_called and self._free_slots * _CLAIM_PART >= self._config.concurrency:
                self._waiting.cancel()  # before their results are stored: many have ended

    def _settled(self, attempt: Attempt, decision: Decision, seconds: float, waited: float, answer: Answer) -> None:
        try:
            if answer is not Answer.GIVEN_UP:
                if answer is not Answer.REFUSED and isinstance(decision, Retry | Release):
                    self._due_at = min(self._due_at, self._env.monotonic() + decision.delay_us / 1e6)
                accepted = None if answer is Answer.UNKNOWN else answer is Answer.ACCEPTED
                begun = attempt.began_at > 0
                self._events.emit(AttemptSettled(attempt.task, decision, accepted, seconds, begun, waited))
            elif not attempt.lost:
                label, fields = attempt.task.label, fields_of(attempt.task)
                _logger.error("task %s: its result could not be stored; it will run again", label, extra=fields)
        finally:
            self._end(attempt)

    def _end(self, attempt: Attempt) -> None:
        """Free the slot."""
        self._heartbeat.drop(attempt.lease)
        self._settling_count -= not attempt.holds_slot
        attempt.holds_slot = True
        self._attempts.pop(attempt.lease, None)
        self._foreground.ended(attempt)
        attempt.end()
        self._note_idle()
        if self._held_back:
            self._hinted = True  # one of those that wait for another's end may begin now
        if not self._waiting.cancel_called:
            self._waiting.cancel()  # the claim loop looks again: there is a slot, and perhaps a retry to wait for

    async def _cut_lost_attempts(self) -> None:
        while True:
            await self._lost.wait(self._config.lease_seconds)
            for attempt in list(self._attempts.values()):
                if attempt.lost:
                    attempt.cut()

    # Shut down.

    async def _wind_down(self, attempts: TaskGroup) -> None:
        """Let the attempts end; cut short those that take too long, which gives their tasks back."""
        self._env.fp("dispatch.shutdown.1")
        self._begin_to_stop(drain_seconds=0)
        with self._draining:
            await self.until_idle(self._drain_until)
        self._env.fp("dispatch.shutdown.2")
        self._take_over(attempts)  # what has come meanwhile is given back
        for attempt in list(self._attempts.values()):
            attempt.cut()
        self._env.fp("dispatch.shutdown.3")
        # From now on, and not from the end of the drain time: a handler may have blocked the loop for longer.
        await self.until_idle(self._env.monotonic() + self._config.overrun_seconds + _WRITE_SECONDS)
        self._settler.give_up()
        self._hurry(0)
        await self.until_idle(self._env.monotonic() + _WRITE_SECONDS)
        self.hand_off.close()
        self._env.fp("dispatch.shutdown.4")

    def _begin_to_stop(self, drain_seconds: float) -> None:
        if not self._stopping:
            self._stopping = self._deliverer.stopping = True  # what has not begun is given back by its attempt
            self.hand_off.offer(0)
            self._drain_until = self._env.monotonic() + drain_seconds
            self._hurry(_WRITE_SECONDS)

    def _note_idle(self) -> None:
        if not self._is_busy:
            self._idle.set()

    @property
    def _is_busy(self) -> bool:
        return bool(self._attempts or self.hand_off.taken_count)
