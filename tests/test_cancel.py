"""Calling a task off while it runs: its handler is cancelled, what it wrote is rolled back, and it stays off."""

import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import anyio.to_thread
import pytest
from sqlmodel import Session

from hookware import Hookware, Queue, State, TaskContext, TaskRouter, request_session
from tests.databases import EVERY_DATABASE_ON_A_LOOP
from tests.stage import Stage, Tally


class Waiting:
    """A handler that writes, ends with that, and waits until it is let on; at the second attempt it does not wait."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.started, self.cancelled = anyio.Event(), anyio.Event()
        self.started_count = 0
        self.worker = stage.task_handler("/worker")(self.handle)

    async def handle(self, task: TaskContext) -> None:
        self.started_count += 1
        with Session(self._stage.sync_engine) as session:
            session.add(Tally(key="x", count=1))
            task.complete_in(session)
            if self._stage.sync_engine.dialect.name == "postgresql":
                session.flush()  # on SQLite, that would keep everybody else from writing
            self.started.set()
            if self.started_count == 1:
                await self._wait()
            session.commit()

    async def _wait(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.set()


@pytest.fixture
async def elsewhere(stage: Stage) -> AsyncIterator[Hookware]:
    """Give another Hookware on the same database, as another process has it: it runs nothing itself."""
    engine = stage.database.engine()
    yield Hookware(engine=engine, dispatch=False, router=TaskRouter())
    engine.dispose()


async def wait_for(event: anyio.Event) -> None:
    with anyio.fail_after(10):
        await event.wait()


async def cancel_and_revive(stage: Stage, cancelling: Hookware, waiting: Waiting) -> None:
    """Call the one task off, see that it stays off, and revive it."""
    inspector = cancelling.inspector
    (running,) = await inspector.list_tasks()
    assert await inspector.cancel(running.id) is True
    await wait_for(waiting.cancelled)
    ran = anyio.Event()

    @stage.task_handler("/marker")
    async def marker() -> None:
        ran.set()

    await marker.add_async()
    await wait_for(ran)
    assert waiting.started_count == 1
    assert stage.tally() == {}
    info = await inspector.get(running.id)
    assert info is not None
    assert (info.state, info.dead_reason, info.attempt_count) == (State.DEAD, "cancelled", 1)
    assert await inspector.run_again(running.id)
    stage.hookware._outbox.on_committed()  # type: ignore[misc]  # look at once
    await stage.settled(2)
    assert (waiting.started_count, stage.tally()) == (2, {"x": 1})
    assert await inspector.cancel(running.id) is False


@EVERY_DATABASE_ON_A_LOOP
async def test_a_handler_that_waits_for_ever_is_cancelled_from_another_process(
    stage: Stage, elsewhere: Hookware, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = Waiting(stage)
    async with stage.running(lease_seconds=1):
        await waiting.worker.add_async()
        await wait_for(waiting.started)
        await cancel_and_revive(stage, elsewhere, waiting)
    assert "they were cancelled, or other attempts have them" in caplog.text


@EVERY_DATABASE_ON_A_LOOP
async def test_in_its_own_process_it_is_cancelled_at_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    waiting = Waiting(stage)
    async with stage.running(lease_seconds=3600) as hookware:  # so long that no heartbeat can tell
        await waiting.worker.options(name="report").add_async()
        await wait_for(waiting.started)
        await cancel_and_revive(stage, hookware, waiting)
    assert "task report was cancelled or deleted: its attempt is cut short" in caplog.text
    assert "lost the lease" not in caplog.text


@EVERY_DATABASE_ON_A_LOOP
async def test_a_handler_that_cannot_be_cancelled_goes_on_for_nothing(
    stage: Stage, elsewhere: Hookware, caplog: pytest.LogCaptureFixture
) -> None:
    started, go_on = anyio.Event(), threading.Event()

    @stage.task_handler("/worker")
    def worker() -> None:
        anyio.from_thread.run_sync(started.set)
        go_on.wait(10)
        request_session().add(Tally(key="x", count=1))

    async with stage.running(lease_seconds=3600):
        await worker.options(name="report").add_async()
        await wait_for(started)
        (running,) = await elsewhere.inspector.list_tasks()
        assert await elsewhere.inspector.cancel(running.id)
        go_on.set()
        (settled,) = await stage.settled()
        assert not settled.accepted
        info = await elsewhere.inspector.get(running.id)
        assert info is not None
        assert (info.state, info.dead_reason) == (State.DEAD, "cancelled")
    assert stage.tally() == {}
    assert "task report was cancelled; what this one wrote is rolled back" in caplog.text


async def delete(queue: Queue) -> None:
    assert (await queue.delete_tasks_by_name_async("report")).was_deleted


async def delete_blocking(queue: Queue) -> None:
    deleted = await anyio.to_thread.run_sync(queue.delete_tasks_by_name, "report")
    assert deleted.was_deleted


async def purge(queue: Queue) -> None:
    await queue.purge_async()


async def purge_blocking(queue: Queue) -> None:
    await anyio.to_thread.run_sync(queue.purge)


@EVERY_DATABASE_ON_A_LOOP
@pytest.mark.parametrize("remove", [delete, delete_blocking, purge, purge_blocking])
async def test_deleting_and_purging_cut_it_short_at_once_too(
    stage: Stage, remove: Callable[[Queue], Awaitable[None]]
) -> None:
    waiting, other = Waiting(stage), anyio.Event()

    @stage.task_handler("/other")
    async def spared() -> None:
        other.set()
        await go_on.wait()

    go_on = anyio.Event()
    async with stage.running(lease_seconds=3600):  # so long that no heartbeat can tell
        await waiting.worker.options(name="report").add_async()
        await spared.options(queue_name="mail").add_async()
        await wait_for(waiting.started)
        await wait_for(other)
        await remove(Queue())
        await wait_for(waiting.cancelled)
        go_on.set()
        (settled,) = await stage.settled()
    assert (settled.task.url, settled.accepted, waiting.started_count) == ("/other", True, 1)
    assert (stage.tally(), stage.task_count()) == ({}, 0)
