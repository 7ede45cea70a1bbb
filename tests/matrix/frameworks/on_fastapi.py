"""FastAPI apps."""

import threading
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import parse_qs

import anyio
from fastapi import Depends, FastAPI
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request
from starlette.types import ASGIApp

from hookware import Hookware, task_handler
from tests.matrix import async_shop
from tests.matrix.shop import SLOW_SECONDS, Effect, engine, lifespan, order, tell


def of_functions() -> ASGIApp:
    """Plain routes are the handlers, and commit for themselves."""

    def get_session() -> Iterator[Session]:
        with Session(engine) as session:
            yield session
            session.commit()

    return _fastapi(Depends(get_session, scope="function"))


def with_late_commit() -> ASGIApp:
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
    def take_order(key: str, url: str, end: str, session: Session = depends) -> None:
        order(session, key, url, end)

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


def of_coroutines() -> ASGIApp:
    """The handlers are hookware's, with its AsyncSession."""
    app = FastAPI(lifespan=async_shop.async_lifespan)
    app.add_middleware(Hookware, engine=async_shop.async_engine)

    @app.post("/order")
    async def take_order(key: str, url: str, end: str) -> None:
        await async_shop.take_order(key, url, end)

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
