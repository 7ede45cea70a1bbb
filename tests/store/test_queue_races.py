"""Two claims of one queue with limits or keys at once, on PostgreSQL: each stops half-way while the other goes on."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from sqlalchemy import Connection, create_engine, event, text

from hookware.core.task import Keys
from hookware.store.base import Claim, Claimed
from hookware.store.sql import claim, queue_ops, queues, statements
from hookware.store.sql.board import Board, Desk, look
from hookware.store.sql.engines import own_engine
from hookware.store.sql.operation import Moment
from hookware.store.sql.outlook import Outlook
from hookware.store.sql.schema import make_tables
from tests.postgres import PostgresServer
from tests.store.subject import LEASE_US, QUEUES, START_US, TOMBSTONE_US, new_task
from tests.store.test_races import Database

pytestmark = pytest.mark.postgres

SHORTLY_US = 10_000


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    database = Database(own_engine(create_engine(postgres.url(postgres.new_database()))))
    database.run(make_tables)
    yield database
    database.close()


def desk() -> Desk:
    return Desk(Outlook(lambda: 0.0), QUEUES)


def claimed(limit: int = 10, own: Desk | None = None) -> Callable[[Connection], Claimed]:
    wish = Claim(owner="me", limit=limit, lease_us=LEASE_US)
    return lambda connection: claim.claim(connection, wish, START_US, own or desk(), "", TOMBSTONE_US)[0]


def add(queue: str, count: int, keys: Keys) -> Callable[[Connection], object]:
    tasks = [new_task(queue, keys=keys) for _ in range(count)]
    return lambda connection: statements.add(connection, tasks, START_US)


@pytest.mark.parametrize(
    ("queue", "keys"), [("two-at-once", Keys()), ("one-a-second", Keys()), ("default", Keys(limit_key="a"))]
)
def test_two_claims_together_take_no_more_than_one_may(database: Database, queue: str, keys: Keys) -> None:
    alone = {"two-at-once": 2, "one-a-second": 3, "default": 1}[queue]
    database.run(add(queue, 9, keys))
    database.run(lambda c: queues.make_rows(c, [queue]))
    with database.open() as first:
        assert len(claimed()(first).tasks) == alone
        answer = database.run(claimed())
        assert (answer.tasks, answer.next_due_us) == ([], SHORTLY_US), "the queue is another's for the moment"
        first.commit()
    assert database.run(claimed()).tasks == []


def test_a_claim_that_is_rolled_back_has_taken_nothing(database: Database) -> None:
    database.run(add("one-a-second", 9, Keys()))
    with database.open() as first:
        assert len(claimed()(first).tasks) == 3
        first.rollback()
    assert len(database.run(claimed()).tasks) == 3


def test_who_waits_for_a_queue_counts_what_began_meanwhile(database: Database) -> None:
    database.run(add("two-at-once", 9, Keys()))
    own = desk()
    database.run(lambda c: queues.make_rows(c, ["two-at-once"]))
    with database.open() as late:
        board: Board = look(late, frozenset(), START_US, own)  # nothing runs yet
        assert len(database.run(claimed()).tasks) == 2
        board.agree(late, locking=True)
        assert board.may_begin("two-at-once") == 0


def test_settings_that_are_changed_before_the_lock_count(database: Database) -> None:
    database.run(add("two-at-once", 9, Keys()))
    database.run(lambda c: queues.make_rows(c, ["two-at-once"]))
    with database.open() as late:
        board = look(late, frozenset(), START_US, desk())
        database.run(lambda c: queues.set_overrides(c, "two-at-once", {"max_concurrent_requests": 1}))
        board.agree(late, locking=True)
        assert board.may_begin("two-at-once") == 1


def test_a_locked_queue_holds_up_no_other(database: Database) -> None:
    database.run(add("two-at-once", 2, Keys()))
    database.run(add("other", 2, Keys()))
    database.run(lambda c: queues.make_rows(c, ["two-at-once"]))
    with database.open() as somebody:
        somebody.execute(text("SELECT * FROM hookware_queue FOR UPDATE"))
        assert [task.queue_name for task in database.run(claimed()).tasks] == ["other", "other"]


def test_two_that_are_first_in_a_queue_do_not_fail(database: Database) -> None:
    database.run(add("two-at-once", 9, Keys()))
    with database.open() as first:
        assert len(claimed(1)(first).tasks) == 1, "it has made the queue's row"
        second = database.meanwhile(claimed())
        database.wait_until_blocked()
        first.commit()
        assert len(second.result(20).tasks) == 1


@pytest.mark.parametrize("keys", [Keys(), Keys(limit_key="a"), Keys(dedup_key="a"), Keys(fair_key="a")])
def test_a_task_that_is_postponed_as_it_is_chosen_waits(database: Database, keys: Keys) -> None:
    task = new_task(task_id=1, keys=keys)
    database.run(lambda c: statements.add(c, [task], START_US))
    place = queue_ops.Place(task.queue_name, "1", task.id)
    moment = Moment(START_US, START_US + TOMBSTONE_US, lambda name: QUEUES[name])
    postponed: list[int | None] = []

    def postpone(_c: Connection, _cursor: object, statement: str, *_others: object) -> None:
        if "hookware_task" in statement and "FOR UPDATE" in statement and not postponed:
            move = partial(queue_ops.postpone, moment=moment, place=place, eta_us=None, countdown_us=LEASE_US)
            postponed.append(database.meanwhile(move).result(20))

    with database.open() as late:
        event.listen(late, "before_cursor_execute", postpone)
        assert claimed()(late).tasks == []
        late.commit()
    assert postponed == [START_US + LEASE_US]
