"""What the settings of queues do to claims: rates, limits, pauses, priorities, and settings at run time."""

from collections import Counter

from hookware.core.lifecycle import Complete, Decision, Release, Retry, State
from hookware.core.queue import MAX_PRIORITY
from hookware.core.retry import RetryOptions
from hookware.core.task import Keys, LeasedTask
from hookware.store.base import Settlement
from tests.store.contract_keys import ClearedContract, NamesAndKeysContract, NothingHiddenContract
from tests.store.subject import LEASE_US, SECOND_US, Subject, new_task


class LimitContract:
    async def test_no_more_run_at_once_than_the_queue_allows(self, subject: Subject) -> None:
        await subject.add(*[new_task("two-at-once") for _ in range(5)])
        first, _second = await subject.claim()
        assert await subject.claim() == []
        await subject.settle(first.lease, Complete())
        assert len(await subject.claim()) == 1
        assert await subject.claim() == []

    async def test_what_waits_for_a_running_one_is_not_due_and_said_to_be_held_back(self, subject: Subject) -> None:
        await subject.add(*[new_task("two-at-once") for _ in range(3)], new_task("other", countdown_us=7))
        claimed = await subject.claimed()
        assert (len(claimed.tasks), claimed.next_due_us, claimed.held_back) == (2, 7, True)
        assert await subject.store.next_due() == 7
        await subject.settle(claimed.tasks[0].lease, Complete())
        assert await subject.store.next_due() == 0
        claimed = await subject.claimed()
        assert (len(claimed.tasks), claimed.next_due_us, claimed.held_back) == (1, 7, False)

    async def test_an_ended_lease_counts_no_more(self, subject: Subject) -> None:
        await subject.add(*[new_task("two-at-once") for _ in range(4)])
        lost, kept = await subject.claim()
        subject.clock.advance(LEASE_US - 1)
        await subject.renew(kept.lease)
        assert await subject.claim() == []
        subject.clock.advance(1)
        assert len(await subject.claim()) == 1
        assert (await subject.get(lost.id)).state is State.LEASED

    async def test_a_full_queue_delays_no_other_and_takes_no_slot(self, subject: Subject) -> None:
        await subject.add(*[new_task("two-at-once") for _ in range(50)], *[new_task("other") for _ in range(9)])
        counts = Counter(task.queue_name for task in await subject.claim(10))
        assert counts == {"two-at-once": 2, "other": 8}
        assert [task.queue_name for task in await subject.claim(10)] == ["other"]

    async def test_a_queue_from_which_nothing_may_begin_takes_no_turn(self, subject: Subject) -> None:
        """Else a claim of one slot would be in vain, again and again, as long as that queue's turn lasts."""
        await subject.add(*[new_task("two-at-once") for _ in range(4)])
        assert len(await subject.claim()) == 2
        held = Keys(limit_key="k")
        await subject.add(*[new_task(name, keys=held) for name in ("a", "z") for _ in range(2)])
        assert len(await subject.claim()) == 2
        await subject.add(*[new_task("stopped") for _ in range(3)], *[new_task("m") for _ in range(3)])
        for _ in range(3):
            assert [task.queue_name for task in await subject.claim(1)] == ["m"]
        assert await subject.claim(1) == []


DAY_US = 86_400 * SECOND_US


class RateContract:
    async def test_a_bucket_is_emptied_and_then_refilled_at_the_rate(self, subject: Subject) -> None:
        await subject.add(*[new_task("one-a-second") for _ in range(9)])
        assert len(await subject.claim()) == 3
        assert await subject.claim() == []
        subject.clock.advance(SECOND_US - 1)
        assert await subject.claim() == []
        subject.clock.advance(1)
        assert len(await subject.claim()) == 1
        subject.clock.advance(100 * SECOND_US)
        assert len(await subject.claim()) == 3, "a bucket holds no more than its size"

    async def test_a_clock_that_was_a_day_ahead_and_is_set_back_stops_no_queue(self, subject: Subject) -> None:
        subject.clock.advance(DAY_US)
        await subject.add(*[new_task("one-a-second") for _ in range(9)])
        assert len(await subject.claim()) == 3
        subject.clock.advance(-DAY_US)
        await subject.add(*[new_task("one-a-second") for _ in range(9)])
        assert len(await subject.claim()) == 1
        assert await subject.store.next_due() == SECOND_US
        subject.clock.advance(SECOND_US)
        assert len(await subject.claim()) == 1

    async def test_an_empty_bucket_says_when_it_has_a_token(self, subject: Subject) -> None:
        await subject.add(*[new_task("one-a-second") for _ in range(5)], new_task("other", countdown_us=2 * SECOND_US))
        claimed = await subject.claimed()
        assert (len(claimed.tasks), claimed.next_due_us, claimed.held_back) == (3, SECOND_US, False)
        subject.clock.advance(SECOND_US // 4)
        assert await subject.store.next_due() == SECOND_US * 3 // 4

    async def test_retries_and_tasks_given_back_take_tokens_too(self, subject: Subject) -> None:
        await subject.add(*[new_task("one-a-second") for _ in range(3)])
        first, second, third = await subject.claim()
        decisions: list[tuple[LeasedTask, Decision]] = [
            (first, Retry(0, 500, "no")),
            (second, Release()),
            (third, Complete()),
        ]
        await subject.store.settle([Settlement(task.lease, decision) for task, decision in decisions])
        assert await subject.claim() == []
        subject.clock.advance(SECOND_US)
        assert len(await subject.claim()) == 1

    async def test_a_clock_that_goes_back_mints_nothing(self, subject: Subject) -> None:
        await subject.add(*[new_task("one-a-second", eta_us=0) for _ in range(9)])
        assert len(await subject.claim()) == 3
        subject.clock.advance(-50 * SECOND_US)
        assert await subject.claim() == []
        subject.clock.advance(50 * SECOND_US)
        assert await subject.claim() == []
        subject.clock.advance(SECOND_US)
        assert len(await subject.claim()) == 1

    async def test_a_rate_of_zero_stops_a_queue(self, subject: Subject) -> None:
        await subject.add(new_task("stopped"), new_task("other"))
        assert [task.queue_name for task in await subject.claim()] == ["other"]
        subject.clock.advance(10**6 * SECOND_US)
        assert await subject.store.next_due() is None

    async def test_of_a_rate_and_a_limit_the_lower_one_counts(self, subject: Subject) -> None:
        await subject.add(*[new_task("both") for _ in range(9)])
        one, other = await subject.claim()
        await subject.store.settle([Settlement(task.lease, Complete()) for task in (one, other)])
        assert len(await subject.claim()) == 1
        assert await subject.claim() == []


class PauseContract:
    async def test_a_paused_queue_waits_and_delays_no_other(self, subject: Subject) -> None:
        await subject.add(*[new_task("a") for _ in range(3)], new_task("b"))
        await subject.store.set_paused("a", True)
        assert [task.queue_name for task in await subject.claim()] == ["b"]
        assert await subject.store.next_due() is None
        await subject.store.set_paused("a", False)
        assert await subject.store.next_due() == 0
        assert len(await subject.claim()) == 3

    async def test_what_runs_is_not_touched_by_a_pause(self, subject: Subject) -> None:
        await subject.add(new_task("a"))
        task = await subject.claim_one()
        await subject.store.set_paused("a", True)
        assert await subject.renew(task.lease) == {task.id}
        assert await subject.settle(task.lease, Complete()) is True


class OverridesContract:
    async def test_settings_at_run_time_win_and_can_be_undone(self, subject: Subject) -> None:
        await subject.add(*[new_task("two-at-once") for _ in range(9)])
        await subject.store.set_overrides("two-at-once", {"max_concurrent_requests": 5})
        assert len(await subject.claim()) == 5
        await subject.store.set_overrides("two-at-once", {"max_concurrent_requests": None})
        assert len(await subject.claim(2)) == 2
        await subject.store.set_overrides("two-at-once", {})
        assert await subject.claim() == []

    async def test_a_rate_at_run_time(self, subject: Subject) -> None:
        await subject.add(*[new_task("plain") for _ in range(9)])
        await subject.store.set_overrides("plain", {"rate": 2.0, "bucket_size": 1})
        assert len(await subject.claim()) == 1
        subject.clock.advance(SECOND_US // 2)
        assert len(await subject.claim()) == 1

    async def test_a_pause_and_settings_do_not_undo_each_other(self, subject: Subject) -> None:
        await subject.add(*[new_task("two-at-once") for _ in range(9)])
        await subject.store.set_overrides("two-at-once", {"max_concurrent_requests": 3})
        await subject.store.set_paused("two-at-once", True)
        assert await subject.claim() == []
        await subject.store.set_paused("two-at-once", False)
        assert len(await subject.claim()) == 3

    async def test_a_task_without_retry_options_has_its_queues(self, subject: Subject) -> None:
        own = RetryOptions(min_backoff_seconds=5)
        await subject.add(new_task("seven-retries", eta_us=1), new_task("seven-retries", retry=own, eta_us=2))
        queues, tasks = await subject.claim()
        assert queues.retry == RetryOptions(task_retry_limit=7)
        assert tasks.retry == own, "a task's own options replace its queue's as a whole"
        await subject.store.set_overrides("seven-retries", {"retry": RetryOptions(task_retry_limit=1)})
        await subject.add(new_task("seven-retries"))
        assert (await subject.claim_one()).retry == RetryOptions(task_retry_limit=1)


class PriorityContract:
    async def test_the_higher_priority_begins_first_whatever_the_eta(self, subject: Subject) -> None:
        wanted = {1: 0, 2: 5, 3: -MAX_PRIORITY, 4: MAX_PRIORITY, 5: 5, 6: 0}
        tasks = [new_task(task_id=n, eta_us=n, keys=Keys(priority=priority)) for n, priority in wanted.items()]
        await subject.add(*tasks)
        assert [(await subject.claim_one()).id for _ in wanted] == [4, 2, 5, 1, 6, 3]

    async def test_only_among_due_tasks(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1), new_task(task_id=2, countdown_us=5, keys=Keys(priority=9)))
        claimed = await subject.claimed()
        assert ([task.id for task in claimed.tasks], claimed.next_due_us) == ([1], 5)

    async def test_only_within_a_queue(self, subject: Subject) -> None:
        await subject.add(*[new_task("high", keys=Keys(priority=9)) for _ in range(10)], *[new_task("low")] * 1)
        assert Counter(task.queue_name for task in await subject.claim(5)) == {"high": 4, "low": 1}

    async def test_a_priority_survives_a_retry(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1, keys=Keys(priority=-1)), new_task(task_id=2, keys=Keys(priority=1)))
        task = await subject.claim_one()
        await subject.settle(task.lease, Retry(0, 500, "no"))
        assert (await subject.claim_one()).id == task.id == 2
        assert (await subject.get(2)).priority == 1


class KeysContract:
    async def test_no_more_run_of_a_limit_key_than_the_queue_says(self, subject: Subject) -> None:
        await subject.add(*[new_task("two-of-a-key", keys=Keys(limit_key=key)) for key in "aaaabbc"])
        claimed = await subject.claimed()
        assert len(claimed.tasks) == 5
        assert claimed.held_back is True
        infos = [await subject.get(task.id) for task in claimed.tasks]
        assert Counter(info.limit_key for info in infos) == {"a": 2, "b": 2, "c": 1}
        assert await subject.claim() == []
        (a, *_rest) = [task for task, info in zip(claimed.tasks, infos, strict=True) if info.limit_key == "a"]
        await subject.settle(a.lease, Complete())
        assert len(await subject.claim()) == 1

    async def test_a_key_that_is_held_back_is_not_due(self, subject: Subject) -> None:
        await subject.add(*[new_task(keys=Keys(limit_key="a")) for _ in range(3)], new_task("other", countdown_us=7))
        claimed = await subject.claimed()
        assert (len(claimed.tasks), claimed.next_due_us, claimed.held_back) == (1, 7, True)

    async def test_a_limit_key_counts_within_its_queue(self, subject: Subject) -> None:
        await subject.add(*[new_task(name, keys=Keys(limit_key="a")) for name in ("q1", "q2", "q1", "q2")])
        assert Counter(task.queue_name for task in await subject.claim()) == {"q1": 1, "q2": 1}

    async def test_fair_keys_take_turns_whoever_came_first(self, subject: Subject) -> None:
        await subject.add(*[new_task(eta_us=1, keys=Keys(fair_key="many")) for _ in range(300)])
        few = [new_task(eta_us=2, keys=Keys(fair_key="few")) for _ in range(10)]
        await subject.add(*few)
        began = [task.id for _ in range(20) for task in await subject.claim(1)]
        assert {task.id for task in few} <= set(began)

    async def test_fair_keys_take_turns_in_one_claim_and_the_turn_goes_on_in_the_next(self, subject: Subject) -> None:
        for key in "abcd":
            await subject.add(*[new_task(keys=Keys(fair_key=key)) for _ in range(60)])
        keys = [(await subject.get(task.id)).fair_key for _ in range(10) for task in await subject.claim(6)]
        assert Counter(keys) == dict.fromkeys("abcd", 15)

    async def test_a_key_with_many_due_tasks_that_may_not_begin_hides_no_other(self, subject: Subject) -> None:
        await subject.add(*[new_task(eta_us=1, keys=Keys(limit_key="full", fair_key="x")) for _ in range(300)])
        await subject.add(new_task(task_id=10**6, eta_us=2, keys=Keys(limit_key="free", fair_key="x")))
        began = [task.id for _ in range(3) for task in await subject.claim(1)]
        assert len(began) == 2
        assert 10**6 in began

    async def test_plain_tasks_and_those_with_keys_share_a_queue(self, subject: Subject) -> None:
        await subject.add(*[new_task(eta_us=1) for _ in range(20)])
        await subject.add(*[new_task(eta_us=2, keys=Keys(fair_key="a")) for _ in range(20)])
        infos = [await subject.get(task.id) for task in await subject.claim(10)]
        assert Counter(info.fair_key for info in infos) == {None: 5, "a": 5}


class DedupContract:
    async def test_of_waiting_tasks_with_a_key_the_first_one_runs(self, subject: Subject) -> None:
        keys = Keys(dedup_key="k")
        await subject.add(*[new_task(task_id=n, keys=keys) for n in (1, 2, 3)], new_task("other", task_id=4, keys=keys))
        assert {task.id for task in await subject.claim()} == {1, 4}
        assert [info.id for info in await subject.store.list_tasks()] == [1, 4]

    async def test_once_it_runs_the_next_one_waits(self, subject: Subject) -> None:
        await subject.add(new_task(task_id=1, keys=Keys(dedup_key="k")))
        await subject.claim_one()
        await subject.add(new_task(task_id=2, keys=Keys(dedup_key="k")))
        assert (await subject.claim_one()).id == 2

    async def test_a_later_one_takes_the_place_with_replace(self, subject: Subject) -> None:
        keys = Keys(dedup_key="k", on_conflict="replace")
        await subject.add(new_task(task_id=1, keys=keys), new_task(task_id=2, keys=keys))
        ids = [task.id for _ in range(2) for task in await subject.claim()]
        assert ids == [2]

    async def test_what_replaces_keeps_its_own_eta(self, subject: Subject) -> None:
        keys = Keys(dedup_key="k", on_conflict="replace")
        await subject.add(new_task(task_id=1, countdown_us=5, keys=keys))
        subject.clock.advance(4)
        await subject.add(new_task(task_id=2, countdown_us=5, keys=keys))
        subject.clock.advance(1)
        assert await subject.claim() == []
        assert [info.id for info in await subject.store.list_tasks()] == [2]
        subject.clock.advance(4)
        assert (await subject.claim_one()).id == 2

    async def test_the_name_of_one_that_gave_way_stays_taken(self, subject: Subject) -> None:
        keys = Keys(dedup_key="k")
        await subject.add(new_task(task_id=1, keys=keys), new_task(name="n", task_id=2, keys=keys))
        assert (await subject.claim_one()).id == 1
        assert [result.value for result in await subject.store.add([new_task(name="n")])] == ["name tombstoned"]


class QueueContract(
    LimitContract,
    RateContract,
    PauseContract,
    OverridesContract,
    PriorityContract,
    KeysContract,
    DedupContract,
    NothingHiddenContract,
    ClearedContract,
    NamesAndKeysContract,
):
    """All of it."""
