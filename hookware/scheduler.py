"""Fires cron entries: each time once, in whichever process is first, as a task of the queue `__cron`.

Every process that runs tasks looks at the entries, which all have a row with their next time. Whoever moves that time
on adds the task, in one transaction; who comes second finds the time moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
import anyio.lowlevel

from hookware.core.cron import CronEntry, firing, sooner
from hookware.core.queue import CRON_QUEUE
from hookware.core.schedule import Schedule
from hookware.core.task import Draft
from hookware.core.url import canonical_url
from hookware.errors import ConfigurationError
from hookware.events import CronFired
from hookware.health import Health
from hookware.schedules import schedule
from hookware.store.sql import cron_rows
from hookware.store.sql.cron_rows import CronRow, Move
from hookware.store.sql.outbox import Outbox
from hookware.supervisor import supervise

LONGEST_POLLS: Final = 30
"""The longest sleep, in polls: what other processes do to an entry is seen then, and a clock that was set."""

_SPREAD_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Planned:
    """An entry, and its schedule as a value."""

    entry: CronEntry
    schedule: Schedule

    def first_us(self, now_us: int) -> int | None:
        """Give the first time after now.

        Raises:
            ValueError: the schedule gives one that has passed: whoever believed it would turn in circles.
        """
        return self.checked(self.schedule.next_after(now_us), now_us)

    def checked(self, next_us: int | None, now_us: int) -> int | None:
        """Give a next time that has not passed; raise ValueError for one that has."""
        if next_us is not None and next_us <= now_us:
            raise ValueError(
                f"the schedule {self.entry.schedule!r} gives {next_us} as its next time, which is not after {now_us}: "
                "this is an error in hookware; report it, and write another schedule until it is mended"
            )
        return next_us


def planned(entries: Sequence[CronEntry]) -> list[Planned]:
    """Read the schedules of entries; of two with one name the later one counts.

    Raises:
        InvalidScheduleError: a schedule or a time zone cannot be read.
        ConfigurationError: something else about an entry is not valid.
    """
    for entry in entries:
        if (problem := entry.problem()) is not None:
            raise ConfigurationError(f"the cron entry {entry!r} is refused: {problem}")
    by_name = {entry.name: entry for entry in entries}
    return [Planned(entry, schedule(entry.schedule, entry.timezone)) for entry in by_name.values()]


def draft_of(entry: CronEntry, at_us: int | None) -> Draft:
    """Give the task of an entry that has come due at `at_us`; None: now."""
    deadline = entry.attempt_deadline_seconds
    return Draft(
        queue_name=CRON_QUEUE,
        name=None,
        method="GET",
        url=canonical_url(entry.url),
        headers=(),
        body=b"",
        eta_us=at_us,
        retry=entry.run_retry,
        deadline_us=None if deadline is None else int(deadline * 1e6),
    )


class Scheduler:
    """The loop of one process."""

    def __init__(self, outbox: Outbox, plans: Sequence[Planned], health: Health) -> None:
        self._outbox, self._env, self._health = outbox, outbox.env, health
        self._plans = {plan.entry.name: plan for plan in plans}
        self._grace_us = int(outbox.config.cron_grace_seconds * 1e6)
        self._poll_seconds = outbox.config.poll_seconds
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        """Fire until `stop()`."""
        if not self._plans:
            return
        events = self._outbox.events
        with self._scope:
            await supervise("scheduler", self._fire_forever, env=self._env, events=events, health=self._health)

    def stop(self) -> None:
        """Fire nothing any more; what is on its way to the database is committed or not, which is both right."""
        self._scope.cancel()

    async def _fire_forever(self) -> None:
        while True:
            seconds = await self.fire_due()
            self._health.worked("scheduler")
            # Not all processes at the same moment.
            await self._env.sleep(seconds + self._env.random() * _SPREAD_SECONDS)

    async def fire_due(self) -> float:
        """Fire what is due; give the seconds until something may be due again.

        An entry that cannot be fired does not hold up the others: what it raises is raised at the end.
        """
        began = self._env.monotonic()
        now_us, rows = await self._look()
        errors = list[Exception]()
        if len(rows) < len(self._plans):
            now_us, rows = await self._make_missing(now_us, rows, errors)
        dues_us = list[int | None]()
        for row in rows.values():
            await anyio.lowlevel.checkpoint_if_cancelled()  # a stop does not interrupt what is asked of the database
            try:
                dues_us.append(await self._advance(row, now_us))
            except Exception as error:  # noqa: BLE001 - whatever it is, the others have their turn
                errors.append(error)
        if errors:
            raise errors[0]
        took = self._env.monotonic() - began
        seconds = [(due_us - now_us) / 1e6 - took for due_us in dues_us if due_us is not None]
        return max(0.0, min([self._poll_seconds * LONGEST_POLLS, *seconds]))

    async def _look(self) -> tuple[int, dict[str, CronRow]]:
        clock, names = self._outbox.own_clock, list(self._plans)
        return await self._outbox.runner.run(partial(cron_rows.look, clock=clock, names=names), write=False)

    async def _make_missing(
        self, now_us: int, rows: dict[str, CronRow], errors: list[Exception]
    ) -> tuple[int, dict[str, CronRow]]:
        firsts = dict[str, tuple[str, int | None]]()
        for name, plan in self._plans.items():
            try:
                if name not in rows:
                    firsts[name] = (plan.entry.schedule, plan.first_us(now_us))
            except Exception as error:  # noqa: BLE001 - as above
                errors.append(error)
        if not firsts:
            return now_us, rows
        await self._outbox.runner.run(partial(cron_rows.make, firsts=firsts))
        return await self._look()

    async def _advance(self, row: CronRow, now_us: int) -> int | None:
        """Fire one entry if it is due; give when to look at it again, None: at leisure."""
        plan, soon_us = self._plans[row.name], now_us + int(self._poll_seconds * 1e6)
        if row.paused:
            # Whoever resumes it before its time is in time.
            return row.next_us if row.next_us is not None and row.next_us > now_us else None
        if plan.schedule.counts_from_end and row.next_us is None:
            if row.is_running:
                return soon_us
            next_us = plan.first_us(now_us)
            await self._move(Move(row, next_us))
            return next_us
        if row.next_us is None:
            return None
        if row.next_us > now_us:
            sooner_us = sooner(plan.schedule, row.next_us, row.last_us, now_us, self._grace_us)
            if sooner_us is not None:
                await self._move(Move(row, plan.checked(sooner_us, now_us)))
            return sooner_us or row.next_us
        decided = firing(plan.schedule, row.next_us, now_us, self._grace_us)
        waits_for_end = plan.schedule.counts_from_end and decided.fire_us is not None
        next_us = None if waits_for_end else plan.checked(decided.next_us, now_us)
        await self._move(self._firing(row, next_us, decided.fire_us))
        return soon_us if waits_for_end else next_us

    def _firing(self, row: CronRow, next_us: int | None, fire_us: int | None) -> Move:
        if fire_us is None:
            return Move(row, next_us)
        task = self._outbox.new_task(draft_of(self._plans[row.name].entry, fire_us))
        return Move(row, next_us, fire_us, task, until_us=fire_us + self._grace_us)

    async def _move(self, move: Move) -> None:
        self._env.fp("cron.fire.before")
        fired = await self._outbox.runner.run(partial(cron_rows.fire, clock=self._outbox.own_clock, move=move))
        self._env.fp("cron.fire.committed")
        if fired and move.task is not None and move.fire_us is not None:
            self._outbox.events.emit(CronFired(move.seen.name, move.fire_us, move.task.id))
            self._outbox.committed(1)
