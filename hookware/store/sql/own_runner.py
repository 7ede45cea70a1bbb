"""Where hookware's own statements run: in threads where a synchronous driver reaches the database, which is faster."""

from typing import TYPE_CHECKING

from sqlalchemy import Engine

from hookware.env import Env
from hookware.store.sql.engines import has_synchronous, own_engine
from hookware.store.sql.runner import Runner, ThreadRunner
from hookware.store.sql.sqlite import WriteLock

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


def own_runner(user_engine: "Engine | AsyncEngine", env: Env, write_lock: WriteLock | None) -> Runner:
    """Give a runner with connections of hookware's own to the database of the user's engine."""
    if isinstance(user_engine, Engine) or has_synchronous(user_engine):
        return ThreadRunner(own_engine(user_engine), env, write_lock)
    from hookware.store.sql.async_runner import AsyncRunner, own_async_engine

    return AsyncRunner(own_async_engine(user_engine), env)


def unpooled_engine(user_engine: "Engine | AsyncEngine") -> "Engine | AsyncEngine":
    """Give an engine of hookware's own, with the runner's kind of driver, that opens a connection whenever asked."""
    if isinstance(user_engine, Engine) or has_synchronous(user_engine):
        return own_engine(user_engine, pooled=False)
    from hookware.store.sql.async_runner import own_async_engine

    return own_async_engine(user_engine, pooled=False)
