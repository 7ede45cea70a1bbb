"""What people ask of an installation: how it is, why a task does not run, what is wrong; and what they do to many tasks.

Every answer costs the same however many tasks there are: counts stop at a cap, and lists at what a page may look at.
"""

from collections.abc import Callable
from typing import TypeVar

import anyio
from sqlalchemy import Connection

from hookware.core.amounts import Count
from hookware.core.filter import Filter, parse
from hookware.core.findings import findings
from hookware.core.overview import Errors, Finding, Overview, Process, QueueOverview
from hookware.core.statistics import Minutes
from hookware.core.why import Why
from hookware.store.sql.outbox import Outbox
from hookware.store.views import Action, BulkProgress, Page, TaskDetail

T = TypeVar("T")


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
        raise NotImplementedError

    async def queue(self, name: str) -> QueueOverview:
        """Give one queue; one that nobody has heard of is empty and has the settings that it would have."""
        raise NotImplementedError

    async def minutes(
        self, *, queue_name: str | None = None, minute_count: int = 60, step: int = 1
    ) -> list[Minutes]:
        """Give what ended in each of the last minutes, the oldest first, minutes without anything included.

        Args:
            queue_name: of which queue; None: of all together.
            minute_count: how many minutes back, the one that has begun included; at most seven days.
            step: how many minutes each value puts together.
        """
        raise NotImplementedError

    async def errors(self, *, queue_name: str | None = None, limit: int = 20) -> Errors:
        """Group the errors of the tasks that died last, and of those that wait for a retry, the largest group first."""
        raise NotImplementedError

    async def processes(self) -> list[Process]:
        """List the processes with a Hookware on this database, the living ones first, then the last day's gone ones."""
        raise NotImplementedError

    async def check(self) -> list[Finding]:
        """Look for whatever is wrong, in all queues and processes; a healthy installation has no findings."""
        raise NotImplementedError

    # One task.

    async def task(self, task_id: int) -> TaskDetail | None:
        """Give one task in full; None: there is none with this id, any more."""
        raise NotImplementedError

    async def why(self, task_id: int) -> Why:
        """Say why a task does not run, in a sentence with numbers; or that it runs, or has ended."""
        raise NotImplementedError

    # Many tasks.

    async def list(self, filter: Filter | str = "", *, after: str | None = None, limit: int = 50) -> Page:
        """List the tasks that a filter chooses, a page at a time.

        Waiting ones come in the order in which they are due, dead and completed ones the latest first, all states
        together the last added first.

        Args:
            filter: which; see the reference of filters. Empty: all.
            after: the `after` of the page before; None: the first page.
            limit: how many, at most 500.

        Raises:
            FilterError: the filter cannot be read, or `after` is none of this filter's pages.
        """
        raise NotImplementedError

    async def count(self, filter: Filter | str = "") -> Count:
        """Count the tasks that a filter chooses, as far as that is cheap: see `Count.more`.

        Raises:
            FilterError: the filter cannot be read.
        """
        raise NotImplementedError

    async def bulk(
        self,
        action: Action,
        filter: Filter | str,
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
            filter: to which tasks; it must not be empty.
            resume: the token of a progress of the same action and filter.
            on_progress: called after each transaction.

        Raises:
            FilterError: the filter cannot be read, or the token is not of this action and filter.
            TransientError: the database stayed busy; the last progress is good.
        """
        raise NotImplementedError

    async def bulk_step(self, action: Action, filter: Filter | str, *, resume: str | None = None) -> BulkProgress:
        """Do one transaction's worth of `bulk`: for whoever shows progress by asking again, such as a web page."""
        raise NotImplementedError
