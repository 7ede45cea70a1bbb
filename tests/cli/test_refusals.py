"""What is wrong with a command line, or with its database, is one line, with the exit status that says which."""

from pathlib import Path

import pytest

from tests.cli.shell import Shell, invoke, refusal

NOBODY = "postgresql://somebody:hidden-word@127.0.0.1:9/app?connect_timeout=2"


def test_no_database_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOKWARE_DATABASE_URL", raising=False)
    line = refusal(invoke("status"), 2)
    assert line.startswith("which database? Pass --db sqlite:///app.db, or --app main:app")


def test_a_database_that_is_empty_is_not_that_of_the_environment(tmp_path: Path) -> None:
    line = refusal(invoke("status", "--db", "", HOOKWARE_DATABASE_URL=f"sqlite:///{tmp_path / 'none.db'}"), 2)
    assert line.startswith("--db is empty: pass a URL")


def test_a_password_is_hidden_wherever_it_stands() -> None:
    url = "postgresql://127.0.0.1:9/app?user=somebody&password=hidden-word&connect_timeout=2"
    line = refusal(invoke("--db", url, "status"), 1)
    assert "hidden-word" not in line
    assert "password=hidden&" in line


def test_two_databases_are_named() -> None:
    line = refusal(invoke("status", "--db", "sqlite:///app.db", "--app", "main:app"), 2)
    assert "leave one out" in line


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    line = refusal(invoke("status", "--db", f"sqlite:///{path}"), 1)
    assert line.startswith(f"there is no file {path}: check the URL")
    assert not path.exists()


def test_the_database_of_the_environment_is_taken_but_for_an_app(tmp_path: Path, app: str) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"
    assert "none.db" in refusal(invoke("queues", "list", HOOKWARE_DATABASE_URL=url), 1)
    assert "mail" in invoke("queues", "list", "--app", app, HOOKWARE_DATABASE_URL=url).stdout


@pytest.mark.parametrize("words", [("check",), ("status",), ("tasks", "list"), ("db", "current"), ("add", "/x")])
def test_a_server_that_cannot_be_reached(words: tuple[str, ...]) -> None:
    line = refusal(invoke("--db", NOBODY, *words), 1)
    assert line.startswith("the database postgresql+psycopg://somebody:***@127.0.0.1:9/app")
    assert "hidden-word" not in line
    assert "Check that the server runs at this host and port" in line


def test_a_url_that_is_none() -> None:
    assert "cannot be read" in refusal(invoke("--db", "nonsense", "check"), 1)


def test_a_filter_that_cannot_be_read(shell: Shell) -> None:
    line = shell.refuses("tasks", "list", "--filter", "stat:dead", status=2)
    assert line.startswith("the filter is refused: there is no key 'stat': the keys are state, queue,")


def test_a_filter_that_does_not_fit(shell: Shell) -> None:
    assert "retry is not for tasks that are due" in shell.refuses("tasks", "retry", "--filter", "state:due", status=2)
    assert "an empty filter would mean every task" in shell.refuses("tasks", "delete", "--filter", "", status=2)
    assert "an empty filter would mean every task" in shell.refuses("tasks", "run", "--filter", "", status=2)
    assert "do not wait" in shell.refuses("tasks", "run", "--filter", "state:dead", status=2)


@pytest.mark.parametrize("action", ["retry", "cancel", "delete", "run"])
def test_no_tasks_are_named_or_in_two_ways(shell: Shell, action: str) -> None:
    assert "which tasks?" in shell.refuses("tasks", action, status=2)
    assert "which tasks?" in shell.refuses("tasks", action, "7", "--filter", "state:dead", status=2)


@pytest.mark.parametrize("words", [("show",), ("pause",), ("resume",), ("purge",), ("set", "--rate", "5/s")])
def test_an_unknown_queue(shell: Shell, words: tuple[str, ...]) -> None:
    shell.world.put(queue_name="mail")
    line = shell.refuses("queues", *words, "mial", status=4)
    assert line.startswith("there is no queue 'mial'; there are: mail.")


def test_an_unknown_queue_of_an_app(app: str) -> None:
    line = refusal(invoke("--app", app, "add", "/worker", "--queue", "mial"), 4)
    assert line.startswith("the queue 'mial' is not configured")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("queues", "set", "default", "--rate", "5x"), "the rate '5x' is refused"),
        (("queues", "set", "default", "--max-concurrent", "-1"), "max_concurrent_requests must be a whole number"),
        (("queues", "set", "default"), "nothing is given to set"),
        (("tasks", "postpone", "7"), "when are they due?"),
        (("add", "worker"), "worker"),
        (("add", "/worker", "-p", "key"), "'key' has no '='"),
        (("add", "/worker", "--eta", "soon"), "neither a span of time nor a time"),
        (("cron", "list"), "pass --app main:app"),
    ],
)
def test_a_value_that_is_out_of_range(shell: Shell, words: tuple[str, ...], said: str) -> None:
    assert said in shell.refuses(*words, status=2)


def test_an_app_without_hookware() -> None:
    assert "there is no Hookware around" in refusal(invoke("--app", "tests.cli.shell:invoke", "status"), 1)
    assert "there is no module" in refusal(invoke("--app", "no_such_module:app", "status"), 1)


def test_an_app_that_hookware_was_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_FOLDER", str(tmp_path))
    line = refusal(invoke("--app", "tests.cli.app:app", "status"), 1)
    assert str(tmp_path / "app.db") in line  # it was found, and its file is not there


def test_tables_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "app.db").touch()
    line = refusal(invoke("--db", f"sqlite:///{tmp_path / 'app.db'}", "status"), 1)
    assert "the database has no table hookware_task" in line
    assert "hookware db upgrade" in line
