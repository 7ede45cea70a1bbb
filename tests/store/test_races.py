"""Two transactions at once on PostgreSQL: each test stops one half-way, and lets another run into it."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

import pytest
from sqlalchemy import Connection, Engine, create_engine, delete, insert, select, text, update

from hookware.core.lifecycle import Complete, Die, Retry, State
from hookware.core.task import Keys, Lease, LeasedTask, NewTask
from hookware.store.base import AddResult, Claim, Claimed, Settlement
from hookware.store.sql import claim, names, settle, statements
from hookware.store.sql.board import Desk
from hookware.store.sql.engines import own_engine
from hookware.store.sql.outlook import Outlook
from hookware.store.sql.rows import to_row
from hookware.store.sql.schema import make_tables
from hookware.store.sql.tables import name_table, task_table
from tests.postgres import PostgresServer
from tests.store.subject import LEASE_US, START_US, TOMBSTONE_US, ManualClock, new_task

pytestmark = pytest.mark.postgres

T = TypeVar("T")
PATIENCE_SECONDS = 20.0


class Database:
    """A database with hookware's tables, the store's statements on it, and a second line of execution."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._threads = ThreadPoolExecutor(1)

    def run(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in a transaction, here."""
        with self.engine.begin() as connection:
            return fn(connection)

    def meanwhile(self, fn: Callable[[Connection], T]) -> Future[T]:
        """Run `fn` in a transaction of another thread."""
        return self._threads.submit(self.run, fn)

    @contextmanager
    def open(self) -> Iterator[Connection]:
        """Give a transaction that stays open, and is rolled back at the end unless it was committed."""
        with self.engine.connect() as connection:
            yield connection

    def wait_until_blocked(self) -> None:
        """Wait until one transaction waits for another."""
        began = monotonic()
        pause, waiting = text("SELECT pg_sleep(0.01)"), text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        while not self.run(lambda c: c.execute(waiting).scalar_one()):
            assert monotonic() - began < PATIENCE_SECONDS
            self.run(lambda c: c.execute(pause))

    def states(self) -> dict[int, State]:
        rows = self.run(lambda c: c.execute(select(task_table.c.id, task_table.c.state)).all())
        return {row.id: State(row.state) for row in rows}

    def close(self) -> None:
        self._threads.shutdown()
        self.engine.dispose()


@pytest.fixture(scope="module")
def url(postgres: PostgresServer) -> str:
    return postgres.url(postgres.new_database()).render_as_string()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(own_engine(create_engine(url)))
    database.run(make_tables)
    database.run(lambda c: c.execute(text("TRUNCATE hookware_task, hookware_name, hookware_queue")))
    yield database
    database.close()


def add(*tasks: NewTask) -> Callable[[Connection], list[AddResult]]:
    return lambda connection: statements.add(connection, tasks, START_US)


def commit_as_a_user(*tasks: NewTask) -> Callable[[Connection], object]:
    """Insert tasks that have not won their names."""
    return lambda connection: connection.execute(insert(task_table), [to_row(task, START_US) for task in tasks])


def claimed(limit: int, *, last: str = "") -> Callable[[Connection], Claimed]:
    wish = Claim(owner="me", limit=limit, lease_us=LEASE_US)
    return lambda connection: claim.claim(connection, wish, START_US, Desk(Outlook(lambda: 0.0)), last, TOMBSTONE_US)[0]


def claim_some(limit: int) -> Callable[[Connection], Sequence[LeasedTask]]:
    return lambda connection: claimed(limit)(connection).tasks


def prune(connection: Connection) -> int:
    return statements.prune(connection, START_US, TOMBSTONE_US)


def ids(tasks: Sequence[LeasedTask]) -> list[int]:
    return sorted(task.id for task in tasks)


def test_what_one_claim_has_taken_the_next_leaves_out_at_once(database: Database) -> None:
    database.run(add(*[new_task(task_id=n) for n in range(1, 6)]))
    with database.open() as first:
        assert ids(claim_some(2)(first)) == [1, 2]
        assert ids(database.run(claim_some(2))) == [3, 4]
        first.commit()
    assert ids(database.run(claim_some(9))) == [5]


def test_no_task_gives_way_to_one_that_is_just_being_removed(database: Database) -> None:
    keys, second = Keys(dedup_key="k", on_conflict="replace"), task_table.c.id == 2
    database.run(commit_as_a_user(new_task(task_id=1, keys=keys)))
    database.run(commit_as_a_user(new_task(name="n", task_id=2, countdown_us=9, keys=keys)))
    with database.open() as other:
        other.execute(select(task_table.c.id).where(second).with_for_update())
        assert database.run(claim_some(9)) == []
        assert database.states() == {1: State.PENDING, 2: State.PENDING}
        other.execute(delete(task_table).where(second))
        other.commit()
    assert ids(database.run(claim_some(9))) == [1]
    assert database.run(add(new_task(name="n", task_id=3))) == [AddResult.ADDED]


def test_a_claim_keeps_no_more_from_others_than_it_takes(database: Database) -> None:
    database.run(add(*[new_task(f"q{n % 3}", task_id=n) for n in range(1, 10)]))
    with database.open() as first:
        taken = claim_some(4)(first)
        others = database.run(claim_some(9))
        first.commit()
    assert (len(taken), len(others)) == (4, 5)
    assert ids([*taken, *others]) == list(range(1, 10))


def test_a_claim_that_is_rolled_back_gives_everything_back(database: Database) -> None:
    database.run(add(new_task("a", task_id=1), new_task("b", task_id=2)))
    with database.open() as first:
        assert ids(claim_some(2)(first)) == [1, 2]
        assert database.run(claimed(2)) == Claimed([], 0)
        first.rollback()
    assert ids(database.run(claim_some(2))) == [1, 2]


def test_a_task_that_is_tried_again_later_meanwhile_is_not_claimed_by_its_old_eta(database: Database) -> None:
    database.run(add(new_task(task_id=1)))
    with database.open() as first:
        (task,) = claim_some(1)(first)
        settle.settle(first, [Settlement(task.lease, Retry(5, 500, "no"))], START_US, TOMBSTONE_US)
        assert database.run(claim_some(1)) == []
        first.commit()
    assert database.run(claimed(1)) == Claimed([], 5)


def test_ids_may_be_committed_out_of_their_order(database: Database) -> None:
    with database.open() as slow:
        commit_as_a_user(new_task(task_id=1))(slow)
        database.run(commit_as_a_user(new_task(task_id=2)))
        assert ids(database.run(claim_some(9))) == [2]
        slow.commit()
    assert ids(database.run(claim_some(9))) == [1]


@pytest.mark.parametrize("wins", [True, False])
def test_of_two_claims_that_want_one_name_the_first_to_commit_has_it(database: Database, wins: bool) -> None:
    database.run(commit_as_a_user(new_task(name="a", task_id=1), new_task(name="a", task_id=2)))
    with database.open() as first:
        assert ids(claim_some(1)(first)) == [1]
        second = database.meanwhile(claim_some(1))
        database.wait_until_blocked()
        if wins:
            first.commit()
        else:
            first.rollback()
        assert ids(second.result(PATIENCE_SECONDS)) == ([] if wins else [2])
    assert database.states()[2] is (State.DEAD if wins else State.LEASED)
    error = database.run(lambda c: c.execute(select(task_table.c.last_error).where(task_table.c.id == 2)).scalar_one())
    assert error == ("the name is held by task 1" if wins else None)


def test_of_two_that_add_one_name_the_second_hears_that_it_is_taken(database: Database) -> None:
    with database.open() as first:
        assert add(new_task(name="a", task_id=1))(first) == [AddResult.ADDED]
        second = database.meanwhile(add(new_task(name="a", task_id=2), new_task(task_id=3)))
        database.wait_until_blocked()
        first.commit()
        assert second.result(PATIENCE_SECONDS) == [AddResult.NAME_TAKEN, AddResult.ADDED]
    assert sorted(database.states()) == [1, 3]


def test_names_are_won_in_an_order_that_cannot_deadlock(database: Database) -> None:
    with database.open() as first:
        assert add(new_task(name="a", task_id=1))(first) == [AddResult.ADDED]
        second = database.meanwhile(add(new_task(name="b", task_id=2), new_task(name="a", task_id=3)))
        database.wait_until_blocked()
        assert add(new_task(name="b", task_id=4))(first) == [AddResult.ADDED]
        first.commit()
        assert second.result(PATIENCE_SECONDS) == [AddResult.NAME_TAKEN] * 2


def test_a_name_that_is_won_again_is_not_pruned(database: Database) -> None:
    row = {"queue_name": "default", "name": "a", "task_id": 1, "expires_us": START_US - 1}
    database.run(lambda c: c.execute(insert(name_table), row))
    with database.open() as winner:
        assert add(new_task(name="a", task_id=2))(winner) == [AddResult.ADDED]
        pruned = database.meanwhile(prune)
        assert pruned.result(PATIENCE_SECONDS) == 0
        winner.commit()
    assert database.run(add(new_task(name="a", task_id=3))) == [AddResult.NAME_TAKEN]
    assert database.run(lambda c: c.execute(select(name_table.c.task_id)).scalars().all()) == [2]


def test_a_duplicate_that_is_run_again_is_not_pruned(database: Database) -> None:
    database.run(commit_as_a_user(new_task(task_id=1)))
    old = {"state": int(State.DEAD), "dead_reason": "duplicate", "ended_us": START_US - TOMBSTONE_US}
    database.run(lambda c: c.execute(update(task_table).values(**old)))
    with database.open() as hand:
        assert statements.run_again(hand, 1, START_US)
        pruned = database.meanwhile(prune)
        assert pruned.result(PATIENCE_SECONDS) == 0
        hand.commit()
    assert ids(database.run(claim_some(1))) == [1]


def test_two_that_prune_at_once_do_not_wait_for_each_other(database: Database) -> None:
    rows = [{"queue_name": "q", "name": f"n{n}", "task_id": n, "expires_us": START_US - 1} for n in range(9)]
    database.run(lambda c: c.execute(insert(name_table), rows))
    with database.open() as first:
        assert prune(first) == 9
        assert database.meanwhile(prune).result(PATIENCE_SECONDS) == 0
        first.commit()
    assert database.run(prune) == 0


def test_a_row_that_its_handler_is_completing_holds_up_no_other_lease(database: Database) -> None:
    database.run(add(new_task(task_id=1), new_task(task_id=2)))
    first, second = (task.lease for task in database.run(claim_some(2)))
    until_us = START_US + 2 * LEASE_US
    with database.open() as handlers:
        assert settle.complete(handlers, Settlement(first, Complete()), ManualClock(), TOMBSTONE_US)
        renewed = database.meanwhile(lambda c: settle.renew(c, [first, second, Lease(3, 1)], until_us))
        # Nobody can take what is locked: its lease is not lost.
        assert renewed.result(PATIENCE_SECONDS) == {1, 2}
        handlers.rollback()
    column = task_table.c.lease_until_us
    untils = database.run(lambda c: c.execute(select(column).order_by(task_table.c.id)).scalars().all())
    assert untils == [START_US + LEASE_US, until_us]


@pytest.mark.parametrize("decision", [Retry(0, None, "gone", crashed=True), Die("crashes", None, "gone")])
def test_a_row_that_its_handler_is_completing_is_not_taken_back(database: Database, decision: Retry | Die) -> None:
    database.run(add(new_task(task_id=1), new_task(task_id=2)))
    database.run(claim_some(2))
    found = database.run(lambda c: statements.expired(c, 9, [], START_US + LEASE_US))
    taking_back = [Settlement(task.lease, decision, task.lease_until_us) for task in found]
    with database.open() as handlers:
        assert settle.complete(handlers, Settlement(found[0].lease, Complete()), ManualClock(), TOMBSTONE_US)
        taken = database.meanwhile(lambda c: settle.settle(c, taking_back, START_US, TOMBSTONE_US))
        assert taken.result(PATIENCE_SECONDS) == [False, True]
        handlers.commit()
    assert list(database.states()) == [2]


def test_an_attempts_own_result_waits_for_who_looks_at_its_row(database: Database) -> None:
    database.run(add(new_task(task_id=1)))
    (task,) = database.run(claim_some(1))
    with database.open() as curious:
        curious.execute(select(task_table.c.id).with_for_update())
        own = Settlement(task.lease, Retry(0, 500, "no"))
        settled = database.meanwhile(lambda c: settle.settle(c, [own], START_US, TOMBSTONE_US))
        database.wait_until_blocked()
        curious.rollback()
        assert settled.result(PATIENCE_SECONDS) == [True]


def test_a_task_is_deleted_or_claimed_but_not_both(database: Database) -> None:
    database.run(add(new_task(task_id=1), new_task(task_id=2)))
    with database.open() as first:
        assert ids(claim_some(1)(first)) == [1]
        deleted = database.meanwhile(lambda c: statements.remove(c, 1, START_US, TOMBSTONE_US))
        database.wait_until_blocked()
        first.commit()
        assert deleted.result(PATIENCE_SECONDS) is False
    with database.open() as hand:
        assert statements.remove(hand, 2, START_US, TOMBSTONE_US)
        assert database.run(claimed(1)) == Claimed([], 0)
        hand.commit()
    assert database.run(claimed(1)) == Claimed([], None)


def test_names_are_tombstoned_in_an_order_that_cannot_deadlock(database: Database) -> None:
    database.run(add(*[new_task(name=f"n{9 - n}", task_id=n) for n in range(1, 10)]))
    leases = [task.lease for task in database.run(claim_some(9))]
    wishes = [names.Wish("default", f"n{n}", 9 - n) for n in range(9)]
    with database.open() as first:
        names.tombstone(first, wishes[:1], START_US, START_US)
        completes = [Settlement(lease, Complete()) for lease in leases]
        second = database.meanwhile(lambda c: settle.settle(c, completes, START_US, TOMBSTONE_US))
        database.wait_until_blocked()
        # What comes after it in their order is still free: the second waits at the same place.
        names.tombstone(first, wishes[1:], START_US, START_US)
        first.commit()
        assert all(second.result(PATIENCE_SECONDS))
