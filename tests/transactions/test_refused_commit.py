"""A COMMIT that the database refuses: neither its rows nor its lock may stay for the next user of the connection."""

from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Session

from hookware import Hookware, TaskRouter, async_request_session, request_session, taskqueue
from tests.asgi import request
from tests.databases import (
    EVERY_ASYNC_DRIVER,
    EVERY_DATABASE_ON_A_LOOP,
    EVERY_POSTGRESQL_DRIVER,
    Database,
    refuse_at_commit,
)
from tests.serving import serving
from tests.transactions.stored import Stored, business_table


@EVERY_DATABASE_ON_A_LOOP
async def test_what_a_refused_commit_held_is_not_committed_by_the_next_session(
    database: Database, stored: Stored
) -> None:
    engine = database.engine(pool_size=1, max_overflow=0)
    refuse_at_commit(database, engine)
    async with serving(Hookware(engine=engine, dispatch=False)):
        with Session(engine) as session:
            taskqueue.add("refused", url="/worker", session=session)
            session.execute(text("INSERT INTO child VALUES (7)"))
            with pytest.raises(IntegrityError):
                session.commit()
        await taskqueue.add_async("from another connection", url="/worker")
        with Session(engine) as session:
            session.execute(text("INSERT INTO parent VALUES (7)"))  # now the refused child would be welcome
            session.commit()
    assert stored.task_keys() == ["from another connection"]
    engine.dispose()


@EVERY_ASYNC_DRIVER
async def test_nor_by_the_next_async_session(database: Database, stored: Stored) -> None:
    engine = database.async_engine(pool_size=1, max_overflow=0)
    refuse_at_commit(database, engine)
    async with serving(Hookware(engine=engine, dispatch=False)):
        async with AsyncSession(engine) as session:
            taskqueue.add("refused", url="/worker", session=session)
            await session.execute(text("INSERT INTO child VALUES (7)"))
            with pytest.raises(IntegrityError):
                await session.commit()
        await taskqueue.add_async("from another connection", url="/worker")
        async with AsyncSession(engine) as session:
            await session.execute(text("INSERT INTO parent VALUES (7)"))
            await session.commit()
    assert stored.task_keys() == ["from another connection"]
    await engine.dispose()


class RefusedError(Exception):
    """What the connection says instead of inserting a task."""


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("count", [1, 3])
async def test_a_commit_that_is_tried_again_after_an_error_brings_its_tasks(
    engine: Engine, stored: Stored, count: int
) -> None:
    refusals = [True]

    def refuse(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        if statement.startswith("INSERT INTO hookware_task") and refusals:
            refusals.clear()
            raise RefusedError

    async with serving(Hookware(engine=engine, dispatch=False)):
        event.listen(engine, "before_cursor_execute", refuse)
        with Session(engine) as session:
            session.execute(business_table.insert().values(key="row"))
            for number in range(count):
                taskqueue.add(f"task {number}", url="/worker", session=session)
            with pytest.raises(RefusedError):
                session.commit()
            assert stored.keys() == set()
            session.commit()
    assert stored.keys() == {"row", *(f"task {number}" for number in range(count))}


async def test_a_transaction_around_the_session_does_not_commit_half_of_a_commit_that_failed(
    engine: Engine, stored: Stored
) -> None:
    async with serving(Hookware(engine=engine, dispatch=False)):
        with engine.begin() as connection:
            connection.execute(
                text(
                    "CREATE TRIGGER refuse BEFORE INSERT ON hookware_task WHEN new.url = '/refused' "
                    "BEGIN SELECT raise(ABORT, 'refused'); END"
                )
            )
        with engine.begin() as connection, Session(bind=connection) as session:
            session.execute(business_table.insert().values(key="row"))
            for url in ("/worker", "/refused"):
                taskqueue.add(url=url, session=session)
            with pytest.raises(IntegrityError):
                session.commit()
    assert stored.keys() == set()


async def test_tasks_that_a_commit_inserted_and_then_failed_are_told_of(
    database: Database, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    engine = database.engine()
    refuse_at_commit(database, engine)
    async with serving(Hookware(engine=engine, dispatch=False)):
        session = Session(engine)
        session.execute(text("INSERT INTO child VALUES (7)"))
        taskqueue.add("refused", url="/worker", session=session)
        with suppress(IntegrityError):
            session.commit()
        session.close()
    assert "1 task(s) were added to a session that was closed without a commit" in caplog.text
    assert stored.task_keys() == []
    engine.dispose()


async def test_tasks_of_all_kinds_are_inserted_with_one_statement_and_flushed_ones_not_asked_for(
    engine: Engine, stored: Stored
) -> None:
    asked: list[str] = []
    async with serving(Hookware(engine=engine, dispatch=False)):
        with Session(engine) as session:
            taskqueue.add("flushed", url="/worker", session=session)
            session.flush()
            session.expire_all()
            taskqueue.add("plain", url="/worker", session=session)
            taskqueue.add("urgent", url="/worker", priority=7, session=session)
            taskqueue.add("fair", url="/worker", fair_key="customer", session=session)
            event.listen(engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
            session.commit()
    assert [statement.split()[0] for statement in asked] == ["INSERT"]
    assert stored.task_keys() == ["flushed", "plain", "urgent", "fair"]
    with engine.connect() as connection:
        fair_keys = connection.execute(text("SELECT fair_key FROM hookware_task ORDER BY id")).scalars().all()
    assert fair_keys == [None, None, None, "customer"]


# Serialization failures.


def count_and_put(connection: Any, key: str) -> Any:
    """Write what depends on what was read: of two that do so at once, only one can be right."""
    connection.execute(text("SELECT count(*) FROM business")).scalar()
    return connection.execute(text("INSERT INTO business VALUES (:key)"), {"key": key})


@EVERY_POSTGRESQL_DRIVER
async def test_a_serialization_failure_at_the_commit_gives_the_client_500(database: Database, stored: Stored) -> None:
    engine = database.user_engine(isolation_level="SERIALIZABLE")
    other = database.engine(isolation_level="SERIALIZABLE")
    with other.begin() as connection:
        business_table.create(connection)
    conflicts = [True, False]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if isinstance(engine, Engine):
            count_and_put(request_session(), "row")
        else:
            session = async_request_session()
            await session.run_sync(count_and_put, "row")
        taskqueue.add("task", url="/worker")
        if conflicts.pop(0):
            with other.begin() as connection:
                count_and_put(connection, "other")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    hookware = Hookware(app, engine=engine, dispatch=False, router=TaskRouter())
    async with serving(hookware):
        answer = await request(hookware, "/")
        assert (answer.status, b"done" in answer.body) == (500, False)
        assert isinstance(answer.error, DBAPIError)
        assert stored.keys() == {"other"}
        assert (await request(hookware, "/")).status == 200
        assert stored.keys() == {"other", "row", "task"}
    other.dispose()
    if isinstance(engine, Engine):
        engine.dispose()
    else:
        await engine.dispose()
