"""The dashboard in a real Chromium: with JavaScript and without, in light and dark, and with hostile tasks."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from sqlalchemy import make_url

from hookware import State
from tests.dashboard.site import Filled, fill, options
from tests.databases import Database
from tests.insight.stored import World
from tests.stage import Stage

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="it drives a browser by playwright, which is not here")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt install chromium"),
]
HOSTILE = "\"'><img src=x onerror=alert(1)><script>alert(1)</script>"
AXE = Path(__file__).parent / "axe.min.js"


class Site:
    """A served dashboard with hostile tasks in it."""

    def __init__(self, path: Path) -> None:
        self.stage = Stage(Database(url=make_url(f"sqlite:///{path}/browser.db"), driver=""))
        self.world = World(self.stage, **{**options(HOSTILE), "dashboard": True})
        self.filled: Filled = fill(self.world, HOSTILE)
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/_hookware"
        self._started = Event()
        self._server = _Server(uvicorn.Config(self.world.hookware, log_level="critical", ws="none"), self._started)
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [self._listening]})
        self._thread.start()
        assert self._started.wait(timeout=30)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listening.close()
        self.stage.close_blocking()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Event) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.set()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("browser"))
    yield site
    site.close()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Watched:
    """A page whose complaints, dialogs and policy violations are kept."""

    def __init__(self, browser: "Browser", **context: Any) -> None:
        self._context = browser.new_context(**context)
        self.page: Page = self._context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dialog)

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def axe(self) -> list[Any]:
        """Give the serious faults that axe-core finds."""
        session = self._context.new_cdp_session(self.page)
        session.send("Runtime.evaluate", {"expression": AXE.read_text()})  # past the page's policy
        script = "async () => (await axe.run(document)).violations.map(v => [v.impact, v.id, v.nodes[0].html])"
        found: list[Any] = self.page.evaluate(script)
        return [each for each in found if each[0] in ("serious", "critical")]

    def close(self) -> None:
        self._context.close()


def paths(filled: Filled) -> list[str]:
    tasks = [f"/task/{task_id}" for task_id in (filled.due, filled.running, filled.dead)]
    others = ["/", "/queues", "/queue?name=default", "/tasks", "/tasks?filter=%22", "/errors", "/cron", "/processes"]
    return [*others, *tasks, "/audit", "/compose", "/many?action=delete&filter=state:dead", "/queue/purge?name=default"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_runs_what_a_task_says_and_all_can_be_used_by_everybody(
    site: Site, browser: "Browser", scheme: str
) -> None:
    watched = Watched(browser, color_scheme=scheme)
    for path in paths(site.filled):
        watched.page.goto(site.url + path)
        assert watched.axe() == [], path
    complaints = [text for text in watched.complaints if "400" not in text]  # the filter that is none
    assert complaints == []
    watched.close()


def test_every_page_shows_itself_without_a_script(site: Site, browser: "Browser") -> None:
    watched = Watched(browser, java_script_enabled=False)
    for path in paths(site.filled):
        answer = watched.page.goto(site.url + path)
        assert answer is not None
        assert answer.status == (400 if path.endswith("%22") else 200), path
        assert watched.page.locator("main h1").inner_text() != "", path
        assert watched.page.locator("nav a").count() == 8, path
    watched.close()


def test_a_page_is_asked_for_again_and_comes_only_if_it_has_changed(site: Site, browser: "Browser") -> None:
    watched = Watched(browser)
    page = watched.page
    page.goto(f"{site.url}/cron")
    with page.expect_response(lambda response: response.status == 304, timeout=60_000):
        pass
    page.goto(f"{site.url}/tasks?filter=queue:arrivals")
    page.goto(f"{site.url}/queues")
    site.world.put(queue_name="arrivals")
    page.get_by_role("link", name="arrivals", exact=True).wait_for(timeout=60_000)
    assert [text for text in watched.complaints if "304" not in text] == []
    watched.close()


def test_what_is_typed_stays_while_the_page_changes(site: Site, browser: "Browser") -> None:
    watched = Watched(browser)
    page = watched.page
    page.goto(f"{site.url}/queue?name=typing")
    page.get_by_label("At once").fill("12")
    site.world.put(queue_name="typing", name="just-now")
    page.get_by_role("link", name="just-now").wait_for(timeout=60_000)
    assert page.get_by_label("At once").input_value() == "12"
    assert page.evaluate("document.activeElement.id") == "concurrency"
    watched.close()


@pytest.mark.parametrize("with_script", [True, False])
def test_people_act_on_queues(site: Site, browser: "Browser", with_script: bool) -> None:
    watched = Watched(browser, java_script_enabled=with_script)
    page, name = watched.page, f"acts-{with_script}"
    site.world.put(queue_name=name, ago=-900)
    page.goto(f"{site.url}/queue?name={name}")
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("The queue is paused, in all processes.").wait_for()
    page.get_by_role("button", name="Resume").click()
    page.get_by_label("Rate").fill("7/s")
    page.get_by_role("button", name="Change, in all processes").click()
    page.get_by_text("7 per second").wait_for()
    page.get_by_role("button", name="Back to the configuration").click()
    page.get_by_text("The settings are those of the configuration again.").wait_for()
    watched.close()


@pytest.mark.parametrize("with_script", [True, False])
def test_people_act_on_tasks(site: Site, browser: "Browser", with_script: bool) -> None:
    watched = Watched(browser, java_script_enabled=with_script)
    page, world, name = watched.page, site.world, f"tasks-{with_script}"
    [due], [dead] = world.put(queue_name=name, ago=-900), world.put(queue_name=name, state=State.DEAD)
    page.goto(f"{site.url}/task/{due}")
    page.get_by_role("button", name="Run now").click()
    page.get_by_text("It is due now.").wait_for()
    page.get_by_role("button", name="Postpone").click()
    page.get_by_text("It was given another time.").wait_for()
    page.get_by_role("button", name="Call off").click()
    page.get_by_text("It was called off.").wait_for()
    page.goto(f"{site.url}/task/{dead}")
    page.get_by_role("button", name="Retry").click()
    page.get_by_text("It is due now, as if never tried.").wait_for()
    page.get_by_role("link", name="Delete…").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("It was deleted.").wait_for()
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("It is back, as it was.").wait_for()
    page.get_by_role("link", name="Delete…").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("It was deleted.").wait_for()
    assert world.stage.rows(f"SELECT count(*) FROM hookware_task WHERE queue_name = '{name}'") == [0]
    page.goto(f"{site.url}/compose")
    page.get_by_label("Path of the app").fill("/worker")
    page.get_by_label("Queue").fill(name)
    page.get_by_role("button", name="Add").click()
    page.get_by_text("The task was added.").wait_for()
    page.goto(f"{site.url}/queue/purge?name={name}")
    page.get_by_role("button", name="Purge").click()
    page.get_by_text("The queue was purged.").wait_for()
    assert [text for text in watched.complaints if "304" not in text] == []
    watched.close()


@pytest.mark.parametrize("with_script", [True, False])
def test_many_tasks_are_retried_to_the_end(
    site: Site, browser: "Browser", with_script: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookware.dashboard.many._SECONDS_AT_ONCE", 0)
    watched, name = Watched(browser, java_script_enabled=with_script), f"many-{with_script}"
    page = watched.page
    site.world.put(state=State.DEAD, count=450, queue_name=name, ago=5)
    page.goto(f"{site.url}/tasks?filter=state:dead+queue:{name}")
    page.get_by_role("link", name="Retry all of these").click()
    page.get_by_text("450 tasks are meant").wait_for()
    page.get_by_role("button", name="Retry all").click()
    if not with_script:
        while page.get_by_role("button", name="Go on").count():
            page.get_by_role("button", name="Go on").click()
    page.get_by_text("450 tasks done. That is all.").wait_for(timeout=60_000)
    watched.close()


@pytest.mark.parametrize("with_script", [True, False])
def test_cron_entries_are_run_paused_and_resumed(site: Site, browser: "Browser", with_script: bool) -> None:
    watched = Watched(browser, java_script_enabled=with_script)
    page = watched.page
    page.goto(f"{site.url}/cron")
    page.get_by_role("button", name="Run now").click()
    page.get_by_text("A task of the entry was added.").wait_for()
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("The entry is paused: its times pass by.").wait_for()
    page.get_by_role("button", name="Resume").click()
    page.get_by_text("The entry goes on.").wait_for()
    assert [text for text in watched.complaints if "304" not in text] == []
    watched.close()


@pytest.mark.parametrize("with_script", [True, False])
@pytest.mark.parametrize(("action", "link"), [("delete", "Delete"), ("cancel", "Call off")])
def test_many_tasks_are_deleted_or_called_off(
    site: Site, browser: "Browser", with_script: bool, action: str, link: str
) -> None:
    watched, name = Watched(browser, java_script_enabled=with_script), f"gone-{action}-{with_script}"
    page, state = watched.page, State.DEAD if action == "delete" else State.PENDING
    site.world.put(state=state, count=30, queue_name=name, ago=5)
    page.goto(f"{site.url}/many?action={action}&filter=state:{'dead' if action == 'delete' else 'due'}+queue:{name}")
    page.get_by_role("button", name=f"{link} all").click()
    page.get_by_text("30 tasks done. That is all.").wait_for(timeout=60_000)
    assert site.world.stage.rows(f"SELECT count(*) FROM hookware_task WHERE queue_name = '{name}'") == [0]
    watched.close()


def test_it_is_used_by_the_keyboard_alone(site: Site, browser: "Browser") -> None:
    watched = Watched(browser)
    page = watched.page
    page.goto(f"{site.url}/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("g")
    page.keyboard.press("t")
    page.wait_for_url("**/tasks")
    page.keyboard.press("/")
    page.keyboard.type("state:dead")
    page.keyboard.press("Enter")
    page.wait_for_url("**/tasks?filter=state%3Adead")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(" ")
    assert "held" in page.locator("#live-status").inner_text()
    watched.close()
