"""Tasks with keys where it matters who comes first: nothing that may begin waits behind what may not, or is lost."""

from collections import Counter

import pytest

from hookware.core.lifecycle import Complete, State
from hookware.core.task import Keys, LeasedTask
from hookware.store.base import AddResult
from tests.store.subject import Subject, new_task

MANY = 60
"""More than a claim of one task looks at by age alone."""


async def limit_keys(subject: Subject, *tasks: LeasedTask) -> list[str | None]:
    return [(await subject.get(task.id)).limit_key for task in tasks]


class NothingHiddenContract:
    async def test_a_free_fair_key_is_found_behind_many_that_are_held_back(self, subject: Subject) -> None:
        names = [f"t{n:03}" for n in range(80)]
        await subject.add(*[new_task(eta_us=1, keys=Keys(fair_key="t000", limit_key="t000")) for _ in range(MANY)])
        await subject.add(*[new_task(eta_us=2, keys=Keys(fair_key=name, limit_key=name)) for name in names * 2])
        running = dict(zip(await limit_keys(subject, *(some := await subject.claim(80))), some, strict=True))
        assert sorted(filter(None, running)) == names
        assert await subject.claim(1) == []
        await subject.settle(running["t040"].lease, Complete())
        assert await limit_keys(subject, await subject.claim_one()) == ["t040"]

    async def test_a_free_limit_key_is_found_behind_many_that_are_held_back(self, subject: Subject) -> None:
        names = [f"l{n:03}" for n in range(80)]
        await subject.add(*[new_task(eta_us=1, keys=Keys(limit_key="l000")) for _ in range(MANY)])
        await subject.add(*[new_task(eta_us=2, keys=Keys(limit_key=name)) for name in names * 2])
        running = dict(zip(await limit_keys(subject, *(some := await subject.claim(80))), some, strict=True))
        assert sorted(filter(None, running)) == names
        await subject.settle(running["l070"].lease, Complete())
        assert await limit_keys(subject, await subject.claim_one()) == ["l070"]

    async def test_limit_keys_take_turns_behind_one_that_is_held_back(self, subject: Subject) -> None:
        await subject.add(*[new_task(eta_us=1, keys=Keys(limit_key="z")) for _ in range(MANY)])
        await subject.claim_one()
        began: Counter[str | None] = Counter()
        for _ in range(9):  # as many as end are added anew: there are always some of each
            await subject.add(*[new_task(eta_us=2, keys=Keys(limit_key=name)) for name in "abc"])
            task = await subject.claim_one()
            began.update(await limit_keys(subject, task))
            await subject.settle(task.lease, Complete())
        assert began.keys() == {"a", "b", "c"}

    async def test_plain_tasks_are_not_starved_by_an_older_one_with_keys_that_is_held_back(
        self, subject: Subject
    ) -> None:
        await subject.add(*[new_task(eta_us=1, keys=Keys(limit_key="a")) for _ in range(2)])
        await subject.claim_one()
        await subject.add(*[new_task(eta_us=2) for _ in range(9)])
        began: Counter[str | None] = Counter()
        for _ in range(8):
            await subject.add(new_task(eta_us=3, keys=Keys(limit_key="b")))
            task = await subject.claim_one()
            began.update(await limit_keys(subject, task))
            await subject.settle(task.lease, Complete())
        assert began == {"b": 4, None: 4}

    async def test_a_rate_and_a_limit_and_keys_all_hold(self, subject: Subject) -> None:
        await subject.add(*[new_task("both", keys=Keys(limit_key="a", fair_key=key)) for key in "xxxyyy"])
        await subject.add(new_task("both", keys=Keys(limit_key="b")))
        claimed = await subject.claimed()
        assert Counter(await limit_keys(subject, *claimed.tasks)) == {"a": 1, "b": 1}
        assert await subject.claim() == []

    async def test_where_the_limit_is_full_tokens_that_are_left_are_nothing_to_wait_for(self, subject: Subject) -> None:
        await subject.add(*[new_task("both") for _ in range(5)])
        claimed = await subject.claimed()
        assert (len(claimed.tasks), claimed.next_due_us, claimed.held_back) == (2, None, True)


class ClearedContract:
    async def test_what_will_never_run_is_put_aside_and_the_next_claim_is_worth_it(self, subject: Subject) -> None:
        await subject.insert([new_task(name="n", eta_us=1) for _ in range(5)])
        await subject.insert([new_task(task_id=10**6, eta_us=2)])
        assert [task.name for task in await subject.claim(2)] == ["n"]
        claimed = await subject.claimed(2)
        assert (claimed.tasks, claimed.next_due_us, claimed.cleared) == ([], 0, True)
        claimed = await subject.claimed(2)
        assert ([task.id for task in claimed.tasks], claimed.cleared) == ([10**6], True)
        assert (await subject.claimed(2)).cleared is False

    async def test_of_very_many_waiting_tasks_with_a_key_one_runs(self, subject: Subject) -> None:
        tasks = [new_task(keys=Keys(dedup_key="k")) for _ in range(2500)]
        await subject.insert(tasks)
        began: list[int] = []
        for _ in range(9):
            claimed = await subject.claimed(10)
            began += [task.id for task in claimed.tasks]
            if not claimed.cleared:
                break
        assert began == [tasks[0].id]
        assert len(await subject.store.list_tasks()) == 1

    async def test_of_very_many_waiting_tasks_with_a_key_the_last_one_runs_with_replace(self, subject: Subject) -> None:
        tasks = [new_task(keys=Keys(dedup_key="k", on_conflict="replace")) for _ in range(1500)]
        await subject.insert(tasks)
        began = [task.id for _ in range(4) for task in await subject.claim()]
        assert began == [tasks[-1].id]


SKIP, REPLACE = Keys(dedup_key="k"), Keys(dedup_key="k", on_conflict="replace")


class NamesAndKeysContract:
    @pytest.mark.parametrize(("keys", "runs"), [(SKIP, 1), (REPLACE, 2)])
    @pytest.mark.parametrize("limit", [1, 9])
    async def test_of_two_with_one_name_and_one_key_one_runs(
        self, subject: Subject, keys: Keys, runs: int, limit: int
    ) -> None:
        await subject.insert([new_task(name="n", task_id=i, keys=keys) for i in (1, 2)])
        began = [task.id for _ in range(3) for task in await subject.claim(limit)]
        assert began == [runs]
        assert [info.id for info in await subject.store.list_tasks()] == [runs]

    @pytest.mark.parametrize("limit", [1, 9])
    @pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
    async def test_none_gives_way_to_one_whose_name_is_taken(
        self, subject: Subject, limit: int, first: int, second: int
    ) -> None:
        await subject.add(new_task(name="used", task_id=9))
        await subject.settle((await subject.claim_one()).lease, Complete())
        named = new_task(name="used", task_id=first, keys=SKIP if first < second else REPLACE)
        await subject.insert([named, new_task(task_id=second, keys=SKIP)])
        began = [task.id for _ in range(3) for task in await subject.claim(limit)]
        assert began == [second]
        assert (await subject.get(first)).dead_reason == "duplicate"

    async def test_none_gives_way_to_one_that_loses_its_name_in_the_same_claim(self, subject: Subject) -> None:
        rival = new_task(name="n", task_id=1, eta_us=1, keys=Keys(fair_key="f"))
        keyed = [Keys(dedup_key="k", fair_key="f", on_conflict=how) for how in ("skip", "replace")]
        await subject.insert([rival, new_task(task_id=2, eta_us=2, keys=keyed[0])])
        await subject.insert([new_task(name="n", task_id=3, eta_us=3, keys=keyed[1])])
        assert [task.id for task in await subject.claim()] == [1, 2]
        assert (await subject.get(3)).dead_reason == "duplicate"

    async def test_one_that_others_gave_way_to_keeps_its_name_until_it_is_due(self, subject: Subject) -> None:
        await subject.insert([new_task(task_id=1, keys=REPLACE)])
        await subject.insert([new_task(name="n", task_id=2, countdown_us=9, keys=REPLACE)])
        assert await subject.claim() == []
        await subject.insert([new_task(name="n", task_id=3)])
        assert await subject.claim() == []
        subject.clock.advance(9)
        assert (await subject.claim_one()).id == 2
        assert (await subject.get(3)).dead_reason == "duplicate"

    async def test_one_that_is_not_due_and_whose_name_is_taken_takes_no_other_down(self, subject: Subject) -> None:
        await subject.add(new_task(name="used", task_id=1))
        await subject.claim_one()
        await subject.insert([new_task(task_id=2, keys=REPLACE)])
        await subject.insert([new_task(name="used", task_id=3, countdown_us=9, keys=REPLACE)])
        assert (await subject.claim_one()).id == 2
        assert (await subject.get(3)).state is State.DEAD

    async def test_the_name_of_one_that_gave_way_and_had_not_won_it_is_free(self, subject: Subject) -> None:
        await subject.insert([new_task(name=f"n{i}", task_id=i, keys=SKIP) for i in (1, 2)])
        assert [task.id for task in await subject.claim()] == [1]
        results = await subject.store.add([new_task(name="n1"), new_task(name="n2")])
        assert results == [AddResult.NAME_TAKEN, AddResult.ADDED]
