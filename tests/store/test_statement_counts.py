"""How many statements a claim takes: a queue without limits pays nothing for those that have some.

And how many a settle does: a success pays nothing for what is kept of failures.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, event

from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry
from hookware.core.task import Keys, NewTask
from hookware.store.base import Claim, Settlement
from hookware.store.sql import claim, settle, statements
from hookware.store.sql.board import Desk
from hookware.store.sql.engines import own_engine
from hookware.store.sql.outlook import Outlook
from hookware.store.sql.schema import make_tables
from tests.postgres import PostgresServer
from tests.store.subject import LEASE_US, QUEUES, START_US, TOMBSTONE_US, new_task, record

LOOKS = 2
"""Before the claim, and after it: when is the next one due?"""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    engine: Engine
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        engine = own_engine(create_engine(server.new_schema()))
    with engine.connect() as connection:
        make_tables(connection)
        yield connection
    engine.dispose()


def count_of_a_claim(connection: Connection, *tasks: NewTask, lease_us: int = LEASE_US) -> int:
    """Add tasks, claim some twice, and count the statements of the second claim: by then queues have their rows."""
    statements.add(connection, tasks, START_US)
    desk, wish = Desk(Outlook(lambda: 0.0), QUEUES), Claim(owner="me", limit=6, lease_us=lease_us)
    claim.claim(connection, wish, START_US, desk, "", TOMBSTONE_US)
    seen: list[str] = []
    event.listen(connection, "before_cursor_execute", lambda *args: seen.append(args[2]))
    # Leases have ended, and a second later buckets have tokens.
    claim.claim(connection, wish, START_US + LEASE_US, desk, "", TOMBSTONE_US)
    return len(seen)


def test_a_claim_in_vain_is_one_statement(connection: Connection) -> None:
    assert count_of_a_claim(connection) == 1


@pytest.mark.parametrize("queue_count", [1, 3])
def test_a_claim_is_one_statement_for_each_queue_one_for_the_leases_and_two_looks(
    connection: Connection, queue_count: int
) -> None:
    tasks = [new_task(f"q{n % queue_count}") for n in range(20)]
    assert count_of_a_claim(connection, *tasks) == LOOKS + queue_count + 1


def test_a_priority_costs_nothing(connection: Connection) -> None:
    assert count_of_a_claim(connection, *[new_task(keys=Keys(priority=5)) for _ in range(20)]) == LOOKS + 2


def test_a_limit_costs_a_lock_and_a_count(connection: Connection) -> None:
    assert count_of_a_claim(connection, *[new_task("two-at-once") for _ in range(20)]) == LOOKS + 2 + 2


def test_the_others_pay_nothing_for_a_queue_that_is_full(connection: Connection) -> None:
    tasks = [new_task("two-at-once") for _ in range(20)]
    assert count_of_a_claim(connection, *tasks, *[new_task() for _ in range(20)], lease_us=2 * LEASE_US) == LOOKS + 2


def test_the_others_pay_nothing_for_a_queue_without_tokens(connection: Connection) -> None:
    tasks = [new_task("stopped") for _ in range(20)]
    assert count_of_a_claim(connection, *tasks, *[new_task() for _ in range(20)]) == LOOKS + 2


def test_a_rate_costs_a_lock_and_the_bucket(connection: Connection) -> None:
    assert count_of_a_claim(connection, *[new_task("one-a-second") for _ in range(20)]) == LOOKS + 2 + 2


def test_keys_cost_a_lock_a_count_and_a_look_at_them(connection: Connection) -> None:
    tasks = [new_task(keys=Keys(fair_key=key)) for key in "abcdefghijklm"]
    assert count_of_a_claim(connection, *tasks) == LOOKS + 2 + 3


def test_very_many_keys_cost_a_walk_and_a_look_for_each_that_gets_a_slot(connection: Connection) -> None:
    tasks = [new_task(keys=Keys(fair_key=f"f{n:04}")) for n in range(1000)]
    count = count_of_a_claim(connection, *tasks)
    assert count <= LOOKS + 2 + 3 + 1 + 7


def test_the_others_pay_nothing_for_a_queue_that_has_nothing_due(connection: Connection) -> None:
    tasks = [new_task("two-at-once", countdown_us=10**12), *[new_task() for _ in range(20)]]
    assert count_of_a_claim(connection, *tasks) == LOOKS + 2


def statements_of_a_settle(connection: Connection, *decisions: Decision, records: bool) -> list[str]:
    """Let attempts at new tasks end like this; give the statements, each by its first word and its table."""
    statements.add(connection, [new_task() for _ in decisions], START_US)
    wish = Claim(owner="me", limit=len(decisions), lease_us=LEASE_US)
    tasks = claim.claim(connection, wish, START_US, Desk(Outlook(lambda: 0.0)), "", TOMBSTONE_US)[0].tasks
    settlements = [
        Settlement(task.lease, decision, record=record(task.id) if records and decision != Complete() else None)
        for task, decision in zip(tasks, decisions, strict=True)
    ]
    seen: list[str] = []
    event.listen(connection, "before_cursor_execute", lambda *args: seen.append(args[2]))
    assert all(settle.settle(connection, settlements, START_US, TOMBSTONE_US))
    return [f"{each.split()[0]} {'attempt' if 'hookware_attempt' in each else 'task'}" for each in seen]


@pytest.mark.parametrize("records", [True, False])
def test_successes_are_one_statement(connection: Connection, records: bool) -> None:
    assert statements_of_a_settle(connection, *[Complete()] * 20, records=records) == ["DELETE task"]


def test_all_failures_of_a_batch_leave_their_records_in_one_more(connection: Connection) -> None:
    decisions: list[Decision] = [Retry(0, 500, "no"), Die("retries", 500, "no")] * 10
    without = statements_of_a_settle(connection, *decisions, records=False)
    assert without == ["SELECT task", "UPDATE task", "UPDATE task"]
    assert statements_of_a_settle(connection, *decisions, records=True) == [*without, "INSERT attempt"]


def test_what_is_given_back_leaves_its_record_in_one_more(connection: Connection) -> None:
    assert statements_of_a_settle(connection, *[Release()] * 10, records=False) == ["UPDATE task"]
    assert statements_of_a_settle(connection, *[Release()] * 10, records=True) == ["UPDATE task", "INSERT attempt"]
