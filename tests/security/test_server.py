"""S01 and S03 over raw sockets, against uvicorn with both of its parsers: what the in-process tests cannot know."""

import json
import re
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.running import Server, eventually, serve

pytestmark = [pytest.mark.slow, pytest.mark.crash]

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "CONNECT"]
ALIASES = ["/worker", "/%77orker", "/%77%6f%72%6b%65%72", "/worker?", "/worker?a=/../b"]
"""What a server decodes to the handler's very path."""

OTHERS = [
    "/worker/", "//worker", "///worker", "/./worker", "/x/../worker", "/worker/.", "/worker/..", "/worker%2f",
    "/%2fworker", "/%2e/worker", "/x/%2e%2e/worker", "/worker;", "/worker;x=1", "/WORKER", "/worker%00", "/worker%20",
    "/worker%0d%0aX:y", "\\worker", "/\\worker", "/worker\\", "worker", "*", "http://x/worker", "http://evil/worker",
    "//evil/worker", "/w%c3%b6rker", "/%5cworker", "/worker%3f", "/worker%23", "/worker#x", "/%2577orker", "/worker\tx",
    "/a/worker", "",
]  # fmt: skip
SPELLINGS = [
    "X-AppEngine-QueueName", "x-appengine-taskname", "X_AppEngine_QueueName", "X-AppEngine_TaskRetryCount",
    "X-APPENGINE-TASKETA", "X-CloudTasks-QueueName", "x_cloudtasks_taskname", "X-Hookware-Task-Id", "x_hookware_fence",
    "X-hookware-",
]  # fmt: skip
BROKEN = [
    "X-AppEngine-TaskName : x", " X-AppEngine-TaskName: x", "X-Mine: a\r\n X-AppEngine-TaskName: x",
    "X-Mine: a\nX-AppEngine-TaskName: x", "X-AppEngine-TaskName\t: x", "X-Mine: a\rX-AppEngine-TaskName: x",
    "X-AppEngine-TaskName:\tx", "\x0bX-AppEngine-TaskName: x",
]  # fmt: skip


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site") / "site.db"


@pytest.fixture(scope="module", params=["httptools", "h11"])
def server(database: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    options = f"--http {request.param} --ws wsproto"
    with serve(
        "tests.security.site:app", env={"SITE_DATABASE_URL": f"sqlite:///{database}"}, options=options
    ) as server:
        yield server


@pytest.fixture(autouse=True)
def no_effect(database: Path, server: Server) -> Iterator[None]:
    """Look through another connection: no handler has written anything."""
    before = effects(database)
    yield
    assert effects(database) == before


def effects(database: Path) -> int:
    connection = sqlite3.connect(database)
    try:
        return int(connection.execute("SELECT count(*) FROM tally").fetchone()[0])
    finally:
        connection.close()


def send(server: Server, raw: str, *, until: bytes | None = None) -> tuple[int, bytes]:
    """Send bytes as they are, and read to the end or `until`; the status (0: the server just closed) and the body."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port or 80), timeout=10) as connection:
        connection.sendall(raw.encode("latin-1"))
        answer = b""
        try:
            while (until is None or until not in answer) and (chunk := connection.recv(65536)):
                answer += chunk
        except ConnectionResetError:
            pass
    found = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(found[1]) if found else 0, answer.partition(b"\r\n\r\n")[2]


def ask(server: Server, target: str, *lines: str, method: str = "POST", version: str = "1.1") -> tuple[int, bytes]:
    head = [f"{method} {target} HTTP/{version}", "Host: x", "Connection: close", "Content-Length: 0", *lines]
    return send(server, "\r\n".join(head) + "\r\n\r\n")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("method", METHODS)
def test_s03_every_method_is_forbidden_on_every_alias_of_the_path(server: Server, method: str, version: str) -> None:
    for alias in ALIASES:
        status, body = ask(server, alias, method=method, version=version)
        assert status in (403, 400), (alias, status, body)
        assert b"the handler ran" not in body


def test_s03_a_plain_post_is_answered_403_and_not_refused_by_the_server(server: Server) -> None:
    assert ask(server, "/worker")[0] == 403
    assert ask(server, "/%77orker")[0] == 403


def test_s03_no_trick_with_the_path_runs_the_handler(server: Server) -> None:
    reached = []
    for target in OTHERS:
        status, body = ask(server, target)
        assert b"the handler ran" not in body, target
        if status == 200:
            reached.append(json.loads(body)["path"])
        else:
            assert status in (0, 400, 403), (target, status)
    assert "/worker" not in reached
    assert "//worker" in reached


def test_s03_a_websocket_to_the_path_is_refused(server: Server) -> None:
    upgrade = (
        "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "X_AppEngine_TaskName: x",
    )  # fmt: skip
    for target, expected in (("/worker", 403), ("/%77orker", 403), ("/page", 101)):
        head = [f"GET {target} HTTP/1.1", "Host: x", *upgrade]
        status, body = send(server, "\r\n".join(head) + "\r\n\r\n", until=b"false}" if expected == 101 else None)
        assert status == expected
        assert b"appengine" not in body.lower()
        assert (b'"delivery": false' in body) is (status == 101)


def test_s01_no_forged_header_reaches_the_app(server: Server) -> None:
    for spelling in SPELLINGS:
        for padding in (":", ": ", ":  ", ":\t"):
            status, body = ask(server, "/page", f"{spelling}{padding}x", "X-Mine: 1", f"{spelling}: again")
            assert status == 200, spelling
            page = json.loads(body)
            assert not internal(page["headers"]), page
            assert "x-mine" in page["headers"]
            assert page["delivery"] is False


def test_s01_what_breaks_the_syntax_is_refused_or_stripped(server: Server) -> None:
    refused = 0
    for line in BROKEN:
        status, body = ask(server, "/page", line)
        refused += status == 400
        if status == 200:
            assert not internal(json.loads(body)["headers"]), line
        assert ask(server, "/worker", line)[0] in (400, 403)
    assert 0 < refused < len(BROKEN)


def test_s01_a_thousand_copies(server: Server) -> None:
    copies = [f"X-AppEngine-TaskName: {n}" for n in range(1000)]
    status, body = ask(server, "/page", *copies)
    assert status in (200, 400, 431)
    if status == 200:
        assert not internal(json.loads(body)["headers"])


def internal(names: list[str]) -> list[str]:
    folded = [name.strip().lower().replace("_", "-") for name in names]
    return [name for name in folded if name.startswith(("x-appengine", "x-cloudtasks", "x-hookware"))]


def test_s10_a_request_in_the_body_of_another_is_none(server: Server) -> None:
    hidden = "POST /worker HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    head = f"POST /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(hidden)}\r\n\r\n"
    status, body = send(server, head + hidden)
    assert status == 200
    assert body.count(b"HTTP/1.1") == 0


class TestTheHandlerItself:
    """It does run, when hookware calls: the tests above could fail."""

    @pytest.fixture(autouse=True)
    def no_effect(self) -> None:
        """Here an effect is wanted."""

    def test_a_task_runs_it(self, server: Server, database: Path) -> None:
        before = effects(database)
        assert ask(server, "/add")[0] == 200
        eventually(lambda: effects(database) == before + 1)
