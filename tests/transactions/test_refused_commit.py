"""A COMMIT that SQLite refuses: neither its rows nor its lock may stay for the next session on that connection."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlmodel import Session

from hookware import Hookware, taskqueue
from tests.serving import serving
from tests.transactions.stored import Stored

TABLES = (
    "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
    "CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
)


def check_foreign_keys(engine: Any) -> None:
    @event.listens_for(engine, "connect")
    def foreign_keys(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.execute("PRAGMA foreign_keys = ON")


async def test_what_a_refused_commit_held_is_not_committed_by_the_next_session(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/refused.db", pool_size=1, max_overflow=0)
    check_foreign_keys(engine)
    async with serving(Hookware(engine=engine, dispatch=False)):
        with engine.begin() as connection:
            for table in TABLES:
                connection.exec_driver_sql(table)
        with Session(engine) as session:
            taskqueue.add("refused", url="/worker", session=session)
            session.execute(text("INSERT INTO child VALUES (7)"))
            with pytest.raises(IntegrityError):
                session.commit()
        await taskqueue.add_async("from another connection", url="/worker")
        with Session(engine) as session:
            session.execute(text("INSERT INTO parent VALUES (7)"))  # now the refused child would be welcome
            session.commit()
    stored = Stored(tmp_path / "refused.db")
    assert stored.task_keys() == ["from another connection"]
    stored.close()
    engine.dispose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nor_by_the_next_async_session(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/refused.db", pool_size=1, max_overflow=0)
    check_foreign_keys(engine.sync_engine)
    async with serving(Hookware(engine=engine, dispatch=False)):
        async with engine.begin() as connection:
            for table in TABLES:
                await connection.exec_driver_sql(table)
        async with AsyncSession(engine) as session:
            taskqueue.add("refused", url="/worker", session=session)
            await session.execute(text("INSERT INTO child VALUES (7)"))
            with pytest.raises(IntegrityError):
                await session.commit()
        await taskqueue.add_async("from another connection", url="/worker")
        async with AsyncSession(engine) as session:
            await session.execute(text("INSERT INTO parent VALUES (7)"))
            await session.commit()
    stored = Stored(tmp_path / "refused.db")
    assert stored.task_keys() == ["from another connection"]
    stored.close()
    await engine.dispose()
