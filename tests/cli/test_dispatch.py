"""`hookware dispatch` beside web processes that run no tasks: real processes on a real file."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.cli.commands import APP, STARTED, Site
from tests.running import ROOT, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PENDING = 0


def test_it_runs_what_web_processes_store(site: Site) -> None:
    with site.web(HOOKWARE_DISPATCH="off") as server:
        assert any("hookware: " in line and ", dispatch off" in line for line in server.log)
        for _ in range(3):
            assert httpx2.post(server.url).text == "added"
        command = site.dispatch()
        eventually(lambda: len(site.notes("counted")) == 6, seconds=30)
        assert httpx2.post(server.url).text == "added"
        eventually(lambda: len(site.notes("counted")) == 8, seconds=30)
    assert set(site.notes("counted")) == {command.pid}
    command.send(signal.SIGTERM)
    status, log = command.ended()
    assert status == 0
    assert log.splitlines()[-1].endswith("INFO hookware: ended, 8 attempts (8 completed)")
    assert log.count(STARTED) == 1
    assert site.tasks() == []


def test_drain_ends_when_nothing_is_due(site: Site) -> None:
    site.add("/count", left=3)
    site.add("/count")
    site.add("/count", countdown=3600)
    status, log = site.start("dispatch", APP, "--drain").ended()
    assert (status, len(site.notes("counted"))) == (0, 5)
    assert log.splitlines()[-1].endswith("hookware: ended, 5 attempts (5 completed)")
    assert [task[0] for task in site.tasks()] == [PENDING]


def test_drain_does_not_wait_for_what_another_process_runs(site: Site) -> None:
    other = site.dispatch()
    site.add("/hold")
    eventually(lambda: site.notes("begun"), seconds=30)
    status, log = site.start("dispatch", APP, "--drain").ended()
    assert status == 0
    assert "hookware: ended, no task ran" in log
    assert site.notes("begun") == [other.pid]


def test_what_a_killed_process_ran_runs_in_the_next_one(site: Site) -> None:
    command = site.dispatch(lease_seconds=3600)
    site.add("/hold")
    eventually(lambda: site.notes("begun"), seconds=30)
    command.kill()
    site.release()
    again = site.start("dispatch", APP, "--drain", lease_seconds=3600)
    assert again.ended()[0] == 0
    assert site.notes("begun") == [command.pid, again.pid]
    assert site.notes("ended") == [again.pid]
    assert site.tasks() == []


# The environment variable.


def test_the_variable_decides_over_the_argument(site: Site) -> None:
    site.add("/count")
    # `dispatch=False` in the code, and "off" around it: a dispatcher is a dispatcher.
    command = site.start("dispatch", APP, "--drain", dispatch=False)
    assert command.ended()[0] == 0
    assert site.notes("counted") == [command.pid]


# The console script, in a folder of its own.

MAIN = """
from starlette.applications import Starlette
from hookware import Hookware

app = Hookware(Starlette(), engine="sqlite:///app.db")
bare = Starlette()
deaf = Hookware(bare, engine="sqlite:///nowhere/app.db")
"""


def script(folder: Path, *arguments: str, code: str = MAIN, **environment: str) -> tuple[int, str]:
    (folder / "main.py").write_text(code)
    result = subprocess.run(
        [str(Path(sys.executable).with_name("hookware")), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    return result.returncode, result.stdout


def test_the_script_finds_the_app_where_it_is_called(tmp_path: Path) -> None:
    status, output = script(tmp_path, "dispatch", "main:app", "--drain")
    assert status == 0, output
    assert "hookware: ended, no task ran" in output


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("main:bare", "Error: the app has started, and no Hookware in it"),
        ("main:deaf", "Error: hookware cannot start: the database sqlite:///nowhere/app.db cannot be used"),
        ("nain:app", "Error: there is no module 'nain'"),
    ],
)
def test_mistakes_are_told_without_a_traceback(tmp_path: Path, app: str, says: str) -> None:
    status, output = script(tmp_path, "dispatch", app)
    assert status == 1
    assert says in output
    assert "Traceback" not in output


def test_a_wrong_option_of_a_wrapped_app_is_told_as_well(tmp_path: Path) -> None:
    code = "from hookware import Hookware\napp = Hookware(concurrency=0)"
    status, output = script(tmp_path, "dispatch", "main:app", code=code)
    assert (status, output) == (1, "Error: concurrency must be a whole number of at least 1, got 0\n")


def test_an_error_of_the_apps_own_code_is_shown_with_its_place(tmp_path: Path) -> None:
    status, output = script(tmp_path, "dispatch", "main:app", code="import nothing_of_this_name")
    assert status == 1
    assert "Traceback" in output
    assert 'main.py", line 1' in output


def test_without_click_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['click'] = None; from hookware.__main__ import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 1
    assert result.stderr == 'hookware: the command line needs click: pip install "hookware[cli]"\n'


# The log.


def test_an_app_that_sets_up_its_log_has_each_line_once(tmp_path: Path) -> None:
    at_import = (
        "import logging\n" + MAIN + "logging.basicConfig(level='INFO', format='mine: %(message)s', force=True)\n"
    )
    at_startup = f"""{MAIN}
import logging
from contextlib import asynccontextmanager

@asynccontextmanager
async def lifespan(app):
    logging.basicConfig(level="INFO", format="mine: %(message)s")
    yield

app = Hookware(Starlette(lifespan=lifespan), engine="sqlite:///app.db")
"""
    for code in (at_import, at_startup):
        status, output = script(tmp_path, "dispatch", "main:app", "--drain", code=code)
        assert status == 0, output
        assert output.splitlines() == [
            "mine: hookware: 0 task handlers, sqlite:///app.db",
            "mine: hookware: ended, no task ran",
        ]
