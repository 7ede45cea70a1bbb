"""What every store must do: each sentence of store/base.py is a test here. Subclasses give the fixture `subject`."""

import pytest

from hookware.core.lifecycle import Complete, Die, Release, Retry, State
from hookware.core.retry import RetryOptions
from hookware.core.task import Lease
from hookware.store.base import LATEST_US, AddResult, Claim, Settlement
from tests.store.contract_birth import BirthContract
from tests.store.contract_history import HistoryContract
from tests.store.contract_life import LifeContract
from tests.store.contract_names import NamesContract
from tests.store.contract_queues import QueueContract
from tests.store.contract_settle import SettleContract
from tests.store.subject import LEASE_US, SECOND_US, START_US, Subject, new_task


class AddContract:
    async def test_an_added_task_comes_back_whole(self, subject: Subject) -> None:
        given = new_task(
            "mail",
            "first",
            url="/worker?a=b%20c",
            headers=(("x-a", "1"), ("x-a", "2"), ("x-ü", "ä\n")),
            body=bytes(range(256)),
            retry=RetryOptions(task_retry_limit=3, min_backoff_seconds=0.5),
            deadline_us=5,
        )
        assert await subject.store.add([given]) == [AddResult.ADDED]
        task = await subject.claim_one()
        for field in ("id", "queue_name", "name", "method", "url", "headers", "body", "retry", "deadline_us"):
            assert getattr(task, field) == getattr(given, field), field
        assert (task.eta_us, task.attempt_count, task.crash_count, task.last_status) == (START_US, 1, 0, None)

    async def test_adding_nothing_does_nothing(self, subject: Subject) -> None:
        assert await subject.store.add([]) == []
        assert await subject.store.list_tasks() == []

    async def test_an_eta_is_kept_and_a_countdown_begins_at_the_stores_now(self, subject: Subject) -> None:
        subject.clock.advance(7)
        await subject.add(new_task(task_id=1, eta_us=5), new_task(task_id=2, countdown_us=3))
        assert [info.eta_us for info in await subject.store.list_tasks()] == [5, START_US + 10]

    @pytest.mark.parametrize("eta_us", [-LATEST_US - 1, -1, 0, LATEST_US])
    async def test_the_most_extreme_times_are_kept(self, subject: Subject, eta_us: int) -> None:
        await subject.add(new_task(task_id=LATEST_US, eta_us=eta_us))
        assert (await subject.get(LATEST_US)).eta_us == eta_us

    async def test_a_time_beyond_the_last_is_the_last(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1, eta_us=LATEST_US, countdown_us=LATEST_US))
        assert (await subject.get(1)).eta_us == LATEST_US

    async def test_many_are_added_at_once(self, subject: Subject) -> None:
        tasks = [new_task(task_id=n, name=f"n{n}") for n in range(1201)]
        assert await subject.store.add(tasks) == [AddResult.ADDED] * 1201
        assert len(await subject.store.list_tasks(limit=5000)) == 1201


class ClaimContract:
    async def test_a_claim_counts_the_attempt_raises_the_fence_and_leases(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        subject.clock.advance(5)
        task = await subject.claim_one()
        assert (task.fence, task.attempt_count, task.first_attempt_us, task.claimed_us) == (
            1, 1, START_US + 5, START_US + 5,
        )  # fmt: skip
        info = await subject.get(1)
        assert (info.state, info.owner, info.attempt_count) == (State.LEASED, "me", 1)

    async def test_the_first_attempts_time_stays_and_the_fence_goes_on(self, subject: Subject) -> None:
        await subject.add(new_task())
        first = await subject.claim_one()
        await subject.settle(first.lease, Retry(0, 500, "no"))
        subject.clock.advance(5)
        second = await subject.claim_one()
        assert (second.fence, second.attempt_count, second.first_attempt_us) == (2, 2, START_US)
        assert (second.claimed_us, second.last_status) == (START_US + 5, 500)

    async def test_a_task_is_due_exactly_at_its_eta(self, subject: Subject) -> None:
        await subject.add(new_task(eta_us=START_US + 1))
        assert await subject.claim() == []
        subject.clock.advance(1)
        assert len(await subject.claim()) == 1

    async def test_no_task_is_claimed_twice(self, subject: Subject) -> None:
        await subject.add(*[new_task() for _ in range(5)])
        ids = [task.id for _ in range(4) for task in await subject.claim(2)]
        assert len(ids) == len(set(ids)) == 5

    @pytest.mark.parametrize("limit", [-1, 0, 1, 3, 7, 8])
    async def test_never_more_than_the_limit_over_several_queues(self, subject: Subject, limit: int) -> None:
        await subject.add(*[new_task(f"q{n % 3}") for n in range(7)])
        assert len(await subject.claim(limit)) == max(0, min(limit, 7))

    async def test_within_a_queue_by_eta_then_id(self, subject: Subject) -> None:
        etas = {4: 20, 3: 10, 2: 10, 1: 30}
        await subject.add(*[new_task(task_id=task_id, eta_us=eta) for task_id, eta in etas.items()])
        assert [task.id for task in await subject.claim(3)] == [2, 3, 4]

    async def test_slots_are_shared_so_that_a_full_queue_delays_no_other(self, subject: Subject) -> None:
        await subject.add(*[new_task("full", eta_us=1) for _ in range(20)])
        await subject.add(new_task("a"), new_task("z"))
        names = [task.queue_name for task in await subject.claim(10)]
        assert sorted(names) == ["a"] + ["full"] * 8 + ["z"]

    async def test_queues_take_turns_when_there_are_more_than_slots(self, subject: Subject) -> None:
        await subject.add(*[new_task(f"q{n}", eta_us=m) for n in range(5) for m in range(4)])
        names = [task.queue_name for _ in range(5) for task in await subject.claim(2)]
        assert {name: names.count(name) for name in names} == {f"q{n}": 2 for n in range(5)}

    async def test_the_odd_slot_goes_to_another_queue_each_time(self, subject: Subject) -> None:
        await subject.add(*[new_task(f"q{n}") for n in range(3) for _ in range(10)])
        names = [task.queue_name for _ in range(3) for task in await subject.claim(4)]
        assert {name: names.count(name) for name in names} == {f"q{n}": 4 for n in range(3)}

    async def test_excluded_queues_are_left_alone(self, subject: Subject) -> None:
        await subject.add(new_task("a"), new_task("b"))
        claimed = await subject.store.claim(
            Claim(owner="me", limit=9, lease_us=LEASE_US, exclude=frozenset({"a", "none"}))
        )
        assert [task.queue_name for task in claimed.tasks] == ["b"]
        assert claimed.next_due_us is None

    async def test_an_undue_task_does_not_hold_back_its_queue_or_another(self, subject: Subject) -> None:
        await subject.add(new_task("a", countdown_us=5), new_task("a", task_id=77), new_task("b", task_id=78))
        assert {task.id for task in await subject.claim()} == {77, 78}

    async def test_a_lease_beyond_the_last_moment_is_given(self, subject: Subject) -> None:
        await subject.add(new_task())
        assert len(await subject.claim(lease_us=LATEST_US)) == 1
        subject.clock.now_us = LATEST_US - 1
        assert await subject.store.expired(9) == []


class NextDueContract:
    @pytest.mark.parametrize(("countdown_us", "passed_us", "due_us"), [(0, 0, 0), (9, 0, 9), (9, 8, 1), (9, 99, 0)])
    async def test_it_counts_from_now_and_is_never_negative(
        self, subject: Subject, countdown_us: int, passed_us: int, due_us: int
    ) -> None:
        await subject.add(new_task(countdown_us=countdown_us), new_task("later", countdown_us=500))
        subject.clock.advance(passed_us)
        assert await subject.store.next_due() == due_us

    async def test_nothing_pending_is_none(self, subject: Subject) -> None:
        assert await subject.store.next_due() is None
        await subject.add(new_task("a"), new_task("dead"))
        for task in await subject.claim():
            if task.queue_name == "dead":
                await subject.settle(task.lease, Die("retries", 500, "no"))
        assert await subject.store.next_due() is None

    async def test_excluded_queues_do_not_count(self, subject: Subject) -> None:
        await subject.add(new_task("a"), new_task("b", countdown_us=5))
        assert await subject.store.next_due(frozenset({"a"})) == 5
        assert await subject.store.next_due(frozenset({"a", "b"})) is None

    async def test_a_claim_says_when_to_come_again(self, subject: Subject) -> None:
        await subject.add(new_task("a"), new_task("a"), new_task("b", countdown_us=5))

        async def next_due_us(limit: int) -> int | None:
            return (await subject.store.claim(Claim(owner="me", limit=limit, lease_us=LEASE_US))).next_due_us

        assert await next_due_us(0) == 0
        assert await next_due_us(1) == 0
        assert await next_due_us(1) == 5
        subject.clock.advance(5)
        assert await next_due_us(9) is None


class ExpiredContract:
    async def test_a_lease_ends_exactly_at_its_time(self, subject: Subject) -> None:
        await subject.add(new_task())
        task = await subject.claim_one()
        subject.clock.advance(LEASE_US - 1)
        assert await subject.store.expired(9) == []
        subject.clock.advance(1)
        (found,) = await subject.store.expired(9)
        assert found.lease == task.lease
        assert (found.claimed_us, found.attempt_count) == (START_US + LEASE_US, 1)

    async def test_nothing_is_changed_and_the_lease_may_still_be_renewed(self, subject: Subject) -> None:
        await subject.add(new_task())
        task = await subject.claim_one()
        subject.clock.advance(LEASE_US)
        assert await subject.store.expired(9) == await subject.store.expired(9) != []
        assert await subject.renew(task.lease) == {task.id}
        assert await subject.store.expired(9) == []

    @pytest.mark.parametrize(
        "decision", [Retry(0, None, "x", crashed=True), Die("crashes", None, "x", crashed=True)], ids=["retry", "die"]
    )
    async def test_a_lease_that_was_renewed_after_it_was_found_ended_is_not_taken_back(
        self, subject: Subject, decision: Retry | Die
    ) -> None:
        await subject.add(new_task())
        task = await subject.claim_one()
        subject.clock.advance(LEASE_US)
        (found,) = await subject.store.expired(9)
        assert await subject.renew(task.lease) == {task.id}
        taking_back = Settlement(found.lease, decision, found.lease_until_us)
        assert await subject.store.settle([taking_back]) == [False]
        assert (await subject.get(task.id)).state is State.LEASED
        subject.clock.advance(LEASE_US)
        (found,) = await subject.store.expired(9)
        assert await subject.store.settle([Settlement(found.lease, decision, found.lease_until_us)]) == [True]

    async def test_oldest_first_up_to_the_limit(self, subject: Subject) -> None:
        await subject.add(*[new_task(task_id=n) for n in (1, 2, 3)])
        leases = {task.id: task.lease for task in await subject.claim()}
        await subject.renew(leases[1], lease_us=3)
        await subject.renew(leases[2], lease_us=1)
        await subject.renew(leases[3], lease_us=2)
        subject.clock.advance(3)
        assert [task.id for task in await subject.store.expired(9)] == [2, 3, 1]
        assert [task.id for task in await subject.store.expired(2)] == [2, 3]
        assert await subject.store.expired(0) == []

    async def test_the_leases_of_a_dead_owner_are_found_at_once(self, subject: Subject) -> None:
        await subject.add(*[new_task(task_id=n) for n in (1, 2, 3, 4)])
        for owner in ("a", "b", "c"):
            await subject.claim(1, owner=owner)
        assert set(await subject.store.owners()) == {"a", "b", "c"}
        assert [task.id for task in await subject.store.expired(9, ["a", "c", "none"])] == [1, 3]

    async def test_an_owner_without_leases_is_not_listed(self, subject: Subject) -> None:
        assert await subject.store.owners() == {}
        await subject.add(new_task(), new_task())
        first, second = await subject.claim(2)
        await subject.settle(first.lease, Complete())
        assert set(await subject.store.owners()) == {"me"}
        await subject.settle(second.lease, Release())
        assert await subject.store.owners() == {}

    async def test_an_owner_is_listed_with_the_end_of_his_first_lease(self, subject: Subject) -> None:
        await subject.add(new_task(), new_task(), new_task())
        await subject.claim(1, owner="a", lease_us=20)
        await subject.claim(1, owner="a", lease_us=30)
        await subject.claim(1, owner="b", lease_us=40)
        subject.clock.advance(25)
        assert await subject.store.owners() == {"a": -5, "b": 15}


class RenewContract:
    async def test_a_renewed_lease_counts_from_now(self, subject: Subject) -> None:
        await subject.add(new_task())
        task = await subject.claim_one()
        subject.clock.advance(LEASE_US - 1)
        assert await subject.renew(task.lease, lease_us=SECOND_US) == {task.id}
        subject.clock.advance(SECOND_US - 1)
        assert await subject.store.expired(9) == []
        subject.clock.advance(1)
        assert len(await subject.store.expired(9)) == 1

    async def test_only_leases_that_are_still_held(self, subject: Subject) -> None:
        await subject.add(*[new_task(task_id=n) for n in range(1, 6)])
        leases = {task.id: task.lease for task in await subject.claim(4)}
        await subject.settle(leases[1], Complete())
        await subject.settle(leases[2], Release())
        stale, pending, unknown = Lease(3, leases[3].fence - 1), Lease(5, 0), Lease(99, 1)
        kept = await subject.renew(leases[1], leases[2], stale, leases[4], pending, unknown)
        assert kept == {4}
        assert await subject.renew() == frozenset()

    async def test_more_than_fit_into_one_statement(self, subject: Subject) -> None:
        await subject.add(*[new_task() for _ in range(1001)])
        leases = [task.lease for task in await subject.claim(1001)]
        assert await subject.renew(*leases) == {lease.task_id for lease in leases}


class InspectorContract:
    async def test_nothing_is_none(self, subject: Subject) -> None:
        assert await subject.store.get(1) is None
        assert await subject.store.delete(1) is False
        assert await subject.store.run_again(1) is False

    async def test_a_list_goes_by_id_and_can_be_narrowed(self, subject: Subject) -> None:
        await subject.add(*[new_task("b" if n % 2 else "a", task_id=n) for n in (5, 3, 4, 1, 2)])
        for task in await subject.claim(1):
            assert task.queue_name == "a"
            await subject.settle(task.lease, Die("retries", 500, "no"))
        listed = subject.store.list_tasks
        assert [info.id for info in await listed()] == [1, 2, 3, 4, 5]
        assert [info.id for info in await listed(limit=2)] == [1, 2]
        assert [info.id for info in await listed(queue_name="b")] == [1, 3, 5]
        assert [info.id for info in await listed(state=State.DEAD)] == [2]
        assert [info.id for info in await listed(state=State.PENDING, queue_name="a")] == [4]
        assert await listed(state=State.LEASED) == await listed(limit=0) == []

    async def test_a_dead_task_runs_again_as_if_never_tried(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1, eta_us=5))
        dead = await subject.claim_one()
        await subject.settle(dead.lease, Die("retries", 500, "no", crashed=True))
        subject.clock.advance(9)
        assert await subject.store.run_again(1) is True
        info = await subject.get(1)
        assert (info.state, info.eta_us, info.attempt_count) == (State.PENDING, START_US + 9, 0)
        assert (info.crash_count, info.last_status, info.last_error, info.dead_reason) == (0, None, None, None)
        again = await subject.claim_one()
        assert (again.attempt_count, again.first_attempt_us) == (1, START_US + 9)
        assert again.fence > dead.fence

    async def test_only_a_dead_task_runs_again(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        assert await subject.store.run_again(1) is False
        await subject.claim_one()
        assert await subject.store.run_again(1) is False
        assert (await subject.get(1)).state is State.LEASED

    async def test_what_runs_is_not_deleted_what_waits_or_is_dead_is(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1), new_task(task_id=2), new_task(task_id=3))
        running, dying = await subject.claim(2)
        await subject.settle(dying.lease, Die("retries", 500, "no"))
        assert [await subject.store.delete(n) for n in (1, 2, 3)] == [False, True, True]
        assert [info.id for info in await subject.store.list_tasks()] == [1]
        assert await subject.settle(running.lease, Complete()) is True


class StoreContract(
    AddContract,
    ClaimContract,
    NextDueContract,
    ExpiredContract,
    RenewContract,
    InspectorContract,
    NamesContract,
    SettleContract,
    QueueContract,
    HistoryContract,
    LifeContract,
    BirthContract,
):
    """All of it."""
