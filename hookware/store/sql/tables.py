"""hookware's tables. They live in `SQLModel.metadata`, so that `create_all` and Alembic see them.

Times are BIGINT microseconds since the epoch; payload, headers and errors are bytes and text, never JSON columns.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
    event,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.orm import registry
from sqlmodel import SQLModel

from hookware.core.lifecycle import State
from hookware.store.sql.times import DatabaseTime

metadata = SQLModel.metadata

# Every task leaves two dead rows behind: clean up by count, not by share of a table that is nearly empty.
_STORAGE: Final = {"autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 5000}
_KNOWS_STORAGE: Final = any("with" in options for kind, options in PGDialect.construct_arguments or () if kind is Table)
"""Not before SQLAlchemy 2.1."""
_OPTIONS: Final[dict[str, Any]] = {"postgresql_with": _STORAGE} if _KNOWS_STORAGE else {}

task_table = Table(
    "hookware_task",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("queue_name", String(100), nullable=False),
    Column("name", String(500)),
    Column("method", String(8), nullable=False),
    Column("url", Text, nullable=False),
    Column("headers", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("retry_options", Text),
    Column("deadline_us", BigInteger, nullable=False),
    Column("created_us", DatabaseTime, nullable=False),
    Column("eta_us", DatabaseTime, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("owner", String(200)),
    Column("lease_until_us", BigInteger),
    Column("attempt_count", Integer, nullable=False),
    Column("crash_count", Integer, nullable=False),
    Column("first_attempt_us", BigInteger),
    Column("last_status", SmallInteger),
    Column("last_error", Text),
    Column("dead_reason", String(20)),
    Column("dead_us", BigInteger),
    **_OPTIONS,
)

if not _KNOWS_STORAGE:

    @event.listens_for(task_table, "after_create")
    def _set_storage(table: Table, connection: Connection, **_options: object) -> None:
        if connection.dialect.name == "postgresql":
            quote, schema = connection.dialect.identifier_preparer.quote, connection.schema_for_object(table)
            name = f"{quote(schema)}.{table.name}" if schema else table.name
            parameters = ", ".join(f"{key} = {value}" for key, value in _STORAGE.items())
            connection.execute(text(f"ALTER TABLE {name} SET ({parameters})"))


for _name, _columns, _where in (
    (
        "ix_hookware_task_pending",
        (task_table.c.queue_name, task_table.c.eta_us, task_table.c.id),
        State.PENDING,
    ),
    ("ix_hookware_task_leased", (task_table.c.lease_until_us, task_table.c.id), State.LEASED),
    ("ix_hookware_task_dead", (task_table.c.dead_reason, task_table.c.dead_us), State.DEAD),
):
    # The state is a literal in the index's condition: the statements must spell it the same way to use the index.
    _condition = task_table.c.state == literal_column(str(int(_where)))
    Index(_name, *_columns, sqlite_where=_condition, postgresql_where=_condition)
Index(
    "ix_hookware_task_name",
    task_table.c.queue_name,
    task_table.c.name,
    sqlite_where=task_table.c.name.is_not(None),
    postgresql_where=task_table.c.name.is_not(None),
)

name_table = Table(
    "hookware_name",
    metadata,
    Column("queue_name", String(100), primary_key=True),
    Column("name", String(500), primary_key=True),
    Column("task_id", BigInteger, nullable=False),
    Column("expires_us", BigInteger),
    Index("ix_hookware_name_expires", "expires_us"),
    Index("ix_hookware_name_task", "task_id"),
)
"""Names won by a task; `expires_us` is set when the task is gone: then the row is its tombstone."""


class TaskRow:
    """A task as an object of the user's own Session: it commits, rolls back and expunges with it."""

    id: int
    queue_name: str
    name: str | None
    method: str
    url: str
    headers: str
    body: bytes
    retry_options: str | None
    deadline_us: int
    created_us: int
    eta_us: int
    state: int
    fence: int
    attempt_count: int
    crash_count: int


registry(metadata=metadata).map_imperatively(
    # The fence is the version: a DELETE through a session carries `AND fence = ...` and raises when it is stale.
    TaskRow, task_table, version_id_col=task_table.c.fence, version_id_generator=False,
)  # fmt: skip
