"""Every hot statement on PostgreSQL touches few pages, whatever the table holds and the planner believes of it.

The statements are the real ones; each is explained with its values just before it runs, in a savepoint.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text

from hookware.core.retry import DEFAULT_RETRY
from hookware.store.base import Claim
from hookware.store.sql import claim, statements, swift
from hookware.store.sql.board import Desk, Guess
from hookware.store.sql.engines import own_engine
from hookware.store.sql.outlook import Outlook
from hookware.store.sql.schema import make_tables
from hookware.store.sql.statements import PRUNE_LIMIT
from tests.postgres import PostgresServer
from tests.store.subject import LEASE_US, SECOND_US, START_US, TOMBSTONE_US, new_task
from tests.store.test_plans import HOT as HOT_EVERYWHERE
from tests.store.test_plans import KEEPING, LEASES

pytestmark = pytest.mark.postgres

ROWS = int(os.environ.get("HOOKWARE_PLAN_ROWS", "1000000"))
DEAD_ROWS = min(ROWS, 50_000)
"""How many rows there were where none can be cleaned up: these take longer to make than those that live."""

FILL = """
INSERT INTO hookware_task (id, queue_name, name, method, url, headers, body, deadline_us, created_us, eta_us, state,
    fence, owner, lease_until_us, attempt_count, crash_count, first_attempt_us, ended_us, dead_reason, lane,
    fair_key, limit_key)
SELECT i, 'q' || (i % 7), CASE WHEN i % 3 = 0 THEN 'n' || i END, 'POST', '/worker', '[]', '', 30000000, 0,
    :now + (i % 1000 - 500) * 1000000, CASE i % 100 WHEN 1 THEN 1 WHEN 2 THEN 2 ELSE 0 END,
    1, CASE WHEN i % 100 = 1 THEN 'me' END,
    CASE WHEN i % 5000 = 1 THEN :now - i WHEN i % 100 = 1 THEN :now + i END, 1, 0, 0,
    CASE WHEN i % 100 = 2 THEN i END, CASE i % 200 WHEN 2 THEN 'retries' WHEN 102 THEN 'duplicate' END,
    'q' || (i % 7) || CASE i % 7 WHEN 6 THEN '/100k' ELSE '' END,
    CASE i % 7 WHEN 6 THEN 'f' || (i % 50) END, CASE i % 7 WHEN 6 THEN 'l' || (i % 1000) END
FROM generate_series(1, :rows) AS i
"""
FILL_ONE_LANE = """
INSERT INTO hookware_task (id, queue_name, method, url, headers, body, deadline_us, created_us, eta_us, state, fence,
    attempt_count, crash_count, lane)
SELECT i, 'q', 'POST', '/worker', '[]', '', 30000000, 0, :now + (i % 1000 - 500) * 1000000, 0, 0, 0, 0, 'q'
FROM generate_series(1, :rows) AS i
"""
FILL_NAMES = """
INSERT INTO hookware_name SELECT queue_name, name, id, CASE id % 4 WHEN 1 THEN :now + id WHEN 3 THEN :now - id END
FROM hookware_task WHERE name IS NOT NULL
"""

FILL_ATTEMPTS = """
INSERT INTO hookware_attempt (task_id, number, attempt_count, fence, method, url, ended_us, outcome,
    response_headers, response_text, response_byte_count)
SELECT id, n, n, n, 'POST', '/worker', n, 'retry', '[]', '', 0
FROM hookware_task, generate_series(1, 5) AS n WHERE id % 100 IN (1, 2)
"""
FILL_PARENTS = "UPDATE hookware_task SET parent_id = id - 1 WHERE id % 100 = 3"

Node = dict[str, Any]


def claim_at_once(connection: Connection) -> None:
    """Claim in one statement, of a lane in which all have names or are not due: it leases nothing, and looks at all."""
    wish = Claim(owner="me", limit=20, lease_us=LEASE_US)
    swift.claim(connection, wish, Guess("q3", "q3", DEFAULT_RETRY), START_US)


LOOKING = {"claim", "claim at once", "next_due", "expired", "expired of owners", "list"}
"""What has to look for rows, and walks over those that are gone; a claim at once is not tried where that is slow."""

HOT = HOT_EVERYWHERE | {
    "claim at once": claim_at_once,
    "complete at once": lambda c: swift.complete(c, LEASES, KEEPING),
}


CHOSEN_ROWS = {
    "claim": ROWS // 100,  # it counts the tasks that run, and the fill has 10,000 of them
    "next_due": ROWS // 100,
    "prune": PRUNE_LIMIT,
    "prune kept": PRUNE_LIMIT,
    # Where the planner finds it cheaper, by the sample that it took, it reads all that are dead in a queue, and sorts.
    "run_some_again": ROWS // 700,
    # While the planner believes that there are none, it may look through all that are dead for those of a reason.
    "run_some_again for a reason": ROWS // 100,
    "expired": 100,
    "expired of owners": ROWS // 100,
    "list": 10,
}
"""How many rows a function may look at; the others name the rows that they are about."""

NAMED_ROWS = 50


class Database:
    """Tables in one state, and what statements do to them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        with engine.begin() as connection:
            make_tables(connection)
        for table in ("hookware_task", "hookware_name", "hookware_attempt"):
            # Nobody but the tests says what the planner believes.
            self.run(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
            self.run(f"ALTER TABLE {table} SET UNLOGGED")

    def run(self, statement: str, **given: object) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), given)

    def analyze(self) -> None:
        self.run("ANALYZE hookware_task, hookware_name, hookware_attempt")

    def fill(self, rows: int = ROWS) -> None:
        self.run(FILL, now=START_US, rows=rows)
        self.run(FILL_NAMES, now=START_US)
        self.run(FILL_ATTEMPTS)
        self.run(FILL_PARENTS)

    def clear(self) -> None:
        self.run("DELETE FROM hookware_task")
        self.run("DELETE FROM hookware_name")
        self.run("DELETE FROM hookware_attempt")

    def clean_up(self) -> None:
        with self.engine.connect() as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT")
            alone.execute(text("VACUUM hookware_task, hookware_name, hookware_attempt"))

    def plans_of(self, function: Callable[[Connection], object]) -> list[Node]:
        """Run a function and undo it; the plans of its statements, as they were carried out."""
        plans: list[Node] = []

        def explain(_c: object, cursor: Any, statement: str, given: Any, *_rest: object) -> None:
            cursor.execute("SAVEPOINT before")
            one = given[0] if isinstance(given, list) else given
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", one)
            (answer,) = cursor.fetchone()
            plans.append(answer[0]["Plan"] | {"Statement": statement})
            cursor.execute("ROLLBACK TO SAVEPOINT before")

        event.listen(self.engine, "before_cursor_execute", explain)
        try:
            with self.engine.connect() as connection:
                function(connection)
                connection.rollback()
        finally:
            event.remove(self.engine, "before_cursor_execute", explain)
        return plans


def nodes(plan: Node) -> Iterator[Node]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def pages(plans: list[Node]) -> int:
    return sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in plans)


def check(name: str, plans: list[Node]) -> None:
    """See that each statement touches as many pages as its rows are worth, however many others there are."""
    assert plans != []
    for plan in plans:
        # A row that is written is a new version with an entry in each index, and an index is three or four levels deep.
        assert pages([plan]) <= 100 + 20 * CHOSEN_ROWS.get(name, NAMED_ROWS), plan
        scans = {node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"}
        # A queue has one row at most, and the others are empty here.
        scans -= {"hookware_queue", "hookware_executed", "hookware_minute", "hookware_process"}
        # That one may read a small table rather than a thousand rows.
        small = {"hookware_attempt"} if ROWS >= 1_000_000 else scans
        assert scans == set() or (name.startswith("prune") and scans == small), plan


@contextmanager
def new_database(postgres: PostgresServer) -> Iterator[Database]:
    engine = own_engine(create_engine(postgres.url(postgres.new_database())))
    yield Database(engine)
    engine.dispose()


@pytest.fixture(scope="module")
def empty(postgres: PostgresServer) -> Iterator[Database]:
    with new_database(postgres) as database:
        yield database


@pytest.fixture(scope="module")
def bloated(postgres: PostgresServer) -> Iterator[Database]:
    """Give tables whose rows are all gone, as the planner knows, and cannot be cleaned up."""
    with new_database(postgres) as database, database.engine.connect() as holder:
        holder.execution_options(isolation_level="REPEATABLE READ").execute(text("SELECT count(*) FROM hookware_task"))
        database.fill(DEAD_ROWS)
        database.run("UPDATE hookware_task SET state = 1, lease_until_us = eta_us WHERE state = 0 AND id % 2 = 0")
        database.clear()
        database.analyze()
        yield database


@pytest.mark.parametrize("name", HOT)
def test_in_empty_tables(empty: Database, name: str) -> None:
    check_empty(empty.plans_of(HOT[name]))


def check_empty(plans: list[Node]) -> None:
    assert plans != []
    assert pages(plans) < 400


@pytest.mark.slow
@pytest.mark.timeout(600)  # on a machine that does much else: it takes 11 s of an idle one
def test_from_empty_tables_to_a_million_rows_and_back(postgres: PostgresServer) -> None:
    """One test, because filling the tables takes seconds: the planner knows them, or believes what was true before."""
    with new_database(postgres) as database:
        database.analyze()
        for function in HOT.values():
            check_empty(database.plans_of(function))
        database.fill()
        for name, function in HOT.items():  # known to be empty
            check(name, database.plans_of(function))
        database.analyze()
        for name, function in HOT.items():
            check(name, database.plans_of(function))
        database.clear()
        database.clean_up()
        for function in HOT.values():  # known to be full
            check_empty(database.plans_of(function))


@pytest.mark.slow
def test_a_claim_at_once_among_a_million_in_one_lane(postgres: PostgresServer) -> None:
    wish = Claim(owner="me", limit=20, lease_us=LEASE_US)
    claimed: list[int] = []

    def claim_some(connection: Connection) -> None:
        answer = swift.claim(connection, wish, Guess("q", "q", DEFAULT_RETRY), START_US)
        assert answer.claimed is not None
        claimed.append(len(answer.claimed.tasks))

    with new_database(postgres) as database:
        database.analyze()
        check_empty(database.plans_of(claim_some))
        database.run(FILL_ONE_LANE, now=START_US, rows=ROWS)
        check("claim of 20", database.plans_of(claim_some))  # known to be empty
        database.analyze()
        check("claim of 20", database.plans_of(claim_some))
    assert claimed == [0, 20, 20]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(HOT) - LOOKING))
def test_where_nothing_can_be_cleaned_up(bloated: Database, name: str) -> None:
    check(name, bloated.plans_of(HOT[name]))


@pytest.mark.slow
def test_a_claim_where_nothing_can_be_cleaned_up(bloated: Database) -> None:
    times = iter(range(10**6))
    desk = Desk(Outlook(lambda: float(next(times))))  # however fast the machine is, its looks are slow
    now_us = START_US + 3600 * SECOND_US
    wish = Claim(owner="me", limit=20, lease_us=LEASE_US)

    def claim_some(connection: Connection) -> None:
        statements.add(connection, [new_task(f"q{n % 7}", task_id=10**9 + n) for n in range(20)], now_us)
        assert len(claim.claim(connection, wish, now_us, desk, "", TOMBSTONE_US)[0].tasks) == 20

    for _ in range(4):
        plans = bloated.plans_of(claim_some)
    check("claim of 20", plans)
