"""`hookware tasks`: found, looked at and acted on, by id and by filter; asked before, told after."""

import re

import psycopg
import pytest

from hookware.core.lifecycle import State
from hookware.store.sql.notify import CHANNEL
from tests.cli.shell import Shell
from tests.databases import EVERY_DATABASE

PENDING, DEAD = int(State.PENDING), int(State.DEAD)


@EVERY_DATABASE
def test_a_list_is_a_table_of_what_the_filter_chooses(shell: Shell) -> None:
    (dead,) = shell.world.put(State.DEAD, queue_name="mail", last_status=503, last_error="no paper")
    shell.world.put(queue_name="mail")
    head, row = shell.does("tasks", "list", "--filter", "state:dead").splitlines()
    assert head.split() == ["ID", "STATE", "QUEUE", "URL", "ETA", "ATTEMPTS", "STATUS", "ERROR"]
    assert row.split()[:4] == [str(dead), "dead", "mail", "/worker"]
    assert row.endswith("1         503     retries: no paper")
    assert len(shell.does("tasks", "list").splitlines()) == 3


def test_the_filter_may_stand_before_the_command(shell: Shell) -> None:
    (dead,) = shell.world.put(State.DEAD)
    shell.world.put()
    assert [task["id"] for task in shell.json("--filter", "state:dead", "tasks", "list")] == [dead]


def test_a_long_list_comes_in_pages_with_every_task_once(shell: Shell) -> None:
    ids = shell.world.put(State.DEAD, count=7)
    seen: list[int] = []
    after: list[str] = []
    while True:
        result = shell.run("tasks", "list", "--filter", "state:dead", "--limit", "3", *after)
        seen += [int(row.split()[0]) for row in result.stdout.splitlines()[1:]]
        more = re.search(r"There may be more: --after (\S+)", result.stderr)
        if more is None:
            break
        after = ["--after", more[1]]
    assert sorted(seen) == ids
    assert len(seen) == len(ids)


def test_nothing_that_matches_is_told_by_the_status(shell: Shell) -> None:
    assert shell.run("tasks", "list").stderr == "There is no task.\n"
    result = shell.run("tasks", "list", "--filter", "queue:mail")
    assert (result.exit_code, result.output) == (4, "No task matches: queue:mail\n")


def test_json_has_an_object_for_each_task_and_no_payload(shell: Shell) -> None:
    headers = '[["authorization", "Bearer hidden"], ["x-mark", "seen"]]'
    (task_id,) = shell.world.put(body=b"hidden words", headers=headers)
    text = shell.does("tasks", "list", "--json")
    (task,) = shell.json("tasks", "list")
    assert (task["id"], task["state"], task["body_bytes"]) == (task_id, "pending", 12)
    assert task["headers"] == [["x-mark", "seen"]]
    assert "hidden" not in text


@EVERY_DATABASE
def test_one_task_is_shown_with_all_that_is_known(shell: Shell) -> None:
    (task_id,) = shell.world.put(State.DEAD, last_status=500, last_error="boom", body=b"hidden words", origin="POST /a")
    (child,) = shell.world.put(parent_id=task_id, url="/child")
    shown = dict(re.split(r"  +", line, maxsplit=1) for line in shell.does("tasks", "show", str(task_id)).splitlines())
    assert (shown["task"], shown["state"], shown["request"]) == (str(task_id), "dead", "POST /worker")
    assert (shown["body"], shown["by"], shown["last error"]) == ("12 bytes", "POST /a", "boom")
    assert shown["has added"] == f"{child} (POST /child)"
    assert shown["why"].startswith("It has been dead for")
    assert "hidden words" in shell.does("tasks", "show", str(task_id), "--payload")
    (data,) = shell.json("tasks", "show", str(task_id))
    assert (data["info"]["id"], data["children"], data["why"]["code"]) == (task_id, [child], "dead")


def test_a_task_that_is_not_there(shell: Shell) -> None:
    for command in ("show", "why"):
        result = shell.run("tasks", command, "77")
        assert result.exit_code == 4
        assert "There is no task 77" in result.output


def test_what_a_terminal_would_obey_is_not_printed(shell: Shell) -> None:
    (task_id,) = shell.world.put(
        State.DEAD, url="/\x1b[2J\u202eworker", last_error="\x1b]0;title\x07\nbad", last_status=500
    )
    shell.world.process()
    for words in (("tasks", "list"), ("tasks", "show", str(task_id)), ("tasks", "why", str(task_id)), ("errors",)):
        text = shell.does(*words)
        assert {c for c in text if not c.isprintable()} == {"\n"}, words
        assert "worker" in text or "bad" in text


@EVERY_DATABASE
def test_retry_by_filter_previews_asks_and_does_it(shell: Shell) -> None:
    mail = shell.world.put(State.DEAD, count=450, queue_name="mail")
    other = shell.world.put(State.DEAD, queue_name="other")
    words = ("tasks", "retry", "--filter", "queue:mail")
    result = shell.run(*words, answer="n\n")
    assert result.exit_code == 1
    assert "Retry 450 tasks (state:dead queue:mail)? [y/N]: n\n" in result.stderr
    assert "nothing was done" in result.stderr
    assert set(shell.states().values()) == {DEAD}
    result = shell.run(*words, answer="y\n")
    assert (result.exit_code, result.stdout) == (0, "450 tasks retried.\n")
    assert shell.states() == {**dict.fromkeys(mail, PENDING), **dict.fromkeys(other, DEAD)}
    result = shell.run(*words, "--yes")
    assert (result.exit_code, result.output) == (4, "No task matches: state:dead queue:mail\n")


def test_nobody_to_ask_is_a_no(shell: Shell) -> None:
    shell.world.put(State.DEAD)
    result = shell.run("tasks", "delete", "--filter", "state:dead")
    assert result.exit_code == 1
    assert "answer y, or pass --yes" in result.stderr
    assert len(shell.states()) == 1


def test_retry_by_id_needs_no_question_and_says_what_was_not_fit(shell: Shell) -> None:
    dead, again = shell.world.put(State.DEAD, count=2)
    (waiting,) = shell.world.put()
    assert shell.does("tasks", "retry", str(dead)) == "1 task retried.\n"
    result = shell.run("tasks", "retry", str(again), str(waiting))
    assert (result.exit_code, result.stdout) == (1, "1 task retried.\n")
    assert "1 of the 2 ids were not fit to be retried" in result.stderr
    result = shell.run("tasks", "retry", str(waiting))
    assert (result.exit_code, result.stdout) == (4, "")
    assert "It is due" in result.stderr or "No process" in result.stderr


def test_the_result_as_json(shell: Shell) -> None:
    shell.world.put(State.DEAD, count=3)
    (said,) = shell.json("tasks", "retry", "--filter", "state:dead", "--yes")
    assert (said["action"], said["done_count"], said["left_count"], said["is_complete"]) == ("retry", 3, 0, True)


@EVERY_DATABASE
def test_cancel_and_delete(shell: Shell) -> None:
    (waiting,) = shell.world.put()
    (running,) = shell.world.put(State.LEASED)
    (dead,) = shell.world.put(State.DEAD)
    assert shell.does("tasks", "cancel", str(waiting), str(running), "-y") == "2 tasks cancelled.\n"
    assert shell.states() == {running: DEAD, dead: DEAD}
    assert shell.does("tasks", "delete", "--filter", "reason:cancelled", "--yes") == "1 task deleted.\n"
    assert shell.states() == {dead: DEAD}


@EVERY_DATABASE
def test_run_makes_waiting_tasks_due_and_postpone_gives_them_another_time(shell: Shell) -> None:
    hour_us = 3_600_000_000
    ids = shell.world.put(count=3, ago=-3600)
    (named,) = shell.world.put(ago=-3600, name="order-7", queue_name="mail")
    assert shell.does("tasks", "run", str(ids[0]), str(named)) == "2 tasks are due now.\n"
    etas = dict(shell.stage.rows("SELECT id, eta_us FROM hookware_task"))
    assert etas[ids[0]] < shell.world.now_us + hour_us / 2
    assert etas[named] < shell.world.now_us + hour_us / 2
    assert etas[ids[1]] >= shell.world.now_us + hour_us
    words = ("tasks", "postpone", "--filter", "queue:default", "--countdown", "2h")
    result = shell.run(*words, answer="y\n")
    assert (result.exit_code, result.stdout) == (0, "3 tasks are postponed.\n")
    assert "Postpone 3 waiting tasks (state:waiting,pull queue:default)?" in result.stderr
    etas = dict(shell.stage.rows("SELECT id, eta_us FROM hookware_task"))
    assert all(etas[each] >= shell.world.now_us + 2 * hour_us for each in ids)
    assert etas[named] < shell.world.now_us + hour_us


def test_a_dead_task_is_not_run_and_why_is_said(shell: Shell) -> None:
    (dead,) = shell.world.put(State.DEAD)
    result = shell.run("tasks", "run", str(dead))
    assert (result.exit_code, result.stdout) == (4, "")
    assert "It has been dead for" in result.stderr


@pytest.mark.parametrize(("eta", "seconds"), [("2h", 7200), ("10min", 600), ("90", 90), ("1.5d", 129_600)])
def test_add_stores_a_task_and_prints_its_id(shell: Shell, eta: str, seconds: int) -> None:
    text = shell.does("add", "/worker", "-p", "b=2", "-p", "b=3", "--queue", "mail", "--eta", eta, "--name", "n-1")
    ((task_id, name, queue, url, body, eta_us),) = shell.stage.rows(
        "SELECT id, name, queue_name, url, body, eta_us FROM hookware_task"
    )
    assert (text, name, queue, url, bytes(body)) == (f"{task_id}\n", "n-1", "mail", "/worker", b"b=2&b=3")
    assert 0 <= eta_us - shell.world.now_us - seconds * 1_000_000 < 60_000_000
    assert "the name 'n-1' in queue 'mail' belongs to a task that still exists" in shell.refuses(
        "add", "/worker", "--queue", "mail", "--name", "n-1", status=1
    )


def test_errors_are_grouped(shell: Shell) -> None:
    assert shell.run("errors").exit_code == 4
    for number in range(3):
        shell.world.put(State.DEAD, last_status=500, last_error=f"order {number} has no paper", queue_name="mail")
    _head, row = shell.does("errors").splitlines()
    assert row.split()[:4] == ["3", "0", "500", "mail"]
    assert row.endswith("order # has no paper")
    (group,) = shell.json("errors", "--queue", "mail")
    assert (group["dead_count"], len(group["task_ids"])) == (3, 3)
    assert shell.run("errors", "--queue", "other").exit_code == 4


@pytest.mark.parametrize("database", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True)
@pytest.mark.parametrize("words", [("add", "/worker"), ("tasks", "retry", "--filter", "state:dead", "--yes")])
def test_the_processes_that_dispatch_are_told_at_once(shell: Shell, words: tuple[str, ...]) -> None:
    shell.world.put(State.DEAD)
    conninfo = shell.stage.database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo, autocommit=True) as ear:
        ear.execute(f"LISTEN {CHANNEL}".encode())
        shell.does("tasks", "list")
        shell.does(*words)
        assert len(list(ear.notifies(timeout=10, stop_after=1))) == 1
