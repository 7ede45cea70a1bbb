"""What every store must do around the end of a task: keeping it, calling it off, reviving it, and its progress."""

import pytest

from hookware.core.lifecycle import Complete, Die, Release, Retry, State
from hookware.core.task import PULL, Lease, NewTask, Progress
from hookware.store.base import AddResult, Settlement
from tests.store.subject import SECOND_US, START_US, TOMBSTONE_US, Subject, new_task

KEPT, DROPPED, DEAD_FOR_AWHILE = "kept-a-minute", "dead-at-once", "dead-a-minute"
MINUTE_US = 60 * SECOND_US


async def completed(subject: Subject, task: NewTask) -> Lease:
    """Add a task, and settle its first attempt."""
    await subject.add(task)
    lease = (await subject.claim_one()).lease
    assert await subject.settle(lease, Complete())
    return lease


async def died(subject: Subject, task: NewTask, reason: str = "retries") -> Lease:
    await subject.add(task)
    lease = (await subject.claim_one()).lease
    assert await subject.settle(lease, Die(reason, 500, "no"))
    return lease


class RetentionContract:
    async def test_a_finished_task_is_kept_with_what_is_known_of_its_attempts(self, subject: Subject) -> None:
        await subject.add(new_task(KEPT, task_id=1, eta_us=3))
        await subject.settle((await subject.claim_one()).lease, Retry(0, 503, "busy", crashed=True))
        assert await subject.settle((await subject.claim_one()).lease, Complete())
        info = await subject.get(1)
        assert (info.state, info.owner, info.attempt_count, info.crash_count) == (State.COMPLETED, None, 2, 1)
        assert (info.last_status, info.last_error, info.dead_reason) == (503, "busy", None)
        assert await subject.claim() == await subject.store.expired(9, ["me"]) == []
        assert (await subject.store.next_due(), await subject.store.owners()) == (None, {})

    async def test_only_the_queue_that_says_so_keeps_what_is_finished(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1), new_task(KEPT, task_id=2), new_task(DROPPED, task_id=3))
        leases = [task.lease for task in await subject.claim()]
        assert [await subject.settle(lease, Complete()) for lease in leases] == [True] * 3
        assert [info.id for info in await subject.store.list_tasks()] == [2]

    async def test_a_finished_task_is_good_for_nothing_more(self, subject: Subject) -> None:
        lease = await completed(subject, new_task(KEPT, task_id=1))
        before = await subject.get(1)
        for decision in (Complete(), Retry(0, 500, ""), Release(), Die("retries", 500, "")):
            assert await subject.settle(lease, decision) is False
        assert await subject.renew(lease) == frozenset()
        assert await subject.store.run_again(1) is await subject.store.cancel(1) is False
        assert await subject.get(1) == before

    async def test_it_goes_after_its_time(self, subject: Subject) -> None:
        await completed(subject, new_task(KEPT, task_id=1))
        subject.clock.advance(MINUTE_US - 1)
        assert (await subject.store.prune(), (await subject.get(1)).id) == (0, 1)
        subject.clock.advance(1)
        assert await subject.store.prune() == 1
        assert await subject.store.list_tasks() == []

    async def test_its_name_is_free_again_after_its_tombstone_however_long_it_is_kept(self, subject: Subject) -> None:
        await subject.store.set_overrides(KEPT, {"retention_seconds": 3600.0})
        await completed(subject, new_task(KEPT, "a", task_id=1))
        assert await subject.store.add([new_task(KEPT, "a")]) == [AddResult.NAME_TOMBSTONED]
        subject.clock.advance(TOMBSTONE_US)
        assert await subject.store.add([new_task(KEPT, "a", task_id=2)]) == [AddResult.ADDED]
        assert await subject.store.delete(1)
        assert (await subject.claim_one()).id == 2

    async def test_deleting_it_makes_no_new_tombstone(self, subject: Subject) -> None:
        await completed(subject, new_task(KEPT, "a", task_id=1))
        subject.clock.advance(TOMBSTONE_US)
        assert await subject.store.delete(1)
        assert await subject.store.add([new_task(KEPT, "a")]) == [AddResult.ADDED]

    async def test_pruning_it_leaves_the_name_to_who_has_it_now(self, subject: Subject) -> None:
        await completed(subject, new_task(KEPT, "a", task_id=1))
        subject.clock.advance(TOMBSTONE_US)
        await subject.add(new_task(KEPT, "a", task_id=2))
        await subject.store.prune()
        assert [info.id for info in await subject.store.list_tasks()] == [2]
        assert await subject.store.add([new_task(KEPT, "a")]) == [AddResult.NAME_TAKEN]

    async def test_what_is_set_at_run_time_counts_once_it_was_seen(self, subject: Subject) -> None:
        await subject.store.set_overrides("default", {"retention_seconds": 10.0})
        await completed(subject, new_task(task_id=1))  # the claim has seen it
        assert (await subject.get(1)).state is State.COMPLETED

    async def test_where_it_is_not_known_how_long_it_is_kept_it_is_for_as_long_as_was_promised(
        self, subject: Subject
    ) -> None:
        await subject.store.set_overrides("default", {"retention_seconds": 10.0})
        await completed(subject, new_task(task_id=1))
        await subject.store.set_overrides("default", {})  # as in a process whose settings say nothing of it
        subject.clock.advance(10 * SECOND_US - 1)
        assert await subject.store.prune() == 0
        subject.clock.advance(1)
        assert await subject.store.prune() == 1

    async def test_a_store_that_has_not_looked_at_the_queues_prunes_nothing_too_early(self, subject: Subject) -> None:
        await subject.store.set_overrides("default", {"retention_seconds": 10.0})
        await completed(subject, new_task(task_id=1))
        await subject.store.set_overrides("default", {"retention_seconds": 20.0})
        subject.clock.advance(10 * SECOND_US)
        assert await subject.store.prune() == 0

    async def test_many_are_pruned_queue_by_queue(self, subject: Subject) -> None:
        names = ["a", KEPT, "z"]
        for name in names:
            await subject.store.set_overrides(name, {"retention_seconds": 60.0})
        await subject.add(*[new_task(names[n % 3]) for n in range(30)])
        await subject.store.settle(await settlements(subject))
        await subject.store.set_overrides("a", {"retention_seconds": 600.0})
        subject.clock.advance(MINUTE_US)
        assert await subject.store.prune() == 20
        assert {info.queue_name for info in await subject.store.list_tasks()} == {"a"}


class DeadRetentionContract:
    async def test_where_the_dead_are_not_kept_a_task_is_gone_at_once(self, subject: Subject) -> None:
        lease = await died(subject, new_task(DROPPED, "a", task_id=1))
        assert await subject.store.get(1) is None
        assert await subject.settle(lease, Complete()) is False
        assert await subject.store.add([new_task(DROPPED, "a")]) == [AddResult.NAME_TOMBSTONED]

    async def test_deaths_in_several_queues_at_once(self, subject: Subject) -> None:
        await subject.add(*[new_task(name, task_id=n) for n, name in enumerate(["default", DROPPED, "default"], 1)])
        leases = [one.lease for one in await settlements(subject)]
        wanted = [Settlement(lease, Die("retries", 500, f"no {lease.task_id}")) for lease in leases]
        assert await subject.store.settle(wanted) == [True] * 3
        assert {i.id: i.last_error for i in await subject.store.list_tasks()} == {1: "no 1", 3: "no 3"}

    async def test_the_dead_go_after_their_time_and_leave_a_tombstone(self, subject: Subject) -> None:
        await died(subject, new_task(DEAD_FOR_AWHILE, "a", task_id=1))
        await died(subject, new_task(task_id=2))
        subject.clock.advance(MINUTE_US - 1)
        assert await subject.store.prune() == 0
        assert await subject.store.add([new_task(DEAD_FOR_AWHILE, "a")]) == [AddResult.NAME_TAKEN]
        subject.clock.advance(1)
        assert await subject.store.prune() == 1
        assert [info.id for info in await subject.store.list_tasks()] == [2]
        assert await subject.store.add([new_task(DEAD_FOR_AWHILE, "a")]) == [AddResult.NAME_TOMBSTONED]

    async def test_a_pruned_duplicate_leaves_the_name_to_its_holder(self, subject: Subject) -> None:
        await subject.insert([new_task(DEAD_FOR_AWHILE, "a", task_id=1), new_task(DEAD_FOR_AWHILE, "a", task_id=2)])
        (first,) = await subject.claim()
        subject.clock.advance(MINUTE_US)
        await subject.store.prune()
        assert [info.id for info in await subject.store.list_tasks()] == [first.id]
        assert await subject.store.add([new_task(DEAD_FOR_AWHILE, "a")]) == [AddResult.NAME_TAKEN]


class ByHandContract:
    @pytest.mark.parametrize("method", ["POST", PULL])
    async def test_a_waiting_task_that_is_called_off_is_gone_and_its_name_tombstoned(
        self, subject: Subject, method: str
    ) -> None:
        await subject.add(new_task("default", "a", task_id=1, method=method))
        assert await subject.store.cancel(1) is True
        assert (await subject.store.list_tasks(), await subject.claim()) == ([], [])
        assert await subject.store.add([new_task("default", "a")]) == [AddResult.NAME_TOMBSTONED]
        assert await subject.store.cancel(1) is False

    async def test_a_running_task_that_is_called_off_is_dead_and_its_attempt_void(self, subject: Subject) -> None:
        await subject.add(new_task("default", "a", task_id=1, eta_us=3))
        lease = (await subject.claim_one()).lease
        assert await subject.store.cancel(1) is True
        before = await subject.get(1)
        assert (before.state, before.dead_reason, before.owner) == (State.DEAD, "cancelled", None)
        assert (before.attempt_count, before.crash_count, before.eta_us) == (1, 0, 3)
        for decision in (Complete(), Retry(0, 500, ""), Release(), Die("retries", 500, "")):
            assert await subject.settle(lease, decision) is False
        assert await subject.renew(lease) == frozenset()
        assert await subject.claim() == await subject.store.expired(9, ["me"]) == []
        assert await subject.get(1) == before
        assert await subject.store.cancel(1) is False

    async def test_run_again_revives_it_and_the_old_attempt_stays_void(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        old = await subject.claim_one()
        await subject.store.cancel(1)
        assert await subject.store.run_again(1)
        new = await subject.claim_one()
        assert new.attempt_count == 1
        assert new.fence == old.fence + 2
        assert await subject.settle(old.lease, Complete()) is False
        assert await subject.settle(new.lease, Complete()) is True

    async def test_where_the_dead_are_not_kept_a_running_task_is_gone(self, subject: Subject) -> None:
        await subject.add(new_task(DROPPED, "a", task_id=1))
        lease = (await subject.claim_one()).lease
        assert await subject.store.cancel(1) is True
        assert await subject.store.get(1) is None
        assert await subject.settle(lease, Complete()) is False
        assert await subject.store.add([new_task(DROPPED, "a")]) == [AddResult.NAME_TOMBSTONED]

    async def test_what_is_dead_or_not_there_cannot_be_called_off(self, subject: Subject) -> None:
        await died(subject, new_task(task_id=1))
        before = await subject.get(1)
        assert (await subject.store.cancel(1), await subject.store.cancel(2)) == (False, False)
        assert await subject.get(1) == before

    async def test_the_dead_of_a_queue_run_again_the_longest_dead_first(self, subject: Subject) -> None:
        for task_id in (3, 1, 2):
            await died(subject, new_task(task_id=task_id))
            subject.clock.advance(1)
        await died(subject, new_task("other", task_id=4))
        assert await subject.store.run_again_all("default", limit=2) == 2
        states = {info.id: info.state for info in await subject.store.list_tasks()}
        assert states == {1: State.PENDING, 2: State.DEAD, 3: State.PENDING, 4: State.DEAD}
        info = await subject.get(3)
        assert (info.eta_us, info.attempt_count, info.last_status, info.dead_reason) == (START_US + 3, 0, None, None)
        assert await subject.store.run_again_all("default") == 1
        assert await subject.store.run_again_all("default") == await subject.store.run_again_all("none") == 0
        assert [await subject.store.run_again_all("other", limit=n) for n in (0, -1)] == [0, 0]
        assert {task.fence for task in await subject.claim()} == {2}

    async def test_a_reason_says_which_and_without_one_only_what_has_failed_runs_again(self, subject: Subject) -> None:
        await subject.insert([new_task("default", "a", task_id=1), new_task("default", "a", task_id=2)])
        (first,) = await subject.claim()  # the other one is a duplicate
        await subject.store.cancel(first.id)
        for task_id, reason in ((3, "retries"), (4, "permanent"), (5, "crashes")):
            await died(subject, new_task(task_id=task_id), reason)
        assert await subject.store.run_again_all("default", reason="permanent") == 1
        assert (await subject.get(4)).state is State.PENDING
        assert await subject.store.run_again_all("default") == 2
        assert await subject.store.run_again_all("default", reason="cancelled") == 1
        assert (await subject.get(first.id)).state is State.PENDING
        assert await subject.store.run_again_all("default", reason="duplicate") == 1

    async def test_more_run_again_than_fit_into_one_transaction(self, subject: Subject) -> None:
        await subject.add(*[new_task() for _ in range(250)])
        wanted = [Settlement(one.lease, Die("retries", 500, "no")) for one in await settlements(subject, 250)]
        await subject.store.settle(wanted)
        assert await subject.store.run_again_all("default", limit=230) == 230
        assert len(await subject.store.list_tasks(state=State.PENDING, limit=1000)) == 230


class ProgressContract:
    async def test_progress_is_kept_until_something_else_is_said(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1), new_task(task_id=2))
        one, two = sorted(task.lease for task in await subject.claim())
        assert (await subject.get(1)).progress is None
        said = {one: Progress(1, 3, "ä\0"), two: Progress(0.5)}
        assert await subject.store.note_progress(said) == {1, 2}
        assert [(await subject.get(n)).progress for n in (1, 2)] == [Progress(1, 3, "ä\0"), Progress(0.5, None, "")]
        await subject.settle(one, Retry(0, 500, "no"))
        again = await subject.claim_one()
        assert (await subject.get(1)).progress == Progress(1, 3, "ä\0")
        assert await subject.store.note_progress({again.lease: Progress(0, 3)}) == {1}
        assert (await subject.get(1)).progress == Progress(0, 3)
        assert await subject.store.note_progress({}) == frozenset()

    async def test_it_changes_nothing_else(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        task = await subject.claim_one()
        before = await subject.get(1)
        await subject.store.note_progress({task.lease: Progress(1)})
        after = await subject.get(1)
        assert {f for f in before.__slots__ if getattr(before, f) != getattr(after, f)} == {"progress"}
        assert await subject.settle(task.lease, Complete())

    async def test_what_was_said_last_may_come_after_the_end(self, subject: Subject) -> None:
        lease = await completed(subject, new_task(KEPT, task_id=1))
        assert await subject.store.note_progress({lease: Progress(3, 3)}) == {1}
        assert (await subject.get(1)).progress == Progress(3, 3)
        assert (await subject.get(1)).state is State.COMPLETED

    async def test_an_older_attempt_has_nothing_to_say(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1), new_task(task_id=2))
        old, cancelled = sorted(task.lease for task in await subject.claim())
        await subject.settle(old, Retry(0, 500, "no"))
        await subject.claim_one()
        await subject.store.cancel(2)
        gone = {old: Progress(1), cancelled: Progress(1), Lease(9, 1): Progress(1)}
        assert await subject.store.note_progress(gone) == frozenset()
        assert [(await subject.get(n)).progress for n in (1, 2)] == [None, None]

    async def test_a_revived_task_begins_anew(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        lease = (await subject.claim_one()).lease
        await subject.store.note_progress({lease: Progress(1)})
        await subject.settle(lease, Die("retries", 500, "no"))
        assert (await subject.get(1)).progress == Progress(1)
        await subject.store.run_again(1)
        assert (await subject.get(1)).progress is None


async def settlements(subject: Subject, limit: int = 100) -> list[Settlement]:
    """Claim what is due; give the settlements that complete it."""
    return [Settlement(task.lease, Complete()) for task in sorted(await subject.claim(limit), key=lambda t: t.id)]


class LifeContract(RetentionContract, DeadRetentionContract, ByHandContract, ProgressContract):
    """All of it."""
