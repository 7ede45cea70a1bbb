"""Every way to say which schema of PostgreSQL an app lives in: hookware's tables, tasks and dispatching follow it."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from hookware import Hookware, TaskRouter, async_request_session, request_session, taskqueue
from hookware.errors import SessionError
from hookware.store.sql.runner import ThreadRunner
from tests.asgi import request
from tests.databases import EVERY_POSTGRESQL_DRIVER, POSTGRESQL_ON_A_LOOP, Database, Look
from tests.serving import Recorder, StartupFailedError, serving

AnyEngine = Engine | AsyncEngine


@pytest.fixture
def look(database: Database) -> Any:
    """Give a look at a database in which there is a schema `app` that no search path leads to."""
    look = database.look()
    look.execute("CREATE SCHEMA app")
    yield look
    look.execute("DROP SCHEMA app CASCADE")
    look.close()


def schemas(look: Look) -> set[str]:
    """Where hookware's tables are: in the user's own schema, which is named as the user, or in `app`."""
    tables = "SELECT schemaname FROM pg_tables WHERE tablename IN ('hookware_task', 'hookware_name')"
    return set(look.rows(f"{tables} AND schemaname IN ('app', current_user)"))


async def run_two_tasks(engine: AnyEngine) -> None:
    """Add a task by itself and one in a session; see both run."""
    router = TaskRouter()

    @router.task_handler("/worker")
    async def worker() -> None: ...

    hookware = Hookware(engine=engine, router=router)
    recorder = Recorder(hookware)
    async with serving(hookware):
        await taskqueue.add_async(url="/worker")
        await add_in_session(engine)
        await recorder.wait_settled(2)


async def add_in_session(engine: AnyEngine) -> None:
    if isinstance(engine, AsyncEngine):
        async with AsyncSession(engine) as session:
            taskqueue.add(url="/worker", session=session)
            await session.commit()
    else:
        with Session(engine) as plain:
            taskqueue.add(url="/worker", session=plain)
            plain.commit()


async def add_over_connection(engine: AnyEngine) -> None:
    if isinstance(engine, AsyncEngine):
        async with engine.begin() as connection:
            await taskqueue.add_async(url="/worker", connection=connection)
    else:
        with engine.begin() as plain:
            taskqueue.add(url="/worker", connection=plain)


async def dispose(engine: AnyEngine) -> None:
    if isinstance(engine, AsyncEngine):
        await engine.dispose()
    else:
        engine.dispose()


def translated(database: Database) -> AnyEngine:
    return database.user_engine(execution_options={"schema_translate_map": {None: "app"}})


def by_connect_listener(database: Database, **options: Any) -> AnyEngine:
    """SQLAlchemy's own recipe."""
    engine = database.user_engine(**options)

    @event.listens_for(engine.sync_engine if isinstance(engine, AsyncEngine) else engine, "connect", insert=True)
    def set_search_path(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("SET SESSION search_path = 'app'")
        cursor.close()
        connection.commit()

    return engine


def by_connect_listener_without_a_pool(database: Database) -> AnyEngine:
    return by_connect_listener(database, poolclass=NullPool)


def by_connect_args(database: Database) -> AnyEngine:
    asyncpg = {"server_settings": {"search_path": "app"}}
    psycopg = {"options": "-csearch_path=app"}
    return database.user_engine(connect_args=asyncpg if database.driver == "asyncpg" else psycopg)


def by_do_connect(database: Database) -> AnyEngine:
    """What tokens in the place of passwords are given by."""
    engine = database.user_engine()

    @event.listens_for(engine.sync_engine if isinstance(engine, AsyncEngine) else engine, "do_connect")
    def change(_dialect: object, _record: object, _arguments: object, options: dict[str, Any]) -> None:
        if database.driver == "asyncpg":
            options["server_settings"] = {"search_path": "app"}
        else:
            options["options"] = "-csearch_path=app"

    return engine


@pytest.mark.slow
@EVERY_POSTGRESQL_DRIVER
@pytest.mark.parametrize(
    "make", [translated, by_connect_listener, by_connect_listener_without_a_pool, by_connect_args, by_do_connect]
)
async def test_hookware_follows_the_engine(
    database: Database, look: Look, make: Callable[[Database], AnyEngine]
) -> None:
    engine = make(database)
    await run_two_tasks(engine)
    assert schemas(look) == {"app"}
    await dispose(engine)


@POSTGRESQL_ON_A_LOOP
async def test_a_search_path_that_only_the_user_has_is_refused(database: Database, look: Look) -> None:
    engine = database.engine()
    async with serving(Hookware(engine=engine, dispatch=False)):
        pass
    hookware = Hookware(engine=engine, dispatch=False)
    look.execute("CREATE TABLE app.hookware_task (LIKE hookware_task)")
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("SET LOCAL search_path = app"))
    with pytest.raises(StartupFailedError, match=r"in postgres\.app, and hookware's own in postgres\.test_"):
        async with serving(hookware):
            raise AssertionError("it must not start")
    engine.dispose()


@EVERY_POSTGRESQL_DRIVER
async def test_a_session_that_would_lose_the_task_in_another_schema_is_refused(database: Database, look: Look) -> None:
    engine = database.user_engine()
    async with serving(Hookware(engine=engine, dispatch=False)):
        look.execute("CREATE TABLE app.hookware_task (LIKE hookware_task)")
        of_a_tenant = engine.execution_options(schema_translate_map={None: "app"})
        with pytest.raises(SessionError, match=r"leads hookware's tables to 'app'.* map that one instead of None"):
            await add_in_session(of_a_tenant)
        with pytest.raises(SessionError, match="instead of None"):
            await add_over_connection(of_a_tenant)
        await add_in_session(engine.execution_options(schema_translate_map={"tenant": "app"}))
    assert look.rows("SELECT count(*) FROM app.hookware_task") == [0]
    assert look.rows("SELECT count(*) FROM hookware_task") == [1]
    await dispose(engine)


@EVERY_POSTGRESQL_DRIVER
async def test_so_is_a_requests_own_session_that_is_led_there(database: Database, look: Look) -> None:
    engine = database.user_engine()

    def lead_elsewhere(session: Any) -> None:
        session.connection(execution_options={"schema_translate_map": {None: "app"}})
        session.execute(text("SELECT 1"))
        session.commit()

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if isinstance(engine, Engine):
            lead_elsewhere(request_session())
        else:
            await async_request_session().run_sync(lead_elsewhere)
        taskqueue.add(url="/worker")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    hookware = Hookware(app, engine=engine, dispatch=False)
    async with serving(hookware):
        look.execute("CREATE TABLE app.hookware_task (LIKE hookware_task)")
        answer = await request(hookware, "/")
        assert (answer.status, type(answer.error)) == (500, SessionError)
    assert look.rows("SELECT count(*) FROM app.hookware_task") == [0]
    await dispose(engine)


# Which driver does hookware's own work.


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("driver", "options", "in_threads"),
    [
        ("psycopg", {}, True),
        ("psycopg", {"poolclass": NullPool}, True),
        ("psycopg", {"connect_args": {"prepare_threshold": None}}, False),
        ("asyncpg", {}, False),
    ],
)
async def test_an_async_engine_has_its_twin_where_its_url_says_all(
    driver: str, options: dict[str, Any], in_threads: bool
) -> None:
    engine = create_async_engine(f"postgresql+{driver}://me@nowhere.example/app", **options)
    runner = Hookware(engine=engine, dispatch=False)._outbox.runner
    assert isinstance(runner, ThreadRunner) is in_threads
    pool = runner._engine.pool if isinstance(runner, ThreadRunner) else runner._engine.sync_engine.pool  # type: ignore[attr-defined]  # an AsyncRunner
    assert isinstance(pool, NullPool) is ("poolclass" in options)
