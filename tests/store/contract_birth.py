"""What every store must do with a task that is to be leased as it is added."""

from dataclasses import replace

import pytest

from hookware.core.lifecycle import Complete, Release, Retry, State
from hookware.core.retry import RetryOptions
from hookware.core.task import Birth, Keys, LeasedTask, Lineage
from hookware.store.base import AddResult
from tests.store.subject import LEASE_US, START_US, Subject, new_task

FENCE = 1 << 20
OWN_RETRY = RetryOptions(task_retry_limit=3)


def birth(retry: RetryOptions | None = None) -> Birth:
    return Birth("me", LEASE_US, FENCE, retry)


async def born(subject: Subject, queue_name: str = "default") -> LeasedTask:
    """Add task 1 leased."""
    wish = birth()
    assert await subject.store.add([new_task(queue_name, task_id=1)], wish) == [AddResult.ADDED]
    assert wish.task is not None
    return wish.task


class BirthContract:
    @pytest.mark.parametrize("retry", [None, OWN_RETRY])
    async def test_a_born_task_is_what_a_claim_would_have_given(
        self, subject: Subject, retry: RetryOptions | None
    ) -> None:
        lineage = Lineage("POST /orders", parent_id=77, depth=2)
        given = new_task(
            task_id=1, url="/a?b", headers=(("x-a", "1"),), body=b"\0\xff", retry=retry, deadline_us=5, lineage=lineage
        )
        subject.clock.advance(7)
        await subject.add(replace(given, id=2))
        claimed = await subject.claim_one()
        wish = birth(claimed.retry)
        await subject.store.add([given], wish)
        assert wish.task is not None
        assert replace(wish.task, id=2, owner=claimed.owner, fence=1) == claimed
        one, other = await subject.get(1), await subject.get(2)
        assert replace(one, id=2) == other
        assert (one.state, one.owner, one.attempt_count) == (State.LEASED, "me", 1)

    async def test_nobody_else_claims_it_before_its_lease_ends(self, subject: Subject) -> None:
        task = await born(subject)
        assert (await subject.claim(), await subject.store.next_due()) == ([], None)
        subject.clock.advance(LEASE_US - 1)
        assert (await subject.store.expired(9), await subject.store.owners()) == ([], {"me": 1})
        assert await subject.renew(task.lease) == {1}
        subject.clock.advance(LEASE_US)
        (ended,) = await subject.store.expired(9)
        assert (ended.lease, ended.crash_count) == (task.lease, 0)
        assert await subject.settle(ended.lease, Retry(0, None, "gone", crashed=True)) is True
        again = await subject.claim_one()
        assert (again.fence, again.attempt_count, again.crash_count) == (FENCE + 1, 2, 1)
        assert await subject.settle(task.lease, Complete()) is False

    async def test_it_is_settled_like_any_other(self, subject: Subject) -> None:
        assert await subject.settle((await born(subject)).lease, Complete()) is True
        assert await subject.store.get(1) is None

    async def test_given_back_it_is_as_if_it_had_never_been_leased(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=2))
        await subject.settle((await born(subject)).lease, Release())
        one, other = await subject.get(1), await subject.get(2)
        assert replace(one, id=2) == other
        assert (one.eta_us, one.attempt_count) == (START_US, 0)
        assert sorted(task.id for task in await subject.claim()) == [1, 2]

    async def test_in_a_paused_queue_it_waits(self, subject: Subject) -> None:
        await subject.store.set_paused("mail", True)
        wish = birth()
        assert await subject.store.add([new_task("mail", task_id=1)], wish) == [AddResult.ADDED]
        assert (wish.task, await subject.claim(), (await subject.get(1)).state) == (None, [], State.PENDING)
        assert (await born_in(subject, "other", 2)) is not None, "another queue is none of its business"
        await subject.store.set_paused("mail", False)
        assert [task.id for task in await subject.claim()] == [1]
        assert (await born_in(subject, "mail", 3)) is not None

    async def test_what_an_earlier_try_had_leased_says_nothing(self, subject: Subject) -> None:
        wish = replace(birth(), task=await born(subject))  # its commit met a conflict, and the queue was paused then
        await subject.store.set_paused("mail", True)
        assert await subject.store.add([new_task("mail", task_id=2)], wish) == [AddResult.ADDED]
        assert (wish.task, (await subject.get(2)).state) == (None, State.PENDING)

    async def test_where_settings_are_overridden_it_is_claimed_by_them(self, subject: Subject) -> None:
        await subject.store.set_overrides("mail", {"max_concurrent_requests": 0})
        assert await born_in(subject, "mail", 1) is None
        assert await subject.claim() == []
        await subject.store.set_overrides("mail", {})
        assert await born_in(subject, "mail", 2) is not None

    async def test_a_born_task_counts_as_running(self, subject: Subject) -> None:
        await born_in(subject, "two-at-once", 1)
        await subject.add(*[new_task("two-at-once", task_id=n, keys=Keys()) for n in (2, 3)])
        assert [task.id for task in await subject.claim()] == [2]


async def born_in(subject: Subject, queue_name: str, task_id: int) -> LeasedTask | None:
    """Add a task that is to be leased, and give it if it is."""
    wish = birth()
    assert await subject.store.add([new_task(queue_name, task_id=task_id)], wish) == [AddResult.ADDED]
    return wish.task
