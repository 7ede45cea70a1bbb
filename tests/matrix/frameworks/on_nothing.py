"""Apps without a framework."""

import anyio.to_thread
from sqlmodel import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hookware import Hookware, task_handler
from tests.matrix.shop import engine, handle_tasks, lifespan, order, order_in_a_session


async def _bare(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    response = await anyio.to_thread.run_sync(order_in_a_session, request) if scope["path"] == "/order" else Response()
    await response(scope, receive, send)


def plain() -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _bare(scope, receive, send)
            return
        async with lifespan(None):
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    handle_tasks()
    return Hookware(app, engine=engine)


def without_lifespan() -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await _bare(scope, receive, send)

    handle_tasks()
    return Hookware(app, engine=engine)


def alone() -> ASGIApp:
    """hookware as the framework: a public handler takes the orders."""
    handle_tasks()

    @task_handler("/order", public=True)
    def take_order(key: str, url: str, end: str, session: Session, request: Request) -> None:
        order(session, key, url, end)

    return Hookware(engine=engine)
