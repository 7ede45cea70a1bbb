"""What every store must do with decisions."""

import pytest

from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry, State
from hookware.core.task import Lease
from hookware.store.base import LATEST_US, Settlement
from tests.store.subject import LEASE_US, START_US, Subject, new_task

DECISIONS: list[Decision] = [
    Complete(),
    Retry(5, 503, "busy", crashed=True),
    Release(),
    Die("retries", 500, "no", crashed=True),
]


class SettleContract:
    async def test_complete_removes_the_task(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        assert await subject.settle((await subject.claim_one()).lease, Complete()) is True
        assert await subject.store.get(1) is None

    async def test_retry_makes_it_due_after_the_delay_from_now(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1, eta_us=3))
        task = await subject.claim_one()
        subject.clock.advance(100)
        assert await subject.settle(task.lease, Retry(7, 503, "busy")) is True
        info = await subject.get(1)
        assert (info.state, info.eta_us, info.owner) == (State.PENDING, START_US + 107, None)
        assert (info.attempt_count, info.crash_count) == (1, 0)
        assert (info.last_status, info.last_error, info.dead_reason) == (503, "busy", None)

    async def test_release_gives_it_back_as_it_was(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1, eta_us=3))
        before = await subject.get(1)
        task = await subject.claim_one()
        subject.clock.advance(100)
        assert await subject.settle(task.lease, Release()) is True
        assert await subject.get(1) == before
        assert (await subject.claim_one()).first_attempt_us == START_US + 100

    async def test_release_with_a_delay_is_due_that_long_from_now(self, subject: Subject) -> None:
        for task_id in (1, 2, 3):
            await subject.add(new_task(task_id=task_id, eta_us=3))
        tasks = {task.id: task for task in await subject.claim()}
        subject.clock.advance(100)
        delays = {1: 7, 2: 0, 3: LATEST_US}
        settlements = [Settlement(tasks[task_id].lease, Release(delay)) for task_id, delay in delays.items()]
        assert await subject.store.settle(settlements) == [True] * 3
        infos = [await subject.get(task_id) for task_id in (1, 2, 3)]
        assert [info.eta_us for info in infos] == [START_US + 107, 3, LATEST_US]
        assert {(info.state, info.attempt_count, info.owner) for info in infos} == {(State.PENDING, 0, None)}

    async def test_release_of_a_later_attempt_keeps_the_first_attempts_time(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        await subject.settle((await subject.claim_one()).lease, Retry(0, 500, "no"))
        before = await subject.get(1)
        subject.clock.advance(100)
        await subject.settle((await subject.claim_one()).lease, Release())
        assert await subject.get(1) == before
        again = await subject.claim_one()
        assert (again.first_attempt_us, again.attempt_count, again.fence) == (START_US, 2, 3)

    async def test_die_keeps_it_dead_and_says_why(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1, eta_us=3))
        assert await subject.settle((await subject.claim_one()).lease, Die("retries", 500, "no")) is True
        info = await subject.get(1)
        assert (info.state, info.dead_reason, info.last_status, info.last_error) == (State.DEAD, "retries", 500, "no")
        assert (info.attempt_count, info.crash_count, info.eta_us, info.owner) == (1, 0, 3, None)
        assert await subject.claim() == await subject.store.expired(9, ["me"]) == []

    @pytest.mark.parametrize("decision", [Retry(0, 500, "", crashed=True), Die("crashes", 500, "", crashed=True)])
    async def test_a_crash_is_counted(self, subject: Subject, decision: Decision) -> None:
        await subject.add(new_task(task_id=1))
        await subject.settle((await subject.claim_one()).lease, decision)
        assert (await subject.get(1)).crash_count == 1

    @pytest.mark.parametrize("decision", [Retry(0, None, "later"), Die("crashes", None, "later")])
    async def test_no_status_leaves_the_last_one(self, subject: Subject, decision: Decision) -> None:
        await subject.add(new_task(task_id=1))
        await subject.settle((await subject.claim_one()).lease, Retry(0, 418, "first"))
        await subject.settle((await subject.claim_one()).lease, decision)
        info = await subject.get(1)
        assert (info.last_status, info.last_error) == (418, "later")

    @pytest.mark.parametrize("decision", DECISIONS, ids=lambda decision: type(decision).__name__)
    async def test_a_stale_fence_is_refused_and_changes_nothing(self, subject: Subject, decision: Decision) -> None:
        await subject.add(new_task(task_id=1, name="a"))
        old = await subject.claim_one()
        await subject.settle(old.lease, Retry(0, 500, "no"))
        new = await subject.claim_one()
        before = await subject.get(1)
        for fence in (old.fence, new.fence + 1, 0, -1):
            assert await subject.settle(Lease(1, fence), decision) is False
        assert await subject.get(1) == before
        assert await subject.renew(new.lease) == {1}

    @pytest.mark.parametrize("decision", DECISIONS, ids=lambda decision: type(decision).__name__)
    async def test_a_lease_is_good_for_one_settlement(self, subject: Subject, decision: Decision) -> None:
        await subject.add(new_task(task_id=1))
        task = await subject.claim_one()
        for kept in (Retry(0, 500, "no"), Release(), Die("retries", 500, "no")):
            await subject.settle(task.lease, kept)
            before = await subject.get(1)
            assert await subject.settle(task.lease, decision) is False
            assert await subject.get(1) == before
            await subject.store.run_again(1)
            assert await subject.settle(task.lease, decision) is False
            task = await subject.claim_one()
        assert await subject.settle(task.lease, Complete()) is True
        assert await subject.settle(task.lease, decision) is False

    @pytest.mark.parametrize("decision", DECISIONS, ids=lambda decision: type(decision).__name__)
    async def test_a_task_that_is_not_leased_is_refused(self, subject: Subject, decision: Decision) -> None:
        await subject.add(new_task(task_id=1))
        before = await subject.get(1)
        assert await subject.settle(Lease(1, 0), decision) is False
        assert await subject.settle(Lease(2, 1), decision) is False
        assert await subject.store.list_tasks() == [before]

    async def test_an_ended_lease_counts_until_another_claim(self, subject: Subject) -> None:
        await subject.add(new_task())
        task = await subject.claim_one()
        subject.clock.advance(LEASE_US * 9)
        assert await subject.settle(task.lease, Complete()) is True

    async def test_a_mixed_bag_is_answered_in_order(self, subject: Subject) -> None:
        await subject.add(*[new_task(task_id=n) for n in range(1, 7)])
        lease = {task.id: task.lease for task in await subject.claim()}
        answers = await subject.store.settle(
            [
                Settlement(Lease(5, 99), Complete()),
                Settlement(lease[4], Die("permanent", 410, "gone")),
                Settlement(lease[1], Complete()),
                Settlement(lease[3], Release()),
                Settlement(lease[2], Retry(9, 503, "two")),
                Settlement(Lease(99, 1), Retry(0, 500, "")),
                Settlement(lease[6], Retry(8, 500, "six")),
            ]
        )
        assert answers == [False, True, True, True, True, False, True]
        infos = {info.id: info for info in await subject.store.list_tasks()}
        assert {task_id: info.state for task_id, info in infos.items()} == {
            2: State.PENDING, 3: State.PENDING, 4: State.DEAD, 5: State.LEASED, 6: State.PENDING,
        }  # fmt: skip
        assert (infos[2].last_status, infos[2].last_error, infos[2].eta_us) == (503, "two", START_US + 9)
        assert (infos[6].last_status, infos[6].last_error, infos[6].eta_us) == (500, "six", START_US + 8)
        assert (infos[4].last_status, infos[3].last_status) == (410, None)

    async def test_of_two_decisions_for_one_lease_the_first_counts(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        lease = (await subject.claim_one()).lease
        both = [Settlement(lease, Retry(5, 500, "first")), Settlement(lease, Complete())]
        assert await subject.store.settle(both) == [True, False]
        assert (await subject.get(1)).last_error == "first"

    async def test_more_than_fit_into_one_statement(self, subject: Subject) -> None:
        await subject.add(*[new_task() for _ in range(1201)])
        tasks = await subject.claim(1201)
        kinds: list[Decision] = [Complete(), Retry(0, 500, "no"), Release()]
        answers = await subject.store.settle([Settlement(t.lease, kinds[n % 3]) for n, t in enumerate(tasks)])
        assert answers == [True] * 1201
        assert len(await subject.store.list_tasks(state=State.PENDING, limit=5000)) == 800
        assert await subject.store.settle([]) == []

    async def test_error_texts_are_bounded_and_can_always_be_stored(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        await subject.settle((await subject.claim_one()).lease, Retry(0, 500, "a\0b\udc80ü"))
        assert (await subject.get(1)).last_error == "ab?ü"
        await subject.settle((await subject.claim_one()).lease, Die("retries", 500, "\0x" * 5_000_000))
        assert (await subject.get(1)).last_error == "x" * 4096

    async def test_a_delay_beyond_the_last_moment_is_the_last_moment(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        await subject.settle((await subject.claim_one()).lease, Retry(LATEST_US, 500, "no"))
        assert (await subject.get(1)).eta_us == LATEST_US
