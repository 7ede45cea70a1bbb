"""Cron in a whole app: from the clock to the handler, and what people do with the entries meanwhile."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from fastapi import FastAPI
from sqlmodel import Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.testclient import TestClient

from hookware import Error, Hookware, State, TaskContext, TaskRetryOptions, cron, cron_entries
from hookware.errors import UnknownCronEntryError
from hookware.events import CronFired
from hookware.headless import Headless
from hookware.signals import Signals
from tests.cron.clockwork import HOUR_US, MINUTE_US, START_US, Clockwork, entry
from tests.databases import EVERY_ASYNC_DRIVER
from tests.running import eventually
from tests.serving import serving
from tests.stage import Stage, Tally

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
HOURLY = entry("/hourly", "every 1 hours synchronized")
FIVE = entry("/five", "every 5 minutes")


def seen_by(stage: Stage, url: str) -> list[Request]:
    """Make a handler that keeps its requests."""
    requests: list[Request] = []

    @stage.task_handler(url)
    async def keep(request: Request) -> None:
        requests.append(request)

    return requests


async def test_a_handler_is_called_at_its_time_as_app_engine_would(stage: Stage) -> None:
    env, requests = Clockwork(), seen_by(stage, "/hourly")
    async with stage.running(env=env, cron=[HOURLY]):
        await env.until_asleep()
        assert requests == []
        env.move(3600)
        await stage.settled()
    [request] = requests
    assert (request.method, request.url.path, await request.body()) == ("GET", "/hourly", b"")
    assert request.headers["x-appengine-cron"] == "true"
    assert request.headers["x-appengine-queuename"] == "__cron"
    assert request.client is not None
    assert request.client.host == "0.1.0.1"
    [fired] = [event for event in stage.recorder.events if isinstance(event, CronFired)]
    assert (fired.name, fired.time_us) == (HOURLY.name, START_US + HOUR_US)
    assert stage.task_count() == 0


async def test_an_ordinary_route_is_called_and_nobody_else_can_pretend(stage: Stage) -> None:
    api, said = FastAPI(), list[str | None]()

    @api.get("/hourly")
    async def hourly(request: Request) -> None:
        said.append(request.headers.get("x-appengine-cron"))

    env = Clockwork()
    async with stage.running(api, env=env, cron=[HOURLY]) as app:
        await env.until_asleep()
        env.move(3600)
        await stage.settled()
        with anyio.fail_after(10):
            await anyio.to_thread.run_sync(lambda: TestClient(app).get("/hourly", headers={"X-AppEngine-Cron": "true"}))
    assert said == ["true", None]


async def test_every_kind_of_function_can_be_decorated(stage: Stage) -> None:
    env, ran = Clockwork(), list[str]()

    @cron("every day 00:01", router=stage.router)
    def plain(session: Session) -> None:
        session.add(Tally(key="plain", count=1))

    @cron("1 0 * * *", router=stage.router, url="/coroutine")
    async def coroutine(task: TaskContext, again: bool = True) -> None:
        ran.append(f"{task.url} {again}")

    @cron("every day 00:01", router=stage.router)
    @cron("every day 00:02", router=stage.router)
    @stage.task_handler("/handler")
    def handler(request: Request) -> None:
        ran.append(request.headers["x-appengine-cron"])

    async with stage.running(env=env) as hookware:
        assert [(each.entry.url, each.entry.schedule) for each in await hookware.cron.entries()] == [
            (f"/_ah/cron/{__name__}.test_every_kind_of_function_can_be_decorated.locals.plain", "every day 00:01"),
            ("/coroutine", "1 0 * * *"),
            ("/handler", "every day 00:02"),
            ("/handler", "every day 00:01"),
        ]
        await env.until_asleep()
        env.move(60)
        await stage.settled(3)
        env.move(60)
        await stage.settled(4)
        with anyio.fail_after(10):
            private = await anyio.to_thread.run_sync(lambda: TestClient(hookware).get("/coroutine"))
    assert stage.tally() == {"plain": 1}
    assert sorted(ran) == ["/coroutine True", "true", "true"]
    assert private.status_code == 403
    assert plain.__name__ == "plain", "the function is still there to be called"


@EVERY_ASYNC_DRIVER
async def test_with_an_async_engine_as_well(async_stage: Stage) -> None:
    requests = seen_by(async_stage, "/hourly")
    async with async_stage.running(cron=[HOURLY], dispatch=False) as app:
        await app.cron.resume(HOURLY.name)
    # The time of the database counts, and nobody moves that of PostgreSQL: let the entry have been due for long.
    async_stage.execute("UPDATE hookware_cron SET next_us = next_us - ?", 2 * HOUR_US)
    async with async_stage.running(cron=[HOURLY]):
        await async_stage.settled()
    assert len(requests) == 1


# Runs that fail.


@pytest.mark.slow
@pytest.mark.parametrize(("retry", "attempts"), [(None, 1), (TaskRetryOptions(min_backoff_seconds=0), 6)])
async def test_a_run_that_fails_is_not_tried_again_unless_its_entry_says_so(
    stage: Stage, retry: TaskRetryOptions | None, attempts: int
) -> None:
    env, tried = Clockwork(), list[int]()

    @cron("every 1 hours synchronized", router=stage.router, url="/fails", retry_options=retry)
    def fails(task: TaskContext) -> None:
        tried.append(task.attempt)
        raise ValueError("not today")

    async with stage.running(env=env) as hookware:
        await env.until_asleep()
        env.move(3600)
        await stage.settled(attempts)
        [task] = await hookware.inspector.list_tasks()
        assert (task.state, task.queue_name, task.attempt_count) == (State.DEAD, "__cron", attempts)
        env.move(3600)
        await stage.settled(attempts + 1)
    assert len(tried) >= attempts + 1, "its next time comes all the same"


# Where and when entries are fired.


async def test_a_process_that_runs_no_tasks_fires_none(stage: Stage) -> None:
    env = Clockwork()
    async with stage.running(env=env, cron=[HOURLY], dispatch=False) as hookware:
        env.move(7200)
        [status] = await hookware.cron.entries()
        assert (status.next_time, status.last_time) == (None, None)
        await hookware.cron.run_now(HOURLY.name)
    assert stage.rows("SELECT url FROM hookware_task") == ["/hourly"]
    assert env.slept == []


async def test_entries_that_are_there_when_the_app_starts_count(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="hookware")
    env, ran = Clockwork(), list[str]()
    app = stage.make(env=env)

    @cron("every 1 hours synchronized", router=stage.router, url="/late")
    def late() -> None:
        ran.append("late")

    async with serving(app):
        await env.until_asleep()
        env.move(3600)
        await stage.settled()
    assert ran == ["late"]
    assert caplog.messages[0].startswith("hookware: 1 task handler, 1 cron entry, sqlite:///")


@pytest.mark.slow
async def test_draining_ends_although_entries_come_due_for_ever(stage: Stage) -> None:
    requests = seen_by(stage, "/minutely")
    app = stage.make(cron=[entry("/minutely", "every 1 minutes synchronized"), FIVE])
    async with stage.running(cron=[entry("/minutely", "every 1 minutes synchronized"), FIVE]) as hookware:
        await stage.hookware.cron.pause(FIVE.name)
        assert len(await hookware.cron.entries()) == 2
    stage.execute("UPDATE hookware_cron SET next_us = next_us - ?", 2 * MINUTE_US)
    await stage.hookware.cron.run_now("/minutely every 1 minutes synchronized UTC")
    with anyio.fail_after(30):
        headless = Headless(app, Signals(is_awaited=True), drain=True)
        assert await headless.run() is None
    assert headless.status == 0
    assert len(requests) >= 1


# What people do with entries.


async def test_an_entry_tells_how_it_stands(stage: Stage) -> None:
    env, go_on = Clockwork(), anyio.Event()

    @stage.task_handler("/five")
    async def five() -> None:
        await go_on.wait()

    async with stage.running(env=env, cron=[FIVE, HOURLY]) as app:
        await env.until_asleep()
        first, second = await app.cron.entries()
        assert (first.name, first.entry, second.entry) == ("/five every 5 minutes UTC", FIVE, HOURLY)
        assert (first.next_time, first.last_time, first.task_id) == (MIDNIGHT + timedelta(minutes=5), None, None)
        assert (first.is_running, first.is_paused) == (False, False)
        env.move(300)
        await env.until_asleep()
        first, _ = await app.cron.entries()
        assert (first.next_time, first.last_time) == (None, MIDNIGHT + timedelta(minutes=5))
        assert first.is_running
        assert first.task_id in stage.rows("SELECT id FROM hookware_task")
        go_on.set()
        await stage.settled()
        env.move(1)
        await env.until_asleep()
        first, _ = await app.cron.entries()
        assert (first.next_time, first.is_running) == (MIDNIGHT + timedelta(minutes=10), False)


async def test_run_now_is_beside_the_times_of_an_entry_and_goes_past_a_pause(stage: Stage) -> None:
    env, requests = Clockwork(), seen_by(stage, "/hourly")
    async with stage.running(env=env, cron=[HOURLY]) as app:
        await env.until_asleep()
        before = await app.cron.entries()
        await app.cron.pause(HOURLY.name)
        env.move(3600)
        task_id = await app.cron.run_now(HOURLY.name)
        [attempt] = await stage.settled()
        assert attempt.task.id == task_id
        assert [request.headers["x-appengine-cron"] for request in requests] == ["true"]
        [after] = await app.cron.entries()
        assert (after.next_time, after.is_paused) == (before[0].next_time, True)
        # Of the time that passed within the grace, resuming makes up for.
        await app.cron.resume(HOURLY.name)
        env.move(1800)
        await stage.settled(2)
    assert stage.rows("SELECT last_us FROM hookware_cron") == [START_US + HOUR_US]


async def test_an_entry_that_was_paused_for_long_goes_on_with_its_next_time(stage: Stage) -> None:
    daily, env = entry("/daily", "every day 12:00"), Clockwork()
    requests = seen_by(stage, "/daily")
    async with stage.running(env=env, cron=[daily]) as app:
        await app.cron.pause(daily.name)
        await env.until_asleep()
        env.move(40 * 3600)
        await env.until_asleep()
        await app.cron.resume(daily.name)
        env.move(3600)
        await env.until_asleep()
        [status] = await app.cron.entries()
        assert (status.last_time, status.next_time) == (None, MIDNIGHT + timedelta(days=2, hours=12))
    assert requests == []


async def test_a_pause_outlives_the_process(stage: Stage) -> None:
    env, requests = Clockwork(), seen_by(stage, "/hourly")
    async with stage.running(env=env, cron=[HOURLY], dispatch=False) as app:
        await app.cron.pause(HOURLY.name)
        await app.cron.pause(HOURLY.name)
    async with stage.running(env=env, cron=[HOURLY]) as app:
        await env.until_asleep()
        env.move(7200)
        await env.until_asleep()
        assert [each.is_paused for each in await app.cron.entries()] == [True]
    assert requests == []


async def test_the_next_times_of_an_entry(stage: Stage) -> None:
    paris = entry("/paris", "every day 02:30", "Europe/Paris")
    times = stage.make(env=Clockwork(), cron=[paris, FIVE]).cron.next_times
    assert times(paris.name, 2) == [datetime(2026, 1, day, 1, 30, tzinfo=UTC) for day in (1, 2)]
    assert len(times(paris.name)) == 5
    # 02:30 on 29 March is a time that the clocks of Paris skip.
    spring = [datetime(2026, 3, 28, 1, 30, tzinfo=UTC), datetime(2026, 3, 30, 0, 30, tzinfo=UTC)]
    assert times(paris.name, 2, after=datetime(2026, 3, 28, tzinfo=UTC)) == spring
    assert times(paris.name, 2, after=datetime(2026, 3, 28)) == spring  # noqa: DTZ001 - taken for UTC, as an ETA is
    assert times(FIVE.name, 3) == [MIDNIGHT + timedelta(minutes=minutes) for minutes in (5, 10, 15)]
    exactly = datetime(2026, 3, 28, 1, 29, 59, 999_999, tzinfo=UTC)
    assert times(paris.name, 1, after=exactly) == spring[:1]
    assert times(paris.name, 1, after=spring[0]) == spring[1:]
    assert times(paris.name, 0) == []
    assert len(times(FIVE.name, 5000)) == 1000


async def test_an_entry_that_is_not_there_is_said_so(stage: Stage) -> None:
    async with stage.running(env=Clockwork(), cron=[HOURLY]) as app:
        for ask in (app.cron.run_now, app.cron.pause, app.cron.resume):
            with pytest.raises(
                UnknownCronEntryError, match=r"there is no cron entry '/x': entries\(\) gives the names"
            ):
                await ask("/x")
        with pytest.raises(UnknownCronEntryError):
            app.cron.next_times("/x")


async def test_a_route_has_the_entries_too(stage: Stage) -> None:
    api, requests = FastAPI(), seen_by(stage, "/hourly")

    @api.post("/run")
    async def run(name: str) -> int:
        return await cron_entries().run_now(name)

    stage.add_to(api, cron=[HOURLY])
    with anyio.fail_after(20):
        await anyio.to_thread.run_sync(post_and_wait, api, requests)
    assert len(requests) == 1


def post_and_wait(api: FastAPI, requests: list[Request]) -> None:
    with TestClient(api) as client:
        client.post("/run", params={"name": HOURLY.name}).raise_for_status()
        eventually(lambda: len(requests) == 1)


# From a file.


@pytest.mark.parametrize(
    "source", [str, Path, lambda _path: {"cron": [{"url": "/hourly", "schedule": "every 1 hours"}]}]
)
async def test_a_cron_yaml_by_its_path_or_as_a_mapping(
    stage: Stage, tmp_path: Path, source: Callable[[Path], Any]
) -> None:
    path = tmp_path / "cron.yaml"
    path.write_text("cron:\n- url: /hourly\n  schedule: every 1 hours\n  description: a test\n")
    env, requests = Clockwork(), seen_by(stage, "/hourly")
    async with stage.running(env=env, cron=source(path)):
        await env.until_asleep()
        env.move(3600)
        await stage.settled()
    assert len(requests) == 1


async def test_an_app_may_be_added_with_a_cron_yaml_that_is_wrong_and_says_so(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "cron.yaml"
    path.write_text("cron:\n- url: /hourly\n  schedule: every 5 parsecs\n")
    app = Starlette()
    app.add_middleware(Hookware, engine=stage.engine, router=stage.router, cron=path)
    with pytest.raises(Error, match=r"cron\.yaml, line 3: cron\[0\]\.schedule: .*'every 5 parsecs'"):
        await anyio.to_thread.run_sync(lambda: TestClient(app).__enter__())
