"""The numbers of a queue: what waits, runs and was executed."""

from typing import Any

import anyio
import pytest

from hookware import Queue, QueueStatistics, Task, TaskRetryOptions
from hookware.core.lifecycle import Complete, Die, Release, Retry
from hookware.core.task import Keys
from hookware.errors import InvalidQueueNameError, PermanentTaskFailure
from hookware.events import AttemptSettled
from hookware.executed import Executed
from hookware.health import Health
from hookware.store.sql.executed import SLOT_US, Ended
from hookware.taskqueue import InvalidDeadlineError
from tests.queues.site import SECOND_US, Site, pull
from tests.queues.sites import EVERY_SITE
from tests.samples import leased_task
from tests.stage import Stage
from tests.store.subject import new_task

PUSH = Queue("push")
_FETCH = QueueStatistics.fetch


@EVERY_SITE
class TestNumbers:
    async def test_of_a_push_queue(self, site: Site) -> None:
        at_us = site.now_us
        await site.store.add([new_task("push", eta_us=at_us - 5, keys=Keys(priority=p)) for p in (0, 0, 7)])
        await site.store.add([new_task("push", countdown_us=9), new_task("other", eta_us=1), new_task("push-2")])
        await site.claim(1)
        await site.claim(1)
        for name in ("push0", "pushy", "pus"):
            await site.store.add([new_task(name, eta_us=1), new_task(name, eta_us=1, keys=Keys(priority=7))])
        numbers = await site.call(PUSH.fetch_statistics)
        assert numbers == QueueStatistics(PUSH, 4, at_us - 5, 0, 1, None)

    async def test_of_an_empty_queue(self, site: Site) -> None:
        assert await site.call(PUSH.fetch_statistics) == QueueStatistics(PUSH, 0, None, 0, 0, None)

    async def test_dead_tasks_do_not_count(self, site: Site) -> None:
        await site.add("push", Task(url="/w"))
        await site.outbox.runner.run(lambda c: c.exec_driver_sql("UPDATE hookware_task SET state = 2"))
        assert (await site.call(PUSH.fetch_statistics)).tasks == 0

    async def test_of_a_pull_queue(self, site: Site) -> None:
        await site.add("pull", pull(), pull(), pull(countdown=99))
        site.wait(1)
        await site.lease(10, 1)
        await site.lease(10, 1)
        numbers = await site.call(Queue("pull").fetch_statistics)
        eta_us = site.now_us + 10 * SECOND_US
        assert numbers == QueueStatistics(Queue("pull"), 3, eta_us, 2, None, None)

    async def test_the_rate_is_the_one_that_holds(self, site: Site) -> None:
        await site.call(PUSH.update, rate="30/m")
        assert (await site.call(PUSH.fetch_statistics)).enforced_rate == 0.5
        await site.call(PUSH.pause)
        assert (await site.call(PUSH.fetch_statistics)).enforced_rate == 0
        await site.call(PUSH.resume)
        await site.call(PUSH.reset)
        assert (await site.call(PUSH.fetch_statistics)).enforced_rate is None

    async def test_the_last_minute_ends_after_a_minute(self, site: Site) -> None:
        site.wait(us=SLOT_US - site.now_us % SLOT_US)
        await site.outbox.note_executed({"push": Ended(1, 2, 3), "other": Ended(completed=50)})
        await site.outbox.note_executed({"push": Ended(completed=1)})
        site.wait(10)
        await site.outbox.note_executed({"push": Ended(completed=10)})
        assert (await site.call(PUSH.fetch_statistics)).executed_last_minute == 17
        site.wait(49)
        assert (await site.call(PUSH.fetch_statistics)).executed_last_minute == 17
        site.wait(1)
        assert (await site.call(PUSH.fetch_statistics)).executed_last_minute == 10

    async def test_old_counts_are_pruned(self, site: Site) -> None:
        await site.outbox.note_executed({"push": Ended(1)})
        site.wait(86_390)
        await site.outbox.note_executed({"push": Ended(1), "other": Ended(1)})
        slots = "SELECT count(*) FROM hookware_executed"
        await site.store.prune()
        assert await site.outbox.runner.run(lambda c: c.exec_driver_sql(slots).scalar_one()) == 3
        site.wait(20)
        assert await site.store.prune() == 1
        assert await site.outbox.runner.run(lambda c: c.exec_driver_sql(slots).scalar_one()) == 2


async def test_one_or_several_queues_in_their_order(site: Site) -> None:
    await site.add("push", Task(url="/w"))
    one = await site.call(_FETCH, "push")
    assert (one.queue, one.tasks) == (PUSH, 1)
    assert await site.call(_FETCH, PUSH) == one
    for several in (["other", "push", "push"], iter([Queue("other"), PUSH, PUSH])):
        given = await site.call(_FETCH, several)
        assert [(each.queue.name, each.tasks) for each in given] == [("other", 0), ("push", 1), ("push", 1)]
    assert await site.call(_FETCH, []) == []
    assert (await site.call(_FETCH, "nowhere")).tasks == 0, "asking for a queue needs no configuration"


@pytest.mark.parametrize("given", [["a", PUSH], [PUSH, "a"], [1], 5, None, [None], b"a"])
async def test_what_is_no_queue_is_refused(site: Site, given: Any) -> None:
    with pytest.raises(TypeError, match="names, or Queue objects"):
        await site.call(_FETCH, given)


def test_arguments_are_checked_first() -> None:
    with pytest.raises(InvalidDeadlineError):
        PUSH.fetch_statistics(0)
    with pytest.raises(InvalidDeadlineError):
        QueueStatistics.fetch([], deadline=-1)
    with pytest.raises(TypeError):
        QueueStatistics.fetch("push", deadline="soon")  # type: ignore[call-overload]  # what the test is about
    with pytest.raises(InvalidQueueNameError):
        QueueStatistics.fetch("a b")


async def test_a_process_writes_down_what_it_has_executed(stage: Stage) -> None:
    @stage.task_handler("/good")
    def good() -> None: ...

    @stage.task_handler("/bad")
    def bad() -> None:
        raise ZeroDivisionError

    @stage.task_handler("/hopeless")
    def hopeless() -> None:
        raise PermanentTaskFailure

    slow = TaskRetryOptions(min_backoff_seconds=3600)
    async with stage.running() as hookware:
        for url in ("/good", "/good", "/bad", "/hopeless"):
            await Queue("mail").add_async(Task(url=url, retry_options=slow))
        await stage.settled(4)
        before = await QueueStatistics.fetch_async("mail")
        assert (before.tasks, before.in_flight) == (1, 0)
        assert hookware.processing is not None
    # At the latest at its end.
    [slots] = stage.rows("SELECT queue_name, sum(completed_count), sum(failed_count), sum(dead_count) "
                         "FROM hookware_executed GROUP BY queue_name")  # fmt: skip
    assert slots == ("mail", 2, 1, 1)


@pytest.mark.slow
async def test_while_it_runs_too(stage: Stage) -> None:
    @stage.task_handler("/good")
    def good() -> None: ...

    async with stage.running():
        await Queue("mail").add_async(Task(url="/good"))
        await stage.settled()
        await eventually_executed(stage, 1)


async def eventually_executed(stage: Stage, count: int) -> None:
    with anyio.fail_after(10):
        while stage.rows("SELECT coalesce(sum(completed_count), 0) FROM hookware_executed") != [count]:
            await anyio.wait_all_tasks_blocked()


async def test_counts_that_could_not_be_written_are_written_later(stage: Stage) -> None:
    written: list[Any] = []
    errors = [OSError("away"), None]

    async def write(counts: Any) -> None:
        if (error := errors.pop(0)) is not None:
            raise error
        written.append(dict(counts))

    hookware = stage.make(dispatch=False)
    env, events = hookware._env, hookware.events
    executed = Executed(write, env, events, Health(env))
    task = leased_task()
    for decision in (Complete(), Retry(0, 500, "no"), Retry(0, 500, "no"), Release(), Die("retries", 500, "no")):
        events.emit(AttemptSettled(task, decision, accepted=True, duration_seconds=0))
    events.emit(AttemptSettled(task, Complete(), accepted=False, duration_seconds=0))
    await executed.close()
    assert written == []
    await executed.close()
    assert written == [{task.queue_name: Ended(completed=1, failed=2, dead=1)}]
