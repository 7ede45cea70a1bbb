"""A PostgreSQL that cannot be used stops the server at start-up, and one line says what to do."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine

from hookware import Hookware, TaskRouter, taskqueue
from tests.databases import EVERY_POSTGRESQL_DRIVER, POSTGRESQL_ON_A_LOOP, Database
from tests.postgres import PostgresServer, postgres_server
from tests.serving import Recorder, StartupFailedError, serving

UNREACHED = "Check that the server runs at this host and port, that the database exists (createdb makes it)"


async def complaint(database: Database, **options: Any) -> str:
    """Start Hookware, and give what it says in the place of starting."""
    engine = database.user_engine()
    with pytest.raises(StartupFailedError) as failed:
        async with serving(Hookware(engine=engine, router=TaskRouter(), **options)):
            raise AssertionError("it must not start")
    if isinstance(engine, Engine):
        engine.dispose()
    else:
        await engine.dispose()
    said = str(failed.value)
    assert said.startswith("hookware cannot start: ")
    assert "\n" not in said
    assert "secret" not in said
    return said


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """What is wrong with a URL, and words of what the driver says about it."""

    change: dict[str, Any]
    says: str


MISTAKES = {
    "no server": Mistake(change={"port": 1}, says="port"),
    "no host": Mistake(change={"host": "nowhere.invalid"}, says="nowhere.invalid"),
    "no database": Mistake(change={"database": "nonesuch"}, says='database "nonesuch" does not exist'),
    "no user": Mistake(change={"username": "nonesuch"}, says='role "nonesuch" does not exist'),
}


@EVERY_POSTGRESQL_DRIVER
@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_server_that_is_not_reached(database: Database, mistake: str) -> None:
    change, says = MISTAKES[mistake].change, MISTAKES[mistake].says
    wrong = Database(url=database.url.set(password="secret", **change), driver=database.driver)
    said = await complaint(wrong)
    assert UNREACHED in said
    assert says in said
    assert ":***@" in said


@pytest.fixture(scope="module")
def strict() -> Iterator[PostgresServer]:
    """Give a server that asks for passwords."""
    with postgres_server() as server:
        with server.connect() as connection:
            connection.execute("CREATE ROLE me LOGIN PASSWORD 'right'")
        server.ask_for_passwords("me")
        yield server


@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("driver", ["", "psycopg", "asyncpg"])
async def test_a_wrong_password(strict: PostgresServer, driver: str) -> None:
    url = strict.url().set(username="me", password="secret")
    said = await complaint(Database(url=url, driver=driver))
    assert 'password authentication failed for user "me"' in said
    assert UNREACHED in said


@pytest.fixture
def strangers(database: Database) -> Iterator[Database]:
    """Give the same schema to a user who may do nothing there."""
    look, name = database.look(), f"{database.url.username}_stranger"
    look.execute(f"CREATE ROLE {name} LOGIN")
    look.execute(f"ALTER ROLE {name} SET search_path = {database.url.username}")
    look.execute(f"GRANT USAGE ON SCHEMA {database.url.username} TO {name}")
    yield Database(url=database.url.set(username=name), driver=database.driver)
    look.close()


@EVERY_POSTGRESQL_DRIVER
async def test_a_user_who_may_not_create_tables(database: Database, strangers: Database) -> None:
    said = await complaint(strangers)
    assert f"permission denied for schema {database.url.username}" in said
    assert f"GRANT CREATE ON SCHEMA public TO {strangers.url.username}" in said
    assert "create_tables=False" in said
    said = await complaint(strangers, create_tables=False)
    assert "the database has no table hookware_task" in said


@POSTGRESQL_ON_A_LOOP
async def test_a_user_needs_what_the_message_tells_to_grant_and_no_more(
    database: Database, strangers: Database
) -> None:
    owner = database.engine()
    async with serving(Hookware(engine=owner, router=TaskRouter(), dispatch=False)):
        owner.dispose()
    said = await complaint(strangers, create_tables=False)
    assert "permission denied for table hookware_task" in said
    look = database.look()
    look.execute(said[said.index("GRANT SELECT") :])
    look.close()
    router, engine = TaskRouter(), strangers.engine()

    @router.task_handler("/worker")
    def worker() -> None: ...

    hookware = Hookware(engine=engine, router=router)
    recorder = Recorder(hookware)
    async with serving(hookware):
        await taskqueue.add_async(url="/worker", name="named")
        (settled,) = await recorder.wait_settled(1)
    assert settled.accepted
    engine.dispose()
