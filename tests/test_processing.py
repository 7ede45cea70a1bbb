"""The loops as they are wired together in a running Hookware, on a real database."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, closing, nullcontext
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import create_engine
from starlette.types import Receive, Scope, Send

from hookware import dispatcher, taskqueue
from hookware.config import Config
from hookware.core.lifecycle import Complete, Outcome
from hookware.core.task import LeasedTask, NewTask
from hookware.delivery import Target
from hookware.env import Env, Ticker
from hookware.events import Events
from hookware.presence import Presence
from hookware.processing import Processing
from hookware.store.base import Claim
from hookware.store.sql import processes, sqlite
from hookware.store.sql.outbox import Outbox
from tests.samples import new_task
from tests.serving import serving
from tests.stage import Stage


class Still:
    """A heart that does not beat."""

    def stop(self) -> None:
        """Have nothing to stop."""


class SteppingEnv(Env):
    """A host whose clock steps, whose heart does not beat meanwhile, and whose reaper hardly pauses."""

    def __init__(self) -> None:
        super().__init__()
        self.step_us = 0
        self.pause_count = 0

    def now_us(self) -> int:
        return super().now_us() + self.step_us

    def every(self, seconds: float, step: Callable[[], None], *, name: str) -> Ticker:
        return Still()

    async def sleep(self, seconds: float) -> None:
        self.pause_count += 1
        await anyio.sleep(0.01)


async def test_a_step_of_the_clock_does_not_make_a_process_reap_its_own_living_tasks(stage: Stage) -> None:
    env = SteppingEnv()
    started, release = anyio.Event(), anyio.Event()

    @stage.task_handler("/worker")
    async def worker() -> None:
        started.set()
        await release.wait()

    async with stage.running(env=env):
        await worker.add_async()
        await started.wait()
        env.step_us = 60_000_000
        seen = env.pause_count
        with anyio.fail_after(5):
            while env.pause_count < seen + 4:
                await anyio.lowlevel.checkpoint()
        release.set()
        (settled,) = await stage.settled()
    assert (settled.decision, settled.accepted) == (Complete(), True)


# Shut down, while another process holds the lock of the database for good.


class Site:
    """Loops over an outbox of their own, short of patience; and another process's connection to its file."""

    def __init__(self, path: Path, other: sqlite3.Connection) -> None:
        self.config = Config(drain_seconds=0.05, overrun_seconds=0.05, poll_seconds=0.01)
        self.events = Events()
        self.outbox = Outbox(create_engine(f"sqlite:///{path}"), env=Env(), config=self.config, events=self.events)
        self.other = other
        self.started, self.release = anyio.Event(), anyio.Event()
        self.calls = 0

    async def app(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        self.calls += 1
        self.started.set()
        await self.release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    @asynccontextmanager
    async def processing(self) -> AsyncIterator[Processing]:
        """Hold the loops between start and stop; stop is the caller's."""
        async with anyio.create_task_group() as loops:
            processing = Processing(self.outbox, Target(self.app, {}, loops))
            await processing.start(loops)
            with anyio.fail_after(10):
                yield processing

    async def wait_until_a_call_is_on_its_way(self) -> None:
        while not self.outbox.runner._writing.borrowed_tokens:  # type: ignore[attr-defined]  # a ThreadRunner
            await anyio.lowlevel.checkpoint()


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(dispatcher, "_WRITE_SECONDS", 0.2)
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 20)  # a thread given up ends soon
    path = tmp_path / "site.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        site = Site(path, other)
        await site.outbox.prepare()
        yield site
        await site.outbox.close()
        site.outbox.sync_engine.dispose()


@pytest.mark.slow
async def test_results_that_cannot_be_stored_do_not_hold_up_the_shutdown(site: Site) -> None:
    await site.outbox.add([new_task(1)])
    async with site.processing() as processing:
        await site.started.wait()
        site.other.execute("BEGIN IMMEDIATE")
        site.release.set()
        await site.wait_until_a_call_is_on_its_way()
        with anyio.fail_after(1.5):
            await processing.stop()
    site.other.execute("ROLLBACK")
    assert site.calls == 1


@pytest.mark.slow
async def test_a_claim_and_a_reaper_that_hang_do_not_hold_up_the_shutdown_and_a_new_start_works(site: Site) -> None:
    site.other.execute("BEGIN IMMEDIATE")
    async with site.processing() as processing:
        await site.wait_until_a_call_is_on_its_way()
        with anyio.fail_after(1.2):
            await processing.stop()
    site.other.execute("ROLLBACK")
    site.release.set()
    async with site.processing() as processing:
        await site.outbox.add([new_task(1)])
        await site.started.wait()
        await processing.stop()
    assert site.calls == 1
    assert site.other.execute("SELECT count(*) FROM hookware_task").fetchall() == [(0,)]


async def test_nothing_is_drained_before_the_reaper_has_looked(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = anyio.Event(), anyio.Event()
    ran: list[str] = []

    @stage.task_handler("/worker")
    async def worker() -> None:
        ran.append("")

    async with stage.running(dispatch=False) as gone:
        await worker.add_async()
        await gone._outbox.store.claim(Claim(owner="gone", limit=1, lease_us=1))
    hookware = stage.make()
    owners = hookware._outbox.store.owners

    async def late_owners() -> dict[str, int]:
        asked.set()
        await go_on.wait()
        return await owners()

    monkeypatch.setattr(hookware._outbox.store, "owners", late_owners)
    async with serving(hookware):
        processing = hookware.processing
        assert processing is not None
        await asked.wait()
        with anyio.fail_after(10):
            while not await processing._dispatcher.is_drained():
                await anyio.wait_all_tasks_blocked()
            assert not await processing.is_drained()
            go_on.set()
            while not await processing.is_drained():
                await anyio.wait_all_tasks_blocked()
    assert ran == [""]


class BrokenTrace:
    """A trace that does what none may do."""

    headers = ()

    def entered(self) -> AbstractContextManager[object]:
        return nullcontext()

    def end(self, outcome: Outcome, error: BaseException | None) -> None:
        raise RuntimeError("the trace is broken")


class BrokenTracing:
    """Traces by such traces."""

    def added(self, tasks: Sequence[NewTask]) -> Sequence[NewTask]:
        return tasks

    def begin(self, task: LeasedTask) -> BrokenTrace:
        return BrokenTrace()


async def test_a_trace_that_breaks_at_the_end_costs_no_slot(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    @stage.task_handler("/worker")
    async def worker() -> None:
        pass

    async with stage.running(concurrency=1) as hookware:
        hookware._outbox.tracing = BrokenTracing()
        await taskqueue.Queue().add_async([taskqueue.Task(url="/worker") for _ in range(3)])
        settled = await stage.settled(3)
    assert [each.decision for each in settled] == [Complete()] * 3
    assert "its trace could not be ended" in caplog.text


async def test_a_process_says_that_it_is_alive_until_what_it_runs_has_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    go_on = anyio.Event()
    stop = Presence.stop

    def stopping(presence: Presence) -> None:
        order.append("silent")
        stop(presence)

    @stage.task_handler("/worker")
    async def worker() -> None:
        go_on.set()
        await anyio.sleep(0.05)
        order.append("handled")

    monkeypatch.setattr(Presence, "stop", stopping)
    async with stage.running():
        await taskqueue.add_async(url="/worker")
        await go_on.wait()
    assert order[:2] == ["handled", "silent"]


async def test_a_process_that_only_stores_tells_which_of_its_loops_fail(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_given: object) -> None:
        raise OSError("the table is gone")

    monkeypatch.setattr(processes, "beat", refuse)
    async with stage.running(dispatch=False) as hookware:
        with anyio.fail_after(10):
            while "presence" not in hookware._outbox.vitals.failing():
                await anyio.lowlevel.checkpoint()
