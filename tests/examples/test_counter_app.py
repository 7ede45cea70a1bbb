"""The example as its visitor meets it: a server process, its page, and its database."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import httpx2
import pytest

from tests.databases import EVERY_DATABASE, Database
from tests.running import Server, eventually, serve

APP = "examples.counter_app:app"
pytestmark = [pytest.mark.slow, pytest.mark.crash]


class Page(HTMLParser):
    """What a visitor can see and use of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.labelled: set[str] = set()
        self.inputs: dict[str, dict[str, str]] = {}
        self.lang = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        match tag:
            case "html":
                self.lang = given.get("lang", "")
            case "label":
                self.labelled.add(given["for"])
            case "input" if given.get("type") != "hidden":
                self.inputs[given["name"]] = given


@pytest.fixture
def env(database: Database) -> dict[str, str]:
    return {"COUNTER_DATABASE_URL": database.url.render_as_string(hide_password=False)}


@pytest.fixture
def server(env: dict[str, str]) -> Iterator[Server]:
    with serve(APP, env=env) as server:
        yield server


def page(server: Server) -> str:
    response = httpx2.get(server.url)
    assert response.status_code == 200, response.text
    return response.text


def counts(server: Server) -> dict[str, int]:
    rows = re.findall(r'<th scope="row">(.*?)</th><td class="count">(\d+)</td>', page(server))
    return {key: int(count) for key, count in rows}


def click(server: Server, **form: str) -> None:
    response = httpx2.post(server.url, data=form)
    assert (response.status_code, response.headers["location"]) == (303, "/")


def test_a_click_is_counted_within_a_second(server: Server) -> None:
    assert counts(server) == {}
    click(server, key="apples")
    eventually(lambda: counts(server) == {"apples": 1}, seconds=1)
    click(server, key="apples", times="1", wait="0")
    click(server, key="pears")
    eventually(lambda: counts(server) == {"apples": 2, "pears": 1}, seconds=2)


def test_a_task_that_adds_itself_counts_to_a_hundred(server: Server) -> None:
    click(server, key="many", times="105")
    eventually(lambda: counts(server) == {"many": 105}, seconds=4)  # each follow-up wakes the dispatcher: no polling


def test_every_field_has_a_label_and_text_is_escaped(server: Server) -> None:
    click(server, key="<b>&")
    eventually(lambda: "&lt;b&gt;&amp;" in page(server))
    shown = Page(page(server))
    assert shown.lang == "en"
    assert {field["id"] for field in shown.inputs.values()} == shown.labelled
    assert "<b>" not in page(server)


@pytest.mark.parametrize(
    "form",
    [{}, {"key": ""}, {"key": "x", "times": "many"}, {"key": "x", "times": "0"}, {"key": "x", "wait": "nan"}],
    ids=str,
)
def test_a_form_that_no_browser_sends_is_refused(server: Server, form: dict[str, str]) -> None:
    assert httpx2.post(server.url, data=form).status_code == 400
    assert counts(server) == {}


def test_the_workers_are_private(server: Server) -> None:
    for path in ("/worker", "/worker/many"):
        response = httpx2.post(server.url + path, data={"key": "x", "left": "1"})
        assert response.status_code == 403
    assert counts(server) == {}


@EVERY_DATABASE
def test_a_click_survives_kill_9(env: dict[str, str]) -> None:
    with serve(APP, env=env) as server:
        click(server, key="plug", wait="2")
        assert counts(server) == {}
        server.kill()
    with serve(APP, env=env) as server:
        eventually(lambda: counts(server) == {"plug": 1})


def test_it_stops_when_it_is_told_to(env: dict[str, str]) -> None:
    with serve(APP, env=env) as server:
        click(server, key="x")
        server.stop()
        assert "Application shutdown complete." in server.log[-2]
    with serve(APP, env=env) as server:
        eventually(lambda: counts(server) == {"x": 1})


@EVERY_DATABASE
def test_two_processes_share_the_work(env: dict[str, str]) -> None:
    with serve(APP, env=env) as one, serve(APP, env=env) as other:
        for _ in range(10):
            click(one, key="shared")
            click(other, key="shared")
        eventually(lambda: counts(one) == {"shared": 20} == counts(other))
