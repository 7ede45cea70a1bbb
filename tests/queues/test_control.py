"""Deleting, purging, pausing, settings at run time, running now, postponing; and which queues there are."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from hookware import Hookware, Queue, State, Task, TaskRetryOptions
from hookware.core.lifecycle import Complete, Die, Retry
from hookware.core.task import Keys
from hookware.store.base import Claim, Settlement
from hookware.store.sql.operation import Moment
from hookware.store.sql.queue_ops import PURGE_LIMIT, Purge
from hookware.taskqueue import (
    BadTaskStateError,
    DuplicateTaskNameError,
    InvalidEtaError,
    InvalidQueueError,
    InvalidQueueNameError,
    InvalidTaskError,
    InvalidTaskNameError,
    TombstonedTaskError,
    TooManyTasksError,
    UnknownQueueError,
)
from tests.databases import Database
from tests.queues.site import SECOND_US, TOMBSTONE_SECONDS, Site, pull, site_on
from tests.queues.sites import EVERY_SITE
from tests.store.subject import new_task, record

PUSH = Queue("push")


def push(name: str | None = None, **options: Any) -> Task:
    return Task(url="/w", name=name, **options)


async def fail(site: Site, count: int = 1) -> None:
    """Let the next tasks die."""
    claimed = await site.store.claim(Claim(owner="me", limit=count, lease_us=SECOND_US))
    await site.store.settle([Settlement(task.lease, Die("retries", 500, "no")) for task in claimed.tasks])


@EVERY_SITE
class TestDeleting:
    async def test_it_says_which_were_there(self, site: Site) -> None:
        await site.add("push", push("a"), push("b"))
        both = [Task(name="a"), Task(name="c")]
        assert await site.call(PUSH.delete_tasks, both) == both
        assert [task.was_deleted for task in both] == [True, False]
        assert [info.name for info in await site.stored()] == ["b"]

    async def test_by_name_it_gives_tasks(self, site: Site) -> None:
        await site.add("push", push("a"), push("b"))
        one = await site.call(PUSH.delete_tasks_by_name, "a")
        assert (one.name, one.was_deleted) == ("a", True)
        several = await site.call(PUSH.delete_tasks_by_name, iter(["a", "b", "never"]))
        assert [(task.name, task.was_deleted) for task in several] == [("a", False), ("b", True), ("never", False)]
        assert await site.stored() == []

    async def test_its_history_goes_with_it(self, site: Site) -> None:
        await site.add("push", push("a"), push("b"), push("c"))
        claimed = await site.store.claim(Claim(owner="me", limit=3, lease_us=SECOND_US))
        await site.store.settle([Settlement(t.lease, Retry(0, 500, "no"), record=record(t.id)) for t in claimed.tasks])
        ids = [task.id for task in claimed.tasks]
        await site.call(PUSH.delete_tasks_by_name, "a")
        assert [len(await site.store.attempts(i)) for i in ids] == [0, 1, 1]
        await site.call(PUSH.purge)
        assert [len(await site.store.attempts(i)) for i in ids] == [0, 0, 0]

    async def test_the_name_of_a_deleted_task_stays_taken_for_a_while(self, site: Site) -> None:
        await site.add("push", push("a"))
        await site.call(PUSH.delete_tasks_by_name, "a")
        with pytest.raises(TombstonedTaskError):
            await site.add("push", push("a"))
        await site.add("other", push("a"))
        site.wait(TOMBSTONE_SECONDS)
        await site.add("push", push("a"))

    async def test_an_unnamed_task_is_deleted_by_the_name_it_was_given(self, site: Site) -> None:
        [task, other] = await site.add("push", push(), push())
        assert (await site.call(PUSH.delete_tasks, task)).was_deleted
        assert [info.id for info in await site.stored()] == [other.id]
        assert not (await site.call(Queue("other").delete_tasks_by_name, other.name)).was_deleted

    async def test_a_running_task_goes_and_its_result_is_refused(self, site: Site) -> None:
        await site.add("push", push("a"))
        claimed = await site.store.claim(Claim(owner="me", limit=1, lease_us=SECOND_US))
        assert (await site.call(PUSH.delete_tasks_by_name, "a")).was_deleted
        assert await site.store.settle([Settlement(claimed.tasks[0].lease, Complete())]) == [False]
        with pytest.raises(TombstonedTaskError):
            await site.add("push", push("a"))

    async def test_a_dead_task_goes_too(self, site: Site) -> None:
        await site.add("push", push("a"))
        await fail(site)
        assert (await site.call(PUSH.delete_tasks_by_name, "a")).was_deleted
        assert await site.stored() == []

    async def test_all_that_wait_for_one_name_go(self, site: Site) -> None:
        tasks = [new_task("push", "a") for _ in range(3)]
        for task in tasks:  # as in transactions of their own, which cannot know of each other
            await site.store.add([task])
            await site.outbox.runner.run(lambda c: c.exec_driver_sql("DELETE FROM hookware_name"))
            await site.outbox.runner.run(lambda c: c.exec_driver_sql("UPDATE hookware_task SET name = 'b'"))
        await site.outbox.runner.run(lambda c: c.exec_driver_sql("UPDATE hookware_task SET name = 'a'"))
        assert (await site.call(PUSH.delete_tasks_by_name, "a")).was_deleted
        assert await site.stored() == []

    async def test_nothing_to_delete_is_nothing(self, site: Site) -> None:
        assert await site.call(PUSH.delete_tasks, []) == []
        assert await site.call(PUSH.delete_tasks_by_name, []) == []


async def test_what_cannot_be_deleted_is_refused_and_nothing_is(site: Site) -> None:
    await site.add("push", push("a"), push("b"))
    task = await site.call(PUSH.delete_tasks_by_name, "b")
    for tasks, error in (
        ([Task(name="a"), push()], BadTaskStateError),
        ([Task(name="a"), task], BadTaskStateError),
        ([Task(name="a"), Task(name="a")], DuplicateTaskNameError),
        ([Task(name=f"n{n}") for n in range(1001)], TooManyTasksError),
        ("a", TypeError),
        ([Task(name="a"), "b"], TypeError),
    ):
        with pytest.raises(error):
            await site.call(PUSH.delete_tasks, tasks)
    for names, refusal in (
        ("", BadTaskStateError),
        ("a b", InvalidTaskNameError),
        (["a", "a"], DuplicateTaskNameError),
    ):
        with pytest.raises(refusal):
            await site.call(PUSH.delete_tasks_by_name, names)
    assert [info.name for info in await site.stored()] == ["a"]


@EVERY_SITE
class TestPurging:
    async def test_all_of_the_queue_goes_and_nothing_of_others(self, site: Site) -> None:
        names = ("push", "push-2", "push0", "pushy", "pus")
        for name in names:
            tasks = [new_task(name, keys=Keys(priority=p, fair_key=key)) for p in (-3, 0, 9) for key in (None, "k")]
            await site.store.add([*tasks, new_task(name, countdown_us=SECOND_US), new_task(name), new_task(name)])
        await fail(site, 5)
        await site.claim(5)
        assert await site.call(PUSH.purge) is None
        left = Counter(info.queue_name for info in await site.stored())
        assert left == dict.fromkeys(names[1:], 9)

    async def test_waiting_running_and_dead_tasks_go(self, site: Site) -> None:
        await site.add("push", push("dead"), push("running"), push("waiting"))
        await fail(site)
        [running] = (await site.store.claim(Claim(owner="me", limit=1, lease_us=SECOND_US))).tasks
        await site.call(PUSH.purge)
        assert await site.stored() == []
        assert await site.store.settle([Settlement(running.lease, Complete())]) == [False]

    async def test_names_stay_taken(self, site: Site) -> None:
        await site.add("push", push("a"))
        await site.call(PUSH.purge)
        with pytest.raises(TombstonedTaskError):
            await site.add("push", push("a"))

    async def test_a_pull_queue_is_purged_of_leased_tasks_too(self, site: Site) -> None:
        await site.add("pull", pull("leased"), pull("waits", countdown=9))
        site.wait(1)
        assert len(await site.lease()) == 1
        await site.call(Queue("pull").purge)
        assert await site.stored() == []

    async def test_what_is_kept_of_finished_tasks_stays(self, site: Site) -> None:
        await site.add("push", push(), push())
        await site.outbox.runner.run(
            lambda c: c.exec_driver_sql(
                "UPDATE hookware_task SET state = 3 WHERE id = (SELECT min(id) FROM hookware_task)"
            )
        )
        await site.call(PUSH.purge)
        assert [info.state for info in await site.stored()] == [State.COMPLETED]


@pytest.mark.slow
@EVERY_SITE
async def test_a_purge_of_many_goes_on_until_all_are_gone(site: Site) -> None:
    await site.store.add([new_task("push") for _ in range(PURGE_LIMIT * 2 + 1)])
    await site.store.add([new_task("other")])
    await site.call(PUSH.purge)
    assert [info.queue_name for info in await site.stored()] == ["other"]


async def test_a_purge_leaves_what_came_after_its_begin(site: Site) -> None:
    purge, config = Purge("push"), site.hookware.config

    async def step() -> bool:
        moment = Moment(site.now_us, site.now_us, config.queue)
        return await site.outbox.runner.run(lambda c: purge(c, moment))

    await site.add("push", push("before"))
    assert await step()
    site.wait(us=1)
    await site.add("push", push("after"))
    assert not await step()
    assert [info.name for info in await site.stored()] == ["after"]


@EVERY_SITE
class TestPausing:
    async def test_a_paused_queue_waits_takes_tasks_and_goes_on(self, site: Site) -> None:
        assert not await site.is_paused(PUSH)
        await site.call(PUSH.pause)
        await site.add("push", push())
        assert await site.is_paused(PUSH)
        assert await site.claim() == []
        assert not await site.is_paused(Queue("other"))
        before = site.changes
        await site.call(PUSH.resume)
        assert site.changes == before + 1, "whoever runs tasks is woken"
        assert not await site.is_paused(PUSH)
        assert len(await site.claim()) == 1


@EVERY_SITE
class TestSettings:
    async def test_they_hold_until_they_are_reset(self, site: Site) -> None:
        await site.add("push", *[push() for _ in range(20)])
        await site.call(PUSH.update, max_concurrent_requests=3)
        assert len(await site.claim(20)) == 3
        await site.call(PUSH.update, rate="2/s", bucket_size=2)
        assert len(await site.claim(20)) == 0, "what was changed before stays changed"
        await site.call(PUSH.update, max_concurrent_requests=None)
        assert len(await site.claim(20)) == 2
        before = site.changes
        await site.call(PUSH.reset)
        assert site.changes == before + 1
        assert len(await site.claim(20)) == 15

    async def test_retry_parameters_replace_the_configured_ones(self, site: Site) -> None:
        async def limit() -> int | None:
            await site.add("push", push())
            [task] = (await site.store.claim(Claim(owner="me", limit=1, lease_us=SECOND_US))).tasks
            return None if task.retry is None else task.retry.task_retry_limit

        assert await limit() == 7
        await site.call(PUSH.update, retry_parameters=TaskRetryOptions(task_retry_limit=1))
        assert await limit() == 1
        await site.call(PUSH.update, retry_parameters=None)
        assert await limit() is None
        await site.call(PUSH.reset)
        assert await limit() == 7

    async def test_a_reset_ends_no_pause(self, site: Site) -> None:
        await site.call(PUSH.pause)
        await site.call(PUSH.reset)
        assert await site.is_paused(PUSH)

    async def test_what_makes_no_sense_changes_nothing(self, site: Site) -> None:
        for changes, error in (
            ({"rate": "5/x"}, InvalidQueueError),
            ({"bucket_size": 0}, InvalidQueueError),
            ({"limit_per_key": 0}, InvalidQueueError),
            ({"rate": "1/s", "retention_seconds": -1}, InvalidQueueError),
            ({"retry_parameters": 5}, InvalidQueueError),
            ({"colour": "red"}, TypeError),
            ({"mode": "pull"}, TypeError),
        ):
            with pytest.raises(error):
                await site.call(PUSH.update, **changes)
        await site.add("push", push())
        assert len(await site.claim()) == 1


@EVERY_SITE
class TestRunNow:
    async def test_a_waiting_task_is_due_at_once_and_no_attempt_is_counted(self, site: Site) -> None:
        [task] = await site.add("push", push(countdown=3600))
        before = site.changes
        assert await site.call(PUSH.run_now, task) is True
        assert site.changes == before + 1
        assert round(task.eta_posix * 1e6) == site.now_us
        assert await site.claim() == [task.id]
        info = await site.store.get(task.id or 0)
        assert info is not None
        assert info.attempt_count == 1

    async def test_one_that_is_due_keeps_its_place(self, site: Site) -> None:
        first, second = await site.add("push", push("1", countdown=1), push("2", countdown=2))
        site.wait(9)
        assert await site.call(PUSH.run_now, Task(name="1")) is True
        assert await site.claim(1) == [first.id]
        assert second.id is not None

    async def test_only_of_its_queue_and_only_what_waits(self, site: Site) -> None:
        [task] = await site.add("push", push("a", countdown=9))
        assert await site.call(Queue("other").run_now, task) is False
        assert await site.call(PUSH.run_now, Task(name="never")) is False
        site.wait(9)
        await site.claim()
        assert await site.call(PUSH.run_now, task) is False

    async def test_a_pull_task_can_be_leased_then(self, site: Site) -> None:
        await site.add("pull", pull("x", name="n", countdown=9))
        assert await site.call(Queue("pull").run_now, Task(name="n")) is True
        site.wait(us=1)
        assert [task.retry_count for task in await site.lease()] == [1]


@EVERY_SITE
class TestPostponing:
    async def test_a_waiting_task_gets_another_time(self, site: Site) -> None:
        [task] = await site.add("push", push())
        assert await site.call(PUSH.postpone, task, countdown=5) is True
        assert round(task.eta_posix * 1e6) == site.now_us + 5 * SECOND_US
        assert await site.claim() == []
        assert await site.call(PUSH.postpone, Task(name=task.name), eta=task.eta - timedelta(seconds=3)) is True
        site.wait(2, us=-1)
        assert await site.claim() == []
        site.wait(us=1)
        assert await site.claim() == [task.id]

    async def test_a_running_task_and_none_are_not(self, site: Site) -> None:
        [task] = await site.add("push", push())
        await site.claim()
        assert await site.call(PUSH.postpone, task, countdown=5) is False
        assert await site.call(PUSH.postpone, Task(name="never"), countdown=5) is False


async def test_a_time_that_is_none_is_refused(site: Site) -> None:
    [task] = await site.add("push", push())
    for times, error in (
        ({}, InvalidTaskError),
        ({"countdown": 1, "eta": task.eta}, InvalidTaskError),
        ({"countdown": 31 * 86_400}, InvalidEtaError),
        ({"countdown": "soon"}, InvalidTaskError),
    ):
        with pytest.raises(error):
            await site.call(PUSH.postpone, task, **times)
    for call, given in ((PUSH.run_now, ()), (PUSH.postpone, (None,))):
        with pytest.raises(BadTaskStateError, match="no name"):
            await site.call(call, push(), **({"countdown": 1} if given else {}))


class TestKnownQueues:
    async def test_a_queue_that_is_not_configured_is_refused_for_everything(self, site: Site) -> None:
        nowhere, task = Queue("nowhere"), Task(name="a", url="/w")
        for call, given in (
            (nowhere.add, (task,)),
            (task.add, ("nowhere",)),
            (nowhere.delete_tasks, (task,)),
            (nowhere.delete_tasks_by_name, ("a",)),
            (nowhere.purge, ()),
            (nowhere.pause, ()),
            (nowhere.resume, ()),
            (nowhere.update, ()),
            (nowhere.reset, ()),
            (nowhere.run_now, (task,)),
            (nowhere.lease_tasks, (1, 1)),
            (nowhere.lease_tasks_by_tag, (1, 1)),
            (nowhere.modify_task_lease, (task, 1)),
        ):
            with pytest.raises(UnknownQueueError, match=r"add Queue\('nowhere'\) to Hookware\(queues="):
                await site.call(call, *given)
        assert (task.was_enqueued, task.was_deleted) == (False, False)
        assert await site.stored() == []

    async def test_the_default_queue_is_always_there(self, site: Site) -> None:
        await site.add("default", push())
        assert len(await site.claim()) == 1

    async def test_the_option_allows_them(self, database: Database) -> None:
        async with site_on(database, unknown_queues="allow") as site:
            await site.add("nowhere", push())
            await site.call(Queue("nowhere").purge)

    async def test_where_none_is_configured_all_are_there(self, database: Database) -> None:
        async with site_on(database, ()) as site:
            await site.add("nowhere", push())

    async def test_but_the_option_refuses_them(self, database: Database) -> None:
        async with site_on(database, (), unknown_queues="refuse") as site:
            with pytest.raises(UnknownQueueError):
                await site.add("nowhere", push())
            await site.add("default", push())


@pytest.mark.parametrize("option", ["never", True, 5])
def test_the_option_has_two_values(database: Database, option: Any) -> None:
    with pytest.raises(Exception, match='unknown_queues must be "allow", "refuse" or None'):
        Hookware(engine=database.url, unknown_queues=option)


CRON = Queue("__cron")


@EVERY_SITE
async def test_the_queue_of_cron_entries_can_be_looked_after(site: Site) -> None:
    await site.store.add([new_task("__cron"), new_task("__cron"), new_task("push")])
    numbers = await site.call(CRON.fetch_statistics)
    assert (numbers.tasks, numbers.in_flight) == (2, 0)
    await site.call(CRON.pause)
    assert await site.is_paused(CRON)
    assert len(await site.claim()) == 1
    await site.call(CRON.resume)
    assert len(await site.claim(1)) == 1
    assert (await site.call(CRON.fetch_statistics)).in_flight == 1
    await site.call(CRON.purge)
    assert [info.queue_name for info in await site.stored()] == ["push"]


async def test_it_takes_no_tasks_and_no_configuration(site: Site) -> None:
    with pytest.raises(InvalidQueueNameError, match="the queue name '__cron' is refused"):
        await site.call(CRON.add, push())
    with pytest.raises(InvalidQueueNameError, match="the queue name '__cron' is refused"):
        Hookware(engine="sqlite:///unused.db", queues=[CRON])
