"""S05 and S06: `add(url=...)` refuses, or runs exactly the path that it says."""

import string
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from hookware import taskqueue
from hookware.core.url import canonical_url
from hookware.errors import InvalidUrlError
from tests.stage import Stage

PIECES = [
    "/", "//", "/.", "/..", "worker", "%77orker", "%2f", "%2F", "%5c", "\\", "%00", "%0d%0a", "%2e", "%2E%2e", ".",
    "..", ";x=1", "?", "?a=1", "&", "=", "#f", "%", "%zz", "%c3%a9", "\u00e9", "\u202e", "%ff", " ", "+", "%20", "@",
    ":80", "http:", "//evil", "\r\n", "\0", "\x7f", "~", "%7e", "{", "}", "*", "'", '"', "\ud800", "%ED%A0%80", "%25",
    "%2577",
]  # fmt: skip
UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
RESERVED = frozenset(":/?#[]@!$&'()*+,;=")

urls = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=8).map(lambda pieces: "/" + "".join(pieces)),
    st.text(max_size=20).map(lambda text: f"/{text}"),
)


def reference(url: str) -> tuple[str, bytes, bytes]:
    """Decode as RFC 3986 says, byte by byte: path, raw path, query; both raw ones in their normal spelling."""
    path, _, query = url.partition("?")
    return unquote_to_bytes(normal(path)).decode(), normal(path).encode(), normal(query).encode()


def normal(part: str) -> str:
    """Spell each byte in the one way of RFC 3986, section 6.2.2: unreserved plain, escapes in upper case."""
    data, spelled, at = part.encode(), "", 0
    while at < len(data):
        escaped = data[at : at + 1] == b"%"
        byte = int(data[at + 1 : at + 3], 16) if escaped else data[at]
        plain = chr(byte) in UNRESERVED or (not escaped and chr(byte) in RESERVED)
        spelled += chr(byte) if plain else f"%{byte:02X}"
        at += 3 if escaped else 1
    return spelled


class Routes:
    """An app that keeps the scopes of the tasks it is given."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.scopes.append(scope)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})


@pytest.mark.slow
async def test_s05_what_is_accepted_is_delivered_to_the_path_it_says(stage: Stage) -> None:
    found: dict[str, taskqueue.Task] = {}

    @settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(urls)
    @example("/worker")
    @example("/%77orker?a=%00&b=\u00e9")
    @example("/caf\u00e9/%7Eme;x=1")
    def collect(url: str) -> None:
        try:
            task = taskqueue.Task(url=url, method="GET")
        except InvalidUrlError:
            return
        if url:
            assert task.url == canonical_url(url)
            found[url] = task

    collect()
    assert len(found) > 50
    app = Routes()
    async with stage.running(app):
        tasks = list(found.values())
        for start in range(0, len(tasks), 100):
            taskqueue.Queue().add(tasks[start : start + 100])
        await stage.settled(len(tasks))
    delivered = {task.id: scope for scope in app.scopes for task in [scope["hookware.task"].task]}
    for url, task in found.items():
        scope = delivered[task.id or 0]
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == reference(url), url
        path = scope["path"]
        assert path.startswith("/")
        assert not path.startswith("//")
        assert not {".", ".."} & {*path.split("/")}
        assert not any(ord(letter) < 32 or ord(letter) == 127 or letter == "\\" for letter in path)
        assert scope["root_path"] == ""
    assert stage.task_count() == 0


@pytest.mark.parametrize(
    "url", ["//worker", "http://evil/worker", "/x/../worker", "/./worker", "/worker#f", "/worker%0d%0aX: y", "/a%2fb"]
)
def test_s05_the_tricks_that_worked_elsewhere_are_refused(url: str) -> None:
    with pytest.raises(InvalidUrlError, match="is refused"):
        taskqueue.add(url=url)


async def test_s06_a_task_carries_nobodys_identity(stage: Stage) -> None:
    """The URL may come from a user; the request it becomes is not his, nor anybody's."""
    app = Routes()
    async with stage.running(app):
        await taskqueue.add_async(url="/admin/delete-everything")
        await stage.settled()
    names = {name for name, _value in app.scopes[0]["headers"]}
    assert not names & {b"cookie", b"authorization", b"x-appengine-user-is-admin", b"x-forwarded-for"}
    assert "user" not in app.scopes[0]
    assert "session" not in app.scopes[0]
