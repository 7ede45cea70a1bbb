"""Actions on many tasks: each that was there is changed once, whatever interrupts it, and nothing else is."""

from collections import Counter
from typing import Any

import pytest

from hookware.core.filter import FilterError
from hookware.core.lifecycle import State
from hookware.store.sql import attempts, bulk
from hookware.store.views import BulkProgress
from tests.databases import EVERY_DATABASE_ON_A_LOOP
from tests.insight.stored import World
from tests.store.subject import record


class EnoughError(Exception):
    """Somebody interrupts."""


def states(world: World) -> Counter[int]:
    return Counter(world.stage.rows("SELECT state FROM hookware_task"))


@EVERY_DATABASE_ON_A_LOOP
async def test_dead_tasks_are_revived_and_their_progress_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_AT_ONCE", 10)
    world.put(State.DEAD, count=34, ago=60, last_error="timed out")
    world.put(State.DEAD, count=5, ago=60, last_error="other")
    told: list[BulkProgress] = []
    done = await world.insight.bulk("retry", 'state:dead error:"timed out"', on_progress=told.append)
    assert (done.done_count, done.left_count, done.is_complete) == (34, 0, True)
    assert [progress.done_count for progress in told] == [10, 20, 30, 34]
    assert states(world) == {State.PENDING: 34, State.DEAD: 5}
    revived = world.stage.rows("SELECT DISTINCT attempt_count, last_error, ended_us FROM hookware_task WHERE state = 0")
    assert revived == [(0, None, None)]


@EVERY_DATABASE_ON_A_LOOP
async def test_what_was_interrupted_goes_on_elsewhere_and_loses_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_AT_ONCE", 10)
    world.put(State.DEAD, count=35, ago=60)
    last: list[BulkProgress] = []

    def interrupt(progress: BulkProgress) -> None:
        last.append(progress)
        if progress.done_count == 20:
            raise EnoughError

    with pytest.raises(EnoughError):
        await world.insight.bulk("retry", "state:dead", on_progress=interrupt)
    assert states(world) == {State.PENDING: 20, State.DEAD: 15}
    other = World(world.stage)  # another process
    done = await other.insight.bulk("retry", "state:dead", resume=last[-1].token)
    assert (done.done_count, done.is_complete) == (35, True)
    assert states(world) == {State.PENDING: 35}


async def test_what_dies_meanwhile_is_left_dead_also_where_it_was_revived_by_this(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_AT_ONCE", 10)
    first = world.put(State.DEAD, count=30, ago=60)
    progress = await world.insight.bulk_step("retry", "state:dead")
    # The first ten die again, and others for the first time: all of them later than it began.
    again = world.outbox.runner.run_blocking(world.outbox.own_clock)
    world.stage.execute("UPDATE hookware_task SET state = 2, ended_us = ? WHERE state = 0", again)
    new = world.put(State.DEAD, count=7, ended_us=again + 1)
    done = await world.insight.bulk("retry", "state:dead", resume=progress.token)
    assert (done.done_count, done.is_complete) == (30, True)
    dead = set(world.stage.rows("SELECT id FROM hookware_task WHERE state = 2"))
    assert dead == {*first[:10], *new}


@EVERY_DATABASE_ON_A_LOOP
async def test_delete_takes_all_but_what_runs_and_leaves_tombstones(world: World) -> None:
    world.put(State.DEAD, count=3, queue_name="mail")
    world.put(State.PENDING, count=2, queue_name="mail", name="n")
    world.put(State.COMPLETED, queue_name="mail")
    world.put(State.LEASED, queue_name="mail")
    world.put(State.DEAD)
    done = await world.insight.bulk("delete", "queue:mail")
    assert (done.done_count, done.is_complete) == (6, True)
    assert sorted(world.stage.rows("SELECT queue_name, state FROM hookware_task")) == [("default", 2), ("mail", 1)]
    assert world.stage.rows("SELECT queue_name, name FROM hookware_name") == [("mail", "n")]


@EVERY_DATABASE_ON_A_LOOP
async def test_what_is_deleted_takes_its_history_along(world: World) -> None:
    ids = [*world.put(State.DEAD, count=2, queue_name="mail"), *world.put(State.DEAD)]
    kept = [record(task_id, number) for task_id in ids for number in (1, 2)]
    world.outbox.runner.run_blocking(lambda connection: attempts.write(connection, kept))
    await world.insight.bulk("delete", "queue:mail")
    assert world.stage.rows("SELECT DISTINCT task_id FROM hookware_attempt") == ids[2:]


@EVERY_DATABASE_ON_A_LOOP
async def test_cancel_removes_what_waits_and_calls_off_what_runs(world: World) -> None:
    world.put(State.PENDING, count=3)
    (running,) = world.put(State.LEASED)
    world.put(State.DEAD)
    done = await world.insight.bulk("cancel", "queue:default")
    assert done.done_count == 4
    rows = world.stage.rows("SELECT id = ?, state, dead_reason FROM hookware_task ORDER BY 1", running)
    assert [(bool(is_it), state, reason) for is_it, state, reason in rows] == [
        (False, State.DEAD, "retries"), (True, State.DEAD, "cancelled"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("action", "where", "token", "said"),
    [
        ("retry", "", None, "an empty filter would mean every task"),
        ("retry", "state:due", None, "retry is not for tasks that are due"),
        ("cancel", "state:dead queue:a", None, "cancel is not for tasks that are dead"),
        ("delete", "state:running", None, "delete is not for tasks that are running"),
        ("burn", "state:dead", None, "there is no action 'burn'"),
        ("retry", "state:dead", "nonsense", "cannot be read"),
        ("retry", "state:dead", "another", "is of another call"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    world: World, action: Any, where: str, token: str | None, said: str
) -> None:
    if token == "another":
        token = (await world.insight.bulk_step("retry", "state:dead queue:other")).token
    with pytest.raises(FilterError, match=said):
        await world.insight.bulk_step(action, where, resume=token)


async def test_a_finished_action_does_nothing_more(world: World) -> None:
    world.put(State.DEAD)
    done = await world.insight.bulk("retry", "state:dead")
    world.put(State.DEAD)
    assert await world.insight.bulk("retry", "state:dead", resume=done.token) == done
