"""What hookware's tables lack in a database, as statements: for people who make no migrations of their own."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, inspect, make_url, text
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from hookware.errors import ConfigurationError
from hookware.store.sql.postgresql import lock_tables
from hookware.store.sql.schema import TABLES
from hookware.store.sql.tables import KNOWS_STORAGE, metadata, storage_parameters, task_table

DIALECTS: Final = ("sqlite", "postgresql")
_ALEMBIC: Final = "alembic_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """Something that is missing.

    Attributes:
        table: of which table.
        what: "table", or "column x", or "index x".
        statement: what makes it; None: it cannot be added to rows that are there.
    """

    table: str
    what: str
    statement: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What a database has of hookware's tables.

    Attributes:
        there: the tables that there are.
        lacks: what is missing, in the order in which it is to be made.
        has_alembic: Alembic's own table is there: then migrations make the tables.
    """

    there: tuple[str, ...]
    lacks: tuple[Lack, ...]
    has_alembic: bool


def tables_in(connection: Connection) -> Tables:
    """Look what is there, and what is missing."""
    inspector = inspect(connection)
    there: list[str] = []
    lacks: list[Lack] = []
    for table in TABLES:
        schema = connection.schema_for_object(table)
        if not inspector.has_table(table.name, schema):
            lacks.append(Lack(table=table.name, what="table", statement=_sql(connection, CreateTable(table))))
            continue
        there.append(table.name)
        columns = {column["name"] for column in inspector.get_columns(table.name, schema)}
        indexes = {index["name"] for index in inspector.get_indexes(table.name, schema)}
        lacks += [_column(connection, table, column) for column in table.columns if column.name not in columns]
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            if index.name not in indexes:
                statement = _sql(connection, CreateIndex(index))
                lacks.append(Lack(table=table.name, what=f"index {index.name}", statement=statement))
    return Tables(there=tuple(there), lacks=tuple(lacks), has_alembic=inspector.has_table(_ALEMBIC))


def upgrade(connection: Connection) -> Tables:
    """Make what is missing; what there was before.

    Raises:
        ConfigurationError: a column is missing that rows which are there would have to fill.
    """
    if connection.dialect.name == "postgresql":
        lock_tables(connection)  # a process that starts may be making them
    found = tables_in(connection)
    if stuck := [f"{lack.table} has no {lack.what}" for lack in found.lacks if lack.statement is None]:
        raise ConfigurationError(
            f"{'; '.join(stuck)}: rows that are there would have to fill it. Make a migration (alembic revision "
            "--autogenerate) and run it; or, if no task waits in this database, drop them, and run this anew"
        )
    for lack in found.lacks:
        if lack.statement is not None and lack.what != "table":
            connection.execute(text(lack.statement.replace(":", r"\:")))
    metadata.create_all(connection, tables=TABLES)
    return found


def ddl(dialect_name: str) -> list[str]:
    """Give the statements that make all tables in an empty database."""
    dialect = make_url(f"{dialect_name}://").get_dialect()()
    made: list[CreateTable | CreateIndex] = []
    for table in TABLES:
        made += [CreateTable(table), *map(CreateIndex, sorted(table.indexes, key=lambda each: str(each.name)))]
    statements = [str(element.compile(dialect=dialect)).strip() for element in made]
    if dialect_name == "postgresql" and not KNOWS_STORAGE:
        statements.insert(1, f"ALTER TABLE {task_table.name} SET ({storage_parameters()})")
    return statements


def _sql(connection: Connection, element: CreateTable | CreateIndex) -> str:
    return str(element.compile(dialect=connection.dialect, schema_translate_map=_map(connection))).strip()


def _map(connection: Connection) -> Any:
    return connection.get_execution_options().get("schema_translate_map")


def _column(connection: Connection, table: Table, column: Column[Any]) -> Lack:
    what = f"column {column.name}"
    if not column.nullable:
        return Lack(table=table.name, what=what, statement=None)
    quote, schema = connection.dialect.identifier_preparer.quote, connection.schema_for_object(table)
    name = f"{quote(schema)}.{quote(table.name)}" if schema else quote(table.name)
    definition = CreateColumn(column).compile(dialect=connection.dialect)
    return Lack(table=table.name, what=what, statement=f"ALTER TABLE {name} ADD COLUMN {definition}")
