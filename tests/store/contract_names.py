"""What every store must do with the names of tasks."""

import pytest

from hookware.core.lifecycle import Complete, Die, Release, Retry, State
from hookware.core.task import Keys
from hookware.store.base import AddResult, Settlement
from tests.store.subject import TOMBSTONE_US, Subject, new_task

ADDED, TAKEN, TOMBSTONED = AddResult.ADDED, AddResult.NAME_TAKEN, AddResult.NAME_TOMBSTONED


class NamesContract:
    async def test_a_taken_name_leaves_its_task_out_and_the_others_in(self, subject: Subject) -> None:
        await subject.add(new_task(name="a", task_id=1))
        results = await subject.store.add(
            [new_task(name="a", task_id=2), new_task(name="b", task_id=3), new_task(task_id=4)]
        )
        assert results == [TAKEN, ADDED, ADDED]
        assert [info.id for info in await subject.store.list_tasks()] == [1, 3, 4]

    async def test_of_two_of_one_name_in_one_call_the_first_is_added(self, subject: Subject) -> None:
        tasks = [new_task(name="a", task_id=2), new_task(name="a", task_id=1)]
        assert await subject.store.add(tasks) == [ADDED, TAKEN]
        assert (await subject.claim_one()).id == 2

    async def test_of_two_of_one_key_in_one_call_the_one_that_is_to_raise_is_left_out(self, subject: Subject) -> None:
        raising, taking = Keys(dedup_key="k", on_conflict="raise"), Keys(dedup_key="k")
        await subject.add(new_task(name="a"))
        one = [new_task(name="a", keys=raising), new_task(keys=raising), new_task(name="b", keys=raising)]
        other = [new_task("q", keys=taking), new_task("q", keys=raising), new_task("q", keys=taking)]
        assert await subject.store.add(one) == [TAKEN, ADDED, AddResult.KEY_WAITS]
        assert await subject.store.add([*other, new_task(name="b")]) == [ADDED, AddResult.KEY_WAITS, ADDED, ADDED]

    async def test_names_are_unique_per_queue_to_the_letter(self, subject: Subject) -> None:
        pairs = [("q", "a"), ("r", "a"), ("q", "A"), ("q", "a "), ("q", ""), ("Q", "a"), ("q", "ä")]
        tasks = [new_task(queue_name, name) for queue_name, name in pairs]
        assert await subject.store.add(tasks) == [ADDED] * len(pairs)
        assert len(await subject.claim(99)) == len(pairs)

    @pytest.mark.parametrize("decision", [None, Retry(0, 500, ""), Release(), Die("retries", 500, "")])
    async def test_a_name_is_taken_for_as_long_as_its_task_exists(
        self, subject: Subject, decision: Retry | Release | Die | None
    ) -> None:
        await subject.add(new_task(name="a"))
        task = await subject.claim_one()
        if decision is not None:
            await subject.settle(task.lease, decision)
        subject.clock.advance(10 * TOMBSTONE_US)
        await subject.store.prune()
        assert await subject.store.add([new_task(name="a")]) == [TAKEN]

    async def test_a_completed_task_leaves_a_tombstone_for_its_time(self, subject: Subject) -> None:
        await subject.add(new_task(name="a"))
        await subject.settle((await subject.claim_one()).lease, Complete())
        assert await subject.store.add([new_task(name="a")]) == [TOMBSTONED]
        subject.clock.advance(TOMBSTONE_US - 1)
        assert await subject.store.add([new_task(name="a")]) == [TOMBSTONED]
        subject.clock.advance(1)
        assert await subject.store.add([new_task(name="a", task_id=9)]) == [ADDED]
        assert (await subject.claim_one()).id == 9

    @pytest.mark.parametrize("dead", [False, True])
    async def test_a_deleted_task_leaves_a_tombstone(self, subject: Subject, dead: bool) -> None:
        await subject.add(new_task(name="a", task_id=1))
        if dead:
            await subject.settle((await subject.claim_one()).lease, Die("retries", 500, ""))
        await subject.store.delete(1)
        assert await subject.store.add([new_task(name="a")]) == [TOMBSTONED]

    async def test_a_deleted_task_that_had_not_won_its_name_leaves_a_tombstone_too(self, subject: Subject) -> None:
        await subject.insert([new_task(name="a", task_id=1)])
        await subject.store.delete(1)
        assert await subject.store.add([new_task(name="a")]) == [TOMBSTONED]

    async def test_a_waiting_task_takes_its_name_before_it_has_won_it(self, subject: Subject) -> None:
        await subject.insert([new_task(name="a", task_id=1, countdown_us=99)])
        assert await subject.store.add([new_task(name="a")]) == [TAKEN]

    async def test_the_first_claimed_wins_the_name_and_the_other_is_a_duplicate(self, subject: Subject) -> None:
        await subject.insert([new_task(name="a", task_id=2, eta_us=2), new_task(name="a", task_id=1, eta_us=3)])
        assert [task.id for task in await subject.claim()] == [2]
        info = await subject.get(1)
        assert (info.state, info.dead_reason, info.attempt_count) == (State.DEAD, "duplicate", 0)
        assert info.owner is None
        assert await subject.store.next_due() is None

    async def test_the_winner_of_one_claim_is_kept_by_the_next(self, subject: Subject) -> None:
        await subject.insert([new_task(name="a", task_id=1), new_task(name="a", task_id=2)])
        assert [task.id for task in await subject.claim(1)] == [1]
        assert await subject.claim(1) == []
        assert (await subject.get(2)).dead_reason == "duplicate"

    async def test_a_retried_task_keeps_the_name_that_it_won(self, subject: Subject) -> None:
        await subject.insert([new_task(name="a", task_id=1)])
        await subject.settle((await subject.claim_one()).lease, Retry(0, 500, ""))
        assert (await subject.claim_one()).id == 1

    async def test_a_tombstone_makes_a_duplicate_an_expired_one_does_not(self, subject: Subject) -> None:
        await subject.add(new_task(name="a"))
        await subject.settle((await subject.claim_one()).lease, Complete())
        await subject.insert([new_task(name="a", task_id=11)])
        assert await subject.claim() == []
        assert (await subject.get(11)).dead_reason == "duplicate"
        subject.clock.advance(TOMBSTONE_US)
        await subject.insert([new_task(name="a", task_id=12)])
        assert [task.id for task in await subject.claim()] == [12]

    async def test_deleting_a_duplicate_leaves_the_name_to_its_holder(self, subject: Subject) -> None:
        await subject.insert([new_task(name="a", task_id=1), new_task(name="a", task_id=2)])
        await subject.claim()
        assert await subject.store.delete(2) is True
        subject.clock.advance(TOMBSTONE_US)
        assert await subject.store.prune() == 0
        assert await subject.store.add([new_task(name="a")]) == [TAKEN]

    async def test_a_duplicate_run_again_has_another_chance(self, subject: Subject) -> None:
        await subject.insert([new_task(name="a", task_id=1), new_task(name="a", task_id=2)])
        (winner,) = await subject.claim()
        await subject.store.run_again(2)
        assert await subject.claim() == []
        await subject.settle(winner.lease, Complete())
        subject.clock.advance(TOMBSTONE_US)
        await subject.store.run_again(2)
        assert [task.id for task in await subject.claim()] == [2]

    async def test_a_dead_duplicate_does_not_take_the_name(self, subject: Subject) -> None:
        await subject.insert([new_task(name="a", task_id=1), new_task(name="a", task_id=2)])
        (winner,) = await subject.claim()
        await subject.settle(winner.lease, Complete())
        subject.clock.advance(TOMBSTONE_US)
        assert await subject.store.add([new_task(name="a")]) == [ADDED]

    async def test_a_refused_settle_tombstones_nothing(self, subject: Subject) -> None:
        await subject.add(new_task(name="a"))
        task = await subject.claim_one()
        await subject.settle(task.lease._replace(fence=task.fence - 1), Complete())
        subject.clock.advance(TOMBSTONE_US)
        assert await subject.store.prune() == 0

    async def test_prune_removes_what_has_had_its_time_and_counts_it(self, subject: Subject) -> None:
        await subject.insert([new_task(name="a", task_id=1), new_task(name="a", task_id=2), new_task(task_id=3)])
        winner, unnamed = await subject.claim()
        await subject.settle(winner.lease, Complete())
        await subject.settle(unnamed.lease, Die("retries", 500, ""))
        subject.clock.advance(TOMBSTONE_US - 1)
        assert await subject.store.prune() == 0
        subject.clock.advance(1)
        assert await subject.store.prune() == 2
        assert await subject.store.prune() == 0
        assert [info.id for info in await subject.store.list_tasks()] == [3]

    async def test_prune_removes_more_than_one_transaction_may(self, subject: Subject) -> None:
        await subject.add(*[new_task(name=f"n{n}") for n in range(1100)])
        done = await subject.store.settle([Settlement(task.lease, Complete()) for task in await subject.claim(1100)])
        assert all(done)
        subject.clock.advance(TOMBSTONE_US)
        assert await subject.store.prune() == 1100
