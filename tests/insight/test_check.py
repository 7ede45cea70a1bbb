"""`check` finds each planted problem with its cause and its numbers, and nothing where all is well; so does `why`.

The problems are really there: queues paused through the API, handlers that are missing, processes that are killed.
"""

import re
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from hookware import Queue, taskqueue
from hookware.core.lifecycle import State
from hookware.core.overview import Finding
from hookware.env import Env
from tests.databases import EVERY_DATABASE_ON_A_LOOP, POSTGRESQL_ON_A_LOOP, Database
from tests.insight.stored import SECOND_US, World
from tests.stage import Stage


async def alone(world: World) -> Finding:
    """Give the only finding."""
    (finding,) = await world.insight.check()
    return finding


@EVERY_DATABASE_ON_A_LOOP
async def test_a_healthy_installation_has_no_findings(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker() -> None:
        pass

    async with stage.running(queues=[Queue("mail", rate="5/s", max_concurrent_requests=2)]) as hookware:
        for _ in range(5):
            await taskqueue.add_async(url="/worker", queue_name="mail", transactional=False)
        await taskqueue.add_async(url="/worker", queue_name="mail", countdown=3600, transactional=False)
        await stage.settled(5)
        await present(stage)
        assert await hookware.insight.check() == []


@EVERY_DATABASE_ON_A_LOOP
async def test_a_paused_queue_with_waiting_tasks_is_found(stage: Stage) -> None:
    async with stage.running(queues=[Queue("mail"), Queue("other")]) as hookware:
        await present(stage)
        await Queue("mail").pause_async()
        assert await hookware.insight.check() == []  # nothing waits for it
        await Queue("other").pause_async()
        task = await Queue("mail").add_async(taskqueue.Task(url="/worker"))
        (finding,) = await hookware.insight.check()
        assert (finding.severity, finding.code, finding.queue_name) == ("warning", "paused", "mail")
        assert re.fullmatch(r"The queue mail has been paused for [\d.]+ s, and 1 task waits in it\.", finding.sentence)
        assert finding.next_step == "Resume it when what it was paused for is over."
        assert task.id is not None
        said = await hookware.insight.why(task.id)
        assert said.code == "paused"
        assert re.fullmatch(r"Its queue mail has been paused for [\d.]+ s: resume it\.", said.sentence)
        await Queue("mail").resume_async()
        await stage.settled()


@EVERY_DATABASE_ON_A_LOOP
async def test_a_queue_that_is_full_is_found(stage: Stage) -> None:
    begun, go_on = anyio.Event(), anyio.Event()

    @stage.task_handler("/worker")
    async def worker() -> None:
        begun.set()
        await go_on.wait()

    async with stage.running(queues=[Queue("mail", max_concurrent_requests=1)]) as hookware:
        await present(stage)
        queue = Queue("mail")
        await queue.add_async(taskqueue.Task(url="/worker"))
        await begun.wait()
        late = await queue.add_async(taskqueue.Task(url="/worker"))
        assert await hookware.insight.check() == []  # it has waited for a moment only
        stage.execute("UPDATE hookware_task SET eta_us = eta_us - 20000000 WHERE id = ?", late.id)
        (finding,) = await hookware.insight.check()
        assert (finding.severity, finding.code, finding.queue_name) == ("warning", "concurrency", "mail")
        full = (
            r"The queue mail is full: 1 of 1 run, the oldest for [\d.]+ s, and 1 due task waits, the oldest for 2\d s\."
        )
        assert re.fullmatch(full, finding.sentence)
        assert late.id is not None
        said = await hookware.insight.why(late.id)
        assert said.code == "concurrency"
        assert said.sentence.startswith("Its queue mail is full: 1 of 1 run, the oldest for ")
        go_on.set()
        await stage.settled(2)


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("status", [404, 405])
async def test_a_url_that_nothing_answers_is_found(stage: Stage, status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async with stage.running(app) as hookware:
        await present(stage)
        task = await taskqueue.add_async(
            url="/wroker", retry_options=taskqueue.TaskRetryOptions(min_backoff_seconds=60), transactional=False
        )
        await stage.settled()
        (finding,) = await hookware.insight.check()
        assert (finding.severity, finding.code, finding.queue_name) == ("error", "wrong-url", "default")
        assert "1 task of queue default (0 dead) cannot be delivered." in finding.sentence
        assert f"The last answer was {status}" in finding.sentence
        assert "the path /wroker" in finding.sentence
        assert task.id is not None
        said = await hookware.insight.why(task.id)
        assert said.code == "retry"
        assert said.sentence.startswith("It waits for its attempt 2 until ")
        assert [reason.code for reason in said.also] == ["wrong-url"]
        assert f"The last answer was {status}" in said.also[0].sentence


class Shifted(Env):
    """A host whose clock is wrong by a day."""

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self.by_us = seconds * SECOND_US

    def now_us(self) -> int:
        return super().now_us() + self.by_us


async def test_a_clock_that_was_in_the_future_is_found_where_it_is_the_hosts(stage: Stage) -> None:
    @stage.task_handler("/worker")
    def worker() -> None:
        pass

    async with stage.running(env=Shifted(86_400)):
        await taskqueue.add_async(url="/worker", transactional=False)
        task = await taskqueue.add_async(url="/worker", countdown=5, transactional=False)
        await stage.settled()
    async with stage.running() as hookware:  # somebody has set it right
        await present(stage)
        (finding,) = await hookware.insight.check()
        assert (finding.severity, finding.code) == ("error", "clock")
        assert "and something was written down at" in finding.sentence
        assert "it was 23 h 5" in finding.sentence or "it was 1 d in the future then" in finding.sentence
        assert task.id is not None
        said = await hookware.insight.why(task.id)
        assert said.code == "clock"
        assert said.sentence.startswith("It was added at ")
        assert "the clock was 23 h 59 min ahead then" in said.sentence
        assert [reason.code for reason in said.also] == ["not-due"]


@POSTGRESQL_ON_A_LOOP
async def test_a_clock_of_the_database_that_is_in_the_future_is_found(database: Database) -> None:
    plant = database.look()
    (role,) = plant.rows("SELECT current_user::text")
    plant.execute(
        "CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
        "$$ SELECT pg_catalog.clock_timestamp() + interval '2 hours' $$"
    )
    plant.execute(f"ALTER ROLE {role} SET search_path = {role}, pg_catalog")
    plant.close()
    stage = Stage(database)
    async with stage.running() as hookware:
        await present(stage)
        task = await taskqueue.add_async(url="/worker", countdown=60, transactional=False)
        (finding,) = await hookware.insight.check()
        assert (finding.severity, finding.code) == ("error", "clock")
        assert "which is 1 h 59 min ahead of" in finding.sentence or "which is 2 h ahead of" in finding.sentence
        assert "tasks with an eta= begin too early by as much" in finding.sentence
        assert "NTP" in finding.next_step
        assert task.id is not None
        assert (await hookware.insight.why(task.id)).code == "clock"
    await stage.close()


@EVERY_DATABASE_ON_A_LOOP
async def test_that_nobody_runs_tasks_is_found(stage: Stage) -> None:
    async with stage.running(dispatch=False) as hookware:
        await present(stage)
        (finding,) = await hookware.insight.check()
        assert (finding.severity, finding.code) == ("warning", "no-dispatcher")
        task = await taskqueue.add_async(url="/worker", transactional=False)
        (finding,) = await hookware.insight.check()
        assert (finding.severity, finding.code) == ("error", "no-dispatcher")
        assert finding.sentence == (
            "No process that runs tasks is alive, and none has been seen for a day; 1 process with dispatch off only "
            "stores them. 1 task waits."
        )
        assert "hookware dispatch main:app" in finding.next_step
        assert task.id is not None
        assert (await hookware.insight.why(task.id)).code == "no-dispatcher"


async def test_a_dispatcher_that_went_silent_is_named(world: World) -> None:
    world.process(host="web-7", pid=77, seen_us=world.now_us - 300 * SECOND_US)
    (task_id,) = world.put()
    assert "the last one, web-7 (pid 77), was last seen 5 min" in (await alone(world)).sentence
    assert "the last one, web-7 (pid 77), was last seen 5 min" in (await world.insight.why(task_id)).sentence


async def test_a_host_whose_clock_is_wrong_is_named(world: World) -> None:
    world.process()
    world.process()
    world.process(host="web-9", clock_offset_us=60 * SECOND_US)
    finding = await alone(world)
    assert (finding.severity, finding.code) == ("warning", "host-clock")
    assert finding.sentence == "The clock of web-9 (pid 12) is 1 min behind the database's."


async def test_tasks_that_kill_their_processes_are_found(world: World) -> None:
    world.process()
    world.put(State.DEAD, count=2, dead_reason="crashes")
    finding = await alone(world)
    assert (finding.severity, finding.code) == ("warning", "poison")
    assert finding.sentence == "2 tasks took down processes that ran them, and are dead."


async def test_a_queue_that_falls_behind_is_found_and_one_that_is_only_busy_is_not(world: World) -> None:
    world.process()
    world.put(count=30, ago=9)
    assert await world.insight.check() == []
    world.put(count=30, ago=90)
    finding = await alone(world)
    assert (finding.severity, finding.code, finding.queue_name) == ("error", "stuck", "default")
    assert "60 due tasks wait, the oldest for 1 min 3" in finding.sentence


async def test_busy_slots_are_found(world: World) -> None:
    world.process(concurrency=2, running_count=2)
    (task_id,) = world.put(ago=30)
    finding = await alone(world)
    assert (finding.severity, finding.code) == ("warning", "slots")
    assert "1 process runs 2 of 2 tasks at once, and due tasks wait, the oldest for 3" in finding.sentence
    assert (await world.insight.why(task_id)).code == "slots"


@EVERY_DATABASE_ON_A_LOOP
async def test_missing_tables_columns_and_indexes_are_found(world: World) -> None:
    world.process()
    world.stage.execute("DROP INDEX ix_hookware_task_dead")
    finding = await alone(world)
    assert (finding.severity, finding.code) == ("warning", "indexes")
    assert "no index ix_hookware_task_dead" in finding.sentence
    world.stage.execute("ALTER TABLE hookware_task DROP COLUMN progress")
    assert (await alone(world)).sentence == "The table hookware_task has no column progress."
    world.stage.execute("DROP TABLE hookware_process")
    sentences = [finding.sentence for finding in await world.insight.check()]
    assert "The database has no table hookware_process." in sentences


async def test_different_versions_are_worth_a_note(world: World) -> None:
    world.process(version="1")
    world.process(version="2")
    finding = await alone(world)
    assert (finding.severity, str(finding).partition(":")[0]) == ("note", "note")
    assert "1, 2" in finding.sentence


async def present(stage: Stage) -> None:
    """Wait until a process has said that it is there."""
    while not stage.rows("SELECT owner FROM hookware_process"):
        await anyio.lowlevel.checkpoint()
