"""The fixtures of these tests."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hookware import CronEntry, Hookware, Queue, TaskRouter
from tests.cli.commands import Site
from tests.cli.shell import Shell
from tests.databases import Database


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Give a folder with a database, and the commands on it."""
    monkeypatch.delenv("HOOKWARE_DISPATCH", raising=False)
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.fixture
def shell(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """Give a command line on an empty database."""
    monkeypatch.delenv("HOOKWARE_DATABASE_URL", raising=False)
    shell = Shell(database)
    yield shell
    shell.stage.close_blocking()


@pytest.fixture
def app(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the name of an app on the same database, with two queues and three cron entries."""
    module = ModuleType("app_of_a_test")
    entries = [
        CronEntry(url="/report", schedule="every day 09:00", timezone="Europe/Berlin", description="the daily one"),
        CronEntry(url="/twice", schedule="every 5 minutes"),
        CronEntry(url="/twice", schedule="every 7 minutes"),
    ]
    queues = [Queue("mail", max_concurrent_requests=1), Queue("sms", rate="5/s")]
    module.app = Hookware(  # type: ignore[attr-defined]  # a module may have any attribute
        engine=shell.url, queues=queues, cron=entries, router=TaskRouter(), dispatch=False
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return f"{module.__name__}:app"
