"""`hookware init` prints an app that runs as it is."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.cli.shell import invoke, refusal
from tests.running import ROOT, eventually, serve


@pytest.mark.slow
def test_what_it_writes_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("init", "--write")
    assert (result.exit_code, result.stdout) == (0, "")
    with serve("main:app", cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}) as server:
        for _ in range(3):
            with urlopen(Request(f"{server.url}/?key=clicks", method="POST")) as response:
                assert response.status == 200
        eventually(lambda: counts(tmp_path) == [("clicks", 3)])


def counts(folder: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(folder / "app.db", timeout=10)) as connection:
        return connection.execute("SELECT key, count FROM counter").fetchall()


def test_it_is_short_prints_by_default_and_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = invoke("init").stdout
    assert len([line for line in text.splitlines() if line]) <= 18
    assert list(tmp_path.iterdir()) == []
    Path("main.py").write_text("mine")
    assert "there is a main.py here already" in refusal(invoke("init", "--write"), 1)
    assert Path("main.py").read_text() == "mine"
