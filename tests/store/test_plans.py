"""Every hot statement finds its rows by an index, however many rows there are. The statements are the real ones."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event

from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry
from hookware.core.retention import Retention
from hookware.core.task import Lease, Progress
from hookware.store.base import Claim, Settlement
from hookware.store.sql import attempts, board, claim, settle, statements
from hookware.store.sql.board import Desk
from hookware.store.sql.outlook import Outlook
from hookware.store.sql.schema import TABLES
from hookware.store.sql.tables import metadata
from tests.store.subject import LEASE_US, START_US, TOMBSTONE_US, ManualClock, new_task, record

ROWS = int(os.environ.get("HOOKWARE_PLAN_ROWS", "100000"))

FILL = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
INSERT INTO hookware_task (id, queue_name, name, method, url, headers, body, deadline_us, created_us, eta_us, state,
    fence, owner, lease_until_us, attempt_count, crash_count, first_attempt_us, ended_us, dead_reason, lane,
    fair_key, limit_key)
SELECT i, 'q' || (i % 7), CASE WHEN i % 3 = 0 THEN 'n' || i END, 'POST', '/worker', '[]', x'', 30000000, 0,
    :now + (i % 1000 - 500) * 1000000, CASE i % 100 WHEN 1 THEN 1 WHEN 2 THEN 2 ELSE 0 END,
    1, CASE WHEN i % 100 = 1 THEN 'me' END, CASE WHEN i % 100 = 1 THEN :now + i END, 1, 0, 0, i,
    CASE WHEN i % 100 = 2 THEN 'retries' END, 'q' || (i % 7) || CASE i % 7 WHEN 6 THEN '/100k' ELSE '' END,
    CASE i % 7 WHEN 6 THEN 'f' || (i % 50) END, CASE i % 7 WHEN 6 THEN 'l' || (i % 1000) END
FROM n
"""
FILL_NAMES = """
INSERT INTO hookware_name SELECT queue_name, name, id, CASE WHEN id % 2 THEN :now + id END
FROM hookware_task WHERE name IS NOT NULL
"""
FILL_ATTEMPTS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5)
INSERT INTO hookware_attempt (task_id, number, attempt_count, fence, method, url, ended_us, outcome,
    response_headers, response_text, response_byte_count)
SELECT id, i, i, i, 'POST', '/worker', i, 'retry', '[]', '', 0 FROM hookware_task, n WHERE id % 100 IN (1, 2)
"""
FILL_PARENTS = "UPDATE hookware_task SET parent_id = id - 1 WHERE id % 100 = 3"
LEASES = [Lease(n * 100 + 1, 1) for n in range(50)]


def settle_all(connection: Connection) -> None:
    kinds: list[Decision] = [Complete(), Retry(5, 500, "no"), Release(), Die("retries", 500, "no")]
    settlements = [Settlement(lease, kinds[n % 4]) for n, lease in enumerate(LEASES)]
    settle.settle(connection, settlements, START_US, TOMBSTONE_US)


def settle_recorded(connection: Connection) -> None:
    kinds: list[Decision] = [Complete(), Retry(5, 500, "no"), Release(), Die("retries", 500, "no")]
    records = [record(lease.task_id, 6) for lease in LEASES]
    settlements = [
        Settlement(lease, kinds[n % 4], record=records[n], has_history=True) for n, lease in enumerate(LEASES)
    ]
    settle.settle(connection, settlements, START_US, TOMBSTONE_US)


def desk() -> Desk:
    return Desk(Outlook(lambda: 0.0))


def claim_some(connection: Connection) -> None:
    claim.claim(connection, Claim(owner="me", limit=20, lease_us=LEASE_US), START_US, desk(), "q3", TOMBSTONE_US)


def add_some(connection: Connection) -> None:
    statements.add(connection, [new_task(f"q{n % 7}", f"new{n}", task_id=10**9 + n) for n in range(20)], START_US)


DIE = Die("retries", 500, "no")
KEEPING = Retention({"q1": 60, "q2": 60}, {"q3": 0, "q4": 60})
HOT: dict[str, Callable[[Connection], object]] = {
    "add": add_some,
    "claim": claim_some,
    "next_due": lambda c: claim.next_due(c, frozenset(), START_US, desk()),
    "settle": settle_all,
    "settle recorded": settle_recorded,
    "attempts": lambda c: attempts.of_task(c, 2),
    "children": lambda c: statements.children(c, 2, 100),
    "complete": lambda c: settle.complete(c, Settlement(LEASES[0], Complete()), ManualClock(), TOMBSTONE_US),
    "renew": lambda c: settle.renew(c, LEASES, START_US),
    "expired": lambda c: statements.expired(c, 100, [], START_US),
    "expired of owners": lambda c: statements.expired(c, 100, ["you", "they"], START_US),
    "prune": lambda c: statements.prune(c, START_US, TOMBSTONE_US),
    "get": lambda c: statements.get(c, 7),
    "list": lambda c: statements.list_tasks(c, state=None, queue_name=None, limit=10),
    "run_again": lambda c: statements.run_again(c, 2, START_US),
    "remove": lambda c: statements.remove(c, 3, START_US, TOMBSTONE_US),
    "settle kept": lambda c: settle.settle(c, [Settlement(x, Complete()) for x in LEASES], START_US, 9, KEEPING),
    "settle dropped": lambda c: settle.settle(c, [Settlement(x, DIE) for x in LEASES], START_US, 9, KEEPING),
    "complete kept": lambda c: settle.complete(
        c, Settlement(LEASES[0], Complete()), ManualClock(), TOMBSTONE_US, KEEPING
    ),
    "prune kept": lambda c: statements.prune(c, START_US, TOMBSTONE_US, KEEPING),
    "run_some_again": lambda c: statements.run_some_again(c, "q2", None, START_US, START_US, 10),
    "run_some_again for a reason": lambda c: statements.run_some_again(c, "q2", "retries", START_US, START_US, 10),
    "cancel": lambda c: statements.cancel(c, 1, START_US, TOMBSTONE_US, KEEPING),
    "note_progress": lambda c: statements.note_progress(c, dict.fromkeys(LEASES, Progress(1))),
    "tombstone_name": lambda c: settle.tombstone_name(c, 3, START_US),
}


@pytest.fixture(
    scope="module",
    params=[0, pytest.param(ROWS, marks=pytest.mark.slow)],
    ids=["empty", "full"],
)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "app.db"
    fill(path, request.param)
    return path


def fill(path: Path, rows: int) -> None:
    engine = create_engine(f"sqlite:///{path}")
    metadata.create_all(engine, tables=TABLES)
    engine.dispose()
    if rows:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(FILL, {"rows": rows, "now": START_US})
            connection.execute(FILL_NAMES, {"now": START_US})
            connection.execute(FILL_ATTEMPTS)
            connection.execute(FILL_PARENTS)


def plan(path: Path, run: Callable[[Connection], object]) -> list[str]:
    """Run a function, undo it, and give the steps of the plans of all its statements."""
    seen: list[tuple[str, Any]] = []
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "before_cursor_execute", lambda *args: seen.append((args[2], args[3])))
    with engine.connect() as connection:
        run(connection)
        connection.rollback()
    engine.dispose()
    steps: list[str] = []
    with closing(sqlite3.connect(path)) as raw:
        for statement, parameters in seen:
            one = parameters[0] if isinstance(parameters, list) else parameters
            if not statement.startswith("BEGIN"):
                steps += [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", one)]
    return steps


QUEUES_SCAN = "SCAN hookware_queue"  # all of its rows are wanted: a queue has one at most
ALLOWED_SCANS = {
    "claim": QUEUES_SCAN,
    "next_due": QUEUES_SCAN,
    # Leased rows are as many as tasks that run, and a list reads no more than its limit.
    "expired of owners": "SCAN hookware_task USING INDEX ix_hookware_task_leased",
    "list": "SCAN hookware_task USING INDEX sqlite_autoindex_hookware_task_1",
}


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("name", HOT)
def test_no_statement_reads_or_sorts_the_whole_table(filled: Path, name: str, analyzed: bool) -> None:
    with closing(sqlite3.connect(filled)) as connection:
        connection.execute("ANALYZE" if analyzed else "DROP TABLE IF EXISTS sqlite_stat1")
    steps = plan(filled, HOT[name])
    assert [step for step in steps if "hookware_" in step] != []
    scans = {step for step in steps if step.startswith("SCAN hookware_") or "TEMP B-TREE" in step}
    # Running tasks are counted by their keys, and are few.
    assert scans <= {ALLOWED_SCANS.get(name), "USE TEMP B-TREE FOR GROUP BY"}


def test_what_is_due_is_found_by_the_partial_index(filled: Path) -> None:
    steps = plan(
        filled, lambda connection: connection.execute(board._DUE, {"lane": "q1", "floor": -9, "now": 0, "most": 9})
    )
    assert steps == ["SEARCH hookware_task USING INDEX ix_hookware_task_pending (lane=? AND eta_us>? AND eta_us<?)"]


def test_the_longest_ended_lease_is_found_by_the_partial_index(filled: Path) -> None:
    assert plan(filled, HOT["expired"]) == [
        "SEARCH hookware_task USING INDEX ix_hookware_task_leased (lease_until_us<?)"
    ]


def work(path: Path, run: Callable[[Connection], object]) -> int:
    """Count, in tens, the steps of SQLite's machine that a function takes."""
    engine = create_engine(f"sqlite:///{path}")
    steps: list[None] = []
    event.listen(
        engine, "connect", lambda connection, _: connection.set_progress_handler(lambda: steps.append(None), 10)
    )
    with engine.connect() as connection:
        run(connection)
        connection.rollback()
    engine.dispose()
    return len(steps)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["claim", "settle", "next_due", "renew", "prune", "add"])
def test_the_work_does_not_grow_with_the_rows(tmp_path: Path, name: str) -> None:
    few, many = tmp_path / "few.db", tmp_path / "many.db"
    fill(few, 10_000)
    fill(many, 100_000)
    assert work(few, HOT[name]) > 5
    assert work(many, HOT[name]) < 2 * work(few, HOT[name])
