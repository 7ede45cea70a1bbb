"""The apps of the matrix. Each takes an order and adds its task in one transaction; the task makes the effect.

A server runs `tests.matrix.apps:app`, which is the one that MATRIX_APP names.
"""

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import parse_qs

import anyio
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, Session, SQLModel, create_engine
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hookware import Hookware, task_handler, taskqueue

MATRIX_APP = os.environ.get("MATRIX_APP")
DATABASE = os.environ.get("MATRIX_DATABASE", "matrix.db")
SLOW_SECONDS = 0.5
engine = create_engine(f"sqlite:///{DATABASE}")


class Order(SQLModel, table=True):
    __tablename__ = "matrix_order"

    key: str = Field(primary_key=True)


class Effect(SQLModel, table=True):
    __tablename__ = "matrix_effect"

    id: int | None = Field(default=None, primary_key=True)
    key: str


def tell(what: str) -> None:
    """Write a line into the journal that the test reads."""
    with open(os.environ["MATRIX_JOURNAL"], "a") as journal:
        journal.write(f"{what} {os.getpid()}\n")


@asynccontextmanager
async def lifespan(_app: object) -> AsyncIterator[None]:
    tell("started")
    yield
    engine.dispose()
    tell("stopped")


# What the apps have in common.


def order(session: Session, key: str, url: str) -> None:
    session.add(Order(key=key))
    taskqueue.add(url=url, params={"key": key})


def order_in_a_session(request: Request) -> Response:
    with Session(engine) as session:
        order(session, request.query_params["key"], request.query_params["url"])
        session.commit()
    return Response()


def handle_tasks() -> None:
    @task_handler("/worker")
    def worker(key: str, session: Session) -> None:
        session.add(Effect(key=key))

    @task_handler("/slow")
    def slow(key: str, session: Session) -> None:
        tell("slow begins")
        threading.Event().wait(SLOW_SECONDS)
        session.add(Effect(key=key))
        tell("slow ends")


def starlette(middleware: list[Middleware] | None = None) -> Starlette:
    handle_tasks()
    routes = [Route("/order", order_in_a_session, methods=["POST"])]
    return Starlette(routes=routes, middleware=middleware, lifespan=lifespan)


def layer() -> Middleware:
    return Middleware(Hookware, engine=engine)


# FastAPI.


def fastapi_sync() -> ASGIApp:
    """Plain routes are the handlers, and commit for themselves."""

    def get_session() -> Iterator[Session]:
        with Session(engine) as session:
            yield session
            session.commit()

    return _fastapi(Depends(get_session, scope="function"))


def fastapi_late_commit() -> ASGIApp:
    """The same as most apps have it: the dependency commits after the response."""

    def get_session() -> Iterator[Session]:
        with Session(engine) as session:
            yield session
            session.commit()

    return _fastapi(Depends(get_session))


async def task_key(request: Request) -> str:
    return parse_qs((await request.body()).decode())["key"][0]


def _fastapi(depends: Any) -> ASGIApp:
    app = FastAPI(lifespan=lifespan)
    app.add_middleware(Hookware, engine=engine)

    @app.post("/order")
    def take_order(key: str, url: str, session: Session = depends) -> None:
        order(session, key, url)

    @app.post("/worker")
    def worker(key: Annotated[str, Depends(task_key)], session: Session = depends) -> None:
        session.add(Effect(key=key))

    @app.post("/slow")
    def slow(key: Annotated[str, Depends(task_key)], session: Session = depends) -> None:
        tell("slow begins")
        threading.Event().wait(SLOW_SECONDS)
        session.add(Effect(key=key))
        tell("slow ends")

    return app


def fastapi_async() -> ASGIApp:
    async_engine = create_async_engine(f"sqlite+aiosqlite:///{DATABASE}")

    @asynccontextmanager
    async def async_lifespan(_app: object) -> AsyncIterator[None]:
        tell("started")
        yield
        await async_engine.dispose()
        tell("stopped")

    app = FastAPI(lifespan=async_lifespan)
    app.add_middleware(Hookware, engine=async_engine)

    @app.post("/order")
    async def take_order(key: str, url: str) -> None:
        async with AsyncSession(async_engine) as session:
            session.add(Order(key=key))
            taskqueue.add(url=url, params={"key": key})
            await session.commit()

    @task_handler("/worker")
    async def worker(key: str, session: AsyncSession) -> None:
        session.add(Effect(key=key))

    @task_handler("/slow")
    async def slow(key: str, session: AsyncSession) -> None:
        tell("slow begins")
        await anyio.sleep(SLOW_SECONDS)
        session.add(Effect(key=key))
        tell("slow ends")

    return app


# Starlette.


def starlette_wrapped() -> ASGIApp:
    return Hookware(starlette(), engine=engine)


def starlette_added() -> ASGIApp:
    return starlette([layer()])


def behind_three() -> ASGIApp:
    """Such middlewares call the app in a task of their own, with a copy of the context."""

    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    between = [Middleware(BaseHTTPMiddleware, dispatch=pass_on) for _ in range(3)]
    return starlette([layer(), *between])


# No framework.


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
    def take_order(key: str, url: str, session: Session, request: Request) -> None:
        order(session, key, url)

    return Hookware(engine=engine)


def misconfigured() -> ASGIApp:
    return starlette([Middleware(Hookware, engine=engine, concurrency=0)])


APPS: dict[str, Callable[[], ASGIApp]] = {
    'FastAPI, `def`, `scope="function"`': fastapi_sync,
    "FastAPI, `def`, default scope": fastapi_late_commit,
    "FastAPI, `async def`, AsyncEngine": fastapi_async,
    "Starlette, `add_middleware`": starlette_added,
    "Starlette, wrapped": starlette_wrapped,
    "Starlette, three BaseHTTPMiddlewares within": behind_three,
    "plain ASGI": plain,
    "plain ASGI without lifespan": without_lifespan,
    "`Hookware(engine=...)` alone": alone,
}
WITHOUT_LIFESPAN = {"plain ASGI without lifespan", "`Hookware(engine=...)` alone"}
ASYNCIO_ONLY = {"FastAPI, `async def`, AsyncEngine"}
MISCONFIGURED = "a wrong configuration"

if MATRIX_APP is not None:
    app = {**APPS, MISCONFIGURED: misconfigured}[MATRIX_APP]()
