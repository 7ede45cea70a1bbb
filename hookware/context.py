"""What a handler or route may ask about the task it runs for, and the request's own sessions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import sqlmodel
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from hookware.core.task import LeasedTask
from hookware.delivery import Delivery, delivery_in
from hookware.errors import SessionError
from hookware.progress import checked_progress
from hookware.store.base import Inspector
from hookware.store.sql.outbox import Outbox, the_outbox
from hookware.transaction import complete_in
from hookware.unit_of_work import UnitOfWork, current_unit

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession as AnyAsyncSession
    from sqlmodel.ext.asyncio.session import AsyncSession

    class AnyRequest(Protocol):
        """The request of any framework: it keeps the ASGI scope."""

        @property
        def scope(self) -> Mapping[str, object]:
            """The scope that the server, or hookware, called the app with."""
            ...

else:
    AnyRequest = HTTPConnection  # FastAPI injects by the class


class TaskContext:
    """The task that the current request delivers.

    Attributes:
        id: the task's id, the same at every attempt.
        name: its name, or None.
        queue_name: its queue.
        attempt: 1 for the first attempt.
        fence: a number that grows with every claim; give it to other systems, so that they can refuse an older
            attempt that comes late.
        url: path and query, as added.
        headers: the task's own headers, lower-case names.
        body: the payload.
        depth: how many tasks came before it, each of which has added the next one in its handler; 0 for one that was
            added elsewhere.
    """

    def __init__(self, delivery: Delivery) -> None:
        task: LeasedTask = delivery.task
        self._delivery = delivery
        self.id: int = task.id
        self.name: str | None = task.name
        self.queue_name: str = task.queue_name
        self.attempt: int = task.attempt_count
        self.fence: int = task.fence
        self.url: str = task.url
        self.headers: Mapping[str, str] = dict(task.headers)
        self.body: bytes = task.body
        self.depth: int = task.depth

    def __repr__(self) -> str:
        return f"TaskContext(id={self.id}, queue_name={self.queue_name!r}, attempt={self.attempt})"

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far this attempt has come; `TaskInfo.progress` shows it to people.

        It only keeps the latest in memory, in any thread, and returns at once; about twice a second the latest is
        stored. It stays until an attempt says something else, at a retry too, and ends with the task's row. Where the
        engine's transactions keep a snapshot (REPEATABLE READ or SERIALIZABLE), it is not stored.

        Args:
            done: a finite number.
            total: how much it will be in the end, if that is known.
            note: a text for people; its first 200 characters are kept.

        Raises:
            InvalidProgressError: `done` or `total` is no finite number, or `note` is no text.
        """
        said = checked_progress(done, total, note)
        if said != self._delivery.progress:
            self._delivery.progress = said
            self._delivery.on_progress(self._delivery.task.lease, said)

    def complete_in(self, session: "Session | AnyAsyncSession") -> None:
        """Let the task's completion commit together with what the handler writes through `session`.

        Call it once, before you commit. If the handler then commits, the task is done, whatever the answer says;
        if the session rolls back, or the handler forgets to commit, the attempt has failed and is tried again.
        A task that has been cancelled or given to a newer attempt meanwhile makes the commit raise `StaleDataError`.
        One that was put back, because its lease or its deadline had ended, and that nobody has begun anew is done.

        Args:
            session: the handler's own Session or AsyncSession, on the queue's database.

        Raises:
            SessionError: the session is on another database, or this is no task's request any more.
        """
        unit = _unit("complete_in(session)")
        if unit.delivery is not self._delivery:
            raise SessionError(f"complete_in(session): task {self.id} is not the task of this request")
        complete_in(session, unit, self._delivery)


def require_task(request: AnyRequest) -> TaskContext:
    """Let only hookware's own deliveries into an ordinary route; the network gets 403.

    Use it as a FastAPI dependency, `task: TaskContext = Depends(require_task)`, or call it with the request: any
    framework's that keeps the ASGI scope as `request.scope`.

    Raises:
        HTTPException: Starlette's, 403, if the request is not a task. Frameworks that do not know it answer 500.
    """
    delivery = delivery_in(request.scope)
    if delivery is None:
        raise HTTPException(403, "this route runs tasks only")
    return TaskContext(delivery)


def request_session() -> sqlmodel.Session:
    """Give the request's own Session: hookware commits it before the response leaves, if the status is below 400.

    In a task, what is written through it commits together with the task's completion: exactly once. Also a
    FastAPI dependency: `session: Session = Depends(request_session)`.

    Raises:
        SessionError: this is no request that passed through Hookware, or its engine is an AsyncEngine.
    """
    return _unit("request_session()").own_session()


def async_request_session() -> "AsyncSession":
    """Give the request's own AsyncSession; see `request_session`.

    Raises:
        SessionError: this is no request that passed through Hookware, or its engine is a synchronous one.
    """
    return _unit("async_request_session()").own_async_session()


def inspector() -> Inspector:
    """Look at stored tasks, run dead ones again, delete them: for routes and scripts that did not keep the `Hookware`.

    Raises:
        ConfigurationError: there is no Hookware in this process, or several, and this is no request of one of them.
    """
    return hookware_here().store


def hookware_here() -> Outbox:
    """Give what this request's Hookware has open, or that of the only Hookware in this process.

    Raises:
        ConfigurationError: there is no Hookware in this process, or several, and this is no request of one of them.
    """
    unit = current_unit.get()
    return the_outbox() if unit is None else unit.outbox


def _unit(what: str) -> UnitOfWork:
    unit = current_unit.get()
    if unit is None:
        raise SessionError(
            f"{what} works in a request that passed through Hookware; this is none: open a session of your own"
        )
    return unit
