"""A lease finds its tasks by the indexes made for it, however many wait; so do a purge and the numbers of a queue."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert

from hookware import Queue
from hookware.core.task import PULL, NewTask
from hookware.store.sql import pull, queue_ops
from hookware.store.sql.operation import Moment
from hookware.store.sql.rows import to_rows
from hookware.store.sql.schema import make_tables
from hookware.store.sql.tables import task_table
from tests.databases import EVERY_DATABASE, Database

NOW_US = 1_700_000_000_000_000
MOMENT = Moment(NOW_US, NOW_US, lambda name: Queue(name, mode="pull").settings)
STATEMENTS: dict[str, Callable[[Connection], object]] = {
    "ix_hookware_task_pull": lambda c: pull.Lease("pull", 0, 10)(c, MOMENT),
    "ix_hookware_task_tag": lambda c: pull.Lease("pull", 0, 10, "t1")(c, MOMENT),
}


def fill(connection: Connection) -> None:
    """Put many tasks into a pull queue, few of which have the tag, and some into others."""
    make_tables(connection)
    for first in range(0, 6000, 500):
        tasks = [
            NewTask(
                id=n + 1, queue_name="pull" if n % 50 else "few", name=None, method=PULL, url="/", headers=(),
                body=b"x", tag=f"t{n % 500}" if n % 2 else None, eta_us=NOW_US - 10_000_000 + n * 1000,
            )
            for n in range(first, first + 500)
        ]  # fmt: skip
        connection.execute(insert(task_table), to_rows(tasks, NOW_US))


@pytest.mark.slow
@EVERY_DATABASE
def test_a_lease_is_found_by_its_index(database: Database) -> None:
    engine = database.engine()
    with engine.begin() as connection:
        fill(connection)
        connection.exec_driver_sql("ANALYZE")
    for index, run in STATEMENTS.items():
        plans = [plan for plan in explained(database, run) if index in plan]
        assert plans, index
        assert not any("Sort" in plan or "TEMP B-TREE" in plan or "Seq Scan" in plan for plan in plans), plans
    engine.dispose()


@pytest.mark.slow
@EVERY_DATABASE
@pytest.mark.parametrize(
    "run",
    [lambda c: queue_ops.count(c, MOMENT, ["few"]), lambda c: queue_ops.Purge("nothing")(c, MOMENT)],
    ids=["count", "purge"],
)
def test_no_scan_of_the_table(database: Database, run: Callable[[Connection], object]) -> None:
    engine = database.engine()
    with engine.begin() as connection:
        fill(connection)
        connection.exec_driver_sql("ANALYZE")
    plans = explained(database, run)
    assert any("ix_hookware_task_pull" in plan for plan in plans)
    for plan in plans:
        assert "Seq Scan on hookware_task" not in plan
        for line in plan.splitlines():
            if line.startswith("SCAN hookware_task"):
                # Those that run, and dead ones, are as many as they are.
                assert "ix_hookware_task_leased" in line or "ix_hookware_task_dead" in line, line
    engine.dispose()


def explained(database: Database, run: Callable[[Connection], object]) -> list[str]:
    """Run a function, undo it, and give the plans of what it read and wrote of tasks."""
    engine, seen = database.engine(), list[tuple[str, Any]]()
    event.listen(engine, "before_cursor_execute", lambda *args: seen.append((args[2], args[3])))
    with engine.connect() as connection:
        run(connection)
        connection.rollback()
        wanted = [(sql, given) for sql, given in seen if "hookware_task" in sql and isinstance(given, dict | tuple)]
        explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
        plans = [connection.exec_driver_sql(explain + sql, given).all() for sql, given in wanted]
    engine.dispose()
    return ["\n".join(str(row[-1]) for row in plan) for plan in plans]
