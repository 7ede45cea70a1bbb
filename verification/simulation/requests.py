"""What clients of a simulated world ask for: tasks in transactions of every kind, some of which roll back."""

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from random import Random
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from starlette.types import Message, Receive, Scope, Send

from hookware import async_request_session, taskqueue
from hookware.arguments import TaskRetryOptions
from hookware.exchange import serve_request
from hookware.store.sql.outbox import Outbox
from hookware.unit_of_work import UnitOfWork
from verification.simulation.engines import NOTHING
from verification.simulation.node import Node
from verification.simulation.world import Promise

_WRITE_ORDER = text("INSERT INTO sim_order VALUES (:task, :with_task, :stands_on)")


class Request:
    """One order on its way through hookware: what its route needs."""

    def __init__(self, outbox: Outbox, node: Node, promise: Promise) -> None:
        self.task_id = promise.task.id
        self._engine = outbox.engine
        self._node, self._promise = node, promise

    def session(self) -> AsyncSession:
        """Give a session of the route's own."""
        assert isinstance(self._engine, AsyncEngine)
        return AsyncSession(self._engine)

    def add(self) -> None:
        """Add the task to whichever transaction is open."""
        task, retry = self._promise.task, self._promise.task.retry
        self._node.env.next_id = task.id
        options = None
        if retry is not None:
            options = TaskRetryOptions(
                min_backoff_seconds=retry.min_backoff_seconds, max_backoff_seconds=retry.max_backoff_seconds,
                max_doublings=retry.max_doublings, task_retry_limit=retry.task_retry_limit,
            )  # fmt: skip
        taskqueue.add(
            task.body, url=task.url, headers=dict(task.headers), name=task.name, queue_name=task.queue_name,
            countdown=task.countdown_us / 1e6, retry_options=options, dispatch_deadline=task.deadline_us / 1e6,
        )  # fmt: skip

    async def write(self, session: AsyncSession, *, with_task: bool = True, stands_on: int | None = None) -> None:
        """Write the order itself, which stands and falls with its task."""
        values = {"task": self.task_id, "with_task": with_task, "stands_on": stands_on}
        await (await session.connection()).execute(_WRITE_ORDER, values)


async def in_own_session(request: Request) -> int:
    """Write through hookware's session, which it commits."""
    request.add()
    await request.write(async_request_session())
    return 200


async def in_own_session_that_is_refused(request: Request) -> int:
    """Write through hookware's session what the database refuses at the commit."""
    request.add()
    await request.write(async_request_session(), stands_on=NOTHING)
    return 200


async def without_session(request: Request) -> int:
    """Only add a task."""
    request.add()
    return 202


async def in_session(request: Request) -> int:
    """Commit a session of one's own."""
    async with request.session() as session:
        await request.write(session)
        request.add()
        await session.commit()
    return 200


async def in_savepoint(request: Request) -> int:
    """Add within a savepoint that is kept."""
    async with request.session() as session:
        async with session.begin_nested():
            request.add()
        await request.write(session)
        await session.commit()
    return 200


async def refused(request: Request) -> int:
    """Write through hookware's session, and answer that it was refused."""
    await request.write(async_request_session())
    request.add()
    return 409


async def broken(request: Request) -> int:
    """Write through hookware's session, and raise."""
    request.add()
    await request.write(async_request_session())
    raise RuntimeError("the route broke")


async def rolled_back(request: Request) -> int:
    """Roll back."""
    async with request.session() as session:
        await request.write(session)
        request.add()
        await session.rollback()
    return 200


async def left_open(request: Request) -> int:
    """Forget to commit."""
    async with request.session() as session:
        await request.write(session)
        request.add()
    return 200


async def in_undone_savepoint(request: Request) -> int:
    """Add within a savepoint that is rolled back, and commit the rest."""
    async with request.session() as session:
        await request.write(session, with_task=False)
        savepoint = await session.begin_nested()
        request.add()
        await session.flush()
        await savepoint.rollback()
        await session.commit()
    return 200


Route = Callable[[Request], Awaitable[int]]
_COMMIT: tuple[Route, ...] = (
    in_own_session, in_own_session, in_own_session_that_is_refused, without_session, without_session, in_session,
    in_session, in_savepoint, in_savepoint,
)  # fmt: skip
_UNDO: tuple[Route, ...] = (refused, broken, rolled_back, left_open, in_undone_savepoint)


async def order(outbox: Outbox, node: Node, promise: Promise, *, commits: bool, chance: Random) -> int:
    """Be a client: send the request through hookware, and give the status that came back."""
    route = chance.choice(_COMMIT if commits else _UNDO)
    request = Request(outbox, node, promise)
    statuses: list[int] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        code = await route(request)
        await send({"type": "http.response.start", "status": code, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope: Scope = {"type": "http", "method": "POST", "path": "/order", "headers": []}
    # Whatever the database or the route raises, the client has its answer: the first that came.
    with suppress(Exception):
        await serve_request(app, UnitOfWork(outbox), scope, receive, send)
    return statuses[0] if statuses else 500
