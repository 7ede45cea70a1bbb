"""Whatever the application's logging raises, no loop ends and no request fails."""

import logging
from collections.abc import Iterator

import anyio
import pytest

from hookware.env import Env, Wake
from hookware.events import AttemptStarted, Event, Events, LoopFailed, TasksCommitted
from hookware.health import Health
from hookware.log import log_of
from hookware.supervisor import supervise
from tests.dispatching import dispatching
from tests.samples import new_task


class Refusing(logging.Filter):
    """As one that reads a context variable of the request, of which the background has none."""

    def filter(self, _record: logging.LogRecord) -> bool:
        raise LookupError("request_id")


@pytest.fixture
def refused() -> Iterator[None]:
    loggers, refusing = [logging.getLogger(name) for name in ("hookware", "hookware.env")], Refusing()
    for logger in loggers:
        logger.addFilter(refusing)
    loggers[0].setLevel(logging.INFO)
    yield
    loggers[0].setLevel(logging.NOTSET)
    for logger in loggers:
        logger.removeFilter(refusing)


@pytest.mark.usefixtures("refused")
def test_a_line_that_is_refused_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log_of().warning("the sky is %s", "falling")
    said = capsys.readouterr().err
    assert "the sky is" in said
    assert "LookupError: request_id" in said


def test_a_line_says_where_it_comes_from_and_carries_what_it_was_given(caplog: pytest.LogCaptureFixture) -> None:
    log_of().error("here", extra={"task_id": 7})
    (record,) = caplog.records
    assert (record.filename, record.name, vars(record)["task_id"]) == ("test_log.py", "hookware", 7)


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize("call", ["claim", "settle", "next_due"])
async def test_a_dispatcher_outlives_a_failure_that_cannot_be_logged(call: str) -> None:
    failures = [OSError("the database is away for a moment")]

    async def fail(asked: str) -> None:
        if asked == call and failures:
            raise failures.pop()

    async with dispatching(poll_seconds=0.01) as world:
        world.store.before = fail
        world.insert(new_task(1))
        await world.until(lambda: len(world.settled) == 1 and not failures)
        world.insert(new_task(2))
        await world.until(lambda: len(world.settled) == 2)
    assert world.started == [1, 2]


@pytest.mark.usefixtures("refused")
async def test_a_subscriber_that_raises_ends_no_loop() -> None:
    events, runs = Events(), list[int]()

    def refuse(_event: object) -> None:
        raise ValueError

    async def body() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise OSError

    events.subscribe(refuse)
    env = Env()
    await supervise("loop", body, env=env, events=events, health=Health(env))
    events.emit(LoopFailed("loop", OSError(), 0.0))
    assert len(runs) == 3


def test_a_subscriber_of_one_kind_hears_of_no_other_and_what_nobody_wants_need_not_be_made() -> None:
    events, heard = Events(), list[Event]()
    assert not events.wants(AttemptStarted)
    events.subscribe(heard.append, TasksCommitted)
    assert events.wants(TasksCommitted)
    assert not events.wants(AttemptStarted)
    events.emit(LoopFailed("loop", OSError(), 0.0))
    events.emit(TasksCommitted(3))
    assert heard == [TasksCommitted(3)]
    events.subscribe(print)
    assert events.wants(AttemptStarted)
    events.unsubscribe(heard.append)
    events.unsubscribe(print)
    assert not events.wants(TasksCommitted)


@pytest.mark.usefixtures("refused")
async def test_a_step_in_a_thread_is_repeated_although_its_failure_cannot_be_logged() -> None:
    wake, steps = Wake(), list[int]()

    def step() -> None:
        steps.append(1)
        wake.notify()
        raise OSError

    ticker = Env().every(0.001, step, name="test")
    with anyio.fail_after(5):
        while len(steps) < 3:
            await wake.wait(5)
    ticker.stop()
