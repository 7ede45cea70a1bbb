"""SQLite's transactions are real on a configured engine, and a start on one that is not is refused."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from threading import Barrier, Thread

import pytest
from sqlalchemy import Connection, Engine, column, create_engine, event, insert, select, table, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from hookware.errors import ConfigurationError
from hookware.store.sql.rows import to_row
from hookware.store.sql.selftest import check_atomicity
from hookware.store.sql.sqlite import configure, in_transaction, is_memory
from hookware.store.sql.tables import metadata, name_table, task_table
from tests.store.subject import new_task

Run = Callable[[Callable[[Connection], None]], Awaitable[None]]


@pytest.fixture(params=["sqlite3", "aiosqlite"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def tables(path: Path) -> None:
    """Make the tables, and one of the user's."""
    engine = create_engine(f"sqlite:///{path}")
    metadata.create_all(engine, tables=[task_table, name_table])
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE note (word TEXT)"))
    engine.dispose()


@asynccontextmanager
async def opened(driver: str, path: Path, *, configured: bool = True, **options: object) -> AsyncIterator[Run]:
    """Give a way to run a synchronous function on a connection of a driver's engine."""
    if driver == "sqlite3":
        engine = create_engine(f"sqlite:///{path}", **options)
        if configured:
            configure(engine)

        async def run(fn: Callable[[Connection], None]) -> None:
            with engine.connect() as connection:
                fn(connection)

        yield run
        engine.dispose()
        return
    async_engine = create_async_engine(f"sqlite+aiosqlite:///{path}", **options)
    if configured:
        configure(async_engine.sync_engine)

    async def run_async(fn: Callable[[Connection], None]) -> None:
        async with async_engine.connect() as connection:
            await connection.run_sync(fn)

    yield run_async
    await async_engine.dispose()


def write(connection: Connection, word: str) -> None:
    connection.execute(text("INSERT INTO note VALUES (:word)"), {"word": word})


def words_in(path: Path) -> list[str]:
    """See what another program would."""
    with closing(sqlite3.connect(path)) as connection:
        return [word for (word,) in connection.execute("SELECT word FROM note ORDER BY rowid")]


def nested(connection: Connection, before: str, inner: str, outer: str) -> None:
    """Write in a savepoint, with something or nothing before it in the transaction."""
    if before == "select":
        connection.execute(text("SELECT * FROM note")).all()
    elif before == "write":
        write(connection, "before")
    elif before == "commit":
        write(connection, "before")
        connection.commit()
    savepoint = connection.begin_nested()
    write(connection, "inner")
    getattr(savepoint, inner)()
    getattr(connection, outer)()


@pytest.mark.parametrize("outer", ["commit", "rollback"])
@pytest.mark.parametrize("inner", ["commit", "rollback"])
@pytest.mark.parametrize("before", ["nothing", "select", "write", "commit"])
async def test_a_savepoint_is_undone_with_its_transaction(
    driver: str, path: Path, before: str, inner: str, outer: str
) -> None:
    async with opened(driver, path) as run:
        await run(partial(nested, before=before, inner=inner, outer=outer))
        stays = [
            word
            for word, stayed in {
                "before": before == "commit" or (before == "write" and outer == "commit"),
                "inner": (inner, outer) == ("commit", "commit"),
            }.items()
            if stayed
        ]
        assert words_in(path) == stays
        await run(check_atomicity)


async def test_an_engine_that_is_not_configured_leaks_and_is_refused(driver: str, path: Path) -> None:
    async with opened(driver, path, configured=False) as run:
        await run(partial(nested, before="nothing", inner="commit", outer="rollback"))
        assert words_in(path) == ["inner"]
        with pytest.raises(ConfigurationError, match="survived the rollback of its transaction \\(with a released"):
            await run(check_atomicity)


async def test_an_engine_that_commits_every_statement_is_refused(driver: str, path: Path) -> None:
    async with opened(driver, path, configured=False, isolation_level="AUTOCOMMIT") as run:
        with pytest.raises(ConfigurationError, match="survived the rollback of its transaction,"):
            await run(check_atomicity)
        with pytest.raises(ConfigurationError, match="isolation level is AUTOCOMMIT"):
            await run(lambda connection: configure(connection.engine))


def test_an_engine_cloned_to_commit_every_statement_is_refused(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with pytest.raises(ConfigurationError, match="isolation level is AUTOCOMMIT"):
        configure(engine.execution_options(isolation_level="AUTOCOMMIT"))


@pytest.mark.parametrize("configured", [True, False])
async def test_the_self_test_leaves_nothing_behind(driver: str, path: Path, configured: bool) -> None:
    async with opened(driver, path, configured=configured) as run:
        try:
            await run(check_atomicity)
        except ConfigurationError:
            assert not configured
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM hookware_task").fetchone() == (0,)


async def test_the_self_test_leaves_rows_alone_whatever_their_ids(driver: str, path: Path) -> None:
    rows = [to_row(new_task(task_id=task_id), 0) for task_id in (-1, -2, -4)]
    async with opened(driver, path) as run:

        def put(connection: Connection) -> None:
            connection.execute(insert(task_table), rows)
            connection.commit()

        await run(put)
        await run(check_atomicity)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT id FROM hookware_task ORDER BY id").fetchall() == [(-4,), (-2,), (-1,)]


def test_the_self_test_needs_one_connection_at_a_time(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}", pool_size=1, max_overflow=0, pool_timeout=0.01)
    configure(engine)
    check_atomicity(engine)
    engine.dispose()


def test_a_recipe_that_begins_by_itself_is_good_as_well(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    configure(engine)
    check_atomicity(engine)
    engine.dispose()


note = table("note", column("word"))
WRITES = [
    "INSERT INTO note VALUES ('a')",
    "  -- SELECT\n\t/* SELECT\n */ update note SET word = 'b'",
    "REPLACE INTO note VALUES ('a')",
    "DELETE FROM note",
    'SAVEPOINT "of a name that cannot be put off"',
    "CREATE TABLE other (x)",
    "WITH a AS (SELECT 1) INSERT INTO note SELECT * FROM a",
    "WITH a AS (SELECT 'x') REPLACE INTO note SELECT * FROM a",
]
READS = [
    "SELECT * FROM note",
    "/* INSERT */ select 1",
    "-- INSERT\n SELECT 1",
    "WITH a AS (SELECT 1) SELECT * FROM a",
    "WITH a AS (SELECT 'x') SELECT replace('x', 'y', 'z') FROM a",
    "PRAGMA user_version",
    "EXPLAIN DELETE FROM note",
    "VALUES (1)",
    "ATTACH ':memory:' AS other",
    "SAVEPOINT here",
]


@pytest.mark.parametrize("statement", [*WRITES, *READS])
def test_a_transaction_begins_with_its_first_write(engine: Engine, statement: str) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql(statement).close()
        assert in_transaction(connection) is (statement in WRITES)


def test_savepoints_around_reads_take_no_lock(engine: Engine) -> None:
    with engine.connect() as connection:
        outer, inner = connection.begin_nested(), connection.begin_nested()
        connection.execute(select(note)).all()
        inner.rollback()
        connection.begin_nested().commit()
        outer.commit()
        assert not in_transaction(connection)


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_savepoints_that_were_put_off_follow_before_the_first_write(engine: Engine, ends: str) -> None:
    with engine.connect() as connection:
        gone = connection.begin_nested()
        gone.rollback()
        outer, inner = connection.begin_nested(), connection.begin_nested()
        connection.execute(insert(note).values(word="inner"))
        inner.rollback()
        connection.execute(insert(note).values(word="outer"))
        getattr(outer, ends)()
        connection.execute(insert(note).values(word="root"))
        connection.commit()
        connection.begin_nested()
        connection.rollback()
        connection.execute(insert(note).values(word="later"))
        connection.commit()
        words = [word for (word,) in connection.execute(select(note))]
    assert words == ["outer"] * (ends == "commit") + ["root", "later"]


@pytest.mark.parametrize("locking", [True, False])
async def test_a_select_for_update_begins_a_transaction(driver: str, path: Path, locking: bool) -> None:
    statement = select(note).with_for_update() if locking else select(note)

    def read(connection: Connection) -> None:
        connection.execute(statement).all()
        assert in_transaction(connection) is locking

    async with opened(driver, path) as run:
        await run(read)


def test_a_connection_that_commits_every_statement_goes_on_doing_so(engine: Engine, path: Path) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        write(connection, "now")
        assert words_in(path) == ["now"]


def test_the_lock_is_taken_at_once_and_by_one(engine: Engine, path: Path) -> None:
    with engine.connect() as connection, closing(sqlite3.connect(path, timeout=0)) as other:
        connection.execute(text("SELECT * FROM note")).all()
        other.execute("BEGIN IMMEDIATE").connection.rollback()
        connection.begin_nested()
        write(connection, "a")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        assert other.execute("SELECT count(*) FROM note").fetchone() == (0,)


def test_on_begin_is_called_right_before_each_transaction(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    begun: list[tuple[Connection, bool]] = []
    configure(engine, on_begin=lambda connection: begun.append((connection, in_transaction(connection))))
    configure(engine)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert begun == []
        write(connection, "a")
        write(connection, "b")
        connection.commit()
        write(connection, "c")
        assert begun == [(connection, False)] * 2
    engine.dispose()


def test_what_on_begin_raises_comes_out_and_nothing_begins(path: Path) -> None:
    def refuse(_connection: Connection) -> None:
        raise LookupError("second writer")

    engine = create_engine(f"sqlite:///{path}")
    configure(engine, on_begin=refuse)
    with engine.connect() as connection:
        with pytest.raises(LookupError, match="second writer"):
            write(connection, "a")
        assert not in_transaction(connection)
    engine.dispose()
    assert words_in(path) == []


def test_configuring_again_changes_nothing(engine: Engine) -> None:
    configure(engine)
    configure(engine)
    statements: list[str] = []
    with engine.connect() as connection:
        connection.connection.driver_connection.set_trace_callback(statements.append)  # type: ignore[union-attr]  # it is there
        write(connection, "a")
    assert [statement.split()[0] for statement in statements] == ["BEGIN", "INSERT", "ROLLBACK"]


def pragmas(connection: Connection) -> dict[str, object]:
    names = ("journal_mode", "busy_timeout", "synchronous")
    return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}


@pytest.mark.parametrize(("driver_seconds", "milliseconds"), [(0.5, 5000), (9, 9000)])
async def test_pragmas(driver: str, path: Path, driver_seconds: float, milliseconds: int) -> None:
    def check(connection: Connection) -> None:
        assert pragmas(connection) == {"journal_mode": "wal", "busy_timeout": milliseconds, "synchronous": 2}

    async with opened(driver, path, connect_args={"timeout": driver_seconds}) as run:
        await run(check)


async def test_connections_that_were_pooled_before_are_configured_too(driver: str, path: Path) -> None:
    async with opened(driver, path, configured=False, connect_args={"timeout": 1}) as run:
        await run(lambda connection: connection.execute(text("SELECT 1")).close())
        await run(lambda connection: configure(connection.engine))

        def check(connection: Connection) -> None:
            assert pragmas(connection)["busy_timeout"] == 5000

        await run(check)
        await run(check_atomicity)


@pytest.mark.slow
def test_a_file_that_another_program_has_locked_is_no_error(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    configure(engine)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        first = engine.connect()
        first.exec_driver_sql("SELECT 1")
    assert first.exec_driver_sql("SELECT count(*) FROM note").scalar() == 0
    with engine.connect() as second:
        assert pragmas(second)["busy_timeout"] == 5000
    first.close()
    engine.dispose()


def test_a_read_only_file_is_no_error(path: Path) -> None:
    engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    configure(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM note").scalar() == 0
        assert pragmas(connection) == {"journal_mode": "delete", "busy_timeout": 5000, "synchronous": 2}
    engine.dispose()


IN_MEMORY = [
    "sqlite://",
    "sqlite:///:memory:",
    "sqlite:///file::memory:?cache=shared&uri=true",
    "sqlite:///file:name?mode=memory&cache=shared&uri=true",
    "sqlite:///file:?uri=true",
]


@pytest.mark.parametrize("url", IN_MEMORY)
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"database in memory.*Use a file"):
        configure(create_engine(url, poolclass=StaticPool))


@pytest.mark.parametrize("url", ["sqlite:///app.db", "sqlite:////memory", "sqlite:///file:app.db?mode=rw&uri=true"])
def test_a_file_is_not_in_memory(url: str) -> None:
    assert is_memory(create_engine(url).url) is False


def test_a_creator_of_databases_in_memory_is_refused(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}", creator=lambda: sqlite3.connect(":memory:"))
    configure(engine)
    with pytest.raises(ConfigurationError, match="creator gives a database in memory"):
        check_atomicity(engine)
    engine.dispose()


def test_a_pool_that_shares_one_connection_is_refused(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="StaticPool shares connections"):
        configure(create_engine(f"sqlite:///{path}", poolclass=StaticPool))


def read_then_write(engine: Engine, together: Barrier, errors: list[OperationalError]) -> None:
    together.wait()
    for _ in range(25):
        try:
            with engine.begin() as connection:
                connection.execute(text("SELECT count(*) FROM note")).scalar()
                write(connection, "word")
        except OperationalError as error:
            errors.append(error)


@pytest.mark.slow
def test_reading_and_then_writing_at_once_is_never_locked(path: Path, engine: Engine) -> None:
    errors: list[OperationalError] = []
    together = Barrier(4)
    threads = [Thread(target=read_then_write, args=(engine, together, errors)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert words_in(path) == ["word"] * 100
