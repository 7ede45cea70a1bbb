"""The overview: each number is what a count of everything gives, up to its cap; and the cost is bounded."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, event

from hookware import Queue
from hookware.core.filter import parse
from hookware.core.lifecycle import State
from hookware.core.queue import QueueSettings
from hookware.store.sql import checking, choosing, facts, failures, overview
from hookware.store.sql.asking import Context
from tests.databases import EVERY_DATABASE_ON_A_LOOP
from tests.insight.stored import SECOND_US, World
from tests.stage import Stage
from tests.store.subject import START_US
from tests.store.test_plans import fill


@EVERY_DATABASE_ON_A_LOOP
async def test_every_number_of_a_queue(world: World) -> None:
    world.process(running_count=1)
    world.put(count=3, queue_name="mail", ago=50)
    world.put(queue_name="mail", ago=40, limit_key="l")
    world.put(queue_name="mail", ago=30, lane="mail/090")
    world.put(count=2, queue_name="mail", ago=-60)
    world.put(State.LEASED, queue_name="mail", ago=7)
    world.put(State.LEASED, queue_name="mail", lease_until_us=world.now_us - 1)
    world.put(State.DEAD, count=4, queue_name="mail")
    world.put(State.COMPLETED, count=2, queue_name="mail")
    world.put(State.PULL, count=2, queue_name="pull", ago=20)
    world.put(State.PULL, queue_name="pull", ago=-20)
    seen = await world.insight.overview()
    mail = {queue.name: queue for queue in seen.queues}["mail"]
    counts = (mail.due, mail.scheduled, mail.running, mail.dead, mail.completed, mail.waiting)
    assert counts == ((5, False), (2, False), (1, False), (4, False), (2, False), (7, False))
    assert mail.oldest_due_us == world.now_us - 50 * SECOND_US
    assert mail.next_due_us == world.now_us + 60 * SECOND_US
    pull = await world.insight.queue("pull")
    assert (pull.due, pull.scheduled, pull.oldest_due_us) == ((2, False), (1, False), world.now_us - 20 * SECOND_US)
    assert (await world.insight.queue("unknown")).due == (0, False)
    assert [process.running_count for process in seen.dispatchers] == [1]


async def test_what_is_set_of_a_queue(stage: Stage) -> None:
    world = World(stage, queues=[Queue("mail", rate="5/s", bucket_size=5, max_concurrent_requests=7)])
    await world.hookware.inspector.set_overrides("mail", {"max_concurrent_requests": 3})
    await world.hookware.inspector.set_paused("mail", True)
    await world.hookware.inspector.set_paused("mail", True)  # it stays as it was
    mail = await world.insight.queue("mail")
    assert (mail.is_configured, mail.overrides, mail.most_running) == (True, ("max_concurrent_requests",), 3)
    assert (mail.paused, mail.token_count) == (True, 5)
    assert mail.paused_us is not None
    assert 0 <= mail.paused_us - world.now_us < 60 * SECOND_US
    await world.hookware.inspector.set_paused("mail", False)
    assert ((await world.insight.queue("mail")).paused_us, mail.paused_by) == (None, None)


@EVERY_DATABASE_ON_A_LOOP
async def test_counts_stop_at_the_cap(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "_BUDGET", 0)
    world.put(count=101)
    world.put(State.DEAD, count=100)
    queue = await world.insight.queue("default")
    assert (queue.due, queue.dead) == ((100, True), (100, False))


@EVERY_DATABASE_ON_A_LOOP
async def test_errors_that_differ_in_numbers_only_are_one_group(world: World) -> None:
    for n in range(3):
        world.put(State.DEAD, last_error=f"timed out after {n} s\nat 0xfe{n}", last_status=503, queue_name="mail")
    world.put(last_error="timed out after 9 s", last_status=503, ago=-60, attempt_count=1)
    world.put(State.DEAD, last_error="KeyError: 'x'")
    found = await world.insight.errors()
    assert [(group.pattern, group.dead_count, group.retrying_count) for group in found.groups] == [
        ("timed out after # s", 3, 1), ("KeyError: 'x'", 1, 0),
    ]  # fmt: skip
    first = found.groups[0]
    assert (first.queue_names, first.statuses, first.urls) == (("default", "mail"), (503,), ("/worker",))
    assert (len(first.task_ids), first.sample, found.more) == (4, "timed out after 9 s", False)
    assert [group.count for group in (await world.insight.errors(queue_name="mail")).groups] == [3]


@EVERY_DATABASE_ON_A_LOOP
async def test_one_task_in_full(world: World) -> None:
    (task_id,) = world.put(State.DEAD, ago=60, retry_options='{"task_retry_limit": 3}', last_error="no")
    detail = await world.insight.task(task_id)
    assert detail is not None
    assert (detail.info.state, detail.has_own_retry, detail.retry.task_retry_limit) == (State.DEAD, True, 3)
    assert detail.ended_us == detail.created_us == world.now_us - 60 * SECOND_US
    assert await world.insight.task(10**15) is None


CONTEXT = Context(lambda _connection: START_US, lambda name: QueueSettings(name=name))


def steps_of(path: Path, name: str) -> int:
    """Count the steps of SQLite's machine that a read takes, by thousands."""
    engine, thousands = create_engine(f"sqlite:///{path}"), 0

    def step() -> None:
        nonlocal thousands
        thousands += 1

    @event.listens_for(engine, "connect")
    def watch(connection: sqlite3.Connection, _record: object) -> None:
        connection.set_progress_handler(step, 1000)

    with engine.connect() as connection:
        READS[name](connection)
    engine.dispose()
    return thousands


def listed(connection: Connection, text: str) -> None:
    choosing.listed(connection, CONTEXT, parse(text), None, 50)
    choosing.count(connection, CONTEXT, parse(text))


FILTERS = (
    "", "state:dead", "state:due", "state:retrying", "error:none", "queue:none", "state:dead error:no", "name:n9",
    "state:waiting fair_key:f7", "key:none older:2h", "state:running", "state:dead,due",
)  # fmt: skip
READS: dict[str, Callable[[Connection], object]] = {
    "overview": lambda c: overview.look(c, CONTEXT),
    "errors": lambda c: failures.of(c, CONTEXT, None, 20),
    "check": lambda c: checking.check(c, CONTEXT, lambda: START_US),
    "why": lambda c: facts.gather(c, CONTEXT, 13 * 7 - 1),
    "task": lambda c: facts.detail(c, CONTEXT, 7),
    **{f"list {text}": partial(listed, text=text) for text in FILTERS},
}


@pytest.mark.slow
def test_no_read_costs_more_with_ten_times_as_many_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Smaller bounds, so that the smaller of the two is beyond them already.
    monkeypatch.setattr(overview, "_BUDGET", 2000)
    monkeypatch.setattr(overview, "CAP", 200)
    monkeypatch.setattr(failures, "_BUDGET", 200)
    monkeypatch.setattr(facts, "_MOST_AHEAD", 200)
    monkeypatch.setattr(choosing, "_LISTED_VISITS", 400)
    monkeypatch.setattr(choosing, "_COUNTED_VISITS", 400)
    monkeypatch.setattr(choosing, "_MOST_COUNTED", 200)
    for rows in (10_000, 100_000):
        fill(tmp_path / f"{rows}.db", rows)
        with closing(sqlite3.connect(tmp_path / f"{rows}.db")) as connection, connection:
            connection.execute(
                "UPDATE hookware_task SET state = 0, lease_until_us = NULL WHERE state = 1 AND id > 5000"
            )
    costs = {name: [steps_of(tmp_path / f"{rows}.db", name) for rows in (10_000, 100_000)] for name in READS}
    grown = {name: cost for name, cost in costs.items() if cost[1] > cost[0] * 1.5 + 15}
    assert grown == {}
