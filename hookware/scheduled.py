"""Tasks by the clock: `@cron("every 5 minutes")` on a handler, and what people do with cron entries."""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeVar

from hookware.arguments import as_datetime
from hookware.context import hookware_here
from hookware.core.cron import CronEntry
from hookware.core.url import canonical_url
from hookware.errors import ConfigurationError, PermanentTaskFailure, UnknownCronEntryError
from hookware.handlers import TaskHandler, TaskRouter, default_router
from hookware.scheduler import Planned, draft_of, planned
from hookware.store.sql import cron_rows
from hookware.store.sql.cron_rows import CronRow
from hookware.store.sql.outbox import Outbox
from hookware.taskqueue import TaskRetryOptions
from hookware.yaml_files import load_cron

CronSource = str | PathLike[str] | Mapping[str, object] | CronEntry | Iterable[CronEntry]
"""A cron.yaml, by its path or as a mapping, or entries made in Python."""

MAX_NEXT_TIMES: Final = 1000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PATH: Final = "/_ah/cron/"
F = TypeVar("F", bound=Callable[..., Any])


def cron(
    schedule: str,
    *,
    url: str | None = None,
    timezone: str = "UTC",
    description: str = "",
    retry_options: TaskRetryOptions | None = None,
    attempt_deadline: float | timedelta | None = None,
    router: TaskRouter = default_router,
) -> Callable[[F], F]:
    """Let a function, or a task handler, run by the clock: each time once, in one of all processes.

        @cron("every 5 minutes")
        @cron("*/5 * * * *", timezone="Europe/Berlin")

    Args:
        schedule: App Engine's English, `every day 09:00`, or a crontab expression (extra `cron`).
        url: the path of the private route that is made for a plain function; left out: one by its name.
        timezone: whose clocks the schedule is for.
        description: what people are told.
        retry_options: how a run that failed is tried again, five times where it sets no limit; left out: it is not,
            the next time comes anyway.
        attempt_deadline: how long a run may take; left out: as for any task.
        router: the one of the Hookware that is to fire it.

    Raises:
        InvalidScheduleError: the schedule or the time zone cannot be read.
        ConfigurationError: the path is not valid, or another handler's; or the handler has a parameter without a
            default that is not injected: a cron task carries no values.
    """
    deadline = attempt_deadline.total_seconds() if isinstance(attempt_deadline, timedelta) else attempt_deadline

    def register(function: F) -> F:
        names = sys._getframe(1).f_locals  # as for task_handler
        given: TaskHandler[..., Any] | None = function if isinstance(function, TaskHandler) else None
        handler = given or _handler_of(function, url, names)
        if url is not None and url != handler.url:
            raise ConfigurationError(f"cron(url={url!r}) is on a handler of {handler.url!r}: leave url= out")
        _refuse_values(handler)
        entry = CronEntry(
            url=handler.url, schedule=schedule, timezone=timezone, description=description, retry=retry_options,
            attempt_deadline_seconds=deadline,
        )  # fmt: skip
        planned([entry])
        if given is None:
            router.add_handler(handler)
        elif not router.has_handler(given):
            raise ConfigurationError(f"cron() is on {given!r} of another TaskRouter: pass router= to cron, too")
        router.cron_entries.append(entry)
        return function

    return register


def _handler_of(function: Callable[..., object], url: str | None, names: Mapping[str, object]) -> TaskHandler[..., Any]:
    if url is not None:
        return TaskHandler(function, url, public=False, names=names)
    named = re.sub(r"[<>]", "", f"{function.__module__}.{getattr(function, '__qualname__', '')}")
    if named.endswith("."):
        raise ConfigurationError(f"cron() is on {function!r}, which has no name to make a path of: pass url=")
    return TaskHandler(function, canonical_url(_PATH + named), public=False, names=names)


def _refuse_values(handler: TaskHandler[..., Any]) -> None:
    try:
        handler.signature.read("GET", "", b"", b"")
    except PermanentTaskFailure as error:
        raise ConfigurationError(
            f"cron() is on a handler that needs values: {error}; a cron task carries none, give each a default"
        ) from None


def entries_of(source: CronSource) -> tuple[CronEntry, ...]:
    """Give the entries of a cron.yaml, or those that are given.

    Raises:
        ConfigurationError: the file cannot be read, or something is no entry.
        InvalidScheduleError: a schedule or a time zone cannot be read.
    """
    if isinstance(source, str | PathLike | Mapping):
        return load_cron(Path(source) if isinstance(source, str | PathLike) else source)
    given: object = source
    entries = tuple(given) if isinstance(given, Iterable) else (given,)
    for entry in entries:
        if not isinstance(entry, CronEntry):
            raise ConfigurationError(
                f"cron= takes the path of a cron.yaml, what it would say as a mapping, or a list of "
                f'CronEntry(url="/report", schedule="every day 09:00"), got {entry!r}'
            )
    planned(entries)
    return entries


@dataclass(frozen=True, slots=True, kw_only=True)
class CronStatus:
    """A cron entry as people see it; times are aware, in UTC.

    Attributes:
        name: what tells it apart, and what `run_now`, `pause` and `resume` take.
        entry: as it was configured.
        next_time: when it comes due; None: when its run has ended, or never again.
        last_time: the last time for which it ran.
        task_id: the task of that time, which may be gone.
        is_running: whether that task has yet to end.
        is_paused: whether its times pass by.
    """

    name: str
    entry: CronEntry
    next_time: datetime | None
    last_time: datetime | None
    task_id: int | None
    is_running: bool
    is_paused: bool


class Cron:
    """The cron entries of one Hookware: look at them, run one now, pause it. `cron_entries()` gives it."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._plans = {plan.entry.name: plan for plan in planned(outbox.cron_entries())}

    async def entries(self) -> list[CronStatus]:
        """Give all entries, in the order in which they were configured."""
        await self._outbox.prepare()
        rows = await self._outbox.runner.run(partial(cron_rows.read, names=list(self._plans)), write=False)
        return [self._status(name, rows.get(name)) for name in self._plans]

    def next_times(self, name: str, count: int = 5, *, after: datetime | None = None) -> list[datetime]:
        """Give the next times of an entry, by its schedule alone; of `every N` ones as if runs took no time.

        Args:
            name: the entry.
            count: how many, at most 1000; fewer if the schedule ends.
            after: from when on; without a time zone it is in UTC, as an ETA. Left out: from now, by this host's clock.

        Raises:
            UnknownCronEntryError: there is no such entry.
        """
        plan, times = self._plan(name), list[datetime]()
        at_us: int | None = self._outbox.env.now_us() if after is None else _us_of(after)
        while at_us is not None and len(times) < min(count, MAX_NEXT_TIMES):
            at_us = plan.schedule.next_after(at_us)
            if at_us is not None:
                times.append(as_datetime(at_us))
        return times

    async def run_now(self, name: str) -> int:
        """Add a task of an entry, due now and beside its times; give the task's id.

        Raises:
            UnknownCronEntryError: there is no such entry.
        """
        plan = self._plan(name)
        await self._outbox.prepare()
        task = self._outbox.new_task(draft_of(plan.entry, None))
        await self._outbox.add([task])
        return task.id

    async def pause(self, name: str) -> None:
        """Let an entry's times pass, in all processes, until `resume`."""
        await self._set_paused(name, True)

    async def resume(self, name: str) -> None:
        """Let an entry go on. Of the times that have passed, the latest one is made up for, within the grace."""
        await self._set_paused(name, False)

    async def _set_paused(self, name: str, paused: bool) -> None:
        plan, outbox = self._plan(name), self._outbox
        await outbox.prepare()
        look = partial(cron_rows.look, clock=outbox.own_clock, names=[name])
        now_us, _rows = await outbox.runner.run(look, write=False)
        first = {name: (plan.entry.schedule, plan.first_us(now_us))}
        await outbox.runner.run(partial(cron_rows.make, firsts=first))
        await outbox.runner.run(partial(cron_rows.set_paused, name=name, paused=paused))

    def _plan(self, name: str) -> Planned:
        plan = self._plans.get(name)
        if plan is None:
            raise UnknownCronEntryError(f"there is no cron entry {name[:200]!r}: entries() gives the names there are")
        return plan

    def _status(self, name: str, row: CronRow | None) -> CronStatus:
        found = row or CronRow(name, None, None, None, False)
        return CronStatus(
            name=name,
            entry=self._plans[name].entry,
            next_time=_time(found.next_us),
            last_time=_time(found.last_us),
            task_id=found.task_id,
            is_running=found.is_running,
            is_paused=found.paused,
        )


def _time(at_us: int | None) -> datetime | None:
    return None if at_us is None else as_datetime(at_us)


def _us_of(at: datetime) -> int:
    return (at.replace(tzinfo=at.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)


def cron_entries() -> Cron:
    """Look at the cron entries, run one now, pause it: for routes and scripts that did not keep the `Hookware`.

    Raises:
        ConfigurationError: there is no Hookware in this process, or several, and this is no request of one of them.
    """
    return Cron(hookware_here())


def all_entries(router: TaskRouter, configured: Iterable[CronEntry]) -> list[CronEntry]:
    """Give the entries of a router and those that were configured."""
    return [*router.cron_entries, *configured]
