"""The options of `add()`: beside the arguments, or by `options()`, and never in the way of a parameter."""

from typing import Any

import pytest

from hookware import TaskRetryOptions, TaskRouter, taskqueue
from hookware.errors import InvalidTaskError
from tests.stage import Stage


@pytest.mark.parametrize("way", ["beside the arguments", "by options()", "by options() twice"])
async def test_options_reach_the_task(stage: Stage, way: str) -> None:
    worker: Any = stage.task_handler("/worker")(lambda key: None)
    retry = TaskRetryOptions(task_retry_limit=7)
    options = {
        "countdown": 60, "queue_name": "mail", "name": "n", "headers": {"X-Mine": "1"}, "retry_options": retry,
        "dispatch_deadline": 2.5,
    }  # fmt: skip
    async with stage.running() as hookware:
        if way == "beside the arguments":
            worker.add("x", **options)
        elif way == "by options()":
            await worker.options(**options).add_async("x")
        else:
            worker.options(**options | {"countdown": 1, "name": "m"}).options(countdown=60, name="n").add(key="x")
        (task,) = await hookware.inspector.list_tasks()
        stored = stage.rows("SELECT eta_us - created_us, deadline_us, retry_options FROM hookware_task")
        assert worker._options == {}, "options() makes a handler of its own"
    assert (task.queue_name, task.name, task.body) == ("mail", "n", b'{"key":"x"}')
    assert dict(task.headers) == {"x-mine": "1", "content-type": "application/json"}
    assert stored[0][:2] == (60_000_000, 2_500_000)
    assert "7" in stored[0][2]


async def test_priorities_and_keys_reach_the_task(stage: Stage) -> None:
    worker: Any = stage.task_handler("/worker")(lambda key: None)
    async with stage.running() as hookware:
        worker.options(priority=5, key="k", debounce=60, fair_key="f", limit_key="l").add(key="x")
        worker.add("y", limit_key="l", countdown=60)
        with pytest.raises(InvalidTaskError):
            stage.task_handler("/other")(lambda: None).add(key="x")
        first, second = await hookware.inspector.list_tasks()
    assert (first.priority, first.dedup_key, first.fair_key, first.limit_key) == (5, "k", "f", "l")
    assert (first.body, second.body, second.limit_key) == (b'{"key":"x"}', b'{"key":"y"}', "l")


async def test_a_parameter_with_the_name_of_an_option_is_a_parameter(stage: Stage) -> None:
    given: list[object] = []

    @stage.task_handler("/worker")
    def worker(name: str, countdown: int) -> None:
        given.append((name, countdown))

    async with stage.running():
        worker.options(name="the-task").add(name="the parameter", countdown=5)
        (settled,) = await stage.settled()
    assert given == [("the parameter", 5)]
    assert settled.task.name == "the-task"


def test_an_option_that_is_none_is_refused() -> None:
    worker: Any = TaskRouter().task_handler("/worker")(lambda key: None)
    with pytest.raises(InvalidTaskError, match=r"no option countdwn; there are .*countdown"):
        worker.options(countdwn=60)
    with pytest.raises(InvalidTaskError, match="'countdwn' is not a parameter"):
        worker.add("x", countdwn=60)
    with pytest.raises(taskqueue.InvalidEtaError):
        worker.add("x", countdown=-(10**18))


def test_a_handler_is_still_the_function() -> None:
    @TaskRouter().task_handler("/worker")
    def worker(key: str) -> str:
        return key * 2

    assert worker("x") == "xx"
    assert repr(worker).endswith("worker)")
    assert "'/worker'" in repr(worker)
