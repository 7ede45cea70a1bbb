"""Pull queues: leases by moving the ETA, by tag, their tokens, and how often a task may be leased."""

from collections.abc import Callable

import pytest
from anyio import to_thread
from sqlalchemy import Engine

from hookware import Queue, State, Task, TaskRetryOptions, taskqueue
from hookware.core.task import PULL
from hookware.taskqueue import (
    BadTaskStateError,
    Error,
    InvalidDeadlineError,
    InvalidLeaseTimeError,
    InvalidMaxTasksError,
    InvalidQueueModeError,
    InvalidTagError,
    QueuePausedError,
    TaskLeaseExpiredError,
    TombstonedTaskError,
    UnknownQueueError,
)
from tests.queues.site import TOMBSTONE_SECONDS, Site, payloads, pull
from tests.queues.sites import EVERY_SITE

PULL_QUEUE = Queue("pull")
BY_TAG = PULL_QUEUE.lease_tasks_by_tag
MODIFY = PULL_QUEUE.modify_task_lease


@EVERY_SITE
class TestAdding:
    async def test_pull_tasks_go_to_pull_queues_and_push_tasks_to_push_queues(self, site: Site) -> None:
        for queue_name, tasks in (("push", [pull(), pull()]), ("other", [pull()]), ("pull", [Task(), Task()])):
            with pytest.raises(InvalidQueueModeError, match=queue_name):
                await site.add(queue_name, *tasks)
            assert not any(task.was_enqueued for task in tasks)
        assert await site.stored() == []

    async def test_nobody_delivers_a_pull_task(self, site: Site) -> None:
        await site.add("pull", pull())
        site.wait(1)
        assert await site.claim() == []
        assert await site.store.next_due() is None


@pytest.mark.parametrize("method", ["PULL", "pull"])
async def test_the_payload_of_a_pull_task_may_look_like_a_path(site: Site, method: str) -> None:
    await taskqueue.add_async("/data/a.png", method=method, queue_name="pull")
    await to_thread.run_sync(lambda: taskqueue.add("/data/b.png", method=method, queue_name="pull"))
    site.wait(1)
    assert payloads(await site.lease()) == ["/data/a.png", "/data/b.png"]


@EVERY_SITE
class TestLeasing:
    async def test_a_leased_task_has_all_that_was_added_and_its_lease(self, site: Site) -> None:
        [added] = await site.add("pull", pull("some work", tag="t"))
        site.wait(1)
        [task] = await site.lease(10)
        assert (task.id, task.name, task.queue_name, task.method) == (added.id, str(added.id), "pull", PULL)
        assert (task.payload, task.tag, task.retry_count) == (b"some work", "t", 1)
        assert (task.was_enqueued, task.was_deleted) == (True, False)
        assert round(task.eta_posix * 1e6) == site.now_us + 10_000_000

    async def test_params_come_back(self, site: Site) -> None:
        await site.add("pull", Task(method="PULL", params={"a": "1", "b": ["x", "y"]}))
        site.wait(1)
        assert (await site.lease())[0].extract_params() == {"a": "1", "b": ["x", "y"]}

    async def test_a_task_is_leasable_strictly_after_its_eta(self, site: Site) -> None:
        await site.add("pull", pull(countdown=5))
        site.wait(5)
        assert await site.lease() == []
        site.wait(us=1)
        assert len(await site.lease()) == 1

    async def test_nobody_else_gets_it_until_the_lease_ends(self, site: Site) -> None:
        await site.add("pull", pull())
        site.wait(1)
        assert [task.retry_count for task in await site.lease(10)] == [1]
        site.wait(10)
        assert await site.lease() == []
        site.wait(us=1)
        assert [task.retry_count for task in await site.lease(10)] == [2]

    async def test_the_earliest_come_first_and_no_more_than_wanted(self, site: Site) -> None:
        await site.add("pull", *[pull(str(n), countdown=n) for n in (3, 1, 2, 4)])
        site.wait(5)
        assert payloads(await site.lease(60, 3)) == ["1", "2", "3"]
        assert payloads(await site.lease(60, 3)) == ["4"]

    async def test_tasks_of_one_eta_come_in_the_order_in_which_they_were_added(self, site: Site) -> None:
        await site.add("pull", *[pull(str(n), name=f"n{9 - n}") for n in range(9)])
        site.wait(1)
        assert payloads(await site.lease()) == list("012345678")

    async def test_a_lease_of_no_time_is_a_look(self, site: Site) -> None:
        await site.add("pull", pull())
        site.wait(1)
        assert len(await site.lease(0)) == 1
        assert await site.lease(0) == []
        site.wait(us=1)
        assert [task.retry_count for task in await site.lease(0)] == [2]

    async def test_a_lease_takes_only_from_its_queue(self, site: Site) -> None:
        await site.add("pull", pull("a"))
        await site.add("twice", pull("b"))
        site.wait(1)
        assert payloads(await site.lease(queue_name="twice")) == ["b"]

    async def test_a_paused_queue_gives_none(self, site: Site) -> None:
        await site.add("pull", pull())
        await site.call(PULL_QUEUE.pause)
        site.wait(1)
        assert await site.lease() == []
        await site.call(PULL_QUEUE.resume)
        assert len(await site.lease()) == 1

    async def test_a_push_queue_and_an_unknown_one_are_refused(self, site: Site) -> None:
        with pytest.raises(InvalidQueueModeError, match='mode="pull"'):
            await site.lease(queue_name="push")
        with pytest.raises(UnknownQueueError, match="'nowhere' is not configured"):
            await site.lease(queue_name="nowhere")

    async def test_a_row_that_cannot_be_read_holds_up_nobody(self, site: Site) -> None:
        bad, good = await site.add("pull", pull("bad"), pull("good"))
        await site.outbox.runner.run(
            lambda c: c.exec_driver_sql(f"UPDATE hookware_task SET headers = 'no' WHERE id = {bad.id}")
        )
        site.wait(1)
        assert [task.id for task in await site.lease()] == [good.id]
        info = await site.store.get(bad.id or 0)
        assert info is not None
        assert (info.state, info.dead_reason) == (State.DEAD, "undecodable")


@EVERY_SITE
class TestTags:
    async def test_only_tasks_with_the_tag_are_leased(self, site: Site) -> None:
        await site.add("pull", pull("0"), *[pull(str(n), tag="ab"[n % 2], countdown=n) for n in (1, 2, 3, 4)])
        site.wait(9)
        assert payloads(await site.call(BY_TAG, 60, 1, "b")) == ["1"]
        assert payloads(await site.call(BY_TAG, 60, 9, tag="b")) == ["3"]
        assert payloads(await site.call(BY_TAG, 60, 9, "c")) == []

    @pytest.mark.parametrize("no_tag", [None, ""])
    async def test_without_a_tag_it_is_that_of_the_oldest_task(self, site: Site, no_tag: str | None) -> None:
        tags = ["b", "a", None, "b", "a"]
        await site.add("pull", *[pull(str(n), tag=tag, countdown=n) for n, tag in enumerate(tags)])
        site.wait(9)
        assert payloads(await site.call(BY_TAG, 60, 9, no_tag)) == ["0", "3"]
        assert payloads(await site.call(BY_TAG, 60, 1, no_tag)) == ["1"]

    async def test_if_the_oldest_has_none_those_without_among_the_first_are_leased(self, site: Site) -> None:
        tags = [None, "a", None, None]
        await site.add("pull", *[pull(str(n), tag=tag, countdown=n) for n, tag in enumerate(tags)])
        site.wait(9)
        assert payloads(await site.call(BY_TAG, 60, 3)) == ["0", "2"]

    async def test_a_tag_that_is_not_due_does_not_count(self, site: Site) -> None:
        await site.add("pull", pull("0", tag="a", countdown=5), pull("1", tag="b", countdown=1))
        site.wait(2)
        assert payloads(await site.call(BY_TAG, 60, 9)) == ["1"]
        assert payloads(await site.call(BY_TAG, 60, 9)) == []


@EVERY_SITE
class TestModifying:
    async def test_a_lease_is_prolonged_and_shortened(self, site: Site) -> None:
        await site.add("pull", pull())
        site.wait(1)
        [task] = await site.lease(10)
        site.wait(5)
        await site.call(MODIFY, task, 20)
        assert round(task.eta_posix * 1e6) == site.now_us + 20_000_000
        site.wait(15)
        assert await site.lease() == []
        await site.call(MODIFY, task, 0)
        site.wait(us=1)
        assert [again.retry_count for again in await site.lease()] == [2], "changing a lease is none"

    async def test_the_end_of_the_lease_is_its_token(self, site: Site) -> None:
        await site.add("pull", pull())
        site.wait(1)
        [mine] = await site.lease(10)
        site.wait(10, us=1)
        [other] = await site.lease(10)
        with pytest.raises(TaskLeaseExpiredError):
            await site.call(MODIFY, mine, 60)
        await site.call(MODIFY, other, 60)

    async def test_a_lease_can_be_changed_until_its_very_end(self, site: Site) -> None:
        await site.add("pull", pull(), pull())
        site.wait(1)
        one, two = await site.lease(10)
        site.wait(10)
        await site.call(MODIFY, one, 10)
        site.wait(us=1)
        with pytest.raises(TaskLeaseExpiredError, match="has ended"):
            await site.call(MODIFY, two, 10)

    async def test_what_is_gone_cannot_be_changed(self, site: Site) -> None:
        await site.add("pull", pull("a", name="named"), pull("b"))
        site.wait(1)
        named, unnamed = await site.lease(10)
        await site.call(PULL_QUEUE.delete_tasks_by_name, [named.name, unnamed.name])
        with pytest.raises(TombstonedTaskError, match="'named'"):
            await site.call(MODIFY, named, 10)
        for unknown in (unnamed, pull(name="never")):
            with pytest.raises(Error) as caught:
                await site.call(MODIFY, unknown, 10)
            assert type(caught.value) is Error

    async def test_not_in_a_paused_queue(self, site: Site) -> None:
        await site.add("pull", pull())
        site.wait(1)
        [task] = await site.lease(10)
        await site.call(PULL_QUEUE.pause)
        with pytest.raises(QueuePausedError, match="resume"):
            await site.call(MODIFY, task, 10)
        await site.call(PULL_QUEUE.delete_tasks, task)
        assert task.was_deleted

    async def test_a_push_queue_has_no_leases(self, site: Site) -> None:
        with pytest.raises(InvalidQueueModeError):
            await site.call(Queue("push").modify_task_lease, pull(name="n"), 10)
        with pytest.raises(BadTaskStateError, match="no name"):
            await site.call(MODIFY, pull(), 10)


@EVERY_SITE
class TestRetryLimit:
    async def leases(self, site: Site, queue_name: str) -> int:
        for count in range(6):
            site.wait(1)
            if not await site.lease(0, queue_name=queue_name):
                return count
        return 99

    @pytest.mark.parametrize(("limit", "leases"), [(0, 0), (1, 1), (3, 3)])
    async def test_it_counts_leases_and_then_the_task_is_gone(self, site: Site, limit: int, leases: int) -> None:
        await site.call(Queue("twice").update, retry_parameters=TaskRetryOptions(task_retry_limit=limit))
        await site.add("twice", pull(name="n"))
        assert await self.leases(site, "twice") == leases
        assert await site.stored() == []
        with pytest.raises(TombstonedTaskError):
            await site.add("twice", pull(name="n"))

    async def test_an_age_limit_alone_or_beside_it_ends_no_task(self, site: Site) -> None:
        for limit in (None, 1):
            options = TaskRetryOptions(task_age_limit=1, task_retry_limit=limit)
            await site.call(Queue("twice").update, retry_parameters=options)
            await site.add("twice", pull())
            assert await self.leases(site, "twice") == 99

    @pytest.mark.parametrize("limit", [0, 1])
    async def test_a_tasks_own_options_have_no_effect(self, site: Site, limit: int) -> None:
        options = TaskRetryOptions(task_retry_limit=limit)
        for queue_name, leases in (("pull", 99), ("twice", 2)):
            [task] = await site.add(queue_name, pull(retry_options=options))
            assert task.retry_options == options
            assert await self.leases(site, queue_name) == leases

    async def test_the_queues_limit_holds_and_can_be_changed(self, site: Site) -> None:
        await site.add("twice", pull())
        assert await self.leases(site, "twice") == 2
        await site.call(Queue("twice").update, retry_parameters=TaskRetryOptions(task_retry_limit=3))
        await site.add("twice", pull())
        assert await self.leases(site, "twice") == 3

    async def test_what_is_worn_out_counts_among_those_that_were_wanted(self, site: Site) -> None:
        await site.add("twice", pull("a"))
        site.wait(1)
        for _ in range(2):
            assert payloads(await site.lease(0, queue_name="twice")) == ["a"]
            site.wait(1)
        await site.add("twice", pull("b"))
        site.wait(1)
        assert payloads(await site.lease(60, 1, "twice")) == []
        assert payloads(await site.lease(60, 1, "twice")) == ["b"]


ARGUMENTS: list[tuple[Callable[..., object], tuple[object, ...], type[Exception]]] = [
    (PULL_QUEUE.lease_tasks, (-0.1, 1), InvalidLeaseTimeError),
    (PULL_QUEUE.lease_tasks, (604_800.1, 1), InvalidLeaseTimeError),
    (PULL_QUEUE.lease_tasks, (float("nan"), 1), InvalidLeaseTimeError),
    (PULL_QUEUE.lease_tasks, ("1", 1), TypeError),
    (PULL_QUEUE.lease_tasks, (None, 1), TypeError),
    (PULL_QUEUE.lease_tasks, (1, 0), InvalidMaxTasksError),
    (PULL_QUEUE.lease_tasks, (1, -1), InvalidMaxTasksError),
    (PULL_QUEUE.lease_tasks, (1, 1001), InvalidMaxTasksError),
    (PULL_QUEUE.lease_tasks, (1, 1.0), TypeError),
    (PULL_QUEUE.lease_tasks, (1, 1, 0), InvalidDeadlineError),
    (PULL_QUEUE.lease_tasks, (1, 1, "9"), TypeError),
    (BY_TAG, (1, 1001), InvalidMaxTasksError),
    (BY_TAG, (-1, 1), InvalidLeaseTimeError),
    (BY_TAG, (1, 1, "t" * 501), InvalidTagError),
    (BY_TAG, (1, 1, 5), TypeError),
    (BY_TAG, (1, 1, "t", -1), InvalidDeadlineError),
    (MODIFY, (pull(name="n"), 604_801), InvalidLeaseTimeError),
    (MODIFY, (pull(name="n"), "1"), TypeError),
    (MODIFY, ("n", 1), TypeError),
]


@pytest.mark.parametrize(("method", "given", "error"), ARGUMENTS)
def test_arguments_out_of_range_are_refused_at_once(
    method: Callable[..., object], given: tuple[object, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        method(*given)


async def test_the_ends_of_the_ranges_are_allowed(site: Site) -> None:
    assert await site.lease(604_800, 1000) == []
    assert await site.lease(0, 1) == []
    assert await site.call(BY_TAG, 1, 1, "t" * 500) == []


@EVERY_SITE
async def test_of_two_with_one_name_the_first_leased_has_it(site: Site) -> None:
    def add(connection: object) -> None:
        for payload in ("first", "second"):
            taskqueue.add(payload, method="PULL", queue_name="pull", name="n", connection=connection, countdown=-9)

    await in_transaction(site, add)
    site.wait(60)  # rows have the time of PostgreSQL, and not of the test
    assert payloads(await site.lease(60, 1)) == ["first"]
    assert await site.lease() == []
    states = {info.body: (info.state, info.dead_reason) for info in await site.stored()}
    assert states == {b"first": (State.PULL, None), b"second": (State.DEAD, "duplicate")}
    [first] = await site.call(PULL_QUEUE.delete_tasks_by_name, ["n"])
    assert first.was_deleted
    assert [info.body for info in await site.stored()] == [b"second"], "what lost its name is kept to be seen"


@EVERY_SITE
async def test_a_dead_pull_task_that_is_run_again_can_be_leased(site: Site) -> None:
    [task] = await site.add("pull", pull())
    await site.outbox.runner.run(
        lambda c: c.exec_driver_sql("UPDATE hookware_task SET state = 2, dead_reason = 'undecodable'")
    )
    assert task.id is not None
    assert await site.store.run_again(task.id)
    site.wait(1)
    assert await site.claim() == []
    assert len(await site.lease()) == 1


@EVERY_SITE
async def test_a_name_is_free_again_when_its_tombstone_ends(site: Site) -> None:
    await site.add("pull", pull(name="n"))
    site.wait(1)
    [task] = await site.lease()
    await site.call(PULL_QUEUE.delete_tasks, task)
    with pytest.raises(TombstonedTaskError):
        await site.add("pull", pull(name="n"))
    site.wait(TOMBSTONE_SECONDS)
    await site.add("pull", pull(name="n"))


@EVERY_SITE
async def test_a_pull_task_joins_a_transaction(site: Site) -> None:
    def add(connection: object) -> None:
        taskqueue.add("work", method="PULL", queue_name="pull", connection=connection)

    def add_and_fail(connection: object) -> None:
        add(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await in_transaction(site, add_and_fail)
    assert await site.stored() == []
    await in_transaction(site, add)
    site.wait(60)  # rows have the time of PostgreSQL, and not of the test
    assert payloads(await site.lease()) == ["work"]


async def in_transaction(site: Site, fn: Callable[[object], None]) -> None:
    """Run `fn` with a Connection of the user's engine, in a transaction."""
    engine = site.outbox.engine
    if isinstance(engine, Engine):
        with engine.begin() as connection:
            fn(connection)
        return
    async with engine.begin() as async_connection:
        await async_connection.run_sync(fn)
