"""The app that is killed, on an AsyncEngine: the same orders and handlers, awaited."""

import anyio
from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hookware import TaskContext, async_request_session, task_handler, taskqueue
from verification.crash.recording import WRITE_EFFECT, WRITE_ORDER, attempt, database_url, effect, env
from verification.crash.wish import Wish

_url, _connect_args = database_url()
engine = create_async_engine(_url, connect_args=_connect_args)


async def order(request: Request) -> PlainTextResponse:
    """Write a row and add a task in the user's own session; `end` says what becomes of the transaction."""
    wish = Wish(request)
    async with AsyncSession(engine) as session:
        await _execute(session, WRITE_ORDER, {"key": wish.key, "task": _add(wish).id})
        match wish.end:
            case "rollback":
                await session.rollback()
            case "error":
                raise RuntimeError("asked for")
            case _:
                await session.commit()
    return PlainTextResponse("ordered")


async def own_order(request: Request) -> PlainTextResponse:
    """Do the same in hookware's own session, which commits before the response leaves, if it is no error."""
    wish = Wish(request)
    await _execute(async_request_session(), WRITE_ORDER, {"key": wish.key, "task": _add(wish).id})
    return PlainTextResponse("ordered", status_code=wish.status)


async def lonely_order(request: Request) -> PlainTextResponse:
    """Add a task in a transaction of its own."""
    wish = Wish(request)
    with env.adding(countdown=wish.countdown, alone=True):
        await taskqueue.add_async(**wish.task, transactional=False)
    return PlainTextResponse("ordered")


def _add(wish: Wish) -> taskqueue.Task:
    with env.adding(countdown=wish.countdown):
        return taskqueue.add(**wish.task, transactional=True)


async def _execute(session: AsyncSession, statement: Executable, row: dict[str, object]) -> None:
    connection = await session.connection()
    await connection.execute(statement, row)


@task_handler("/own")
async def own(session: AsyncSession, task: TaskContext, wait: float = 0, then: int = 0) -> None:
    """Write through hookware's session, and add the follow-up there too: both exactly once."""
    with attempt(task):
        await anyio.sleep(wait)
        await _execute(session, WRITE_EFFECT, {**effect(task)})
        if then:
            next_task = taskqueue.add(url="/own", params={"then": then - 1})
            await _execute(session, WRITE_ORDER, {"key": f"{task.id} then", "task": next_task.id})


@task_handler("/joined")
async def joined(task: TaskContext, wait: float = 0, then: int = 0) -> None:
    """Write through a session of its own, which completes the task."""
    with attempt(task):
        async with AsyncSession(engine) as session:
            await anyio.sleep(wait)
            await _execute(session, WRITE_EFFECT, {**effect(task)})
            task.complete_in(session)
            await session.commit()


ROUTES = [
    Route("/order", order, methods=["POST"]),
    Route("/order/own", own_order, methods=["POST"]),
    Route("/order/alone", lonely_order, methods=["POST"]),
]
