"""A claim in one statement: when it is made, and that it never does what the longer way would not."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import pytest
from anyio import create_task_group, to_thread
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DataError, OperationalError

from hookware.core.lifecycle import Complete, Release, Retry, State
from hookware.core.task import Keys, Lease
from hookware.env import Env
from hookware.store.base import AddResult, Claim, Settlement
from hookware.store.sql import swift
from hookware.store.sql.engines import own_engine
from hookware.store.sql.runner import ThreadRunner
from tests.postgres import PostgresServer
from tests.store.conftest import sql_subject
from tests.store.subject import LEASE_US, SECOND_US, Subject, new_task, record

pytestmark = [pytest.mark.postgres, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


class Asked:
    """What a store asks its database from now on."""

    def __init__(self, engine: Engine) -> None:
        self.statements: list[str] = []
        event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        self.statements.append(statement)

    def forget(self) -> None:
        self.statements.clear()

    @property
    def went_at_once(self) -> list[bool]:
        """For each look at the lanes since then, whether it was a whole claim."""
        return ["leased AS" in each for each in self.statements if "walk" in each]


@pytest.fixture
def engine(postgres: PostgresServer) -> Iterator[Engine]:
    engine = own_engine(create_engine(postgres.new_schema()))
    yield engine
    engine.dispose()


@pytest.fixture
def asked(engine: Engine) -> Asked:
    return Asked(engine)


@pytest.fixture
async def subject(engine: Engine, asked: Asked) -> AsyncIterator[Subject]:
    async with sql_subject(ThreadRunner(engine, Env()), at_once=True) as subject:
        asked.forget()
        yield subject


async def test_plain_tasks_are_claimed_in_one_statement(subject: Subject, asked: Asked) -> None:
    await subject.add(*[new_task(task_id=n) for n in (3, 1, 2)], new_task(task_id=4, countdown_us=SECOND_US))
    asked.forget()
    claimed = await subject.claimed(2)
    assert [task.id for task in claimed.tasks] == [1, 2]
    assert claimed.next_due_us == 0
    claimed = await subject.claimed()
    assert [task.id for task in claimed.tasks] == [3]
    assert claimed.next_due_us == SECOND_US
    assert len(asked.statements) == 2
    assert asked.went_at_once == [True, True]


async def test_a_process_that_has_nothing_to_do_asks_one_question(subject: Subject, asked: Asked) -> None:
    assert await subject.store.next_due() is None
    await subject.add(
        new_task(task_id=1, countdown_us=3 * SECOND_US), new_task(task_id=2, queue_name="other", countdown_us=SECOND_US)
    )
    asked.forget()
    assert await subject.store.next_due() == SECOND_US
    subject.clock.advance(SECOND_US)
    assert await subject.store.next_due() == 0
    assert asked.went_at_once == [True, True, False]  # what is due in another queue needs a closer look
    assert len(asked.statements) == 3


async def test_a_task_that_was_due_long_before_the_last_look_is_not_missed(subject: Subject, asked: Asked) -> None:
    """As one is that was given back, or added with an ETA that is past, or by a transaction that took long."""
    await subject.add(new_task(task_id=2))
    assert await subject.store.next_due() == 0
    await subject.add(new_task(task_id=1, eta_us=subject.clock.now_us - 3600 * SECOND_US))
    asked.forget()
    assert [task.id for task in await subject.claim(1)] == [1]
    assert asked.went_at_once == [True]


async def test_what_is_due_in_another_lane_is_not_passed_over(subject: Subject, asked: Asked) -> None:
    await subject.add(new_task(task_id=1), new_task("other", task_id=2), new_task(keys=Keys(priority=9), task_id=3))
    assert sorted(task.id for task in await subject.claim(2)) == [2, 3]
    assert asked.went_at_once[0]
    assert not any(asked.went_at_once[1:])


async def test_it_follows_to_the_lane_in_which_tasks_are_due(subject: Subject, asked: Asked) -> None:
    lane = {"queue_name": "other", "keys": Keys(priority=9)}
    await subject.add(*[new_task(task_id=n, **lane) for n in (1, 2)])  # type: ignore[arg-type]  # as they are named
    assert [task.id for task in await subject.claim(1)] == [1]
    asked.forget()
    assert [task.id for task in await subject.claim(1)] == [2]
    assert asked.went_at_once == [True]


async def test_what_is_due_later_elsewhere_is_in_nobodys_way(subject: Subject, asked: Asked) -> None:
    await subject.add(new_task(), new_task("other", countdown_us=5 * SECOND_US), new_task(countdown_us=9 * SECOND_US))
    asked.forget()
    claimed = await subject.claimed()
    assert len(claimed.tasks) == 1
    assert claimed.next_due_us == 5 * SECOND_US
    assert asked.went_at_once == [True]


async def test_a_queue_that_is_paused_meanwhile_waits(subject: Subject, asked: Asked) -> None:
    await subject.add(*[new_task() for _ in range(3)])
    assert len(await subject.claim(1)) == 1
    await subject.store.set_paused("default", True)
    asked.forget()
    assert await subject.claim() == []
    assert asked.went_at_once == [True, False]
    await subject.store.set_paused("default", False)
    assert len(await subject.claim()) == 2


async def test_a_limit_that_is_set_meanwhile_is_kept(subject: Subject) -> None:
    await subject.add(*[new_task() for _ in range(9)])
    assert len(await subject.claim(1)) == 1
    await subject.store.set_overrides("default", {"max_concurrent_requests": 3})
    assert len(await subject.claim()) == 2
    assert await subject.claim() == []


async def test_a_paused_queue_is_in_nobodys_way(subject: Subject, asked: Asked) -> None:
    await subject.store.set_paused("waits", True)
    plain, hurried = new_task("waits"), new_task("waits", keys=Keys(priority=9, fair_key="f"))
    await subject.add(plain, hurried, *[new_task() for _ in range(3)])
    assert len(await subject.claim(1)) == 1
    asked.forget()
    claimed = await subject.claimed()
    assert ([task.queue_name for task in claimed.tasks], claimed.next_due_us) == (["default"] * 2, None)
    assert not claimed.held_back
    assert asked.went_at_once == [True]
    await subject.store.set_paused("waits", False)
    assert len(await subject.claim()) == 2


async def test_nor_is_one_whose_slots_are_taken_until_one_is_free(subject: Subject, asked: Asked) -> None:
    await subject.add(*[new_task("two-at-once") for _ in range(4)])
    first, _second = await subject.claim()
    await subject.add(*[new_task() for _ in range(3)])
    await subject.claim(1)
    asked.forget()
    claimed = await subject.claimed(1)
    assert ([task.queue_name for task in claimed.tasks], claimed.next_due_us) == (["default"], 0)
    claimed = await subject.claimed(1)
    assert ([task.queue_name for task in claimed.tasks], claimed.next_due_us) == (["default"], None)
    assert claimed.held_back
    assert asked.went_at_once == [True, True]
    assert await subject.settle(first.lease, Complete())
    assert [task.queue_name for task in await subject.claim()] == ["two-at-once"]


async def test_a_task_that_is_due_later_in_a_queue_that_is_full_now_is_not_forgotten(subject: Subject) -> None:
    await subject.add(*[new_task("two-at-once") for _ in range(2)])
    assert len(await subject.claim()) == 2
    await subject.add(new_task("two-at-once", countdown_us=SECOND_US), new_task(), new_task())
    await subject.claim(1)
    assert (await subject.claimed()).next_due_us == SECOND_US
    assert await subject.store.next_due() == SECOND_US


async def test_nor_is_it_when_the_lease_of_one_that_took_a_slot_has_ended(subject: Subject) -> None:
    await subject.add(*[new_task("two-at-once") for _ in range(4)])
    assert len(await subject.claim()) == 2
    await subject.add(*[new_task() for _ in range(2)])
    await subject.claim(1)
    subject.clock.advance(LEASE_US)
    assert sorted(task.queue_name for task in await subject.claim()) == ["default", "two-at-once", "two-at-once"]


async def test_a_limit_that_is_another_one_meanwhile_is_looked_at(subject: Subject, asked: Asked) -> None:
    await subject.add(*[new_task("two-at-once") for _ in range(4)], new_task())
    assert len(await subject.claim()) == 3
    await subject.add(new_task(), new_task())
    assert len(await subject.claim(1)) == 1
    asked.forget()
    assert len(await subject.claim(1)) == 1
    assert asked.went_at_once == [True]
    await subject.store.set_overrides("two-at-once", {"max_concurrent_requests": 3})
    await subject.add(new_task())
    assert sorted(task.queue_name for task in await subject.claim()) == ["default", "two-at-once"]


@pytest.mark.parametrize("queue_name", ["two-at-once", "one-a-second", "stopped"])
async def test_a_queue_with_a_limit_goes_the_longer_way(subject: Subject, asked: Asked, queue_name: str) -> None:
    await subject.add(*[new_task(queue_name) for _ in range(9)])
    await subject.claim()
    asked.forget()
    await subject.claim()
    assert not any(asked.went_at_once)


async def test_so_do_keys_and_excluded_queues(subject: Subject, asked: Asked) -> None:
    await subject.add(new_task(), new_task("other"))
    assert [task.queue_name for task in await subject.claim(exclude=["default"])] == ["other"]
    await subject.claim()
    await subject.add(*[new_task(keys=Keys(fair_key="f")) for _ in range(3)])
    asked.forget()
    assert len(await subject.claim(1)) == len(await subject.claim(1)) == 1
    assert asked.went_at_once[0]
    assert not any(asked.went_at_once[1:])


async def test_names_are_won_in_their_order_and_looked_at_from_then_on(subject: Subject, asked: Asked) -> None:
    await subject.add(new_task(task_id=1))
    await subject.insert([new_task(task_id=2, name="a"), new_task(task_id=3), new_task(task_id=4, name="a")])
    asked.forget()
    assert [task.id for task in await subject.claim()] == [1, 2, 3]
    assert (await subject.get(4)).dead_reason == "duplicate"
    assert asked.went_at_once[0]
    assert not any(asked.went_at_once[1:])
    asked.forget()
    await subject.add(new_task(task_id=5))
    assert len(await subject.claim()) == 1
    assert not any(asked.went_at_once)


@pytest.mark.parametrize("change", ["headers = '['", "deadline_us = 0", "crash_count = 1", "retry_options = '[1]'"])
@pytest.mark.parametrize("where", [1, 2, 3])
async def test_a_damaged_task_is_put_aside_and_the_others_run(
    subject: Subject, engine: Engine, change: str, where: int
) -> None:
    await subject.add(*[new_task(task_id=n) for n in (1, 2, 3)])
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE hookware_task SET {change} WHERE id = :id"), {"id": where})
    claimed = await subject.claimed()
    assert [task.id for task in claimed.tasks] == [n for n in (1, 2, 3) if n != where]
    assert claimed.next_due_us == 0
    assert claimed.cleared
    assert await subject.claim() == []
    assert (await subject.get(where)).dead_reason == "undecodable"


@pytest.mark.parametrize("change", ["fence = 9223372036854775807", "attempt_count = 2147483647"])
async def test_one_that_cannot_be_counted_goes_the_longer_way(subject: Subject, engine: Engine, change: str) -> None:
    await subject.add(*[new_task(task_id=n) for n in (1, 2, 3)])
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE hookware_task SET {change} WHERE id = 2"))
    assert [task.id for task in await subject.claim()] == [1, 3]
    assert (await subject.get(2)).dead_reason == "undecodable"


async def test_where_it_fails_the_next_claim_goes_the_longer_way(
    subject: Subject, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    await subject.add(new_task())
    monkeypatch.setattr(swift, "CLAIM", text("SELECT 1 / 0"))
    with pytest.raises(Exception, match="division by zero"):
        await subject.claim()
    assert len(await subject.claim()) == 1


async def test_where_it_is_slow_the_next_claim_looks_how_slow_a_look_is(
    subject: Subject, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    await subject.add(*[new_task() for _ in range(3)])
    monkeypatch.setattr(swift, "SLOW_SECONDS", -1.0)
    asked.forget()
    assert len(await subject.claim(1)) == len(await subject.claim(1)) == 1
    assert asked.went_at_once == [True, False, False]


async def test_tasks_that_another_claim_has_locked_are_not_waited_for(subject: Subject, engine: Engine) -> None:
    await subject.add(*[new_task(task_id=n) for n in (1, 2)])
    with engine.begin() as other:
        other.execute(text("SELECT 1 FROM hookware_task WHERE id = 1 FOR UPDATE"))
        claimed = await subject.claimed()
        assert [task.id for task in claimed.tasks] == [2]
        assert claimed.next_due_us == 0
    assert [task.id for task in await subject.claim()] == [1]


async def test_the_leases_are_those_of_the_longer_way(engine: Engine, subject: Subject) -> None:
    async with sql_subject(ThreadRunner(engine, Env())) as other:
        await subject.add(*[new_task(task_id=n, headers=(("x-a", "1"),), body=b"b") for n in (1, 2)])
        (at_once,), (looked,) = await subject.claim(1), await other.claim(1)
        assert (at_once.id, looked.id) == (1, 2)
        for name in set(type(at_once).__slots__) - {"id"}:
            assert getattr(at_once, name) == getattr(looked, name), name
    with engine.connect() as connection:
        columns = "state, fence, owner, lease_until_us, attempt_count, first_attempt_us, crash_count, lane"
        one, two = connection.execute(text(f"SELECT {columns} FROM hookware_task ORDER BY id"))
        assert one == two
        assert one.state == State.LEASED


async def test_a_lease_that_would_end_after_all_times_ends_at_the_last(subject: Subject) -> None:
    await subject.add(new_task())
    (task,) = (await subject.store.claim(Claim(owner="me", limit=1, lease_us=2**63 - 1))).tasks
    assert task.lease_until_us == 2**63 - 1
    assert await subject.settle(task.lease, Complete())


async def test_what_cannot_be_read_is_not_leased(postgres: PostgresServer) -> None:
    """In a database of no encoding a text may be any bytes: a lease that nobody hears of would be lost.

    It is not, because it is the server that minds, before it commits.
    """
    database = postgres.new_database("ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    engine = own_engine(create_engine(postgres.url(database), connect_args={"client_encoding": "utf8"}))
    async with sql_subject(ThreadRunner(engine, Env()), at_once=True) as subject:
        await subject.add(*[new_task(task_id=n) for n in (1, 2)])
        with engine.begin() as connection:
            connection.execute(text("UPDATE hookware_task SET url = convert_from('\\xff', 'SQL_ASCII') WHERE id = 1"))
        with pytest.raises(DataError, match="invalid byte sequence"):
            await subject.claim(lease_us=LEASE_US)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT sum(state), sum(fence) FROM hookware_task")).one() == (0, 0)


async def completed(subject: Subject, *leases: Lease, has_name: bool = False) -> list[bool]:
    return await subject.store.settle([Settlement(lease, Complete(), has_name=has_name) for lease in leases])


async def test_tasks_without_names_are_completed_in_one_statement(subject: Subject, asked: Asked) -> None:
    await subject.add(*[new_task() for _ in range(20)])
    leases = [task.lease for task in await subject.claim(20)]
    asked.forget()
    assert await completed(subject, *leases) == [True] * 20
    assert len(asked.statements) == 1
    assert await subject.store.list_tasks() == []


async def test_a_fence_that_is_stale_is_refused(subject: Subject) -> None:
    await subject.add(*[new_task(task_id=n) for n in (1, 2, 3)])
    leases = [task.lease for task in await subject.claim()]
    stale = [lease._replace(fence=lease.fence + n) for lease, n in zip(leases, (-1, 0, 1), strict=True)]
    assert await completed(subject, *stale) == [False, True, False]
    assert [task.id for task in await subject.store.list_tasks()] == [1, 3]
    assert await completed(subject, leases[0], leases[2], leases[1]) == [True, True, False]


async def test_what_is_not_leased_any_more_is_not_completed(subject: Subject) -> None:
    await subject.add(new_task())
    (task,) = await subject.claim()
    assert await subject.store.cancel(task.id)
    assert await completed(subject, task.lease) == [False]
    assert (await subject.get(task.id)).dead_reason == "cancelled"


async def test_of_two_for_one_lease_the_first_is_accepted(subject: Subject) -> None:
    await subject.add(new_task())
    (task,) = await subject.claim()
    assert await completed(subject, task.lease, task.lease) == [True, False]


@pytest.mark.parametrize("says_so", [True, False])
async def test_a_name_is_tombstoned_whatever_the_caller_knows(subject: Subject, says_so: bool) -> None:
    await subject.add(new_task(name="a"), new_task())
    leases = [task.lease for task in await subject.claim()]
    assert await completed(subject, *leases, has_name=says_so) == [True, True]
    assert await subject.store.add([new_task(name="a")]) == [AddResult.NAME_TOMBSTONED]


async def test_records_go_with_their_task_and_what_is_kept_is_kept(subject: Subject) -> None:
    await subject.add(new_task(task_id=1), new_task("kept-a-minute", task_id=2))
    one, two = await subject.claim()
    assert await subject.settle(one.lease, Retry(0, 500, "no"), record(1))
    (one,) = await subject.claim()
    assert await subject.store.settle([Settlement(one.lease, Complete(), has_history=True, has_name=False)]) == [True]
    assert await subject.store.attempts(1) == []
    assert await completed(subject, two.lease) == [True]
    assert (await subject.get(2)).state == State.COMPLETED


async def test_a_row_that_another_has_locked_is_waited_for_but_not_for_ever(engine: Engine, subject: Subject) -> None:
    await subject.add(new_task())
    (task,) = await subject.claim()
    given = {"ids": [task.id], "fences": [task.fence], "kept": [], "patience": "10ms"}
    with engine.connect() as other, engine.connect() as completing:
        other.execute(text("SELECT 1 FROM hookware_task FOR UPDATE"))
        with pytest.raises(OperationalError, match="lock timeout"):
            completing.execute(swift.COMPLETE, given)
    assert await completed(subject, task.lease) == [True]


WORKERS = 4
ROUNDS = 150


async def test_no_task_is_leased_twice_under_one_fence_whoever_else_is_at_it(subject: Subject, engine: Engine) -> None:
    """Claims of both kinds, results and changes by hand meet all the time; each lease is given once, and in order."""
    await subject.add(*[new_task(task_id=n) for n in range(1, 41)])
    given: list[tuple[int, int]] = []

    async def work(store: Subject, seed: int) -> None:
        chance = Random(seed)
        for _ in range(ROUNDS):
            tasks = await store.claim(chance.randint(1, 6))
            given.extend((task.id, task.fence) for task in tasks)
            settlements = [
                Settlement(task.lease, Release() if chance.random() < 0.3 else Retry(0, 500, "no")) for task in tasks
            ]
            assert all(await store.store.settle(settlements))

    async def change() -> None:
        def move(n: int) -> None:
            with engine.begin() as connection:
                changed = "UPDATE hookware_task SET eta_us = eta_us - 1 WHERE id % 7 = :n AND state = 0"
                connection.execute(text(changed), {"n": n % 7})

        for n in range(ROUNDS):
            await to_thread.run_sync(move, n)

    async with AsyncExitStack() as stack:
        runners = [ThreadRunner(engine, Env()) for _ in range(WORKERS)]
        stores = [
            await stack.enter_async_context(sql_subject(runner, at_once=number > 0))
            for number, runner in enumerate(runners)
        ]
        async with create_task_group() as group:
            group.start_soon(change)
            for number, store in enumerate(stores):
                group.start_soon(work, store, number)
    assert len(given) == len(set(given)) > ROUNDS
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, fence FROM hookware_task")).all()
    fences = {row.id: row.fence for row in rows}
    assert {task_id: sorted(f for i, f in given if i == task_id) for task_id in fences} == {
        task_id: list(range(1, fence + 1)) for task_id, fence in fences.items()
    }
