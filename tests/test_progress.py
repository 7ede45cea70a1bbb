"""Progress: what a handler says is shown to people, costs it nothing, and disturbs nothing."""

import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint
from sqlmodel import Session

from hookware import State, TaskContext
from hookware.core.task import Lease, Progress
from hookware.delivery import Delivery
from hookware.env import Env
from hookware.errors import InvalidProgressError, TransientError
from hookware.events import Events
from hookware.health import Health
from hookware.progress import ProgressLog
from hookware.store.base import Claim
from hookware.store.memory import MemoryStore
from tests.databases import EVERY_DATABASE_ON_A_LOOP, POSTGRESQL_ON_A_LOOP, Database
from tests.samples import leased_task, new_task
from tests.stage import Stage, Tally

# In a running Hookware.


async def shown(stage: Stage, wanted: Progress) -> None:
    """Wait until people see this of the one task that there is."""
    with anyio.fail_after(10):
        while (await stage.hookware.inspector.list_tasks())[0].progress != wanted:
            await checkpoint()


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("is_async", [True, False])
async def test_what_a_handler_says_is_shown_while_it_runs(stage: Stage, is_async: bool) -> None:
    said, go_on = threading.Event(), anyio.Event()

    async def in_a_loop(task: TaskContext) -> None:
        task.progress(1, 3, "ä\0" + "x" * 300)
        await go_on.wait()
        task.progress(2, 3)

    def in_a_thread(task: TaskContext) -> None:
        task.progress(1, 3, "ä\0" + "x" * 300)
        said.wait(10)
        task.progress(2, 3)

    worker = stage.task_handler("/worker")(in_a_loop if is_async else in_a_thread)
    async with stage.running():
        await stage.hookware.inspector.set_overrides("default", {"retention_seconds": 60.0})
        await worker.add_async()
        await shown(stage, Progress(1, 3, "ä\0" + "x" * 198))
        said.set()
        go_on.set()
        await shown(stage, Progress(2, 3))  # although its attempt is over
        (info,) = await stage.hookware.inspector.list_tasks()
        assert info.state is State.COMPLETED


@POSTGRESQL_ON_A_LOOP
async def test_a_row_that_is_locked_holds_up_no_other(stage: Stage) -> None:
    async with stage.running(dispatch=False) as hookware:
        store = hookware._outbox.store
        await store.add([new_task(1), new_task(2)])
        one, two = sorted(t.lease for t in (await store.claim(Claim(owner="me", limit=2, lease_us=10**9))).tasks)
        with stage.sync_engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM hookware_task WHERE id = 1")
            assert await store.note_progress({one: Progress(1), two: Progress(2)}) == {2}
            connection.rollback()
        assert [info.progress for info in await store.list_tasks()] == [None, Progress(2)]


@POSTGRESQL_ON_A_LOOP
async def test_it_does_not_disturb_a_transaction_that_keeps_a_snapshot(database: Database) -> None:
    stage = Stage(database, isolation_level="REPEATABLE READ")
    started_count = 0

    @stage.task_handler("/worker")
    async def worker(task: TaskContext) -> None:
        nonlocal started_count
        started_count += 1
        processing = stage.hookware.processing
        assert processing is not None
        with Session(stage.sync_engine) as session:
            session.add(Tally(key="x", count=1))
            session.flush()
            task.progress(1)
            await processing._progress.write()
            task.complete_in(session)
            session.commit()

    async with stage.running():
        await worker.add_async()
        await stage.settled()
    assert (started_count, stage.tally()) == (1, {"x": 1})
    await stage.close()


# What may be said.


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 10**400, "1", None, True, 1j])
@pytest.mark.parametrize("which", ["done", "total"])
def test_what_is_no_finite_number_is_refused(which: str, wrong: object) -> None:
    task = TaskContext(Delivery(leased_task()))
    if which == "total" and wrong is None:
        return
    given = {"done": 1, "total": 2} | {which: wrong}
    with pytest.raises(InvalidProgressError, match=f"^{which} must be a finite number, got "):
        task.progress(**given)  # type: ignore[arg-type]  # that is what is tried


def test_a_note_must_be_a_text_and_is_cut() -> None:
    delivery = Delivery(leased_task())
    heard: list[Progress] = []
    delivery.on_progress = lambda _lease, said: heard.append(said)
    task = TaskContext(delivery)
    with pytest.raises(InvalidProgressError, match=r"^note must be a text, got b'x': "):
        task.progress(1, note=b"x")  # type: ignore[arg-type]  # that is what is tried
    task.progress(-1.5, note="\udc80" + "y" * 1000)
    assert heard == [Progress(-1.5, None, "?" + "y" * 199)]


def test_saying_the_same_again_says_nothing() -> None:
    delivery = Delivery(leased_task())
    heard: list[Progress] = []
    delivery.on_progress = lambda _lease, said: heard.append(said)
    task = TaskContext(delivery)
    for done in (1, 1, 1, 2, 2, 1):
        task.progress(done)
    assert [said.done for said in heard] == [1, 2, 1]


# How it is written down.


class PacedEnv(Env):
    """An Env whose pauses end when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self.go_on = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.go_on = anyio.Event()
        await self.go_on.wait()


class NotingStore(MemoryStore):
    """Keeps what it was asked to note, and answers as a test says."""

    def __init__(self) -> None:
        super().__init__(lambda: 0, tombstone_us=0)
        self.noted: list[dict[Lease, Progress]] = []
        self.answer: Callable[[Mapping[Lease, Progress]], Awaitable[frozenset[int]]] = everything

    async def note_progress(self, notes: Mapping[Lease, Progress]) -> frozenset[int]:
        self.noted.append(dict(notes))
        return await self.answer(notes)


async def everything(notes: Mapping[Lease, Progress]) -> frozenset[int]:
    return frozenset(lease.task_id for lease in notes)


async def nothing(_notes: Mapping[Lease, Progress]) -> frozenset[int]:
    return frozenset()


class Desk:
    """A progress log that runs, and what it writes on."""

    def __init__(self) -> None:
        self.env, self.store = PacedEnv(), NotingStore()
        self.health = Health(self.env)
        self.log = ProgressLog(self.store, self.env, Events(), self.health)

    async def settle_down(self) -> None:
        """Let the loop do all that it can do now."""
        await anyio.wait_all_tasks_blocked()

    async def let_time_pass(self) -> None:
        self.env.go_on.set()
        await self.settle_down()


@asynccontextmanager
async def noting() -> AsyncIterator[Desk]:
    desk = Desk()
    async with anyio.create_task_group() as loops:
        loops.start_soon(desk.log.run)
        await desk.settle_down()
        yield desk
        desk.log.stop()


ONE, TWO = Lease(1, 1), Lease(2, 1)


async def test_only_the_latest_is_written_all_at_once_and_not_twice_within_half_a_second() -> None:
    async with noting() as desk:
        for done in range(1000):
            desk.log.note(ONE, Progress(done))
        desk.log.note(TWO, Progress(7))
        await desk.settle_down()
        assert desk.store.noted == [{ONE: Progress(999), TWO: Progress(7)}]
        desk.log.note(ONE, Progress(1000))
        await desk.settle_down()
        assert len(desk.store.noted) == 1
        assert desk.env.pauses == [0.5]
        await desk.let_time_pass()
        assert desk.store.noted[1:] == [{ONE: Progress(1000)}]


async def test_where_nothing_is_said_nothing_is_done() -> None:
    async with noting() as desk:
        desk.log.note(ONE, Progress(1))
        await desk.settle_down()
        await desk.let_time_pass()
        await desk.let_time_pass()
        assert (len(desk.store.noted), desk.env.pauses) == (1, [0.5])


@pytest.mark.parametrize("error", [TransientError("busy"), ConnectionError("the database is away")])
async def test_after_an_error_what_is_newest_is_written(error: Exception) -> None:
    async def fail(_notes: Mapping[Lease, Progress]) -> frozenset[int]:
        desk.log.note(TWO, Progress(2))
        raise error

    async with noting() as desk:
        desk.store.answer = fail
        desk.log.note(ONE, Progress(1))
        desk.log.note(TWO, Progress(1))
        await desk.settle_down()
        desk.store.answer = everything
        await desk.let_time_pass()
        assert desk.store.noted[1:] == [{ONE: Progress(1), TWO: Progress(2)}]
        assert desk.health.ok


async def test_a_database_that_is_only_busy_is_no_trouble() -> None:
    async def fail(_notes: Mapping[Lease, Progress]) -> frozenset[int]:
        raise TransientError("busy")

    async with noting() as desk:
        desk.store.answer = fail
        desk.log.note(ONE, Progress(1))
        await desk.settle_down()
        assert desk.health.ok


async def test_what_could_not_be_written_is_tried_once_more_and_then_forgotten() -> None:
    async with noting() as desk:
        desk.store.answer = nothing
        desk.log.note(ONE, Progress(1))
        await desk.settle_down()
        for _ in range(3):
            await desk.let_time_pass()
        assert desk.store.noted == [{ONE: Progress(1)}] * 2
