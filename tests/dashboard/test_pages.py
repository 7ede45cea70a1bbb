"""What every page keeps: headers, escaping, weight, and an answer of no bytes to who has it already."""

import gzip
import re
from pathlib import Path

import pytest

from hookware.dashboard import routes
from hookware.dashboard.answers import POLICY
from tests.asgi import Answer
from tests.dashboard.site import Filled, Markup, Visitor, fill, options
from tests.databases import Database
from tests.insight.stored import World
from tests.stage import Stage

CORPUS = [
    '"><img src=x onerror=alert(1)><script>alert(1)</script>{{ 7*7 }}{% raw %}',
    "' onmouseover='alert(1)' x='</title></textarea></svg><svg onload=alert(1)>&lt;b&gt;",
    "javascript:alert(1)//\u2028<iframe srcdoc='<script>alert(1)</script>'>\u202e",
]


def pages(filled: Filled) -> list[tuple[str, dict[str, str]]]:
    ids = (filled.due, filled.scheduled, filled.running, filled.dead, filled.completed, filled.pull)
    several = [
        ("/", {}), ("/queues", {}), ("/queue", {"name": "default"}), ("/queue", {"name": "pulled"}), ("/tasks", {}),
        ("/tasks", {"filter": "state:dead"}), ("/tasks", {"filter": "nonsense"}), ("/errors", {}), ("/cron", {}),
        ("/errors", {"queue": "default"}), ("/processes", {}), ("/audit", {}), ("/compose", {}),
        ("/queue/purge", {"name": "default"}), ("/many", {"action": "delete", "filter": "state:dead"}),
        (f"/task/{filled.dead}/delete", {}), ("/nowhere", {}), ("/queue", {"name": "no such"}), ("/task/1234567", {}),
    ]  # fmt: skip
    return [*several, *((f"/task/{task_id}", {}) for task_id in ids)]


async def test_every_page_is_there_and_has_the_headers_that_guard_it(admin: Visitor, filled: Filled) -> None:
    seen = set()
    for path, query in pages(filled):
        answer = await admin.get(path, **query)
        assert answer.status in (200, 400, 404), (path, answer.body)
        guarded(answer)
        assert answer.headers["cache-control"] == "no-store"
        seen |= {path} if answer.status == 200 else set()
    assert {re.sub(r"\d{1,19}", "{id}", path) for path in seen} == {
        route.path for route in routes.ROUTES if route.method == "GET"
    }


def guarded(answer: Answer) -> None:
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "same-origin"


async def test_refusals_and_files_are_guarded_too(world: World, admin: Visitor) -> None:
    anybody = Visitor(world.hookware)
    for answer in (
        await anybody.get("/"), await anybody.post("/login", token="x"), await admin.get("/queue/pause"),
        await admin.post("/queue/pause", (b"sec-fetch-site", b"cross-site")), await anybody.get("/static/nothing"),
        await anybody.get("/static/../answers.py"), await anybody.get("/static/dashboard.css"),
    ):  # fmt: skip
        guarded(answer)


async def test_no_page_has_script_or_style_in_it(admin: Visitor, filled: Filled) -> None:
    for path, query in pages(filled):
        harmless((await admin.get(path, **query)).body.decode())


def harmless(html: str) -> None:
    """See that nothing in a page runs but its two files, and that nothing in it has a style of its own."""
    markup = Markup(html)
    assert markup.tags.count("script") == 2
    assert not {"iframe", "object", "embed", "style", "base"} & set(markup.tags)
    for name, value in markup.attributes:
        assert not name.startswith(("on", "hx-on")), name
        assert name not in ("style", "srcdoc", "formaction")
        if name in ("href", "src", "action", "hx-get"):
            assert value.startswith(("/_hookware/", "#main")), value


@pytest.mark.parametrize("text", CORPUS)
async def test_what_tasks_say_of_themselves_is_text_and_nothing_else(database: Database, text: str) -> None:
    stage = Stage(database)
    world = World(stage, **options(text))
    admin, filled, seen = Visitor(world.hookware, "admin"), fill(world, text), set()
    for path, query in [*pages(filled), ("/queue", {"name": text}), ("/tasks", {"filter": f'error:"{text}"'})]:
        html = (await admin.get(path, **query)).body.decode()
        assert Markup(html).tags.count("script") == 2, path
        assert [tag for tag in Markup(html).tags if tag in ("iframe", "img")] == ["img"]
        assert not [name for name, _ in Markup(html).attributes if name.startswith("on")]
        hrefs = [value for name, value in Markup(html).attributes if name in ("href", "action", "src", "hx-get")]
        assert [value for value in hrefs if not value.startswith(("/_hookware/", "#main"))] == []
        if text[:40] in Markup(html).text:  # some fields are shorter than the text
            seen.add(re.sub(r"\d+", "", path))
    # It is shown, everywhere where it should be: as the text that it is.
    assert {"/", "/queues", "/queue", "/tasks", "/task/", "/errors", "/cron", "/processes", "/audit"} <= seen
    stage.close_blocking()


async def test_a_filter_comes_back_as_text(admin: Visitor, filled: Filled) -> None:
    for text in CORPUS:
        answer = await admin.get("/tasks", filter=text)
        assert answer.status == 400
        harmless(answer.body.decode())
        assert (b"value", text) in [(name.encode(), value) for name, value in Markup(answer.body.decode()).attributes]


async def test_no_address_makes_a_page_say_something_of_its_own(admin: Visitor, filled: Filled) -> None:
    answer = await admin.get("/", notice="Your session has ended: call 555-1234")
    assert b"555-1234" not in Markup(answer.body.decode()).text.encode()
    assert b"is paused" in (await admin.get("/cron", notice="paused")).body


async def test_who_has_a_page_already_is_told_so_in_no_bytes(admin: Visitor, filled: Filled) -> None:
    for path in ("/cron", "/audit", "/compose", "/processes", "/tasks"):
        first = await admin.get(path)
        again = await admin.get(path, (b"if-none-match", first.headers["etag"].encode()))
        assert (again.status, again.body) == (304, b"")
        guarded(again)
    await admin.post("/queue/pause", name="default")
    changed = await admin.get("/audit", (b"if-none-match", (await admin.get("/compose")).headers["etag"].encode()))
    assert changed.status == 200


async def test_a_cold_page_weighs_less_than_60_kilobytes(admin: Visitor, world: World, filled: Filled) -> None:
    world.put(ago=1, count=60)
    for path in ("/", "/tasks", "/queue?name=default", f"/task/{filled.dead}"):
        bare, _, query = path.partition("?")
        page = await admin.get(bare, **dict([query.split("=")] if query else []))
        files = {v for n, v in Markup(page.body.decode()).attributes if n in ("src", "href") and "/static/" in v}
        weight = len(page.body)
        for file in files:
            name = file.partition("?")[0].removeprefix("/_hookware")
            answer = await admin.get(name, (b"accept-encoding", b"gzip, br"))
            assert (answer.status, answer.headers["content-encoding"]) == (200, "gzip")
            assert gzip.decompress(answer.body) == (await admin.get(name)).body
            weight += len(answer.body)
        assert len(files) == 4
        assert weight < 60_000, (path, weight)


async def test_a_file_is_kept_by_browsers_until_it_changes(admin: Visitor) -> None:
    answer = await admin.get("/static/dashboard.css")
    assert answer.headers["cache-control"] == "private, max-age=86400"
    again = await admin.get("/static/dashboard.css", (b"if-none-match", answer.headers["etag"].encode()))
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("name", ["", "nothing.js", "../answers.py", "%2e%2e/answers.py", "htmx.LICENSE.txt"])
async def test_no_other_file_is_served(admin: Visitor, name: str) -> None:
    assert (await admin.get(f"/static/{name}")).status == 404


def test_the_licence_of_what_is_not_ours_lies_beside_it() -> None:
    static = Path(routes.__file__).parent / "static"
    assert "Zero-Clause BSD" in (static / "htmx.LICENSE.txt").read_text()


async def test_long_lists_come_in_pages_that_go_on_where_the_last_one_ended(admin: Visitor, world: World) -> None:
    ids = world.put(ago=100, count=120)
    seen: list[int] = []
    query = {"filter": "state:due"}
    for size in (50, 50, 20):
        html = (await admin.get("/tasks", **query)).body.decode()
        found = [int(each) for each in re.findall(r'<tr id="task-(\d+)"', html)]
        assert len(found) == size
        seen += found
        after = re.search(r'after=([^"&]+)"', html)
        query["after"] = after[1] if after else ""
    assert seen == ids
    assert after is None


@pytest.mark.parametrize("after", ["x", "AAAA", "9" * 50, "\x00"])
async def test_a_place_that_is_none_is_refused(admin: Visitor, world: World, after: str) -> None:
    assert (await admin.get("/tasks", after=after)).status == 400
    assert (await admin.get("/audit", before=after)).status == 200
