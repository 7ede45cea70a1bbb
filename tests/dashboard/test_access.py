"""The dashboard is closed, unless something says who may come in; and no other site makes a browser act in it."""

import re

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import Message

from hookware import TaskRetryOptions, taskqueue
from hookware.dashboard import Dashboard, Role
from hookware.dashboard.access import COOKIE_SECONDS
from hookware.env import Env
from hookware.errors import ConfigurationError
from tests.asgi import Answer, request
from tests.dashboard.site import FORM, SAME, TOKENS, Filled, Visitor
from tests.insight.stored import World
from tests.stage import Stage

LOCAL = ("127.0.0.1", 40000)
HOST = (b"host", b"localhost:8000")


class LaterEnv(Env):
    """A clock that a test sets forward."""

    ahead_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.ahead_us


def cookie_of(answer: Answer) -> tuple[bytes, bytes]:
    return b"cookie", answer.headers["set-cookie"].partition(";")[0].encode()


async def test_there_is_none_unless_it_is_asked_for(stage: Stage) -> None:
    hookware = stage.make(Starlette(routes=[Route("/_hookware/", lambda _r: PlainTextResponse("the app's own"))]))
    answer = await request(hookware, "/_hookware/", method="GET", headers=[HOST], client=LOCAL)
    assert answer.body == b"the app's own"


@pytest.mark.parametrize(
    ("client", "headers", "status"),
    [
        (LOCAL, [HOST], 200),
        (("::1", 1), [(b"host", b"[::1]:8000")], 200),
        (("::ffff:127.0.0.1", 1), [(b"host", b"127.0.0.1")], 200),
        (("192.0.2.1", 1), [HOST], 403),
        (None, [HOST], 403),
        (("testclient", 1), [HOST], 403),
        (LOCAL, [HOST, (b"x-forwarded-for", b"192.0.2.7")], 403),
        (LOCAL, [HOST, (b"forwarded", b"for=192.0.2.7")], 403),
        (LOCAL, [HOST, (b"x-real-ip", b"192.0.2.7")], 403),
        (LOCAL, [(b"host", b"evil.example:8000")], 403),  # a name of its own that leads here
        (LOCAL, [(b"host", b"[")], 403),
        (LOCAL, [], 403),
        # A page of another site that asks: an app that shares with every origin would hand the answer over.
        (LOCAL, [HOST, (b"origin", b"https://evil.example")], 403),
        (LOCAL, [HOST, (b"sec-fetch-site", b"cross-site"), (b"sec-fetch-mode", b"cors")], 403),
        (LOCAL, [HOST, (b"sec-fetch-site", b"cross-site"), (b"sec-fetch-mode", b"navigate")], 200),
        (LOCAL, [HOST, (b"sec-fetch-site", b"same-origin"), (b"sec-fetch-mode", b"cors")], 200),
    ],
)
async def test_without_a_token_it_is_open_to_this_machine_alone(
    stage: Stage, client: tuple[str, int] | None, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    hookware = stage.make(dispatch=False, dashboard=True)
    answer = await request(hookware, "/_hookware/", method="GET", headers=headers, client=client)
    assert answer.status == status
    static = await request(hookware, "/_hookware/static/icon.svg", method="GET", headers=headers, client=client)
    assert static.status == status


async def test_a_proxy_that_says_nothing_is_known_by_its_old_protocol(stage: Stage) -> None:
    hookware = stage.make(dispatch=False, dashboard=True)
    sent: list[Message] = []
    for version in ("1.0", "1.1"):
        scope = {
            "type": "http", "http_version": version, "method": "GET", "path": "/_hookware/queues", "query_string": b"",
            "headers": [HOST], "client": LOCAL, "root_path": "", "scheme": "http",
        }  # fmt: skip

        async def receive() -> Message:
            return {"type": "http.request", "body": b""}

        async def send(message: Message) -> None:
            sent.append(message)

        await hookware(scope, receive, send)
    assert [each["status"] for each in sent if each["type"] == "http.response.start"] == [403, 200]


async def test_it_says_that_it_is_open(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.make(dispatch=False, dashboard=True)
    [line] = [record.message for record in caplog.records if "dashboard" in record.message]
    assert "open, without a password" in line


async def test_the_token_of_the_environment_closes_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKWARE_DASHBOARD_TOKEN", TOKENS["admin"])
    hookware = stage.make(dispatch=False, dashboard=True)
    assert (await request(hookware, "/_hookware/", method="GET", headers=[HOST], client=LOCAL)).status == 401
    assert (await Visitor(hookware, "admin").get("/compose")).status == 200
    assert (await Visitor(hookware, "read").get("/")).status == 401


@pytest.mark.parametrize("given", ["short", {}, {"short": "read"}, {"x" * 40: "root"}, 7, None])
async def test_what_lets_nobody_or_anybody_in_is_refused(stage: Stage, given: object) -> None:
    with pytest.raises(ConfigurationError):
        stage.make(dispatch=False, dashboard=given)


async def test_a_callable_says_who_comes_in_and_what_he_is_called(stage: Stage, world: World) -> None:
    async def role_of(request: Request) -> Role | None:
        request.state.hookware_who = request.headers.get("x-user", "")
        return "admin" if request.headers.get("x-user") == "alice" else None

    hookware = stage.make(dispatch=False, dashboard=role_of)
    assert (await Visitor(hookware).get("/")).status == 403
    alice = (b"x-user", b"alice")
    assert (await Visitor(hookware).get("/", alice)).status == 200
    assert (await Visitor(hookware).post("/queue/pause", alice, SAME, name="default")).status == 303
    assert stage.rows("SELECT who FROM hookware_audit") == ["alice"]


async def test_a_callable_that_answers_nonsense_lets_nobody_in(stage: Stage) -> None:
    hookware = stage.make(dispatch=False, dashboard=lambda _request: "superuser")
    assert (await Visitor(hookware).get("/")).status == 500


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_logging_in_gives_a_cookie_that_no_script_and_no_other_site_can_use(stage: Stage, scheme: str) -> None:
    hookware = stage.make(dispatch=False, dashboard=TOKENS["admin"])
    body = f"token={TOKENS['admin']}".encode()
    answer = await request(hookware, "/_hookware/login", headers=[HOST, FORM, SAME], body=body, scheme=scheme)
    assert (answer.status, answer.headers["location"]) == (303, "/_hookware/")
    cookie = answer.headers["set-cookie"]
    assert TOKENS["admin"] not in cookie
    rules = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/_hookware"} <= rules
    assert ("secure" in rules) == (scheme == "https")
    assert (await Visitor(hookware).get("/", cookie_of(answer))).status == 200


async def test_a_wrong_token_gives_no_cookie(stage: Stage) -> None:
    hookware = stage.make(dispatch=False, dashboard=TOKENS["admin"])
    answer = await Visitor(hookware).post("/login", token="x" * 32)
    assert answer.status == 401
    assert "set-cookie" not in answer.headers


async def test_a_cookie_ends_and_cannot_be_prolonged_or_outlive_its_token(stage: Stage) -> None:
    env = LaterEnv()
    hookware = stage.make(dispatch=False, dashboard=TOKENS["admin"], env=env)
    name, value = cookie_of(await Visitor(hookware).post("/login", token=TOKENS["admin"]))
    assert (await Visitor(hookware).get("/", (name, value))).status == 200
    ends = re.search(rb"=(\d+)\.", value)
    assert ends is not None
    longer = value.replace(ends[1], str(int(ends[1]) + 9999).encode())
    assert (await Visitor(hookware).get("/", (name, longer))).status == 401
    rotated = stage.make(dispatch=False, dashboard=TOKENS["read"], env=env)
    assert (await Visitor(rotated).get("/", (name, value))).status == 401
    env.ahead_us = (COOKIE_SECONDS + 1) * 1_000_000
    assert (await Visitor(hookware).get("/", (name, value))).status == 401


async def test_logging_out_takes_the_cookie_away(stage: Stage) -> None:
    hookware = stage.make(dispatch=False, dashboard=TOKENS["admin"])
    answer = await Visitor(hookware).post("/logout")
    assert "max-age=0" in answer.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    ("headers", "comes_through"),
    [
        ([(b"sec-fetch-site", b"same-origin")], True),
        ([(b"sec-fetch-site", b"none")], True),
        ([(b"sec-fetch-site", b"same-site")], False),
        ([(b"sec-fetch-site", b"cross-site")], False),
        ([(b"sec-fetch-site", b"cross-site"), (b"origin", b"http://tasks.example")], False),
        ([(b"origin", b"http://tasks.example")], True),
        ([(b"origin", b"https://evil.example")], False),
        ([(b"origin", b"http://tasks.example.evil.example")], False),
        ([(b"origin", b"null")], False),
        ([(b"origin", b"http://[")], False),
        ([(b"x-nothing", b"")], False),
    ],
)
async def test_only_its_own_pages_make_a_browser_act(
    world: World, filled: Filled, headers: list[tuple[bytes, bytes]], comes_through: bool
) -> None:
    cookie = cookie_of(await Visitor(world.hookware).post("/login", token=TOKENS["admin"]))
    answer = await Visitor(world.hookware).post("/queue/pause", cookie, *headers, name="default")
    assert answer.status == (303 if comes_through else 403)
    assert (await world.insight.queue("default")).paused == comes_through


async def test_a_script_with_a_token_needs_no_origin(admin: Visitor, filled: Filled) -> None:
    assert (await admin.post("/queue/pause", (b"accept", b"*/*"), name="default")).status == 303


async def test_asking_changes_nothing(admin: Visitor, filled: Filled) -> None:
    for path in ("/task/{id}/run", "/task/{id}/cancel", "/queue/pause", "/cron/run", "/login"):
        answer = await admin.get(path.format(id=filled.due), name="default")
        assert answer.status in (401, 405)


async def test_a_task_cannot_drive_it(stage: Stage) -> None:
    def anybody(_request: Request) -> Role:
        return "admin"

    async with stage.running(dashboard=anybody) as hookware:
        once = TaskRetryOptions(task_retry_limit=0)
        headers = {"sec-fetch-site": "same-origin"}
        url = "/_hookware/queue/pause"
        await taskqueue.add_async(url=url, params={"name": "default"}, headers=headers, retry_options=once)
        task = await stage.dead()
        assert task.last_status == 404
        assert not (await hookware.insight.queue("default")).paused


@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_it_can_be_mounted_anywhere(stage: Stage, root_path: str) -> None:
    app = Starlette(routes=[Mount("/ops/tasks", Dashboard({TOKENS["admin"]: "admin"}))])
    async with stage.running(app, dispatch=False) as hookware:
        headers = [(b"authorization", f"Bearer {TOKENS['admin']}".encode()), HOST]
        answer = await request(
            hookware, f"{root_path}/ops/tasks/queues", method="GET", headers=headers, root_path=root_path
        )
        assert answer.status == 200
        links = re.findall(r'(?:href|src|action|hx-get)="([^"#]+)"', answer.body.decode())
        assert links
        assert {link for link in links if not link.startswith(f"{root_path}/ops/tasks/")} == set()


async def test_a_prefix_of_the_server_is_in_every_address(stage: Stage) -> None:
    hookware = stage.make(dispatch=False, dashboard=TOKENS["admin"])
    headers = [(b"authorization", f"Bearer {TOKENS['admin']}".encode()), HOST]
    for path in ("/api/_hookware/", "/_hookware/"):  # servers differ in whether the path has it
        answer = await request(hookware, path, method="GET", headers=headers, root_path="/api")
        assert answer.status == 200
        assert b'href="/api/_hookware/queues"' in answer.body
    bare = await request(hookware, "/_hookware", method="GET", headers=headers)
    assert (bare.status, bare.headers["location"]) == (303, "/_hookware/")
