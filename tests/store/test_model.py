"""Any sequence of calls, on any store, does what a plain model says."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import create_engine, text

from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry, State
from hookware.core.task import NO_KEYS, Keys, Lease, NewTask, Progress
from hookware.env import Env
from hookware.store.base import Claim, Claimed, Settlement, TaskInfo
from hookware.store.memory import MemoryStore
from hookware.store.sql.engines import own_engine
from hookware.store.sql.runner import ThreadRunner
from tests.postgres import PostgresServer
from tests.store.conftest import sql_subject
from tests.store.model import DEAD_US, KEPT_US, Model, seen
from tests.store.subject import QUEUES, SECOND_US, TOMBSTONE_US, ManualClock, Subject, new_task

seconds = st.integers(0, 40).map(lambda n: n * SECOND_US)
KEYED = "keyed"
"""The queue whose tasks have keys, all the same fair key, so that they are claimed by ETA like those of others."""

queue_names = st.sampled_from(["a", KEYED, *KEPT_US, *DEAD_US])
owners = st.sampled_from(["one", "two"])
names = st.none() | st.sampled_from(["x", "y"])
all_keys = st.just(Keys(fair_key="f")) | st.builds(
    Keys,
    fair_key=st.just("f"),
    dedup_key=st.sampled_from(["k", "l"]),
    on_conflict=st.sampled_from(["skip", "replace", "raise"]),
)
new_tasks = st.lists(
    st.tuples(queue_names, names, st.none() | st.integers(-20, 20), all_keys),
    min_size=1, max_size=4,
)  # fmt: skip
rivals = st.lists(st.tuples(names, st.none() | st.integers(-1, 1), all_keys), min_size=2, max_size=4)
statuses = st.none() | st.sampled_from([404, 500])
decisions: st.SearchStrategy[Decision] = st.one_of(
    st.just(Complete()),
    st.builds(Release, seconds),
    st.builds(Retry, seconds, statuses, st.sampled_from(["", "oh"]), crashed=st.booleans()),
    st.builds(Die, st.just("retries"), statuses, st.sampled_from(["", "oh"]), crashed=st.booleans()),
)


class StoreMachine(RuleBasedStateMachine):
    """Does the same to a store and to the model. Subclasses open the store."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.portal = self.stack.enter_context(start_blocking_portal())
        self.subject = self.stack.enter_context(self.portal.wrap_async_context_manager(self.open()))
        self.store = self.subject.store
        self.model = Model()
        self.model.now_us = self.subject.clock.now_us
        self.leases: list[Lease] = []
        self.ids = 0

    def open(self) -> AbstractAsyncContextManager[Subject]:
        raise NotImplementedError

    def teardown(self) -> None:
        self.stack.close()

    def made(self, wanted: Sequence[tuple[str, str | None, int | None, Keys]]) -> list[NewTask]:
        tasks = []
        for queue_name, name, offset, keys in wanted:
            self.ids += 1
            eta_us = None if offset is None else self.model.now_us + offset * SECOND_US
            keys = keys if queue_name == KEYED else NO_KEYS
            tasks.append(new_task(queue_name, name, task_id=self.ids, eta_us=eta_us, keys=keys))
        return tasks

    @rule(wanted=new_tasks)
    def add(self, wanted: list[Any]) -> None:
        tasks = self.made(wanted)
        assert self.portal.call(self.store.add, tasks) == [self.model.add(task) for task in tasks]

    @rule(wanted=new_tasks)
    def commit_a_users_transaction(self, wanted: list[Any]) -> None:
        tasks = self.made(wanted)
        self.portal.call(self.subject.insert, tasks)
        for task in tasks:
            self.model.insert(task)

    @rule(wanted=rivals, limit=st.integers(1, 5))
    def let_tasks_with_names_and_keys_meet(self, wanted: list[Any], limit: int) -> None:
        tasks = self.made([(KEYED, *each) for each in wanted])
        self.portal.call(self.subject.insert, tasks)
        for task in tasks:
            self.model.insert(task)
        self.claim_and_compare("one", limit, 0, frozenset())

    @rule(owner=owners, limit=st.integers(0, 5), lease_us=seconds, exclude=st.frozensets(queue_names, max_size=2))
    def claim(self, owner: str, limit: int, lease_us: int, exclude: frozenset[str]) -> None:
        self.claim_and_compare(owner, limit, lease_us, exclude)

    def claim_and_compare(self, owner: str, limit: int, lease_us: int, exclude: frozenset[str]) -> None:
        due = self.model.due(exclude)
        claimed: Claimed = self.portal.call(
            self.store.claim, Claim(owner=owner, limit=limit, lease_us=lease_us, exclude=exclude)
        )
        infos = {info.id: info for info in self.portal.call(self.listed)}
        began = {i for ids in due.values() for i in ids if i not in infos or infos[i].state is not State.PENDING}
        shares = {name: len(began.intersection(ids)) for name, ids in due.items()}
        most = min(limit, sum(map(len, due.values())))
        if KEYED in due:  # where tasks also go that it was not the turn of
            shares[KEYED] = most - sum(share for name, share in shares.items() if name != KEYED)
        assert sum(shares.values()) == most
        for name, ids in due.items():
            assert 0 <= shares[name] <= len(ids)
            if shares[name] < len(ids):
                assert shares[name] >= max(shares.values()) - 1, "a queue that has more got less than its share"
        chosen = [task_id for name, ids in due.items() for task_id in ids[: shares[name]]]
        self.check_that_one_of_each_key_is_left(chosen, infos)
        leases = {self.model.claim(task_id, owner, lease_us) for task_id in self.model.sort_out(chosen)}
        assert {task.lease for task in claimed.tasks} == leases
        for task in claimed.tasks:
            assert task.first_attempt_us == self.model.tasks[task.id]["first_us"]
            assert task.claimed_us == self.model.now_us
        self.leases += [task.lease for task in claimed.tasks]

    def check_that_one_of_each_key_is_left(self, chosen: Sequence[int], infos: Mapping[int, TaskInfo]) -> None:
        """See that no committed task has gone but for one that runs, or will, or one that has its name."""
        for task_id in chosen:
            rivals = [infos[i] for i in self.model.rivals(task_id) if i in infos]
            if not any(info.state in (State.PENDING, State.LEASED) for info in rivals):
                assert len(rivals) == len(self.model.rivals(task_id)), "one is gone, and gave way to none"
                assert {info.dead_reason for info in rivals} == {"duplicate"}

    @rule(data=st.data())
    @precondition(lambda self: self.leases)
    def settle(self, data: st.DataObject) -> None:
        leases = data.draw(st.lists(st.sampled_from(self.leases), min_size=1, max_size=4))
        settlements = [Settlement(lease, data.draw(decisions)) for lease in leases]
        expected = [self.model.settle(each.lease, each.decision) for each in settlements]
        assert self.portal.call(self.store.settle, settlements) == expected

    @rule(data=st.data(), lease_us=seconds)
    @precondition(lambda self: self.leases)
    def renew(self, data: st.DataObject, lease_us: int) -> None:
        leases = data.draw(st.lists(st.sampled_from(self.leases), unique=True, max_size=4))
        assert self.store.renew(leases, lease_us) == self.model.renew(leases, lease_us)

    @rule(us=seconds | st.just(TOMBSTONE_US))
    def let_time_pass(self, us: int) -> None:
        self.subject.clock.advance(us)
        self.model.now_us += us

    @rule(dead=st.lists(owners, unique=True), limit=st.integers(0, 3))
    def recover(self, dead: list[str], limit: int) -> None:
        found = self.portal.call(self.store.expired, limit, dead)
        assert [task.id for task in found] == self.model.expired(dead)[:limit]
        settlements = [Settlement(task.lease, Retry(0, None, "crashed", crashed=True)) for task in found]
        assert self.portal.call(self.store.settle, settlements) == [True] * len(found)
        for each in settlements:
            self.model.settle(each.lease, each.decision)

    @rule(data=st.data())
    @precondition(lambda self: self.ids)
    def run_again(self, data: st.DataObject) -> None:
        task_id = data.draw(st.integers(1, self.ids))
        assert self.portal.call(self.store.run_again, task_id) is self.model.run_again(task_id)

    @rule(
        queue_name=queue_names,
        reason=st.sampled_from([None, "retries", "cancelled", "duplicate"]),
        limit=st.integers(0, 3),
    )
    def run_again_all(self, queue_name: str, reason: str | None, limit: int) -> None:
        again = partial(self.store.run_again_all, queue_name, reason=reason, limit=limit)
        assert self.portal.call(again) == self.model.run_again_all(queue_name, reason, limit)

    @rule(data=st.data())
    @precondition(lambda self: self.ids)
    def cancel(self, data: st.DataObject) -> None:
        task_id = data.draw(st.integers(1, self.ids))
        assert self.portal.call(self.store.cancel, task_id) is self.model.cancel(task_id)

    @rule(data=st.data(), done=st.integers(0, 3))
    @precondition(lambda self: self.leases)
    def note_progress(self, data: st.DataObject, done: int) -> None:
        leases = data.draw(st.lists(st.sampled_from(self.leases), unique=True, max_size=4))
        notes = {lease: Progress(done, 3, f"of {lease.task_id}") for lease in leases}
        assert self.portal.call(self.store.note_progress, notes) == self.model.note_progress(notes)

    @rule(data=st.data())
    @precondition(lambda self: self.ids)
    def delete(self, data: st.DataObject) -> None:
        task_id = data.draw(st.integers(1, self.ids))
        assert self.portal.call(self.store.delete, task_id) is self.model.delete(task_id)

    @rule()
    def prune(self) -> None:
        assert self.portal.call(self.store.prune) == self.model.prune()

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        infos = self.portal.call(self.listed)
        assert {info.id: seen(info) for info in infos} == self.model.seen()
        leased = self.model.of_state(State.LEASED).values()
        assert set(self.portal.call(self.store.owners)) == {task["owner"] for task in leased}
        assert self.portal.call(self.store.next_due) == self.model.next_due()

    async def listed(self) -> list[Any]:
        return await self.store.list_tasks(limit=1000)


class MemoryMachine(StoreMachine):
    """On memory."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Subject]:
        clock = ManualClock()
        store = MemoryStore(clock, tombstone_us=TOMBSTONE_US, queues=QUEUES)

        async def insert(tasks: Sequence[NewTask]) -> None:
            store.insert(tasks)

        yield Subject(store, clock, insert)


class SQLiteMachine(StoreMachine):
    """On a SQLite file."""

    def open(self) -> AbstractAsyncContextManager[Subject]:
        folder = self.stack.enter_context(TemporaryDirectory())
        engine = create_engine(f"sqlite:///{Path(folder) / 'app.db'}", connect_args={"check_same_thread": False})
        return sql_subject(ThreadRunner(own_engine(engine), Env()))


@pytest.mark.slow
def test_the_store_in_memory_does_what_the_model_says() -> None:
    run_state_machine_as_test(MemoryMachine)


@pytest.mark.slow
def test_the_store_on_sqlite_does_what_the_model_says() -> None:
    fewer = settings(max_examples=max(5, settings().max_examples // 4))
    run_state_machine_as_test(SQLiteMachine, settings=fewer)


@pytest.mark.slow
@pytest.mark.postgres
def test_the_store_on_postgresql_does_what_the_model_says(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.new_database())

    class PostgreSQLMachine(StoreMachine):
        @asynccontextmanager
        async def open(self) -> AsyncIterator[Subject]:
            runner = ThreadRunner(own_engine(create_engine(url)), Env())
            async with sql_subject(runner, at_once=True) as subject:
                await runner.run(
                    lambda connection: connection.execute(text("TRUNCATE hookware_task, hookware_name, hookware_queue"))
                )
                yield subject

    fewer = settings(max_examples=max(5, settings().max_examples // 8))
    run_state_machine_as_test(PostgreSQLMachine, settings=fewer)
