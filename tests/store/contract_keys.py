"""Tasks with keys where it matters who comes first: nothing that may begin waits behind what may not."""

from collections import Counter

from hookware.core.lifecycle import Complete
from hookware.core.task import Keys, LeasedTask
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
