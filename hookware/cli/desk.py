"""What each command works with, and how it is run: an open database, a printer, and one way to fail."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import click

from hookware.cli.failure import Failure, failure_of
from hookware.cli.given import Given
from hookware.cli.place import Place, place_of
from hookware.cli.printer import Printer
from hookware.cli.text import clean
from hookware.errors import Error
from hookware.insight import Insight
from hookware.store.sql.outbox import Outbox
from hookware.store.sql.unusable import is_unusable, unusable
from hookware.unit_of_work import UnitOfWork, current_unit


class Desk:
    """The database of one command, and the way to its user."""

    def __init__(self, given: Given, place: Place) -> None:
        self.given = given
        self.place = place
        self.outbox: Outbox = place.outbox
        self.insight = Insight(place.outbox)
        self.printer = Printer(given)
        self._changed = False
        self._tells = self.outbox.on_committed is None  # else a lifespan's loops do
        if self._tells:
            self.outbox.on_committed = self._note_change

    def confirm(self, question: str) -> None:
        """Ask before something is done, unless `--yes` says so already.

        Raises:
            Failure: the answer is no, or there is nobody to ask.
        """
        if self.given.yes:
            return
        with suppress(click.Abort):
            if click.confirm(clean(question), err=True):
                return
        raise Failure("nothing was done: answer y, or pass --yes")

    async def close(self) -> None:
        """Give the connections back, and tell the processes that dispatch of what was changed."""
        if self._tells:
            self.outbox.on_committed = None
        if self._changed and self.outbox.notices is not None:
            with suppress(Exception):  # they ask by themselves every poll_seconds
                await self.outbox.notices.send()
        if not self.outbox.running:
            await self.outbox.close()

    def _note_change(self) -> None:
        self._changed = True


Work = Callable[[Desk], Awaitable[int | None]]
"""What a command does; the exit status that it gives, None: 0."""


def run(work: Work, *, makes_database: bool = False) -> None:
    """Run a command's work on the database that the command line names, and end with its status."""
    given = Given.here()
    try:
        place = place_of(given)
        if not makes_database:
            place.require()
        status = anyio.run(_worked, given, place, work)
    except Error as error:
        raise failure_of(error) or error from None
    except (ValueError, ImportError) as error:
        failure = failure_of(error)
        if failure is None:
            raise
        raise failure from None
    click.get_current_context().exit(status or 0)


async def _worked(given: Given, place: Place, work: Work) -> int | None:
    desk = Desk(given, place)
    # As in a request: what is done by way of queues and tasks goes to this database, whatever else is in the process.
    before = current_unit.set(UnitOfWork(desk.outbox))
    try:
        return await work(desk)
    except Exception as error:
        if isinstance(error, Error) or not is_unusable(error):
            raise
        raise Failure(unusable(desk.outbox.sync_engine.url, error)) from None
    finally:
        current_unit.reset(before)
        with anyio.CancelScope(shield=True):
            await desk.close()
