"""Log lines have the fields that a search needs, and never a payload."""

import ast
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookware import PermanentTaskFailure, QueueSettings, TaskContext, TaskRetryOptions, inspector, taskqueue
from hookware.config import Config
from hookware.heartbeat import Heartbeat
from tests.samples import SteppedEnv, leased_task
from tests.stage import AT_ONCE, Stage

MARK = "xyzzy-4711"
Lines = Callable[[], list[logging.LogRecord]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    with caplog.at_level(logging.DEBUG, logger="hookware"):
        yield lambda: caplog.records


def fields(record: logging.LogRecord) -> tuple[object, object, object]:
    extra: dict[str, Any] = vars(record)
    return extra.get("task_id"), extra.get("queue_name"), extra.get("attempt")


async def test_lines_about_a_task_carry_its_id_queue_and_attempt(stage: Stage, lines: Lines) -> None:
    @stage.task_handler("/worker")
    async def worker(context: TaskContext) -> None:
        if context.attempt == 1:
            raise LookupError("not yet")
        if context.attempt == 2:
            await inspector().cancel(context.id)

    async with stage.running(queues=[QueueSettings(name="mail", retry=AT_ONCE)]):
        await worker.options(queue_name="mail").add_async()
        await stage.settled(2)
    task_id = stage.recorder.settled[0].task.id
    about = [record for record in lines() if str(task_id) in record.getMessage()]
    assert [fields(record) for record in about] == [
        (task_id, "mail", 1), (task_id, "mail", 1), (task_id, "mail", 2), (task_id, "mail", 2),
    ], [record.getMessage() for record in about]  # fmt: skip
    settled = [vars(record) for record in about if "outcome" in vars(record)]
    assert [record["outcome"] for record in settled] == ["retried", "refused"]
    assert all(record["duration_seconds"] >= 0 for record in settled)


def test_a_line_about_several_tasks_has_lists(lines: Lines) -> None:
    class Forgetful:
        def renew(self, _leases: object, _lease_us: int) -> frozenset[int]:
            return frozenset()

    heartbeat = Heartbeat(Forgetful(), SteppedEnv(), Config())  # type: ignore[arg-type]  # a store of one method
    for task_id in (1, 2):
        task = leased_task(task_id)
        heartbeat.hold(task.lease, 100.0, lambda: None, task=task)
    heartbeat.beat()
    assert [fields(record) for record in lines()] == [([1, 2], ["default"] * 2, [1, 1])]


PACKAGE = Path(__file__).parent.parent.parent / "hookware"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_line_about_a_task_leaves_its_fields_out(path: Path) -> None:
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("_logger.")
    ]
    about_tasks = [call for call in calls if any("task %" in ast.unparse(argument) for argument in call.args)]
    bare = [call.lineno for call in about_tasks if "extra" not in {keyword.arg for keyword in call.keywords}]
    assert bare == []


def handlers(stage: Stage) -> None:
    @stage.task_handler("/completes")
    async def completes(text: str) -> None: ...

    @stage.task_handler("/typed")
    async def typed(text: int) -> None: ...

    @stage.task_handler("/fails")
    async def fails(text: str, context: TaskContext) -> None:
        if context.attempt == 1:
            raise LookupError("what")
        raise PermanentTaskFailure("never")

    @stage.task_handler("/refused")
    async def refused(text: str, context: TaskContext) -> None:
        await inspector().cancel(context.id)


async def test_no_payload_is_logged_whatever_becomes_of_the_task(stage: Stage, lines: Lines) -> None:
    handlers(stage)

    async def answers_500(_request: Request) -> Response:
        return Response(MARK, 500)

    app = Starlette(routes=[Route("/route", answers_500, methods=["POST", "GET"])])
    secret: dict[str, Any] = {"params": {"text": MARK}}
    queues = [QueueSettings(retry=TaskRetryOptions(min_backoff_seconds=0, task_retry_limit=1))]
    async with stage.running(app, queues=queues):
        for url in ("/completes", "/typed", "/fails", "/refused", "/route"):
            await taskqueue.add_async(url=url, **secret)
        await taskqueue.add_async(url=f"/route?text={MARK}", method="GET")
        await taskqueue.add_async(url="/route", payload=MARK, headers={"x-secret": MARK})
        await taskqueue.add_async(url="/completes", payload=f"{{{MARK}", headers={"content-type": "application/json"})
        ends = {"completed", "dead", "refused"}
        await stage.recorder.wait(lambda: sum(event.outcome in ends for event in stage.recorder.settled) == 8)
        outcomes = {event.outcome for event in stage.recorder.settled}
    assert outcomes == {"completed", "dead", "refused", "retried"}
    formatter = logging.Formatter("%(message)s")
    said = [formatter.format(record) + repr(vars(record)["args"]) for record in lines()]
    assert len(said) >= 12
    assert [line for line in said if MARK in line] == []
    assert any("answered 500; the text of the answer is in the task's last_error" in line for line in said)
