"""What every store must do with what is kept of attempts, and with where tasks come from."""

import pytest

from hookware.core.history import AttemptRecord
from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry
from hookware.core.queue import CRON_QUEUE
from hookware.core.task import Keys, Lease, Lineage
from hookware.store.base import Settlement
from tests.store.subject import LEASE_US, SECOND_US, START_US, Subject, new_task, record

KEPT, DROPPED, DEAD_FOR_AWHILE = "kept-a-minute", "dead-at-once", "dead-a-minute"
RETRY, DIE = Retry(0, 503, "busy"), Die("retries", 500, "no")


async def numbers(subject: Subject, task_id: int = 1) -> list[int]:
    return [each.number for each in await subject.store.attempts(task_id)]


async def failed(subject: Subject, count: int = 1) -> None:
    """Let attempts at the one task that is due fail, each leaving its record."""
    for _ in range(count):
        task = await subject.claim_one()
        assert await subject.settle(task.lease, RETRY, record(task.id, task.record_count + 1))


class AttemptsContract:
    async def test_a_record_is_kept_whole(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        kept = record(fence=7, owner="you", attempt_count=3, url="/worker?a=b", outcome="dead")
        assert await subject.settle((await subject.claim_one()).lease, DIE, kept)
        assert await subject.store.attempts(1) == [kept]

    async def test_the_emptiest_record_is_kept_too(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        bare = AttemptRecord(
            task_id=1, number=1, attempt_count=1, fence=1, owner=None, method="PUT", url="/", began_us=None, ended_us=0,
            outcome="crashed",
        )  # fmt: skip
        assert await subject.settle((await subject.claim_one()).lease, Retry(0, None, "", crashed=True), bare)
        assert await subject.store.attempts(1) == [bare]
        assert bare.duration_us is None

    async def test_texts_can_always_be_stored_and_are_bounded(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        odd = record(error="a\0b\udc80" + "x" * 5000, response_text="\0ü\ud800", response_headers=(("a", "\0\xff"),))
        await subject.settle((await subject.claim_one()).lease, RETRY, odd)
        (kept,) = await subject.store.attempts(1)
        assert (kept.error, kept.response_text) == ("ab?" + "x" * 4093, "ü?")
        assert kept.response_headers == (("a", "\0\xff"),)

    async def test_each_record_is_counted_and_the_next_claim_knows(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        for count in range(3):
            task = await subject.claim_one()
            assert task.record_count == count
            await subject.settle(task.lease, RETRY, record(number=count + 1))
        assert [each.error for each in await subject.store.attempts(1)] == ["busy 1", "busy 2", "busy 3"]

    async def test_without_a_record_nothing_is_counted_or_kept(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        await failed(subject)
        for decision in (RETRY, Release(), RETRY):
            await subject.settle((await subject.claim_one()).lease, decision)
        assert ((await subject.claim_one()).record_count, await numbers(subject)) == (1, [1])

    async def test_what_is_given_back_is_counted_where_it_leaves_a_record(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1), new_task(task_id=2), new_task(task_id=3))
        one, two, three = sorted(await subject.claim(), key=lambda task: task.id)
        back = record(outcome="given back", status=None, error=None)
        settlements = [
            Settlement(one.lease, Release(5), record=back),
            Settlement(two.lease, Release(5)),
            Settlement(Lease(3, three.fence + 1), Release(5), record=record(3)),
        ]
        assert await subject.store.settle(settlements) == [True, True, False]
        assert [await subject.store.attempts(i) for i in (1, 2, 3)] == [[back], [], []]
        subject.clock.advance(SECOND_US)
        again = {task.id: task for task in await subject.claim()}
        assert [again[i].record_count for i in (1, 2)] == [1, 0]
        assert [again[i].attempt_count for i in (1, 2)] == [1, 1]

    @pytest.mark.parametrize("decision", [RETRY, DIE, Release(), Complete()], ids=lambda each: type(each).__name__)
    async def test_a_stale_fence_leaves_no_record_and_takes_none(self, subject: Subject, decision: Decision) -> None:
        await subject.add(new_task(KEPT, task_id=1))
        await failed(subject)
        task = await subject.claim_one()
        stale = Lease(1, task.fence - 1)
        assert await subject.settle(stale, decision, record(number=2), has_history=True) is False
        assert await numbers(subject) == [1]

    async def test_whoever_finds_a_renewed_lease_leaves_no_record(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        lease = (await subject.claim_one()).lease
        subject.clock.advance(LEASE_US)
        (found,) = await subject.store.expired(9)
        assert (found.owner, found.record_count) == ("me", 0)
        await subject.renew(lease)
        taking_back = Settlement(lease, RETRY, found.lease_until_us, record())
        assert await subject.store.settle([taking_back]) == [False]
        assert await numbers(subject) == []

    async def test_of_very_many_the_first_and_the_last_ones_are_kept(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        await failed(subject, 20)
        assert await numbers(subject) == [*range(1, 21)]
        await failed(subject, 7)
        assert await numbers(subject) == [*range(1, 11), *range(18, 28)]

    async def test_many_tasks_leave_theirs_in_one_settle(self, subject: Subject) -> None:
        await subject.add(*[new_task(task_id=n) for n in range(1, 61)])
        tasks = await subject.claim(60)
        kinds: list[Decision] = [RETRY, DIE, Release()]
        settlements = [Settlement(t.lease, kinds[t.id % 3], record=record(t.id)) for t in tasks]
        assert await subject.store.settle(settlements) == [True] * 60
        assert [await numbers(subject, n) for n in range(1, 61)] == [[1]] * 60

    async def test_of_two_decisions_for_one_lease_the_first_ones_record_is_kept(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        lease = (await subject.claim_one()).lease
        both = [Settlement(lease, RETRY, record=record(error=text)) for text in ("first", "second")]
        assert await subject.store.settle(both) == [True, False]
        assert [each.error for each in await subject.store.attempts(1)] == ["first"]

    async def test_run_again_by_hand_it_keeps_its_history(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        await failed(subject)
        await subject.settle((await subject.claim_one()).lease, DIE, record(number=2, outcome="dead"))
        assert await subject.store.run_again(1)
        task = await subject.claim_one()
        assert (task.attempt_count, task.record_count, await numbers(subject)) == (1, 2, [1, 2])


class GoneContract:
    async def test_a_completed_task_takes_its_history_along(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1), new_task(task_id=2))
        for task in await subject.claim():
            await subject.settle(task.lease, RETRY, record(task.id))
        tasks = {task.id: task for task in await subject.claim()}
        settlements = [Settlement(tasks[1].lease, Complete(), has_history=True), Settlement(tasks[2].lease, RETRY)]
        assert await subject.store.settle(settlements) == [True, True]
        assert [await numbers(subject, i) for i in (1, 2)] == [[], [1]]

    async def test_a_completed_task_that_is_kept_keeps_it_and_adds_its_own(self, subject: Subject) -> None:
        await subject.add(new_task(KEPT, task_id=1))
        await failed(subject)
        done = record(number=2, outcome="completed", status=200, error=None)
        assert await subject.settle((await subject.claim_one()).lease, Complete(), done, has_history=True)
        assert [each.outcome for each in await subject.store.attempts(1)] == ["retry", "completed"]
        subject.clock.advance(60 * SECOND_US)
        assert (await subject.store.prune(), await numbers(subject)) == (1, [])

    async def test_a_completed_task_that_is_not_kept_leaves_no_record(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        assert await subject.settle((await subject.claim_one()).lease, Complete(), record(outcome="completed"))
        assert await numbers(subject) == []

    async def test_a_dead_task_that_is_not_kept_leaves_nothing(self, subject: Subject) -> None:
        await subject.add(new_task(DROPPED, task_id=1))
        await failed(subject)
        assert await subject.settle((await subject.claim_one()).lease, DIE, record(number=2, outcome="dead"))
        assert await numbers(subject) == []

    async def test_a_dead_task_takes_it_along_when_its_time_is_over(self, subject: Subject) -> None:
        await subject.add(new_task(DEAD_FOR_AWHILE, task_id=1))
        assert await subject.settle((await subject.claim_one()).lease, DIE, record(outcome="dead"))
        subject.clock.advance(60 * SECOND_US)
        assert (await subject.store.prune(), await numbers(subject)) == (1, [])

    @pytest.mark.parametrize("by", ["delete", "cancel"])
    async def test_who_removes_a_task_removes_its_history(self, subject: Subject, by: str) -> None:
        await subject.add(new_task(task_id=1))
        await failed(subject)
        assert await (subject.store.delete(1) if by == "delete" else subject.store.cancel(1))
        assert await numbers(subject) == []

    async def test_a_running_task_that_is_called_off_keeps_it_where_the_dead_are_kept(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1), new_task(DROPPED, task_id=2))
        for task in await subject.claim():
            await subject.settle(task.lease, RETRY, record(task.id))
        await subject.claim()
        assert [await subject.store.cancel(task_id) for task_id in (1, 2)] == [True, True]
        assert [await numbers(subject, i) for i in (1, 2)] == [[1], []]

    async def test_a_refused_delete_takes_nothing(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1))
        await failed(subject)
        await subject.claim_one()
        assert await subject.store.delete(1) is False
        assert await numbers(subject) == [1]

    async def test_a_task_that_gives_way_to_another_takes_it_along(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1, keys=Keys(dedup_key="k")))
        await failed(subject)
        await subject.add(new_task(task_id=2, keys=Keys(dedup_key="k", on_conflict="replace")))
        assert [task.id for task in await subject.claim()] == [2]
        assert await numbers(subject) == []


class LineageContract:
    @pytest.mark.parametrize("name", [None, "n"])
    async def test_where_a_task_comes_from_is_kept(self, subject: Subject, name: str | None) -> None:
        given = [
            new_task(name=name, task_id=1, lineage=Lineage("POST /orders")),
            new_task(task_id=2),
            new_task(CRON_QUEUE, task_id=3, lineage=Lineage("POST /worker", 1, 1)),
        ]
        await subject.add(*given)
        infos = [await subject.get(task_id) for task_id in (1, 2, 3)]
        assert [(info.origin, info.parent_id, info.depth) for info in infos] == [
            ("POST /orders", None, 0), (None, None, 0), ("POST /worker", 1, 1),
        ]  # fmt: skip
        assert [task.depth for task in sorted(await subject.claim(), key=lambda task: task.id)] == [0, 0, 1]

    async def test_the_children_of_a_task_are_those_that_are_there(self, subject: Subject) -> None:
        child, grandchild = Lineage("POST /worker", 1, 1), Lineage("POST /worker", 2, 2)
        lineages = {2: child, 3: child, 4: grandchild, 5: child}
        await subject.add(new_task(task_id=1))
        await subject.insert([new_task(task_id=n, lineage=each, eta_us=START_US - n) for n, each in lineages.items()])
        assert [info.id for info in await subject.store.children(1)] == [2, 3, 5]
        assert [info.id for info in await subject.store.children(1, 2)] == [2, 3]
        assert await subject.store.children(1, 0) == await subject.store.children(1, -1) == []
        assert [info.id for info in await subject.store.children(2)] == [4]
        assert await subject.store.delete(3)
        assert [info.id for info in await subject.store.children(1)] == [2, 5]


class HistoryContract(AttemptsContract, GoneContract, LineageContract):
    """All of it."""
