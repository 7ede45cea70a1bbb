"""The loops of one process, wired together: dispatcher, heartbeat and reaper over one store."""

from functools import partial

import anyio
from anyio.abc import TaskGroup

from hookware.delivery import Target, deliver
from hookware.dispatcher import Dispatcher
from hookware.health import Health
from hookware.heartbeat import Heartbeat
from hookware.owner import current_owner
from hookware.reaper import Reaper
from hookware.store.sql.outbox import Outbox


class Processing:
    """Dispatches the tasks of an outbox into a target, from `start` to `stop`."""

    def __init__(self, outbox: Outbox, target: Target) -> None:
        env, config, events, store = outbox.env, outbox.config, outbox.events, outbox.store
        health = Health(env)
        heartbeat = Heartbeat(store, env, config, health)
        self._outbox = outbox
        self._dispatcher = Dispatcher(
            store=store,
            deliver=partial(deliver, target, env=env, config=config),
            heartbeat=heartbeat,
            env=env,
            config=config,
            events=events,
            owner=current_owner(env),
            hurry=outbox.runner.hurry,
            health=health,
        )
        wake, holds = self._dispatcher.wake, heartbeat.holds
        self._reaper = Reaper(store, env, config, events, wake, is_held=holds, health=health)

    def cut_short(self) -> None:
        """Let running tasks end no longer: at the stop, under way or to come, they are cancelled and given back."""
        self._dispatcher.cut_short()

    async def is_drained(self) -> bool:
        """Say whether no task is due and none runs here, those of dead processes on this host included.

        Tasks that other processes run do not count, nor do those that wait for their time, or for a retry's.
        """
        return self._reaper.has_reaped and await self._dispatcher.is_drained()

    async def start(self, loops: TaskGroup) -> None:
        """Start the loops, and wake them from now on whenever tasks are committed in this process."""
        self._outbox.on_committed = self._dispatcher.wake.notify
        loops.start_soon(self._dispatcher.run)
        loops.start_soon(self._reaper.run)

    async def stop(self) -> None:
        """Stop claiming, let running tasks end for the drain time, give the others back."""
        self._outbox.on_committed = lambda: None
        try:
            async with anyio.create_task_group() as stopping:
                stopping.start_soon(self._reaper.stop)
                await self._dispatcher.stop()
        finally:
            self._outbox.runner.relax()
