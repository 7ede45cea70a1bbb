"""What people and workers do to a queue: each is one transaction of its own, at once, blocking or not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from sqlalchemy import Connection

from hookware.config import check_mode
from hookware.core.codec import Codec
from hookware.core.queue import QueueSettings
from hookware.store.base import LATEST_US
from hookware.store.sql.outbox import Outbox

R = TypeVar("R")


def _unnoticed(_task_id: int) -> None:
    """Cut nothing short."""


class Moment(NamedTuple):
    """When and where a statement runs: the database's time, until when names stay taken, and what is configured.

    `on_removed` is told the id of each running task that the statement removes.
    """

    now_us: int
    tombstone_until_us: int
    settings: Callable[[str], QueueSettings]
    codec: Codec | None = None
    on_removed: Callable[[int], None] = _unnoticed


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[R]):
    """One transaction on the queue's database.

    Attributes:
        statement: what is done in it.
        queue_name: the queue that has to be known; None: any may be asked for.
        only_pull: the queue has to be a pull queue.
        wakes: tasks may be due because of it.
        writes: it changes something.
    """

    statement: Callable[[Connection, Moment], R]
    queue_name: str | None = None
    only_pull: bool = False
    wakes: bool = False
    writes: bool = True

    def perform(self, outbox: Outbox) -> R:
        """Do it, blocking this thread for one transaction."""
        self._check(outbox)
        outbox.prepare_blocking()
        result, removed = outbox.runner.run_blocking(self._body(outbox), write=self.writes)
        return self._done(outbox, result, removed)

    async def perform_async(self, outbox: Outbox) -> R:
        """Do it off the event loop."""
        self._check(outbox)
        await outbox.prepare()
        result, removed = await outbox.runner.run(self._body(outbox), write=self.writes)
        return self._done(outbox, result, removed)

    def _check(self, outbox: Outbox) -> None:
        if self.queue_name is not None:
            settings = outbox.config.known_queue(self.queue_name)
            if self.only_pull:
                check_mode(settings, wants_pull=True)

    def _body(self, outbox: Outbox) -> Callable[[Connection], tuple[R, list[int]]]:
        def body(connection: Connection) -> tuple[R, list[int]]:
            removed: list[int] = []  # of this try: a transaction may be tried again
            now_us = outbox.own_clock(connection)
            until_us = min(now_us + outbox.tombstone_us, LATEST_US)
            config = outbox.config
            moment = Moment(now_us, until_us, config.queue, config.codec, removed.append)
            return self.statement(connection, moment), removed

        return body

    def _done(self, outbox: Outbox, result: R, removed: list[int]) -> R:
        for task_id in removed:
            outbox.store.called_off(task_id)
        if self.wakes:
            outbox.changed()
        return result
