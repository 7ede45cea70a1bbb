"""The loops of one process, wired together: those that run tasks, and those that tell other processes of them."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import anyio
from anyio.abc import TaskGroup

from hookware.alarms import Alarms
from hookware.config import Config
from hookware.core.lifecycle import Failed
from hookware.delivery import Call, Delivery, Target, begin
from hookware.dispatcher import Dispatcher
from hookware.encoding import decoded
from hookware.env import Env, Wake
from hookware.errors import Error, PermanentTaskFailure, describe
from hookware.executed import Executed
from hookware.foreground import Foreground
from hookware.health import Health
from hookware.heartbeat import Heartbeat
from hookware.listener import Listener
from hookware.log import fields_of, log_of
from hookware.minutes import Minutes
from hookware.notifier import Notifier
from hookware.owner import current_owner
from hookware.presence import Doing, Presence
from hookware.progress import ProgressLog
from hookware.reaper import Reaper
from hookware.scheduler import Planned, Scheduler
from hookware.store.base import Store
from hookware.store.sql import minutes
from hookware.store.sql.outbox import Outbox
from hookware.store.sql.still_file import StillFile
from hookware.supervisor import supervise
from hookware.tracing import Tracing
from hookware.watcher import Watcher

Begin = Callable[[Delivery, Alarms, Callable[[Call], None]], Call | Failed]

_logger = log_of()
_LAST_SECONDS = 2.0  # what the last notice may take, and the last counts


class Storing:
    """Tells other processes of the tasks that are committed in this one, which runs none itself."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._health = Health(outbox.env)
        self._notifier = Notifier(outbox.notices, outbox.env, self._health)
        self._presence = Presence(outbox, current_owner(outbox.env), self._health)

    async def start(self, loops: TaskGroup) -> None:
        """Tell others of tasks from now on."""
        self._outbox.on_committed = self._notifier.notify
        self._outbox.vitals.begin(lambda: self._health.failing)
        if self._outbox.notices is not None:
            loops.start_soon(self._outbox.vitals.watch, "notifier", self._notifier.run)
        loops.start_soon(self._outbox.vitals.watch, "presence", self._presence.run)

    async def stop(self) -> None:
        """Go on: tasks may still be committed."""
        self._outbox.vitals.stop()
        self._presence.stop()

    async def close(self) -> None:
        """Tell others of what they have not heard of yet."""
        await _close(self._outbox, self._notifier.close, self._presence.close)


class Processing:
    """Dispatches the tasks of an outbox into a target, from `start` to `stop`; tells others of tasks until `close`.

    Args:
        outbox: where the tasks are.
        target: where they go.
        foreground: knows the requests of this process.
        plans: the cron entries.
        store, config, env: in the place of the outbox's, for a test that runs tasks one by one.
    """

    def __init__(
        self,
        outbox: Outbox,
        target: Target,
        foreground: Foreground | None = None,
        plans: Sequence[Planned] = (),
        *,
        store: Store | None = None,
        config: Config | None = None,
        env: Env | None = None,
    ) -> None:
        events, store = outbox.events, store or outbox.store
        env, config = env or outbox.env, config or outbox.config
        health = Health(env)
        heartbeat = Heartbeat(store, env, config, health)
        self._outbox, self._heartbeat = outbox, heartbeat
        owner = current_owner(env)
        self._call: Begin = partial(begin, target, env=env, config=config)
        self._notifier = Notifier(outbox.notices, env, health)
        foreground = foreground or Foreground(env, config)
        self._probe = partial(supervise, "foreground", foreground.probe, env=env, events=events, health=health)
        self._probing = anyio.CancelScope()
        self._dispatcher = Dispatcher(
            store=store,
            deliver=self._deliver,
            heartbeat=heartbeat,
            env=env,
            config=config,
            events=events,
            owner=owner,
            hurry=outbox.runner.hurry,
            foreground=foreground,
            health=health,
            on_left_over=self._notifier.left_over,
            rests=self._rests,
            is_told=self._is_told,
        )
        self._progress = ProgressLog(store, env, events, health)
        self._note_progress = self._progress.note  # one for all: a method is made anew each time it is asked for
        wake = self._dispatcher.wake
        self._reaper = Reaper(store, env, config, events, wake, is_held=heartbeat.holds, health=health)
        self._scheduler, self._has_plans = Scheduler(outbox, plans, health), bool(plans)
        self._executed = Executed(outbox.note_executed, env, events, health)
        self._minutes = Minutes(self._add_minutes, env, events, health)
        self._presence = Presence(outbox, owner, health, self._doing)
        self._stopped = False
        self._watcher = _watcher_of(outbox, wake, env, health)
        self._listener: Listener | None = None
        if outbox.notices is not None and outbox.listens:
            self._listener = Listener(outbox.notices, wake, env=env, config=config, events=events, health=health)

    async def start(self, loops: TaskGroup) -> None:
        """Start the loops, and wake them from now on whenever tasks are committed in this process."""
        self._outbox.on_committed, self._outbox.hand_off = self._committed, self._dispatcher.hand_off
        self._outbox.store.on_cancelled = self._dispatcher.cancelled
        vitals = self._outbox.vitals
        vitals.begin(lambda: self._dispatcher.health.failing)
        for name, run in self._loops():
            loops.start_soon(vitals.watch, name, run, name=str(getattr(run, "__qualname__", name)))

    def _loops(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        if self._outbox.notices is not None:
            yield "notifier", self._notifier.run
        yield "dispatcher", self._dispatcher.run
        yield "reaper", self._reaper.run
        yield "foreground", self._measure_lag
        if self._has_plans:
            yield "scheduler", self._scheduler.run
        yield "progress", self._progress.run
        yield "executed", self._executed.run
        yield "minutes", self._minutes.run
        yield "presence", self._presence.run
        if self._watcher is not None:
            yield "watcher", self._watcher.run
        if self._listener is not None:
            yield "listener", self._listener.run

    async def stop(self) -> None:
        """Stop claiming, let running tasks end for the drain time, give the others back."""
        if self._stopped:
            return
        self._stopped = True
        self._outbox.vitals.stop()
        self._probing.cancel()
        if self._watcher is not None:
            self._watcher.stop()
        self._scheduler.stop()
        self._outbox.on_committed, self._outbox.hand_off = self._notifier.notify, None  # nobody here runs them any more
        try:
            async with anyio.create_task_group() as stopping:
                stopping.start_soon(self._reaper.stop)
                if self._listener is not None:
                    stopping.start_soon(self._listener.stop)
                await self._dispatcher.stop()
        finally:
            self._progress.stop()
            self._outbox.runner.relax()
            for each in (self._executed, self._minutes, self._presence):
                each.stop()  # not before: a process that drains is alive
            self._notifier.notify()  # of what was given back

    def cut_short(self) -> None:
        """Let running tasks end no longer: at the stop, under way or to come, they are cancelled and given back."""
        self._dispatcher.cut_short()

    async def is_drained(self) -> bool:
        """Say whether no task is due and none runs here, those of dead processes on this host included.

        Tasks that other processes run do not count, nor do those that wait for their time, or for a retry's.
        """
        return self._reaper.has_reaped and await self._dispatcher.is_drained()

    async def close(self) -> None:
        """Tell others of what was given back, or committed since, and write down what was counted."""
        last = (self._executed.close, self._minutes.close, self._presence.close)
        await _close(self._outbox, self._notifier.close, *last)

    async def _add_minutes(self, gathered: minutes.Gathered) -> None:
        await self._outbox.runner.run(partial(minutes.add, clock=self._outbox.own_clock, gathered=gathered))

    def _doing(self) -> Doing:
        return Doing(self._dispatcher.running_count, self._dispatcher.slowdown.seconds())

    def _deliver(self, delivery: Delivery, alarms: Alarms, on_ended: Callable[[Call], None]) -> Call | Failed:
        if not self._rests(delivery):
            delivery.on_progress = self._note_progress
        try:
            delivery.task = decoded(self._outbox.config.codec, delivery.task)
        except Error as error:
            return Failed(None, describe(error), permanent=isinstance(error, PermanentTaskFailure))
        tracing = self._outbox.tracing
        if tracing is None:
            return self._call(delivery, alarms, on_ended)
        return _traced(tracing, self._call, delivery, alarms, on_ended)

    def _rests(self, delivery: Delivery) -> bool:
        # What was refused for what had changed since its begin may have met a renewal of its own lease.
        return self._outbox.keeps_snapshots or delivery.sees_snapshot

    def _is_told(self) -> bool:
        return self._listener is not None and self._listener.hears

    async def _measure_lag(self) -> None:
        with self._probing:
            await self._probe()

    def _committed(self) -> None:
        self._notifier.owe()
        self._dispatcher.wake.notify()


def _watcher_of(outbox: Outbox, wake: Wake, env: Env, health: Health) -> Watcher | None:
    if not outbox.store.path:
        return None
    file = StillFile(outbox.store.path, env)
    return Watcher(file, outbox.store, wake, env=env, events=outbox.events, health=health)


def _traced(
    tracing: Tracing, call: Begin, delivery: Delivery, alarms: Alarms, on_ended: Callable[[Call], None]
) -> Call | Failed:
    """Call the app within a trace, of which the request's headers tell."""
    trace = tracing.begin(delivery.task)
    delivery.task, delivery.trace = replace(delivery.task, headers=trace.headers), trace.entered

    def ended(ended_call: Call) -> None:
        try:
            trace.end(ended_call.outcome(), ended_call.error())
        except Exception:
            _logger.exception(
                "task %s: its trace could not be ended", delivery.task.label, extra=fields_of(delivery.task)
            )
        finally:
            on_ended(ended_call)  # whatever became of the trace: the slot is to be given back

    begun = call(delivery, alarms, ended)
    if isinstance(begun, Failed):
        trace.end(begun, None)
    return begun


async def _close(outbox: Outbox, *last: Callable[[], Awaitable[None]]) -> None:
    outbox.on_committed = outbox.store.on_cancelled = outbox.hand_off = None
    outbox.vitals.end()
    until = anyio.current_time() + _LAST_SECONDS
    try:
        for each in last:
            outbox.runner.hurry(max(0.0, until - anyio.current_time()))  # for all of them together
            await each()
    finally:
        outbox.runner.relax()
