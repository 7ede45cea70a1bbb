"""The metrics, read by Prometheus' own parser: they add up, cost little, and outlive the database."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette

from hookware import PermanentTaskFailure, Queue, QueueSettings
from hookware.core.lifecycle import Complete, Die, Release, Retry
from hookware.errors import ConfigurationError
from hookware.events import AttemptSettled, AttemptStarted, CronFired, LoopFailed, TasksCommitted
from hookware.prometheus import Prometheus
from hookware.store.base import Claim
from tests.asgi import request
from tests.databases import EVERY_DATABASE_ON_A_LOOP, Database
from tests.monitoring.metrics import Page, scrape
from tests.samples import SkippingEnv, SteppedEnv, leased_task
from tests.stage import AT_ONCE, Stage

ROOT = Path(__file__).parent.parent.parent


async def test_the_metrics_of_many_tasks_add_up_exactly(stage: Stage) -> None:
    prometheus = Prometheus()

    @stage.task_handler("/worker")
    async def worker(number: int, attempt_wanted: int) -> None:
        if number == -1:
            raise PermanentTaskFailure("never")
        tries[number] = tries.get(number, 0) + 1
        if tries[number] < attempt_wanted:
            raise ValueError("not yet")

    tries: dict[int, int] = {}
    queues = [QueueSettings(name="mail", retry=AT_ONCE), QueueSettings(name="default", retry=AT_ONCE)]
    async with stage.running(observers=[prometheus], queues=queues, unknown_queues="allow"):
        for number in range(12):  # each needs one, two or three attempts
            await worker.options(queue_name="mail").add_async(number=number, attempt_wanted=number % 3 + 1)
        for number in range(12, 19):
            await worker.add_async(number=number, attempt_wanted=1)
        for _ in range(3):
            await worker.options(queue_name="unheard-of").add_async(number=-1, attempt_wanted=1)
        await stage.settled(24 + 7 + 3)
        page = await scrape(prometheus)

    assert page.by("hookware_attempts_started_total", "queue") == {"mail": 24, "default": 7, "other": 3}
    outcomes = {
        (dict(labels)["queue"], dict(labels)["outcome"]): value
        for (name, labels), value in page.samples.items()
        if name == "hookware_attempts_total"
    }
    assert outcomes == {
        ("mail", "completed"): 12, ("mail", "retried"): 12, ("default", "completed"): 7, ("other", "dead"): 3,
    }  # fmt: skip
    assert page.value("hookware_tasks_committed_total") == 22
    for name in ("hookware_attempt_duration_seconds_count", "hookware_task_latency_seconds_count"):
        assert page.by(name, "queue") == {"mail": 24, "default": 7, "other": 3}
    assert page.value("hookware_queue_tasks", queue="other", state="dead") == 3
    assert page.value("hookware_queue_tasks", queue="mail", state="due") == 0
    assert page.total("hookware_queue_tasks") == 3
    assert page.value("hookware_database_up") == 1


@pytest.mark.parametrize("options", [{"most_counted": 0}, {"fresh_seconds": 0.5}])
def test_what_would_make_a_scrape_costly_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        Prometheus(**options)


def noted(*events: object) -> Page:
    prometheus = Prometheus()
    for event in events:
        prometheus._meters.note(frozenset({"default"}), event)  # type: ignore[arg-type]  # an Event
    return Page(generate_latest(prometheus.registry).decode())


def test_what_was_not_begun_here_has_no_duration_and_what_crashed_counts_apart() -> None:
    task = leased_task()
    page = noted(
        AttemptStarted(task, 0.2),
        AttemptSettled(task, Complete(), True, 1.5),
        AttemptSettled(task, Release(), True, 0.1, was_begun=False),
        AttemptSettled(task, Retry(0, None, "", crashed=True), True, 0.0, was_begun=False),
        AttemptSettled(task, Die("crashes", None, "", crashed=True), True, 0.0, was_begun=False),
        AttemptSettled(task, Complete(), False, 2.0),
        AttemptSettled(task, Complete(), None, 2.0),
        TasksCommitted(4),
        LoopFailed("reaper", OSError(), 1.0),
        CronFired("daily", 0, 1),
    )
    assert page.by("hookware_attempts_total", "outcome") == {
        "completed": 1, "released": 1, "retried": 1, "dead": 1, "refused": 1, "unknown": 1,
    }  # fmt: skip
    assert page.value("hookware_attempt_duration_seconds_count", queue="default") == 3
    assert page.value("hookware_attempt_duration_seconds_sum", queue="default") == 5.5
    assert page.value("hookware_leases_expired_total", queue="default") == 2
    assert page.value("hookware_task_latency_seconds_sum", queue="default") == 0.2
    assert page.value("hookware_tasks_committed_total") == 4
    assert page.value("hookware_loop_failures_total", loop="reaper") == 1
    assert page.value("hookware_cron_fired_total") == 1


async def test_latency_counts_from_when_the_task_was_due(stage: Stage) -> None:
    prometheus = Prometheus()

    @stage.task_handler("/worker")
    async def worker() -> None: ...

    async with stage.running(dispatch=False):
        await worker.add_async()
    stage.execute("UPDATE hookware_task SET eta_us = eta_us - 40000000")
    async with stage.running(observers=[prometheus]):
        await stage.settled()
        page = await scrape(prometheus)
    latency = page.value("hookware_task_latency_seconds_sum", queue="default")
    assert latency is not None
    assert 40 <= latency < 50


def states(page: Page, queue: str) -> list[float | None]:
    names = ("waiting", "due", "leased", "dead")
    return [page.value("hookware_queue_tasks", queue=queue, state=state) for state in names]


@EVERY_DATABASE_ON_A_LOOP
async def test_gauges_tell_what_waits_is_due_runs_and_is_dead(database: Database) -> None:
    stage, prometheus = Stage(database), Prometheus(most_counted=5)

    @stage.task_handler("/worker")
    async def worker() -> None: ...

    queues = [QueueSettings(name="mail"), Queue("pulled", mode="pull"), QueueSettings(name="idle")]
    env = SkippingEnv()
    async with stage.running(
        observers=[prometheus], queues=queues, unknown_queues="allow", dispatch=False, env=env
    ) as hookware:
        for _ in range(3):
            await worker.options(countdown=3600).add_async()
        for _ in range(4):
            await worker.options(queue_name="mail").add_async()
        await worker.options(queue_name="mail", priority=7).add_async()
        await worker.options(queue_name="mail", priority=7, countdown=60).add_async()
        for _ in range(9):
            await worker.options(queue_name="strange").add_async()
        stage.execute("UPDATE hookware_task SET eta_us = eta_us - 30000000 WHERE queue_name = 'mail'")
        first = await scrape(prometheus)
        exclude = frozenset({"strange"})
        await hookware._outbox.store.claim(Claim(owner="me", limit=2, lease_us=10**9, exclude=exclude))
        stage.execute("UPDATE hookware_task SET state = 2 WHERE queue_name = 'strange'")
        env.skip(5)
        second = await scrape(prometheus)
    await stage.close()

    assert states(first, "default") == [3, 0, 0, 0]
    assert states(first, "mail") == [1, 5, 0, 0]
    assert states(first, "other") == [0, 5, 0, 0], "nine, of which five are counted"
    assert states(first, "idle") == [0, 0, 0, 0]
    age = first.by("hookware_queue_oldest_due_age_seconds", "queue")
    assert 30 <= age["mail"] < 60
    assert age["default"] == age["idle"] == 0
    assert states(second, "mail") == [1, 3, 2, 0]
    assert states(second, "other") == [0, 0, 0, 5]
    assert set(second.by("hookware_queue_oldest_due_age_seconds", "queue")) == {
        "default", "mail", "pulled", "idle", "__cron", "other",
    }  # fmt: skip


@pytest.mark.usefixtures("alone")
async def test_the_numbers_are_read_once_in_a_while_however_many_ask(stage: Stage) -> None:
    env, prometheus = SteppedEnv(), Prometheus(fresh_seconds=5)
    hookware = stage.make(observers=[prometheus], env=env, dispatch=False)
    await hookware._outbox.prepare()
    assert (await scrape(prometheus)).value("hookware_queue_tasks", queue="default", state="due") == 0

    @stage.task_handler("/worker")
    async def worker() -> None: ...

    await worker.add_async()
    env.advance(4.9)
    assert (await scrape(prometheus)).value("hookware_queue_tasks", queue="default", state="due") == 0
    env.advance(0.2)
    assert (await scrape(prometheus)).value("hookware_queue_tasks", queue="default", state="due") == 1
    await hookware._outbox.close()


async def test_without_the_database_the_counters_are_there_all_the_same(stage: Stage) -> None:
    env, prometheus = SkippingEnv(), Prometheus()
    async with stage.running(observers=[prometheus], dispatch=False, env=env) as hookware:
        hookware.events.emit(TasksCommitted(3))
        stage.execute("ALTER TABLE hookware_task RENAME TO away")
        page = await scrape(prometheus)
        assert page.value("hookware_database_up") == 0
        assert page.by("hookware_queue_tasks", "queue") == {}
        assert page.value("hookware_tasks_committed_total") == 3
        stage.execute("ALTER TABLE away RENAME TO hookware_task")
        env.skip(5)
        assert (await scrape(prometheus)).value("hookware_database_up") == 1


async def test_a_registry_of_the_application_shows_the_gauges_wherever_it_is_read(stage: Stage) -> None:
    registry = CollectorRegistry(auto_describe=True)
    async with stage.running(observers=[Prometheus(registry)], dispatch=False):
        in_thread = Page((await anyio.to_thread.run_sync(generate_latest, registry)).decode())
        with anyio.fail_after(10):  # on the loop nobody waits: a later one has what this one asked for
            while Page(generate_latest(registry).decode()).value("hookware_database_up") != 1:
                await anyio.lowlevel.checkpoint()
    assert in_thread.value("hookware_queue_tasks", queue="default", state="due") == 0


async def test_a_route_of_the_app_serves_them_also_as_openmetrics(stage: Stage) -> None:
    prometheus, app = Prometheus(), Starlette()
    app.add_route("/metrics", prometheus.endpoint)
    async with stage.running(app, observers=[prometheus]) as hookware:
        assert (await scrape(hookware)).value("hookware_database_up") == 1
        accept = [(b"accept", b"application/openmetrics-text; version=1.0.0")]
        answer = await request(hookware, "/metrics", method="GET", headers=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


_PROCESS = """
import anyio
from hookware import Hookware
from hookware.events import TasksCommitted
from hookware.prometheus import Prometheus
from tests.monitoring.metrics import scrape

prometheus = Prometheus()
hookware = Hookware(engine="sqlite:///m.db", observers=[prometheus])
hookware.events.emit(TasksCommitted({count}))
page = anyio.run(scrape, prometheus)
print(page.value("hookware_tasks_committed_total"), page.value("hookware_build_info", version="0.1.0"))
"""


def python(code: str, cwd: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_with_the_directory_of_prometheus_client_processes_add_up(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    first = python(_PROCESS.format(count=2), tmp_path, PROMETHEUS_MULTIPROC_DIR=str(shared))
    second = python(_PROCESS.format(count=5), tmp_path, PROMETHEUS_MULTIPROC_DIR=str(shared))
    assert (first.stdout, second.stdout) == ("2.0 1.0\n", "7.0 1.0\n"), first.stderr + second.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [("prometheus", "prometheus_client", "prometheus"), ("opentelemetry", "opentelemetry", "otel")],
)
def test_an_extra_that_is_missing_is_named_and_one_that_is_not_used_is_not_imported(
    module: str, library: str, extra: str, tmp_path: Path
) -> None:
    missing = python(f"import sys; sys.modules[{library!r}] = None; import hookware.{module}", tmp_path)
    assert f'pip install "hookware[{extra}]"' in missing.stderr
    code = f"import hookware, sys; print([name for name in sys.modules if name.partition('.')[0] == {library!r}])"
    assert python(code, tmp_path).stdout == "[]\n"
