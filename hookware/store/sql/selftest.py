"""Proof, at start-up, that a rollback of the user's engine takes tasks with it."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, delete, insert, select, text

from hookware.core.lifecycle import State
from hookware.core.task import NewTask
from hookware.errors import ConfigurationError
from hookware.store.sql.rows import to_row
from hookware.store.sql.tables import task_table

QUEUE_NAME = "hookware-self-test"

_IDS = range(-1, -1001, -1)
"""Those that no task has: ids are given from 0 on. But a damaged row may hold anything."""

_columns = task_table.c
_WHERE = text(
    "SELECT current_database() || '.' || relnamespace::regnamespace::text FROM pg_class "
    "WHERE oid = to_regclass(CAST(:name AS text))"
)


def check_atomicity(bind: Engine | Connection) -> None:
    """Roll back an insert, and one in a released savepoint, and see whether anything stays.

    Args:
        bind: the user's engine; or, from `AsyncConnection.run_sync`, a connection of it that is in no transaction.

    Raises:
        ConfigurationError: something stayed, or the database lives in one connection only.
    """
    _refuse_memory(bind)
    plain_id, savepoint_id = _free_ids(bind)
    try:
        leak = _leak(bind, plain_id, savepoint_id)
    finally:
        with _connection(bind) as connection, connection.begin():
            connection.execute(delete(task_table).where(_columns.id.in_([plain_id, savepoint_id])))
    if leak is not None:
        raise ConfigurationError(
            f"a row survived the rollback of its transaction{leak}, so a task would run although "
            "its request failed. Take isolation_level= (AUTOCOMMIT) and event listeners that begin or commit "
            "transactions away from the engine, and give the engine to Hookware before it is used"
        )


def keeps_snapshots(bind: Engine | Connection) -> bool:
    """Say whether the transactions of the user's engine see the database as it was at their begin, until they end."""
    with _connection(bind) as connection:
        if connection.dialect.name == "sqlite":
            return False  # there a snapshot that has grown old refuses the first write, not the last
        level: str = connection.execute(text("SHOW transaction_isolation")).scalar_one()
        connection.rollback()
    return level in {"repeatable read", "serializable"}


def schema_of_tables(bind: Engine | Connection) -> str:
    """Say in which database and schema a connection finds hookware's tables; "" on SQLite, where a file says all."""
    with _connection(bind) as connection:
        if connection.dialect.name == "sqlite":
            return ""
        name = connection.dialect.identifier_preparer.quote(task_table.name)
        if schema := connection.schema_for_object(task_table):
            name = f"{connection.dialect.identifier_preparer.quote_schema(schema)}.{name}"
        found: str = connection.execute(_WHERE, {"name": name}).scalar_one()
    return found


def _free_ids(bind: Engine | Connection) -> tuple[int, int]:
    """Give two ids that no row has."""
    with _connection(bind) as connection:
        there = set(connection.execute(select(_columns.id).where(_columns.id.between(_IDS[-1], _IDS[0]))).scalars())
        connection.rollback()
    free = (task_id for task_id in _IDS if task_id not in there)
    return next(free), next(free)


def _leak(bind: Engine | Connection, plain_id: int, savepoint_id: int) -> str | None:
    with _connection(bind) as connection, connection.begin() as transaction:
        _insert(connection, plain_id)
        transaction.rollback()
    if _stayed(bind, plain_id):
        return ""  # PostgreSQL, in a connection that commits by itself, has no savepoints to look at
    with _connection(bind) as connection, connection.begin() as transaction:
        with connection.begin_nested():
            _insert(connection, savepoint_id)
        transaction.rollback()
    return " (with a released savepoint)" if _stayed(bind, savepoint_id) else None


def _stayed(bind: Engine | Connection, task_id: int) -> bool:
    with _connection(bind) as connection:
        found = connection.execute(select(_columns.id).where(_columns.id == task_id)).all()
        connection.rollback()
    return bool(found)


def _insert(connection: Connection, task_id: int) -> None:
    task = NewTask(id=task_id, queue_name=QUEUE_NAME, name=None, method="POST", url="/", headers=(), body=b"", eta_us=0)
    # DEAD, so that nobody runs it should it stay.
    connection.execute(insert(task_table), {**to_row(task, 0), "state": int(State.DEAD), "ended_us": 0})


def _refuse_memory(bind: Engine | Connection) -> None:
    with _connection(bind) as connection:
        if connection.dialect.name != "sqlite":
            return
        files = {name: file for _number, name, file in connection.exec_driver_sql("PRAGMA database_list")}
        connection.rollback()
    if not files["main"]:
        raise ConfigurationError(
            "the engine's creator gives a database in memory, which hookware's own connections cannot see: "
            'use a file, "sqlite:///app.db"'
        )


@contextmanager
def _connection(bind: Engine | Connection) -> Iterator[Connection]:
    if isinstance(bind, Connection):
        yield bind
    else:
        with bind.connect() as connection:
            yield connection
