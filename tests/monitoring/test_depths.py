"""The numbers of queues are counted up to a bound, by indexes alone, however many tasks there are."""

from typing import Any

import pytest
from sqlalchemy import Connection, event, insert

from hookware.core.task import Keys, NewTask
from hookware.store.sql import depths
from hookware.store.sql.depths import Depth
from hookware.store.sql.rows import to_rows
from hookware.store.sql.schema import make_tables
from hookware.store.sql.tables import task_table
from tests.databases import EVERY_DATABASE, Database
from tests.samples import new_task

NOW_US = 1_700_000_000_000_000


def put(connection: Connection, tasks: list[NewTask], **columns: object) -> None:
    rows = [row | columns for row in to_rows(tasks, NOW_US)]
    connection.execute(insert(task_table), rows)


def fill(connection: Connection) -> None:
    """Put 4,000 tasks into two queues: due, waiting, and dead."""
    make_tables(connection)
    for first in range(0, 4000, 400):
        tasks = [
            new_task(n + 1, queue_name=f"q{n % 2}", countdown_us=(n % 3 - 1) * 3_600_000_000)
            for n in range(first, first + 400)
        ]
        put(connection, tasks, **({"state": 2, "ended_us": NOW_US} if first % 1200 == 0 else {}))


@pytest.mark.slow
@EVERY_DATABASE
def test_no_more_is_read_than_the_bound(database: Database) -> None:
    engine, seen = database.engine(), list[tuple[str, Any]]()
    with engine.begin() as connection:
        fill(connection)
        connection.exec_driver_sql("ANALYZE")
    event.listen(engine, "before_cursor_execute", lambda *args: seen.append((args[2], args[3])))
    with engine.connect() as connection:
        counted = depths.count(connection, NOW_US, 50)
        explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN (ANALYZE, TIMING OFF) "
        plans = [connection.exec_driver_sql(explain + sql, given).all() for sql, given in list(seen)]
    engine.dispose()
    assert counted.by_queue.keys() == {"q0", "q1"}
    for depth in counted.by_queue.values():
        assert (depth.waiting, depth.due, depth.leased, depth.dead) == (50, 50, 0, 50)
        assert depth.oldest_due_us == NOW_US - 3_600_000_000
    lines = [str(row[-1]) for plan in plans for row in plan]
    for line in lines:
        assert "Seq Scan on hookware_task" not in line
        if line.startswith("SCAN hookware_task"):
            assert "ix_hookware_task_leased" in line, line
        assert "TEMP B-TREE" not in line or "GROUP BY" in line, line


@EVERY_DATABASE
def test_lanes_of_a_queue_count_together_and_what_is_no_text_counts_for_nothing(database: Database) -> None:
    engine = database.engine()
    with engine.begin() as connection:
        make_tables(connection)
        put(connection, [new_task(n) for n in (1, 2)])
        put(connection, [new_task(3, keys=Keys(priority=5)), new_task(4, keys=Keys(priority=5, fair_key="a"))])
        put(connection, [new_task(5)], state=1, fence=1, attempt_count=1, lease_until_us=NOW_US)
        put(connection, [new_task(6, countdown_us=-7)], state=4)
        if database.is_sqlite:
            put(connection, [new_task(7)], lane=b"\xff")
        counted = depths.count(connection, NOW_US, 3)
    engine.dispose()
    assert counted.by_queue == {"default": Depth(due=3, leased=1, oldest_due_us=NOW_US - 7)}


@EVERY_DATABASE
def test_an_empty_database_has_no_queues(database: Database) -> None:
    engine = database.engine()
    with engine.begin() as connection:
        make_tables(connection)
        assert depths.count(connection, NOW_US, 3).by_queue == {}
    engine.dispose()
