"""The same for apps whose sessions are SQLAlchemy's AsyncSession."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from hookware import taskqueue
from tests.matrix.shop import DATABASE, SLOW_SECONDS, Effect, Order, tell

async_engine = create_async_engine(f"sqlite+aiosqlite:///{DATABASE}")


@asynccontextmanager
async def async_lifespan(_app: object) -> AsyncIterator[None]:
    tell("started")
    yield
    await async_engine.dispose()
    tell("stopped")


async def take_order(key: str, url: str, end: str) -> None:
    async with AsyncSession(async_engine) as session:
        session.add(Order(key=key))
        taskqueue.add(url=url, params={"key": key})
        if end == "rollback":
            await session.rollback()
        await session.commit()


async def make_effect(key: str) -> None:
    async with AsyncSession(async_engine) as session:
        session.add(Effect(key=key))
        await session.commit()


async def make_effect_slowly(key: str) -> None:
    tell("slow begins")
    await anyio.sleep(SLOW_SECONDS)
    await make_effect(key)
    tell("slow ends")
