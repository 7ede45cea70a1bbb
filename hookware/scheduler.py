"""Fires cron entries: each time once, in whichever process is first, as a task of the queue `__cron`.

Every process that runs tasks looks at the entries, which all have a row with their next time. Whoever moves that time
on adds the task, in one transaction; who comes second finds the time moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import anyio

from hookware.core.cron import CronEntry, firing
from hookware.core.queue import CRON_QUEUE
from hookware.core.schedule import Schedule
from hookware.core.task import Draft
from hookware.events import CronFired
from hookware.health import Health
from hookware.schedules import schedule
from hookware.store.sql import cron_rows
from hookware.store.sql.cron_rows import CronRow
from hookware.store.sql.outbox import Outbox
from hookware.supervisor import supervise

_LONGEST_SECONDS = 30.0
"""The longest sleep: what another process does to an entry is seen then, and a clock that was set."""

_SPREAD_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Planned:
    """An entry, and its schedule as a value."""

    entry: CronEntry
    schedule: Schedule


def planned(entries: Sequence[CronEntry]) -> list[Planned]:
    """Read the schedules of entries; of two with one name the later one counts.

    Raises:
        InvalidScheduleError: a schedule or a time zone cannot be read.
    """
    by_name = {entry.name: entry for entry in entries}
    return [Planned(entry, schedule(entry.schedule, entry.timezone)) for entry in by_name.values()]


def draft_of(entry: CronEntry, at_us: int) -> Draft:
    """Give the task of an entry that has come due at `at_us`."""
    deadline = entry.attempt_deadline_seconds
    return Draft(
        queue_name=CRON_QUEUE,
        name=None,
        method="GET",
        url=entry.url,
        headers=(),
        body=b"",
        eta_us=at_us,
        retry=entry.retry,
        deadline_us=None if deadline is None else int(deadline * 1e6),
    )


class Scheduler:
    """The loop of one process."""

    def __init__(self, outbox: Outbox, plans: Sequence[Planned], health: Health) -> None:
        self._outbox, self._env, self._health = outbox, outbox.env, health
        self._plans = {plan.entry.name: plan for plan in plans}
        self._grace_us = int(outbox.config.cron_grace_seconds * 1e6)
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        """Fire until `stop()`."""
        if not self._plans:
            return
        with self._scope:
            events = self._outbox.events
            await supervise("scheduler", self._fire_forever, env=self._env, events=events, health=self._health)

    def stop(self) -> None:
        """Fire nothing any more; what is on its way to the database is committed or not, which is both right."""
        self._scope.cancel()

    async def _fire_forever(self) -> None:
        while True:
            seconds = await self.fire_due()
            self._health.worked("scheduler")
            # Not all processes at the same moment.
            await self._env.sleep(min(seconds, _LONGEST_SECONDS) + self._env.random() * _SPREAD_SECONDS)

    async def fire_due(self) -> float:
        """Fire what is due; give the seconds until something may be due again."""
        now_us, rows = await self._look()
        if missing := [name for name in self._plans if name not in rows]:
            firsts = {name: (self._plans[name].entry.schedule, self._first_us(name, now_us)) for name in missing}
            await self._outbox.runner.run(partial(cron_rows.make, firsts=firsts))
            now_us, rows = await self._look()
        pauses, errors = [_LONGEST_SECONDS], list[Exception]()
        for row in rows.values():
            try:
                pauses.append(_LONGEST_SECONDS if row.paused else await self._advance(row, now_us))
            except Exception as error:  # noqa: BLE001 - an entry that cannot be fired must not hold up the others
                errors.append(error)
        if errors:
            raise errors[0]
        return min(pauses)

    async def _look(self) -> tuple[int, dict[str, CronRow]]:
        clock, names = self._outbox.clock, list(self._plans)
        return await self._outbox.runner.run(partial(cron_rows.look, clock=clock, names=names), write=False)

    def _first_us(self, name: str, now_us: int) -> int | None:
        return self._plans[name].schedule.next_after(now_us)

    async def _advance(self, row: CronRow, now_us: int) -> float:
        """Fire one entry if it is due; give the seconds until it may be due."""
        plan = self._plans[row.name]
        waits_for_end = plan.schedule.counts_from_end and row.next_us is None
        if waits_for_end and row.is_running:
            return self._outbox.config.poll_seconds
        if waits_for_end:
            next_us = plan.schedule.next_after(now_us)
            await self._move(row, next_us, None)
            return _seconds_until(next_us, now_us)
        decided = firing(plan.schedule, row.next_us, now_us, self._grace_us)
        if decided.next_us == row.next_us:
            return _seconds_until(row.next_us, now_us)
        counts_from_end = plan.schedule.counts_from_end and decided.fire_us is not None
        await self._move(row, None if counts_from_end else decided.next_us, decided.fire_us)
        return self._outbox.config.poll_seconds if counts_from_end else _seconds_until(decided.next_us, now_us)

    async def _move(self, row: CronRow, next_us: int | None, fire_us: int | None) -> None:
        entry = self._plans[row.name].entry
        task = None if fire_us is None else self._outbox.new_task(draft_of(entry, fire_us))
        self._env.fp("cron.fire.before")
        move = partial(cron_rows.fire, seen=row, next_us=next_us, fire_us=fire_us, task=task)
        fired = await self._outbox.runner.run(move)
        self._env.fp("cron.fire.committed")
        if fired and task is not None and fire_us is not None:
            self._outbox.events.emit(CronFired(entry.name, fire_us, task.id))
            self._outbox.committed(1)


def _seconds_until(at_us: int | None, now_us: int) -> float:
    return _LONGEST_SECONDS if at_us is None else max(0.0, (at_us - now_us) / 1e6)
