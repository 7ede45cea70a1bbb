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

from hookware.core.history import AttemptRecord
from hookware.core.lifecycle import State
from hookware.core.statistics import FIELDS
from hookware.store.sql.times import DatabaseTime

metadata = SQLModel.metadata

# Every task leaves two dead rows behind: clean up by count, not by share of a table that is nearly empty.
_STORAGE: Final = {"autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 5000}
KNOWS_STORAGE: Final = any("with" in options for kind, options in PGDialect.construct_arguments or () if kind is Table)
"""Not before SQLAlchemy 2.1."""
_OPTIONS: Final[dict[str, Any]] = {"postgresql_with": _STORAGE} if KNOWS_STORAGE else {}


def storage_parameters() -> str:
    """Give the table's storage parameters, as a statement has them where SQLAlchemy does not write them itself."""
    return ", ".join(f"{key} = {value}" for key, value in _STORAGE.items())


def _plain_text(length: int) -> String:
    """Give the type of a text whose order is that of its characters' numbers, as in Python, whatever the language."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


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
    Column("ended_us", BigInteger),
    Column("lane", _plain_text(120), nullable=False),
    Column("tag", String(500)),
    Column("dedup_key", String(500)),
    Column("on_conflict", String(10)),
    Column("fair_key", _plain_text(500)),
    Column("limit_key", _plain_text(500)),
    Column("depth", Integer),
    Column("progress", Text),
    Column("origin", String(200)),
    Column("parent_id", BigInteger),
    Column("record_count", Integer),
    **_OPTIONS,
)

if not KNOWS_STORAGE:

    @event.listens_for(task_table, "after_create")
    def _set_storage(table: Table, connection: Connection, **_options: object) -> None:
        if connection.dialect.name == "postgresql":
            quote, schema = connection.dialect.identifier_preparer.quote, connection.schema_for_object(table)
            name = f"{quote(schema)}.{table.name}" if schema else table.name
            connection.execute(text(f"ALTER TABLE {name} SET ({storage_parameters()})"))


for _name, _columns, _where in (
    ("ix_hookware_task_pending", (task_table.c.lane, task_table.c.eta_us, task_table.c.id), State.PENDING),
    ("ix_hookware_task_leased", (task_table.c.lease_until_us, task_table.c.id), State.LEASED),
    ("ix_hookware_task_dead", (task_table.c.dead_reason, task_table.c.ended_us), State.DEAD),
    ("ix_hookware_task_buried", (task_table.c.queue_name, task_table.c.ended_us, task_table.c.id), State.DEAD),
    ("ix_hookware_task_completed", (task_table.c.queue_name, task_table.c.ended_us), State.COMPLETED),
    ("ix_hookware_task_pull", (task_table.c.queue_name, task_table.c.eta_us, task_table.c.id), State.PULL),
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

for _name, _keys, _given in (
    (
        "ix_hookware_task_keyed",
        (task_table.c.lane, task_table.c.fair_key, task_table.c.limit_key, task_table.c.eta_us, task_table.c.id),
        task_table.c.fair_key,
    ),
    (
        "ix_hookware_task_dedup",
        (task_table.c.queue_name, task_table.c.dedup_key, task_table.c.created_us, task_table.c.id),
        task_table.c.dedup_key,
    ),
):
    # Of waiting tasks with keys only: what has none pays nothing.
    _condition = (task_table.c.state == literal_column(str(int(State.PENDING)))) & _given.is_not(None)
    Index(_name, *_keys, sqlite_where=_condition, postgresql_where=_condition)

Index(
    "ix_hookware_task_parent",
    task_table.c.parent_id,
    task_table.c.id,
    sqlite_where=task_table.c.parent_id.is_not(None),
    postgresql_where=task_table.c.parent_id.is_not(None),
)

_condition = (task_table.c.state == literal_column(str(int(State.PULL)))) & task_table.c.tag.is_not(None)
Index(
    "ix_hookware_task_tag",
    task_table.c.queue_name,
    task_table.c.tag,
    task_table.c.eta_us,
    task_table.c.id,
    sqlite_where=_condition,
    postgresql_where=_condition,
)

queue_table = Table(
    "hookware_queue",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("paused", SmallInteger, nullable=False),
    Column("overrides", Text),
    Column("tokens", BigInteger),
    Column("refilled_us", BigInteger),
    Column("paused_us", BigInteger),
    Column("paused_by", String(200)),
)
"""What is set of a queue at run time, and its bucket; queues that have nothing of it have no row."""

executed_table = Table(
    "hookware_executed",
    metadata,
    Column("queue_name", String(100), primary_key=True),
    Column("slot_us", BigInteger, primary_key=True),
    Column("completed_count", Integer, nullable=False),
    Column("failed_count", Integer, nullable=False),
    Column("dead_count", Integer, nullable=False),
    Index("ix_hookware_executed_slot", "slot_us"),
)
"""How many attempts ended how, by queue and ten seconds."""

minute_table = Table(
    "hookware_minute",
    metadata,
    Column("queue_name", String(100), primary_key=True),
    Column("minute_us", BigInteger, primary_key=True),
    *(Column(name, BigInteger if name.endswith("_us") else Integer, nullable=False) for name in FIELDS),
    Index("ix_hookware_minute_time", "minute_us"),
)
"""What ended in each minute: sums, maxima and histograms."""

process_table = Table(
    "hookware_process",
    metadata,
    Column("owner", String(200), primary_key=True),
    Column("host", String(64), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("version", String(50), nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
    Column("concurrency", Integer, nullable=False),
    Column("running_count", Integer, nullable=False),
    Column("dispatches", SmallInteger, nullable=False),
    Column("clock_offset_us", BigInteger, nullable=False),
    Column("slowed", Text),
    Index("ix_hookware_process_seen", "seen_us"),
)
"""The processes with a Hookware, as each last spoke."""

cron_table = Table(
    "hookware_cron",
    metadata,
    Column("name", String(500), primary_key=True),
    Column("schedule", Text, nullable=False),
    Column("next_us", BigInteger),
    Column("last_us", BigInteger),
    Column("task_id", BigInteger),
    Column("paused", SmallInteger, nullable=False),
)
"""Cron entries: the schedule that `next_us` was reckoned by, and the task of the last fire."""

attempt_table = Table(
    "hookware_attempt",
    metadata,
    Column("task_id", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("attempt_count", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("owner", String(200)),
    Column("method", String(8), nullable=False),
    Column("url", Text, nullable=False),
    Column("began_us", BigInteger),
    Column("ended_us", BigInteger, nullable=False),
    Column("outcome", String(20), nullable=False),
    Column("status", SmallInteger),
    Column("error", Text),
    Column("response_headers", Text, nullable=False),
    Column("response_text", Text, nullable=False),
    Column("response_byte_count", BigInteger, nullable=False),
)
"""What is kept of attempts. No index but the key: whoever removes a task knows whether it has any."""

audit_table = Table(
    "hookware_audit",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("who", String(200), nullable=False),
    Column("role", String(20), nullable=False),
    Column("action", String(40), nullable=False),
    Column("target", String(500), nullable=False),
    Column("result", String(500), nullable=False),
    Column("kept", LargeBinary),
    Index("ix_hookware_audit_at", "at_us"),
)
"""What people did by hand; `kept` is the row of a task that was deleted, as long as it can be brought back."""

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
    lane: str
    tag: str | None
    dedup_key: str | None
    on_conflict: str | None
    fair_key: str | None
    limit_key: str | None
    depth: int | None
    origin: str | None
    parent_id: int | None
    owner: str | None
    lease_until_us: int | None
    ended_us: int | None
    record_count: int | None
    was_updated = False
    record: AttemptRecord | None = None


registry(metadata=metadata).map_imperatively(
    # The fence is the version: what a session writes carries `AND fence = ...`, and raises when it is stale.
    TaskRow, task_table, version_id_col=task_table.c.fence, version_id_generator=False,
)  # fmt: skip
