"""S03 and S04: nobody on the network runs a task handler, by whatever method, path, header or scope."""

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from sqlmodel import Session
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from hookware import TaskContext, require_task, taskqueue
from hookware.core.task import LeasedTask
from hookware.delivery import SCOPE_KEY, Delivery
from tests.asgi import request
from tests.samples import leased_task
from tests.stage import AT_ONCE, Stage, Tally

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "post", "TASK"]
TRICKS = [
    "/worker/", "//worker", "///worker", "/./worker", "/x/../worker", "/worker/.", "/worker/..", "/worker;x=1",
    "/worker;", "/WORKER", "/Worker", "/worker%2f", "/%2fworker", "/worker\x00", "/worker ", " /worker", "/worker?",
    "/worker#", "\\worker", "/\\worker", "/worker\r\nX: y", "worker", "", "*", "http://testserver/worker", "/wörker",
    "/w\u043erker", "/worker/extra", "/api/worker",
]  # fmt: skip


class LookAlike:
    """Says that it is a Delivery wherever it is asked."""

    task: LeasedTask = leased_task()
    completed = lease_lost = False
    conflict = failure = None

    @property  # type: ignore[misc]  # a lie on purpose
    def __class__(self) -> Any:
        return Delivery

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class SubDelivery(Delivery):
    """Not the class itself."""

    __slots__ = ()


FORGERIES = [
    "1", "hookware.task", b"1", True, 1, {}, {"task": {"id": 1}}, [Delivery], Delivery, object(), LookAlike(),
    SubDelivery(leased_task()),
]  # fmt: skip


@pytest.fixture
def ran(stage: Stage) -> Iterator[list[str]]:
    """Note each call of the private handler."""
    ran: list[str] = []

    @stage.task_handler("/worker")
    def worker(request: Request) -> None:
        ran.append(request.method)

    yield ran
    assert ran == []


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(status_code=404)(scope, receive, send)


async def test_s03_every_method_is_forbidden(stage: Stage, ran: list[str]) -> None:
    hookware = stage.make(not_found)
    for method in METHODS:
        for version in ("1.0", "1.1", "2"):
            answer = await request(hookware, "/worker", method=method, http_version=version)
            assert (answer.status, answer.error) == (403, None), (method, version)
            assert answer.headers["content-length"] == str(len(answer.body))


async def test_s03_no_spelling_of_the_path_reaches_the_handler(stage: Stage, ran: list[str]) -> None:
    hookware = stage.make(not_found)
    for path in TRICKS:
        answer = await request(hookware, path, raw_path=b"/worker")
        assert answer.status == 404, f"{path!r}: the path that is routed decides, not the raw one"


async def test_s03_a_prefix_does_not_open_the_path(stage: Stage, ran: list[str]) -> None:
    for root_path in ("", "/api", "/worker"):
        answer = await request(stage.make(not_found), f"{root_path}/worker", root_path=root_path)
        assert answer.status == 403, root_path


async def test_s03_no_header_or_address_opens_the_path(stage: Stage, ran: list[str]) -> None:
    headers = [(name, b"1") for name in (b"x-appengine-taskname", b"x-cloudtasks-taskname", b"x-hookware-task-id")]
    answer = await request(stage.make(not_found), "/worker", headers=headers, client=("0.1.0.2", 0))
    assert answer.status == 403


async def test_s03_a_websocket_is_closed_before_it_is_accepted(stage: Stage, ran: list[str]) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/worker", "headers": [], SCOPE_KEY: Delivery(leased_task())}
    await stage.make(not_found)(scope, receive, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


@pytest.mark.parametrize("where", ["scope", "extensions", "state"])
async def test_s04_what_looks_like_a_delivery_is_none(stage: Stage, ran: list[str], where: str) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        with pytest.raises(HTTPException):
            require_task(Request(scope))
        await Response()(scope, receive, send)

    hookware = stage.make(app)
    for forgery in FORGERIES:
        forged: dict[str, Any] = {SCOPE_KEY: forgery} if where == "scope" else {where: {SCOPE_KEY: forgery}}
        assert (await request(hookware, "/worker", **forged)).status == 403, forgery
        assert (await request(hookware, "/other", **forged)).status == 200, forgery
        assert SCOPE_KEY not in seen[-1], "the app never sees what it could take for a delivery"
    assert len(seen) == len(FORGERIES)


@pytest.mark.parametrize("framework", ["FastAPI", "Starlette"])
async def test_require_task_lets_tasks_only_into_an_ordinary_route(stage: Stage, framework: str) -> None:
    attempts: list[int] = []

    def endpoint(request: Request) -> Response:
        attempts.append(require_task(request).attempt)
        return PlainTextResponse("done")

    fastapi = FastAPI()

    @fastapi.post("/route")
    def route(task: Annotated[TaskContext, Depends(require_task)]) -> str:
        attempts.append(task.attempt)
        return "done"

    starlette = Starlette(routes=[Route("/route", endpoint, methods=["POST"])])
    app = fastapi if framework == "FastAPI" else starlette
    async with stage.running(app) as hookware:
        for headers in ([], [(b"x-appengine-queuename", b"default")]):
            assert (await request(hookware, "/route", headers=headers)).status == 403
        assert attempts == []
        await taskqueue.add_async(url="/route")
        await stage.settled()
    assert attempts == [1]
    assert stage.task_count() == 0


# Public handlers.


async def test_a_public_handler_serves_the_network_and_tasks(stage: Stage) -> None:
    @stage.task_handler("/worker", public=True)
    def worker(session: Session, key: str, n: int = 1) -> dict[str, str]:
        session.add(Tally(key=key, count=n))
        return {"key": key}

    async with stage.running() as hookware:
        answer = await request(hookware, "/worker", query=b"key=net")
        assert (answer.status, answer.body, answer.error) == (200, b'{"key":"net"}', None)
        assert stage.tally() == {"net": 1}
        worker.add(key="task", n=2)
        await stage.settled()
        answer = await request(hookware, "/worker", query=b"n=many")
    assert (answer.status, answer.error) == (422, None)
    assert b"key: Field required" in answer.body
    assert b"many" not in answer.body
    assert stage.tally() == {"net": 1, "task": 2}


async def test_a_public_handler_that_wants_the_task_gives_the_network_403(stage: Stage) -> None:
    @stage.task_handler("/worker", public=True)
    def worker(task: TaskContext) -> None: ...

    async with stage.running() as hookware:
        answer = await request(hookware, "/worker")
        assert (answer.status, answer.error) == (403, None)
        worker.add()
        assert (await stage.settled())[0].accepted
    assert stage.task_count() == 0


async def test_an_http_exception_of_a_handler_is_its_answer_and_its_reason(stage: Stage) -> None:
    @stage.task_handler("/worker", public=True)
    def worker() -> None:
        raise HTTPException(503, "come back", headers={"Retry-After": "120"})

    async with stage.running() as hookware:
        answer = await request(hookware, "/worker")
        assert (answer.status, answer.headers["retry-after"], answer.error) == (503, "120", None)
        worker.options(retry_options=AT_ONCE).add()
        (settled,) = await stage.settled()
        (task,) = await hookware.inspector.list_tasks()
    assert settled.decision.delay_us >= 120_000_000  # type: ignore[union-attr]  # it is a Retry
    assert task.last_status == 503
    assert "come back" in (task.last_error or "")
