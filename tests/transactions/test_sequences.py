"""10,000 generated sequences of session operations agree with the model, on real SQLite files; fewer on PostgreSQL.

`test_without_the_configuration_the_model_is_contradicted` shows that they can fail: it takes the SQLite
configuration away.
"""

import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import sqlmodel
from sqlalchemy import Engine, event, insert, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import AsyncSession as SQLAlchemyAsyncSession
from sqlalchemy.orm import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from hookware import taskqueue
from hookware.config import Config
from hookware.env import Env
from hookware.events import Events
from hookware.store.sql.on_connection import wake_on_commit
from hookware.store.sql.outbox import Outbox
from hookware.unit_of_work import UnitOfWork, current_unit, refuse_second_writer
from tests.databases import EVERY_ASYNC_DRIVER, EVERY_DATABASE, Database
from tests.transactions.sequences import Model, draw
from tests.transactions.stored import Stored, business_table

LENGTH = 12


def _fast(dbapi_connection: Any, _record: object) -> None:
    """Durability is not what is tested here."""
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA synchronous = OFF")
    cursor.close()


def new_outbox(database: Database, engine: Any) -> Outbox:
    if database.is_sqlite:
        event.listen(getattr(engine, "sync_engine", engine), "connect", _fast)
    outbox = Outbox(engine, env=Env(), config=Config(), events=Events(), on_begin=refuse_second_writer)
    wake_on_commit(outbox)
    return outbox


@pytest.fixture
def anyio_backend() -> str:
    """One is enough: what varies here is the session, not the event loop."""
    return "asyncio"


@pytest.fixture
async def outbox(database: Database, engine: Engine) -> AsyncIterator[Outbox]:
    outbox = new_outbox(database, engine)
    await outbox.prepare()
    yield outbox
    await outbox.close()


@pytest.fixture
async def async_outbox(database: Database, async_engine: AsyncEngine) -> AsyncIterator[Outbox]:
    outbox = new_outbox(database, async_engine)
    await outbox.prepare()
    yield outbox
    await outbox.close()


def add_task(key: str, session: object = None) -> None:
    taskqueue.add(key, url="/worker", session=session)


def run_sync(session: Session, model: Model, steps: list[tuple[str, int]], prefix: str, *, ambient: bool) -> None:
    """Play one sequence on a Session and on the model."""
    savepoints: list[Any] = []
    for number, (step, choice) in enumerate(steps):
        key = f"{prefix}.{number}"
        match step:
            case "add_task":
                add_task(key, None if ambient else session)
                (model.add_task if ambient else model.give_task)(key)
            case "add_row":
                session.execute(insert(business_table).values(key=key))
                model.add_row(key)
            case "select":
                session.execute(text("SELECT 1"))
                model.select()
            case "flush":
                session.flush()
                model.flush()
            case "nest":
                savepoints.append(session.begin_nested())
                model.nest()
            case "release" if savepoints:
                savepoints.pop().commit()
                model.release(model.depth)
            case "undo" if savepoints:
                savepoints.pop().rollback()
                model.undo(model.depth)
            case "undo_outer" if savepoints:
                level = choice % len(savepoints)
                savepoints[level].rollback()
                del savepoints[level:]
                model.undo(level + 1)
            case "commit" | "rollback" | "close":
                savepoints.clear()
                getattr(session, step)()
                getattr(model, step)()
            case _:
                pass


async def run_async(session: Any, model: Model, steps: list[tuple[str, int]], prefix: str, *, ambient: bool) -> None:
    """Play the same on an AsyncSession."""
    savepoints: list[Any] = []
    for number, (step, choice) in enumerate(steps):
        key = f"{prefix}.{number}"
        match step:
            case "add_task":
                add_task(key, None if ambient else session)
                (model.add_task if ambient else model.give_task)(key)
            case "add_row":
                await SQLAlchemyAsyncSession.execute(session, insert(business_table).values(key=key))
                model.add_row(key)
            case "select":
                await SQLAlchemyAsyncSession.execute(session, text("SELECT 1"))
                model.select()
            case "flush":
                await session.flush()
                model.flush()
            case "nest":
                savepoints.append(await session.begin_nested())
                model.nest()
            case "release" if savepoints:
                await savepoints.pop().commit()
                model.release(model.depth)
            case "undo" if savepoints:
                await savepoints.pop().rollback()
                model.undo(model.depth)
            case "undo_outer" if savepoints:
                level = choice % len(savepoints)
                await savepoints[level].rollback()
                del savepoints[level:]
                model.undo(level + 1)
            case "commit" | "rollback" | "close":
                savepoints.clear()
                await getattr(session, step)()
                getattr(model, step)()
            case _:
                pass


async def in_request(outbox: Outbox, model: Model, play: Callable[[], Any], *, ok: bool) -> None:
    """Play a sequence inside a request's unit of work, and end the request."""
    unit = UnitOfWork(outbox)
    token = current_unit.set(unit)
    try:
        result = play()
        if result is not None:
            await result
        await (unit.commit() if ok else unit.rollback())
    finally:
        current_unit.reset(token)
    model.end_of_request(ok=ok)


@pytest.mark.slow
@pytest.mark.timeout(120)
@EVERY_DATABASE
@pytest.mark.parametrize("kind", [Session, sqlmodel.Session], ids=["sqlalchemy", "sqlmodel"])
async def test_sessions_agree_with_the_model(
    database: Database, outbox: Outbox, stored: Stored, kind: type[Session]
) -> None:
    rng, model = random.Random(kind.__module__), Model()
    for number in range(3_000 if database.is_sqlite else 150):
        steps, ok, ambient = draw(rng, LENGTH), rng.random() < 0.8, rng.random() < 0.7
        session = kind(outbox.sync_engine)

        def play(session: Session = session, steps: Any = steps, number: int = number, ambient: bool = ambient) -> None:
            run_sync(session, model, steps, str(number), ambient=ambient)
            session.close()

        await in_request(outbox, model, play, ok=ok)
        if number % 10 == 9 or number < 100:
            assert stored.keys() == model.committed, f"sequence {number}: {steps}"
            clear(outbox.sync_engine, model)


def clear(engine: Engine, model: Model) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM business"))
        connection.execute(text("DELETE FROM hookware_task"))
    model.committed.clear()


@pytest.mark.slow
@pytest.mark.timeout(120)
@EVERY_ASYNC_DRIVER
@pytest.mark.parametrize("kind", [SQLAlchemyAsyncSession, AsyncSession], ids=["sqlalchemy", "sqlmodel"])
async def test_async_sessions_agree_with_the_model(
    database: Database, async_engine: AsyncEngine, async_outbox: Outbox, stored: Stored, kind: Any
) -> None:
    rng, model = random.Random(kind.__module__), Model()
    for number in range(500 if database.is_sqlite else 50):
        steps, ok, ambient = draw(rng, LENGTH), rng.random() < 0.8, rng.random() < 0.7
        session = kind(async_engine)

        async def play(
            session: Any = session, steps: Any = steps, number: int = number, ambient: bool = ambient
        ) -> None:
            await run_async(session, model, steps, str(number), ambient=ambient)
            await session.close()

        await in_request(async_outbox, model, play, ok=ok)
        assert stored.keys() == model.committed, f"sequence {number}: {steps}"


async def test_without_the_configuration_the_model_is_contradicted(
    outbox: Outbox, stored: Stored, database: Database
) -> None:
    """SQLite's driver, by default, lets a released savepoint survive the outer rollback: the sequences must show it."""
    bare = database.engine()
    rng, model, contradicted = random.Random(1), Model(), 0
    for number in range(300):
        session = Session(bare)
        run_sync_bare(session, model, draw(rng, LENGTH), str(number))
        session.close()
        model.rollback()
        contradicted += stored.keys() != model.committed
        clear(bare, model)
    bare.dispose()
    assert contradicted > 0


def run_sync_bare(session: Session, model: Model, steps: list[tuple[str, int]], prefix: str) -> None:
    """Play a sequence of business rows only, on an engine that hookware does not know."""
    without_tasks = [("add_row" if step == "add_task" else step, choice) for step, choice in steps]
    run_sync(session, model, without_tasks, prefix, ambient=False)
