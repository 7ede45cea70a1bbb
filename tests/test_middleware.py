"""Hookware as a layer: what passes through untouched, what is stripped, and its place among other middlewares."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hookware import Hookware, TaskRouter, request_session, require_task, taskqueue
from hookware.config import Config
from hookware.core.lifecycle import Retry
from hookware.core.url import split_base_url
from hookware.delivery import SCOPE_KEY
from hookware.errors import ConfigurationError
from hookware.events import AttemptSettled
from tests.asgi import request
from tests.serving import serving
from tests.stage import AT_ONCE, Stage, Tally


class Recording:
    """An app that keeps what it is called with, takes some messages and sends some."""

    def __init__(self, receives: int, sends: list[Message]) -> None:
        self.receives, self.sends = receives, sends
        self.scopes: list[Scope] = []
        self.received: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        for _ in range(self.receives):
            self.received.append(await receive())
        for message in self.sends:
            await send(message)


async def call(app: ASGIApp, scope: Scope, incoming: list[Message]) -> list[Message]:
    waiting, sent = list(incoming), []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


HTTP: Scope = {
    "type": "http", "path": "/x", "raw_path": b"/%78", "method": "POST", "query_string": b"a=%00", "root_path": "",
    "headers": [(b"Host", b"a"), (b"x-mine", b"\xff"), (b"x-mine", b"2"), (b"x-appenginex", b"kept")],
    "extensions": {"http.response.trailers": {}}, "state": {"a": 1}, "odd": object(),
}  # fmt: skip
WEBSOCKET: Scope = {"type": "websocket", "path": "/x", "headers": [(b"host", b"a")], "subprotocols": ["a"]}
UNKNOWN: Scope = {"type": "webtransport", "anything": object()}

CASES: list[tuple[Scope, list[Message], list[Message]]] = [
    (
        HTTP,
        [
            {"type": "http.request", "body": b"one", "more_body": True, "odd": 1},
            {"type": "http.request", "body": b"two"},
            {"type": "http.disconnect"},
        ],
        [
            {"type": "http.response.debug", "info": {}},
            {"type": "http.response.start", "status": 200, "headers": ((b"X", b"\xff"),), "trailers": True},
            {"type": "http.response.body", "body": memoryview(b"one"), "more_body": True},
            {"type": "http.response.zerocopysend", "file": 3},
            {"type": "http.response.body", "body": b""},
            {"type": "http.response.trailers", "headers": []},
        ],
    ),
    (
        WEBSOCKET,
        [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "é"}, {"type": "websocket.disconnect"}],
        [{"type": "websocket.accept", "headers": []}, {"type": "websocket.send", "bytes": b"\x00"}],
    ),
    (UNKNOWN, [{"type": "webtransport.datagram", "data": b"\x00"}], [{"type": "webtransport.close"}]),
]


@pytest.mark.parametrize(("scope", "incoming", "outgoing"), CASES, ids=["http", "websocket", "unknown"])
async def test_scopes_and_messages_pass_through_as_the_very_same_objects(
    stage: Stage, scope: Scope, incoming: list[Message], outgoing: list[Message]
) -> None:
    app = Recording(len(incoming), outgoing)
    before = copy.deepcopy({name: value for name, value in scope.items() if name not in ("odd", "anything")})
    async with stage.running(app_only(app)) as hookware:
        sent = await call(hookware, scope, incoming)
    assert app.scopes[0] is scope
    assert {name: scope[name] for name in before} == before
    assert len(scope) - len(before) == len({"odd", "anything"} & scope.keys())
    assert [id(message) for message in app.received] == [id(message) for message in incoming]
    assert [id(message) for message in sent] == [id(message) for message in outgoing]


def error_of(settled: AttemptSettled) -> str:
    assert isinstance(settled.decision, Retry)
    return settled.decision.error


def app_only(app: ASGIApp) -> ASGIApp:
    """Give the app without a lifespan."""

    async def only(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)

    return only


async def test_the_lifespan_passes_through(stage: Stage) -> None:
    outgoing: list[Message] = [{"type": "lifespan.startup.complete", "odd": 1}, {"type": "lifespan.shutdown.complete"}]
    incoming: list[Message] = [{"type": "lifespan.startup", "odd": 1}, {"type": "lifespan.shutdown"}]
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        for message in outgoing:
            seen.append(await receive())
            await send(message)

    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    sent = await call(stage.make(app), scope, incoming)
    assert [id(each) for each in seen] == [id(scope), *map(id, incoming)]
    assert [id(message) for message in sent] == [id(message) for message in outgoing]


@pytest.mark.parametrize("scope", [HTTP, WEBSOCKET], ids=["http", "websocket"])
@pytest.mark.parametrize("container", [list, tuple, iter], ids=["list", "tuple", "iterator"])
async def test_internal_headers_are_stripped_from_a_copy_of_the_scope(
    stage: Stage, scope: Scope, container: Callable[[Iterable[Any]], Any]
) -> None:
    internal = [(b"X_AppEngine-QueueName", b"x"), (b"x-hookware-task-id", b"1")]
    kept = scope["headers"]
    given = {**scope, "headers": container([internal[0], *kept, internal[1]]), SCOPE_KEY: "forged"}
    before = copy.copy(given)
    app = Recording(0, [{"type": "http.response.start", "status": 200}, {"type": "http.response.body"}])
    hookware = stage.make(app)
    await hookware._outbox.prepare()
    await call(hookware, given, [])
    assert given == before, "the server and the layers outside keep their scope"
    assert list(app.scopes[0]["headers"]) == kept
    assert {name: value for name, value in app.scopes[0].items() if name != "headers"} == {
        name: value for name, value in scope.items() if name != "headers"
    }
    await hookware._outbox.close()


# Alone.


async def test_hookware_alone_serves_handlers_and_nothing_else(stage: Stage) -> None:
    ran: list[str] = []

    @stage.task_handler("/worker")
    def worker(key: str) -> None:
        ran.append(key)

    @stage.task_handler("/public", public=True)
    def public(key: str) -> str:
        worker.add(key)
        return "added"

    async with stage.running() as hookware:
        assert (await request(hookware, "/")).status == 404
        assert (await request(hookware, "/worker", query=b"key=x")).status == 403
        assert (await request(hookware, "/public", query=b"key=x")).body == b'"added"'
        await stage.settled()
        closed = await call(
            hookware, {"type": "websocket", "path": "/", "headers": []}, [{"type": "websocket.connect"}]
        )
    assert [message["type"] for message in closed] == ["websocket.close"]
    assert ran == ["x"]


async def test_the_database_may_come_from_the_environment(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKWARE_DATABASE_URL", f"sqlite:///{tmp_path}/env.db")
    async with serving(Hookware(router=TaskRouter())):
        assert (tmp_path / "env.db").exists()
    monkeypatch.delenv("HOOKWARE_DATABASE_URL")
    monkeypatch.chdir(tmp_path)
    async with serving(Hookware(router=TaskRouter())):
        assert (tmp_path / "hookware.db").exists()


async def test_an_app_that_counts_as_false_is_an_app(stage: Stage) -> None:
    class Empty:
        def __len__(self) -> int:
            return 0

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await Response(status_code=204)(scope, receive, send)

    hookware = stage.make(Empty())
    assert (await request(hookware, "/")).status == 204
    await hookware._outbox.close()


# Among other middlewares.


class Noting(BaseHTTPMiddleware):
    """A BaseHTTPMiddleware that writes its name into the request."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        super().__init__(app)
        self.name = name

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        request.scope.setdefault("seen", []).append(self.name)
        return await call_next(request)


def noting(seen: list[object]) -> Route:
    def endpoint(request: Request) -> Response:
        seen.append((request.scope["seen"], require_task(request).attempt))
        return PlainTextResponse("x" * 2000)

    return Route("/route", endpoint, methods=["POST"])


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_add_middleware_sends_tasks_through_the_whole_app(stage: Stage, framework: Any) -> None:
    seen: list[object] = []
    app = framework(routes=[noting(seen)])
    app.add_middleware(Noting, name="inside")
    stage.add_to(app)
    app.add_middleware(Noting, name="outside")
    async with serving(app):
        assert (await request(app, "/route")).status == 403
        await taskqueue.add_async(url="/route")
        await stage.settled()
    assert seen == [(["outside", "inside"], 1)]


async def test_wrapped_tasks_enter_at_the_layer_itself(stage: Stage) -> None:
    seen: list[object] = []
    inner = Starlette(routes=[noting(seen)], middleware=[Middleware(Noting, name="inside")])
    app = Noting(stage.make(inner), name="outside")
    async with serving(app):
        await taskqueue.add_async(url="/route")
        await stage.settled()
    assert seen == [(["inside"], 1)]


@pytest.mark.parametrize("position", [0, 1, 2, 3])
async def test_three_base_http_middlewares_around_and_inside(stage: Stage, position: int) -> None:
    seen: list[object] = []
    joined: list[int] = []

    def adds(request: Request) -> Response:
        taskqueue.add(url="/route")
        joined.append(stage.task_count())
        return Response(status_code=int(request.query_params["status"]))

    app = Starlette(routes=[noting(seen), Route("/add", adds, methods=["POST"])])
    for index in range(4):
        if index == position:
            stage.add_to(app)
        if index < 3:
            app.add_middleware(Noting, name=str(index))
    async with serving(app):
        assert (await request(app, "/add", query=b"status=500")).status == 500
        assert (await request(app, "/add", query=b"status=200")).status == 200
        (settled,) = await stage.settled()
    assert settled.accepted
    assert joined == [0, 0], "the task waits for the request's end"
    assert seen == [(["2", "1", "0"], 1)]


async def test_what_is_rolled_back_is_no_success_whatever_an_outer_layer_answers(stage: Stage) -> None:
    class Polite(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            await call_next(request)
            return Response("never mind")

    def endpoint(request: Request) -> Response:
        attempt = require_task(request).attempt
        request_session().add(Tally(key="x", count=attempt))
        return Response(status_code=409 if attempt == 1 else 200)

    app = Starlette(routes=[Route("/route", endpoint, methods=["POST"])])
    stage.add_to(app)
    app.add_middleware(Polite)
    async with serving(app):
        await taskqueue.add_async(url="/route", retry_options=AT_ONCE)
        settled = await stage.settled(2)
    assert "outside of Hookware" in error_of(settled[0])
    assert stage.tally() == {"x": 2}
    assert stage.task_count() == 0


STOCK = [
    Middleware(GZipMiddleware, minimum_size=1),
    Middleware(CORSMiddleware, allow_origins=["https://example.com"], allow_credentials=True),
    Middleware(TrustedHostMiddleware, allowed_hosts=["localhost"]),
    Middleware(Noting, name="base"),
]
STRICT = [
    Middleware(HTTPSRedirectMiddleware),
    Middleware(TrustedHostMiddleware, allowed_hosts=["example.com"], www_redirect=False),
]


def name_of(middleware: Middleware) -> str:
    return getattr(middleware.cls, "__name__", "")


def stocked(stage: Stage, middleware: Middleware, how: str, calls: list[str], **options: Any) -> ASGIApp:
    """Give an app with a middleware and Hookware: one outside of the other, wrapped or added."""

    def endpoint(request: Request) -> Response:
        calls.append(str(request.base_url))
        return PlainTextResponse("x" * 2000)

    app = Starlette(routes=[Route("/route", endpoint, methods=["POST"])])
    match how:
        case "inside":
            app.add_middleware(middleware.cls, *middleware.args, **middleware.kwargs)
            return stage.make(app, **options)
        case "outside":
            return middleware.cls(stage.make(app, **options), *middleware.args, **middleware.kwargs)
        case "added inside":
            app.add_middleware(middleware.cls, *middleware.args, **middleware.kwargs)
            stage.add_to(app, **options)
        case _:
            stage.add_to(app, **options)
            app.add_middleware(middleware.cls, *middleware.args, **middleware.kwargs)
    return app


PLACES = ["inside", "outside", "added inside", "added outside"]


@pytest.mark.parametrize("middleware", STOCK, ids=name_of)
@pytest.mark.parametrize("how", PLACES)
async def test_stock_middlewares_let_tasks_pass(stage: Stage, middleware: Middleware, how: str) -> None:
    calls: list[str] = []
    app = stocked(stage, middleware, how, calls)
    async with serving(app):
        await taskqueue.add_async(url="/route", headers={"Origin": "https://evil.example", "Accept-Encoding": "gzip"})
        (settled,) = await stage.settled()
    assert (calls, stage.task_count()) == (["http://localhost/"], 0), settled


@pytest.mark.parametrize("middleware", STRICT, ids=name_of)
@pytest.mark.parametrize("how", PLACES)
async def test_a_middleware_that_wants_a_host_or_https_has_it_by_base_url(
    stage: Stage, middleware: Middleware, how: str
) -> None:
    calls: list[str] = []
    async with serving(stocked(stage, middleware, how, calls, base_url="https://example.com")):
        await taskqueue.add_async(url="/route")
        await stage.settled()
    assert (calls, stage.task_count()) == (["https://example.com/"], 0)


async def test_without_it_the_error_says_so(stage: Stage) -> None:
    async with serving(stocked(stage, STRICT[0], "added inside", [])):
        await taskqueue.add_async(url="/route")
        (settled,) = await stage.settled()
    assert "answered 307" in error_of(settled)
    assert "base_url" in error_of(settled)


@pytest.mark.parametrize(
    "base_url", ["", "localhost", "ftp://a", "http://", "http://a/b", "http://a?b", "http://a:0", "http://a:65536",
                 "http://a\n", "http://a b", "http://user@a", "http://ü", None],
)  # fmt: skip
def test_a_base_url_that_is_none_is_refused(base_url: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"base_url|expected string"):
        Config(base_url=base_url)


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("http://localhost", ("http", "localhost", "localhost", 80)),
        ("https://Example.com/", ("https", "Example.com", "Example.com", 443)),
        ("http://a-b.c_d:8000", ("http", "a-b.c_d:8000", "a-b.c_d", 8000)),
        ("https://[::1]:8443", ("https", "[::1]:8443", "::1", 8443)),
    ],
)
def test_a_base_url_has_these_parts(base_url: str, expected: tuple[str, str, str, int]) -> None:
    assert split_base_url(Config(base_url=base_url).base_url) == expected
