"""S01, S02, S07, S08, S10 to S12: no header of hookware's own comes from the network, and a task sets none of them."""

import importlib
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hookware import Hookware, taskqueue
from hookware.errors import InvalidTaskError
from tests.asgi import request
from tests.stage import Stage

NAMES = [
    "x-appengine-queuename", "x-appengine-taskname", "x-appengine-taskretrycount", "x-appengine-user-is-admin",
    "x-appengine-", "x-cloudtasks-queuename", "x-hookware-task-id", "x-hookware-fence", "x-hookware-no-retry",
]  # fmt: skip
WHITESPACE = ["", " ", "  ", "\t", "\x0b", "\x0c", "\r\n ", "\n"]


@st.composite
def internal_names(draw: st.DrawFn) -> bytes:
    """Give a spelling that some server, proxy or CGI bridge takes for one of the names."""
    name = draw(st.sampled_from(NAMES)) + draw(st.sampled_from(["", "extra", "\u00e9"]))
    letters = [
        draw(st.sampled_from([letter.lower(), letter.upper()])) if letter != "-" else draw(st.sampled_from("-_"))
        for letter in name
    ]
    padded = draw(st.sampled_from(WHITESPACE)) + "".join(letters) + draw(st.sampled_from(WHITESPACE))
    return padded.encode("latin-1")


innocent = st.sampled_from(
    [b"host", b"x-mine", b"x-appenginex", b"appengine-taskname", b"xx-appengine-a", b"", b"\xff"]
)


class Echo:
    """Keeps the headers it is called with, http or websocket."""

    def __init__(self) -> None:
        self.headers: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = list(scope["headers"])
        if scope["type"] == "http":
            await Response()(scope, receive, send)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # no loop is in it
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    forged=st.lists(internal_names(), min_size=1, max_size=8),
    others=st.lists(innocent, max_size=4),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["http", "websocket"]),
)
async def test_s01_no_spelling_of_an_internal_header_reaches_the_app(
    stage: Stage, forged: list[bytes], others: list[bytes], seed: int, kind: str
) -> None:
    headers = [(name, b"forged") for name in forged] + [(name, b"kept") for name in others]
    random.Random(seed).shuffle(headers)
    echo = Echo()
    hookware = hookware_around(stage, echo)
    await request(hookware, "/", headers=headers, type=kind)
    assert echo.headers == [header for header in headers if header[1] == b"kept"]


def hookware_around(stage: Stage, app: Echo) -> Hookware:
    """Take one Hookware for all examples: making its tables takes longer than the example."""
    if not hasattr(stage, "hookware"):
        stage.make()
        stage.hookware._outbox.seen = True
    stage.hookware.app = app
    return stage.hookware


async def test_s01_a_thousand_copies(stage: Stage) -> None:
    echo = Echo()
    headers = [(b"X-AppEngine-TaskName", b"%d" % n) for n in range(1000)]
    await request(hookware_around(stage, echo), "/", headers=headers)
    assert echo.headers == []


async def test_s02_no_alias_reaches_a_wsgi_app(stage: Stage) -> None:
    """WSGI folds case, `-` and `_` together, and joins duplicates: an alias would count as the real name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated by Starlette, and the only bridge at hand
        bridge = importlib.import_module("starlette.middleware.wsgi").WSGIMiddleware
    seen: list[dict[str, str]] = []

    def app(environ: dict[str, str], start_response: Callable[..., object]) -> list[bytes]:
        seen.append({name: environ[name] for name in environ if name.startswith("HTTP_")})
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    headers = [(b"X_AppEngine_QueueName", b"a"), (b"X-AppEngine_QueueName", b"b"), (b"x-mine", b"1"), (b"X_Mine", b"2")]
    assert (await request(stage.make(bridge(app)), "/", headers=headers)).status == 200
    assert [{*environ} for environ in seen] == [{"HTTP_X_MINE"}]
    await stage.hookware._outbox.close()


# What a task may set.

FORBIDDEN = [
    "Host", "Content-Length", "Transfer-Encoding", "Connection", "X-Forwarded-For", "X-Forwarded-Host", "Forwarded",
    "X-Real-IP", "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "Upgrade", "TE", "Trailer", "Expect",
    "Proxy-Authorization", "Keep-Alive",
]  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN)
def test_s07_a_task_may_not_set_what_routes_or_frames_a_request(name: str) -> None:
    for spelled in (name, name.lower(), name.upper(), name.replace("-", "_")):
        with pytest.raises(InvalidTaskError, match="header"):
            taskqueue.Task(url="/worker", headers={spelled: "x"})


@pytest.mark.parametrize("text", ["a\r\nX: y", "a\nb", "a\rb", "a\0b", " a", "a ", "\u20ac", "a\x7f", "a\x0bb"])
def test_s08_no_header_name_or_value_ends_its_line(text: str) -> None:
    with pytest.raises(InvalidTaskError, match="header"):
        taskqueue.Task(url="/worker", headers={"x-mine": text})
    for name in (text, f"x{text}", "a:b", "", "a b"):
        with pytest.raises(InvalidTaskError, match="header"):
            taskqueue.Task(url="/worker", headers={name: "x"})


@pytest.mark.parametrize("text", ["a\r\nb", "a\nb", "a\0", "a b", "a/b", "a\x1b[2J", "\u2028", "a" * 501])
def test_s08_no_name_of_a_task_or_queue_holds_a_control_character(text: str) -> None:
    with pytest.raises(InvalidTaskError, match="name"):
        taskqueue.Task(url="/worker", name=text)
    with pytest.raises(taskqueue.InvalidQueueNameError, match="name"):
        taskqueue.Queue(text)


async def test_s10_to_s12_what_a_delivery_says_of_itself_is_hookwares_word(stage: Stage) -> None:
    """Internal headers of the task are dropped; even a row forged in the database sets none, nor length nor host."""
    seen: list[Request] = []

    @stage.task_handler("/worker")
    async def worker(request: Request) -> None:
        assert len(await request.body()) == 5
        seen.append(request)

    forged = (
        '[["x-appengine-queuename","admin"],["content-length","0"],["host","evil"],["transfer-encoding","chunked"]]'
    )
    async with stage.running():
        await taskqueue.add_async(
            "12345", url="/worker", headers={"X-AppEngine-QueueName": "admin", "x_hookware_fence": "9", "Cookie": "a=b"}
        )
        await stage.settled()
        task = await taskqueue.add_async("12345", url="/worker", countdown=3600)
        stage.rows("UPDATE hookware_task SET headers = ?, eta_us = 0 WHERE id = ?", forged, task.id)
        taskqueue.add("12345", url="/worker")
        await stage.settled(3)
    for request_ in seen:
        assert request_.headers.getlist("x-appengine-queuename") == ["default"]
        assert request_.headers.getlist("content-length") == ["5"]
        assert request_.headers.getlist("host") == ["localhost"]
        assert "transfer-encoding" not in request_.headers
        assert len(request_.headers.getlist("x-hookware-fence")) == 1
        assert not [name for name in request_.headers if "_" in name]
        assert request_.client is not None
        assert tuple(request_.client) == ("0.1.0.2", 0)
        assert str(request_.base_url) == "http://localhost/"
    assert len(seen) == 3
    assert seen[0].headers["cookie"] == "a=b"
