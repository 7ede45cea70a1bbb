"""What people ask of an installation: how it is, why a task does not run, what is wrong; and acting on many tasks.

Every answer costs the same however many tasks there are: counts stop at a cap, and lists at what a page may look at.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import anyio

from hookware.core.amounts import Count
from hookware.core.filter import Filter, parse
from hookware.core.overview import Errors, Finding, Overview, Process, QueueOverview
from hookware.core.queue import CRON_QUEUE
from hookware.core.statistics import Minutes
from hookware.core.why import Why, why
from hookware.owner import is_dead
from hookware.store.sql import bulk, checking, choosing, facts, failures, minutes, overview, processes
from hookware.store.sql.asking import Context
from hookware.store.sql.minutes import ALL_QUEUES, MOST_MINUTES
from hookware.store.sql.outbox import Outbox
from hookware.store.views import Action, BulkProgress, Page, TaskDetail

T = TypeVar("T")

MAX_PAGE: Final = 500
"""The longest page of a list."""


class Insight:
    """Reads about the installation that a Hookware belongs to: all queues and processes on its database.

    It has no loops of its own, and takes no more than one of hookware's connections at a time. Every method is async;
    in a script, `anyio.run(hookware.insight.overview)`.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._turn = anyio.CapacityLimiter(1)

    # How it is.

    async def overview(self) -> Overview:
        """Give the queues with their bounded counts and settings, the processes, and what ended lately."""
        return (await self._read(overview.look)).overview

    async def queue(self, name: str) -> QueueOverview:
        """Give one queue; one that nobody has heard of is empty and has the settings that it would have."""
        [found] = (await self._read(partial(overview.look, only=name))).overview.queues
        return found

    async def minutes(self, *, queue_name: str | None = None, minute_count: int = 60, step: int = 1) -> list[Minutes]:
        """Give what ended in each of the last minutes, the oldest first, minutes without anything included.

        Args:
            queue_name: of which queue; None: of all together.
            minute_count: how many minutes back, the one that has begun included; at most seven days.
            step: how many minutes each value puts together.
        """
        if not 1 <= step <= minute_count <= MOST_MINUTES:
            raise ValueError(
                f"minute_count={minute_count} and step={step} do not fit: minute_count may be from step to "
                f"{MOST_MINUTES}, and step must be at least 1"
            )
        name = ALL_QUEUES if queue_name is None else queue_name
        return await self._read(partial(minutes.last, queue_name=name, step=step, count=-(-minute_count // step)))

    async def errors(self, *, queue_name: str | None = None, limit: int = 20) -> Errors:
        """Group the errors of the tasks that died last, and of those that wait for a retry, the largest group first."""
        return await self._read(partial(failures.of, queue_name=queue_name, limit=limit))

    async def processes(self) -> list[Process]:
        """List the processes with a Hookware on this database, the living ones first, then the last day's gone ones."""
        return await self._read(processes.known)

    async def check(self) -> list[Finding]:
        """Look for whatever is wrong, in all queues and processes; a healthy installation has no findings."""
        return (await self._check()).findings

    async def checked_overview(self) -> tuple[Overview, list[Finding]]:
        """Give the overview with what `check` finds in it: both for the price of the second."""
        checked = await self._check()
        return checked.overview or await self.overview(), checked.findings

    async def _check(self) -> checking.Checked:
        return await self._run(partial(checking.check, context=self._context, own_clock=self._outbox.env.now_us))

    # One task.

    async def task(self, task_id: int) -> TaskDetail | None:
        """Give one task in full; None: there is none with this id, any more."""
        return await self._read(partial(facts.detail, task_id=task_id))

    async def why(self, task_id: int) -> Why:
        """Say why a task does not run, in a sentence with numbers; or that it runs, or has ended."""
        return why(await self._read(partial(facts.gather, task_id=task_id)))

    # Many tasks.

    async def list(self, where: Filter | str = "", *, after: str | None = None, limit: int = 50) -> Page:
        """List the tasks that a filter chooses, a page at a time.

        Waiting ones come in the order in which they are due, dead and completed ones the latest first, all states
        together the last added first.

        Args:
            where: which; see the reference of filters. Empty: all.
            after: the `after` of the page before; None: the first page.
            limit: how many, at most 500.

        Raises:
            FilterError: the filter cannot be read, or `after` is none of this filter's pages.
        """
        chosen, place = _parsed(where), None if after is None else choosing.place_of(after)
        most = max(1, min(limit, MAX_PAGE))
        return await self._read(partial(choosing.listed, chosen=chosen, after=place, limit=most))

    async def count(self, where: Filter | str = "") -> Count:
        """Count the tasks that a filter chooses, as far as that is cheap: see `Count.more`.

        Raises:
            FilterError: the filter cannot be read.
        """
        return await self._read(partial(choosing.count, chosen=_parsed(where)))

    async def bulk(
        self,
        action: Action,
        where: Filter | str,
        *,
        resume: str | None = None,
        on_progress: Callable[[BulkProgress], None] | None = None,
    ) -> BulkProgress:
        """Do something to all tasks that a filter chooses, in short transactions.

        "retry" makes dead tasks due as if never tried; "delete" removes those that do not run; "cancel" calls off those
        that wait or run. Each task that is there when it begins is looked at once: none that dies or is added
        meanwhile is touched, and none is done twice. Cancel it whenever you like: what is done is done, and either
        the token of the last progress, or the same call anew, goes on with the rest.

        Args:
            action: what to do.
            where: to which tasks; it must not be empty.
            resume: the token of a progress of the same action and filter.
            on_progress: called after each transaction.

        Raises:
            FilterError: the filter cannot be read, or the token is not of this action and filter.
            TransientError: the database stayed busy; the last progress is good.
        """
        token = resume
        while True:
            progress = await self.bulk_step(action, where, resume=token)
            token = progress.token
            if on_progress is not None:
                on_progress(progress)
            if progress.is_complete:
                return progress

    async def bulk_step(self, action: Action, where: Filter | str, *, resume: str | None = None) -> BulkProgress:
        """Do one transaction's worth of `bulk`: for whoever shows progress by asking again, such as a web page."""
        outbox = self._outbox
        begun = bulk.begin(action, _parsed(where), resume)
        await outbox.prepare()
        rules = bulk.Rules(outbox.own_clock, outbox.tombstone_us, outbox.store.retention)
        async with self._turn:
            moved, cut = await outbox.runner.run(partial(bulk.step, bulk=begun, rules=rules))
        for task_id in cut:
            outbox.store.called_off(task_id)
        if moved.done_count > begun.done_count and action == "retry":
            outbox.changed()
        return moved.progress

    # How it is asked.

    @property
    def _context(self) -> Context:
        config = self._outbox.config
        configured = [name for name in config.queues if name != CRON_QUEUE]
        return Context(self._outbox.own_clock, config.queue, configured, is_dead)

    async def _read(self, ask: Callable[..., T]) -> T:
        await self._outbox.prepare()
        return await self._run(partial(ask, context=self._context))

    async def _run(self, ask: Callable[..., T]) -> T:
        async with self._turn:
            return await self._outbox.runner.run(ask, write=False)


def _parsed(where: Filter | str) -> Filter:
    return parse(where) if isinstance(where, str) else where
