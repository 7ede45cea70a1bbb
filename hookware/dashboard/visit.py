"""One request to the dashboard: who sends it, with what, and what it may ask and do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request

from hookware.core.audit import AuditEntry
from hookware.core.overview import Overview, QueueOverview
from hookware.core.queue import CRON_QUEUE
from hookware.dashboard.access import Role, Visitor
from hookware.errors import UnknownQueueError
from hookware.insight import Insight
from hookware.scheduled import Cron
from hookware.store.sql import audit
from hookware.store.sql.operation import Operation
from hookware.store.sql.outbox import Outbox

R = TypeVar("R")


class NotFoundError(Exception):
    """There is no such thing: the text says what is not there."""


class RefusedError(Exception):
    """It cannot be done: the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A page: which template, with what."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The end of an action: the page to go on with, and which of the notices it is to show."""

    path: str
    notice: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The path with its query."""
        query = {**self.query, **({} if self.notice is None else {"notice": self.notice})}
        return f"{self.path}?{urlencode(query)}" if query else self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A request by somebody who is let in.

    Attributes:
        request: the request.
        visitor: who sends it.
        outbox: the database that it is about.
        insight: what is asked about it.
        ids: the numbers in its path.
        form: the fields of its form.
    """

    request: Request
    visitor: Visitor
    outbox: Outbox
    insight: Insight
    ids: tuple[int, ...] = ()
    form: Mapping[str, str] = field(default_factory=dict)

    def may(self, role: Role) -> bool:
        """Whether the visitor may do what this role may."""
        return self.visitor.may(role)

    def query(self, name: str, most: int = 4000) -> str:
        """Give a value of the address; "" if it has none."""
        return self.request.query_params.get(name, "")[:most]

    def field(self, name: str) -> str:
        """Give a field of the form; "" if it has none."""
        return self.form.get(name, "").strip()

    @property
    def cron(self) -> Cron:
        """The cron entries."""
        return Cron(self.outbox)

    async def queue(self, name: str, seen: Overview | None = None) -> QueueOverview:
        """Give a queue, out of an overview that was taken just now, or of a new one.

        Raises:
            NotFoundError: nothing is known of it.
        """
        looked = seen or await self.insight.overview()
        found = {queue.name: queue for queue in looked.queues}
        if name in found:
            return found[name]
        try:
            self.outbox.config.known_queue(name)
        except UnknownQueueError:
            raise NotFoundError("There is no such queue.") from None
        if not _is_queue_name(name):
            raise NotFoundError("There is no such queue.")
        return await self.insight.queue(name)

    # Acting.

    def entry(self, action: str, target: str, result: str = "") -> AuditEntry:
        """Give an entry of the audit for something that the visitor does."""
        return AuditEntry(
            id=self.outbox.env.new_id(), who=self.visitor.who, role=self.visitor.role, action=action, target=target,
            result=result,
        )  # fmt: skip

    async def act(
        self, statement: Callable[..., R], action: str, target: str, say: Callable[[R], str], *, wakes: bool = False
    ) -> R:
        """Do something, and write it into the audit, in one transaction."""
        both = audit.audited(statement, self.entry(action, target), say)
        return await Operation(statement=both, wakes=wakes).perform_async(self.outbox)

    async def note(self, action: str, target: str, result: str) -> None:
        """Write into the audit what is done in transactions of its own."""
        entry = self.entry(action, target, result)
        await Operation(statement=lambda connection, moment: audit.note(connection, moment, entry)).perform_async(
            self.outbox
        )


def _is_queue_name(name: str) -> bool:
    letters = name.replace("-", "a")
    return name == CRON_QUEUE or (len(name) <= 100 and letters.isascii() and letters.isalnum())
