"""hookware's tables in the database: made where they are missing, and compared with what this version works with."""

from sqlalchemy import Connection, Inspector, Table, inspect
from sqlalchemy.engine.interfaces import ReflectedColumn

from hookware.errors import ConfigurationError
from hookware.log import log_of
from hookware.store.sql.postgresql import lock_tables
from hookware.store.sql.tables import (
    attempt_table,
    audit_table,
    cron_table,
    executed_table,
    metadata,
    minute_table,
    name_table,
    process_table,
    queue_table,
    task_table,
)

TABLES = [
    task_table,
    name_table,
    queue_table,
    executed_table,
    cron_table,
    minute_table,
    process_table,
    attempt_table,
    audit_table,
]

_logger = log_of()


def make_tables(connection: Connection) -> None:
    """Make the tables that are missing; what is there stays as it is."""
    if connection.dialect.name == "postgresql":
        lock_tables(connection)  # two processes that start at once would collide
    metadata.create_all(connection, tables=TABLES)


def require_tables(connection: Connection) -> None:
    """See that the tables are there.

    Raises:
        ConfigurationError: a table is missing.
    """
    inspector = inspect(connection)
    missing = [each.name for each in TABLES if not inspector.has_table(each.name, connection.schema_for_object(each))]
    if missing:
        raise ConfigurationError(
            f"the database has no table {', '.join(missing)}: run SQLModel.metadata.create_all(engine) or "
            "a migration, or `hookware db upgrade`, or pass create_tables=True"
        )


def check_tables(connection: Connection) -> None:
    """See that this version of hookware can work with the tables; warn of indexes that it misses.

    Raises:
        ConfigurationError: a column is missing, or one that hookware does not know must be filled.
    """
    inspector = inspect(connection)
    for table in TABLES:
        _check_columns(table, inspector.get_columns(table.name, connection.schema_for_object(table)))
    missing = [name for table in TABLES for name in _missing_indexes(table, inspector, connection)]
    if missing:
        _logger.warning(
            "the database has no index %s: hookware works, and becomes slow with many tasks. Make a migration "
            "(alembic revision --autogenerate), or create them by hand as hookware/store/sql/tables.py has them",
            ", ".join(missing),
        )


def troubles(connection: Connection) -> tuple[list[str], list[str]]:
    """Say what is missing, without raising: tables and columns, with which nothing works; and indexes."""
    inspector = inspect(connection)
    there = [each for each in TABLES if inspector.has_table(each.name, connection.schema_for_object(each))]
    broken = [f"The database has no table {each.name}." for each in TABLES if each not in there]
    for table in there:
        found = {column["name"] for column in inspector.get_columns(table.name, connection.schema_for_object(table))}
        if missing := [name for name in table.columns.keys() if name not in found]:  # noqa: SIM118 - in the table's order
            broken.append(f"The table {table.name} has no column {', '.join(missing)}.")
    slow = [name for table in there for name in _missing_indexes(table, inspector, connection)]
    return broken, slow


def _check_columns(table: Table, found: list[ReflectedColumn]) -> None:
    known, there = set(table.columns.keys()), {column["name"] for column in found}
    if missing := [name for name in table.columns.keys() if name not in there]:  # noqa: SIM118 - in the table's order
        raise ConfigurationError(
            f"the database's table {table.name} has no column {', '.join(missing)}: an earlier version of hookware "
            "made it. Run hookware db upgrade, or a migration (alembic revision --autogenerate); or, if no task waits "
            f"in this database, drop {' and '.join(each.name for each in TABLES)}, to have them made anew"
        )
    if strange := [column["name"] for column in found if column["name"] not in known and _must_be_filled(column)]:
        raise ConfigurationError(
            f"the database's table {table.name} wants a value for the column {', '.join(strange)}, which this version "
            "of hookware does not know: a later one made it. Upgrade hookware, or, if the column is yours, let it be "
            "NULL or give it a default"
        )


def _must_be_filled(column: ReflectedColumn) -> bool:
    given = column["default"] is not None or column.get("computed") or column.get("identity")
    return not column["nullable"] and not given


def _missing_indexes(table: Table, inspector: Inspector, connection: Connection) -> list[str]:
    there = {index["name"] for index in inspector.get_indexes(table.name, connection.schema_for_object(table))}
    return sorted(str(index.name) for index in table.indexes if index.name not in there)
